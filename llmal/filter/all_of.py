"""Several filters at once: only what every one of them accepts may train."""

from __future__ import annotations

from pydantic import Field

from llmal.filter.stage import NOTHING, Evidence, Filter
from llmal.plugins import slot
from llmal.records import Annotation, Decision, Kind, LabelSchema


class All(Filter):
    """Accept what all filters accept, each judging alone; the first that does not accept has the word.

    One that drops an annotation goes before one that holds it. The score kept is that of the filter that had
    the word; the first one's where all accept. Source: ours.
    """

    of: tuple[slot("filter"), ...] = Field(  # type: ignore[valid-type]
        min_length=2, description="the filters, each a name or a mapping with `use`"
    )

    @property
    def uses(self) -> frozenset[str]:  # type: ignore[override]
        """What any of the filters uses."""
        return frozenset().union(*(one.uses for one in self.of))

    @property
    def kinds(self) -> frozenset[Kind]:  # type: ignore[override]
        """Kinds of labels that all of the filters judge."""
        return frozenset.intersection(*(one.kinds for one in self.of))

    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""
        self.refuse_other_kinds(schema)
        made = [one.decide(annotations, schema, evidence) for one in self.of]
        return [self._decide(list(each)) for each in zip(*made, strict=True)]

    def _decide(self, each: list[Decision]) -> Decision:
        for verdict in ("drop", "hold"):
            for one, d in zip(self.of, each, strict=True):
                if d.verdict == verdict:
                    return d._replace(reason=f"[{one.name}] {d.reason}")
        reasons = [f"[{one.name}] {d.reason}" for one, d in zip(self.of, each, strict=True)]
        score = next((d.score for d in each if d.score is not None), None)
        return each[0]._replace(score=score, reason="; ".join(reasons))
