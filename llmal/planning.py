"""`llmal plan`: what a run would take from here, before anything is paid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from llmal.annotate.earlier import Earlier, earlier, kept, rests_on
from llmal.annotate.forecast import Paper, one_pass
from llmal.annotate.llm import Llm
from llmal.annotate.stage import Annotator
from llmal.context import Context
from llmal.corpus import Row, read
from llmal.durations import PROBE_S, SECONDS_A_CALL, calls_seconds, learning_seconds
from llmal.generate.pgkd import Pgkd, question
from llmal.generate.stage import Look, Shown
from llmal.generate.weakness import ClassScore
from llmal.generation import judge_of, left
from llmal.lm.asker import Asker
from llmal.lm.prices import batch_price_of
from llmal.lm.probe import Abilities
from llmal.lm.tokens import Tokens, tokens_of
from llmal.lm.vllm import is_vllm
from llmal.records import LabelSchema, recipe
from llmal.rounds import Pass, distinct, passes
from llmal.select.select_llm import SelectLlm
from llmal.select.select_llm import question as choice
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.ledger import PICO, bill
from llmal.store.store import Store, open_store

SURE = 1.64
"""Standard errors on each side that hold 90 % of samples."""


MAY_END = frozenset({"info-coevolution"})
"""Strategies that say when more picks are not worth their price."""


class Part(NamedTuple):
    """What an annotator or strategy that asks a model would take; `usd` is None on one's own machine."""

    calls: int
    tokens_in: float
    tokens_out: float
    usd: float | None
    seconds: float
    spread: float = 0.0
    words: tuple[str, ...] = ()
    pace: str = ""


