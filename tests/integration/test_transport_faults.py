"""Faults over real HTTP: attempts at the endpoint are the configured ones, by both ways in; no key leaks."""

from __future__ import annotations

import asyncio
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmal.annotate.reading import annotation_of
from llmal.errors import Interrupted, LlmalError, ModelError
from llmal.lm import transport as door
from llmal.lm.dspy_engine import language_model
from llmal.lm.endpoint import Endpoint, Retries
from llmal.lm.http import Http
from llmal.lm.prices import Price
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Request
from llmal.prompts.file import load_prompt
from llmal.prompts.frame import render
from llmal.prompts.program import adapter, dspy, signature
from llmal.records import Annotation, Item, Label, LabelSchema
from llmal.store import schema as t
from llmal.store.ledger import Caps, Ledger, bill
from llmal.store.store import Store, annotation_rows, open_store
from llmal.testing.fakelm import FakeLM, Fault

KEY = "sk-canary/4f8a2b7c91e3"
SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing"), Label(name="other")), abstain=True)
ANSWER = "[[ ## answer ## ]]\nB\n\n[[ ## completed ## ]]"
PRICE = (150_000, 600_000)
SEVERAL = Retries(rate_limit=2, server=3, malformed=1, connect=2, timeout=2)
NONE = Retries(rate_limit=0, server=0, malformed=0, connect=0, timeout=0)
KEEP_GOING = 1.0
NO_CAPS = Caps()
OPTIONS = {"max_tokens": 64, "temperature": 0.0}


class Case(NamedTuple):
    """A fault, the attempts it should cost, and what is recorded of the last one."""

    fault: dict[str, Any] | None
    attempts: Callable[[Retries], int]
    status: str
    reason: str = ""
    fatal: bool = False


def once(_: Retries) -> int:
    return 1


# faults.md, table B.3, and the rows N1 to N10 that go with it.
CASES = {
    "good": Case(None, once, "ok"),
    "label not in the list": Case({"kind": "off_list"}, once, "off_list"),
    "prose": Case({"kind": "prose"}, once, "unparsed"),
    "empty": Case({"kind": "empty_content"}, once, "unparsed"),
    "null": Case({"kind": "null_content"}, once, "unparsed"),
    "length": Case({"kind": "length"}, once, "length"),
    "refusal": Case({"kind": "refusal"}, once, "refused"),
    "content filter": Case({"kind": "content_filter"}, once, "filtered"),
    "usage missing": Case({"kind": "no_usage"}, once, "ok", "no usage"),
    "another model answers": Case({"kind": "other_model"}, once, "ok"),
    "choices []": Case({"kind": "no_choices"}, lambda r: 1 + r.malformed, "failed", "malformed"),
    "html with 200": Case({"kind": "html"}, lambda r: 1 + r.malformed, "failed", "malformed"),
    "cut json": Case({"kind": "cut_json"}, lambda r: 1 + r.malformed, "failed", "malformed"),
    "empty body": Case({"kind": "empty_body"}, lambda r: 1 + r.malformed, "failed", "malformed"),
    "500": Case({"kind": "status", "status": 500}, lambda r: 1 + r.server, "failed", "server"),
    "502": Case({"kind": "status", "status": 502}, lambda r: 1 + r.server, "failed", "server"),
    "503": Case({"kind": "status", "status": 503}, lambda r: 1 + r.server, "failed", "server"),
    "529": Case({"kind": "status", "status": 529}, lambda r: 1 + r.server, "failed", "server"),
    "429 with Retry-After": Case(
        {"kind": "status", "status": 429, "retry_after": 0.01},
        lambda r: 1 + r.rate_limit,
        "failed",
        "rate_limit",
    ),
    "429 without": Case(
        {"kind": "status", "status": 429}, lambda r: 1 + r.rate_limit, "failed", "rate_limit"
    ),
    "insufficient_quota": Case({"kind": "insufficient_quota"}, once, "", "no_credit", fatal=True),
    "402": Case({"kind": "status", "status": 402}, once, "", "no_credit", fatal=True),
    "401 echoing the key": Case({"kind": "status", "status": 401}, once, "", "key_rejected", fatal=True),
    "403 echoing the key": Case({"kind": "status", "status": 403}, once, "", "key_rejected", fatal=True),
    "404": Case({"kind": "status", "status": 404}, once, "", "not_found", fatal=True),
    "400 echoing the key": Case(
        {"kind": "status", "status": 400, "message": f"what is {KEY}?"}, once, "failed", "bad_request"
    ),
    "context too long": Case({"kind": "context_length"}, once, "failed", "context_length"),
    "hang": Case({"kind": "hang"}, lambda r: 1 + r.timeout, "failed", "timeout"),
    "drip": Case({"kind": "drip", "gap_s": 0.05}, lambda r: 1 + r.timeout, "failed", "timeout"),
    "reset": Case({"kind": "reset"}, lambda r: 1 + r.timeout, "failed", "connection"),
    "cut body": Case({"kind": "cut_body"}, lambda r: 1 + r.timeout, "failed", "connection"),
    "bad gzip": Case({"kind": "bad_gzip"}, lambda r: 1 + r.timeout, "failed", "connection"),
    "gzip bomb": Case({"kind": "gzip_bomb"}, lambda r: 1 + r.timeout, "failed", "connection"),
    "redirect": Case({"kind": "redirect", "location": "ELSEWHERE"}, once, "", "redirected", fatal=True),
}
SLOW_ANSWERS = ("hang", "drip")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.002)


