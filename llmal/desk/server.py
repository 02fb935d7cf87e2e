"""Opens a run, puts what waits on the desk, and serves the page until a signal says to stop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from llmal.corpus import shown
from llmal.desk.app import app_of, version
from llmal.desk.options import Options
from llmal.desk.queue import Desk
from llmal.desk.source import Source
from llmal.errors import StoreError
from llmal.extras import need

if TYPE_CHECKING:
    from llmal.context import Context
    from llmal.review.stage import Waiting
    from llmal.spec import Pipeline
    from llmal.store.store import Store


def serve(run: Path, options: Options) -> int:
    """Serve the review page.

    Args:
        run: folder of the run. A run may go on in it meanwhile, and tables may come in; no second page may.
        options: where, and who answers.

    Returns:
        How many items wait now.

    Raises:
        MissingExtra: a package of the extra `serve` is not installed.
        LlmalError: no run there, another page of it, or a port that cannot be had.
    """
    options.check()
    for package in ("fastapi", "uvicorn"):
        need(package, extra="serve", why="for the review page")
    from llmal.folder import opened
    from llmal.handover import waiting_now
    from llmal.runner import private_files
    from llmal.serve.listening import listen, server_of

    def started(address: str) -> None:
        sys.stderr.write(options.warning())
        for person, token in zip(options.people, options.tokens, strict=True):
            whose = f" of {shown(person)}" if len(options.people) > 1 else ""
            sys.stderr.write(f"review page{whose}: {address}/#token={token}\n")
        sys.stderr.write(
            "Every answer is kept at once; `llmal run` may go on beside. Stop this with Ctrl+C.\n"
        )

    with private_files(), alone(run), opened(run, write=True, beside=True) as (pipeline, store, ctx):
        desk = desk_of(pipeline, store, ctx, options)
        try:
            server = server_of(
                app_of(desk, options), options.host, options.port, started=started, stopping=lambda: None
            )
            listen(server, f"{options.host}:{options.port}")
        finally:
            desk.close()
        return len(waiting_now(pipeline, store, ctx))


def desk_of(pipeline: Pipeline, store: Store, ctx: Context, options: Options) -> Desk:
    """What waits in an opened run, for these people."""
    from llmal.desk.beside import beside
    from llmal.handover import waiting_now

    schema = pipeline.label_schema()

    def waits() -> list[Waiting]:  # uncut: what nobody can tell must not take the place of the rest
        return waiting_now(pipeline, store, ctx, cut=False)

    source = Source(store, schema.names, waits, pipeline.budget.people)
    return Desk(
        source,
        schema,
        options.people,
        version(),
        review=pipeline.review,
        adjudicators=options.adjudicators,
        seed=pipeline.seed,
        beside=lambda apart: beside(pipeline, store, ctx, apart=apart),
    )


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Keep other review pages off a run: two would give the same item to two people.

    Raises:
        StoreError: there is one, or the folder cannot be written.
    """
    lock = FileLock(run / "review.lock")
    try:
        if not (run / "store.sqlite").is_file():
            raise StoreError("no run here", where=str(run), hint="Name the folder that `llmal run` printed")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            "another review page of this run is open",
            where=str(run),
            hint="Use its address, or stop it; name everybody who answers with --person",
        ) from error
    except OSError as error:
        raise StoreError(f"cannot write the run folder: {error.strerror}", where=str(run)) from error
    try:
        yield
    finally:
        lock.release()
