"""FakeLM over real sockets: what a client sees of each fault, and that the counters are exact."""

import asyncio
import gzip
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from llmal.testing.fakelm import KINDS, Answer, Ask, Bill, FakeLM, Fault, Rejection, recorded, replay

FRUIT = Answer("A", logprobs=[("A", {"A": -0.1, "B": -2.5, "C": -4.0})])


def body_for(text, **more):
    return {"model": "fake-lm", "messages": [{"role": "user", "content": text}]} | more


def post(server, text="apple", *, key=None, timeout_s=5.0, **more):
    """One request on a connection of its own -> status, headers, raw body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request("POST", "/v1/chat/completions", json.dumps(body_for(text, **more)), headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def choice(server, text="apple", **more):
    status, _, raw = post(server, text, **more)
    assert status == 200, raw
    return json.loads(raw)["choices"][0]


def error(server, text="apple", **more):
    status, headers, raw = post(server, text, **more)
    return status, headers, json.loads(raw)["error"]


def by_text(messages):
    return messages[-1]["content"]


def fake(*faults, brain=lambda ask: FRUIT, **options):
    return FakeLM(brain, faults=faults, identify=by_text, price=(3, 7), **options)


async def post_all(server, texts, *, at_once=8):
    """Status per text, asked in this order by so many workers of an aiohttp client."""
    seen, queue = {}, iter(texts)

    async def work(session):
        for text in queue:
            async with session.post(f"{server.base_url}/chat/completions", json=body_for(text)) as response:
                await response.read()
                seen.setdefault(text, []).append(response.status)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(at_once)))
    return seen


# --- a plain conversation


def test_answers_and_shows_the_brain_the_request():
    asks = []

    def brain(ask):
        asks.append(ask)
        return f"{ask.system}|{ask.user}|{ask.attempt}"

    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "text", "text": "tw"}, {"type": "text", "text": "o"}]},
    ]
    with FakeLM(brain) as server:
        contents = [choice(server, messages=messages)["message"]["content"] for _ in range(2)]
        assert contents == ["be brief|two|1", "be brief|two|2"]
        assert server.requests == asks
    assert isinstance(asks[0], Ask)
    assert asks[0].item == "3fc4ccfe745870e2"  # printf two | sha256sum | cut -c-16


def test_body_has_usage_by_the_documented_rule_and_limits_output():
    with fake(brain=lambda ask: "x" * 41) as server:
        payload = json.loads(post(server, "t" * 9)[2])
        assert payload["usage"] == {"prompt_tokens": 4 + 3, "completion_tokens": 11, "total_tokens": 18}
        assert (payload["object"], payload["model"]) == ("chat.completion", "fake-lm")
        payload = json.loads(post(server, "t" * 9, max_tokens=5)[2])
        assert payload["choices"][0]["finish_reason"] == "length"
        assert payload["choices"][0]["message"]["content"] == "x" * 20
        assert payload["usage"]["completion_tokens"] == 5
        assert server.bill == (7 * 3 + 11 * 7) + (7 * 3 + 5 * 7)


def test_logprobs_and_n():
    with fake(brain=lambda ask: FRUIT if ask.choice == 0 else "B") as server:
        payload = json.loads(post(server, n=2, logprobs=True, top_logprobs=2)[2])
        first, second = payload["choices"]
        (token,) = first["logprobs"]["content"]
        assert (token["token"], token["logprob"], token["bytes"]) == ("A", -0.1, [65])
        assert [(t["token"], t["logprob"]) for t in token["top_logprobs"]] == [("A", -0.1), ("B", -2.5)]
        assert (second["index"], second["message"]["content"], second["logprobs"]) == (1, "B", None)
        assert payload["usage"]["completion_tokens"] == 2
        assert choice(server)["logprobs"] is None


@pytest.mark.parametrize(
    ("options", "more", "status", "code"),
    [
        ({"supports_logprobs": False}, {"logprobs": True}, 400, "unsupported_parameter"),
        ({"max_top_logprobs": 5}, {"logprobs": True, "top_logprobs": 6}, 400, "invalid_value"),
        ({}, {"top_logprobs": 2}, 400, "invalid_value"),
        ({}, {"n": 0}, 400, "invalid_value"),
        ({}, {"max_tokens": 0}, 400, "invalid_value"),
        ({}, {"stream": True}, 400, "unsupported_parameter"),
        ({}, {"messages": []}, 400, "invalid_value"),
        ({}, {"model": "gpt-x"}, 404, "model_not_found"),
        ({"max_model_len": 16}, {"max_tokens": 12}, 400, "context_length_exceeded"),
    ],
)
def test_refuses_what_a_real_server_refuses(options, more, status, code):
    with fake(**options) as server:
        assert choice(server, response_format={"type": "json_object"})["message"]["content"] == "A"
        seen, _, shape = error(server, **more)
        assert (seen, shape["code"]) == (status, code)
        assert set(shape) == {"message", "type", "param", "code"}
        assert server.statuses == {200: 1, status: 1}
        assert len(server.bills) == 1


def test_models_and_health():
    with fake(max_model_len=4096) as server:
        with urllib.request.urlopen(f"{server.base_url}/models") as response:
            (card,) = json.load(response)["data"]
        assert (card["id"], card["max_model_len"]) == ("fake-lm", 4096)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health") as response:
            assert response.status == 200


def test_wrong_key_is_echoed_and_nothing_is_asked():
    with fake(api_key="sk-right") as server:
        status, _, shape = error(server, key="sk-canary-123")
        assert (status, shape["code"]) == (401, "invalid_api_key")
        assert "sk-canary-123" in shape["message"]
        assert (server.n_requests, server.bill, server.statuses) == (0, 0, {401: 1})
        assert post(server, key="sk-right")[0] == 200
        assert server.keys_seen == {"sk-canary-123": 1, "sk-right": 1}
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.base_url}/models")
        caught.value.close()
        assert caught.value.code == 401


def test_a_failing_brain_is_a_500_and_kept():
    def brain(ask):
        if ask.user == "teapot":
            raise Rejection(418, "short and stout")
        raise KeyError("oops")

    with fake(brain=brain) as server:
        assert error(server)[0] == 500
        assert [repr(e) for e in server.errors] == ["KeyError('oops')"]
        assert error(server, "teapot")[0] == 418
        assert len(server.errors) == 1
    with fake(brain=lambda ask: None) as server:
        assert "returned None" in error(server)[2]["message"]


def test_lone_surrogates_travel():
    with FakeLM(lambda ask: ask.user, price=(1, 1)) as server:
        assert choice(server, "\ud800")["message"]["content"] == "\ud800"


# --- faults: errors


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 502, 503, 529])
def test_status(status):
    with fake(Fault("status", status=status, nth=1)) as server:
        seen, headers, shape = error(server, key="sk-canary")
        assert seen == status
        assert shape["message"]
        assert headers["Retry-After"] is None
        assert ("sk-canary" in shape["message"]) == (status in (401, 403))
        assert post(server)[0] == 200
        assert server.bills == [Bill("apple", 2, (4 + 2) * 3 + 7, "ok")]
        assert server.answered == {"apple": 1}
        assert server.counts == {"apple": 2}


def test_retry_after_as_seconds_date_and_text():
    faults = [
        Fault("status", status=429, nth=i + 1, retry_after=v)
        for i, v in enumerate((2, timedelta(hours=1), "soon"))
    ]
    with fake(*faults) as server:
        assert error(server)[1]["Retry-After"] == "2"
        date = parsedate_to_datetime(error(server)[1]["Retry-After"])
        assert timedelta(minutes=59) < date - datetime.now(UTC) <= timedelta(hours=1)
        assert error(server)[1]["Retry-After"] == "soon"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("insufficient_quota", 429, "insufficient_quota"), ("context_length", 400, "context_length_exceeded")],
)
def test_coded_errors(kind, status, code):
    with fake(Fault(kind)) as server:
        seen, _, shape = error(server)
        assert (seen, shape["code"]) == (status, code)


def test_redirect_and_what_the_other_host_sees():
    async def follow(server):
        async with aiohttp.ClientSession() as session:
            url, headers = f"{server.base_url}/chat/completions", {"Authorization": "Bearer sk-canary"}
            async with session.post(url, json=body_for("apple"), headers=headers) as response:
                return response.status

    with fake() as other, fake() as server:
        location = f"http://localhost:{other.port}/v1/chat/completions"
        server.faults = (Fault("redirect", location=location),)
        status, headers, _ = post(server)
        assert (status, headers["Location"]) == (307, location)
        assert asyncio.run(follow(server)) == 200
        assert other.keys_seen == {"": 1}
        assert server.bill == 0


# --- faults: what the model says


@pytest.mark.parametrize(
    ("kind", "content", "finish_reason"),
    [
        ("null_content", None, "stop"),
        ("empty_content", "", "stop"),
        ("prose", "It is hard to tell: there is much to be said.", "stop"),
        ("off_list", "ж", "stop"),
        ("length", "", "length"),
        ("content_filter", None, "content_filter"),
        ("refusal", None, "stop"),
    ],
)
def test_answer_faults(kind, content, finish_reason):
    with fake(Fault(kind)) as server:
        _, _, raw = post(server, logprobs=True, top_logprobs=3)
        payload = json.loads(raw)
        (said,) = payload["choices"]
        assert (said["message"]["content"], said["finish_reason"]) == (content, finish_reason)
        assert bool(said["message"]["refusal"]) == (kind == "refusal")
        tokens = (said["logprobs"] or {"content": []})["content"]
        assert "".join(t["token"] for t in tokens) == (content or "")
        assert "A" not in {c["token"] for t in tokens for c in t["top_logprobs"]}
        usage = payload["usage"]
        cost = usage["prompt_tokens"] * 3 + usage["completion_tokens"] * 7
        assert server.bills == [Bill("apple", 1, cost, kind)]
        assert server.answered == {"apple": 1}


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ('{"label": "bug", "confidence": 0.9}', {"label": "жжж", "confidence": 0.9}),
        (
            "[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]",
            "[[ ## label ## ]]\nжжж\n\n[[ ## completed ## ]]",
        ),
        ("👍", "👍ж"),
        ("", ""),
    ],
)
def test_off_list_keeps_the_format(content, seen):
    with fake(Fault("off_list"), brain=lambda ask: content) as server:
        got = choice(server)["message"]["content"]
        assert (json.loads(got) if isinstance(seen, dict) else got) == seen


def test_length_halves_the_content():
    with fake(Fault("length"), brain=lambda ask: "abcdef") as server:
        assert choice(server)["message"]["content"] == "abc"


def test_payload_faults():
    with fake(Fault("no_choices", nth=1), Fault("no_usage", nth=2), Fault("other_model", nth=3)) as server:
        no_choices, no_usage, other_model = (json.loads(post(server)[2]) for _ in range(3))
        assert no_choices["choices"] == []
        assert "usage" not in no_usage
        assert no_usage["choices"]
        assert other_model["model"] == "another-model"
        assert server.bill == 3 * ((4 + 2) * 3 + 7)
        assert server.answered == {"apple": 3}


# --- faults: how the answer travels


def test_html_cut_json_and_empty_body():
    with fake(Fault("html", nth=1), Fault("cut_json", nth=2), Fault("empty_body", nth=3)) as server:
        status, headers, raw = post(server)
        assert (status, headers["Content-Type"], raw[:9]) == (200, "text/html", b"<!doctype")
        status, headers, raw = post(server)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert raw.startswith(b'{"id"')
        with pytest.raises(ValueError, match="."):
            json.loads(raw)
        assert post(server)[::2] == (200, b"")
        assert server.statuses == {200: 3}
        assert server.answered == {}
        assert [bill.kind for bill in server.bills] == ["cut_json", "empty_body"]


@pytest.mark.parametrize("billed", [None, True, False])
def test_reset_before_any_byte(billed):
    with fake(Fault("reset", attempts=1, billed=billed)) as server:
        with pytest.raises(ConnectionResetError):
            post(server)
        assert post(server)[0] == 200
        assert server.statuses == {0: 1, 200: 1}
        assert [bill.kind for bill in server.bills] == (["ok"] if billed is False else ["reset", "ok"])


def test_cut_body():
    with fake(Fault("cut_body")) as server:
        with pytest.raises(http.client.IncompleteRead) as caught:
            post(server)
        assert 0 < len(caught.value.partial) <= caught.value.expected + 1
        assert (server.answered, len(server.bills)) == ({}, 1)


def test_hang_is_billed_even_if_the_client_leaves():
    with fake(Fault("hang", nth=1), Fault("hang", nth=2, seconds=0.05)) as server:
        with pytest.raises(TimeoutError):
            post(server, timeout_s=0.1)
        assert post(server)[0] == 200
        assert server.answered == {"apple": 1}
        assert server.statuses == {0: 1, 200: 1}
        assert [bill.kind for bill in server.bills] == ["hang", "hang"]


def test_drip_is_one_byte_at_a_time():
    with fake(Fault("drip", nth=1, gap_s=0.05), Fault("drip", nth=2, gap_s=0)) as server:
        raw = json.dumps(body_for("apple")).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=2) as client:
            client.sendall(head.encode() + raw)
            received = b""
            while b"\r\n\r\n" not in received:
                received += client.recv(4096)
            received = received.partition(b"\r\n\r\n")[2]
            sizes = [len(received)] + [len(client.recv(4096)) for _ in range(3)]
        assert max(sizes) <= 1
        status, _, raw = post(server)
        assert (status, json.loads(raw)["choices"][0]["message"]["content"]) == (200, "A")
        assert server.answered == {"apple": 1}


def test_bad_gzip_and_gzip_bomb():
    with fake(Fault("bad_gzip", nth=1), Fault("gzip_bomb", nth=2, megabytes=8)) as server:
        status, headers, raw = post(server)
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        with pytest.raises(gzip.BadGzipFile):
            gzip.decompress(raw)
        _, headers, raw = post(server)
        assert headers["Content-Encoding"] == "gzip"
        assert len(raw) < 20_000
        assert len(gzip.decompress(raw)) == 8 * 2**20 + 2


def test_aiohttp_client_fails_cleanly_on_every_wire_fault():
    async def attempt(server):
        url, timeout = f"{server.base_url}/chat/completions", aiohttp.ClientTimeout(total=0.2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.post(url, json=body_for("apple")) as response:
                    return (await response.json())["choices"]
            except (aiohttp.ClientError, TimeoutError, ValueError, TypeError) as failure:
                return type(failure).__name__

    kinds = ["html", "cut_json", "empty_body", "reset", "cut_body", "hang", "drip", "bad_gzip"]
    with fake(*(Fault(kind, nth=n) for n, kind in enumerate(kinds, start=1))) as server:
        seen = dict(zip(kinds, [asyncio.run(attempt(server)) for _ in kinds], strict=True))
    assert seen == {
        "html": "ContentTypeError",
        "cut_json": "JSONDecodeError",
        "empty_body": "TypeError",  # aiohttp reads an empty body as None
        "reset": "ClientOSError",
        "cut_body": "ClientPayloadError",
        "hang": "TimeoutError",
        "drip": "TimeoutError",
        "bad_gzip": "ClientPayloadError",
    }


def test_swap_exchanges_two_concurrent_answers():
    async def both(server):
        async with aiohttp.ClientSession() as session:

            async def one(text):
                async with session.post(
                    f"{server.base_url}/chat/completions", json=body_for(text)
                ) as response:
                    return (await response.json())["choices"][0]["message"]["content"]

            return await asyncio.gather(one("apple"), one("pear"))

    with fake(Fault("swap", item="apple", wait_s=2), brain=lambda ask: ask.user, latency_s=0.02) as server:
        assert asyncio.run(both(server)) == ["pear", "apple"]
        assert server.swapped == [("apple", "pear")]
        assert server.answered == {"apple": 1, "pear": 1}
        assert {(bill.item, bill.kind) for bill in server.bills} == {("apple", "swap"), ("pear", "ok")}


def test_swap_without_a_partner_is_a_plain_answer():
    with fake(Fault("swap", wait_s=0.02), brain=lambda ask: ask.user) as server:
        assert choice(server, "apple")["message"]["content"] == "apple"
        assert server.swapped == []


# --- which requests are struck


def asked(item="a", *, attempt=1, number=1):
    return Ask((), "fake-lm", {}, item, attempt, number=number)


def test_conditions_must_all_hold():
    def struck(**conditions):
        return Fault("html", **conditions).hits(asked("a", attempt=2, number=6), seed=0, place=0)

    assert struck()
    assert struck(nth=6, every=3, item="a", attempts=2, share=1.0)
    assert not struck(nth=5)
    assert not struck(every=4)
    assert not struck(item="b")
    assert not struck(attempts=1)
    assert not struck(share=0.0)


def test_share_does_not_depend_on_the_order_of_arrival():
    texts = [f"text {i}" for i in range(300)]
    outcomes = []
    for order_seed, at_once in [(1, 1), (2, 8), (3, 32)]:
        order = texts * 2  # two attempts each
        random.Random(order_seed).shuffle(order)
        faults = [Fault("status", status=503, share=0.2), Fault("status", status=500, share=0.2, attempts=1)]
        with fake(*faults, seed=7) as server:
            seen = asyncio.run(post_all(server, order, at_once=at_once))
            outcomes.append({text: sorted(statuses) for text, statuses in seen.items()})
            statuses = server.statuses
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert 80 < statuses[503] < 160  # 120 expected
    assert 25 < statuses[500] < 75  # 0.2 of 240 first attempts: the second fault draws for itself


def test_share_follows_the_seed():
    def struck_with(seed):
        return [i for i in range(200) if Fault("html", share=0.3).hits(asked(str(i)), seed=seed, place=0)]

    assert struck_with(0) == struck_with(0) != struck_with(1)


def test_every_and_attempts_over_http():
    with fake(
        Fault("status", status=500, every=3), Fault("status", status=503, item="b", attempts=1)
    ) as server:
        assert [post(server, text)[0] for text in "abbabb"] == [200, 503, 500, 200, 200, 500]


@pytest.mark.parametrize(
    ("kind", "options", "error_type", "match"),
    [
        ("explode", {}, ValueError, "known: bad_gzip, "),
        ("hang", {"second": 3}, TypeError, "second"),
        ("redirect", {}, TypeError, "location"),
        ("html", {"nth": 0}, ValueError, "nth: 0"),
        ("html", {"share": 1.5}, ValueError, "share: 1.5"),
    ],
)
def test_a_wrong_script_is_refused_before_anything_runs(kind, options, error_type, match):
    with pytest.raises(error_type, match=match):
        Fault(kind, **options)


def test_every_kind_is_documented_and_shown():
    assert all(kind.run.__doc__ for kind in KINDS.values())
    assert repr(Fault("hang", nth=2, seconds=1)) == "Fault('hang', nth=2, billed=True, seconds=1)"


# --- counters


def test_counters_and_bill_are_exact_under_load():
    texts = [f"text {i % 40}" for i in range(400)]
    random.Random(0).shuffle(texts)
    faults = [
        Fault("status", status=500, share=0.2),
        Fault("status", status=502, share=0.1, billed=True),
        Fault("prose", share=0.1),
    ]
    with fake(*faults, latency_s=(0.001, 0.003)) as server:
        seen = asyncio.run(post_all(server, texts, at_once=16))
        assert server.counts == Counter(texts)
        assert server.answered == {t: statuses.count(200) for t, statuses in seen.items()}
        assert server.statuses == Counter(s for statuses in seen.values() for s in statuses)
        assert 2 <= server.in_flight_peak <= 16
        assert server.n_requests == len(server.requests) == 400
        kinds = Counter(bill.kind for bill in server.bills)
        assert kinds["ok"] + kinds["prose"] == server.statuses[200]
        assert kinds["status"] == server.statuses[502] > 0
        assert server.bill == sum(bill.picodollars for bill in server.bills)
        for item, attempt, cost, kind in server.bills:
            n_output = 11 if kind == "prose" else 1
            assert cost == (4 + -(-len(item) // 4)) * 3 + n_output * 7, (item, attempt, kind)


def test_stated_token_counts_are_billed_as_whole_picodollars():
    said = Answer("A", prompt_tokens=10**9 + 1, completion_tokens=7)
    with FakeLM(lambda ask: said, price=(10**12 + 1, 3)) as server:
        assert json.loads(post(server)[2])["usage"]["prompt_tokens"] == 10**9 + 1
        assert server.bill == (10**9 + 1) * (10**12 + 1) + 21


def test_keep_bounds_memory_not_counts():
    with fake(keep=3) as server:
        for text in "abcde":
            post(server, text)
        assert [ask.item for ask in server.requests] == ["c", "d", "e"]
        assert len(server.bills) == 3
        assert server.bill == 5 * ((4 + 1) * 3 + 7)


def test_wait_for_reset_and_the_json_view():
    with fake() as server:
        caller = threading.Thread(target=lambda: [post(server, text) for text in "aab"])
        caller.start()
        server.wait_for(3, timeout_s=5)
        caller.join()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/fake/counters") as response:
            view = json.load(response)
        assert (view["counts"], view["answered"]) == ({"a": 2, "b": 1}, {"a": 2, "b": 1})
        assert (view["statuses"], view["bill"], view["n_requests"]) == ({"200": 3}, server.bill, 3)
        assert view["bills"][0] == ["a", 1, 22, "ok"]
        server.reset()
        assert (server.counts, server.bill, server.requests, server.n_requests) == ({}, 0, [], 0)
        with pytest.raises(TimeoutError, match="0 of 1 requests"):
            server.wait_for(1, timeout_s=0.01)
        post(server, "a")
        assert server.requests[0].attempt == 1


def test_latency():
    with fake(latency_s=0.05) as server:
        start = time.monotonic()
        post(server)
        assert time.monotonic() - start >= 0.05


# --- start and stop


def test_stop_closes_the_port_ends_the_thread_and_cuts_off_hanging_requests():
    outcome = []

    def hanging():
        try:
            outcome.append(post(server))
        except (ConnectionError, http.client.HTTPException) as failure:
            outcome.append(failure)

    with fake(Fault("hang", seconds=600)) as server:
        caller = threading.Thread(target=hanging)
        caller.start()
        server.wait_for(1, timeout_s=5)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    caller.join(timeout=5)
    assert len(outcome) == 1
    assert isinstance(outcome[0], Exception)
    assert not any(thread.name == "FakeLM" for thread in threading.enumerate())
    with pytest.raises(ConnectionRefusedError):
        post(server)
    server.stop()


def test_starts_again_on_the_same_port_with_its_counters():
    server = fake()
    with server:
        url = server.base_url
        post(server)
        with pytest.raises(RuntimeError, match="already started"):
            server.start()
    with server:
        assert server.base_url == url
        post(server)
        assert server.counts == {"apple": 2}


def test_a_taken_port_is_an_error_at_start():
    with fake() as server, pytest.raises(OSError, match="address already in use"):
        fake(port=server.port).start()


def test_listens_on_loopback_only():
    with fake() as server, socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.2", server.port))  # would be in use if the server held all addresses


def test_imports_nothing_heavy():
    heavy = ("torch", "dspy", "openai", "numpy", "pydantic")
    code = f"import sys, llmal.testing.fakelm; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# --- recorded answers


def test_replay_never_invents():
    answers = {"k1": "A", "k2": FRUIT}
    brain = replay(answers, find=lambda ask: {"one": "k1", "two": "k2", "three": "k3"}.get(ask.user))
    with fake(brain=brain) as server:
        assert choice(server, "one")["message"]["content"] == "A"
        assert choice(server, "two", logprobs=True)["logprobs"]["content"][0]["token"] == "A"
        for text, named in {"three": "'k3'", "four": "'four'"}.items():
            status, _, shape = error(server, text)
            assert (status, shape["code"]) == (404, "no_recorded_answer")
            assert named in shape["message"]
        assert server.bill == 2 * (5 * 3 + 7)


def test_recorded_prefers_the_longest_text_and_names_bad_rows(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [{"text": "apple", "answer": "A"}, {"text": "apple\u2028pie", "answer": "B"}]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    with fake(brain=recorded(path)) as server:
        assert choice(server, "Label: an apple\u2028pie")["message"]["content"] == "B"
        assert choice(server, "Label: an apple")["message"]["content"] == "A"
    for bad in (
        '{"text": "apple", "answer": "Z"}',
        '{"text": "x"}',
        "[]",
        "{",
        '{"text": "", "answer": "A"}',
    ):
        path.write_text(json.dumps(rows[0]) + "\n" + bad + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"answers\.jsonl:2: "):
            recorded(path)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_command_line(tmp_path, stop):
    path = tmp_path / "answers.jsonl"
    path.write_text(
        json.dumps({"text": "apple", "answer": "A", "logprobs": FRUIT.logprobs}) + "\n", encoding="utf-8"
    )
    command = [sys.executable, "-W", "error", "-m", "llmal.testing.fakelm", "--replay", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body_for("an apple", logprobs=True, top_logprobs=1)).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            (said,) = json.load(response)["choices"]
        os.kill(process.pid, stop)
        rest = process.communicate(timeout=10)
    assert said["message"]["content"] == "A"
    assert said["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] == -0.1
    assert (process.returncode, rest) == (0, ("", ""))


def test_command_line_refuses_a_missing_file(tmp_path):
    command = [sys.executable, "-m", "llmal.testing.fakelm", "--replay", str(tmp_path / "none.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
