"""Who gets which item next: several people, one list, no item twice beyond the share that is compared."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from llmal.desk.lots import chosen
from llmal.review.stage import Waiting

AHEAD = 4
"""Items a page holds: the one on the screen, and those its reader will be at before the next has come."""

LEASE_S = 900.0
"""Seconds without a sign of life after which what lay before a person goes to others: a long phone call."""

NOBODY: frozenset[str] = frozenset()


class Open(NamedTuple):
    """An item that takes more words.

    Attributes:
        what: why it waits, and from which labels one chooses.
        wanted: people who answer it.
        said: who did; earlier words do not count where it is doubted.
        unsure: who could not tell, since the desk was opened.
    """

    what: Waiting
    wanted: int
    said: frozenset[str] = NOBODY
    unsure: frozenset[str] = NOBODY


class Pool:
    """What waits, and who has it before them. Knows no store; not for several threads at once.

    An item lies before one person at a time, `share` of the items before `wanted` different people, and what
    is before a person without a sign of life for `LEASE_S` goes to others.

    Args:
        people: who answers.
        share: of the items that several people answer; nothing is compared where one person answers.
        wanted: people who answer these.
        seed: of the lots that choose them.
        clock: seconds that only grow.

    Attributes:
        left: words that may still be given, None for no limit.
        answered: items that have a word.
        compared: items that several people answer.
    """

    def __init__(
        self,
        people: Sequence[str],
        *,
        share: float = 0.0,
        wanted: int = 2,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share, self._wanted, self._seed, self._clock = share, wanted, seed, clock
        self.left: int | None = None
        self.answered: set[int] = set()
        self.compared: set[int] = set()
        self._open: dict[int, Open] = {}
        self._known: dict[int, Waiting] = {}
        self._lines: dict[str, deque[int]] = {p: deque() for p in people}
        self._held: dict[str, dict[int, None]] = {p: {} for p in people}
        self._given: dict[str, set[int]] = {p: set() for p in people}
        self._late: dict[str, set[int]] = {p: set() for p in people}
        self._alive: dict[str, float] = dict.fromkeys(people, clock())
        self._unsure: dict[int, frozenset[str]] = {}
        self._reset()

    def _reset(self) -> None:
        """Counts of what is open: for whom it is over, and the same of what has some of its words."""
        self._over = dict.fromkeys(self._lines, 0)
        self._half_over = dict.fromkeys(self._lines, 0)
        self._half = 0

    # --- what waits -----------------------------------------------------------------------------------------

    def choose(self, items: Collection[int]) -> set[int]:
        """The items that several people answer, of all that wait or that people answered; keeps them."""
        if len(self._lines) > 1:
            self.compared = chosen(items, self._share, self._seed, self.compared)
        return self.compared

    def fill(
        self,
        waiting: Iterable[Waiting],
        words: Mapping[int, Collection[str]],
        *,
        halves: Iterable[Waiting] = (),
        left: int | None = None,
        touched: Collection[int] = (),
    ) -> None:
        """Lay out what waits now; what lies before people stays before them.

        Args:
            waiting: in order. One that has words already is doubted: it goes first to somebody new.
            words: item -> people whose word stands.
            halves: chosen items that have some of their words; they come first.
            left: words that may still be given.
            touched: items that changed since this was read: they stay as they are here.
        """
        fresh: dict[int, Open] = {}
        for w in halves:
            fresh[w.item] = Open(w, self._wanted, frozenset(words[w.item]), self._unsure.get(w.item, NOBODY))
        for w in waiting:
            before = words.get(w.item, ())
            for person in self._late.keys() & before:
                self._late[person].add(w.item)
            wanted = self._wanted if w.item in self.compared and not before else 1
            fresh.setdefault(w.item, Open(w, wanted, NOBODY, self._unsure.get(w.item, NOBODY)))
        for item in set().union(*self._held.values()) & fresh.keys():  # as it was shown
            fresh[item] = fresh[item]._replace(what=self._known[item])
        for item in touched:
            fresh.pop(item, None)
            if item in self._open:
                fresh[item] = self._open[item]
        self.answered = {s for s in words if s not in touched} | self.answered.intersection(touched)
        self.left = left
        self._open = {}
        self._reset()
        for item, one in fresh.items():
            self._put(item, one)
            self._known[item] = one.what
        self._line_up()

    def put_off(self, person: str, items: Iterable[int]) -> None:
        """What this person skipped or was not sure of at earlier starts comes last; tell before `fill`."""
        self._late[person].update(items)

    def _line_up(self) -> None:
        """Each one's order: what another put off first, what this one put off last."""
        for person in self._lines:
            late = self._late[person]
            others = set().union(*(s for p, s in self._late.items() if p != person)) - late
            first: list[int] = []
            rest: list[int] = []
            last: list[int] = []
            for item, one in self._open.items():
                if (one.said or one.unsure) and (person in one.said or person in one.unsure):
                    continue
                (last if item in late else first if item in others else rest).append(item)
            self._lines[person] = deque([*first, *rest, *last])

    def _put(self, item: int, one: Open | None) -> None:
        """Replace what is known of an item, and keep the counts."""
        old = self._open.pop(item, None) if one is None else self._open.get(item)
        for what, step in ((old, -1), (one, 1)):
            if what is None or not (what.said or what.unsure):
                continue
            self._half += step * bool(what.said)
            for person in (what.said | what.unsure) & self._over.keys():
                self._over[person] += step
                self._half_over[person] += step * bool(what.said)
        if one is not None:
            self._open[item] = one

    # --- what a person has before them ----------------------------------------------------------------------

    def give(self, person: str, have: Collection[int] = ()) -> list[int]:
        """The next items for a person's page: those it was given and has not, then new ones.

        Args:
            person: on the desk.
            have: what the page holds.
        """
        self._alive[person] = self._clock()
        self._expire()
        mine = self._held[person]
        for item in have:  # back from a long pause, and nobody took it meanwhile
            if item not in mine and item in self._given[person] and self._room() and self._free(item, person):
                mine[item] = None
        here = len({item for item in have if item in mine})
        found = [item for item in mine if item not in have][: max(0, AHEAD - here)]
        while here + len(found) < AHEAD and (new := self._next(person)) is not None:
            mine[new] = None
            self._given[person].add(new)
            found.append(new)
        return found

    def _next(self, person: str) -> int | None:
        line = self._lines[person]
        while line and self._room():
            # One that lies before others is dropped here: it comes back when they leave it.
            if self._free(item := line.popleft(), person) and item not in self._held[person]:
                return item
        return None

    def _room(self) -> bool:
        """Whether a word more may be given, counting what lies before people."""
        return self.left is None or sum(map(len, self._held.values())) < self.left

    def _free(self, item: int, person: str) -> bool:
        """Whether an item takes this person's word, counting those who have it before them."""
        one = self._open.get(item)
        if one is None or person in one.said or person in one.unsure:
            return False
        return len(one.said) + self._others(item, person) < one.wanted

    def _others(self, item: int, person: str) -> int:
        return sum(item in held for p, held in self._held.items() if p != person)

    def _expire(self) -> None:
        now = self._clock()
        for person, held in self._held.items():
            if held and now - self._alive[person] > LEASE_S:
                for item in reversed([*held]):
                    self._leave(person, item)
                    self._lines[person].appendleft(item)

    def _leave(self, person: str, item: int) -> None:
        """Take an item from before a person: it comes first for the others, last for who put it off."""
        self._held[person].pop(item, None)
        for other, line in self._lines.items():
            if other != person:
                if item in self._late[other]:
                    line.append(item)
                else:
                    line.appendleft(item)

    # --- what a person did ----------------------------------------------------------------------------------

    def may(self, person: str, item: int) -> bool:
        """Whether an item is this person's to answer: given, however long ago, or free."""
        return item in self._given[person] or self._free(item, person)

    def said(self, person: str, item: int) -> None:
        """This person answered."""
        self._held[person].pop(item, None)
        self._given[person].discard(item)
        self.answered.add(item)
        one = self._open.get(item)
        if one is not None:
            said = one.said | {person}
            self._put(item, one._replace(said=said) if len(said) < one.wanted else None)

    def later(self, person: str, item: int) -> None:
        """This person skipped it: it comes last for them, and first for the others."""
        self._given[person].discard(item)
        self._late[person].add(item)
        self._leave(person, item)
        self._lines[person].append(item)

    def unsure(self, person: str, item: int) -> None:
        """This person cannot tell: it goes to the others."""
        self._given[person].discard(item)
        self._late[person].add(item)
        self._unsure[item] = self._unsure.get(item, NOBODY) | {person}
        if (one := self._open.get(item)) is not None:
            self._put(item, one._replace(unsure=one.unsure | {person}))
        self._leave(person, item)

    def owes(self, person: str, item: int) -> bool:
        """Whether this person's own word is wanted, and may be swayed by what others say."""
        one = self._open.get(item)
        return one is not None and person not in one.said and person not in one.unsure

    def reopened(self) -> set[int]:
        """Items with a word that wait for more."""
        return self.answered & self._open.keys()

    def takes_back(self, person: str, item: int) -> bool:
        """Whether an item that this person put off is still theirs to have."""
        one = self._open.get(item)
        if one is None or person in one.said or not (self.holds(person, item) or self._room()):
            return False
        return len(one.said) + self._others(item, person) < one.wanted

    def back(self, person: str, what: Waiting, said: Iterable[str] | None = None) -> None:
        """Lay an item before this person again, first of all.

        Args:
            person: took back what they said of it.
            what: the item, as it waits.
            said: whose words stand now, where it was an answer that was taken back.
        """
        item = what.item
        self._known[item] = what
        self._late[person].discard(item)
        self._unsure[item] = self._unsure.get(item, NOBODY) - {person}
        if said is not None:
            stand, wanted = frozenset(said), self._wanted if item in self.compared else 1
            if not stand:
                self.answered.discard(item)
            if len(left := stand - {person}) < wanted:
                self._put(item, Open(what, wanted, left, self._unsure[item]))
        elif (one := self._open.get(item)) is not None:
            self._put(item, one._replace(unsure=self._unsure[item]))
        self._given[person].add(item)
        self._held[person] = {item: None} | self._held[person]

    # --- what is told ---------------------------------------------------------------------------------------

    def known(self, item: int) -> Waiting | None:
        """Why an item waits or waited; None where it never did since the desk was opened."""
        return self._known.get(item)

    def holds(self, person: str, item: int) -> bool:
        """Whether it lies before this person."""
        return item in self._held[person]

    def waits(self, person: str) -> int:
        """Items this person's word is wanted of, those among them that lie before others now."""
        n = len(self._open) - self._over[person]
        n += sum(1 for item in self._held[person] if item not in self._open)
        return n if self.left is None else min(n, self.left)

    def compared_done(self) -> int:
        """Items that several people are to answer and that have all their words."""
        return sum(item in self.answered and item not in self._open for item in self.compared)

    def done(self, person: str) -> int:
        """Items with an answer, less those that wait for this person's word beside it."""
        return len(self.answered) - (self._half - self._half_over[person])
