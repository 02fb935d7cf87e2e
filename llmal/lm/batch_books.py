"""The books of batches: what is in them, what each call came to, and what becomes of a question after."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llmal.errors import Interrupted, ModelError
from llmal.lm.batch_files import BatchState, Provider, read_line
from llmal.lm.stop import Stop
from llmal.lm.transport import Record, Transport, _fatal_words, _response_row, _settled_failure
from llmal.lm.wire import Failure, Reply, Request
from llmal.records import recipe
from llmal.store import schema as t
from llmal.store.ledger import Facts, Reservation, Settled

MOST_ROWS = 50_000
"""Calls in one batch; OpenAI's limit, July 2026."""

MOST_TIMES = 3
"""Batches a call may be in before it counts as failed, however many retries of a kind are left."""

SETTLED_AT_ONCE = 500
"""Failures settled together, for the same reason that answers are."""

T = TypeVar("T")


@dataclass
class Call:
    """One question on its way into a batch, or in one.

    Attributes:
        row: of the request table.
        asked: the requests it answers; none where an earlier process asked and this one has not come to it.
        left: retries left, by kind.
        times: batches it has been in, the present one included.
        held: room for it in the budget.
    """

    row: dict[str, Any]
    asked: list[Request]
    left: dict[str, int]
    times: int = 1
    held: Reservation = Reservation(0, 0)

    @property
    def name(self) -> str:
        """The hash of the request: what its line in a batch is called."""
        return str(self.row["hash"])


@dataclass
class Batch:
    """One open batch.

    Attributes:
        n: its number in the run.
        digest: of the names of its calls, which are hashes of all that was sent.
        calls: those without an outcome, by name.
        names: of all its calls.
        id: the provider's; empty until it is known.
        told: what the user was shown last.
    """

    n: int
    digest: str
    calls: dict[str, Call]
    names: frozenset[str]
    id: str = ""
    told: tuple[str, int] = ("", 0)

    def metadata(self, run: str) -> dict[str, str]:
        """What it is found by at the provider."""
        return {"llmal_run": run, "llmal_batch": str(self.n), "llmal_digest": self.digest}


