"""One item asked several times, the options in another order each time: one answer out of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from llmal.answers import best, label_table
from llmal.records import Annotation, LabelSchema

HEAT = 0.7
"""Temperature of repeated questions where only votes can be counted, as in Wang et al. 2023."""


def agreed(parts: Sequence[Annotation], schema: LabelSchema) -> Annotation:
    """One annotation out of several answers about one item.

    Where every answer carries token probabilities, their mean: what the place in the list adds to an option
    averages out. Else the share of votes, (k + 1) / (n + C) for a class named by k of n answers; with
    independent labels (k + 1) / (n + 2) for a label given by k. Answers without a label count in n.

    Args:
        parts: the answers, in any order; at least one.
        schema: the classes.

    Returns:
        `ok` with the likeliest answer where at least half the answers carry a label, else the commonest
        reason why not.
    """
    ok = sorted((a for a in parts if a.status == "ok"), key=lambda a: (a.labels, a.request or ""))
    silent = [a for a in parts if a.status != "ok"]
    if len(ok) < len(silent) or not ok:
        reason, n = Counter(a.status for a in silent).most_common(1)[0]
        first = min((a for a in silent if a.status == reason), key=lambda a: (a.request or "", a.detail))
        return first._replace(detail=f"{n} of {len(parts)} answers; {first.detail}"[:200])
    if not silent and all(a.probs is not None for a in ok):
        probs = np.array([a.probs for a in ok], np.float64).mean(axis=0)
        kind, words = "logprobs", f"mean of {len(ok)} orders of the options"
    else:
        votes = label_table([a.labels for a in ok], schema).sum(axis=0)
        sides = len(schema.labels) if schema.kind == "single" else 2
        probs = (votes + 1.0) / (len(parts) + sides)
        kind, words = "samples", f"{len(ok)} of {len(parts)} answers carry a label"
    labels, confidence = best(np.asarray(probs, np.float64), schema)
    same = sum(set(a.labels) == set(labels) for a in ok)
    row = tuple(float(p) for p in probs)
    detail = f"{words}, {same} of them this"
    return Annotation(ok[0].item, "ok", labels, row, confidence, kind, detail, ok[0].request)  # type: ignore[arg-type]
