"""Hold the labels that confident learning counts as wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.clean import FEWEST, INVALID
from llmal.filter.peers import STUDENT, ByPeers, Crowd, Opinion

ABOVE_ALL = 2.0
"""Threshold of a class that nobody names: no probability reaches it."""

SLACK = 1e-6
"""A probability this little below a threshold reaches it: means of equal numbers are not exact."""


FAR = 0.2
"""Share of the likeliest class's probability below which a label that was not doubted is held too. Ours:
accepting more of what the first student doubted gained 0.2 to 1.9 points on trec and babe at 20 and 30 %."""


class Joint(NamedTuple):
    """How often which label stands where which would be right.

    Attributes:
        thresholds: (C,) mean probability of each class among the rows that have its label.
        counts: (C, C) rows by given label and the class they confidently belong to.
        wrong: (C, C) whole rows to hold by given and right label; the diagonal is 0.
    """

    thresholds: NDArray[np.float64]
    counts: NDArray[np.int64]
    wrong: NDArray[np.int64]


class Confident(ByPeers):
    """Hold as many labels of each class as confident learning counts wrong, then ask a cleaner student again.

    A linear student says how likely each class is without having learnt from the row's label. A row whose
    probability of a class reaches what rows of that label have on average counts as one of that class; scaled
    to the number of labels, the counts off the diagonal say how many labels of which class are wrong, and
    those with the widest margins are doubted. A second student learns from the labels that are left. What it
    would say itself is accepted, doubted or not; of the others, doubted ones are held, and so is what it
    gives less than a fifth of its likeliest class. The score is its probability of the label.
    Source: Northcutt et al. 2021 (confident learning, pruned by noise rate); the second student is ours.
    """

    rare: int = Field(20, ge=1, description="labels of a class with fewer answers than this are not judged")
    again: bool = Field(True, description="ask a second student, which learns from the labels that are left")

    def weigh(self, crowd: Crowd) -> Opinion:
        """Whether each label is one of those counted as wrong."""
        probs, taught = crowd.student(), crowd.taught != INVALID
        sizes = np.bincount(crowd.labels[taught], minlength=len(crowd.names))
        found = joint(probs[taught], crowd.labels[taught])
        found.wrong[sizes < self.rare] = 0
        bars = cutoffs(probs[taught], crowd.labels[taught], found.wrong)
        held = doubtful(probs, crowd.labels, bars)
        left = np.where(held, INVALID, crowd.taught)
        if self.again and held.any() and _teaches(left):
            probs = crowd.student(left, f"{STUDENT} again {self.rare}")
            held = _still_doubtful(probs, crowd.labels, held) & (sizes >= self.rare)[crowd.labels]
        own = probs[np.arange(len(probs)), crowd.labels]
        why = [
            f"the student gives its label {p:.3f}"
            + (f" and `{crowd.names[c]}` {row[c]:.3f}, too wide a margin" if bad else "")
            for p, row, c, bad in zip(own, probs, probs.argmax(axis=1), held, strict=True)
        ]
        return Opinion(own, ~held, why)


def _teaches(labels: NDArray[np.int64]) -> bool:
    known = labels[labels != INVALID]
    return len(known) >= FEWEST and len(np.unique(known)) > 1


def _still_doubtful(
    probs: NDArray[np.floating], labels: NDArray[np.int64], held: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(n,) which labels the second student's probabilities leave in doubt, or put there."""
    own, top = probs[np.arange(len(labels)), labels], probs.max(axis=1)
    return np.asarray((own < top) & (held | (own < FAR * top)), np.bool_)


def joint(probs: NDArray[np.floating], labels: NDArray[np.int64]) -> Joint:
    """Count labels by what they are and what they should be.

    Args:
        probs: (n, C) of a student that did not learn from the row itself.
        labels: (n,) class of each row.
    """
    n_classes = probs.shape[1]
    sizes = np.bincount(labels, minlength=n_classes)
    thresholds = np.array(
        [probs[labels == c, c].mean() if sizes[c] else ABOVE_ALL for c in range(n_classes)], np.float64
    )
    reached = probs >= thresholds - SLACK
    best = np.where(reached, probs, -1.0).argmax(axis=1)
    counted = reached.any(axis=1)
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (labels[counted], best[counted]), 1)
    filled = counts + np.diag(counts.diagonal() == 0)  # one right label is assumed of every class
    wrong = np.stack([_shared_out(row, size) for row, size in zip(filled, sizes, strict=True)])
    np.fill_diagonal(wrong, 0)
    return Joint(thresholds, counts, wrong)


def _shared_out(row: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The row scaled to a sum of `size` in whole numbers; the rest goes to the largest remainders."""
    exact = row * (size / row.sum())
    whole = np.floor(exact + SLACK).astype(np.int64)
    largest = np.argsort(exact - whole, kind="stable")[::-1]  # of equals the last, as cleanlab has it
    whole[largest[: size - whole.sum()]] += 1
    return np.asarray(whole)


def cutoffs(
    probs: NDArray[np.floating], labels: NDArray[np.int64], wrong: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(C, C) margin from which a row with label a belongs to b instead; infinite where none does."""
    bars = np.full(wrong.shape, np.inf)
    for a, b in np.argwhere(wrong):
        margins = np.sort(probs[labels == a, b] - probs[labels == a, a])
        bars[a, b] = margins[-min(wrong[a, b], len(margins))]
    return bars


def doubtful(
    probs: NDArray[np.floating], labels: NDArray[np.int64], bars: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(n,) whether a row passes a bar of its label and the student would have given it another."""
    own = probs[np.arange(len(labels)), labels]
    passed = np.any(probs - own[:, None] >= bars[labels], axis=1)
    return np.asarray(passed & (probs.max(axis=1) > own + SLACK), np.bool_)
