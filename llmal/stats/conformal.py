"""Split conformal prediction: sets of classes that hold the right one as often as promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.intervals import Estimate, _check_level

Floats = NDArray[np.float64]

_ROUNDING = 1e-9
"""(n + 1)(1 - alpha) is a whole number for many alphas, but 1 - alpha in binary can put it 1e-14 above."""

_NAMED = 5
"""Classes named in a sentence before "and n more"."""


class Thresholds(NamedTuple):
    """Which scores put a class into a set.

    Attributes:
        at: (C,) largest score that is in, infinity where the class is in every set.
        tie: (C,) in [0, 1]; an item whose score equals `at` is in if its lot is at most this. 1: all are.
        items: (C,) count of items that the class's threshold rests on.
        own: (C,) bool, the threshold rests on items of this class alone.
        alpha: in [0, 1), share of items whose set may lack the right class.
        n: count of calibration items.
    """

    at: Floats
    tie: Floats
    items: NDArray[np.int64]
    own: NDArray[np.bool_]
    alpha: float
    n: int

    def sets(self, scores: ArrayLike, *, rng: np.random.Generator | None = None) -> NDArray[np.bool_]:
        """The set of each item: (n, C) bool for (n, C) scores of the kind the thresholds were fitted on.

        With a generator here and in `thresholds`, equal scores are told apart by lot, and the coverage is
        exact; without, an item that equals the threshold is in, and the coverage is at least that.

        Raises:
            ValueError: scores are not (n, C) numbers.
        """
        table = _scores(scores)
        if table.shape[1] != len(self.at):
            raise ValueError(f"The thresholds are for {len(self.at)} classes, the scores {table.shape}.")
        lot = np.zeros((len(table), 1)) if rng is None else rng.random((len(table), 1))
        return np.asarray((table < self.at) | ((table == self.at) & (lot <= self.tie)))

    def told(self, names: Sequence[str]) -> str:
        """What is promised, of whom, and for which classes nothing is, in sentences."""
        always, own = np.isinf(self.at), int(self.own.sum())
        if always.all():
            need = "no number of items is enough" if self.alpha == 0 else f"{least(self.alpha)} are the least"
            return f"Every class is in every set: for alpha {self.alpha:g} and {self.n} items, {need}."
        promise = f"The right class is in the set of at least {100 * (1 - self.alpha):.4g} % of items"
        if not own:
            return f"{promise}, averaged over draws of the {self.n} calibration items."
        out = f"{promise} of each of {own} classes, averaged over draws of its calibration items."
        if always.any():
            out += f" Too few items to say, so in every set: {_listed(names, always)}."
        if (pooled := ~self.own & ~always).any():
            out += (
                " Too few items for a threshold of their own, so the one of all items serves and nothing is "
                f"promised of them: {_listed(names, pooled)}."
            )
        return out


def lac(probs: ArrayLike) -> Floats:
    """Scores that give the smallest sets on average: 1 - the class's probability.

    Args:
        probs: (n, C) in [0, 1]; they need not be calibrated, better ones give smaller sets.

    Returns:
        (n, C) in [0, 1], smaller is likelier.

    Raises:
        ValueError: probs are not (n, C) in [0, 1].

    Source: Sadinle, Lei & Wasserman 2019.

    Example:
        >>> lac([[0.75, 0.25]]).tolist()
        [[0.25, 0.75]]
    """
    return 1.0 - _probs(probs)


def aps(probs: ArrayLike, *, rng: np.random.Generator | None = None) -> Floats:
    """Scores that adapt to how hard an item is: mass of the classes down to this one, likeliest first.

    Equal probabilities stand in the order of the classes. Sets are larger than those of `lac` on average,
    and their coverage differs less between easy and hard items.

    Args:
        probs: (n, C) in [0, 1], rows sum to 1.
        rng: draws one number u in [0, 1) an item, and u times the class's own mass is left off. None leaves
            nothing off: then no set is smaller, and most are larger, than they need be.

    Returns:
        (n, C) in [0, 1] up to rounding, smaller is likelier.

    Raises:
        ValueError: probs are not (n, C) in [0, 1], or rows do not sum to 1.

    Source: Romano, Sesia & Candes 2020.

    Example:
        >>> aps([[0.25, 0.75]]).tolist()
        [[1.0, 0.75]]
    """
    table = _probs(probs)
    if len(table) and np.abs(table.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("Each row of probs must sum to 1 for this score.")
    order = np.argsort(-table, axis=1, kind="stable")
    ranked = np.take_along_axis(table, order, axis=1)
    left_off = np.zeros(len(table)) if rng is None else rng.random(len(table))
    out = np.empty_like(table)
    np.put_along_axis(out, order, np.cumsum(ranked, axis=1) - left_off[:, None] * ranked, axis=1)
    return out


def rank(n: int, alpha: float) -> int:
    """Which of n calibration scores, smallest first, is the threshold; above n there is none.

    Args:
        n: count of calibration scores, at least 0.
        alpha: in [0, 1).

    Returns:
        ceil((n + 1)(1 - alpha)), at least 1: without the + 1 the sets would hold too little.

    Raises:
        ValueError: alpha outside [0, 1).

    Source: Papadopoulos et al. 2002; Vovk, Gammerman & Shafer 2005.

    Example:
        >>> rank(10, 0.1), rank(19, 0.05), rank(18, 0.05)
        (10, 19, 19)
    """
    _check_alpha(alpha)
    return max(1, math.ceil((n + 1) * (1 - alpha) - _ROUNDING))


def least(alpha: float) -> int:
    """Calibration items below which every class is in every set: 19 for alpha 0.05.

    Raises:
        ValueError: alpha outside (0, 1).
    """
    _check_alpha(alpha)
    if alpha == 0:
        raise ValueError("No number of items is enough for alpha 0.")
    return max(1, math.ceil(1 / alpha - 1 - _ROUNDING))


def quantile(scores: ArrayLike, alpha: float) -> float:
    """Threshold of calibration scores: the `rank`-th smallest, infinity where that is more than there are.

    Args:
        scores: (n,) of the right classes, n >= 0.
        alpha: in [0, 1).

    Raises:
        ValueError: scores are not (n,) numbers, or alpha is outside [0, 1).

    Example:
        >>> quantile([0.3, 0.1, 0.2], 0.5), quantile([0.3, 0.1, 0.2], 0.1)
        (0.2, inf)
    """
    row = np.asarray(scores, np.float64)
    if row.ndim != 1 or np.isnan(row).any():
        raise ValueError(f"scores must be (n,) numbers, got {row.shape} with {int(np.isnan(row).sum())} nan.")
    k = rank(len(row), alpha)
    return math.inf if k > len(row) else float(np.partition(row, k - 1)[k - 1])


def thresholds(
    scores: ArrayLike,
    gold: ArrayLike,
    alpha: float,
    *,
    by_class: bool = False,
    small: Literal["pooled", "always"] = "pooled",
    rng: np.random.Generator | None = None,
) -> Thresholds:
    """Thresholds under which a new item's set holds its right class with probability 1 - alpha at least.

    It holds whatever the model and however wrong its probabilities, on average over draws of the calibration
    items; for one draw the coverage lies within `spread`. Three things break it: calibration items that the
    model learnt from, that were chosen by the model (active selection) or whose gold is an LLM's; a text
    that comes from elsewhere; and an alpha chosen by looking at the same items (see `candidates.choose`).

    Args:
        scores: (n, C) of `lac` or `aps`, smaller is likelier; n >= 0.
        gold: (n,) int in 0..C - 1, what people said.
        alpha: in [0, 1); 0 puts every class into every set.
        by_class: promise it of the items of each class, not only of all together. A class needs at least
            1 / alpha calibration items for a threshold of its own.
        small: what classes with fewer get. `pooled`: the threshold of all items; nothing is then promised of
            those classes, nor of all items together, since the others give away what they had to spare.
            `always`: a place in every set, which keeps the promise for them too.
        rng: equal scores are told apart by lot, if `sets` gets a generator as well. Hard probabilities and
            stated confidences have many; without lots they make sets larger than they need be.

    Raises:
        ValueError: shapes do not fit, gold outside 0..C - 1, or alpha outside [0, 1).

    Source: Vovk, Gammerman & Shafer 2005, with their Mondrian and smoothed variants.

    Example:
        >>> fitted = thresholds(lac([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]), [0, 0, 1], 0.5)
        >>> fitted.sets(lac([[0.5, 0.5], [0.9, 0.1]])).tolist()
        [[False, False], [True, False]]
    """
    table, truth = _pair(scores, gold)
    n, n_classes = table.shape
    _check_alpha(alpha)
    right = np.asarray(table[np.arange(n), truth])
    lot: Floats = np.ones(n) if rng is None else np.asarray(rng.random(n))
    counts = np.bincount(truth, minlength=n_classes)
    own = by_class & (alpha * counts >= 1 - _ROUNDING)

    at, tie = np.full(n_classes, math.inf), np.ones(n_classes)
    if (k := rank(n, alpha)) <= n and not (by_class and small == "always"):
        nth = np.lexsort((lot, right))[k - 1]
        at[:], tie[:] = right[nth], lot[nth]
    if own.any():
        order = np.lexsort((lot, right, truth))
        ks = np.maximum(1, np.ceil((counts[own] + 1) * (1 - alpha) - _ROUNDING)).astype(np.int64)
        nths = order[(np.cumsum(counts) - counts)[own] + ks - 1]
        at[own], tie[own] = right[nths], lot[nths]
    return Thresholds(at, tie, np.where(own, counts, n), own, alpha, n)


def spread(n: int, alpha: float, *, tested: int | None = None, level: float = 0.9) -> Estimate:
    """Coverage to expect of one draw of calibration items, where scores have no ties.

    Args:
        n: count of calibration items, at least 1; of one class where thresholds are by class.
        alpha: in [0, 1).
        tested: count of new items on which the coverage is measured, at least 1; None: its true value.
        level: in (0, 1), share of draws within the interval (at least, where `tested` is given).

    Returns:
        Mean coverage rank / (n + 1) as value, and the interval with equal tails; n. The coverage is
        Beta(rank, n + 1 - rank), counted on `tested` items beta-binomial.

    Raises:
        ValueError: n < 1, tested < 1, alpha outside [0, 1), or level outside (0, 1).

    Source: Vovk 2012; Angelopoulos & Bates 2023, section 3.2.

    Example:
        >>> [round(x, 3) for x in spread(1000, 0.1)]
        [0.9, 0.884, 0.915, 1000]
    """
    from scipy.special import betaincinv, gammaln

    _check_level(level)
    if n < 1 or (tested is not None and tested < 1):
        raise ValueError(f"A spread needs at least one item of each kind, got n = {n} and tested = {tested}.")
    k, tail = rank(n, alpha), (1 - level) / 2
    if k > n:
        return Estimate(1.0, 1.0, 1.0, n)
    b = n + 1 - k
    if tested is None:
        low, high = (float(betaincinv(k, b, q)) for q in (tail, 1 - tail))
        return Estimate(k / (n + 1), low, high, n)
    hits = np.arange(tested + 1)
    # Of all orders of old and new scores, those with so many new ones up to the k-th old one.
    logs = gammaln(hits + k) - gammaln(hits + 1) + gammaln(tested - hits + b) - gammaln(tested - hits + 1)
    weights = np.exp(logs - logs.max())
    below = np.cumsum(weights) / weights.sum()
    # The upper end from above, so that rounding next to 1 moves neither end outwards.
    low = int(np.searchsorted(below, tail)) / tested
    above = np.cumsum(weights[::-1]) / weights.sum()
    high = 1 - int(np.searchsorted(above, tail)) / tested
    return Estimate(k / (n + 1), low, high, n)


def _listed(names: Sequence[str], which: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(which)
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(str(names[c]) for c in rows[:_NAMED]) + more


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must lie in [0, 1), got {alpha}.")


def _probs(probs: ArrayLike) -> Floats:
    table = _scores(probs)
    if table.size and not (table.min() >= -1e-6 and table.max() <= 1 + 1e-6):
        raise ValueError(f"probs must lie in [0, 1], got {table.min():g}..{table.max():g}.")
    return table


def _scores(scores: ArrayLike) -> Floats:
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[1] < 1 or np.isnan(table).any():
        raise ValueError(
            f"One number an item and class is needed, (n, C), got {table.shape} with "
            f"{int(np.isnan(table).sum())} nan."
        )
    return table


def _pair(scores: ArrayLike, gold: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    table, truth = _scores(scores), np.asarray(gold)
    if truth.shape != (len(table),) or (truth.size and truth.dtype.kind not in "iu"):
        raise ValueError(
            f"gold must be ({len(table)},) whole numbers like the scores, got {truth.dtype} {truth.shape}."
        )
    if truth.size and (truth.min() < 0 or truth.max() >= table.shape[1]):
        raise ValueError(f"gold must lie in 0..{table.shape[1] - 1}, got {truth.min()}..{truth.max()}.")
    return table, truth.astype(np.int64)
