"""The people of a run: how much each said, how long it took, how far they agree, and who is in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmal.records import LabelSchema, Word
from llmal.store import schema as t
from llmal.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmal.stats.intervals import Estimate

MOST_PAIRED = 12
"""People whose agreement in pairs is told, those with the most words on shared texts first."""

MOST_JUDGED = 5000
"""Shared texts that people are judged by: who is to be doubted shows in far fewer, and a report is quick."""

DIGITS = 6
"""Of shares and of agreement: nobody reads more, and sums in another order give the same."""


def crew(
    store: Store, schema: LabelSchema, *, people: Sequence[str] = (), resamples: int = 1000
) -> dict[str, Any]:
    """Everything about the people of a run that a report or a page tells, as plain data.

    Agreement is how much of what others said of the same texts is what a person said, each text counted once,
    with an interval that errs to the wide side. Alpha and kappa are beyond chance. Words that settle a
    dispute are counted among nobody's words: who gives them has seen the others'. Time is all that was
    measured, that of skipped texts and of answers taken back included.

    Args:
        store: of the run.
        schema: the classes; words with others are left out.
        people: told first and in this order, whether they said anything or not.
        resamples: of the texts, for the intervals of alpha and kappa.

    Returns:
        `people`, by name: name, words, settled, minutes, median_seconds or None, agreement or None, warning;
        `minutes` of all; `shared`, texts that two people or more answered; `disputes`, those on which they
        differ and nobody settled it; `settled`, those that somebody settled; `alpha` or None; `kappa` of
        the `MOST_PAIRED` with the most shared texts: a, b and the estimate, most texts first. An estimate
        has value, low, high and n.
    """
    words = [w for w in store.words(schema.names) if schema.kind == "multi" or len(w.labels) == 1]
    said = [w for w in words if not w.adjudicates]
    closed = {w.item for w in words if w.adjudicates}
    of_item: dict[int, list[Word]] = {}
    for w in said:
        of_item.setdefault(w.item, []).append(w)
    shared = {s: some for s, some in of_item.items() if len(some) > 1}
    minutes = _minutes(store)
    names = list(dict.fromkeys([*people, *sorted({w.person for w in words} | minutes.keys())]))
    doubtful = _doubtful(shared, schema)
    agreement = _agreement(shared)
    timed: dict[str, list[float]] = {}
    for w in said:
        if w.seconds is not None:
            timed.setdefault(w.person, []).append(w.seconds)
    n_words = Counter(w.person for w in said)
    n_settled = Counter(w.person for w in words if w.adjudicates)
    return {
        "people": [
            {
                "name": name,
                "words": n_words[name],
                "settled": n_settled[name],
                "minutes": round(minutes.get(name, 0.0), 2),
                "median_seconds": round(median(timed[name]), 2) if name in timed else None,
                "agreement": agreement.get(name),
                "warning": doubtful.get(name, ""),
            }
            for name in names
        ],
        "minutes": round(sum(minutes.values()), 2),
        "shared": len(shared),
        "disputes": sum(s not in closed and len({w.labels for w in some}) > 1 for s, some in shared.items()),
        "settled": len(closed),
        **_beyond_chance(shared, schema, resamples),
    }


def _minutes(store: Store) -> dict[str, float]:
    """Person -> minutes that were measured, whatever became of them."""
    found: Counter[str] = Counter()
    for table in (t.answer, t.remark):
        c = table.c
        query = sa.select(c.person, sa.func.coalesce(sa.func.sum(c.seconds), 0.0)).group_by(c.person)
        for person, seconds in store.tuples(query):
            found[person] += seconds / 60
    return dict(found)


def _agreement(shared: Mapping[int, Sequence[Word]]) -> dict[str, dict[str, Any]]:
    """Person -> mean share of the others' words on a shared text that are the same, a text counted once."""
    from llmal.stats.intervals import Estimate, wilson

    same: dict[str, list[float]] = {}
    for some in shared.values():
        counts = Counter(w.labels for w in some)
        for w in some:
            same.setdefault(w.person, []).append((counts[w.labels] - 1) / (len(some) - 1))
    found = {}
    for person, mine in same.items():
        value = sum(mine) / len(mine)
        # A share of several words varies less than one word does: the interval errs to the wide side.
        around = wilson(round(sum(mine)), len(mine))
        found[person] = _plain(Estimate(value, min(around.low, value), max(around.high, value), len(mine)))
    return found


def _beyond_chance(
    shared: Mapping[int, Sequence[Word]], schema: LabelSchema, resamples: int
) -> dict[str, Any]:
    """Alpha of all people and kappa of every two."""
    if len(shared) < 2:
        return {"alpha": None, "kappa": []}
    import numpy as np

    from llmal.stats.reliability import krippendorff_alpha, pairwise_kappa

    item, person, names = _columns(shared)
    label = _labels(shared, schema)
    alpha = krippendorff_alpha(item, person, label, resamples=resamples)
    busiest = np.argsort(-np.bincount(person), kind="stable")[:MOST_PAIRED]
    rows = np.isin(person, busiest)
    pairs = pairwise_kappa(item[rows], person[rows], label[rows], resamples=resamples)
    pairs.sort(key=lambda pair: -pair.estimate.n)
    return {
        "alpha": None if alpha is None else _plain(alpha),
        "kappa": [{"a": names[k.a], "b": names[k.b], **_plain(k.estimate)} for k in pairs],
    }


def _doubtful(shared: Mapping[int, Sequence[Word]], schema: LabelSchema) -> dict[str, str]:
    """Person -> why that word is in doubt; from `MOST_JUDGED` texts, evenly taken, where more are shared."""
    if not shared:
        return {}
    from llmal.stats.people import doubtful_people

    every = sorted(shared)
    some = {s: shared[s] for s in every[:: -(-len(every) // MOST_JUDGED)]}
    item, person, names = _columns(some)
    found = doubtful_people(
        item,
        person,
        _labels(some, schema),
        people=len(names),
        classes=len(schema.names),
        names=schema.names,
    )
    return {names[one.annotator]: one.why for one in found}


def _columns(
    shared: Mapping[int, Sequence[Word]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Item and person of each word as numbers, and the people's names by number."""
    import numpy as np

    names = sorted({w.person for some in shared.values() for w in some})
    number = {name: i for i, name in enumerate(names)}
    item = [i for i, some in enumerate(shared.values()) for _ in some]
    person = [number[w.person] for some in shared.values() for w in some]
    return np.array(item, np.int64), np.array(person, np.int64), names


def _labels(shared: Mapping[int, Sequence[Word]], schema: LabelSchema) -> NDArray[Any]:
    """(k,) classes where an item has one label, else (k, C) sets."""
    import numpy as np

    columns = schema.columns()
    said = [w.labels for some in shared.values() for w in some]
    if schema.kind == "single":
        return np.array([columns[labels[0]] for labels in said], np.int64)
    sets = np.zeros((len(said), len(columns)), np.bool_)
    for row, labels in enumerate(said):
        sets[row, [columns[name] for name in labels]] = True
    return sets


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": round(float(estimate.value), DIGITS),
        "low": round(float(estimate.low), DIGITS),
        "high": round(float(estimate.high), DIGITS),
        "n": int(estimate.n),
    }
