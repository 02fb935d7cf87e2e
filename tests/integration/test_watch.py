"""A run that waits for people: what it says, what their answers change, and how it goes on by itself."""

import json
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter

import pytest

import llmal
from llmal.cli import heard
from llmal.handover import review
from llmal.report import outcome_text
from llmal.review.asks import Asks
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.frozen import NEVER, News, Seen, arrived, freeze, news
from llmal.store.store import open_store
from llmal.testing.brains import classifier, identify
from llmal.testing.facts import answer, remark
from llmal.testing.fakelm import FakeLM
from llmal.watching import due

TOPICS = {
    "fruit": "apple pear plum cherry",
    "metal": "iron copper zinc silver",
    "sport": "tennis golf judo chess",
}


def corpus(folder, n=240):
    """Texts that begin with their topic, half with another's words after; recorded answers, and no gold."""
    rows, names = [], list(TOPICS)
    for i in range(n):
        own, other = TOPICS[names[i % 3]].split(), TOPICS[names[(i + 1 + i % 2) % 3]].split()
        words = [own[i % 4], own[(i + 1) % 4]] if i % 4 < 2 else [own[i % 4], *other[i % 3 : i % 3 + 2]]
        rows.append({"id": str(i), "text": f"{' '.join(words)} note {i}", "label": names[i % 3]})
    (folder / "answers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    for row in rows:
        del row["label"]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def spec(**changes):
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id"},
        "labels": {"names": list(TOPICS)},
        "audit": {"size": 20},
        "rounds": {"max": 1, "size": 60},
        "embed": {"use": "hashing", "dim": 64},
        "annotate": {"use": "recorded", "path": "answers.jsonl"},
        "filter": {"use": "confidence", "unknown": "accept"},
        "train": {"rounds": "linear", "final": "linear"},
        "route": {"use": "threshold", "at_least": 0.8},
    }
    return Pipeline.model_validate(said | changes)


def truth(text):
    return next(name for name, words in TOPICS.items() if text.split()[0] in words)


def answered(run, folder, some=None, person="ada"):
    """What waits, handed out and taken back with the right answers; how many were new."""
    table = folder / "todo.jsonl"
    review(run, out=table, into=None, person=person, spreadsheet=False)
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()][:some]
    done = [json.dumps({**row, "answer": truth(row["text"])}) + "\n" for row in rows]
    table.write_text("".join(done), encoding="utf-8")
    return review(run, out=None, into=table, person=person, spreadsheet=False)["taken"]["new"]


# --- what it says ---------------------------------------------------------------------------------------


def test_a_run_that_waits_says_for_how_much_and_how_to_answer(tmp_path):
    corpus(tmp_path)
    done = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    assert done.waiting > 20
    said = " ".join(outcome_text(done).split())
    assert f"{done.waiting} items wait for people, 20 of them to measure: about" in said
    assert "nobody was timed yet" in said
    assert f"llmal review {tmp_path / 'run'}" in said
    told = done.as_json()["waits"]
    assert told["items"] == done.waiting
    assert told["measure"] == 20
    assert 0 < told["minutes"] < done.waiting
    assert answered(done.run, tmp_path) == done.waiting
    again = llmal.run(spec(route={"use": "threshold", "at_least": 0.0}), tmp_path / "run", home=tmp_path)
    assert again.as_json()["waits"] is None
    assert "nothing waits for people" in outcome_text(again)


def test_a_budget_of_answers_is_what_it_asks_for(tmp_path):
    corpus(tmp_path)
    done = llmal.run(spec(budget={"people": 7}), tmp_path / "run", home=tmp_path)
    assert done.as_json()["waits"] | {"minutes": 0, "command": ""} == {
        "items": 7, "measure": 7, "minutes": 0, "timed_answers": 0, "command": "",
    }  # fmt: skip
    assert len(done.asks.items) > 7


# --- answers in the middle of a pass --------------------------------------------------------------------


def test_a_pass_goes_by_what_was_said_when_it_began_and_the_next_by_the_rest(tmp_path, monkeypatch):
    corpus(tmp_path)
    plan = spec(select="uniform")
    first = llmal.run(plan, tmp_path / "run", home=tmp_path)
    # The twin gets the same words, before its pass begins.
    llmal.run(plan, tmp_path / "twin", home=tmp_path)
    found = {}

    from llmal.train import stage as train

    real = train.run

    def slow(*given, **options):
        if not found:  # somebody answers all while the student is taught
            found["new"] = answered(first.run, tmp_path)
        return real(*given, **options)

    one = answered(first.run, tmp_path, some=25)
    assert answered(tmp_path / "twin", tmp_path, some=25) == one
    monkeypatch.setattr(train, "run", slow)
    second = llmal.run(plan, tmp_path / "run", home=tmp_path)
    monkeypatch.setattr(train, "run", real)
    twin = llmal.run(plan, tmp_path / "twin", home=tmp_path)
    assert found["new"] == second.meanwhile > 0, "nobody answered in the middle: the test proves nothing"
    assert (second.measures, second.labels, second.waiting) == (twin.measures, twin.labels, twin.waiting)
    assert second.labels["source"]["human"] == 25
    third = llmal.run(plan, tmp_path / "run", home=tmp_path)
    assert third.labels["source"]["human"] == 25 + found["new"]
    assert third.meanwhile == 0


