"""What lies on the desk: the items that wait, and what a person says of them, each kept before it is told."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmal.records import LabelSchema
from llmal.review.stage import Waiting
from llmal.store import schema as t
from llmal.store.store import Store
from llmal.text import repaired

AHEAD = 4
"""Items a page holds: the one on the screen, and those its reader will be at before the next has come."""

MOST_UNDO = 50
"""Answers of earlier starts that can be taken back from the page."""

MOST_SECONDS = 3600.0
"""Seconds above which nobody was reading the text: kept as this."""


class Said(BaseModel):
    """One thing a person did, as the page sends it; sent again word for word, it adds nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(pattern="^[0-9a-f]{32}$", description="made by the page for this one deed")
    item: int = Field(ge=0, lt=2**53, description="the item's number")
    what: Literal["answer", "skip", "unsure", "undo"]
    labels: list[str] = Field([], max_length=10_000, description="of an answer; any order")
    note: str = Field("", max_length=20_000, description="a comment")
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False, description="that the text was looked at")
    full: bool = Field(True, description="whether all labels were in sight, not a short list alone")
    of: str = Field("", pattern="^(|[0-9a-f]{32})$", description="of an undo: the id of what is taken back")
    have: list[int] = Field([], max_length=200, description="items the page holds already")

    @field_validator("note", mode="before")
    @classmethod
    def _note(cls, given: Any) -> Any:
        """Half a character, as a browser may send it, loses no answer."""
        return repaired(given)[0] if isinstance(given, str) else given


class Refusal(Exception):
    """What cannot be taken: its status, and why in one sentence."""

    def __init__(self, status: int, words: str) -> None:
        self.status, self.words = status, words
        super().__init__(words)


