"""Distances and neighbours among rows, in blocks: never an n x n array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Rows of one matrix product: 4096 x 20,000 float32 similarities are 330 MB, the most a block takes."""

CACHED = 1024
"""Rows and columns of one product that is reduced at once: 4 MB of float32 stay in the cache."""

MOST_EDGES = 200_000_000
"""Neighbour pairs a graph may hold: 0.8 GB of row numbers."""


def squared_norms(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) squared lengths of rows."""
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def squared_distances(
    vectors: NDArray[np.floating], row: int, square: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """(n,) squared Euclidean distances of every row to one row, never below 0; exact at the row itself.

    Args:
        vectors: (n, d).
        row: which of them.
        square: their squared lengths, where they are known already.
    """
    if square is None:
        square = squared_norms(vectors)
    x = np.asarray(vectors[row], np.float64)
    out = square + square[row]
    for at in range(0, len(vectors), BLOCK):
        part = slice(at, at + BLOCK)
        out[part] -= 2 * (np.asarray(vectors[part], np.float64) @ x)
    np.maximum(out, 0.0, out=out)
    out[row] = 0.0
    return np.asarray(out)


def nearest_squared(
    rows: NDArray[np.floating],
    square: NDArray[np.float64],
    others: NDArray[np.floating],
    others_square: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(n,) squared distance of every row to the nearest of others, by blocked products in the others' type.

    In float32 it is off by less than `(2 d + 16) 2^-24` times the largest squared length: what the worst
    order of summing d products can do.
    """
    out = np.full(len(rows), np.inf)
    for start in range(0, len(others), CACHED):
        some = slice(start, start + CACHED)
        minus_twice = np.ascontiguousarray(-2 * others[some].T)
        length = others_square[some].astype(others.dtype)
        for at in range(0, len(rows), CACHED):
            part = slice(at, at + CACHED)
            found = np.asarray(rows[part], others.dtype) @ minus_twice
            found += length
            out[part] = np.minimum(out[part], found.min(axis=1))
    return np.asarray(np.maximum(out + square, 0.0))


class Neighbours(NamedTuple):
    """Who lies near whom: the neighbours of row i are `rows[start[i]:start[i + 1]]`, itself among them."""

    start: NDArray[np.int64]
    rows: NDArray[np.int32]

    def of(self, row: int) -> NDArray[np.int32]:
        """Neighbours of one row, ascending."""
        return self.rows[self.start[row] : self.start[row + 1]]


def within(vectors: NDArray[np.float32], radius: float) -> Neighbours:
    """Every pair of rows closer than `radius` (strictly, Euclidean), by blocked matrix products.

    Raises:
        ValueError: more pairs than memory should hold; a smaller radius helps.
    """
    counts, parts, total = [], [], 0
    for near in _near(vectors, radius):
        counts.append(near.sum(axis=1))
        parts.append(np.nonzero(near)[1].astype(np.int32))
        total += len(parts[-1])
        if total > MOST_EDGES:
            raise ValueError(f"radius {radius:g} joins more than {MOST_EDGES:,} pairs; choose a smaller one")
    start = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return Neighbours(start, np.concatenate(parts))


def _near(vectors: NDArray[np.float32], radius: float) -> Iterator[NDArray[np.bool_]]:
    square = np.einsum("ij,ij->i", vectors, vectors)
    for at in range(0, len(vectors), BLOCK):
        part = slice(at, at + BLOCK)
        distance = square[part, None] + square[None] - 2 * (vectors[part] @ vectors.T)
        near = distance < radius**2
        here = np.arange(at, min(at + BLOCK, len(vectors)))
        near[here - at, here] = radius > 0  # rounding must not part a row from itself
        yield near
