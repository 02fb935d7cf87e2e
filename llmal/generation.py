"""Puts the generate stage to work: gives it the run's student, encoder, annotator and ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmal.context import Context
from llmal.corpus import shown
from llmal.errors import SpecError
from llmal.records import Annotation, Labels, Tally, recipe
from llmal.spec import Pipeline
from llmal.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmal.annotate.stage import Annotator
    from llmal.generate.facts import Known, Names
    from llmal.generate.stage import Bench
    from llmal.train.stage import TrainingSet


def judge_of(pipeline: Pipeline) -> Annotator:
    """Who labels written texts: the pipeline's annotator, or the one it asks where it sorts a whole corpus.

    Raises:
        SpecError: the answers come from a file, which holds none about a new text.
    """
    from llmal.annotate.freeal import FreeAl
    from llmal.annotate.recorded import Recorded

    judge: Annotator = pipeline.annotate
    while isinstance(judge, FreeAl):
        judge = judge.of
    if any(isinstance(one, Recorded) for one in (judge, *judge.members())):
        raise SpecError(
            ["generate: recorded answers say nothing about new texts; annotate with llm, panel or zero-shot"]
        )
    return judge


def refuse_unable(pipeline: Pipeline) -> None:
    """Raise SpecError, before anything is paid, where nobody could label what is written."""
    if pipeline.generate is not None:
        judge_of(pipeline)


def names_of(pipeline: Pipeline, ctx: Context, store: Store, data: TrainingSet) -> tuple[Names, Known]:
    """Recipes of what is written and measured for this training set, and its two parts as dealt so far."""
    from llmal.generate import facts
    from llmal.train.stage import student_recipe

    generator, schema, vectors = pipeline.generate, pipeline.label_schema(), pipeline.embed.recipe()
    texts = _texts_recipe(pipeline, ctx)
    known = facts.Known(data.items, data.labels, facts.parts(store) & set(data.items))
    student = student_recipe(pipeline.train.rounds, data, schema, vectors, ctx, pipeline.train.targets)
    on = (student, data.recipe(), sorted(known.measures), sorted(store.reserved()))
    extent = [generator.share, generator.texts]  # they decide which texts stand beside the items
    return facts.Names(texts, recipe("generation", texts, *on, *extent), vectors), known


def _texts_recipe(pipeline: Pipeline, ctx: Context) -> str:
    """Hash of what determines which texts come in; labels are left out: what is written once stays."""
    schema, vectors = pipeline.label_schema(), pipeline.embed.recipe()
    judge = judge_of(pipeline).recipe_for(schema, ctx, vectors)
    return recipe("synthetic", pipeline.generate.recipe(), schema.recipe(), judge, vectors, ctx.seed)


def used(pipeline: Pipeline, ctx: Context, store: Store, data: TrainingSet) -> dict[int, Labels]:
    """Written texts that teach beside this training set, by item."""
    if pipeline.generate is None:
        return {}
    from llmal.generate import stage as generate

    names, known = names_of(pipeline, ctx, store, data)
    return generate.used(pipeline.generate, store, names, known)


def joined(data: TrainingSet, extra: Mapping[int, Labels]) -> TrainingSet:
    """The training set with written texts, source `synthetic`.

    Items in ascending order again: a corpus that grows later has items above those written before.
    """
    if not extra:
        return data
    n = len(extra)
    unknown = [None] * len(data.items)
    rows = sorted(
        zip(
            [*data.items, *extra],
            [*data.labels, *extra.values()],
            [*data.sources, *["synthetic"] * n],
            [*(data.probs or unknown), *[None] * n],
            [*(data.sure or unknown), *[None] * n],
            strict=True,
        ),
        key=lambda row: row[0],
    )
    items, labels, sources, probs, sure = (list(column) for column in zip(*rows, strict=True))
    return data._replace(items=items, labels=labels, sources=sources, probs=probs, sure=sure)


def run(pipeline: Pipeline, store: Store, ctx: Context, *, data: TrainingSet) -> Tally:
    """Deal out the labelled items, and let the generate stage work; see `llmal.generate.stage.run`."""
    from llmal.generate import facts
    from llmal.generate import stage as generate

    generator = pipeline.generate
    facts.deal(store, data.items, data.labels, share=generator.validation, seed=ctx.seed)
    names, known = names_of(pipeline, ctx, store, data)
    bench, schema = _bench(pipeline, store, ctx, data), pipeline.label_schema()
    return generate.run(generator, store, ctx, schema=schema, names=names, known=known, bench=bench)


def _bench(pipeline: Pipeline, store: Store, ctx: Context, data: TrainingSet) -> Bench:
    from llmal.embed import stage as embed
    from llmal.generate.stage import Bench, Pen
    from llmal.lm.asker import ask

    caps = pipeline.budget.caps()

    def asked(asker: Any, questions: Any, temperature: float) -> list[str | None]:
        return ask(
            asker, questions, purpose="generate", store=store, ctx=ctx, caps=caps, temperature=temperature
        )

    return Bench(
        _learner(pipeline, store, ctx, data),
        lambda: embed.run(pipeline.embed, store, ctx),
        _labeller(pipeline, store, ctx),
        Pen(asked, store.secret()),
    )


def _learner(
    pipeline: Pipeline, store: Store, ctx: Context, data: TrainingSet
) -> Callable[[list[int], list[Labels]], Callable[[list[int]], NDArray[np.floating]]]:
    """Fits the student of the rounds: a loop fits several, and the final one may take minutes."""
    from llmal.train.stage import Examples, examples_of, shown_of

    student, schema, vectors = pipeline.train.rounds, pipeline.label_schema(), pipeline.embed.recipe()
    row = {s: i for i, s in enumerate(data.items)}

    def learn(items: list[int], labels: list[Labels]) -> Callable[[list[int]], NDArray[np.floating]]:
        extra = {s: said for s, said in zip(items, labels, strict=True) if s not in row}
        some = joined(data.some([row[s] for s in items if s in row]), extra)
        shown = examples_of(student, store, some, schema, vectors, ctx, pipeline.train.targets)
        model = student.fit(shown, schema, ctx.rng("generate student"), ctx)
        return lambda asked: model.predict_proba(Examples(*shown_of(student.shipped, store, asked, vectors)))

    return learn


def _labeller(pipeline: Pipeline, store: Store, ctx: Context) -> Callable[[list[int]], dict[int, Annotation]]:
    """Asks the annotator about items as about any other, and keeps the answers apart from the corpus's."""
    from llmal.annotate.stage import Desk, ask

    judge, schema, vectors = judge_of(pipeline), pipeline.label_schema(), pipeline.embed.recipe()
    name = recipe("synthetic-annotation", judge.recipe_for(schema, ctx, vectors))

    def label(items: list[int]) -> dict[int, Annotation]:
        have = store.annotations(name)
        missing = [s for s in items if s not in have]
        with ctx.progress.task("label written texts blind", len(missing)) as advance:
            if missing:
                desk = Desk(ctx, store, pipeline.budget.caps(), name, vectors, advance)
                ask(judge, missing, schema, desk)
        said = store.annotations(name)
        return {s: said[s] for s in items if s in said}

    return label


