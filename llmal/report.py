"""What a run tells people: its state, one item's way, what waits for them, and what its numbers say."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmal.context import Context, Progress
from llmal.corpus import shown
from llmal.errors import UserError
from llmal.evaluate.words import lines as told_measures
from llmal.generation import told
from llmal.page.crew import lines as crew_lines
from llmal.runner import private_files
from llmal.spec import Pipeline
from llmal.state import Outcome, outcome, parcel, recipes
from llmal.store import schema as t
from llmal.store.ledger import PICO
from llmal.store.store import Store, open_store

if TYPE_CHECKING:
    from llmal.review.stage import Waiting


@contextmanager
def opened(
    run: Path, *, write: bool = False, beside: bool = False
) -> Iterator[tuple[Pipeline, Store, Context]]:
    """A run folder with its frozen pipeline, whose relative paths start where the run's own file lay.

    Args:
        run: folder of the run.
        write: as in `llmal.store.store.open_store`.
        beside: as there.
    """
    store = open_store(run, write=write, beside=beside)
    try:
        home = _home(store)
        pipeline = Pipeline.from_yaml(run / "pipeline.yaml", home=home)
        yield pipeline, store, Context(run, home=home, seed=pipeline.seed)
    finally:
        store.close()


def _home(store: Store) -> Path:
    found = store.read(sa.select(t.meta.c.value).where(t.meta.c.name == "home"))
    return Path(found[0][0]) if found else Path.cwd()


def state_of(run: Path) -> Outcome:
    """The state of a run, read without taking its lock."""
    with opened(run) as (pipeline, store, ctx):
        return outcome(pipeline, store, ctx)


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


def review(
    run: Path,
    *,
    out: Path | None,
    into: Path | None,
    person: str,
    spreadsheet: bool,
    form: str | None = None,
    answered: bool = False,
) -> dict[str, Any]:
    """Hand out what waits, take answers back, or both (back first).

    Args:
        run: folder of the run.
        out: where to write what waits.
        into: file with answers.
        person: who answered, where the file does not say.
        spreadsheet: put ' before cells a spreadsheet would run.
        form: the tool both files are for; None for a table, and found out for `into`.
        answered: write what people answered instead of what waits, for another tool.

    Raises:
        UserError: neither was asked for.
        ReviewError: a table cannot be read or written.
    """
    from llmal.review import exchange, table

    if form is not None:
        exchange.chosen(form)
    if (form is not None and spreadsheet) or (answered and out is None):
        raise UserError(
            "--for-spreadsheet is for tables, --answered for a file to write",
            where="review",
            hint="Say --out FILE, or leave --answered out",
        )
    if out is None and into is None:
        raise UserError("say --out FILE to hand items out, or --in FILE to take answers back", where="review")
    found: dict[str, Any] = {}
    with opened(run, write=into is not None, beside=True) as (pipeline, store, ctx):
        if into is not None:
            with private_files():
                schema, tool = pipeline.label_schema(), form or exchange.detect(into)
                found["taken"] = (
                    exchange.take_back(store, into, schema, tool, person=person)
                    if tool
                    else table.take_back(store, into, schema, person=person)
                )._asdict()
        if out is not None and form is not None:
            found |= _for_tool(pipeline, store, ctx, out, form, answered=answered)
        elif out is not None and answered:
            n = table.answered_out(store, pipeline.label_schema(), out, spreadsheet=spreadsheet)
            found |= {"words": n, "file": str(out)}
        elif out is not None:
            found |= {
                "handed_out": table.hand_out(
                    store, waiting_now(pipeline, store, ctx), out, spreadsheet=spreadsheet
                ),
                "file": str(out),
            }
    return found


def review_server(
    run: Path,
    *,
    push: str | None,
    pull: str | None,
    url: str | None,
    dataset: str | None,
    person: str,
    progress: Progress,
) -> dict[str, Any]:
    """Take the answers of a labelling server, send what waits to one, or both (answers first).

    Args:
        run: folder of the run.
        push: kind of server that what waits goes to, or None.
        pull: kind of server whose answers are taken, or None.
        url: of the server; the environment's where None.
        dataset: what it is called there; after the run and its labels where None.
        person: who answered, where the server does not say.
        progress: shows a bar.

    Raises:
        UserError: no such kind of server, no key, an unsafe address, or no such data set.
        MissingExtra: the tool's SDK is not installed.
        LlmalError: the server refused.
    """
    from llmal.review.exchange import waiting_work
    from llmal.review.servers.traffic import Traffic, called

    found: dict[str, Any] = {}
    with private_files(), opened(run, write=pull is not None, beside=True) as (pipeline, store, ctx):
        schema = pipeline.label_schema()
        name = called(run, schema, dataset)
        if pull is not None:
            there = Traffic(pull, url, dataset=name, schema=schema, progress=progress)
            found["taken"] = there.pull(store, run / "pulled", person=person)._asdict()
        if push is not None:
            there = Traffic(push, url, dataset=name, schema=schema, progress=progress)
            works = waiting_work(store, waiting_now(pipeline, store, ctx))
            found["sent"] = there.push(works, blind=pipeline.review.show == "blind")._asdict()
    return found


def _for_tool(
    pipeline: Pipeline, store: Store, ctx: Context, out: Path, form: str, *, answered: bool
) -> dict[str, Any]:
    from llmal.review import exchange

    schema = pipeline.label_schema()
    works = list(
        exchange.answered_work(store, schema)
        if answered
        else exchange.waiting_work(store, waiting_now(pipeline, store, ctx))
    )
    beside = exchange.hand_out(store, works, out, schema, form)
    return {"handed_out": len(works), "file": str(out), "beside": [str(path) for path in beside]}


def waiting_now(pipeline: Pipeline, store: Store, ctx: Context) -> list[Waiting]:
    """What waits for people in an opened run, in the order they are shown it."""
    from llmal.review.stage import waiting

    route = recipes(pipeline, ctx, store).route
    if not store.count(t.route, t.route.c.recipe == route):
        route = _newest_route(store)
    return waiting(
        store,
        names=pipeline.label_schema().names,
        route=route or None,
        people=pipeline.budget.people,
        options=pipeline.review,
    )


def _newest_route(store: Store) -> str:
    """The routes made last: fresh answers change the recipe before the next run makes new ones."""
    found = store.read(sa.select(t.route.c.recipe).order_by(sa.literal_column("rowid").desc()).limit(1))
    return str(found[0][0]) if found else ""


def review_text(found: dict[str, Any]) -> str:
    """The same for a person."""
    lines = []
    if taken := found.get("taken"):
        lines.append(
            f"took {taken['new']} new answers ({taken['known']} known already, {taken['open']} rows open)"
        )
        if taken.get("skipped") or taken.get("older"):
            lines.append(
                f"left out {taken['skipped']} drafts, cancelled or rejected answers, "
                f"and {taken['older']} that the same person has replaced since"
            )
        lines += [f"set aside: {reason}" for reason in taken["aside"]]
    if "words" in found:
        lines.append(f"wrote {found['words']} answers to {found['file']}")
    if sent := found.get("sent"):
        lines.append(
            f"sent {sent['new']} items to {'the new' if sent['made'] else 'the'} data set {sent['dataset']} "
            f"({sent['known']} were there already)"
        )
    if "beside" in found:
        lines.append(
            f"wrote {found['handed_out']} items to {found['file']}, and what sets the project up to "
            f"{', '.join(found['beside'])}; then llmal review RUN --in EXPORT"
        )
    elif "handed_out" in found:
        lines.append(
            f"wrote {found['handed_out']} items to {found['file']}; "
            "fill in `answer`, then llmal review RUN --in FILE"
        )
    return "\n".join(lines)


def full(run: Path, *, html: Path | None = None) -> dict[str, Any]:
    """The facts of the run's report, collected anew; see `llmal.page.facts`.

    Args:
        run: folder of the run; it is only read.
        html: where to write the page, if anywhere.

    Raises:
        UserError: the page cannot be written there.
    """
    from llmal.page.facts import collect
    from llmal.page.html import page
    from llmal.page.write import put

    with opened(run) as (pipeline, store, ctx):
        found = collect(pipeline, store, ctx)
    if html is not None:
        with private_files():
            try:
                put(html, page(found))
            except OSError as error:
                raise UserError(
                    f"cannot write the page: {error.strerror}", where=str(html), hint="Name another file"
                ) from error
    return found


def export(
    run: Path,
    out: Path | None,
    *,
    push: str | None = None,
    public: bool = False,
    agree: Callable[[str], bool] = lambda _: False,
) -> dict[str, Any]:
    """Write the final student to a folder, and send it to a model hub where that is asked for.

    Args:
        run: folder of the run.
        out: where to; a folder that is gone afterwards when None.
        push: repository on the hub.
        public: whether everybody may read it there.
        agree: shown what would go out; nothing is sent unless it says yes.

    Returns:
        `export`, the folder or None, and with `push` also `pushed`, the address or None.

    Raises:
        UserError: there is no final student yet, the folder holds something else, or see `llmal.export.push`.
    """
    if push is None:
        assert out is not None
        return _exported(run, out)
    from llmal.export.push import push as send

    with TemporaryDirectory() as place:
        folder = Path(place) / "model" if out is None else out
        found = _exported(run, folder)
        sent = send(folder, push, public=public, agree=agree)
    return {"export": None if out is None else found["export"], "pushed": sent}


def export_text(found: dict[str, Any]) -> str:
    """What `export` did, for a person."""
    lines = []
    if found["export"]:
        lines.append(f"wrote {found['export']}; load it with llmal.load or transformers.pipeline")
    if "pushed" in found:
        lines.append(f"sent to {found['pushed']}" if found["pushed"] else "nothing was sent")
    return "\n".join(lines)


def _exported(run: Path, out: Path) -> dict[str, Any]:
    from llmal.export.stage import write

    if out.exists() and not (out / "llmal.json").is_file() and any(out.iterdir()):
        raise UserError("this folder holds something else", where=str(out), hint="Name an empty or a new one")
    with opened(run) as (pipeline, store, ctx):
        write(pipeline.export, parcel(pipeline, store, ctx, recipes(pipeline, ctx, store)), out.resolve())
    return {"export": str(out)}


def full_text(found: dict[str, Any]) -> str:
    """The report for a person: labels, measures, rounds, what to do next."""
    lines = [
        *found["answer"],
        found["promise"]["words"],
        "",
        "Labels",
        f"  items {found['items']}, rows {found['rows']}, set aside {sum(found['skipped'].values())}",
    ]
    lines += [f"  {source:8} {n}" for source, n in found["labels"]["source"].items() if n]
    lines += ["", "Measured on the audit sample (95 % intervals)"]
    if found["measures"]:
        lines += [f"  {words}".rstrip() for words in told_measures(found["measures"])]
    else:
        lines.append("  nothing yet")
    if found.get("candidate_sets"):
        lines += ["", "Short lists for people", f"  {found['candidate_sets']}"]
    if done := found["audit_holes"]["words"]:
        lines += ["", "Holes in the audit sample", f"  {done}"]
    if told_people := crew_lines(found["people"]["crew"]):
        lines += ["", "People", *(f"  {words}" for words in told_people)]
    if found["people"]["flagged"]:
        lines.append(f"  {found['people']['flagged']:,} texts are flagged: see `llmal explain RUN ID`")
        lines += [f"  flagged {shown(f['id'])}: {shown(f['note'])}" for f in found["people"]["flags"]]
    lines += ["", "Rounds"]
    lines += [
        (
            f"  {r['round']}: {r['picked']} picked by {r['by']}, "
            f"{r['answered']} answered, {r['accepted']} accepted"
        )
        for r in found["rounds"]
    ]
    if found.get("synthetic"):
        lines += ["", "Texts written by a model", *(f"  {words}" for words in told(found["synthetic"]))]
    if found["not_accepted"]:
        lines += [
            "",
            "Not accepted for training",
            *(f"  {n:5} {why}" for why, n in found["not_accepted"].items()),
        ]
    if found["failures"]:
        lines += ["", "Failed calls", *(f"  {n:5} {why}" for why, n in found["failures"].items())]
    if found["next"]:
        lines += ["", "Next", *(f"  - {words}" for words in found["next"])]
    return "\n".join(lines)


def outcome_text(done: Outcome) -> str:
    """The short table a run ends with."""
    cost = done.bill
    tokens = f"{cost.tokens_in:,} tokens in, {cost.tokens_out:,} out"
    money = (
        f"local ({tokens})"
        if done.local
        else f"${cost.cost / PICO:.4f}" + (f" ({tokens})" if cost.calls else "")
    )
    aside = sum(done.skipped.values())
    rows = [
        (
            "items",
            f"{done.items:,} distinct texts in {done.rows:,} rows"
            + (f", {aside} set aside" if aside else ""),
        ),
        (
            "labels",
            ", ".join(f"{n:,} {_SOURCE[s]}" for s, n in done.labels["source"].items() if n) or "none yet",
        ),
        ("calls", f"{cost.calls:,}" + (f", {cost.unknown} of unknown fate" if cost.unknown else "")),
        ("cost", money),
        ("people", done.asks.words(done.run)),
        *((("short lists", done.candidates),) if "candidates.saving" in done.measures else ()),
        *(
            (f"{who} accuracy", _measure(done.measures[key]))
            for key, who in _ACCURACY.items()
            if key in done.measures
        ),
        *((("more labels", forecast["measured_on"]),) if (forecast := _forecast(done)) else ()),
        ("classifier", str(done.export) if done.export else "none yet"),
        *([("report", str(page))] if (page := done.run / "report.html").is_file() else []),
        ("run", str(done.run)),
    ]
    if done.synthetic:
        rows.insert(2, ("written", told(done.synthetic)[0]))
    if done.certificate:
        rows.insert(-2, ("certificate", done.certificate["words"]))
    if done.holes.n:
        rows.insert(-2, ("audit holes", done.holes.words(done.measures)))
    if not done.measures:
        rows.insert(5, ("accuracy", "not measured: no people's answers on the audit sample yet"))
    if done.stopped:
        rows.append(("rounds", done.stopped))
    if done.waiting:
        rows.append(
            (
                "next",
                "answer on that page or, with --out and --in, in a file; then run again (--watch does)",
            )
        )
    return _table(rows)


_SOURCE = {"human": "by people", "llm": "by the annotator", "student": "by the student", "none": "open"}
_ACCURACY = {
    "student.accuracy": "student",
    "student.accuracy.active": "student, actively tested,",
    "accepted.accuracy": "accepted",
    "annotator.accuracy": "annotator",
}


def _forecast(done: Outcome) -> dict[str, Any] | None:
    """What the next labels buy, where enough rounds were measured to tell."""
    found = (m for name, m in done.measures.items() if name.startswith("forecast."))
    return next((m for m in found if m["value"] is not None), None)


def _measure(m: dict[str, Any]) -> str:
    return f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}], n = {m['n']}, 95 % interval"


def plan_text(found: dict[str, Any]) -> str:
    """The plan for a person."""
    cost = "local: no money" if found["usd"] is None else f"${found['usd']:.4f}"
    cap = f" of a cap of ${found['usd_cap']:.2f}" if found["usd_cap"] is not None else ""
    spent = f"; ${found['usd_spent_already']:.4f} spent already" if found["usd_spent_already"] else ""
    people = found["people"]
    most = "no cap" if people["cap"] is None else f"at most {people['cap']}"
    return _table(
        [
            (
                "items",
                f"{found['items']:,} distinct texts in {found['rows']:,} rows, {found['skipped']} set aside",
            ),
            (
                "to annotate",
                f"{found['items_to_annotate']:,} ({found['items_annotated_already']:,} done already)",
            ),
            ("calls", f"about {found['calls']:,}"),
            ("tokens", f"about {found['tokens_in']:,} in, {found['tokens_out']:,} out"),
            ("money", cost + cap + spent),
            ("people", f"{people['audit']} audit answers, then uncertain items ({most})"),
            (
                "time",
                f"about {found['seconds'] / 60:.0f} min"
                if found["seconds"] > 90
                else f"about {found['seconds']} s",
            ),
            ("counted", found["note"]),
            ("timed", found["seconds_note"]),
        ]
    )


def _table(rows: list[tuple[str, str]]) -> str:
    """Two columns; Rich draws them, and no text in them is markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(show_header=False, box=None, pad_edge=False)
    for left, right in rows:
        grid.add_row(Text(left, style="bold"), Text(right, overflow="fold"))
    out = io.StringIO()
    console = Console(
        file=out, width=None if sys.stdout.isatty() else 200, force_terminal=sys.stdout.isatty()
    )
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
