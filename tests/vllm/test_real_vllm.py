"""A real vLLM behind the annotator, on a CPU: `LLMAL_VLLM_PYTHON=.../python pytest -m vllm tests/vllm`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmal.context import Silent
from llmal.lm import server as servers
from llmal.lm.vllm import PYTHON
from llmal.prompts.file import load_prompt
from llmal.prompts.frame import render
from llmal.records import Item, Label, LabelSchema
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.tiny import tiny_chat

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} names no interpreter with vLLM"),
]

found = importlib.util.spec_from_file_location("vllm_world", Path(__file__).with_name("world.py"))
world = importlib.util.module_from_spec(found)
found.loader.exec_module(world)

SCHEMA = LabelSchema("single", tuple(Label(name=name) for name in world.NAMES), abstain=True)
CODEBOOK = "".join(
    f"Rule {i}: when a note speaks of case {i}, think of who wrote it, what came before and what should "
    f"come next, then weigh point {i} against the others.\n"
    for i in range(40)
)


def prompt_text(codebook=""):
    front = "---\ninputs:\n  text: the text to label\noutput: the code of the label that fits best\n---\n"
    return front + f"Decide which label fits the text best.\n{codebook}\n{{labels}}\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the corpus, a long prompt and the model; the server lives as long as these tests."""
    place = tmp_path_factory.mktemp("real")
    world.write_corpus(place, 300)
    (place / "long.md").write_text(prompt_text(CODEBOOK), encoding="utf-8")
    frames = [render(load_prompt(p), SCHEMA) for p in (None, place / "long.md")]
    read = [m["content"] for f in frames for m in f.messages(Item(0, "k", " ".join(world.texts(9))), b"x")]
    tiny_chat(place / "model", world.WORDS, read)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    yield place
    servers.stop_all()


def go(home, name, *, progress=None, until=None, rounds=None, **annotate):
    said = world.pipeline(f"vllm:{home}/model", **annotate)
    spec = Pipeline.model_validate(said | ({"rounds": rounds} if rounds else {}))
    return run(spec, home / name, home=home, until=until, progress=progress)


def label_of(text):
    counts = [sum(text.count(word) for word in words) for words in world.WORDS.values()]
    return world.NAMES[counts.index(max(counts))]


def server():
    """The one server of this process."""
    (running,) = servers._running.values()
    return running


def children(pid):
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def vllms_of(home):
    """Processes whose command line names the model."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if f"{home}/model" in line and "api_server" in line]


def test_the_command_takes_a_corpus_to_a_classifier_and_leaves_no_server_behind(home):
    (home / "pipeline.yaml").write_text(json.dumps(world.pipeline("vllm:model")), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "llmal.cli",
        "run",
        str(home / "pipeline.yaml"),
        "--run",
        str(home / "cli"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = world.answers(home / "cli")
    assert len(said) == 60
    for text, (status, labels, probs, confidence, _) in said.items():
        assert status == "ok"
        assert labels == [label_of(text)]
        assert confidence == pytest.approx(max(probs), abs=1e-4)
        assert sum(probs) == pytest.approx(1, abs=1e-4)
    assert (home / "cli/export").is_dir()
    assert not vllms_of(home)


def test_a_run_reads_the_models_own_distribution_and_the_next_run_finds_the_server(home):
    go(home, "one", until="filter")
    first = server()
    go(home, "two", until="filter")
    assert server() is first
    one, two = world.answers(home / "one"), world.answers(home / "two")
    for text in one.keys() & two.keys():
        assert one[text][:2] == two[text][:2]
    reference = distributions(home, list(one))
    for text, said in one.items():
        assert said[2] == pytest.approx(reference[text], abs=2e-3)
    assert 0.5 < min(said[3] for said in one.values()) < max(said[3] for said in one.values())


def distributions(home, texts):
    """The same model's probabilities of the codes, by transformers in this process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store = open_store(home / "one", write=False)
    secret = store.secret()
    items = {item.text: item for item in store.items(range(store.n_items()))}
    store.close()
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    model = AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.float32)
    codes = [tokenizer.convert_tokens_to_ids(code) for code in "ABCD"]
    frame, found = render(load_prompt(None), SCHEMA), {}
    for text in texts:
        messages = frame.messages(items[text], secret)
        given = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            probs = torch.softmax(model(**given).logits[0, -1, codes].double(), -1).tolist()
        found[text] = [p / sum(probs[:3]) for p in probs[:3]]
    return found


def counters(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as page:
        text = page.read().decode()
    names = ("prefix_cache_hits_total", "prefix_cache_queries_total")
    return [sum(float(x) for x in re.findall(rf"^vllm:{n}\S* (\S+)$", text, re.MULTILINE)) for n in names]


def test_a_long_codebook_is_read_once_for_all_items(home):
    go(home, "warm", until="filter")
    before = counters(server())
    go(home, "long", until="filter", prompt="long.md")
    hits, queries = (after - b for after, b in zip(counters(server()), before, strict=True))
    assert queries / 61 > 1000, "the prompt is shorter than this test means"
    print(f"prefix cache: {hits:,.0f} of {queries:,.0f} prompt tokens, {hits / queries:.1%}")
    assert hits / queries >= 0.8


class KillsAfter(Silent):
    """Kills the server's own process, without a word to it, when so many items are answered."""

    def __init__(self, items):
        self.left, self.killed = items, None

    @contextmanager
    def task(self, title, total):
        def advance(n=1, *, note=""):
            if title == "annotate":
                self.left -= n
                if self.left <= 0 < self.left + n:
                    (child,) = children(server().pid)
                    os.kill(child, signal.SIGKILL)
                    self.killed = server().pid

        yield advance


def test_a_server_killed_half_way_is_started_again_and_nothing_is_lost_or_paid_twice(home):
    progress = KillsAfter(12)
    go(home, "killed", until="filter", progress=progress, in_flight=4, rounds={"max": 1, "size": 300})
    assert progress.killed, "nothing was killed"
    assert server().pid != progress.killed
    said = world.answers(home / "killed")
    assert len(said) == 300
    assert all(labels == [label_of(text)] for text, (_, labels, *_) in said.items())
    store = open_store(home / "killed", write=False)
    requests, replies, attempts = (store.count(table) for table in (t.request, t.response, t.attempt))
    store.close()
    assert requests == replies == 301  # with the probe's
    assert 301 < attempts <= 301 + 4 * 2  # those in flight at the kill, and again where none listened yet


def test_the_engine_in_process_answers_as_the_server_does(home):
    go(home, "served", until="filter")
    behind = [path for path in sys.path if path.endswith("site-packages")]
    ours = str(Path(__file__).resolve().parents[2])
    command = [os.environ[PYTHON], str(Path(__file__).with_name("world.py")), str(home), ours, *behind]
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    offline, served = json.loads(done.stdout.splitlines()[-1]), world.answers(home / "served")
    assert len(offline) == 60
    both = offline.keys() & served.keys()
    assert len(both) >= 30
    for text in both:
        assert offline[text][:2] == served[text][:2]
        assert offline[text][2] == pytest.approx(served[text][2], abs=2e-3)
        assert offline[text][4] == served[text][4]
