"""The one door to a language model: rate limit, retries, deadline, budget and redaction around each call."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Literal
from weakref import WeakValueDictionary

from llmal.errors import ModelError
from llmal.lm.endpoint import Endpoint
from llmal.lm.http import Line
from llmal.lm.limits import Limiter
from llmal.lm.prices import Price
from llmal.lm.stop import Stop as _Stop
from llmal.lm.wire import Failure, Reply, Request, read_reply
from llmal.records import batched
from llmal.store import schema
from llmal.store.ledger import Facts, Ledger, Reservation, Settled

TEMPLATE_TOKENS = 64
"""Tokens a chat template may add beyond the messages' bytes (default system text, dates)."""

TOKENS_A_MESSAGE = 8
"""Tokens a chat template spends on the frame of one message."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Exponential backoff with full jitter starts and ends here when the server names no time."""

Record = Callable[[Request, Reply | Failure], Facts]
"""Turns the end of a call into facts, committed in the same transaction as its cost."""


class Transport:
    """Sends requests to one endpoint, on the ledger's account.

    Use as an async context manager. `ask` answers one request; `ask_all` many, with the window kept full.

    Args:
        endpoint: where, and how fast.
        ledger: where every call is booked before it is sent.
        price: of a token.
        seed: of the jitter in waits.
        line: what carries a request to the model and its answer back; the endpoint's own when absent.
    """

    def __init__(
        self, endpoint: Endpoint, ledger: Ledger, price: Price, *, seed: int = 0, line: Line | None = None
    ) -> None:
        endpoint.check()
        self.endpoint = endpoint
        self.ledger = ledger
        self.price = price
        self.failed = 0
        self.ended = 0
        self._limiter = Limiter(
            endpoint.in_flight,
            requests_per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._jitter = random.Random(seed)
        # Tokens a server was seen to count above the bound; added to every later bound.
        self._beyond_bytes = 0
        self._line = line or endpoint.line(ledger.store)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Transport:
        await self._line.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._line.close()

    async def ask(self, request: Request, record: Record) -> Reply | Failure:
        """One request: from the ledger if it was ever answered, else sent, with retries as configured.

        Args:
            request: the question.
            record: makes facts of the final reply or failure; committed together with the cost.

        Returns:
            The reply, or the failure that was left when the retries were used up.

        Raises:
            BudgetSpent: a call could pass a cap; nothing was sent.
            ModelError: no later call could succeed either (key, credit, model name).
        """
        row = request.row()
        async with self._asking.setdefault(row["hash"], asyncio.Lock()):  # asked twice at once: one call
            kept = self.ledger.kept([row["hash"]])
            if kept:
                reply = read_reply(kept[row["hash"]], row["hash"])
                await self.ledger.append(record(request, reply))
                return reply
            return await self._ask(request, row, record, _Stop(), None)

    async def look(self, path: str) -> str | None:
        """The body of a free GET below the endpoint's address; None when it gives none."""
        return await self._line.look(path)

    async def _ask(
        self, request: Request, row: dict[str, Any], record: Record, stop: _Stop, tail: _Tail | None
    ) -> Reply | Failure:
        if request.max_tokens() < 1:
            raise ValueError("a request without max_tokens: no budget could hold")
        left = self.endpoint.retries.model_dump()
        ordinal = 0
        while True:
            ordinal += 1
            await self._place(request, stop, tail)
            try:
                if stop.why is not None:  # nothing is sent, or sent again, once the run is to end
                    raise stop.why
                end, again = await self._attempt(request, row, ordinal, record, left, stop, tail)
            finally:
                self._limiter.release()
            if not again:
                return end
            if isinstance(end, Failure):
                await stop.unless(asyncio.sleep(self._wait(end, ordinal)))

    async def _place(self, request: Request, stop: _Stop, tail: _Tail | None) -> None:
        """Wait until the endpoint may be asked."""
        tokens = request.bytes_in() // 4 + request.max_tokens()
        if self._limiter.free:
            await self._limiter.acquire(tokens)
            return
        if tail is not None:  # it may be a long wait: the answer before is told first
            await tail.wait()
        await stop.unless(self._limiter.acquire(tokens))

    async def _attempt(
        self,
        request: Request,
        row: dict[str, Any],
        ordinal: int,
        record: Record,
        left: dict[str, int],
        stop: _Stop,
        tail: _Tail | None,
    ) -> tuple[Reply | Failure, bool]:
        """One call: reserve, send, settle; says how it ended and whether to try again."""
        held = await self.ledger.reserve(row, ordinal, self._worst(request))
        try:
            if tail is not None:  # booked before this call, so on disk by now: at most one a worker is not
                await tail.wait()
            if self._limiter.paused and stop.why is None:  # a 429 came while this call was booked
                await stop.unless(self._limiter.turn())
            if stop.why is not None:
                raise stop.why
        except BaseException as error:
            if error is stop.why:
                await self.ledger.settle(held, Settled("unsent", 0, True, 0.0, None, "stopped"), [])
            self.ledger.let_go(held)
            raise
        try:
            return await self._sent(request, row["hash"], held, ordinal, record, left, tail)
        except BaseException:
            self.ledger.let_go(held)
            raise

    async def _sent(
        self,
        request: Request,
        name: str,
        held: Reservation,
        ordinal: int,
        record: Record,
        left: dict[str, int],
        tail: _Tail | None,
    ) -> tuple[Reply | Failure, bool]:
        started = time.monotonic()
        end = await self._line.send(request, name)
        seconds = time.monotonic() - started
        if isinstance(end, Reply):
            self._limiter.answered()
            answer: Facts = [(schema.response, [_response_row(held, end)])]
            settled = self._settled(request, held, end, seconds)
            try:
                learnt = record(request, end)
            except Exception:  # the reader failed, not the call: what was paid for is kept all the same
                await self.ledger.settle(held, settled, answer)
                raise
            written = self.ledger.settling(held, settled, answer + learnt)
            if tail is None:
                await written
            else:
                tail.put(written)
            return end, False
        again = end.retry is not None and left[end.retry] > 0
        if end.reason == "unreachable" and not again:  # nobody is there: no later call could do better
            end = end._replace(fatal=True)
        if again and end.retry is not None:
            left[end.retry] -= 1
        if end.reason == "rate_limit":
            self._limiter.limited(None if end.wait_s is None else self._wait(end, ordinal))
        facts = [] if again or end.fatal else record(request, end)
        written = self.ledger.settling(held, _settled_failure(held, end, seconds), facts)
        if tail is None or again or end.fatal:
            await written
        else:
            tail.put(written)
        if end.fatal:
            raise ModelError(*_fatal_words(end, self.endpoint), where=self.endpoint.base_url)
        return end, again

    async def ask_all(
        self,
        requests: Iterable[Request],
        record: Record,
        *,
        done: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Many requests, `in_flight` at a time, drawn from the iterable only as places get free.

        The first stop signal lets open calls finish and be kept; the second ends at once.

        Raises:
            BudgetSpent, ModelError: as `ask`; calls in flight are finished and kept first.
            Interrupted: the user asked to stop.
        """
        source = self._unanswered(requests, record, done)
        turn = asyncio.Lock()  # an async generator serves one caller at a time
        stop = _Stop()

        async def work() -> None:
            tail = _Tail(done)
            try:
                while stop.why is None:
                    async with turn:
                        drawn = await anext(source, None)
                    if drawn is None or stop.why is not None:
                        break
                    request, row = drawn
                    self._tolerate(await self._ask(request, row, record, stop, tail))
            except Exception as error:  # whatever it is, no further call may be paid for
                stop.because(error)
            try:
                await tail.wait()
            except Exception as error:
                stop.because(error)

        workers = [asyncio.ensure_future(work()) for _ in range(self.endpoint.in_flight)]
        with stop.on_signals(workers, say):
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
        if stop.why is not None:
            raise stop.why

    async def _unanswered(
        self, requests: Iterable[Request], record: Record, done: Callable[[], None]
    ) -> AsyncIterator[tuple[Request, dict[str, Any]]]:
        """Requests never answered before; for the others the kept answer is read again, at no cost."""
        for batch in batched(requests, 500):
            rows = [request.row() for request in batch]
            kept = self.ledger.kept([row["hash"] for row in rows])
            for request, row in zip(batch, rows, strict=True):
                if row["hash"] not in kept:
                    yield request, row
                    continue
                await self.ledger.append(record(request, read_reply(kept[row["hash"]], row["hash"])))
                done()

    def _tolerate(self, end: Reply | Failure) -> None:
        self.ended += 1
        self.failed += isinstance(end, Failure)
        if self.failed >= 5 and self.failed > self.endpoint.tolerate * max(self.ended, 50):
            raise ModelError(
                (
                    f"{self.failed} of {self.ended} calls failed, "
                    f"more than {self.endpoint.place}.tolerate = {self.endpoint.tolerate:g}"
                ),
                where=self.endpoint.base_url,
                hint="`llmal status` counts the reasons; answered items are kept",
            )

    def _worst(self, request: Request) -> int:
        tokens_in = (
            request.bytes_in()
            + TEMPLATE_TOKENS
            + TOKENS_A_MESSAGE * len(request.messages)
            + self._beyond_bytes
        )
        return self.price.of(tokens_in, request.max_tokens() * int(request.options.get("n", 1)))

    def _settled(self, request: Request, held: Reservation, reply: Reply, seconds: float) -> Settled:
        if reply.tokens_in is None or reply.tokens_out is None:  # no usage: the upper bound, marked as such
            return Settled("ok", held.worst, False, seconds, 200, "no usage")
        excess = (
            reply.tokens_in - request.bytes_in() - TEMPLATE_TOKENS - TOKENS_A_MESSAGE * len(request.messages)
        )
        self._beyond_bytes = max(self._beyond_bytes, excess)
        cost = self.price.of(reply.tokens_in, reply.tokens_out)
        return Settled("ok", cost, True, seconds, 200, "", reply.tokens_in, reply.tokens_out)

    def _wait(self, end: Failure, ordinal: int) -> float:
        if end.wait_s is not None:
            return min(end.wait_s, 300.0)
        return self._jitter.uniform(0.5, 1.0) * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (ordinal - 1))


class _Tail:
    """The answer of a worker's last call on its way to the disk, while its next call is made ready."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._written: asyncio.Future[None] | None = None

    def put(self, written: asyncio.Future[None]) -> None:
        self._written = written

    async def wait(self) -> None:
        """Return once it is there, and count it as done."""
        if self._written is not None:
            written, self._written = self._written, None
            await written
            self._done()


def _response_row(held: Reservation, reply: Reply) -> dict[str, Any]:
    return {"request": reply.request, "attempt": held.attempt, "raw": reply.raw, "model": reply.model}


def _settled_failure(held: Reservation, end: Failure, seconds: float) -> Settled:
    status: dict[str, Literal["failed", "unknown", "unsent"]] = {
        "no": "failed",
        "unknown": "unknown",
        "unsent": "unsent",
    }
    cost = held.worst if end.charged == "unknown" else 0
    return Settled(status[end.charged], cost, end.charged != "unknown", seconds, end.http, end.reason)


def _fatal_words(end: Failure, endpoint: Endpoint) -> tuple[str]:
    key = endpoint.key_name or f"(none; set {endpoint.place}.api_key_env)"
    words = {
        "key_rejected": f"the key in {key} was rejected",
        "no_credit": "no credit left at the provider",
        "not_found": f"the endpoint does not know this model or address: {end.detail}",
        "redirected": end.detail,
        "unreachable": f"{end.detail}; is the server running? What is not answered waits for the next run",
    }
    return (words.get(end.reason, end.detail),)
