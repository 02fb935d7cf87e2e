"""A budget holds: whatever prices, delays, faults and crashes, the endpoint's bill stays within the cap."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmal.errors import LlmalError
from llmal.lm import transport as door
from llmal.lm.endpoint import Endpoint, Retries
from llmal.lm.prices import Price
from llmal.lm.transport import TEMPLATE_TOKENS, TOKENS_A_MESSAGE, Transport
from llmal.lm.wire import Request
from llmal.store import schema as t
from llmal.store.ledger import Caps, Ledger, bill, unknown_fate
from llmal.store.store import Store, open_store
from llmal.testing.chat import draw, text_of
from llmal.testing.fakelm import Answer, Ask, FakeLM, Fault

TOKENS_IN = 10**9  # the server's price is (TOKENS_IN, 1): each bill tells its tokens, at any price of a run
MAX_TOKENS = 20
TIMEOUT_S = 0.15
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502, "billed": True},
    {"kind": "status", "status": 429, "retry_after": 0.002},
    {"kind": "context_length"},
    {"kind": "refusal"},
    {"kind": "prose"},
    {"kind": "length"},
    {"kind": "no_usage"},
    {"kind": "no_choices"},
    {"kind": "html"},
    {"kind": "cut_json"},
    {"kind": "cut_body"},
    {"kind": "reset"},
    {"kind": "bad_gzip"},
    {"kind": "hang", "seconds": 0.02},
    {"kind": "hang", "seconds": 4 * TIMEOUT_S},
)
RARE: tuple[dict[str, Any], ...] = ({"kind": "insufficient_quota"}, {"kind": "status", "status": 401})


class Plan(NamedTuple):
    """One random run: what is asked, at which price and caps, with which faults and crashes."""

    price: Price
    caps: Caps
    requests: list[Request]
    faults: tuple[Fault, ...]
    endpoint: dict[str, Any]
    crashes: list[float | None]


def brain(ask: Ask) -> Answer:
    """Any usage a server may count, often the very most that llmal has to expect."""
    most = sum(len(text_of(m).encode()) + TOKENS_A_MESSAGE for m in ask.messages) + TEMPLATE_TOKENS
    a, b = (draw("usage", side, ask.item, ask.attempt) for side in "ab")
    tokens_in = most if a < 0.3 else 1 + int(a * most)
    tokens_out = MAX_TOKENS if b < 0.3 else 1 + int(b * MAX_TOKENS)
    return Answer("A", prompt_tokens=tokens_in, completion_tokens=tokens_out)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeLM]:
    with FakeLM(
        brain, price=(TOKENS_IN, 1), latency_s=(0.0, 0.006), identify=lambda m: m[-1]["content"]
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.002)


def planned(seed: int) -> Plan:
    rng = random.Random(seed)
    price = Price(rng.randint(1, 10 ** rng.randint(1, 8)), rng.randint(1, 10 ** rng.randint(1, 9)))
    texts = [f"{seed} {i} " + "é" * rng.randint(0, 60) for i in range(rng.randint(3, 40))]
    requests = [
        Request("annotate", "fake-lm", [{"role": "user", "content": text}], {"max_tokens": MAX_TOKENS}, i)
        for i, text in enumerate(texts)
    ]
    all_of_it = sum(price.of(r.bytes_in() + TEMPLATE_TOKENS + TOKENS_A_MESSAGE, MAX_TOKENS) for r in requests)
    cost = rng.choice([None, int(all_of_it * rng.uniform(0, 1)), int(all_of_it * rng.uniform(0, 0.3))])
    calls = rng.choice([None, None, rng.randint(0, 2 * len(texts))])
    faults = [Fault(**{**f, "share": rng.uniform(0.02, 0.15)}) for f in rng.sample(FAULTS, rng.randint(0, 5))]
    if rng.random() < 0.1:
        faults.append(Fault(**{**rng.choice(RARE), "share": 0.05}))
    retries = {name: rng.randint(0, 2) for name in Retries.model_fields}
    more = {"in_flight": rng.choice([1, 2, 4, 8, 16, 32]), "retries": Retries(**retries), "tolerate": 1.0}
    crashes = [rng.uniform(0.005, 0.1) if rng.random() < 0.5 else None for _ in range(rng.randint(0, 2))]
    return Plan(price, Caps(cost, calls), requests, tuple(faults), more, [*crashes, None])


async def session(store: Store, plan: Plan, where: Endpoint, crash_s: float | None) -> list[str]:
    """One process of a run; a crash leaves its calls in flight without outcome. Returns caps seen passed."""
    seen: list[str] = []
    ledger = Ledger(store, plan.caps)

    async def watch() -> None:
        while True:
            seen.extend(passed(plan.caps, bill(store).cost, bill(store).calls, "while it ran, the ledger"))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        async with Transport(where, ledger, plan.price) as transport:
            with suppress(LlmalError, TimeoutError):
                await asyncio.wait_for(transport.ask_all(plan.requests, lambda *_: []), crash_s)
    finally:
        watching.cancel()
        ledger.close()
    return seen


def passed(caps: Caps, cost: int, calls: int, who: str) -> list[str]:
    over = [] if caps.cost is None or cost <= caps.cost else [f"{who}: {cost} > {caps.cost} picodollars"]
    return over + (
        [] if caps.calls is None or calls <= caps.calls else [f"{who}: {calls} > {caps.calls} calls"]
    )


def violations(server: FakeLM, folder: Path, seed: int) -> list[str]:
    """All that is wrong with the books of one random run; the server's own are the truth."""
    plan = planned(seed)
    server.reset()
    server.faults = plan.faults
    where = Endpoint(base_url=server.base_url, timeout_s=TIMEOUT_S, **plan.endpoint)
    store = open_store(folder)
    try:
        wrong = []
        for crash_s in plan.crashes:
            wrong += asyncio.run(session(store, plan, where, crash_s))
        charged = {i: Counter[int]() for i in range(len(plan.requests))}
        place = {r.messages[0]["content"]: r.item for r in plan.requests}
        for one in server.bills:
            charged[place[one.item]][plan.price.of(*divmod(one.picodollars, TOKENS_IN))] += 1
        total = sum(cost * n for bills in charged.values() for cost, n in bills.items())
        wrong += passed(plan.caps, total, server.n_requests, "the server")
        wrong += passed(plan.caps, bill(store).cost, bill(store).calls, "the ledger")
        return wrong + unequal_books(store, charged)
    finally:
        store.close()


