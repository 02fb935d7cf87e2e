"""Calibration: how far a confidence can be read as a probability of being right."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.intervals import Estimate, clopper_pearson

# Softmax in float32 over a few thousand classes leaves [0, 1] and a sum of 1 by less than this.
_ROUNDING = 1e-4

# Where gold is perfectly separated (or worse than chance) the best temperature is 0 (or infinity); these are
# the ends of the search. Temperatures of fitted networks lie between 0.5 and 5 (Guo et al. 2017).
_MIN_TEMPERATURE = 0.01
_MAX_TEMPERATURE = 100.0

# Each step halves a log T range of 9.2: 60 steps go below the spacing of floats.
_BISECTIONS = 60


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-mass bins.

    Items with equal confidence always share a bin: the one in which the middle of their ranks falls. So the
    order of the rows does not matter, nor does repeating the whole sample; the bins are of equal mass up to
    ties, and some may be empty.

    The estimate is biased upwards: 15 bins show a mean gap of 0.12 at n = 100 and 0.04 at n = 1,000 for a
    perfectly calibrated model, and `bootstrap` does not repair it. Compare it with the gap before
    calibration on the same items rather than with 0.

    Args:
        confidence: (n,) in [0, 1]; confidence in the chosen label.
        correct: (n,) bool; chosen label equals gold.
        bins: count, at least 1; with more bins than items every distinct confidence is its own bin.

    Returns:
        Gap in [0, 1], 0 is best.

    Raises:
        ValueError: n == 0, lengths differ, confidence outside [0, 1], correct not bool, or bins < 1.

    Source: Naeini et al. 2015; equal-mass variant: Nguyen & O'Connor 2015.

    Example:
        >>> expected_calibration_error([1.0, 1.0], [True, False], bins=1)
        0.5
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}.")
    values, right = _score_pair(confidence, correct)
    if not (values.min() >= 0 and values.max() <= 1 + _ROUNDING):
        raise ValueError(f"confidence must lie in [0, 1], got {values.min()}..{values.max()}.")
    n = len(values)
    # Per distinct value and not per row: the sums then run in one order whatever the order of the rows.
    distinct, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    hits = np.bincount(group, weights=right, minlength=len(distinct))
    gaps = np.bincount(_bins_of(sizes, bins), weights=distinct * sizes - hits)
    return float(np.abs(gaps).sum() / n)


def brier(probs: ArrayLike, gold: ArrayLike) -> float:
    """Mean squared distance between the probabilities and the one-hot gold class, summed over classes.

    With two classes this is twice the score that is often given for the positive class alone.

    Args:
        probs: (n, C) in [0, 1], rows sum to 1.
        gold: (n,) int in 0..C - 1.

    Returns:
        Score in [0, 2], 0 is best.

    Raises:
        ValueError: n == 0, shapes do not fit, a class outside 0..C - 1, or rows that are no probabilities.

    Source: Brier 1950.

    Example:
        >>> brier([[0.5, 0.5], [1.0, 0.0]], [0, 0])
        0.25
    """
    table, classes = _probability_pair(probs, gold)
    distance = table.copy()
    distance[np.arange(len(classes)), classes] -= 1
    return float((distance**2).sum(axis=1).mean())


def log_loss(probs: ArrayLike, gold: ArrayLike) -> float:
    """Mean negative log probability of the gold class.

    A probability of 0 counts as 2.2e-16 (float64 epsilon), as in scikit-learn: one such item costs 36 nats
    and does not turn the mean into infinity.

    Args:
        probs: (n, C) in [0, 1], rows sum to 1.
        gold: (n,) int in 0..C - 1.

    Returns:
        Nats in [0, 36.05], 0 is best.

    Raises:
        ValueError: n == 0, shapes do not fit, a class outside 0..C - 1, or rows that are no probabilities.

    Source: Good 1952.

    Example:
        >>> round(log_loss([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
        0.4904
    """
    table, classes = _probability_pair(probs, gold)
    of_gold = table[np.arange(len(classes)), classes]
    return float(-np.log(np.clip(of_gold, np.finfo(np.float64).eps, 1)).mean())


def fit_temperature(logits: ArrayLike, gold: ArrayLike) -> float:
    """Temperature T that makes softmax(logits / T) fit gold best; keeps every item's ranking of the classes.

    The log loss is convex in 1 / T, so its slope changes sign once and bisection on log T finds the place.
    Fit it on items that set no threshold and train nothing; 50 to 100 are enough.

    Args:
        logits: (n, C) finite; log probabilities serve as well.
        gold: (n,) int in 0..C - 1.

    Returns:
        T in [0.01, 100]: above 1 the logits were over-confident, below 1 under-confident. The ends mean that
        gold has no finite best T (all right: 0.01; no better than chance: 100). 1.0 where no row prefers any
        class.

    Raises:
        ValueError: n == 0, shapes do not fit, a class outside 0..C - 1, or a logit that is not finite.

    Source: Guo et al. 2017.

    Example:
        >>> z = [[3, 0, 0], [2, 1, 0], [0, 3, 0], [4, 0, 1], [1, 0, 2], [0, 2, 1]]
        >>> round(fit_temperature(z, [0, 1, 1, 0, 2, 2]), 6)
        0.992327
    """
    table, classes = _table_pair(logits, gold)
    if not np.isfinite(table).all():
        raise ValueError("logits must be finite; give an impossible label a large negative number instead.")
    # Largest 0, so that exp never overflows at the cold end.
    table = table - table.max(axis=1, keepdims=True)
    if not table.any():
        return 1.0
    low, high = math.log(_MIN_TEMPERATURE), math.log(_MAX_TEMPERATURE)
    if _slope(table, classes, _MIN_TEMPERATURE) <= 0:
        return _MIN_TEMPERATURE
    if _slope(table, classes, _MAX_TEMPERATURE) >= 0:
        return _MAX_TEMPERATURE
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _slope(table, classes, math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def auroc(score: ArrayLike, correct: ArrayLike) -> float:
    """Chance that a correct item scores above a wrong one; equal scores count half.

    Args:
        score: (n,) real, higher means surer; only the order matters.
        correct: (n,) bool.

    Returns:
        Area in [0, 1]; 1 ranks perfectly, 0.5 is chance; nan where all items are correct or none is.

    Raises:
        ValueError: n == 0, lengths differ, a score that is not a number, or correct not bool.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.

    Example:
        >>> auroc([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
        0.875
    """
    values, right = _score_pair(score, correct)
    n_right = int(right.sum())
    n_wrong = len(right) - n_right
    if n_right == 0 or n_wrong == 0:
        return float("nan")
    distinct, group = np.unique(values, return_inverse=True)
    rights = np.bincount(group[right], minlength=len(distinct))
    wrongs = np.bincount(group[~right], minlength=len(distinct))
    # Twice the number of pairs won, in integers: exact, and the same for every order of the rows.
    twice_won = int((rights * (2 * (np.cumsum(wrongs) - wrongs) + wrongs)).sum())
    return twice_won / (2 * n_right * n_wrong)


def _slope(table: NDArray[np.float64], classes: NDArray[Any], temperature: float) -> float:
    """Derivative of the log loss by 1 / T: what the model expects of the logits minus what gold shows."""
    weights = np.exp(table / temperature)
    expected = (weights * table).sum(axis=1) / weights.sum(axis=1)
    return float((expected - table[np.arange(len(classes)), classes]).mean())


def _bins_of(sizes: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    """Equal-mass bin of each distinct value, ascending: the one in which the middle of its ranks falls."""
    twice_middle = 2 * np.cumsum(sizes) - sizes
    return np.asarray(bins * twice_middle // (2 * int(sizes.sum())))


def _score_pair(score: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, right = np.asarray(score, dtype=np.float64), np.asarray(correct)
    if values.ndim != 1 or values.shape != right.shape:
        raise ValueError(f"Scores and correct must be (n,) alike, got {values.shape} and {right.shape}.")
    if len(values) == 0:
        raise ValueError("Calibration needs at least one item, got n = 0.")
    if right.dtype != np.bool_:
        raise ValueError(f"correct must be bool, got {right.dtype}.")
    if np.isnan(values).any():
        raise ValueError("A score is not a number; leave items without a score out first.")
    return values, right


def _table_pair(table: ArrayLike, gold: ArrayLike) -> tuple[NDArray[np.float64], NDArray[Any]]:
    rows, classes = np.asarray(table, dtype=np.float64), np.asarray(gold)
    if rows.ndim != 2 or classes.shape != rows.shape[:1]:
        raise ValueError(f"Expected (n, C) and gold (n,), got {rows.shape} and {classes.shape}.")
    if rows.size == 0:
        raise ValueError(f"Calibration needs at least one item and one class, got shape {rows.shape}.")
    if classes.dtype.kind not in "iu":
        raise ValueError(f"gold must hold integer classes, got {classes.dtype}.")
    if classes.min() < 0 or classes.max() >= rows.shape[1]:
        raise ValueError(f"gold must lie in 0..{rows.shape[1] - 1}, got {classes.min()}..{classes.max()}.")
    return rows, classes


def _probability_pair(probs: ArrayLike, gold: ArrayLike) -> tuple[NDArray[np.float64], NDArray[Any]]:
    table, classes = _table_pair(probs, gold)
    if not (table.min() >= 0 and np.abs(table.sum(axis=1) - 1).max() <= _ROUNDING):
        raise ValueError("Each row of probs must be non-negative and sum to 1.")
    return table, classes


def calibration_gap(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 5, level: float = 0.95
) -> Estimate:
    """Expected calibration error with an interval that holds, at the price of being wide.

    The plug-in error is biased upwards, so a bootstrap of it covers far too little. Here each bin's accuracy
    gets an exact interval, Bonferroni-corrected over the bins, and the low and high ends are the least and
    the largest mean gap those accuracies allow.

    Args:
        confidence: (n,) in [0, 1]; confidence in the chosen label.
        correct: (n,) bool; chosen label equals gold.
        bins: count of equal-mass bins; few, because each must hold enough items.
        level: in (0, 1).

    Returns:
        Gap in [0, 1], 0 is best.

    Raises:
        ValueError: as `expected_calibration_error`.

    Source: exact intervals of Clopper & Pearson 1934 over the binning of Nguyen & O'Connor 2015; the
    combination is ours.

    Example:
        >>> calibration_gap([0.9] * 10, [True] * 9 + [False]).value
        0.0
    """
    scores, hits = _score_pair(confidence, correct)
    value = expected_calibration_error(scores, hits, bins=bins)
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    place = _bins_of(sizes, bins)[group]
    used = np.unique(place)
    low = high = 0.0
    for b in used:
        inside = place == b
        n = int(inside.sum())
        mean = float(scores[inside].mean())
        bounds = clopper_pearson(int(hits[inside].sum()), n, level=1 - (1 - level) / len(used))
        near = (
            0.0 if bounds.low <= mean <= bounds.high else min(abs(mean - bounds.low), abs(mean - bounds.high))
        )
        low += n * near
        high += n * max(abs(mean - bounds.low), abs(mean - bounds.high))
    return Estimate(value, low / len(scores), high / len(scores), len(scores))
