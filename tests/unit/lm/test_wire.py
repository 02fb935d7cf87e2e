"""The chat protocol: what a body means, and which bodies are none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.lm import wire
from llmal.lm.wire import Failure, Reply, Request, Token, read_refusal, read_reply
from llmal.records import recipe

OPTIONS = {"max_tokens": 64, "temperature": 0.0}


def body(**changes):
    choice = {"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 1}
    return {"model": "m-2", "choices": [choice], "usage": usage} | changes


def message(**fields):
    return body(choices=[{"message": {"role": "assistant", **fields}, "finish_reason": "stop"}])


def test_a_reply_is_read():
    raw = json.dumps(body())
    assert read_reply(raw, "h") == Reply("A", "stop", None, None, "m-2", 7, 1, "h", raw)


def test_log_probabilities_are_read_with_their_candidates():
    top = [{"token": "A", "logprob": -0.1}, {"token": " a", "logprob": -3}]
    tokens = [{"token": "A", "logprob": -0.1, "top_logprobs": top}, {"token": ".", "logprob": -0.5}]
    choice = body()["choices"][0] | {"logprobs": {"content": tokens}}
    reply = read_reply(json.dumps(body(choices=[choice])), "h")
    assert reply.tokens == (Token("A", {"A": -0.1, " a": -3.0}), Token(".", {".": -0.5}))


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_no_log_probabilities_are_none(logprobs):
    choice = body()["choices"][0] | {"logprobs": logprobs}
    assert read_reply(json.dumps(body(choices=[choice])), "h").tokens is None


@pytest.mark.parametrize(
    "raw",
    [
        "", "<html>", "[]", "null", "1", "{}", "[" * 100_000,
        json.dumps(body(choices=[])),
        json.dumps(body(choices=None)),
        json.dumps(body(choices=[None])),
        json.dumps(body(choices=[{"message": None}])),
        json.dumps(message(content=["A"])),
        json.dumps(message(content=3)),
        json.dumps(body(usage="none")),
        json.dumps(body(choices=[body()["choices"][0] | {"logprobs": {"content": [{"token": "A"}]}}])),
        json.dumps(body())[:-20],
    ],
)  # fmt: skip
def test_what_is_no_completion_may_be_asked_again_and_may_have_been_charged(raw):
    end = read_reply(raw, "h")
    assert isinstance(end, Failure)
    assert (end.reason, end.retry, end.charged, end.fatal) == ("malformed", "malformed", "unknown", False)
    assert len(end.detail) <= 200


@pytest.mark.parametrize(("content", "text"), [(None, ""), ("", ""), ("\ud800x", "?x"), ("\x00", "\x00")])
def test_content_is_text_that_any_file_can_hold(content, text):
    assert read_reply(json.dumps(message(content=content)), "h").content == text


@pytest.mark.parametrize("refusal", ["no", True, ["no"], {"why": "\udfff"}])
def test_a_refusal_of_any_type_is_a_refusal(refusal):
    reply = read_reply(json.dumps(message(content=None, refusal=refusal)), "h")
    assert reply.refusal
    reply.refusal.encode()


@pytest.mark.parametrize("count", [None, -1, 1.5, "7", True, 10**30, float("nan")])
def test_a_count_that_cannot_be_is_no_count(count):
    reply = read_reply(json.dumps(body(usage={"prompt_tokens": count, "completion_tokens": 1})), "h")
    assert (reply.tokens_in, reply.tokens_out) == (None, 1)


@pytest.mark.parametrize(
    ("status", "error", "reason", "retry", "fatal", "charged"),
    [
        (429, {"message": "slow down"}, "rate_limit", "rate_limit", False, "no"),
        (408, {}, "rate_limit", "rate_limit", False, "no"),
        (429, {"code": "insufficient_quota", "message": "x"}, "no_credit", None, True, "no"),
        (429, {"type": "insufficient_quota", "message": "x"}, "no_credit", None, True, "no"),
        (402, {}, "no_credit", None, True, "no"),
        (401, {}, "key_rejected", None, True, "no"),
        (403, {}, "key_rejected", None, True, "no"),
        (404, {}, "not_found", None, True, "no"),
        (307, {}, "redirected", None, True, "no"),
        (400, {"code": "context_length_exceeded"}, "context_length", None, False, "no"),
        (400, {"message": "This model's maximum context length is 10"}, "context_length", None, False, "no"),
        (400, {"message": "what?"}, "bad_request", None, False, "no"),
        (422, {}, "bad_request", None, False, "no"),
        (500, {}, "server", "server", False, "no"),
        (503, {}, "server", "server", False, "no"),
        (529, {}, "server", "server", False, "no"),
        (502, {}, "server", "server", False, "unknown"),
        (504, {}, "server", "server", False, "unknown"),
    ],
)
def test_what_a_status_means(status, error, reason, retry, fatal, charged):
    end = read_refusal(status, json.dumps({"error": error}), None)
    assert (end.reason, end.retry, end.fatal, end.charged, end.http) == (
        reason,
        retry,
        fatal,
        charged,
        status,
    )


@pytest.mark.parametrize(
    "raw", ["", "<html>no</html>", '"no"', "[1]", '{"error": "no"}', '{"error": null}', "["]
)
def test_an_error_in_any_shape_is_told(raw):
    assert read_refusal(500, raw, None).reason == "server"


def test_the_servers_words_are_one_short_line_without_control_characters():
    words = read_refusal(
        400, json.dumps({"error": {"message": "a\nb\x1b[31m\u202e" + "c" * 900}}), None
    ).detail
    assert words.startswith("a b [31m c")
    assert len(words) <= 200


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("0.5", 0.5), ("-2", 0.0), ("soon", None), ("", None)]
)
def test_retry_after_in_seconds(header, seconds):
    assert read_refusal(429, "", header).wait_s == seconds


@pytest.mark.parametrize("header", ["nan", "inf", "1e999"])
def test_retry_after_that_is_no_time_is_none(header):
    assert read_refusal(429, "", header).wait_s is None


@pytest.mark.parametrize(("ahead_s", "low", "high"), [(60, 55, 61), (-60, 0, 0)])
def test_retry_after_as_a_date(ahead_s, low, high):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    assert low <= read_refusal(503, "", when).wait_s <= high


def test_a_retry_after_date_without_a_zone_is_no_crash():
    assert read_refusal(429, "", "Wed, 21 Oct 2015 07:28:00").wait_s in (None, 0.0)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud83d")
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES, VALUES, st.integers(0, 30))
def test_the_quick_json_parser_reads_what_the_standard_one_reads(content, usage, logprob, cut):
    """Also NaN, numbers out of range, half a surrogate, and a body that ends too early."""
    top = [{"token": "A", "logprob": logprob}]
    choice = {"message": {"content": content}, "logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
    raw = json.dumps(body(choices=[choice], usage={"prompt_tokens": usage, "completion_tokens": usage}))
    raw = raw[: len(raw) - cut]
    with pytest.MonkeyPatch.context() as patch:
        quick = read_reply(raw, "h")
        patch.setattr(wire, "_quick_loads", json.loads)
        assert repr(quick) == repr(read_reply(raw, "h"))


def test_what_is_sent_is_what_is_hashed():
    one = Request("annotate", "m", [{"role": "user", "content": "é\ud800"}], OPTIONS, 3, "prompt-1")
    assert json.loads(one.text) == one.body()
    assert one.text.isascii()
    assert one.hash() == recipe("request", one.body())
    assert one._replace(model="n").hash() == recipe("request", one.body() | {"model": "n"})


def test_a_request_is_its_body_and_nothing_else():
    one = Request("annotate", "m", [{"role": "user", "content": "x"}], OPTIONS, 3, "prompt-1")
    same = Request("probe", "m", [{"content": "x", "role": "user"}], dict(reversed(OPTIONS.items())))
    assert one.hash() == same.hash()
    others = [
        one._replace(model="n"),
        one._replace(messages=[{"role": "user", "content": "y"}]),
        one._replace(options=OPTIONS | {"temperature": 0.1}),
    ]
    assert len({one.hash(), *(o.hash() for o in others)}) == 4


def test_a_row_keeps_the_body_only_where_no_prompt_can_rebuild_it():
    one = Request("annotate", "m", [{"role": "user", "content": "x"}], OPTIONS, 3, "prompt-1")
    assert one.row()["body"] is None
    assert json.loads(one._replace(prompt="").row()["body"]) == one.body()


def test_bytes_and_limits_bound_the_tokens():
    one = Request("annotate", "m", [{"role": "user", "content": "é\ud800"}], {"max_completion_tokens": 5})
    assert (one.bytes_in(), one.max_tokens()) == (3, 5)
    assert one._replace(options={}).max_tokens() == 0