@pytest.fixture(scope="module")
def elsewhere():
    with FakeLM(lambda _: ANSWER) as server:
        yield server


@pytest.fixture(scope="module")
def strict():
    with FakeLM(lambda _: ANSWER, api_key=KEY, price=PRICE) as server:
        yield server


@pytest.fixture
def server(strict):
    strict.reset()
    strict.faults = ()
    return strict


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def endpoint(server: FakeLM, retries: Retries = SEVERAL, **more: Any) -> Endpoint:
    given = {"tolerate": KEEP_GOING, "timeout_s": 20.0, "in_flight": 8} | more
    return Endpoint(base_url=server.base_url, key=KEY, key_name="CANARY_KEY", retries=retries, **given)


def request(seq: int = 0, text: str = "the app crashes") -> Request:
    frame = render(load_prompt(), SCHEMA)
    return Request("annotate", "fake-lm", frame.messages(Item(seq, f"k{seq}", text), b"s"), OPTIONS, seq, "p")


def ask_all(store: Store, where: Endpoint, requests: list[Request], caps: Caps = NO_CAPS) -> list[Annotation]:
    """The bulk path, as the annotator walks it."""
    sign = signature(load_prompt(), SCHEMA, strict=False)
    made: list[Annotation] = []

    def record(asked, end):
        made.append(annotation_of(asked.item, end, sign, SCHEMA))
        return [(t.annotation, annotation_rows("r", [made[-1]]))]

    async def main():
        ledger = Ledger(store, caps)
        try:
            async with Transport(where, ledger, Price(*PRICE)) as transport:
                await transport.ask_all(requests, record)
        finally:
            ledger.close()

    asyncio.run(main())
    return made


def predict(store: Store, where: Endpoint) -> Any:
    """The way of DSPy's programs and optimisers."""
    d, ledger = dspy(), Ledger(store, Caps())
    try:
        with (
            language_model(Transport(where, ledger, Price(*PRICE)), "fake-lm", **OPTIONS) as lm,
            d.context(lm=lm, adapter=adapter()),
        ):
            return d.Predict(signature(load_prompt(), SCHEMA))(text="the app crashes").answer
    finally:
        ledger.close()


def outcomes(store: Store) -> list[tuple[str, str]]:
    o = t.outcome.c
    return [tuple(row) for row in store.read(t.outcome.select().with_only_columns(o.status, o.reason))]


def bytes_with_key(folder: Path) -> list[str]:
    spellings = (KEY.encode(), KEY.replace("/", "\\/").encode())
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(file.name.endswith("-wal") for file in files)
    return [file.name for file in files if any(s in file.read_bytes() for s in spellings)]


