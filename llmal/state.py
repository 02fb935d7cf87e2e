"""Where a run stands: the names of the facts its file asks for, and what they add up to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmal.context import Context
from llmal.errors import UserError
from llmal.generation import joined, labelled, refuse_unable, summary, used
from llmal.plugins import Plugin
from llmal.records import Labels, recipe
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.ledger import PICO, Bill, bill
from llmal.store.store import Store

if TYPE_CHECKING:
    from llmal.export.stage import Parcel

EXPORT_TEXTS = 200
"""Texts of the corpus an exporter may compare its file with the student on."""


class Recipes(NamedTuple):
    """Names of the facts the current file asks for; empty until known."""

    vectors: str
    annotations: str
    decisions: str
    student: str = ""
    predictions: str = ""  # of all items, those the student learnt from as the file has it
    route: str = ""
    measures: str = ""
    written: Mapping[int, Labels] = {}  # texts of no corpus that teach the student


def recipes(pipeline: Pipeline, ctx: Context, store: Store | None = None) -> Recipes:
    """The recipes the file asks for.

    Those from the student on need the store's facts, and so do decisions of a filter that uses evidence.
    """
    schema = pipeline.label_schema()
    vectors = pipeline.embed.recipe()
    annotations = pipeline.annotate.recipe_for(schema, ctx, vectors)
    pipeline.filter.refuse_other_kinds(schema)
    refuse_unable(pipeline)
    decisions = pipeline.filter.recipe_for(annotations)
    if store is None:
        return Recipes(vectors, annotations, decisions)
    from llmal.evaluate.stage import evaluate_recipe, known_answers
    from llmal.filter.stage import decision_recipe
    from llmal.route.stage import route_recipe
    from llmal.train.crossfit import crossfit_recipe
    from llmal.train.stage import student_recipe

    decisions = decision_recipe(
        pipeline.filter, store, schema=schema, annotations=annotations, vectors=vectors
    )
    data = labelled(pipeline, store, annotations, decisions)
    written = used(pipeline, ctx, store, data)
    data = joined(data, written)
    student = student_recipe(pipeline.train.final, data, schema, vectors, ctx, pipeline.train.targets)
    predictions = crossfit_recipe(student, pipeline.train.folds)
    route = route_recipe(pipeline.route, predictions, decisions, store.answers(schema.names))
    measures = evaluate_recipe(student, route, annotations, known_answers(store, schema))
    return Recipes(vectors, annotations, decisions, student, predictions, route, measures, written)


class Outcome(NamedTuple):
    """What a run came to; `as_json` is what `llmal run --json` prints.

    Attributes:
        run: the run's folder.
        items: distinct texts in the corpus; `rows` the rows they stand for, `skipped` reason -> rows set
            aside.
        bill: calls, tokens and cost of the run so far, and calls whose fate is unknown.
        labels: counts by `source` and by `verdict`.
        waiting: items that wait for people.
        measures: name -> value, low, high, n.
        export: the exported folder, or None.
        facts_added: facts this invocation appended.
        seconds: by stage, of this invocation.
        stopped: why rounds ended.
        repeated: items asked again because a crash left their call's fate unknown.
        synthetic: what was written by a model and what came of it; empty where the file asks for nothing.
    """

    run: Path
    items: int
    rows: int
    skipped: dict[str, int]
    bill: Bill
    local: bool
    labels: dict[str, dict[str, int]]
    waiting: int
    measures: dict[str, dict[str, Any]]
    export: Path | None
    facts_added: int
    seconds: dict[str, float]
    stopped: str
    repeated: list[str]
    synthetic: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain data for scripts."""
        usd = None if self.local else self.bill.cost / PICO
        return {
            "run": str(self.run),
            "items": self.items,
            "rows": self.rows,
            "skipped": self.skipped,
            "calls": self.bill.calls,
            "cost": {"usd": usd, "tokens_in": self.bill.tokens_in, "tokens_out": self.bill.tokens_out,
                     "calls_of_unknown_fate": self.bill.unknown},
            "labels": self.labels,
            "waiting_for_people": self.waiting,
            "measures": self.measures,
            "export": str(self.export) if self.export else None,
            "facts_added": self.facts_added,
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "stopped": self.stopped,
            "asked_again_after_a_crash": self.repeated,
            **({"synthetic": self.synthetic} if self.synthetic else {}),
        }  # fmt: skip


