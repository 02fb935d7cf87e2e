"""The review stage: which items wait for a person, in which order, and from which labels they choose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from llmal.audit import shuffled
from llmal.context import Context
from llmal.records import Labels, LabelSchema, Route, Tally
from llmal.review.options import ReviewSpec
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
        guess: the student's answer, empty for audit items.
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
    """Items that wait for a person: those that measure first, then labels in doubt, then the least sure.

    Items that measure are shown the full list, blind; labels in doubt the full list, since the student may
    have learnt the doubted one. The others have a candidate set where `run` made one.

    The least sure first is the order with sets, too; where all labels share one threshold, an item with an
    empty set is less sure than any other. By doubt per bit of cost people would correct 0.5 to 5.4 points
    fewer of the student's errors for the same bits, and teach it 0.2 to 1.9 points more (trec, clinc150:
    `tests/benchmarks/review_lists.py`); what teaches best is for a strategy to pick.

    Args:
        store: of the run.
        names: the labels that exist now; an answer with another one has to be given again.
        route: recipe of the routes, None before there are any.
        people: answers people may give in all, None for no limit.
        options: the `review:` part.
    """
    answered = set(store.answers(names))
    active = set(store.active())
    known = answered | set(store.gold())
    measure = dict.fromkeys([*shuffled(store.audit()), *(d.item for d in store.draws())])
    audit = [Waiting(s, "audit") for s in measure if s in active and s not in known]
    routes = store.routes(route) if route else {}
    again = [
        Waiting(s, why, *((routes[s].labels, routes[s].confidence) if s in routes else ()))
        for s, why in _doubts(store, active).items()
    ]
    left = None if people is None else max(0, people - len(answered))
    made = store.shortlist(route, options.recipe()) if route else None
    sets = store.candidates(made.recipe) if made is not None and made.used else {}
    rest = routed(store, routes, names)
    return [*audit, *again, *(_waits(r, sets, len(names)) for r in rest)][:left]


def routed(store: Store, routes: Mapping[int, Route], names: Collection[str]) -> list[Route]:
    """Routes of the items that wait because the router leaves them to people, the least sure first."""
    active = set(store.active())
    closed = store.reserved() | set(store.answers(names)) | set(_doubts(store, active))
    left = [r for r in routes.values() if r.who == "person" and r.item in active and r.item not in closed]
    return sorted(left, key=lambda r: (r.confidence if r.confidence is not None else 0.0, r.item))


def _doubts(store: Store, active: set[int]) -> dict[int, str]:
    reserved = store.reserved()
    return {s: why for s, why in store.doubts().items() if s in active and s not in reserved}


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
    left = routed(store, store.routes(route) if route else {}, schema.names)
    items = [r.item for r in left if r.item not in picked]
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
    n = len(waiting(store, names=schema.names, route=route, people=people, options=options))
    if not n:
        return Tally(0, new, "nothing waits for people")
    return Tally(n, new, f"{n} items wait for people" + (f"; {words}" if words else ""))
