"""A weighted vote that knows who copies whom: annotators who err together share one say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.votes import NONE, _one_hot, _table, dawid_skene

GUESSED = 30.0
"""People's answers that the Dawid-Skene consensus of all items is worth when merits are measured."""

RIDGE = 0.2
"""Added to every variance, as a share of the mean one: copies of one annotator then share its weight."""

_LEAST = 1e-3
"""Least probability of a class: a straight line would leave [0, 1] where everybody agrees."""


class Weighted(NamedTuple):
    """What annotators together say, and the weight of each.

    Attributes:
        probs: (n, C) of each item, rows sum to 1.
        weights: (m,) at least 0.
    """

    probs: NDArray[np.float64]
    weights: NDArray[np.float64]


def weighted(votes: ArrayLike, n_classes: int, *, known: ArrayLike | None = None) -> Weighted:
    """Weighted vote with the weights that explain the truth best in least squares, none of them below 0.

    Weights by accuracy alone (`log_odds`) and Dawid-Skene take annotators for independent: five models that
    make the same mistakes then outvote a better sixth. Least squares needs two things. How annotators vary
    together is seen in all votes, without any label. How each varies with the truth comes from people's
    answers, with the Dawid-Skene consensus as `GUESSED` more of them.

    Args:
        votes: (n, m) int, -1 is none: it counts as that annotator's average answer.
        n_classes: C.
        known: (n,) int, people's answers, -1 where there is none; those of a random sample serve best.

    Returns:
        Items without a vote get the share of each class; items that people answered are voted on as well.

    Raises:
        ValueError: votes are not (n, m), or a class is not in -1..C - 1.

    Source: Fisher 1936 (the covariance of all items serves as well as the one within classes); non-negative
    least squares, Lawson & Hanson 1974; the mixture with a consensus is ours.
    """
    from scipy.optimize import nnls  # type: ignore[import-untyped, unused-ignore]

    table = _table(votes, n_classes)
    if not table.size:
        return Weighted(np.full((len(table), n_classes), 1 / n_classes), np.zeros(table.shape[1]))
    truth = np.full(len(table), NONE) if known is None else np.asarray(known, np.int64)
    guess = dawid_skene(table, n_classes, known=truth).probs
    said = _one_hot(table, n_classes)
    given = (table != NONE)[:, :, None]
    usual = said.sum(axis=0) / np.maximum(given.sum(axis=0), 1)
    apart = np.where(given, said - usual, 0.0)
    sure = truth != NONE
    worth = np.where(sure, 1.0, 0.0) + GUESSED / len(table)
    target = np.where(sure[:, None], _one_hot(truth[:, None], n_classes)[:, 0], 0.0)
    target = (target + guess * GUESSED / len(table)) / worth[:, None]
    share = np.average(target, axis=0, weights=worth)
    merit = np.einsum("njc,nc->j", apart, (target - share) * worth[:, None]) / worth.sum()
    together = np.einsum("njc,nkc->jk", apart, apart) / len(table)
    together += (RIDGE * np.diag(together).mean() + 1e-12) * np.eye(len(together))
    root = np.linalg.cholesky(together)
    weights, _ = nnls(root.T, np.linalg.solve(root, merit))
    probs = np.clip(share + np.einsum("njc,j->nc", apart, weights), _LEAST, None)
    return Weighted(probs / probs.sum(axis=1, keepdims=True), weights)
