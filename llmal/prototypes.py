"""What a label looks like among the vectors, and which one a text is nearest to: no model asked, no cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmal.records import LabelSchema

TEMPERATURE = 0.05
"""Cosine difference that multiplies the odds by e."""


def anchors(schema: LabelSchema, encode: Callable[[list[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """(C, d) unit rows: the mean of the vectors of each label's name, description and examples."""
    rows = []
    for label in schema.labels:
        words = [label.name.replace("_", " "), *([label.description] if label.description else [])]
        mean = encode([*words, *label.examples]).mean(axis=0)
        rows.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


def zero_shot(
    vectors: NDArray[np.float32],
    anchors: NDArray[np.float32],
    schema: LabelSchema,
    *,
    temperature: float = TEMPERATURE,
) -> NDArray[np.float64]:
    """(n, C) probabilities from the cosine to each label's anchor; not calibrated.

    Single: a softmax. Multi: each label against the average of the others.
    Source: label-embedding zero-shot classification, Veeranna et al. 2016; prototypes: Snell et al. 2017.
    """
    logits = (vectors @ anchors.T).astype(np.float64) / temperature
    return _softmax(logits) if schema.kind == "single" else _against_others(logits)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _against_others(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    n = logits.shape[1]
    others = (logits.sum(axis=1, keepdims=True) - logits) / max(n - 1, 1)
    return np.asarray(0.5 * (1 + np.tanh((logits - others) / 2)))  # 1 / (1 + exp(-x)) without its overflow
