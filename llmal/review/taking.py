"""Answers from outside become facts: only what is new, and nothing an older file says over a newer word."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.store import schema as t
from llmal.store.store import Store

TICK = 1e-3
"""Seconds: two times no further apart are one, since tools cut them to micro- or milliseconds."""

Key = tuple[int, str, str]
"""Item, person and role of an answer."""


class Before(NamedTuple):
    """What a person said last of an item, and whether it was taken back."""

    labels: str
    note: str
    at: float
    stands: bool


def keys(store: Store) -> dict[str, int]:
    """Key of every item -> its `seq`."""
    return {key: seq for seq, key in store.read(sa.select(t.item.c.seq, t.item.c.key))}


def add(
    store: Store, answers: list[dict[str, Any]], flags: Iterable[dict[str, Any]], tool: str, *, by: str
) -> tuple[int, int]:
    """Add answers and flags that are new, oldest first: of one person's on one item the newest counts.

    Args:
        store: of the run, open for writing.
        answers: columns of `answer` but `n`; `at` is None where nobody knows when it was given, and `source`
            begins with the tool's name and a colon.
        flags: `item`, `note` and `source` each. Words that flagged an item before flag it no more, so that a
            file read again flags nothing that was unflagged since.
        tool: where they are from.
        by: who flagged.

    Returns:
        How many answers are new, and how many their person has replaced since.
    """
    now = time.time()
    with store.begin() as db:  # looked at and added to at once, beside an open page
        fresh, older = _fresh(db, answers, f"{tool}:", now)
        new = store.number(t.answer, fresh, db=db)
        c = t.remark.c
        before = {(r.item, r.note) for r in db.execute(sa.select(c.item, c.note).where(c.what == "flag"))}
        more = {"person": by, "what": "flag", "answer": None, "at": now, "seconds": None}
        raised = [flag | more for flag in flags if (flag["item"], flag["note"]) not in before]
        store.number(t.remark, raised, db=db)
    return new, older


def _fresh(
    db: sa.Connection, answers: list[dict[str, Any]], tool: str, now: float
) -> tuple[list[dict[str, Any]], int]:
    """Rows that say something new, and how many their person has replaced since."""
    latest, told = _before(db, tool)
    fresh: list[dict[str, Any]] = []
    older = 0
    for a in sorted(answers, key=lambda a: now if a["at"] is None else a["at"]):
        key = a["item"], a["person"], a["role"]
        before, edited = latest.get(key), False
        if before is not None:
            same = before.labels == a["labels"] and a["note"] in ("", before.note)
            # Other words at one time are an edit in a file that tells no time of it.
            edited = a["at"] is not None and abs(a["at"] - before.at) <= TICK and not same
            late = a["at"] is not None and a["at"] <= before.at + TICK and not edited
            repeated = a["at"] is None and told.get(key) == (a["labels"], a["note"])
            if repeated or (same and (before.stands or late)):
                continue
            if late:
                older += 1
                continue
        row = {**a, "at": now if a["at"] is None or edited else a["at"]}
        latest[key] = Before(row["labels"], row["note"], row["at"], True)
        fresh.append(row)
    return fresh, older


def _before(db: sa.Connection, tool: str) -> tuple[dict[Key, Before], dict[Key, tuple[str, str]]]:
    """What everybody said last of everything, and what this tool had told of that."""
    latest: dict[Key, Before] = {}
    told: dict[Key, tuple[str, str]] = {}
    c = t.answer.c
    stands = {n for (n,) in db.execute(sa.select(c.n).where(t.standing()))}
    for a in db.execute(sa.select(t.answer).order_by(c.n)):  # newest last, so it wins
        latest[a.item, a.person, a.role] = Before(a.labels, a.note, a.at, a.n in stands)
        if str(a.source).startswith(tool):
            told[a.item, a.person, a.role] = a.labels, a.note
    return latest, told
