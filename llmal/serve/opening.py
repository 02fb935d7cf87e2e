"""What is to be served, found and opened: an export, its run, its terms, its language model, its state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from llmal.context import Context
from llmal.errors import UserError
from llmal.filter.stage import NOTHING, Evidence, evidence_for
from llmal.records import LabelSchema, recipe
from llmal.serve.app import Service
from llmal.serve.cascade import Cascade, Tiers
from llmal.serve.drift import Drift
from llmal.serve.judge import Judge
from llmal.serve.llm import LlmTier, servable
from llmal.serve.metrics import Metrics
from llmal.serve.options import Options
from llmal.serve.promise import terms_of
from llmal.serve.queue import Queue, claim, state_file
from llmal.serve.student import Student
from llmal.spec import BudgetSpec, Pipeline
from llmal.store.store import open_store


class Source(NamedTuple):
    """What is served: the export, its `llmal.json`, the pipeline behind it, and where its paths start.

    Attributes:
        folder: the export.
        about: its `llmal.json`.
        pipeline: of the run, or of a file, or made of the labels alone.
        home: folder the pipeline's relative paths start at.
        run: the run's folder, where there is one.
        state: where the server keeps what it has to remember.
    """

    folder: Path
    about: dict[str, Any]
    pipeline: Pipeline
    home: Path
    run: Path | None
    state: Path


def find(folder: Path, options: Options) -> Source:
    """What a folder holds to be served.

    Args:
        folder: of a run, or an export.
        options: may name a pipeline file and the place of the state.

    Raises:
        UserError: neither a run with an export nor an export is there.
    """
    folder = folder.resolve()
    run = folder if (folder / "store.sqlite").is_file() else None
    if run is None and folder.name == "export" and (folder.parent / "store.sqlite").is_file():
        run = folder.parent
    export = run / "export" if run is not None else folder
    try:
        about = json.loads((export / "llmal.json").read_text(encoding="utf-8"))
        names = [label["name"] for label in about["labels"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            "no exported classifier here", where=str(folder), hint="Name an export, or a run that has one"
        ) from error
    # Beside an export, never inside: the next export replaces the folder.
    state = options.state or (
        run / "serving" if run is not None else folder.with_name(f"{folder.name}-serving")
    )
    if options.pipeline is not None:
        pipeline, home = Pipeline.from_yaml(options.pipeline), options.pipeline.parent.resolve()
    elif run is not None:
        pipeline, home = _of_run(run)
    else:
        said = {label["name"]: label.get("description", "") for label in about["labels"]}
        labels = {"kind": about["kind"], "names": said, "abstain": False}
        pipeline, home = (
            Pipeline.model_validate({"corpus": {"path": "served.jsonl"}, "labels": labels}),
            folder,
        )
    if pipeline.label_schema().names != names:
        raise UserError("the pipeline's labels are not those of the export", where=str(export),
                        hint="Export the run again, or name its own pipeline file")  # fmt: skip
    return Source(export, about, pipeline, home, run, state.resolve())


def _of_run(run: Path) -> tuple[Pipeline, Path]:
    store = open_store(run, write=False)
    try:
        home = Path(store.noted("home") or Path.cwd())
    finally:
        store.close()
    return Pipeline.from_yaml(run / "pipeline.yaml", home=home), home


def opened(source: Source, options: Options) -> Service:
    """Everything that serves, but for the model, which is loaded once the server listens.

    Raises:
        LlmalError: the state is in use, a certificate cannot be read, or the language model cannot be asked.
    """
    terms = terms_of(source.about, where=str(source.folder))
    schema = source.pipeline.label_schema()
    llm = None
    if options.llm:
        capped = options.usd is not None or options.calls is not None
        llm = servable(source.pipeline.annotate, capped=capped)
    terms = terms.without(llm, getattr(source.pipeline.annotate, "batch", 1))
    evidence = _evidence(source, schema) if llm is not None else NOTHING
    queue = _queue(source, options, None if llm is None else llm.recipe())
    ctx = Context(source.state, home=source.home, seed=source.pipeline.seed)
    tier = None
    if llm is not None:
        tier = LlmTier(llm, schema, ctx, queue, source.pipeline.embed.recipe(), options.llm_timeout_s)
    judge = Judge(terms, source.pipeline.filter, schema, evidence) if llm is not None else None
    drift = None
    if terms.reference is not None:  # a third of the rate is left to people's answers
        drift = Drift(terms.reference, schema.names, alpha=options.alarm_rate * 2 / 3, seed=queue.seed,
                      file=state_file(source.state), certificate=queue.recipe)  # fmt: skip
    tiers = Tiers(Student(source.folder, options.backend), tier, judge)
    cascade = Cascade(tiers, terms, queue, drift, Metrics(schema.names), options)
    about = {
        "model": str((source.about.get("run") or {}).get("student") or recipe("export", source.about)),
        "kind": schema.kind,
        "labels": schema.names,
        "promise": f"{terms.words} Here {terms.partial}." if terms.partial else terms.words,
        "llm": options.llm,
        "queue": options.queue,
    }
    return Service(cascade, about, schema.kind)


def _queue(source: Source, options: Options, llm: str | None) -> Queue:
    """The serving store, as a run folder of its own that `llmal review` reads."""
    budget = BudgetSpec(usd=options.usd, calls=options.calls)
    lock = claim(source.state)
    try:
        store = open_store(source.state)
        try:
            store.note("home", lambda: str(source.home))
            frozen = source.pipeline.model_copy(update={"budget": budget})
            (source.state / "pipeline.yaml").write_text(frozen.to_yaml(), encoding="utf-8")
            stated = [source.about.get(key) for key in ("run", "data", "certificate", "threshold")]
            name = recipe("served", stated, llm)
            return Queue(store, lock, budget.caps(), name, source.pipeline.label_schema().names)
        except BaseException:
            store.close()
            raise
    except BaseException:
        lock.release()
        raise


def _evidence(source: Source, schema: LabelSchema) -> Evidence:
    """People's answers of the run, for a filter that weighs them; other evidence is of the run's items."""
    judge = source.pipeline.filter
    if source.run is None or judge.uses != {"people"}:
        return NOTHING
    from llmal.state import recipes

    store = open_store(source.run, write=False)
    try:
        ctx = Context(source.run, home=source.home, seed=source.pipeline.seed)
        given = recipes(source.pipeline, ctx).annotations
        return evidence_for(judge, store, schema=schema, annotations=given)
    finally:
        store.close()
