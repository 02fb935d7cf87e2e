"""The select stage: the protocol of a query strategy, its pool, and the picks it leaves."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import label_table
from llmal.context import Context
from llmal.errors import UserError
from llmal.plugins import Plugin
from llmal.records import Labels, LabelSchema, Tally
from llmal.store import schema as t
from llmal.store.store import Store

if TYPE_CHECKING:
    from llmal.lm.asker import Asker
    from llmal.lm.wire import Message
    from llmal.store.ledger import Caps


class Sources(ABC):
    """What a strategy may look up beyond the pool's arrays; read only when asked for, and never gold."""

    @abstractmethod
    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts of rows."""

    @abstractmethod
    def prior(self) -> NDArray[np.float32]:
        """(n, C) what the label names alone say of every row: zero-shot probabilities, not calibrated."""

    @abstractmethod
    def votes(self) -> NDArray[np.int64]:
        """(l, m) the class each of m annotators, machines and people, gave the labelled rows; -1 is none."""

    def checked(self) -> tuple[int, int]:
        """Annotators' answers that people answered too, and how many of these the people contradict."""
        return 0, 0

    @abstractmethod
    def secret(self) -> bytes:
        """The run's key for fences around texts: none can guess it, and it stays the same."""

    @abstractmethod
    def ask(self, asker: Asker, questions: Sequence[Sequence[Message]]) -> list[str | None]:
        """A language model's answers on the run's account; None where there is none that is whole."""


class Pool(NamedTuple):
    """What a strategy may look at; it never holds gold labels.

    Attributes:
        vectors: (n, d) float32, unit rows, all items of the run.
        unlabelled: (u,) rows that may be picked, ascending.
        labelled: (l,) rows that already have a label.
        probs: (n, C) the student's probabilities, out of sample on unlabelled rows; None before there is one.
        n_classes: C.
        targets: (l, C) the labels of the labelled rows, all zero where the answer was not accepted; or None.
        multi: each class is a yes/no answer of its own (`kind: multi`).
        sources: texts, zero-shot answers and votes, for strategies that look at them; or None.
        names: C names of the classes, for reasons a person reads; empty where they are not known.
    """

    vectors: NDArray[np.float32]
    unlabelled: NDArray[np.int64]
    labelled: NDArray[np.int64]
    probs: NDArray[np.float32] | None
    n_classes: int
    targets: NDArray[np.float32] | None = None
    multi: bool = False
    sources: Sources | None = None
    names: tuple[str, ...] = ()

    def look(self) -> Sources:
        """The sources.

        Raises:
            UserError: there are none.
        """
        if self.sources is None:
            raise UserError("this strategy looks at texts or votes, and the pool has none", where="select")
        return self.sources


class Selection(NamedTuple):
    """What a strategy picked, best first.

    Attributes:
        rows: (k,) rows of the pool, distinct, all unlabelled.
        scores: (k,) higher means picked for a stronger reason; comparable within one call only.
        reasons: k short phrases a person understands.
        again: labelled rows that a person should look at, row -> why, the most doubtful first.
        enough: why no more picks are worth their price; the run asks about these and then stops choosing.
        note: what the user should know of how the picks were made, such as a measured recall.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    reasons: list[str]
    again: Mapping[int, str] = MappingProxyType({})
    enough: str = ""
    note: str = ""


NONE_LEFT = "no picks left"


class Selector(Plugin):
    """A query strategy (acquisition function).

    Contract (tested for every strategy): exactly min(k, u) distinct rows, all unlabelled; the same rng gives
    the same picks; the pool is left as it was; k = 0 and an empty pool give nothing; duplicated and all-zero
    vectors are no error; a score that is not finite is one that names the row.
    """

    group: ClassVar[str] = "select"
    needs_probs: ClassVar[bool] = False

    @abstractmethod
    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows of the pool."""


