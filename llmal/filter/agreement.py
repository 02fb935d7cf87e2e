"""Accept the labels that texts of nearly the same meaning were given too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.clean import INVALID
from llmal.filter.peers import SEED, ByPeers, Crowd, Opinion

MOST = 16_384
"""Answers among which neighbours are looked for, drawn at random where there are more; as in HAST."""

ROWS = 2048
"""Rows compared at once: 128 MiB of cosines at `MOST` answers."""

SLACK = 1e-9
"""A share this little below the bar reaches it: sums of weights are not exact."""


class Agreement(ByPeers):
    """Accept labels that are no rarer among the nearest answers than chance would have them.

    The score is the label's share of the neighbours when every class weighs the same: without that, a label
    of a small class is held wherever it is right. Vectors that mix the classes make this a poor filter.
    Source: edited nearest neighbours, Wilson 1972; HAST, which judges pseudo-labels so (Schroeder & Heyer
    2024). The bar is ours: one half of the neighbours, unweighted, held four of five labels of trec.
    """

    neighbours: int = Field(15, ge=1, description="answers about the nearest texts that are looked at")
    lift: float = Field(
        1.0, ge=0, description="lowest share of these with the label, in multiples of one in C classes"
    )

    def weigh(self, crowd: Crowd) -> Opinion:
        """The share of neighbours with each row's label, classes weighted alike."""
        rng, n_classes = np.random.default_rng(SEED), len(crowd.names)
        among = np.flatnonzero(crowd.taught != INVALID)
        if len(among) > MOST:
            among = np.sort(rng.choice(among, MOST, replace=False))
        k = min(self.neighbours, len(among) - 1)
        weight = 1 / np.maximum(np.bincount(crowd.labels[among], minlength=n_classes), 1)
        share, vectors = np.zeros(len(crowd.labels)), crowd.vectors()
        for at in range(0, len(share), ROWS):
            rows = np.arange(at, min(at + ROWS, len(share)))
            near = crowd.labels[_nearest(vectors, rows, among, k)]
            same = near == crowd.labels[rows, None]
            share[rows] = (weight[near] * same).sum(axis=1) / weight[near].sum(axis=1)
        bar = min(self.lift / n_classes, 1.0)
        clean = share >= bar - SLACK
        why = [
            f"share {p:.3f} {'>=' if ok else '<'} {bar:.3f} of its {k} neighbours, classes weighted alike"
            for p, ok in zip(share, clean, strict=True)
        ]
        return Opinion(share, clean, why)


def _nearest(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], among: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """(m, k) rows of `among` with the highest cosine to each of m rows, itself left out, in no order."""
    cosine = vectors[rows] @ vectors[among].T
    place = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    own = among[place] == rows
    cosine[own, place[own]] = -np.inf
    return np.asarray(among[np.argpartition(-cosine, k - 1, axis=1)[:, :k]])
