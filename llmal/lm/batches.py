"""Calls by a provider's batch endpoint: planned before they are sent, found again after any crash."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa

from llmal.errors import BudgetSpent, ModelError
from llmal.lm.batch_books import Batch, Books, Call
from llmal.lm.batch_files import ENDS, BatchState, line_of
from llmal.lm.endpoint import Endpoint
from llmal.lm.http import Line
from llmal.lm.prices import Price
from llmal.lm.transport import Record, Transport
from llmal.lm.wire import Failure, Request, read_reply
from llmal.records import recipe
from llmal.store import schema as t
from llmal.store.ledger import Facts, Ledger, Reservation
from llmal.store.store import Store

MOST_BYTES = 190_000_000
"""Bytes of one input file; OpenAI's limit is 200 MB."""

MOST_OPEN = 4
"""Batches waited for at one time: a question takes about 5 kB of memory until it is answered."""

FIRST_POLL_S, LONGEST_POLL_S = 5.0, 60.0
"""Seconds between looks at open batches, half as long again each time nothing has ended."""


def open_batches(store: Store) -> list[Any]:
    """(n, base_url) of each batch whose calls have not all been settled, oldest first."""
    b, s = t.batch.c, t.batch_step.c
    ended = sa.select(s.batch).where(s.name == "ended")
    return list(store.read(sa.select(b.n, b.base_url).where(b.n.not_in(ended)).order_by(b.n)))


class BatchTransport(Transport):
    """A transport whose `ask_all` goes by batches; `ask` is a call of its own, at once and at the full price.

    Every batch is written down, with room in the budget for each of its calls, before its file is uploaded.
    It carries the run's id and its number as metadata, so that after a crash it is found at the provider and
    read, never made twice. A call that a batch brings no answer to goes into the next one, as often as
    `retries` allows and `MOST_TIMES` at the most.

    Args:
        endpoint, ledger, price, seed, line: as for `Transport`.
        batch_price: of a token in a batch.
        direct: make no new batch: only read what is open, and ask the rest call by call.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        price: Price,
        *,
        batch_price: Price,
        seed: int = 0,
        line: Line | None = None,
        direct: bool = False,
    ) -> None:
        super().__init__(endpoint, ledger, price, seed=seed, line=line)
        self.batch_price = batch_price
        self.direct = direct

    async def ask_all(
        self,
        requests: Iterable[Request],
        record: Record,
        *,
        done: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Many requests; see `Transport.ask_all`, whose meaning this has.

        A stop signal ends the waiting; the batches go on at the provider, and the next run reads them.

        Raises:
            BudgetSpent: not one call more fits, and no batch is open that could give room back.
            ModelError: the provider refuses, cancelled a batch, or cannot be reached.
            Interrupted: the user asked to stop.
        """
        full, self.price = self.price, self.batch_price
        work = _Work(self, record, done, say)
        try:
            await work.whole(requests, make=not self.direct)
        finally:
            self.price = full
            await work.provider.close()
        if self.direct:
            await super().ask_all(work.no_other(requests), record, done=done, say=say)


