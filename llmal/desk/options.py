"""How the review page is served: where, and to whom."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from llmal.errors import UserError
from llmal.lm.endpoint import is_loopback

MOST_NAME = 200
"""Characters of a person's name."""


@dataclass(frozen=True)
class Options:
    """Where the page is, and who answers on it.

    Attributes:
        host, port: where to listen; port 0 takes any free one.
        person: whose answers they are.
        token: what the page has to show for every text and every answer; made anew at each start.
    """

    host: str = "127.0.0.1"
    port: int = 0
    person: str = "someone"
    token: str = field(default_factory=secrets.token_urlsafe, repr=False)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Refuse a name that is none.

        Raises:
            UserError: a blank or endless name.
        """
        if not self.person.strip() or len(self.person) > MOST_NAME:
            raise UserError(f"expected a name of 1 to {MOST_NAME} characters", where="--person")

    def warning(self) -> str:
        """What to know before others are let in; empty where only this machine can reach the page."""
        if self.loopback:
            return ""
        return (
            f"others can reach {self.host}: whoever has the address below reads the texts and answers as "
            f"{self.person}, and nothing on the way is encrypted; let a proxy in front speak https\n"
        )