class Desk:
    """The items that wait for one person. Whatever `say` has returned from is on disk.

    Args:
        store: of the run, open for writing and locked: no run goes on beside it.
        schema: the classes.
        refill: what waits now, in order.
        person: who answers.
        page: version of the page, kept with every answer.
    """

    def __init__(
        self, store: Store, schema: LabelSchema, refill: Callable[[], list[Waiting]], person: str, page: str
    ) -> None:
        self._store, self._schema, self._refill = store, schema, refill
        self._person, self._page = repaired(person)[0], page
        self._lock = threading.Lock()
        self._asked: dict[int, Waiting] = {}
        self._queue: OrderedDict[int, None] = OrderedDict()
        self._put_off = self._remarked()
        self._fill()
        self._done = len(store.answers(schema.names))

    # --- what the page shows --------------------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """All that the page shows beside items: the labels, who answers, what can be taken back."""
        with self._lock:
            if not self._queue:
                self._fill()
            return {
                "run": self._store.folder.name,
                "person": self._person,
                "kind": self._schema.kind,
                "labels": [label.model_dump() for label in self._schema.labels],
                "last": self._last(),
                **self._now([]),
            }

    def _now(self, have: list[int]) -> dict[str, Any]:
        """Progress, and the next items the page has not got."""
        held = {seq for seq in have if seq in self._queue}
        found: list[int] = []
        for seq in self._queue:
            if len(found) + len(held) >= AHEAD:
                break
            if seq not in held:
                found.append(seq)
        return {"done": self._done, "left": len(self._queue), "items": self._shown(found)}

    def _shown(self, seqs: list[int]) -> list[dict[str, Any]]:
        # No guess and no confidence: whoever has seen a machine's answer gives it more often.
        return [
            {
                "item": item.seq,
                "text": item.text,
                "flags": list(item.flags),
                "why": self._asked[item.seq].why,
                "candidates": list(self._asked[item.seq].candidates),
            }
            for item in self._store.items(seqs)
        ]

    # --- what is said ---------------------------------------------------------------------------------------

    def say(self, said: Said) -> dict[str, Any]:
        """Keep what a person did, and give the items that come next.

        Raises:
            Refusal: an item that does not wait, labels that are none, nothing to take back.
        """
        with self._lock:
            more: dict[str, Any] = {}
            if not self._known(said):
                self._keep(said)
            if said.what == "undo" and said.item in self._queue:
                more["undone"] = self._shown([said.item])[0]
            return {**more, **self._now([*said.have, *([said.item] if more else [])])}

    def _known(self, said: Said) -> bool:
        """Whether this very deed is kept already."""
        return any(
            self._store.count(
                table, table.c.item == said.item, table.c.person == self._person, _from_page(table, said.id)
            )
            for table in (t.answer, t.remark)
        )

    def _keep(self, said: Said) -> None:
        if said.what == "undo":
            self._take_back(said)
            return
        if said.item not in self._queue:
            raise Refusal(409, "this item does not wait for an answer any more")
        if said.what == "answer":
            self._append(t.answer, said, {"labels": json.dumps(self._labels(said)), "line": 0,
                                          "shown": self._short(said)})  # fmt: skip
            del self._queue[said.item]
            self._done += 1
        else:
            self._append(t.remark, said, {"what": said.what, "answer": None})
            if said.what == "skip":
                self._queue.move_to_end(said.item)
            else:
                del self._queue[said.item]
                self._put_off.add(said.item)
        if not self._queue:
            self._fill()

    def _take_back(self, said: Said) -> None:
        a, r = t.answer.c, t.remark.c
        mine = (a.item == said.item, a.person == self._person, _from_page(t.answer, said.of), t.standing())
        found = self._store.read(sa.select(a.n).where(*mine)) if said.of else []
        passed = (r.item == said.item, r.person == self._person, _from_page(t.remark, said.of))
        if not found and not (said.of and self._store.count(t.remark, *passed, r.what != "undo")):
            raise Refusal(409, "there is nothing to take back")
        self._append(t.remark, said, {"what": "undo", "answer": found[0][0] if found else None})
        self._put_off.discard(said.item)
        if found:
            self._done = max(0, self._done - 1)
        if said.item not in self._asked:  # answered before this start
            self._asked.update((w.item, w) for w in self._refill() if w.item == said.item)
            self._asked.setdefault(said.item, Waiting(said.item, "its answer was taken back"))
        self._queue[said.item] = None
        self._queue.move_to_end(said.item, last=False)

    def _append(self, table: sa.Table, said: Said, more: dict[str, Any]) -> None:
        seconds = None if said.seconds is None else round(min(said.seconds, MOST_SECONDS), 2)
        row = {
            "item": said.item,
            "person": self._person,
            "note": said.note,
            "source": f"{self._page}:{said.id}",
            "at": time.time(),
            "seconds": seconds,
            **more,
        }
        with self._store.begin() as db:
            last = db.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.n), 0))).scalar_one()
            self._store.add(table, [{"n": int(last) + 1, **row}], db=db)

    def _labels(self, said: Said) -> list[str]:
        given, names = set(said.labels), self._schema.names
        if not given <= set(names) or (self._schema.kind == "single" and len(given) != 1):
            raise Refusal(422, "labels: expected labels of this run, exactly one unless a text may have more")
        return [name for name in names if name in given]

    def _short(self, said: Said) -> str | None:
        """The short list that was in sight; None for the full list."""
        some = self._asked[said.item].candidates
        return json.dumps(list(some)) if some and not said.full else None

    # --- the order ------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Ask the run what waits; what this person put off comes last, or, said `unsure` just now, not."""
        first = not self._asked
        found = [w for w in self._refill() if first or w.item not in self._put_off]
        self._asked.update((w.item, w) for w in found)
        later = [w.item for w in found if w.item in self._put_off]
        self._queue = OrderedDict.fromkeys(w.item for w in found if w.item not in self._put_off)
        self._queue.update(OrderedDict.fromkeys(later))

    def _remarked(self) -> set[int]:
        """Items this person skipped or was not sure of at earlier starts."""
        c = t.remark.c
        found = self._store.read(sa.select(c.item, c.what).where(c.person == self._person).order_by(c.n))
        return {item for item, what in dict(map(tuple, found)).items() if what != "undo"}

    def _last(self) -> list[dict[str, Any]]:
        """The newest answers this person gave on a page and did not take back, oldest first."""
        c = t.answer.c
        where = (c.person == self._person, c.source.like("page-%"), t.standing())
        found = self._store.read(
            sa.select(c.item, c.source).where(*where).order_by(c.n.desc()).limit(MOST_UNDO)
        )
        return [{"item": item, "id": source.rpartition(":")[2]} for item, source in reversed(found)]


def _from_page(table: sa.Table, name: str) -> sa.ColumnElement[bool]:
    """Deeds with this id, whichever version of the page they came from."""
    return table.c.source.like(f"page-%:{name}")
