"""Whole runs with a language model behind a real HTTP endpoint, counted at the endpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmal.annotate.llm import Llm
from llmal.annotate.reading import annotation_of
from llmal.context import PlainLines
from llmal.errors import ModelError, StoreError
from llmal.lm.wire import read_reply
from llmal.prompts.file import load_prompt
from llmal.prompts.program import signature
from llmal.records import Label, LabelSchema
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.ledger import bill
from llmal.store.store import open_store
from llmal.testing.brains import classifier, identify, text_id
from llmal.testing.fakelm import FakeLM, Fault

NAMES = ("bug", "billing", "praise")
SCHEMA = LabelSchema("single", tuple(Label(name=name) for name in NAMES), abstain=True)
WORDS = {"bug": "crash error freeze", "billing": "invoice refund card", "praise": "thanks lovely great"}


def label_of(text: str) -> str:
    return next(name for name in NAMES if name in text)


def brain(confidence: float | None = 0.97):
    return classifier(label_of, confidence=confidence)


def write_corpus(home: Path, n: int) -> None:
    rows = [f"{NAMES[i % 3]} {WORDS[NAMES[i % 3]].split()[i % 2]} number {i}" for i in range(n)]
    (home / "corpus.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8"
    )


def pipeline(server: FakeLM, *, annotate: dict[str, Any] | None = None, **more: Any) -> Pipeline:
    llm = {
        "use": "llm",
        "model": "fake-lm",
        "base_url": server.base_url,
        "price": {"input": 0.15, "output": 0.6},
    }
    given: dict[str, Any] = {
        "corpus": {"path": "corpus.jsonl"},
        "labels": {"names": list(NAMES)},
        "audit": {"size": 0},
        "rounds": {"max": 1, "size": 5000},
        "embed": {"use": "hashing", "dim": 64},
        "select": {"first": "uniform"},
        "annotate": llm | (annotate or {}),
        "filter": {"use": "confidence", "unknown": "accept"},
        "train": {"rounds": "linear", "final": "linear"},
    }
    return Pipeline.model_validate(given | more)


def go(
    server: FakeLM, home: Path, *, retry_failed: bool = False, until: str | None = "filter", **more: Any
) -> Any:
    return run(pipeline(server, **more), home / "run", home=home, until=until, retry_failed=retry_failed)


def annotated(home: Path) -> dict[str, int]:
    store = open_store(home / "run", write=False)
    statuses = [
        status for (status,) in store.read(t.annotation.select().with_only_columns(t.annotation.c.status))
    ]
    store.close()
    return {status: statuses.count(status) for status in set(statuses)}


def test_a_finished_run_again_asks_nothing_and_adds_nothing(tmp_path):
    write_corpus(tmp_path, 60)
    with FakeLM(brain(), identify=identify, price=(150_000, 600_000)) as server:
        first = go(server, tmp_path, until=None, rounds={"max": 2, "size": 20})
        assert server.n_requests == 1 + 40
        assert set(server.answered.values()) == {1}
        assert first.bill.cost == server.bill
        again = go(server, tmp_path, until=None, rounds={"max": 2, "size": 20})
        assert server.n_requests == 41
    assert again.facts_added == 0
    assert (again.bill, again.labels, again.measures) == (first.bill, first.labels, first.measures)


def test_a_hundred_rows_more_are_a_hundred_calls(tmp_path):
    write_corpus(tmp_path, 2000)
    with FakeLM(brain(None), identify=identify) as server:
        go(server, tmp_path, annotate={"in_flight": 64})
        assert server.n_requests == 1 + 2000
        server.reset()
        write_corpus(tmp_path, 2100)
        outcome = go(server, tmp_path, annotate={"in_flight": 64})
        assert server.n_requests == 100
        assert server.counts == {text_id(f"{NAMES[i % 3]} {WORDS[NAMES[i % 3]].split()[i % 2]} number {i}"): 1
                                 for i in range(2000, 2100)}  # fmt: skip
    assert outcome.bill.calls == 2101
    assert annotated(tmp_path) == {"ok": 2100}


def test_a_newer_parser_reads_kept_answers_at_no_cost(tmp_path, monkeypatch):
    write_corpus(tmp_path, 30)
    with FakeLM(brain(), identify=identify) as server:
        go(server, tmp_path)
        server.reset()
        monkeypatch.setattr(Llm, "version", Llm.version + 1)
        outcome = go(server, tmp_path)
        assert server.n_requests == 0
    assert outcome.labels["verdict"]["accept"] == 30
    assert annotated(tmp_path) == {"ok": 60}  # both readings stay


def test_another_prompt_asks_everything_again_and_the_old_one_back_asks_nothing(tmp_path):
    write_corpus(tmp_path, 30)
    (tmp_path / "prompt.md").write_text("Decide with care.\n\n{labels}\n", encoding="utf-8")
    with FakeLM(brain(), identify=identify) as server:
        go(server, tmp_path)
        server.reset()
        go(server, tmp_path, annotate={"prompt": "prompt.md"})
        assert server.counts.total() == 30
        go(server, tmp_path)
        assert server.counts.total() == 30


@pytest.mark.parametrize(
    "change", [{"in_flight": 2}, {"timeout_s": 9.0}, {"price": "local"}, {"retries": {"server": 0}}]
)
def test_how_fast_and_how_dear_it_goes_changes_no_answer(change, tmp_path):
    write_corpus(tmp_path, 10)
    with FakeLM(brain(), identify=identify) as server:
        go(server, tmp_path)
        go(server, tmp_path, annotate=change)
        assert server.n_requests == 11


def test_failures_are_asked_again_only_when_told_to(tmp_path):
    write_corpus(tmp_path, 30)
    quick = {"retries": {"server": 0}, "tolerate": 1.0}
    with FakeLM(brain(), identify=identify) as server:
        bad = text_id("bug crash number 0")
        server.faults = (Fault("status", status=500, item=bad),)
        go(server, tmp_path, annotate=quick)
        assert annotated(tmp_path) == {"ok": 29, "failed": 1}
        server.faults = ()
        go(server, tmp_path, annotate=quick)
        assert server.counts[bad] == 1
        go(server, tmp_path, annotate=quick, retry_failed=True)
        assert server.counts[bad] == 2
        assert server.n_requests == 1 + 30 + 1
    assert annotated(tmp_path) == {"ok": 30}


def test_a_crash_leaves_calls_of_unknown_fate_that_are_told_and_asked_again(tmp_path):
    write_corpus(tmp_path, 30)
    with FakeLM(brain(), identify=identify) as server:
        go(server, tmp_path, until="embed")
        store = open_store(tmp_path / "run")
        item = store.items([4])[0]
        row = {"hash": "h", "purpose": "annotate", "model": "m", "prompt": "p", "item": 4, "body": None}
        store.add(t.request, [row])
        store.add(t.attempt, [{"n": 1, "request": "h", "ordinal": 1, "worst": 10**9, "at": 0.0}])
        store.close()
        outcome = go(server, tmp_path)
        assert server.n_requests == 31
    assert outcome.repeated == [item.key]
    assert (outcome.bill.unknown, outcome.bill.calls) == (1, 32)
    assert outcome.bill.cost >= 10**9


def test_a_spent_budget_ends_the_rounds_with_what_was_answered(tmp_path):
    write_corpus(tmp_path, 60)
    with FakeLM(brain(), identify=identify) as server:
        outcome = go(server, tmp_path, budget={"calls": 41})
        assert server.n_requests == outcome.bill.calls == 41
        assert outcome.labels["verdict"]["accept"] == 40
        go(server, tmp_path, budget={"calls": 100})
        assert server.n_requests == 61
    assert set(server.answered.values()) == {1}


def test_the_key_is_read_from_the_environment_and_kept_nowhere(tmp_path, monkeypatch):
    key = "sk-canary-77aa88bb99cc"
    write_corpus(tmp_path, 10)
    with FakeLM(brain(), identify=identify, api_key=key) as server:
        with pytest.raises(ModelError, match=r"LLMAL_TEST_KEY is not set. export LLMAL_TEST_KEY"):
            go(server, tmp_path, annotate={"api_key_env": "LLMAL_TEST_KEY"})
        monkeypatch.setenv("LLMAL_TEST_KEY", "sk-wrong-0123456789")
        with pytest.raises(ModelError, match="the key in LLMAL_TEST_KEY was rejected"):
            go(server, tmp_path, annotate={"api_key_env": "LLMAL_TEST_KEY"})
        monkeypatch.setenv("LLMAL_TEST_KEY", key)
        go(server, tmp_path, annotate={"api_key_env": "LLMAL_TEST_KEY"}, until=None)
        assert server.keys_seen[key] == 12
    found = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert found
    assert not [f.name for f in found if b"canary" in f.read_bytes() or b"sk-wrong" in f.read_bytes()]


RUN = """
import sys
from pathlib import Path
from llmal.errors import LlmalError
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.context import PlainLines
try:
    run(Pipeline.from_yaml(sys.argv[1]), Path(sys.argv[2]), home=Path(sys.argv[1]).parent, until="filter",
        progress=PlainLines())
