"""The protocol of an optimiser: options, what it would ask, and the states it proposes."""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from llmal.errors import UserError
from llmal.prompts.file import Compiled, PromptFile
from llmal.tune.bench import Bench
from llmal.tune.split import Example

OPTIMISERS = {
    "guidelines": "llmal.tune.guidelines:Guidelines",
    "bootstrap": "llmal.tune.bootstrap:Bootstrap",
    "mipro": "llmal.tune.mipro:Mipro",
    "gepa": "llmal.tune.gepa:Gepa",
}
"""Name -> where the class is; imported only when named."""


class Start(NamedTuple):
    """What an optimiser begins with.

    Attributes:
        plain: the prompt file as written.
        state: the state beside it now, empty when there is none.
        optimise: answers to learn from.
        validate: answers to choose on.
    """

    plain: PromptFile
    state: Compiled
    optimise: list[Example]
    validate: list[Example]

    @property
    def prompt(self) -> PromptFile:
        """The prompt in use now."""
        return self.state.applied(self.plain)


class Optimiser(BaseModel, ABC):
    """Proposes other states of a prompt; its fields are its options.

    It sees the answers to learn from and those to choose on, and never those the gain is reported on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = ""

    @abstractmethod
    def calls(self, n_optimise: int, n_validate: int) -> int:
        """Most calls that proposing takes, as an estimate shown before it starts."""

    def states(self) -> int:
        """Most states it proposes; each is tried on all validation answers."""
        return 1

    @abstractmethod
    def propose(self, start: Start, bench: Bench) -> list[Compiled]:
        """States worth trying, none when nothing was found.

        Raises:
            BudgetSpent, ModelError, Interrupted: from the bench; answers are kept.
        """

    def check(self) -> None:
        """Refuse before any call when something is missing.

        Raises:
            MissingExtra: an optional package; the message holds the pip line.
        """


def optimiser(name: str, options: dict[str, Any]) -> Optimiser:
    """The optimiser of that name with these options.

    Raises:
        UserError: no such name, or an option that is wrong.
    """
    if name not in OPTIMISERS:
        near = difflib.get_close_matches(name, OPTIMISERS, n=1)
        raise UserError(
            f"no optimiser called '{name}'; known: {', '.join(OPTIMISERS)}",
            where="--use",
            hint=f"Did you mean '{near[0]}'?" if near else "",
        )
    module, _, attribute = OPTIMISERS[name].partition(":")
    cls: type[Optimiser] = getattr(importlib.import_module(module), attribute)
    try:
        return cls.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        words = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        known = ", ".join(cls.model_fields)
        raise UserError(words, where="--set", hint=f"{name} knows: {known}") from error
