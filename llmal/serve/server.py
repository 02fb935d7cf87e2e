"""Loads the model, serves it, and stops gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from llmal.errors import LlmalError, ModelError
from llmal.extras import need
from llmal.serve.app import Service, app_of
from llmal.serve.guard import App
from llmal.serve.listening import GRACE_S, listen, server_of
from llmal.serve.opening import find, opened
from llmal.serve.options import Options


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
    why: list[LlmalError] = []

    def failed(error: LlmalError) -> None:
        why.append(error)
        server.should_exit = True

    def stopping() -> None:
        service.stopping = True

    def started(address: str) -> None:
        sys.stderr.write(f"serving {service.about['model']} at {address}\n")

    server = server_of(
        application(service, failed), options.host, options.port, started=started, stopping=stopping
    )
    listen(server, f"{options.host}:{options.port}", failed=why)
