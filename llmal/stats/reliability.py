"""How far people agree beyond chance: Krippendorff's alpha of all, Cohen's kappa of two, with intervals."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.intervals import Estimate, _bca_tails, _widened_z, clopper_pearson

UNITS = 1000
"""Items are resampled one by one up to here, in so many groups beyond: the interval stays quick to make."""

BLOCK = 256
"""Sets that are compared with all others at a time: memory stays small where nearly every set is another."""

Floats = NDArray[np.float64]


class Kappa(NamedTuple):
    """Agreement of two people on the items that both answered.

    Attributes:
        a: number of the one.
        b: number of the other, larger than a.
        estimate: kappa, its interval, and the items behind it.
    """

    a: int
    b: int
    estimate: Estimate


def krippendorff_alpha(
    item: ArrayLike,
    person: ArrayLike,
    label: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """Agreement of any number of people, each with any number of the items, beyond chance.

    Labels of `kind: single` are alike or not. Sets of labels are as far apart as MASI says, so that "two of
    the three" is no full disagreement: 1 minus their Jaccard share, which a subset keeps to two thirds and a
    mere overlap to one third. One alpha for each label would not show this, and has no chance to correct for
    where a label is rare.

    The interval is BCa over items. Where nobody disagrees anywhere, resampling cannot imagine an error: its
    lower end is then the alpha at which so many items without a disagreement are still likely. In 18 worlds
    of 30 to 300 items, 400 samples each, 95 % intervals held the true alpha in 93 to 97.5 %.

    Args:
        item: (k,) int.
        person: (k,) int; at most one word for each item and person.
        label: (k,) int classes, or (k, C) bool sets.
        level: of the interval, in (0, 1).
        resamples: of the items.
        seed: of the resamples; the same seed and words give the same interval.

    Returns:
        Alpha, 1 is full agreement and 0 chance, with n items that two people or more answered. None with
        fewer than two such items, or where all words are the same: then there is nothing to correct for.

    Raises:
        ValueError: shapes differ, or a person has two words on an item.

    Source: Krippendorff 2011 (alpha); Passonneau 2006 (MASI); Zapf et al. 2016 (bootstrap over items).

    Example:
        >>> round(krippendorff_alpha([0, 0, 1, 1, 2, 2], [0, 1] * 3, [0, 0, 1, 1, 0, 1]).value, 3)
        0.444
    """
    place, _, word, labels = _words(item, person, label)
    _, place, given = np.unique(place, return_inverse=True, return_counts=True)
    kept = given[place] > 1
    _, place = np.unique(place[kept], return_inverse=True)
    word = word[kept]
    n = len(np.unique(place))
    if n < 2:
        return None
    words = np.asarray(np.bincount(place), np.float64)
    expected = np.asarray(np.bincount(place, weights=labels.to_all(word, word)), np.float64)
    found = _within(place, word, labels, n) / (words - 1)
    if expected.sum() <= 0:
        return None
    # A word is not compared with itself: N - 1 of the N others.
    found *= (len(place) - 1) / len(place)
    return _estimate(found, words, [expected, expected], 2.0, level, resamples, seed)


def pairwise_kappa(
    item: ArrayLike,
    person: ArrayLike,
    label: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Kappa]:
    """Cohen's kappa of every two people who share two items or more, with its interval.

    Sets of labels are as far apart as MASI says (`krippendorff_alpha`). Arguments and interval as there.

    Returns:
        By number. Two people whose words are all the same are left out: nothing is there to correct for.

    Raises:
        ValueError: shapes differ, or a person has two words on an item.

    Source: Cohen 1960; Cohen 1968 where sets are more or less apart.
    """
    place, who, word, labels = _words(item, person, label)
    out = []
    by = {int(j): np.flatnonzero(who == j) for j in np.unique(who)}
    for a, b in combinations(by, 2):
        _, first, second = np.intersect1d(place[by[a]], place[by[b]], return_indices=True)
        estimate = _kappa(word[by[a][first]], word[by[b][second]], labels, level, resamples, seed)
        if estimate is not None:
            out.append(Kappa(a, b, estimate))
    return out


def masi(one: ArrayLike, other: ArrayLike) -> Floats:
    """(n, m) distance in [0, 1] of every set of the one to every set of the other.

    Args:
        one: (n, C) bool.
        other: (m, C) bool.

    Source: Passonneau 2006.

    Example:
        >>> masi([[True, True, False]], [[True, False, False], [False, True, True]]).round(3).tolist()
        [[0.667, 0.889]]
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return _masi(a @ b.T, a.sum(axis=1)[:, None], b.sum(axis=1)[None])


def _masi(both: Floats, first: Floats, second: Floats) -> Floats:
    """Distance from the sizes of the overlap and of either set."""
    inner = (both == first).astype(np.int8) + (both == second)
    keeps = np.array([1 / 3, 2 / 3, 1.0])[inner]
    union = first + second - both
    return np.asarray(np.where(union > 0, 1 - both / np.maximum(union, 1) * keeps, 0.0))


