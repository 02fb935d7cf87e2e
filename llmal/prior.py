"""How often each class really occurs among the annotator's answers, as people's answers show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from llmal.records import Annotation, Labels, LabelSchema
from llmal.store.store import Store

FEWEST = 30
"""Checked answers below which nothing is corrected; as for the filter `error-rate`."""

RIGHT = 1.0
"""Right answers assumed of every class besides those that people checked."""

MOST = 10.0
"""No class weighs more than this, nor less than one part in this: a class named twice must not rule all."""


def class_shares(
    given: NDArray[np.int64], right: NDArray[np.int64], named: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(C,) shares of the classes among answers, corrected for what the annotator confuses; they sum to 1.

    The share of class b is the sum over a of the share named a times how often b was right where a was named.

    Args:
        given: (k,) classes the annotator named, of answers that people checked.
        right: (k,) classes people gave.
        named: (C,) how often the annotator named each class among all its answers; not all 0.

    Source: prior from a confusion matrix, by the rows that were named (Buonaccorsi 2010, ch. 2); the
    assumed right answers are ours.
    """
    counts = RIGHT * np.eye(len(named))
    np.add.at(counts, (given, right), 1)
    return np.asarray((named / named.sum()) @ (counts / counts.sum(axis=1, keepdims=True)))


def class_weights(
    given: NDArray[np.int64],
    right: NDArray[np.int64],
    named: NDArray[np.float64],
    taught: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(C,) weights of labels to train on that give each class the share people's answers say it has.

    With fewer than `FEWEST` checked answers, or without one that people contradict, all classes weigh 1: the
    weights then say nothing, not even against what a filter left of a class. Weighted by how often each class
    is taught they have a mean of 1, but for the bounds.

    Args:
        given: see `class_shares`.
        right: see `class_shares`.
        named: see `class_shares`.
        taught: (C,) how often each class is among the labels to train on.
    """
    if len(given) < FEWEST or (given == right).all() or not taught.any():
        return np.ones(len(named))
    wanted = class_shares(given, right, named)
    have = taught / taught.sum()
    wanted = np.where(have > 0, wanted, 0)  # a class nobody teaches leaves its share to the others
    ratio = np.divide(wanted / wanted.sum(), have, out=np.ones(len(have)), where=have > 0)
    return np.asarray(np.clip(ratio, 1 / MOST, MOST))


def weights_by_people(
    store: Store, schema: LabelSchema, given: Mapping[int, Annotation], taught: Iterable[int]
) -> tuple[float, ...]:
    """`class_weights` of a run's labels; nothing with `kind: multi`, or where all weigh 1.

    Checked are the annotations of audit items; a person's answer goes before the corpus's gold.

    Args:
        store: of the run.
        schema: the classes.
        given: all annotations.
        taught: items whose annotation may train.
    """
    audit = [s for s in store.audit() if s in given and given[s].status == "ok"]
    if schema.kind != "single" or len(audit) < FEWEST:
        return ()
    reserved, known = set(audit), store.gold() | store.answers(schema.names)
    checked = [(given[s].labels, known[s]) for s in audit if known.get(s)]
    named = [a.labels for s, a in given.items() if a.status == "ok" and s not in reserved]
    column = schema.columns()

    def classes(some: Iterable[Labels]) -> NDArray[np.int64]:
        return np.array([column[labels[0]] for labels in some], np.int64)

    counts = [
        np.bincount(classes(some), minlength=len(column)).astype(np.float64)
        for some in (named, [given[s].labels for s in taught])
    ]
    said, right = ([pair[side] for pair in checked] for side in (0, 1))
    weights = class_weights(classes(said), classes(right), *counts)
    return () if (weights == 1).all() else tuple(weights.tolist())
