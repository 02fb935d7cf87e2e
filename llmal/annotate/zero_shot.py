"""Zero-shot labels from text embeddings: no language model, no network, no cost; a real but weak default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.annotate.stage import Annotator, Desk
from llmal.records import Annotation, Item, Labels, LabelSchema


class ZeroShot(Annotator):
    """Nearest label by cosine between the text and what the file says about each label.

    A label's anchor is the mean of the vectors of its name, its description and its examples; the
    distribution is a softmax of cosines divided by `temperature`. Raw confidences are not calibrated.
    Source: label-embedding zero-shot classification, Veeranna et al. 2016; prototypes as in Snell et al.
    2017.
    """

    temperature: float = Field(0.05, gt=0, description="cosine difference that multiplies the odds by e")
    at_least: float = Field(
        0.5, ge=0, le=1, description="multi-label: probability from which a label is given"
    )

    uses_vectors: ClassVar[bool] = True

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """One distribution an item; multi-label compares each label with the average of the others."""
        return self._annotate(items, schema, desk.vectors(items), self.anchors(schema, desk), desk)

    def anchors(self, schema: LabelSchema, desk: Desk) -> NDArray[np.float32]:
        """(C, d) unit rows: what each label looks like."""
        rows = []
        for label in schema.labels:
            words = [
                label.name.replace("_", " "),
                *([label.description] if label.description else []),
                *label.examples,
            ]
            mean = desk.ctx.encode(words).mean(axis=0)
            rows.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
        return np.asarray(rows, dtype=np.float32)

    def _annotate(
        self,
        items: list[Item],
        schema: LabelSchema,
        vectors: NDArray[np.float32],
        anchors: NDArray[np.float32],
        desk: Desk,
    ) -> Iterator[Annotation]:
        logits = (vectors @ anchors.T).astype(np.float64) / self.temperature
        probs = _softmax(logits) if schema.kind == "single" else _against_others(logits)
        for item, row in zip(items, probs, strict=True):
            if schema.kind == "single":
                labels: Labels = (schema.names[int(row.argmax())],)
                confidence = float(row.max())
            else:
                labels = tuple(n for n, p in zip(schema.names, row, strict=True) if p >= self.at_least)
                confidence = float(np.maximum(row, 1 - row).min())
            yield Annotation(item.seq, "ok", labels, tuple(float(p) for p in row), confidence, "similarity")
            desk.advance()


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _against_others(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    n = logits.shape[1]
    others = (logits.sum(axis=1, keepdims=True) - logits) / max(n - 1, 1)
    return np.asarray(0.5 * (1 + np.tanh((logits - others) / 2)))  # 1 / (1 + exp(-x)) without its overflow
