"""The ledger of paid calls: reserved before sending, settled after, never past a cap, never asked twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.errors import BudgetSpent
from llmal.store import schema as t
from llmal.store.store import Store

PICO = 10**12
"""Picodollars in a dollar: p dollars a million tokens is p * 10^6 picodollars a token; sums stay exact."""

Facts = list[tuple[sa.Table, list[dict[str, Any]]]]
"""Rows to append, by table."""


class Caps(NamedTuple):
    """What a run may spend in all; None means no cap.

    Attributes:
        cost: picodollars.
        calls: requests sent to an endpoint, repeats included.
    """

    cost: int | None = None
    calls: int | None = None


class Reservation(NamedTuple):
    """Room for one call: the attempt's number and the most it can cost, in picodollars."""

    attempt: int
    worst: int


class Settled(NamedTuple):
    """How one attempt ended.

    Attributes:
        status: `ok`, `failed` (the server said so: free), `unknown` (it may have been charged: worst case
            counts), or `unsent` (it never left).
        cost: picodollars; exact when `exact`, else an upper bound.
    """

    status: str
    cost: int
    exact: bool
    seconds: float
    http: int | None = None
    reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None


class Bill(NamedTuple):
    """Totals of a run: calls sent, tokens, picodollars, and calls whose fate is unknown."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost: int
    unknown: int


class Ledger:
    """Reserves, settles and remembers calls for one run; one instance a process, used from one event loop.

    Writes go through a thread that commits whatever has gathered since the last commit in one transaction, so
    the cost of a durable commit is shared by all calls in flight, and in order: what is durable is a prefix.
    """

    def __init__(self, store: Store, caps: Caps) -> None:
        self.store = store
        self.caps = caps
        totals = bill(store)
        self._spent = totals.cost  # settled, plus the worst case of calls in flight or of unknown fate
        self._calls = totals.calls
        self._open: set[int] = set()  # attempts in flight: they hold their worst case, and mostly cost less
        self._freed = asyncio.Event()
        self._next = 1 + int(store.read(sa.select(sa.func.coalesce(sa.func.max(t.attempt.c.n), 0)))[0][0])
        self._journal = _Journal(store)

    def close(self) -> None:
        """Commit what is waiting and end the writer."""
        self._journal.close()

    async def reserve(self, request: Mapping[str, Any], ordinal: int, worst: int) -> Reservation:
        """Make room for one call, durably, before it is sent.

        Args:
            request: the row of the request table.
            ordinal: 1 for the first attempt at this request, 2 for the next.
            worst: the most the call can cost, picodollars.

        Raises:
            BudgetSpent: the call could pass a cap.
        """
        while (refusal := self._refusal(worst)) is not None:
            if not self._open:
                raise refusal
            self._freed.clear()
            await self._freed.wait()
        # Booked before the first await: no other call can pass this one between check and commit.
        self._spent += worst
        self._calls += 1
        n, self._next = self._next, self._next + 1
        held = Reservation(n, worst)
        self._open.add(n)
        row = {"n": n, "request": request["hash"], "ordinal": ordinal, "worst": worst, "at": time.time()}
        try:
            await self._journal.append([(t.request, [dict(request)]), (t.attempt, [row])])
        except BaseException:
            self.let_go(held)
            raise
        return held

    async def reserve_many(
        self, calls: Sequence[tuple[Mapping[str, Any], int, int]], facts: Callable[[list[Reservation]], Facts]
    ) -> list[Reservation]:
        """Make room for as many of these calls as fit, in their order, in one transaction; waits for nobody.

        Args:
            calls: request row, ordinal and worst cost of each, as for `reserve`.
            facts: what is committed with the reservations made.

        Raises:
            BudgetSpent: not even the first fits.
        """
        held: list[Reservation] = []
        requests, attempts = [], []
        for request, ordinal, worst in calls:
            if (refusal := self._refusal(worst)) is not None:
                if not held:
                    raise refusal
                break
            self._spent += worst
            self._calls += 1
            n, self._next = self._next, self._next + 1
            held.append(Reservation(n, worst))
            requests.append(dict(request))
            attempts.append(
                {"n": n, "request": request["hash"], "ordinal": ordinal, "worst": worst, "at": time.time()}
            )
        await self._journal.append([(t.request, requests), (t.attempt, attempts), *facts(held)])
        return held

    def let_go(self, held: Reservation) -> None:
        """The call is over, settled or not: whoever waits for room looks again. Unsettled, it stays spent."""
        self._open.discard(held.attempt)
        self._freed.set()

    def _refusal(self, worst: int) -> BudgetSpent | None:
        caps = self.caps
        if caps.calls is not None and self._calls + 1 > caps.calls:
            words, where = f"{self._calls} of {caps.calls} calls are made", "budget.calls"
        elif caps.cost is not None and self._spent + worst > caps.cost:
            left = (caps.cost - self._spent) / PICO
            words = (
                f"the next call could cost ${worst / PICO:.6f} "
                f"and ${left:.6f} of ${caps.cost / PICO:.2f} is left"
            )
            where = "budget.usd"
        else:
            return None
        return BudgetSpent(words, where=where, hint="Raise it and run again")

    async def settle(self, held: Reservation, end: Settled, facts: Facts) -> None:
        """Commit how a call ended, with everything learnt from it, in one transaction."""
        await self.settling(held, end, facts)

    def settling(self, held: Reservation, end: Settled, facts: Facts) -> asyncio.Future[None]:
        """As `settle`, but the caller need not wait: what it books later is never committed before this.

        Returns:
            Done once committed; whoever counts the call as answered has to wait for it.
        """
        self._spent += end.cost - held.worst
        if end.status == "unsent":
            self._calls -= 1
        row = {**end._asdict(), "attempt": held.attempt, "exact": int(end.exact), "at": time.time()}
        settled = self._journal.append([(t.outcome, [row]), *facts])

        def ended(done: asyncio.Future[None]) -> None:
            self.let_go(held)
            if not done.cancelled():
                done.exception()  # told to who waits; a worker that was cancelled waits no more

        settled.add_done_callback(ended)
        return settled

    async def append(self, facts: Facts) -> None:
        """Commit facts that no call paid for (a kept answer parsed anew)."""
        if any(rows for _, rows in facts):
            await self._journal.append(facts)

    def kept(self, hashes: list[str]) -> dict[str, str]:
        """Request hash -> raw response, for those answered before: they are never asked again."""
        found: dict[str, str] = {}
        for start in range(0, len(hashes), 500):
            where = t.response.c.request.in_(hashes[start : start + 500])
            found.update(
                {
                    h: raw
                    for h, raw in self.store.read(
                        sa.select(t.response.c.request, t.response.c.raw).where(where)
                    )
                }
            )
        return found


def bill(store: Store) -> Bill:
    """What the run has spent so far; calls without an outcome count with their worst case."""
    o, a = t.outcome.c, t.attempt.c
    waiting = a.n.in_(sa.select(t.batch_call.c.attempt))  # in a provider's batch: late, not lost
    unknown = sa.or_(sa.and_(o.status.is_(None), ~waiting), o.status == "unknown")
    sums = (o.tokens_in, o.tokens_out, sa.func.coalesce(o.cost, a.worst), sa.case((unknown, 1), else_=0))
    # One statement: calls that settle while it runs are counted once.
    query = (
        sa.select(sa.func.count(), *(sa.func.coalesce(sa.func.sum(x), 0) for x in sums))
        .select_from(t.attempt)
        .outerjoin(t.outcome, o.attempt == a.n)
        .where(sa.func.coalesce(o.status, "") != "unsent")
    )
    return Bill(*(int(x) for x in store.read(query)[0]))


def unknown_fate(store: Store, *, unanswered: bool = False) -> list[tuple[int | None, str, int]]:
    """(item, request hash, worst-case picodollars) of every call that was sent and never settled.

    Args:
        store: of the run.
        unanswered: only those whose question has no answer yet, so that it will be asked again.
    """
    a, r = t.attempt.c, t.request.c
    query = (
        sa.select(r.item, a.request, a.worst)
        .join(t.request, r.hash == a.request)
        .where(_no_outcome())
        .order_by(a.n)
    )
    if unanswered:
        query = query.where(a.request.not_in(sa.select(t.response.c.request)))
    return [tuple(row) for row in store.read(query)]


def asked_again(store: Store) -> list[int]:
    """Every item of a call that was sent, never settled, and has no answer yet: it will be asked again."""
    r = t.request.c
    lost = {name for _, name, _ in unknown_fate(store, unanswered=True)}
    found: dict[int, None] = {}
    for start in range(0, len(lost), 500):  # SQLite takes a bounded number of values
        some = sorted(lost)[start : start + 500]
        for item, several in store.read(sa.select(r.item, r.several).where(r.hash.in_(some))):
            group = json.loads(several) if several else [item]
            found |= dict.fromkeys(one for one in group if one is not None)
    return sorted(found)


def _no_outcome() -> sa.ColumnElement[bool]:
    known = sa.union_all(sa.select(t.outcome.c.attempt), sa.select(t.batch_call.c.attempt))
    return t.attempt.c.n.not_in(known)


Entry = tuple[Facts, "asyncio.Future[None]"]


class _Journal:
    """A thread that turns waiting appends into as few transactions as possible, in the order they came.

    Appends of one turn of the event loop are handed over together, and their ends are told together: a
    wake-up a call would cost more than its rows.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gathered: list[Entry] = []
        self._queue: queue.SimpleQueue[list[Entry] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="llmal-ledger", daemon=True)
        self._thread.start()

    def append(self, facts: Facts) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._gathered:
            loop.call_soon(self._hand_over)
        self._gathered.append((facts, future))
        return future

    def close(self) -> None:
        self._hand_over()
        self._queue.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._queue.put(gathered)

    def _run(self) -> None:
        more = True
        while more:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            more = None not in waiting
            self._commit([entry for entries in waiting if entries is not None for entry in entries])

    def _commit(self, entries: list[Entry]) -> None:
        if not entries:
            return
        by_table: dict[str, tuple[sa.Table, list[dict[str, Any]]]] = {}
        for facts, _ in entries:
            for table, rows in facts:
                by_table.setdefault(table.name, (table, []))[1].extend(rows)
        try:
            with self._store.begin() as db:
                for table, rows in by_table.values():
                    self._store.add(table, rows, db=db)
            failure = None
        except BaseException as error:  # told to every waiting caller: none may believe its facts are kept
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            entries[0][1].get_loop().call_soon_threadsafe(_tell, entries, failure)


def _tell(entries: list[Entry], failure: BaseException | None) -> None:
    for _, future in entries:
        if future.done():  # its caller was cancelled
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
