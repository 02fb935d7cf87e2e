"""What a run has cost: calls, tokens, money and people's answers, by round and by source."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from llmal.store import schema as t
from llmal.store.ledger import PICO
from llmal.store.store import Store

AUDIT = -1
"""Stands for the audit sample where rounds are numbered from 0."""

_SUMS = ("calls", "failed", "tokens_in", "tokens_out", "pico")


def spending(store: Store, *, local: bool) -> dict[str, Any]:
    """The ledger's calls and people's answers, summed twice.

    A call counts for the round in which its item was picked; `elsewhere` are calls about no item, or about
    one that was never picked. A call of unknown fate counts with its worst case, as in the run's bill.

    Args:
        store: of the run.
        local: the model costs no money.

    Returns:
        `by_round` and `by_source`: rows of calls, failed, tokens_in, tokens_out, usd, and by round also
        people (items they answered).
    """
    rounds: dict[int | None, dict[str, Any]] = {}
    sources: dict[tuple[str, str], dict[str, Any]] = {}
    for row in store.read(_calls()):
        facts = dict(zip(_SUMS, row[3:], strict=True))
        for sums in (
            rounds.setdefault(row.part, dict.fromkeys(_SUMS, 0)),
            sources.setdefault((row.purpose, row.model), dict.fromkeys(_SUMS, 0)),
        ):
            for name in _SUMS:
                sums[name] += int(facts[name])
    answered = {part: n for part, n in store.read(_answers())}
    every = sorted({*rounds, *answered}, key=lambda part: (part is None, part))
    zero = dict.fromkeys(_SUMS, 0)
    return {
        "by_round": [
            {"part": _words(part), "people": answered.get(part, 0), **_told(rounds.get(part, zero), local)}
            for part in every
        ],
        "by_source": [
            {"purpose": purpose, "model": model, **_told(sums, local)}
            for (purpose, model), sums in sorted(sources.items())
        ],
    }


def _calls() -> sa.Select[Any]:
    a, o, r = t.attempt.c, t.outcome.c, t.request.c
    # Asked about with others in one question: the round of the first of them.
    about = sa.func.coalesce(r.item, sa.func.json_extract(r.several, "$[0]"))
    part = _part()
    joined = (
        t.attempt.join(t.request, r.hash == a.request)
        .outerjoin(t.outcome, o.attempt == a.n)
        .outerjoin(t.audit, t.audit.c.item == about)
        .outerjoin(t.pick, t.pick.c.item == about)
    )
    sums = (
        sa.func.sum(sa.case((sa.func.coalesce(o.status, "ok") != "ok", 1), else_=0)),
        sa.func.sum(sa.func.coalesce(o.tokens_in, 0)),
        sa.func.sum(sa.func.coalesce(o.tokens_out, 0)),
        sa.func.sum(sa.func.coalesce(o.cost, a.worst)),
    )
    return (
        sa.select(part, r.purpose, r.model, sa.func.count(), *sums)
        .select_from(joined)
        .where(sa.func.coalesce(o.status, "") != "unsent")
        .group_by(part, r.purpose, r.model)
    )


def _answers() -> sa.Select[Any]:
    item, part = t.answer.c.item, _part()
    joined = t.answer.outerjoin(t.audit, t.audit.c.item == item).outerjoin(t.pick, t.pick.c.item == item)
    count = sa.func.count(item.distinct())
    return sa.select(part, count).select_from(joined).where(t.standing()).group_by(part)


def _part() -> sa.Label[Any]:
    return sa.case((t.audit.c.item.is_not(None), AUDIT), else_=t.pick.c.round).label("part")


def _words(part: int | None) -> str:
    return {None: "elsewhere", AUDIT: "audit sample"}.get(part) or f"round {int(part or 0) + 1}"


def _told(sums: dict[str, Any], local: bool) -> dict[str, Any]:
    found = {name: sums[name] for name in _SUMS if name != "pico"}
    return found | {"usd": None if local else sums["pico"] / PICO}
