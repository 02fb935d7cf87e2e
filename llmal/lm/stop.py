"""Why work should stop, the signals that say so, and waits that end when they do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from llmal.errors import Interrupted

T = TypeVar("T")


class Stop:
    """Why work should stop; nothing is sent, or sent again, once it is set.

    Attributes:
        why: None while work goes on.
    """

    def __init__(self) -> None:
        self.why: Exception | None = None
        self._waits: set[asyncio.Future[Any]] = set()

    def because(self, why: Exception) -> None:
        """Stop for this reason, unless there is one already: whoever waits to send gives up at once."""
        self.why = self.why or why
        for wait in self._waits:
            wait.cancel()

    async def unless(self, wait: Coroutine[Any, Any, T]) -> T:
        """Wait for something that comes before a call is sent.

        Raises:
            Exception: the reason to stop, when it comes first.
        """
        if self.why is not None:
            wait.close()
            raise self.why
        task = asyncio.ensure_future(wait)
        self._waits.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self.why is None or not task.cancelled():
                raise
            raise self.why from None
        finally:
            self._waits.discard(task)

    @contextlib.contextmanager
    def on_signals(
        self, workers: Sequence[asyncio.Future[None]], say: Callable[[str], None]
    ) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM set `why`, and the second cancel the workers."""
        loop = asyncio.get_running_loop()

        def asked(number: int) -> None:
            if isinstance(self.why, Interrupted):
                for worker in workers:
                    worker.cancel()
                return
            why = Interrupted("stopped on request; everything answered is kept", hint="Run again to go on")
            why.exit_code = 128 + number
            n = sum(not worker.done() for worker in workers) - len(self._waits)
            self.why = None
            self.because(why)
            say(f"finishing {n} open calls, again to stop now")

        caught = []
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(
                ValueError, RuntimeError, NotImplementedError
            ):  # not the main thread, or no signals
                loop.add_signal_handler(number, asked, number)
                caught.append(number)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)
