"""Facts of one run: append, ask what is missing, read views. Nothing here knows how a fact is made."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from llmal.errors import StoreError
from llmal.records import Annotation, Decision, Item, Labels, Route, batched
from llmal.store import schema as t
from llmal.store.insert import append
from llmal.store.migrations import VERSION, migrate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmal.corpus import Row

BATCH = 1000
"""Rows per statement: SQLite gains little beyond this, and memory stays flat."""


class Store:
    """One run folder, open for reading and, with the lock held, for writing.

    Use `open_store`. Every write is one transaction; `added` counts the facts this process appended.
    """

    def __init__(self, folder: Path, engine: sa.Engine, lock: FileLock | None) -> None:
        self.folder = folder
        self.engine = engine
        self.added = 0
        self._lock = lock

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """One transaction; a full disk or a lost folder is a StoreError, and nothing is half written."""
        with _told(self.folder), self.engine.begin() as db:
            yield db

    def close(self) -> None:
        """Release files and lock."""
        self.engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def share(self) -> None:
        """Go on writing without the lock, so that people's answers can be taken meanwhile.

        SQLite orders the writes; whoever calls this sees to it that nobody else makes paid calls here.
        """
        if self._lock is not None:
            self._lock.release()

    def add(
        self, table: sa.Table, rows: Iterable[Mapping[str, Any]], *, db: sa.Connection | None = None
    ) -> int:
        """Append facts that are not there yet; returns how many were new. Facts are never overwritten."""
        if db is None:
            with self.begin() as own:
                return self.add(table, rows, db=own)
        new = sum(append(db, table, batch) for batch in batched(rows, BATCH))
        self.added += new
        return new

    def read(self, statement: sa.Select[Any]) -> Sequence[Any]:
        """All rows of a query; never waits for a writer."""
        with self.engine.connect().execution_options(llmal_reads=True) as db, _told(self.folder):
            return db.execute(statement).all()

    def tuples(
        self, statement: sa.Select[Any], column: Any = None, items: Collection[int] | None = None
    ) -> Iterator[Any]:
        """As `read`, in plain tuples: in long tables a row with names costs more than reading it does.

        Args:
            statement: the query.
            column: of the items, where only some are wanted.
            items: these alone, in any order; None for all.
        """
        parts = [statement]
        if items is not None:
            parts = [statement.where(column.in_(part)) for part in batched(items, BATCH)]
        for part in parts:
            with self.engine.connect().execution_options(llmal_reads=True) as db, _told(self.folder):
                cursor = db.execute(part).cursor
                assert cursor is not None  # a query has one
                found = cursor.fetchall()
            yield from found

    def count(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
        """Rows of a table that meet the conditions."""
        return int(self.read(sa.select(sa.func.count()).select_from(table).where(*where))[0][0])

    def tally(self, column: Any, *where: sa.ColumnElement[bool]) -> dict[Any, int]:
        """Value of a column -> rows that have it, of those that meet the conditions, in order of value."""
        query = sa.select(column, sa.func.count()).where(*where).group_by(column).order_by(column)
        return {value: int(n) for value, n in self.read(query)}

    def noted(self, name: str) -> str | None:
        """A value kept by `note`; None when there is none."""
        found = self.read(sa.select(t.meta.c.value).where(t.meta.c.name == name))
        return str(found[0][0]) if found else None

    def note(self, name: str, make: Any) -> str:
        """A value that is made once and then stays: read it, or make and keep it."""
        found = self.noted(name)
        if found is not None:
            return found
        self.add(t.meta, [{"name": name, "value": make()}])
        return self.note(name, make)

    def secret(self) -> bytes:
        """Key of this run's fences: no text of the corpus can guess it."""
        return bytes.fromhex(self.note("secret", lambda: secrets.token_hex(16)))

    # --- corpus ---------------------------------------------------------------------------------------------

    def has_corpus(self, recipe: str, digest: str) -> bool:
        """Whether the newest snapshot was read from these very bytes in this very way."""
        newest = self.read(
            sa.select(t.corpus.c.recipe, t.corpus.c.digest).order_by(t.corpus.c.n.desc()).limit(1)
        )
        return bool(newest) and tuple(newest[0]) == (recipe, digest)

    def put_corpus(self, recipe: str, digest: str, rows: Iterator[Row], key: Any) -> None:
        """Add a snapshot, and the items it brings, in one transaction; texts seen before keep their item."""
        with self.begin() as db:
            n = int(db.execute(sa.select(sa.func.coalesce(sa.func.max(t.corpus.c.n), 0))).scalar_one()) + 1
            seqs = {k: seq for seq, k in db.execute(sa.select(t.item.c.seq, t.item.c.key))}
            for batch in batched(rows, BATCH):
                items: list[dict[str, Any]] = []
                lines: list[dict[str, Any]] = []
                for row in batch:
                    seq = None
                    if row.text is not None:
                        k = key(row.text)
                        seq = seqs.get(k)
                        if seq is None:
                            seq = seqs[k] = len(seqs)
                            items.append(
                                {"seq": seq, "key": k, "text": row.text, "flags": json.dumps(row.flags)}
                            )
                    gold = None if row.gold is None else json.dumps(row.gold)
                    lines.append(
                        {
                            "corpus": n,
                            "position": row.position,
                            "id": row.id,
                            "item": seq,
                            "gold": gold,
                            "skipped": row.skipped,
                        }
                    )
                if items:
                    self.add(t.item, items, db=db)
                self.add(t.row, lines, db=db)
            self.add(t.corpus, [{"n": n, "recipe": recipe, "digest": digest, "at": time.time()}], db=db)

    def newest_corpus(self) -> int:
        """Number of the newest snapshot, 0 when there is none."""
        return int(self.read(sa.select(sa.func.coalesce(sa.func.max(t.corpus.c.n), 0)))[0][0])

    def n_items(self) -> int:
        """Distinct texts ever seen: the height of every full array."""
        return self.count(t.item)

    def active(self, items: Collection[int] | None = None) -> list[int]:
        """The `seq` of every item in the newest snapshot, or of those among these, ascending."""
        c = t.row.c
        query = sa.select(c.item).where(c.corpus == self.newest_corpus(), c.item.is_not(None))
        found = [s for (s,) in self.tuples(query.distinct().order_by(c.item), c.item, items)]
        return found if items is None else sorted(found)

    def n_active(self) -> int:
        """Items in the newest snapshot."""
        c = t.row.c
        query = sa.select(sa.func.count(c.item.distinct())).where(c.corpus == self.newest_corpus())
        return int(self.read(query)[0][0])

    def items(self, seqs: Sequence[int]) -> list[Item]:
        """Items by `seq`, in the order asked for."""
        found: dict[int, Item] = {}
        for part in batched(seqs, BATCH):
            for seq, key, text, flags in self.read(sa.select(t.item).where(t.item.c.seq.in_(part))):
                found[seq] = Item(seq, key, text, tuple(json.loads(flags)))
        return [found[seq] for seq in seqs]

    def hidden(self) -> set[int]:
        """Items a model wrote that the newest snapshot does not hold: they are nobody's corpus."""
        written: sa.ColumnElement[str] = sa.literal_column(
            "'[\"synthetic\"]'"
        )  # word for word as in the index
        found = {s for (s,) in self.read(sa.select(t.item.c.seq).where(t.item.c.flags == written))}
        return found - set(self.active(found)) if found else found

    def texts(self, start: int, stop: int) -> list[str]:
        """Texts of items `start` to `stop - 1`."""
        where = (t.item.c.seq >= start, t.item.c.seq < stop)
        return [text for (text,) in self.read(sa.select(t.item.c.text).where(*where).order_by(t.item.c.seq))]

    def set_aside(self) -> Sequence[Any]:
        """(position, id, skipped) of every row of the newest snapshot that was set aside, in file order."""
        c = t.row.c
        query = sa.select(c.position, c.id, c.skipped)
        return self.read(query.where(c.corpus == self.newest_corpus(), c.skipped != "").order_by(c.position))

    def ids(self, items: Collection[int]) -> dict[int, str]:
        """Item -> id of the first row of the newest snapshot that it stands for."""
        c = t.row.c
        query = sa.select(c.item, c.id).where(c.corpus == self.newest_corpus())
        # The later row is overwritten by the earlier.
        return dict(self.tuples(query.order_by(c.position.desc()), c.item, items))

    def rows(self) -> Sequence[Any]:
        """(position, id, item, gold, skipped) of every row of the newest snapshot, in file order."""
        c = t.row.c
        where = c.corpus == self.newest_corpus()
        return self.read(
            sa.select(c.position, c.id, c.item, c.gold, c.skipped).where(where).order_by(c.position)
        )

    def gold(self, items: Collection[int] | None = None) -> dict[int, Labels]:
        """Item -> answer known beforehand, less rows of one text that disagree: they prove nothing.

        Args:
            items: these alone; the whole corpus where None.
        """
        c = t.row.c
        query = sa.select(c.item, c.gold).where(
            c.corpus == self.newest_corpus(), c.gold.is_not(None), c.item.is_not(None)
        )
        found: dict[int, Labels] = {}
        torn: set[int] = set()
        for seq, gold in self.tuples(query, c.item, items):
            labels = _labels(gold)
            if found.setdefault(seq, labels) != labels:
                torn.add(seq)
        return {seq: labels for seq, labels in found.items() if seq not in torn} if torn else found

    # --- arrays ---------------------------------------------------------------------------------------------

    def covered(self, recipe: str) -> int:
        """Rows of an array already on disk; blocks are appended in item order without gaps."""
        where = t.array.c.recipe == recipe
        return int(self.read(sa.select(sa.func.coalesce(sa.func.max(t.array.c.stop), 0)).where(where))[0][0])

    def put_block(self, recipe: str, start: int, block: NDArray[np.float32]) -> None:
        """Write rows `start` onward of an array: file first, then the fact that names it."""
        import numpy as np

        folder = self.folder / "arrays"
        folder.mkdir(exist_ok=True)
        name = f"{recipe}-{start:09d}.npy"
        part = folder / (name + ".part")
        with part.open("wb") as file:
            np.save(file, block, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
        self.add(t.array, [{"recipe": recipe, "start": start, "stop": start + len(block), "file": name}])

    def load(self, recipe: str) -> NDArray[np.float32]:
        """The whole array, rows in item order: mapped from disk when it is one block, joined when several."""
        import numpy as np

        where = t.array.c.recipe == recipe
        files = self.read(sa.select(t.array.c.file).where(where).order_by(t.array.c.start))
        parts = [np.load(self.folder / "arrays" / f, mmap_mode="r", allow_pickle=False) for (f,) in files]
        if not parts:
            raise StoreError(f"no array {recipe} in this run", where=self.folder.name)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # --- facts of the stages --------------------------------------------------------------------------------

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

    def doubts(self) -> dict[int, str]:
        """Item -> why a person should look at it again; gone once a person has answered since."""
        c, answer = t.doubt.c, t.answer.c
        since = sa.exists().where(answer.item == c.item, answer.at > c.at, t.standing())
        return dict(self.read(sa.select(c.item, c.reason).where(~since).order_by(c.at, c.item)))

    def annotations(self, recipe: str, items: Collection[int] | None = None) -> dict[int, Annotation]:
        """Item -> the annotator's answer under this recipe; of these items alone where they are given."""
        c = t.annotation.c
        columns = (c.item, c.status, c.labels, c.probs, c.confidence, c.kind, c.detail, c.request)
        return {
            r[0]: Annotation(
                r[0], r[1], _labels(r[2]), None if r[3] is None else tuple(json.loads(r[3])), *r[4:]
            )
            for r in self.tuples(sa.select(*columns).where(c.recipe == recipe), c.item, items)
        }

    def decisions(self, recipe: str) -> dict[int, Decision]:
        """Item -> the filter's word under this recipe."""
        c = t.decision.c
        found = self.tuples(sa.select(c.item, c.verdict, c.score, c.reason).where(c.recipe == recipe))
        return {r[0]: Decision(*r) for r in found}

    def answers(
        self, names: Collection[str] | None = None, items: Collection[int] | None = None
    ) -> dict[int, Labels]:
        """Item -> the newest answer of a person that was not taken back.

        Args:
            names: labels that exist now; an answer with another one is left out (it stays in the store).
            items: these alone; all that people answered where None.
        """
        c = t.answer.c
        query = sa.select(c.item, c.labels).where(t.standing()).order_by(c.n)
        newest = dict(self.tuples(query, c.item, items))
        kept = None if names is None else set(names)
        said = ((s, _labels(labels)) for s, labels in newest.items())
        return {s: labels for s, labels in said if kept is None or kept.issuperset(labels)}

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
        return {s: Route(s, by, _labels(labels), sure, why) for s, by, labels, sure, why in found}

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
        return {s: _labels(labels) for s, labels in found}

    def fact(self, table: sa.Table, recipe: str) -> Any | None:
        """The one row of a per-round table under this recipe, or None."""
        found = self.read(sa.select(table).where(table.c.recipe == recipe))
        return found[0] if found else None


@lru_cache(maxsize=4096)
def _labels(text: str) -> Labels:
    """Labels as they are kept; few are written a hundred thousand times over."""
    return tuple(json.loads(text))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """A full disk, a lost folder or a damaged file, told in one sentence."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        if type(error) not in (sa.exc.OperationalError, sa.exc.DatabaseError):
            raise  # a broken constraint is a bug of ours, not of the disk
        raise StoreError(
            f"the run's store failed: {error.orig}",
            where=folder.name,
            hint="Everything committed so far is kept; free space, or see `llmal doctor RUN`, then run again",
        ) from error


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


def open_store(folder: Path, *, write: bool = True) -> Store:
    """Open a run folder, creating or migrating it when writing.

    Args:
        folder: the run folder; made with mode 700.
        write: take the run's lock; without it the store is only read, also while a run goes on.

    Raises:
        StoreError: another process holds the run, a newer llmal made it, it is damaged, or it does not exist.
    """
    path = folder / "store.sqlite"
    if not write and not path.is_file():
        raise StoreError("no run here", where=str(folder), hint="Name the folder that `llmal run` printed")
    lock = None
    if write:
        _make(folder)
        lock = _take(folder)
    try:
        return Store(folder, _connect(path, write=write), lock)
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
        lock.acquire(timeout=0)
    except Timeout as error:
        try:
            who = json.loads(holder.read_text(encoding="utf-8"))
            by = f"process {who['pid']} on {who['host']}, since {who['since']}"
        except (OSError, ValueError, KeyError):
            by = "another process"
        raise StoreError(
            f"this run is in use by {by}", where=str(folder), hint="Wait for it, or stop it"
        ) from error
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder.write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8"
    )
    return lock


def _connect(path: Path, *, write: bool) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = not write or connection.get_execution_options().get("llmal_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    try:
        if write:
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
