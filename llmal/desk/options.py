"""How the review page is served: where, and to whom."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from llmal.errors import UserError
from llmal.lm.endpoint import is_loopback
from llmal.text import repaired

MOST_NAME = 200
"""Characters of a person's name."""

MOST_PEOPLE = 100
"""People on one desk: each has texts before them, and every token is compared with every one of theirs."""


@dataclass(frozen=True)
class Options:
    """Where the page is, and who answers on it.

    Attributes:
        host, port: where to listen; port 0 takes any free one.
        people: whose answers they are.
        adjudicators: who settles disputes between them; the first where none is named.
        tokens: what each one's page has to show for every text and every answer, in the order of `people`;
            made anew at each start.
    """

    host: str = "127.0.0.1"
    port: int = 0
    people: tuple[str, ...] = ("someone",)
    adjudicators: tuple[str, ...] = ()
    tokens: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Names as they are kept, and a token each."""
        people = tuple(repaired(person)[0] for person in self.people) or ("someone",)
        settle = tuple(repaired(person)[0] for person in self.adjudicators) or people[:1]
        object.__setattr__(self, "people", people)
        object.__setattr__(self, "adjudicators", settle)
        made = (secrets.token_urlsafe() for _ in people[len(self.tokens) :])
        object.__setattr__(self, "tokens", (*self.tokens, *made))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host)

    @property
    def token(self) -> None:
        """No one token opens the page: each person has their own."""
        return

    def who(self, shown: bytes) -> str | None:
        """Whose token the header `Authorization` shows; takes the same time whether and whose it is."""
        found = None
        for person, token in zip(self.people, self.tokens, strict=True):
            if hmac.compare_digest(shown, b"Bearer " + token.encode()):
                found = person
        return found

    def check(self) -> None:
        """Refuse names that are none.

        Raises:
            UserError: a blank, endless or repeated name, too many, or who settles is not on the desk.
        """
        if any(not name.strip() or len(name) > MOST_NAME for name in self.people):
            raise UserError(f"expected a name of 1 to {MOST_NAME} characters", where="--person")
        if len(set(self.people)) < len(self.people):
            raise UserError("two people have the same name", where="--person", hint="Tell them apart")
        if len(self.people) > MOST_PEOPLE:
            raise UserError(f"at most {MOST_PEOPLE} people answer on one page", where="--person")
        if not set(self.adjudicators) <= set(self.people):
            raise UserError(
                "who settles disputes has no page of their own",
                where="--adjudicator",
                hint="Name them with --person, too",
            )

    def warning(self) -> str:
        """What to know before others are let in; empty where only this machine can reach the page."""
        if self.loopback:
            return ""
        who = self.people[0] if len(self.people) == 1 else "the person it is for"
        return (
            f"others can reach {self.host}: whoever has an address below reads the texts and answers as "
            f"{who}, and nothing on the way is encrypted; let a proxy in front speak https\n"
        )
