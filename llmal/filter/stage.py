"""The filter stage: the protocol of a filter, and one decision an annotation."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.context import Context
from llmal.errors import SpecError
from llmal.plugins import Plugin
from llmal.records import Annotation, Decision, Kind, LabelSchema, Tally, recipe
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


class Peers(NamedTuple):
    """Every answer with a label so far, beside the vectors of the items.

    Attributes:
        name: hash of all below: which items, their labels, which are reserved, and the vectors' recipe.
        annotations: n annotations with a label, by item.
        reserved: items of the audit sample; their answers teach no student.
        vectors: gives (n, d) float32 unit rows, one an annotation; read from disk only when called.
        keep: what a filter computed of all this under a name: looked up where it was computed before, else
            made, (n, anything) float32, and kept for the next filter or threshold.
    """

    name: str
    annotations: tuple[Annotation, ...]
    reserved: frozenset[int]
    vectors: Callable[[], NDArray[np.float32]]
    keep: Callable[[str, Callable[[], NDArray[np.float32]]], NDArray[np.float32]] = lambda _, make: make()


class Evidence(NamedTuple):
    """What a filter may look up beside the annotations; a field is filled for filters that use it.

    Attributes:
        people: annotations that people's answers, or the gold of audit items, tell right from wrong, by item.
        peers: all answers so far and their vectors, whichever of them are to be judged now.
    """

    people: tuple[Checked, ...] = ()
    peers: Peers | None = None

    def named(self, field: str) -> Any:
        """What stands for a field in a recipe."""
        value = getattr(self, field)
        return value.name if isinstance(value, Peers) else value


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
        kinds: kinds of labels it can judge.
        calibrates: whether its scores are probabilities of being right.
    """

    group: ClassVar[str] = "filter"
    uses: ClassVar[frozenset[str]] = frozenset()
    kinds: ClassVar[frozenset[Kind]] = frozenset({"single", "multi"})
    calibrates: ClassVar[bool] = False

    def recipe_for(self, annotations: str, evidence: Evidence = NOTHING) -> str:
        """Hash of the filter, of the annotations it judges, and of the evidence it uses."""
        rests_on = [[field, evidence.named(field)] for field in sorted(self.uses)]
        return recipe("decision", self.recipe(), annotations, *rests_on)

    def refuse_other_kinds(self, schema: LabelSchema) -> None:
        """Raise SpecError where the filter cannot judge such labels; called before anything is paid."""
        if schema.kind not in self.kinds:
            kinds = " or ".join(sorted(self.kinds))
            raise SpecError(
                [f"filter: {self.name} is for labels.kind: {kinds}; use confidence or calibrated"]
            )

    @abstractmethod
    def decide(
        self, annotations: list[Annotation], schema: LabelSchema, evidence: Evidence = NOTHING
    ) -> list[Decision]:
        """One decision for each annotation, in order."""


def evidence_for(
    judge: Filter, store: Store, *, schema: LabelSchema, annotations: str, vectors: str = ""
) -> Evidence:
    """What the store holds of the evidence that a filter uses; nothing is read for one that uses none."""
    if not judge.uses:
        return NOTHING
    given = store.annotations(annotations)
    people = _checked(store, given, schema) if "people" in judge.uses else ()
    return Evidence(people, _peers(store, given, vectors) if "peers" in judge.uses else None)


def _checked(store: Store, given: dict[int, Annotation], schema: LabelSchema) -> tuple[Checked, ...]:
    answers, gold, active = store.answers(schema.names), store.gold(), set(store.active())
    drawn = set(store.audit())
    truth = {s: labels for s, labels in gold.items() if s in drawn} | answers
    unseen = store.reserved() - drawn  # answers to chosen test items measure alone
    return tuple(
        Checked(given[s], set(given[s].labels) == set(truth[s]), s in drawn)
        for s in sorted(truth.keys() - unseen)
        if s in active and s in given and given[s].status == "ok"
    )


def _peers(store: Store, given: dict[int, Annotation], vectors: str) -> Peers:
    said = tuple(given[s] for s in sorted(given) if given[s].status == "ok")
    items = [a.item for a in said]
    reserved = frozenset(store.reserved()).intersection(items)
    name = recipe("peers", vectors, [[a.item, a.labels, a.item in reserved] for a in said])

    def keep(what: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        place = recipe("of-peers", what, name)
        if not store.covered(place):
            store.put_block(place, 0, make())
        return np.asarray(store.load(place))

    return Peers(name, said, reserved, lambda: np.asarray(store.load(vectors)[items]), keep)


def decision_recipe(
    judge: Filter, store: Store, *, schema: LabelSchema, annotations: str, vectors: str = ""
) -> str:
    """Name of the decisions that the filter makes of the annotations, given what the store holds now.

    With a filter that uses peers the name follows every new answer: each round all answers are judged anew,
    and a run that has ended and is run again finds its decisions made.
    """
    found = evidence_for(judge, store, schema=schema, annotations=annotations, vectors=vectors)
    return judge.recipe_for(annotations, found)


def run(
    judge: Filter, store: Store, ctx: Context, *, schema: LabelSchema, annotations: str, vectors: str = ""
) -> Tally:
    """Decide on every annotation that has no decision under the current recipe.

    Args:
        judge: the filter.
        store: of the run.
        ctx: shared context (filters draw no randomness of their own).
        schema: the classes.
        annotations: recipe of the annotations.
        vectors: recipe of the items' vectors, for a filter that uses peers.

    Returns:
        Decisions wanted and new; the note counts the verdicts.
    """
    evidence = evidence_for(judge, store, schema=schema, annotations=annotations, vectors=vectors)
    name = judge.recipe_for(annotations, evidence)
    given = store.annotations(annotations)
    have = store.decisions(name)
    fresh = [given[s] for s in sorted(given) if s not in have]
    made = judge.decide(fresh, schema, evidence)
    new = store.add(t.decision, [{**d._asdict(), "recipe": name} for d in made])
    counts = Counter(d.verdict for d in made)
    words = [f"{counts['accept']} accepted", f"{counts['hold']} held", f"{counts['drop']} dropped"]
    return Tally(len(given), new, ", ".join(words) if made else "")
