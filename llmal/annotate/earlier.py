"""What earlier calls of a run really took, against what would have been said of them before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import ceil
from statistics import fmean
from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.annotate.forecast import Paper
from llmal.store import schema as t
from llmal.store.store import Store

ENOUGH = 5
"""Measured calls that count for more than an estimate from characters: of calls alike, spread is small."""

NEWEST = 2000
"""Calls looked at, the newest: prices of time change, and a server grows slower or faster."""

COMPARED = 200
"""Calls whose prompts are written out again, to see how far the estimate of their tokens was off."""

PAUSE_S = 1.0
"""Seconds without an open call that end a busy spell."""


class Earlier(NamedTuple):
    """Of the calls made so far with the same model, prompt and options.

    Attributes:
        calls: answered calls that were looked at.
        tokens_in, tokens_out: measured tokens for each estimated; 1 where too few were measured.
        compared: calls that these two rest on.
        repeats: calls for each question: tries that failed and texts asked about alone again are calls too.
        seconds: a call, mean.
        stretch: wall-clock seconds of all busy spells for each second that calls of equal length would take.
    """

    calls: int
    tokens_in: float
    tokens_out: float
    compared: int
    repeats: float
    seconds: float
    stretch: float


def earlier(store: Store, paper: Paper) -> Earlier | None:
    """What calls like those on paper took in this run; None where there are fewer than `ENOUGH`."""
    rows = _like(paper, _calls(store, "annotate", paper.llm.model))
    answered = [row for row in rows if row.status == "ok"]
    if len(answered) < ENOUGH:
        return None
    measured = [row for row in answered if row.tokens_in is not None and row.tokens_out is not None]
    said_in, said_out, n = _off(store, paper, measured[:: ceil(len(measured) / COMPARED) or 1])
    seconds = fmean(row.seconds for row in answered)
    return Earlier(len(answered), said_in, said_out, n, _repeats(rows), seconds, stretch(answered, seconds))


def kept(store: Store, paper: Paper, waiting: frozenset[int]) -> int:
    """Questions about items that still wait, whose answers a broken-off run has kept: those are free."""
    if not waiting:
        return 0
    r = t.request.c
    query = (
        sa.select(r.item, r.several, r.prompt)
        .join(t.response, t.response.c.request == r.hash)
        .where(r.purpose == "annotate", r.model == paper.llm.model)
    )
    rows = [row for row in store.read(query) if waiting.issuperset(_group(row))]
    return len(_like(paper, rows))


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


def stretch(rows: Sequence[Any], seconds: float) -> float:
    """How much longer busy spells were than calls of one length, as many open at once, would have been."""
    spells: list[list[Any]] = []
    end = 0.0
    for row in sorted(rows, key=lambda row: row.at):
        if not spells or row.at > end + PAUSE_S:
            spells.append([])
        spells[-1].append(row)
        end = max(end, row.end)
    took = sum(max(r.end for r in spell) - spell[0].at for spell in spells)
    ideal = sum(ceil(len(spell) / _most_open(spell)) * seconds for spell in spells)
    return max(took / ideal, 1.0) if ideal > 0 else 1.0


def _most_open(spell: Sequence[Any]) -> int:
    steps = sorted([(row.at, 1) for row in spell] + [(row.at + row.seconds, -1) for row in spell])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
