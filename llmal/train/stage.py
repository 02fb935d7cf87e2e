"""The train stage: the protocol of a student, its training set, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import label_table
from llmal.context import Context
from llmal.plugins import Plugin
from llmal.prior import weights_by_people
from llmal.records import Labels, LabelSchema, Tally, canonical, recipe
from llmal.store import schema as t
from llmal.store.store import Store
from llmal.train.targets import HARD, Distil, Targets, Taught, likelihood, teach

BLOCK = 8192
"""Items whose predictions are computed and written at once."""


class Examples(NamedTuple):
    """What a student learns from, or is asked about.

    Attributes:
        texts: n texts.
        vectors: (n, d) float32 of the run's encoder, or None for a student that reads texts only.
        targets: (n, C) float32 in [0, 1]; rows sum to 1 when single label. None when asked to predict.
        weights: (n,) float32 >= 0; 0 is the same as leaving the row out. None when asked to predict.
        pool: texts without a label, for a student that learns from those too; None for every other.
        distil: the parts of soft targets, for a student that `distils`; None where all targets are hard.
    """

    texts: list[str]
    vectors: NDArray[np.float32] | None
    targets: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    pool: Examples | None = None
    distil: Distil | None = None


class Model:
    """A fitted student: the only thing it needs is the folder it was saved to."""

    @abstractmethod
    def predict_proba(self, examples: Examples) -> NDArray[np.float32]:
        """(n, C) probabilities, columns in schema order; rows sum to 1 when single label."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write safetensors and JSON into an existing, empty folder; never a pickle."""


class Student(Plugin):
    """A small classifier that learns from the run's labels.

    Contract (tested for every student): probabilities as in `Model.predict_proba`; a class without an example
    gets probability 0 or near it, never an error; weight 0 equals leaving the row out; the same data and
    rng give the same predictions; `load` of what `save` wrote predicts the same.

    Attributes:
        uses_vectors: whether it reads `Examples.vectors`.
        distils: whether it reads `Examples.distil`; one that does not learns `targets` at temperature 1.
    """

    group: ClassVar[str] = "train"
    uses_vectors: ClassVar[bool] = False
    distils: ClassVar[bool] = False

    @property
    def pool_size(self) -> int:
        """Most texts without a label it also learns from; 0 when it learns from labels alone."""
        return 0

    @property
    def shipped(self) -> Student:
        """The student whose model `fit` gives: the inner one of a student that teaches another, else itself.

        Predictions and exports follow it: whether its model reads vectors, its name, its longest text.
        """
        return self

    @abstractmethod
    def fit(self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context) -> Model:
        """Learn from examples with targets and weights."""

    @abstractmethod
    def load(self, folder: Path, schema: LabelSchema) -> Model:
        """A fitted student from the folder it was saved to."""


class TrainingSet(NamedTuple):
    """What a student may learn from.

    Attributes:
        items: items with a label, ascending.
        labels: of each item.
        sources: where each item's labels came from: `human`, `llm`, or `synthetic` for a text that a model
            wrote.
        pool: items without a label that are not of the audit sample, ascending.
        probs: the annotator's distribution of each item; None where there is none, or a person answered.
        sure: how likely each item's labels are right; None where nobody said, or a person answered.
        classes: weight of each class among annotators' labels by people's answers; empty where all are 1.
    """

    items: list[int]
    labels: list[Labels]
    sources: list[str]
    pool: tuple[int, ...] = ()
    probs: Sequence[tuple[float, ...] | None] = ()
    sure: Sequence[float | None] = ()
    classes: tuple[float, ...] = ()

    def some(self, rows: list[int]) -> TrainingSet:
        """Some of the items; the pool stays whole."""
        return self._replace(
            items=[self.items[i] for i in rows],
            labels=[self.labels[i] for i in rows],
            sources=[self.sources[i] for i in rows],
            probs=[self.probs[i] for i in rows] if self.probs else (),
            sure=[self.sure[i] for i in rows] if self.sure else (),
        )

    def recipe(self) -> str:
        """Hash of items and labels, so that the same data is never trained on twice."""
        return _hashed("data", [self.items, self.labels])

    def drawn(self, most: int, ctx: Context) -> list[int]:
        """At most so many items of the pool, drawn at random where there are more, ascending."""
        if len(self.pool) <= most:
            return list(self.pool)
        return sorted(ctx.rng("pool of a student").choice(self.pool, most, replace=False).tolist())

    def taught(self, schema: LabelSchema, how: Targets) -> Taught:
        """Targets and weights of the items, as the options have them."""
        unknown = [None] * len(self.items)
        machine = np.array([source == "llm" for source in self.sources], bool)
        labels = label_table(self.labels, schema)
        made = teach(labels, self.probs or unknown, self.sure or unknown, machine, schema.kind, how)
        if how.prior == "people" and self.classes:
            by_class = np.where(machine, labels @ np.array(self.classes, np.float32), 1)
            made = made._replace(weights=(made.weights * by_class).astype(np.float32))
        return made


def _hashed(kind: str, body: object) -> str:
    return f"{kind}-{hashlib.sha256(canonical(body).encode()).hexdigest()[:16]}"


