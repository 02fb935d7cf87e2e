"""What a run asks of people, in one sentence: how many items, how many to measure, how long, and how."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from llmal.review.stage import how_many, waits
from llmal.store.store import Store

TIMED = 2000
"""Items whose length the time is reckoned from; of more than these, every so-manieth."""


class Asks(NamedTuple):
    """What waits for people.

    Attributes:
        n: answers that are needed, as far as `budget.people` goes.
        measure: how many of these measure, and are asked first.
        minutes: one person's work, expected.
        timed: recorded times that this rests on; 0 where it is what the literature says of reading.
        items: all that wait, whatever the budget.
    """

    n: int = 0
    measure: int = 0
    minutes: float = 0.0
    timed: int = 0
    items: frozenset[int] = frozenset()

    def words(self, run: Path) -> str:
        """One sentence that ends with the command; what to say where nothing waits, too."""
        from llmal.review.order import about

        if not self.n:
            return "nothing waits for people"
        what = "1 item waits" if self.n == 1 else f"{self.n:,} items wait"
        goal = f", {self.measure:,} of them to measure" if self.measure else ""
        rests = f"at the pace of {self.timed:,} timed answers" if self.timed else "nobody was timed yet"
        return f"{what} for people{goal}: {about(self.minutes)} ({rests}); answer with: {command(run)}"

    def as_json(self, run: Path) -> dict[str, Any] | None:
        """The same for scripts; None where nothing waits."""
        if not self.n:
            return None
        return {
            "items": self.n,
            "measure": self.measure,
            "minutes": round(self.minutes, 2),
            "timed_answers": self.timed,
            "command": command(run),
        }


NOTHING = Asks()
"""What a run asks for that waits for nobody."""


def command(run: Path) -> str:
    """What opens the review page of a run, as typed where the caller stands."""
    here = Path.cwd()
    place = run.relative_to(here) if run.is_relative_to(here) else run
    return f"llmal review {shlex.quote(str(place))}"


def asks(store: Store, *, names: Collection[str], route: str | None, people: int | None) -> Asks:
    """What waits for people now; arguments as of `llmal.review.stage.waiting`."""
    from llmal.review.order import minutes, pace

    n = how_many(store, names=names, route=route, people=people)
    if not n:
        return NOTHING
    first, others = waits(store, names=names, route=route)
    items = [*first, *sorted(others)]
    some = list(islice(items, 0, None, -(-len(items) // TIMED)))
    labels = max(1, len(names))
    work = minutes(store, some, labels=labels) / len(some) * n
    return Asks(n, min(len(first), n), work, pace(store, labels=labels).n, frozenset(items))
