"""What a run tells people: its state, what its numbers say, and what it would cost to go on."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmal.corpus import shown
from llmal.errors import UserError
from llmal.evaluate.words import lines as told_measures
from llmal.folder import opened
from llmal.generation import told
from llmal.page.crew import lines as crew_lines
from llmal.runner import private_files
from llmal.state import Outcome, outcome, parcel, recipes
from llmal.store.ledger import PICO


def state_of(run: Path) -> Outcome:
    """The state of a run, read without taking its lock."""
    with opened(run) as (pipeline, store, ctx):
        return outcome(pipeline, store, ctx)


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
