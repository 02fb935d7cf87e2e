"""ProbCover: the rows whose surroundings cover most of the pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.geometry import Neighbours, within
from llmal.select.kcenter import KCenter
from llmal.select.kmeans import cluster
from llmal.select.stage import Pool, Selection, Selector

GRAPH_ROWS = 20_000
"""Rows the graph is built on; a larger pool is sampled, and the picks are made among the sample."""

PURITY = 0.95
"""Share of balls that must hold one pseudo-class only; the largest radius that keeps it is used (paper)."""

RADII = np.arange(1, 21) / 10
"""Radii tried, for unit rows: 0.1 to 2.0."""


class ProbCover(Selector):
    """Greedily the row whose ball of radius delta holds most rows not covered yet, for small budgets.

    Once everything is covered, k-center fills up. Source: Yehuda et al. 2022; the radius by purity of k-means
    pseudo-classes, as their section 4.2 has it.
    """

    delta: float | None = Field(None, gt=0, le=2, description="radius; chosen by purity when absent")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        rows = pool.unlabelled
        if len(rows) > GRAPH_ROWS:
            rows = np.sort(rng.choice(rows, max(GRAPH_ROWS, k), replace=False))
        everything = np.concatenate([rows, pool.labelled])
        vectors = np.asarray(pool.vectors[everything])
        delta = self.delta or purest_radius(vectors, pool.n_classes, rng)
        graph = within(vectors, delta)
        covered = np.zeros(len(vectors), bool)
        covered[graph.of_all(np.arange(len(rows), len(vectors)))] = True
        picked, gains = cover(graph, covered, len(rows), k)
        reasons = [f"covers {g} texts within {delta:g}" for g in gains]
        scores = [float(g) for g in gains]
        if len(picked) < k:
            rest = self._fill(pool, rows, picked, k - len(picked), rng)
            picked += [int(i) for i in np.searchsorted(rows, rest.rows)]
            scores += [0.0] * len(rest.rows)
            reasons += [f"everything is covered; {reason}" for reason in rest.reasons]
        return Selection(rows[picked], np.asarray(scores), reasons)

    @staticmethod
    def _fill(
        pool: Pool, rows: NDArray[np.int64], picked: list[int], k: int, rng: np.random.Generator
    ) -> Selection:
        chosen = rows[picked]
        left = np.setdiff1d(rows, chosen)
        return KCenter().select(
            pool._replace(unlabelled=left, labelled=np.concatenate([pool.labelled, chosen])), k, rng
        )


def cover(
    graph: Neighbours, covered: NDArray[np.bool_], candidates: int, k: int
) -> tuple[list[int], list[int]]:
    """Greedy coverage: up to k of the first `candidates` rows, and how many rows each newly covered.

    Ends early when nothing is left to cover. `covered` is updated in place.
    """
    n = len(covered)
    degree = np.diff(graph.start) - np.bincount(graph.of_all(np.flatnonzero(covered)), minlength=n)
    degree = degree[:candidates]
    picked: list[int] = []
    gains: list[int] = []
    while len(picked) < k:
        best = int(degree.argmax())
        if degree[best] <= 0:
            break
        near = graph.of(best)
        fresh = near[~covered[near]]
        picked.append(best)
        gains.append(len(fresh))
        covered[fresh] = True
        degree -= np.bincount(graph.of_all(fresh), minlength=n)[:candidates]  # closeness is mutual
        degree[best] = -1
    return picked, gains


def purest_radius(vectors: NDArray[np.float32], n_classes: int, rng: np.random.Generator) -> float:
    """The largest radius at which `PURITY` of all balls hold one k-means cluster only, else the smallest."""
    few = (
        vectors if len(vectors) <= 2_000 else vectors[np.sort(rng.choice(len(vectors), 2_000, replace=False))]
    )
    _, label = cluster(few, max(2, n_classes), rng)
    square = np.einsum("ij,ij->i", few, few)
    distance = np.sqrt(np.maximum(0, square[:, None] + square[None] - 2 * (few @ few.T)))
    foreign = np.where(label[:, None] != label[None], distance, np.inf).min(axis=1)
    good = [float(r) for r in RADII if (foreign >= r).mean() >= PURITY]
    return max(good, default=float(RADII[0]))
