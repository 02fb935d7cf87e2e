"""Rows appended with few statements: what many calls in flight have to write, written in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

MOST_ROWS = 64
"""Rows of one SQLite statement: times the columns far below its 32,766 values, and few texts to prepare."""


def append(db: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose key is not there yet; returns how many were new.

    All rows have the keys of the first. On SQLite many rows are one statement: a statement a row would hand
    the interpreter's lock back and forth, and a thread that commits would wait for a busy event loop each
    time.

    Args:
        db: an open transaction.
        table: where to.
        rows: column -> value.
    """
    if not rows:
        return 0
    if db.dialect.name != "sqlite":
        insert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
        return int(db.execute(insert(table).on_conflict_do_nothing(), list(rows)).rowcount)
    columns = tuple(rows[0])
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"rows of the table {table.name} with different columns")
    new, start, size = 0, 0, MOST_ROWS
    while start < len(rows):
        while size > len(rows) - start:  # powers of two: few statements, known by heart
            size //= 2
        some = rows[start : start + size]
        values = tuple([row[name] for row in some for name in columns])
        new += db.exec_driver_sql(_statement(table, columns, size), values).rowcount
        start += size
    return new


@cache
def _statement(table: sa.Table, columns: tuple[str, ...], rows: int) -> str:
    unknown = [name for name in columns if name not in table.c]
    if unknown:
        raise KeyError(f"no column {unknown[0]} in the table {table.name}")
    quote = sqlite.dialect().identifier_preparer.quote
    names = ", ".join(quote(name) for name in columns)
    one = f"({', '.join('?' * len(columns))})"
    values = ", ".join([one] * rows)
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES {values} ON CONFLICT DO NOTHING"
