"""Candidate sets: which labels a person is shown first, with a promise made to the items that wait."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from llmal.audit import counts_since, known_answers
from llmal.context import Context
from llmal.records import Labels, LabelSchema, batched, canonical, recipe, unasked
from llmal.review.options import ReviewSpec
from llmal.stats.candidates import Choice, choose
from llmal.stats.conformal import lac
from llmal.stats.intervals import Estimate
from llmal.store import schema as t
from llmal.store.store import Store

BLOCK = 8192
"""Items whose sets are made at once: (8192, C) float64."""

FEWEST = 4
"""Answers with which `choose` can split: two to choose the share of misses, two for the thresholds."""


class Decided(NamedTuple):
    """What the audit sample says of candidate sets.

    Attributes:
        choice: thresholds and what they save; None where there can be none.
        used: whether people are shown the sets.
        words: what they save and hold, or why there are none.
    """

    choice: Choice | None
    used: bool
    words: str


def decide(
    options: ReviewSpec, probs: ArrayLike, gold: ArrayLike, schema: LabelSchema, rng: np.random.Generator
) -> Decided:
    """Whether candidate sets pay, how many may miss, and the thresholds that keep it so.

    Args:
        options: the `review:` part.
        probs: (n, C) in [0, 1], the student's word on items like those that will get a set: drawn at random
            from among those that wait, and not learnt from.
        gold: (n,) int in 0..C - 1, what people said of them.
        schema: the C classes.
        rng: of the split of `candidates.choose`.

    Source: Gwon et al. 2025 (Candidate Set Query).
    """
    truth, names = np.asarray(gold, np.int64), schema.names
    if why := refused(options, schema, len(truth)):
        return Decided(None, False, why)
    found = choose(lac(probs), truth, rng=rng, alphas=options.miss, by_class=options.by_class, small="always")
    told = f"{found.told()} {found.thresholds.told(names)}"
    if options.candidates == "auto" and found.saving.low <= 0:
        return Decided(found, False, f"no candidate sets, since they may save nothing. {told}")
    return Decided(found, True, told)


def refused(options: ReviewSpec, schema: LabelSchema, n: int) -> str:
    """Why there can be no candidate sets with n answers; empty where there can."""
    if options.candidates == "never":
        return "no candidate sets, as asked"
    if schema.kind == "multi":
        return "no candidate sets: a text may have any number of the labels"
    if len(schema.labels) < 3:
        return "no candidate sets: two labels are no list to shorten"
    if n < FEWEST:
        return (
            f"no candidate sets: they need {FEWEST} answers about audit items that the router leaves to "
            f"people, there are {n}"
        )
    return ""


def sets_of(found: Choice, probs: ArrayLike, names: list[str]) -> list[Labels]:
    """The set of each item, likeliest label first; empty where no label is likely enough.

    Args:
        found: from `decide`.
        probs: (n, C) in [0, 1].
        names: the C labels.
    """
    scores = lac(probs)
    order = np.argsort(scores, axis=1, kind="stable")
    inside = np.take_along_axis(found.thresholds.sets(scores), order, axis=1)
    return [tuple(names[c] for c in row[kept]) for row, kept in zip(order, inside, strict=True)]


def evidence(store: Store, schema: LabelSchema, route: str) -> dict[int, Labels]:
    """Audit item -> people's answer, of those that would wait for a person had nobody answered them.

    A set is shown for items that the router leaves to people, and these are the hard ones: thresholds that
    rest on the whole sample hold 78 instead of the promised 82 % of them, and claim a saving of 48 instead of
    36 % (trec with 59 % left to people; `tests/benchmarks/review_lists.py`).
    """
    known, columns = known_answers(store, schema, since=counts_since(store)), schema.columns()
    routes = store.routes(route, known) | store.routes(unasked(route), known)
    return {
        s: labels
        for s, labels in known.items()
        if s in routes and routes[s].who == "person" and len(labels) == 1 and labels[0] in columns
    }


def run(
    store: Store,
    ctx: Context,
    *,
    options: ReviewSpec,
    schema: LabelSchema,
    student: str,
    route: str,
    items: list[int],
) -> tuple[int, str]:
    """Decide once, and make the sets that are missing.

    Args:
        store: of the run.
        ctx: shared context.
        options: the `review:` part.
        schema: the classes.
        student: recipe of the predictions, out of sample where there are.
        route: recipe of the routes.
        items: `seq` of those that wait because the router says so; none of the audit sample.

    Returns:
        How many facts are new, and what the sets save, or why there are none, in words.
    """
    known = {} if refused(options, schema, FEWEST) else evidence(store, schema, route)
    name = recipe(
        "candidates", 1, options.recipe(), schema.recipe(), student, route, canonical(sorted(known.items()))
    )
    made = store.fact(t.shortlist, name)
    have = store.candidates(name)
    missing = [s for s in items if s not in have]
    if made is not None and (not made.used or not missing):
        return 0, made.words
    table, columns, rows = store.load(student), schema.columns(), sorted(known)
    # The thresholds are computed again where sets are missing: from the same answers with the same chance.
    gold = [columns[known[s][0]] for s in rows]
    found = decide(options, np.asarray(table[rows], np.float64), gold, schema, ctx.rng("candidates"))
    with store.begin() as db:
        new = store.add(t.shortlist, [_made(name, route, options, found)], db=db)
        if found.used and found.choice is not None:
            store.add(t.measure, _measures(name, found.choice, len(rows)), db=db)
            for some in batched(missing, BLOCK):
                sets = sets_of(found.choice, np.asarray(table[some], np.float64), schema.names)
                new += store.add(t.candidates, _facts(name, some, sets), db=db)
    return new, found.words


def _made(name: str, route: str, options: ReviewSpec, found: Decided) -> dict[str, Any]:
    return {
        "recipe": name,
        "route": route,
        "asked": options.recipe(),
        "used": int(found.used),
        "words": found.words,
        "at": time.time(),
    }


def _facts(name: str, items: list[int], sets: list[Labels]) -> list[dict[str, Any]]:
    return [
        {"item": s, "recipe": name, "labels": json.dumps(one)} for s, one in zip(items, sets, strict=True)
    ]


def _measures(name: str, found: Choice, n: int) -> list[dict[str, Any]]:
    on = f"{found.search.n} of {n} audit items that are left to people; the thresholds rest on the others"
    rows: dict[str, Estimate] = {
        "candidates.saving": found.saving,
        "candidates.coverage": found.coverage,
        "candidates.bits": found.bits,
    }
    return [{"recipe": name, "name": what, **e._asdict(), "measured_on": on} for what, e in rows.items()]
