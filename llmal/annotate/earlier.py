"""What earlier calls of a run really took, against what would have been said of them before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from heapq import heapreplace
from itertools import accumulate
from math import ceil
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from llmal.annotate.forecast import Paper
from llmal.records import batched
from llmal.store import schema as t
from llmal.store.store import Store

ENOUGH = 5
"""Measured calls that count for more than an estimate from characters: of calls alike, spread is small."""

NEWEST = 2000
"""Calls looked at, the newest: prices of time change, and a server grows slower or faster."""

COMPARED = 200
"""Calls whose prompts are written out again, to see how far the estimate of their tokens was off."""

LONG = 5000
"""Calls after which the start and the end of a spell no longer count."""

PAUSE_S = 1.0
"""Seconds without an open call that end a busy spell."""


class Earlier(NamedTuple):
    """Of the calls made so far with the same model, prompt and options.

    Attributes:
        calls: answered calls that were looked at.
        tokens_in, tokens_out: measured tokens for each estimated; 1 where too few were measured.
        compared: calls that these two rest on.
        repeats: calls for each question: tries that failed and texts asked about alone again are calls too.
        seconds: of each of these calls.
        stretch: wall-clock seconds of busy spells for each second that such calls need where every place is
            taken again at once.
    """

    calls: int
    tokens_in: float
    tokens_out: float
    compared: int
    repeats: float
    seconds: tuple[float, ...]
    stretch: float

    def wall(self, calls: int, places: int) -> float:
        """Seconds by the clock that calls take when so many may be open at once: the mean of a few draws."""
        if calls < 1:
            return 0.0
        some = min(calls, LONG)
        drawn = np.random.default_rng(0).choice(self.seconds, (max(1, min(20, LONG // some)), some))
        spans = [makespan(part.tolist(), places) for part in drawn]
        return fmean(spans) * self.stretch * calls / some


def earlier(store: Store, paper: Paper) -> Earlier | None:
    """What calls like those on paper took in this run; None where there are fewer than `ENOUGH`."""
    rows = _like(paper, _calls(store, "annotate", paper.llm.model))
    answered = [row for row in rows if row.status == "ok"]
    if len(answered) < ENOUGH:
        return None
    measured = [row for row in answered if row.tokens_in is not None and row.tokens_out is not None]
    said_in, said_out, n = _off(store, paper, measured[:: ceil(len(measured) / COMPARED) or 1])
    order = np.random.default_rng(0).permutation(
        len(answered)
    )  # neighbours are alike: slow spells, long texts
    seconds = tuple(answered[i].seconds for i in order)
    return Earlier(len(answered), said_in, said_out, n, _repeats(rows), seconds, stretch(answered))


def kept(store: Store, paper: Paper, waiting: frozenset[int]) -> int:
    """Questions about items that still wait, whose answers a broken-off run has kept: those are free."""
    c = t.response.c.request
    if not waiting or store.count(t.response) == 0:
        return 0
    asked = paper.questions([store.items(sorted(waiting))], asks=paper.llm.asks)
    hashes = [q.request.hash() for q in asked]
    return sum(store.count(t.response, c.in_(some)) for some in batched(hashes, 500))


def _calls(store: Store, purpose: str, model: str) -> Sequence[Any]:
    """Calls of one purpose to a model, the newest last; those that never left are no calls."""
    a, o, r = t.attempt.c, t.outcome.c, t.request.c
    query = (
        sa.select(
            a.request, a.at, o.status, o.seconds, o.tokens_in, o.tokens_out, o.at.label("end"), r.item,
            r.several, r.prompt,
        )
        .join(t.request, r.hash == a.request)
        .join(t.outcome, o.attempt == a.n)
        .where(r.purpose == purpose, r.model == model, o.status != "unsent")
        .order_by(a.n.desc())
        .limit(NEWEST)
    )  # fmt: skip
    return store.read(query)[::-1]


def _like(paper: Paper, rows: Sequence[Any]) -> list[Any]:
    """Calls whose unchanging part is that of the questions on paper; a shortlist changes it all the time."""
    if not rows or not paper.sample:
        return []
    if paper.llm.shortlist:
        return list(rows)
    few = paper.sample[: paper.llm.batch]
    asked = paper.questions([few, few[:1]], asks=min(paper.llm.asks, len(paper.schema.labels)))
    frames = {q.request.prompt for q in asked}
    return [row for row in rows if row.prompt in frames]


def _group(row: Any) -> list[int]:
    return json.loads(row.several) if row.several else [row.item]


def _off(store: Store, paper: Paper, rows: Sequence[Any]) -> tuple[float, float, int]:
    """Measured tokens for each estimated, of prompts and of answers, and the number of calls compared."""
    rows = [row for row in rows if row.item is not None and len(_group(row)) <= paper.llm.batch]
    if len(rows) < ENOUGH:
        return 1.0, 1.0, 0
    asked = paper.questions([store.items(_group(row)) for row in rows])
    ins, outs = sum(q.tokens_in for q in asked), sum(q.tokens_out for q in asked)
    return sum(r.tokens_in for r in rows) / ins, sum(r.tokens_out for r in rows) / max(outs, 1.0), len(rows)


def _repeats(rows: Sequence[Any]) -> float:
    """Calls for each question that had to be asked."""
    questions = {row.request: _group(row) for row in rows}
    together = {item for group in questions.values() if len(group) > 1 for item in group}
    alone_again = sum(len(group) == 1 and group[0] in together for group in questions.values())
    return len(rows) / max(1, len(questions) - alone_again)


def stretch(rows: Sequence[Any]) -> float:
    """How much longer busy spells were than if every place had been taken again at once."""
    spells: list[list[Any]] = []
    end = 0.0
    for row in sorted(rows, key=lambda row: row.at):
        if not spells or row.at > end + PAUSE_S:
            spells.append([])
        spells[-1].append(row)
        end = max(end, row.end)
    took = sum(max(r.end for r in spell) - spell[0].at for spell in spells)
    least = sum(makespan([r.seconds for r in spell], _most_open(spell)) for spell in spells)
    return max(took / least, 1.0) if least > 0 else 1.0


def makespan(seconds: Sequence[float], places: int) -> float:
    """When the last call ends if each starts as soon as a place is free (list scheduling, Graham 1966)."""
    free = [0.0] * min(places, len(seconds))
    for length in seconds:
        heapreplace(free, free[0] + length)
    return max(free, default=0.0)


def _most_open(spell: Sequence[Any]) -> int:
    steps = sorted([(row.at, 1) for row in spell] + [(row.at + row.seconds, -1) for row in spell])
    return max(accumulate(step for _, step in steps))


def rests_on(paper: Paper, past: Earlier | None) -> tuple[str, ...]:
    """On what the counts of calls and tokens rest, in words."""
    if past is None:
        again = "texts whose prompt comes back incomplete are asked about once more, alone: not counted"
        return (paper.tokens.words, again) if paper.llm.batch > 1 else (paper.tokens.words,)
    tokens = (
        f"tokens as in {past.compared} of {past.calls} earlier calls" if past.compared else paper.tokens.words
    )
    if past.repeats < 1.005:
        return (tokens,)
    return tokens, f"{past.repeats:.2f} calls for each question, as before"
