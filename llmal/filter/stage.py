"""The filter stage: the protocol of a filter, and one decision an annotation."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import ClassVar

from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import Annotation, Decision, LabelSchema, Tally, recipe
from llmal.store import schema as t
from llmal.store.store import Store


class Filter(Plugin):
    """Says of each annotation whether it may train: accept, hold for a person, or drop.

    Contract (tested for every filter): one decision an annotation; an annotation without a label is never
    accepted; raising a confidence never turns an accept into anything else; every reason is filled; the score
    that decided is kept, so that a threshold can be moved without asking again.
    """

    group: ClassVar[str] = "filter"

    def recipe_for(self, annotations: str) -> str:
        """Hash of the filter and of the annotations it judges."""
        return recipe("decision", self.recipe(), annotations)

    @abstractmethod
    def decide(self, annotations: list[Annotation], schema: LabelSchema) -> list[Decision]:
        """One decision for each annotation, in order."""


def run(judge: Filter, store: Store, ctx: Context, *, schema: LabelSchema, annotations: str) -> Tally:
    """Decide on every annotation that has no decision under the current recipe.

    Args:
        judge: the filter.
        store: of the run.
        ctx: shared context (filters draw no randomness today).
        schema: the classes.
        annotations: recipe of the annotations.

    Returns:
        Decisions wanted and new; the note counts the verdicts.
    """
    name = judge.recipe_for(annotations)
    given = store.annotations(annotations)
    have = store.decisions(name)
    fresh = [given[s] for s in sorted(given) if s not in have]
    made = judge.decide(fresh, schema)
    new = store.add(t.decision, [{**d._asdict(), "recipe": name} for d in made])
    counts = Counter(d.verdict for d in made)
    words = [f"{counts['accept']} accepted", f"{counts['hold']} held", f"{counts['drop']} dropped"]
    return Tally(len(given), new, ", ".join(words) if made else "")