class _Work(Books):
    """One `ask_all`: batches are filled, watched and read until every question has its end."""

    async def whole(self, requests: Iterable[Request], *, make: bool) -> None:
        """All of it; returns when no batch is open and, if it may make new ones, nothing is left to ask."""
        task = asyncio.current_task()
        with self.stop.on_signals([task] if task else [], lambda _: self.woken.set()):
            try:
                await self._whole(requests, make)
            except asyncio.CancelledError:
                self.unless_stopped()  # by the second signal: at once, but with the sentence of the first
                raise

    async def _whole(self, requests: Iterable[Request], make: bool) -> None:
        await self._attach()
        source = self.door._unanswered(self.no_other(requests), self.record, self.done)
        wait = FIRST_POLL_S
        while True:
            if make:
                await self._fill(source)
            if not self.open:
                return
            await self.pause(wait)
            wait = FIRST_POLL_S if await self._watch() else min(1.5 * wait, LONGEST_POLL_S)

    def no_other(self, requests: Iterable[Request]) -> Iterable[Request]:
        """The requests, unless one is in a batch that is open at another address."""
        for request in requests:
            if (where := self.elsewhere.get(request.hash() if self.elsewhere else "")) is not None:
                raise ModelError(
                    f"a batch that is open at {where} holds questions of this run",
                    where=f"{self.door.endpoint.place}.base_url",
                    hint="Set it back until that batch is read, or they would be paid for twice",
                )
            yield request

    # --- open batches of an earlier process -----------------------------------------------------------------

    async def _attach(self) -> None:
        """Take up every open batch; one that never reached the provider is written off."""
        for n, base_url in open_batches(self.store):
            calls, names = self._calls_of(n)
            if base_url != self.door.endpoint.base_url:
                self.elsewhere |= dict.fromkeys(calls, base_url)
                continue
            b, step = t.batch.c, t.batch_step.c
            made = self.store.read(sa.select(step.value).where(step.batch == n, step.name == "created"))
            digest = self.store.read(sa.select(b.digest).where(b.n == n))[0][0]
            batch = Batch(n, digest, calls, names, id=made[0][0] if made else "")
            if not batch.id:
                found = await self._find(batch)
                if found is None:
                    await self.write_off(batch, Failure("never_sent", charged="unsent"))
                    continue
                await self._created(batch, found)
                self.say(f"batch {n} was sent before the stop: found at the provider, not sent again")
            else:
                self.say(f"batch {n} is still open at the provider: waiting for it, nothing is sent again")
            self.open.append(batch)
            self.awaited |= calls

    def _calls_of(self, n: int) -> tuple[dict[str, Call], frozenset[str]]:
        """A batch's calls without an outcome, by name; and the names of all its calls."""
        a, o, c = t.attempt.c, t.outcome.c, t.batch_call.c
        query = (
            sa.select(a.n, a.worst, a.request, o.status)
            .join(t.batch_call, c.attempt == a.n)
            .outerjoin(t.outcome, o.attempt == a.n)
            .where(c.batch == n)
        )
        found = self.store.read(query)
        left = self.door.endpoint.retries.model_dump
        waiting = {
            name: Call({"hash": name}, [], left(), held=Reservation(number, worst))
            for number, worst, name, status in found
            if status is None
        }
        return waiting, frozenset(name for _, _, name, _ in found)

    async def _find(self, batch: Batch) -> BatchState | None:
        """The batch at the provider with our metadata."""
        wanted, after = batch.metadata(self.run), None
        while True:
            page = await self.patiently(partial(self.provider.page, after))
            if isinstance(page, Failure):
                raise self.refused(page)
            for one in page:
                if wanted.items() <= dict(one.metadata).items():
                    return one
            if not page or page[-1].id == after:
                return None
            after = page[-1].id

    # --- new batches ----------------------------------------------------------------------------------------

    async def _fill(self, source: AsyncIterator[tuple[Request, dict[str, Any]]]) -> None:
        """Make batches until the questions, the room for batches, or the budget ends."""
        while len(self.open) < MOST_OPEN:
            self.unless_stopped()
            shard = await self._shard(source)
            if not shard:
                return
            try:
                n = await self._submit(shard)
            except BudgetSpent:
                self.queue.extendleft(reversed(shard))
                if not self.open:
                    raise
                return  # an open batch will cost less than it holds
            self.queue.extendleft(reversed(shard[n:]))
            if n < len(shard):
                return

    async def _shard(self, source: AsyncIterator[tuple[Request, dict[str, Any]]]) -> list[Call]:
        """The calls of the next batch: each question once, none that is answered or in a batch already."""
        shard: dict[str, Call] = {}
        size = 0
        while not shard and (self.queue or not self.dry):
            while len(shard) < self.most_rows and (call := await self._next(source)) is not None:
                same = self.awaited.get(call.name) or shard.get(call.name)
                if same is not None:
                    same.asked += call.asked
                    continue
                size += len(line_of(call.asked[0], call.name))
                if shard and size > MOST_BYTES:
                    self.queue.appendleft(call)
                    break
                shard[call.name] = call
            # Read anew: an answer may have come since the source looked.
            for name, raw in self.ledger.kept(list(shard)).items():
                await self.known(shard.pop(name), read_reply(raw, name))
            for name in [name for name in shard if name in self.early]:
                await self.known(shard.pop(name), self.early[name])
        return list(shard.values())

    async def _next(self, source: AsyncIterator[tuple[Request, dict[str, Any]]]) -> Call | None:
        if self.queue:
            return self.queue.popleft()
        drawn = None if self.dry else await anext(source, None)
        if drawn is None:
            self.dry = True
            return None
        request, row = drawn
        if request.max_tokens() < 1:
            raise ValueError("a request without max_tokens: no budget could hold")
        return Call(row, [request], self.door.endpoint.retries.model_dump())

    async def _submit(self, shard: list[Call]) -> int:
        """Plan a batch of as many calls as the budget has room for, and send it; how many those are."""
        n = 1 + int(self.store.read(sa.select(sa.func.coalesce(sa.func.max(t.batch.c.n), 0)))[0][0])
        digest = ""

        def planned(held: list[Reservation]) -> Facts:
            nonlocal digest
            digest = recipe("batch", [call.name for call in shard[: len(held)]])
            row = {"n": n, "base_url": self.door.endpoint.base_url, "digest": digest, "calls": len(held)}
            calls = [{"attempt": one.attempt, "batch": n} for one in held]
            return [(t.batch, [row | {"at": time.time()}]), (t.batch_call, calls)]

        wanted = [(call.row, call.times, self.door._worst(call.asked[0])) for call in shard]
        held = await self.ledger.reserve_many(wanted, planned)
        for call, one in zip(shard, held, strict=False):
            call.held = one
        calls = {call.name: call for call in shard[: len(held)]}
        batch = Batch(n, digest, calls, frozenset(calls))
        await self._send(batch)
        self.open.append(batch)
        self.awaited |= calls
        return len(held)

    async def _send(self, batch: Batch) -> None:
        """Upload the file and make the batch; nothing of it is left behind where the provider refuses."""
        with tempfile.TemporaryFile(dir=self.store.folder) as file:
            for call in batch.calls.values():
                file.write(line_of(call.asked[0], call.name))
            given = await self.patiently(lambda: self.provider.upload(file))
        if isinstance(given, Failure):
            await self.write_off(batch, given._replace(charged="unsent"))
            raise self.refused(given)
        self.unless_stopped()
        left = self.door.endpoint.retries.model_dump()
        ordinal = 0
        while True:
            ordinal += 1
            made = await self.provider.create(given, batch.metadata(self.run))
            if isinstance(made, Failure) and _made_perhaps(made):  # look before another is made
                made = await self._find(batch) or made
            if isinstance(made, BatchState):
                await self._created(batch, made)
                n = len(batch.calls)
                self.say(f"batch {batch.n}: {n:,} calls sent as {made.id}; answers come within 24 hours")
                return
            if made.retry is None or not left[made.retry]:
                if not _made_perhaps(made):
                    await self.write_off(batch, made._replace(charged="unsent"))
                raise self.refused(made)
            left[made.retry] -= 1
            await self.pause(self.door._wait(made, ordinal))

    async def _created(self, batch: Batch, made: BatchState) -> None:
        batch.id = made.id
        await self.step(batch, "created", made.id)

    # --- waiting --------------------------------------------------------------------------------------------

    async def _watch(self) -> bool:
        """Look at every open batch once, and read those that have ended; whether one had."""
        moved = False
        for batch in list(self.open):
            state = await self.patiently(partial(self.provider.retrieve, batch.id))
            if isinstance(state, Failure):
                if state.reason != "not_found":
                    raise self.refused(state)
                state = BatchState(batch.id, "gone", 0, None, None, "", {})
            told = (state.state, 20 * state.done // max(1, len(batch.names)))
            if told != batch.told:
                batch.told = told
                self.say(f"batch {batch.n}: {state.state}, {state.done:,} of {len(batch.names):,} done")
            if state.state in ENDS or state.state == "gone":
                moved = True
                await self.collect(batch, state)
        return moved


def _made_perhaps(end: Failure) -> bool:
    """Whether a request that failed may have made a batch all the same."""
    return end.charged == "unknown" or end.reason == "server"
