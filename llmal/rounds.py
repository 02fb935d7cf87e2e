"""Which items each round of a run would ask about, worked out as the runner goes through them."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from llmal.corpus import Row, text_key
from llmal.records import Item
from llmal.select.stage import enough
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import Store


class Pass(NamedTuple):
    """One round's annotating: `seq` of items already known to be wanted, and how many more will be chosen."""

    known: frozenset[int]
    new: int


def distinct(rows: list[Row]) -> list[Item]:
    """The corpus's distinct texts, in order; `seq` is that of a run that starts with this corpus."""
    texts: dict[str, str] = {}
    for row in rows:
        if row.text is not None:
            texts.setdefault(text_key(row.text), row.text)
    return [Item(i, key, text) for i, (key, text) in enumerate(texts.items())]


def passes(pipeline: Pipeline, items: list[Item], store: Store | None) -> tuple[list[Pass], int]:
    """The rounds as the runner will go through them, and the size of the audit sample."""
    seqs = dict(store.read(sa.select(t.item.c.key, t.item.c.seq))) if store else {}
    active = {seqs[item.key] for item in items if item.key in seqs}
    held = set(store.audit()) if store else set()
    picked = set(store.picks()) if store else set()
    kept = store.reserved() if store else set()
    taken = (kept | picked | set(store.answers() if store else ())) & active
    missing = max(0, min(pipeline.audit.size, len(items) // 2) - len(held & active))
    reserved = min(missing, len(items) - len(taken))
    tested = 0 if kept else max(0, min(pipeline.audit.pool, len(items) // 2) - reserved)  # once, at the start
    pool = max(0, len(items) - len(taken) - reserved - tested)
    asked = pipeline.audit.annotate
    known = frozenset((picked | (held if asked else set())) & active)
    made, extra = [], reserved if asked else 0
    for n in range(pipeline.rounds.max):
        lacking = max(0, pipeline.rounds.size - (len(store.picks(n)) if store else 0))
        new = min(lacking, pool)
        pool -= new
        made.append(Pass(known, new + extra))
        known, extra = frozenset(), 0
        if new < lacking or (not lacking and store and enough(store, pipeline.select.then, n)):
            break
    return made, len(held & active) + reserved
