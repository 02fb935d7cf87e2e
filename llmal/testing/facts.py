"""Facts for tests of stages: what people, models and students would have left in a store."""

from __future__ import annotations

import json

from llmal.store import schema as t
from llmal.store.store import Store


def answer(store: Store, item: int, label: str = "bug", *, at: float = 0.0) -> None:
    """One person's answer about one item, newer than all before it."""
    n = 1 + store.count(t.answer)
    who = {"person": "p", "note": "", "source": "s", "at": at, "seconds": None}
    store.add(t.answer, [{"n": n, "item": item, "labels": json.dumps([label]), "line": n, **who}])
