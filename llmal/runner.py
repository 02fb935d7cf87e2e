"""The loop: corpus in, rounds of select to train, then route to export; every stage asks what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmal.context import Context, Progress
from llmal.errors import BudgetSpent, LlmalError, UserError
from llmal.labels import write_labels
from llmal.records import LabelSchema, Tally, recipe, routed
from llmal.spec import STAGES, Pipeline
from llmal.state import Outcome, Recipes, outcome, parcel, recipes, sources
from llmal.store.frozen import arrived, freeze
from llmal.store.ledger import PICO, asked_again, unknown_fate
from llmal.store.store import Store, open_store

if TYPE_CHECKING:
    from llmal.train.stage import TrainingSet


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

    It goes by what people had said when it began. What they say meanwhile is kept, and the next run's.

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
    if until == "generate" and pipeline.generate is None:
        raise UserError("the file has no `generate:`", where="--until", hint="Add it, or name another stage")
    folder, home = Path(folder).resolve(), Path(home).resolve()
    with private_files():
        store = open_store(folder)
        try:
            store.note("home", lambda: str(home))
            since = freeze(store)
            done = _Line(pipeline, store, home, progress, until, retry_failed).run(rounds)
            return done._replace(since=since, meanwhile=arrived(store, since))
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
        self,
        pipeline: Pipeline,
        store: Store,
        home: Path,
        progress: Progress | None,
        until: str | None,
        retry: bool,
    ) -> None:
        self.p = pipeline
        self.store = store
        self.schema: LabelSchema = pipeline.label_schema()
        self.ctx = Context(
            store.folder, home=home, seed=pipeline.seed, progress=progress, encode=pipeline.embed.encode
        )
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
        return outcome(
            self.p, self.store, self.ctx, seconds=self.seconds, stopped=self.stopped, repeated=repeated
        )

    def _stage(
        self, name: str, work: Callable[..., Tally], *given: Any, ends: bool = True, **options: Any
    ) -> Tally:
        """Run a stage, time it, show its line, and end the run after it when the user asked for that."""
        started = time.monotonic()
        tally = work(*given, **options)
        took = time.monotonic() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + took
        if tally.new or tally.note:
            line = f"{name:9} {tally.new:>7,} new of {tally.wanted:>7,}  {took:6.1f} s  {tally.note}"
            self.ctx.progress.say(line.rstrip())
        if ends and name == self.until:
            raise _Enough
        return tally

    def _prepare(self) -> None:
        """Corpus, audit sample and vectors: everything before the first choice."""
        from llmal.annotate.stage import forget_failures
        from llmal.embed import stage as embed
        from llmal.evaluate.stage import reserve

        self._stage("corpus", ingest, self.p, self.store, self.ctx)
        _freeze(self.p, self.store.folder)
        audit = self.p.audit
        self._stage("audit", reserve, self.store, self.ctx, size=audit.size, pool=audit.pool)
        self._stage("embed", embed.run, self.p.embed, self.store, self.ctx)
        self.recipes = recipes(self.p, self.ctx)
        if self.retry:
            names = [self.recipes.annotations, routed(self.recipes.annotations)]
            names += self.p.annotate.parts(self.schema, self.ctx, self.recipes.vectors)
            for name in names:
                forget_failures(self.store, name)

    def _rounds(self, n: int) -> None:
        """Select, annotate, filter, and learn before each later choice, until rounds, budget or pool end."""
        for round_no in range(n):
            try:
                ends = self._choose(round_no)
                self._annotate()
            except BudgetSpent as error:
                self._filter(ends=True)
                self.stopped = f"the budget is spent: {error.message}"
                return
            last = bool(ends) or round_no == n - 1
            self._filter(ends=last)
            if last:
                self.stopped = ends or f"{n} rounds are done"
                return

    def _choose(self, round_no: int) -> str:
        """Fill a round's picks; why no round should follow, or nothing.

        A full round costs nothing, not even a student.
        """
        from llmal.select import stage as select

        if len(self.store.picks(round_no)) >= self.p.rounds.size:
            return select.enough(self.store, self.p.select.then, round_no)
        student = self._train_round(round_no) if round_no else ""
        if student and (why := self._paid_off()):
            return why
        known = self._learnt_from()
        picked = self._stage(
            "select",
            select.run,
            self.p.select.then if student else self.p.select.first,
            self.store,
            self.ctx,
            round_no=round_no,
            size=self.p.rounds.size,
            probs=self.store.load(student) if student else None,
            vectors=self.recipes.vectors,
            schema=self.schema,
            labels=dict(zip(known.items, known.labels, strict=True)),
            caps=self.p.budget.caps(),
        )
        return picked.ends

    def _paid_off(self) -> str:
        """Why more labels are not worth asking for; nothing where the file never stops for that."""
        from llmal.evaluate import curve

        return curve.enough(self.store, self.ctx, self.schema) if self.p.rounds.stop == "auto" else ""

    def _annotate(self) -> None:
        active = set(self.store.active())
        wanted = self.store.picks() + (self.store.audit() if self.p.audit.annotate else [])
        self._ask([s for s in wanted if s in active])

    def _ask(self, wanted: list[int], **options: Any) -> None:
        """Ask the annotator about items, as far as the budget goes."""
        from llmal.annotate import stage as annotate

        self._stage(
            "annotate",
            annotate.run,
            self.p.annotate,
            self.store,
            self.ctx,
            schema=self.schema,
            caps=self.p.budget.caps(),
            wanted=wanted,
            vectors=self.recipes.vectors,
            **options,
        )

    def _filter(self, *, ends: bool) -> None:
        from llmal.filter import stage as judge

        given = self.recipes.annotations
        self._stage(
            "filter",
            judge.run,
            self.p.filter,
            self.store,
            self.ctx,
            ends=ends,
            schema=self.schema,
            annotations=given,
            vectors=self.recipes.vectors,
        )

    def _learnt_from(self) -> TrainingSet:
        from llmal.generation import labelled

        return labelled(self.p, self.store, self.recipes.annotations, self._decisions())

    def _decisions(self) -> str:
        """Recipe of the decisions as of now: those of some filters follow the answers there are."""
        from llmal.filter.stage import decision_recipe

        given, vectors = self.recipes.annotations, self.recipes.vectors
        return decision_recipe(
            self.p.filter, self.store, schema=self.schema, annotations=given, vectors=vectors
        )

    def _train_round(self, round_no: int) -> str:
        """Recipe of the student for choosing; empty when the labels so far show fewer than two classes."""
        from llmal.train import stage as train

        data = self._learnt_from()
        if not train.can_learn(data, self.schema):
            return ""
        self._train("rounds", data, round_no, ends=False)
        parts = self.p.train
        return train.student_recipe(
            parts.rounds, data, self.schema, self.recipes.vectors, self.ctx, parts.targets
        )

    def _train(self, role: str, data: TrainingSet, round_no: int, *, ends: bool) -> None:
        from llmal.train import stage as train

        student = self.p.train.rounds if role == "rounds" else self.p.train.final
        self._stage(
            "train",
            train.run,
            student,
            self.store,
            self.ctx,
            ends=ends,
            schema=self.schema,
            data=data,
            vectors=self.recipes.vectors,
            role=role,
            round_no=round_no,
            targets=self.p.train.targets,
        )

    def _crossfit(self, data: TrainingSet, fitted: str) -> None:
        """Predictions of what the final student learnt from, where the file asks for folds."""
        from llmal.train import crossfit

        if self.p.train.folds:
            self._stage(
                "train",
                crossfit.run,
                self.p.train.final,
                self.store,
                self.ctx,
                schema=self.schema,
                data=data,
                vectors=self.recipes.vectors,
                fitted=fitted,
                targets=self.p.train.targets,
                folds=self.p.train.folds,
            )

    def _generate(self, data: TrainingSet) -> TrainingSet:
        """The training set with texts that a model wrote for it, where the file asks for some."""
        if self.p.generate is None:
            return data
        from llmal import generation

        self._stage("generate", generation.run, self.p, self.store, self.ctx, data=data)
        return generation.joined(data, generation.used(self.p, self.ctx, self.store, data))

    def _finish(self) -> None:
        """The student to ship, and everything that follows from it."""
        from llmal.evaluate import stage as evaluate
        from llmal.export import stage as export
        from llmal.page import write as report
        from llmal.review import stage as review
        from llmal.route import stage as route
        from llmal.train import stage as train

        store, ctx, schema = self.store, self.ctx, self.schema
        data = self._learnt_from()
        if not train.can_learn(data, schema):
            raise _nothing_to_learn(store, self._decisions(), len(data.items), self.stopped)
        data = self._generate(data)
        self._train("final", data, self.p.rounds.max, ends=not self.p.train.folds)
        names = recipes(self.p, ctx, store)
        self._crossfit(data, names.student)
        names = self._ask_to_route(names)
        given, decided, student = names.annotations, names.decisions, names.student
        self._stage(
            "route",
            route.run,
            self.p.route,
            store,
            ctx,
            schema=schema,
            **sources(self.p, names)._asdict(),
        )
        self._draw_tests(student)
        names = recipes(self.p, ctx, store)  # a promise that was withdrawn just now left other routes
        write_labels(store, names, schema)
        people = self.p.budget.people
        self._stage(
            "review",
            review.run,
            store,
            ctx,
            schema=schema,
            route=names.route,
            people=people,
            options=self.p.review,
            student=names.predictions,
        )
        self._stage(
            "evaluate",
            evaluate.run,
            store,
            ctx,
            schema=schema,
            student=student,
            route=names.route,
            annotations=given,
            decisions=decided,
            predictions=names.predictions,
            taught=dict(zip(data.items, data.labels, strict=True)),
            sees_pool=bool(self.p.train.final.pool_size),
            judged_together=bool(self.p.annotate.members()),
        )
        goods, to = parcel(self.p, store, ctx, names), store.folder / "export"
        self._stage("export", export.run, self.p.export, store, ctx, parcel=goods, folder=to)
        self._stage("report", report.run, self.p, store, ctx)

    def _ask_to_route(self, names: Recipes) -> Recipes:
        """Ask about the items that the router leaves to the model, as far as the budget goes; the new names.

        The answers are kept apart from those to learn from: they answer items, and change no student.
        """
        from llmal.route import stage as route

        wanted = route.to_ask(self.p.route, self.store, sources(self.p, names), schema=self.schema)
        if not wanted:
            return names
        try:
            self._ask(wanted, ends=False, under=routed(names.annotations))
        except BudgetSpent as error:
            left = route.to_ask(self.p.route, self.store, sources(self.p, names), schema=self.schema)
            self.stopped = (
                f"the budget is spent: {error.message}; {len(left):,} items that were for the model go to "
                "people, and what is promised of items a machine answers is about the whole, with those"
            )
            self.ctx.progress.say(self.stopped)
        return recipes(self.p, self.ctx, self.store)

    def _draw_tests(self, student: str) -> None:
        """Test items that people should answer, where the file asks for active testing."""
        from llmal.evaluate import active

        if wanted := self.p.audit.active:
            given = {"schema": self.schema, "student": student, "active": wanted}
            self._stage("audit", active.choose, self.store, self.ctx, ends=False, **given)

    def _asked_again(self) -> list[str]:
        """Keys of items whose call a crash left without a known fate; listed until they are answered."""
        lost = unknown_fate(self.store, unanswered=True)
        if lost:
            worst = sum(w for _, _, w in lost) / PICO
            self.ctx.progress.say(
                f"{len(lost)} calls of unknown fate after a crash may have been charged "
                f"(at most ${worst:.6f}, counted as spent); those still wanted are asked again"
            )
        return [item.key for item in self.store.items(asked_again(self.store))]


def ingest(pipeline: Pipeline, store: Store, ctx: Context) -> Tally:
    """Read the corpus into the store when its bytes, or how they are read, have changed."""
    from llmal.corpus import file_digest, read, text_key

    spec = pipeline.corpus
    path = ctx.path(spec.path)
    remote = spec.path.startswith("hf://")
    digest = "" if remote or not path.is_file() else file_digest(path)
    schema = pipeline.label_schema()
    name = recipe("snapshot", spec.recipe(), schema.names if spec.gold else None)
    if store.has_corpus(name, digest) and (remote or digest):
        return Tally(store.n_items(), 0)
    before = store.n_items()
    store.put_corpus(name, digest, read(spec, path, schema), text_key)
    rows = store.rows()
    aside = sum(bool(r.skipped) for r in rows)
    active = len(store.active())
    twins = len(rows) - aside - active
    note = f"{len(rows):,} rows: {active:,} distinct texts" + (f", {twins} repeat another" if twins else "")
    return Tally(active, store.n_items() - before, note + (f", {aside} set aside" if aside else ""))


def _nothing_to_learn(store: Store, decided: str, n: int, stopped: str) -> LlmalError:
    decisions = store.decisions(decided)
    reasons: dict[str, int] = {}
    for d in decisions.values():
        if d.verdict != "accept":
            key = d.reason.split(" 0.")[0]
            reasons[key] = reasons.get(key, 0) + 1
    why = (
        "; ".join(f"{c} x {r}" for r, c in sorted(reasons.items(), key=lambda x: -x[1])[:3])
        or "nothing was asked"
    )
    words = f"nothing to teach a student with: {n} of {len(decisions)} annotations accepted ({why})"
    if stopped.startswith("the budget"):
        return BudgetSpent(words, where="budget", hint=stopped)
    return UserError(
        words, where="filter", hint="Lower filter.at_least, ask more, or answer items with `llmal review`"
    )


def _freeze(pipeline: Pipeline, folder: Path) -> None:
    path = folder / "pipeline.yaml"
    text = pipeline.to_yaml()
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
