"""The facts of a report, as plain data: what report.json holds, and all that the page and the text show."""

from __future__ import annotations

import time
from typing import Any

import llmal
from llmal.context import Context
from llmal.page import overview
from llmal.page.plane import plane
from llmal.page.sample import UNMEASURED, measured, stated
from llmal.page.spending import spending
from llmal.page.words import percent
from llmal.records import recipe
from llmal.route.promise import of_facts
from llmal.spec import Pipeline
from llmal.state import Outcome, Recipes, outcome, recipes
from llmal.store import schema as t
from llmal.store.store import Store

FORMAT = "llmal.report"
VERSION = 1
"""Raised when a key of report.json changes its meaning or goes; new keys do not raise it."""

_OF_ONE_CALL = (
    "facts_added", "seconds", "stopped", "asked_again_after_a_crash", "answers_meanwhile", "waits"
)  # fmt: skip
"""Keys of an outcome that tell of one invocation, not of the run, or what to type where it is."""


def collect(pipeline: Pipeline, store: Store, ctx: Context) -> dict[str, Any]:
    """All facts of a report, from the store alone.

    Two reports of one state of a run differ in `made` only.
    """
    names = recipes(pipeline, ctx, store)
    done = outcome(pipeline, store, ctx, names=names)
    schema = pipeline.label_schema()
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "of": state_of(pipeline, store, names),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "llmal": llmal.__version__,
        "kind": schema.kind,
    }
    found |= {k: v for k, v in done.as_json().items() if k not in _OF_ONE_CALL}
    # A page goes to other people: no path of this machine is their business.
    found |= {"run": done.run.name, "export": done.export.name if done.export else None}
    found["pipeline"] = pipeline.to_spec()
    given = overview.Given(store.routes(names.route), store.answers(schema.names))
    found |= overview.counts(pipeline, store, names, done, given)
    found["promise"] = overview.promise(done, pipeline)
    # Before the evaluate stage there are predictions, but no measures to stand beside the figures.
    threshold = _threshold(pipeline, done)
    found |= measured(store, names, schema, threshold, given) if done.measures else UNMEASURED
    found["learning"] = learning(store, names, pipeline, done)
    found["spending"] = spending(store, local=done.local)
    found["map"] = plane(store, ctx, names.vectors, schema, given)
    found["answer"] = answer(done, found)
    return found


def state_of(pipeline: Pipeline, store: Store, names: Recipes) -> str:
    """Hash of everything a report rests on: while it is the same, so is the report."""
    tables = (
        t.attempt,
        t.outcome,
        t.answer,
        t.remark,
        t.audit,
        t.pick,
        t.annotation,
        t.measure,
        t.student,
        t.certificate,
    )
    sizes = [store.count(table) for table in (*tables, t.withdrawal)]
    every = [name for name in names if isinstance(name, str)]
    at = [store.newest_corpus(), store.covered(names.vectors), (store.folder / "export").is_dir()]
    return recipe("report", VERSION, llmal.__version__, pipeline.to_spec(), every, sizes, at)


def _threshold(pipeline: Pipeline, done: Outcome) -> float | None:
    """The student's confidence from which this run needs no person; None where that is no single number."""
    if done.certificate is None:
        value = getattr(pipeline.route, "at_least", None)
        return float(value) if isinstance(value, int | float) else None
    bars = [bar for bar in of_facts(done.certificate).bars if bar.tier == "student"]
    return bars[0].threshold if len(bars) == 1 and bars[0].label is None else None


def learning(store: Store, names: Recipes, pipeline: Pipeline, done: Outcome) -> dict[str, Any]:
    """Accuracy of every round's student by labels learnt from, and of the final one."""
    from llmal.evaluate.curve import learning_curve

    points = [
        {"round": p.round, "labels": p.labels, **stated(p.accuracy)}
        for p in learning_curve(store, pipeline.label_schema())
    ]
    kept, accuracy = store.fact(t.student, names.student), done.measures.get("student.accuracy")
    final = None
    if kept is not None and accuracy:
        final = {"use": pipeline.train.final.name, "labels": kept.n_items, **_plain(accuracy)}
    return {"use": pipeline.train.rounds.name, "points": points, "final": final}


def _plain(measure: dict[str, Any]) -> dict[str, Any]:
    return {name: measure[name] for name in ("value", "low", "high", "n")}


def answer(done: Outcome, found: dict[str, Any]) -> list[str]:
    """The report in three sentences: how many labels and by whom, how good, at what cost."""
    return [_labelled(done), _how_good(done, found["people"]), _cost(done, found["people"])]


def _labelled(done: Outcome) -> str:
    said = {"human": "people", "llm": "the annotator", "student": "the classifier"}
    source = done.labels["source"]
    by = [f"{source[s]:,} by {words}" for s, words in said.items() if source[s]]
    labelled = sum(source[s] for s in said)
    if not by:
        return f"None of {done.items:,} texts has a label yet."
    rest = f"; {done.items - labelled:,} are open" if labelled < done.items else ""
    return f"{labelled:,} of {done.items:,} texts are labelled: {listed(by)}{rest}."


def _how_good(done: Outcome, people: dict[str, Any]) -> str:
    on = f"{people['audit_by_people'] + people['audit_by_gold']:,} randomly reserved texts"
    whose = "people's answers" if people["audit_by_people"] else "the gold answers of your file"
    for key, what in (
        ("accepted.accuracy", "Of the labels that machines gave"),
        ("student.accuracy", "Of the classifier's answers"),
    ):
        m = done.measures.get(key)
        if m and m["value"] is not None:
            return (
                f"{what}, {percent(m['value'])} agree with {whose} "
                f"(95 % interval {percent(m['low'])} to {percent(m['high'])}, n = {m['n']} of {on})."
            )
    if not people["audit"]:
        return "How good they are is not known: no texts were reserved for measuring (`audit.size: 0`)."
    return "How good they are is not known yet: nothing has been measured against people's answers."


def _cost(done: Outcome, people: dict[str, Any]) -> str:
    usd = done.as_json()["cost"]["usd"]
    calls = f"{done.bill.calls:,} calls" if done.bill.calls else "no calls"
    money = f"{calls} to a model of your own" if usd is None else f"${usd:,.2f} for {calls} to a model"
    if not done.bill.calls:
        money = "no money and no calls to a model"
    words, minutes = sum(p["words"] for p in people["crew"]["people"]), people["crew"]["minutes"]
    given = f"{words:,} answers of people" if words else "no answers of people"
    given += f" in {minutes:,.1f} minutes" if minutes else ""
    waits = f"; {done.waiting:,} texts wait for people" if done.waiting else ""
    return f"That took {money}, and {given}{waits}."


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
