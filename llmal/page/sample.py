"""What the audit sample shows: risk and coverage, reliability, confusion, slices, and disagreements."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import best, label_table
from llmal.page.overview import Given
from llmal.records import Labels, LabelSchema, unasked
from llmal.state import Recipes
from llmal.stats.curves import reliability, risk_coverage
from llmal.stats.intervals import Estimate, wilson
from llmal.store.store import Store

FEWEST = 10
"""Audit items a slice needs to be shown: with fewer the interval says next to nothing."""

SLICES = 40
"""Slices shown, worst first; the rest are counted."""

MATRIX = 30
"""Most classes of a confusion matrix; with more, the largest confusions are listed."""

LARGEST = 30
"""Confusions in that list."""

DISAGREE = 20
"""Disagreements shown with their texts."""

TEXT = 400
"""Characters shown of a text."""


class Audited(NamedTuple):
    """Audit items that people (or gold) answered, and what the final student says of them.

    Attributes:
        items: n `seq`, ascending.
        truth, said: n answers: people's, the student's.
        confidence: (n,) the student's, in its whole answer.
        right: (n,) bool, the two are the same.
    """

    items: list[int]
    truth: list[Labels]
    said: list[Labels]
    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


def audited(store: Store, names: Recipes, schema: LabelSchema) -> Audited | None:
    """The sample, or None where no answer is known or no student has predicted."""
    from llmal.audit import known_answers

    known = known_answers(store, schema)
    items = sorted(known)
    if not items or store.covered(names.predictions) <= items[-1]:
        return None
    rows = np.asarray(store.load(names.predictions)[items], np.float64)
    pairs = [best(row, schema) for row in rows]
    said = [labels for labels, _ in pairs]
    truth = [known[s] for s in items]
    right = np.array([set(a) == set(g) for a, g in zip(said, truth, strict=True)])
    return Audited(items, truth, said, np.clip([c for _, c in pairs], 0, 1), right)


UNMEASURED: dict[str, Any] = dict.fromkeys(
    ("risk_coverage", "reliability", "confusion", "slices", "disagreements")
)
"""What `measured` gives before anything is known."""


def measured(
    store: Store, names: Recipes, schema: LabelSchema, threshold: float | None, given: Given
) -> dict[str, Any]:
    """Everything the page shows of the audit sample, as plain data."""
    sample = audited(store, names, schema)
    if sample is None:
        return UNMEASURED
    return {
        "risk_coverage": risk(sample, threshold),
        "reliability": [
            {"low": b.low, "high": b.high, "confidence": b.confidence, **stated(b.accuracy)}
            for b in reliability(sample.confidence, sample.right)
        ],
        "confusion": confusion(sample, schema),
        "slices": slices(store, names.route, sample, given),
        "disagreements": disagreements(store, names.annotations, sample, given),
    }


def stated(e: Estimate) -> dict[str, Any]:
    """An estimate as plain data; None where a number is undefined."""
    value, low, high = (None if math.isnan(x) else round(float(x), 6) for x in e[:3])
    return {"value": value, "low": low, "high": high, "n": e.n}


def risk(sample: Audited, threshold: float | None) -> dict[str, Any]:
    """The curve of the student alone, and where the run's threshold lies on it."""
    chosen = None
    if threshold is not None:
        over = sample.confidence >= threshold
        n = int(over.sum())
        chosen = {"at_least": threshold, "coverage": n / len(over)}
        chosen |= stated(wilson(int(sample.right[over].sum()), n)) if n else {"n": 0}
    points = [
        {"at_least": round(p.at_least, 6), "coverage": round(p.coverage, 6), **stated(p.accuracy)}
        for p in risk_coverage(sample.confidence, sample.right)
    ]
    return {"points": points, "threshold": chosen}


def confusion(sample: Audited, schema: LabelSchema) -> dict[str, Any]:
    """Student against people: a matrix, a list where it would be too large, a table a label when multi."""
    if schema.kind == "multi":
        return {"kind": "labels", "labels": _per_label(sample, schema)}
    column = schema.columns()
    matrix = np.zeros((len(column), len(column)), np.int64)
    for truth, said in zip(sample.truth, sample.said, strict=True):
        matrix[column[truth[0]], column[said[0]]] += 1
    whole = matrix.sum(axis=1)
    if len(column) <= MATRIX:
        return {"kind": "matrix", "labels": schema.names, "matrix": matrix.tolist()}
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LARGEST]
    pairs = [divmod(int(i), len(column)) for i in order if wrong.flat[i]]
    return {
        "kind": "largest",
        "classes": len(column),
        "pairs": [
            {"people": schema.names[a], "student": schema.names[b], "count": int(matrix[a, b])}
            | {"of": int(whole[a])}
            for a, b in pairs
        ],
        "others": int(wrong.sum() - sum(wrong[a, b] for a, b in pairs)),
    }


