"""How fast an endpoint may be asked: requests and tokens a minute, and a pace that adapts to 429s."""

from __future__ import annotations

import asyncio
import time

DECREASE = 0.9
"""Factor on the pace after a 429. Multiplicative decrease, then an increase: AIMD (Chiu & Jain 1989)."""

BLIND_DECREASE = 0.5
"""The same while the endpoint has answered too few calls to tell what it can do."""

RECOVERY_S = 2.0
"""Seconds after which the pace is back where it was before a decrease."""

GROWTH = (1 - DECREASE) / RECOVERY_S**3
"""Of the pace, a second cubed: flat near the old pace, steep beyond it, as in CUBIC (Ha, Rhee & Xu 2008), so
that a limit that was lifted tenfold is found within a quarter of a minute."""

HOLD_S, SETTLED_S = 0.5, 0.1
"""Seconds between two decreases, and after which a refusal counts: it says nothing about a newer pace than
the one its call was sent at."""

PRIOR = 4
"""Calls taken as served beside those counted, so that the first refusal of few does not halve the pace."""

CREDIT_S = 0.02
"""Seconds of the pace that may be caught up with at once, for timers that fire late."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Nobody sends for so long when not one call passed between two decreases; doubled from one to the next."""

FEWEST_ENDS, MOST_ENDS = 8, 64
"""Answers and refusals needed to tell what the endpoint allows, and those that still tell it."""

SLOWEST = 1 / 60
"""Calls a second; no endpoint seen allows less than one a minute."""


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
        self._places = asyncio.Semaphore(in_flight)
        self._buckets = [
            (_Bucket(rate / 60, burst), unit)
            for rate, burst, unit in (
                (requests_per_minute, 1.0, "request"),
                (tokens_per_minute, None, "token"),
            )
            if rate
        ]
        self._pace = _Pace(max(FEWEST_ENDS, in_flight / 2))
        self._turn = asyncio.Lock()  # one at a time, so that a new pace holds for all who wait
        self._paused_until = 0.0

    @property
    def free(self) -> bool:
        """Whether a call could be sent now, without any wait."""
        slowed = self._buckets or self._pace.now is not None or self.paused
        return not slowed and not self._places.locked()

    @property
    def paused(self) -> bool:
        """Whether nobody may send now."""
        return self._paused_until > time.monotonic()

    async def acquire(self, tokens: int) -> None:
        """Wait for a place, for room in every bucket, for the end of a pause, and for the pace."""
        await self._places.acquire()
        try:
            for bucket, unit in self._buckets:
                await bucket.take(1 if unit == "request" else tokens)
            # Last, so that a pause also holds those who were waiting for a bucket when it began.
            if self._pace.now is not None or self.paused:
                await self.turn()
        except BaseException:
            self.release()
            raise

    async def turn(self) -> None:
        """Wait for the end of a pause, and for the pace; a place is held already."""
        async with self._turn:
            while (wait := max(self._paused_until - time.monotonic(), self._pace.wait())) > 0:
                await asyncio.sleep(wait)
            self._pace.sent()

    def release(self) -> None:
        """Give the place back."""
        self._places.release()

    def answered(self) -> None:
        """The endpoint served a call: what it can do is learnt from the times of these."""
        self._pace.answered()

    def limited(self, wait_s: float | None) -> None:
        """Slow down after a 429; nobody sends before the time that the server named, where it named one."""
        pause = self._pace.refused()
        self._paused_until = max(self._paused_until, time.monotonic() + (pause if wait_s is None else wait_s))


class _Pace:
    """Calls a second that an endpoint was seen to allow.

    Attributes:
        now: None before the first refusal: as many as the places in flight let through.

    Args:
        guess: to begin with, where the first refusals come before the first answers.
    """

    def __init__(self, guess: float) -> None:
        self.now: float | None = None
        self._guess = guess
        self._top = guess  # the pace before the last decrease
        self._told = False  # whether answers were ever counted, so that the top is no guess
        self._cut_at = 0.0
        self._next_at = 0.0
        self._answers, self._refusals = 0, 0  # since the last decrease
        self._since = 0.0  # the first of these answers
        self._passed = False  # whether a call was served since the last decrease
        self._pause = FIRST_PAUSE_S

    def wait(self) -> float:
        """Seconds until the next call may be sent."""
        return self._next_at - time.monotonic() if self.now is not None else 0.0

    def sent(self) -> None:
        """A call is sent now: the next one comes a pace later."""
        if self.now is None:
            return
        now = time.monotonic()
        t = max(0.0, now - self._cut_at)
        if self._told:
            self.now = max(self._top * (1 + GROWTH * (t - RECOVERY_S) ** 3), SLOWEST)
        else:
            self.now = max(self._top * 2.0 ** min(t, 30.0), SLOWEST)
        self._next_at = max(self._next_at, now - CREDIT_S) + 1 / self.now

    def answered(self) -> None:
        """The endpoint served a call."""
        if not self._answers:
            self._since = time.monotonic()
        elif self._answers == MOST_ENDS:  # the older half is forgotten
            self._answers, self._refusals = self._answers // 2, self._refusals // 2
            self._since = (self._since + time.monotonic()) / 2
        self._answers += 1
        self._passed = True

    def refused(self) -> float:
        """Slow down, at most once in `HOLD_S`; returns for how many seconds nobody should send at all."""
        now = time.monotonic()
        self._refusals += now > self._cut_at + SETTLED_S
        if self.now is not None and now < self._cut_at + HOLD_S:
            return 0.0
        if self.now is not None and not self._passed:  # nothing passes at all: no pace would help
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_S)
            self._cut_at = now + pause
            return pause
        factor = DECREASE
        if self.now is None and self._answers >= FEWEST_ENDS and now > self._since:
            self._top, self._told = (self._answers - 1) / (now - self._since), True
        elif self.now is not None and (self._told or self._answers + self._refusals >= FEWEST_ENDS):
            few = self._answers + PRIOR
            self._top, self._told = self.now * few / (few + self._refusals), True
        else:
            self._top, factor = BLIND_DECREASE * (self.now or self._guess), 1.0
        self.now = max(factor * self._top, SLOWEST)
        self._cut_at, self._next_at = now, now + 1 / self.now
        self._answers = self._refusals = 0
        self._passed, self._pause = False, FIRST_PAUSE_S
        return 0.0


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
