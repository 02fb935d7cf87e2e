"""Curves of a measured sample: what accuracy each share accepted has, and what each confidence is worth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.calibration import _bins_of, _score_pair
from llmal.stats.intervals import Estimate, wilson


class Accepted(NamedTuple):
    """What accepting everything from one confidence on would give.

    Attributes:
        at_least: the confidence, in [0, 1].
        coverage: share of the sample accepted, in (0, 1].
        accuracy: share of the accepted that is right, with a Wilson interval for this point alone.
    """

    at_least: float
    coverage: float
    accuracy: Estimate


class Bin(NamedTuple):
    """Items of similar confidence.

    Attributes:
        low, high: least and largest confidence in the bin.
        confidence: their mean.
        accuracy: share right, with a Wilson interval for this bin alone.
    """

    low: float
    high: float
    confidence: float
    accuracy: Estimate


def risk_coverage(
    confidence: ArrayLike, correct: ArrayLike, *, most: int = 200, level: float = 0.95
) -> list[Accepted]:
    """Accuracy of what is accepted, from the most confident item to all of them.

    Items with equal confidence are accepted together, so the order of the rows does not matter. The intervals
    hold for one threshold named beforehand; a threshold picked by looking at this curve needs a certificate.

    Args:
        confidence: (n,) finite.
        correct: (n,) bool; whether the answer is right.
        most: most points, at least 2; where there are more thresholds, those at even steps of coverage.
        level: in (0, 1), of each interval.

    Returns:
        Points from strict to lax; the last one accepts everything.

    Raises:
        ValueError: n == 0, lengths differ, correct not bool, NaN among the confidences, or most < 2.

    Source: El-Yaniv & Wiener 2010.

    Example:
        >>> curve = risk_coverage([0.9, 0.5, 0.5, 0.2], [True, True, True, False])
        >>> [(point.coverage, point.accuracy.value) for point in curve]
        [(0.25, 1.0), (0.75, 1.0), (1.0, 0.75)]
    """
    if most < 2:
        raise ValueError(f"most must be at least 2, got {most}.")
    values, right = _score_pair(confidence, correct)
    distinct, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    accepted = np.cumsum(sizes)
    hits = np.cumsum(np.bincount(group, weights=right, minlength=len(distinct))).astype(np.int64)
    n = len(values)
    shown = np.arange(len(distinct))
    if len(distinct) > most:
        shown = np.unique(np.searchsorted(accepted, np.linspace(accepted[0], n, most)))
    return [
        Accepted(
            float(-distinct[i]),
            float(accepted[i] / n),
            wilson(int(hits[i]), int(accepted[i]), level=level),
        )
        for i in shown
    ]


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 5, level: float = 0.95
) -> list[Bin]:
    """Accuracy in bins of equal mass, as `calibration_gap` bins: items with equal confidence share a bin.

    Args:
        confidence: (n,) in [0, 1].
        correct: (n,) bool; whether the answer is right.
        bins: most bins, at least 1; those that ties leave empty are left out.
        level: in (0, 1), of each interval.

    Returns:
        Bins by rising confidence.

    Raises:
        ValueError: n == 0, lengths differ, correct not bool, NaN among the confidences, or bins < 1.

    Source: Niculescu-Mizil & Caruana 2005; equal-mass bins: Nguyen & O'Connor 2015.

    Example:
        >>> bins = reliability([0.5, 0.5, 1.0, 1.0], [True, False, True, True])
        >>> [(one.confidence, one.accuracy.value) for one in bins]
        [(0.5, 0.5), (1.0, 1.0)]
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}.")
    values, right = _score_pair(confidence, correct)
    order = np.argsort(values, kind="stable")  # sums then run in one order whatever the order of the rows
    values, right = values[order], right[order]
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    place = _bins_of(sizes, bins)[group]
    return [_bin(values[place == b], right[place == b], level) for b in np.unique(place)]


def _bin(values: NDArray[np.float64], right: NDArray[np.bool_], level: float) -> Bin:
    accuracy = wilson(int(right.sum()), len(right), level=level)
    return Bin(float(values.min()), float(values.max()), float(values.mean()), accuracy)
