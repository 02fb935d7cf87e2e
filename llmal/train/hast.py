"""Self-training on what a text's neighbourhood agrees with: for a few labels and many texts without one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.train.selftraining import SelfTraining, Task, Teach, answers
from llmal.train.stage import Model

ROWS = 512
"""Rows compared at once: 32 MiB of cosines among 16,384 texts, and twice that to sort them."""

SHARPEST = 10.0
"""Limit of a class's weight, as in Schroeder & Heyer 2024."""


class Hast(SelfTraining):
    """Teaches a student its own answers where most of a text's neighbours were answered alike.

    An answer is taken where it is surer than `sure` and more than `agree` of the nearest texts without a
    label got the same one. It weighs `beta` times a class weight of at most 10, larger for what is answered
    rarely; a label weighs 1. Where fewer than two classes are taken the first student stays. Source:
    Schroeder & Heyer 2024 (HAST). They divide the weights by their sum; here a student sees them as they
    are, so that a label weighs the same with and without a pool.
    """

    neighbours: int = Field(15, ge=2, description="size of a neighbourhood, the text itself included")
    sure: float = Field(0.5, ge=0, lt=1, description="confidence an answer must exceed")
    agree: float = Field(0.5, ge=0.5, lt=1, description="share of the neighbours that must be exceeded")
    beta: float = Field(0.1, gt=0, description="weight of an answer against a label, times its class weight")
    rounds: int = Field(1, ge=1, description="how often the student's answers are taught")

    def learn(self, task: Task, teach: Teach) -> Model:
        """Fit on the labels, then on labels and accepted answers."""
        model = teach(task.known)
        assert task.pool.vectors is not None
        near = nearest(task.pool.vectors, self.neighbours - 1)
        for _ in range(self.rounds):
            probs = model.predict_proba(task.pool)
            said = answers(probs, task.schema)
            sure = self.how_sure(probs, task) > self.sure
            rows = np.flatnonzero(sure & (agreement(said.kinds, near) > self.agree))
            counts = said.counts(rows)
            if (counts > 0).sum() < 2:
                task.ctx.progress.say(
                    "hast: answers of fewer than two classes were accepted, so the student keeps to labels"
                )
                return model
            weights = self.beta * class_weights(counts)[said.kinds[rows]]
            model = teach(task.with_answers(rows, said.targets[rows], weights))
        return model


def class_weights(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Weight of each class by how often it was answered: 10 / (1 + exp(-(mean - count) / count)).

    A class that was never answered gets the limit, 10. Source: Schroeder & Heyer 2024.
    """
    n = np.asarray(counts, np.float64)
    lack = np.full(len(n), np.inf)
    np.divide(n.mean() - n, n, out=lack, where=n > 0)
    return np.asarray(SHARPEST / (1 + np.exp(-lack)))


def nearest(vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(n, min(k, n - 1)) rows with the highest cosine to each row, itself left out, in no order.

    A row is left out by its place, not by being its own nearest: that fails where texts have equal vectors.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    n = len(unit)
    k = min(k, n - 1)
    out = np.zeros((n, k), np.int64)
    for at in range(0, n if k else 0, ROWS):
        rows = np.arange(at, min(at + ROWS, n))
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        out[rows] = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    return out


def agreement(kinds: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) share of each row's neighbours that were answered as the row itself; 0 where there are none."""
    if not near.shape[1]:
        return np.zeros(len(kinds))
    return np.asarray((kinds[near] == kinds[:, None]).mean(axis=1))