except LlmalError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_one_signal_lets_open_calls_finish_and_a_second_process_is_refused(tmp_path):
    write_corpus(tmp_path, 200)
    with FakeLM(brain(None), identify=identify, latency_s=0.1) as server:
        file = tmp_path / "pipeline.yaml"
        file.write_text(pipeline(server, annotate={"in_flight": 8}).to_yaml(), encoding="utf-8")
        child = subprocess.Popen(
            [sys.executable, "-c", RUN, str(file), str(tmp_path / "run")], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            server.wait_for(20, 30)
            with pytest.raises(StoreError, match=rf"in use by process {child.pid} on "):
                go(server, tmp_path)
            child.send_signal(signal.SIGINT)
            at_signal = server.n_requests
            _, said = child.communicate(timeout=20)
        finally:
            child.kill()
        assert child.returncode == 130
        assert "finishing 8 open calls, again to stop now" in said
        assert "Interrupted: stopped on request; everything answered is kept. Run again to go on" in said
        sent = server.n_requests
        assert sent <= at_signal + 8
        assert server.answered.total() == sent  # no open call was cut off
        store = open_store(tmp_path / "run", write=False)
        assert bill(store).unknown == 0
        assert store.count(t.annotation) == sent - 1
        store.close()
        go(server, tmp_path, annotate={"in_flight": 64})
        assert server.n_requests == 201
        assert set(server.answered.values()) == {1}


def test_two_signals_stop_at_once(tmp_path):
    write_corpus(tmp_path, 50)
    with FakeLM(brain(None), identify=identify) as server:
        server.faults = (Fault("hang", item=text_id("bug crash number 0"), seconds=60.0),)
        file = tmp_path / "pipeline.yaml"
        file.write_text(pipeline(server, annotate={"in_flight": 4}).to_yaml(), encoding="utf-8")
        child = subprocess.Popen(
            [sys.executable, "-c", RUN, str(file), str(tmp_path / "run")], stderr=subprocess.PIPE, text=True
        )
        try:
            server.wait_for(51, 30)
            time.sleep(0.1)
            child.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert child.poll() is None
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=10)
        finally:
            child.kill()
        assert child.returncode == 143
    store = open_store(tmp_path / "run", write=False)
    assert bill(store).unknown == 1
    store.close()


