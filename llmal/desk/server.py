"""Opens a run, puts what waits on the desk, and serves the page until a signal says to stop."""

from __future__ import annotations

import sys
from pathlib import Path

from llmal.desk.app import app_of, version
from llmal.desk.options import Options
from llmal.desk.queue import Desk
from llmal.extras import need


def serve(run: Path, options: Options) -> int:
    """Serve the review page.

    Args:
        run: folder of the run; it is locked meanwhile, so no run goes on and no table comes in.
        options: where, and who answers.

    Returns:
        How many items wait now.

    Raises:
        MissingExtra: a package of the extra `serve` is not installed.
        LlmalError: no run there, a run in use, or a port that cannot be had.
    """
    options.check()
    for package in ("fastapi", "uvicorn"):
        need(package, extra="serve", why="for the review page")
    from llmal.report import opened, waiting_now
    from llmal.runner import private_files
    from llmal.serve.listening import listen, server_of

    def started(address: str) -> None:
        sys.stderr.write(f"{options.warning()}review page: {address}/#token={options.token}\n")
        sys.stderr.write("The run is locked until you stop this with Ctrl+C; every answer is kept at once.\n")

    with private_files(), opened(run, write=True) as (pipeline, store, ctx):
        desk = Desk(
            store,
            pipeline.label_schema(),
            lambda: waiting_now(pipeline, store, ctx),
            options.person,
            version(),
        )
        app = app_of(desk, options)
        server = server_of(app, options.host, options.port, started=started, stopping=lambda: None)
        listen(server, f"{options.host}:{options.port}")
        return len(waiting_now(pipeline, store, ctx))
