"""The route stage: the protocol of a router, and one route an item."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from llmal.answers import best
from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import Annotation, Labels, LabelSchema, Route, Tally, canonical, recipe, unasked
from llmal.store import schema as t
from llmal.store.store import Store


class Case(NamedTuple):
    """One item as a router sees it.

    Attributes:
        item: its `seq`.
        labels, confidence: the student's answer and its probability of being right.
        annotation: the accepted annotation, or None.
    """

    item: int
    labels: Labels
    confidence: float
    annotation: Annotation | None


class Router(Plugin):
    """Decides who answers each item.

    Contract (tested for every router): one route an item; an item routed to student or llm carries that
    answer; raising the student's confidence never moves an item from a machine to a person; every reason is
    filled.
    """

    group: ClassVar[str] = "route"

    @abstractmethod
    def route(self, cases: list[Case]) -> list[Route]:
        """One route for each case, in order."""


def route_recipe(router: Router, student: str, decisions: str, answers: dict[int, Labels]) -> str:
    """Hash of router, student, accepted annotations and people's answers."""
    return recipe("route", router.recipe(), student, decisions, canonical(sorted(answers.items())))


def run(
    router: Router,
    store: Store,
    ctx: Context,
    *,
    schema: LabelSchema,
    student: str,
    annotations: str,
    decisions: str,
) -> Tally:
    """Route every item of the corpus that has no route under the current recipe.

    An audit item that a person answered keeps that answer; what a machine would have done with it is kept
    beside, under `unasked`, because that is what the audit sample measures.

    Args:
        router: the plug-in.
        store: of the run.
        ctx: shared context.
        schema: the classes.
        student: recipe of the predictions: the final student's, or those out of sample where there are.
        annotations: recipe of the annotations.
        decisions: recipe of the filter's word on the annotations.

    Returns:
        Routes wanted and new; the note counts who answers.
    """
    answers = store.answers(schema.names)
    name = route_recipe(router, student, decisions, answers)
    active = store.active()
    have = store.routes(name)
    fresh = [s for s in active if s not in have]
    if not fresh:
        return Tally(len(active), 0)
    given = store.annotations(annotations)
    accepted = {s for s, d in store.decisions(decisions).items() if d.verdict == "accept"}
    probs = np.asarray(store.load(student)[fresh])
    cases = [
        Case(s, *best(row, schema), given[s] if s in accepted else None)
        for s, row in zip(fresh, probs, strict=True)
    ]
    machine = [case for case in cases if case.item not in answers]
    routes = [Route(s, "person", answers[s], 1.0, "a person answered") for s in fresh if s in answers]
    routes += router.route(machine)
    audited = answers.keys() & set(store.audit())
    as_if = router.route([case for case in cases if case.item in audited])
    with store.begin() as db:  # what is measured first: the routes that count are then always the newest
        store.add(t.route, _facts(unasked(name), as_if), db=db)
        new = store.add(t.route, _facts(name, routes), db=db)
    who = [r.who for r in routes]
    return Tally(len(active), new, ", ".join(f"{who.count(w)} {w}" for w in ("student", "llm", "person")))


def _facts(name: str, routes: list[Route]) -> list[dict[str, Any]]:
    return [{**r._asdict(), "labels": canonical(r.labels), "recipe": name} for r in routes]
