"""The loop: corpus in, rounds of select to train, then route to export; every stage asks what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llmal.context import Context, Progress
from llmal.errors import BudgetSpent, LlmalError, UserError
from llmal.records import LabelSchema, Tally
from llmal.spec import STAGES, Pipeline
from llmal.store import schema as t
from llmal.store.ledger import PICO, Bill, bill, unknown_fate
from llmal.store.store import Store, open_store


class Outcome(NamedTuple):
    """What a run came to; `as_json` is what `llmal run --json` prints.

    Attributes:
        run: the run's folder.
        items: distinct texts in the corpus; `rows` the rows they stand for, `skipped` reason -> rows set aside.
        bill: calls, tokens and cost of the run so far, and calls whose fate is unknown.
        labels: counts by `source` and by `verdict`.
        waiting: items that wait for people.
        measures: name -> value, low, high, n.
        export: the exported folder, or None.
        facts_added: facts this invocation appended.
        seconds: by stage, of this invocation.
        stopped: why rounds ended.
        repeated: items asked again because a crash left their call's fate unknown.
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
        }  # fmt: skip


class Recipes(NamedTuple):
    """Names of the facts the current file asks for; empty until known."""

    vectors: str
    annotations: str
    decisions: str
    student: str = ""
    route: str = ""
    measures: str = ""