def outcome(
    pipeline: Pipeline,
    store: Store,
    ctx: Context,
    *,
    seconds: dict[str, float] | None = None,
    stopped: str = "",
    repeated: list[str] | None = None,
) -> Outcome:
    """The state of a run, from its store alone."""
    from llmal.review.stage import waiting

    schema = pipeline.label_schema()
    names = recipes(pipeline, ctx, store)
    rows = store.rows()
    skipped: dict[str, int] = {}
    for r in rows:
        if r.skipped:
            reason = r.skipped.split(":")[0].split(" row ")[0]
            skipped[reason] = skipped.get(reason, 0) + 1
    verdicts = [d.verdict for d in store.decisions(names.decisions).values()]
    routes = store.routes(names.route)
    answers = store.answers(schema.names)
    sources = {"human": len(answers), "llm": 0, "student": 0, "none": 0}
    for s, r in routes.items():
        if s not in answers:
            sources["none" if r.who == "person" else r.who] += 1
    kept = store.fact(t.student, names.student)
    export = store.folder / "export"
    return Outcome(
        run=store.folder,
        items=len(store.active()),
        rows=len(rows),
        skipped=skipped,
        bill=bill(store),
        local=getattr(pipeline.annotate, "price", None) == "local",
        labels={"source": sources, "verdict": {v: verdicts.count(v) for v in ("accept", "hold", "drop")}},
        waiting=len(
            waiting(
                store,
                names=schema.names,
                route=names.route if routes else None,
                people=pipeline.budget.people,
            )
        ),
        measures=measures(store, names.measures),
        export=export if kept is not None and (export / "llmal.json").is_file() else None,
        facts_added=store.added,
        seconds=seconds or {},
        stopped=stopped,
        repeated=repeated or [],
        synthetic=summary(pipeline, ctx, store),
    )


def measures(store: Store, name: str) -> dict[str, dict[str, Any]]:
    """Measure name -> value, low, high, n."""
    c = t.measure.c
    found = store.read(t.measure.select().where(c.recipe == name).order_by(c.name))
    return {m.name: {"value": m.value, "low": m.low, "high": m.high, "n": m.n} for m in found}


def base_model(student: Plugin, encoder: Plugin) -> str | None:
    """The public name of the model a student was made from; None for a folder, whose place stays here."""
    from llmal.weights import DEFAULT_ENCODER, resolve

    name = getattr(student if hasattr(student, "model") else encoder, "model", None)
    if not isinstance(name, str) or Path(name).exists():
        return None
    return DEFAULT_ENCODER if resolve(name) == resolve(DEFAULT_ENCODER) else name


def parcel(pipeline: Pipeline, store: Store, names: Recipes) -> Parcel:
    """What an exporter gets: the final student, and the facts for its card."""
    import llmal
    from llmal.export.stage import Parcel

    kept = store.fact(t.student, names.student)
    if kept is None:
        raise UserError(
            "there is no final student yet", where=str(store.folder), hint="Run `llmal run` first"
        )
    final = pipeline.train.final.shipped
    data = joined(labelled(pipeline, store, names.annotations, names.decisions), names.written)
    learnt = zip(store.items(data.items), data.labels, strict=True)
    facts = {
        "llmal": llmal.__version__,
        "base": base_model(final, pipeline.embed),
        "run": {"student": names.student, "route": pipeline.route.to_spec()},
        "data": recipe("data", sorted([item.key, *labels] for item, labels in learnt)),
        "trained_on": kept.n_items,
        "sources": json.loads(kept.note)["sources"],
        "measures": measures(store, names.measures),
    }
    threshold = getattr(pipeline.route, "at_least", None)
    active = store.active()
    some = store.items(active[:: max(1, -(-len(active) // EXPORT_TEXTS))])
    return Parcel(store.folder / kept.folder, final.name, pipeline.embed, pipeline.label_schema(), threshold,
                  getattr(final, "max_length", None), facts, tuple(item.text for item in some))  # fmt: skip
