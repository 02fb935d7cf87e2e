"""From probabilities to an answer: which labels are given, and how sure the answer is as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # an exported classifier answers where pydantic is not installed
    from llmal.records import Labels, LabelSchema

MULTI_FROM = 0.5
"""Probability from which a label of its own right (`kind: multi`) is given."""


def best(probs: NDArray[np.floating], schema: LabelSchema) -> tuple[Labels, float]:
    """The student's answer from one row of probabilities, and how sure it is of that whole answer.

    Single: the likeliest class and its probability. Multi: every class from 0.5, and the lowest probability
    with which any one of the C yes/no answers is meant.
    """
    labels = given(probs, schema.names, schema.kind)
    return labels, float(probs.max() if schema.kind == "single" else np.maximum(probs, 1 - probs).min())


def given(probs: NDArray[np.floating], names: list[str], kind: str) -> Labels:
    """The labels that one row of probabilities stands for: see `best`."""
    if kind == "single":
        return (names[int(probs.argmax())],)
    return tuple(name for name, p in zip(names, probs, strict=True) if p >= MULTI_FROM)


def label_table(labels: list[Labels], schema: LabelSchema) -> NDArray[np.float32]:
    """(n, C) ones where a label is given, zeros elsewhere."""
    columns = schema.columns()
    out = np.zeros((len(labels), len(schema.labels)), np.float32)
    for row, names in zip(out, labels, strict=True):
        row[[columns[name] for name in names]] = 1.0
    return out
