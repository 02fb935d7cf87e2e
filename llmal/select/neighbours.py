"""The nearest rows of every row: exact up to 100,000 rows, approximate beyond.

Beyond, faiss searches a small-world graph (HNSW, Malkov & Yashunin 2018) where it is installed, which copies
the vectors and finds more; without it each row is compared with the cells of a k-means nearest to its own.
What share of the true neighbours a call found is measured on 200 rows and told in its result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.select.geometry import squared_norms, taken
from llmal.select.kmeans import cluster

EXACT_ROWS = 100_000
"""Rows up to which every pair is looked at: a minute or two at 384 numbers a row."""

CELL_ROWS, CELLS = 300, 32
"""Rows of a cell on average, and cells searched for each row, its own among them."""

LINKS, BUILD, LOOK = 16, 40, 48
"""Links of a row in the graph, rows looked at to place one, and the least looked at to search one."""

PROBED = 200
"""Random rows whose true neighbours the recall is measured on."""

ROWS, COLUMNS = 1024, 2048
"""Of one matrix product: 8 MB of float32."""

CLOSE = 0.01
"""Squared distances below this share of the largest squared length are computed anew from differences."""


class Nearest(NamedTuple):
    """Neighbours of n rows, nearest first, the row itself left out.

    Attributes:
        rows: (n, k) int32.
        distance: (n, k) float32, Euclidean.
        recall: share of the true neighbours found, in [0, 1], on 200 random rows; None where it is exact.
    """

    rows: NDArray[np.int32]
    distance: NDArray[np.float32]
    recall: float | None


def nearest(
    vectors: NDArray[np.float32],
    k: int,
    rng: np.random.Generator,
    *,
    among: NDArray[np.int64] | None = None,
    of: NDArray[np.int64] | None = None,
) -> Nearest:
    """The k nearest rows of every row by Euclidean distance, ties to the lowest row.

    Args:
        vectors: (n, d), may be memory-mapped; read in blocks.
        k: how many; `among` less one where that is fewer.
        rng: for the cells and the measured rows; unused where the result is exact.
        among: rows that may be neighbours; all when absent.
        of: rows whose neighbours are wanted, in the order of the result; all when absent.
    """
    asked = np.arange(len(vectors)) if of is None else of
    others = np.arange(len(vectors)) if among is None else np.unique(among)
    k = max(0, min(k, len(others) - 1))
    rows, distance = np.zeros((len(asked), k), np.int32), np.zeros((len(asked), k), np.float32)
    if rows.size == 0:
        return Nearest(rows, distance, None)
    search = _Search(vectors, k)
    others = _first_of_equals(vectors, others, k + 1)
    if len(asked) * len(others) <= EXACT_ROWS**2:
        for at in range(0, len(asked), ROWS):
            part = slice(at, at + ROWS)
            rows[part], distance[part] = search.among(asked[part], others)
        return Nearest(rows, distance, None)
    if importlib.util.find_spec("faiss"):
        _by_graph(search, asked, others, rows, distance)
    else:
        for cell, near in _cells(vectors, asked, others, k, rng):
            for some in _runs(cell, ROWS):
                rows[some], distance[some] = search.among(asked[some], near)
    probed = rng.choice(len(asked), min(PROBED, len(asked)), replace=False)
    _, true = search.among(asked[probed], others)
    hit = distance[probed] <= true[:, -1:] * (1 + 1e-6)  # by distance: which of equals was found is no matter
    return Nearest(rows, distance, float(hit.mean()))


def _by_graph(
    search: _Search,
    asked: NDArray[np.int64],
    others: NDArray[np.int64],
    rows: NDArray[np.int32],
    distance: NDArray[np.float32],
) -> None:
    """Fill rows and distance from a graph; what it does not find is searched exactly."""
    import faiss

    k = rows.shape[1]
    index = faiss.IndexHNSWFlat(search.vectors.shape[1], LINKS)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, max(LOOK, 2 * (k + 1))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # built by several threads the graph would differ from run to run
    try:
        for part in _runs(others, COLUMNS):
            index.add(np.ascontiguousarray(taken(search.vectors, part), np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    for at in range(0, len(asked), COLUMNS):
        part = asked[at : at + COLUMNS]
        square, found = index.search(np.ascontiguousarray(taken(search.vectors, part), np.float32), k + 1)
        near = others[found]
        square[(found < 0) | (near == part[:, None])] = np.inf
        order = np.lexsort((near, square), axis=1)[:, :k]
        rows[at : at + COLUMNS] = np.take_along_axis(near, order, axis=1)
        distance[at : at + COLUMNS] = np.sqrt(np.take_along_axis(square, order, axis=1))
        short = np.flatnonzero(np.isinf(distance[at : at + COLUMNS, -1]))
        for some in _runs(short, ROWS):
            rows[at + some], distance[at + some] = search.among(part[some], others)


def _cells(
    vectors: NDArray[np.float32],
    asked: NDArray[np.int64],
    others: NDArray[np.int64],
    k: int,
    rng: np.random.Generator,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions in asked, each once, a cell at a time, and the rows of the cells nearest to that cell."""
    centres, label = cluster(vectors, max(2, len(others) // CELL_ROWS), rng)
    by_label = np.argsort(label[others], kind="stable")
    ends = np.cumsum(np.bincount(label[others], minlength=len(centres)))
    members = np.split(others[by_label], ends[:-1])
    square = squared_norms(centres)
    for c in range(len(centres)):
        at = np.flatnonzero(label[asked] == c)
        order = np.argsort(square - 2 * (centres @ centres[c]), kind="stable")
        held = np.cumsum([len(members[i]) for i in order])
        enough = max(CELLS, int(np.searchsorted(held, k + 1)) + 1)
        yield at, np.sort(np.concatenate([members[i] for i in order[:enough]]))


class _Search:
    """Exact search, by products in float32 whose candidates are measured anew where rounding could decide."""

    def __init__(self, vectors: NDArray[np.float32], k: int) -> None:
        self.vectors = vectors
        self.k = k
        self.square = np.concatenate([squared_norms(taken(vectors, part)) for part in _runs_of(vectors)])
        self.scale = float(self.square.max())
        self.error = (2 * vectors.shape[1] + 16) * 2.0**-24 * self.scale  # as geometry.nearest_squared

    def among(
        self, part: NDArray[np.int64], others: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """(b, k) rows and distances for b rows; others ascending, more than k of them."""
        at, value = self._candidates(part, others)
        rows, square = others[at], value + self.square[part, None]
        with np.errstate(invalid="ignore"):  # inf - inf: both left out below
            tied = np.diff(square, axis=1) <= 2 * self.error
        anew = square <= CLOSE * self.scale
        anew[:, 1:] |= tied
        anew[:, :-1] |= tied
        anew &= np.isfinite(value)
        i, j = np.nonzero(anew)
        for some in _runs(np.arange(len(i)), ROWS * 8):
            left, right = self.vectors[part[i[some]]], self.vectors[rows[i[some], j[some]]]
            gap = np.asarray(left, np.float64) - right
            square[i[some], j[some]] = np.einsum("ij,ij->i", gap, gap)
        order = np.lexsort((rows, square), axis=1)[:, : self.k]
        distance = np.sqrt(np.maximum(np.take_along_axis(square, order, axis=1), 0))
        return np.take_along_axis(rows, order, axis=1).astype(np.int32), distance.astype(np.float32)

    def _candidates(
        self, part: NDArray[np.int64], others: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Positions in others and squared distances less the row's own length: (b, c) by value, c >= k.

        What lies beyond the k nearest to float32 accuracy is left out, or inf.
        """
        x = -2 * np.asarray(taken(self.vectors, part), np.float32)
        own = np.searchsorted(others, part)
        at = np.zeros((len(part), 0), np.int64)
        value = np.zeros((len(part), 0))
        limit, seen, merged = np.full(len(part), np.inf, np.float32), 0, 0
        # One buffer for all products: fresh pages would cost nearly as much as the products.
        room = np.empty((len(part), min(COLUMNS, len(others))), np.float32)
        pending: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        for start in range(0, len(others), COLUMNS):
            some = others[start : start + COLUMNS]
            product = (
                room[:, : len(some)]
                if len(some) == room.shape[1]
                else np.empty((len(x), len(some)), np.float32)
            )
            np.matmul(x, np.asarray(taken(self.vectors, some), np.float32).T, out=product)
            product += self.square[some].astype(np.float32)
            here = np.flatnonzero((own >= start) & (own < start + len(some)))
            here = here[some[own[here] - start] == part[here]]
            product[here, own[here] - start] = np.inf
            if not seen:
                limit = self._limit(product)
            flat = np.flatnonzero(product <= limit[:, None])
            row, column = np.divmod(flat, len(some))
            pending.append((row, column + start, product.ravel()[flat]))
            seen += len(some)
            if seen >= 2 * merged or seen == len(others):  # limits halve what comes in, so merges are rare
                at, value = self._merged(at, value, pending)
                pending, merged = [], seen
                if value.shape[1] >= self.k:
                    limit = (value[:, self.k - 1] + 2 * self.error).astype(np.float32)
        return at, value

    def _limit(self, product: NDArray[np.float32]) -> NDArray[np.float32]:
        """(b,) a value that at least k columns do not exceed, from the least of each of many groups."""
        columns = product.shape[1]
        if columns <= 2 * self.k:
            return np.full(len(product), np.finfo(np.float32).max)
        groups = min(columns, max(64, 4 * self.k))
        width = columns // groups
        least = product[:, : width * groups].reshape(-1, width, groups).min(axis=1)
        return np.asarray(np.partition(least, self.k - 1, axis=1)[:, self.k - 1] + np.float32(2 * self.error))

    def _merged(
        self,
        at: NDArray[np.int64],
        value: NDArray[np.float64],
        pending: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Candidates found so far and new ones, by value; what cannot be among the k nearest is dropped."""
        row, column, new = (np.concatenate(parts) for parts in zip(*pending, strict=True))
        order = np.argsort(row.astype(np.int16), kind="stable")
        row = row[order]
        count = np.bincount(row, minlength=len(value))
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + value.shape[1]
        width = value.shape[1] + int(count.max(initial=0))
        wide = np.full((len(value), width), np.inf)
        wide_at = np.zeros((len(value), width), np.int64)
        wide[:, : value.shape[1]], wide_at[:, : value.shape[1]] = value, at
        wide[row, place], wide_at[row, place] = new[order], column[order]
        by_value = np.argsort(wide, axis=1)
        wide, wide_at = np.take_along_axis(wide, by_value, 1), np.take_along_axis(wide_at, by_value, 1)
        if width > self.k:
            wide[wide > wide[:, self.k - 1 : self.k] + 2 * self.error] = np.inf
        keep = max(1, int(np.isfinite(wide).any(axis=0).sum()))
        return wide_at[:, :keep], wide[:, :keep]


def _first_of_equals(vectors: NDArray[np.float32], rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Rows without those that repeat `most` earlier ones: ties go to the lowest row, so nobody needs them."""
    weights = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], np.uint64)
    parts = (np.asarray(taken(vectors, part), np.float32) for part in _runs(rows, COLUMNS))
    digest = np.concatenate([np.ascontiguousarray(part).view(np.uint32) @ weights for part in parts])
    _, group, count = np.unique(digest, return_inverse=True, return_counts=True)
    seen: dict[bytes, int] = {}
    keep = np.ones(len(rows), bool)
    for i in np.flatnonzero(count[group] > most):  # digests may be equal by chance, bytes are not
        row = np.asarray(vectors[rows[i]]).tobytes()
        seen[row] = seen.get(row, 0) + 1
        keep[i] = seen[row] <= most
    return rows[keep]


def _runs(rows: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    return (rows[at : at + most] for at in range(0, len(rows), most))


def _runs_of(vectors: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    return _runs(np.arange(len(vectors)), COLUMNS)
