"""Subsampling of a pool by how unsure the student was: a strategy then looks at a fraction of the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unsure(probs: NDArray[np.floating], *, multi: bool = False) -> NDArray[np.float64]:
    """(n,) one minus the likeliest label's probability; with several labels a text the mean over labels."""
    p = np.asarray(probs, np.float64)
    return np.asarray(1 - np.maximum(p, 1 - p).mean(axis=1) if multi else 1 - p.max(axis=1))


def chances(n: int, gamma: float, temperature: float) -> NDArray[np.float64]:
    """(n,) chance to be kept by rank, the most uncertain first: exp(-max(0, rank / n - gamma) / temperature).

    About gamma + temperature of the rows are kept. Source: Tsvigun et al. 2022 (unlabelled pool subsampling).

    Args:
        n: rows.
        gamma: share of the most uncertain rows that are always kept.
        temperature: above 0; how slowly the chance falls beyond them, as a share of the rows.
    """
    rank = np.arange(n) / max(n, 1)
    return np.exp(-np.maximum(0.0, rank - gamma) / temperature)


def subsample(
    uncertainty: NDArray[np.float64], k: int, rng: np.random.Generator, *, gamma: float, temperature: float
) -> NDArray[np.int64]:
    """Positions that are kept, ascending; where they are fewer than k, the most uncertain of the rest too.

    Args:
        uncertainty: (n,) of each row, as last known; ties to the lowest position.
        k: rows wanted at least, where there are so many.
        rng: one number is drawn for each row.
        gamma: see `chances`.
        temperature: see `chances`.
    """
    order = np.lexsort((np.arange(len(uncertainty)), -uncertainty))
    stays = rng.random(len(order)) < chances(len(order), gamma, temperature)
    rest = order[~stays]
    return np.sort(np.concatenate([order[stays], rest[: max(0, k - int(stays.sum()))]]))
