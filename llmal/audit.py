"""The audit sample: what people answered of it, and which texts of the corpus came too late to enter it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import sqlalchemy as sa

from llmal.records import Labels, LabelSchema
from llmal.store import schema as t
from llmal.store.store import Store


def known_answers(store: Store, schema: LabelSchema, *, since: float = 0.0) -> dict[int, Labels]:
    """Audit item -> people's answer: the newest one given, else the gold of the corpus.

    Args:
        store: of the run.
        schema: the classes; an answer with a label that is gone is left out.
        since: leave out items that were reserved before this time.
    """
    audit = store.active(store.audit(since))
    gold, answers = store.gold(audit), store.answers(schema.names, audit)
    return {s: answers.get(s, gold.get(s, ())) for s in audit if s in answers or s in gold}


def shuffled(items: Iterable[int]) -> list[int]:
    """The items in an order that has nothing to do with the corpus, the same each time.

    People answer from the top: whatever part of the sample they get through is a random one too, where the
    corpus's own order may follow dates or classes.
    """
    return sorted(items, key=lambda s: hashlib.blake2b(b"audit %d" % s, digest_size=8).digest())


def counts_since(store: Store) -> float:
    """Time from which a reservation counts for a certificate: 0 unless one was withdrawn.

    The texts because of which it was withdrawn had no chance to enter the sample as it was then. What was
    reserved after they came was drawn from among them too.
    """
    last = store.read(sa.select(sa.func.max(t.withdrawal.c.at)))[0][0]
    if last is None:
        return 0.0
    c = t.corpus.c
    return float(store.read(sa.select(sa.func.max(c.at)).where(c.at <= last))[0][0] or 0.0)


def last_with_a_chance(store: Store, since: float = 0.0) -> int:
    """The highest `seq` that could enter the audit sample when its first item was drawn; -1 without one.

    Items are numbered in order of first appearance, so every active item above it came later.
    """
    first = store.read(sa.select(sa.func.min(t.audit.c.at)).where(t.audit.c.at >= since))[0][0]
    if first is None:
        return -1
    old = sa.select(t.corpus.c.n).where(t.corpus.c.at <= first)
    found = store.read(sa.select(sa.func.max(t.row.c.item)).where(t.row.c.corpus.in_(old)))[0][0]
    return -1 if found is None else int(found)
