"""The review stage: which items wait for a person, in which order, and from which labels they choose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from llmal.audit import shuffled
from llmal.context import Context
from llmal.records import ANSWERED, Labels, LabelSchema, Route, Tally
from llmal.review.options import ReviewSpec
from llmal.review.order import ranked
from llmal.store import schema as t
from llmal.store.store import Store

UNLIKE = "no label is likely enough for a short list"
"""Why an item with an empty candidate set is unlike what the student knows; it is shown the full list."""


DEFAULT = ReviewSpec()
"""What a file without `review:` asks for."""


class Waiting(NamedTuple):
    """One item for a person.

    Attributes:
        item: its `seq`.
        why: `audit` (measures quality: shown without any machine's answer), a strategy's doubt, or the
            route's reason.
        guess: a machine's answer; empty for audit items, and where only people answered.
        confidence: of the guess.
        candidates: the labels to choose from first, likeliest first; empty for the full list.
    """

    item: int
    why: str
    guess: Labels = ()
    confidence: float | None = None
    candidates: Labels = ()


def waiting(
    store: Store,
    *,
    names: Collection[str],
    route: str | None,
    people: int | None,
    options: ReviewSpec = DEFAULT,
) -> list[Waiting]:
    """Items that wait for a person: those that measure first, then labels in doubt, then as `order` says.

    Items that measure are shown the full list, blind; labels in doubt the full list, since the student may
    have learnt the doubted one. The others have a candidate set where `run` made one.

    For the order of the rest see `llmal.review.order`; sets change little in it, as choosing from a short
    list saves tenths of a second beside the reading.

    Args:
        store: of the run.
        names: the labels that exist now; an answer with another one has to be given again.
        route: recipe of the routes, None before there are any.
        people: answers people may give in all, None for no limit.
        options: the `review:` part.
    """
    audit = [Waiting(s, "audit") for s in _unmeasured(store, names)]
    doubted = _doubts(store)
    routes = store.routes(route, doubted) if route else {}
    again = [
        Waiting(s, why, *((r.labels, r.confidence) if (r := by_machine(routes.get(s))) else ()))
        for s, why in doubted.items()
    ]
    made = store.shortlist(route, options.recipe()) if route else None
    sets = store.candidates(made.recipe) if made is not None and made.used else {}
    rest = ranked(store, routed(store, route, names), by=options.order, labels=max(1, len(names)), sets=sets)
    return [*audit, *again, *(_waits(r, sets, len(names)) for r in rest)][: _left(store, names, people)]


def by_machine(route: Route | None) -> Route | None:
    """The route where a machine made it; what people said is shown to nobody who has yet to answer."""
    return None if route is None or route.reason == ANSWERED else route


def how_many(store: Store, *, names: Collection[str], route: str | None, people: int | None) -> int:
    """Length of `waiting`, whose arguments these are, without making the list."""
    n = len(_unmeasured(store, names)) + len(_doubts(store)) + len(_open(store, route, names))
    left = _left(store, names, people)
    return n if left is None else min(n, left)


def waits(store: Store, *, names: Collection[str], route: str | None) -> tuple[list[int], set[int]]:
    """Items that wait whatever the budget: those that measure, in the order of asking, and the others."""
    return _unmeasured(store, names), _doubts(store).keys() | _open(store, route, names)


def routed(store: Store, route: str | None, names: Collection[str]) -> list[Route]:
    """Routes of the items that wait because the router leaves them to people, the least sure first."""
    wanted = _open(store, route, names)
    left = [r for s, r in store.routes(route, who="person").items() if s in wanted] if route else []
    return sorted(left, key=lambda r: (r.confidence if r.confidence is not None else 0.0, r.item))


def _open(store: Store, route: str | None, names: Collection[str]) -> set[int]:
    """Items that the router leaves to people, less those that are answered, doubted or measure."""
    if not route:
        return set()
    c = t.route.c
    found = {s for (s,) in store.tuples(sa.select(c.item).where(c.recipe == route, c.who == "person"))}
    found -= store.reserved()
    if found:
        found -= store.answers(names).keys() | _doubts(store).keys()
        found.intersection_update(store.active())
    return found


def _unmeasured(store: Store, names: Collection[str]) -> list[int]:
    """Audit and test items without an answer, in the order in which people are asked."""
    measure = dict.fromkeys([*shuffled(store.audit()), *(d.item for d in store.draws())])
    active = set(store.active(measure))
    known = store.gold(measure).keys() | store.answers(names, measure).keys()
    return [s for s in measure if s in active and s not in known]


def _left(store: Store, names: Collection[str], people: int | None) -> int | None:
    """Answers that people may still give, each person's on each item being one; None for no limit."""
    return None if people is None else max(0, people - store.n_words(names))


def _doubts(store: Store) -> dict[int, str]:
    doubts, reserved = store.doubts(), store.reserved()
    active = set(store.active(doubts))
    return {s: why for s, why in doubts.items() if s in active and s not in reserved}


def _waits(r: Route, sets: Mapping[int, Labels], n_labels: int) -> Waiting:
    some = sets.get(r.item)
    why = f"{UNLIKE}; {r.reason}" if some == () else r.reason
    short = some if some is not None and len(some) < n_labels else ()
    return Waiting(r.item, why, r.labels, r.confidence, short)


def run(
    store: Store,
    ctx: Context,
    *,
    schema: LabelSchema,
    route: str | None,
    people: int | None,
    options: ReviewSpec = DEFAULT,
    student: str = "",
) -> Tally:
    """Make the candidate sets of what waits, and count it; handing out and taking back is `review.table`.

    What a strategy picked and the filter held back has no set. It was picked for being hard, so the audit
    sample promises nothing of it: 74 % of such sets would hold the right label where 88 % are promised
    (clinc150; 88 % of the others do: `tests/benchmarks/review_lists.py`).

    Args:
        store: of the run, open for writing.
        ctx: shared context.
        schema: the classes.
        route: recipe of the routes, None before there are any.
        people: answers people may give in all, None for no limit.
        options: the `review:` part.
        student: recipe of the predictions the sets are made of, out of sample where there are.

    Returns:
        Items that wait, and facts about candidate sets that are new; people's answers arrive from outside.
    """
    from llmal.review import candidates

    new, words = 0, ""
    picked = set(store.picks())
    items = [r.item for r in routed(store, route, schema.names) if r.item not in picked]
    if items and route and student:
        new, words = candidates.run(
            store,
            ctx,
            options=options,
            schema=schema,
            student=student,
            route=route,
            items=items,
        )
    n = how_many(store, names=schema.names, route=route, people=people)
    if not n:
        return Tally(0, new, "nothing waits for people")
    return Tally(n, new, f"{n} items wait for people" + (f"; {words}" if words else ""))
