"""Listens, loads the model, and stops gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from llmal.errors import LlmalError, ModelError, StoreError
from llmal.extras import need
from llmal.serve.app import Service, app_of
from llmal.serve.guard import App
from llmal.serve.opening import find, opened
from llmal.serve.options import Options

GRACE_S = 20
"""Seconds that requests under way get to finish after a stop signal."""

MOST_CONNECTIONS = 1_000
"""Connections beyond which new ones are told to come back."""


def application(service: Service, failed: Callable[[LlmalError], None]) -> App:
    """The service as an ASGI application; its model is loaded in the background.

    Args:
        service: what answers.
        failed: told why the model cannot be loaded, where it cannot.
    """

    async def load() -> None:
        try:
            await service.cascade.open()
        except LlmalError as error:
            failed(error)
        except Exception as error:
            failed(ModelError(f"cannot load the classifier: {type(error).__name__}", hint="Export it again"))

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        loading = asyncio.create_task(load())
        yield
        service.stopping = True
        loading.cancel()
        await service.cascade.close(GRACE_S)

    return app_of(service, lifespan)


def serve(folder: Path, options: Options) -> None:
    """Serve until a signal says to stop.

    Raises:
        MissingExtra: a package of the extra `serve` is not installed.
        LlmalError: nothing to serve, unsafe options, a state in use, or a model that cannot be loaded.
    """
    options.check()
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        need(package, extra="serve", why="to serve a classifier")
    from llmal.runner import private_files

    with private_files():
        _listen(opened(find(folder, options), options), options)


def _listen(service: Service, options: Options) -> None:
    import uvicorn

    # What it logs are tracebacks, whose messages may repeat a text; what matters is told by us.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    why: list[LlmalError] = []

    def failed(error: LlmalError) -> None:
        why.append(error)
        server.should_exit = True

    server = _server(service)(
        uvicorn.Config(
            application(service, failed), host=options.host, port=options.port,
            http="h11", ws="none", lifespan="on",
            log_config=None, access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=30,
        )
    )  # fmt: skip
    try:
        server.run()
    except SystemExit as error:  # uvicorn's word for a port it cannot have
        if not why:
            raise StoreError(
                "cannot listen there", where=f"{options.host}:{options.port}", hint="Name another --port"
            ) from error
    if why:
        raise why[0]


def _server(service: Service) -> Any:
    """Uvicorn's server, which says where it listens, and ends with 0 when a signal stopped it."""
    import uvicorn

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
            self.should_exit = service.stopping = True

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for one in self.servers if self.started else ():
                place = one.sockets[0].getsockname()
                host = f"[{place[0]}]" if ":" in place[0] else place[0]
                sys.stderr.write(f"serving {service.about['model']} at http://{host}:{place[1]}\n")
                sys.stderr.flush()

    return Server
