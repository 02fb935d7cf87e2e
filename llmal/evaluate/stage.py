"""The evaluate stage: reserves the audit sample, and measures student, annotator and routes on it."""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from llmal.answers import best
from llmal.context import Context
from llmal.evaluate.table import measures_of
from llmal.records import Labels, LabelSchema, Tally, canonical, recipe, unasked
from llmal.stats.calibration import calibration_gap
from llmal.stats.intervals import Estimate, wilson
from llmal.store import schema as t
from llmal.store.store import Store


def reserve(store: Store, ctx: Context, *, size: int) -> Tally:
    """Reserve a simple random sample before anything else looks at the corpus.

    Items picked or answered already never enter, so raising `audit.size` later adds only untouched ones.
    At most half of the corpus is reserved.

    Args:
        store: of the run.
        ctx: shared context.
        size: items the sample should hold.

    Returns:
        Wanted and new.
    """
    have = store.audit()
    active = store.active()
    most = min(size, len(active) // 2)  # a sample that leaves nothing to learn from measures nothing
    missing = most - len({*have} & {*active})
    if missing <= 0:
        return Tally(most, 0)
    taken = {*have, *store.picks(), *store.answers()}
    free = [s for s in active if s not in taken]
    chosen = ctx.rng("audit", len(have)).permutation(len(free))[:missing]
    now = time.time()
    new = store.add(t.audit, [{"item": free[i], "at": now} for i in sorted(chosen)])
    if new < missing:
        return Tally(most, new, f"only {new} of {missing} items were free")
    return Tally(most, new, f"at most half of the corpus is reserved, not {size}" if most < size else "")


def known_answers(store: Store, schema: LabelSchema) -> dict[int, Labels]:
    """Audit item -> people's answer: the newest one given, else the gold of the corpus."""
    gold, answers = store.gold(), store.answers(schema.names)
    active = set(store.active())
    return {
        s: answers.get(s, gold.get(s, ()))
        for s in store.audit()
        if s in active and (s in answers or s in gold)
    }


def evaluate_recipe(student: str, route: str, annotations: str, known: dict[int, Labels]) -> str:
    """Hash of everything measured and everything measured against."""
    return recipe("measure", 3, student, route, annotations, canonical(sorted(known.items())))


def run(
    store: Store,
    ctx: Context,
    *,
    schema: LabelSchema,
    student: str,
    route: str,
    annotations: str,
    decisions: str = "",
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

    Returns:
        Measures wanted and new.
    """
    known = known_answers(store, schema)
    if not known:
        size = len(store.audit())
        hint = f"{size} audit items need people's answers first" if size else "audit.size is 0"
        return Tally(0, 0, f"nothing can be measured: {hint}")
    name = evaluate_recipe(student, route, annotations, known)
    have = store.count(t.measure, t.measure.c.recipe == name)
    if have:
        return Tally(have, 0)
    items = sorted(known)
    gold = [known[s] for s in items]
    rng = ctx.rng("evaluate")
    probs = np.asarray(store.load(student)[items], np.float64)
    rows = _rows("student", measures_of(probs, *_answers(probs, schema), gold, schema, rng))
    rows |= _routed(store, route, items, gold)
    rows |= _annotated(store, annotations, known, schema, rng)
    rows |= _calibrated(store, annotations, decisions, known)
    on = f"audit sample, {len(items)} items"
    facts = [
        {
            "recipe": name,
            "name": n,
            "value": _stored(e.value),
            "low": _stored(e.low),
            "high": _stored(e.high),
            "n": e.n,
            "measured_on": on,
        }
        for n, e in rows.items()
    ]
    accuracy = rows["student.accuracy"]
    words = (
        f"student accuracy {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}], n = {accuracy.n}"
    )
    return Tally(len(facts), store.add(t.measure, facts), words)


def _answers(probs: NDArray[np.float64], schema: LabelSchema) -> tuple[list[Labels], NDArray[np.float64]]:
    pairs = [best(row, schema) for row in probs]
    return [labels for labels, _ in pairs], np.array([confidence for _, confidence in pairs])


def _rows(who: str, measures: dict[str, Estimate]) -> dict[str, Estimate]:
    return {f"{who}.{name}": estimate for name, estimate in measures.items()}


def _routed(store: Store, route: str, items: list[int], gold: list[Labels]) -> dict[str, Estimate]:
    """Share of audit items a machine would have answered, and how often it would have been right."""
    routes = store.routes(route) | store.routes(unasked(route))
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
    given = {s: a for s, a in store.annotations(annotations).items() if s in known and a.status == "ok"}
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
    given, decided = store.annotations(annotations), store.decisions(decisions)
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