class _Labels:
    """How far labels are apart: classes are alike or not, sets by MASI. Words are numbers of labels."""

    def __init__(self, sets: NDArray[np.bool_] | None) -> None:
        self._sets = sets

    def between(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Floats:
        """(n,) distance of the words in the same place."""
        if self._sets is None:
            return np.asarray(one != other, np.float64)
        a, b = self._sets[one], self._sets[other]
        sizes = [x.sum(axis=1).astype(np.float64) for x in (a & b, a, b)]
        return _masi(*sizes)

    def to_all(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Floats:
        """(n,) sum of the distances of each word of the one to all words of the other."""
        b, counts = np.unique(other, return_counts=True)
        a, place = np.unique(one, return_inverse=True)
        if self._sets is None:
            same = np.zeros(len(a))
            _, at, where = np.intersect1d(a, b, assume_unique=True, return_indices=True)
            same[at] = counts[where]
            return np.asarray((len(other) - same)[place])
        far = np.empty(len(a))
        for start in range(0, len(a), BLOCK):
            rows = a[start : start + BLOCK]
            far[start : start + BLOCK] = masi(self._sets[rows], self._sets[b]) @ counts
        return np.asarray(far[place])


def _words(
    item: ArrayLike, person: ArrayLike, label: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], _Labels]:
    """Items, people, words, and how far the words are apart."""
    i, j, said = np.asarray(item), np.asarray(person), np.asarray(label)
    if i.ndim != 1 or i.shape != j.shape or said.shape[:1] != i.shape or said.ndim > 2:
        raise ValueError(f"words must be (k,) alike, got {i.shape}, {j.shape}, {said.shape}.")
    if len(np.unique(np.column_stack([i, j]), axis=0)) < len(i):
        raise ValueError("a person has at most one word on an item, got two.")
    if said.ndim == 1:
        return i, j, np.unique(said, return_inverse=True)[1], _Labels(None)
    if said.dtype != np.bool_:
        raise ValueError(f"sets of labels must be (k, C) bool, got {said.dtype}.")
    sets, word = np.unique(said, axis=0, return_inverse=True)
    return i, j, word.reshape(-1), _Labels(sets)


def _within(place: NDArray[np.int64], word: NDArray[np.int64], labels: _Labels, n: int) -> Floats:
    """(n,) sum of distances over all ordered pairs of words of an item."""
    order = np.argsort(place, kind="stable")
    place, word = place[order], word[order]
    out = np.zeros(n)
    # Words of an item lie together: its pairs are those that a shift of 1, 2, .. leaves on the item.
    for shift in range(1, len(place)):
        pair = np.flatnonzero(place[shift:] == place[:-shift])
        if not len(pair):
            break
        far = labels.between(word[pair], word[pair + shift])
        out += 2 * np.bincount(place[pair], weights=far, minlength=n)
    return out


def _kappa(
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    labels: _Labels,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate | None:
    if len(one) < 2:
        return None
    expected = [labels.to_all(one, other), labels.to_all(other, one)]
    if expected[0].sum() <= 0:
        return None
    found = labels.between(one, other)
    return _estimate(found, np.ones(len(one)), expected, 1.0, level, resamples, seed)


def _estimate(
    found: Floats,
    words: Floats,
    expected: list[Floats],
    least: float,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate:
    """1 - disagreement found / expected by chance, from what each item adds to either.

    Chance is of pairs across all items. In a resample it is taken as the product of two sums over items,
    which is what it is up to an error of 1/n: so nothing but sums is resampled.

    `found` (n,) is the disagreement within each item, times its words; `words` (n,) how many words it has;
    `expected` holds, for either side of the pairs, the (n,) distances of its words to all words; `least` is
    what an item with one dissenter adds to `found`, for the interval where there is none.
    """
    rng = np.random.default_rng(seed)
    n = len(found)
    columns = np.column_stack([found, words, *expected])
    if n > UNITS:
        group = rng.permutation(n) % UNITS
        columns = np.stack([np.bincount(group, weights=c, minlength=UNITS) for c in columns.T], axis=1)
    total = columns.sum(axis=0)
    chance = total[2] / total[1]
    value = float(1 - total[0] / chance)
    if total[0] <= 0:
        none = clopper_pearson(0, n, level=level).high * least * n
        return Estimate(1.0, float(max(1 - none / chance, -1.0)), 1.0, n)
    units = len(columns)
    drawn = rng.integers(0, units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    weight = np.bincount(drawn.reshape(-1), minlength=resamples * units).reshape(resamples, units)
    sums = weight @ columns
    shares = sums / total
    draws = 1 - (1 - value) * shares[:, 0] * shares[:, 1] / np.maximum(shares[:, 2] * shares[:, 3], 1e-12)
    pull = columns[:, 2] / total[2] + columns[:, 3] / total[3] - columns[:, :2] @ (1 / total[:2])
    spread = float((pull**2).sum())
    skew = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    tails = _bca_tails(value, draws, skew, _widened_z(level, units))
    low, high = np.quantile(draws, tails)
    return Estimate(value, min(float(low), value), max(float(high), value), n)
