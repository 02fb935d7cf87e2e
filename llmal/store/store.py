"""Facts of one run: append, ask what is missing, read views. Nothing here knows how a fact is made."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from llmal.errors import RunInUse, StoreError
from llmal.records import Annotation, Decision, Labels, Route
from llmal.store import schema as t
from llmal.store.base import BATCH as BATCH
from llmal.store.base import labels_of
from llmal.store.corpus import CorpusFacts
from llmal.store.migrations import VERSION, migrate
from llmal.store.people import PeopleFacts

BRIEFLY = 0.3
"""Seconds to wait for a run's lock: long enough for whoever opens a store beside runs, and lets it go."""


POLLED_S, LOCKED_S = 25.0, 5.0
"""Seconds for which a write asks whether another process has ended its own, and waits after that."""


class Store(CorpusFacts, PeopleFacts):
    """All facts of one run. Use `open_store`."""

    def audit(self, since: float = 0.0) -> list[int]:
        """Items reserved for people, ascending: all, or those reserved at this time or later."""
        c = t.audit.c
        return [s for (s,) in self.read(sa.select(c.item).where(c.at >= since).order_by(c.item))]

    def tested(self) -> list[int]:
        """The pool that test items are drawn from, ascending; the audit sample is part of it."""
        return [s for (s,) in self.read(sa.select(t.tested.c.item).order_by(t.tested.c.item))]

    def reserved(self) -> set[int]:
        """Items that measure, audit sample and test pool: nothing learns from them, or is shown them."""
        return {*self.audit(), *self.tested()}

    def draws(self) -> Sequence[Any]:
        """(turn, item, chance, pool, by) of every test item that was drawn from the pool, in order."""
        c = t.draw.c
        return self.read(sa.select(c.turn, c.item, c.chance, c.pool, c.by).order_by(c.turn))

    def picks(self, round_no: int | None = None) -> list[int]:
        """Items picked so far, or in one round, in the order of picking."""
        where = () if round_no is None else (t.pick.c.round == round_no,)
        found = self.read(sa.select(t.pick.c.item).where(*where).order_by(t.pick.c.round, t.pick.c.rank))
        return [s for (s,) in found]

    def annotations(self, recipe: str, items: Collection[int] | None = None) -> dict[int, Annotation]:
        """Item -> the annotator's answer under this recipe; of these items alone where they are given."""
        c = t.annotation.c
        columns = (c.item, c.status, c.labels, c.probs, c.confidence, c.kind, c.detail, c.request)
        return {
            r[0]: Annotation(
                r[0], r[1], labels_of(r[2]), None if r[3] is None else tuple(json.loads(r[3])), *r[4:]
            )
            for r in self.tuples(sa.select(*columns).where(c.recipe == recipe), c.item, items)
        }

    def decisions(self, recipe: str) -> dict[int, Decision]:
        """Item -> the filter's word under this recipe."""
        c = t.decision.c
        found = self.tuples(sa.select(c.item, c.verdict, c.score, c.reason).where(c.recipe == recipe))
        return {r[0]: Decision(*r) for r in found}

    def routes(
        self, recipe: str, items: Collection[int] | None = None, *, who: str | None = None
    ) -> dict[int, Route]:
        """Item -> who answers it under this recipe.

        Args:
            recipe: of the routes.
            items: these alone; all where None.
            who: routes to this one alone: `student`, `llm` or `person`.
        """
        c = t.route.c
        query = sa.select(c.item, c.who, c.labels, c.confidence, c.reason).where(c.recipe == recipe)
        if who is not None:
            query = query.where(c.who == who)
        found = self.tuples(query, c.item, items)
        return {s: Route(s, by, labels_of(labels), sure, why) for s, by, labels, sure, why in found}

    def certificate(self, recipe: str) -> dict[str, Any] | None:
        """Facts of a certificate, and why it was `withdrawn` where it was."""
        found = self.fact(t.certificate, recipe)
        if found is None:
            return None
        c = t.withdrawal.c
        ended = self.read(sa.select(c.reason).where(c.certificate == recipe))
        facts = dict(json.loads(found.facts))
        return {**facts, "withdrawn": ended[0].reason if ended else facts.get("withdrawn")}

    def issues(self) -> int:
        """Tests made on the audit sample for certificates of this run; each spent its share of delta."""
        return int(self.read(sa.select(sa.func.coalesce(sa.func.max(t.certificate.c.issue), 0)))[0][0])

    def shortlist(self, route: str, asked: str) -> Any | None:
        """(recipe, used, words) of the newest candidate sets for these routes, as the file asks."""
        c = t.shortlist.c
        where = (c.route == route, c.asked == asked)
        newest = sa.select(c.recipe, c.used, c.words).where(*where).order_by(c.at.desc()).limit(1)
        found = self.read(newest)
        return found[0] if found else None

    def candidates(self, recipe: str) -> dict[int, Labels]:
        """Item -> the labels a person is shown first, likeliest first; empty where none is likely enough."""
        c = t.candidates.c
        found = self.tuples(sa.select(c.item, c.labels).where(c.recipe == recipe))
        return {s: labels_of(labels) for s, labels in found}


