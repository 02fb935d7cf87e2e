"""Rates and windows, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
import random
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
    names = ("Semaphore", "Lock")
    fake = SimpleNamespace(**{n: getattr(asyncio, n) for n in names}, sleep=ours.sleep)
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
        limiter.release()

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


class Bucket:
    """A server that allows `rate` calls a second, `burst` at once, and refuses the others at no delay."""

    def __init__(self, clock, rate, burst):
        self.clock, self.rate, self.burst = clock, rate, burst
        self.level, self.at = burst, clock.now

    def allows(self):
        self.level = min(self.burst, self.level + (self.clock.now - self.at) * self.rate)
        self.at = self.clock.now
        good = self.level >= 1
        self.level -= good
        return good


def storm(clock, limiter, server, *, seconds, latency=0.1, workers=64, wait_s=None, then=None):
    """Times of calls served and refused while workers ask again and again, waiting 0.25 to 0.5 s after a 429.

    `then` is a time at which the server's rate becomes another, and that rate.
    """
    start, good, bad, draws = clock.now, [], [], random.Random(0)

    async def work():
        while clock.now < start + seconds:
            await limiter.acquire(1)
            if then and clock.now >= start + then[0]:
                server.rate, server.burst = then[1], then[1] / 10
            fine = server.allows()
            (good if fine else bad).append(clock.now - start)
            if fine:
                await clock.sleep(latency * draws.uniform(0.7, 1.3))
                limiter.answered()
            else:
                await clock.sleep(0.005)
                limiter.limited(wait_s)
            limiter.release()
            if not fine:
                await clock.sleep(draws.uniform(0.25, 0.5))

    async def main():
        await asyncio.gather(*(work() for _ in range(workers)))

    asyncio.run(clock.run(main()))
    return good, bad


def between(times, low, high):
    return sum(low <= at < high for at in times)


@pytest.mark.parametrize("latency", [0.02, 0.5])
@pytest.mark.parametrize("burst_s", [0.1, 2.0])
@pytest.mark.parametrize("rate", [5, 20, 100])
def test_under_429s_without_a_time_the_allowed_rate_is_kept_within_15_percent(clock, rate, burst_s, latency):
    server = Bucket(clock, rate, max(1.0, rate * burst_s))
    good, bad = storm(clock, Limiter(64), server, seconds=40, latency=latency)
    assert between(good, 10, 40) / 30 == pytest.approx(rate, rel=0.15)
    assert between(bad, 10, 40) <= 0.1 * between(good, 10, 40) + 5, "few are refused once the pace is found"


def test_a_limiter_that_does_not_slow_down_is_refused_far_more_often(clock, monkeypatch):
    """Power check: without the pace, calls come back as soon as they have waited, and most are refused."""
    monkeypatch.setattr(limits._Pace, "refused", lambda self: 0.0)
    good, bad = storm(clock, Limiter(64), Bucket(clock, 20, 2), seconds=40)
    assert between(bad, 10, 40) > 3 * between(good, 10, 40)


def test_a_limit_that_is_lifted_tenfold_is_found_within_a_quarter_of_a_minute(clock):
    good, _ = storm(clock, Limiter(64), Bucket(clock, 20, 2), seconds=45, then=(20, 200))
    assert between(good, 35, 45) / 10 >= 0.85 * 200


def test_a_limit_that_is_cut_to_a_tenth_is_kept_within_seconds(clock):
    good, bad = storm(clock, Limiter(64), Bucket(clock, 200, 20), seconds=45, then=(20, 20))
    assert between(good, 25, 45) / 20 == pytest.approx(20, rel=0.15)
    assert between(bad, 25, 45) < 0.1 * between(good, 25, 45)


def test_before_the_time_the_server_named_nothing_is_sent_and_then_no_burst(clock):
    limiter = Limiter(64)
    server = Bucket(clock, 20, 2)
    good, bad = storm(clock, limiter, server, seconds=30, wait_s=1.0)
    sent = sorted(good + bad)
    told = [at + 0.005 for at in bad]  # when the refusal arrives
    assert not [(at, was) for at in sent for was in told if was + 1e-9 < at < was + 1 - 1e-9]
    after = [at for at in sent if at > 10]
    assert max(between(after, at, at + 0.5) for at in after) <= 20, "twice the allowed half second at most"


def test_a_server_that_lets_nothing_pass_is_asked_ever_less(clock):
    limiter = Limiter(64)
    limiter.answered()
    none = SimpleNamespace(allows=lambda: False)
    _, bad = storm(clock, limiter, none, seconds=120)
    assert between(bad, 60, 120) <= 40


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
        limiter._paused_until, limiter._pace.now = 0.0, None
        await asyncio.wait_for(limiter.acquire(1), 1.0)

    asyncio.run(main())
