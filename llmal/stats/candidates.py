"""Candidate sets for people: what an answer costs from a short list, and how long the list should be."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.conformal import Floats, Thresholds, _pair, thresholds
from llmal.stats.intervals import Estimate, _check_level, wilson

Fold = tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]

ALPHAS = tuple(round(0.02 * i, 2) for i in range(50))
"""Shares of misses that are tried: 0, the full list, to 0.98."""

FOLDS = 20
"""Parts left out in turn when costs are measured: thresholds then rest on 95 % of the items."""


class Search(NamedTuple):
    """The cheapest share of misses, and what all of them cost.

    Attributes:
        alpha: the cheapest; of equally cheap ones the smallest.
        alphas: (A,) those tried.
        bits: (A,) mean cost of an answer.
        n: count of items.
    """

    alpha: float
    alphas: Floats
    bits: Floats
    n: int


class Choice(NamedTuple):
    """Thresholds for candidate sets, and what they save.

    Attributes:
        thresholds: their promise holds: the items they rest on had no part in choosing alpha.
        search: how alpha was chosen, on the other items.
        bits: mean cost of an answer from the set that is shown.
        saving: share of the full list's cost that the sets save; below 0 they cost more.
        coverage: share of items whose right class is in the set that is shown.
        size: mean count of classes shown.
    """

    thresholds: Thresholds
    search: Search
    bits: Estimate
    saving: Estimate
    coverage: Estimate
    size: float

    def told(self) -> str:
        """What the sets save and hold, in sentences."""
        n_classes = len(self.thresholds.at)
        held, saved = (f"[{e.low:.1%}, {e.high:.1%}]" for e in (self.coverage, self.saving))
        return (
            f"People see {self.size:.1f} of {n_classes} classes on average; the right one is among them for "
            f"{self.coverage.value:.1%} of {self.coverage.n} items {held}. An answer costs "
            f"{self.bits.value:.2f} bits instead of {math.log2(n_classes):.2f}: {self.saving.value:.1%} less "
            f"{saved}."
        )


def cost(size: ArrayLike, hit: ArrayLike, n_classes: int) -> Floats:
    """Cost of an answer from a candidate set, in bits: the choices a person has to tell apart.

    A set of k of L classes is shown with "none of these": log2(k + 1). Where the right class is not in it,
    the L - k others are shown next: log2(L - k) more. A set of all or of no classes is the full list: log2 L.

    Args:
        size: (n,) int, classes in the set, in 0..L.
        hit: (n,) bool, the right class is among them.
        n_classes: L, at least 2.

    Returns:
        (n,) bits.

    Raises:
        ValueError: L < 2, or a size outside 0..L.

    Source: Gwon et al. 2025 (Candidate Set Query).

    Example:
        >>> [round(float(b), 6) for b in cost([3, 3, 0, 20], [True, False, False, True], 20)]
        [2.0, 6.087463, 4.321928, 4.321928]
    """
    k = np.asarray(size, np.float64)
    if n_classes < 2:
        raise ValueError(f"There is nothing to choose among {n_classes} classes.")
    if k.size and (k.min() < 0 or k.max() > n_classes):
        raise ValueError(f"The size of a set must lie in 0..{n_classes}, got {k.min():g}..{k.max():g}.")
    first = np.log2(np.minimum(k + 1, n_classes))
    second = np.log2(np.maximum(n_classes - k, 1))
    missed = ~np.asarray(hit, bool) | (k == 0)
    return np.asarray(first + np.where(missed, second, 0.0))


def expected_cost(size: ArrayLike, alpha: float, n_classes: int) -> Floats:
    """Cost of an answer that is not known yet, in bits, where the set misses with probability alpha.

    For ranking items by what their answers are worth against what they cost.

    Args:
        size: (n,) int, classes in the set, in 0..L.
        alpha: in [0, 1).
        n_classes: L, at least 2.

    Returns:
        (n,) bits.

    Raises:
        ValueError: L < 2, or a size outside 0..L.

    Source: Gwon et al. 2025 (Candidate Set Query).
    """
    hit = np.ones(np.shape(size), bool)
    return (1 - alpha) * cost(size, hit, n_classes) + alpha * cost(size, ~hit, n_classes)


def shown(sets: ArrayLike) -> NDArray[np.bool_]:
    """What a person gets to see: (n, C) bool, the full list where a set is empty."""
    table = np.array(sets, bool)
    table[~table.any(axis=1)] = True
    return table


def cheapest(
    scores: ArrayLike,
    gold: ArrayLike,
    *,
    rng: np.random.Generator,
    alphas: ArrayLike = ALPHAS,
    by_class: bool = False,
    small: Literal["pooled", "always"] = "pooled",
) -> Search:
    """The share of misses at which answers cost least, measured on items left out of the thresholds.

    The items have then been looked at: thresholds at this alpha keep their promise on other items only.

    Args:
        scores: (n, C) of `conformal.lac` or `conformal.aps`; n >= 2.
        gold: (n,) int in 0..C - 1.
        rng: assigns items to folds.
        alphas: (A,) each in [0, 1); give fewer to promise more (`alphas=(0.02, 0.05, 0.1)`).
        by_class: as in `conformal.thresholds`.
        small: as in `conformal.thresholds`.

    Raises:
        ValueError: fewer than two items or classes, no alphas, or what `conformal.thresholds` refuses.

    Source: Gwon et al. 2025 (Candidate Set Query) for the search; leaving out and the (n + 1) are ours.
    """
    tried = np.sort(np.asarray(alphas, np.float64))
    if not tried.size:
        raise ValueError("At least one alpha must be given.")
    folds = _folds(scores, gold, rng)
    bits = np.array([_left_out(folds, float(a), by_class, small).mean() for a in tried])
    # The smallest alpha of the cheapest: rounding of sums must not decide between equals.
    best = int(np.flatnonzero(bits <= bits.min() + 1e-9)[0])
    return Search(float(tried[best]), tried, bits, len(np.asarray(gold)))


def choose(
    scores: ArrayLike,
    gold: ArrayLike,
    *,
    rng: np.random.Generator,
    alphas: ArrayLike = ALPHAS,
    share: float = 0.5,
    by_class: bool = False,
    small: Literal["pooled", "always"] = "pooled",
    level: float = 0.95,
) -> Choice:
    """Thresholds for candidate sets at the cheapest share of misses, with a promise that still holds.

    The items are split at random. On the first part alpha is chosen (`cheapest`). The thresholds rest on the
    second part alone: an item of it is as new to alpha as an item to come, so they keep their promise. What
    they save is measured on the first part, which had no part in them; that alpha was chosen there flatters
    the saving by 0.3 to 1.5 points (30 to 200 items, 20 and 150 classes, simulated), within the interval.

    Args:
        scores: (n, C) of `conformal.lac` or `conformal.aps`; n >= 4.
        gold: (n,) int in 0..C - 1, what people said of a random sample that the model did not learn from.
        rng: of the split and the folds.
        alphas: (A,) to choose from, each in [0, 1); one alone is only measured.
        share: in (0, 1), of the items in the first part.
        by_class: as in `conformal.thresholds`.
        small: as in `conformal.thresholds`.
        level: in (0, 1), of the intervals.

    Raises:
        ValueError: n < 4, share outside (0, 1), or what `cheapest` refuses.

    Source: Gwon et al. 2025 (Candidate Set Query); the split is ours.
    """
    table, truth = _pair(scores, gold)
    if not 0 < share < 1:
        raise ValueError(f"share must lie strictly between 0 and 1, got {share}.")
    if len(table) < 4:
        raise ValueError(f"Four items are the least for a choice and thresholds, got {len(table)}.")
    order = rng.permutation(len(table))
    first, second = np.split(order, [min(max(round(share * len(order)), 2), len(order) - 2)])
    search = cheapest(table[first], truth[first], rng=rng, alphas=alphas, by_class=by_class, small=small)
    fitted = thresholds(table[second], truth[second], search.alpha, by_class=by_class, small=small)
    costs, hit, size = _paid(fitted, table[first], truth[first])
    bits, full = mean_cost(costs, table.shape[1], level=level), math.log2(table.shape[1])
    saving = Estimate(1 - bits.value / full, 1 - bits.high / full, 1 - bits.low / full, bits.n)
    coverage = wilson(int(hit.sum()), len(hit), level=level)
    return Choice(fitted, search, bits, saving, coverage, float(size.mean()))


def mean_cost(costs: ArrayLike, n_classes: int, *, level: float = 0.95) -> Estimate:
    """Mean cost of an answer with a t interval to which the cheapest and the dearest answer are added.

    Misses are rare and dear: a small sample without one would give an interval far too short.

    Args:
        costs: (n,) of `cost`, n >= 1, of items that had no part in the thresholds.
        n_classes: L, at least 2.
        level: in (0, 1), share of intervals that hold the mean over all items.

    Returns:
        The plain mean in bits, low <= value <= high.

    Raises:
        ValueError: no costs, L < 2, or level outside (0, 1).

    Source: Student 1908; added items as in Agresti & Coull 1998.
    """
    from scipy.special import stdtrit

    _check_level(level)
    paid = np.asarray(costs, np.float64)
    if paid.ndim != 1 or not paid.size:
        raise ValueError(f"costs must be (n,) with at least one, got {paid.shape}.")
    sizes = np.arange(1, n_classes + 1)
    ends = [cost(sizes, np.full(n_classes, hit), n_classes) for hit in (True, False)]
    row = np.concatenate([paid, [ends[0].min(), ends[1].max()]])
    half = float(stdtrit(len(row) - 1, 0.5 + level / 2)) * float(row.std(ddof=1)) / math.sqrt(len(row))
    value, centre = float(paid.mean()), float(row.mean())
    return Estimate(value, min(centre - half, value), max(centre + half, value), len(paid))


def _folds(scores: ArrayLike, gold: ArrayLike, rng: np.random.Generator) -> list[Fold]:
    """Of each fold the scores and gold of the other items, then its own."""
    table, truth = _pair(scores, gold)
    if len(table) < 2:
        raise ValueError(f"Two items are the least of which one can be left out, got {len(table)}.")
    out = []
    for part in np.array_split(rng.permutation(len(table)), min(FOLDS, len(table))):
        others = np.ones(len(table), bool)
        others[part] = False
        out.append((table[others], truth[others], table[part], truth[part]))
    return out


def _left_out(folds: list[Fold], alpha: float, by_class: bool, small: Literal["pooled", "always"]) -> Floats:
    """(n,) cost of every item under thresholds fitted without its fold."""
    costs = []
    for scores, gold, own_scores, own_gold in folds:
        fitted = thresholds(scores, gold, alpha, by_class=by_class, small=small)
        costs.append(_paid(fitted, own_scores, own_gold)[0])
    return np.concatenate(costs)


def _paid(
    fitted: Thresholds, scores: Floats, gold: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """(n,) cost, hit and size of what is shown of each item."""
    seen = shown(fitted.sets(scores))
    hit, size = seen[np.arange(len(gold)), gold], seen.sum(axis=1)
    return cost(size, hit, seen.shape[1]), hit, size
