"""The order in which people are asked: expected corrections a minute, and how long what waits will take."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from llmal.records import Labels, Route
from llmal.stats.reading_time import LETTERS, Pace, fit
from llmal.store import schema as t
from llmal.store.store import Store

Order = Literal["value", "doubt"]

TURN = 10
"""The first item and every tenth after it is the least sure one left, whatever its length: none comes later
than at ten times its place by doubt alone, however long it is, and none waits for ever where people look in
for a few texts at a time."""

NEWEST = 5000
"""Answers that a pace is fitted to: a median regression of as many takes some milliseconds."""

_KNOWN: WeakKeyDictionary[Store, dict[int, int]] = WeakKeyDictionary()
"""Characters of the texts that were asked for, by item: a text never changes, and reading 100,000 of 2,000
characters takes half of the time that ordering them does."""


def ranked(
    store: Store,
    routes: Sequence[Route],
    *,
    by: Order,
    labels: int,
    sets: Mapping[int, Labels] | None = None,
) -> list[Route]:
    """Routes of items that wait, in the order in which people are asked.

    `doubt`: the least sure first. `value`: most expected corrections a minute first, that is the chance that
    the machine's answer is wrong over the minutes that a person is expected to need for this text, from its
    length and from how many labels are in sight; but one in ten is the least sure one left. A long text comes
    after short ones that are as much in doubt, and yet it comes: see `TURN`.

    Args:
        store: of the run.
        routes: of the items, in any order; a confidence of None counts as 0, nothing is known of its answer.
        by: the option `order`.
        labels: how many there are, at least 1.
        sets: item -> the labels that are in sight first; an empty set and a missing one stand for all.
    """
    least_sure = sorted(routes, key=lambda r: (_sure(r), r.item))
    if by == "doubt" or not least_sure:
        return least_sure
    seconds = expected(store, [r.item for r in least_sure], labels=labels, sets=sets)
    return interleaved(least_sure, seconds)


def interleaved(least_sure: Sequence[Route], seconds: NDArray[np.float64]) -> list[Route]:
    """By value, one place in `TURN` to the least sure one left.

    Args:
        least_sure: routes, the least sure first.
        seconds: (n,) expected of each, > 0.
    """
    wrong = 1 - np.array([_sure(r) for r in least_sure])
    best = np.argsort(-wrong / seconds, kind="stable").tolist()
    taken, out = bytearray(len(best)), list[Route]()
    queues = iter(best), iter(range(len(best)))
    while len(out) < len(best):
        queue = queues[len(out) % TURN == 0]
        place = next(i for i in queue if not taken[i])
        taken[place] = 1
        out.append(least_sure[place])
    return out


def minutes(
    store: Store, items: Collection[int], *, labels: int, sets: Mapping[int, Labels] | None = None
) -> float:
    """Minutes of work that one person is expected to have with these items; 0 for none.

    Args:
        store: of the run.
        items: that wait.
        labels: how many there are, at least 1.
        sets: see `ranked`.
    """
    return float(expected(store, list(items), labels=labels, sets=sets).sum() / 60)


def about(work: float) -> str:
    """Minutes in words, such as `about 40 minutes of work`: an estimate that looks like one.

    Args:
        work: minutes, >= 0.
    """
    if work < 1:
        return "less than a minute of work"
    if work < 90:
        said = round(work) if work < 10 else 5 * round(work / 5)
        return f"about {said} minute{'s' if said > 1 else ''} of work"
    hours = work / 60
    return f"about {hours:.0f} hours of work" if hours >= 10 else f"about {hours:.1f} hours of work"


def expected(
    store: Store, items: Sequence[int], *, labels: int, sets: Mapping[int, Labels] | None = None
) -> NDArray[np.float64]:
    """Seconds that a person is expected to need for each item, at the pace of this run's people.

    Words are counted by length, `LETTERS` characters each, as reading goes by letters, and some languages
    write no blanks; what that is off by in a language, the fit to recorded times makes good.

    Returns:
        (n,) > 0.
    """
    if not items:
        return np.zeros(0)
    sight = [len(found) if (found := (sets or {}).get(item)) else labels for item in items]
    return pace(store, labels=labels).seconds(_words(store, items), sight)


def pace(store: Store, *, labels: int) -> Pace:
    """How fast this run's people are, by the time that each of their newest answers took.

    Args:
        store: of the run.
        labels: how many there are: in sight where no short list was.
    """
    a = t.answer.c
    found = store.read(
        sa.select(a.seconds, sa.func.length(t.item.c.text), a.shown)
        .join_from(t.answer, t.item, t.item.c.seq == a.item)
        .where(a.seconds > 0, a.role != t.ADJUDICATE, t.standing())
        .order_by(a.n.desc())
        .limit(NEWEST)
    )
    if not found:
        return Pace()
    seconds, letters, shown = zip(*found, strict=True)
    sight = [len(json.loads(some)) if some else labels for some in shown]
    return fit(seconds, np.array(letters) / LETTERS, np.maximum(sight, 1))


def _words(store: Store, items: Sequence[int]) -> NDArray[np.float64]:
    """Length of each text in words."""
    known = _KNOWN.setdefault(store, {})
    new = [item for item in items if item not in known]
    if new:
        query = sa.select(t.item.c.seq, sa.func.length(t.item.c.text))
        known.update(store.tuples(query, t.item.c.seq, new))
    return np.array([known[item] for item in items]) / LETTERS


def _sure(route: Route) -> float:
    return 0.0 if route.confidence is None else route.confidence
