"""What routing knows of the annotator: its answers, asked to teach or to answer, and what one costs."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from llmal.records import Annotation, routed
from llmal.store import schema as t
from llmal.store.ledger import PICO
from llmal.store.store import Store


class Model(NamedTuple):
    """What a promise about the annotator's answers may rest on.

    Attributes:
        told: (m,) float64, its confidence as it gave it (0 where it gave none) in items that were chosen to
            learn from, in order of item; none of them is of the audit sample.
        unasked: audited items that it was not asked about.
        usd: mean cost of one of its answers so far, in dollars.
    """

    told: NDArray[np.float64] = np.zeros(0)
    unasked: int = 0
    usd: float = 0.0


def answers_of(store: Store, annotations: str) -> dict[int, Annotation]:
    """Item -> the annotator's answer with a label, with its confidence as it gave it.

    Those that routing asked for count too; asked for both, the one that was to teach goes first.
    """
    given = store.annotations(routed(annotations)) | store.annotations(annotations)
    return {s: a for s, a in given.items() if a.status == "ok"}


def look(store: Store, annotations: str, audited: Collection[int]) -> Model:
    """See `Model`.

    Args:
        store: of the run.
        annotations: recipe of the annotations.
        audited: audit items that people answered.
    """
    given, reserved = store.annotations(annotations), store.reserved()
    told = [given[s].confidence or 0.0 for s in sorted(given.keys() - reserved) if given[s].status == "ok"]
    return Model(np.array(told, np.float64), sum(s not in given for s in audited), _usd(store, len(given)))


def asked_about(store: Store, annotations: str) -> set[int]:
    """Items the annotator was asked about, whatever it said."""
    c = t.annotation.c
    where = c.recipe.in_([annotations, routed(annotations)])
    return {s for (s,) in store.read(sa.select(c.item).where(where))}


def rests_on(store: Store, annotations: str, among: Collection[int] | None = None) -> list[list[object]]:
    """(item, status) of the answers that routes depend on, by item: those asked for by routing, or by recipe.

    Args:
        store: of the run.
        annotations: recipe of the annotations.
        among: these items' answers under that recipe, rather than those that routing asked for.
    """
    c = t.annotation.c
    name = routed(annotations) if among is None else annotations
    found = store.read(sa.select(c.item, c.status).where(c.recipe == name).order_by(c.item))
    return [[s, status] for s, status in found if among is None or s in among]


def _usd(store: Store, answers: int) -> float:
    o, r, a = t.outcome.c, t.request.c, t.attempt.c
    paid = (
        sa.select(sa.func.coalesce(sa.func.sum(o.cost), 0))
        .select_from(t.outcome.join(t.attempt, a.n == o.attempt).join(t.request, r.hash == a.request))
        .where(r.purpose == "annotate")
    )
    return float(store.read(paid)[0][0]) / PICO / answers if answers else 0.0
