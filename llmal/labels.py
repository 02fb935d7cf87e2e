"""`labels.jsonl`: what a run says about each row of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.corpus import write_jsonl
from llmal.records import LabelSchema, recipe
from llmal.state import Recipes
from llmal.store import schema as t
from llmal.store.store import Store


def write_labels(store: Store, names: Recipes, schema: LabelSchema) -> Path:
    """`labels.jsonl`: one line a row of the corpus that has a text.

    Rewritten only when a label could have changed.
    """
    path = store.folder / "labels.jsonl"
    name = recipe("labels", names.route, store.newest_corpus())
    mark = store.folder / "labels.recipe"
    if path.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == name:
        return path
    routes = store.routes(names.route)
    answers = store.answers(schema.names)
    rounds = dict(store.read(t.pick.select().with_only_columns(t.pick.c.item, t.pick.c.round)))
    texts = {item.seq: item.text for item in store.items(sorted(routes))}

    def lines() -> Iterator[dict[str, Any]]:
        for _, row_id, item, _, _ in store.rows():
            if item is None or item not in routes:
                continue
            r = routes[item]
            human = item in answers
            yield {
                "id": row_id,
                "text": texts[item],
                "label": list(r.labels) if schema.kind == "multi" else (r.labels[0] if r.labels else None),
                "label_source": "human" if human else ("student" if r.who == "person" else r.who),
                "confidence": None if r.confidence is None else round(r.confidence, 6),
                "accepted": human or r.who != "person",
                "reason": r.reason,
                "round": rounds.get(item),
            }

    write_jsonl(path, lines())
    mark.write_text(name, encoding="utf-8")
    return path
