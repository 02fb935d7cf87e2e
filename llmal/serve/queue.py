"""The server's own run folder: texts that wait for people, what was answered, and what ended a promise."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from filelock import FileLock, Timeout

from llmal.corpus import text_key
from llmal.errors import StoreError
from llmal.records import Annotation, Item, Labels, Route, canonical, unasked
from llmal.serve.options import MOST_QUEUED
from llmal.store import schema as t
from llmal.store.ledger import Caps, Facts, Ledger
from llmal.store.store import Store, annotation_rows
from llmal.text import repaired

SNAPSHOT = 1
"""The one corpus of a serving store: every text that was kept, in the order it came."""


class Kept(NamedTuple):
    """What the store holds of a text: its `seq`, its route under the recipe asked for, a person's labels."""

    item: int
    route: Route | None
    answered: Labels | None


class Queue:
    """Everything the server keeps. Used from one event loop; an entry is on disk once its call returns.

    Args:
        store: opened for writing; it is shared, so that `llmal review` can bring answers while we serve.
        lock: keeps other servers off, held until `close`.
        caps: what language models may cost.
        recipe: of the routes made under the terms served.
        names: of the classes; answers with others count for nothing.
    """

    def __init__(self, store: Store, lock: FileLock, caps: Caps, recipe: str, names: Sequence[str]) -> None:
        self.store, self._lock, self.recipe, self._names = store, lock, recipe, set(names)
        if not store.newest_corpus():
            made = {"n": SNAPSHOT, "recipe": "served", "digest": "", "at": time.time()}
            store.add(t.corpus, [made])
        self._carry_over()
        self._next = store.n_items()
        self._secret = store.secret()
        self._said, self._unseen = (0, 0), False
        self.answered: dict[str, Labels] = {}
        self.waiting = 0
        self.look()
        self._unseen = self._said[0] > 0  # answers that came while no server ran
        self.ledger = Ledger(store, caps)
        store.share()

    def _carry_over(self) -> None:
        """Texts that wait under the terms of an earlier export go on waiting: people are shown one list."""
        c = t.route.c
        mine = sa.select(c.item).where(c.recipe == self.recipe)
        known = sa.select(t.answer.c.item).where(t.standing())
        left = (c.who == "person", c.item.not_in(mine), c.item.not_in(known))
        old = {
            r.item: {**r._mapping, "recipe": self.recipe}
            for r in self.store.read(sa.select(t.route).where(*left))
        }
        self.store.add(t.route, old.values())

    @property
    def seed(self) -> int:
        """A number that nobody outside knows."""
        return int.from_bytes(hashlib.sha256(self._secret + b"drift").digest()[:8])

    def drawn(self, text: str, share: float) -> bool:
        """Whether a text is among the random share that people check: the same text, the same lot."""
        lot = hmac.new(self._secret, b"check:" + text_key(text).encode(), hashlib.sha256).digest()
        return int.from_bytes(lot[:8]) < share * 2**64

    async def find(self, key: str) -> Kept | None:
        """What is kept of a text."""
        return await asyncio.to_thread(self._find, key)

    def _find(self, key: str) -> Kept | None:
        found = self.store.read(sa.select(t.item.c.seq).where(t.item.c.key == key))
        if not found:
            return None
        seq, c = int(found[0][0]), t.route.c
        routes = self.store.read(sa.select(t.route).where(c.item == seq, c.recipe == self.recipe))
        route = (
            Route(
                seq,
                routes[0].who,
                tuple(json.loads(routes[0].labels)),
                routes[0].confidence,
                routes[0].reason,
            )
            if routes
            else None
        )
        return Kept(seq, route, self.store.answers(self._names, [seq]).get(seq))

    async def keep(self, text: str, key: str) -> Item:
        """The text as an item of the store, new or old."""
        if (kept := await self.find(key)) is not None:
            return (await asyncio.to_thread(self.store.items, [kept.item]))[0]
        item, facts = self._item(text, key)
        await self.ledger.append(facts)
        return item

    def _item(self, text: str, key: str) -> tuple[Item, Facts]:
        text, flags = repaired(text)
        seq, self._next = self._next, self._next + 1
        row = {"corpus": SNAPSHOT, "position": seq + 1, "id": key, "item": seq, "gold": None, "skipped": ""}
        new = {"seq": seq, "key": key, "text": text, "flags": json.dumps(flags)}
        return Item(seq, key, text, flags), [(t.item, [new]), (t.row, [row])]

    async def route(self, text: str, key: str, kept: Kept | None, route: Route) -> str:
        """Keep who answers a text; returns its id. Where a person does, the text now waits for one."""
        facts: Facts = []
        seq = kept.item if kept is not None else -1
        if kept is None:
            item, facts = self._item(text, key)
            seq = item.seq
        fact = {**route._asdict(), "item": seq, "labels": canonical(route.labels), "recipe": self.recipe}
        await self.ledger.append([*facts, (t.route, [fact])])
        self.waiting += route.who == "person"
        return key

    async def check(self, text: str, key: str, route: Route) -> None:
        """Show people a text a machine answered: without the answer, which is kept beside to be measured."""
        kept = await self.find(key)
        facts: Facts = []
        seq = kept.item if kept is not None else -1
        if kept is None:
            item, facts = self._item(text, key)
            seq = item.seq
        said = Annotation(
            seq, "ok", route.labels, None, route.confidence, "none", f"{route.who}: {route.reason}"
        )
        drawn = (t.audit, [{"item": seq, "at": time.time()}])
        rows = annotation_rows(unasked(self.recipe), [said])
        await self.ledger.append([*facts, drawn, (t.annotation, rows)])
        self.waiting += 1

    @property
    def full(self) -> bool:
        """Whether so many texts wait that no more are taken."""
        return self.waiting >= MOST_QUEUED

    def look(self) -> bool:
        """Read what people said since the last look; whether there was anything."""
        before, said = self._said, self.store.said()
        if said != before:
            self._take_note(self._touched(*before))
        if said != before or not self.waiting:
            self.waiting = self._count()
        self._said = said  # last: what could not be read now is read at the next look
        fresh = said != before or self._unseen
        self._unseen = False
        return fresh

    def _touched(self, answer: int, remark: int) -> list[int]:
        """Items whose answer may be another one since these were the newest answer and remark."""
        a, r = t.answer.c, t.remark.c
        new = (sa.select(a.item).where(a.n > answer), sa.select(r.item).where(r.n > remark))
        # A word on one item may tell who is right on others.
        return sorted({s for query in new for (s,) in self.store.tuples(query)} | self.store.shared())

    def _take_note(self, items: Sequence[int]) -> None:
        said = self.store.answers(self._names, items)
        for item, key in self.store.tuples(sa.select(t.item.c.seq, t.item.c.key), t.item.c.seq, items):
            if item in said:
                self.answered[key] = said[item]
            else:
                self.answered.pop(key, None)

    def _count(self) -> int:
        """Texts that wait for people: routed to one, or drawn to be checked, and not answered."""
        r = t.route.c
        routed = sa.select(r.item).where(r.recipe == self.recipe, r.who == "person")
        waits = sa.union(routed, sa.select(t.audit.c.item)).subquery()
        known = sa.select(t.answer.c.item).where(t.standing())
        query = sa.select(sa.func.count()).select_from(waits).where(waits.c.item.not_in(known))
        return int(self.store.read(query)[0][0])

    def checked(self) -> list[bool]:
        """Whether machines were right about each checked text, in the order of people's first answers.

        An answer that was taken back counts neither way; a slip that was corrected is no error of a machine.
        """
        m, a = t.annotation.c, t.answer.c
        query = sa.select(a.item, m.labels).join(t.annotation, m.item == a.item)
        where = (m.recipe == unasked(self.recipe), t.standing())
        given = dict.fromkeys(tuple(row) for row in self.store.read(query.where(*where).order_by(a.n)))
        said = self.store.answers(self._names, [item for item, _ in given])
        return [set(said[item]) == set(json.loads(labels)) for item, labels in given if item in said]

    def withdrawn(self) -> str | None:
        """Why the promise ended; None while it stands."""
        c = t.withdrawal.c
        found = self.store.read(sa.select(c.reason).where(c.certificate == self.recipe))
        return str(found[0][0]) if found else None

    async def withdraw(self, reason: str) -> None:
        """End the promise for good."""
        fact: dict[str, Any] = {"certificate": self.recipe, "reason": reason, "at": time.time()}
        await self.ledger.append([(t.withdrawal, [fact])])

    def close(self) -> None:
        """Write what is on its way, and let the folder go."""
        self.ledger.close()
        self.store.close()
        self._lock.release()


def claim(folder: Path) -> FileLock:
    """Make the folder of a serving store, and keep other servers off it.

    Raises:
        StoreError: another server uses it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder / "server.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            "another server uses this state", where=str(folder), hint="Stop it, or name another with --state"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot write the state: {error.strerror}", where=str(folder)) from error
    return lock


def state_file(folder: Path) -> Path:
    """Where the watch over drift keeps its state."""
    return folder / "drift.npz"
