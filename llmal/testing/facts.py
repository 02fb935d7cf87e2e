"""Facts for tests of stages: what people, models and students would have left in a store."""

from __future__ import annotations

import json

from llmal.store import schema as t
from llmal.store.store import Store


def answer(
    store: Store,
    item: int,
    *labels: str,
    at: float = 0.0,
    person: str = "p",
    role: str = "label",
    seconds: float | None = None,
) -> int:
    """One person's answer about one item, newer than all before it; returns its number."""
    n = 1 + store.count(t.answer)
    who = {
        "person": person,
        "note": "",
        "source": "s",
        "at": at,
        "seconds": seconds,
        "role": role,
        "saw": None,
    }
    store.add(t.answer, [{"n": n, "item": item, "labels": json.dumps(labels or ("bug",)), "line": n, **who}])
    return n


def remark(
    store: Store,
    item: int,
    what: str,
    *,
    of: int | None = None,
    person: str = "p",
    note: str = "",
    seconds: float | None = None,
) -> None:
    """What one person said of an item that is no label; an `undo` is of the answer with that number."""
    n = 1 + store.count(t.remark)
    row = {"n": n, "item": item, "person": person, "what": what, "answer": of, "note": note}
    store.add(t.remark, [{**row, "seconds": seconds, "source": f"s:{n}", "at": float(n)}])
