"""Stopping rules: when more labels would change little, and a bound of what the next ones can buy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.agreement import cohen_kappa, macro_f1

LEAST_ROUNDS = 5
"""Rounds before any rule may stop a run: a cold start stands still for a while and looks finished."""

LEAST_POINTS = 4
"""Measured points that a forecast needs: a line and two more, which say how the points scatter."""

_ONE_CLASS = "The predictions of a round all name one class, so kappa says little."


class Verdict(NamedTuple):
    """What one stopping rule says.

    Attributes:
        stop: whether the rule would stop; never where the value is nan.
        value: what it measured; nan while there are too few rounds to tell.
        limit: what the value is compared with.
        note: a warning in words, or "".
    """

    stop: bool
    value: float
    limit: float
    note: str = ""


class Forecast(NamedTuple):
    """What the next labels buy.

    Attributes:
        gain: expected at most, as a share of the items; nan while fewer than `LEAST_POINTS` are measured.
        high: upper bound of the gain, at least 0; nan as above.
        step: labels that the gain is about.
        level: least share of such bounds that hold.
        points: measured points that it rests on.
    """

    gain: float
    high: float
    step: int
    level: float
    points: int

    @property
    def words(self) -> str:
        """The forecast as a sentence."""
        if math.isnan(self.high):
            return f"What the next {self.step} labels buy cannot be told from {self.points} measured rounds."
        bound = f"at most {100 * self.high:.1f} points"
        return f"The next {self.step} labels buy {bound} (holds in {100 * self.level:.0f} % of such cases)."


def kappa_average(rounds: ArrayLike, n_classes: int, *, limit: float = 0.99, last: int = 3) -> Verdict:
    """Mean agreement of consecutive students on a fixed stop set; stops where it is at least the limit.

    Where a student names one class only, chance agreement is total and kappa is undefined. Two such rounds
    count as 1 if they name the same class; one beside a round that names several counts as 0, which is what
    the formula gives. Either way the verdict carries a note.

    Args:
        rounds: (r, n) int in 0..n_classes - 1, row i the predictions of round i for the same n items; a
            random sample of unlabelled ones, 1,000 or more, that no query strategy chose.
        n_classes: C.
        limit: in (0, 1]; a higher one never stops sooner.
        last: pairs of rounds that the mean is taken over, at least 1.

    Returns:
        Value in [-1, 1]; nan with fewer than `last` + 1 rounds.

    Raises:
        ValueError: not (r, n), no items, a class out of range, or a limit or `last` out of range.

    Source: Bloodgood & Vijay-Shanker 2009 (stabilising predictions).

    Example:
        >>> kappa_average([[0, 1, 1, 0]] * 4, 2).stop
        True
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit must lie in (0, 1], got {limit}.")
    table = _rounds(rounds, last)
    if len(table) <= last:
        return Verdict(False, math.nan, limit)
    recent = table[-last - 1 :]
    pairs = [cohen_kappa(a, b, n_classes) for a, b in zip(recent, recent[1:], strict=False)]
    value = float(np.mean(pairs))
    constant = bool((recent == recent[:, :1]).all(axis=1).any())
    return Verdict(value >= limit, value, limit, _ONE_CLASS if constant else "")


