"""Where and how fast calls are sent, and how often each kind of failure is tried again."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from llmal.errors import UserError

if TYPE_CHECKING:
    from llmal.lm.http import Line
    from llmal.store.store import Store

SECRET_LENGTH = 8
"""Shorter keys (`EMPTY`, `none`) are no secret, and taking them out of an answer could spoil it."""


class Retries(BaseModel):
    """How often a call is sent again after each kind of failure; this is the only retry loop there is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limit: int = Field(6, ge=0, description="after HTTP 429")
    server: int = Field(3, ge=0, description="after HTTP 5xx")
    malformed: int = Field(1, ge=0, description="after a 200 that is no chat completion")
    connect: int = Field(4, ge=0, description="after a connection that failed before anything was sent")
    timeout: int = Field(1, ge=0, description="after a deadline or a connection lost half way")


class Endpoint(BaseModel):
    """Where and how calls are sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str
    key: str | None = Field(None, repr=False, description="the secret itself; never stored, logged or shown")
    key_name: str = ""
    in_flight: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 60.0
    retries: Retries = Retries()
    tolerate: float = 0.02
    place: str = Field("annotate", description="key of the file that errors point at")

    def check(self) -> None:
        """Refuse to send a key in clear over a network.

        Raises:
            UserError: a key, plain http, and a host that is not this machine.
        """
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError("expected a URL such as https://host/v1", where=f"{self.place}.base_url")
        if parts.username or parts.password:
            raise UserError(
                "a URL must not carry a password",
                where=f"{self.place}.base_url",
                hint=f"Use {self.place}.api_key_env",
            )
        if self.key and parts.scheme == "http" and not is_loopback(parts.hostname):
            raise UserError(
                "a key would cross the network in clear text",
                where=f"{self.place}.base_url",
                hint="Use https",
            )

    def redacted(self, raw: bytes) -> str:
        """What the endpoint said, as text without the key, however it spells it."""
        text, key = raw.decode("utf-8", "replace"), self.key or ""
        if len(key) >= SECRET_LENGTH:
            for spelled in (key, json.dumps(key)[1:-1], key.replace("/", "\\/")):
                text = text.replace(spelled, "[key]")
        return text

    def line(self, store: Store, say: Callable[[str], None] = lambda _: None) -> Line:
        """What carries requests there: HTTP, unless a kind of endpoint has its own.

        Args:
            store: of the run.
            say: shows a line of progress.
        """
        from llmal.lm.http import Http

        return Http(self)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
