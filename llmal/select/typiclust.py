"""TypiClust: the most typical row of each cluster that has no label yet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.geometry import Rows, Vectors
from llmal.select.kmeans import cluster
from llmal.select.neighbours import nearest
from llmal.select.stage import Pool, Selection, Selector

SMALL = 5
"""Clusters of this size or less are outliers to the method (reference code)."""

LARGEST = 5_000
"""Rows of one cluster whose neighbours are computed; a larger one is sampled, typicality needs no more."""


class TypiClust(Selector):
    """Typical rows of uncovered clusters (TPCRP), for small budgets. Source: Hacohen et al. 2022.

    Clusters are served in turns; a row's typicality counts the neighbours in its cluster that have no label
    and are not picked, as the authors' code does, so each pick changes it for those around. Distances are
    plain Euclidean, as the paper says; the authors' code takes squared ones, which `squared: true`
    reproduces. A cluster of more than 5,000 such rows is served from a random 5,000, then from the others.
    """

    neighbours: int = Field(20, ge=1, description="neighbours within the cluster that define typicality")
    max_clusters: int = Field(500, ge=1, description="most clusters, whatever the budget")
    squared: bool = Field(False, description="squared distances, as in the authors' code")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, one cluster after the other."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        rows = np.sort(np.concatenate([pool.labelled, pool.unlabelled]))
        vectors = Rows(pool.vectors, rows)
        _, label = cluster(vectors, min(len(pool.labelled) + k, self.max_clusters), rng)
        labelled = np.isin(rows, pool.labelled)
        picked, scores, reasons = self.from_clusters(vectors, label, labelled, k, rng)
        return Selection(rows[picked], scores, reasons)

    def from_clusters(
        self,
        vectors: Vectors,
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
        self, vectors: Vectors, members: NDArray[np.int64], rng: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Every row of one cluster as it is picked; nothing is computed before the first is asked for."""
        while len(members):
            part = (
                members if len(members) <= LARGEST else np.sort(rng.choice(members, LARGEST, replace=False))
            )
            yield from self._by_typicality(vectors, part, rng)
            members = np.setdiff1d(members, part)

    def _by_typicality(
        self, vectors: Vectors, members: NDArray[np.int64], rng: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        """Rows with their typicality, 1 / (mean distance to the nearest rows left + 1e-5), highest first."""
        left = np.arange(len(members))
        while k := min(self.neighbours, len(left) // 2):
            near = np.zeros((len(members), k), np.int32)
            typicality = np.full(len(members), -np.inf)
            changed = left
            while k == min(self.neighbours, len(left) // 2):
                # Vectors are read anew: hundreds of clusters wait here for their next turn.
                near[changed], typicality[changed] = self._measured(vectors[members], left, changed, k, rng)
                best = int(typicality.argmax())
                yield int(members[best]), float(typicality[best])
                typicality[best] = -np.inf
                left = left[left != best]
                changed = left[(near[left] == best).any(axis=1)]
        yield from ((int(members[i]), 1.0) for i in left)

    def _measured(
        self,
        vectors: NDArray[np.float32],
        left: NDArray[np.int64],
        rows: NDArray[np.int64],
        k: int,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The k nearest rows left, (r, k), and the typicality, (r,), of some rows."""
        found = nearest(vectors, k, rng, among=left, of=rows)
        distance = found.distance.astype(np.float64)
        return found.rows, 1 / ((distance**2 if self.squared else distance).mean(axis=1) + 1e-5)
