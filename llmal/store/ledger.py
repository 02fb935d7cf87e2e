"""The ledger of paid calls: reserved before sending, settled after, never past a cap, never asked twice."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
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
    the cost of a durable commit is shared by all calls in flight.
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
        self._spent += end.cost - held.worst
        if end.status == "unsent":
            self._calls -= 1
        row = {**end._asdict(), "attempt": held.attempt, "exact": int(end.exact), "at": time.time()}
        try:
            await self._journal.append([(t.outcome, [row]), *facts])
        finally:
            self.let_go(held)

    async def append(self, facts: Facts) -> None:
        """Commit facts that no call paid for (a kept answer parsed anew)."""
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
    unknown = sa.or_(o.status.is_(None), o.status == "unknown")
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


def _no_outcome() -> sa.ColumnElement[bool]:
    return t.attempt.c.n.not_in(sa.select(t.outcome.c.attempt))


class _Journal:
    """A thread that turns waiting appends into as few transactions as possible."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[tuple[Facts, Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="llmal-ledger", daemon=True)
        self._thread.start()

    async def append(self, facts: Facts) -> None:
        future: Future[None] = Future()
        self._queue.put((facts, future))
        await asyncio.wrap_future(future)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            more = None not in waiting
            self._commit([entry for entry in waiting if entry is not None])

    def _commit(self, entries: list[tuple[Facts, Future[None]]]) -> None:
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
        for _, future in entries:
            if not future.set_running_or_notify_cancel():
                continue
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)
