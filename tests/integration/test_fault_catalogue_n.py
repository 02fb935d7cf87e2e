"""Group N of the fault catalogue, the network and the model: what the user sees, what is sent, what is kept.

| row | shown by |
|---|---|
| N1 429 with Retry-After | test_transport_faults `test_retry_after_is_waited_for_...`; dates in test_wire |
| N2 429 storms | unit test_limits `test_after_a_storm_the_allowed_rate_is_found_again` and its neighbours |
| N3 no credit | test_transport_faults `..._no_later_call_can_survive_...`; test_batches for batches |
| N4 key refused and echoed | test_transport_faults 401, 403, 400; test_llm_annotator; test_batches |
| N5 500, 502, 503, 529 | test_transport_faults; `test_one_item_that_fails_leaves_the_others_alone` |
| N6 connection refused | here; unit test_probe `test_nobody_there_...`; test_transport_faults |
| N7 hang, one byte at a time | test_transport_faults `hang`, `drip`; here: the place is free again |
| N8 cut body, bad gzip, bomb | test_transport_faults; here: bad chunks, and the memory a bomb takes |
| N9 200 without an answer | test_transport_faults `choices []`, `html`, `cut json`, `empty body` |
| N10 length, filter, refusal | here: three reasons in `llmal status`, each paid once |
| N11 labels off the list | unit test_codes and test_program; here: end to end |
| N12 confidences that are none | here; log-probabilities in test_llm_annotator, percentages in test_forms |
| N13 log-probabilities missing or split | test_llm_annotator; here: kinds are never mixed in one column |
| N14 answer cut, usage missing | here: flagged, the upper bound holds the budget; no stream is asked for |
| N15 another model answers | test_llm_annotator `..._changes_its_name_...`, `..._pinned_model_...` |
| N16 other answers at temperature 0 | here: `asks` shows it in the confidence and the reason |
| N17 retries multiplied | test_transport_faults `test_attempts_at_the_endpoint_...`, with a power check |
| N18 budget amid calls | test_budget; test_batches `test_a_cap_is_never_passed_...` |
| N19 unknown price | here; unit test_prices |
| N20, N21 batches | test_batches |
| N22 redirect, proxy, http, self-signed | here; redirects in test_transport_faults and test_batches |
| N23 a server that stops answering | here for any endpoint; unit test_vllm for one that llmal runs |
| N24 answers swapped | here: caught where ids come back, and a power check of what is not |
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmal.annotate.several import read_several
from llmal.errors import ModelError, UserError
from llmal.lm import batches
from llmal.lm import transport as door
from llmal.lm.endpoint import Endpoint, Retries
from llmal.lm.http import MAX_ANSWER_BYTES
from llmal.lm.prices import Price
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Request, read_reply
from llmal.records import Item, Label, LabelSchema
from llmal.report import full
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.ledger import Caps, Ledger, bill
from llmal.store.store import open_store
from llmal.testing.brains import framed, identify, options, text_id
from llmal.testing.fakelm import FakeLM, Fault
from llmal.testing.forms import answerer

NAMES = ("bug", "billing", "praise")
SCHEMA = LabelSchema("single", tuple(Label(name=n) for n in NAMES), True)
PRICE = (150_000, 600_000)


def text(i: int) -> str:
    return f"{NAMES[i % 3]} text number {i}"


def named(words: str) -> str:
    return next(n for n in NAMES if n in words)


def corpus(home: Path, n: int) -> None:
    rows = "".join(json.dumps({"text": text(i)}) + "\n" for i in range(n))
    (home / "corpus.jsonl").write_text(rows, encoding="utf-8")


def go(
    base_url: str, home: Path, *, budget: Any = None, retry: bool = False, until: Any = "filter", **more: Any
):
    llm = {"use": "llm", "model": "fake-lm", "base_url": base_url, "price": {"input": 0.15, "output": 0.6}}
    pipeline = Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl"},
            "labels": {"names": list(NAMES)},
            "audit": {"size": 0},
            "rounds": {"max": 1, "size": 5000},
            "embed": {"use": "hashing", "dim": 64},
            "select": "uniform",
            "annotate": {k: v for k, v in (llm | more).items() if v is not None},
            "filter": {"use": "confidence", "unknown": "accept"},
            "train": {"rounds": "linear", "final": "linear"},
            "budget": budget or {},
        }
    )
    return run(pipeline, home / "run", home=home, until=until, retry_failed=retry)


@contextmanager
def opened(home: Path):
    store = open_store(home / "run", write=False)
    yield store
    store.close()


def annotations(home: Path) -> list[Any]:
    with opened(home) as store:
        return list(store.read(t.annotation.select()))


def labels(home: Path) -> dict[str, tuple[str, list[str]]]:
    """Text -> status and labels."""
    with opened(home) as store:
        rows = store.read(t.annotation.select())
        texts = {item.seq: item.text for item in store.items([row.item for row in rows])}
        return {texts[row.item]: (row.status, json.loads(row.labels)) for row in rows}


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.05)


def one_call(url: str, tmp_path: Path, **more: Any) -> tuple[Any, list[tuple[str, str]]]:
    """A single request through the transport: its end, and the outcomes booked."""
    store = open_store(tmp_path / "run")
    request = Request("annotate", "fake-lm", [{"role": "user", "content": "hello"}], {"max_tokens": 16}, 0)

    async def main():
        ledger = Ledger(store, Caps())
        try:
            async with Transport(Endpoint(base_url=url, **more), ledger, Price(*PRICE)) as transport:
                return await transport.ask(request, lambda *_: [])
        finally:
            ledger.close()

    try:
        end = asyncio.run(main())
        o = t.outcome.c
        return end, [tuple(r) for r in store.read(t.outcome.select().with_only_columns(o.status, o.reason))]
    finally:
        store.close()


# --- N6, N7, N23: nobody there, or nobody answers -----------------------------------------------------------


def test_n6_nobody_there_at_the_start_is_told_before_any_item_is_asked(tmp_path):
    corpus(tmp_path, 6)
    server = FakeLM(answerer(named)).start()
    server.stop()
    with pytest.raises(ModelError, match=r"cannot connect.*is the server running\?"):
        go(server.base_url, tmp_path)
    with opened(tmp_path) as store:
        assert store.count(t.annotation) == 0
        assert bill(store).calls == 0


def stops_after(server: FakeLM, n: int, back_after_s: float | None) -> threading.Thread:
    """Close the port once `n` requests have come; open it again after a while, or never."""

    def act():
        server.wait_for(n, 20)
        server.stop()
        if back_after_s is not None:
            threading.Event().wait(back_after_s)
            server.start()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_n6_a_port_that_closes_amid_the_run_and_opens_again_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.2)
    corpus(tmp_path, 40)
    server = FakeLM(answerer(named), identify=identify, latency_s=0.01).start()
    try:
        gone = stops_after(server, 15, 0.3)
        go(server.base_url, tmp_path, in_flight=4, retries={"connect": 40, "timeout": 5})
        gone.join()
    finally:
        server.stop()
    assert set(server.answered.values()) == {1}, "what was answered is not asked again"
    assert labels(tmp_path) == {text(i): ("ok", [named(text(i))]) for i in range(40)}


def test_n6_a_port_that_stays_closed_ends_the_run_and_the_next_one_asks_the_rest(tmp_path):
    corpus(tmp_path, 40)
    server = FakeLM(answerer(named), identify=identify, latency_s=0.01).start()
    try:
        gone = stops_after(server, 15, None)
        with pytest.raises(ModelError):
            go(server.base_url, tmp_path, in_flight=4, retries={"connect": 1, "timeout": 0})
        gone.join()
        kept = sum(server.answered.values()) - 1
        assert 0 < kept < 40
        with opened(tmp_path) as store:
            assert store.count(t.response) in (kept, kept + 1)  # the probe's answer is one
            assert bill(store).calls < 25, "a call that never left is no call"
            lost = store.count(t.annotation, t.annotation.c.status == "failed")
            assert lost <= 4, "only calls that were open when the port closed failed; the others wait"
        server.start()
        go(server.base_url, tmp_path, in_flight=4, retry=True)
    finally:
        server.stop()
    assert all(n == 1 for n in server.answered.values())
    assert labels(tmp_path) == {text(i): ("ok", [named(text(i))]) for i in range(40)}


def test_n7_an_item_whose_answer_hangs_frees_its_place_and_holds_up_no_other(tmp_path):
    corpus(tmp_path, 12)
    with FakeLM(answerer(named), identify=identify) as server:
        server.faults = (Fault("hang", item=text_id(text(0)), seconds=60.0),)
        go(server.base_url, tmp_path, in_flight=1, timeout_s=0.3, retries={"timeout": 1}, tolerate=1.0)
        assert server.counts[text_id(text(0))] == 2
    found = labels(tmp_path)
    assert found.pop(text(0)) == ("failed", [])
    assert found == {text(i): ("ok", [named(text(i))]) for i in range(1, 12)}


def test_n23_a_server_that_stops_answering_ends_the_run_and_after_its_restart_the_rest_is_asked(tmp_path):
    corpus(tmp_path, 40)
    with FakeLM(answerer(named), identify=identify) as server:
        server.faults = tuple(Fault("hang", nth=n, seconds=60.0) for n in range(16, 60))
        with pytest.raises(ModelError, match=r"calls failed, more than annotate.tolerate = 0.02"):
            go(server.base_url, tmp_path, in_flight=4, timeout_s=0.3, retries={"timeout": 0})
        asked = server.n_requests
        assert asked <= 15 + 5 + 4, "it gives up after a handful"
        server.faults = ()
        go(server.base_url, tmp_path, in_flight=4, timeout_s=5.0, retry=True)
    assert set(server.answered.values()) == {1}
    assert labels(tmp_path) == {text(i): ("ok", [named(text(i))]) for i in range(40)}


# --- N8: bodies that break ----------------------------------------------------------------------------------


@contextmanager
def raw_server(answer: bytes):
    """A server that says these bytes to every request; counts them."""
    seen: list[bytes] = []
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    ready = threading.Event()

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await server.serve_forever()

    task: list[asyncio.Task[None]] = []

    def work():
        asyncio.set_event_loop(loop)
        task.append(loop.create_task(main()))
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task[0])

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{ports[0]}/v1", seen
    finally:
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join()
        loop.close()


BROKEN = {
    "a chunk size that is no number": b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "chunks that never end": b'Transfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n',
    "more announced than sent": b'Content-Length: 500\r\n\r\n{"choices": []',
    "gzip that is none": b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_n8_a_broken_body_fails_the_item_as_transport_after_the_configured_tries(name, tmp_path):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with raw_server(head + BROKEN[name]) as (url, seen):
        end, booked = one_call(url, tmp_path, retries=Retries(timeout=2), timeout_s=5.0)
        assert len(seen) == 3
    assert isinstance(end, Failure)
    assert end.reason == "connection"
    assert booked == [("unknown", "connection")] * 3  # it may have been charged: that counts as spent


def test_n8_a_gzip_bomb_takes_no_more_memory_than_the_cap(tmp_path):
    with FakeLM(lambda _: "x") as server:
        server.faults = (Fault("gzip_bomb", megabytes=256),)
        one_call(server.base_url, tmp_path / "warm", retries=Retries(timeout=0))  # imports, and the bomb made
        tracemalloc.start()
        end, _ = one_call(server.base_url, tmp_path / "bomb", retries=Retries(timeout=0))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(end, Failure)
    assert peak < 4 * MAX_ANSWER_BYTES


# --- N10 to N13: answers without a label, or without a confidence -------------------------------------------


def test_n10_cut_filtered_and_refused_are_three_reasons_each_paid_once(tmp_path):
    corpus(tmp_path, 12)
    with FakeLM(answerer(named), identify=identify, price=PRICE) as server:
        kinds = ("length", "content_filter", "refusal")
        server.faults = tuple(Fault(kind, item=text_id(text(i))) for i, kind in enumerate(kinds))
        outcome = go(server.base_url, tmp_path)
        assert set(server.counts.values()) == {1}
        assert outcome.bill.cost == server.bill
    with opened(tmp_path) as store:
        shown = full(tmp_path / "run")
        assert store.count(t.response) == 13
    assert shown["annotations"] == {"filtered": 1, "length": 1, "ok": 9, "refused": 1}


SAID = {
    "B": ("ok", ["billing"]),
    " b ": ("ok", ["billing"]),
    "\uff22": ("ok", ["billing"]),
    "Billing": ("ok", ["billing"]),
    "A or B": ("off_list", []),
    "A, B": ("off_list", []),
    "A = bug, B = billing, C = praise": ("off_list", []),
    "Z": ("off_list", []),
    "billing bug": ("off_list", []),
    "\u0412": ("off_list", []),  # looks like a B, and is none
}


def test_n11_what_is_not_one_option_of_the_list_is_never_made_into_one(tmp_path):
    corpus(tmp_path, len(SAID))
    spelled = {text(i): words for i, words in enumerate(SAID)}

    def brain(ask):
        found = next((words for one, words in spelled.items() if f"\n{one}\n" in ask.user), "A")
        return f"[[ ## answer ## ]]\n{found}\n\n[[ ## completed ## ]]"

    with FakeLM(brain, identify=identify) as server:
        go(server.base_url, tmp_path)
        assert set(server.counts.values()) == {1}
    assert {spelled[one]: read for one, read in labels(tmp_path).items()} == SAID


CONFIDENCES = ("NaN", "inf", "true", "0.9", "-1", "101", "eighty", "85%%", "1e2", '"85"', "")


def test_n12_a_stated_confidence_that_is_no_whole_percentage_is_none(tmp_path):
    corpus(tmp_path, len(CONFIDENCES) + 1)
    words = {text(i): word for i, word in enumerate((*CONFIDENCES, "85"))}

    def brain(ask):
        word = next((word for one, word in words.items() if f"\n{one}\n" in ask.user), "50")
        code = options(ask).get(next((named(one) for one in words if f"\n{one}\n" in ask.user), "bug"), "A")
        return f"[[ ## answer ## ]]\n{code}\n\n[[ ## confidence ## ]]\n{word}\n\n[[ ## completed ## ]]"

    with FakeLM(brain, identify=identify, supports_logprobs=False) as server:
        go(server.base_url, tmp_path, stated=True)
        assert max(server.counts.values()) <= 3  # the probe alone is asked in three forms
    with opened(tmp_path) as store:
        rows = store.read(t.annotation.select())
        texts = {item.seq: item.text for item in store.items([row.item for row in rows])}
        found = {words[texts[row.item]]: (row.confidence, row.kind) for row in rows}
    assert found.pop("85") == (0.85, "stated")
    assert found == {word: (None, "none") for word in CONFIDENCES}


def test_n13_kinds_of_confidence_are_never_mixed_in_one_column(tmp_path):
    """Log-probabilities for some answers, none for others: those have no confidence, and say so."""
    corpus(tmp_path, 12)

    def brain(ask):
        found = next((text(i) for i in range(12) if f"\n{text(i)}\n" in ask.user), text(0))
        codes = options(ask) or {"bug": "A"}
        sure = None if "number 3" in found or "number 4" in found else 0.9
        return framed(codes.get(named(found), "A"), list(codes.values()), sure)

    with FakeLM(brain, identify=identify) as server:
        go(server.base_url, tmp_path)
    kinds = Counter((row.kind, row.confidence is None) for row in annotations(tmp_path))
    assert kinds == {("logprobs", False): 10, ("none", True): 2}


# --- N14, N19: money ----------------------------------------------------------------------------------------


def test_n14_without_usage_the_upper_bound_holds_the_budget_and_is_flagged(tmp_path):
    corpus(tmp_path, 40)
    with FakeLM(answerer(named), identify=identify, price=PRICE) as server:
        server.faults = (Fault("no_usage"),)
        go(server.base_url, tmp_path, budget={"usd": 0.004})
        with opened(tmp_path) as store:
            spent = bill(store)
            estimated = store.count(t.outcome, t.outcome.c.exact == 0, t.outcome.c.reason == "no usage")
        assert server.bill <= spent.cost <= 4 * 10**9
        assert estimated == spent.calls == server.n_requests
        assert 1 < server.n_requests < 41
        assert not any(ask.body.get("stream") for ask in server.requests), "no stream: none can stop midway"


def test_n14_an_answer_that_stops_midway_counts_with_its_worst_case(tmp_path):
    with FakeLM(lambda _: "A" * 40, price=PRICE) as server:
        server.faults = (Fault("cut_body"),)
        _, booked = one_call(server.base_url, tmp_path, retries=Retries(timeout=1))
        assert booked == [("unknown", "connection")] * 2
        with opened(tmp_path) as store:
            assert (bill(store).unknown, bill(store).calls) == (2, 2)
            assert bill(store).cost >= server.bill > 0


def test_n19_an_unknown_price_stops_the_run_before_the_first_call_and_is_never_zero(tmp_path):
    corpus(tmp_path, 3)
    with FakeLM(answerer(named)) as server:
        with pytest.raises(ModelError, match="the price of 'fake-lm' is not known, so no budget could hold"):
            go(server.base_url, tmp_path, price=None)
        assert server.n_requests == 0
        go(server.base_url, tmp_path, price="local")
    with opened(tmp_path) as store:
        assert bill(store).tokens_in > 0


def test_n18_a_budget_that_ends_the_run_says_what_is_left_and_what_the_next_call_could_cost(tmp_path):
    corpus(tmp_path, 40)
    with FakeLM(answerer(named), price=PRICE) as server:
        outcome = go(server.base_url, tmp_path, budget={"usd": 0.001}, until=None)
        assert 0 < server.bill <= outcome.bill.cost <= 10**9
    assert outcome.stopped.startswith("the budget is spent: the next call could cost $0.0")
    assert outcome.stopped.endswith("of $0.00 is left")


# --- N16: other answers to the same question ----------------------------------------------------------------


def test_n16_a_model_that_changes_its_mind_at_temperature_0_shows_in_confidence_and_reason(tmp_path):
    corpus(tmp_path, 6)
    fickle = text(0)

    def brain(ask):
        found = next((text(i) for i in range(6) if f"\n{text(i)}\n" in ask.user), fickle)
        name = NAMES[ask.attempt % 3] if found == fickle else named(found)
        return f"[[ ## answer ## ]]\n{options(ask).get(name, 'A')}\n\n[[ ## completed ## ]]"

    with FakeLM(brain, identify=identify) as server:
        go(server.base_url, tmp_path, asks=3)
        assert set(server.counts.values()) - {1} == {3}
    with opened(tmp_path) as store:
        rows = store.read(t.annotation.select())
        texts = {item.seq: item.text for item in store.items([row.item for row in rows])}
    found = {texts[row.item]: row for row in rows}
    assert found.pop(fickle).detail.endswith("3 of 3 answers carry a label, 1 of them this")
    assert all(row.detail.endswith("3 of them this") for row in found.values())
    assert max(row.confidence for row in rows if texts[row.item] == fickle) < min(
        row.confidence for row in found.values()
    )


# --- N22: whom the key goes to ------------------------------------------------------------------------------

KEY = "sk-canary-0123456789abcdef"


def test_n22_a_proxy_of_the_environment_sees_nothing_that_is_for_this_machine(tmp_path, monkeypatch):
    with FakeLM(lambda _: "A") as proxy, FakeLM(lambda _: "A") as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        end, _ = one_call(server.base_url, tmp_path, key=KEY)
        assert not isinstance(end, Failure)
        assert proxy.keys_seen.total() == 0
        assert server.keys_seen == {KEY: 1}


@pytest.mark.parametrize("url", ["http://example.org/v1", "http://10.0.0.7:8000/v1"])
def test_n22_a_key_never_crosses_a_network_in_clear(url):
    with pytest.raises(UserError, match="a key would cross the network in clear text. Use https"):
        Endpoint(base_url=url, key=KEY).check()
    Endpoint(base_url="http://127.0.0.1:8000/v1", key=KEY).check()


def test_n22_a_certificate_nobody_signed_gets_no_request(tmp_path):
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    pair = [tmp_path / "key.pem", tmp_path / "cert.pem"]
    try:
        subprocess.run(
            [*made, "-addext", "subjectAltName=DNS:localhost", "-keyout", str(pair[0]), "-out", str(pair[1])],
            check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no openssl here to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair[1], pair[0])
    seen: list[bytes] = []

    async def main():
        async def serve(reader, writer):
            seen.append(await reader.read(10_000))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
        store = open_store(tmp_path / "run")
        ledger = Ledger(store, Caps())
        request = Request("annotate", "m", [{"role": "user", "content": "hello"}], {"max_tokens": 16}, 0)
        where = Endpoint(base_url=url, key=KEY, retries=Retries(connect=1))
        async with server, Transport(where, ledger, Price(*PRICE)) as transport:
            with pytest.raises(ModelError, match="Certificate"):
                await transport.ask(request, lambda *_: [])
        ledger.close()
        spent = bill(store)
        store.close()
        return spent

    spent = asyncio.run(main())
    assert not any(b"POST" in one or KEY.encode() in one for one in seen)
    assert spent.cost == 0


# --- N24: answers of others ---------------------------------------------------------------------------------


def test_n24_swapped_answers_are_caught_where_ids_come_back_and_no_label_is_wrong(tmp_path):
    corpus(tmp_path, 24)
    with FakeLM(answerer(named)) as server:
        server.faults = tuple(Fault("swap", nth=n) for n in range(2, 14))
        go(server.base_url, tmp_path, batch=2, in_flight=8)
        assert len(server.swapped) >= 4
        assert server.n_requests == 1 + 12 + 2 * 2 * len(server.swapped)
    assert labels(tmp_path) == {text(i): ("ok", [named(text(i))]) for i in range(24)}


def test_n24_power_check_an_option_code_alone_tells_nothing_of_its_question(tmp_path):
    corpus(tmp_path, 24)
    with FakeLM(answerer(named)) as server:
        server.faults = tuple(Fault("swap", nth=n) for n in range(2, 26))
        go(server.base_url, tmp_path, in_flight=8)
        assert len(server.swapped) >= 4
    wrong = [one for one, (_, found) in labels(tmp_path).items() if found != [named(one)]]
    assert wrong


def test_n24_the_id_of_one_text_is_no_id_of_another():
    """What an echo for single texts would rest on: a question about several with one text in it."""
    one, other = Item(0, "key of one", "bug text"), Item(1, "key of another", "billing text")
    asked = {}

    def brain(ask):
        return answerer(named)(ask)

    from llmal.annotate.several import block
    from llmal.prompts.file import load_prompt
    from llmal.prompts.frame import render
    from llmal.testing.chat import Ask

    frame = render(load_prompt(), SCHEMA, "several")
    for item in (one, other):
        messages = tuple(frame.asking(block([item], b"s"), b"s"))
        said = brain(Ask(messages, "m", {}, "i", 1))
        content = said if isinstance(said, str) else said.content
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        asked[item.seq] = read_reply(json.dumps({"choices": [choice]}), "h")
    assert read_several([one], asked[0], b"s", SCHEMA)[0].labels == ("bug",)
    assert read_several([one], asked[1], b"s", SCHEMA) is None


def test_n24_with_echo_a_swapped_answer_is_no_answer_and_no_label_is_wrong(tmp_path):
    corpus(tmp_path, 24)
    with FakeLM(answerer(named)) as server:
        server.faults = tuple(Fault("swap", nth=n) for n in range(2, 26))
        go(server.base_url, tmp_path, in_flight=8, echo=True)
        swapped = 2 * len(server.swapped)
        assert swapped >= 8
        assert server.n_requests == 1 + 24
    found = labels(tmp_path)
    assert sum(read == ("unparsed", []) for read in found.values()) == swapped
    assert all(read == ("ok", [named(one)]) for one, read in found.items() if read[0] == "ok")
    assert len(found) == 24


@pytest.mark.parametrize("way", [{"batch_api": True}, {"batch_api": True, "asks": 2}])
def test_a_pipeline_by_provider_batches_labels_everything_in_one(tmp_path, monkeypatch, way):
    corpus(tmp_path, 24)
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.01)
    with FakeLM(answerer(named, confidence=0.9)) as server:
        go(server.base_url, tmp_path, **way)
        assert server.batches.sizes == [24 * way.get("asks", 1)]
    a = labels(tmp_path)
    assert all(read == ("ok", [named(one)]) for one, read in a.items())
