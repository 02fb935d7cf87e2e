"""What asking a language model would take: its questions, written as for a run, are counted, not sent."""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.annotate.sheet import Sheet
from llmal.annotate.stage import Desk, Shown
from llmal.context import Context
from llmal.corpus import Row
from llmal.lm.probe import TOP_LOGPROBS, Abilities
from llmal.lm.tokens import Tokens, tokens_of
from llmal.lm.wire import Request
from llmal.prompts.file import load_prompt
from llmal.prompts.frame import render
from llmal.prompts.program import answered
from llmal.records import Item, Labels, LabelSchema
from llmal.store.ledger import Caps
from llmal.store.store import open_store

if TYPE_CHECKING:
    from llmal.annotate.llm import Llm

SAMPLE = 400
"""Items whose questions are written out: their mean is known to 1 % even where texts vary twofold."""

READ = 5000
"""Texts whose tokens are counted, so that a sample of unusual texts does not sway the mean."""

VECTORS = "paper"
"""Recipe of the vectors that stand in for the encoder's: loading that would take longer than the plan."""


class Question(NamedTuple):
    """One question as it would be asked, with the tokens of prompt and of a well-formed answer."""

    request: Request
    tokens_in: float
    tokens_out: float


class Rate(NamedTuple):
    """Means over questions about `size` items: tokens, tokens as a limiter counts them, spread of prompts."""

    size: int
    tokens_in: float
    tokens_out: float
    limited: float
    spread: float


