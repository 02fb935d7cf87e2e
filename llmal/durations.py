"""How long the parts of a run take: calls by what earlier ones took, the machine's own work by constants."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import sqlalchemy as sa

from llmal.annotate.earlier import Earlier
from llmal.lm.asker import Asker
from llmal.lm.vllm import is_vllm
from llmal.plugins import Plugin
from llmal.records import Item
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import Store

SECONDS_A_CALL = 1.0
"""Of a hosted model answering a short prompt: an assumption, until the run has made calls of its own."""

PROBE_S = 0.1
"""Of the one question an endpoint is asked first, and of opening the ledger."""

BURST_S = 10.0
"""Seconds' worth of tokens that the limiter lets through at once at the start."""

REFERENCE = 50.0
"""Billions of multiplications a second, by `speed`, of the machine the constants below were measured on."""

SECONDS_A_TEXT = {"sentence": 0.005, "hashing": 0.0001}
"""Of embedding one text of about 20 words on the reference machine; measured on 2026-11-21."""

SECONDS_TO_OPEN = {"sentence": 6.0, "hashing": 0.3}
"""Of importing an encoder's libraries and reading its weights, on the reference machine."""

SECONDS_A_FIT = {"linear": 0.4, "finetune": 60.0}
"""Of fitting a student on some hundred texts and predicting some thousand, on the reference machine."""

TEXTS_A_FIT = 600
"""Texts up to which fine-tuning takes the same number of steps; more take more in proportion."""

FITS_A_LOOP = 4
"""Students that a loop of written texts fits: one that is measured, three that leave out a part each."""

SECONDS_TO_FINISH = 0.5
"""Of routes, measures and export, on the reference machine."""


class Seen(NamedTuple):
    """Seconds that a run's own stages took, where its facts tell: None where they do not."""

    rounds: float | None = None
    final: float | None = None
    finish: float | None = None


def calls_seconds(asker: Asker, calls: Sequence[int], limited: float, past: Earlier | None) -> float:
    """Wall-clock seconds of the calls of some rounds, one round after the other.

    Args:
        asker: whose calls they are: how many are open at once, and how many a minute are allowed.
        calls: of each round.
        limited: tokens of one call as the limiter counts them.
        past: what earlier calls took; without it `SECONDS_A_CALL` is assumed.
    """
    open_at_once = asker.endpoint().in_flight if is_vllm(asker.model) else asker.in_flight
    total = 0.0
    for n in calls:
        waves = ceil(n / open_at_once) * SECONDS_A_CALL
        bounds = [past.wall(n, open_at_once) if past else waves]
        if asker.requests_per_minute:
            bounds.append((n - 1) * 60 / asker.requests_per_minute)
        if asker.tokens_per_minute:
            bounds.append(n * limited * 60 / asker.tokens_per_minute - BURST_S)
        total += max(bounds)
    return total


def learning_seconds(
    pipeline: Pipeline, items: list[Item], store: Store | None, learnt: int, rounds: int, loops: int = 0
) -> tuple[dict[str, float], str]:
    """Seconds of embedding, the students of rounds, the final one and the end; and on what they rest.

    Args:
        pipeline: the run's.
        items: the corpus.
        store: of the run, or None before there is one.
        learnt: items the final student will learn from, about.
        rounds: those that there will be in all.
        loops: in which texts are still to be written; each fits the student of the rounds four times.
    """

    def of(table: dict[str, float], plugin: Plugin) -> float:
        return table.get(getattr(plugin, "shipped", plugin).name, max(table.values()))

    factor = REFERENCE / speed()
    done = store.covered(pipeline.embed.recipe()) if store else 0
    encoder, final = pipeline.embed, pipeline.train.final
    seen = _seen(store) if store else Seen()
    left = max(0, len(items) - done)
    fits = rounds - 1 - (_fitted(store) if store else 0)
    opening = of(SECONDS_TO_OPEN, encoder) * factor
    whole = {
        "embed": opening + left * of(SECONDS_A_TEXT, encoder) * factor if left else 0.0,
        "rounds": max(0, fits) * (seen.rounds or of(SECONDS_A_FIT, pipeline.train.rounds) * factor),
        "final": (1 + pipeline.train.folds)
        * (seen.final or of(SECONDS_A_FIT, final) * factor * max(1.0, learnt / TEXTS_A_FIT)),
        "finish": seen.finish or SECONDS_TO_FINISH * factor,
    }
    if loops:
        whole["generate"] = (FITS_A_LOOP * loops + 1) * (
            seen.rounds or of(SECONDS_A_FIT, pipeline.train.rounds) * factor
        )
    measured = [name for name in Seen._fields if getattr(seen, name) is not None]
    words = f"{', '.join(measured)} as in this run before; " if measured else ""
    return whole, words + "the machine's other work by constants, good to a factor of two"


def speed() -> float:
    """Billions of multiplications a second of this process's matrix product, measured in some 20 ms."""
    import numpy as np

    a = np.ones((256, 384), np.float32)
    b = np.ones((384, 1536), np.float32)
    a @ b
    best = min(_timed(lambda: a @ b) for _ in range(10))
    return a.shape[0] * b.size / best / 1e9


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _fitted(store: Store) -> int:
    return store.count(t.student, t.student.c.role == "rounds")


def _seen(store: Store) -> Seen:
    """From the times facts were written at; where the user paused they are too long, so the least counts."""
    answered = [at for (at,) in store.read(sa.select(t.annotation.c.at).order_by(t.annotation.c.at))]
    students = store.read(sa.select(t.student.c.role, t.student.c.round, t.student.c.at))
    picked = dict(store.read(sa.select(t.pick.c.round, sa.func.min(t.pick.c.at)).group_by(t.pick.c.round)))
    exports = [at for (at,) in store.read(sa.select(t.export.c.at))]
    rounds, final, finish = [], [], []
    for role, number, at in students:
        before = [one for one in answered if one < at]
        if before and role == "final":
            final.append(at - before[-1])
            finish += [min(e for e in exports if e >= at) - at] if any(e >= at for e in exports) else []
        elif before and number in picked and picked[number] >= at:
            rounds.append(picked[number] - before[-1])
    return Seen(*(min(found) if found else None for found in (rounds, final, finish)))
