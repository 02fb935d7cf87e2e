"""`llmal review` as a process of its own: killed while people label, no kept answer is lost or doubled."""

import http.client
import json
import random
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from llmal.corpus import read, text_key
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store


def made(folder, n):
    (folder / "c.jsonl").write_text(
        "".join(f'{{"text": "letter {i}"}}\n' for i in range(n)), encoding="utf-8"
    )
    (folder / "a.jsonl").write_text('{"id": "0", "label": "bug"}\n', encoding="utf-8")
    pipeline = Pipeline.model_validate({
        "corpus": {"path": "c.jsonl"}, "labels": {"names": ["bug", "praise"]}, "audit": {"size": 10},
        "embed": {"use": "hashing", "dim": 64}, "annotate": {"use": "recorded", "path": "a.jsonl"},
        "train": {"rounds": "linear", "final": "linear"},
    })  # fmt: skip
    store = open_store(folder / "run")
    store.note("home", lambda: str(folder))
    store.put_corpus("c", "d", read(pipeline.corpus, folder / "c.jsonl", pipeline.label_schema()), text_key)
    base = {"recipe": "r", "who": "person", "labels": '["bug"]', "reason": "unsure"}
    store.add(t.route, [{**base, "item": i, "confidence": i / n} for i in range(n)])
    store.close()
    (folder / "run/pipeline.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")
    return folder / "run"


def started(run, *more):
    command = [sys.executable, "-m", "llmal.cli", "review", str(run), "--person", "ada", *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    told = []
    for line in process.stderr:
        told.append(line)
        if found := re.search(r"(http://\S+)/#token=(\S+)", line):
            return process, found[1], found[2]
    raise AssertionError(told)


def ask(home, token, path, body=None):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Origin": home}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(home + path, data, headers), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_9_while_labelling_loses_no_acknowledged_answer_and_doubles_none(tmp_path, kills):
    run, rng = made(tmp_path, 40 * kills + 40), random.Random(3)
    kept, open_deed, cut = {}, None, 0
    for _ in range(kills):
        process, home, token = started(run)
        timer = threading.Timer(rng.random() / 4, process.kill)
        try:
            items = ask(home, token, "/start")["items"]
            while items:
                # What was not acknowledged is sent again word for word, as the page does.
                deed = open_deed or {"id": f"{rng.getrandbits(128):032x}", "item": items[0]["item"],
                                     "what": "answer", "labels": [rng.choice(["bug", "praise"])]}  # fmt: skip
                open_deed = deed
                items = ask(home, token, "/say", deed)["items"]
                kept[deed["item"]], open_deed = deed, None
                if not timer.ident:  # killed a moment after the first answer was acknowledged
                    timer.start()
        except (urllib.error.URLError, http.client.HTTPException, OSError, json.JSONDecodeError):
            cut += 1
        finally:
            timer.cancel()
            process.kill()
            process.communicate()
    assert cut > 0, "no kill fell into a request: the test proves nothing"
    assert kept, "nothing was acknowledged: the test proves nothing"
    store = open_store(run, write=False)
    rows = [
        (r.item, json.loads(r.labels), r.source.rpartition(":")[2]) for r in store.read(t.answer.select())
    ]
    store.close()
    assert len({item for item, _, _ in rows}) == len(rows)
    found = {item: (labels, name) for item, labels, name in rows}
    assert all(found[item] == (deed["labels"], deed["id"]) for item, deed in kept.items())
    extra = set(found) - set(kept)
    assert extra <= ({open_deed["item"]} if open_deed else set())


def test_a_run_does_not_go_on_beside_the_page_and_ctrl_c_ends_it_with_zero(tmp_path):
    import signal

    run = made(tmp_path, 3)
    process, home, token = started(run)
    try:
        again = subprocess.run([sys.executable, "-m", "llmal.cli", "review", str(run)], capture_output=True,
                               text=True, check=False)  # fmt: skip
        assert again.returncode == 5
        assert "this run is in use by process" in again.stderr
        assert ask(home, token, "/start")["left"] == 3
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
