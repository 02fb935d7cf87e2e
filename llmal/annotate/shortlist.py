"""Candidate labels for each item, the nearest by embedding, where a prompt cannot list them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmal.annotate.stage import Desk
from llmal.prototypes import anchors
from llmal.records import Item, LabelSchema
from llmal.stats.intervals import wilson


def shortlists(
    vectors: NDArray[np.float32],
    schema: LabelSchema,
    encode: Callable[[list[str]], NDArray[np.float32]],
    size: int,
) -> list[tuple[str, ...]]:
    """The labels whose name, description and examples lie nearest to each item, in the order of the schema.

    Args:
        vectors: (n, d) float32 unit rows.
        schema: the classes.
        encode: texts -> (m, d) unit rows.
        size: labels an item, below C.

    Source: candidate sets before a costly judge, as retrieve and rerank; label embeddings, Veeranna et al.
        2016.
    """
    near = vectors @ anchors(schema, encode).T
    top = np.sort(np.argsort(-near, axis=1, kind="stable")[:, :size], axis=1)
    names = schema.names
    return [tuple(names[c] for c in row) for row in top]


def say_recall(schema: LabelSchema, size: int, desk: Desk) -> None:
    """Tell how often the right label is on the shortlist, where people's answers show it."""
    gold, answers = desk.store.gold(), desk.store.answers(schema.names)
    known = {s: gold[s] for s in desk.store.audit() if s in gold} | answers
    items: list[Item] = desk.store.items(sorted(known))
    if not items:
        desk.ctx.progress.say(
            f"annotate: {size} of {len(schema.labels)} labels are shown an item; how often the right one is "
            "among them is not known before people have answered some items"
        )
        return
    shown = shortlists(desk.vectors(items), schema, desk.ctx.encode, size)
    right = [set(known[item.seq]) <= set(names) for item, names in zip(items, shown, strict=True)]
    found = wilson(sum(right), len(right))
    desk.ctx.progress.say(
        f"annotate: the right label is among the {size} shown for {found.value:.1%} "
        f"[{found.low:.1%}, {found.high:.1%}] of {found.n} items whose answer is known"
    )
