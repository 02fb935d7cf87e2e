"""Listens on a port, says where, and stops gracefully: the classifier's server and people's page alike."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmal.errors import LlmalError, StoreError
from llmal.serve.guard import App

GRACE_S = 20
"""Seconds that requests under way get to finish after a stop signal."""

MOST_CONNECTIONS = 1_000
"""Connections beyond which new ones are told to come back."""


def listen(server: Any, place: str, failed: Sequence[LlmalError] = ()) -> None:
    """Serve until a signal says to stop.

    Args:
        server: from `server_of`.
        place: host and port, for the error.
        failed: why it has to end, where it has; may grow while it serves.

    Raises:
        StoreError: the port cannot be had.
        LlmalError: the first of `failed`.
    """
    try:
        server.run()
    except SystemExit as error:  # uvicorn's word for a port it cannot have
        if not failed:
            raise StoreError("cannot listen there", where=place, hint="Name another --port") from error
    if failed:
        raise failed[0]


def server_of(
    app: App, host: str, port: int, *, started: Callable[[str], None], stopping: Callable[[], None]
) -> Any:
    """Uvicorn's server, which says where it listens, and ends with 0 when a signal stopped it.

    Args:
        app: what answers.
        host: where to listen.
        port: 0 takes any free one.
        started: told the address, as `http://HOST:PORT`, once it listens.
        stopping: called at the first signal.
    """
    import uvicorn

    # What it logs are tracebacks, whose messages may repeat a text; what matters is told by us.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """The first signal lets requests finish, the second does not wait; neither is raised again."""
            numbers = (signal.SIGINT, signal.SIGTERM)
            old = {number: signal.signal(number, self.handle_exit) for number in numbers}
            try:
                yield
            finally:
                for number, handler in old.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig: int, frame: Any) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True
            stopping()

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for one in self.servers if self.started else ():
                place = one.sockets[0].getsockname()
                name = f"[{place[0]}]" if ":" in place[0] else place[0]
                started(f"http://{name}:{place[1]}")
                sys.stderr.flush()

    return Server(
        uvicorn.Config(
            app, host=host, port=port,
            http="h11", ws="none", lifespan="on",
            log_config=None, access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=30,
        )
    )  # fmt: skip
