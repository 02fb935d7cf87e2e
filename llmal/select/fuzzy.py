"""Weighted neighbour graphs: each row's distances on a scale of its own, as in UMAP, and two in one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from llmal.select.neighbours import Nearest

HALVINGS = 60
"""Of the interval a scale is looked for in: to the last digit of a float64."""

LEAST = 1e-3
"""A weight below this is no edge: its length, 1 / weight, is a thousand times that to the nearest row."""


def weights(distance: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, k) weights in [0, 1] of edges to k neighbours: exp(-(d - nearest) / scale); a row sums to log2 k.

    Args:
        distance: (n, k) >= 0, nearest first, k >= 1.

    Source: McInnes et al. 2018 (UMAP).
    """
    gap = np.asarray(distance, np.float64) - distance[:, :1]
    wanted = np.log2(gap.shape[1])
    low, high = np.zeros(len(gap)), np.ones(len(gap))
    short = np.ones(len(gap), bool)
    most = np.maximum(gap.max(axis=1, initial=0), np.finfo(float).tiny)
    while short.any():  # k > log2 k, so a scale that is large enough is always found
        high[short] *= 2
        short = _sum(gap, high * most) < wanted
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = _sum(gap, middle * most) > wanted
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return np.asarray(np.exp(-gap / np.maximum(high * most, np.finfo(float).tiny)[:, None]))


def _sum(gap: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-gap / np.maximum(scale, np.finfo(float).tiny)[:, None]).sum(axis=1))


def graph(near: Nearest) -> csr_array:
    """(n, n) symmetric weights in (0, 1]: w + w' - w w' of the weights in the two directions."""
    n, k = near.rows.shape
    if k == 0:
        return csr_array((n, n), dtype=np.float64)
    weight = np.concatenate([weights(part) for part in np.array_split(near.distance, max(1, n // 2048))])
    keep = weight >= LEAST
    start = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    one_way = csr_array((weight[keep], near.rows[keep], start), shape=(n, n))
    back = one_way.T.tocsr()
    return (one_way + back - one_way.multiply(back)).tocsr()


def merged(one: csr_array, other: csr_array, gamma: float) -> csr_array:
    """Two graphs in one: an edge of both weighs w1 w2 + gamma, an edge of one alone what it weighed.

    With gamma = 1 each edge of both weighs more than each edge of one.
    """
    both = one.multiply(other).tocsr()
    shared = both.copy()
    shared.data[:] = 1.0
    total = one + other
    return (total - total.multiply(shared) + both + gamma * shared).tocsr()


def strongest(graph: csr_array, most: int) -> csr_array:
    """The graph with each row's `most` heaviest edges alone; an edge stays that either end wants."""
    graph.sort_indices()
    row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    # One key that rises by row, by more than any weight, sorts in a twentieth of the time of two keys.
    order = np.argsort((1 + graph.data.max(initial=0)) * row - graph.data, kind="stable")
    place = np.arange(len(row)) - np.repeat(graph.indptr[:-1], np.diff(graph.indptr))
    kept = order[place < most]
    half = csr_array((graph.data[kept], (row[kept], graph.indices[kept])), shape=graph.shape)
    return half.maximum(half.T).tocsr()