def annotation_rows(recipe: str, annotations: Iterable[Annotation]) -> list[dict[str, Any]]:
    """Annotations as rows of their table."""
    now = time.time()
    return [
        {
            **a._asdict(),
            "labels": json.dumps(a.labels),
            "probs": None if a.probs is None else json.dumps([round(p, 6) for p in a.probs]),
            "recipe": recipe,
            "at": now,
        }
        for a in annotations
    ]


def open_store(folder: Path, *, write: bool = True, beside: bool = False) -> Store:
    """Open a run folder, creating or migrating it when writing.

    Args:
        folder: the run folder; made with mode 700.
        write: take the run's lock; without it the store is only read, also while a run goes on.
        beside: write without the lock, which another process may hold or take: for people's words alone,
            which come at any time. Only an older store is migrated first, with the lock.

    Raises:
        RunInUse: another process holds the run.
        StoreError: a newer llmal made it, it is damaged, or it does not exist.
    """
    path = folder / "store.sqlite"
    if not write and not path.is_file():
        raise StoreError("no run here", where=str(folder), hint="Name the folder that `llmal run` printed")
    lock = None
    if write:
        _make(folder)
        try:
            lock = _take(folder)
        except RunInUse:
            if not beside or not path.is_file():
                raise
    try:
        store = Store(folder, _connect(path, write=write, migrates=lock is not None), lock)
        if beside:
            store.share()
        return store
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        # Refused before the first paid call: an answer that cannot be kept is money lost.
        raise StoreError(f"cannot write the run folder: {error.strerror}", where=str(folder)) from error


def _take(folder: Path) -> FileLock:
    lock = FileLock(folder / "lock")
    holder = folder / "holder.json"
    try:
        lock.acquire(timeout=BRIEFLY)
    except Timeout as error:
        try:
            who = json.loads(holder.read_text(encoding="utf-8"))
            by = f"process {who['pid']} on {who['host']}, since {who['since']}"
        except (OSError, ValueError, KeyError):
            by = "another process"
        raise RunInUse(
            f"this run is in use by {by}", where=str(folder), hint="Wait for it, or stop it"
        ) from error
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder.write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8"
    )
    return lock


def _connect(path: Path, *, write: bool, migrates: bool) -> sa.Engine:
    engine = sa.create_engine(
        f"sqlite:///{path}", connect_args={"timeout": LOCKED_S, "check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = not write or connection.get_execution_options().get("llmal_reads")
        if reads or not _queued(connection):
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    try:
        if migrates:
            _backup(engine, path)
            with engine.begin() as db:
                migrate(db)
            path.chmod(0o600)
        else:
            with engine.connect() as db:
                _refuse_other_version(db)
    except sa.exc.DatabaseError as error:
        engine.dispose()
        raise StoreError(
            f"the run's store cannot be read: {error.orig}",
            where=str(path.parent),
            hint="See `llmal doctor RUN`",
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _queued(connection: sa.Connection) -> bool:
    """Begin to write as soon as nobody else does; False where it cannot begin for now or for another reason.

    SQLite itself looks ten times a second, and a process that writes without a pause then keeps people's
    answers waiting for a second and more.
    """
    raw: Any = connection.connection.driver_connection
    raw.execute("PRAGMA busy_timeout=0")
    try:
        until = time.monotonic() + POLLED_S
        while time.monotonic() < until:
            try:
                raw.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    return False
                time.sleep(0.002)
            else:
                return True
    finally:
        raw.execute(f"PRAGMA busy_timeout={int(1000 * LOCKED_S)}")
    return False


def _refuse_other_version(db: sa.Connection) -> None:
    found = int(db.execute(sa.select(t.meta.c.value).where(t.meta.c.name == "version")).scalar() or 0)
    if found != VERSION:
        raise StoreError(
            f"store version {found}, this llmal reads {VERSION}",
            hint="Run `llmal run` once to migrate, or upgrade llmal",
        )


def _backup(engine: sa.Engine, path: Path) -> None:
    """Keep a copy of an older store before it is migrated."""
    if path.stat().st_size == 0 if path.exists() else True:
        return
    with engine.connect() as db:
        if not sa.inspect(db).has_table("meta"):
            return
        found = int(db.execute(sa.select(t.meta.c.value).where(t.meta.c.name == "version")).scalar() or 0)
    if 0 < found < VERSION:
        copy = path.with_name(f"store.v{found}.sqlite")
        # SQLite's own copy: after a crash the newest commits lie beside the file, in its write-ahead log.
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.chmod(0o600)
