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
from contextlib import closing

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
    """A page for Ada alone: the process, its address, and her token."""
    process, home, tokens = opened(run, "ada", *more)
    return process, home, tokens["ada"]


def opened(run, *people):
    """A page for these people: the process, its address, and the token of each."""
    named = [word for name in people for word in ("--person", name)]
    command = [sys.executable, "-m", "llmal.cli", "review", str(run), *named]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    told, tokens = [], {}
    for line in process.stderr:
        told.append(line)
        if found := re.search(r"review page(?: of (\S+))?: (http://\S+)/#token=(\S+)", line):
            tokens[found[1] or people[0]] = found[3]
            if len(tokens) == len(people):
                return process, found[2], tokens
    raise AssertionError(told)


def ask(home, token, path, body=None):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Origin": home}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(home + path, data, headers), timeout=30) as answer:
        return json.load(answer)


def test_what_nobody_can_tell_does_not_use_up_what_people_may_answer(tmp_path):
    run = made(tmp_path, 12)
    file = run / "pipeline.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "budget:\n  people: 2\n", encoding="utf-8")
    process, home, token = started(run)
    try:
        for i in range(12):
            (one, *_) = ask(home, token, "/start")["items"]
            ask(home, token, "/say", {"id": f"{i:032x}", "item": one["item"], "what": "unsure"})
        assert ask(home, token, "/start")["items"] == []
    finally:
        process.terminate()
        process.communicate(timeout=60)


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


def test_one_page_a_run_and_ctrl_c_ends_it_with_zero(tmp_path):
    import signal

    run = made(tmp_path, 3)
    process, home, token = started(run)
    try:
        again = subprocess.run([sys.executable, "-m", "llmal.cli", "review", str(run)], capture_output=True,
                               text=True, check=False)  # fmt: skip
        assert again.returncode == 5
        assert "another review page of this run is open" in again.stderr
        assert ask(home, token, "/start")["left"] == 3
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


class Page:
    """One person's page over a connection of its own: answers what it is given until nothing is left."""

    def __init__(self, home, token, name):
        self.name, self.token = name, token
        self.home, self.line = home, http.client.HTTPConnection(home.removeprefix("http://"), timeout=60)
        self.shown, self.kept, self.rng = [], {}, random.Random(name)

    def ask(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json",
                   "Origin": self.home}  # fmt: skip
        self.line.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = self.line.getresponse()
        return answer.status, json.loads(answer.read())

    def work(self, most=10**9):
        ahead = self.ask("/start")[1]["items"]
        self.shown += [one["item"] for one in ahead]
        while ahead and most > 0:
            one, most = ahead.pop(0), most - 1
            label = self.rng.choice(["bug", "praise"])
            body = {"id": f"{self.rng.getrandbits(128):032x}", "item": one["item"], "what": "answer",
                    "labels": [label], "have": [o["item"] for o in ahead]}  # fmt: skip
            status, got = self.ask("/say", body)
            assert status == 200, got
            self.kept[one["item"]] = label
            self.shown += [o["item"] for o in got["items"]]
            ahead += got["items"]


def stop(process, *pages):
    for page in pages:
        page.line.close()
    process.kill()
    process.communicate()


@pytest.mark.parametrize("n", [240, pytest.param(2_000, marks=pytest.mark.slow)])
def test_two_people_at_once_lose_nothing_and_share_only_the_overlap(tmp_path, n):
    run = made(tmp_path, n)
    process, home, tokens = opened(run, "ada", "bob")
    pages = [Page(home, tokens[name], name) for name in ("ada", "bob")]
    try:
        threads = [threading.Thread(target=page.work) for page in pages]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        for page in pages:  # second words that were left when the other had gone
            page.work()
            assert page.ask("/start")[1]["left"] == 0
        _, told = pages[1].ask("/people")
        assert pages[1].ask("/disputes")[0] == 403
        _, torn = pages[0].ask("/disputes")
    finally:
        stop(process, *pages)
    store = open_store(run, write=False)
    rows = store.read(t.answer.select())
    store.close()
    found = {(r.item, r.person): json.loads(r.labels)[0] for r in rows}
    assert found == {(i, page.name): label for page in pages for i, label in page.kept.items()}
    assert len(found) == len(rows)
    both = set(pages[0].kept) & set(pages[1].kept)
    assert set(pages[0].kept) | set(pages[1].kept) == {*range(n)}
    assert abs(len(both) - n / 10) <= 1
    for page in pages:
        assert len(page.shown) == len(set(page.shown)), "nobody sees an item twice"
    assert set(pages[0].shown) & set(pages[1].shown) == both
    assert told["overlap"] == {"wanted": len(both), "done": len(both)}
    assert torn["left"] == sum(pages[0].kept[i] != pages[1].kept[i] for i in both)
    if n >= 1000:
        assert all(len(page.kept) > n / 10 for page in pages), "both had work: else the test proves little"


def test_tables_come_in_and_a_run_holds_its_lock_while_people_label(tmp_path):
    run = made(tmp_path, 400)
    process, home, tokens = opened(run, "ada", "bob")
    page = Page(home, tokens["ada"], "ada")
    keys = {}
    try:
        with closing(open_store(run)):  # somebody has the run's lock
            page.work(20)
        store = open_store(run, write=False)
        keys = {item.seq: item.key for item in store.items([*range(400)])}
        store.close()
        for part in range(3):
            rows = "".join(f"{keys[i]},praise\n" for i in range(100 * part + 100, 100 * part + 200))
            (tmp_path / f"{part}.csv").write_text("item,answer\n" + rows, encoding="utf-8")
        command = [sys.executable, "-m", "llmal.cli", "review", str(run), "--person", "cleo", "--in"]
        imports = [subprocess.Popen([*command, str(tmp_path / f"{part}.csv")], stdout=subprocess.DEVNULL)
                   for part in range(3)]  # fmt: skip
        while any(one.poll() is None for one in imports):
            page.work(5)
        assert [one.returncode for one in imports] == [0, 0, 0]
    finally:
        stop(process, page)
    store = open_store(run, write=False)
    rows = store.read(t.answer.select())
    store.close()
    assert sorted(r.n for r in rows) == [*range(1, len(rows) + 1)]
    found = {(r.item, r.person) for r in rows}
    assert {(i, "cleo") for i in range(100, 400)} <= found
    assert {(i, "ada") for i in page.kept} == {pair for pair in found if pair[1] == "ada"}
