"""The last level: the pipeline's annotator, asked about a few texts at a time, each paid for once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from llmal.annotate.stage import Annotator, Desk, ask
from llmal.context import Advance, Context, Progress, Silent
from llmal.corpus import text_key
from llmal.errors import BudgetSpent, SpecError
from llmal.records import Annotation, Item, LabelSchema, batched
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import Store

CALLS = 500
"""Keys of one query: SQLite takes a bounded number of values."""


class Asked(NamedTuple):
    """A text that the model is to be asked about: its row, the row's id, the text and its vector (d,)."""

    row: int
    id: str
    text: str
    vector: NDArray[np.float32]


class Teacher:
    """The annotator with its store: asks, remembers, and stops for good when the budget ends.

    Args:
        annotator: of the pipeline.
        schema: the classes.
        store: of the stream.
        ctx: with the encoder.
        caps: what may be spent in all.
        vectors: recipe of the encoder's vectors.
        corpus: number of the store's snapshot that holds the rows asked about.

    Attributes:
        spent: why nothing is asked any more; empty while it is.

    Raises:
        SpecError: the classes are not single, or the annotator looks at the corpus as a whole.
    """

    def __init__(
        self, annotator: Annotator, schema: LabelSchema, store: Store, ctx: Context, caps: Caps, *,
        vectors: str, corpus: int, spent: str = "",
    ) -> None:  # fmt: skip
        refuse_unable(annotator, schema)
        self.annotator, self.schema, self.store, self.ctx, self.caps = annotator, schema, store, ctx, caps
        self.corpus, self.spent, self._vectors = corpus, spent, vectors
        self.recipe = annotator.recipe_for(schema, ctx, vectors)

    def known(self, keys: Sequence[str], before: int) -> dict[str, Annotation]:
        """Key of a text -> its answer, for texts asked about in rows before this one, or in earlier streams.

        An answer that a killed job got for a later row is not known yet: else the rows would come out other.
        """
        r, i = t.row.c, t.item.c
        found: dict[str, Annotation] = {}
        for some in batched(keys, CALLS):
            earlier = sa.or_(r.corpus < self.corpus, sa.and_(r.corpus == self.corpus, r.position < before))
            seen = (
                sa.select(i.key, i.seq)
                .join(t.row, r.item == i.seq)
                .where(i.key.in_(some), earlier)
                .distinct()
            )
            seqs = {key: seq for key, seq in self.store.read(seen)}
            said = self._said(list(seqs.values()))
            found |= {key: said[seq] for key, seq in seqs.items() if seq in said}
        return {key: one for key, one in found.items() if one.status != "failed"}

    def ask(self, texts: Sequence[Asked]) -> list[Annotation | None]:
        """The answers, None where the budget ended first.

        Raises:
            ModelError, Interrupted: from the transport; everything answered before is kept.
        """
        if not texts:
            return []
        seqs = self._enter(texts)
        have = self._said(seqs)
        missing = [seq for seq in dict.fromkeys(seqs) if seq not in have]
        if missing and not self.spent:
            vectors = {seq: one.vector for seq, one in zip(seqs, texts, strict=True)}
            desk = StreamDesk(
                self.ctx, self.store, self.caps, self.recipe, self._vectors, _nothing, vectors_of=vectors
            )
            try:
                ask(self.annotator, missing, self.schema, desk)
            except BudgetSpent as error:
                self.spent = error.message
            have = self._said(seqs)
        return [have.get(seq) for seq in seqs]

    def _enter(self, texts: Sequence[Asked]) -> list[int]:
        """Rows and items of the store for these texts; the same ones when a killed job enters them again."""
        keys = [text_key(one.text) for one in texts]
        i = t.item.c
        seqs = dict(self.store.read(sa.select(i.key, i.seq).where(i.key.in_(keys))))
        n = self.store.n_items()
        items: list[dict[str, object]] = []
        for key, one in zip(keys, texts, strict=True):
            if key not in seqs:
                seqs[key] = n + len(items)
                items.append({"seq": seqs[key], "key": key, "text": one.text, "flags": "[]"})
        rows = [
            {"corpus": self.corpus, "position": one.row, "id": one.id, "item": seqs[key], "gold": None,
             "skipped": ""}
            for key, one in zip(keys, texts, strict=True)
        ]  # fmt: skip
        with self.store.begin() as db:
            self.store.add(t.item, items, db=db)
            self.store.add(t.row, rows, db=db)
        return [seqs[key] for key in keys]

    def _said(self, seqs: Sequence[int]) -> dict[int, Annotation]:
        c = t.annotation.c
        columns = (c.item, c.status, c.labels, c.probs, c.confidence, c.kind, c.detail, c.request)
        found = {}
        for some in batched(seqs, CALLS):
            where = (c.recipe == self.recipe, c.item.in_(some))
            for r in self.store.read(sa.select(*columns).where(*where)):
                found[r[0]] = Annotation(r[0], r[1], tuple(json.loads(r[2])), None, *r[4:])
        return found


def refuse_unable(annotator: Annotator, schema: LabelSchema) -> None:
    """Raise where a stream cannot be labelled with these classes or this annotator.

    Raises:
        SpecError: several labels a text, or an annotator that looks at a whole corpus or waits a day.
    """
    if schema.kind != "single":
        raise SpecError(["labels.kind: a stream is labelled with one label a text; use kind: single"])
    if annotator.members():
        raise SpecError(
            [
                f"annotate: '{annotator.name}' looks at a whole corpus, which a stream is not; "
                "name one of its members"
            ]
        )
    if getattr(annotator, "batch_api", False):
        raise SpecError(["annotate.batch_api: a stream cannot wait for a batch; leave it out"])


def new_corpus(store: Store, name: str) -> int:
    """Begin a snapshot in the store for the rows of one stream; its number."""
    n = store.newest_corpus() + 1
    store.add(t.corpus, [{"n": n, "recipe": name, "digest": "", "at": time.time()}])
    return n


@dataclass(frozen=True)
class StreamDesk(Desk):
    """A desk whose vectors lie at hand: those of a stream are kept by nobody."""

    vectors_of: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def vectors(self, items: list[Item]) -> NDArray[np.float32]:
        """The items' vectors: (len(items), d) float32, unit rows."""
        none = np.zeros((0, len(next(iter(self.vectors_of.values()), ()))), np.float32)
        return np.stack([self.vectors_of[item.seq] for item in items]) if items else none


class Once:
    """Progress that shows no line twice: what an annotator says, it says of every few texts.

    Args:
        inner: where lines are shown.
    """

    def __init__(self, inner: Progress) -> None:
        self._inner, self._said = inner, set[str]()

    def say(self, text: str) -> None:
        """Show a line that is new."""
        if text not in self._said and len(self._said) < CALLS:
            self._said.add(text)
            self._inner.say(text)

    def task(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """No bar: the stream has one."""
        return Silent().task(title, total)


def _nothing(n: int = 1, *, note: str = "") -> None:
    """Answers are counted by row, not by call."""
