"""TypiClust: the most typical row of each cluster that has no label yet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.kmeans import cluster
from llmal.select.stage import Pool, Selection, Selector

SMALL = 5
"""Clusters of this size or less are outliers to the method (reference code)."""

LARGEST = 5_000
"""Rows of one cluster whose neighbours are computed; a larger one is sampled, typicality needs no more."""


class TypiClust(Selector):
    """Typical rows of uncovered clusters (TPCRP), for small budgets. Source: Hacohen et al. 2022.

    Distances are plain Euclidean, as the paper says; the authors' code takes squared ones, which
    `squared: true` reproduces. Where fewer usable clusters exist than picks, clusters are served in turns,
    each by the typicality its rows had at the start; the reference computes it anew after each pick.
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
        usable = [int(c) for c in order if size[c] > SMALL]
        rest = [
            int(c) for c in order if size[c] <= SMALL
        ]  # only when nothing else is left: k rows are promised
        free = np.flatnonzero(~labelled)
        by_cluster = free[np.argsort(label[free], kind="stable")]
        members = np.split(by_cluster, np.cumsum(np.bincount(label[free], minlength=len(size)))[:-1])
        picked: list[tuple[int, float, str]] = []
        for group in (usable, rest):
            queues = {c: self._queue(vectors, members[c], rng) for c in group}
            while queues and len(picked) < k:
                for c in list(queues)[: k - len(picked)]:
                    found = next(queues[c], None)
                    if found is None:
                        del queues[c]
                    else:
                        why = f"typical (density {found[1]:.3g}) of a cluster of {size[c]}"
                        picked.append((*found, why))
        rows, scores, reasons = zip(*picked, strict=True) if picked else ((), (), ())
        return np.array(rows, np.int64), np.array(scores, np.float64), list(reasons)

    def _queue(
        self, vectors: NDArray[np.float32], members: NDArray[np.int64], rng: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Every row of one cluster, most typical first; nothing is computed before the first is asked for."""
        while len(members):
            part = (
                members if len(members) <= LARGEST else np.sort(rng.choice(members, LARGEST, replace=False))
            )
            yield from self._by_typicality(vectors, part)
            members = np.setdiff1d(members, part)

    def _by_typicality(
        self, vectors: NDArray[np.float32], members: NDArray[np.int64]
    ) -> list[tuple[int, float]]:
        """Rows with their typicality, 1 / (mean distance to their neighbours + 1e-5), highest first."""
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
