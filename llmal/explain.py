"""One text's whole way through a run, fact by fact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from llmal.corpus import shown
from llmal.errors import UserError
from llmal.folder import opened
from llmal.state import recipes
from llmal.store import schema as t
from llmal.store.store import Store


def explain(run: Path, row_id: str) -> dict[str, Any]:
    """Every fact about one row of the corpus, in the order they were made.

    Raises:
        UserError: no row has that id.
    """
    with opened(run) as (pipeline, store, ctx):
        row = store.read(
            sa.select(t.row).where(t.row.c.corpus == store.newest_corpus(), t.row.c.id == row_id).limit(1)
        )
        if not row:
            raise UserError(
                f"no row with the id '{shown(row_id)}'", where=str(run), hint="Use the id of your corpus"
            )
        if row[0].item is None:
            return {"id": row_id, "position": row[0].position, "skipped": row[0].skipped}
        seq = int(row[0].item)
        names = recipes(pipeline, ctx, store)
        item = store.items([seq])[0]
        found: dict[str, Any] = {
            "id": row_id,
            "position": row[0].position,
            "text": item.text,
            "flags": item.flags,
        }
        found["audit"] = seq in store.reserved()
        found["gold"] = json.loads(row[0].gold) if row[0].gold else None
        found["pick"] = _one(store, sa.select(t.pick).where(t.pick.c.item == seq))
        doubt = sa.select(t.doubt).where(t.doubt.c.item == seq).order_by(t.doubt.c.round)
        found["doubts"] = [_plain(d) for d in store.read(doubt)]
        current = {names.annotations: "current"}
        c = t.annotation.c
        annotations = store.read(sa.select(t.annotation).where(c.item == seq).order_by(c.at))
        found["annotations"] = [{**_plain(a), "recipe": current.get(a.recipe, a.recipe)} for a in annotations]
        found["calls"] = _calls(store, seq)
        d = t.decision.c
        found["decision"] = _one(
            store, sa.select(t.decision).where(d.item == seq, d.recipe == names.decisions)
        )
        found |= _said(store, pipeline.label_schema().names, seq)
        r = t.route.c
        found["route"] = _one(store, sa.select(t.route).where(r.item == seq, r.recipe == names.route))
        lists = store.shortlist(names.route, pipeline.review.recipe())
        found["candidates"] = store.candidates(lists.recipe).get(seq) if lists else None
        return found


def _said(store: Store, names: list[str], seq: int) -> dict[str, Any]:
    """What people said of an item, what was taken back, and what they hold together now."""
    a, r = t.answer.c, t.remark.c
    gone = {n for (n,) in store.read(sa.select(r.answer).where(r.item == seq, r.answer.is_not(None)))}
    answers = store.read(sa.select(t.answer).where(a.item == seq).order_by(a.n))
    remarks = store.read(sa.select(t.remark).where(r.item == seq).order_by(r.n))
    return {
        "answers": [_plain(one) | {"taken_back": one.n in gone} for one in answers],
        "remarks": [_plain(one) for one in remarks],
        "flagged": store.flagged().get(seq),
        "together": store.answers(names, [seq]).get(seq),
    }


def _calls(store: Store, seq: int) -> list[dict[str, Any]]:
    a, o = t.attempt.c, t.outcome.c
    joined = t.attempt.join(t.request, t.request.c.hash == a.request).outerjoin(t.outcome, o.attempt == a.n)
    columns = (a.n, a.request, a.ordinal, o.status, o.reason, o.tokens_in, o.tokens_out, o.cost)
    r = t.request.c  # asked about alone, or in one question with others
    about = sa.or_(
        r.item == seq, *(r.several.like(like) for like in (f"[{seq},%", f"%,{seq},%", f"%,{seq}]"))
    )
    found = store.read(sa.select(*columns).select_from(joined).where(about).order_by(a.n))
    names = ("n", "request", "attempt", "status", "reason", "tokens_in", "tokens_out", "picodollars")
    return [dict(zip(names, row, strict=True)) for row in found]


def _one(store: Store, query: Any) -> dict[str, Any] | None:
    found = store.read(query)
    return _plain(found[0]) if found else None


def _plain(row: Any) -> dict[str, Any]:
    out = dict(row._mapping)
    for name in ("labels", "probs", "shown", "saw"):
        if out.get(name):
            out[name] = json.loads(out[name])
    return {k: v for k, v in out.items() if k != "item"}


def explain_text(found: dict[str, Any]) -> str:
    """The same for a person."""
    if "skipped" in found:
        return f"{found['id']} (row {found['position']}) was set aside: {found['skipped']}"
    lines = [f"{shown(found['id'])} (row {found['position']}): {shown(found['text'], limit=200)}"]
    if found["flags"]:
        lines.append(f"  flags     {', '.join(found['flags'])}")
    if found["audit"]:
        lines.append("  audit     reserved for measuring; never trained on")
    if p := found["pick"]:
        lines.append(
            f"  picked    round {p['round'] + 1}, place {p['rank'] + 1}, by {p['by']}: {p['reason']}"
        )
    lines += [f"  doubted   round {d['round'] + 1}, by {d['by']}: {d['reason']}" for d in found["doubts"]]
    for a in found["annotations"]:
        label = ", ".join(a["labels"]) or "-"
        sure = "" if a["confidence"] is None else f", {a['kind']} confidence {a['confidence']:.3f}"
        lines.append(
            f"  annotated {a['status']}: {label}{sure}"
            f"{' (' + shown(a['detail']) + ')' if a['detail'] else ''}"
        )
    if found["calls"]:
        lines.append(
            f"  calls     {len(found['calls'])}: "
            f"{', '.join(c['status'] or 'unknown fate' for c in found['calls'])}"
        )
    if d := found["decision"]:
        lines.append(f"  filter    {d['verdict']}: {d['reason']}")
    lines += _said_words(found)
    if r := found["route"]:
        lines.append(f"  label     {', '.join(r['labels']) or '-'} by {r['who']}: {r['reason']}")
    if (some := found["candidates"]) is not None:
        lines.append(f"  shown     {', '.join(some) or 'the full list: no label is likely enough'}")
    return "\n".join(lines)


def _said_words(found: dict[str, Any]) -> list[str]:
    """What people said of an item, a line each."""
    lines = []
    for a in found["answers"]:
        line = f"{_names(a['labels'])} by {shown(a['person'])}"
        line += f", from {_names(a['shown'])}" if a["shown"] else ""
        line += f", beside the machine's {_names(a['saw'])}" if a["saw"] is not None else ""
        line += f": {shown(a['note'])}" if a["note"] else ""
        head = "settled" if a["role"] == t.ADJUDICATE else "answered"
        lines.append(f"  {head:9} {line}{' (taken back)' if a['taken_back'] else ''}")
    for r in found["remarks"]:
        if words := _REMARK.get(r["what"]):
            lines.append(f"  {words:9} by {shown(r['person'])}{': ' + shown(r['note']) if r['note'] else ''}")
    if len({a["person"] for a in found["answers"]}) > 1:
        lines.append(f"  together  {'open' if found['together'] is None else _names(found['together'])}")
    return lines


def _names(labels: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in labels) or "none"


_REMARK = {"skip": "skipped", "unsure": "not sure", "flag": "flagged", "unflag": "unflagged"}
"""How remarks are told; an undo is told beside the answer."""
