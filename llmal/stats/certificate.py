"""A certificate and the sample behind it: what is promised, and the evidence for every threshold."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.bounds import (
    betting_pvalue,
    binomial_lower,
    binomial_pvalue,
    hoeffding_bentkus,
    labels_needed,
)

On = Literal["accepted", "everything"]
"""What the target is about: the items accepted, or all items, of which those not accepted count as right."""

Test = Literal["binomial", "betting", "hoeffding-bentkus"]
"""How one threshold is tested; the binomial one is exact, the others are for when losses are not 0 or 1."""

GRID = 16
"""Thresholds where each pays its own share of delta: fewer are too coarse, more too dear."""

_SPARE = 1
"""Wrong items that the first step of a sequence can bear: with none it often ends before it began."""

_SHARE = 3
"""The first step takes at most one item in so many, where that leaves it any chance to pass."""

LATER = ((0.15, 0.15), (0.3, 0.15))
"""Later starts of a sequence: (share of the sample that is accepted there, share of delta that they own); the
first start owns the rest. Eight sources of recorded answers (`tests/benchmarks/recorded.py`), n = 100 to
2,000, targets 0.8 to 0.95 and 0.05 below the accuracy of all, 60 draws: mean coverage 0.499 with one start,
0.520 with these, 0.516 with a single later one (0.15 of the sample, 0.3 of delta), 0.521 with 0.25 of delta
each. Where the top alone is good enough, these lose up to 0.10 of the certificates, the last up to 0.18."""

_APART = 2
"""A later start accepts at least so many times what the first one does; closer, it is left out."""

_LOOKS = 4
"""Thresholds at which missing labels are reckoned: the easiest of many is the luckiest."""

_HOPE = 0.05
"""Least probability that accuracy is above the target for which a number of labels is given."""

_DEAR = 50
"""No test needs more than so many times the items that the exact one does."""

_SHUFFLE = 0
"""Seed of the order in which a betting test meets the items. A random sample in the order of its draw stays
one; items that somebody sorted by score no longer come most confident first."""


class Certificate(NamedTuple):
    """What may be promised, or how far it is from that.

    Attributes:
        threshold: items with at least this confidence are accepted, in [0, 1]; None: nothing is certified.
        bound: the accuracy promised, in [0, 1]: at least `target` where something is certified, else 0.
        n: items of the sample that would be accepted.
        coverage: their share of the sample.
        more: about how many more answers of people are needed, right in order of magnitude; 0 when
            certified; None where accuracy above the target is unlikely, so that no number would do.
        target, delta, on: what was asked.
        audited: items in the sample.
        expected: the promise is about the average over samples, not about nearly every one of them.
    """

    threshold: float | None
    bound: float
    n: int
    coverage: float
    more: int | None
    target: float
    delta: float
    on: On
    audited: int
    expected: bool = False

    @property
    def words(self) -> str:
        """The certificate in one sentence for people."""
        among = "the items accepted" if self.on == "accepted" else "all items, people's answers included"
        if self.threshold is None:
            wanted = f"Cannot certify an accuracy of {self.target:.1%} among {among}"
            if self.more is None:
                return f"{wanted}: {self.audited} audited items show it to be unlikely at any confidence."
            return f"{wanted}: about {self.more} more labels of people are needed ({self.audited} so far)."
        sure = "on average" if self.expected else f"with probability {1 - self.delta:.1%}"
        return (
            f"At a confidence of {self.threshold:.3f} or more, accuracy among {among} is at least "
            f"{self.bound:.1%} {sure} ({self.n} of {self.audited} audited items accepted)."
        )


class Steps(NamedTuple):
    """Thresholds from strict to lax, chosen without a look at the outcomes."""

    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    right: NDArray[np.int64]

    def only(self, i: int) -> Steps:
        """The i-th of them alone."""
        row = slice(i, i + 1)
        return Steps(self.thresholds[row], self.accepted[row], self.right[row])


class Sample(NamedTuple):
    """An audit sample, most confident first, and the question.

    Attributes:
        scores, right: (n,) confidence, falling, and whether the answer is right.
        order: (n,) places in the two above in which a betting test meets the items.
        target, delta, on: see `certify.fixed_sequence`.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    order: NDArray[np.int64]
    target: float
    delta: float
    on: On

    def steps(self, count: int | None, first: int, grid: ArrayLike | None = None) -> Steps:
        """At most `count` thresholds (None: all) at evenly spaced counts of accepted items from `first` on.

        The item that gives a threshold is itself not accepted: the accepted ones are then a random sample of
        everything above it, whatever the scores look like. Equal scores are accepted together.
        """
        n = len(self.scores)
        if grid is not None:
            cuts = np.unique(np.asarray(grid, np.float64))[::-1]
        else:
            marks = np.linspace(first, n, min(count or n, max(1, n - first + 1)))
            inner = self.scores[marks[marks < n].astype(np.int64)]
            cuts = np.append(np.unique(np.nextafter(inner, np.inf))[::-1], 0.0)
        accepted = n - np.searchsorted(self.scores[::-1], cuts, side="left")
        keep = (accepted >= first) & (np.diff(accepted, prepend=0) > 0)
        total = np.concatenate([[0], np.cumsum(self.right)])
        return Steps(cuts[keep], accepted[keep], total[accepted[keep]])

    def trials(self, steps: Steps) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items that each threshold is judged by, and how many of them are right."""
        if self.on == "accepted":
            return steps.accepted, steps.right
        n = np.full_like(steps.accepted, len(self.scores))
        return n, n - (steps.accepted - steps.right)

    def pvalues(self, steps: Steps, test: Test) -> NDArray[np.float64]:
        """Of "the accuracy is not above the target", for each threshold."""
        n, right = self.trials(steps)
        if test == "binomial":
            return binomial_pvalue(right, n, self.target)
        if test == "hoeffding-bentkus":
            return hoeffding_bentkus(1 - right / n, n, 1 - self.target)
        values = self.right[self.order]
        found = []
        for count in steps.accepted:
            inside = self.order < count
            drawn = values[inside] if self.on == "accepted" else values | ~inside
            found.append(betting_pvalue(drawn, self.target))
        return np.array(found)

    def passes(self, steps: Steps, i: int, delta: float, test: Test) -> bool:
        """Whether the i-th threshold alone passes its test."""
        return bool(self.pvalues(steps.only(i), test)[0] <= delta)

    def lower(self, steps: Steps, chosen: int, delta: float) -> float:
        """Bound of the accuracy at the chosen step; 0 with -1."""
        if chosen < 0:
            return 0.0
        n, right = self.trials(steps)
        return binomial_lower(int(right[chosen]), int(n[chosen]), delta)

    def certificate(
        self, steps: Steps, chosen: int, delta: float, *, bound: float = 0.0, expected: bool = False
    ) -> Certificate:
        """Of the chosen step; none with -1."""
        asked = (self.target, self.delta, self.on, len(self.scores), expected)
        if chosen < 0:
            return Certificate(None, 0.0, 0, 0.0, self._more(delta), *asked)
        n = int(steps.accepted[chosen])
        return Certificate(
            float(steps.thresholds[chosen]), max(self.target, bound), n, n / len(self.scores), 0, *asked
        )

    def least(self, delta: float, test: Test) -> int:
        """Accepted items of the first threshold, from the sample size and the question alone.

        As many as the test needs to pass with a wrong item among them; in a small sample with none.
        """
        if self.on == "everything":
            return 1
        n = len(self.scores)
        spare, none = (_needed(wrong, n, self.target, delta, test) for wrong in (_SPARE, 0))
        return spare if _SHARE * spare <= n else none

    def starts(self, delta: float, test: Test) -> list[tuple[int, float]]:
        """(accepted items, share of delta) of every start of a sequence, from sizes and the question alone.

        A small sample has one start, and so have the errors among everything, which only grow with coverage.
        """
        n = len(self.scores)
        later = list(LATER) if self.on == "accepted" else []
        while later:
            left = delta * (1 - sum(share for _, share in later))
            first = self.least(left, test)
            if later[0][0] * n >= _APART * first:
                return [(first, left), *((math.ceil(part * n), share * delta) for part, share in later)]
            del later[0]
        return [(self.least(delta, test), delta)]

    def _more(self, delta: float) -> int | None:
        """Labels that the easiest threshold still needs, at the accuracy that may be expected there.

        That is the middle of what it may be, given that it is above the target: the accuracy seen is, in a
        small sample, often a hair above the target, for which no number of labels would do.
        """
        from scipy.special import betainc, betaincinv  # type: ignore[import-untyped, unused-ignore]

        n = len(self.scores)
        steps = self.steps(_LOOKS, max(1, min(n, self.least(delta, "binomial")) // 2))
        needs = []
        for tried, right in zip(*self.trials(steps), strict=True):
            shape = right + 0.5, tried - right + 0.5
            hope = 1 - float(betainc(*shape, self.target))
            if hope >= _HOPE:
                count = labels_needed(float(betaincinv(*shape, 1 - hope / 2)), self.target, delta)
                needs.append(n if count is None else math.ceil(count * n / tried) - n)
        return max(1, min(needs)) if needs else None


def take(scores: ArrayLike, right: ArrayLike, target: float, delta: float, on: On) -> Sample:
    """The checked sample, most confident first; see `certify.fixed_sequence` for shapes and errors."""
    given = np.asarray(scores, np.float64)
    truth = np.asarray(right, bool)
    if given.ndim != 1 or given.shape != truth.shape or not len(given):
        raise ValueError(f"Scores and outcomes must be (n,), n >= 1, got {given.shape} and {truth.shape}.")
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError("Scores must be confidences in [0, 1].")
    if not (0 < target < 1 and 0 < delta < 0.5):
        raise ValueError(f"target must lie in (0, 1) and delta in (0, 0.5), got {target} and {delta}.")
    if on not in ("accepted", "everything"):
        raise ValueError(f"on must be accepted or everything, got {on}.")
    falling = np.argsort(-given, kind="stable")
    drawn = np.random.default_rng(_SHUFFLE).permutation(np.argsort(falling))
    return Sample(given[falling], truth[falling], drawn, target, delta, on)


def fewest(target: float, delta: float, test: Test = "binomial") -> int:
    """Items of which none is wrong that the test needs to pass; fewer cannot, so that testing them is vain.

    Args:
        target: in (0, 1), the share of right items to certify.
        delta: in (0, 0.5), of one test.
        test: see `Test`.

    Returns:
        Count of at least 1.

    Example:
        >>> fewest(0.95, 0.05), fewest(0.95, 0.05, "betting")
        (59, 104)
    """
    exact = math.ceil(math.log(delta) / math.log(target) - 1e-9)
    return exact if test == "binomial" else _needed(0, _DEAR * exact, target, delta, test)


@lru_cache(maxsize=256)  # the same for every certificate of one size and question
def _needed(wrong: int, most: int, target: float, delta: float, test: Test) -> int:
    """Least count of items that pass with so many of them wrong; `most` + 1 where that is not enough."""

    def passes(count: int) -> bool:
        if test == "binomial":
            return bool(binomial_pvalue(count - wrong, count, target) <= delta)
        if test == "hoeffding-bentkus":
            return bool(hoeffding_bentkus(wrong / count, count, 1 - target) <= delta)
        return betting_pvalue([0] * wrong + [1] * (count - wrong), target) <= delta

    return bisect_left(range(most + 1), True, lo=min(wrong + 1, most + 1), key=passes)
