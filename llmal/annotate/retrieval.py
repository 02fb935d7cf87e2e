"""Demonstrations for each item: the answered items most like it, classes mixed, the nearest one last."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmal.annotate.stage import Desk, Shown
from llmal.prompts.program import Form, answered
from llmal.records import Annotation, Item, Labels, LabelSchema
from llmal.stats.intervals import wilson

TWIN = 0.98
"""Cosine above which two texts are the same for our purpose: showing one gives the other's answer away."""

CELLS = 4_000_000
"""Similarities held at once: 16 MB in float32, 32 MB ranked."""

COPIED = 0.95
"""Share of answers equal to their demonstrations' majority above which a model may only be copying."""

FEW = 20
"""Answers below which a share says nothing about copying."""

_NEVER = -(2**62)  # below every rank, and its negative is a number too


def people(desk: Desk, schema: LabelSchema) -> dict[int, Labels]:
    """Item -> what a person answered, the audit sample left out; single-label answers have a label."""
    reserved = desk.store.reserved()
    said = desk.store.answers(schema.names)
    return {
        s: labels for s, labels in said.items() if s not in reserved and (labels or schema.kind == "multi")
    }


def retrieved(
    items: Sequence[Item], known: Mapping[int, Labels], k: int, schema: LabelSchema, desk: Desk
) -> dict[int, Shown]:
    """For each item the `k` answered items most like it, as `nearest` picks them.

    Args:
        items: what is to be asked about.
        known: item -> its trusted labels; the audit sample is left out here in any case.
        k: demonstrations an item.
        schema: the classes.
        desk: where vectors and items are.

    Returns:
        Item -> its demonstrations, least to most similar; empty, and said, where fewer than `k` answers or
        fewer than two different ones are known.

    Source: Liu et al. 2022 (what makes good in-context examples); as DSPy's KNNFewShot.
    """
    reserved = desk.store.reserved()
    seqs = sorted(set(known) - reserved)
    kinds = {labels: c for c, labels in enumerate(sorted({known[s] for s in seqs}))}
    if len(seqs) < k or len(kinds) < 2:
        words = (
            f"annotate: {len(seqs)} trusted answers of {len(kinds)} kinds are too few for {k} demonstrations"
        )
        desk.ctx.progress.say(f"{words} an item; the prompt's own are shown alone")
        return {}
    shown = desk.store.items(seqs)
    place = {s: row for row, s in enumerate(seqs)}
    own = np.array([place.get(item.seq, -1) for item in items], np.int64)
    classes = np.array([kinds[known[s]] for s in seqs], np.int64)
    rows = nearest(
        desk.vectors(list(items)), desk.vectors(shown), classes, k, own=own, n_classes=len(schema.labels)
    )
    return {
        item.seq: tuple((shown[r], known[seqs[r]]) for r in picked)
        for item, picked in zip(items, rows, strict=True)
    }


def nearest(
    vectors: NDArray[np.floating],
    pool: NDArray[np.floating],
    classes: NDArray[np.int64],
    k: int,
    *,
    own: NDArray[np.int64],
    n_classes: int,
) -> list[list[int]]:
    """The `k` rows of a pool most similar to each vector, at most ceil(k / C) + 1 of a class.

    A vector's own row and rows with a cosine above `TWIN` are left out. Equal similarities (to six decimals)
    go to the lower row. With `k` of at least 2, both of the two most similar classes are among the rows.

    Args:
        vectors: (n, d) unit rows.
        pool: (m, d) unit rows.
        classes: (m,) class of each row of the pool.
        k: rows for each vector; fewer where the pool or its classes have no more to give.
        own: (n,) row of the pool that is the vector itself, -1 where none is.
        n_classes: C.

    Returns:
        For each vector its rows, least to most similar.
    """
    cap = math.ceil(k / n_classes) + 1
    groups = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    order = np.arange(len(pool))
    out: list[list[int]] = []
    step = max(1, CELLS // max(len(pool), 1))
    for start in range(0, len(vectors), step):
        near = vectors[start : start + step] @ pool.T
        key = np.rint(near.astype(np.float64) * 1e6).astype(np.int64) * len(pool) - order
        key[near > TWIN] = _NEVER
        mine = own[start : start + step]
        key[np.flatnonzero(mine >= 0), mine[mine >= 0]] = _NEVER
        out += _best(key, groups, cap, k, classes)
    return out


def _best(
    key: NDArray[np.int64], groups: list[NDArray[np.int64]], cap: int, k: int, classes: NDArray[np.int64]
) -> list[list[int]]:
    """Rows in ascending order of their key: the `k` largest among the `cap` largest of each class."""
    parts = []
    for group in groups:
        of = key[:, group]
        if len(group) > cap:
            top = np.argpartition(-of, cap - 1, axis=1)[:, :cap]
            parts.append(group[top])
        else:
            parts.append(np.broadcast_to(group, (len(key), len(group))))
    candidates = np.concatenate(parts, axis=1)
    values = np.take_along_axis(key, candidates, axis=1)
    ranks = np.argsort(-values, axis=1)
    out = []
    for row, value, rank in zip(candidates, values, ranks, strict=True):
        ranked = [int(row[r]) for r in rank if value[r] != _NEVER]
        chosen = ranked[:k]
        other = next((r for r in ranked[k:] if classes[r] != classes[ranked[0]]), None)
        if k > 1 and other is not None and len({int(classes[r]) for r in chosen}) == 1:
            chosen[-1] = other
        out.append(chosen[::-1])
    return out


def written(labels: Labels, view: LabelSchema, form: Form) -> str:
    """A demonstration's answer as a model would write it under a view."""
    (answer,) = (v for name, v in answered(labels, view, form).items() if name.startswith("answer"))
    return answer if isinstance(answer, str) else json.dumps(answer)


def majority(shown: Shown) -> Labels:
    """The commonest answer among demonstrations; of several, that of the nearest."""
    counts = Counter(labels for _, labels in shown)
    most = max(counts.values())
    return next(labels for _, labels in reversed(shown) if counts[labels] == most)


def say_worth(
    made: Sequence[Annotation], shown: Mapping[int, Shown], schema: LabelSchema, desk: Desk
) -> None:
    """Tell how often answers equal their demonstrations' majority, and how good that majority is alone."""
    voted = {item: majority(given) for item, given in shown.items() if given}
    answers = [a for a in made if a.item in voted and a.status == "ok"]
    if not answers:
        return
    same = wilson(sum(set(a.labels) == set(voted[a.item]) for a in answers), len(answers))
    words = f"annotate: {same.value:.1%} of {same.n} answers are the majority of their demonstrations"
    if same.n >= FEW and same.value > COPIED:
        words += "; the model may be copying them: show fewer, and compare"
    gold, said = desk.store.gold(), desk.store.answers(schema.names)
    known = {s: gold[s] for s in desk.store.audit() if s in gold} | said
    asked = [a for a in made if a.item in voted and a.item in known]
    if asked:
        by_model = wilson(sum(set(a.labels) == set(known[a.item]) for a in asked), len(asked))
        by_vote = wilson(sum(set(voted[a.item]) == set(known[a.item]) for a in asked), len(asked))
        words += (
            f"; right of {by_model.n} whose answer is known: the model {by_model.value:.1%} "
            f"[{by_model.low:.1%}, {by_model.high:.1%}], that majority alone {by_vote.value:.1%} "
            f"[{by_vote.low:.1%}, {by_vote.high:.1%}]"
        )
    desk.ctx.progress.say(words)
