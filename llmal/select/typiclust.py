"""TypiClust: the most typical row of each cluster that has no label yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.kmeans import cluster
from llmal.select.stage import Pool, Selection, Selector

SMALL = 5
"""Clusters of this size or less are outliers to the method (reference code)."""

LARGEST = 5_000
"""Rows of one cluster whose neighbours are computed; a larger cluster is sampled, typicality needs no more."""


class TypiClust(Selector):
    """Typical rows of uncovered clusters (TPCRP), for small budgets. Source: Hacohen et al. 2022.

    Distances are plain Euclidean, as the paper says; the authors' code takes squared ones, which `squared: true`
    reproduces. Where fewer usable clusters exist than picks, clusters are served in turns.
    """

    neighbours: int = Field(20, ge=1, description="neighbours within the cluster that define typicality")
    max_clusters: int = Field(500, ge=1, description="most clusters, whatever the budget")
    squared: bool = Field(False, description="squared distances, as in the authors' code")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, one cluster after the other."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        rows = np.concatenate([pool.labelled, pool.unlabelled])
        vectors = np.asarray(pool.vectors[rows])
        _, label = cluster(vectors, min(len(pool.labelled) + k, self.max_clusters), rng)
        labelled = np.zeros(len(rows), bool)
        labelled[: len(pool.labelled)] = True
        picked, scores, reasons = self.from_clusters(vectors, label, labelled, k, rng)
        return Selection(rows[picked], scores, reasons)

    def from_clusters(
        self,
        vectors: NDArray[np.float32],
        label: NDArray[np.int64],
        labelled: NDArray[np.bool_],
        k: int,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
        """The method after clustering: rows picked, their typicality, and why.

        Args:
            vectors: (n, d).
            label: (n,) cluster of each row, 0-based.
            labelled: (n,) rows that have a label already.
            k: how many; at most the unlabelled rows.
            rng: for sampling very large clusters.
        """
        size = np.bincount(label)
        taken = np.bincount(label, weights=labelled, minlength=len(size))
        order = np.lexsort((np.arange(len(size)), -size, taken))
        usable = [c for c in order if size[c] > SMALL]
        rest = [c for c in order if size[c] <= SMALL]  # only when nothing else is left: k rows are promised
        queues = {c: self._by_typicality(vectors, np.flatnonzero((label == c) & ~labelled), rng) for c in usable}
        picked: list[tuple[int, float, str]] = []
        for group in (usable, rest):
            for c in rest if group is rest else ():
                queues[c] = self._by_typicality(vectors, np.flatnonzero((label == c) & ~labelled), rng)
            while len(picked) < k and any(queues[c] for c in group):
                for c in group:
                    if queues[c] and len(picked) < k:
                        row, score = queues[c].pop(0)
                        picked.append((row, score, f"typical (density {score:.3g}) of a cluster of {size[c]}"))
        rows, scores, reasons = zip(*picked, strict=True) if picked else ((), (), ())
        return np.array(rows, np.int64), np.array(scores, np.float64), list(reasons)

    def _by_typicality(
        self, vectors: NDArray[np.float32], members: NDArray[np.int64], rng: np.random.Generator
    ) -> list[tuple[int, float]]:
        """Rows of one cluster with their typicality, 1 / (mean distance to its neighbours + 1e-5), highest first."""
        if len(members) > LARGEST:
            members = np.sort(rng.choice(members, LARGEST, replace=False))
        k = min(self.neighbours, len(members) // 2)
        if k == 0:
            return [(int(m), 1.0) for m in members]
        x = vectors[members].astype(np.float64)
        square = np.maximum(0.0, (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T)
        np.fill_diagonal(square, np.inf)
        near = np.partition(square, k - 1, axis=1)[:, :k]
        typicality = 1.0 / ((near if self.squared else np.sqrt(near)).mean(axis=1) + 1e-5)
        order = np.lexsort((members, -typicality))
        return [(int(members[i]), float(typicality[i])) for i in order]
