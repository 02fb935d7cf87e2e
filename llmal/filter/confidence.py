"""Accept what the annotator is sure of, by its own raw confidence."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmal.filter.stage import NOTHING, Evidence, Filter
from llmal.records import Annotation, Decision, LabelSchema

WHY = {
    "abstained": "the annotator declined",
    "unparsed": "the answer could not be read",
    "off_list": "the answer is outside the labels",
    "refused": "the model refused",
    "filtered": "the provider's content filter stopped the answer",
    "length": "the answer was cut off",
    "failed": "the call failed",
    "suspect": "the text looks as if it told the annotator what to answer",
}
"""Status -> why an annotation carries no label."""

HEARSAY = "a model's word for its own sureness never accepts alone"
"""Text inside an item can talk a model into any number it states of itself."""


class Confidence(Filter):
    """Accept from a raw confidence upward, hold the rest.

    A confidence that a model states of itself accepts nothing here: the filter `calibrated` weighs it against
    people's answers. Source: selective classification, Chow 1970.
    """

    at_least: float = Field(0.8, ge=0, le=1, description="lowest confidence that may train")
    unknown: Literal["hold", "accept"] = Field(
        "hold", description="answers without any confidence: endpoints without log-probabilities give none"
    )

    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""
        return [self._decide(a) for a in annotations]

    def _decide(self, a: Annotation) -> Decision:
        if a.status != "ok":
            return Decision(a.item, "hold", None, WHY[a.status])
        if a.confidence is None:
            verdict: Literal["accept", "hold"] = "accept" if self.unknown == "accept" else "hold"
            return Decision(
                a.item, verdict, None, f"no confidence was given; filter.unknown is {self.unknown}"
            )
        if a.kind == "stated":
            reason = f"{HEARSAY}; the filter `calibrated` weighs it against people's answers: stated"
            return Decision(a.item, "hold", a.confidence, f"{reason} {a.confidence:.3f}")
        sure = a.confidence >= self.at_least
        sign = ">=" if sure else "<"
        reason = f"{a.kind} confidence {a.confidence:.3f} {sign} {self.at_least:g}"
        return Decision(a.item, "accept" if sure else "hold", a.confidence, reason)
