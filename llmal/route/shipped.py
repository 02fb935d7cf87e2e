"""What an export tells of routing: its certificate, thresholds, and numbers to see drift by later."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmal.answers import given
from llmal.context import Context
from llmal.records import LabelSchema
from llmal.route.evidence import Sources, confidences, learnt_from
from llmal.store.store import Store

MOST = 1000
"""Items of the reference: enough to see a shift that matters, little enough to ship."""

FEWEST = 50
"""Audit items from which on they alone are the reference."""

DIGITS = 6
"""Of a confidence written: float32 holds seven."""


def shipped(
    store: Store, ctx: Context, sources: Sources, certificate: str, *, schema: LabelSchema
) -> dict[str, Any]:
    """The parts `certificate`, `thresholds` and `reference` of `llmal.json`.

    Returns:
        `certificate`: facts of the certificate and why it was withdrawn, or None. `thresholds`: label -> the
        bar of that answer of the student or None, where the promise is made for each label, else None.
        `reference`: see `reference`.
    """
    facts = store.certificate(certificate) if certificate else None
    bars = [bar for bar in facts["bars"] if bar["tier"] == "student"] if facts else []
    by_label = {bar["label"]: bar["threshold"] for bar in bars if bar["label"] is not None}
    return {
        "certificate": facts,
        "thresholds": by_label or None,
        "reference": reference(store, ctx, sources, schema),
    }


def reference(store: Store, ctx: Context, sources: Sources, schema: LabelSchema) -> dict[str, Any]:
    """Confidences and answers of the student to texts it has not learnt from, numbers alone.

    Those of the audit sample, which is drawn at random; where that is small, of what is left of the corpus,
    from which a strategy may have picked.

    Returns:
        `of`: audit or unlearnt; `n`; `confidence`: (n,) floats in random order; `labels`: (n,) lists of
        columns of the labels given.
    """
    active = store.active()
    held = store.reserved()
    drawn = sorted(set(store.audit()).intersection(active))
    taught = learnt_from(store, sources) | set(store.answers())
    of = "audit" if len(drawn) >= FEWEST else "unlearnt"
    pool = drawn if of == "audit" else [s for s in active if s not in taught or s in held]
    some = ctx.rng("reference").permutation(np.array(pool, np.int64))[:MOST]
    probs = np.asarray(store.load(sources.predictions)[some])
    columns = schema.columns()
    said = [[columns[name] for name in given(row, schema.names, schema.kind)] for row in probs]
    sure = [round(float(c), DIGITS) for c in confidences(probs, schema)] if len(probs) else []
    return {"of": of, "n": len(sure), "confidence": sure, "labels": said}
