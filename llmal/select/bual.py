"""BUAL: informative rows of the known classes, from a pool that holds off-topic ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.geometry import BLOCK
from llmal.select.margin import margins
from llmal.select.stage import Pool, Selection, top
from llmal.select.warm import Warm

RATE = 0.05
"""Step of Adam; unit vectors want a larger one than its usual 0.001."""

DECAY = 1e-4
"""L2 penalty on weights, as in the authors' code."""

BATCH = 128
"""Rows of a step of negative learning, as in the authors' code."""

EVERY = 5
"""Epochs between two snapshots of the negative head, as in the authors' code."""

STEPS = 300
"""Steps of a head that is fitted to labels, all rows in each."""


class Bual(Warm):
    """Uncertain rows, where uncertain is told apart from unknown (BUAL). Source: Zong et al. 2024.

    A labelled row without an accepted answer, or with none of the labels, counts as unknown. An auxiliary
    head, linear on the vectors, tells the C classes and the unknown apart. A negative head starts from one
    fitted to the labelled rows and learns what rows are not: a wrong class for labelled ones, any class for
    rows of the pool. The score weighs its uncertainty, by the chance that a row is unknown, against the
    student's; rows the auxiliary head takes for unknown come last. Without unknown rows the student's
    uncertainty decides alone.

    Ours: the student stands for the positive classifier; the share of known rows is that of all labelled
    ones, for a strategy does not see which came last. With `kind: multi` each label of a row is a row of its
    own.
    """

    epochs: int = Field(100, ge=1, description="passes of negative learning")
    sample: int = Field(5000, ge=1, description="rows of the pool it learns from")

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick the k rows of highest score."""
        assert pool.probs is not None
        rows = pool.unlabelled
        student = scaled(1 - margins(np.asarray(pool.probs[rows], np.float64), multi=pool.multi))
        known = np.zeros(0, bool) if pool.targets is None else np.asarray(pool.targets.any(axis=1))
        if known.all() or not known.any():
            best = top(student, rows, k)
            words = "uncertainty {:.3f} of the student alone: {} so far"
            why = "nothing off-topic" if known.all() and len(known) else "nothing labelled"
            return Selection(rows[best], student[best], [words.format(s, why) for s in student[best]])
        assert pool.targets is not None
        vectors = np.asarray(pool.vectors[pool.labelled])
        wide = np.concatenate([pool.targets, ~known[:, None]], axis=1)
        odds = predicted(pool, [fitted(vectors, wide)])
        unknown = odds[:, -1]
        passed = odds.argmax(axis=1) < pool.n_classes
        some = rng.permutation(np.flatnonzero(passed))[: self.sample]
        negative = self._negative(pool, vectors[known], pool.targets[known], rows[some], rng)
        share = float(known.mean())
        values = score(unknown, share, scaled(negative), student)
        # The authors' code sorts by weighted confidence, which is the printed score with a price on being
        # unknown; without that price many more of the picks are off topic.
        values = values - (1 - share) * unknown - 2 * ~passed  # they span less than 2
        best = top(values, rows, k)
        words = "{:.0%} off-topic; uncertainty {:.3f} by the student, {:.3f} by negative learning"
        reasons = [words.format(unknown[i], student[i], negative[i]) for i in best]
        return Selection(rows[best], values[best], reasons)

    def _negative(
        self,
        pool: Pool,
        vectors: NDArray[np.float32],
        targets: NDArray[np.float32],
        sample: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """(u,) uncertainty under the mean prediction of the negative head's snapshots."""
        if pool.n_classes == 1:  # there is no wrong class
            return np.zeros(len(pool.unlabelled))
        x = with_one(np.concatenate([vectors, np.asarray(pool.vectors[sample])]))
        allowed = np.ones((len(x), pool.n_classes), bool)
        allowed[: len(targets)] = targets == 0
        useful = np.flatnonzero(allowed.any(axis=1))  # a row with every label has no wrong class
        head = fitted(vectors, targets)
        snapshots = [head.copy()]
        step = Adam(head)
        for epoch in range(1, self.epochs + 1):
            for batch in _batches(rng.permutation(useful)):
                p = softmax(x[batch] @ head)
                step(x[batch].T @ unlike(p, complementary(allowed[batch], rng)) / len(batch))
            if epoch % EVERY == 0:
                snapshots.append(head.copy())
        return 1 - margins(predicted(pool, snapshots))


def score(
    unknown: NDArray[np.float64] | float,
    share: float,
    negative: NDArray[np.float64] | float,
    student: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Two uncertainties in [0, 1] weighed by the chance of being unknown; `share` is that of known rows."""
    return np.asarray(unknown * negative + share * (1 - np.asarray(unknown)) * student)


def scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values stretched to [0, 1]; zeros where all are equal."""
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low) if high > low else np.zeros(len(values)))


def complementary(allowed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) one of the allowed classes (n, C) of each row, all equally likely."""
    return np.asarray(np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1))


def unlike(probs: NDArray[np.float64], wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, C) gradient of -log(1 - p_wrong) with respect to the scores whose softmax is p."""
    rows = np.arange(len(probs))
    p = probs[rows, wrong]
    towards = -probs
    towards[rows, wrong] += 1
    return np.asarray(towards * (p / np.maximum(1 - p, 1e-6))[:, None])


class Adam:
    """Changes weights in place. Source: Kingma & Ba 2015, with their constants."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights, self.t = weights, 0
        self.first, self.second = np.zeros_like(weights), np.zeros_like(weights)

    def __call__(self, gradient: NDArray[np.float64]) -> None:
        """One step down the gradient and the penalty on the weights."""
        gradient = gradient + DECAY * self.weights
        self.t += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient**2 - self.second)
        mean, square = self.first / (1 - 0.9**self.t), self.second / (1 - 0.999**self.t)
        self.weights -= RATE * mean / (np.sqrt(square) + 1e-8)


def fitted(vectors: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """(d + 1, C) softmax regression on rows with one or more labels each, a label being a row of its own."""
    rows, classes = np.nonzero(targets)
    x = with_one(vectors[rows])
    head = np.zeros((x.shape[1], targets.shape[1]))
    step = Adam(head)
    for _ in range(STEPS):
        off = softmax(x @ head)
        off[np.arange(len(rows)), classes] -= 1
        step(x.T @ off / len(rows))
    return head


def with_one(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, d + 1) vectors with a 1 for the bias."""
    return np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1, dtype=np.float64)


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis."""
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def predicted(pool: Pool, heads: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(u, C) mean of what heads say of the unlabelled rows; the rows are read once."""
    side_by_side = np.concatenate(heads, axis=1).astype(np.float32)
    out = np.empty((len(pool.unlabelled), heads[0].shape[1]))
    for at in range(0, len(out), BLOCK):
        part = slice(at, at + BLOCK)
        z = np.asarray(pool.vectors[pool.unlabelled[part]]) @ side_by_side[:-1] + side_by_side[-1]
        out[part] = softmax(z.reshape(len(z), len(heads), -1).astype(np.float64)).mean(axis=1)
    return out


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))
