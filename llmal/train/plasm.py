"""Pseudo-labels of a stronger student, cleaned: for labels that were chosen with another student."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.plugins import slot
from llmal.train.selftraining import Answers, SelfTraining, Task, Teach, answers, part
from llmal.train.similarity import Adam, Heads, learning_gradient
from llmal.train.stage import Examples, Model, Student

CHECKPOINTS = 3
"""Points of a head's training at which an answer's influence is summed, as in Tsvigun et al. 2022."""

BATCH = 32
"""Rows of one step of that head."""

RATE = 1e-2
"""Its learning rate, ours."""

STEPS = 100
"""Fewest steps from one such point to the next: on few rows a pass is too short to learn anything."""

FOLDS = 3
"""Parts of the labels left out in turn where the teacher's accuracy is estimated."""


class Plasm(SelfTraining):
    """A teacher learns from the labels and answers the pool; the student learns from labels and answers kept.

    Labels chosen with one model may serve another badly (acquisition-successor mismatch); answers of a
    teacher about all the other texts even that out. Left out are answers that are not surer than `sure`,
    then those with the largest influence on themselves (TracIn) on a linear head, until as many are gone as
    the teacher gets wrong. Source: Tsvigun et al. 2022 (PLASM); Pruthi et al. 2020 (TracIn). They take the
    teacher's accuracy from a test set; here it comes from cross-validation on the labels, which tends
    to be too low where labels were bought for hard texts: then rather too many answers are left out.
    Measured on three sets, keeping all (`sure: 0`, `quality: 1`) was as good or better
    (tests/benchmarks/self_training.py).
    """

    teacher: slot("train") = Field(  # type: ignore[valid-type]
        "linear", validate_default=True, description="the student whose answers are taught, the larger one"
    )
    sure: float = Field(0.5, ge=0, lt=1, description="confidence an answer must exceed")
    quality: float | None = Field(
        None, gt=0, le=1, description="share of right answers of the teacher; none given: by cross-validation"
    )

    def learn(self, task: Task, teach: Teach) -> Model:
        """Fit the teacher, keep its likely right answers, fit the student."""
        teacher: Student = self.teacher
        probs = teacher.fit(task.known, task.schema, task.rng, task.ctx).predict_proba(task.pool)
        said = answers(probs, task.schema)
        rows = np.flatnonzero(self.how_sure(probs, task) > self.sure)
        gone = 1 - len(rows) / len(said.kinds)
        quality = self.quality if self.quality is not None else self._quality(task)
        drop = round(dropped_share(quality, gone) * len(said.kinds))
        if drop and len(rows):
            rows = self._least_influential(task, said, rows, drop)
        task.ctx.progress.say(
            f"plasm: {len(rows)} of {len(said.kinds)} answers of {teacher.name} are taught, "
            f"of which {quality:.0%} are expected to be right before any is left out"
        )
        return teach(task.with_answers(rows, said.targets[rows], np.ones(len(rows))))

    def _least_influential(
        self, task: Task, said: Answers, rows: NDArray[np.int64], drop: int
    ) -> NDArray[np.int64]:
        """Rows but the so many whose answers have the largest influence on themselves, ascending."""
        given = task.with_answers(rows, said.targets[rows], np.ones(len(rows)))
        influence = self_influence(given, task.rng, multi=task.schema.kind == "multi")[
            len(task.known.texts) :
        ]
        order = np.argsort(influence, kind="stable")
        return np.sort(rows[order[: max(0, len(rows) - drop)]])

    def _quality(self, task: Task) -> float:
        """Accuracy of the teacher on labels it did not learn from; 1 where there are too few to say."""
        teacher: Student = self.teacher
        known = task.known
        assert known.targets is not None
        n, labels = len(known.texts), answers(known.targets, task.schema).targets
        right: list[bool] = []
        for out in np.array_split(task.rng.permutation(n), FOLDS) if n >= 2 * FOLDS else []:
            rest = part(known, np.setdiff1d(np.arange(n), out))
            model = teacher.fit(rest, task.schema, task.rng, task.ctx)
            said = answers(model.predict_proba(part(known, out)), task.schema).targets
            right.extend((said == labels[out]).all(axis=1).tolist())
        return float(np.mean(right)) if right else 1.0


def dropped_share(quality: float, gone: float) -> float:
    """Share of the pool still to be left out, so that as many are gone as are wrong; 0 where more are."""
    return max(0.0, 1 - quality - gone)


def self_influence(examples: Examples, rng: np.random.Generator, *, multi: bool) -> NDArray[np.float64]:
    """(n,) how far each label moves its own loss while a linear head learns from all of them.

    The squared length of the gradient of a row's loss, summed over three points of the training: for a
    linear head |p - y|^2 (|h|^2 + 1). Large for labels that the others contradict. Source: Pruthi et al.
    2020 (TracIn).
    """
    assert examples.vectors is not None
    assert examples.targets is not None
    assert examples.weights is not None
    n, dim = examples.vectors.shape
    classes = examples.targets.shape[1]
    learner = Adam(Heads(np.zeros((1, classes, dim)), np.zeros((1, classes)), multi), RATE)
    length = np.einsum("ij,ij->i", examples.vectors, examples.vectors, dtype=np.float64) + 1
    total = np.zeros(n)
    for _ in range(CHECKPOINTS):
        for rows in _batches(n, rng):
            batch = part(examples, rows)
            assert batch.vectors is not None
            assert batch.targets is not None
            assert batch.weights is not None
            learner.step(learning_gradient(learner.heads, batch.vectors, batch.targets, batch.weights))
        off = learner.heads.probs(examples.vectors)[0] - examples.targets
        total += (off**2).sum(axis=1) * length
    return total


def _batches(n: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of each step: one pass over n rows, or as many as make up `STEPS`."""
    for _ in range(-(-STEPS // -(-n // BATCH))):
        order = rng.permutation(n)
        yield from (order[at : at + BATCH] for at in range(0, n, BATCH))
