"""The cascade on a whole run: the student first, then the model, then people, and nothing is paid twice."""

import json
from contextlib import contextmanager

import numpy as np
import pytest

import llmal
from llmal.context import Context, Silent
from llmal.errors import SpecError
from llmal.records import routed
from llmal.route.stage import promised
from llmal.spec import Pipeline
from llmal.state import recipes
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.brains import classifier, fenced_text, identify
from llmal.testing.fakelm import FakeLM

TOPICS = {
    "fruit": "apple pear plum cherry grape melon",
    "metal": "iron copper zinc silver gold tin",
    "sport": "tennis hockey rowing chess judo golf",
}
NAMES = list(TOPICS)
N, AUDIT, ROUNDS = 400, 150, 60
TARGET, DELTA = 0.85, 0.2


def texts():
    """(text, truth, what the model says, how sure it is): half are easy, it knows most others."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(N):
        truth = NAMES[i % 3]
        if rng.random() < 0.5:
            words = [TOPICS[truth].split()[(i + k) % 6] for k in range(3)]
            made.append((f"{' '.join(words)} note {i}", truth, truth, 0.97))
        else:
            known = rng.random() < 0.8
            said = truth if known else NAMES[(i + rng.integers(1, 3)) % 3]
            made.append((f"riddle {i} of {rng.integers(10**6)}", truth, said, 0.95 if known else 0.5))
    return made


@pytest.fixture(scope="module")
def rows():
    return texts()


@pytest.fixture
def server(rows):
    said = {text: (label, sure) for text, _, label, sure in rows}

    def brain(ask):
        label, sure = said.get(fenced_text(ask.messages), (NAMES[0], 0.9))
        return classifier(lambda _: label, confidence=sure)(ask)

    with FakeLM(brain, identify=identify) as running:
        yield running


def spec(folder, rows, server, **changes):
    lines = [{"id": str(i), "text": text, "label": truth} for i, (text, truth, _, _) in enumerate(rows)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines), encoding="utf-8")
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
        "labels": {"names": NAMES},
        "audit": {"size": AUDIT, "annotate": True},
        "rounds": {"max": 1, "size": ROUNDS},
        "embed": {"use": "hashing", "dim": 256},
        "annotate": {"use": "llm", "model": "fake-lm", "base_url": server.base_url, "price": "local"},
        "filter": {"use": "confidence", "at_least": 0.8},
        "train": {"rounds": "linear", "final": "linear"},
        "route": {"use": "cascade", "target": TARGET, "delta": DELTA, "price": {"person": 0.2}},
    }
    return Pipeline.model_validate(said | changes)


@contextmanager
def facts(pipeline, done, home):
    store = open_store(done.run, write=False)
    try:
        yield store, recipes(pipeline, Context(done.run, home=home), store)
    finally:
        store.close()


def test_each_tier_answers_what_it_is_sure_of_and_the_labels_say_who(tmp_path, rows, server):
    pipeline = spec(tmp_path, rows, server)
    done = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    with facts(pipeline, done, tmp_path) as (store, names):
        promise = promised(store, names.certificate)
        asked = store.annotations(routed(names.annotations))
        routes, picked, reserved = store.routes(names.route), set(store.picks()), set(store.audit())
        learnt = store.read(t.student.select().where(t.student.c.role == "final"))[0].n_items
    assert promise.holds
    assert promise.issue == 1
    assert "The student answers" in promise.words
    assert asked, "the model was asked about what the student left"
    assert not asked.keys() & (picked | reserved)
    assert learnt <= ROUNDS, "what was asked in order to answer taught the student"
    bar = promise.threshold("student", ()), promise.threshold("llm", ())
    for s, r in routes.items():
        if s in reserved or s in picked:
            continue
        assert (r.who == "student") == (s not in asked), "the model is asked about what the student leaves"
        if r.who == "llm":
            assert asked[s].confidence >= bar[1]
            assert r.labels == asked[s].labels
        if r.who == "student":
            assert r.confidence >= bar[0]
    who = [r.who for r in routes.values()]
    assert min(who.count(w) for w in ("student", "llm", "person")) > 0
    lines = [json.loads(x) for x in (tmp_path / "run/labels.jsonl").read_text(encoding="utf-8").splitlines()]
    machine = [x for x in lines if x["accepted"]]
    truth = {str(i): row[1] for i, row in enumerate(rows)}
    assert {x["label_source"] for x in machine} == {"student", "llm"}
    assert sum(x["label"] == truth[x["id"]] for x in machine) >= TARGET * len(machine)
    assert server.n_requests == 1 + AUDIT + ROUNDS + len(asked), "the probe, and each text once"
    again = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    assert again.facts_added == 0
    assert again.labels == done.labels


def test_where_the_budget_ends_people_answer_the_rest_and_more_of_it_goes_on_under_the_same_promise(
    tmp_path, rows, server
):
    calls = 1 + AUDIT + ROUNDS + 20
    short = spec(tmp_path, rows, server, budget={"calls": calls})
    cut = llmal.run(short, tmp_path / "run", home=tmp_path)
    assert server.n_requests == cut.bill.calls == calls
    with facts(short, cut, tmp_path) as (store, names):
        first, certificate = store.routes(names.route), names.certificate
        asked = len(store.annotations(routed(names.annotations)))
        left = sum("no answer of the model" in r.reason for r in first.values())
    assert asked == 20
    assert f"{left:,} items that were for the model go to people" in cut.stopped
    whole = spec(tmp_path, rows, server)
    done = llmal.run(whole, tmp_path / "run", home=tmp_path)
    with facts(whole, done, tmp_path) as (store, names):
        assert names.certificate == certificate, "a second look at the audit sample was taken"
        assert store.issues() == 1
        assert len(store.annotations(routed(names.annotations))) == asked + left
    assert server.n_requests == calls + left
    assert done.labels["source"]["llm"] > cut.labels["source"]["llm"]


class Interrupts(Silent):
    """Ctrl-C after some answers of the last asking."""

    def __init__(self, after):
        self.after = after

    @contextmanager
    def task(self, title, total):
        done = 0

        def advance(n=1, *, note=""):
            nonlocal done
            done += n
            if title == "annotate" and total < AUDIT + ROUNDS and done >= self.after:
                raise KeyboardInterrupt

        yield advance


def test_a_run_cut_off_while_the_model_is_asked_for_routing_pays_for_nothing_twice(tmp_path, rows, server):
    pipeline = spec(tmp_path, rows, server)
    with pytest.raises(KeyboardInterrupt):
        llmal.run(pipeline, tmp_path / "run", home=tmp_path, progress=Interrupts(20))
    before = server.n_requests
    assert before > 1 + AUDIT + ROUNDS
    done = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    with facts(pipeline, done, tmp_path) as (store, names):
        asked = store.annotations(routed(names.annotations))
        assert store.issues() == 1
    open_calls = 16  # those in flight when it was cut are of unknown fate, and asked again
    assert (
        1 + AUDIT + ROUNDS + len(asked) <= server.n_requests <= 1 + AUDIT + ROUNDS + len(asked) + open_calls
    )
    straight = llmal.run(pipeline, tmp_path / "straight", home=tmp_path)
    assert straight.labels == done.labels
    assert (tmp_path / "run/labels.jsonl").read_bytes() == (tmp_path / "straight/labels.jsonl").read_bytes()


def test_what_routing_asks_of_recorded_answers_costs_nothing_and_stays_apart(tmp_path, rows, server):
    answers = [{"id": str(i), "label": said, "sure": sure} for i, (_, _, said, sure) in enumerate(rows)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in answers), encoding="utf-8")
    recorded = {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"}
    pipeline = spec(tmp_path, rows, server, annotate=recorded)
    done = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    assert done.bill.calls == 0
    assert done.labels["source"]["llm"] > ROUNDS
    assert sum(done.labels["verdict"].values()) == AUDIT + ROUNDS, (
        "answers for routing are judged by no filter"
    )
    assert llmal.run(pipeline, tmp_path / "run", home=tmp_path).facts_added == 0


def test_without_the_models_answers_on_the_audit_it_is_refused_before_anything_is_paid(
    tmp_path, rows, server
):
    for audit in ({"size": AUDIT}, {"size": 0, "annotate": True}):
        pipeline = spec(tmp_path, rows, server, audit=audit)
        with pytest.raises(SpecError, match=r"cascade needs the model.s answers .*annotate: true"):
            llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    assert server.n_requests == 0


def test_an_audit_too_small_promises_nothing_asks_nothing_more_and_says_how_many_are_missing(
    tmp_path, rows, server
):
    pipeline = spec(tmp_path, rows, server, audit={"size": 8, "annotate": True})
    done = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    with facts(pipeline, done, tmp_path) as (store, names):
        promise = promised(store, names.certificate)
        assert {r.who for s, r in store.routes(names.route).items() if s not in store.picks()} == {"person"}
    assert (promise.holds, promise.issue, promise.spent) == (False, 0, 0.0)
    assert promise.more > 0
    assert server.n_requests == 1 + 8 + ROUNDS
