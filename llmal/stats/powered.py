"""Prediction-powered estimates: a few people's answers and many machine labels, one honest number."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.intervals import _check_level

PSEUDO = 0.7
"""Weight of the two disagreements (people yes and machine no, and the reverse) added before a share's width.

With a machine that is right 95 times in 100, a sample of 30 often holds no disagreement at all, and a
variance of 0 that nobody believes. Chosen among 0.5, 0.6, 0.7 and 1 over 56 worlds (7 shares, 8 machines,
20,000 samples each, n = 10 to 100): the least whose coverage never fell below 0.93.
"""

FEWEST = 10
"""Items below which a share is that of people alone; n = 10 was the least that was simulated."""

_SHARE = (PSEUDO, ((1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 1.0, 1.0)))
"""Weight, and rows of (top, bottom, the machine's top, its bottom), of the items that are added."""

Floats = NDArray[np.float64]
Interval = Literal["share", "t", "normal"]
Extra = tuple[float, tuple[tuple[float, ...], ...]]


class Powered(NamedTuple):
    """An estimate that leans on machine labels as far as they help, and cannot be led astray by them.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        n: items that people answered.
        rest: further items that only the machine answered.
        lam: in [0, 1], how far the machine labels were trusted; 0 is people alone.
        worth: people's answers alone that would have given the same standard error; at least about n.
    """

    value: float
    low: float
    high: float
    n: int
    rest: int
    lam: float
    worth: float


class _Sample(NamedTuple):
    """Ratio of two means, top over bottom: people's (n,), the machine's (n,) and its rest (N,)."""

    top: Floats
    bottom: Floats
    top_hat: Floats
    bottom_hat: Floats
    top_rest: Floats
    bottom_rest: Floats
    weights: Floats


class _Fit(NamedTuple):
    value: float
    lam: float
    variance: float
    alone: float


def mean(
    gold: ArrayLike,
    machine: ArrayLike,
    machine_rest: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    lam: float | None = None,
    level: float = 0.95,
    interval: Interval = "t",
) -> Powered:
    """Mean of what people would say, from few of their answers and many of the machine's.

    The machine's mean over the items without an answer, corrected by how far it is off where there is one.
    People's items must be a random sample of the pool (`weights` where chances differed), and the machine
    must not have learnt from them: a student trained on them would look better than it is. Where that cannot
    be helped, cross-fit: train on all folds but one, predict that fold, and hand over those predictions.

    Args:
        gold: (n,), people's values, n >= 2.
        machine: (n,), the machine's values of the same items.
        machine_rest: (N,), its values of other items of the pool; N = 0 is people alone.
        weights: (n,) > 0, inverse of each item's chance to be asked, up to a factor; None is equal chances.
        lam: in [0, 1], trust in the machine; None takes the trust of least variance.
        level: in (0, 1); share of intervals that hold the true value.
        interval: `t` for any values, `normal` as published, `share` for values in [0, 1] (see `share`).

    Returns:
        The estimate; its interval is not cut to any range.

    Raises:
        ValueError: lengths differ, n < 2, a value is not finite, a weight is not positive, or level or lam
            lies outside its range.

    Source: Angelopoulos et al. 2023 (prediction-powered inference), Angelopoulos, Duchi & Zrnic 2023 (PPI++).

    Example:
        >>> found = mean([1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 0, 1, 1, 0], interval="normal", level=0.9)
        >>> [round(x, 3) for x in found[:3]]
        [0.75, 0.431, 1.069]
    """
    y, f, rest = (np.asarray(a, np.float64) for a in (gold, machine, machine_rest))
    given = _weights(weights, len(y))
    sample = _Sample(y, np.ones_like(y), f, np.ones_like(f), rest, np.ones_like(rest), given)
    return _estimate(sample, lam, level, interval)


def share(
    gold: ArrayLike,
    machine: ArrayLike,
    machine_rest: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> Powered:
    """Share of items with a property, with an interval that holds from about 30 answers.

    The value is that of `mean`. Width and centre of the interval come from the sample with two disagreements
    of weight `PSEUDO` added, and from t quantiles: a sample without a disagreement is no proof that there is
    none. Where the machine does not help, or fewer than `FEWEST` items were answered, it is the Wilson
    interval of people alone. Measured coverage: `tests/benchmarks/few_people.py`.

    Args:
        gold: (n,) in [0, 1], mostly 0 or 1: people say that the item has the property.
        machine: (n,) in [0, 1]: the machine says so, or with what probability.
        machine_rest: (N,) in [0, 1], of other items of the pool.
        weights: as for `mean`.
        level: in (0, 1).

    Returns:
        The estimate, all of it in [0, 1].

    Raises:
        ValueError: as `mean`, or a value outside [0, 1].

    Source: PPI++ (see `mean`); added items after Agresti & Coull 1998, where they go is ours.

    Example:
        >>> found = share([1] * 20 + [0] * 20, [1] * 20 + [0] * 20, [1, 0] * 500)
        >>> [round(x, 2) for x in found[:3]], round(found.worth)
        ([0.5, 0.44, 0.56], 308)
    """
    y, f, rest = (np.asarray(a, np.float64) for a in (gold, machine, machine_rest))
    for values in (y, f, rest):
        if values.size and (values.min() < 0 or values.max() > 1):
            raise ValueError("A share needs values in [0, 1].")
    return mean(y, f, rest, weights=weights, level=level, interval="share")


def _estimate(
    sample: _Sample, lam: float | None, level: float, interval: Interval, extra: Extra = _SHARE
) -> Powered:
    _check(sample, lam, level)
    n, rest = len(sample.top), len(sample.top_rest)
    effective = n**2 / float((sample.weights**2).sum())
    if interval == "share" and n < FEWEST:
        lam = 0.0
    fit = _fit(sample, lam)
    if interval == "share" and fit.lam == 0 and extra is _SHARE:
        return Powered(fit.value, *_wilson(fit.value, effective, level), n, rest, 0.0, float(n))
    wide = _fit(_padded(sample, n / effective, extra), lam) if interval == "share" else fit
    quantile = _quantile(level, math.inf if interval == "normal" else effective - 1)
    half = quantile * math.sqrt(wide.variance * (n / (n - 1) if interval == "t" else 1))
    value, low, high = fit.value, wide.value - half, wide.value + half
    if interval == "share":
        value = min(max(value, 0.0), 1.0)
        low, high = max(min(low, value), 0.0), min(max(high, value), 1.0)
    worth = n * wide.alone / wide.variance if wide.variance > 0 else float(n)
    return Powered(value, low, high, n, rest, fit.lam, worth)


def _fit(sample: _Sample, lam: float | None) -> _Fit:
    """Value, trust and variance of a ratio of two means, and its variance with people alone."""
    top, bottom, top_hat, bottom_hat, top_rest, bottom_rest, weights = sample
    rest = len(top_rest)
    w = weights / weights.sum()
    alone = float(w @ top) / float(w @ bottom)
    people = top - alone * bottom
    classical = _variance(people, w) / float(w @ bottom) ** 2
    if rest == 0:
        return _Fit(alone, 0.0, classical, classical)
    if lam is None:
        lam = _tuned(people, top_hat - alone * bottom_hat, top_rest - alone * bottom_rest, weights)
    below = lam * float(bottom_rest.mean()) + float(w @ (bottom - lam * bottom_hat))
    above = lam * float(top_rest.mean()) + float(w @ (top - lam * top_hat))
    if below <= 0:  # the machine's surplus takes the class away altogether: no ratio there
        return _Fit(alone, 0.0, classical, classical)
    value = above / below
    rectifier = top - value * bottom - lam * (top_hat - value * bottom_hat)
    imputed = lam * (top_rest - value * bottom_rest)
    variance = (float(imputed.var()) / rest + _variance(rectifier, w)) / below**2
    return _Fit(value, lam, variance, classical)


def _tuned(people: Floats, machine: Floats, rest: Floats, weights: Floats) -> float:
    """Trust of least variance, in [0, 1]."""
    ratio, shares = len(people) / len(rest), weights / weights.sum()
    apart = weights * (machine - shares @ machine)
    covariance = float((apart * weights * (people - shares @ people)).mean())
    if np.ptp(weights) == 0:
        spread = float(np.concatenate([machine, rest]).var(ddof=1)) * (1 + ratio)
    else:  # where chances differ, the two parts vary differently and cannot be pooled
        spread = float((apart**2).mean()) + ratio * float(rest.var())
    return min(max(covariance / spread, 0.0), 1.0) if spread > 0 else 0.0


def _variance(values: Floats, shares: Floats) -> float:
    """Variance of a weighted mean, shares sum to 1."""
    return float(((shares * (values - shares @ values)) ** 2).sum())


def _padded(sample: _Sample, unit: float, extra: Extra) -> _Sample:
    """The sample with items added; `unit` is the weight of one whole item."""
    weight, rows = extra
    people = [np.concatenate([old, new]) for old, new in zip(sample[:4], np.array(rows).T, strict=True)]
    weights = np.concatenate([sample.weights, np.full(len(rows), weight * unit)])
    return _Sample(people[0], people[1], people[2], people[3], sample.top_rest, sample.bottom_rest, weights)


def _wilson(value: float, n: float, level: float) -> tuple[float, float]:
    """Wilson interval for a count that need not be whole: that of weighted items."""
    z = _quantile(level, math.inf)
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(value * (1 - value), 0.0) / n + z * z / (4 * n * n))
    return max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0)


def _quantile(level: float, df: float) -> float:
    from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped, unused-ignore]

    tail = 0.5 + level / 2
    return float(ndtri(tail)) if math.isinf(df) else float(stdtrit(max(df, 1.0), tail))


def _weights(weights: ArrayLike | None, n: int) -> Floats:
    """Weights with mean 1."""
    if weights is None:
        return np.ones(n)
    found = np.asarray(weights, np.float64)
    if found.shape != (n,) or not np.isfinite(found).all() or (found <= 0).any():
        raise ValueError(f"weights must be {n} positive numbers.")
    return np.asarray(found / found.mean(), np.float64)


def _check(sample: _Sample, lam: float | None, level: float) -> None:
    _check_level(level)
    if lam is not None and not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], got {lam}.")
    n = len(sample.top)
    if sample.top_hat.shape != (n,) or sample.top.shape != (n,) or sample.top_rest.ndim != 1:
        raise ValueError(f"People and machine must say one value each of the same items, got {n} and "
                         f"{sample.top_hat.shape}.")  # fmt: skip
    if n < 2:
        raise ValueError(f"An estimate needs at least two answers of people, got {n}.")
    if not all(np.isfinite(part).all() for part in sample):
        raise ValueError("Every value must be a finite number.")
