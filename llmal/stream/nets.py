"""The deferral rule as published: a small network a level, taught by the cost of the whole cascade."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stream.deferral import Records
from llmal.stream.logistic import Floats

HIDDEN = 128
"""Units of a network's hidden layer (the paper's)."""

PACE = 7e-4
"""Step size of Adam (the paper's)."""

PULL = 1e-4
"""Weight decay (the paper's)."""

ADD = 0.3
"""Added to the target of a wrong answer's network: the paper's "calibration", 0.15 to 0.45."""

COSTS = (1.0, 1182.0)
"""Of asking the next level: the ratio of model sizes in the paper."""

LATEST = 16
"""Answers a step is taken on."""


def cascade_cost(defer: ArrayLike, losses: ArrayLike, *, mu: float, costs: ArrayLike) -> Floats:
    """Expected cost of running items down a cascade: errors where it stops, a price where it goes on.

    Args:
        defer: (..., L) chance in [0, 1] that level j passes the item on.
        losses: (..., L) loss of level j's answer.
        mu: price of a unit of cost, in units of loss.
        costs: (L,) cost of the level after j.

    Returns:
        (...) sum over levels j of prod_(k<j) defer_k ((1 - defer_j) loss_j + defer_j mu cost_j).

    Raises:
        ValueError: shapes do not fit.

    Source: Nie et al. 2024 (online cascade learning).

    Example:
        >>> round(float(cascade_cost([.3, .6], [.5, .2], mu=.001, costs=[1, 1182])), 5)
        0.58706
    """
    d, loss, cost = (np.asarray(a, np.float64) for a in (defer, losses, costs))
    if d.shape != loss.shape or d.shape[-1:] != cost.shape:
        raise ValueError(
            f"defer, losses and costs must be (..., L) alike, got {d.shape}, {loss.shape}, {cost.shape}."
        )
    return _tails(d, loss, mu * cost)[..., 0]


def _tails(d: Floats, loss: Floats, price: Floats) -> Floats:
    """(..., L + 1) expected cost from each level on, once reached."""
    tails = np.zeros((*d.shape[:-1], d.shape[-1] + 1))
    for j in reversed(range(d.shape[-1])):
        tails[..., j] = (1 - d[..., j]) * loss[..., j] + d[..., j] * (price[j] + tails[..., j + 1])
    return tails


class Nets:
    """Networks that say whether to pass on, from a level's probabilities; above one half it does.

    Source: Nie et al. 2024 (online cascade learning).

    Args:
        n_levels: L.
        n_classes: C.
        mu: price of a unit of cost.
        seed: of the first weights.
    """

    def __init__(self, n_levels: int, n_classes: int, *, mu: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 7])
        self.mu = mu
        self.weights = [
            [
                rng.normal(0, (2 / n_classes) ** 0.5, (n_classes, HIDDEN)), np.zeros(HIDDEN),
                rng.normal(0, (1 / HIDDEN) ** 0.5, (HIDDEN, 1)), np.zeros(1),
            ]
            for _ in range(n_levels)
        ]  # fmt: skip
        self.moments = [[np.zeros((2, *w.shape)) for w in net] for net in self.weights]
        self.steps = 0

    def says(self, tables: Sequence[NDArray[np.floating]]) -> tuple[NDArray[np.int64], Floats]:
        """The last level's label (n,), and its network's output (n,)."""
        return np.asarray(tables[-1]).argmax(axis=1), self._forward(len(tables) - 1, tables[-1])[1]

    def learn(self, records: Records) -> None:
        """One step of Adam on the newest answers."""
        tables, labels = records.tables[-LATEST:].astype(np.float64), records.labels[-LATEST:]
        rows, n_levels = np.arange(len(labels)), tables.shape[1]
        passes = [self._forward(j, tables[:, j]) for j in range(n_levels)]
        d = np.stack([out for _, out in passes], axis=1)
        loss = -np.log(np.maximum(tables[rows, :, labels], 1e-6))
        price = self.mu * np.asarray(COSTS[-n_levels:])
        tails = _tails(d, loss, price)
        reached = np.cumprod(np.column_stack([np.ones(len(d)), d[:, :-1]]), axis=1)
        wrong = tables.argmax(axis=2) != labels[:, None]
        target = np.minimum(wrong + ADD, 1.0)
        slope = reached * (-loss + price + tails[:, 1:]) + 2 * (d - target)
        self.steps += 1
        for j, (hidden, out) in enumerate(passes):
            self._step(j, tables[:, j], hidden, slope[:, j] * out * (1 - out) / len(labels))

    def _forward(self, level: int, x: NDArray[np.floating]) -> tuple[Floats, Floats]:
        first, bias, second, last = self.weights[level]
        hidden = np.maximum(np.asarray(x, np.float64) @ first + bias, 0.0)
        return hidden, 1 / (1 + np.exp(-np.clip(hidden @ second + last, -30, 30)))[:, 0]

    def _step(self, level: int, x: Floats, hidden: Floats, slope: Floats) -> None:
        net = self.weights[level]
        back = (slope[:, None] @ net[2].T) * (hidden > 0)
        slopes = [x.T @ back, back.sum(axis=0), hidden.T @ slope[:, None], slope.sum(keepdims=True)]
        for w, g, m in zip(net, slopes, self.moments[level], strict=True):
            g = g + PULL * w
            m[0] += 0.1 * (g - m[0])
            m[1] += 0.001 * (g * g - m[1])
            best = m[0] / (1 - 0.9**self.steps)
            w -= PACE * best / (np.sqrt(m[1] / (1 - 0.999**self.steps)) + 1e-8)
