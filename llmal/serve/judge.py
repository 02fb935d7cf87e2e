"""Whether a language model's answer stands: by the certificate, else by the run's filter."""

from __future__ import annotations

from typing import NamedTuple

from llmal.filter.confidence import WHY, Confidence
from llmal.filter.stage import NOTHING, Evidence, Filter
from llmal.records import Annotation, LabelSchema
from llmal.serve.promise import Terms

STANDARD = 0.8
"""Least confidence where the filter names none: the default of `filter: confidence`."""


class Verdict(NamedTuple):
    """Whether an answer stands, how sure it is, why, and whether the certificate says so.

    The confidence is calibrated where the filter does that, and as the model gave it under a certificate.
    """

    stands: bool
    confidence: float | None
    reason: str
    promised: bool = False


class Judge:
    """Judges one answer at a time.

    A filter that weighs people's answers keeps those of the run, as they were when the server started. One
    that compares answers with their neighbours cannot judge a single one: its `at_least` then decides on the
    model's own confidence.

    Args:
        terms: of the export.
        judge: the run's filter.
        schema: the classes.
        evidence: people's answers of the run, for a filter that uses them.
    """

    def __init__(
        self, terms: Terms, judge: Filter, schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> None:
        self._terms, self._schema, self._evidence = terms, schema, evidence
        alone = not judge.uses - {"people"}
        self._judge = judge if alone else Confidence(at_least=getattr(judge, "at_least", STANDARD))

    def verdict(self, answer: Annotation) -> Verdict:
        """Whether an annotation stands as the answer to a client."""
        if answer.status != "ok":
            return Verdict(False, None, f"the language model gave no answer to go by: {WHY[answer.status]}")
        if self._terms.promises_llm:
            return self._certified(answer)
        # No item of the run: an item's own answer would be left out when it is judged.
        decision = self._judge.decide([answer._replace(item=-1)], self._schema, self._evidence)[0]
        sure = decision.score if self._judge.calibrates else answer.confidence
        stands = decision.verdict == "accept"
        return Verdict(stands, sure, f"the language model's answer: {decision.reason}")

    def _certified(self, answer: Annotation) -> Verdict:
        """By the bar that was tested, which is about the confidence as the model gave it, 0 for none."""
        bar, sure = self._terms.bar("llm", answer.labels), answer.confidence or 0.0
        if bar is not None and sure >= bar:
            return Verdict(True, sure, f"the language model's {sure:.4f} >= {bar:.4f}, as certified", True)
        words = "never certified" if bar is None else f"{sure:.4f} < {bar:.4f}, as certified"
        return Verdict(False, sure, f"the language model's confidence is {words}")
