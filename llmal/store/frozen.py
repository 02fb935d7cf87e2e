"""People's words as they stood at one moment: what one pass of a run goes by while more of them arrive."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.store import schema as t
from llmal.store.store import Store


class Seen(NamedTuple):
    """Numbers of the newest answer and the newest remark that were there; 0 for none."""

    answer: int = 0
    remark: int = 0


NEVER = Seen()
"""Before anybody said anything."""


class News(NamedTuple):
    """What people said since a moment.

    Attributes:
        words: answers that stand and came since, and older ones that were taken back since.
        items: what those answers are about.
        upto: the newest fact there is now.
    """

    words: int
    items: frozenset[int]
    upto: Seen


def seen(store: Store) -> Seen:
    """The newest facts about people's words."""
    return Seen(*store.said())


def freeze(store: Store) -> Seen:
    """From here on this store knows no later words of people, whatever arrives, and can keep none itself.

    A pass reads them many times: to name its facts, to learn, to measure. Words that came in the middle
    would name facts that were never made. Every connection gets a view of its own in front of each of the two
    tables, so that no query has to know.

    Args:
        store: of the run, open for writing; nothing else uses it at this moment.

    Returns:
        How far it sees.
    """
    upto = seen(store)

    @sa.event.listens_for(store.engine, "connect")
    def _bound(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA temp_store=MEMORY")  # no file beside the run's for two definitions
        for table, n in zip((t.answer, t.remark), upto, strict=True):
            connection.execute(
                f"CREATE TEMP VIEW {table.name} AS SELECT * FROM main.{table.name} WHERE n <= {int(n)}"
            )

    store.engine.dispose()  # connections made before do not have the views
    return upto


def arrived(store: Store, since: Seen) -> int:
    """Answers that came since, standing or not, and earlier ones taken back; of a frozen store too."""
    query = sa.text(
        "SELECT (SELECT count(*) FROM main.answer WHERE n > :n)"
        " + (SELECT count(*) FROM main.remark WHERE n > :r AND what = 'undo' AND answer <= :n)"
    ).bindparams(n=since.answer, r=since.remark)
    with store.engine.connect().execution_options(llmal_reads=True) as db:
        return int(db.execute(query).scalar_one())


def news(store: Store, since: Seen) -> News:
    """What people said since.

    Args:
        store: of the run, not frozen.
        since: as `seen` or `freeze` told.
    """
    upto = seen(store)  # first: what is said from here on shows as more of it at the next look
    a, r = t.answer.c, t.remark.c
    fresh = store.read(sa.select(a.item).where(a.n > since.answer, t.standing()))
    gone = (r.n > since.remark, r.what == "undo", r.answer <= since.answer)
    return News(len(fresh) + store.count(t.remark, *gone), frozenset(item for (item,) in fresh), upto)
