"""Drift, one look: whether a batch of items comes from where the calibration sample came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

PERMUTATIONS = 999
"""Most permutations of a test by default: the least p-value is then 0.001."""

ENOUGH = 20
"""Permutations at least as extreme as the sample after which a test ends: the p-value is no small one."""

MOST_ROWS = 500
"""Vectors drawn from each side for the kernel test, whose cost grows with their square."""

_CELLS = 4_000_000
"""Numbers held at a time while permuting."""

_TIE = 1e-9
"""Two orders of adding the same numbers differ by less; a permutation that close to the sample ties."""


class Shift(NamedTuple):
    """Result of one look at one batch.

    Attributes:
        statistic: larger is further from the calibration sample.
        p: valid in any sample size: at most a share a of looks has p <= a while nothing changed.
        least: the smallest p this test could have given; no test at a stricter level can fire.
    """

    statistic: float
    p: float
    least: float


def score_shift(
    reference: ArrayLike, batch: ArrayLike, *, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> Shift:
    """Whether scores, such as confidences, of a batch spread as those of the calibration sample do.

    The statistic is Kolmogorov and Smirnov's largest gap of the two distribution functions, its p-value that
    of a permutation test, which ties do not disturb.

    Args:
        reference: (n,) real, n >= 1.
        batch: (m,) real, m >= 1.
        rng: source of the permutations.
        permutations: most that are tried; see `watch.permutations_for`.

    Returns:
        Statistic in [0, 1].

    Raises:
        ValueError: a side is empty or not (n,), a value is not finite, or permutations < 1.

    Source: Smirnov 1939; Besag & Clifford 1991 (ending a permutation test early).

    Example:
        >>> score_shift([0.9, 0.8], [0.9, 0.8], rng=np.random.default_rng(0)).p
        1.0
    """
    old, new = _sides(reference, batch, 1)
    pooled = np.sort(np.concatenate([old, new]))
    ends = np.flatnonzero(np.append(np.diff(pooled) > 0, True))
    n, m = len(old), len(new)

    def gaps(chosen: NDArray[np.bool_]) -> Floats:
        """Largest gap for each row of chosen, which says who of the sorted pool is in the batch."""
        seen = np.cumsum(chosen, axis=1)[:, ends]
        return np.asarray(np.abs(seen / m - (ends + 1 - seen) / n).max(axis=1), np.float64)

    order = np.argsort(np.concatenate([old, new]), kind="stable")
    found = float(gaps((order >= n)[None])[0])
    p = _permuted(found, lambda k: gaps(_splits(n + m, m, k, rng)), permutations, n + m)
    return Shift(found, p, 1 / (permutations + 1))


def class_shift(
    reference: ArrayLike, batch: ArrayLike, *, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> Shift:
    """Whether a batch's predicted classes have the shares that the calibration sample's have.

    The statistic is Pearson's chi-square of the 2 x C table; its p-value is that of tables with the same
    margins, drawn at random, so it is right for classes of one item or none too.

    Args:
        reference: (C,) counts of predicted classes in the calibration sample.
        batch: (C,) counts in the batch.
        rng: source of the tables.
        permutations: most tables that are drawn; see `watch.permutations_for`.

    Returns:
        Statistic of at least 0; with a single class in both p is 1.

    Raises:
        ValueError: shapes differ, a side is empty, counts are not whole or negative, or permutations < 1.

    Source: Pearson 1900; Fisher 1935 (the margins fixed).

    Example:
        >>> class_shift([50, 50], [20, 0], rng=np.random.default_rng(0)).p < 0.01
        True
    """
    old, new = np.asarray(reference), np.asarray(batch)
    if old.ndim != 1 or old.shape != new.shape or old.dtype.kind not in "iu" or new.dtype.kind not in "iu":
        raise ValueError(f"reference and batch must be (C,) counts alike, got {old.shape} and {new.shape}.")
    if min(old.min(initial=0), new.min(initial=0)) < 0 or not old.sum() or not new.sum():
        raise ValueError("reference and batch must hold counts of at least one item each.")
    both = (old + new)[old + new > 0].astype(np.int64)
    share, n, m = both / both.sum(), int(old.sum()), int(new.sum())
    # With fixed margins the two rows differ from what is expected by the same amounts.
    scale = (1 / n + 1 / m) / share

    def chi_square(counts: NDArray[np.int64]) -> Floats:
        return np.asarray(((counts - m * share) ** 2 * scale).sum(axis=1), np.float64)

    found = float(chi_square(new[old + new > 0][None].astype(np.int64))[0])
    p = _permuted(
        found,
        lambda k: chi_square(rng.multivariate_hypergeometric(both, m, size=k, method="marginals")),
        permutations,
        len(both),
    )
    return Shift(found, p, 1 / (permutations + 1))


def embedding_shift(
    reference: ArrayLike,
    batch: ArrayLike,
    *,
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
    most: int = MOST_ROWS,
) -> Shift:
    """Whether embeddings of a batch lie where those of the calibration sample do.

    The statistic is the squared maximum mean discrepancy with a Gaussian kernel as wide as the median
    distance, its p-value that of a permutation test. Each side is a random part of its rows, so a batch with
    a few strange items among thousands goes unnoticed.

    Args:
        reference: (n, d) real, n >= 1.
        batch: (m, d) real, m >= 1.
        rng: source of the rows and permutations.
        permutations: most that are tried; see `watch.permutations_for`.
        most: rows drawn from each side, at least 2.

    Returns:
        Statistic in [0, 2].

    Raises:
        ValueError: a side is empty, widths differ, a value is not finite, most < 2, or permutations < 1.

    Source: Gretton et al. 2012.

    Example:
        >>> rows = np.eye(4)
        >>> embedding_shift(rows, rows, rng=np.random.default_rng(0)).p
        1.0
    """
    old, new = _sides(reference, batch, 2)
    if most < 2:
        raise ValueError(f"most must be at least 2, got {most}.")
    old, new = (x[rng.permutation(len(x))[:most]] for x in (old, new))
    pooled = np.concatenate([old, new])
    pooled = pooled - pooled.mean(axis=0)
    squares = (pooled**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * pooled @ pooled.T, 0)
    np.fill_diagonal(apart, 0)
    some = apart[np.triu_indices(len(pooled), 1)]
    width = float(np.median(some[some > 0])) if (some > 0).any() else 1.0
    kernel = np.exp(-apart / width)
    n, m = len(old), len(new)

    def discrepancy(chosen: NDArray[np.bool_]) -> Floats:
        weights = np.where(chosen, 1 / m, -1 / n)
        return np.asarray(((weights @ kernel) * weights).sum(axis=1), np.float64)

    found = float(discrepancy((np.arange(n + m) >= n)[None])[0])
    p = _permuted(found, lambda k: discrepancy(_splits(n + m, m, k, rng)), permutations, n + m)
    return Shift(max(found, 0.0), p, 1 / (permutations + 1))


def _permuted(found: float, draw: Callable[[int], Floats], most: int, width: int) -> float:
    """P-value of a statistic against draws of it, ended early where it is no small one."""
    if most < 1:
        raise ValueError(f"permutations must be at least 1, got {most}.")
    edge = found - _TIE * (1 + abs(found))
    seen = above = 0
    size = 2 * ENOUGH
    while seen < most:
        size = max(1, min(2 * size, _CELLS // width, most - seen))
        reached = above + np.cumsum(draw(size) >= edge)
        if reached[-1] >= ENOUGH:
            return ENOUGH / (seen + int(np.argmax(reached >= ENOUGH)) + 1)
        above, seen = int(reached[-1]), seen + size
    return (above + 1) / (most + 1)


def _splits(total: int, chosen: int, k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(k, total) bool with `chosen` set at random in each row."""
    rows = np.zeros((k, total), np.bool_)
    rows[:, :chosen] = True
    return rng.permuted(rows, axis=1)


def _sides(reference: ArrayLike, batch: ArrayLike, axes: int) -> tuple[Floats, Floats]:
    old, new = np.asarray(reference, np.float64), np.asarray(batch, np.float64)
    if old.ndim != axes or new.ndim != axes or old.shape[1:] != new.shape[1:]:
        wanted = "(n,) and (m,)" if axes == 1 else "(n, d) and (m, d)"
        raise ValueError(f"reference and batch must be {wanted}, got {old.shape} and {new.shape}.")
    if not len(old) or not len(new):
        raise ValueError("reference and batch need at least one item each.")
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        raise ValueError("reference and batch must be finite.")
    return old, new