@pytest.mark.parametrize("retries", [SEVERAL, NONE], ids=["several", "none"])
@pytest.mark.parametrize("way", ["bulk", "dspy"])
@pytest.mark.parametrize("name", CASES)
def test_attempts_at_the_endpoint_are_those_configured(
    name, way, retries, store, server, elsewhere, tmp_path, capfd
):
    case = CASES[name]
    if case.fault is not None:
        given = {k: elsewhere.base_url if v == "ELSEWHERE" else v for k, v in case.fault.items()}
        server.faults = (Fault(given.pop("kind"), **given),)
    where = endpoint(server, retries, timeout_s=0.2 if name in SLOW_ANSWERS else 20.0)
    made, answer, error = [], None, None
    try:
        if way == "bulk":
            made = ask_all(store, where, [request()])
        else:
            answer = predict(store, where)
    except Exception as caught:
        error = caught
    attempts = server.n_requests
    assert elsewhere.keys_seen.total() == 0
    assert server.bill <= bill(store).cost
    assert attempts == case.attempts(retries) == sum(server.counts.values())
    ended = outcomes(store)
    assert len(ended) == attempts
    assert {reason for _, reason in ended} == {case.reason}
    if case.fatal:
        assert isinstance(error, ModelError)
        assert not made
    elif way == "bulk":
        assert error is None
        assert [a.status for a in made] == [case.status]
        assert (made[0].labels == ("billing",)) == (case.status == "ok")
    elif case.status != "length":  # to DSPy, what was cut off after the label is an answer
        assert (answer == "B") == (case.status == "ok"), error
    shown = "" if error is None else "".join(traceback.format_exception(error)) + repr(error)
    printed = capfd.readouterr()
    assert KEY not in shown + printed.out + printed.err
    assert bytes_with_key(tmp_path / "run") == []


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.status not in ("failed", "")])
def test_an_answer_is_never_asked_for_again(name, store, server):
    fault = dict(CASES[name].fault or {})
    server.faults = (Fault(fault.pop("kind"), **fault),) if fault else ()
    first = ask_all(store, endpoint(server), [request()])
    again = ask_all(store, endpoint(server), [request()])
    assert server.n_requests == 1
    assert first == again


@pytest.mark.parametrize("way", ["bulk", "dspy"])
def test_a_refused_connection_is_tried_as_configured_and_is_no_call(way, store):
    server = FakeLM(lambda _: ANSWER).start()
    server.stop()
    with pytest.raises(Exception, match="cannot connect.*is the server running"):
        ask_all(store, endpoint(server), [request()]) if way == "bulk" else predict(store, endpoint(server))
    assert outcomes(store) == [("unsent", "unreachable")] * (1 + SEVERAL.connect)
    assert bill(store) == (0, 0, 0, 0, 0)


def test_a_server_that_starts_late_is_reached(store, monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.1)
    server = FakeLM(lambda _: ANSWER).start()
    server.stop()

    async def main():
        ledger = Ledger(store, Caps())
        async with Transport(endpoint(server), ledger, Price(*PRICE)) as transport:
            asking = asyncio.create_task(transport.ask(request(), lambda *_: []))
            await asyncio.sleep(0.02)
            server.start()
            end = await asking
        ledger.close()
        return end

    try:
        assert asyncio.run(main()).content == ANSWER
    finally:
        server.stop()
    assert server.n_requests == 1


@pytest.mark.parametrize("retry_after", [0.15, "0.15"])
def test_retry_after_is_waited_for_by_every_call(retry_after, store, monkeypatch):
    times = []
    real = Http.send

    async def timed(self, *args):
        times.append(asyncio.get_running_loop().time())
        return await real(self, *args)

    monkeypatch.setattr(Http, "send", timed)
    with FakeLM(lambda _: ANSWER) as server:
        server.faults = (Fault("status", status=429, retry_after=retry_after, nth=1),)
        made = ask_all(store, endpoint(server, in_flight=1), [request(i) for i in range(4)])
        assert [a.status for a in made] == ["ok"] * 4
        assert server.n_requests == 5
    assert times[1] - times[0] >= 0.15


def test_with_many_in_flight_nothing_is_sent_before_the_time_the_server_named(store, monkeypatch):
    """Calls that were booked when the refusal came wait as well."""
    starts, told = [], []
    real = Http.send

    async def timed(self, *args):
        starts.append(time.monotonic())
        end = await real(self, *args)
        if isinstance(end, Failure):
            told.append(time.monotonic())
        return end

    monkeypatch.setattr(Http, "send", timed)
    with FakeLM(lambda _: ANSWER) as server:
        server.faults = (Fault("status", status=429, retry_after=0.4, nth=20),)
        requests = [request(i, f"item {i}.") for i in range(60)]
        made = ask_all(store, endpoint(server, in_flight=8), requests)
        assert server.n_requests == 61
    assert [a.status for a in made] == ["ok"] * 60
    assert len(told) == 1
    assert [at for at in starts if told[0] < at < told[0] + 0.4] == []
    assert max(starts) > told[0] + 0.4


