"""The one error tree: what went wrong, where, and what to do; each branch has its exit code."""

from __future__ import annotations


class LlmalError(Exception):
    """Anything llmal itself refuses or cannot do, told in one sentence.

    Args:
        message: what was wrong and what was expected.
        where: file:line:column, item id or key in the pipeline file; empty when there is no such place.
        hint: what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message = message
        self.where = where
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}. {self.hint}" if self.hint else text


class UserError(LlmalError):
    """Something the user wrote has to change."""

    exit_code = 2


class SpecError(UserError):
    """The pipeline file is wrong; holds every problem found, each with line and column."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class CorpusError(UserError):
    """The corpus cannot be read as the file says."""


class PromptError(UserError):
    """A prompt file is wrong."""


class UnknownPlugin(UserError):
    """A name in the file matches no plug-in of that stage."""


class MissingExtra(UserError):
    """An optional package is needed; the message holds the pip line."""


class ReviewError(UserError):
    """A table of people's answers cannot be read."""


class ModelError(LlmalError):
    """The language model's endpoint cannot serve this run."""

    exit_code = 3


class BudgetSpent(LlmalError):
    """The next call could pass a cap of `budget:`, so it was not made."""

    exit_code = 4


class StoreError(LlmalError):
    """The run folder cannot be used: locked, newer, damaged, or full."""

    exit_code = 5


class RunInUse(StoreError):
    """Another process holds the run now; it may be free in a moment."""


class Interrupted(LlmalError):
    """The user asked to stop; everything answered so far is kept."""

    exit_code = 130
