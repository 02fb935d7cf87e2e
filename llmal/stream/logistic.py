"""Softmax regression that goes on from where it was, on dense or sparse rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]

STEPS = 20
"""Most iterations of one fit: each begins where the last ended, so one cut short is gone on with."""

HISTORY = 5
"""Steps that L-BFGS remembers; with many columns each costs as much as half a pass over the rows."""


def softmax(scores: NDArray[np.floating]) -> Floats:
    """Rows of scores (n, C) as probabilities."""
    odds = np.exp(np.asarray(scores, np.float64) - np.max(scores, axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)


def scores(x: NDArray[np.floating] | csr_matrix, coef: NDArray[np.floating]) -> Floats:
    """Scores (n, C) of rows (n, d) under coefficients (d + 1, C) with the bias last."""
    return np.asarray(np.asarray(x @ coef[:-1].astype(x.dtype), np.float64) + coef[-1], np.float64)


def fit(
    x: NDArray[np.floating] | csr_matrix, y: NDArray[np.integer], w: Floats, start: Floats, strength: float
) -> Floats:
    """Coefficients that lower the weighted log loss plus a ridge, begun at `start`.

    Args:
        x: (n, d) rows, without a column for the bias.
        y: (n,) class of each row, in 0..C-1.
        w: (n,) weights, not negative, some positive.
        start: (d + 1, C) coefficients to begin with, the bias in the last row.
        strength: inverse of the ridge's weight, as C of scikit-learn; the bias is not held back.

    Returns:
        (d + 1, C) coefficients, at most `STEPS` iterations on.

    Source: Cox 1958; Liu & Nocedal 1989 (L-BFGS).
    """
    from scipy.optimize import minimize

    rows, total = np.arange(x.shape[0]), float(w.sum())
    ridge, shares = 1 / (strength * total), w / total

    def loss(flat: Floats) -> tuple[float, Floats]:
        coef = flat.reshape(start.shape)
        probs = softmax(scores(x, coef))
        value = -float(shares @ np.log(np.maximum(probs[rows, y], 1e-300)))
        probs[rows, y] -= 1
        probs *= shares[:, None]
        slope = np.empty_like(coef)
        slope[:-1] = x.T @ probs.astype(x.dtype) + ridge * coef[:-1]
        slope[-1] = probs.sum(axis=0)
        return value + 0.5 * ridge * float((coef[:-1] ** 2).sum()), slope.ravel()

    options = {"maxiter": STEPS, "maxcor": HISTORY, "maxfun": 2 * STEPS, "ftol": 1e-6, "gtol": 1e-5}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, np.float64).reshape(start.shape)
