"""Diversify and conquer: equal shares of the clusters first, then more of those whose answers hold up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.kmeans import cluster
from llmal.select.stage import Pool, Selection, Selector


class Diversify(Selector):
    """Draws from the clusters of a k-means, by quotas that follow the answers so far.

    Source: Yu et al. 2024.

    Without answers every cluster gives the same number. Later a cluster is drawn with chance softmax(mean
    score of its answered rows), a row inside it at random; a cluster without an answered row has the mean
    weight. The score of a row is the student's probability of the accepted answer (before there is a student,
    1), and 0 where no answer was accepted; with `kind: multi` it is the mean over yes/no answers, a row
    without a label being a no to each. So clusters of rows that are off topic, garbled or answered
    contradictorily get less. The student has learnt from these very answers, so the score flatters them.

    Clusters are the same every round as long as the corpus is: they depend on its vectors and `seed` alone.
    """

    clusters: int | None = Field(
        None, ge=1, description="number of clusters; by default the square root of the number of rows"
    )
    temperature: float = Field(1.0, gt=0, description="of the softmax; smaller shifts the quotas harder")
    seed: int = Field(0, ge=0, description="of the clustering, the same in all rounds")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, in random order; what a cluster lacks the others give."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        n = len(pool.vectors)
        wanted = self.clusters or round(np.sqrt(n))
        _, label = cluster(np.asarray(pool.vectors), wanted, np.random.default_rng(self.seed))
        count = int(label.max()) + 1
        weights = self.weights(scores(pool), label[pool.labelled], count)
        here = label[pool.unlabelled]
        free = np.bincount(here, minlength=count)
        quotas = even(k, free, rng) if weights is None else drawn(k, free, weights, rng)
        order = rng.permutation(len(here))
        order = order[np.argsort(here[order], kind="stable")]
        place = np.arange(len(order)) - np.repeat(np.cumsum(free) - free, free)  # within its cluster
        picked = rng.permutation(order[place < quotas[here[order]]])
        if weights is None:
            words = [f"at random from cluster {c}, one of {count} with equal shares" for c in here[picked]]
            return Selection(pool.unlabelled[picked], np.full(k, 1 / count), words)
        chance = weights[here[picked]]
        words = [
            f"at random from cluster {c}, drawn at {w * count:.2f} times an equal share"
            for c, w in zip(here[picked], chance, strict=True)
        ]
        return Selection(pool.unlabelled[picked], chance, words)

    def weights(
        self, score: NDArray[np.float64], label: NDArray[np.int64], count: int
    ) -> NDArray[np.float64] | None:
        """(count,) chances of the clusters, summing to 1; None where no row has a score.

        Args:
            score: (l,) of the labelled rows; not a number where there is none.
            label: (l,) their clusters.
            count: of clusters.
        """
        known = np.isfinite(score)
        if not known.any():
            return None
        rows = np.bincount(label[known], minlength=count)
        total = np.bincount(label[known], score[known], minlength=count)
        seen = rows > 0
        odds = np.zeros(count)
        odds[seen] = np.exp((total[seen] / rows[seen] - 1) / self.temperature)  # scores end at 1: no overflow
        odds[~seen] = odds[seen].mean()
        if odds.sum() == 0:
            return np.full(count, 1 / count)
        return np.asarray(odds / odds.sum())


def scores(pool: Pool) -> NDArray[np.float64]:
    """(l,) how well the answers of labelled rows hold up, in [0, 1]; NaN where that is not known."""
    if pool.targets is None:
        return np.full(len(pool.labelled), np.nan)
    targets = np.asarray(pool.targets, np.float64)
    accepted = targets.any(axis=1)
    if pool.probs is None:
        return np.asarray(accepted | pool.multi, np.float64)
    probs = np.asarray(pool.probs[pool.labelled], np.float64)
    if pool.multi:
        return np.asarray((targets * probs + (1 - targets) * (1 - probs)).mean(axis=1))
    return np.where(accepted, (targets * probs).sum(axis=1), 0.0)


def even(k: int, free: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(K,) quotas that differ by at most one except where a cluster is used up, k in all."""
    quotas = np.zeros(len(free), np.int64)
    while (left := k - int(quotas.sum())) > 0:
        open_clusters = rng.permutation(np.flatnonzero(quotas < free))
        each = max(1, left // len(open_clusters))
        some = open_clusters[:left]
        quotas[some] += np.minimum(each, free[some] - quotas[some])
    return quotas


def drawn(
    k: int, free: NDArray[np.int64], weights: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(K,) quotas drawn by weight, k in all; what a cluster cannot give is drawn anew among the others."""
    quotas = np.zeros(len(free), np.int64)
    while (left := k - int(quotas.sum())) > 0:
        odds = np.where(quotas < free, weights, 0.0)
        if odds.sum() <= 0:  # weights so small that they are 0
            odds = (quotas < free).astype(np.float64)
        quotas = np.minimum(free, quotas + rng.multinomial(left, odds / odds.sum()))
    return quotas
