"""Facts about written texts: what was written, what came of it, which items measure and which may be shown.

A written text is an item of no corpus: it stands in the table of items, flagged `synthetic`, and in no row
of any snapshot. So every annotator answers about it, by the same ledger and under the same fences, and an
encoder gives it a vector, as they do for any text, while whatever starts from the corpus (choosing, audit,
routes, review, labels, measures) never meets it. Its annotations stand under a recipe of their own, so that
no filter and no training set takes them for answers about the corpus. A snapshot that holds the same text
later makes it an item like any other; it no longer counts as written then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa

from llmal.corpus import text_key
from llmal.generate.guard import Measuring, pieces_of
from llmal.generate.weakness import ClassScore
from llmal.records import Labels, batched
from llmal.store import schema as t
from llmal.store.store import BATCH, Store

SYNTHETIC = '["synthetic"]'
"""Flags of a text that a model wrote; the store's index knows this very spelling."""


class Names(NamedTuple):
    """Recipes of the facts: the texts written, the losses measured with them, the items' vectors."""

    texts: str
    measures: str
    vectors: str


class Known(NamedTuple):
    """The labelled items, each with its labels, and which of them measure."""

    items: list[int]
    labels: list[Labels]
    measures: frozenset[int]

    @property
    def learn(self) -> tuple[list[int], list[Labels]]:
        """Items a student of the loop learns from, and their labels; the only ones that are shown."""
        return self._part(inside=False)

    @property
    def validate(self) -> tuple[list[int], list[Labels]]:
        """Items such a student is measured on, and their labels; never shown."""
        return self._part(inside=True)

    def _part(self, *, inside: bool) -> tuple[list[int], list[Labels]]:
        rows = [i for i, s in enumerate(self.items) if (s in self.measures) == inside]
        return [self.items[i] for i in rows], [self.labels[i] for i in rows]


class Text(NamedTuple):
    """A written text: its loop and place there, its item unless refused unread, what it was written for."""

    loop: int
    rank: int
    item: int | None
    text: str
    labels: Labels
    verdict: Literal["", "accept", "drop"] = ""
    reason: str = ""


class Measured(NamedTuple):
    """A student after a loop: its loss and report on the items that measure, and how many rows taught it."""

    loop: int
    loss: float
    n_items: int
    report: list[ClassScore]


# --- parts ------------------------------------------------------------------------------------------------


def parts(store: Store) -> frozenset[int]:
    """Items that measure."""
    where = t.part.c.part == "validate"
    return frozenset(s for (s,) in store.read(sa.select(t.part.c.item).where(where)))


def deal(store: Store, items: Sequence[int], labels: Sequence[Labels], *, share: float, seed: int) -> None:
    """Give each item that has no part one, its share of every kind of label; a part once given stays.

    What was shown to a generator once must never measure, and the other way round.
    """
    have = dict(store.read(sa.select(t.part.c.item, t.part.c.part)))
    keys = {item.seq: item.key for item in store.items([s for s in items if s not in have])}
    kinds: dict[Labels, list[int]] = {}
    for s, said in zip(items, labels, strict=True):
        kinds.setdefault(said, []).append(s)
    rows = []
    for kind in sorted(kinds):
        wanted = int(share * len(kinds[kind]) + 0.5) - sum(have.get(s) == "validate" for s in kinds[kind])
        fresh = sorted((s for s in kinds[kind] if s not in have), key=lambda s: _order(seed, keys[s]))
        for place, s in enumerate(fresh):
            part = "validate" if place < wanted else "learn"
            rows.append({"item": s, "part": part, "at": time.time()})
    store.add(t.part, rows)


def _order(seed: int, key: str) -> str:
    return hashlib.sha256(f"part {seed} {key}".encode()).hexdigest()


def measuring(store: Store, vectors: str, known: Known) -> Measuring:
    """The audit sample and the items that measure, as written texts are held against them."""
    seqs = sorted({*store.reserved(), *known.measures})
    rows = np.asarray(store.load(vectors)[seqs])
    return Measuring(rows, [pieces_of(item.text) for item in store.items(seqs)])


# --- texts ------------------------------------------------------------------------------------------------


def written(store: Store, name: str, loop: int | None = None) -> list[Text]:
    """Texts written under a recipe, or in one loop of it, in the order written."""
    c = t.synthetic.c
    where = [c.recipe == name] + ([] if loop is None else [c.loop == loop])
    columns = (c.loop, c.rank, c.item, c.text, c.labels, c.verdict, c.reason)
    found = store.read(sa.select(*columns).where(*where).order_by(c.loop, c.rank))
    return [
        Text(r.loop, r.rank, r.item, r.text, tuple(json.loads(r.labels)), r.verdict, r.reason) for r in found
    ]


def keep_written(store: Store, name: str, texts: Iterable[Text]) -> int:
    """Append the texts of a loop, all in one transaction."""
    now = time.time()
    rows = [{"recipe": name, **one._asdict(), "labels": json.dumps(one.labels), "at": now} for one in texts]
    with store.begin() as db:
        return store.add(t.synthetic, rows, db=db)


def strangers(store: Store, name: str) -> set[int]:
    """Items of no corpus that stand under this recipe nowhere: another recipe's, or a broken-off loop's.

    They are no reason to refuse a text: written again under this recipe, it is the same item.
    """
    hidden = store.hidden()
    c = t.synthetic.c
    own = {s for (s,) in store.read(sa.select(c.item).where(c.recipe == name))} if hidden else set()
    return hidden - own


def keys_there(store: Store, texts: Sequence[str], besides: set[int]) -> list[bool]:
    """Which texts are items already, the ones named aside, whatever their case and blanks."""
    found = _seqs(store, [text_key(text) for text in texts])
    return [text_key(text) in found and found[text_key(text)] not in besides for text in texts]


def same(one: str, other: str) -> bool:
    """Whether two texts differ in case and blanks at most."""
    return text_key(one) == text_key(other)


def add_items(store: Store, texts: Sequence[str]) -> list[int]:
    """Items of the texts, in order, made where they are not there."""
    keys = [text_key(text) for text in texts]
    found = _seqs(store, keys)
    n = store.n_items()
    rows: list[dict[str, Any]] = []
    for key, text in zip(keys, texts, strict=True):
        if key not in found:
            found[key] = n + len(rows)
            rows.append({"seq": found[key], "key": key, "text": text, "flags": SYNTHETIC})
    store.add(t.item, rows)
    return [found[key] for key in keys]


def _seqs(store: Store, keys: Sequence[str]) -> dict[str, int]:
    c = t.item.c
    found: dict[str, int] = {}
    for some in batched(keys, BATCH):
        found |= dict(store.read(sa.select(c.key, c.seq).where(c.key.in_(some))))
    return found


# --- measures ---------------------------------------------------------------------------------------------


def measured(store: Store, name: str) -> list[Measured]:
    """What students were worth after each loop, in order."""
    c = t.generation.c
    found = store.read(
        sa.select(c.loop, c.loss, c.n_items, c.report).where(c.recipe == name).order_by(c.loop)
    )
    return [
        Measured(r.loop, r.loss, r.n_items, [ClassScore(**line) for line in json.loads(r.report)])
        for r in found
    ]


def keep_measured(store: Store, name: str, made: Measured) -> None:
    """Append what a student is worth."""
    lines = json.dumps([line._asdict() for line in made.report])
    row = {"recipe": name, **made._asdict(), "report": lines, "at": time.time()}
    store.add(t.generation, [row])