# --- log-probabilities ----------------------------------------------------------------------------------

HEAD, TAIL = "[[ ## answer ## ]]\n", "\n\n[[ ## completed ## ]]"


def read(
    tokens: list[tuple[str, dict[str, float]]], content: str | None = None, schema: LabelSchema = SCHEMA
):
    """The annotation of an answer with these tokens; candidates are probabilities."""
    spelled = [
        {"token": text, "logprob": 0.0,
         "top_logprobs": [{"token": c, "logprob": math.log(p) if p else -9999.0} for c, p in top.items()]}
        for text, top in tokens
    ]  # fmt: skip
    text = "".join(token for token, _ in tokens) if content is None else content
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": spelled}}
    reply = read_reply(json.dumps({"choices": [choice]}), "h")
    return annotation_of(0, reply, signature(load_prompt(), schema, strict=False), schema)


def plain(text: str) -> tuple[str, dict[str, float]]:
    return text, {text: 1.0}


def test_spellings_blanks_and_case_are_one_option_and_the_rest_is_recorded():
    top = {"B": 0.5, " B": 0.2, "b": 0.1, "A": 0.05, "D": 0.05, "Sure": 0.06, "\n": 0.04}
    got = read([plain(HEAD), ("B", top), plain(TAIL)])
    assert (got.status, got.labels, got.kind) == ("ok", ("billing",), "logprobs")
    assert got.probs == pytest.approx((0.05 / 0.9, 0.8 / 0.9, 0.0))
    assert got.confidence == pytest.approx(0.8 / 0.9)
    assert got.detail == "mass outside the options 0.1000"
    assert sum(got.probs) == pytest.approx(1 - 0.05 / 0.9)  # D declines: its mass belongs to no class


