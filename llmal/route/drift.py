"""Ends a promise: texts that came too late for the audit sample are compared with those it was drawn from."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from llmal.answers import given
from llmal.audit import counts_since, last_with_a_chance
from llmal.records import LabelSchema
from llmal.route.evidence import Sources, confidences, learnt_from
from llmal.stats.drift import Shift, class_shift, embedding_shift, score_shift
from llmal.stats.watch import level_of, permutations_for
from llmal.store import schema as t
from llmal.store.store import Store

ALARM = 0.01
"""Share of runs in which any of all looks ends a promise although nothing has changed."""

FEWEST = 30
"""New texts from which on a look is worth its share of `ALARM`: fewer show no change but a huge one."""

TAKEN = 0.01
"""Share of new texts that may have taught the student: with more of them gone, the rest is not what came."""

MOST = 1000
"""Texts of either side compared at a look, drawn at random where there are more."""

WHAT = {
    "score": "the student's confidence in them",
    "class": "what the student answers to them",
    "embedding": "where their embeddings lie",
}
"""The tests of a look, in words."""


class Look(NamedTuple):
    """One comparison.

    Attributes:
        row: for the table `look`.
        reason: why the promise ends; empty where nothing differs.
    """

    row: dict[str, Any]
    reason: str


def look(store: Store, sources: Sources, certificate: str, *, schema: LabelSchema) -> Look | None:
    """Compare the texts that had no chance to be audited with the others, where enough new ones came.

    Confidence and answers are compared with those of the audit sample, a random sample of the old texts that
    taught no student; embeddings with those of all old texts. Where the student learnt from some of the new
    ones itself, embeddings alone are compared: it is surer of those, and the others are not all that came
    (with `train.folds` its predictions are out of sample, and nothing is left out). All looks of a run
    together raise a false alarm with probability `ALARM` at most. A shift that all three tests miss ends
    nothing.

    Args:
        store: of the run.
        sources: names of what is read.
        certificate: the one in force.
        schema: the classes.

    Returns:
        None where no look is due.
    """
    since = counts_since(store)
    oldest = last_with_a_chance(store, since)
    active = store.active()
    new = [s for s in active if s > oldest]
    drawn = [s for s in sorted(set(store.audit(since)).intersection(active)) if s <= oldest]
    c = t.look.c
    before = store.read(sa.select(c.certificate, c.upto).order_by(c.number))
    seen = max((upto for name, upto in before if name == certificate), default=oldest)
    if sum(s > seen for s in new) < FEWEST or not drawn:
        return None
    number, old = 1 + len(before), [s for s in active if s <= oldest]
    shifts = _shifts(store, sources, schema, number, (drawn, old, new, _untaught(store, sources, new)))
    facts = {name: [shift.statistic, shift.p, shift.least] for name, shift in shifts.items()}
    row = {"number": number, "certificate": certificate, "upto": new[-1], "at": time.time()}
    alarm = min(shift.p for shift in shifts.values()) <= level_of(number, ALARM, tests=len(WHAT))
    return Look(row | {"facts": json.dumps(facts)}, _reason(len(new), shifts) if alarm else "")


def _shifts(
    store: Store, sources: Sources, schema: LabelSchema, number: int, who: tuple[list[int], ...]
) -> dict[str, Shift]:
    rng = np.random.default_rng([number, zlib.crc32(sources.predictions.encode())])
    drawn, old, new, left = (np.sort(rng.permutation(items)[:MOST]) for items in who)
    tries = permutations_for(level_of(number, ALARM, tests=len(WHAT)))
    vectors = store.load(sources.vectors)
    found = {"embedding": embedding_shift(vectors[old], vectors[new], rng=rng, permutations=tries)}
    if not len(left):
        return {name: found.get(name, Shift(0.0, 1.0, 1.0)) for name in WHAT}
    table = store.load(sources.predictions)
    before, after = np.asarray(table[drawn]), np.asarray(table[left])
    sure = confidences(before, schema), confidences(after, schema)
    found["score"] = score_shift(*sure, rng=rng, permutations=tries)
    found["class"] = class_shift(*_counts(before, after, schema), rng=rng, permutations=tries)
    return found


def _untaught(store: Store, sources: Sources, items: list[int]) -> list[int]:
    """Those predicted out of sample, where that is nearly all of them; else none."""
    taught = learnt_from(store, sources)
    if not sources.out_of_sample:
        taught |= store.answers().keys() - store.reserved()
    left = [s for s in items if s not in taught]
    return left if len(left) >= (1 - TAKEN) * len(items) else []


def _counts(
    before: NDArray[np.floating], after: NDArray[np.floating], schema: LabelSchema
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each answer is given; with several labels a text, each set of them is an answer."""
    said = [given(row, schema.names, schema.kind) for row in (*before, *after)]
    place = {labels: i for i, labels in enumerate(sorted(set(said)))}
    codes = np.array([place[labels] for labels in said])
    first, then = codes[: len(before)], codes[len(before) :]
    return np.bincount(first, minlength=len(place)), np.bincount(then, minlength=len(place))


def _reason(n: int, shifts: dict[str, Shift]) -> str:
    name, shift = min(shifts.items(), key=lambda one: one[1].p)
    return (
        f"{n} texts came after the audit sample was drawn, and {WHAT[name]} is not as in the texts it was "
        f"drawn from (p = {shift.p:.2g}; a false alarm in {ALARM:.0%} of runs at most)"
    )
