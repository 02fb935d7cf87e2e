"""What strategies may look up in a run's store: texts, what label names say, everybody's votes, a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from llmal.context import Context
from llmal.errors import UserError
from llmal.prototypes import anchors, zero_shot
from llmal.records import LabelSchema
from llmal.select.stage import Sources
from llmal.store import schema as t
from llmal.store.store import Store

if TYPE_CHECKING:
    from llmal.lm.asker import Asker
    from llmal.lm.wire import Message
    from llmal.store.ledger import Caps

BLOCK = 65_536
"""Rows compared with the label names at once: 100 MB of vectors at 384 numbers each."""


class StoreSources(Sources):
    """Looks everything up in a store; reads nothing before it is asked.

    Args:
        store: of the run.
        ctx: its encoder turns label names into vectors.
        schema: the classes.
        vectors: (n, d) of all items.
        labelled: (l,) rows whose votes count.
        caps: what the run may spend in all; None lets nobody ask a model.
    """

    def __init__(
        self,
        store: Store,
        ctx: Context,
        schema: LabelSchema,
        vectors: NDArray[np.float32],
        labelled: NDArray[np.int64],
        caps: Caps | None = None,
    ) -> None:
        self._store, self._ctx, self._schema = store, ctx, schema
        self._vectors, self._labelled, self._caps = vectors, labelled, caps

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts of rows."""
        return [item.text for item in self._store.items([int(row) for row in rows])]

    def prior(self) -> NDArray[np.float32]:
        """(n, C) zero-shot probabilities from the label names and descriptions."""
        names = anchors(self._schema, self._ctx.encode)
        out = np.empty((len(self._vectors), len(names)), np.float32)
        for at in range(0, len(out), BLOCK):
            some = np.asarray(self._vectors[at : at + BLOCK])
            out[at : at + BLOCK] = zero_shot(some, names, self._schema)
        return out

    def votes(self) -> NDArray[np.int64]:
        """(l, m) classes: one column for each recipe of annotations, then one for each person.

        Answers with another number of labels than one, or with a label that no longer exists, are no votes.
        """
        place = {int(row): i for i, row in enumerate(self._labelled)}
        a, p = t.annotation.c, t.answer.c
        own = (a.status == "ok", a.kind != "votes")  # a panel's answer is made of votes and is none
        machines = sa.select(a.item, a.recipe, a.labels).where(*own).order_by(a.recipe)
        words = (t.standing(), p.role != t.ADJUDICATE)  # who settles a dispute has seen the votes
        people = sa.select(p.item, p.person, p.labels).where(*words).order_by(p.n)
        said = [*((s, "machine " + by, labels) for s, by, labels in self._store.read(machines))]
        said += [*((s, "person " + by, labels) for s, by, labels in self._store.read(people))]
        voters = {name: i for i, name in enumerate(dict.fromkeys(by for _, by, _ in said))}
        out = np.full((len(place), len(voters)), -1, np.int64)
        columns = self._schema.columns()
        for seq, by, text in said:
            labels = json.loads(text)
            if seq in place and len(labels) == 1 and labels[0] in columns:
                out[place[seq], voters[by]] = columns[labels[0]]
        return out

    def checked(self) -> tuple[int, int]:
        """Answers of all annotators on items that people answered too, and how many of these are wrong."""
        a, known = t.annotation.c, self._store.answers(self._schema.names)
        found = self._store.read(sa.select(a.item, a.labels).where(a.status == "ok", a.kind != "votes"))
        right = [set(json.loads(labels)) == set(known[s]) for s, labels in found if s in known]
        return len(right), right.count(False)

    def secret(self) -> bytes:
        """The run's key for fences."""
        return self._store.secret()

    def ask(self, asker: Asker, questions: Sequence[Sequence[Message]]) -> list[str | None]:
        """Answers through the run's ledger: never past a cap, and none is paid for twice.

        Raises:
            UserError: there is no budget to ask on.
            BudgetSpent, ModelError, Interrupted: from the transport; what was answered before is kept.
        """
        from llmal.lm.asker import ask

        if self._caps is None:
            raise UserError(
                "this strategy asks a language model, and no budget was handed over", where="select"
            )
        return ask(asker, questions, purpose="select", store=self._store, ctx=self._ctx, caps=self._caps)