def delta_f(rounds: ArrayLike, n_classes: int, *, limit: float = 0.05, last: int = 3) -> Verdict:
    """Forecast change of F1 between rounds; stops where it is below the limit in each of the last rounds.

    The forecast for a pair of rounds is 1 minus the macro-F1 of the later predictions against the earlier
    ones: no gold is needed.

    Args:
        rounds: (r, n) int as in `kappa_average`.
        n_classes: C.
        limit: in (0, 1]; a lower one never stops sooner.
        last: pairs of rounds that must all be below, at least 1.

    Returns:
        The largest change of the last pairs, in [0, 1]; nan with fewer than `last` + 1 rounds.

    Raises:
        ValueError: as `kappa_average`.

    Source: Altschuler & Bloodgood 2019, for two classes; the mean over classes is ours.

    Example:
        >>> delta_f([[0, 1, 1, 0]] * 3 + [[0, 0, 1, 0]], 2).stop
        False
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit must lie in (0, 1], got {limit}.")
    table = _rounds(rounds, last)
    if len(table) <= last:
        return Verdict(False, math.nan, limit)
    recent = table[-last - 1 :]
    changes = [1 - macro_f1(a, b, n_classes) for a, b in zip(recent, recent[1:], strict=False)]
    return Verdict(max(changes) < limit, max(changes), limit)


def classification_change(before: ArrayLike, after: ArrayLike, *, limit: float = 0.0) -> Verdict:
    """Share of the candidates whose predicted class changed; stops where it is at most the limit.

    Args:
        before: (n,) int, classes that the student predicted when it chose these candidates.
        after: (n,) int, classes that the student trained on their labels predicts for them.
        limit: in [0, 1); a lower one never stops sooner.

    Returns:
        Value in [0, 1]; nan without candidates.

    Raises:
        ValueError: shapes differ, or a limit out of range.

    Source: Zhu, Wang & Hovy 2008.

    Example:
        >>> classification_change([0, 1, 1], [0, 1, 0]).stop
        False
    """
    if not 0 <= limit < 1:
        raise ValueError(f"limit must lie in [0, 1), got {limit}.")
    old, new = np.asarray(before), np.asarray(after)
    if old.ndim != 1 or old.shape != new.shape:
        raise ValueError(f"before and after must be (n,) alike, got {old.shape} and {new.shape}.")
    value = float((old != new).mean()) if len(old) else math.nan
    return Verdict(value <= limit, value, limit)


def overall_uncertainty(probs: ArrayLike, *, limit: float = 0.05) -> Verdict:
    """Mean entropy of the unlabelled items, as a share of the largest; stops where it is below the limit.

    Args:
        probs: (n, C) of unlabelled items, rows sum to 1, C at least 2.
        limit: in (0, 1]; a lower one never stops sooner.

    Returns:
        Value in [0, 1]; nan without items.

    Raises:
        ValueError: not (n, C), fewer than two classes, values outside [0, 1], or a limit out of range.

    Source: Zhu, Wang & Hovy 2008.

    Example:
        >>> overall_uncertainty([[0.5, 0.5], [1.0, 0.0]]).value
        0.5
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit must lie in (0, 1], got {limit}.")
    table = np.asarray(probs, np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"probs must be (n, C) with C at least 2, got shape {table.shape}.")
    if not ((table >= 0) & (table <= 1 + 1e-6)).all():
        raise ValueError("probs must lie in [0, 1].")
    if not len(table):
        return Verdict(False, math.nan, limit)
    logs = np.log(np.where(table > 0, table, 1.0))
    value = float(-(table * logs).sum(axis=1).mean() / math.log(table.shape[1]))
    return Verdict(value < limit, value, limit)


def plateau(forecast: Forecast, *, limit: float = 0.005) -> Verdict:
    """Whether the next labels buy less than it takes to go on; stops where the bound is below the limit.

    Args:
        forecast: of `forecast`.
        limit: share of the items, above 0; 0.005 is half a point. A lower one never stops sooner.

    Returns:
        The forecast's upper bound as value; nan while there is none.

    Raises:
        ValueError: a limit of 0 or less.

    Example:
        >>> plateau(Forecast(0.001, 0.004, 50, 0.9, 8)).stop
        True
    """
    if not limit > 0:
        raise ValueError(f"limit must be above 0, got {limit}.")
    return Verdict(forecast.high < limit, forecast.high, limit)


def combined(verdicts: Sequence[Verdict], *, rounds: int, least: int = LEAST_ROUNDS) -> Verdict:
    """All rules together: stops where every one of them does, and never in the first rounds.

    `kappa_average` with `plateau` is the pair to use: still predictions alone stop a run that stands still
    at the start, and a small gain alone stops one whose errors move about. A spent budget ends a run anyway.
    Linear students on frozen vectors hardly ever reach a kappa of 0.99 within 1,500 labels; with 0.95 the
    pair lost 1.5 points or less on average (`tests/benchmarks/stopping.py`).

    Args:
        verdicts: of the rules, at least one.
        rounds: done so far.
        least: rounds before which nothing stops.

    Returns:
        The share of the rules that would stop as value, against 1; the notes of all.

    Raises:
        ValueError: no verdicts.

    Example:
        >>> combined([Verdict(True, 1.0, 0.99), Verdict(True, 0.004, 0.005)], rounds=3).stop
        False
    """
    if not verdicts:
        raise ValueError("combined needs at least one verdict.")
    share = sum(v.stop for v in verdicts) / len(verdicts)
    notes = [v.note for v in verdicts if v.note]
    if rounds < least:
        notes.append(f"No rule stops a run before round {least}.")
    return Verdict(share == 1 and rounds >= least, share, 1.0, " ".join(notes))


