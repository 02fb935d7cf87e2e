"""How a classifier is served: where, for whom, and who answers what it may not answer itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmal.errors import UserError
from llmal.lm.endpoint import is_loopback

MOST_CHARS = 20_000
"""Characters of a text: as many as `corpus.max_chars` keeps, and no more tokens than any student reads."""

MOST_TEXTS = 256
"""Texts of one request."""

MOST_BYTES = 4 * 2**20
"""Bytes of one request."""

MOST_QUEUED = 100_000
"""Texts that may wait for people: beyond that somebody sends more than people will ever read."""

SHORTEST_TOKEN = 16
"""Characters of a token that cannot be guessed by trying."""


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        host, port: where to listen; port 0 takes any free one.
        token: what a client has to show on every path but /health; None asks for none.
        llm: whether what the student may not answer is asked of the pipeline's annotator.
        usd, calls: most dollars and calls for that, over all starts of this server's state.
        llm_timeout_s: seconds a request waits for the language model.
        queue: whether what no machine may answer waits for people.
        on_drift: what becomes of machines' answers once a promise is withdrawn: asked of the next tier, or
            given all the same, marked.
        check_share: share of the student's answers that people are shown too, in [0, 1].
        alarm_rate: probability of ever raising a false alarm while nothing changes, in (0, 0.5).
        backend: as in `llmal.load`.
        state: folder of the serving store; None: the usual one.
        pipeline: file that says who the language model is, for an export without its run.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    llm: bool = False
    usd: float | None = None
    calls: int | None = None
    llm_timeout_s: float = 20.0
    queue: bool = True
    on_drift: Literal["defer", "warn"] = "defer"
    check_share: float = 0.0
    alarm_rate: float = 0.05
    backend: str | None = None
    state: Path | None = None
    pipeline: Path | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Refuse what would be unsafe or unpaid for.

        Raises:
            UserError: an address that others can reach without a token, a token that can be guessed, or a
                number out of range.
        """
        if not self.loopback and self.token is None:
            raise UserError(
                f"others can reach {self.host}, so a token is needed",
                where="--host",
                hint="Set LLMAL_TOKEN, and let a proxy in front speak https",
            )
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise UserError(
                f"expected at least {SHORTEST_TOKEN} plain characters",
                where="the token",
                hint="Make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`",
            )
        if not 0 <= self.check_share <= 1:
            raise UserError("expected a share between 0 and 1", where="--check-share")
        if not 0 < self.alarm_rate < 0.5:
            raise UserError("expected a rate between 0 and 0.5", where="--alarm-rate")
        if self.check_share and not self.queue:
            raise UserError("people are shown answers through the queue", where="--no-queue",
                            hint="Leave it out, or --check-share")  # fmt: skip
