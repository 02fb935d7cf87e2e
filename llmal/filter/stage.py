"""The filter stage: the protocol of a filter, and one decision an annotation."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import ClassVar, NamedTuple

from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import Annotation, Decision, LabelSchema, Tally, recipe
from llmal.store import schema as t
from llmal.store.store import Store


class Checked(NamedTuple):
    """An annotation beside people's answer about the same item.

    Attributes:
        annotation: what the annotator said; it carries a label.
        right: whether people gave the same labels.
        drawn: whether the item was drawn at random (audit sample) rather than shown to people for a reason.
    """

    annotation: Annotation
    right: bool
    drawn: bool


class Evidence(NamedTuple):
    """What a filter may look up beside the annotations; a field is filled for filters that use it.

    Attributes:
        people: annotations that people's answers, or the gold of audit items, tell right from wrong, by item.
    """

    people: tuple[Checked, ...] = ()


NOTHING = Evidence()
"""No evidence: what a filter gets that uses none."""


class Filter(Plugin):
    """Says of each annotation whether it may train: accept, hold for a person, or drop.

    Contract (tested for every filter): one decision an annotation; an annotation without a label is never
    accepted; raising a confidence never turns an accept into anything else; every reason is filled; the score
    that decided is kept, so that a threshold can be moved without asking again; the recipe follows the
    evidence where, and only where, the filter uses it.

    Attributes:
        uses: fields of `Evidence` that the decisions rest on.
    """

    group: ClassVar[str] = "filter"
    uses: ClassVar[frozenset[str]] = frozenset()

    def recipe_for(self, annotations: str, evidence: Evidence = NOTHING) -> str:
        """Hash of the filter, of the annotations it judges, and of the evidence it uses."""
        rests_on = [[field, getattr(evidence, field)] for field in sorted(self.uses)]
        return recipe("decision", self.recipe(), annotations, *rests_on)

    @abstractmethod
    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""


def evidence_for(judge: Filter, store: Store, *, schema: LabelSchema, annotations: str) -> Evidence:
    """What the store holds of the evidence that a filter uses; nothing is read for one that uses none."""
    if "people" not in judge.uses:
        return NOTHING
    given = store.annotations(annotations)
    answers, gold, active = store.answers(schema.names), store.gold(), set(store.active())
    drawn = set(store.audit())
    truth = {s: labels for s, labels in gold.items() if s in drawn} | answers
    return Evidence(
        tuple(
            Checked(given[s], set(given[s].labels) == set(truth[s]), s in drawn)
            for s in sorted(truth)
            if s in active and s in given and given[s].status == "ok"
        )
    )


def decision_recipe(judge: Filter, store: Store, *, schema: LabelSchema, annotations: str) -> str:
    """Name of the decisions that the filter makes of the annotations, given what the store holds now."""
    found = evidence_for(judge, store, schema=schema, annotations=annotations)
    return judge.recipe_for(annotations, found)


def run(judge: Filter, store: Store, ctx: Context, *, schema: LabelSchema, annotations: str) -> Tally:
    """Decide on every annotation that has no decision under the current recipe.

    Args:
        judge: the filter.
        store: of the run.
        ctx: shared context (filters draw no randomness of their own).
        schema: the classes.
        annotations: recipe of the annotations.

    Returns:
        Decisions wanted and new; the note counts the verdicts.
    """
    evidence = evidence_for(judge, store, schema=schema, annotations=annotations)
    name = judge.recipe_for(annotations, evidence)
    given = store.annotations(annotations)
    have = store.decisions(name)
    fresh = [given[s] for s in sorted(given) if s not in have]
    made = judge.decide(fresh, schema, evidence)
    new = store.add(t.decision, [{**d._asdict(), "recipe": name} for d in made])
    counts = Counter(d.verdict for d in made)
    words = [f"{counts['accept']} accepted", f"{counts['hold']} held", f"{counts['drop']} dropped"]
    return Tally(len(given), new, ", ".join(words) if made else "")
