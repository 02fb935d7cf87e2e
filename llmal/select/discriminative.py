"""Discriminative active learning: label until nothing tells the labelled rows from the pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.stage import Pool, Selection, Selector


class Discriminative(Selector):
    """Rows a classifier most surely takes for unlabelled (DAL). Source: Gissin & Shalev-Shwartz 2019.

    The batch is split into mini-rounds: each fits a logistic regression of labelled against unlabelled on the
    vectors, takes the rows it is surest of and counts them as labelled from then on. Rows are ranked by the
    log-odds, which still tell rows apart whose probabilities are all 1. Without a labelled row the first
    mini-round is drawn at random. The classes do not matter, so it needs no student.
    """

    rounds: int = Field(
        10, ge=1, description="mini-rounds a batch is split into; more is slower and more even"
    )
    ratio: int = Field(10, ge=1, description="unlabelled rows fitted on for each labelled one")
    strength: float = Field(1.0, gt=0, description="inverse of the L2 penalty; larger fits more closely")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, mini-round by mini-round."""
        rows = pool.unlabelled
        k = min(k, len(rows))
        labelled = np.asarray(pool.vectors[pool.labelled])
        vectors = np.asarray(pool.vectors[rows])
        picked = np.zeros(0, np.int64)
        scores = np.zeros(0)
        reasons: list[str] = []
        for size in sizes(k, self.rounds):
            left = np.setdiff1d(np.arange(len(rows)), picked)
            known = np.concatenate([labelled, vectors[picked]])
            if len(known):
                odds = self._odds(known, vectors[left], rng)
                best = np.lexsort((left, -odds))[:size]
                chance = 1 / (1 + np.exp(-odds[best]))
                reasons += [f"unlike what has a label (taken for unlabelled at {c:.3f})" for c in chance]
            else:
                best = rng.permutation(len(left))[:size]
                chance = np.ones(size)
                reasons += ["drawn at random: nothing has a label yet"] * size
            picked = np.concatenate([picked, left[best]])
            scores = np.concatenate([scores, chance])
        return Selection(rows[picked], scores, reasons)

    def _odds(
        self, known: NDArray[np.float32], left: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(m,) log-odds that a row left is unlabelled."""
        from sklearn.linear_model import LogisticRegression

        n = min(len(left), self.ratio * len(known))
        some = left if n == len(left) else left[np.sort(rng.choice(len(left), n, replace=False))]
        model = LogisticRegression(C=self.strength, max_iter=1000)
        model.fit(np.concatenate([known, some]), np.repeat([0, 1], [len(known), n]))
        return np.asarray(model.decision_function(left), np.float64)


def sizes(k: int, rounds: int) -> list[int]:
    """Picks of each mini-round: as equal as can be, k in all, none empty."""
    return [len(part) for part in np.array_split(np.arange(k), min(rounds, k))] if k else []