@pytest.mark.parametrize(
    "tokens",
    [
        [plain("[[ ## "), plain("answer ## ]]\n"), ("C", {"C": 0.9, "A": 0.1}), plain(TAIL)],
        [("C", {"C": 0.9, "A": 0.1})],
        [(" C", {" C": 0.9, " A": 0.1}), plain("\n")],
        [plain(HEAD), ("c", {"c": 0.9, "a": 0.1}), plain(TAIL)],  # a c also stands in "completed"
        [plain("An A or a C?\n"), plain(HEAD), ("C", {"C": 0.9, "A": 0.1}), plain(TAIL), plain(" C it is")],
    ],
)
def test_the_codes_token_is_found_wherever_it_stands(tokens):
    got = read(tokens)
    assert got.labels == ("praise",)
    assert got.confidence == pytest.approx(0.9)


def test_tokens_that_are_not_in_the_text_do_not_shift_the_place():
    """Thoughts before the answer and a stop token after it are counted by some servers."""
    tokens = [
        plain("<think>A B C</think>"),
        plain(HEAD),
        ("B", {"B": 0.8, "A": 0.2}),
        plain(TAIL),
        plain("<|end|>"),
    ]
    got = read(tokens, HEAD + "B" + TAIL)
    assert got.confidence == pytest.approx(0.8)


@pytest.mark.parametrize(
    "tokens",
    [
        [plain(HEAD), plain("bill"), plain("ing"), plain(TAIL)],  # the label's name, in two tokens
        [plain(HEAD[:-1]), ("\nB", {"\nB;": 1.0}), plain(TAIL)],  # no candidate is an option
        [plain(HEAD + "B" + TAIL)],
        [],
    ],
)
def test_an_answer_without_a_token_of_its_own_has_no_confidence(tokens):
    got = read(tokens, HEAD + "".join("B" if not tokens else "") + TAIL if not tokens else None)
    assert (got.status, got.labels) == ("ok", ("billing",))
    assert (got.probs, got.confidence, got.kind) == (None, None, "none")


def test_a_code_split_over_tokens_has_no_confidence():
    many = LabelSchema("single", tuple(Label(name=f"label {i}") for i in range(120)), abstain=False)
    got = read(
        [plain(HEAD), ("04", {"04": 0.9, "05": 0.1}), ("2", {"2": 0.8, "1": 0.2}), plain(TAIL)], schema=many
    )
    assert (got.labels, got.confidence) == (("label 41",), None)
    whole = read([plain(HEAD), ("042", {"042": 0.8, "041": 0.2}), plain(TAIL)], schema=many)
    assert whole.confidence == pytest.approx(0.8)


def test_text_and_tokens_that_do_not_tally_have_no_confidence():
    got = read([plain("\ufffd\ufffd\n" + HEAD), ("B", {"B": 0.9}), plain(TAIL)], "é\n" + HEAD + "B" + TAIL)
    assert (got.labels, got.confidence) == (("billing",), None)


@pytest.mark.parametrize("value", [float("nan"), 700.0, 1e999, 3.0])
def test_numbers_that_are_no_log_probabilities_give_no_confidence(value):
    spelled = [{"token": "B", "logprob": value, "top_logprobs": [{"token": "B", "logprob": value}]}]
    choice = {"message": {"content": "B"}, "finish_reason": "stop", "logprobs": {"content": spelled}}
    reply = read_reply(json.dumps({"choices": [choice]}), "h")
    got = annotation_of(0, reply, signature(load_prompt(), SCHEMA, strict=False), SCHEMA)
    assert (got.labels, got.confidence) == (("billing",), None)


def test_log_probabilities_of_zero_mass_are_fine():
    got = read([("B", {"B": 1.0, "A": 0.0, "C": 0.0})])
    assert got.probs == (0.0, 1.0, 0.0)


def test_confidences_arrive_in_the_store_and_only_where_asked_for(tmp_path):
    write_corpus(tmp_path, 12)
    with FakeLM(brain(0.9), identify=identify) as server:
        go(server, tmp_path)
        go(server, tmp_path, annotate={"logprobs": False})
        assert server.n_requests == 1 + 12 + 12
        assert "logprobs" not in server.requests[-1].body
    store = open_store(tmp_path / "run", write=False)
    c = t.annotation.c
    found = store.read(t.annotation.select().with_only_columns(c.recipe, c.kind, c.confidence))
    store.close()
    by_recipe = {
        name: {(kind, conf and round(conf, 6)) for r, kind, conf in found if r == name}
        for name, _, _ in found
    }
    assert sorted(map(str, by_recipe.values())) == ["{('logprobs', 0.9)}", "{('none', None)}"]


