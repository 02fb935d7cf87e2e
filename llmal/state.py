"""Where a run stands: the names of the facts its file asks for, and what they add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from llmal.context import Context
from llmal.errors import SpecError, UserError
from llmal.generation import joined, labelled, refuse_unable, summary, used
from llmal.plugins import Plugin
from llmal.records import Labels, recipe
from llmal.review.asks import NOTHING, Asks
from llmal.review.holes import WHOLE, Holes
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.frozen import NEVER, Seen
from llmal.store.ledger import PICO, Bill, bill
from llmal.store.store import Store

if TYPE_CHECKING:
    from llmal.export.stage import Parcel
    from llmal.route.stage import Sources

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
    certificate: str = ""  # empty for good where the router promises nothing


def recipes(pipeline: Pipeline, ctx: Context, store: Store | None = None) -> Recipes:
    """The recipes the file asks for.

    Those from the student on need the store's facts, and so do decisions of a filter that uses evidence.
    """
    schema = pipeline.label_schema()
    vectors = pipeline.embed.recipe()
    annotations = pipeline.annotate.recipe_for(schema, ctx, vectors)
    pipeline.filter.refuse_other_kinds(schema)
    pipeline.route.refuse_other_kinds(schema)
    _refuse_unasked_audit(pipeline)
    refuse_unable(pipeline)
    decisions = pipeline.filter.recipe_for(annotations)
    if store is None:
        return Recipes(vectors, annotations, decisions)
    from llmal.evaluate.stage import evaluate_recipe
    from llmal.filter.stage import decision_recipe
    from llmal.route.stage import names_of
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
    made = Recipes(vectors, annotations, decisions, student, predictions)
    certificate, route = names_of(pipeline.route, store, sources(pipeline, made), schema=schema)
    measures = evaluate_recipe(
        store, schema, student=student, predictions=predictions, route=route, annotations=annotations
    )
    return made._replace(route=route, measures=measures, written=written, certificate=certificate)


def _refuse_unasked_audit(pipeline: Pipeline) -> None:
    if "llm" in pipeline.route.uses and not (pipeline.audit.annotate and pipeline.audit.size):
        words = f"route: {pipeline.route.name} needs the model's answers about audit items"
        raise SpecError([f"{words}; add audit: {{annotate: true}}, with a size"])


def sources(pipeline: Pipeline, names: Recipes) -> Sources:
    """Where the store holds what routes follow from."""
    from llmal.route.stage import Sources

    return Sources(
        names.predictions,
        names.annotations,
        names.decisions,
        out_of_sample=bool(pipeline.train.folds),
        vectors=names.vectors,
        peeked=_peeked(pipeline),
    )


def _peeked(pipeline: Pipeline) -> str:
    """What else looked at people's answers on audit items, so that the student hangs on them a little."""
    asked = pipeline.audit.annotate
    said = [
        "the filter" if asked and "people" in pipeline.filter.uses else "",
        "the weights of the classes" if asked and pipeline.train.targets.prior == "people" else "",
        "the choice among annotators" if pipeline.annotate.asks_one else "",
        "the rule that ends the rounds" if pipeline.rounds.stop == "auto" else "",
    ]
    who = " and ".join(one for one in said if one)
    return f"The promise is approximate: {who} saw people's answers to audit items too." if who else ""


