"""The route stage: the protocol of a router, what it promises, and one route an item."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import sqlalchemy as sa

from llmal.answers import best
from llmal.audit import counts_since, known_answers
from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import ANSWERED, Labels, LabelSchema, Route, Tally, canonical, recipe, unasked
from llmal.route import drift
from llmal.route.evidence import Audited as Audited
from llmal.route.evidence import Case as Case
from llmal.route.evidence import Evidence as Evidence
from llmal.route.evidence import Sources as Sources
from llmal.route.evidence import evidence_for, learnt_from
from llmal.route.model import answers_of, asked_about
from llmal.route.model import rests_on as model_rests_on
from llmal.route.promise import Bar as Bar
from llmal.route.promise import Promise as Promise
from llmal.route.promise import of_facts
from llmal.store import schema as t
from llmal.store.store import Store


class Router(Plugin):
    """Decides who answers each item.

    A router that promises something about people's answers names the evidence it `uses`, makes its promise
    from it once, and routes by that promise whatever it is asked about, later or again.

    Contract (tested for every router): one route an item; an item routed to student or llm carries that
    answer; raising the student's confidence never moves an item from a machine to a person; every reason is
    filled; the recipe of the routes follows the evidence where, and only where, the router uses it; without
    a promise that holds, one that uses evidence accepts nothing from a machine but what it was taught with.

    Attributes:
        uses: `audited` (people's answers on audit items), and `llm` where the annotator's answers count too.
    """

    group: ClassVar[str] = "route"
    uses: ClassVar[frozenset[str]] = frozenset()

    def refuse_other_kinds(self, schema: LabelSchema) -> None:
        """Raise SpecError where the router cannot work with such labels; called before anything is paid."""

    def promise(self, evidence: Evidence) -> Promise | None:
        """What is promised given this evidence; None for a router that promises nothing."""
        return None

    def asks(self, cases: list[Case], promise: Promise | None) -> list[int]:
        """Items the annotator has to be asked about before they can be routed; none unless overridden."""
        return []

    @abstractmethod
    def route(self, cases: list[Case], promise: Promise | None = None) -> list[Route]:
        """One route for each case, in order."""


class Names(NamedTuple):
    """Recipes of a certificate, empty for a router that promises nothing, and of the routes."""

    certificate: str
    route: str


def names_of(router: Router, store: Store, sources: Sources, *, schema: LabelSchema) -> Names:
    """Names of what the router promises and decides, given what the store holds now.

    A certificate is named after all that its test depends on, so a test is never made twice, and never
    counted twice.
    """
    answers = store.answers(schema.names)
    certificate = ""
    if router.uses:
        since = counts_since(store)
        known = known_answers(store, schema, since=since)
        rests_on = [sources.predictions, since, sorted(known.items())]
        if "llm" in router.uses:
            rests_on += [sources.annotations, model_rests_on(store, sources.annotations, known)]
        certificate = recipe("certificate", router.recipe(), schema.recipe(), canonical(rests_on))
    name = route_recipe(router, sources.predictions, sources.decisions, answers, certificate)
    if "llm" in router.uses:  # an answer that routing asked for is one more item the annotator can be given
        name = recipe("route", name, model_rests_on(store, sources.annotations))
    return Names(certificate, name)


def route_recipe(
    router: Router, student: str, decisions: str, answers: dict[int, Labels], certificate: str = ""
) -> str:
    """Hash of router, student, accepted annotations and people's answers, and of a certificate if any."""
    promised = [certificate] if certificate else []
    return recipe("route", router.recipe(), student, decisions, canonical(sorted(answers.items())), *promised)


def promised(store: Store, certificate: str) -> Promise | None:
    """The promise of a certificate, None where there is none yet."""
    found = store.certificate(certificate) if certificate else None
    return None if found is None else of_facts(found)


def run(
    router: Router,
    store: Store,
    ctx: Context,
    *,
    schema: LabelSchema,
    predictions: str,
    annotations: str,
    decisions: str,
    out_of_sample: bool = False,
    vectors: str = "",
    peeked: str = "",
) -> Tally:
    """Make the router's promise where it is not made yet, and route every item that has no route under it.

    An audit item that a person answered keeps that answer; what a machine would have done with any audit item
    is kept beside, under `unasked`, because that is what the audit sample measures. It is routed there as a
    text nobody picked would be: without an annotation, unless the annotator was asked about every item of the
    corpus. Promise and routes are one transaction.

    Args:
        router: the plug-in.
        store: of the run.
        ctx: shared context.
        schema: the classes.
        predictions: recipe of the final student's predictions, or of those out of sample where there are.
        annotations: recipe of the annotations.
        decisions: recipe of the filter's word on the annotations.
        out_of_sample: see `Sources`, and so are the others.
        vectors: recipe of the items' vectors.
        peeked: what else looked at people's answers on audit items.

    Returns:
        Routes wanted and new; the note counts who answers.
    """
    sources = Sources(predictions, annotations, decisions, out_of_sample, vectors, peeked)
    answers = store.answers(schema.names)
    names, promise, certificates = _in_force(router, store, sources, schema)
    active = store.active()
    c = t.route.c
    have = {s for (s,) in store.tuples(sa.select(c.item).where(c.recipe == names.route))}
    fresh = [s for s in active if s not in have]
    if not fresh and not certificates:
        return Tally(len(active), 0)
    cases = _cases(router, store, sources, fresh, schema)
    machine = [case for case in cases if case.item not in answers]
    routes = [Route(s, "person", answers[s], 1.0, ANSWERED) for s in fresh if s in answers]
    routes += router.route(machine, promise)
    audited = set(store.audit())
    unpicked = [case._replace(learnt=False) for case in cases if case.item in audited]
    if not store.annotations(sources.annotations).keys() >= set(active):
        unpicked = [case._replace(annotation=None) for case in unpicked]
    as_if = router.route(unpicked, promise)
    with store.begin() as db:  # what is measured first: the routes that count are then always the newest
        store.add(t.certificate, certificates, db=db)
        store.add(t.route, _facts(unasked(names.route), as_if), db=db)
        new = store.add(t.route, _facts(names.route, routes), db=db)
    who = [r.who for r in routes]
    return Tally(len(active), new, ", ".join(f"{who.count(w)} {w}" for w in ("student", "llm", "person")))


def to_ask(router: Router, store: Store, sources: Sources, *, schema: LabelSchema) -> list[int]:
    """Items the annotator has to be asked about before they can be routed, in the order to ask in.

    Makes the router's promise where it is not made yet, and keeps it: what is asked follows from it, so that
    a run that is cut off goes on under the same promise.

    Args:
        router: the plug-in.
        store: of the run.
        sources: names of what routes follow from.
        schema: the classes.
    """
    if "llm" not in router.uses:
        return []
    _, promise, certificates = _in_force(router, store, sources, schema)
    store.add(t.certificate, certificates)
    done = store.answers(schema.names).keys() | asked_about(store, sources.annotations)
    rest = [s for s in store.active() if s not in done]
    return router.asks(_cases(router, store, sources, rest, schema), promise) if rest else []


def _in_force(
    router: Router, store: Store, sources: Sources, schema: LabelSchema
) -> tuple[Names, Promise | None, list[dict[str, Any]]]:
    """Names, promise and rows of a new one, after texts that came too late to be audited were looked at."""
    names = names_of(router, store, sources, schema=schema)
    promise, rows = _promise(router, store, sources, names.certificate, schema)
    seen = None
    if promise is not None and promise.holds:
        seen = drift.look(store, sources, names.certificate, schema=schema)
    if seen is None:
        return names, promise, rows
    with store.begin() as db:
        store.add(t.certificate, rows, db=db)
        store.add(t.look, [seen.row], db=db)
        if seen.reason:
            ended = {"certificate": names.certificate, "reason": seen.reason, "at": time.time()}
            store.add(t.withdrawal, [ended], db=db)
    if not seen.reason:
        return names, promise, []
    names = names_of(router, store, sources, schema=schema)
    return names, *_promise(router, store, sources, names.certificate, schema)


def _promise(
    router: Router, store: Store, sources: Sources, certificate: str, schema: LabelSchema
) -> tuple[Promise | None, list[dict[str, Any]]]:
    """The promise, kept or made now, and the rows of a new one."""
    promise = promised(store, certificate)
    if promise is not None or not certificate:
        return promise, []
    answered, llm = store.answers(schema.names).keys(), "llm" in router.uses
    evidence = evidence_for(store, sources, schema=schema, answered=answered, llm=llm)
    promise = router.promise(evidence)
    if promise is None:
        return None, []
    if evidence.withdrawn:
        promise = promise._replace(withdrawn=evidence.withdrawn)
    if promise.holds and sources.peeked:
        promise = promise._replace(words=f"{promise.words} {sources.peeked}")
    return promise, [_certificate(certificate, promise)]


def _cases(
    router: Router, store: Store, sources: Sources, items: list[int], schema: LabelSchema
) -> list[Case]:
    given = store.annotations(sources.annotations)
    accepted = {s for s, d in store.decisions(sources.decisions).items() if d.verdict == "accept"}
    learnt = learnt_from(store, sources)
    llm = answers_of(store, sources.annotations) if "llm" in router.uses else {}
    probs = np.asarray(store.load(sources.predictions)[items])
    return [
        Case(s, *best(row, schema), given[s] if s in accepted else None, s in learnt, llm.get(s))
        for s, row in zip(items, probs, strict=True)
    ]


def _certificate(name: str, promise: Promise) -> dict[str, Any]:
    facts = promise.facts()
    return {"recipe": name, "issue": promise.issue, "facts": facts, "words": promise.words, "at": time.time()}


def _facts(name: str, routes: list[Route]) -> list[dict[str, Any]]:
    return [{**r._asdict(), "labels": canonical(r.labels), "recipe": name} for r in routes]
