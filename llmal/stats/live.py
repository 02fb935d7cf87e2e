"""Drift, watched item by item with a state that is bounded and can be kept: scores and labels of a stream."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.bounds import alpha_spending
from llmal.stats.watch import staked, stakes

Floats = NDArray[np.float64]

SPAN = 20_000
"""Items after which a watch begins anew beside the calibration sample: it bounds what is held, and shows a
change too slow to be seen among items that all came with it."""


class Live:
    """The alarm of `watch.stream_alarm` on scores and on labels, fed with one item at a time for ever.

    Every label is a sequence of its own, of items that have it and items that have not; scores are one more.
    Each sequence, and each span of `SPAN` items, has its share of alpha, so that all of them for all time
    raise a false alarm with probability at most alpha, however they hang together: within a span the ranks of
    one sequence are independent and uniform while stream and calibration sample are exchangeable.

    Attributes:
        span: 1 for the first, and so on.
        n: items seen in this span.

    Args:
        scores: (n,) finite, of the calibration sample.
        labels: (n, C) bool, which labels each of its items got.
        alpha: in (0, 0.5).
        seed: of the random numbers that break ties; none of the stream may know it.

    Raises:
        ValueError: shapes differ or are empty, a score is not finite, or alpha is out of range.

    Source: as `watch.stream_alarm`; Bonferroni's bound over sequences; alpha spending over spans, Lan &
        DeMets 1983.

    Example:
        >>> live = Live(np.arange(50.0), np.eye(2, dtype=bool)[[0, 1] * 25], alpha=0.05, seed=0)
        >>> any(live.add(99.0, [True, False]) for _ in range(40))
        True
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike, *, alpha: float, seed: int) -> None:
        self._scores = np.asarray(scores, np.float64)
        self._labels = np.asarray(labels, bool)
        if self._scores.ndim != 1 or not len(self._scores) or not np.isfinite(self._scores).all():
            raise ValueError(f"scores must be finite (n,) with n >= 1, got shape {self._scores.shape}.")
        if self._labels.ndim != 2 or len(self._labels) != len(self._scores) or not self._labels.shape[1]:
            raise ValueError(f"labels must be ({len(self._scores)}, C) bool, got {self._labels.shape}.")
        alpha_spending(alpha, 1)
        self.alpha, self.span, self.n = alpha, 1, 0
        self._seed = seed
        self._begin()

    def _begin(self) -> None:
        self._seen = np.sort(self._scores).tolist()
        self._having = self._labels.sum(axis=0).astype(np.float64)
        self._capital = stakes(1 + len(self._having))
        self._draw()

    def _draw(self) -> None:
        self._rng = np.random.default_rng([self._seed, self.span, self.n])

    @property
    def limits(self) -> Floats:
        """(1 + C,) evidence at which the alarm goes off: half of a span's alpha for scores, half for labels.

        Of two labels that exclude each other one tells all.
        """
        level = alpha_spending(self.alpha, self.span) / 2
        n = len(self._having)
        return np.array([1 / level, *[n / level] * n])

    @property
    def evidence(self) -> Floats:
        """(1 + C,) capital on scores, then on each label."""
        return np.asarray(self._capital.sum(axis=(1, 2)), np.float64)

    def add(self, score: float, labels: ArrayLike) -> bool:
        """One more item; whether the alarm goes off. After an alarm a new watch is needed.

        Args:
            score: finite.
            labels: (C,) bool.
        """
        if self.n >= SPAN:
            self.span, self.n = self.span + 1, 0
            self._begin()
        has = np.asarray(labels, bool)
        chance = self._rng.random(1 + len(has))
        total = len(self._seen)
        below, upto = bisect.bisect_left(self._seen, score), bisect.bisect_right(self._seen, score)
        lower = np.append(below, np.where(has, total - self._having, 0.0))
        ties = np.append(upto - below, np.where(has, self._having, total - self._having))
        self._capital = staked(self._capital, (lower + chance * (ties + 1)) / (total + 1))
        self._seen.insert(upto, float(score))
        self._having += has
        self.n += 1
        return bool((self.evidence >= self.limits).any())

    def state(self) -> dict[str, NDArray[np.float64]]:
        """All that `restore` needs beside what the watch was made with."""
        return {
            "place": np.array([self.span, self.n], np.float64),
            "seen": np.array(self._seen),
            "having": self._having,
            "capital": self._capital,
        }

    def restore(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Go on from a state of a watch made with the same sample.

        Raises:
            ValueError: it is of another sample.
        """
        place, seen = state["place"], state["seen"]
        fits = len(seen) == len(self._scores) + int(place[1]) and np.isfinite(seen).all()
        if not fits or state["capital"].shape != self._capital.shape:
            raise ValueError("the state of a watch over another calibration sample")
        self.span, self.n = int(place[0]), int(place[1])
        self._seen = np.sort(seen).tolist()
        self._having, self._capital = state["having"].copy(), state["capital"].copy()
        self._draw()