def training_set(
    store: Store,
    *,
    schema: LabelSchema,
    annotations: str,
    decisions: str,
    calibrated: bool = False,
    by_people: bool = False,
) -> TrainingSet:
    """Newest answers of people, else accepted annotations; audit items never, whoever labelled them.

    Nor texts that a model wrote: which of those teach is for the generate stage to say.

    The audit sample is not part of the pool either: a student that had seen its texts would be measured on
    texts it knows. `calibrated` says that the filter's scores are probabilities of being right, `by_people`
    that weights of classes are wanted: they read all gold of the corpus.
    """
    reserved = store.reserved() | store.hidden()
    given, decided = store.annotations(annotations), store.decisions(decisions)
    answers = store.answers(schema.names)
    found = {s: given[s].labels for s, d in decided.items() if d.verdict == "accept"} | answers
    items = sorted(set(found) - reserved)
    pool = tuple(s for s in store.active() if s not in found and s not in reserved)
    return TrainingSet(
        items,
        [found[s] for s in items],
        ["human" if s in answers else "llm" for s in items],
        pool,
        [None if s in answers else given[s].probs for s in items],
        [None if s in answers else likelihood(given[s], decided[s], calibrated=calibrated) for s in items],
        weights_by_people(store, schema, given, (s for s in items if s not in answers)) if by_people else (),
    )


def can_learn(data: TrainingSet, schema: LabelSchema) -> bool:
    """Whether there is anything to tell apart: two classes when single, one label anywhere when multi."""
    seen = {name for labels in data.labels for name in labels}
    return len(seen) >= (2 if schema.kind == "single" else 1)


def student_recipe(
    student: Student,
    data: TrainingSet,
    schema: LabelSchema,
    vectors: str,
    ctx: Context,
    targets: Targets = HARD,
) -> str:
    """Hash of all that determines a fitted student; of distributions and weights only where they are used."""
    used = vectors if student.uses_vectors else ""
    more = [_hashed("pool", data.drawn(student.pool_size, ctx))] if student.pool_size else []
    if targets != HARD:
        more += _departures(student, data.taught(schema, targets))
    return recipe("student", student.recipe(), data.recipe(), schema.recipe(), used, ctx.seed, *more)


def _departures(student: Student, taught: Taught) -> list[str]:
    """What is taught besides the labels: nothing where targets turn out hard and weights equal."""
    parts: list[object] = []
    if (taught.weights != 1).any():
        parts.append(_digest(taught.weights))
    if taught.distil is not None:
        parts.append(_digest(taught.targets))
        if student.distils:
            parts += [_digest(taught.distil.probs), taught.distil.temperature]
    return [_hashed("targets", parts)] if parts else []


def _digest(numbers: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.round(numbers, 5).tobytes()).hexdigest()


def run(
    student: Student, store: Store, ctx: Context, *, schema: LabelSchema, data: TrainingSet, vectors: str,
    role: Literal["rounds", "final"], round_no: int, targets: Targets = HARD,
) -> Tally:  # fmt: skip
    """Fit a student unless one was fitted on this very data, and predict every item it has not predicted.

    Args:
        student: the plug-in.
        store: of the run.
        ctx: shared context.
        schema: the classes.
        data: labels to learn from; `can_learn` must hold.
        vectors: recipe of the items' vectors.
        role: `rounds` while choosing, `final` to ship.
        round_no: 0-based; for the record.
        targets: how the annotator's answers are taught.

    Returns:
        1 wanted; 1 new when a student was fitted. Predictions stand under the student's recipe.
    """
    name = student_recipe(student, data, schema, vectors, ctx, targets)
    n, done = store.n_items(), store.covered(name)
    kept = store.fact(t.student, name)
    if kept is not None and done >= n:
        return Tally(1, 0)
    model = student.load(store.folder / kept.folder, schema) if kept is not None else None
    if model is None:
        shown = examples_of(student, store, data, schema, vectors, ctx, targets)
        model = student.fit(shown, schema, ctx.rng(f"train {role}"), ctx)
        folder = _save(model, store.folder / "students" / name)
        note = json.dumps(
            {"use": student.to_spec(), "sources": {s: data.sources.count(s) for s in set(data.sources)}}
        )
        fact = {
            "recipe": name,
            "round": round_no,
            "role": role,
            "folder": str(folder.relative_to(store.folder)),
            "n_items": len(data.items),
            "note": note,
            "at": time.time(),
        }
        store.add(t.student, [fact])
    everything = store.load(vectors) if student.shipped.uses_vectors else None
    with ctx.progress.task(f"predict with {student.name}", n - done) as advance:
        for start in range(done, n, BLOCK):
            stop = min(start + BLOCK, n)
            part = None if everything is None else np.asarray(everything[start:stop])
            texts = store.texts(start, stop) if everything is None else [""] * (stop - start)
            store.put_block(name, start, model.predict_proba(Examples(texts, part)).astype(np.float32))
            advance(stop - start)
    return Tally(1, int(kept is None), f"{student.name} on {len(data.items)} items")


def examples_of(
    student: Student,
    store: Store,
    data: TrainingSet,
    schema: LabelSchema,
    vectors: str,
    ctx: Context,
    targets: Targets,
) -> Examples:
    """What the student is shown of the training set."""
    taught = data.taught(schema, targets)
    pool = None
    if student.pool_size:
        pool = Examples(*shown_of(student, store, data.drawn(student.pool_size, ctx), vectors))
    texts, rows = shown_of(student, store, data.items, vectors)
    distil = taught.distil if student.distils else None
    return Examples(texts, rows, taught.targets, taught.weights, pool, distil)


def shown_of(
    student: Student, store: Store, items: list[int], vectors: str
) -> tuple[list[str], NDArray[np.float32] | None]:
    """Texts of the items, and their vectors for a student that uses them."""
    rows = np.asarray(store.load(vectors)[items]) if student.uses_vectors else None
    return [item.text for item in store.items(items)], rows


def _save(model: Model, folder: Path) -> Path:
    """Whole or not at all: a half-written student is never loaded."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder
