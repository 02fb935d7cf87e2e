"""The evaluate stage: reserves the audit sample, and measures student, annotator and routes on it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmal.answers import best, label_table
from llmal.audit import known_answers as known_answers
from llmal.context import Context
from llmal.evaluate import active, curve, powered
from llmal.evaluate.table import measures_of
from llmal.records import Labels, LabelSchema, Tally, canonical, recipe, unasked
from llmal.stats.calibration import calibration_gap
from llmal.stats.intervals import Estimate, wilson
from llmal.store import schema as t
from llmal.store.store import Store

T = TypeVar("T")


def reserve(store: Store, ctx: Context, *, size: int, pool: int = 0) -> Tally:
    """Reserve a simple random sample before anything else looks at the corpus, and the test pool around it.

    Items picked or answered already never enter, so raising `audit.size` later adds only untouched ones.
    At most half of the corpus is reserved.

    Args:
        store: of the run.
        ctx: shared context.
        size: items the sample should hold.
        pool: items the test pool should hold, the sample among them; 0 for none. See `llmal.evaluate.active`.

    Returns:
        Wanted and new.
    """
    note = active.reserve_pool(store, ctx, size=pool)
    have = store.audit()
    corpus = store.active()
    most = min(size, len(corpus) // 2)  # a sample that leaves nothing to learn from measures nothing
    missing = most - len({*have} & {*corpus})
    if missing <= 0:
        return Tally(most, 0, note)
    new = active.draw_uniform(store, ctx, size=missing)
    missing -= new
    if missing:
        taken = {*store.reserved(), *store.picks(), *store.answers()}
        free = [s for s in corpus if s not in taken]
        chosen = ctx.rng("audit", len(have)).permutation(len(free))[:missing]
        now = time.time()
        fresh = store.add(t.audit, [{"item": free[i], "at": now} for i in sorted(chosen)])
        new, missing = new + fresh, missing - fresh
    if missing:
        note = note or f"only {new} of {new + missing} items were free"
    elif most < size:
        note = note or f"at most half of the corpus is reserved, not {size}"
    return Tally(most, new, note)


def evaluate_recipe(
    store: Store, schema: LabelSchema, *, student: str, predictions: str, route: str, annotations: str
) -> str:
    """Hash of everything measured and everything measured against."""
    drawn = active.tested(store, schema)
    against = [sorted(known_answers(store, schema).items()), drawn.items, drawn.gold]
    asked = store.count(t.annotation, t.annotation.c.recipe == annotations)
    rounds = [one.recipe for one in curve.learners(store)]
    return recipe("measure", 4, student, predictions, route, annotations, asked, canonical(against), rounds)


def run(
    store: Store,
    ctx: Context,
    *,
    schema: LabelSchema,
    student: str,
    route: str,
    annotations: str,
    decisions: str = "",
    predictions: str = "",
    taught: Mapping[int, Labels] = MappingProxyType({}),
    sees_pool: bool = False,
    judged_together: bool = False,
) -> Tally:
    """Measure on the audit sample; nothing is measured, and the note says so, while no answer is known.

    Args:
        store: of the run.
        ctx: shared context.
        schema: the classes.
        student: recipe of the student that is measured.
        route: recipe of the routes that are measured.
        annotations: recipe of the annotations that are measured.
        decisions: recipe of the filter's word on them, whose scores are measured where they differ from the
            raw confidence.
        predictions: recipe of the student's predictions, out of sample where they differ from `student`.
        taught: what the student learnt from, item -> labels.
        sees_pool: whether it learnt from texts without labels, too.
        judged_together: whether the annotator's answers lean on those to other items: then the audit items,
            which it never leans on, are not like the others.

    Returns:
        Measures wanted and new.
    """
    known = known_answers(store, schema)
    if not known:
        size = len(store.audit())
        hint = f"{size} audit items need people's answers first" if size else "audit.size is 0"
        return Tally(0, 0, f"nothing can be measured: {hint}")
    predictions = predictions or student
    name = evaluate_recipe(
        store, schema, student=student, predictions=predictions, route=route, annotations=annotations
    )
    have = store.count(t.measure, t.measure.c.recipe == name)
    if have:
        return Tally(have, 0)
    curve.measure_curve(store, ctx, schema, known)
    on = f"audit sample, {len(known)} items"
    plain = _plain(store, ctx, schema, known, _Names(student, route, annotations, decisions))
    rows: powered.Found = {n: (e, on) for n, e in plain.items()}
    leant = _Leant(
        student,
        predictions if predictions != student else "",
        "" if judged_together else annotations,
        None if sees_pool else taught,
    )
    rows |= _powered(store, ctx, schema, known, leant)
    said = {s: a.labels for s, a in store.annotations(annotations).items() if a.status == "ok"}
    rows |= powered.priors(said, taught, sorted(known), schema)
    rows |= _rows("student", active.measure(store, schema, student, active.tested(store, schema)))
    seen = curve.next_labels(store, schema, known)
    rows[f"forecast.next_{curve.NEXT}"] = Estimate(seen.gain, math.nan, seen.high, len(known)), seen.words
    accuracy = plain["student.accuracy"]
    words = (
        f"student accuracy {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}], n = {accuracy.n}"
    )
    return Tally(len(rows), store.add(t.measure, _facts(name, rows)), words)


class _Names(NamedTuple):
    """Recipes of what is measured."""

    student: str
    route: str
    annotations: str
    decisions: str


class _Leant(NamedTuple):
    """Machine answers to lean on.

    Attributes:
        student: recipe of its predictions.
        fold: of those out of sample, "" where there are none.
        annotations: of the annotator's answers, "" where audit items and others were not answered alike.
        learnt: what the student learnt from, None where nothing of the corpus is out of sample.
    """

    student: str
    fold: str
    annotations: str
    learnt: Mapping[int, Labels] | None


def _facts(name: str, rows: powered.Found) -> list[dict[str, object]]:
    return [
        {
            "recipe": name,
            "name": n,
            "value": _stored(e.value),
            "low": _stored(e.low),
            "high": _stored(e.high),
            "n": e.n,
            "measured_on": on,
        }
        for n, (e, on) in rows.items()
    ]


def _plain(
    store: Store, ctx: Context, schema: LabelSchema, known: dict[int, Labels], names: _Names
) -> dict[str, Estimate]:
    """Measures that need people's answers alone."""
    items = sorted(known)
    gold = [known[s] for s in items]
    rng = ctx.rng("evaluate")
    probs = np.asarray(store.load(names.student)[items], np.float64)
    found = _rows("student", measures_of(probs, *_answers(probs, schema), gold, schema, rng))
    found |= _routed(store, names.route, items, gold)
    found |= _annotated(store, names.annotations, known, schema, rng)
    return found | _calibrated(store, names.annotations, names.decisions, known)


def _powered(
    store: Store, ctx: Context, schema: LabelSchema, known: dict[int, Labels], leant: _Leant
) -> powered.Found:
    """Measures that machine answers make narrower, where these are what people's could be held against."""
    items, corpus, audit = sorted(known), store.active(), store.audit()
    gold = label_table([known[s] for s in items], schema).astype(np.float64)
    rng, n = ctx.rng("powered"), len(items)
    rest = None
    if leant.learnt is not None:
        rest = powered.rest_of(corpus, audit, leant.learnt, n=n, crossfit=bool(leant.fold), rng=rng)
    own = None
    if rest is not None and len(rest):
        table = store.load(leant.fold or leant.student)
        word, beside = (np.clip(np.asarray(table[rows], np.float64), 0, 1) for rows in (items, rest))
        own = powered.Guess(word, beside, "the student's word")
    every = _asked_about_all(store, schema, leant.annotations, corpus) if leant.annotations else None
    given = None
    if every is not None:
        apart = powered.rest_of(corpus, audit, (), n=n, crossfit=True, rng=rng)
        assert apart is not None
        given = powered.Guess(every[items], every[apart], "the annotator's word")
    found = powered.prevalence(gold, given or own, schema)
    if own is not None and n > 1:
        judge = own
        if every is not None:
            judge = powered.Guess(every[items], every[rest], "the annotator's word")
        found |= _rows("student", powered.quality(gold, own, judge, schema))
    return found


def _asked_about_all(
    store: Store, schema: LabelSchema, annotations: str, corpus: list[int]
) -> NDArray[np.float64] | None:
    """(items, C) the annotator's labels, zeros where it gave none; None unless it was asked about all."""
    asked = store.annotations(annotations)
    if not all(s in asked for s in corpus):
        return None
    out = np.zeros((store.n_items(), len(schema.labels)))
    labels = [asked[s].labels if asked[s].status == "ok" else () for s in corpus]
    out[corpus] = label_table(labels, schema)
    return out


def _answers(probs: NDArray[np.float64], schema: LabelSchema) -> tuple[list[Labels], NDArray[np.float64]]:
    pairs = [best(row, schema) for row in probs]
    return [labels for labels, _ in pairs], np.array([confidence for _, confidence in pairs])


def _rows(who: str, measures: Mapping[str, T]) -> dict[str, T]:
    return {f"{who}.{name}": estimate for name, estimate in measures.items()}


def _routed(store: Store, route: str, items: list[int], gold: list[Labels]) -> dict[str, Estimate]:
    """Share of audit items a machine would have answered, and how often it would have been right."""
    routes = store.routes(route, items) | store.routes(unasked(route), items)
    machine = [
        (routes[s].labels, g)
        for s, g in zip(items, gold, strict=True)
        if s in routes and routes[s].who != "person"
    ]
    found = {"accepted.coverage": wilson(len(machine), len(items))}
    if machine:
        found["accepted.accuracy"] = wilson(sum(labels == g for labels, g in machine), len(machine))
    return found


def _annotated(
    store: Store, annotations: str, known: dict[int, Labels], schema: LabelSchema, rng: np.random.Generator
) -> dict[str, Estimate]:
    """The annotator against people, where it was asked about audit items."""
    given = {s: a for s, a in store.annotations(annotations, known).items() if a.status == "ok"}
    if not given:
        return {}
    items = sorted(given)
    labels = [given[s].labels for s in items]
    confidence = np.array([c if (c := given[s].confidence) is not None else math.nan for s in items])
    return _rows("annotator", measures_of(None, labels, confidence, [known[s] for s in items], schema, rng))


def _calibrated(
    store: Store, annotations: str, decisions: str, known: dict[int, Labels]
) -> dict[str, Estimate]:
    """Calibration error of the filter's scores, where they are the raw confidences of audit items calibrated.

    Other filters keep scores that are no probability of being right.
    """
    given, decided = store.annotations(annotations, known), store.decisions(decisions)
    items = [s for s in sorted(known) if s in given and given[s].status == "ok" and s in decided]
    scores = [decided[s].score for s in items]
    if (
        not any(decided[s].reason.startswith("calibrated") for s in items)
        or None in scores
        or all(given[s].confidence == p for s, p in zip(items, scores, strict=True))
    ):
        return {}
    right = np.array([set(given[s].labels) == set(known[s]) for s in items])
    return {"annotator.calibrated_ece": calibration_gap(np.clip(np.array(scores, float), 0, 1), right)}


def _stored(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