class Outcome(NamedTuple):
    """What a run came to; `as_json` is what `llmal run --json` prints.

    Attributes:
        run: the run's folder.
        items: distinct texts in the corpus; `rows` the rows they stand for, `skipped` reason -> rows set
            aside.
        bill: calls, tokens and cost of the run so far, and calls whose fate is unknown.
        labels: counts by `source` and by `verdict`.
        waiting: items that wait for people.
        measures: name -> value, low, high, n, measured_on.
        export: the exported folder, or None.
        facts_added: facts this invocation appended.
        seconds: by stage, of this invocation.
        stopped: why rounds ended.
        repeated: items asked again because a crash left their call's fate unknown.
        synthetic: what was written by a model and what came of it; empty where the file asks for nothing.
        candidates: what short lists save people, or why there are none, in words; empty before any choice.
        certificate: facts and words of what is promised about people's answers; None where nothing is, or
            before anything is routed.
        asks: what waits for people in detail: how many measure, and how long it takes.
        meanwhile: answers people gave while this invocation went on; the next one goes by them.
        holes: audit texts that people put off and nobody answered.
        since: how much of what people said this invocation went by.
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
    candidates: str = ""
    certificate: dict[str, Any] | None = None
    asks: Asks = NOTHING
    meanwhile: int = 0
    since: Seen = NEVER
    holes: Holes = WHOLE

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
            "waits": self.asks.as_json(self.run),
            "answers_meanwhile": self.meanwhile,
            "audit_holes": self.holes.as_json(self.measures),
            "measures": self.measures,
            "certificate": self.certificate,
            "export": str(self.export) if self.export else None,
            "facts_added": self.facts_added,
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "stopped": self.stopped,
            "asked_again_after_a_crash": self.repeated,
            **({"synthetic": self.synthetic} if self.synthetic else {}),
            **({"candidate_sets": self.candidates} if self.candidates else {}),
        }  # fmt: skip


def outcome(
    pipeline: Pipeline,
    store: Store,
    ctx: Context,
    *,
    seconds: dict[str, float] | None = None,
    stopped: str = "",
    repeated: list[str] | None = None,
    names: Recipes | None = None,
) -> Outcome:
    """The state of a run, from its store alone; `names` where the caller has read the recipes just now."""
    from llmal.review.asks import asks
    from llmal.review.holes import holes

    schema = pipeline.label_schema()
    names = names or recipes(pipeline, ctx, store)
    skipped: dict[str, int] = {}
    for r in store.set_aside():
        reason = r.skipped.split(":")[0].split(" row ")[0]
        skipped[reason] = skipped.get(reason, 0) + 1
    verdicts = store.tally(t.decision.c.verdict, t.decision.c.recipe == names.decisions)
    routed = store.tally(t.route.c.who, t.route.c.recipe == names.route)
    answers = store.answers(schema.names)
    sources = {"human": len(answers)} | _by_machines(store, names.route, routed, answers)
    kept = store.fact(t.student, names.student)
    lists = store.shortlist(names.route, pipeline.review.recipe())
    export = store.folder / "export"
    asked = asks(
        store, names=schema.names, route=names.route if routed else None, people=pipeline.budget.people
    )
    return Outcome(
        run=store.folder,
        items=store.n_active(),
        rows=store.count(t.row, t.row.c.corpus == store.newest_corpus()),
        skipped=skipped,
        bill=bill(store),
        local=getattr(pipeline.annotate, "price", None) == "local",
        labels={"source": sources, "verdict": {v: verdicts.get(v, 0) for v in ("accept", "hold", "drop")}},
        waiting=asked.n,
        measures=measures(store, names.measures) | measures(store, lists.recipe if lists else ""),
        export=export if kept is not None and (export / "llmal.json").is_file() else None,
        facts_added=store.added,
        seconds=seconds or {},
        stopped=stopped,
        repeated=repeated or [],
        synthetic=summary(pipeline, ctx, store),
        candidates=lists.words if lists else "",
        certificate=store.certificate(names.certificate) if names.certificate else None,
        asks=asked,
        holes=holes(store, schema),
    )


def _by_machines(
    store: Store, route: str, routed: Mapping[str, int], answers: Mapping[int, Labels]
) -> dict[str, int]:
    """Items that no person answered by who labels them; `none` for those that are left to people."""
    c = t.route.c
    counts = Counter({who: routed.get(who, 0) for who in ("llm", "student", "person")})
    counts.subtract(
        who for (who,) in store.tuples(sa.select(c.who).where(c.recipe == route), c.item, answers)
    )
    return {"llm": counts["llm"], "student": counts["student"], "none": counts["person"]}


def measures(store: Store, name: str) -> dict[str, dict[str, Any]]:
    """Measure name -> value, low, high, n, and in words what it was measured on."""
    c = t.measure.c
    found = store.read(t.measure.select().where(c.recipe == name).order_by(c.name))
    kept = ("value", "low", "high", "n", "measured_on")
    return {m.name: {name: getattr(m, name) for name in kept} for m in found}


def base_model(student: Plugin, encoder: Plugin) -> str | None:
    """The public name of the model a student was made from; None for a folder, whose place stays here."""
    from llmal.weights import DEFAULT_ENCODER, resolve

    name = getattr(student if hasattr(student, "model") else encoder, "model", None)
    if not isinstance(name, str) or Path(name).exists():
        return None
    return DEFAULT_ENCODER if resolve(name) == resolve(DEFAULT_ENCODER) else name


def parcel(pipeline: Pipeline, store: Store, ctx: Context, names: Recipes) -> Parcel:
    """What an exporter gets: the final student, and the facts for its card."""
    import llmal
    from llmal.export.stage import Parcel
    from llmal.route.promise import of_facts
    from llmal.route.shipped import shipped

    kept = store.fact(t.student, names.student)
    if kept is None:
        raise UserError(
            "there is no final student yet", where=str(store.folder), hint="Run `llmal run` first"
        )
    final, schema = pipeline.train.final.shipped, pipeline.label_schema()
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
        **shipped(store, ctx, sources(pipeline, names), names.certificate, schema=schema),
    }
    threshold = getattr(pipeline.route, "at_least", None)
    if facts["certificate"] is not None:
        threshold = of_facts(facts["certificate"]).threshold("student", ())
    active = store.active()
    some = store.items(active[:: max(1, -(-len(active) // EXPORT_TEXTS))])
    return Parcel(store.folder / kept.folder, final.name, pipeline.embed, schema, threshold,
                  getattr(final, "max_length", None), facts, tuple(item.text for item in some))  # fmt: skip
