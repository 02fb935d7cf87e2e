"""How alike linear heads that were taught to differ judge a text: a confidence for biased labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.train.stage import Examples

HEADS = 5
"""Heads that are compared, as in Odonnat et al. 2024."""

STEPS = 500
"""Steps of the heads' training: 5 epochs of 100 in Odonnat et al. 2024."""

BATCH = 32
"""Labelled rows, and rows without a label, of one step, as in Odonnat et al. 2024."""

RATE = 1e-3
"""Learning rate of Adam, as in Odonnat et al. 2024."""

GAMMA = 1.0
"""Weight of the rows without a label, as in Odonnat et al. 2024."""

FADE, FADE_SQUARES, TINY = 0.9, 0.999, 1e-8
"""Adam's constants, as in Kingma & Ba 2015."""

READ = 4096
"""Rows judged at once."""

Floats = NDArray[np.float64]


def similarity(probs: Floats, *, multi: bool = False) -> Floats:
    """T-similarity: the mean scalar product of two different heads' probabilities.

    Source: Odonnat, Feofanov & Redko 2024. With several labels a text, ours: each label is a yes/no answer of
    its own, and the mean over labels counts.

    Args:
        probs: (M, n, C) probabilities of M >= 2 heads.
        multi: each column is a yes/no answer of its own.

    Returns:
        (n,) in [0, 1]; 1 only where all heads are certain of the same.
    """
    heads = len(probs)
    if multi:
        both = np.stack([probs, 1 - probs], axis=-1)
        pairs = ((both.sum(axis=0) ** 2).sum(-1) - (both**2).sum((0, -1))).mean(axis=-1)
    else:
        pairs = (probs.sum(axis=0) ** 2).sum(-1) - (probs**2).sum((0, -1))
    return np.asarray(np.clip(pairs / (heads * (heads - 1)), 0.0, 1.0))


class Heads(NamedTuple):
    """Linear heads on the same vectors: weights (M, C, d), biases (M, C); `multi`: one sigmoid a label."""

    weights: Floats
    biases: Floats
    multi: bool

    def probs(self, vectors: NDArray[np.floating]) -> Floats:
        """(M, n, C) probabilities of n rows."""
        scores = np.matmul(np.asarray(vectors, np.float64), self.weights.swapaxes(1, 2))
        scores += self.biases[:, None, :]
        if self.multi:
            return np.asarray(0.5 * (1 + np.tanh(scores / 2)))
        odds = np.exp(scores - scores.max(axis=2, keepdims=True))
        return np.asarray(odds / odds.sum(axis=2, keepdims=True))

    @classmethod
    def fresh(cls, n: int, classes: int, dim: int, rng: np.random.Generator, *, multi: bool) -> Heads:
        """Random weights of standard deviation d^-1/2, so that heads differ from the start."""
        return cls(rng.normal(size=(n, classes, dim)) / np.sqrt(dim), np.zeros((n, classes)), multi)


def learning_gradient(
    heads: Heads, vectors: NDArray[np.floating], targets: NDArray[np.floating], weights: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Of the weighted mean cross-entropy of each head: gradients of weights (M, C, d) and biases (M, C)."""
    w = np.asarray(weights, np.float64) / max(float(np.sum(weights)), 1e-12)
    return _through(heads, (heads.probs(vectors) - targets) * w[:, None], vectors)


def diverging_gradient(heads: Heads, vectors: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Of the mean T-similarity of rows without a label: gradients of weights and biases."""
    p = heads.probs(vectors)
    m, n, c = p.shape
    scale = 2 / (m * (m - 1) * n)
    others = scale * (p.sum(axis=0) - p)
    if heads.multi:
        # The chance of "no" is one minus that of "yes": its scalar products move the other way.
        others = (2 * others - scale * (m - 1)) / c
        return _through(heads, others * p * (1 - p), vectors)
    return _through(heads, p * (others - (p * others).sum(axis=2, keepdims=True)), vectors)


def _through(heads: Heads, scores: Floats, vectors: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Gradients of the heads from those of their scores (M, n, C)."""
    return np.matmul(scores.swapaxes(1, 2), np.asarray(vectors, np.float64)), scores.sum(axis=1)


class Adam:
    """Adam over the heads. Source: Kingma & Ba 2015."""

    def __init__(self, heads: Heads, rate: float = RATE) -> None:
        self.heads = heads
        self._rate = rate
        self._steps = 0
        self._mean = [np.zeros_like(heads.weights), np.zeros_like(heads.biases)]
        self._square = [np.zeros_like(heads.weights), np.zeros_like(heads.biases)]

    def step(self, gradients: tuple[Floats, Floats]) -> None:
        """Move the heads down the gradients of weights and biases."""
        self._steps += 1
        rate = self._rate * np.sqrt(1 - FADE_SQUARES**self._steps) / (1 - FADE**self._steps)
        for value, g, mean, square in zip(self.heads[:2], gradients, self._mean, self._square, strict=True):
            mean *= FADE
            mean += (1 - FADE) * g
            square *= FADE_SQUARES
            square += (1 - FADE_SQUARES) * g * g
            value -= rate * mean / (np.sqrt(square) + TINY)


def diverse_heads(
    known: Examples, pool: NDArray[np.float32], rng: np.random.Generator, *, multi: bool, gamma: float = GAMMA
) -> Heads:
    """Heads taught to agree with the labels and to differ from one another elsewhere.

    Args:
        known: vectors (l, d), targets (l, C) and weights (l,) of labelled texts.
        pool: (u, d) vectors of others.
        rng: of first weights and batches.
        multi: each column of the targets is a yes/no answer of its own.
        gamma: weight of the difference; too large a one costs agreement with the labels.
    """
    assert known.vectors is not None
    assert known.targets is not None
    assert known.weights is not None
    n, dim = known.vectors.shape
    learner = Adam(Heads.fresh(HEADS, known.targets.shape[1], dim, rng, multi=multi))
    for _ in range(STEPS):
        rows = rng.integers(n, size=min(BATCH, n))
        others = rng.integers(len(pool), size=min(BATCH, len(pool)))
        learn = learning_gradient(
            learner.heads, known.vectors[rows], known.targets[rows], known.weights[rows]
        )
        differ = diverging_gradient(learner.heads, pool[others])
        # Cross-entropy is the mean over heads, so that gamma means the same for any number of them.
        learner.step((learn[0] / HEADS + gamma * differ[0], learn[1] / HEADS + gamma * differ[1]))
    return learner.heads


def confidences(known: Examples, pool: Examples, rng: np.random.Generator, *, multi: bool) -> Floats:
    """(u,) T-similarity of each text of the pool, of heads taught what is known."""
    assert pool.vectors is not None
    heads = diverse_heads(known, pool.vectors, rng, multi=multi)
    out = np.zeros(len(pool.vectors))
    for at in range(0, len(out), READ):
        block = slice(at, at + READ)
        out[block] = similarity(heads.probs(pool.vectors[block]), multi=multi)
    return out
