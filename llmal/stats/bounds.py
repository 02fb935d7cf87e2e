"""One-sided bounds and tests of a mean in [0, 1]: what a certificate is made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.intervals import clopper_pearson

FRACTIONS: NDArray[np.float64] = np.geomspace(0.05, 0.8, 4)
"""Shares of the wealth that the betting test stakes against the hypothesis, all of them at once. The best
one is (mean - least) / (1 - least) for values that are 0 or 1. More of them thin out the stakes: 12 from
0.01 to 0.9 need as many labels or up to half more, measured at accuracies 0.01 to 0.05 above the target."""

_BISECTIONS = 40
"""Halvings of [0, 1] when a test is turned into a bound: the bound is then right to 1e-12."""

_ROUNDING = 1e-9
"""A mean times its count is a whole number but for rounding; without this slack 3.0000000004 becomes 4."""


def binomial_lower(right: int, n: int, delta: float) -> float:
    """Exact lower bound of a share: below it with probability at most delta.

    Args:
        right: count in 0..n.
        n: count of items, at least 1.
        delta: in (0, 0.5); share of bounds that may lie above the true share.

    Returns:
        Bound in [0, 1].

    Raises:
        ValueError: a count or delta outside its range.

    Source: Clopper & Pearson 1934.

    Example:
        >>> round(binomial_lower(197, 200, 0.05), 5)
        0.96169
    """
    _check_delta(delta)
    return clopper_pearson(right, n, level=1 - 2 * delta).low


def binomial_upper(wrong: int, n: int, delta: float) -> float:
    """Exact upper bound of a share: above it with probability at most delta.

    Args:
        wrong: count in 0..n.
        n: count of items, at least 1.
        delta: in (0, 0.5); share of bounds that may lie below the true share.

    Returns:
        Bound in [0, 1].

    Raises:
        ValueError: a count or delta outside its range.

    Source: Clopper & Pearson 1934.

    Example:
        >>> round(binomial_upper(0, 100, 0.05), 6)
        0.029513
    """
    _check_delta(delta)
    return clopper_pearson(wrong, n, level=1 - 2 * delta).high


def binomial_pvalue(right: ArrayLike, n: ArrayLike, least: float) -> NDArray[np.float64]:
    """P-value of "the share is at most `least`": the exact test, for items that are right or wrong.

    A sample drawn without replacement from a finite corpus is spread less than the binomial, so that the
    test holds there as well and gives a little away.

    Args:
        right: (...) counts in 0..n.
        n: (...) counts of items; with none of them the p-value is 1.
        least: in (0, 1), the share that is to be exceeded.

    Returns:
        (...) in [0, 1]. At most delta exactly where `binomial_lower(right, n, delta)` is at least `least`.

    Raises:
        ValueError: `least` outside (0, 1).

    Source: Clopper & Pearson 1934; without replacement: Uhlmann 1966.

    Example:
        >>> float(binomial_pvalue(45, 45, 0.95).round(4))
        0.0994
    """
    from scipy.special import bdtrc  # type: ignore[import-untyped, unused-ignore]

    _check_share(least)
    found = np.asarray(bdtrc(np.asarray(right, np.float64) - 1, np.asarray(n), least), np.float64)
    return np.where(np.asarray(right) <= 0, 1.0, found)


def hoeffding_bentkus(risk: ArrayLike, n: ArrayLike, limit: float) -> NDArray[np.float64]:
    """P-value of "the mean loss is above the limit", for losses anywhere in [0, 1].

    For losses that are 0 or 1 `binomial_pvalue` is exact and smaller.

    Args:
        risk: (...) mean losses in [0, 1].
        n: (...) counts of items, at least 1.
        limit: in (0, 1), the mean loss that is to be undercut.

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: limit outside (0, 1).

    Source: Bates, Angelopoulos, Lei, Malik & Jordan 2021; Angelopoulos, Bates, Candes, Jordan & Lei 2021.

    Example:
        >>> float(hoeffding_bentkus(0.015, 200, 0.05).round(6))
        0.024596
    """
    from scipy.special import bdtr, rel_entr  # type: ignore[import-untyped, unused-ignore]

    _check_share(limit)
    size = np.asarray(n)
    below = np.minimum(np.asarray(risk, np.float64), limit)
    hoeffding = np.exp(-size * (rel_entr(below, limit) + rel_entr(1 - below, 1 - limit)))
    losses = np.ceil(size * np.asarray(risk, np.float64) - _ROUNDING)
    bentkus = math.e * bdtr(losses, size, limit)
    return np.asarray(np.minimum(1.0, np.minimum(hoeffding, bentkus)), np.float64)


def betting_pvalue(values: ArrayLike, least: float) -> float:
    """P-value of "the mean is at most `least`", for values anywhere in [0, 1], at whatever time one stops.

    A gambler stakes the shares `FRACTIONS` of a wealth of 1 on every next value being above `least`. Where
    the mean is not above it nobody can expect to win, so the wealth passes 1 / p with probability at most
    p, however often one looks. Its price, measured: for values that are 0 or 1 and one look it needs two to
    three times as many items as `binomial_pvalue`.

    Args:
        values: (n,) in [0, 1], in the order in which they were drawn; an order that follows the score or the
            outcome makes the test void. n may be 0.
        least: in (0, 1).

    Returns:
        In (0, 1]: one over the largest wealth up to now. It never rises when values are appended.

    Raises:
        ValueError: values outside [0, 1] or not (n,), or `least` outside (0, 1).

    Source: Waudby-Smith & Ramdas 2024 (a grid of bets); Ville 1939.

    Example:
        >>> betting_pvalue([1] * 60, 0.9) < 0.1
        True
    """
    _check_share(least)
    return _betting(_values(values), least)


def betting_lower(values: ArrayLike, delta: float) -> float:
    """Lower bound of a mean in [0, 1] that holds at every time at once, with probability 1 - delta.

    Args:
        values: (n,) in [0, 1], in the order in which they were drawn. n may be 0: the bound is then 0.
        delta: in (0, 0.5); share of streams whose bound may ever lie above the true mean.

    Returns:
        Bound in [0, 1]. It never falls when values are appended.

    Raises:
        ValueError: values outside [0, 1] or not (n,), or delta outside (0, 0.5).

    Source: Waudby-Smith & Ramdas 2024.

    Example:
        >>> round(betting_lower([1] * 100, 0.05), 3)
        0.948
    """
    _check_delta(delta)
    found = _values(values)
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):  # every stake pays less the more it has to beat, so the test is monotone
        middle = (low + high) / 2
        low, high = (middle, high) if _betting(found, middle) <= delta else (low, middle)
    return low


def labels_needed(accuracy: float, target: float, delta: float, *, power: float = 0.8) -> int | None:
    """About how many accepted items the exact test needs in order to certify that accuracy.

    Args:
        accuracy: true share of right items among the accepted ones.
        target: in (0, 1), the share that is to be certified.
        delta: in (0, 0.5), the error allowed.
        power: in (0.5, 1), probability that the test then succeeds.

    Returns:
        Count of accepted items, at least as many as the test needs when all are right; None where the
        accuracy does not exceed the target, and no number of items helps.

    Raises:
        ValueError: a share outside its range.

    Source: normal approximation of the binomial test's sample size; Fleiss, Levin & Paik 2003.

    Example:
        >>> labels_needed(1.0, 0.95, 0.05), labels_needed(0.94, 0.95, 0.05)
        (59, None)
    """
    from statistics import NormalDist

    _check_share(target)
    _check_delta(delta)
    if not accuracy > target:
        return None
    normal = NormalDist()
    spread = normal.inv_cdf(1 - delta) * math.sqrt(target * (1 - target))
    spread += normal.inv_cdf(power) * math.sqrt(accuracy * (1 - accuracy))
    return max(math.ceil((spread / (accuracy - target)) ** 2), math.ceil(math.log(delta) / math.log(target)))


def alpha_spending(delta: float, issue: int) -> float:
    """Share of delta for the issue-th certificate of a run: all that were ever issued hold with 1 - delta.

    Without it, a certificate issued anew after every refit is ten chances to be lucky. The shares sum to
    delta however many issues there are, so nobody has to know the number beforehand.

    Args:
        delta: in (0, 0.5), for the whole run.
        issue: 1 for the first certificate, and so on.

    Returns:
        delta / (issue * (issue + 1)).

    Raises:
        ValueError: delta outside its range or issue < 1.

    Source: union bound over a telescoping sum; alpha spending, Lan & DeMets 1983.

    Example:
        >>> [round(alpha_spending(0.1, k), 4) for k in (1, 2, 3)]
        [0.05, 0.0167, 0.0083]
    """
    _check_delta(delta)
    if issue < 1:
        raise ValueError(f"Certificates are counted from 1, got issue {issue}.")
    return delta / (issue * (issue + 1))


def _betting(values: NDArray[np.float64], least: float) -> float:
    if not len(values):
        return 1.0
    logs = np.log1p(FRACTIONS[:, None] * (values / least - 1)).cumsum(axis=1)
    # Wealth that passes the largest float is a p-value below any that can be asked for.
    best = logs.max(axis=0)
    wealth = best + np.log(np.exp(logs - best).mean(axis=0))
    return float(np.exp(-max(0.0, wealth.max())))


def _values(values: ArrayLike) -> NDArray[np.float64]:
    found: NDArray[Any] = np.asarray(values, np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise ValueError("A betting test needs values in [0, 1], shape (n,).")
    return found


def _check_delta(delta: float) -> None:
    if not 0 < delta < 0.5:
        raise ValueError(f"delta must lie strictly between 0 and 0.5, got {delta}.")


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"A share to be tested must lie strictly between 0 and 1, got {share}.")
