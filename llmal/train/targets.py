"""What a student is taught of each item: the label alone, or the annotator's distribution and a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmal.records import Annotation, Decision, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Targets(BaseModel):
    """How an annotator's answers are taught; people's answers are always their label, with weight 1.

    Source: Hinton et al. 2015 (soft labels, temperature); He et al. 2021 (Distiller: the mix with labels).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    use: Literal["hard", "soft"] = Field(
        "hard", description="hard: the label; soft: the annotator's probabilities, calibrated by the filter"
    )
    share: float = Field(
        1.0, ge=0, le=1, description="of the probabilities in a soft target; the rest is the label's"
    )
    temperature: float = Field(
        1.0,
        ge=0.1,
        le=20,
        description="at which a student that can (finetune) matches probabilities; above 1 unlikely classes "
        "count for more",
    )
    weights: Literal["equal", "confidence"] = Field(
        "equal", description="confidence: an answer weighs as much as it is likely to be right"
    )
    prior: Literal["taught", "people"] = Field(
        "taught",
        description="people: an annotator's labels weigh so that each class has the share that people's "
        "answers about the audit sample give it",
    )


HARD = Targets()
"""Every label as it is, all of the same weight."""


class Distil(NamedTuple):
    """Soft targets in their parts, for a student that tells them apart.

    Attributes:
        labels: (n, C) ones where a label is given.
        probs: (n, C) in [0, 1], the annotator's; equal to the labels where there is no distribution.
        share: (n,) in [0, 1]; of the probabilities, against the label. 0 for people's answers.
        temperature: at which the probabilities are to be matched.
    """

    labels: NDArray[np.float32]
    probs: NDArray[np.float32]
    share: NDArray[np.float32]
    temperature: float

    def some(self, rows: NDArray[np.int64]) -> Distil:
        """The parts of some rows."""
        return Distil(self.labels[rows], self.probs[rows], self.share[rows], self.temperature)


class Taught(NamedTuple):
    """Targets of n items.

    Attributes:
        targets: (n, C) float32 in [0, 1]; rows sum to 1 when single label.
        weights: (n,) float32 >= 0; in [0, 1] before classes weigh differently.
        distil: the parts of soft targets; None where all are hard.
    """

    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    distil: Distil | None


def likelihood(given: Annotation, decision: Decision, *, calibrated: bool) -> float | None:
    """How likely the annotation's labels are right, as far as anyone said so; None where nobody did.

    The score of a filter that calibrates, else the annotator's own confidence, unless it merely stated one.
    """
    if calibrated and decision.score is not None:
        return decision.score
    return None if given.kind == "stated" else given.confidence


def teach(
    labels: NDArray[np.float32],
    probs: Sequence[tuple[float, ...] | None],
    sure: Sequence[float | None],
    machine: NDArray[np.bool_],
    kind: Kind,
    how: Targets,
) -> Taught:
    """Targets and weights of n items.

    Args:
        labels: (n, C) ones where a label is given.
        probs: n distributions as the annotator gave them, None where it gave none.
        sure: n probabilities that the labels are right, None where unknown.
        machine: (n,) whether the label is an annotator's; people's answers are taught as they are.
        kind: of the labels.
        how: the options.
    """
    import numpy as np

    right = np.array([np.nan if s is None else s for s in sure], np.float64).clip(0, 1)
    right[~machine] = np.nan
    weights = np.ones(len(labels), np.float32)
    if how.weights == "confidence":
        weights = np.where(np.isnan(right), 1.0, right).astype(np.float32)
    if how.use == "hard" or how.share == 0:
        return Taught(labels, weights, None)
    said = [p if m else None for p, m in zip(probs, machine, strict=True)]
    soft = distributions(labels, said, right, kind)
    share = np.where((soft != labels).any(axis=1), how.share, 0).astype(np.float32)
    if not share.any():
        return Taught(labels, weights, None)
    mixed = labels + share[:, None] * (soft - labels)
    return Taught(mixed.astype(np.float32), weights, Distil(labels, soft, share, how.temperature))


def distributions(
    labels: NDArray[np.float32],
    probs: Sequence[tuple[float, ...] | None],
    right: NDArray[np.float64],
    kind: Kind,
) -> NDArray[np.float32]:
    """(n, C) probabilities of the classes: the annotator's, brought to what is known of the label.

    When single: mass that the annotator gave to no class goes in equal parts to the classes it did not name
    (to all, where it named all). Then the label's probability is set to that of being right where this is
    known, and the other classes share the rest as they did before, in equal parts where they had nothing.
    Without a distribution this starts from the label; where nothing is known at all, it stays the label.
    When multi, each label's own probability is taken as given.
    """
    import numpy as np

    there = np.array([p is not None for p in probs], bool)
    soft = labels.astype(np.float64)
    if there.any():
        soft[there] = np.clip(np.array([p for p in probs if p is not None], np.float64), 0, 1)
    if kind == "multi":
        return soft.astype(np.float32)
    n_classes = labels.shape[1]
    blank = soft == 0
    blank[~blank.any(axis=1)] = True
    lost = np.maximum(1 - soft.sum(axis=1, keepdims=True), 0)
    soft += np.where(blank, lost / blank.sum(axis=1, keepdims=True), 0)
    soft /= soft.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(~np.isnan(right))
    own, others = labels[rows] > 0, np.where(labels[rows] > 0, 0.0, soft[rows])
    mass = others.sum(axis=1, keepdims=True)
    even = np.where(own, 0.0, 1 / max(1, n_classes - 1))
    others = np.where(mass > 0, others / np.where(mass > 0, mass, 1), even)
    soft[rows] = np.where(own, right[rows, None], (1 - right[rows, None]) * others)
    return soft.astype(np.float32)
