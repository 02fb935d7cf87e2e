"""BADGE: uncertain and diverse at once, by k-means++ on gradients that are never written out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.stage import Pool, Selection
from llmal.select.warm import Warm


class Badge(Warm):
    """k-means++ over the gradients of the last layer, the student's own guess taken as the label.

    A gradient is the outer product of g = p - onehot(guess) and the row's vector, C times d long; distances
    need only the two factors. The first pick has the longest gradient, each next one is drawn with chance in
    proportion to its squared distance from all picks. Source: Ash et al. 2020.
    """

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick k rows; where only twins of picks are left, they are drawn at random."""
        assert pool.probs is not None
        rows = pool.unlabelled
        g = gradients(np.asarray(pool.probs[rows], np.float64))
        h = np.asarray(pool.vectors[rows])
        norms = (g**2).sum(axis=1) * np.einsum("ij,ij->i", h, h, dtype=np.float64)
        picked = [int(norms.argmax())]
        lengths = [float(norms[picked[0]])]
        nearest = np.full(len(rows), np.inf)
        open_rows = np.ones(len(rows), bool)
        while True:
            at = picked[-1]
            open_rows[at] = False
            nearest = np.minimum(nearest, distances(g, h, norms, at))
            if len(picked) == k:
                break
            odds = np.where(open_rows, nearest, 0.0)
            if odds.sum() <= 0:
                odds = open_rows.astype(np.float64)
            picked.append(int(rng.choice(len(rows), p=odds / odds.sum())))
            lengths.append(float(nearest[picked[-1]]))
        scores = np.sqrt(np.maximum(lengths, 0))
        first = f"longest gradient ({scores[0]:.3f})"
        reasons = [first, *(f"gradient {s:.3f} away from every pick" for s in scores[1:])]
        return Selection(rows[picked], scores, reasons)


def gradients(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """P - onehot(argmax p): (n, C)."""
    out = probs.copy()
    out[np.arange(len(out)), probs.argmax(axis=1)] -= 1
    return out


def distances(
    g: NDArray[np.float64], h: NDArray[np.float32], norms: NDArray[np.float64], row: int
) -> NDArray[np.float64]:
    """(n,) squared distances of every gradient to one, from the factors of their inner products."""
    inner = (g @ g[row]) * np.asarray(h @ h[row], np.float64)
    return np.asarray(np.maximum(0.0, norms + norms[row] - 2 * inner))
