"""Where a student is weak: a report by class, its loss, and the texts it gets wrong although it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import best, label_table
from llmal.records import Labels, LabelSchema

FLOOR = 1e-7
"""Least probability a loss is taken of: one certain mistake costs 16, not infinity."""


class ClassScore(NamedTuple):
    """One line of a report: how a student does on the items of a class; 0 where nothing can be divided."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def report(truth: Sequence[Labels], said: Sequence[Labels], schema: LabelSchema) -> list[ClassScore]:
    """Precision, recall and F1 of each class, in schema order; the same as scikit-learn's.

    Args:
        truth: labels of n items.
        said: the student's labels of the same items.
        schema: the classes.
    """
    want, got = label_table(list(truth), schema) > 0, label_table(list(said), schema) > 0
    right = (want & got).sum(axis=0)
    precision = right / np.maximum(got.sum(axis=0), 1)
    recall = right / np.maximum(want.sum(axis=0), 1)
    f1 = 2 * right / np.maximum(want.sum(axis=0) + got.sum(axis=0), 1)
    rows = zip(schema.names, precision, recall, f1, want.sum(axis=0), strict=True)
    return [ClassScore(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows]


def loss(truth: Sequence[Labels], probs: NDArray[np.floating], schema: LabelSchema) -> float:
    """Mean negative log-likelihood of the labels; of the C yes/no questions where labels are independent.

    Args:
        truth: labels of n items, n >= 1.
        probs: (n, C) of the student.
        schema: the classes.
    """
    want = label_table(list(truth), schema).astype(np.float64)
    p = np.clip(np.asarray(probs, np.float64), FLOOR, 1 - FLOOR)
    if schema.kind == "single":
        return float(-(want * np.log(p)).sum(axis=1).mean())
    return float(-(want * np.log(p) + (1 - want) * np.log(1 - p)).mean())


class Told(NamedTuple):
    """Rows sorted by how a student did on them.

    Attributes:
        right: rows it got right, ascending.
        wrong: rows it got wrong, the surest first; ties by the lower row.
        said: its labels of every row.
    """

    right: list[int]
    wrong: list[int]
    said: list[Labels]


def told_apart(truth: Sequence[Labels], probs: NDArray[np.floating], schema: LabelSchema) -> Told:
    """What a student got right and what wrong, hard negatives first.

    Args:
        truth: labels of n items.
        probs: (n, C) of a student that did not learn from the item itself, or every item looks easy.
        schema: the classes.
    """
    answers = [best(row, schema) for row in probs]
    right = [i for i, (labels, _) in enumerate(answers) if set(labels) == set(truth[i])]
    wrong = sorted(set(range(len(answers))) - set(right), key=lambda i: (-answers[i][1], i))
    return Told(right, wrong, [labels for labels, _ in answers])


def lowest(losses: Sequence[float]) -> int:
    """Place of the lowest loss, the first of equals."""
    return min(range(len(losses)), key=lambda k: (losses[k], k))


def stalled(losses: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` losses brought none below all before them."""
    return len(losses) - 1 - lowest(losses) >= patience
