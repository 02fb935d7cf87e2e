"""Holes in the audit sample: texts that people saw and did not answer, and what that does to numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmal.audit import known_answers
from llmal.records import LabelSchema
from llmal.store.store import Store

MEASURES = {
    "student.accuracy": "the classifier's accuracy",
    "accepted.accuracy": "the accuracy of the labels that machines gave",
    "annotator.accuracy": "the annotator's accuracy",
}
"""Plain shares of answered texts, for which the worst case is counted in the head."""


class Holes(NamedTuple):
    """Audit texts that somebody put off and nobody answered.

    Attributes:
        unsure: of which a person said "not sure".
        skipped: that were passed over, and no more.
        known: audit texts with an answer, of people or of the file's gold.
        of: audit texts in all; the others wait for their turn.
    """

    unsure: int = 0
    skipped: int = 0
    known: int = 0
    of: int = 0

    @property
    def n(self) -> int:
        """Texts that are missing for a reason: which they are is no chance."""
        return self.unsure + self.skipped

    def bounds(self, measures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
        """Measure -> `low` were the answer to every hole wrong, and `high` were all of them right.

        A measure over a part of the sample, such as the labels that were accepted, counts all holes as of
        that part: it can be no worse and no better than that.
        """
        found = {}
        for name in MEASURES:
            m = measures.get(name)
            if self.n and m and m["value"] is not None:
                right, n = m["value"] * m["n"], m["n"] + self.n
                found[name] = {"low": right / n, "high": (right + self.n) / n}
        return found

    def words(self, measures: Mapping[str, Mapping[str, Any]]) -> str:
        """What it means for the measures, in sentences; empty where there is no hole."""
        if not self.n:
            return ""
        why = [f"were not sure of {self.unsure:,}"] if self.unsure else []
        why += [f"passed over {self.skipped:,}"] if self.skipped else []
        said = (
            f"{self.n:,} of {self.of:,} audit texts have no answer: people {' and '.join(why)}. "
            f"Every measure, and every promise, is about the {self.known:,} answered ones alone, "
            "and hard texts are likelier to be missing."
        )
        for name, bound in self.bounds(measures).items():
            said += (
                f" Counting them, {MEASURES[name]} is {bound['low']:.3f} if all are wrong and "
                f"{bound['high']:.3f} if all are right, beside {measures[name]['value']:.3f}."
            )
        return said

    def as_json(self, measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "unsure": self.unsure,
            "skipped": self.skipped,
            "answered": self.known,
            "audit": self.of,
            "bounds": self.bounds(measures),
            "words": self.words(measures),
        }


WHOLE = Holes()
"""A sample without any."""


def holes(store: Store, schema: LabelSchema) -> Holes:
    """The holes in a run's audit sample, as it stands in the newest corpus."""
    audit = store.active(store.audit())
    known = known_answers(store, schema)
    why = store.put_off(audit)
    left = [why[s] for s in audit if s in why and s not in known]
    return Holes(left.count("unsure"), left.count("skip"), len(known), len(audit))
