"""What may train when nobody has said how to tell: what is sure enough, and no outlier beside the others."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from llmal.filter.confidence import Confidence
from llmal.filter.confident import Confident
from llmal.filter.error_rate import FEWEST_CHECKED, ErrorRate
from llmal.filter.peers import ByPeers
from llmal.filter.stage import NOTHING, Evidence, Filter
from llmal.records import Annotation, Decision, LabelSchema


class Auto(Filter):
    """Accepts what is sure enough and not doubtful beside the other answers. Source: ours.

    A confidence below `at_least` holds an answer, as with `confidence`; one that is missing, or that a model
    merely stated, says nothing. Whatever is left is judged by `error-rate` once people have answered 30 items
    a class of the audit sample that the annotator was asked about too (`audit: {annotate: true}`), by
    `confident` until then: with 16 a class `error-rate` found less than `confident` does without people. With
    fewer than 30 answers, with answers of one class, or with `kind: multi` nothing can be judged beside the
    others: it then is `confidence`, which holds answers without a confidence. The choice was made by
    tests/benchmarks/filters.py.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"peers", "people"})

    at_least: float = Field(
        0.8, ge=0, le=1, description="lowest confidence that may train, where one is given"
    )

    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""
        sure = Confidence(at_least=self.at_least).decide(annotations, schema)
        judge = self.judge(schema, evidence)
        if judge is None:
            return sure
        beside = judge.decide(annotations, schema, evidence)
        return [
            s
            if s.verdict != "accept" and (a.status != "ok" or _measured(a))
            else b._replace(reason=f"[{judge.name}] {b.reason}")
            for a, s, b in zip(annotations, sure, beside, strict=True)
        ]

    def judge(self, schema: LabelSchema, evidence: Evidence) -> ByPeers | None:
        """The filter that compares answers; None where there is nothing to compare."""
        few = FEWEST_CHECKED * len(schema.labels)
        judges = (ErrorRate(fewest=few), Confident()) if schema.kind == "single" else ()
        return next((one for one in judges if not one.unable(schema, evidence)), None)


def _measured(a: Annotation) -> bool:
    """Whether the annotation has a confidence that is more than a model's word."""
    return a.confidence is not None and a.kind != "stated"