def test_a_frozen_store_sees_nothing_later_neither_words_nor_what_is_taken_back(tmp_path):
    (tmp_path / "c.jsonl").write_text("".join(f'{{"text": "t{i}"}}\n' for i in range(9)), encoding="utf-8")
    store, other = open_store(tmp_path / "run"), open_store(tmp_path / "run", beside=True)
    first = answer(store, 0, "bug")
    answer(store, 1, "bug")
    assert freeze(store) == Seen(2, 0)
    answer(other, 0, "praise")
    answer(other, 2, "bug")
    remark(other, 1, "undo", of=2)
    assert store.answers() == {0: ("bug",), 1: ("bug",)}
    assert [w.item for w in store.words()] == [0, 1]
    assert other.answers() == {0: ("praise",), 2: ("bug",)}
    assert arrived(store, Seen(2, 0)) == 3  # two answers, and one taken back
    assert news(other, Seen(2, 0)) == News(3, frozenset({0, 2}), Seen(4, 1))
    assert news(other, NEVER).words == 3
    with pytest.raises(llmal.errors.StoreError):
        store.add(t.answer, [{"n": 9, "item": 3, "person": "p", "labels": "[]", "note": "", "source": "s",
                              "line": 0, "at": 0.0, "seconds": None, "shown": None}])  # fmt: skip
    assert first == 1
    other.close()
    store.close()


def test_people_answer_while_a_run_goes_on_and_only_a_second_run_is_refused(tmp_path):
    corpus(tmp_path)
    done = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    holder = open_store(done.run)
    try:
        assert answered(done.run, tmp_path, some=3) == 3
        with pytest.raises(llmal.errors.RunInUse, match="this run is in use by process"):
            llmal.run(spec(), tmp_path / "run", home=tmp_path)
    finally:
        holder.close()


# --- when a pass is worth it ----------------------------------------------------------------------------


def asked(n):
    return Asks(n, 0, 1.0, 0, frozenset(range(n)))


@pytest.mark.parametrize(
    ("waiting", "words", "quiet", "goes"),
    [
        (5, 0, 9e9, False),  # nothing new
        (5, 5, 0, True),  # all of it
        (5, 4, 599, False),
        (5, 4, 600, True),  # a long pause
        (100, 49, 0, False),
        (100, 50, 0, True),  # half of it, nobody pauses
        (100, 10, 29, False),
        (100, 10, 30, True),  # a tenth, and a pause
        (100, 9, 599, False),
        (1000, 99, 30, False),
        (1000, 100, 30, True),
    ],
)
def test_when_another_pass_is_worth_it(waiting, words, quiet, goes):
    assert due(News(words, frozenset(range(words)), Seen(words, 0)), asked(waiting), quiet) is goes


def test_words_about_items_that_did_not_wait_do_not_pass_for_all_answered():
    assert not due(News(5, frozenset(range(90, 95)), Seen(5, 0)), asked(5), 0)
    assert due(News(5, frozenset(range(90, 95)), Seen(5, 0)), asked(5), 600)


class Dying:
    """Presses Ctrl+C while it is taken apart, where Python drops an interrupt."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_falls_into_a_destructor_is_heard(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", heard)
    Dying()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(30)


# --- as processes of their own --------------------------------------------------------------------------


class Said(threading.Thread):
    """What a process writes to stderr, line by line, as it comes."""

    def __init__(self, *command):
        super().__init__(daemon=True)
        words = [sys.executable, "-m", "llmal.cli", *map(str, command)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.start()

    def run(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def until(self, pattern, since=0, timeout=60.0):
        """The match of the first line after `since` that has it."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for line in self.lines[since:]:
                if found := re.search(pattern, line):
                    return found
            if self.process.poll() is not None and not self.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError((pattern, self.process.poll(), self.lines))

    def end(self, timeout=60):
        """Exit status and stdout, once it has ended by itself."""
        status = self.process.wait(timeout)
        self.join()
        return status, self.process.stdout.read()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def processes():
    """Starts `llmal ...`; whatever is left at the end is killed."""
    begun = []

    def start(*command):
        begun.append(Said(*command))
        return begun[-1]

    yield start
    for one in begun:
        one.stop()


@pytest.fixture
def paid(tmp_path):
    """A pipeline file whose annotator is a model, with 40 items that wait; the counted endpoint."""
    corpus(tmp_path)
    with FakeLM(classifier(truth, confidence=0.97), identify=identify) as server:
        price = {"input": 0.15, "output": 0.6}
        llm = {"use": "llm", "model": "fake-lm", "base_url": server.base_url, "price": price}
        sure = {"use": "threshold", "at_least": 0.0}  # so that the audit sample alone waits for people
        plan = spec(annotate=llm, audit={"size": 40}, route=sure)
        (tmp_path / "p.yaml").write_text(plan.to_yaml(), encoding="utf-8")
        yield server


