"""What people did on the page, as facts of the run: appended in one transaction each, never twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.desk.said import Said
from llmal.records import Labels
from llmal.store import schema as t
from llmal.store.store import Store

MOST_UNDO = 50
"""Answers of earlier starts that can be taken back from the page."""

MOST_SECONDS = 3600.0
"""Seconds above which nobody was reading the text: kept as this."""

PUT_OFF = ("skip", "unsure")
"""Remarks after which an item still waits, later or for others."""


class Given(NamedTuple):
    """An answer that stands: its number, and whether it settled a dispute."""

    n: int
    adjudicates: bool


class Facts:
    """Answers and remarks from one version of the page. What a method has returned from is on disk.

    Args:
        store: of the run, open for writing; others may write beside.
        page: version of the page, kept with every fact.
    """

    def __init__(self, store: Store, page: str) -> None:
        self._store, self._page = store, page

    def known(self, person: str, said: Said) -> bool:
        """Whether this very deed of this person is kept already."""
        kept = (
            sa.select(table.c.n)
            .where(table.c.item == said.item, table.c.person == person, _from_page(table, said.id))
            .exists()
            for table in (t.answer, t.remark)
        )
        return bool(self._store.read(sa.select(sa.or_(*kept)))[0][0])

    def answer(
        self, person: str, said: Said, labels: list[str], *, shown: Labels, saw: Labels | None, role: str
    ) -> int:
        """Keep an answer; returns its number.

        Args:
            person: who gave it.
            said: the deed.
            labels: in the order of the schema.
            shown: the short list that was in sight, empty for the full list.
            saw: the machine's labels that were in sight, None where they were not.
            role: `label`, or `adjudicate` where it settles a dispute.
        """
        return self._append(t.answer, person, said, {
            "labels": json.dumps(labels), "line": 0, "shown": json.dumps(list(shown)) if shown else None,
            "saw": None if saw is None else json.dumps(list(saw)), "role": role,
        })  # fmt: skip

    def remark(self, person: str, said: Said, answer: int | None = None) -> int:
        """Keep what is no label; of an undo, the number of the answer taken back. Returns its number."""
        return self._append(t.remark, person, said, {"what": said.what, "answer": answer})

    def _append(self, table: sa.Table, person: str, said: Said, more: dict[str, Any]) -> int:
        seconds = None if said.seconds is None else round(min(said.seconds, MOST_SECONDS), 2)
        row = {
            "item": said.item,
            "person": person,
            "note": said.note,
            "source": f"{self._page}:{said.id}",
            "at": time.time(),
            "seconds": seconds,
            **more,
        }
        with self._store.begin() as db:
            self._store.number(table, [row], db=db)
            return self._store.newest(table, db)

    def given(self, person: str, item: int, name: str) -> Given | None:
        """This person's answer from the deed of that id; None where there is none or it was taken back."""
        a = t.answer.c
        where = (a.item == item, a.person == person, _from_page(t.answer, name), t.standing())
        found = self._store.read(sa.select(a.n, a.role).where(*where)) if name else []
        return Given(found[0][0], found[0][1] == t.ADJUDICATE) if found else None

    def answered(self, person: str, item: int) -> bool:
        """Whether this person ever answered it, taken back or not."""
        a = t.answer.c
        return bool(self._store.count(t.answer, a.item == item, a.person == person))

    def flagged(self, person: str, item: int) -> bool:
        """Whether this person flagged it."""
        r = t.remark.c
        return bool(self._store.count(t.remark, r.item == item, r.person == person, r.what == "flag"))

    def was_put_off(self, person: str, item: int, name: str) -> bool:
        """Whether the deed of that id was this person's skip or doubt."""
        r = t.remark.c
        where = (r.item == item, r.person == person, _from_page(t.remark, name), r.what.in_(PUT_OFF))
        return bool(name and self._store.count(t.remark, *where))

    def put_off(self, people: Sequence[str]) -> dict[str, list[int]]:
        """Person -> items skipped or not sure of at earlier starts, less what was taken back since."""
        c = t.remark.c
        query = sa.select(c.person, c.item, c.what).where(c.what.in_((*PUT_OFF, "undo"))).order_by(c.n)
        newest = {(person, item): what for person, item, what in self._store.tuples(query)}
        found: dict[str, list[int]] = {person: [] for person in people}
        for (person, item), what in newest.items():
            if what != "undo" and person in found:
                found[person].append(item)
        return found

    def last(self, person: str) -> list[dict[str, Any]]:
        """The newest answers this person gave on a page and did not take back, oldest first."""
        c = t.answer.c
        where = (c.person == person, c.source.like("page-%"), c.role != t.ADJUDICATE, t.standing())
        query = sa.select(c.item, c.source).where(*where).order_by(c.n.desc()).limit(MOST_UNDO)
        found = self._store.read(query)
        return [{"item": item, "id": source.rpartition(":")[2]} for item, source in reversed(found)]


def _from_page(table: sa.Table, name: str) -> sa.ColumnElement[bool]:
    """Deeds with this id, whichever version of the page they came from."""
    return table.c.source.like(f"page-%:{name}")
