"""Active testing: people answer test items on which the student is likely wrong, and no number is biased."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.answers import best
from llmal.context import Context
from llmal.records import Labels, LabelSchema, Tally
from llmal.stats.intervals import Estimate
from llmal.stats.lure import Draws, draw, lure, proposal
from llmal.store import schema as t
from llmal.store.store import Store

UNIFORM = "uniform"
"""Who chose a draw that every remaining item of the pool was as likely to be; those are the audit sample."""


class Tested(NamedTuple):
    """The draws of a run, as far as they are answered.

    Attributes:
        items: the longest run of draws from the first on that are all answered.
        chances: of each at its turn.
        gold: the answer to each.
        pool: items in the pool at the first draw.
        active: how many of `items` were chosen, not drawn uniformly.
        drawn: draws in all.
    """

    items: list[int]
    chances: list[float]
    gold: list[Labels]
    pool: int
    active: int
    drawn: int


def reserve_pool(store: Store, ctx: Context, *, size: int) -> str:
    """Reserve the test pool, once and before the first pick; why there is none, or nothing.

    A sample of what choosing has left over is no sample of the corpus, so a pool that was asked for later is
    refused in words. It neither grows nor shrinks: the chances of its draws depend on its size.

    Args:
        store: of the run.
        ctx: shared context.
        size: items the pool should hold, the audit sample among them; at most half of the corpus.
    """
    have = store.tested()
    if have or not size:
        return f"the test pool stays at {len(have)} items" if size and have and len(have) != size else ""
    if store.picks():
        return "a test pool can be reserved before the first pick only: start another run for audit.pool"
    active, audit = store.active(), store.audit()
    held = {*audit, *store.answers()}
    free = [s for s in active if s not in held]
    more = max(0, min(size, len(active) // 2) - len(audit))
    chosen = ctx.rng("test pool").permutation(len(free))[:more]
    pool = sorted([*audit, *(free[i] for i in chosen)])
    now = time.time()
    with store.begin() as db:
        store.add(t.tested, [{"item": s, "at": now} for s in pool], db=db)
        # A sample that was reserved before counts as drawn from the pool: it lies in it at random.
        order = [audit[i] for i in ctx.rng("test order").permutation(len(audit))]
        store.add(t.draw, _facts(order, _uniform(len(pool), len(order)), len(pool), 0, UNIFORM), db=db)
    return ""


def draw_uniform(store: Store, ctx: Context, *, size: int) -> int:
    """Draw the audit sample from the pool; 0 where there is no pool, or where it was drawn already.

    A sample that is to grow later takes items of the whole corpus, which may hold texts that came after the
    pool, and what choosing has left of the pool is no random sample.
    """
    left, drawn = store.tested(), store.draws()
    if not left or drawn:
        return 0
    chosen = [left[i] for i in ctx.rng("audit").permutation(len(left))[:size]]
    now = time.time()
    with store.begin() as db:
        store.add(t.draw, _facts(chosen, _uniform(len(left), len(chosen)), len(left), 0, UNIFORM), db=db)
        return store.add(t.audit, [{"item": s, "at": now} for s in sorted(chosen)], db=db)


def choose(store: Store, ctx: Context, *, schema: LabelSchema, student: str, active: int) -> Tally:
    """Draw test items for people, likelier where the student is likely wrong.

    What was drawn stays drawn, with the chance it had then; another student changes later draws alone.

    Args:
        store: of the run.
        ctx: shared context.
        schema: the classes.
        student: recipe of the final student, which learnt from nothing of the pool.
        active: items to choose in all.

    Returns:
        Items wanted and new.
    """
    pool, drawn = store.tested(), store.draws()
    missing = active - sum(d.by != UNIFORM for d in drawn)
    left = sorted({*pool} - {d.item for d in drawn})
    if missing <= 0 or not left:
        return Tally(active, 0)
    probs = np.asarray(store.load(student)[left], np.float64)
    unsure = [1 - best(row, schema)[1] for row in probs]
    made = next_draws(unsure, min(missing, len(left)), ctx.rng("active test", len(drawn)))
    items = [left[i] for i in made.items]
    facts = _facts(items, made.chances, len(pool), len(drawn), student)
    new = store.add(t.draw, facts)
    return Tally(active, new, f"{new} more test items for people, where the student is likeliest wrong")


def next_draws(unsure: ArrayLike, n: int, rng: np.random.Generator) -> Draws:
    """Draws among the items that remain, by the student's own doubt mixed with a uniform floor.

    Args:
        unsure: (N,) in [0, 1], 1 - the student's confidence in its answer; clipped to it.
        n: items to draw.
        rng: source of the draws.
    """
    return draw(proposal(np.clip(unsure, 0, 1)), n, rng=rng)


def tested(store: Store, schema: LabelSchema) -> Tested:
    """The draws that can be measured on: an answer that is missing ends the sequence there."""
    drawn = store.draws()
    items = [d.item for d in drawn]
    known = store.gold(items) | store.answers(schema.names, items)
    many = 0
    while many < len(drawn) and drawn[many].item in known:
        many += 1
    part = drawn[:many]
    return Tested(
        [d.item for d in part],
        [d.chance for d in part],
        [known[d.item] for d in part],
        drawn[0].pool if drawn else 0,
        sum(d.by != UNIFORM for d in part),
        len(drawn),
    )


def accuracy(wrong: Sequence[bool] | NDArray[np.bool_], chances: Sequence[float], pool: int) -> Estimate:
    """Accuracy on texts like the pool's, from draws whose chances are known.

    Args:
        wrong: (M,) the student errs, in the order of the draws; M at least 2.
        chances: (M,) of each at its turn.
        pool: items in the pool at the first draw; the pool is a random sample of the corpus.

    Returns:
        Value, low and high in [0, 1]; n is M.

    Source: Farquhar, Gal & Rainforth 2021; see `llmal.stats.lure`.
    """
    found = lure(np.asarray(wrong, np.float64), chances, pool, beyond=True)
    value = 1 - min(max(found.value, 0.0), 1.0)
    return Estimate(value, min(1 - found.high, value), max(1 - found.low, value), found.n)


def measure(
    store: Store, schema: LabelSchema, student: str, found: Tested
) -> Mapping[str, tuple[Estimate, str]]:
    """`accuracy.active`, and how it was made; nothing before the first chosen item is answered."""
    if not found.active:
        return {}
    probs = np.asarray(store.load(student)[found.items], np.float64)
    wrong = [set(best(row, schema)[0]) != set(g) for row, g in zip(probs, found.gold, strict=True)]
    words = (
        f"active testing: {len(wrong)} of {found.drawn} test items, {found.active} of them chosen, "
        f"weighted by their chances; pool of {found.pool}"
    )
    return {"accuracy.active": (accuracy(wrong, found.chances, found.pool), words)}


def _uniform(pool: int, n: int) -> NDArray[np.float64]:
    return np.asarray(1 / (pool - np.arange(n)), np.float64)


def _facts(
    items: list[int], chances: NDArray[np.float64], pool: int, before: int, by: str
) -> list[dict[str, object]]:
    now = time.time()
    return [
        {"turn": before + i, "item": s, "chance": float(c), "pool": pool, "by": by, "at": now}
        for i, (s, c) in enumerate(zip(items, chances, strict=True))
    ]