def ask(home, token, path, body=None):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Origin": home}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(home + path, data, headers), timeout=30) as answer:
        return json.load(answer)


def never_twice(server, n):
    counts = server.counts - Counter({"probe": server.counts["probe"]})
    assert counts.total() == len(counts) == n, "an item was asked about twice"


def test_a_table_lets_it_go_on_until_nothing_waits_and_no_call_is_made_twice(tmp_path, paid, processes):
    run = tmp_path / "run"
    watch = processes("run", tmp_path / "p.yaml", "--run", run, "--watch", "--json")
    told = watch.until(
        r"(\d+) items wait for people, 40 of them to measure: .*with: llmal review \S+run; this"
    )
    answers = answered(run, tmp_path)
    assert answers == int(told[1]) == 40
    status, out = watch.end()
    found = json.loads(out)
    assert (status, found["waits"], found["waiting_for_people"]) == (0, None, 0)
    assert found["labels"]["source"]["human"] == answers
    assert found["measures"]["student.accuracy"]["n"] == 40
    never_twice(paid, 60)


def test_answers_make_new_only_what_follows_from_them(tmp_path, paid):
    plan = spec(annotate=Pipeline.from_yaml(tmp_path / "p.yaml").annotate.to_spec())
    first = llmal.run(plan, tmp_path / "run", home=tmp_path)
    same = ("item", "row", "audit", "pick", "attempt", "outcome", "annotation", "decision")
    more = ("answer", "student", "route", "measure")

    def sizes():
        store = open_store(first.run, write=False)
        try:
            vectors = store.count(t.array, t.array.c.recipe == plan.embed.recipe())
            counts = {name: store.count(t.metadata.tables[name]) for name in (*same, *more)}
        finally:
            store.close()
        return counts | {"vectors": vectors}

    before = sizes()
    answered(first.run, tmp_path)
    second = llmal.run(plan, tmp_path / "run", home=tmp_path)
    after = sizes()
    assert {name for name in before if before[name] != after[name]} == set(more)
    assert second.measures["student.accuracy"]["n"] == 20
    never_twice(paid, 60)
    assert llmal.run(plan, tmp_path / "run", home=tmp_path).facts_added == 0


def test_ctrl_c_while_it_waits_keeps_all_and_says_how_to_go_on(tmp_path, paid, processes):
    run = tmp_path / "run"
    watch = processes("run", tmp_path / "p.yaml", "--run", run, "--watch")
    watch.until("Ctrl.C stops")
    assert answered(run, tmp_path, some=5) == 5
    watch.process.send_signal(signal.SIGINT)
    status, _ = watch.end()
    assert status == 130
    words = r"stopped watching while \d+ items waited for people\. .*the same command goes on"
    assert re.match(words, watch.lines[-1])
    done = llmal.run(Pipeline.from_yaml(tmp_path / "p.yaml"), run, home=tmp_path)
    assert done.labels["source"]["human"] == 5
    never_twice(paid, 60)


@pytest.mark.slow
def test_kill_9_of_watch_and_of_page_loses_no_answer_and_pays_nothing_twice(tmp_path, paid, processes):
    run, kept = tmp_path / "run", {}

    def watching():
        return processes("run", tmp_path / "p.yaml", "--run", run, "--watch", "--pause", "1", "--json")

    def page():
        made = processes("review", run, "--person", "ada")
        found = made.until(r"(http://\S+)/#token=(\S+)")
        return made, found[1], found[2]

    def label(home, token, most):
        items = ask(home, token, "/start")["items"]
        while items and most:
            deed = {"id": secrets.token_hex(16), "item": items[0]["item"], "what": "answer",
                    "labels": [truth(items[0]["text"])]}  # fmt: skip
            items = ask(home, token, "/say", deed)["items"]
            kept[deed["item"]], most = deed["labels"], most - 1

    watch = watching()
    watch.until("Ctrl.C stops")
    desk, home, token = page()
    label(home, token, 12)
    watch.until("going on")  # a tenth, and a pause: a pass is under way, and the person answers on
    label(home, token, 5)
    watch.stop()
    label(home, token, 5)  # nobody watches, the page goes on
    desk.stop()
    desk, home, token = page()
    watch = watching()
    end = time.monotonic() + 90
    while watch.process.poll() is None and time.monotonic() < end:
        label(home, token, 1000)
        time.sleep(0.2)
    status, out = watch.end(timeout=1)
    found = json.loads(out)
    assert (status, found["waiting_for_people"]) == (0, 0)
    store = open_store(run, write=False)
    rows = [(row.item, json.loads(row.labels)) for row in store.read(t.answer.select())]
    store.close()
    assert dict(rows) == kept
    assert len(rows) == len(kept) == found["labels"]["source"]["human"]
    never_twice(paid, 60)
