"""A language model behind an OpenAI-compatible endpoint, answering with option codes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import Field

from llmal.annotate.repeats import HEAT, agreed, restored, rotated
from llmal.annotate.stage import Annotator, Desk, Estimate
from llmal.context import Context
from llmal.lm.asker import HOW_ASKED, Asker
from llmal.lm.probe import Abilities, abilities
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Reply, Request, Token
from llmal.prompts.codes import code_of, codes_for
from llmal.prompts.file import PromptFile, load_prompt
from llmal.prompts.frame import Frame, render
from llmal.prompts.program import read_answer, signature
from llmal.records import Annotation, Item, LabelSchema, Status, recipe
from llmal.store.ledger import PICO, Facts, Ledger

BYTES_A_TOKEN = 4.0
"""UTF-8 bytes of English a token of common tokenizers covers, for estimates only (about 20 % either way)."""

ANSWER_TOKENS = 14
"""Tokens of a well-formed answer: two field markers and a code, for estimates only."""

FIELD = "[[ ## answer ## ]]"
"""What stands before the answer, as DSPy's chat adapter asks for it."""

ROUNDING = 1e-3
"""How far above 0 a server's rounding may lift a log-probability."""


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

    version: ClassVar[int] = 1  # of the parser: raise it and kept answers are read again, at no cost
    not_in_recipe: ClassVar[frozenset[str]] = HOW_ASKED | {"prompt", "asks"}

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
        prompt = self._prompt(desk.ctx)
        orders = [rotated(schema, by) for by in range(min(self.asks, len(schema.labels)))]
        frames = [render(prompt, order) for order in orders]
        signs = [signature(prompt, order, strict=False) for order in orders]
        order_of = {frame.recipe: by for by, frame in enumerate(frames)}
        parts: dict[int, list[Annotation]] = {item.seq: [] for item in items}
        made: list[Annotation] = []

        def record(request: Request, end: Reply | Failure) -> Facts:
            by = order_of[request.prompt]
            item = request.item if request.item is not None else -1
            parts[item].append(restored(annotation_of(item, end, signs[by], orders[by]), by))
            if len(parts[item]) < self.asks:  # the answer itself is in the ledger
                return []
            said = parts.pop(item)
            made.append(said[0] if self.asks == 1 else agreed(said, schema))
            return desk.facts(made[-1])

        def done() -> None:
            while len(made) > told[0]:
                told[0] += 1
                desk.advance()

        told = [0]
        ledger = Ledger(desk.store, desk.caps)
        try:
            async with Transport(self.endpoint(), ledger, price, seed=desk.ctx.seed) as transport:
                able = await abilities(transport, desk.store, self.model)
                requests = self._requests(items, schema, desk, able, frames)
                await transport.ask_all(requests, record, done=done, say=desk.ctx.progress.say)
        finally:
            ledger.close()
        return made

    def _requests(
        self, items: list[Item], schema: LabelSchema, desk: Desk, able: Abilities, frames: list[Frame]
    ) -> Iterator[Request]:
        """All questions about an item together, so that a budget that ends leaves few items half asked."""
        tokens = self.logprobs and schema.kind == "single" and able.top_logprobs > 0
        heat = HEAT if self.asks > 1 and not tokens else 0.0
        options: dict[str, Any] = able.options(self.max_tokens, logprobs=tokens, temperature=heat)
        secret = desk.store.secret()
        for item in items:
            for ask in range(self.asks):
                frame, again = frames[ask % len(frames)], ask // len(frames)
                more = options | ({"seed": again} if again else {})  # or it would be the same question
                yield Request(
                    "annotate", self.model, frame.messages(item, secret), more, item.seq, frame.recipe
                )


def annotation_of(item: int, end: Reply | Failure, sign: Any, schema: LabelSchema) -> Annotation:
    """Read one model answer.

    Args:
        item: the item's `seq`.
        end: what came back.
        sign: DSPy signature with a plain-text answer field.
        schema: the classes.
    """
    if isinstance(end, Failure):
        return Annotation(item, "failed", detail=f"{end.reason}: {end.detail}".rstrip(": "))
    stopped: dict[str, Status] = {"length": "length", "content_filter": "filtered"}
    if end.refusal:
        return Annotation(item, "refused", detail=end.refusal[:200], request=end.request)
    if end.finish_reason in stopped:
        return Annotation(item, stopped[end.finish_reason], detail=end.content[:200], request=end.request)
    status, labels, code = read_answer(end.content, sign, schema)
    if status != "ok" or code is None:
        detail = "" if status in ("ok", "abstained") else end.content[:200]
        return Annotation(item, status, labels, detail=detail, request=end.request)
    probs, outside = distribution(end.tokens, end.content, code, schema)
    if probs is None:
        return Annotation(item, status, labels, request=end.request)
    confidence = probs[schema.columns()[labels[0]]]
    return Annotation(
        item,
        status,
        labels,
        tuple(probs),
        confidence,
        "logprobs",
        f"mass outside the options {outside:.4f}",
        end.request,
    )


def distribution(
    tokens: tuple[Token, ...] | None, content: str, code: str, schema: LabelSchema
) -> tuple[list[float] | None, float]:
    """Probabilities over the classes from the token that carries the answer's code, and the mass outside.

    The mass of declining stays out of the classes, so the list sums to less than 1 where the model leaned to
    it.

    Args:
        tokens: the answer's tokens with candidates, or None.
        content: the answer's text.
        code: the code as it stands in the text.
        schema: the classes.

    Returns:
        (C,) probabilities and the mass on no option; None where the code is not one token of its own.
    """
    codes = codes_for(schema)
    token = _token_at(tokens or (), content, code)
    if token is None or code_of(token.text, codes) != code_of(code, codes):
        return None, 0.0
    if not all(logprob <= ROUNDING for logprob in token.top.values()):  # not what was promised, or NaN
        return None, 0.0
    mass = dict.fromkeys(codes.all(), 0.0)
    outside = 0.0
    for text, logprob in token.top.items():
        option = code_of(text, codes)
        if option is None:
            outside += math.exp(logprob)
        else:
            mass[option] += math.exp(logprob)
    total = sum(mass.values())
    if not math.isfinite(total) or total <= 0:
        return None, 0.0
    return [mass[c] / total for c in codes.labels], outside


def _token_at(tokens: tuple[Token, ...], content: str, code: str) -> Token | None:
    """The token that covers the code in the answer's field; None where tokens and text do not tally.

    A server may count tokens that are not in the text, before it (thoughts) or after it (a stop token).
    """
    start = "".join(token.text for token in tokens).rfind(content)
    field = content.find(FIELD)
    place = content.find(code, field + len(FIELD) if field >= 0 else 0)
    if start < 0 or place < 0 or not code:
        return None
    end = -start
    for token in tokens:
        end += len(token.text)
        if place < end:
            return token
    return None
