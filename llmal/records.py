"""The records stages exchange: plain, frozen, and free of any stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")

Verdict = Literal["accept", "hold", "drop"]
"""What the filter says of an annotation: it trains, it waits for a person, or it leaves the run."""

Status = Literal[
    "ok", "abstained", "unparsed", "off_list", "refused", "filtered", "length", "failed", "suspect"
]
"""How an annotator's answer ended; only `ok` carries a label."""

Kind = Literal["single", "multi"]

ConfidenceKind = Literal["logprobs", "stated", "similarity", "recorded", "votes", "samples", "own", "none"]
"""Where a raw confidence comes from (`own`: a plug-in's own scale); kinds are never mixed in one column."""


class Label(BaseModel):
    """One class: its name, what it means, and texts that show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()


class LabelSchema(NamedTuple):
    """The classes of a run, in the column order of every probability array.

    Attributes:
        kind: `single` (exactly one label an item) or `multi` (any number, none included).
        labels: the C classes; `other` is the last of them when asked for.
        abstain: whether annotators may decline to answer.
    """

    kind: Kind
    labels: tuple[Label, ...]
    abstain: bool

    @property
    def names(self) -> list[str]:
        """The C class names in column order."""
        return [label.name for label in self.labels]

    def columns(self) -> dict[str, int]:
        """Class name -> column."""
        return {name: i for i, name in enumerate(self.names)}

    def recipe(self) -> str:
        """Hash of everything an annotator is told about the classes."""
        return recipe("schema", self.kind, self.abstain, [label.model_dump() for label in self.labels])


Labels = tuple[str, ...]
"""The labels of one item: exactly one name when single, any number in schema order when multi."""


class Item(NamedTuple):
    """One distinct text of the corpus.

    Attributes:
        seq: row of the item in every array of the run, 0-based, in order of first appearance.
        key: hash of the normalised text; rows that differ only in case or blanks share it.
        text: the text as it first appeared, cut to `corpus.max_chars`.
        flags: what is odd about it (`hidden characters`, `truncated`, ...).
    """

    seq: int
    key: str
    text: str
    flags: tuple[str, ...] = ()


class Annotation(NamedTuple):
    """One annotator's answer about one item.

    Attributes:
        item: the item's `seq`.
        status: `ok`, or why there is no label.
        labels: the answer; empty unless `ok` (and possibly empty when multi).
        probs: (C,) distribution over the classes as the annotator gave it, or None.
        confidence: raw confidence in the answer in [0, 1], or None when the annotator gives none.
        kind: where the confidence comes from.
        detail: for a person to read: the reason of a failure, the mass outside the options.
        request: hash of the paid request behind it, or None.
    """

    item: int
    status: Status
    labels: Labels = ()
    probs: tuple[float, ...] | None = None
    confidence: float | None = None
    kind: ConfidenceKind = "none"
    detail: str = ""
    request: str | None = None


class Decision(NamedTuple):
    """The filter's word on one annotation: verdict, the score that decided, the reason in words."""

    item: int
    verdict: Verdict
    score: float | None
    reason: str


ANSWERED = "a person answered"
"""Reason of a route that repeats what people say: no machine's answer."""


class Route(NamedTuple):
    """Who answers an item: `student`, `llm` or `person`, with label and confidence where there is one."""

    item: int
    who: Literal["student", "llm", "person"]
    labels: Labels
    confidence: float | None
    reason: str


class Word(NamedTuple):
    """What one person says of one item, the newest of their answers that stands.

    Attributes:
        item: the item's `seq`.
        person: who said it.
        labels: the answer; possibly empty when multi.
        note: a comment beside it, or empty.
        seconds: that the person looked at the text, None where nobody measured.
        at: when, in seconds since 1970.
        adjudicates: it settles a dispute between people.
    """

    item: int
    person: str
    labels: Labels
    note: str
    seconds: float | None
    at: float
    adjudicates: bool = False


class Tally(NamedTuple):
    """What a stage did: facts wanted, facts new, words for the progress line, and why rounds end here."""

    wanted: int
    new: int
    note: str = ""
    ends: str = ""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: the same text for the same value, everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)


def recipe(tag: str, *parts: Any) -> str:
    """Tagged hash of all that determines a fact.

    Args:
        tag: what kind of fact, so that two kinds never share a recipe.
        *parts: anything JSON can hold; other recipes; pydantic models.

    Returns:
        The tag and 16 hex digits of SHA-256 (64 bits: a collision within one run is not a practical concern).
    """
    return f"{tag}-{hashlib.sha256(canonical([tag, *parts]).encode()).hexdigest()[:16]}"


def unasked(route: str) -> str:
    """Recipe of the routes that audit items would have had, had no person answered them."""
    return f"{route}-unasked"


def routed(annotations: str) -> str:
    """Recipe of the answers that routing asked the annotator for: they answer items, and teach nobody."""
    return f"{annotations}-routed"


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` rows, the last one shorter; draws from the source only as far as needed."""
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"cannot hash a {type(value).__name__}")
