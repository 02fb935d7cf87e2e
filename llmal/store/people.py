"""What people said in a run: each one's words, what they hold together, what they flagged, doubted labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from llmal.records import Labels, Word
from llmal.store import schema as t
from llmal.store.base import Tables, labels_of
from llmal.store.dispute import settled


class PeopleFacts(Tables):
    """The part of a store that is about people's words. All of it is appended; views say what stands."""

    _torn: tuple[int, set[int]] = (0, set())
    """Number of the newest answer, and the items that several people had answered by then."""

    _held: tuple[Any, list[Word], dict[int, Labels | None]] = (None, [], {})
    """What had been said when several people's words were weighed, these words, and what is held by them."""

    def answers(
        self, names: Collection[str] | None = None, items: Collection[int] | None = None
    ) -> dict[int, Labels]:
        """Item -> the labels that people hold together, less words that were taken back.

        One person's word is the newest that person gave. Where people differ, the word that settles the
        dispute counts; without one, `llmal.store.dispute.settled` weighs all words of the run.

        Args:
            names: labels that exist now; an answer with another one is left out (it stays in the store).
            items: these alone; all that people answered where None.
        """
        c = t.answer.c
        query = sa.select(c.item, c.labels).where(t.standing()).order_by(c.n)
        newest = dict(self.tuples(query, c.item, items))
        kept = None if names is None else set(names)
        said = ((s, labels_of(labels)) for s, labels in newest.items())
        found = {s: labels for s, labels in said if kept is None or kept.issuperset(labels)}
        for s, labels in self._together(kept).items():
            if s in newest:
                if labels is None:
                    found.pop(s, None)
                else:
                    found[s] = labels
        return found

    def words(self, names: Collection[str] | None = None, items: Collection[int] | None = None) -> list[Word]:
        """Each person's newest word on each item, and the newest that settles its dispute, as they were said.

        Args:
            names: labels that exist now; a word with another one is left out (it stays in the store).
            items: these alone; all where None.
        """
        c = t.answer.c
        columns = (c.item, c.person, c.labels, c.note, c.seconds, c.at, c.role)
        newest: dict[tuple[int, str | None], Any] = {}
        for row in self.tuples(sa.select(*columns).where(t.standing()).order_by(c.n), c.item, items):
            key = row[0], None if row[6] == t.ADJUDICATE else row[1]
            newest.pop(key, None)  # so that it stands last
            newest[key] = row
        kept = None if names is None else set(names)
        found = []
        for item, person, text, note, seconds, at, role in newest.values():
            labels = labels_of(text)
            if kept is None or kept.issuperset(labels):
                found.append(Word(item, person, labels, note, seconds, at, role == t.ADJUDICATE))
        return found

    def n_words(self, names: Collection[str] | None = None) -> int:
        """How many words stand, one for each item and person; what `budget.people` counts."""
        c = t.answer.c
        rows = self.tuples(sa.select(c.item, c.person, c.labels).where(t.standing()).order_by(c.n))
        newest = {(item, person): labels for item, person, labels in rows}
        if names is None:
            return len(newest)
        kept = set(names)
        return sum(kept.issuperset(labels_of(labels)) for labels in newest.values())

    def flagged(self) -> dict[int, str]:
        """Item -> why somebody flagged it; gone once anybody took the flag away."""
        c = t.remark.c
        query = sa.select(c.item, c.what, c.note).where(c.what.in_(("flag", "unflag"))).order_by(c.n)
        newest = {item: (what, note) for item, what, note in self.tuples(query)}
        return {item: note for item, (what, note) in newest.items() if what == "flag"}

    def put_off(self, items: Collection[int] | None = None) -> dict[int, str]:
        """Item -> `unsure` where the newest remark of anybody is that, else `skip`; an undo ends both.

        Args:
            items: these alone; all where None. They may have been answered since.
        """
        c = t.remark.c
        query = sa.select(c.item, c.person, c.what).where(c.what.in_(("skip", "unsure", "undo")))
        said = {
            (item, person): what for item, person, what in self.tuples(query.order_by(c.n), c.item, items)
        }
        found: dict[int, str] = {}
        for (item, _), what in said.items():
            if what != "undo" and found.get(item) != "unsure":
                found[item] = what
        return found

    def doubts(self) -> dict[int, str]:
        """Item -> why a person should look at it again; gone once a person has answered since."""
        c, answer = t.doubt.c, t.answer.c
        since = sa.exists().where(answer.item == c.item, answer.at > c.at, t.standing())
        return dict(self.read(sa.select(c.item, c.reason).where(~since).order_by(c.at, c.item)))

    def number(
        self, table: sa.Table, rows: Iterable[Mapping[str, Any]], *, db: sa.Connection | None = None
    ) -> int:
        """Append answers or remarks, numbered from the newest on; returns how many were new.

        The number is read and taken in one transaction, so that several pages, imports and runs may write
        side by side and none takes another's.

        Args:
            table: `answer` or `remark`.
            rows: without `n`; all with the same keys.
            db: an open transaction; one of its own where None.
        """
        if db is None:
            with self.begin() as own:
                return self.number(table, rows, db=own)
        last = self.newest(table, db)
        return self.add(table, [{"n": last + i, **row} for i, row in enumerate(rows, 1)], db=db)

    def newest(self, table: sa.Table, db: sa.Connection) -> int:
        """Number of the newest answer or remark as this transaction sees it; 0 for none."""
        return int(db.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.n), 0))).scalar_one())

    def said(self) -> tuple[int, int]:
        """Numbers of the newest answer and remark: while these are the same, so is all that people said."""
        newest = (sa.select(sa.func.coalesce(sa.func.max(table.c.n), 0)) for table in (t.answer, t.remark))
        answer, remark = (int(self.read(query)[0][0]) for query in newest)
        return answer, remark

    def shared(self) -> set[int]:
        """Items that several people ever answered, or whose dispute somebody settled."""
        return self._of_several(self.said()[0])

    def _together(self, names: set[str] | None) -> dict[int, Labels | None]:
        """Item that several people answered, or one settled -> what is held; None where no word counts."""
        said = self.said()
        items = self._of_several(said[0])
        if not items:
            return {}
        key = (said, None if names is None else frozenset(names))
        before, weighed, held = self._held
        if before != key:
            words = self.words(names, items)
            if weighed != words:  # most new words are on items of one person, and weighing takes long
                made = settled(words)
                held = {s: made.get(s) for s in items}
            self._held = key, words, held
        return held

    def _of_several(self, newest: int) -> set[int]:
        """`shared`, kept while there is no newer answer: a run of one person pays next to nothing."""
        upto, items = self._torn
        if upto != newest:
            c = t.answer.c
            first = sa.select(c.person).limit(1).scalar_subquery()
            several = self.read(sa.select(sa.exists().where(c.person != first)))[0][0]
            shared = sa.select(c.item).group_by(c.item).having(sa.func.min(c.person) != sa.func.max(c.person))
            closed = sa.select(c.item).where(c.role == sa.literal_column(f"'{t.ADJUDICATE}'"))
            items = {
                s for query in ((shared, closed) if several else (closed,)) for (s,) in self.tuples(query)
            }
            self._torn = newest, items
        return items
