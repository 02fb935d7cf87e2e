"""Filters that judge an answer beside the answers about other items: what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.clean import FEWEST, INVALID, cross_fitted
from llmal.filter.confidence import WHY
from llmal.filter.stage import NOTHING, Checked, Evidence, Filter
from llmal.records import Annotation, Decision, Kind, LabelSchema

SEED = 0
"""Of folds and mixtures: the same answers are always judged alike, whatever the seed of the run."""

STUDENT = "cross-fitted student 1"
"""Names what the student said among the run's arrays; raised when `cross_fitted` says something else."""

UNKNOWN = "there is nothing to compare it with: the filter was given no vectors of this item"
"""Why an annotation that is not among the peers is held."""


class Crowd(NamedTuple):
    """Answers as arrays, one row each.

    Attributes:
        vectors: gives (n, d) unit rows.
        labels: (n,) class of each row.
        taught: (n,) the class again, `INVALID` for items of the audit sample: nothing learns from those.
        names: C class names.
        items: n items the rows belong to; empty where no filter asks.
        people: answers that people checked; empty for a filter that uses none.
        keep: see `Peers`.
    """

    vectors: Callable[[], NDArray[np.float32]]
    labels: NDArray[np.int64]
    taught: NDArray[np.int64]
    names: list[str]
    items: tuple[int, ...] = ()
    people: tuple[Checked, ...] = ()
    keep: Callable[[str, Callable[[], NDArray[np.float32]]], NDArray[np.float32]] = lambda _, make: make()

    def student(self, taught: NDArray[np.int64] | None = None, name: str = STUDENT) -> NDArray[np.float64]:
        """(n, C) what a linear student that did not learn from a row's own label says of it.

        In a run it is fitted once: another threshold, or another filter that asks, reads what it said.

        Args:
            taught: (n,) what to learn from in place of all taught labels; `INVALID` where nothing.
            name: of what is kept; another one for other labels.
        """
        labels = self.taught if taught is None else taught

        def made() -> NDArray[np.float32]:
            return cross_fitted(self.vectors(), labels, len(self.names), seed=SEED).astype(np.float32)

        return self.keep(name, made).astype(np.float64)


class Opinion(NamedTuple):
    """Of each row: the score to keep, whether the label may train, and why."""

    score: NDArray[np.float64]
    clean: NDArray[np.bool_]
    why: list[str]


class ByPeers(Filter):
    """Judges each label beside all the others; needs no confidence, and no answer of a person.

    With fewer than 30 answers, or answers of one class only, nothing can be compared and all are held.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"peers"})
    kinds: ClassVar[frozenset[Kind]] = frozenset({"single"})

    @abstractmethod
    def weigh(self, crowd: Crowd) -> Opinion:
        """An opinion on every row; at least `FEWEST` rows and two classes are taught."""

    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""
        self.refuse_other_kinds(schema)
        judged = self._judged(schema, evidence) if annotations else {}
        return [
            Decision(a.item, "hold", None, WHY[a.status])
            if a.status != "ok"
            else judged.get(a.item, Decision(a.item, "hold", None, UNKNOWN))
            for a in annotations
        ]

    def unable(self, schema: LabelSchema, evidence: Evidence) -> str:
        """Why nothing can be judged by this evidence; empty where it can."""
        if evidence.peers is None:
            return UNKNOWN
        labels = [a.labels[0] for a in evidence.peers.annotations if a.item not in evidence.peers.reserved]
        n, classes = len(labels), len(set(labels))
        if n < FEWEST or classes < 2:
            return f"too few to judge by: {n} answers of {classes} classes, where it takes {FEWEST} of 2"
        return ""

    def _judged(self, schema: LabelSchema, evidence: Evidence) -> dict[int, Decision]:
        peers = evidence.peers
        if peers is None:
            return {}
        items = tuple(a.item for a in peers.annotations)
        if why := self.unable(schema, evidence):
            return {s: Decision(s, "hold", None, why) for s in items}
        column = schema.columns()
        labels = np.array([column[a.labels[0]] for a in peers.annotations], np.int64)
        free = np.array([s not in peers.reserved for s in items], bool)
        taught = np.where(free, labels, INVALID)
        found = self.weigh(
            Crowd(peers.vectors, labels, taught, schema.names, items, evidence.people, peers.keep)
        )
        return {
            s: Decision(s, "accept" if clean else "hold", float(score), why)
            for s, score, clean, why in zip(items, found.score, found.clean, found.why, strict=True)
        }
