"""The train stage: the protocol of a student, its training set, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import label_table
from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import Labels, LabelSchema, Tally, canonical, recipe
from llmal.store import schema as t
from llmal.store.store import Store

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
    """

    texts: list[str]
    vectors: NDArray[np.float32] | None
    targets: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    pool: Examples | None = None


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
    """

    group: ClassVar[str] = "train"
    uses_vectors: ClassVar[bool] = False

    @property
    def pool_size(self) -> int:
        """Most texts without a label it also learns from; 0 when it learns from labels alone."""
        return 0

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
        sources: where each item's labels came from: `human` or `llm`.
        pool: items without a label that are not of the audit sample, ascending.
    """

    items: list[int]
    labels: list[Labels]
    sources: list[str]
    pool: tuple[int, ...] = ()

    def recipe(self) -> str:
        """Hash of items and labels, so that the same data is never trained on twice."""
        return _hashed("data", [self.items, self.labels])

    def drawn(self, most: int, ctx: Context) -> list[int]:
        """At most so many items of the pool, drawn at random where there are more, ascending."""
        if len(self.pool) <= most:
            return list(self.pool)
        return sorted(ctx.rng("pool of a student").choice(self.pool, most, replace=False).tolist())


def _hashed(kind: str, body: object) -> str:
    return f"{kind}-{hashlib.sha256(canonical(body).encode()).hexdigest()[:16]}"


def training_set(store: Store, *, schema: LabelSchema, annotations: str, decisions: str) -> TrainingSet:
    """Newest answers of people, else accepted annotations; audit items never, whoever labelled them.

    The audit sample is not part of the pool either: a student that had seen its texts would be measured on
    texts it knows.
    """
    reserved = set(store.audit())
    given = store.annotations(annotations)
    found = {
        s: (given[s].labels, "llm") for s, d in store.decisions(decisions).items() if d.verdict == "accept"
    }
    found |= {s: (labels, "human") for s, labels in store.answers(schema.names).items()}
    items = sorted(set(found) - reserved)
    pool = tuple(s for s in store.active() if s not in found and s not in reserved)
    return TrainingSet(items, [found[s][0] for s in items], [found[s][1] for s in items], pool)


def can_learn(data: TrainingSet, schema: LabelSchema) -> bool:
    """Whether there is anything to tell apart: two classes when single, one label anywhere when multi."""
    seen = {name for labels in data.labels for name in labels}
    return len(seen) >= (2 if schema.kind == "single" else 1)


def student_recipe(
    student: Student, data: TrainingSet, schema: LabelSchema, vectors: str, ctx: Context
) -> str:
    """Hash of all that determines a fitted student."""
    used = vectors if student.uses_vectors else ""
    pool = [_hashed("pool", data.drawn(student.pool_size, ctx))] if student.pool_size else []
    return recipe("student", student.recipe(), data.recipe(), schema.recipe(), used, ctx.seed, *pool)


def run(
    student: Student, store: Store, ctx: Context, *, schema: LabelSchema, data: TrainingSet, vectors: str,
    role: Literal["rounds", "final"], round_no: int,
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

    Returns:
        1 wanted; 1 new when a student was fitted. Predictions stand under the student's recipe.
    """
    name = student_recipe(student, data, schema, vectors, ctx)
    n, done = store.n_items(), store.covered(name)
    kept = store.fact(t.student, name)
    if kept is not None and done >= n:
        return Tally(1, 0)
    model = student.load(store.folder / kept.folder, schema) if kept is not None else None
    if model is None:
        model = student.fit(
            _examples(student, store, data, schema, vectors, ctx), schema, ctx.rng(f"train {role}"), ctx
        )
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
    everything = store.load(vectors) if student.uses_vectors else None
    with ctx.progress.task(f"predict with {student.name}", n - done) as advance:
        for start in range(done, n, BLOCK):
            stop = min(start + BLOCK, n)
            part = None if everything is None else np.asarray(everything[start:stop])
            texts = store.texts(start, stop) if everything is None else [""] * (stop - start)
            store.put_block(name, start, model.predict_proba(Examples(texts, part)).astype(np.float32))
            advance(stop - start)
    return Tally(1, int(kept is None), f"{student.name} on {len(data.items)} items")


def _examples(
    student: Student, store: Store, data: TrainingSet, schema: LabelSchema, vectors: str, ctx: Context
) -> Examples:
    weights = np.ones(len(data.items), np.float32)
    pool = None
    if student.pool_size:
        pool = Examples(*_shown(student, store, data.drawn(student.pool_size, ctx), vectors))
    texts, rows = _shown(student, store, data.items, vectors)
    return Examples(texts, rows, label_table(data.labels, schema), weights, pool)


def _shown(
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