def summary(pipeline: Pipeline, ctx: Context, store: Store) -> dict[str, Any]:
    """What was written and what came of it; empty where nothing is to be written."""
    if pipeline.generate is None:
        return {}
    from llmal.generate import facts
    from llmal.generate import stage as generate
    from llmal.generate.weakness import lowest

    names, known = names_of(pipeline, ctx, store, _labelled(pipeline, ctx, store))
    texts, losses = facts.written(store, names.texts), facts.measured(store, names.measures)
    best = losses[lowest([one.loss for one in losses])] if losses else None
    return {
        "loops": max((one.loop for one in texts), default=0),
        "written": len(texts),
        "agreed": sum(one.verdict == "accept" for one in texts),
        "used": len(generate.used(pipeline.generate, store, names, known)),
        "refused": dict(Counter(one.reason for one in texts if one.verdict != "accept").most_common()),
        "best_loop": best.loop if best else None,
        "loss_before": losses[0].loss if losses else None,
        "loss_best": best.loss if best else None,
        "measured_on": len(known.measures),
        "report_before": [line._asdict() for line in losses[0].report] if losses else [],
        "report_best": [line._asdict() for line in best.report] if best else [],
    }


def _labelled(pipeline: Pipeline, ctx: Context, store: Store) -> TrainingSet:
    from llmal.filter.stage import decision_recipe

    schema, vectors = pipeline.label_schema(), pipeline.embed.recipe()
    given = pipeline.annotate.recipe_for(schema, ctx, vectors)
    decided = decision_recipe(pipeline.filter, store, schema=schema, annotations=given, vectors=vectors)
    return labelled(pipeline, store, given, decided)


def labelled(pipeline: Pipeline, store: Store, annotations: str, decisions: str) -> TrainingSet:
    """What the pipeline's students learn from, but for texts that a model wrote: see `joined`."""
    from llmal.train.stage import training_set

    return training_set(
        store,
        schema=pipeline.label_schema(),
        annotations=annotations,
        decisions=decisions,
        calibrated=pipeline.filter.calibrates,
        by_people=pipeline.train.targets.prior == "people",
    )


def left(pipeline: Pipeline, ctx: Context, store: Store | None, learnt: int) -> tuple[int, int]:
    """Most loops that are still to be asked for, and most texts they would bring.

    Args:
        pipeline: the run's.
        ctx: shared context.
        store: of the run, if there is one.
        learnt: labelled items there will be, about.
    """
    generator = pipeline.generate
    if generator is None:
        return 0, 0
    from llmal.generate import facts
    from llmal.generate.stage import most

    done = 0
    room = most(generator, learnt)
    if store is not None:
        texts = facts.written(store, _texts_recipe(pipeline, ctx))
        done = max((one.loop for one in texts), default=0)
        room -= sum(one.verdict == "accept" for one in texts)
    loops = max(0, generator.loops - done) if room > 0 else 0
    return loops, loops * min(generator.each, max(room, 0))


def told(found: dict[str, Any]) -> list[str]:
    """Lines of a report about what `summary` found."""
    if not found["written"]:
        return ["none yet"]
    lines = [
        f"{found['used']} of {found['written']} teach the student, {found['agreed']} passed all checks; "
        f"{found['loops']} loops"
    ]
    if found["loss_best"] is not None:
        lines.append(
            f"validation loss {found['loss_before']:.3f} without them, {found['loss_best']:.3f} after loop "
            f"{found['best_loop']}, on {found['measured_on']} labelled texts"
        )
    for before, after in zip(found["report_before"], found["report_best"], strict=True):
        if found["best_loop"]:
            name = shown(before["name"], limit=30)
            lines.append(f"{name:30} recall {before['recall']:.2f} -> {after['recall']:.2f}")
    return lines + [f"{n:5} refused: {shown(why)}" for why, n in found["refused"].items()]