class Plan:
    """The figures for one pipeline, from its corpus and from what its run holds already."""

    def __init__(self, pipeline: Pipeline, ctx: Context, rows: list[Row], store: Store | None) -> None:
        self.p, self.ctx, self.store = pipeline, ctx, store
        self.schema: LabelSchema = pipeline.label_schema()
        self.vectors = pipeline.embed.recipe()
        self.items = distinct(rows)
        gold = [row.gold for row in rows if row.gold is not None]
        self.labels_each = fmean(len(labels) for labels in gold) if gold else 1.0
        self.passes, self.audit = passes(pipeline, self.items, store)
        name = pipeline.annotate.recipe_for(self.schema, ctx, self.vectors)
        self.done = self._answered(name)
        self.loops = left(pipeline, ctx, store, self.fresh() + len(self.done))
        self.probed: set[str] = set()

    def fresh(self) -> int:
        """Items without an answer that the run would ask about."""
        return sum(len(one.known - self.done) + one.new for one in self.passes)

    def asked(self, annotator: Annotator, passes: Sequence[Pass]) -> list[Part]:
        """What an annotator and its members would take; what the members have is not counted again."""
        name = annotator.recipe_for(self.schema, self.ctx, self.vectors)
        have = self._answered(name)
        left = [Pass(one.known - have, one.new) for one in passes]
        if annotator.asks_one:
            return self._one_of(annotator, left)
        if annotator.members():
            parts = [part for member in annotator.members() for part in self.asked(member, left)]
            more = self._beyond(annotator)
            return [_more(part, *more) for part in parts]
        if isinstance(annotator, Llm):
            return [self._llm(annotator, left)]
        sample = self.items[:200]
        one = annotator.estimate(sample, self.schema, self.ctx)
        share = sum(len(p.known) + p.new for p in left) / max(1, len(sample))
        usd = None if one.usd is None else one.usd * share
        calls = round(one.calls * share)
        note = (one.note,) if one.calls else ()
        return [
            Part(
                calls, one.tokens_in * share, one.tokens_out * share, usd, calls * SECONDS_A_CALL, words=note
            )
        ]

    def chosen(self) -> tuple[list[Part], list[str]]:
        """What strategies that ask a model would take, and the names of those that cannot be counted."""
        parts, unknown = [], []
        pool = len(self.items) - self.audit
        for n, one in enumerate(self.passes):
            strategy = self.p.select.then if n else self.p.select.first
            if isinstance(strategy, SelectLlm) and one.new:
                parts.append(self._choosing(strategy, one.new, pool))
            elif isinstance(strategy, Asker):
                unknown.append(self.p.select.then.name if n else self.p.select.first.name)
            pool -= one.new
        return parts, list(dict.fromkeys(unknown))

    def written(self) -> tuple[list[Part], list[str]]:
        """What texts yet to be written would take at most, blind labels included; and how that is counted."""
        generator = self.p.generate
        loops, texts = self.loops
        if not loops:
            return [], []
        judging = self.asked(judge_of(self.p), [Pass(frozenset(), min(generator.each, texts))] * loops)
        words = [f"generate: at most {loops} loops and {texts} texts, each labelled blind"]
        if not isinstance(generator, Pgkd):
            return judging, [*words, f"the calls of {generator.name} to write are not counted"]
        return [*judging, self._writing(generator, loops)], words

    def _writing(self, pgkd: Pgkd, loops: int) -> Part:
        """Each loop is one question that shows up to three times `shown` texts."""
        tokens, names = tokens_of(pgkd.model, self.ctx.path), tuple(self.schema.names)
        sample = [Shown(item.text, names[:1], names[-1:]) for item in self.items[: pgkd.shown]]
        report = [ClassScore(name, 0.5, 0.5, 0.5, 10) for name in names]
        look = Look(self.schema, report, sample, sample, sample)
        tokens_in = loops * tokens.prompt(question(look, pgkd.each, pgkd.text_bytes, b"secret"))
        lines = "\n".join(json.dumps({"label": s.labels[0], "text": s.text}) for s in sample)
        tokens_out = loops * min(pgkd.max_tokens, tokens.text(lines) * pgkd.each / max(1, len(sample)))
        seconds = calls_seconds(pgkd, [1] * loops, tokens_in / loops, None)
        return _with(Part(loops, tokens_in, tokens_out, 0.0, seconds), self._probe(pgkd, tokens), pgkd)

    def _one_of(self, annotator: Annotator, passes: Sequence[Pass]) -> list[Part]:
        """All items asked of the dearest member, and what every one of them is tried on."""
        probed = set(self.probed)
        each = [self.asked(member, passes) for member in annotator.members()]
        sums = [(sum(p.usd or 0.0 for p in parts), sum(p.calls for p in parts)) for parts in each]
        self.probed = probed  # an endpoint is probed by who is really asked
        trial = [Pass(frozenset(), min(self.audit, getattr(annotator, "validation", 0)))]
        dearest = self.asked(annotator.members()[sums.index(max(sums))], passes)
        tried = [part for member in annotator.members() for part in self.asked(member, trial)]
        words = f"{annotator.name} as if its dearest member were asked about every item"
        return [*(part._replace(words=(*part.words, words)) for part in dearest), *tried]

    def _llm(self, llm: Llm, passes: Sequence[Pass]) -> Part:
        able = self._able(llm)
        shown = llm.demonstrations if self.store and len(self.store.answers()) >= llm.demonstrations else 0
        paper = Paper(
            llm, self.items, self.schema, self.ctx, able=able, labels_each=self.labels_each, shown=shown,
            secret=_secret(self.store),
        )  # fmt: skip
        past = earlier(self.store, paper) if self.store else None
        takes = [one_pass(paper, n) for n in (len(one.known) + one.new for one in passes) if n]
        if not takes:
            return Part(0, 0.0, 0.0, None if llm.priced().local else 0.0, 0.0)
        whole = sum(take.calls for take in takes)
        free = kept(self.store, paper, frozenset().union(*(one.known for one in passes))) if self.store else 0
        share = max(0.0, 1 - free / whole) * (past.repeats if past else 1.0)
        calls = [round(take.calls * share) for take in takes]
        tokens_in = sum(take.tokens_in for take in takes) * share * (past.tokens_in if past else 1.0)
        tokens_out = sum(take.tokens_out for take in takes) * share * (past.tokens_out if past else 1.0)
        seconds = calls_seconds(llm, calls, sum(take.limited for take in takes) / whole, past)
        spread = SURE * paper.rate(1 if shown else llm.batch).spread / sqrt(max(1, whole))
        part = Part(sum(calls), tokens_in, tokens_out, 0.0, seconds, spread, rests_on(paper, past),
                    _pace(llm, past))  # fmt: skip
        return _with(part, self._probe(llm, paper.tokens), llm)

    def _choosing(self, strategy: SelectLlm, picks: int, pool: int) -> Part:
        """As SelectLlm makes its groups; where texts bunch together some groups are smaller than this."""
        n = min(strategy.read * picks, pool)
        groups = -(-picks // strategy.picks)
        tokens = tokens_of(strategy.model, self.ctx.path)
        each = n // groups
        calls = groups if each > min(strategy.picks, picks) else 0
        sample = [item.text for item in self.items]
        lists = [
            sample[i * each : (i + 1) * each] for i in range(min(20, max(1, len(sample) // max(1, each))))
        ]
        asked = [choice(one, min(strategy.picks, picks), strategy.text_bytes, b"secret") for one in lists]
        tokens_in = calls * fmean(tokens.prompt(one) for one in asked)
        tokens_out = calls * tokens.text(", ".join(["[12]"] * strategy.picks))
        seconds = calls_seconds(strategy, [calls], tokens_in / max(1, calls), None)
        words = (f"what {strategy.name} reads to choose is at most that",)
        part = Part(calls, tokens_in, tokens_out, 0.0, seconds, words=words)
        return _with(part, self._probe(strategy, tokens), strategy) if calls else part

    def _able(self, asker: Asker) -> Abilities | None:
        fact = self.store.fact(t.endpoint, _endpoint(asker)) if self.store else None
        return Abilities(**json.loads(fact.facts)) if fact is not None else None

    def _probe(self, asker: Asker, tokens: Tokens) -> Part:
        """The one question an endpoint is asked before all others, once a run."""
        name = _endpoint(asker)
        if name in self.probed or self._able(asker) is not None:
            return Part(0, 0.0, 0.0, 0.0, 0.0)
        self.probed.add(name)
        words = [{"role": "user", "content": "Answer with the single letter A."}]
        return Part(1, tokens.prompt(words), tokens.text("A"), 0.0, PROBE_S)

    def _beyond(self, annotator: Annotator) -> tuple[float, float, float, str]:
        """Calls and tokens of an annotator for each of its members', 1 where it only combines; its words."""
        sample = self.items[:50]
        own = annotator.estimate(sample, self.schema, self.ctx)
        parts = [m.estimate(sample, self.schema, self.ctx) for m in annotator.members()]
        sums = [sum(getattr(part, name) for part in parts) for name in ("calls", "tokens_in", "tokens_out")]
        whole = (own.calls, own.tokens_in, own.tokens_out)
        calls, tokens_in, tokens_out = (
            max(1.0, a / b) if b else 1.0 for a, b in zip(whole, sums, strict=True)
        )
        new = [
            word
            for word in own.note.split("; ")
            if word not in {w for p in parts for w in p.note.split("; ")}
        ]
        return calls, tokens_in, tokens_out, "; ".join(new)

    def _answered(self, name: str) -> frozenset[int]:
        return frozenset(self.store.annotations(name)) if self.store else frozenset()


def plan(file: Path, folder: Path) -> dict[str, Any]:
    """What a run would take from here: nothing is paid, and nothing is written to the run.

    Args:
        file: the pipeline file.
        folder: the run's folder; what it holds already is not counted again, and what its calls took is what
            the next ones are expected to take.

    Returns:
        Counts, and on what each figure rests; `usd` is None where all models run on machines of one's own,
        `spread` the share by which 90 % of samples of the texts differ from the expected tokens at most.
    """
    pipeline = Pipeline.from_yaml(file)
    ctx = Context(folder, home=file.parent.resolve(), seed=pipeline.seed)
    rows = list(read(pipeline.corpus, ctx.path(pipeline.corpus.path), pipeline.label_schema()))
    with _opened(folder) as store:
        made = Plan(pipeline, ctx, rows, store)
        annotating = made.asked(pipeline.annotate, made.passes)
        choosing, unknown = made.chosen()
        writing, how = made.written()
        parts = annotating + choosing + writing
        learning, words = learning_seconds(
            pipeline, made.items, store, made.fresh() + len(made.done), len(made.passes), made.loops[0]
        )
        spent = bill(store).cost / PICO if store else 0.0
    paid = [part.usd for part in parts if part.usd is not None]
    calls, usd = sum(part.calls for part in parts), sum(paid) if paid else None
    seconds = learning | {"calls": sum(part.seconds for part in parts)}
    notes = [word for part in parts for word in part.words] or ["no paid calls"]
    notes += how
    notes += [f"the calls of {name} to choose are not counted" for name in unknown]
    notes += _limits(pipeline, made, calls, usd, spent)
    gold = any(row.gold is not None for row in rows)
    weights = sum(part.tokens_in for part in parts) or 1.0
    return {
        "rows": len(rows),
        "items": len(made.items),
        "skipped": sum(bool(r.skipped) for r in rows),
        "rounds": pipeline.rounds.max,
        "items_to_annotate": made.fresh(),
        "items_annotated_already": len(made.done),
        "calls": calls,
        "calls_by": {
            "annotate": sum(part.calls for part in annotating),
            "select": sum(part.calls for part in choosing),
            **({"generate": sum(part.calls for part in writing)} if pipeline.generate is not None else {}),
        },
        "tokens_in": round(sum(part.tokens_in for part in parts)),
        "tokens_out": round(sum(part.tokens_out for part in parts)),
        "spread": round(sum(part.spread * part.tokens_in for part in parts) / weights, 3),
        "usd": usd,
        "usd_spent_already": spent,
        "usd_cap": pipeline.budget.usd,
        "note": "; ".join(dict.fromkeys(notes)),
        "people": {"audit": 0 if gold else made.audit + pipeline.audit.active, "cap": pipeline.budget.people},
        "seconds": round(sum(seconds.values())),
        "seconds_by": {name: round(took, 1) for name, took in seconds.items()},
        "seconds_note": "; ".join(dict.fromkeys([*filter(None, (part.pace for part in parts)), words])),
    }  # fmt: skip


@contextmanager
def _opened(folder: Path) -> Iterator[Store | None]:
    if not (folder / "store.sqlite").is_file():
        yield None
        return
    store = open_store(folder, write=False)
    try:
        yield store
    finally:
        store.close()


def _secret(store: Store | None) -> bytes | None:
    """Key of the run's fences; None before it was made."""
    noted = store.noted("secret") if store else None
    return bytes.fromhex(noted) if noted else None


def _endpoint(asker: Asker) -> str:
    url = asker.model if is_vllm(asker.model) else asker.base_url
    return recipe("endpoint", url, asker.model)


def _usd(asker: Asker, tokens_in: float, tokens_out: float) -> float | None:
    price = asker.priced()
    if asker.batch_api:
        price = batch_price_of(price, asker.price, asker.base_url)
    return None if price.local else price.of(round(tokens_in), round(tokens_out)) / PICO


def _with(part: Part, probe: Part, asker: Asker) -> Part:
    """Part and probe as one, priced."""
    tokens_in, tokens_out = part.tokens_in + probe.tokens_in, part.tokens_out + probe.tokens_out
    return part._replace(
        calls=part.calls + probe.calls, tokens_in=tokens_in, tokens_out=tokens_out,
        usd=_usd(asker, tokens_in, tokens_out), seconds=part.seconds + probe.seconds,
    )  # fmt: skip


def _more(part: Part, calls: float, tokens_in: float, tokens_out: float, words: str) -> Part:
    if max(calls, tokens_in, tokens_out) == 1.0:
        return part._replace(words=(*part.words, *filter(None, [words])))
    usd = None if part.usd is None else part.usd * max(tokens_in, tokens_out)  # on the safe side
    return part._replace(
        calls=round(part.calls * calls), tokens_in=part.tokens_in * tokens_in,
        tokens_out=part.tokens_out * tokens_out, usd=usd, seconds=part.seconds * calls,
        words=(*part.words, *filter(None, [words])),
    )  # fmt: skip


def _pace(llm: Llm, past: Earlier | None) -> str:
    if llm.batch_api:
        return "a provider's batches may take up to 24 hours, which are not counted"
    if past is None:
        return f"a call of {llm.model} at {SECONDS_A_CALL:g} s, an assumption until some are made"
    return f"a call of {llm.model} at {fmean(past.seconds):.2g} s, as in {past.calls} earlier ones"


def _limits(pipeline: Pipeline, made: Plan, calls: int, usd: float | None, spent: float) -> list[str]:
    """Where a budget or a strategy may end the run before all this is asked."""
    budget = pipeline.budget
    found = []
    sent = bill(made.store).calls if made.store else 0
    if budget.calls is not None and sent + calls > budget.calls:
        found.append(f"budget.calls ends the run before: {max(0, budget.calls - sent)} calls are left")
    if budget.usd is not None and usd is not None and spent + usd > budget.usd:
        found.append(f"budget.usd ends the run before: ${max(0.0, budget.usd - spent):.4f} are left")
    if "llm" in pipeline.route.uses:
        rest = max(0, len(made.items) - made.fresh() - len(made.done))
        found.append(f"{pipeline.route.name} asks about at most {rest:,} items more, which are not counted")
    strategies = {pipeline.select.first.name, pipeline.select.then.name} & MAY_END
    return found + [f"{name} may end the run before" for name in sorted(strategies)]
