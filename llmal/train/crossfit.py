"""Predictions of the items a student learnt from, by students of its kind that did not learn from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.context import Context
from llmal.records import LabelSchema, Tally, recipe
from llmal.store.store import Store
from llmal.train.stage import BLOCK, Examples, Student, TrainingSet, examples_of, shown_of
from llmal.train.targets import Targets


def crossfit_recipe(student: str, folds: int) -> str:
    """Name of the predictions to go by: the fitted student's own, unless there are folds."""
    return recipe("crossfit", student, folds) if folds else student


def run(
    student: Student, store: Store, ctx: Context, *, schema: LabelSchema, data: TrainingSet, vectors: str,
    fitted: str, targets: Targets, folds: int,
) -> Tally:  # fmt: skip
    """Predict each item of the training set by a student that learnt from the other folds alone.

    A student is surer of an item that it has learnt from than it would be of another one. What is kept under
    `crossfit_recipe` is out of sample for every item of the run: those that were not learnt from have the
    predictions of the student itself. Each fold is kept as soon as it is done. Source: Stone 1974.

    Args:
        student: the plug-in.
        store: of the run; the fitted student's predictions are there.
        ctx: shared context.
        schema: the classes.
        data: what the fitted student learnt from.
        vectors: recipe of the items' vectors.
        fitted: recipe of the fitted student.
        targets: how the annotator's answers are taught.
        folds: parts that are left out in turn, each with its share of every class.

    Returns:
        Folds wanted and new.
    """
    name, n = crossfit_recipe(fitted, folds), store.n_items()
    if store.covered(name) >= n:
        return Tally(folds, 0)
    out = np.array(store.load(fitted)[:n])
    new = 0
    parts = split(data, folds, ctx.rng("crossfit"))
    for k, left_out in enumerate(parts):
        kept, items = f"{name}-{k}", [data.items[i] for i in left_out]
        if store.covered(kept) < len(items):
            rest = data.some(np.setdiff1d(np.arange(len(data.items)), left_out).tolist())
            shown = examples_of(student, store, rest, schema, vectors, ctx, targets)
            model = student.fit(shown, schema, ctx.rng("crossfit", k + 1), ctx)
            said = model.predict_proba(Examples(*shown_of(student.shipped, store, items, vectors)))
            store.put_block(kept, 0, said.astype(np.float32))
            new += 1
        out[items] = store.load(kept)[: len(items)]
    for start in range(store.covered(name), n, BLOCK):
        store.put_block(name, start, out[start : start + BLOCK])
    return Tally(len(parts), new, f"{len(data.items)} items predicted by students without them")


def split(data: TrainingSet, folds: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of each fold, ascending: every set of labels is spread evenly over the folds, none is empty."""
    kinds: dict[tuple[str, ...], list[int]] = {}
    for row, labels in enumerate(data.labels):
        kinds.setdefault(tuple(labels), []).append(row)
    order = np.concatenate([rng.permutation(rows) for _, rows in sorted(kinds.items())])
    return [np.sort(order[k::folds]) for k in range(min(folds, len(order)))]
