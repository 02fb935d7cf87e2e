"""What students share that teach another student its own answers about texts without a label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from llmal.context import Context
from llmal.plugins import Plugin, slot
from llmal.records import LabelSchema
from llmal.train.similarity import confidences
from llmal.train.stage import Examples, Model, Student
from llmal.train.targets import Distil

Teach = Callable[[Examples], Model]
"""Fits the wrapped student anew, from its first weights."""


class Answers(NamedTuple):
    """What a student says of a pool, as hard labels.

    Attributes:
        targets: (n, C) float32, 0 or 1.
        kinds: (n,) which answer it is: the class, or with several labels a text the set of labels.
        counted: how many different answers there are to count: C, or with several labels the sets that occur.
    """

    targets: NDArray[np.float32]
    kinds: NDArray[np.int64]
    counted: int

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(counted,) how often each answer is given among rows."""
        return np.bincount(self.kinds[rows], minlength=self.counted)


def answers(probs: NDArray[np.float32], schema: LabelSchema) -> Answers:
    """The likeliest class of each row; with several labels a text every one of at least 0.5."""
    if schema.kind == "single":
        best = probs.argmax(axis=1)
        return Answers(np.eye(probs.shape[1], dtype=np.float32)[best], best, probs.shape[1])
    targets = (probs >= 0.5).astype(np.float32)
    sets, which = np.unique(targets, axis=0, return_inverse=True)
    return Answers(targets, which.ravel(), len(sets))


class SelfTraining(Student):
    """Teaches another student, then what that student says of texts nobody has labelled.

    What is fitted, kept and shipped is the other student. Without texts that have no label it is taught the
    labels alone, as if it stood in the file by itself. Implement `learn`.
    """

    student: slot("train") = Field(  # type: ignore[valid-type]
        "linear", validate_default=True, description="the student that is taught"
    )
    pool: int = Field(16_384, ge=0, description="most texts without a label it learns from, drawn at random")
    confidence: Literal["max", "similarity"] = Field(
        "max",
        description="how sure an answer is: its probability, or how alike five heads taught to differ judge, "
        "which is lower the more classes there are",
    )

    uses_vectors: ClassVar[bool] = True

    @field_validator("student", "teacher", check_fields=False)
    @classmethod
    def _learns_from_labels(cls, value: Plugin) -> Plugin:
        if isinstance(value, Student) and value.pool_size:
            raise ValueError(f"'{value.name}' learns from texts without a label itself; name another student")
        return value

    @property
    def pool_size(self) -> int:
        """Most texts without a label it learns from."""
        return self.pool

    @property
    def distils(self) -> bool:  # type: ignore[override]
        """Whether the student that is taught tells the parts of soft targets apart."""
        return self.shipped.distils

    @property
    def shipped(self) -> Student:
        """The student that is taught."""
        inner: Student = self.student
        return inner.shipped

    def fit(self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context) -> Model:
        """Learn from examples with targets and weights, and from their pool where there is one."""
        inner: Student = self.student
        pool, known = examples.pool, taught(examples)

        def teach(given: Examples) -> Model:
            return inner.fit(given, schema, rng, ctx)

        if pool is None or not len(pool.texts) or not len(known.texts):
            return teach(known)
        return self.learn(Task(known, pool, schema, rng, ctx), teach)

    def load(self, folder: Path, schema: LabelSchema) -> Model:
        """The student that was taught, from the folder it was saved to."""
        inner: Student = self.student
        return inner.load(folder, schema)

    @abstractmethod
    def learn(self, task: Task, teach: Teach) -> Model:
        """Learn from labels and a pool that both hold at least one text."""

    def how_sure(self, probs: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
        """(n,) confidence in [0, 1] of each answer about the pool."""
        if self.confidence == "max":
            return likeliest(probs, task.schema)
        return confidences(task.known, task.pool, task.rng, multi=task.schema.kind == "multi")


class Task(NamedTuple):
    """What there is to learn from.

    Attributes:
        known: texts with a label, all of a weight above 0.
        pool: texts without.
        schema: the classes.
        rng: randomness of this fit.
        ctx: shared context.
    """

    known: Examples
    pool: Examples
    schema: LabelSchema
    rng: np.random.Generator
    ctx: Context

    def with_answers(
        self, rows: NDArray[np.int64], targets: NDArray[np.float32], weights: NDArray[np.floating]
    ) -> Examples:
        """Labels as they are, and rows of the pool with targets and weights to teach them with."""
        known, pool = self.known, self.pool
        assert known.targets is not None
        assert known.weights is not None
        some = part(pool, rows)
        vectors = None
        if known.vectors is not None and some.vectors is not None:
            vectors = np.concatenate([known.vectors, some.vectors])
        return Examples(
            [*known.texts, *some.texts],
            vectors,
            np.concatenate([known.targets, targets]),
            np.concatenate([known.weights, np.asarray(weights, np.float32)]),
            distil=None if known.distil is None else _with_hard(known.distil, targets),
        )


def _with_hard(distil: Distil, targets: NDArray[np.float32]) -> Distil:
    """The parts of soft targets, followed by rows that have nothing but a label."""
    none = np.zeros(len(targets), np.float32)
    return distil._replace(
        labels=np.concatenate([distil.labels, targets]),
        probs=np.concatenate([distil.probs, targets]),
        share=np.concatenate([distil.share, none]),
    )


def part(examples: Examples, rows: NDArray[np.int64]) -> Examples:
    """Some rows of examples; the pool stays behind."""
    texts = [examples.texts[i] for i in rows]
    vectors, targets, weights = (
        None if a is None else a[rows] for a in (examples.vectors, examples.targets, examples.weights)
    )
    distil = examples.distil
    if distil is not None:
        distil = Distil(distil.labels[rows], distil.probs[rows], distil.share[rows], distil.temperature)
    return Examples(texts, vectors, targets, weights, distil=distil)


def taught(examples: Examples) -> Examples:
    """The rows of a weight above 0, without the pool."""
    assert examples.weights is not None
    return part(examples, np.flatnonzero(examples.weights > 0))


def likeliest(probs: NDArray[np.float32], schema: LabelSchema) -> NDArray[np.float64]:
    """(n,) probability of each answer; with several labels a text that of its least sure label."""
    p = np.asarray(probs, np.float64)
    if schema.kind == "single":
        return np.asarray(p.max(axis=1))
    return np.asarray(np.maximum(p, 1 - p).min(axis=1))