def _per_label(sample: Audited, schema: LabelSchema) -> list[dict[str, Any]]:
    truth, said = (label_table(labels, schema).astype(bool) for labels in (sample.truth, sample.said))
    both, missed, added = (x.sum(axis=0) for x in (truth & said, truth & ~said, said & ~truth))
    return [
        {"label": name, "both": int(b), "missed": int(m), "added": int(a)}
        for name, b, m, a in zip(schema.names, both, missed, added, strict=True)
    ]


def slices(store: Store, route: str, sample: Audited, given: Given) -> dict[str, Any]:
    """Accuracy of the run's labels in parts of the sample that hold `FEWEST` items or more, worst first.

    A run's label is what it gives, or would give had no person answered; for an item that waits for a person
    the student's guess.
    """
    unanswered = store.routes(unasked(route), sample.items)
    every = {s: unanswered.get(s) or given.routes.get(s) for s in sample.items}
    routes = {s: r for s, r in every.items() if r is not None}
    labels = [routes[s].labels if s in routes else sample.said[i] for i, s in enumerate(sample.items)]
    right = np.array([set(a) == set(g) for a, g in zip(labels, sample.truth, strict=True)])
    parts: dict[tuple[str, str], list[int]] = {}
    lengths = [(len(item.text), item.flags) for item in store.items(sample.items)]
    bands = _quarters([n for n, _ in lengths])
    for i, s in enumerate(sample.items):
        for label in sample.truth[i] or ("(none)",):
            parts.setdefault(("people's label", label), []).append(i)
        parts.setdefault(("length", bands[i]), []).append(i)
        if s in routes:
            who = {"student": "the classifier", "llm": "the annotator"}.get(routes[s].who, "a person, later")
            parts.setdefault(("labelled by", who), []).append(i)
        for flag in lengths[i][1] or ("nothing odd",):
            parts.setdefault(("flag", flag), []).append(i)
    found = [
        {"by": by, "slice": name, **stated(wilson(int(right[rows].sum()), len(rows)))}
        for (by, name), rows in parts.items()
        if FEWEST <= len(rows) < len(right)
    ]
    found.sort(key=lambda x: (x["value"], -x["n"], x["by"], x["slice"]))
    whole = stated(wilson(int(right.sum()), len(right)))
    return {
        "all": whole,
        "worst": found[:SLICES],
        "looked_at": len(found),
        "too_small": sum(len(rows) < FEWEST for rows in parts.values()),
    }


def _quarters(lengths: list[int]) -> list[str]:
    """The quarter of the sample each text falls in, in characters; equal lengths stay together."""
    cuts = sorted({int(x) for x in np.quantile(lengths, (0.25, 0.5, 0.75))})
    words = [f"up to {cuts[0]:,} characters"]
    words += [_characters(a + 1, b) for a, b in zip(cuts, cuts[1:], strict=False)]
    words += [f"over {cuts[-1]:,} characters"]
    return [words[int(i)] for i in np.searchsorted(cuts, lengths)]


def _characters(low: int, high: int) -> str:
    return f"{low:,} to {high:,} characters" if low < high else f"{low:,} characters"


def disagreements(store: Store, annotations: str, sample: Audited, given: Given) -> dict[str, Any]:
    """Audit items on which the student contradicts people, the most confident first, with their texts."""
    wrong = np.flatnonzero(~sample.right)
    order = wrong[np.argsort(-sample.confidence[wrong], kind="stable")][:DISAGREE]
    items = [sample.items[i] for i in order]
    asked, people = store.annotations(annotations, items), given.answers
    ids = store.ids(items)
    shown = [
        {
            "id": ids.get(s, ""),
            "text": item.text[:TEXT],
            "cut": len(item.text) > TEXT,
            "people": list(sample.truth[i]),
            "known_from": "a person" if s in people else "gold",
            "student": list(sample.said[i]),
            "confidence": round(float(sample.confidence[i]), 4),
            "annotator": list(asked[s].labels) if s in asked and asked[s].status == "ok" else None,
        }
        for i, s, item in zip(order, items, store.items(items), strict=True)
    ]
    return {"n": len(wrong), "of": len(sample.items), "shown": shown}
