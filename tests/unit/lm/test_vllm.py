"""A vLLM server's life in llmal's hands, against a stub that acts like its command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmal.annotate.llm import Llm
from llmal.context import Context, Silent
from llmal.errors import MissingExtra, ModelError
from llmal.lm import offline, server, vllm
from llmal.lm.asker import Asker, ask
from llmal.lm.offline import Offline
from llmal.lm.server import stop_all
from llmal.lm.serverlog import cause
from llmal.lm.vllm import VllmOptions, engine_env
from llmal.lm.wire import Failure, Reply, Request
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store

STUB = Path(__file__).with_name("stub_vllm.py")
MODEL = "vllm:some/model"


class Lines(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


class World:
    """A run folder, an interpreter that is the stub, and what the stub noted."""

    def __init__(self, home, monkeypatch):
        self.home, self.monkeypatch = home, monkeypatch
        self.python = home / "python"
        self.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
        self.python.chmod(0o700)
        self.notes = home / "notes"
        self.notes.mkdir()
        self.store = open_store(home / "run")
        self.progress = Lines()
        monkeypatch.setenv(vllm.PYTHON, str(self.python))
        self.acts()

    def acts(self, mode="", **more):
        self.monkeypatch.setenv("STUB", json.dumps({"folder": str(self.notes), "mode": mode, **more}))

    def ask(self, texts, *, model=MODEL, **options):
        ctx = Context(self.store.folder, home=self.home, progress=self.progress)
        asker = Asker(model=model, **options)
        questions = [[{"role": "user", "content": text}] for text in texts]
        return ask(asker, questions, purpose="test", store=self.store, ctx=ctx, caps=Caps())

    def noted(self, name):
        path = self.notes / name
        return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []

    def pids(self):
        return [pid for start in self.noted("starts") for pid in start["pids"]]

    @property
    def log(self):
        return (self.store.folder / "vllm-model.log").read_text()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "POLL_S", 0.05)
    made = World(tmp_path, monkeypatch)
    yield made
    stop_all()
    made.store.close()
    assert not alive(made.pids())


def alive(pids, within_s=10.0):
    """Those of the processes that do not go away in time; a zombie is gone."""
    end = time.monotonic() + within_s
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_is_started_once_asked_and_ended_with_all_its_children(world):
    assert world.ask(["a", "b"]) == ["A", "B"]
    assert world.ask(["b", "c"]) == ["B", "C"]  # the next round finds it running
    assert len(world.noted("starts")) == 1
    assert sorted(x for x in world.noted("answers") if len(x) == 1) == ["a", "b", "c"]
    assert len(alive(world.pids(), within_s=0)) == 2
    stop_all()
    assert not alive(world.pids())
    assert not (world.store.folder / "vllm-model.json").exists()


def test_it_listens_on_this_machine_only_with_a_key_that_is_nowhere_to_be_read(world):
    world.monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-the-server")
    world.ask(["a"])
    (start,) = world.noted("starts")
    key, args = start["env"]["VLLM_API_KEY"], start["args"]
    assert args[args.index("--host") + 1] == "127.0.0.1"
    assert len(key) == 64
    assert key not in " ".join(args)
    for file in (f for f in world.store.folder.rglob("*") if f.is_file()):
        assert key.encode() not in file.read_bytes(), file
    assert "key is [key]" in world.log
    for name in ("vllm-model.log", "vllm-model.json"):
        assert stat.S_IMODE((world.store.folder / name).stat().st_mode) == 0o600
    assert "OPENAI_API_KEY" not in start["env"]
    assert start["env"]["VLLM_NO_USAGE_STATS"] == start["env"]["DO_NOT_TRACK"] == "1"
    assert "--trust-remote-code" not in args


def test_a_slow_start_is_told(world, monkeypatch):
    monkeypatch.setattr(server, "SAY_EVERY_S", 0.1)
    world.acts("slow", slow_s=0.6)
    assert world.ask(["a"]) == ["A"]
    assert any("starting for" in line for line in world.progress.said)
    assert any("ready after" in line for line in world.progress.said)


def test_a_start_that_takes_too_long_ends(world):
    world.acts("slow-always", slow_s=60)
    with pytest.raises(ModelError, match=r"not ready after 0.5 s .*vllm.start_s"):
        world.ask(["a"], vllm=VllmOptions(start_s=0.5))
    assert not alive(world.pids())


def test_a_crash_at_the_start_is_told_in_one_sentence_with_the_line_that_matters(world):
    world.acts(
        "crash-always", says="(EngineCore pid=7) ERROR 11-21 10:00:00 [core.py:9] ValueError: no such layer"
    )
    with pytest.raises(ModelError) as error:
        world.ask(["a"])
    assert str(error.value) == (
        "vllm:some/model: the server did not start (ValueError: no such layer). "
        "The whole log is vllm-model.log in the run's folder"
    )


def test_another_port_is_tried_when_the_first_was_taken(world):
    world.acts("taken")
    assert world.ask(["a"]) == ["A"]
    assert len(world.noted("starts")) == 2


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("/usr/bin/python: No module named vllm", MissingExtra, r"pip install \"llmal\[vllm\]\""),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB",
            ModelError,
            "not enough memory.*annotate.vllm.memory",
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (40960), (4.4 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (1.0 GiB)",
            ModelError,
            "annotate.vllm.max_model_len",
        ),
        ("api_server.py: error: unrecognized arguments: --fast", ModelError, "annotate.vllm.args"),
        ("ValueError: x has custom code; pass trust_remote_code=True", ModelError, "never runs"),
        ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find it", ModelError, "no such model"),
        (
            "pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, "
            "User-specified max_model_len (100000) is greater than the derived max_model_len (8192)",
            ModelError,
            "Lower annotate.vllm.max_model_len",
        ),
        ("X.ValidationError: 1 validation error for C\n  Value error, no", ModelError, "Value error, no"),
        ("RuntimeError: something else", ModelError, "something else"),
    ],
)  # fmt: skip
def test_the_usual_causes_are_told_with_what_to_do(line, kind, words):
    log = f"(APIServer pid=1) INFO 11-21 10:00:00 [a.py:1] starting\n{line}\nINFO: later\n"
    error = cause(log, MODEL, place="annotate", log_name="vllm-model.log")
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


def test_a_server_that_dies_is_started_again_and_nothing_answered_is_asked_again(world):
    world.acts("die", after=20)
    texts = [f"text {i}" for i in range(60)]
    assert world.ask(texts, in_flight=8) == [text.upper() for text in texts]
    assert len(world.noted("starts")) == 2
    asked = [x for x in world.noted("answers") if x.startswith("text")]
    assert set(asked) == set(texts)
    assert len(asked) - len(texts) < 8  # answers that were on their way when it died; none that had come
    assert world.store.count(t.response) == 60 + 1
    assert any("died; starting it again" in line for line in world.progress.said)


def test_a_server_that_dies_at_once_again_ends_the_run(world):
    world.acts("die-always", after=0)
    with pytest.raises(ModelError, match="died again after 1 restarts"):
        world.ask([f"text {i}" for i in range(5)])
    assert len(world.noted("starts")) == 2


def test_a_server_that_stalls_is_started_again_and_the_queue_goes_on(world):
    world.acts("stall", after=10)
    texts = [f"text {i}" for i in range(30)]
    assert world.ask(texts, in_flight=8, vllm=VllmOptions(stall_s=1.0)) == [text.upper() for text in texts]
    assert len(world.noted("starts")) == 2
    assert any("made no token for" in line for line in world.progress.said)


def test_a_server_that_stalls_again_ends_the_run(world):
    world.acts("stall-always", after=0)
    with pytest.raises(ModelError, match="made no token for .* again"):
        world.ask([f"text {i}" for i in range(5)], vllm=VllmOptions(stall_s=0.5))


SCRIPT = """
import time
from pathlib import Path
from llmal.context import Context
from llmal.lm.asker import Asker, ask
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store
store = open_store(Path({folder!r}))
ctx = Context(store.folder, home=store.folder)
asker, question = Asker(model={model!r}), [{{"role": "user", "content": "x"}}]
said = ask(asker, [question], purpose="t", store=store, ctx=ctx, caps=Caps())
store.close()
print(said, flush=True)
if {how!r} == "error":
    raise RuntimeError("crash")
