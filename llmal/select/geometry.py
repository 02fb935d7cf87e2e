"""Distances and neighbours among rows, in blocks: never an n x n array."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Rows of one matrix product: 4096 x 20,000 float32 similarities are 330 MB, the most a block takes."""

CACHED = 1024
"""Rows and columns of one product that is reduced at once: 4 MB of float32 stay in the cache."""

MOST_EDGES = 200_000_000
"""Neighbour pairs a graph may hold: 0.8 GB of row numbers."""


def taken(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m, d) rows of an array; a view, not a copy, where they follow one another."""
    if len(rows) and (np.diff(rows) == 1).all():
        return np.asarray(vectors[rows[0] : rows[-1] + 1])
    return np.asarray(vectors[rows])


class Rows:
    """Some rows of an array, read as they are asked for: of a memory-mapped one nothing is copied before."""

    def __init__(self, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        self.vectors = vectors
        self.rows = rows
        self.shape = (len(rows), vectors.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """(m, d) rows at positions; a view where they follow one another in the array."""
        return taken(self.vectors, self.rows[at])


Vectors: TypeAlias = NDArray[np.float32] | Rows


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

    def of_all(self, rows: NDArray[np.integer]) -> NDArray[np.int32]:
        """Neighbours of one row after the other, in one array."""
        return np.concatenate([self.rows[:0], *(self.of(int(row)) for row in rows)])


def within(vectors: NDArray[np.float32], radius: float) -> Neighbours:
    """Every pair of rows closer than `radius` (strictly, Euclidean), each looked at once, by blocks.

    Raises:
        ValueError: more pairs than memory should hold; a smaller radius helps.
    """
    n = len(vectors)
    square = np.einsum("ij,ij->i", vectors, vectors)
    cells: dict[tuple[int, int], tuple[NDArray[np.uint16], NDArray[np.uint16]]] = {}
    total = 0
    for i in range(0, n, CACHED):
        for j in range(i, n, CACHED):
            product = vectors[i : i + CACHED] @ vectors[j : j + CACHED].T
            product *= -2
            product += square[i : i + CACHED, None] + square[None, j : j + CACHED]
            near = product < radius**2
            if i == j:  # rounding must not part a row from itself
                np.fill_diagonal(near, radius > 0)
            row, column = _pairs(near)
            order = np.argsort(column, kind="stable")
            cells[i, j], cells[j, i] = (row, column), (column[order], row[order])
            total += len(row) * (1 if i == j else 2)
            if total > MOST_EDGES:
                raise ValueError(
                    f"radius {radius:g} joins more than {MOST_EDGES:,} pairs; choose a smaller one"
                )
    counts, parts = [], []
    for i in range(0, n, CACHED):
        some = [(j, *cells.pop((i, j))) for j in range(0, n, CACHED)]
        row = np.concatenate([r for _, r, _ in some])
        column = np.concatenate([j + c.astype(np.int32) for j, _, c in some])
        parts.append(column[np.argsort(row, kind="stable")])
        counts.append(np.bincount(row, minlength=min(CACHED, n - i)))
    start = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return Neighbours(start, np.concatenate(parts))


def _pairs(near: NDArray[np.bool_]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Where a block of at most 65,536 rows and columns is true: its rows, ascending, and columns."""
    row, column = np.divmod(np.flatnonzero(near), near.shape[1])
    return row.astype(np.uint16), column.astype(np.uint16)
