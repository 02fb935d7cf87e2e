"""The desk: what waits for each person, and what they say of it, each kept before it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from llmal.desk.facts import Facts
from llmal.desk.news import News
from llmal.desk.pool import Pool
from llmal.desk.said import Refusal, Said
from llmal.desk.source import Source, speakers
from llmal.records import Item, Labels, LabelSchema, Word
from llmal.review.options import ReviewSpec
from llmal.review.stage import Waiting
from llmal.store import schema as t
from llmal.text import repaired

MOST_TOLD = 20
"""Disputes sent at once."""

AUDIT = "audit"
"""Why an item waits that measures: nobody is shown a machine's answer to it, before or after."""

Beside = Callable[[Collection[int]], dict[str, Any]]
"""Items that several people answer -> what stands beside every text, with none of these in it."""


def nothing(apart: Collection[int]) -> dict[str, Any]:
    """Beside a text where there is nothing to show."""
    return {"guidelines": "", "demonstrations": []}


class Desk:
    """What waits, for one person or several at once. Whatever `say` has returned from is on disk.

    Args:
        source: of what waits; its store is open for writing, and a run may go on beside.
        schema: the classes.
        people: who answers; each has one page open, or several.
        page: version of the page, kept with every answer.
        review: the `review:` part: blind or assisted, and what several people answer.
        adjudicators: who settles disputes.
        seed: of the lots that choose what several people answer.
        beside: makes what stands beside every text, once.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        source: Source,
        schema: LabelSchema,
        people: Sequence[str],
        page: str,
        *,
        review: ReviewSpec | None = None,
        adjudicators: Collection[str] = (),
        seed: int = 0,
        beside: Beside = nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.schema = source, schema
        self.people = tuple(dict.fromkeys(repaired(person)[0] for person in people))
        self.adjudicators = frozenset(repaired(person)[0] for person in adjudicators)
        self._review, self._clock = review or ReviewSpec(), clock
        self.several = len(self.people) > 1
        self._facts = Facts(source.store, page)
        self._pool = Pool(
            self.people, share=self._review.overlap, wanted=self._review.people, seed=seed, clock=clock
        )
        self._lock = threading.Lock()
        for person, items in self._facts.put_off(self.people).items():
            self._pool.put_off(person, items)
        self._news = News(source, self._pool, self._review.people, self._lock, clock)
        self._beside = beside
        self._apart = self._pool.compared | self._pool.reopened()
        self._texts = beside(self._apart)

    # --- what a page shows ----------------------------------------------------------------------------------

    def start(self, person: str) -> dict[str, Any]:
        """All that a page shows beside items: the labels, who answers, what can be taken back."""
        with self._lock:
            apart = self._pool.compared | self._pool.reopened()
            if not apart <= self._apart:  # an example would tell what somebody is still to answer
                self._apart = apart
                self._texts = self._beside(apart)
            return {
                "run": self.source.store.folder.name,
                "person": person,
                "several": self.several,
                "adjudicates": person in self.adjudicators,
                "kind": self.schema.kind,
                "labels": [label.model_dump() for label in self.schema.labels],
                "last": self._facts.last(person),
                "show": self._review.show,
                **self._texts,
                **self._now(person, ()),
            }

    def disputes(self, person: str) -> dict[str, Any]:
        """Items on which people differ, with what each said.

        Raises:
            Refusal: this person does not settle disputes.
        """
        self._may_settle(person)
        with self._lock:
            torn = self._torn(person)
        shown = torn[:MOST_TOLD]
        items = self.source.store.items([item for item, _ in shown])
        found = [
            {
                "item": item.seq,
                "text": item.text,
                "flags": list(item.flags),
                "why": "people differ",
                "answers": [{"person": w.person, "labels": list(w.labels), "note": w.note} for w in words],
            }
            for item, (_, words) in zip(items, shown, strict=True)
        ]
        return {"items": found, "left": len(torn)}

    def _torn(self, person: str) -> list[tuple[int, list[Word]]]:
        """What this person may settle: not what they have yet to answer themselves, unswayed."""
        return [(s, words) for s, words in self._news.torn.items() if not self._pool.owes(person, s)]

    def overlap(self) -> dict[str, int]:
        """How many items several people are to answer, and how many of these have all their words."""
        with self._lock:
            return {"wanted": len(self._pool.compared), "done": self._pool.compared_done()}

    def _now(self, person: str, have: Collection[int]) -> dict[str, Any]:
        """Progress, and the next items this page has not got."""
        self._news.watch()
        found = self._pool.give(person, have)
        if not found and not any(self._pool.holds(person, item) for item in have) and self._news.needed():
            found = self._pool.give(person, have)
        return {
            "done": self._pool.done(person),
            "left": self._pool.waits(person),
            "mine": self._news.mine[person],
            "disputes": len(self._torn(person)) if person in self.adjudicators else 0,
            "items": self._shown(person, found),
        }

    def _shown(self, person: str, seqs: Sequence[int]) -> list[dict[str, Any]]:
        return [self._one(person, item) for item in self.source.store.items(seqs)] if seqs else []

    def _one(self, person: str, item: Item) -> dict[str, Any]:
        what = self._waits(item.seq)
        guess = self._guess(what)
        return {
            "item": item.seq,
            "text": item.text,
            "flags": list(item.flags),
            "why": what.why,
            "candidates": self._short(what),
            "guess": None if guess is None else list(guess),
            "confidence": None if guess is None else what.confidence,
            "flagged": self._flag_note(person, item.seq),
        }

    def _short(self, what: Waiting) -> list[str]:
        """The short list; blind in the labels' order, since its first is the machine's, and never of one."""
        some = [] if what.why == AUDIT else [*what.candidates]
        if self._review.show != "blind":
            return some
        return sorted(some, key=self.schema.names.index) if len(some) > 1 else []

    def _flag_note(self, person: str, item: int) -> str | None:
        """Why it is flagged; that it is, alone, to who has yet to answer unswayed by what others say."""
        note = self._news.flagged.get(item)
        swayed = note and item in self._pool.compared and not self._facts.flagged(person, item)
        return "" if swayed else note

    def _guess(self, what: Waiting) -> Labels | None:
        """The machine's labels beside the text; whoever has seen them gives them more often."""
        return None if self._review.show == "blind" else _machine(what)

    def _waits(self, item: int) -> Waiting:
        what = self._pool.known(item)
        if what is None:
            what = next(iter(self.source.again([item])), Waiting(item, "its answer was taken back"))
        return what

    # --- what is said ---------------------------------------------------------------------------------------

    def say(self, person: str, said: Said) -> dict[str, Any]:
        """Keep what a person did, and give the items that come next.

        Raises:
            Refusal: an item that is not this person's, labels that are none, nothing to take back.
        """
        with self._lock:
            if not self._facts.known(person, said):
                self._keep(person, said)
            more: dict[str, Any] = {}
            if said.what == "undo" and self._pool.holds(person, said.item):
                more["undone"] = self._shown(person, [said.item])[0]
            elif said.what == "answer" and self._review.show == "blind":
                what = self._waits(said.item)
                labels = _machine(what)
                if labels is not None and self._facts.given(person, said.item, said.id) is not None:
                    more["machine"] = {"labels": list(labels), "confidence": what.confidence}
            have = [*said.have, said.item] if "undone" in more else said.have
            return {**more, **self._now(person, have)}

    def _keep(self, person: str, said: Said) -> None:
        if said.what == "undo":
            self._take_back(person, said)
        elif said.what == "adjudicate":
            self._settle(person, said)
        elif said.what in ("flag", "unflag"):
            self._flag(person, said)
        elif not self._pool.may(person, said.item):
            raise Refusal(409, "this item does not wait for your answer any more")
        elif said.what == "answer":
            self._answer(person, said)
        else:
            n = self._facts.remark(person, said)
            (self._pool.later if said.what == "skip" else self._pool.unsure)(person, said.item)
            self._news.deed(said.item, remark=n)
            self._news.short()

    def _answer(self, person: str, said: Said) -> None:
        what, labels, before = self._waits(said.item), self._labels(said), self._words(said.item)
        shown = what.candidates if not said.full and what.why != AUDIT else ()
        told = self._facts.answered(person, said.item)  # and so what the machine says, even where blind
        saw = _machine(what) if told else self._guess(what)
        n = self._facts.answer(person, said, labels, shown=shown, saw=saw, role="label")
        self._pool.said(person, said.item)
        if before:
            after = self.source.words(said.item)
        else:
            after = [Word(said.item, person, tuple(labels), said.note, said.seconds, time.time())]
        self._news.deed(said.item, answer=n, before=before, after=after)

    def _take_back(self, person: str, said: Said) -> None:
        given = self._facts.given(person, said.item, said.of)
        if given is None:
            if not self._facts.was_put_off(person, said.item, said.of):
                raise Refusal(409, "there is nothing to take back")
            if not self._pool.takes_back(person, said.item):
                raise Refusal(409, "somebody else has this item now")
        elif given.adjudicates:
            self._may_settle(person)
        what, before = self._waits(said.item), self._words(said.item)
        n = self._facts.remark(person, said, given and given.n)
        after = self._words(said.item)
        if given is None:
            self._pool.back(person, what)
        elif not given.adjudicates:
            self._pool.back(person, what, speakers(after))
        self._news.deed(said.item, remark=n, before=before, after=after)

    def _settle(self, person: str, said: Said) -> None:
        self._may_settle(person)
        if said.item not in self._news.torn:
            raise Refusal(409, "people do not differ on this item any more")
        if self._pool.owes(person, said.item):
            raise Refusal(409, "give your own answer to this item first")
        labels, before = self._labels(said), self._words(said.item)
        if self._pool.left == 0 and person not in {word.person for word in before}:
            raise Refusal(409, "as many answers were given as budget.people allows")
        n = self._facts.answer(person, said, labels, shown=(), saw=None, role=t.ADJUDICATE)
        self._news.deed(said.item, answer=n, before=before, after=self._words(said.item))

    def _words(self, item: int) -> list[Word]:
        """What people say of an item; no question where nobody said anything."""
        return self.source.words(item) if item in self._pool.answered else []

    def _may_settle(self, person: str) -> None:
        if person not in self.adjudicators:
            raise Refusal(403, "only who settles disputes may ask this")

    def _flag(self, person: str, said: Said) -> None:
        if self._pool.known(said.item) is None and said.item not in self._pool.answered:
            raise Refusal(409, "this item is not on the desk")
        n = self._facts.remark(person, said)
        if said.what == "flag":
            self._news.flagged[said.item] = said.note
        else:
            self._news.flagged.pop(said.item, None)
        self._news.deed(said.item, remark=n)

    def _labels(self, said: Said) -> list[str]:
        given, names = set(said.labels), self.schema.names
        if not given <= set(names) or (self.schema.kind == "single" and len(given) != 1):
            raise Refusal(422, "labels: expected labels of this run, exactly one unless a text may have more")
        return [name for name in names if name in given]

    def close(self) -> None:
        """Wait for what goes on beside; the store may be closed then."""
        self._news.close()


def _machine(what: Waiting) -> Labels | None:
    """What a machine answers; None where it did not, and of items that measure."""
    if what.why == AUDIT or (what.confidence is None and not what.guess):
        return None
    return what.guess