class Paper:
    """Writes questions about a corpus, as its annotator would, into a store that is thrown away.

    Args:
        llm: whose options say how to ask.
        items: the corpus, or the part of it that may be asked about; a sample is written out.
        schema: the classes.
        ctx: paths and seed.
        able: what the endpoint accepts; what most accept when absent.
        labels_each: labels an item, for `kind: multi`.
        shown: demonstrations an item that are looked up for it, as `Desk.shown`; what the options say when
            absent.
        secret: of the run, for its very questions; any other when absent.
    """

    def __init__(
        self, llm: Llm, items: Sequence[Item], schema: LabelSchema, ctx: Context, *,
        able: Abilities | None = None, labels_each: float = 1.0, shown: int | None = None,
        secret: bytes | None = None,
    ) -> None:  # fmt: skip
        # Who asks for a stated confidence has an endpoint without log-probabilities in mind.
        self.able = able or Abilities(top_logprobs=0 if llm.stated else TOP_LOGPROBS)
        self.shown = llm.demonstrations if shown is None else shown
        self.llm, self.schema, self.ctx = llm.model_copy(update={"demonstrations": 0}), schema, ctx
        self.labels_each, self.secret = labels_each, secret
        self.tokens: Tokens = tokens_of(llm.model, ctx.path)
        rng = ctx.rng("plan")
        self.sample = [items[i] for i in sorted(rng.permutation(len(items))[:SAMPLE])]
        read = [items[i] for i in rng.permutation(len(items))[:READ]]
        ours = fmean(self.tokens.text(item.text) for item in self.sample) if self.sample else 0.0
        self._more = (
            fmean(self.tokens.text(item.text) for item in read) - ours if len(items) > SAMPLE else 0.0
        )
        self._rates: dict[int, Rate] = {}
        self._answers: dict[tuple[str, int], float] = {}

    @cached_property
    def alone(self) -> frozenset[str]:
        """Keys of the sample's items that are asked about alone though others share a prompt."""
        if self.llm.batch == 1 or self.shown or len(self.sample) < 2:
            return frozenset()

        def singles(groups: Sequence[Sequence[Item]]) -> list[Item]:
            asked = [q.request for q in self.questions(groups)]
            every = list(dict.fromkeys(item.key for group in groups for item in group))
            return [of[every[r.item]] for r in asked if r.item is not None and len(r.group) < 2]

        of = {item.key: item for item in self.sample}
        found = singles([self.sample])
        first = next((item for item in self.sample if item not in found), None)
        if first is None or not found:
            return frozenset(item.key for item in found)
        # One of them may only be what was left over: beside a first item it is no longer alone.
        return frozenset(item.key for item in singles([[first, item] for item in found]) if item is not first)

    def rate(self, size: int) -> Rate:
        """Means over questions about `size` items each, drawn from the corpus."""
        if size not in self._rates:
            fit = [item for item in self.sample if size == 1 or item.key not in self.alone]
            sample = fit or self.sample or [Item(0, "", "")]
            again = [sample[i % len(sample)] for i in range(max(size, len(sample) - len(sample) % size))]
            groups = [again[i : i + size] for i in range(0, len(again), size)]
            asked = self.questions(groups if size > 1 or len(groups) < SAMPLE else groups[:SAMPLE])
            prompts = [q.tokens_in for q in asked]
            limited = fmean(q.request.bytes_in() // 4 + q.request.max_tokens() for q in asked)
            more = self._more * size
            spread = pstdev(prompts) / fmean(prompts)
            self._rates[size] = Rate(
                size, fmean(prompts) + more, fmean(q.tokens_out for q in asked), limited + more, spread
            )
        return self._rates[size]

    def questions(self, groups: Sequence[Sequence[Item]], *, asks: int = 1) -> list[Question]:
        """The questions about each group of items; groups are no larger than `batch`."""
        every = {item.key: item.text for group in groups for item in group}
        items = [Item(seq, key, text) for seq, (key, text) in enumerate(every.items())]
        place = {item.key: item for item in items}
        asked: list[Question] = []
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(Path(folder))
            try:
                store.note("secret", (self.secret or bytes(16)).hex)
                rows = (Row(n, str(n), item.text) for n, item in enumerate(items, 1))
                keys = {item.text: item.key for item in items}
                store.put_corpus(VECTORS, "", rows, keys.__getitem__)
                store.put_block(VECTORS, 0, _hashed([item.text for item in items]))
                ctx = Context(Path(folder), home=self.ctx.home, seed=self.ctx.seed, encode=_hashed)
                desk = Desk(
                    ctx, store, Caps(), VECTORS, VECTORS, lambda *_, **__: None, self._demonstrations(items)
                )
                llm = self.llm.model_copy(update={"asks": asks})
                sheet = Sheet(llm, items, self.schema, desk, self.able)
                for group in groups:
                    sheet.items = [place[key] for key in dict.fromkeys(item.key for item in group)]
                    asked += [self._counted(request, sheet) for request in sheet.questions()]
            finally:
                store.close()
        return asked

    def _demonstrations(self, items: list[Item]) -> dict[int, Shown]:
        """Others of the corpus with any label: their number and their length are what counts."""
        names = self.schema.names
        others = self.sample or items
        return {
            item.seq: tuple(
                (others[(item.seq + 1 + i) % len(others)], (names[i % len(names)],))
                for i in range(self.shown)
            )
            for item in items
            if self.shown
        }

    def _counted(self, request: Request, sheet: Sheet) -> Question:
        form = "several" if request.group else sheet.form
        out = min(self._answer(form, max(1, len(request.group))), request.max_tokens())
        return Question(request, self.tokens.prompt(request.messages), out)

    def _answer(self, form: str, size: int) -> float:
        """Tokens of a well-formed answer: as a demonstration would show it."""
        if (form, size) not in self._answers:
            schema = self.schema
            if self.llm.shortlist and self.llm.shortlist < len(schema.labels):
                schema = schema._replace(labels=schema.labels[: self.llm.shortlist])
            most = min(int(self.labels_each) + 1, len(schema.labels)) if schema.kind == "multi" else 1
            few = max(most - 1, 0 if schema.kind == "multi" else 1)
            prompt = load_prompt(self.ctx.path(self.llm.prompt) if self.llm.prompt else None)
            _, _, said, end = render(prompt, schema, form).example  # type: ignore[arg-type]
            few_, most_ = (
                self.tokens.text(said + _written(schema.names[:n], schema, form, size) + end)
                for n in (few, most)
            )
            share = min(max(self.labels_each - few, 0.0), 1.0) if most > few else 0.0
            self._answers[form, size] = few_ + share * (most_ - few_)
        return self._answers[form, size]


class Take(NamedTuple):
    """What questions would take: calls, tokens, and tokens as the limiter counts them."""

    calls: int
    tokens_in: float
    tokens_out: float
    limited: float


def one_pass(paper: Paper, n: int) -> Take:
    """Asking about n items of the corpus in one go: every item has `asks` questions, alone or with others."""
    size = 1 if paper.shown else paper.llm.batch
    alone = round(n * len(paper.alone) / max(1, len(paper.sample)))
    full, left = divmod(n - alone, size)
    parts = ((full, size), (int(left > 0), left), (alone, 1))
    rates = [(times * paper.llm.asks, paper.rate(of)) for times, of in parts if times]
    return Take(
        sum(times for times, _ in rates),
        sum(times * rate.tokens_in for times, rate in rates),
        sum(times * rate.tokens_out for times, rate in rates),
        sum(times * rate.limited for times, rate in rates),
    )


def _written(names: Sequence[str], schema: LabelSchema, form: str, size: int) -> str:
    """The answer's own field with these labels, for each of `size` texts where there are several."""
    labels: Labels = tuple(names)
    if form == "several":
        of = {given: _answers_of(labels, schema, given) for given in (_spelled(n) for n in range(size))}
        return json.dumps(of)
    (answer,) = (v for k, v in answered(labels, schema, form).items() if k.startswith("answer"))  # type: ignore[arg-type]
    return answer if isinstance(answer, str) else json.dumps(answer)


def _answers_of(labels: Labels, schema: LabelSchema, given: str) -> object:
    return json.loads(answered(labels, schema, "several", given=given)["answers"])[given]


def _spelled(n: int) -> str:
    """Four letters that spell no word, as the ids of texts do."""
    return "".join("bcdfghjkmnpqrstv"[(zlib.crc32(b"%d" % n) >> 4 * i) % 16] for i in range(4))


def _hashed(texts: list[str]) -> NDArray[np.float32]:
    """(n, 256) unit rows, near where texts share words: enough to fill shortlists of the right size."""
    vectors = np.zeros((len(texts), 256), np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in re.findall(r"\w+", text.casefold()):
            row[zlib.crc32(word[:6].encode()) % 256] += 1.0
        row[0] += not row.any()
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
