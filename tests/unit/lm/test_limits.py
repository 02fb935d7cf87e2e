"""Rates and windows, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
from types import SimpleNamespace

import pytest

from llmal.lm import limits
from llmal.lm.limits import Limiter


class Clock:
    """Time that passes only while everybody sleeps."""

    def __init__(self):
        self.now = 1000.0
        self._waiting = []
        self._n = 0

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        self._n += 1
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + max(0.0, seconds), self._n, woken))
        await woken

    async def run(self, work):
        """Run to the end, moving on to the next sleeper whenever nothing else can happen."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(8):
                await asyncio.sleep(0)
            while self._waiting and self._waiting[0][2].done():
                heapq.heappop(self._waiting)
            if not task.done() and self._waiting:
                at, _, woken = heapq.heappop(self._waiting)
                self.now = max(self.now, at)
                woken.set_result(None)
        return task.result()


@pytest.fixture
def clock(monkeypatch):
    ours = Clock()
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=ours.monotonic))
    real = asyncio.sleep
    fake = SimpleNamespace(**{n: getattr(asyncio, n) for n in ("Condition",)}, sleep=ours.sleep)
    monkeypatch.setattr(limits, "asyncio", fake)
    assert asyncio.sleep is real
    return ours


def drive(clock, limiter, n, *, seconds=0.0, tokens=1, on_call=lambda i: None):
    """Times at which n calls of a length were sent, and the most open at once."""
    sent, most, open_now = [], 0, 0

    async def call(i):
        nonlocal most, open_now
        await limiter.acquire(tokens)
        open_now += 1
        most = max(most, open_now)
        sent.append(clock.now - 1000.0)
        on_call(i)
        await clock.sleep(seconds)
        open_now -= 1
        await limiter.release()

    async def main():
        await asyncio.gather(*(call(i) for i in range(n)))

    asyncio.run(clock.run(main()))
    return sent, most


def test_the_window_is_never_passed_and_always_filled(clock):
    sent, most = drive(clock, Limiter(4), 20, seconds=1.0)
    assert most == 4
    assert sent == [float(i // 4) for i in range(20)]


@pytest.mark.parametrize("rate", [60, 600, 90])
def test_requests_a_minute_are_kept_exactly(clock, rate):
    sent, _ = drive(clock, Limiter(64, requests_per_minute=rate), 50)
    assert sent == pytest.approx([i * 60 / rate for i in range(50)])


def test_tokens_a_minute_allow_ten_seconds_at_once_and_then_their_rate(clock):
    limiter = Limiter(64, tokens_per_minute=6000)  # 100 a second, 1000 saved up
    sent, _ = drive(clock, limiter, 40, tokens=100)
    assert sent[:10] == [0.0] * 10
    assert sent == pytest.approx([max(0, i - 9) for i in range(40)])


def test_a_call_larger_than_the_bucket_waits_and_passes(clock):
    sent, _ = drive(clock, Limiter(1, tokens_per_minute=600), 3, tokens=500)
    assert sent == pytest.approx([40.0, 90.0, 140.0])


def test_both_limits_hold_together(clock):
    limiter = Limiter(64, requests_per_minute=600, tokens_per_minute=6000)
    sent, _ = drive(clock, limiter, 40, tokens=100)
    assert all(b - a >= 0.1 - 1e-9 for a, b in zip(sent, sent[1:], strict=False))
    assert sent[-1] == pytest.approx(30.0)


def test_a_429_halves_the_window_once_a_pause_and_answers_open_it_again(clock):
    limiter = Limiter(16)
    for _ in range(5):
        limiter.limited(1.0)  # all calls in flight were refused for one and the same reason
    assert limiter.window == 8
    clock.now += 1.0
    limiter.limited(1.0)
    assert limiter.window == 4
    for expected in (4.25, 4.4853, 4.7082):
        limiter.answered()
        assert limiter.window == pytest.approx(expected, abs=1e-3)
    for _ in range(1000):
        limiter.answered()
    assert limiter.window == 16


def test_the_window_never_closes(clock):
    limiter = Limiter(4)
    for _ in range(20):
        limiter.limited(0.0)
        clock.now += 1.0
    assert limiter.window == 1.0
    assert drive(clock, limiter, 3)[1] == 1


def test_nobody_sends_during_a_pause(clock):
    limiter = Limiter(8)
    sent, _ = drive(
        clock, limiter, 20, seconds=0.5, on_call=lambda i: limiter.limited(10.0) if i == 7 else None
    )
    assert sent[:8] == [0.0] * 8
    assert min(sent[8:]) >= 10.0


def test_a_pause_also_holds_those_who_were_waiting_for_a_bucket(clock):
    limiter = Limiter(8, requests_per_minute=60)
    sent, _ = drive(clock, limiter, 6, on_call=lambda i: limiter.limited(30.0) if i == 1 else None)
    assert sent[:2] == pytest.approx([0.0, 1.0])
    assert min(sent[2:]) >= 31.0


def test_a_longer_pause_is_not_cut_short_by_a_shorter_one(clock):
    limiter = Limiter(1)
    limiter.limited(10.0)
    limiter.limited(1.0)
    assert drive(clock, limiter, 1)[0] == [10.0]


def test_after_a_storm_the_allowed_rate_is_found_again(clock):
    """A server that allows 20 calls a second, 64 in flight: at least 85 % of that once settled."""
    limiter, limit, refused, good = Limiter(64), 20, 0, []
    recent = []

    def serve(_):
        nonlocal refused
        recent[:] = [at for at in recent if at > clock.now - 1.0]
        if len(recent) >= limit:
            refused += 1
            limiter.limited(0.05)
        else:
            recent.append(clock.now)
            good.append(clock.now)
            limiter.answered()

    drive(clock, limiter, 600, seconds=0.2, on_call=serve)
    late = [at for at in good if at > good[0] + 5]
    assert len(late) / (late[-1] - late[0]) >= 0.85 * limit


def test_a_place_is_given_back_when_waiting_is_cancelled():
    async def main():
        limiter = Limiter(1)
        limiter.limited(60.0)
        waiting = asyncio.create_task(limiter.acquire(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        limiter._paused_until = 0.0
        await asyncio.wait_for(limiter.acquire(1), 1.0)

    asyncio.run(main())
