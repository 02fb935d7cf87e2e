"""Zero-shot labels from text embeddings: no language model, no network, no cost; a real but weak default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.annotate.stage import Annotator, Desk
from llmal.prototypes import TEMPERATURE, anchors, zero_shot
from llmal.records import Annotation, Item, Labels, LabelSchema


class ZeroShot(Annotator):
    """Nearest label by cosine between the text and what the file says about each label.

    A label's anchor is the mean of the vectors of its name, its description and its examples; the
    distribution is a softmax of cosines divided by `temperature`. Raw confidences are not calibrated.
    Source: label-embedding zero-shot classification, Veeranna et al. 2016; prototypes as in Snell et al.
    2017.
    """

    temperature: float = Field(
        TEMPERATURE, gt=0, description="cosine difference that multiplies the odds by e"
    )
    at_least: float = Field(
        0.5, ge=0, le=1, description="multi-label: probability from which a label is given"
    )

    uses_vectors: ClassVar[bool] = True

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """One distribution an item; multi-label compares each label with the average of the others."""
        probs = zero_shot(
            desk.vectors(items), anchors(schema, desk.ctx.encode), schema, temperature=self.temperature
        )
        return self._annotate(items, schema, probs, desk)

    def _annotate(
        self,
        items: list[Item],
        schema: LabelSchema,
        probs: NDArray[np.float64],
        desk: Desk,
    ) -> Iterator[Annotation]:
        for item, row in zip(items, probs, strict=True):
            if schema.kind == "single":
                labels: Labels = (schema.names[int(row.argmax())],)
                confidence = float(row.max())
            else:
                labels = tuple(n for n, p in zip(schema.names, row, strict=True) if p >= self.at_least)
                confidence = float(np.maximum(row, 1 - row).min())
            yield Annotation(item.seq, "ok", labels, tuple(float(p) for p in row), confidence, "similarity")
            desk.advance()
