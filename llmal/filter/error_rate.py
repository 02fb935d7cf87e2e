"""Hold as many labels of each class as people found wrong: those a student believes least."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.clean import INVALID
from llmal.filter.peers import ByPeers, Crowd, Opinion
from llmal.filter.stage import Checked, Evidence
from llmal.records import LabelSchema

FEWEST_CHECKED = 30
"""Answers of people below which a share of errors says little: 3 of 30 wrong is anything from 3 to 26 %."""

WEIGHT = 5.0
"""Answers that the share of errors over all classes counts for in each class: with 16 checked answers a class
alone would swing by 10 points. Ours."""


class ErrorRate(ByPeers):
    """Accept from the rank upward that people's answers set for each label.

    The score of a label is the share of equal labels that a student, which did not learn from it, finds
    harder to believe. If people found a tenth of the answers `bug` to be wrong, those with a score below 0.1
    are held; where people found no error nothing is held. Only people's answers about the audit sample count
    (say `audit: {annotate: true}`), and for an item of the sample its own is left out. Source: pruning by
    class of Northcutt et al. 2021, with shares that people counted in place of estimated ones.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"peers", "people"})

    fewest: int = Field(FEWEST_CHECKED, ge=10, description="answers of people it takes to know the shares")

    def unable(self, schema: LabelSchema, evidence: Evidence) -> str:
        """Why nothing can be judged; also where people checked too few answers."""
        n = len(drawn(evidence.people))
        if n < self.fewest:
            return f"people have checked {n} of the {self.fewest} answers about the audit that it takes"
        return super().unable(schema, evidence)

    def weigh(self, crowd: Crowd) -> Opinion:
        """The rank of each label among equal ones, and whether it reaches the share of errors."""
        probs, taught = crowd.student(), crowd.taught != INVALID
        own = probs[np.arange(len(probs)), crowd.labels]
        score = np.ones(len(own))
        for c in np.unique(crowd.labels):
            rows = crowd.labels == c
            others = np.sort(own[rows & taught])
            score[rows] = np.searchsorted(others, own[rows]) / max(len(others), 1)
        bars, counts = self._bars(crowd)
        clean = score >= bars
        why = [
            f"rank {p:.3f} {'>=' if ok else '<'} {bar:.3f}, the share of wrong `{crowd.names[c]}` among "
            f"{counts[c]} that people checked"
            for p, bar, c, ok in zip(score, bars, crowd.labels, clean, strict=True)
        ]
        return Opinion(score, clean, why)

    def _bars(self, crowd: Crowd) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(n,) share of errors each row has to reach, (C,) answers checked."""
        column = {name: c for c, name in enumerate(crowd.names)}
        known = {c.annotation.item: (column[c.annotation.labels[0]], c.right) for c in drawn(crowd.people)}
        wrong, n = np.zeros(len(crowd.names)), np.zeros(len(crowd.names), np.int64)
        for c, right in known.values():
            n[c] += 1
            wrong[c] += not right
        bars = _shares(wrong, n)[crowd.labels]
        for i, item in enumerate(crowd.items):
            if item in known:
                c, right = known[item]
                without = np.eye(len(n), dtype=np.int64)[c]
                bars[i] = _shares(wrong - without * (not right), n - without)[crowd.labels[i]]
        return bars, n


def drawn(people: tuple[Checked, ...]) -> list[Checked]:
    """Answers about items of the audit sample: others were shown to people because something was unsure."""
    return [c for c in people if c.drawn]


def _shares(wrong: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) share of errors by label, drawn towards the share over all."""
    overall = wrong.sum() / max(n.sum(), 1)
    return np.asarray((wrong + WEIGHT * overall) / (n + WEIGHT))