def unequal_books(store: Store, charged: dict[int, Counter[int]]) -> list[str]:
    """Exact attempts cost what the server charged for them; all others at least that, and they are listed."""
    o, a, r = t.outcome.c, t.attempt.c, t.request.c
    query = (
        t.attempt.select()
        .join(t.request, r.hash == a.request)
        .outerjoin(t.outcome, o.attempt == a.n)
        .with_only_columns(r.item, a.worst, o.status, o.cost, o.exact)
    )
    wrong = []
    exact = {i: Counter[int]() for i in charged}
    loose: dict[int, list[int]] = {i: [] for i in charged}
    lost = 0
    for item, worst, status, cost, is_exact in store.read(query):
        lost += status in (None, "unknown")
        if is_exact and cost:
            exact[item][cost] += 1
        elif not is_exact:
            loose[item].append(worst)
            if cost not in (None, worst):
                wrong.append(f"item {item}: an attempt of unknown fate counts {cost}, not its worst {worst}")
    for item, bills in charged.items():
        if exact[item] - bills:
            wrong.append(f"item {item}: booked as exact {exact[item]}, charged {bills}")
        rest = sorted((bills - exact[item]).elements(), reverse=True)
        if len(rest) > len(loose[item]) or any(
            b > w for b, w in zip(rest, sorted(loose[item])[::-1], strict=False)
        ):
            wrong.append(f"item {item}: charged {rest} beyond what is booked, {loose[item]}")
    if bill(store).unknown != lost or len(unknown_fate(store)) > lost:
        wrong.append(f"{bill(store).unknown} calls of unknown fate told, {lost} there")
    return wrong


def test_budget_holds_in_random_runs(server, tmp_path):
    found = {seed: violations(server, tmp_path / str(seed), seed) for seed in range(20)}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}


@pytest.mark.slow
def test_budget_holds_in_a_thousand_random_runs(server, tmp_path):
    found = {seed: violations(server, tmp_path / str(seed), seed) for seed in range(1000, 2000)}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}


def test_without_reservations_the_same_check_finds_overspending(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Transport, "_worst", lambda *_: 0)
    capped = [seed for seed in range(40) if (planned(seed).caps.cost is not None)][:8]
    found = [violations(server, tmp_path / str(seed), seed) for seed in capped]
    assert sum(any("the server" in w for w in wrong) for wrong in found) >= 4


def test_a_small_budget_is_used_up_and_not_held_by_calls_in_flight(server, tmp_path):
    """Calls in flight hold their worst case; who finds no room waits for them to settle before giving up."""
    server.reset()
    server.faults = ()
    requests = [
        Request("annotate", "fake-lm", [{"role": "user", "content": f"r {i}"}], {"max_tokens": MAX_TOKENS}, i)
        for i in range(60)
    ]
    worst = Price(1000, 1000).of(requests[-1].bytes_in() + TEMPLATE_TOKENS + TOKENS_A_MESSAGE, MAX_TOKENS)
    plan = Plan(Price(1000, 1000), Caps(20 * worst), requests, (), {"in_flight": 32}, [])
    store = open_store(tmp_path)
    asyncio.run(session(store, plan, Endpoint(base_url=server.base_url, in_flight=32), None))
    assert 20 * worst - worst < bill(store).cost <= 20 * worst
    assert bill(store).calls > 20
    store.close()


def test_a_raised_cap_goes_on_where_the_money_ended(server, tmp_path):
    server.reset()
    server.faults = ()
    plan = planned(0)._replace(caps=Caps(None, 2), crashes=[])
    where = Endpoint(base_url=server.base_url)
    store = open_store(tmp_path)
    for calls in (2, 2, 3, len(plan.requests) + 5):
        asyncio.run(session(store, plan._replace(caps=Caps(None, calls)), where, None))
        assert server.n_requests == bill(store).calls == min(calls, len(plan.requests))
    assert set(server.counts.values()) == {1}
    store.close()