if {how!r} != "end":
    time.sleep(60)
"""


def other_process(world, how):
    code = SCRIPT.format(folder=str(world.store.folder), model=MODEL, how=how)
    world.store.close()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "['X']\n"
    return process


@pytest.mark.parametrize("how", ["end", "error", signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_llmal_however_it_ends(world, how):
    process = other_process(world, how if isinstance(how, str) else "wait")
    if not isinstance(how, str):
        assert len(alive(world.pids(), within_s=0)) == 2
        process.send_signal(how)
    process.wait(20)
    process.stdout.close()
    assert not alive(world.pids())


def test_a_server_of_another_process_of_the_run_is_used_and_left_running(world):
    process = other_process(world, "wait")
    world.store = open_store(world.home / "run")
    try:
        assert world.ask(["a"]) == ["A"]
        assert len(world.noted("starts")) == 1
        assert any("still there" in line for line in world.progress.said)
        stop_all()
        assert len(alive(world.pids(), within_s=0)) == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert not alive(world.pids())
    assert world.ask(["b"]) == ["B"]  # word of the dead one is not believed
    assert len(world.noted("starts")) == 2


def test_word_of_a_server_that_was_forged_is_not_believed(world):
    world.ask(["a"])
    state = world.store.folder / "vllm-model.json"
    kept = json.loads(state.read_text())
    (known,) = server._running.values()
    secret = world.store.secret()
    assert server._left(known.plan, state, secret).key == known.key
    for change in ({"nonce": "00"}, {"key": "0" * 64}, {"plan": "x"}, {"pid": None}):
        state.write_text(json.dumps(kept | change))
        assert server._left(known.plan, state, secret) is None
    state.write_text(json.dumps(kept | {"pid": os.getpid()}))  # a process, but no keeper of a server
    assert not server._left(known.plan, state, secret).running()


def test_without_vllm_the_message_holds_the_pip_line(world):
    world.monkeypatch.delenv(vllm.PYTHON)
    world.monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "llmal\[vllm\]"'):
        world.ask(["a"])


def test_how_it_is_run_changes_no_recipe_and_costs_nothing():
    plain, other = (
        Llm(model="vllm:m"),
        Llm(model="vllm:m", vllm={"memory": 0.5, "args": ["--max-num-seqs", "8"]}),
    )
    assert plain.recipe() == other.recipe() != Llm(model="m").recipe()
    assert plain.priced().local
    assert plain.endpoint().in_flight == 64
    assert Llm(model="vllm-offline:m").endpoint().in_flight == 256
    chosen = Llm(model="vllm:m", in_flight=3, timeout_s=5).endpoint()
    assert (chosen.in_flight, chosen.timeout_s) == (3, 5)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "vllm:"},
        {"model": "vllm:m", "base_url": "http://127.0.0.1:1/v1"},
        {"model": "vllm:m", "api_key_env": "OPENAI_API_KEY"},
        {"model": "vllm:m", "batch_api": True},
        *(
            {"model": "vllm:m", "vllm": {"args": [arg]}}
            for arg in (
                "--trust-remote-code", "--trust_remote_code=true", "--trust", "--api-key", "--host=0.0.0.0",
                "--port", "--uds", "--model", "--config=x.yaml",
            )
        ),
    ],
)  # fmt: skip
def test_what_is_llmals_to_set_cannot_be_set(options):
    with pytest.raises(ValidationError):
        Llm(**options)


def test_a_folder_needs_no_internet_and_what_the_user_set_stays(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert "HF_HUB_OFFLINE" not in engine_env("some/name")
    assert engine_env(str(tmp_path))["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert engine_env(str(tmp_path))["HF_HUB_OFFLINE"] == "0"


# --- in process -------------------------------------------------------------------------------------------


def question(text):
    return Request("test", "vllm-offline:m", [{"role": "user", "content": text}], {"max_tokens": 8})


def body(text):
    said = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"model": "vllm-offline:m", "choices": [said], "usage": {}})


def through_offline(answers, texts):
    async def main():
        line = Offline(Llm(model="vllm-offline:m").endpoint(), "m", answers)
        await line.open()
        try:
            return await asyncio.gather(*(line.send(question(text), text) for text in texts))
        finally:
            await line.close()

    return asyncio.run(main())


def text_of(request):
    return request.messages[0]["content"]


def test_requests_in_process_gather_into_batches_and_each_gets_its_own_answer():
    sizes = []

    def answers(requests):
        sizes.append(len(requests))
        time.sleep(0.05)
        return [body(text_of(request).upper()) for request in requests]

    texts = [f"text {i}" for i in range(100)]
    ends = through_offline(answers, texts)
    assert [end.content for end in ends] == [text.upper() for text in texts]
    assert all(isinstance(end, Reply) and end.request == text for end, text in zip(ends, texts, strict=True))
    assert max(sizes) >= 90


def test_a_request_the_engine_refuses_spoils_no_other(monkeypatch):
    class Engine:
        def __init__(self):
            self.batches = 0

        def chat(self, talks, params, use_tqdm):
            self.batches += 1
            if any("bad" in talk[0]["content"] for talk in talks):
                raise ValueError("The prompt is longer than the maximum context length of 64")
            return [talk[0]["content"] for talk in talks]

    engine = Engine()
    monkeypatch.setattr(offline, "sampling", lambda options: None)
    monkeypatch.setattr(offline, "completion", lambda request, output: body(output))
    texts = [f"text {i}" for i in range(64)]
    texts[17] = "bad"
    ends = through_offline(lambda requests: offline.answer(engine, requests), texts)
    assert [e.reason for e in ends if isinstance(e, Failure)] == ["context_length"]
    assert [e.content for e in ends if isinstance(e, Reply)] == [t for t in texts if t != "bad"]
    assert engine.batches <= 20  # halving, not one by one


def test_an_engine_that_dies_ends_the_run_with_a_sentence():
    def answers(requests):
        raise RuntimeError("EngineDeadError: see above")

    (end,) = through_offline(answers, ["x"])
    assert end.fatal
    assert "vLLM stopped (RuntimeError: EngineDeadError: see above)" in end.detail
