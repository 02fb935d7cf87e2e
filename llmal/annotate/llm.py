"""A language model behind an OpenAI-compatible endpoint, answering with option codes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import Field

from llmal.annotate.reading import annotation_of
from llmal.annotate.repeats import HEAT, agreed, restored, rotated
from llmal.annotate.stage import Annotator, Desk, Estimate
from llmal.context import Context
from llmal.errors import ModelError
from llmal.lm.asker import HOW_ASKED, Asker
from llmal.lm.probe import Abilities, abilities
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Reply, Request
from llmal.prompts.file import PromptFile, load_prompt
from llmal.prompts.frame import render
from llmal.prompts.program import signature
from llmal.records import Annotation, Item, LabelSchema, recipe
from llmal.store.ledger import PICO, Facts, Ledger

BYTES_A_TOKEN = 4.0
"""UTF-8 bytes of English a token of common tokenizers covers, for estimates only (about 20 % either way)."""

ANSWER_TOKENS = 14
"""Tokens of a well-formed answer: two field markers and a code, for estimates only."""


class Llm(Annotator, Asker):
    """Asks a language model once an item, and reads a distribution off the answer's token where it can.

    Confidence is the probability of the chosen option among all options, from the log-probabilities at the
    code's token: spellings, blanks and case merged, the mass outside the options noted. With `asks` an item
    is asked several times, the options in another order each time: the mean of those probabilities, or where
    the endpoint gives none the share of answers, at temperature 0.7.
    Source: option codes scored by their first token, as in Hendrycks et al. 2021 (MMLU); votes of repeated
    answers, Wang et al. 2023 (self-consistency).
    """

    prompt: str | None = Field(
        None, description="prompt file beside the pipeline file; llmal's own when absent"
    )
    logprobs: bool = Field(True, description="ask for token log-probabilities where the endpoint has them")
    asks: int = Field(
        1, ge=1, le=100, description="questions an item, the options in another order each time; each is paid"
    )

    pin_model: bool = Field(
        False, description="stop when an answer carries another model's name than the endpoint's first one"
    )

    version: ClassVar[int] = 1  # of the parser: raise it and kept answers are read again, at no cost
    not_in_recipe: ClassVar[frozenset[str]] = HOW_ASKED | {"prompt", "asks", "pin_model"}

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of parser, model, prompt and classes; where the endpoint is and how fast is left out."""
        often = (
            [self.asks] if self.asks > 1 else []
        )  # asked once, it is the recipe it was before there was `asks`
        return recipe("annotation", self.recipe(), schema.recipe(), self._prompt(ctx).recipe(), *often)

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """Ask about each item; every answer is committed with its cost before the next line runs."""
        return asyncio.run(self._annotate(items, schema, desk))

    def estimate(self, items: list[Item], schema: LabelSchema, ctx: Context) -> Estimate:
        """Calls, tokens and dollars, from the rendered prompt and the items' bytes."""
        frame = render(self._prompt(ctx), schema)
        price = self.priced()
        empty = Item(0, "", "")
        frame_bytes = sum(len(m["content"].encode()) for m in frame.messages(empty, b"x"))
        tokens_in = int((frame_bytes * len(items) + sum(len(i.text.encode()) for i in items)) / BYTES_A_TOKEN)
        calls, tokens_in = len(items) * self.asks, tokens_in * self.asks
        tokens_out = ANSWER_TOKENS * calls
        usd = None if price.local else price.of(tokens_in, tokens_out) / PICO
        return Estimate(
            calls, tokens_in, tokens_out, usd, "tokens estimated from bytes, about 20 % either way"
        )

    def _prompt(self, ctx: Context) -> PromptFile:
        return load_prompt(ctx.path(self.prompt) if self.prompt else None)

    async def _annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> list[Annotation]:
        price = self.priced()
        sheet = _Sheet(self, items, schema, desk)
        ledger = Ledger(desk.store, desk.caps)
        try:
            async with Transport(self.endpoint(), ledger, price, seed=desk.ctx.seed) as transport:
                able = await abilities(transport, desk.store, self.model)
                await transport.ask_all(
                    sheet.requests(able), sheet.record, done=sheet.count, say=desk.ctx.progress.say
                )
        finally:
            ledger.close()
            sheet.say_of_other_models()
        return sheet.made


class _Sheet:
    """The questions about some items, and the answers as they come in."""

    def __init__(self, llm: Llm, items: list[Item], schema: LabelSchema, desk: Desk) -> None:
        prompt = load_prompt(desk.ctx.path(llm.prompt) if llm.prompt else None)
        self.llm, self.items, self.schema, self.desk = llm, items, schema, desk
        self.orders = [rotated(schema, by) for by in range(min(llm.asks, len(schema.labels)))]
        self.frames = [render(prompt, order) for order in self.orders]
        self.signs = [signature(prompt, order, strict=False) for order in self.orders]
        self.order_of = {frame.recipe: by for by, frame in enumerate(self.frames)}
        self.parts: dict[int, list[Annotation]] = {item.seq: [] for item in items}
        self.made: list[Annotation] = []
        self.counted = 0
        self.first_model = ""
        self.other_models: Counter[str] = Counter()

    def requests(self, able: Abilities) -> Iterator[Request]:
        """All questions about an item together, so that a budget that ends leaves few items half asked."""
        llm, self.first_model = self.llm, able.model
        tokens = llm.logprobs and self.schema.kind == "single" and able.top_logprobs > 0
        heat = HEAT if llm.asks > 1 and not tokens else 0.0
        options: dict[str, Any] = able.options(llm.max_tokens, logprobs=tokens, temperature=heat)
        secret = self.desk.store.secret()
        for item in self.items:
            for ask in range(llm.asks):
                frame, again = self.frames[ask % len(self.frames)], ask // len(self.frames)
                more = options | ({"seed": again} if again else {})  # or it would be the same question
                messages = frame.messages(item, secret)
                yield Request("annotate", llm.model, messages, more, item.seq, frame.recipe)

    def record(self, request: Request, end: Reply | Failure) -> Facts:
        """The annotation of an item as facts, once its last answer is in; the answers are in the ledger."""
        self._same_model(end)
        by = self.order_of[request.prompt]
        item = request.item if request.item is not None else -1
        self.parts[item].append(restored(annotation_of(item, end, self.signs[by], self.orders[by]), by))
        if len(self.parts[item]) < self.llm.asks:
            return []
        said = self.parts.pop(item)
        self.made.append(said[0] if self.llm.asks == 1 else agreed(said, self.schema))
        return self.desk.facts(self.made[-1])

    def count(self) -> None:
        """Count the items answered since, however many questions each took."""
        for _ in self.made[self.counted :]:
            self.desk.advance()
        self.counted = len(self.made)

    def _same_model(self, end: Reply | Failure) -> None:
        if not isinstance(end, Reply) or not end.model or end.model == self.first_model:
            return
        self.other_models[end.model] += 1
        if self.llm.pin_model:
            raise ModelError(
                f"the model {end.model[:80]!r} answered, at first it was {self.first_model!r}",
                where="annotate.pin_model",
                hint="Start a new run for the new model, or set pin_model to false; answers are kept",
            )

    def say_of_other_models(self) -> None:
        """Tell how many answers came from models of another name than the endpoint's first answer."""
        for name, n in self.other_models.items():
            words = f"annotate: {n} answers came from the model {name[:80]!r}, the endpoint's first from "
            self.desk.ctx.progress.say(words + repr(self.first_model))
