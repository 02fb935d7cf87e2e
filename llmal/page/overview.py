"""What a run's store says in counts: labels, rounds, failures, rows set aside, and what to do next."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.corpus import shown
from llmal.records import Decision, Labels, LabelSchema, Route
from llmal.route.promise import of_facts
from llmal.spec import Pipeline
from llmal.state import Outcome, Recipes
from llmal.store import schema as t
from llmal.store.store import Store

ASIDE = 20
"""Rows set aside that are named one by one."""

FLAGGED = 20
"""Flagged texts that are named one by one."""


class Given(NamedTuple):
    """What the run says of every item, read once: routes, and what people hold together."""

    routes: dict[int, Route]
    answers: dict[int, Labels]


def counts(pipeline: Pipeline, store: Store, names: Recipes, done: Outcome, given: Given) -> dict[str, Any]:
    """Everything but what is measured: how labels came about, and what went wrong on the way."""
    a = t.annotation.c
    found: dict[str, Any] = {
        "classes": classes(pipeline.label_schema(), given),
        "people": people(store, pipeline.label_schema(), done, given),
        "rounds": rounds(store, names.annotations, names.decisions),
        "annotations": store.tally(a.status, a.recipe == names.annotations),
        "not_accepted": not_accepted(store, names.decisions),
        "failures": failures(store),
        "set_aside": [
            {"id": r.id, "position": r.position, "reason": r.skipped} for r in store.set_aside()[:ASIDE]
        ],
    }
    return found | {"next": next_steps(done, found, pipeline)}


def classes(schema: LabelSchema, given: Given) -> list[dict[str, Any]]:
    """How many items carry each label, by who gave it; `open` where only a guess stands."""
    sums: dict[str, Counter[str]] = {name: Counter() for name in schema.names}
    for s, r in given.routes.items():
        who = "human" if s in given.answers else ("open" if r.who == "person" else r.who)
        for label in given.answers.get(s, r.labels):
            if label in sums:
                sums[label][who] += 1
    return [
        {"label": name, **{w: sums[name][w] for w in ("human", "llm", "student", "open")}}
        for name in schema.names
    ]


def people(store: Store, schema: LabelSchema, done: Outcome, given: Given) -> dict[str, Any]:
    """Answers people gave, where the audit sample's come from, what they flagged, and who they are."""
    from llmal.review.people import crew

    answers, audit = given.answers, set(store.active(store.audit()))
    gold = store.gold(audit)
    flags = store.flagged()
    ids = store.ids(list(flags)[:FLAGGED])
    return {
        "answers": store.n_words(),
        "texts": len(answers),
        "waiting": done.waiting,
        "audit": len(audit),
        "audit_by_people": len(audit & answers.keys()),
        "audit_by_gold": len((audit & gold.keys()) - answers.keys()),
        "flagged": len(flags),
        "flags": [{"id": ids[s], "note": flags[s]} for s in ids],
        "crew": crew(store, schema),
    }


def rounds(store: Store, annotations: str, decisions: str) -> list[dict[str, Any]]:
    """What each round picked, got answered and accepted."""
    a, d = t.annotation.c, t.decision.c
    given = {s for (s,) in store.tuples(sa.select(a.item).where(a.recipe == annotations))}
    passed = (d.recipe == decisions, d.verdict == "accept")
    accepted = {s for (s,) in store.tuples(sa.select(d.item).where(*passed))}
    out = []
    for n, by, count in store.read(
        sa.select(t.pick.c.round, t.pick.c.by, sa.func.count())
        .group_by(t.pick.c.round, t.pick.c.by)
        .order_by(t.pick.c.round)
    ):
        items = store.picks(n)
        out.append(
            {
                "round": n + 1,
                "by": by,
                "picked": count,
                "answered": sum(s in given for s in items),
                "accepted": sum(s in accepted for s in items),
            }
        )
    return out


def not_accepted(store: Store, decisions: str) -> dict[str, int]:
    """Reason, without its numbers -> annotations held or dropped for it."""
    held: dict[str, int] = {}
    for d in store.decisions(decisions).values():
        if d.verdict != "accept":
            words = _why_held(d)
            held[words] = held.get(words, 0) + 1
    return held


def _why_held(d: Decision) -> str:
    """A reason without its numbers, so that equal ones can be counted."""
    why, hearsay, _ = d.reason.rpartition(": stated ")
    if d.score is None or hearsay:
        return why or d.reason
    of_confidence = "calibrated " in d.reason or " confidence " in d.reason
    return "confidence below filter.at_least" if of_confidence else "doubtful beside the other answers"


def failures(store: Store) -> dict[str, int]:
    """Reason -> calls that ended without an answer."""
    o = t.outcome.c
    return {
        r: n
        for r, n in store.read(
            sa.select(o.reason, sa.func.count()).where(o.status != "ok").group_by(o.reason)
        )
    }


def next_steps(done: Outcome, found: dict[str, Any], pipeline: Pipeline) -> list[str]:
    """What would help most, most valuable first."""
    said = []
    if not done.measures and pipeline.audit.size:
        said.append("Nothing is measured yet: answer the audit items (`llmal review RUN --out audit.csv`).")
    if done.waiting:
        said.append(
            f"{done.waiting} items wait for people: "
            "`llmal review RUN --out todo.csv`, fill in, `--in todo.csv`."
        )
    said += _about_people(done, found["people"])
    accuracy = done.measures.get("student.accuracy")
    if accuracy and accuracy["high"] - accuracy["low"] > 0.1:
        wider = int(accuracy["n"] * ((accuracy["high"] - accuracy["low"]) / 0.1) ** 2)
        said.append(
            f"The accuracy's interval is wide; about {wider} audit items would narrow it to 10 points."
        )
    failed = found["annotations"].get("failed", 0)
    if failed:
        said.append(
            f"{failed} items' calls failed for good: `llmal run FILE --retry-failed` asks them again."
        )
    return said


def _about_people(done: Outcome, people: dict[str, Any]) -> list[str]:
    """What people's own words ask for: somebody in doubt, disputes, holes in the audit sample."""
    crew = people["crew"]
    said = [
        f"Look at the answers of {shown(p['name'])}: {shown(p['warning'], limit=200)}."
        for p in crew["people"]
        if p["warning"]
    ]
    if crew["disputes"]:
        said.append(
            f"People differ on {crew['disputes']:,} texts: "
            "`llmal review RUN` shows them to whoever settles disputes."
        )
    if done.holes.n:
        said.append(
            f"{done.holes.n:,} audit texts were put off and have no answer: let somebody else answer them, "
            "or say in the guidelines what such texts are."
        )
    return said


def promise(done: Outcome, pipeline: Pipeline) -> dict[str, str]:
    """What is promised about people's answers, or why nothing is.

    Returns:
        `state` (none, refused, valid or withdrawn) and `words`.
    """
    found = done.certificate
    if found is None:
        return {"state": "none", "words": _uncertified(pipeline)}
    if found["withdrawn"]:
        return {"state": "withdrawn", "words": found["words"]}  # they say why
    return {"state": "valid" if of_facts(found).holds else "refused", "words": found["words"]}


def _uncertified(pipeline: Pipeline) -> str:
    used = pipeline.route.name
    if pipeline.route.uses:
        return "No certificate yet: the run has not come to routing with answers on the audit sample."
    return (
        f"No certificate was asked for: the file routes by `{used}`, which promises nothing. "
        "`route: {use: certified, target: 0.95}` asks for one."
    )