def same_items(right: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy of each round and how the accuracies vary together, measured on the same items.

    Args:
        right: (k, m) bool, whether the student of round i was right on item j of a random sample; m >= 2.

    Returns:
        (k,) accuracies and their (k, k) covariance. Half an item a round is added to its diagonal, or two
        rounds that agree on a small sample would have a difference without any doubt.

    Raises:
        ValueError: not (k, m), or fewer than two items.

    Source: the half items are those of Agresti & Min 2005 for paired shares.

    Example:
        >>> same_items([[True, False], [True, True]])[0].tolist()
        [0.5, 1.0]
    """
    table = np.asarray(right, np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or not len(table):
        raise ValueError(f"right must be (k, m) with m at least 2, got shape {table.shape}.")
    m = table.shape[1]
    covariance = np.atleast_2d(np.cov(table)) / m + np.eye(len(table)) * 0.5 / m**2
    return table.mean(axis=1), covariance


def forecast(
    labels: ArrayLike, values: ArrayLike, errors: ArrayLike, *, step: int = 50, level: float = 0.9
) -> Forecast:
    """Upper bound of what the next labels buy, from the slope of the measured curve so far.

    A learning curve that flattens gains no more a label in future than it did on average before. So the slope
    of a straight line through the later half of the points bounds the next gain, whatever the curve's form.
    Its doubt is the larger of two: that of the gold sample, and the scatter of the points about the line,
    which holds the luck of each training set too.

    The bound is of the curve's gain, averaged over the luck of training sets; one lucky round can gain more.
    It holds for one look. A run that asks after every round and stops at the first small answer has asked
    often and is right less often. It does not hold where the curve still steepens, as it may while the
    student names one class only.

    Chosen by simulation of 5 curves (power laws from steep to flat) x 4 schedules of rounds x 3 mixes of gold
    sample (100 and 400 items) and luck of training (standard deviation of 0.5 and 2 points at 200 labels),
    200 runs each, level 0.9. Coverage, worst and median world: 0.92 and 0.98; with the doubt of the gold
    sample alone 0.69 and 0.91. The best fitting power law taken at its word: 0.23 and 0.43 (60 runs each).

    Args:
        labels: (k,) numbers of labels, strictly rising.
        values: (k,) accuracies, or another mean over items, measured with so many labels.
        errors: (k,) standard errors, taken for independent, or (k, k) covariance as of `same_items`. With
            points measured on the same items, the first makes the bound wider than it need be.
        step: labels to come, at least 1.
        level: in (0, 1); least share of bounds that hold.

    Returns:
        The forecast; nan inside with fewer than `LEAST_POINTS` points.

    Raises:
        ValueError: shapes do not match, labels do not rise, step below 1, or level outside (0, 1).

    Source: the bound is ours; it rests on the curve being concave.

    Example:
        >>> seen = forecast([100, 150, 200, 250], [0.70, 0.74, 0.76, 0.77], [0.01] * 4)
        >>> round(seen.gain, 3), round(seen.high, 3)
        (0.023, 0.032)
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]

    x, y, doubt = _curve(labels, values, errors)
    if step < 1 or not 0 < level < 1:
        raise ValueError(f"step must be at least 1 and level in (0, 1), got {step} and {level}.")
    if len(x) < LEAST_POINTS:
        return Forecast(math.nan, math.nan, step, level, len(x))
    first = min(int(np.searchsorted(x, x[-1] / 2)), len(x) - LEAST_POINTS)
    x, y, doubt = x[first:] - x[first:].mean(), y[first:] - y[first:].mean(), doubt[first:, first:]
    weights = x / (x @ x)
    slope = float(weights @ y)
    left = y - slope * x
    free = len(x) - 2
    variance = max(float(weights @ doubt @ weights), float(left @ left) / free * float(weights @ weights))
    high = step * (slope + float(stdtrit(free, level)) * math.sqrt(variance))
    return Forecast(step * slope, max(high, 0.0), step, level, len(x))


def _curve(
    labels: ArrayLike, values: ArrayLike, errors: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    x, y, doubt = (np.asarray(a, np.float64) for a in (labels, values, errors))
    if doubt.ndim == 1:
        doubt = np.diag(doubt**2)
    if x.ndim != 1 or y.shape != x.shape or doubt.shape != (len(x), len(x)):
        raise ValueError(
            f"labels and values must be (k,), errors (k,) or (k, k); got {x.shape}, {y.shape}, {doubt.shape}."
        )
    if not (np.diff(x) > 0).all():
        raise ValueError("labels must rise from point to point.")
    if not (np.isfinite(y).all() and np.isfinite(doubt).all()):
        raise ValueError("values and errors must be finite.")
    return x, y, doubt


def _rounds(rounds: ArrayLike, last: int) -> NDArray[np.int64]:
    table = np.asarray(rounds)
    if last < 1:
        raise ValueError(f"last must be at least 1, got {last}.")
    if table.ndim != 2 or not table.size or table.dtype.kind not in "iu":
        raise ValueError(f"rounds must be (r, n) integer classes, got {table.dtype} of shape {table.shape}.")
    return table.astype(np.int64)
