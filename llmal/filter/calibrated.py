"""Accept what people's answers show to be right often enough, whatever number the annotator gave itself."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from llmal.filter.confidence import HEARSAY, WHY
from llmal.filter.stage import NOTHING, Checked, Evidence, Filter
from llmal.records import Annotation, Decision, LabelSchema
from llmal.stats.calibrators import METHODS, Calibrator, Fit
from llmal.stats.calibrators_choice import choose, cross_fitted

NEUTRAL = 0.5
"""Stands for a confidence that was not given; calibrated, it becomes the share right among such answers."""


class Scale(NamedTuple):
    """How one kind of confidence is read.

    Attributes:
        calibrator: fitted on all answers; None while there are too few.
        n: answers it was fitted on, or that there are.
        own: item -> value of an item among those answers, from a fit without its fold.
    """

    calibrator: Calibrator | None
    n: int
    own: dict[int, float]


class Calibrated(Filter):
    """Accept from a probability of being right upward, which people's answers taught the filter to read.

    The annotator's raw confidence is mapped to the share of right answers among items that people answered.
    By default these are the audit items alone (say `audit: {annotate: true}`): items that people saw because
    something was unsure are wrong more often than others of the same confidence. An audit item's own value
    comes from a fit without its answer, so that what is measured on the audit stays honest. Kinds of
    confidence are never mixed: each has a map of its own. A value never passes (n + 1) / (n + 2): n answers
    show no more. With fewer than `fewest` answers the raw confidence decides, except one that a model stated
    of itself, which is held. Source: Platt 1999; Zadrozny & Elkan 2002; Guo et al. 2017.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"people"})
    calibrates: ClassVar[bool] = True

    at_least: float = Field(0.8, ge=0, le=1, description="lowest probability of being right that may train")
    method: Literal["auto", "temperature", "platt", "hierarchical", "histogram", "isotonic"] = Field(
        "auto", description="auto: the simplest that answers left out speak for, the raw confidence included"
    )
    folds: int = Field(5, ge=2, le=20, description="parts in which answers are left out in turn")
    fewest: int = Field(
        30, ge=10, description="answers of people a kind of confidence needs to be calibrated"
    )
    answers: Literal["audit", "all"] = Field(
        "audit", description="all: also items people saw because something was unsure; more, but biased"
    )

    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""
        known = [c for c in evidence.people if c.drawn or self.answers == "all"]
        scales = {
            kind: self._scale([c for c in known if c.annotation.kind == kind], schema)
            for kind in {a.kind for a in annotations if a.status == "ok"}
        }
        single = schema.kind == "single"
        return [
            self._decide(a, scales[a.kind], single) if a.status == "ok" else _no_label(a) for a in annotations
        ]

    def _scale(self, known: list[Checked], schema: LabelSchema) -> Scale:
        if len(known) < self.fewest:
            return Scale(None, len(known), {})
        raw = np.array([_raw(c.annotation) for c in known])
        right = np.array([c.right for c in known])
        classes = [c.annotation.labels[0] for c in known] if schema.kind == "single" else None
        fit: Fit = partial(choose, folds=self.folds) if self.method == "auto" else METHODS[self.method]
        own = cross_fitted(fit, raw, right, classes, folds=self.folds).tolist()
        items = [c.annotation.item for c in known]
        return Scale(fit(raw, right, classes), len(known), dict(zip(items, own, strict=True)))

    def _decide(self, a: Annotation, scale: Scale, single: bool) -> Decision:
        if scale.calibrator is None:
            return self._uncalibrated(a, scale.n)
        classes: Sequence[Hashable] | None = a.labels if single else None
        own = scale.own.get(a.item)
        value = float(scale.calibrator([_raw(a)], classes)[0]) if own is None else own
        value = min(value, (scale.n + 1) / (scale.n + 2))
        sign, verdict = self._verdict(value)
        said = "none given" if a.confidence is None else f"{a.kind} {a.confidence:.3f}"
        how = "left as it is by" if scale.calibrator.name == "identity" else f"{scale.calibrator.name} on"
        rest = f"{how} {scale.n} answers" + ("" if own is None else ", its own left out")
        return Decision(
            a.item, verdict, value, f"calibrated {value:.3f} {sign} {self.at_least:g} (raw {said}, {rest})"
        )

    def _uncalibrated(self, a: Annotation, n: int) -> Decision:
        short = f"{n} of {self.fewest} answers of people to calibrate it by"
        if a.confidence is None:
            return Decision(a.item, "hold", None, f"no confidence was given, and there are {short}")
        if a.kind == "stated":
            return Decision(a.item, "hold", a.confidence, f"{HEARSAY}; {short}: stated {a.confidence:.3f}")
        sign, verdict = self._verdict(a.confidence)
        reason = f"raw {a.kind} confidence {a.confidence:.3f} {sign} {self.at_least:g}, with {short}"
        return Decision(a.item, verdict, a.confidence, reason)

    def _verdict(self, value: float) -> tuple[str, Literal["accept", "hold"]]:
        return (">=", "accept") if value >= self.at_least else ("<", "hold")


def _raw(a: Annotation) -> float:
    return NEUTRAL if a.confidence is None else a.confidence


def _no_label(a: Annotation) -> Decision:
    return Decision(a.item, "hold", None, WHY[a.status])
