"""Least disagree metric: ask where the smallest nudge to the student would change its mind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.stage import Pool, Selection
from llmal.select.warm import Warm

MOST_ROWS = 20_000
"""Unlabelled rows looked at; of a larger pool this many are drawn."""

SIGMAS = 10.0 ** np.arange(-5, 0.05, 0.1)
"""Sizes of the noise, relative to the weights: 51 from 1e-5 to 1."""

FLOOR = 1e-12
"""Probabilities are taken for at least this before a logarithm; a yes or no for at least 1e-6."""


class Ldm(Warm):
    """Rows whose label flips when few others do (LDM-S), spread out. Source: Cho et al. 2024.

    The least disagree metric of a row is the smallest share of rows any nudge of the last layer flips among
    which it is. A strategy sees no weights, only probabilities; so the head that is nudged is ours: linear on
    the vectors, by least squares to the student's log-probabilities (log-odds for `kind: multi`). For a
    linear student on the same vectors that is the student's own head; for any other it is a stand-in, and the
    reasons tell on how many rows the two agree. Ours too: noise is relative to the size of the weights, since
    their scale changes no label; a size is left after `most` draws at the latest; 20,000 rows at most.
    """

    patience: int = Field(10, ge=1, description="draws without a smaller value before the next size of noise")
    most: int = Field(50, ge=1, description="most draws for each of the 51 sizes of noise")

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick k rows: the smallest value first, the others drawn by value and distance to the picks."""
        assert pool.probs is not None
        rows, enough = pool.unlabelled, max(k, MOST_ROWS)
        if len(rows) > enough:
            rows = np.sort(rng.choice(rows, enough, replace=False))
        vectors = np.asarray(pool.vectors[rows])
        probs = np.asarray(pool.probs[rows], np.float64)
        many = pool.multi
        weights = head(vectors, probs, many=many)
        values = self.metric(vectors, weights, rng, many=many)
        agree = float((labels(vectors, weights, many) == said(probs, many)).all(axis=1).mean())
        picked = seeds(values, vectors, k, rng)
        note = f"by a linear stand-in that agrees with the student on {agree:.0%}"
        reasons = [f"changes its label when {v:.2%} of the rows do, {note}" for v in values[picked]]
        return Selection(rows[picked], 1 - values[picked], reasons)

    def metric(
        self,
        vectors: NDArray[np.float32],
        weights: NDArray[np.float32],
        rng: np.random.Generator,
        *,
        many: bool = False,
    ) -> NDArray[np.float64]:
        """(n,) least disagree metric of every row, in (0, 1]; 1 where no nudge flipped it.

        Args:
            vectors: (n, d).
            weights: (d + 1, C) of the head, the last row added to every score.
            rng: of the nudges.
            many: C yes/no answers a row rather than one label.
        """
        values = np.ones(len(vectors))
        before = labels(vectors, weights, many)
        scale = float(np.sqrt(np.mean(weights**2)))
        for sigma in SIGMAS * scale:
            idle = 0
            for _ in range(self.most):
                noise = rng.standard_normal(weights.shape, np.float32) * np.float32(sigma)
                flips = (labels(vectors, weights + noise, many) != before).any(axis=1)
                better = flips & (values > flips.mean())
                values[better] = flips.mean()
                idle = 0 if better.any() else idle + 1
                if idle == self.patience:
                    break
        return values


def head(vectors: NDArray[np.float32], probs: NDArray[np.float64], *, many: bool) -> NDArray[np.float32]:
    """(d + 1, C) weights whose scores are nearest to the student's: centred logarithms, or log-odds."""
    if many:
        scores = logit(np.clip(probs, 1e-6, 1 - 1e-6))  # float32 tells no p from 1 much closer than that
    else:
        logs = np.log(np.maximum(probs, FLOOR))
        scores = logs - logs.mean(axis=1, keepdims=True)
    x = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1).astype(np.float64)
    square = x.T @ x + 1e-8 * len(x) * np.eye(x.shape[1])  # a trace of ridge: directions no row has
    return np.asarray(np.linalg.solve(square, x.T @ scores), np.float32)


def logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds."""
    return np.asarray(np.log(p) - np.log1p(-p))


def labels(vectors: NDArray[np.float32], weights: NDArray[np.float32], many: bool) -> NDArray[np.int64]:
    """What a head says: (n, 1) likeliest label, or (n, C) yes/no."""
    scores = vectors @ weights[:-1] + weights[-1]
    return np.asarray(scores > 0 if many else scores.argmax(axis=1)[:, None], np.int64)


def said(probs: NDArray[np.float64], many: bool) -> NDArray[np.int64]:
    """What the student says, in the form of `labels`."""
    return np.asarray(probs > 0.5 if many else probs.argmax(axis=1)[:, None], np.int64)


def gammas(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """(n,) weights that fall with the value; beyond the k smallest they sum to k, and none is over 1."""
    order = np.argsort(values, kind="stable")
    at = values[order[min(k, len(values) - 1)]] or values[values > 0].min(initial=1.0)
    out = np.asarray(np.exp(-np.maximum(values - at, 0) / at))
    tail = order[k:]
    out[tail] *= k / out[tail].sum() if len(tail) else 1.0
    return np.asarray(np.minimum(out, 1.0))


def seeds(
    values: NDArray[np.float64], vectors: NDArray[np.float32], k: int, rng: np.random.Generator
) -> list[int]:
    """K rows: the smallest value, then drawn by gamma^2 times the cosine distance to the nearest pick."""
    weight = gammas(values, k) ** 2
    picked = [int(values.argmin())]
    nearest = np.full(len(values), np.inf)
    free = np.ones(len(values), bool)
    while len(picked) < k:
        free[picked[-1]] = False
        nearest = np.minimum(nearest, np.maximum(0.0, 1 - vectors @ vectors[picked[-1]].astype(np.float64)))
        odds = np.where(free, weight * nearest, 0.0)
        if odds.sum() <= 0:  # only twins of picks are left
            odds = free.astype(np.float64)
        picked.append(int(rng.choice(len(odds), p=odds / odds.sum())))
    return picked
