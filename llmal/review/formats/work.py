"""What every tool's file says of an item: its text, what the machine thinks, and what people said."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llmal.records import Labels, LabelSchema

AUDIT = "audit"
"""Why an item waits that measures quality: no machine's answer goes out with it, in any format."""

CLOCK_SLACK = 86_400.0
"""Seconds by which a tool's clock may be ahead of ours; an answer from later than that has no time."""

LONGEST = 1e7
"""Seconds, four months: a longer time spent on one text is none."""


class Said(NamedTuple):
    """One person's answer.

    Attributes:
        labels: as the file has them; nobody has compared them with the schema yet.
        person: who, or None where the file does not say.
        note: for a person to read.
        seconds: spent on it, None where nobody measured.
        at: Unix time of the answer, None where the file does not say.
        shown: the short list it was chosen from; None where it was the item's, or nobody can tell.
        saw: the machine's labels that stood beside the text; None where there were none.
        adjudicates: it settles a dispute between people.
    """

    labels: Labels
    person: str | None = None
    note: str = ""
    seconds: float | None = None
    at: float | None = None
    shown: Labels | None = None
    saw: Labels | None = None
    adjudicates: bool = False


class Work(NamedTuple):
    """One item and all that goes out or comes back with it.

    Attributes:
        key: the item's, None where the file lost it.
        text: of the item, None where the file lost it.
        why: it waits.
        guess: the student's answer; empty for items of the audit.
        confidence: of the guess, in [0, 1].
        candidates: the labels a person is shown first, likeliest first.
        said: people's answers.
        skipped: answers in the file that are none: drafts, cancelled, rejected or ignored ones.
        flag: why somebody flagged the item, possibly empty; None where nobody did.
    """

    key: str | None
    text: str | None
    why: str = ""
    guess: Labels = ()
    confidence: float | None = None
    candidates: Labels = ()
    said: tuple[Said, ...] = ()
    skipped: int = 0
    flag: str | None = None


class Odd(ValueError):
    """A task that has not the shape its tool writes, told in one sentence."""


class Format(Protocol):
    """The files of one tool, for one schema.

    Attributes:
        name: on the command line.
        suffix: the file's ending.
        wraps: whether tasks stand in one JSON array; one a line otherwise.
    """

    name: str
    suffix: str
    wraps: bool

    def __init__(self, schema: LabelSchema) -> None: ...

    @staticmethod
    def mine(task: dict[str, Any]) -> bool:
        """Whether a file that begins with this task is one of this tool's."""

    def tasks(self, work: Work) -> Iterator[dict[str, Any]]:
        """The item as the tool wants it: one task, or one for each answer."""

    def read(self, task: dict[str, Any]) -> Work:
        """A task that comes back. Raises Odd where it is none."""

    def beside(self, path: Path) -> dict[Path, str]:
        """Files that the tool needs to set up the project, by where they go."""


def kept(said: Said) -> dict[str, Any]:
    """An answer as our own part of a file keeps it; what a tool's own keys lose comes back from here."""
    given = {k: v for k, v in said._asdict().items() if v != Said._field_defaults.get(k)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}


def remembered(value: Any) -> Said | None:
    """An answer of `kept`; None where somebody broke it."""
    given = table(value)
    try:
        labels = names_of(given.get("labels"))
    except Odd:
        return None
    return Said(
        labels,
        text_of(given.get("person")),
        text_of(given.get("note")) or "",
        seconds(given.get("seconds")),
        moment(given.get("at")),
        some(given["shown"]) if "shown" in given else None,
        some(given["saw"]) if "saw" in given else None,
        given.get("adjudicates") is True,
    )


def number(value: Any, low: float, high: float) -> float | None:
    """A number within bounds; None for all else, NaN, infinity, booleans and texts included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and low <= value <= high else None


def seconds(value: Any) -> float | None:
    """Time spent that can be true, else None."""
    return number(value, 0.0, LONGEST)


def moment(value: Any) -> float | None:
    """Unix time from a number or an ISO 8601 text, None where it is neither or lies ahead of us."""
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
            value = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    return number(value, 0.0, time.time() + CLOCK_SLACK)


def iso(at: float) -> str:
    """Unix time as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def text_of(value: Any) -> str | None:
    """A text, None where it is something else."""
    return value if isinstance(value, str) else None


def names_of(value: Any) -> Labels:
    """Label names from a list of texts, or from one text.

    Raises:
        Odd: it is something else.
    """
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or not all(isinstance(name, str) for name in several):
        raise Odd("its labels are no list of names")
    return tuple(several)


def some(value: Any) -> Labels:
    """Like `names_of` for what may be missing or broken without harm: then it is empty."""
    try:
        return names_of(value)
    except Odd:
        return ()


def table(value: Any) -> dict[str, Any]:
    """A JSON object, an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def first_to_last(work: Work, names: list[str]) -> list[str]:
    """All labels, the candidates first."""
    return [*work.candidates, *(name for name in names if name not in work.candidates)]
