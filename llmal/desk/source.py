"""What the desk reads of a run: what waits, what people said of it, and whether that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from llmal.records import Word
from llmal.review.stage import Waiting, by_machine
from llmal.store import schema as t
from llmal.store.store import Store

NEWS = (t.corpus, t.route, t.pick, t.shortlist, t.draw)
"""Tables that grow with what waits: their last row tells whether they did."""

COUNTED = (t.audit, t.doubt)
"""Short tables whose rows come in any order."""


class Stamp(NamedTuple):
    """How far a run is: while this is the same, so is what waits.

    Attributes:
        run: of what a run writes.
        answer, remark: numbers of the newest of each.
    """

    run: tuple[int, ...]
    answer: int
    remark: int

    def after(self, *, answer: int | None = None, remark: int | None = None) -> Stamp:
        """As it is once we appended these numbers: not as new as the run where others did before us."""
        return self._replace(
            answer=self.answer + (answer == self.answer + 1),
            remark=self.remark + (remark == self.remark + 1),
        )


class Look(NamedTuple):
    """What there is at one moment.

    Attributes:
        stamp: read before the rest.
        waiting: what waits, in order.
        people: item -> those whose word stands.
        torn: item that people differ on, and nobody settled -> their words.
        mine: person -> words.
        flagged: item -> why.
        left: words that may still be given, None for no limit.
    """

    stamp: Stamp
    waiting: list[Waiting]
    people: dict[int, tuple[str, ...]]
    torn: dict[int, list[Word]]
    mine: Counter[str]
    flagged: dict[int, str]
    left: int | None


class Source:
    """Reads a run for the desk; may be used from several threads.

    Args:
        store: of the run.
        names: of the labels that exist now; words with others count for nothing.
        waiting: what waits for a person now, in order.
        budget: words people may give in all, None for no limit.
    """

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        waiting: Callable[[], list[Waiting]],
        budget: int | None = None,
    ) -> None:
        self.store, self.names = store, tuple(names)
        self._waiting, self._budget = waiting, budget

    def stamp(self) -> Stamp:
        """How far the run is: a few look-ups, however long it is."""
        row: sa.ColumnElement[int] = sa.literal_column("rowid")
        parts = [sa.select(sa.func.coalesce(sa.func.max(row), 0)).select_from(table) for table in NEWS]
        parts += [sa.select(sa.func.count()).select_from(table) for table in COUNTED]
        found = self.store.read(sa.select(*(part.scalar_subquery() for part in parts)))[0]
        return Stamp(tuple(map(int, found)), *self.store.said())

    def look(self) -> Look:
        """Everything anew."""
        stamp = self.stamp()
        words = self.store.words(self.names)
        by_item: dict[int, list[Word]] = {}
        for word in words:
            by_item.setdefault(word.item, []).append(word)
        mine = Counter(word.person for word in words if not word.adjudicates)
        people = {item: speakers(said) for item, said in by_item.items()}
        torn = {item: said for item, said in by_item.items() if len(said) > 1 and differ(said)}
        left = None
        if self._budget is not None:
            left = max(0, self._budget - self.store.n_words(self.names))
        return Look(stamp, self._waiting(), people, torn, mine, self.store.flagged(), left)

    def words(self, item: int) -> list[Word]:
        """What people say of one item."""
        return self.store.words(self.names, [item])

    def again(self, items: Collection[int]) -> list[Waiting]:
        """Items of the corpus that were answered, as they are shown to one person more."""
        active, measures = self.store.active(items), self.store.reserved()
        c = t.route.c
        newest = self.store.read(sa.select(c.recipe).order_by(sa.literal_column("rowid").desc()).limit(1))
        routes = self.store.routes(newest[0][0], active) if newest else {}
        found = []
        for item in active:
            if item in measures:
                found.append(Waiting(item, "audit"))
            elif (r := by_machine(routes.get(item))) is not None:
                found.append(Waiting(item, r.reason, r.labels, r.confidence))
            else:
                found.append(Waiting(item, "a person answers it"))
        return found


def speakers(words: Sequence[Word]) -> tuple[str, ...]:
    """People whose word on the item stands; who only settled its dispute is none of them."""
    return tuple(word.person for word in words if not word.adjudicates)


def differ(words: Sequence[Word]) -> bool:
    """Whether people differ on an item, and nobody settled it."""
    if any(word.adjudicates for word in words):
        return False
    return len({frozenset(word.labels) for word in words}) > 1
