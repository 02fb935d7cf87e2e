"""The learning curve of a run: what each round's student is worth, what more labels buy, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from llmal.answers import best, label_table
from llmal.audit import known_answers
from llmal.context import Context
from llmal.evaluate.table import measures_of
from llmal.records import Labels, LabelSchema, canonical, recipe
from llmal.stats.intervals import Estimate
from llmal.stats.stopping import (
    LEAST_ROUNDS,
    Forecast,
    combined,
    forecast,
    kappa_average,
    plateau,
    same_items,
)
from llmal.store import schema as t
from llmal.store.store import Store

NEXT = 50
"""Labels that a forecast looks ahead; a round may be larger or smaller."""

STOP_SET = 1000
"""Random items on which the students of consecutive rounds are compared."""

KAPPA = 0.95
"""Agreement from which students stand still; 0.99, as published, hardly ever came.

Measured in `tests/benchmarks/stopping.py`.
"""

MEASURES = ("accuracy", "macro_f1")


class Learner(NamedTuple):
    """The student that chose the picks of a round (0-based), and how many items it learnt from."""

    round: int
    labels: int
    recipe: str


class Point(NamedTuple):
    """One point of the learning curve.

    Attributes:
        round: 0-based round whose picks this student chose; it learnt from the rounds before.
        labels: items it learnt from.
        accuracy: on the audit answers.
        macro_f1: as accuracy; None where the sample is too small for it.
        recipe: the student's.
    """

    round: int
    labels: int
    accuracy: Estimate
    macro_f1: Estimate | None
    recipe: str


def learners(store: Store) -> list[Learner]:
    """The newest student of every round, those alone that learnt from more items than all before them."""
    c = t.student.c
    found = store.read(
        sa.select(c.round, c.n_items, c.recipe).where(c.role == "rounds").order_by(c.round, c.at)
    )
    newest = {r: Learner(r, n, name) for r, n, name in found}
    rising: list[Learner] = []
    for one in newest.values():
        if not rising or one.labels > rising[-1].labels:
            rising.append(one)
    return rising


def curve_recipe(student: str, known: Mapping[int, Labels]) -> str:
    """Name of one student's measures on the answers that are known."""
    return recipe("curve", 1, student, canonical(sorted(known.items())))


def learning_curve(store: Store, schema: LabelSchema) -> list[Point]:
    """Accuracy and macro-F1 of every round's student on the audit answers known now, rising in labels.

    All points are measured on the same items, so two of them differ by less than their intervals say. Empty
    until the evaluate stage has seen these answers.
    """
    known, c = known_answers(store, schema), t.measure.c
    points = []
    for one in learners(store):
        rows = store.read(t.measure.select().where(c.recipe == curve_recipe(one.recipe, known)))
        found = {m.name: Estimate(m.value, m.low, m.high, m.n) for m in rows}
        if "accuracy" in found:
            points.append(Point(one.round, one.labels, found["accuracy"], found.get("macro_f1"), one.recipe))
    return points


def measure_curve(store: Store, ctx: Context, schema: LabelSchema, known: Mapping[int, Labels]) -> int:
    """Measure the students of the rounds that were not measured on these answers yet; how many facts are new.

    Args:
        store: of the run.
        ctx: shared context.
        schema: the classes.
        known: audit item -> people's answer; at least one.
    """
    items = sorted(known)
    gold = [known[s] for s in items]
    facts = []
    for one in learners(store):
        name = curve_recipe(one.recipe, known)
        if store.count(t.measure, t.measure.c.recipe == name) or store.covered(one.recipe) <= items[-1]:
            continue
        said = _said(store, one.recipe, items, schema)
        found = measures_of(
            None, said, np.full(len(items), math.nan), gold, schema, ctx.rng("curve", one.round)
        )
        on = f"{one.labels} labels, audit sample, {len(items)} items"
        facts += [
            {**found[m]._asdict(), "recipe": name, "name": m, "measured_on": on}
            for m in MEASURES
            if m in found
        ]
    return store.add(t.measure, facts)


def next_labels(store: Store, schema: LabelSchema, known: Mapping[int, Labels]) -> Forecast:
    """Upper bound of what the next `NEXT` labels add to the accuracy of the rounds' student.

    The curve that it looks at is that of the rounds' student; the student that ships may be another kind.

    Args:
        store: of the run.
        schema: the classes.
        known: audit item -> people's answer.

    Returns:
        The forecast, shares of items; nan inside while too few rounds or answers are known.
    """
    items = sorted(known)
    some = [one for one in learners(store) if items and store.covered(one.recipe) > items[-1]]
    if len(items) < 2 or not some:
        return Forecast(math.nan, math.nan, NEXT, 0.9, 0)
    right = [
        [set(labels) == set(known[s]) for s, labels in zip(items, said, strict=True)]
        for said in (_said(store, one.recipe, items, schema) for one in some)
    ]
    values, covariance = same_items(right)
    return forecast([one.labels for one in some], values, covariance, step=NEXT)


def enough(store: Store, ctx: Context, schema: LabelSchema) -> str:
    """Why no further round is worth asking for, by the rule `auto`; empty while one is.

    Two rules must say so, after five rounds at the least: the students of the last rounds agree on a fixed
    random sample with a kappa of `KAPPA`, and the forecast's bound for the next labels is below half a point.
    Without answers on the audit sample there is no forecast, and the rule never stops.

    Args:
        store: of the run; the student of the round to come is trained.
        ctx: shared context.
        schema: the classes.
    """
    some = learners(store)
    bound = next_labels(store, schema, known_answers(store, schema))
    flat = plateau(bound)
    if len(some) >= LEAST_ROUNDS and math.isnan(bound.high):
        ctx.progress.say("rounds.stop: auto cannot tell when to stop before people answer audit items")
    if not flat.stop or not some:
        return ""
    still, n_classes = _stop_set(store, ctx, schema, some)
    agree = kappa_average(still, n_classes, limit=KAPPA)
    if not combined([agree, flat], rounds=len(some)).stop:
        return ""
    return (
        f"more labels pay little (rounds.stop: auto) after {some[-1].labels} labels: the next {bound.step} "
        f"add at most {100 * bound.high:.1f} points, and the last students agree (kappa {agree.value:.2f})"
    )


def _stop_set(
    store: Store, ctx: Context, schema: LabelSchema, some: list[Learner]
) -> tuple[NDArray[np.int64], int]:
    """(r, n) what the last students say of the same random items, none of the audit, and how many classes.

    With several labels an item, each of its labels is a case of its own.
    """
    height = min(store.covered(one.recipe) for one in some)
    reserved = store.reserved()
    items = np.array([s for s in store.active() if s < height and s not in reserved], np.int64)
    # The order is that of a random number an item has for good: more corpus changes the sample little.
    order = ctx.rng("stop set").random(int(items.max(initial=0)) + 1)[items]
    chosen = np.sort(items[np.argsort(order, kind="stable")[:STOP_SET]])
    said = [
        label_table(_said(store, one.recipe, chosen.tolist(), schema), schema).astype(np.int64)
        for one in some[-4:]
    ]
    if schema.kind == "single":
        return np.array([table.argmax(axis=1) for table in said]), len(schema.labels)
    return np.array([table.ravel() for table in said]), 2


def _said(store: Store, student: str, items: list[int], schema: LabelSchema) -> list[Labels]:
    return [best(row, schema)[0] for row in np.asarray(store.load(student)[items], np.float64)]
