"""Contrastive active learning: ask where the student departs from what it says on labelled neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.geometry import BLOCK
from llmal.select.margin import margins
from llmal.select.stage import Pool, Selection, top
from llmal.select.warm import Warm

FLOOR = 1e-12
"""Probabilities are taken for at least this, so that a logarithm is there."""


class Contrastive(Warm):
    """Rows whose prediction differs from those of their labelled neighbours (CAL).

    The score is the mean Kullback-Leibler divergence from a row's prediction to those of its nearest labelled
    rows, in nats. Only labelled rows are neighbours, as in the authors' code; other code lets a row be its
    own. The student's word on a labelled row was learnt from that row, as in the paper; a row without one is
    no neighbour, and where there is none at all the margin decides. With independent labels (`kind: multi`)
    the divergence is that of each yes/no answer, averaged over labels. Source: Margatina et al. 2021.
    """

    neighbours: int = Field(10, ge=1, description="nearest labelled rows to compare with")

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick the k rows of largest divergence."""
        assert pool.probs is not None
        rows = pool.unlabelled
        probs = np.asarray(pool.probs[rows], np.float64)
        known = np.asarray(pool.probs[pool.labelled], np.float64)
        usable = np.isfinite(known).all(axis=1)
        if not usable.any():
            scores = 1.0 - margins(probs, multi=pool.multi)
            best = top(scores, rows, k)
            words = "margin {:.3f} between the two likeliest labels; no labelled row to compare with"
            return Selection(rows[best], scores[best], [words.format(1 - s) for s in scores[best]])
        n = min(self.neighbours, int(usable.sum()))
        vectors = np.asarray(pool.vectors[pool.labelled[usable]])
        said = known[usable]
        if pool.multi:
            probs, said = answers_of(probs), answers_of(said)
        scores = np.empty(len(rows))
        for at in range(0, len(rows), BLOCK):
            part = slice(at, at + BLOCK)
            near = nearest(np.asarray(pool.vectors[rows[part]]), vectors, n)
            scores[part] = divergence(probs[part], said[near])
        best = top(scores, rows, k)
        reasons = [f"differs by {s:.3f} from what is said on its {n} nearest labelled" for s in scores[best]]
        return Selection(rows[best], scores[best], reasons)


def answers_of(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2C) yes and no of each of C labels, a C-th each, so that divergences come out averaged."""
    return np.asarray(np.concatenate([probs, 1 - probs], axis=1) / probs.shape[1])


def nearest(vectors: NDArray[np.float32], among: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """(m, n) the n rows of `among` with the highest cosine to each of m unit vectors, in no order."""
    return np.asarray(np.argpartition(-(vectors @ among.T), n - 1, axis=1)[:, :n])


def divergence(probs: NDArray[np.float64], near: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over j of KL(near_j || p), in nats: (m,), never below 0.

    Args:
        probs: (m, C) p of the rows.
        near: (m, n, C) predictions of the n neighbours of each.
    """
    near, probs = np.maximum(near, FLOOR), np.maximum(probs, FLOOR)
    each = (near * (np.log(near) - np.log(probs)[:, None])).sum(axis=2)
    return np.asarray(np.maximum(0.0, each.mean(axis=1)), np.float64)
