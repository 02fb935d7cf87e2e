"""A run's tables, whatever they hold: append in one transaction, read without waiting, note a value once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock

from llmal.errors import StoreError
from llmal.records import Labels, batched
from llmal.store import schema as t
from llmal.store.insert import append

BATCH = 1000
"""Rows per statement: SQLite gains little beyond this, and memory stays flat."""


class Tables:
    """One run folder, open for reading and, with the lock held, for writing.

    Every write is one transaction; `added` counts the facts this process appended.
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

    def fact(self, table: sa.Table, recipe: str) -> Any | None:
        """The one row of a per-round table under this recipe, or None."""
        found = self.read(sa.select(table).where(table.c.recipe == recipe))
        return found[0] if found else None


@lru_cache(maxsize=4096)
def labels_of(text: str) -> Labels:
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
