"""How fast an endpoint may be asked: requests and tokens a minute, and calls in flight that adapt to 429s."""

from __future__ import annotations

import asyncio
import time

DECREASE = 0.5
"""Factor on the window after a 429; each answer adds 1/window: AIMD, as TCP does (Chiu & Jain 1989)."""


class Limiter:
    """Gate before every call; used from one event loop.

    Args:
        in_flight: most calls open at once.
        requests_per_minute: or None.
        tokens_per_minute: or None; estimated tokens are taken before sending.
    """

    def __init__(
        self,
        in_flight: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self.ceiling = float(in_flight)
        self.window = float(in_flight)
        self._open = 0
        self._buckets = [
            (_Bucket(rate / 60, burst), unit)
            for rate, burst, unit in (
                (requests_per_minute, 1.0, "request"),
                (tokens_per_minute, None, "token"),
            )
            if rate
        ]
        self._paused_until = 0.0
        self._decreased_at = 0.0
        self._changed = asyncio.Condition()

    async def acquire(self, tokens: int) -> None:
        """Wait for a place in the window, for room in every bucket, and for the end of a pause."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._open < max(1, int(self.window)))
            self._open += 1
        try:
            for bucket, unit in self._buckets:
                await bucket.take(1 if unit == "request" else tokens)
            # Last, so that a pause also holds those who were waiting for a bucket when it began.
            while (pause := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(pause)
        except BaseException:
            await self.release()
            raise

    async def release(self) -> None:
        """Give the place back."""
        async with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def answered(self) -> None:
        """Open the window a little: the endpoint keeps up."""
        self.window = min(self.ceiling, self.window + 1 / self.window)

    def limited(self, wait_s: float) -> None:
        """Close the window after a 429, at most once a pause, and let nobody send until it is over."""
        now = time.monotonic()
        if now >= self._decreased_at:
            self.window = max(1.0, self.window * DECREASE)
            self._decreased_at = now + max(wait_s, 0.1)
        self._paused_until = max(self._paused_until, now + wait_s)


class _Bucket:
    """Token bucket: `rate` units a second, at most `burst` saved up (default: ten seconds' worth)."""

    def __init__(self, rate: float, burst: float | None) -> None:
        self._rate = rate
        self._burst = burst if burst is not None else 10 * rate
        self._level = self._burst
        self._at = time.monotonic()

    async def take(self, units: float) -> None:
        now = time.monotonic()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        self._level -= units  # a debt is slept off below, so that callers keep their order
        if self._level < 0:
            await asyncio.sleep(-self._level / self._rate)
