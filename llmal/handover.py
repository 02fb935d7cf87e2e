"""What people are handed and what comes back: tables, other tools' files, labelling servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmal.context import Context, Progress
from llmal.errors import UserError
from llmal.folder import opened
from llmal.runner import private_files
from llmal.spec import Pipeline
from llmal.state import recipes
from llmal.store import schema as t
from llmal.store.store import Store

if TYPE_CHECKING:
    from llmal.review.stage import Waiting


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


def waiting_now(pipeline: Pipeline, store: Store, ctx: Context, *, cut: bool = True) -> list[Waiting]:
    """What waits for people in an opened run, in the order they are shown it.

    Args:
        pipeline: of the run.
        store: of the run.
        ctx: shared context.
        cut: leave out what `budget.people` has no answer left for.
    """
    from llmal.review.stage import waiting

    route = recipes(pipeline, ctx, store).route
    if not store.count(t.route, t.route.c.recipe == route):
        route = _newest_route(store)
    return waiting(
        store,
        names=pipeline.label_schema().names,
        route=route or None,
        people=pipeline.budget.people if cut else None,
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
