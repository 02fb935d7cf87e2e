"""One threshold on the student's probability; no promise, but plain."""

from __future__ import annotations

from pydantic import Field

from llmal.records import Route
from llmal.route.stage import Case, Promise, Router


class Threshold(Router):
    """Accepted annotations stand; else the student from a probability upward; else a person.

    Source: Chow 1970.
    """

    at_least: float = Field(0.9, ge=0, le=1, description="lowest student probability that needs no person")

    def route(self, cases: list[Case], promise: Promise | None = None) -> list[Route]:
        """One route for each case, in order."""
        return [self._route(case) for case in cases]

    def _route(self, case: Case) -> Route:
        a = case.annotation
        if a is not None:
            return Route(case.item, "llm", a.labels, a.confidence, "an accepted annotation")
        sure = case.confidence >= self.at_least
        reason = f"student probability {case.confidence:.3f} {'>=' if sure else '<'} {self.at_least:g}"
        return Route(case.item, "student" if sure else "person", case.labels, case.confidence, reason)
