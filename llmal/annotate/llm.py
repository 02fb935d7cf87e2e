"""A language model behind an OpenAI-compatible endpoint, answering with option codes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llmal.annotate.forecast import Paper, one_pass
from llmal.annotate.sheet import Sheet
from llmal.annotate.stage import Annotator, Desk, Estimate
from llmal.context import Context
from llmal.errors import SpecError
from llmal.lm.asker import HOW_ASKED, Asker
from llmal.lm.probe import abilities
from llmal.prompts.file import PromptFile, load_prompt
from llmal.prompts.suspicion import RULES
from llmal.records import Annotation, Item, LabelSchema, recipe
from llmal.store.ledger import PICO, Ledger

HOW_PUT = ("asks", "stated", "each", "batch", "shortlist", "demonstrations", "echo")
"""Options of how questions are put; each is in the recipe only where it differs from its default."""


class Llm(Annotator, Asker):
    """Asks a language model once an item, and reads a distribution off the answer's token where it can.

    Confidence is the probability of the chosen option among all options, from the log-probabilities at the
    code's token: spellings, blanks and case merged, the mass outside the options noted. With `asks` an item
    is asked several times, the options in another order each time: the mean of those probabilities, or where
    the endpoint gives none the share of answers, at temperature 0.7. With `batch` a prompt holds several
    texts, each under an id that has to come back; with `shortlist` only the labels nearest to a text are
    shown; with `demonstrations` people's answers about the most similar texts stand before it.
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
    stated: bool = Field(
        False,
        description="ask how sure the model says it is, where there are no log-probabilities; "
        "such a confidence counts for nothing before it is calibrated",
    )
    each: bool = Field(
        False, description="kind multi: a yes or a no about every label, each with its own probability"
    )
    batch: int = Field(
        1, ge=1, le=50, description="texts a prompt; they share the instructions, and may sway each other"
    )
    shortlist: int | None = Field(
        None, ge=2, description="labels shown an item, the nearest by embedding; all when absent"
    )
    demonstrations: int = Field(
        0,
        ge=0,
        le=50,
        description="people's answers shown before an item, those about the texts most like it",
    )
    echo: bool = Field(
        False,
        description="ask for an id of the text with its label; an answer about another text is none then",
    )
    suspects: Literal["hold", "accept"] = Field(
        "hold", description="texts that look as if written to sway the annotator: left to people, or accepted"
    )
    pin_model: bool = Field(
        False, description="stop when an answer carries another model's name than the endpoint's first one"
    )

    commits: ClassVar[bool] = True
    version: ClassVar[int] = 2  # of the parser: raise it and kept answers are read again, at no cost
    takes_demonstrations: ClassVar[bool] = True
    not_in_recipe: ClassVar[frozenset[str]] = HOW_ASKED | {"prompt", "pin_model", "suspects", *HOW_PUT}

    @model_validator(mode="after")
    def _one_way(self) -> Llm:
        clashes = {
            "batch": ("stated", "each", "shortlist", "demonstrations"),  # one prompt for all texts
            "each": ("stated", "shortlist"),
            "echo": ("stated", "each", "shortlist", "demonstrations"),  # the form of a prompt with several
            "asks": ("stated",),  # the share of answers is the confidence
        }
        for name, others in clashes.items():
            for other in others:
                if self._put(name) and self._put(other):
                    raise ValueError(f"{name} and {other} cannot be used together; leave one out")
        return self

    def _put(self, name: str) -> bool:
        """Whether an option of how questions are put differs from its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of parser, model, prompt and classes; where the endpoint is and how fast is left out.

        Raises:
            SpecError: `each` asks about labels that exclude one another.
        """
        if self.each and schema.kind == "single":
            raise SpecError(["annotate.each: a yes or a no about every label is for labels.kind: multi"])
        put = {name: getattr(self, name) for name in HOW_PUT if self._put(name)}
        if self.shortlist or self.demonstrations:
            put["vectors"] = vectors_recipe
        # Put as in the first version, it is the recipe of the first version: kept answers stay.
        more = [put.pop("asks")] if "asks" in put else []
        more += [put] if put else []
        more += [["suspects", RULES]] if self.suspects == "hold" else []
        return recipe("annotation", self.recipe(), schema.recipe(), self._prompt(ctx).recipe(), *more)

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """Ask about each item; every answer is committed with its cost before the next line runs."""
        return asyncio.run(self._annotate(items, schema, desk))

    def estimate(self, items: list[Item], schema: LabelSchema, ctx: Context) -> Estimate:
        """Calls, tokens and dollars of asking about all of them at once, from questions written out."""
        paper = Paper(self, items, schema, ctx)
        take = one_pass(paper, len(items))
        tokens_in, tokens_out = round(take.tokens_in), round(take.tokens_out)
        price = self.asked_price()
        usd = None if price.local else price.of(tokens_in, tokens_out) / PICO
        return Estimate(take.calls, tokens_in, tokens_out, usd, paper.tokens.words)

    def _prompt(self, ctx: Context) -> PromptFile:
        return load_prompt(ctx.path(self.prompt) if self.prompt else None)

    async def _annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> list[Annotation]:
        ledger = Ledger(desk.store, desk.caps)
        say = desk.ctx.progress.say
        try:
            async with self.transport(ledger, seed=desk.ctx.seed, say=say) as transport:
                sheet = Sheet(self, items, schema, desk, await abilities(transport, desk.store, self.model))
                try:
                    await transport.ask_all(sheet.questions(), sheet.record, done=sheet.count, say=say)
                    await transport.ask_all(sheet.rest(), sheet.record, done=sheet.count, say=say)
                finally:
                    sheet.say_of_other_models()
                sheet.say_of_demonstrations()
        finally:
            ledger.close()
        return sheet.made
