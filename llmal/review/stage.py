"""The review stage: which items wait for a person, in which order."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from llmal.context import Context
from llmal.records import Labels, Tally
from llmal.store.store import Store


class Waiting(NamedTuple):
    """One item for a person.

    Attributes:
        item: its `seq`.
        why: `audit` (measures quality: shown without any machine's answer), a strategy's doubt, or the
            route's reason.
        guess: the student's answer, empty for audit items.
        confidence: of the guess.
    """

    item: int
    why: str
    guess: Labels = ()
    confidence: float | None = None


def waiting(store: Store, *, names: Collection[str], route: str | None, people: int | None) -> list[Waiting]:
    """Items that wait for a person: audit first, then labels in doubt, then the least sure.

    Args:
        store: of the run.
        names: the labels that exist now; an answer with another one has to be given again.
        route: recipe of the routes, None before there are any.
        people: answers people may give in all, None for no limit.
    """
    answered = set(store.answers(names))
    reserved = set(store.audit())
    active = set(store.active())
    known = answered | set(store.gold())
    audit = [Waiting(s, "audit") for s in sorted(reserved & active - known)]
    routes = store.routes(route) if route else {}
    doubts = {s: why for s, why in store.doubts().items() if s in active - reserved}
    again = [
        Waiting(s, why, *((routes[s].labels, routes[s].confidence) if s in routes else ()))
        for s, why in doubts.items()
    ]
    open_items = active - answered - reserved - set(doubts)
    routed = [r for r in routes.values() if r.who == "person" and r.item in open_items]
    routed.sort(key=lambda r: (r.confidence if r.confidence is not None else 0.0, r.item))
    queue = audit + again + [Waiting(r.item, r.reason, r.labels, r.confidence) for r in routed]
    left = None if people is None else max(0, people - len(answered))
    return queue[:left]


def run(
    store: Store, ctx: Context, *, names: Collection[str], route: str | None, people: int | None
) -> Tally:
    """Count what waits; handing out and taking back is `review.table`.

    Returns:
        Items that wait, and 0 new: people's answers arrive from outside.
    """
    n = len(waiting(store, names=names, route=route, people=people))
    return Tally(n, 0, f"{n} items wait for people" if n else "nothing waits for people")