def run(
    pipeline: Pipeline,
    folder: str | Path = "runs/notebook",
    *,
    home: str | Path = ".",
    progress: Progress | None = None,
    until: str | None = None,
    rounds: int | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Run, or go on with, a pipeline.

    Args:
        pipeline: what to do.
        folder: the run's folder; made when missing, continued when there.
        home: folder the file's relative paths start at.
        progress: where to show progress.
        until: stop after this stage.
        rounds: at most this many rounds now, whatever the file says.
        retry_failed: ask again about items whose calls failed for good.

    Raises:
        LlmalError: see `llmal.errors`; everything committed before is kept.
    """
    if until is not None and until not in STAGES:
        raise UserError(f"no stage called '{until}'; stages: {', '.join(STAGES)}", where="--until")
    folder, home = Path(folder).resolve(), Path(home).resolve()
    with private_files():
        store = open_store(folder)
        try:
            store.note("home", lambda: str(home))
            return _Line(pipeline, store, home, progress, until, retry_failed).run(rounds)
        finally:
            store.close()


@contextmanager
def private_files() -> Iterator[None]:
    """Everything a run writes is for its owner alone: folders 700, files 600."""
    old = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(old)


class _Enough(Exception):
    """The stage named by `--until` is done."""


class _Line:
    """One invocation of a run."""

    def __init__(
        self, pipeline: Pipeline, store: Store, home: Path, progress: Progress | None, until: str | None, retry: bool
    ) -> None:
        self.p = pipeline
        self.store = store
        self.schema: LabelSchema = pipeline.label_schema()
        self.ctx = Context(store.folder, home=home, seed=pipeline.seed, progress=progress, encode=pipeline.embed.encode)
        self.until = until
        self.retry = retry
        self.seconds: dict[str, float] = {}
        self.stopped = ""

    def run(self, rounds: int | None) -> Outcome:
        repeated = self._asked_again()
        try:
            self._prepare()
            self._rounds(min(rounds, self.p.rounds.max) if rounds is not None else self.p.rounds.max)
            self._finish()
        except _Enough:
            self.stopped = f"stopped after {self.until}, as asked"
        return outcome(self.p, self.store, self.ctx, seconds=self.seconds, stopped=self.stopped, repeated=repeated)

    def _stage(self, name: str, work: Callable[[], Tally], *, last: bool = True) -> Tally:
        """Time a stage, show its line, and end the run after it when the user asked for that."""
        started = time.monotonic()
        tally = work()
        took = time.monotonic() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + took
        if tally.new or tally.note:
            self.ctx.progress.say(f"{name:9} {tally.new:>7,} new of {tally.wanted:>7,}  {took:6.1f} s  {tally.note}".rstrip())
        if last and name == self.until:
            raise _Enough
        return tally

    def _prepare(self) -> None:
        from llmal.embed import stage as embed

        self._stage("corpus", lambda: ingest(self.p, self.store, self.ctx))
        _freeze(self.p, self.store.folder)
        if self.p.audit.size:
            from llmal.evaluate.stage import reserve

            self._stage("audit", lambda: reserve(self.store, self.ctx, size=self.p.audit.size))
        self._stage("embed", lambda: embed.run(self.p.embed, self.store, self.ctx))
        self.recipes = recipes(self.p, self.ctx)
        if self.retry:
            from llmal.annotate.stage import forget_failures

            forget_failures(self.store, self.recipes.annotations)

    def _rounds(self, n: int) -> None:
        """Select, annotate and filter, learning before each later choice, until rounds, budget or pool end."""
        for round_no in range(n):
            try:
                dry = self._choose(round_no)
                self._annotate()
            except BudgetSpent as error:
                self._filter(last=True)
                self.stopped = f"the budget is spent: {error.message}"
                return
            last = dry or round_no == n - 1
            self._filter(last=last)
            if last:
                self.stopped = "no picks left" if dry else f"{n} rounds are done"
                return

    def _choose(self, round_no: int) -> bool:
        """Fill a round's picks; True when the pool has none left. A full round costs nothing, not even a student."""
        if len(self.store.picks(round_no)) >= self.p.rounds.size:
            return False
        student = self._train_round(round_no) if round_no else ""
        return bool(self._select(round_no, student).note)

    def _select(self, round_no: int, student: str) -> Tally:
        from llmal.select import stage as select

        selector = self.p.select.then if student else self.p.select.first
        probs = self.store.load(student) if student else None
        return self._stage(
            "select",
            lambda: select.run(
                selector, self.store, self.ctx, round_no=round_no, size=self.p.rounds.size, probs=probs,
                vectors=self.recipes.vectors, n_classes=len(self.schema.labels),
            ),
        )  # fmt: skip

    def _annotate(self) -> None:
        from llmal.annotate import stage as annotate

        active = set(self.store.active())
        wanted = [s for s in self.store.picks() if s in active]
        if self.p.audit.annotate:
            wanted += [s for s in self.store.audit() if s in active]
        self._stage(
            "annotate",
            lambda: annotate.run(
                self.p.annotate, self.store, self.ctx, schema=self.schema, caps=self.p.budget.caps(), wanted=wanted,
                vectors=self.recipes.vectors,
            ),
        )  # fmt: skip

    def _filter(self, *, last: bool) -> None:
        from llmal.filter import stage as judge

        names = self.recipes
        work = lambda: judge.run(self.p.filter, self.store, self.ctx, schema=self.schema, annotations=names.annotations)  # noqa: E731
        self._stage("filter", work, last=last)

    def _train_round(self, round_no: int) -> str:
        """Fit the student for choosing; empty when the labels so far show fewer than two classes."""
        from llmal.train import stage as train

        data = train.training_set(self.store, annotations=self.recipes.annotations, decisions=self.recipes.decisions)
        if not train.can_learn(data, self.schema):
            return ""
        student, names = self.p.train.rounds, self.recipes
        work = lambda: train.run(student, self.store, self.ctx, schema=self.schema, data=data, vectors=names.vectors,  # noqa: E731
                                 role="rounds", round_no=round_no)  # fmt: skip
        self._stage("train", work, last=False)
        return train.student_recipe(student, data, self.schema, names.vectors, self.ctx)

    def _finish(self) -> None:
        from llmal.train import stage as train

        names, store, ctx = self.recipes, self.store, self.ctx
        data = train.training_set(store, annotations=names.annotations, decisions=names.decisions)
        if not train.can_learn(data, self.schema):
            raise _nothing_to_learn(self.p, store, names, len(data.items), self.stopped)
        student = self.p.train.final
        self._stage(
            "train",
            lambda: train.run(student, store, ctx, schema=self.schema, data=data, vectors=names.vectors, role="final",
                              round_no=self.p.rounds.max),
        )  # fmt: skip
        names = recipes(self.p, ctx, store)
        from llmal.evaluate import stage as evaluate
        from llmal.review import stage as review
        from llmal.route import stage as route

        self._stage(
            "route",
            lambda: route.run(self.p.route, store, ctx, schema=self.schema, student=names.student,
                              annotations=names.annotations, decisions=names.decisions),
        )  # fmt: skip
        write_labels(store, names, self.schema)
        self._stage("review", lambda: review.run(store, ctx, route=names.route, people=self.p.budget.people))
        self._stage(
            "evaluate",
            lambda: evaluate.run(store, ctx, schema=self.schema, student=names.student, route=names.route,
                                 annotations=names.annotations),
        )  # fmt: skip
        from llmal.export import stage as export

        self._stage(
            "export",
            lambda: export.run(self.p.export, store, ctx, parcel=parcel(self.p, store, ctx), folder=store.folder / "export"),
        )

    def _asked_again(self) -> list[str]:
        """Calls of unknown fate, listed once and counted as spent."""
        lost = unknown_fate(self.store)
        items = [item for item, _, _ in lost if item is not None]
        if lost:
            worst = sum(w for _, _, w in lost) / PICO
            self.ctx.progress.say(
                f"{len(lost)} calls of unknown fate after a crash may have been charged (at most ${worst:.6f}, "
                "counted as spent); those still wanted are asked again"
            )
        return [item.key for item in self.store.items(items)]


def ingest(pipeline: Pipeline, store: Store, ctx: Context) -> Tally:
    """Read the corpus into the store when its bytes, or how they are read, have changed."""
    from llmal.corpus import file_digest, read, text_key

    spec = pipeline.corpus
    path = ctx.path(spec.path)
    remote = spec.path.startswith("hf://")
    digest = "" if remote or not path.is_file() else file_digest(path)
    name = spec.recipe()
    if store.has_corpus(name, digest) and (remote or digest):
        return Tally(store.n_items(), 0)
    before = store.n_items()
    store.put_corpus(name, digest, read(spec, path, pipeline.label_schema()), text_key)
    rows = store.rows()
    aside = sum(bool(r.skipped) for r in rows)
    active = len(store.active())
    twins = len(rows) - aside - active
    note = f"{len(rows):,} rows: {active:,} distinct texts" + (f", {twins} repeat another" if twins else "")
    return Tally(active, store.n_items() - before, note + (f", {aside} set aside" if aside else ""))


def recipes(pipeline: Pipeline, ctx: Context, store: Store | None = None) -> Recipes:
    """The recipes the file asks for; those from the student on need the store's facts."""
    schema = pipeline.label_schema()
    vectors = pipeline.embed.recipe()
    annotations = pipeline.annotate.recipe_for(schema, ctx, vectors)
    decisions = pipeline.filter.recipe_for(annotations)
    names = Recipes(vectors, annotations, decisions)
    if store is None:
        return names
    from llmal.evaluate.stage import evaluate_recipe, known_answers
    from llmal.route.stage import route_recipe
    from llmal.train.stage import student_recipe, training_set

    data = training_set(store, annotations=annotations, decisions=decisions)
    student = student_recipe(pipeline.train.final, data, schema, vectors, ctx)
    route = route_recipe(pipeline.route, student, decisions, store.answers())
    measures = evaluate_recipe(student, route, annotations, known_answers(store))
    return names._replace(student=student, route=route, measures=measures)


def _nothing_to_learn(pipeline: Pipeline, store: Store, names: Recipes, n: int, stopped: str) -> LlmalError:
    decisions = store.decisions(names.decisions)
    reasons: dict[str, int] = {}
    for d in decisions.values():
        if d.verdict != "accept":
            key = d.reason.split(" 0.")[0]
            reasons[key] = reasons.get(key, 0) + 1
    why = "; ".join(f"{c} x {r}" for r, c in sorted(reasons.items(), key=lambda x: -x[1])[:3]) or "nothing was asked"
    words = f"nothing to teach a student with: {n} of {len(decisions)} annotations accepted ({why})"
    if stopped.startswith("the budget"):
        return BudgetSpent(words, where="budget", hint=stopped)
    return UserError(words, where="filter", hint="Lower filter.at_least, ask more, or answer items with `llmal review`")


def _freeze(pipeline: Pipeline, folder: Path) -> None:
    path = folder / "pipeline.yaml"
    text = pipeline.to_yaml()
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def write_labels(store: Store, names: Recipes, schema: LabelSchema) -> Path:
    """`labels.jsonl`: one line a row of the corpus that has a text, rewritten only when a label could have changed."""
    from llmal.corpus import write_jsonl
    from llmal.records import recipe

    path = store.folder / "labels.jsonl"
    name = recipe("labels", names.route, store.newest_corpus())
    mark = store.folder / "labels.recipe"
    if path.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == name:
        return path
    routes = store.routes(names.route)
    answers = store.answers()
    rounds = dict(store.read(t.pick.select().with_only_columns(t.pick.c.item, t.pick.c.round)))
    texts = {item.seq: item.text for item in store.items(sorted(routes))}

    def lines() -> Iterator[dict[str, Any]]:
        for _, row_id, item, _, _ in store.rows():
            if item is None or item not in routes:
                continue
            r = routes[item]
            human = item in answers
            yield {
                "id": row_id,
                "text": texts[item],
                "label": list(r.labels) if schema.kind == "multi" else (r.labels[0] if r.labels else None),
                "label_source": "human" if human else ("student" if r.who == "person" else r.who),
                "confidence": None if r.confidence is None else round(r.confidence, 6),
                "accepted": human or r.who != "person",
                "reason": r.reason,
                "round": rounds.get(item),
            }

    write_jsonl(path, lines())
    mark.write_text(name, encoding="utf-8")
    return path


def parcel(pipeline: Pipeline, store: Store, ctx: Context) -> Any:
    """What an exporter gets: the final student, and the facts for its card."""
    import json

    import llmal
    from llmal.export.stage import Parcel

    names = recipes(pipeline, ctx, store)
    kept = store.fact(t.student, names.student)
    if kept is None:
        raise UserError("there is no final student yet", where=str(store.folder), hint="Run `llmal run` first")
    final = pipeline.train.final
    facts = {
        "llmal": llmal.__version__,
        "data": names.student,
        "trained_on": kept.n_items,
        "sources": json.loads(kept.note)["sources"],
        "measures": measures(store, names.measures),
    }
    threshold = getattr(pipeline.route, "at_least", None)
    return Parcel(store.folder / kept.folder, final.name, pipeline.embed, pipeline.label_schema(), threshold,
                  getattr(final, "max_length", None), facts)  # fmt: skip


def measures(store: Store, name: str) -> dict[str, dict[str, Any]]:
    """Measure name -> value, low, high, n."""
    c = t.measure.c
    found = store.read(t.measure.select().where(c.recipe == name).order_by(c.name))
    return {m.name: {"value": m.value, "low": m.low, "high": m.high, "n": m.n} for m in found}


def outcome(
    pipeline: Pipeline, store: Store, ctx: Context, *, seconds: dict[str, float] | None = None, stopped: str = "",
    repeated: list[str] | None = None,
) -> Outcome:  # fmt: skip
    """The state of a run, from its store alone."""
    from llmal.review.stage import waiting

    names = recipes(pipeline, ctx, store)
    rows = store.rows()
    skipped: dict[str, int] = {}
    for r in rows:
        if r.skipped:
            reason = r.skipped.split(":")[0].split(" row ")[0]
            skipped[reason] = skipped.get(reason, 0) + 1
    verdicts = [d.verdict for d in store.decisions(names.decisions).values()]
    routes = store.routes(names.route)
    answers = store.answers()
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
        waiting=len(waiting(store, route=names.route if routes else None, people=pipeline.budget.people)),
        measures=measures(store, names.measures),
        export=export if kept is not None and (export / "llmal.json").is_file() else None,
        facts_added=store.added,
        seconds=seconds or {},
        stopped=stopped,
        repeated=repeated or [],
    )