def test_the_first_stop_signal_waits_for_open_calls_and_not_for_a_429_pause(store):
    def slow(ask):
        stopping.append(asyncio.run_coroutine_threadsafe(stop(), loops[0])) if not stopping else None
        return ANSWER

    async def stop():
        signal.raise_signal(signal.SIGINT)

    async def main(server):
        loops.append(asyncio.get_running_loop())
        ledger = Ledger(store, NO_CAPS)
        try:
            async with Transport(endpoint(server, in_flight=2), ledger, Price(*PRICE)) as transport:
                asking = transport.ask_all([request(i, f"item {i}.") for i in range(9)], lambda *_: [])
                await asyncio.wait_for(asking, 20)
        finally:
            ledger.close()

    stopping, loops = [], []
    with FakeLM(slow, identify=lambda m: str("item 0." in m[-1]["content"]), latency_s=0.3) as server:
        server.faults = (Fault("status", status=429, retry_after=120, item="True"),)
        with pytest.raises(Interrupted) as caught:
            asyncio.run(main(server))
        assert caught.value.exit_code == 130
        assert server.counts == {"True": 1, "False": 1}
        assert server.answered == {"False": 1}
    assert store.count(t.response) == 1
    assert bill(store).unknown == 0


def test_calls_booked_when_the_stop_comes_are_not_sent_and_cost_nothing(store, monkeypatch):
    """The stop falls between the reservation and the sending of every call."""
    real = Ledger.reserve

    async def stopped(self, *args):
        held = await real(self, *args)
        if held.attempt == 1:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0.05)
        return held

    monkeypatch.setattr(Ledger, "reserve", stopped)
    with FakeLM(lambda _: ANSWER) as server:
        with pytest.raises(Interrupted):
            ask_all(store, endpoint(server, in_flight=1), [request(i, f"item {i}.") for i in range(5)])
        assert server.n_requests == 0
    assert outcomes(store) == [("unsent", "stopped")]
    assert bill(store) == (0, 0, 0, 0, 0)


def test_one_item_that_fails_leaves_the_others_alone(store):
    with FakeLM(lambda ask: ANSWER, identify=lambda m: str("item 7." in m[-1]["content"])) as server:
        server.faults = (Fault("status", status=500, item="True"),)
        made = ask_all(store, endpoint(server), [request(i, f"item {i}.") for i in range(20)])
        assert server.counts == {"True": 1 + SEVERAL.server, "False": 19}
    assert [a.item for a in made if a.status == "failed"] == [7]


@pytest.mark.parametrize("name", ["insufficient_quota", "401 echoing the key", "redirect"])
def test_what_no_later_call_can_survive_stops_the_whole_run(name, store):
    fault = dict(CASES[name].fault or {})
    with FakeLM(lambda _: ANSWER, latency_s=0.01) as server:
        server.faults = (Fault(fault.pop("kind"), **fault),)
        with pytest.raises(ModelError):
            ask_all(store, endpoint(server, in_flight=4), [request(i) for i in range(100)])
        assert server.n_requests <= 4


def test_calls_waiting_to_be_repeated_are_not_sent_once_the_run_stops(store, monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.2)
    with FakeLM(lambda _: ANSWER, identify=lambda m: str("item 7." in m[-1]["content"])) as server:
        server.faults = (Fault("insufficient_quota", item="True"), Fault("status", status=503))
        with pytest.raises(ModelError, match="no credit"):
            ask_all(store, endpoint(server), [request(i, f"item {i}.") for i in range(8)])
        assert server.n_requests == 8
    assert store.count(t.annotation) == 0


def test_too_many_failures_stop_the_run_and_the_probe_does_not_count(store):
    with FakeLM(lambda _: ANSWER) as server:
        server.faults = (Fault("context_length"),)
        with pytest.raises(ModelError, match=r"5 of 5 calls failed, more than annotate.tolerate = 0.02"):
            ask_all(store, endpoint(server, tolerate=0.02, in_flight=1), [request(i) for i in range(50)])
        assert server.n_requests == 5


def test_a_reader_that_fails_loses_no_paid_answer(store):
    def broken(_request, _end):
        raise RuntimeError("parser bug")

    async def main(server):
        ledger = Ledger(store, Caps())
        try:
            async with Transport(endpoint(server, in_flight=2), ledger, Price(*PRICE)) as transport:
                await transport.ask_all([request(i) for i in range(40)], broken)
        finally:
            ledger.close()

    with FakeLM(lambda _: ANSWER, price=PRICE) as server:
        with pytest.raises(RuntimeError, match="parser bug"):
            asyncio.run(main(server))
        sent = server.n_requests
        assert sent <= 2
        assert store.count(t.response) == sent
        assert bill(store).cost == server.bill
        ask_all(store, endpoint(server), [request(i) for i in range(40)])
        assert server.n_requests == 40


