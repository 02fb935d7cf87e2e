"""Where a labelling server is, and with which key: from the command line and the environment, never data."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmal.corpus import shown
from llmal.errors import LlmalError, UserError
from llmal.lm.endpoint import Endpoint, is_loopback

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 120.0
"""Seconds for one request; an export of 100,000 tasks is one."""

MOST_WORDS = 200
"""Characters of a server's own words that stand in an error."""

KEY = re.compile(r"[\x21-\x7e]+")
"""What a key is made of; anything else could not be sent in a header, or would end it."""


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        url: of the server, without a slash at its end.
        key: the secret itself; never stored, logged or shown.
    """

    url: str
    key: str = field(repr=False)

    @property
    def here(self) -> bool:
        """Whether it is this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    def transport(self) -> httpx.Client:
        """A client that follows no redirect, so that the key goes nowhere else."""
        import httpx

        # A proxy for the internet has no business with this machine.
        return httpx.Client(follow_redirects=False, trust_env=not self.here, timeout=TIMEOUT_S)

    def told(self, error: Exception) -> LlmalError:
        """What went wrong, as one sentence without the key; headers may hold a session and are left out."""
        status = getattr(error, "status_code", None)
        said: Any
        body = getattr(error, "body", None)
        said = error.__cause__ or error
        if hasattr(error, "body"):
            said = body.get("detail", "") if isinstance(body, dict) else ""
        words = Endpoint(base_url=self.url, key=self.key).redacted(str(said).encode("utf-8", "replace"))
        parts = (type(error).__name__, str(status or ""), shown(" ".join(words.split()), limit=MOST_WORDS))
        return LlmalError(
            f"the server refused or could not be reached: {' '.join(part for part in parts if part)}",
            where=self.url,
            hint="Look at address and key, then say the same again: nothing goes out or comes in twice",
        )


def address_of(url: str | None, *, url_name: str, key_name: str) -> Address:
    """The address somebody named, with the key of the environment.

    Args:
        url: from the command line; the environment's where None.
        url_name: environment variable with the address.
        key_name: environment variable with the key; it is read nowhere else, and written nowhere.

    Raises:
        UserError: no address or no key, a password in the address, or a key that would cross a network in
            clear text.
    """
    given = (url or os.environ.get(url_name, "")).strip().rstrip("/")
    where = "--url" if url else url_name
    if not given:
        raise UserError(
            "no address of the server", where="--url", hint=f"Say --url https://HOST, or set {url_name}"
        )
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise UserError("expected an address such as https://host", where=where)
    if parts.username or parts.password:
        raise UserError("an address must not carry a password", where=where, hint=f"Use {key_name}")
    if parts.scheme == "http" and not is_loopback(host):
        raise UserError("the key would cross the network in clear text", where=where, hint="Use https")
    return Address(given, _key(key_name))


def _key(name: str) -> str:
    key: Any = os.environ.get(name, "").strip()
    if not key:
        raise UserError("no key for the server", where=name, hint=f"Put it into the environment as {name}")
    if not KEY.fullmatch(key):
        raise UserError("the key holds characters that no key has", where=name, hint="Copy it again")
    return str(key)