def run(
    selector: Selector,
    store: Store,
    ctx: Context,
    *,
    round_no: int,
    size: int,
    probs: NDArray[np.float32] | None,
    vectors: str,
    schema: LabelSchema,
    labels: Mapping[int, Labels],
    caps: Caps | None = None,
) -> Tally:
    """Fill up one round's picks.

    Picks are history: once made they stay, whatever the file says later, because answers were paid for on
    their account. A round that fell short (the pool was too small) is filled up when the corpus has grown.

    Args:
        selector: the strategy for this round.
        store: of the run.
        ctx: shared context.
        round_no: 0-based.
        size: picks the round should have.
        probs: (n, C) of the current student, None in a cold start.
        vectors: recipe of the vectors.
        schema: the classes.
        labels: item -> the label it has so far, for strategies that look at classes.
        caps: what the run may spend in all; without them no strategy can ask a model.

    Returns:
        Picks wanted and new; `ends` says why no round should follow, such as an empty pool.
    """
    from llmal.select.sources import StoreSources

    have = len(store.picks(round_no))
    missing = size - have
    if missing <= 0:
        return Tally(size, 0, ends=enough(store, selector, round_no))
    asked = {*store.picks(), *store.answers()}
    reserved = store.reserved()
    taken = np.array(sorted(asked | reserved), dtype=np.int64)
    unlabelled = np.setdiff1d(np.array(store.active(), dtype=np.int64), taken)
    if not len(unlabelled):
        return Tally(size, 0, ends=NONE_LEFT)
    labelled = np.array(sorted(asked - reserved), dtype=np.int64)
    targets = label_table([labels.get(int(s), ()) for s in labelled], schema)
    every = store.load(vectors)
    pool = Pool(
        every,
        unlabelled,
        labelled,
        probs,
        len(schema.labels),
        targets,
        schema.kind == "multi",
        StoreSources(store, ctx, schema, every, labelled, caps),
        tuple(schema.names),
    )
    chosen = selector.select(
        pool, min(missing, len(unlabelled)), ctx.rng("select", round_no * 1_000_003 + have)
    )
    now = time.time()
    by = {"round": round_no, "by": selector.name, "recipe": selector.recipe(), "at": now}
    new = store.add(
        t.pick,
        [
            {**by, "item": int(row), "rank": have + rank, "score": float(score), "reason": reason}
            for rank, (row, score, reason) in enumerate(
                zip(chosen.rows, chosen.scores, chosen.reasons, strict=True)
            )
        ],
    )
    store.add(t.doubt, [{**by, "item": int(row), "reason": why} for row, why in chosen.again.items()])
    if chosen.enough:
        store.note(_enough_key(store, selector), lambda: f"{round_no} {chosen.enough}")
    short = f"the pool held only {len(unlabelled)} of {missing} wanted" if len(unlabelled) < missing else ""
    note = "; ".join(words for words in (short, chosen.note) if words)
    return Tally(size, new, note, NONE_LEFT if short else chosen.enough)


def enough(store: Store, selector: Selector, round_no: int) -> str:
    """Why the strategy wanted no picks after this round or an earlier one; empty where it did not say so.

    It counts only while strategy and corpus are the same.
    """
    said = store.noted(_enough_key(store, selector))
    at, _, why = (said or "").partition(" ")
    return why if said and int(at) <= round_no else ""


def _enough_key(store: Store, selector: Selector) -> str:
    return f"enough {selector.recipe()} {store.n_active()}"


def top(scores: NDArray[np.float64], rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Positions of the k highest scores, best first, ties to the lowest row.

    Args:
        scores: (u,) one a row of the pool.
        rows: (u,) the rows, ascending.
        k: how many.

    Raises:
        ValueError: a score is not finite; the message names the row.
    """
    bad = ~np.isfinite(scores)
    if bad.any():
        raise ValueError(f"the score of row {rows[bad][0]} is not finite")
    return np.lexsort((rows, -scores))[:k]