@pytest.mark.parametrize(
    "content", ["\ud83d half a pair", "a\x00b", "x" * 100_000, "[[ ## answer ## ]]\n\ud800", "\u202e\u2028"]
)
def test_any_content_can_be_kept(content, store):
    with FakeLM(lambda _: content) as server:
        made = ask_all(store, endpoint(server), [request()])
    assert made[0].status in ("unparsed", "off_list", "length")
    assert store.count(t.annotation) == store.count(t.response) == 1


@pytest.mark.parametrize("key", ["EMPTY", "token", "null"])
def test_a_key_that_is_no_secret_does_not_spoil_answers(key, store):
    brain = lambda _: f"[[ ## answer ## ]]\nB\n\n{key}"  # noqa: E731
    with FakeLM(brain, api_key=key) as server:
        where = Endpoint(base_url=server.base_url, key=key, key_name="K")
        assert [a.status for a in ask_all(store, where, [request()])] == ["off_list"]
        assert server.n_requests == 1


def test_one_question_asked_twice_at_once_is_one_call(store):
    async def main(server):
        ledger = Ledger(store, Caps())
        async with Transport(endpoint(server), ledger, Price(*PRICE)) as transport:
            ends = await asyncio.gather(*(transport.ask(request(), lambda *_: []) for _ in range(8)))
        ledger.close()
        return ends

    with FakeLM(lambda _: ANSWER, latency_s=0.02) as server:
        ends = asyncio.run(main(server))
        assert server.n_requests == 1
    assert len(set(map(str, ends))) == 1


def few_shot(store: Store, where: Endpoint, n: int, caps: Caps = NO_CAPS) -> Any:
    d, ledger = dspy(), Ledger(store, caps)
    trainset = [d.Example(text=f"text {i}", answer="B").with_inputs("text") for i in range(n)]
    compiler = d.BootstrapFewShot(
        metric=lambda gold, said, _=None: gold.answer == said.answer,
        max_bootstrapped_demos=3,
        max_labeled_demos=0,
    )
    try:
        with (
            language_model(Transport(where, ledger, Price(*PRICE)), "fake-lm", **OPTIONS) as lm,
            d.context(lm=lm, adapter=adapter()),
        ):
            return compiler.compile(d.Predict(signature(load_prompt(), SCHEMA)), trainset=trainset)
    finally:
        ledger.close()


def test_a_dspy_optimiser_compiles_with_every_call_in_the_ledger(store):
    answers = iter(["A", "B", "nonsense", "B", "B"])
    with FakeLM(lambda _: f"[[ ## answer ## ]]\n{next(answers)}\n", price=PRICE, api_key=KEY) as server:
        compiled = few_shot(store, endpoint(server), 10)
        assert len(compiled.demos) == 3
        assert server.n_requests == bill(store).calls == 5
        assert server.bill == bill(store).cost
        assert store.count(t.outcome, t.outcome.c.exact == 1) == 5
        assert store.count(t.request, t.request.c.purpose == "optimise", t.request.c.body.is_not(None)) == 5
        few_shot(store, endpoint(server), 10)
        assert server.n_requests == 5


@pytest.mark.parametrize(
    ("caps", "fault", "calls"),
    [(Caps(calls=2), None, 2), (Caps(cost=1), None, 0), (Caps(), "insufficient_quota", 1)],
)
def test_an_optimiser_that_swallows_errors_still_ends_with_ours(caps, fault, calls, store):
    with FakeLM(lambda _: ANSWER, price=PRICE) as server:
        server.faults = (Fault(fault),) if fault else ()
        with pytest.raises(LlmalError, match=r"calls are made|could cost|no credit"):
            few_shot(store, endpoint(server), 10, caps)
        assert server.n_requests == calls


@pytest.mark.parametrize(("second_call", "attempts"), [(False, 1), (True, 2)])
def test_the_count_at_the_endpoint_sees_an_adapter_that_calls_twice(second_call, attempts, store, server):
    """Power check: DSPy's default adapter pays twice for a bad answer, and the counters tell."""
    d, ledger = dspy(), Ledger(store, NO_CAPS)
    server.faults = (Fault("prose"),)
    twice = d.ChatAdapter(use_json_adapter_fallback=second_call)
    with (
        language_model(Transport(endpoint(server), ledger, Price(*PRICE)), "fake-lm", **OPTIONS) as lm,
        d.context(lm=lm, adapter=twice),
        pytest.raises(d.utils.exceptions.AdapterParseError),
    ):
        d.Predict(signature(load_prompt(), SCHEMA))(text="the app crashes")
    ledger.close()
    assert server.n_requests == bill(store).calls == attempts
