"""Where prompts are tried: every call goes through the run's ledger, and counts under `optimise`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.annotate.llm import Llm
from llmal.annotate.reading import annotation_of
from llmal.context import Context
from llmal.lm.asker import ask
from llmal.lm.dspy_engine import language_model
from llmal.lm.probe import Abilities, abilities
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Message, Reply, Request
from llmal.prompts.file import PromptFile
from llmal.prompts.frame import render
from llmal.prompts.program import signature
from llmal.records import Annotation, LabelSchema
from llmal.store.ledger import Caps, Facts, Ledger
from llmal.store.store import Store
from llmal.tune.gain import score
from llmal.tune.split import Example

PURPOSE = "optimise"
"""What the calls are booked under."""

WRITING_TOKENS = 1024
"""Most tokens of an instruction that a model writes: some 700 words, longer than any prompt should get."""


class Models(NamedTuple):
    """DSPy's language models: one answers items just as the annotator does, one writes instructions."""

    task: Any
    writer: Any


class Bench:
    """Asks the annotator's model about items under any prompt, and has it write.

    A question the run ever asked is answered from the ledger at no cost; that includes everything annotated.

    Attributes:
        llm: the annotator whose prompt is tuned.
        schema: the classes.
        ctx: seed, progress, encoder.
        abstained: worth of an answer that declines, in [0, 1).
        secret: of the run's fences.
    """

    def __init__(
        self, llm: Llm, schema: LabelSchema, store: Store, ctx: Context, caps: Caps, *, abstained: float = 0.0
    ) -> None:
        self.llm = llm.model_copy(update={"batch_api": False})  # each step waits for the one before
        self.schema = schema
        self.ctx = ctx
        self.abstained = abstained
        self.secret = store.secret()
        self._store = store
        self._caps = caps
        self._able: Abilities | None = None

    def answers(self, prompt: PromptFile, examples: Sequence[Example]) -> list[Annotation]:
        """The model's answer about each example: one plain question each, whatever else the annotator does.

        Raises:
            BudgetSpent, ModelError, Interrupted: from the transport; answers are kept.
        """
        return asyncio.run(self._answers(prompt, examples)) if examples else []

    def scores(self, prompt: PromptFile, examples: Sequence[Example]) -> list[float | None]:
        """How right each answer is, in [0, 1]; None where the call failed."""
        made = self.answers(prompt, examples)
        return [score(a, e.labels, abstained=self.abstained) for a, e in zip(made, examples, strict=True)]

    def write(self, questions: Sequence[Sequence[Message]], *, max_tokens: int) -> list[str | None]:
        """What the model writes to each question; None where it failed, was refused or cut off."""
        asker = self.llm.model_copy(update={"max_tokens": max(max_tokens, self.llm.max_tokens)})
        return ask(asker, questions, purpose=PURPOSE, store=self._store, ctx=self.ctx, caps=self._caps)

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, d) float32 unit rows, of the run's encoder."""
        return self.ctx.encode(texts)

    @contextmanager
    def models(self, total: int) -> Iterator[Models]:
        """DSPy's language models over the run's ledger; see `language_model`.

        Args:
            total: answers expected at most, for the progress shown.
        """
        able = asyncio.run(self._probed())
        ledger = Ledger(self._store, self._caps)
        fields: dict[str, Any] = {"temperature": 0.0}
        if self._with_logprobs(able):
            fields |= {"logprobs": True, "top_logprobs": able.top_logprobs}
        try:
            transport = self._door(ledger)
            with (
                self.ctx.progress.task(PURPOSE, total) as advance,
                language_model(
                    transport, self.llm.model, max_tokens=self.llm.max_tokens, limit_name=able.limit_name,
                    heat=able.temperature, done=advance, **fields,
                ) as task,
            ):  # fmt: skip
                most = max(WRITING_TOKENS, self.llm.max_tokens)
                yield Models(
                    task, task.copy(max_tokens=most, temperature=1.0, logprobs=None, top_logprobs=None)
                )
        finally:
            ledger.close()

    def _door(self, ledger: Ledger) -> Transport:
        return self.llm.transport(ledger, seed=self.ctx.seed, say=self.ctx.progress.say)

    def _with_logprobs(self, able: Abilities) -> bool:
        """As the annotator asks: then what it asked before is not asked again."""
        return self.llm.logprobs and self.schema.kind == "single" and able.top_logprobs > 0

    async def _probed(self) -> Abilities:
        ledger = Ledger(self._store, self._caps)
        try:
            async with self._door(ledger) as transport:
                return await abilities(transport, self._store, self.llm.model)
        finally:
            ledger.close()

    async def _answers(self, prompt: PromptFile, examples: Sequence[Example]) -> list[Annotation]:
        frame, sign = render(prompt, self.schema), signature(prompt, self.schema, strict=False)
        made: dict[int, Annotation] = {}

        def record(request: Request, end: Reply | Failure) -> Facts:
            seq = request.item if request.item is not None else -1
            made[seq] = annotation_of(seq, end, sign, self.schema)
            return []

        ledger = Ledger(self._store, self._caps)
        try:
            async with self._door(ledger) as transport:
                able = await abilities(transport, self._store, self.llm.model)
                options = able.options(self.llm.max_tokens, logprobs=self._with_logprobs(able))
                # No prompt is named: no file can rebuild a body that an optimiser made, so it is kept whole.
                requests = [
                    Request(PURPOSE, self.llm.model, frame.messages(e.item, self.secret), options, e.item.seq)
                    for e in examples
                ]
                with self.ctx.progress.task(PURPOSE, len(requests)) as advance:
                    say = self.ctx.progress.say
                    await transport.ask_all(requests, record, done=advance, say=say)
        finally:
            ledger.close()
        return [made[e.item.seq] for e in examples]