def test_an_endpoint_without_log_probabilities_serves_all_the_same(tmp_path):
    write_corpus(tmp_path, 12)
    with FakeLM(brain(0.9), identify=identify, supports_logprobs=False) as server:
        go(server, tmp_path)
        assert server.n_requests == 3 + 12  # twenty candidates, five, none
    assert annotated(tmp_path) == {"ok": 12}


# --- asked several times ------------------------------------------------------------------------------------


def stored(home: Path) -> list[Any]:
    store = open_store(home / "run", write=False)
    found = list(store.read(t.annotation.select()))
    store.close()
    return found


def test_asked_three_times_every_order_of_the_options_is_seen_and_nothing_is_asked_again(tmp_path):
    write_corpus(tmp_path, 12)
    with FakeLM(brain(0.9), identify=identify) as server:
        go(server, tmp_path, annotate={"asks": 3})
        assert server.n_requests == 1 + 3 * 12
        orders = {r.body["messages"][0]["content"] for r in server.requests[1:]}
        assert len(orders) == 3
        assert {r.body["temperature"] for r in server.requests[1:]} == {0.0}
        go(server, tmp_path, annotate={"asks": 3})
        assert server.n_requests == 1 + 3 * 12
    assert {(a.status, a.kind, round(a.confidence, 6)) for a in stored(tmp_path)} == {("ok", "logprobs", 0.9)}


def test_without_log_probabilities_the_share_of_answers_is_the_confidence(tmp_path):
    write_corpus(tmp_path, 12)
    honest = brain(None)

    def likes_the_first(ask):
        """Right, unless the right option stands last: then it names the first."""
        answer = honest(ask)
        return dataclasses.replace(answer, content=answer.content.replace("\nC\n", "\nA\n"))

    with FakeLM(likes_the_first, identify=identify, supports_logprobs=False) as server:
        go(server, tmp_path, annotate={"asks": 3})
        assert {r.body["temperature"] for r in server.requests[3:]} == {0.7}
    for found in stored(tmp_path):
        assert (found.status, found.kind, found.confidence) == ("ok", "samples", 3 / 6)
    assert len(stored(tmp_path)) == 12


def test_more_questions_than_orders_are_told_apart_by_a_seed(tmp_path):
    write_corpus(tmp_path, 2)
    with FakeLM(brain(0.9), identify=identify) as server:
        go(server, tmp_path, annotate={"asks": 7})
        assert server.n_requests == 1 + 7 * 2
        assert [r.body.get("seed") for r in server.requests[1:]].count(None) == 3 * 2


def test_a_budget_that_ends_amid_the_questions_pays_for_none_of_them_twice(tmp_path):
    write_corpus(tmp_path, 12)
    with FakeLM(brain(0.9), identify=identify) as server:
        go(server, tmp_path, annotate={"asks": 3}, budget={"calls": 20})
        assert server.n_requests == 20
        assert 0 < len(stored(tmp_path)) < 12
        go(server, tmp_path, annotate={"asks": 3})
        assert server.n_requests == 1 + 3 * 12
    assert len(stored(tmp_path)) == 12


# --- another model than at first ----------------------------------------------------------------------------


def changing(ask):
    """Another model takes over for a third of the texts."""
    answer = brain(0.9)(ask)
    text = ask.messages[-1]["content"]
    return dataclasses.replace(answer, model="fake-lm-mini") if "billing" in text else answer


def test_a_model_that_changes_its_name_is_told_with_its_count(tmp_path, capsys):
    write_corpus(tmp_path, 12)
    with FakeLM(changing, identify=identify) as server:
        run(pipeline(server), tmp_path / "run", home=tmp_path, until="filter", progress=PlainLines())
    told = "annotate: 4 answers came from the model 'fake-lm-mini', the endpoint's first from 'fake-lm'"
    assert told in capsys.readouterr().err
    assert annotated(tmp_path) == {"ok": 12}


def test_a_pinned_model_stops_the_run_and_what_was_answered_is_kept(tmp_path):
    write_corpus(tmp_path, 12)
    with FakeLM(changing, identify=identify) as server:
        with pytest.raises(ModelError, match="'fake-lm-mini' answered") as caught:
            go(server, tmp_path, annotate={"pin_model": True, "in_flight": 1})
        assert caught.value.where == "annotate.pin_model"
        asked = server.n_requests
        assert asked < 12
        go(server, tmp_path)
        assert server.n_requests == 1 + 12, "nothing is asked twice"
    assert annotated(tmp_path) == {"ok": 12}