class Books:
    """What one `ask_all` knows of its questions and batches, and how both end."""

    def __init__(
        self, door: Transport, record: Record, done: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self.door, self.ledger, self.store = door, door.ledger, door.ledger.store
        self.record, self.done, self.say = record, done, say
        self.provider = Provider(door.endpoint)
        self.run = self.store.note("run", lambda: recipe("run", time.time(), self.store.secret().hex()))
        self.queue: deque[Call] = deque()
        self.open: list[Batch] = []
        self.awaited: dict[str, Call] = {}  # questions in an open batch
        self.early: dict[str, Failure] = {}  # ended before they were drawn
        self.elsewhere: dict[str, str] = {}  # questions in a batch open at another address
        self.most_rows = MOST_ROWS
        self.dry = False
        self.stop = Stop()
        self.woken = asyncio.Event()

    async def collect(self, batch: Batch, state: BatchState) -> None:
        """Settle every call of a batch that has ended: answers first, as they are read, then the rest."""
        lost: dict[str, Failure] = {}
        odd: Counter[str] = Counter()
        gone = state.state == "gone"
        for file in (state.output, state.errors):
            if file is None:
                continue
            end = await self._read(batch, file, lost, odd)
            if end is not None and end.reason != "not_found":
                raise self.refused(end)
            gone = gone or end is not None
        rest = _rest(state, gone=gone)
        why = await self._settle_rest(batch, {name: lost.get(name, rest) for name in batch.calls})
        await self.step(batch, "ended", state.state)
        self.open.remove(batch)
        for words, n in odd.items():
            self.say(f"batch {batch.n}: {n} lines of results {words}; left out")
        if state.state == "cancelled":
            raise ModelError(
                f"batch {batch.n} was cancelled at the provider; what it had answered is kept",
                where=self.door.endpoint.base_url,
                hint="Run again to ask the rest",
            )
        if why is not None:
            raise why

    async def _read(
        self, batch: Batch, file: str, lost: dict[str, Failure], odd: Counter[str]
    ) -> Failure | None:
        seen: set[str] = set()
        readable: set[bool] = set()

        async def take(lines: Sequence[bytes]) -> None:
            answers: list[tuple[Call, Reply]] = []
            for line in lines:
                name, end = read_line(line, self.door.endpoint)
                readable.add(bool(name))
                if name not in batch.names:
                    odd["carry no name of a call in it"] += bool(line.strip())
                elif isinstance(end, Reply) and name in batch.calls:
                    answers.append((batch.calls.pop(name), end))
                elif name in seen:
                    odd["repeat another"] += 1
                elif isinstance(end, Failure):
                    lost.setdefault(name, end)
                seen.add(name)
            await _all(self._answered(call, end) for call, end in answers)

        async def once() -> Failure | None:
            for before in (seen, odd, readable):
                before.clear()
            end = await self.provider.read(file, take)
            if end is None and readable == {False}:  # a web page, say: no reason to ask and pay again
                return Failure("malformed", "the file of results is none", retry="malformed")
            return end

        return await self.patiently(once)

    async def _answered(self, call: Call, end: Reply) -> None:
        """Commit an answer, its cost and what it says."""
        facts: Facts = [(t.response, [_response_row(call.held, end)])]
        cost = self._cost(call, end)
        self.awaited.pop(call.name, None)
        try:
            learnt = self._learn(call, end)
        except Exception:  # the reader failed, not the call: what was paid for is kept all the same
            await self.ledger.settle(call.held, cost, facts)
            raise
        await self.ledger.settle(call.held, cost, facts + learnt)
        self._count(call)
        self.door._tolerate(end)

    def _cost(self, call: Call, end: Reply) -> Settled:
        if call.asked:
            return self.door._settled(call.asked[0], call.held, end, 0.0)
        if end.tokens_in is None or end.tokens_out is None:
            return Settled("ok", call.held.worst, False, 0.0, 200, "no usage")
        cost = self.door.price.of(end.tokens_in, end.tokens_out)
        return Settled("ok", cost, True, 0.0, 200, "", end.tokens_in, end.tokens_out)

    async def _settle_rest(self, batch: Batch, ends: dict[str, Failure]) -> Exception | None:
        """Settle every call without an answer; the first reason why the run cannot go on."""
        why: Exception | None = None
        calls = list(batch.calls.items())
        for start in range(0, len(calls), SETTLED_AT_ONCE):
            some = calls[start : start + SETTLED_AT_ONCE]
            await _all(self._lost(call, ends[name]) for name, call in some)
            for name, call in some:
                del batch.calls[name]
                self.awaited.pop(name, None)
                why = why or self._after(call, ends[name])
        if ends and any(end.reason == "enqueued" for end in ends.values()):
            self.most_rows = max(1, min(self.most_rows, len(batch.names)) // 2)
        return why

    async def _lost(self, call: Call, end: Failure) -> None:
        facts = [] if self._again(call, end) or _stops(end) else self._learn(call, end)
        await self.ledger.settle(call.held, _settled_failure(call.held, end, 0.0), facts)

    def _after(self, call: Call, end: Failure) -> Exception | None:
        """What becomes of a question without an answer: the next batch, the end, or the end of the run."""
        if _stops(end):
            return self.refused(end)
        if self._again(call, end) and end.retry is not None:
            call.left[end.retry] -= 1
            call.times += 1
            if call.asked:  # else it is drawn from the source, as if it were new
                self.queue.append(call)
            return None
        if not call.asked:
            self.early[call.name] = end
            return None
        self._count(call)
        try:
            self.door._tolerate(end)
        except ModelError as error:
            return error
        return None

    def _again(self, call: Call, end: Failure) -> bool:
        return end.retry is not None and call.left[end.retry] > 0 and call.times < MOST_TIMES

    def _learn(self, call: Call, end: Reply | Failure) -> Facts:
        return [fact for request in call.asked for fact in self.record(request, end)]

    def _count(self, call: Call) -> None:
        for _ in call.asked:
            self.done()

    async def known(self, call: Call, end: Reply | Failure) -> None:
        """The end of a question that needs no call any more."""
        await self.ledger.append(self._learn(call, end))
        self._count(call)

    async def step(self, batch: Batch, name: str, value: str) -> None:
        """Write down what became of a batch: `created` with its id, `ended` with its last state."""
        row = {"batch": batch.n, "name": name, "value": value, "at": time.time()}
        await self.ledger.append([(t.batch_step, [row])])

    async def write_off(self, batch: Batch, why: Failure) -> None:
        """No call of it was ever made: the room is given back."""
        calls = list(batch.calls.values())
        for start in range(0, len(calls), SETTLED_AT_ONCE):
            some = calls[start : start + SETTLED_AT_ONCE]
            await asyncio.gather(
                *(self.ledger.settle(call.held, _settled_failure(call.held, why, 0.0), []) for call in some)
            )
        await self.step(batch, "ended", why.reason)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that costs nothing, tried again as configured; its last end."""
        left = self.door.endpoint.retries.model_dump()
        ordinal = 0
        while True:
            ordinal += 1
            end = await call()
            if not isinstance(end, Failure) or end.retry is None or not left[end.retry]:
                return end
            left[end.retry] -= 1
            await self.pause(self.door._wait(end, ordinal))

    async def pause(self, seconds: float) -> None:
        """Wait; a stop signal ends it.

        Raises:
            Interrupted: the user asked to stop.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        self.unless_stopped()

    def unless_stopped(self) -> None:
        """Nothing, unless the user asked to stop.

        Raises:
            Interrupted: the user did.
        """
        if isinstance(self.stop.why, Interrupted):
            asked = Interrupted(
                "stopped on request; open batches go on at the provider", hint="Run again to read them"
            )
            asked.exit_code = self.stop.why.exit_code
            raise asked

    def refused(self, end: Failure) -> ModelError:
        """The sentence for a failure that the run cannot go on from."""
        where = self.door.endpoint.base_url
        hint = "Run again to go on; open batches are read, not sent again"
        words = _fatal_words(end, self.door.endpoint)[0] if end.fatal else f"{end.reason}: {end.detail}"
        return ModelError(words, where=where, hint="" if end.fatal else hint)


def _rest(state: BatchState, *, gone: bool) -> Failure:
    """The end of a call that no line of results tells of."""
    if gone:
        words = "the provider no longer has the results"
        return Failure("results_gone", words, retry="timeout", charged="unknown")
    if state.state == "failed":
        if "token_limit" in state.words:
            return Failure("enqueued", state.words, retry="rate_limit")
        return Failure("batch_refused", state.words)
    if state.state == "cancelled":
        return Failure("cancelled", charged="unknown")
    return Failure("missing", "the results hold no line for it", retry="timeout", charged="unknown")


def _stops(end: Failure) -> bool:
    """Whether asking on would come to nothing, or is not wanted; the question itself has not failed."""
    return end.fatal or end.reason in ("batch_refused", "cancelled")


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do all of it, whatever one raises; then raise the first."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
