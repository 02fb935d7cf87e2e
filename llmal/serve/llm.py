"""The tier between student and people: the pipeline's own annotator, its prompt, ledger, prices and caps."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from llmal.annotate.llm import Llm
from llmal.annotate.sheet import Sheet
from llmal.annotate.stage import Desk
from llmal.context import Context
from llmal.errors import BudgetSpent, LlmalError, UserError
from llmal.lm.probe import Abilities, abilities
from llmal.lm.transport import Transport
from llmal.records import Annotation, Item, LabelSchema
from llmal.serve.queue import Queue

REST_S = 30.0
"""Seconds nobody is asked after the endpoint failed for everybody: no client waits for what cannot work."""

WAITING_A_PLACE = 8
"""Texts that may wait for each call open at once; beyond that they go on to people."""


class Said(NamedTuple):
    """What came of asking: an annotation, or why there is none."""

    annotation: Annotation | None
    why: str = ""


def servable(annotator: object, *, capped: bool) -> Llm:
    """The annotator as a server asks it.

    Args:
        annotator: of the pipeline.
        capped: whether a cap on dollars or calls is set.

    Raises:
        UserError: it is no single language model asked about one text at a time, or could cost any amount.
        ModelError: its price or key is not known.
    """
    if not isinstance(annotator, Llm):
        raise UserError(
            f"the annotator '{getattr(annotator, 'name', '?')}' cannot be asked by a server",
            where="--llm",
            hint="Name a pipeline with `annotate: {use: llm, ...}`, or leave --llm out",
        )
    for name in ("demonstrations", "shortlist"):
        if getattr(annotator, name):
            raise UserError(
                f"`{name}` looks at vectors of the run's corpus, which a server does not have",
                where="--llm",
                hint="Leave --llm out, or run without it",
            )
    annotator.endpoint()
    if not annotator.priced().local and not capped:
        raise UserError(
            "a server asks as long as it runs, so a cap is needed", where="--llm", hint="Set --usd or --calls"
        )
    return annotator.model_copy(update={"batch_api": False, "batch": 1})


class LlmTier:
    """Asks about one text at a time over connections that stay open; answers are kept with their cost.

    A text asked about before, whenever and by whichever server on this store, is answered by the ledger.

    Args:
        llm: of `servable`.
        schema: the classes.
        ctx: where its prompt is.
        queue: whose ledger pays.
        vectors: recipe of the run's vectors, part of annotations' names.
        timeout_s: how long `ask` waits.
    """

    def __init__(
        self, llm: Llm, schema: LabelSchema, ctx: Context, queue: Queue, vectors: str, timeout_s: float
    ) -> None:
        self._llm, self._schema, self._timeout_s = llm, schema, timeout_s
        recipe = llm.recipe_for(schema, ctx, vectors)
        self._desk = Desk(ctx, queue.store, queue.ledger.caps, recipe, vectors, lambda n=1, *, note="": None)
        self._queue = queue
        self._doors = AsyncExitStack()
        self._transport: Transport | None = None
        self._able: Abilities | None = None
        self._opening = asyncio.Lock()
        self._asked: set[asyncio.Task[Said]] = set()
        self._rests_until = 0.0
        self._why = ""

    async def warm(self) -> None:
        """Lay out one question, which loads the prompt and what reads its answers; nothing is sent."""
        item = Item(-1, "0" * 32, "ready?")

        def lay_out() -> None:
            next(Sheet(self._llm, [item], self._schema, self._desk, Abilities()).questions())

        await asyncio.to_thread(lay_out)

    async def ask(self, item: Item) -> Said:
        """What the model says of a text; never raises, never longer than the timeout.

        An answer that comes later is kept all the same: it is paid for.
        """
        if time.monotonic() < self._rests_until:
            return Said(None, self._why)
        if len(self._asked) >= WAITING_A_PLACE * self._llm.in_flight:
            return Said(None, "the language model has too many texts to answer")
        task = asyncio.create_task(self._ask(item))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        return task.result() if done else Said(None, "the language model took too long")

    async def _ask(self, item: Item) -> Said:
        try:
            transport, able = await self._open()
            sheet = Sheet(self._llm, [item], self._schema, self._desk, able)
            await asyncio.gather(*(transport.ask(request, sheet.record) for request in sheet.questions()))
            for request in sheet.rest():
                await transport.ask(request, sheet.record)
            return Said(sheet.made[-1]) if sheet.made else Said(None, "the language model gave no answer")
        except BudgetSpent:
            return Said(None, "the budget for the language model is spent")
        except LlmalError as error:
            return self._rest("the language model cannot be asked", error)
        except Exception as error:
            return self._rest("the language model failed", error)

    def _rest(self, why: str, error: Exception) -> Said:
        """Stop asking for a while. Messages of endpoints may repeat texts, so only their kind is told."""
        self._why, self._rests_until = why, time.monotonic() + REST_S
        sys.stderr.write(f"serve: {why} ({type(error).__name__}); next try in {REST_S:.0f} s\n")
        return Said(None, why)

    async def _open(self) -> tuple[Transport, Abilities]:
        async with self._opening:
            if self._transport is None:
                made = self._llm.transport(self._queue.ledger, say=_quiet)
                self._transport = await self._doors.enter_async_context(made)
            if self._able is None:
                self._able = await abilities(self._transport, self._queue.store, self._llm.model)
            return self._transport, self._able

    async def close(self, grace_s: float) -> None:
        """Wait for answers that are paid for, then hang up."""
        if self._asked:
            await asyncio.wait(self._asked, timeout=grace_s)
        for task in self._asked:
            task.cancel()
        if self._asked:
            await asyncio.wait(self._asked, timeout=1.0)
        await self._doors.aclose()


_quiet: Callable[[str], None] = lambda _: None  # noqa: E731 - progress of a server that llmal starts itself
