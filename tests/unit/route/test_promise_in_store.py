"""Promises in a run's store: made once, counted, kept for what comes later, and ended when texts change."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa

from llmal.audit import counts_since, known_answers, last_with_a_chance, shuffled
from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Annotation, Decision, Label, LabelSchema, unasked
from llmal.route import drift
from llmal.route.certified import Certified
from llmal.route.promise import of_facts
from llmal.route.shipped import shipped
from llmal.route.stage import Sources, names_of, route_recipe, run
from llmal.route.threshold import Threshold
from llmal.stats.watch import level_of
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
SOURCES = Sources("s", "a", "d", vectors="v")
AUDIT = range(0, 400, 2)


class Corpus:
    """A corpus that grows; the student is right but where it is unsure, and item 301 taught it."""

    def __init__(self, folder):
        self.folder, self.n = folder, 0
        self.store = open_store(folder / "run")
        self.ctx = Context(folder, home=folder)
        self.lines = []

    def grow(self, n, *, sure=(0.6, 1.0), seed=0):
        rng = np.random.default_rng([seed, self.n])
        confidence = rng.uniform(*sure, n)
        bug = rng.random(n) < 0.5
        right = rng.random(n) < np.where(confidence > 0.75, 0.995, 0.6)
        gold = ["bug" if b == r else "billing" for b, r in zip(bug, right, strict=True)]
        self.lines += [json.dumps({"text": f"t{self.n + i}", "y": label}) for i, label in enumerate(gold)]
        path = self.folder / "c.jsonl"
        path.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        spec = CorpusSpec(path="c.jsonl", gold="y")
        self.store.put_corpus("c", str(self.n), read(spec, path, SCHEMA), text_key)
        probs = np.where(bug[:, None], np.c_[confidence, 1 - confidence], np.c_[1 - confidence, confidence])
        self.store.put_block("s", self.n, probs.astype(np.float32))
        self.store.put_block("v", self.n, rng.normal(size=(n, 4)).astype(np.float32))
        self.n += n
        return self

    def reserve(self, items, at=None):
        newest = self.store.read(sa.select(sa.func.max(t.corpus.c.at)))[0][0]
        self.store.add(t.audit, [{"item": i, "at": newest if at is None else at} for i in items])

    def route(self, router=None, **changes):
        return run(router or Certified(), self.store, self.ctx, schema=SCHEMA, **SOURCES._asdict() | changes)

    def names(self, router=None):
        return names_of(router or Certified(), self.store, SOURCES, schema=SCHEMA)

    def promise(self):
        return of_facts(self.store.certificate(self.names().certificate))

    def routes(self):
        return self.store.routes(self.names().route)


@pytest.fixture
def corpus(tmp_path):
    made = Corpus(tmp_path).grow(600)
    made.reserve(AUDIT)
    made.store.add(t.annotation, annotation_rows("a", [Annotation(i, "ok", ("bug",)) for i in (0, 301)]))
    decided = [Decision(i, "accept", 0.9, "sure") for i in (0, 301)]
    made.store.add(t.decision, [{**d._asdict(), "recipe": "d"} for d in decided])
    yield made
    made.store.close()


def test_a_promise_and_its_routes_are_made_once(corpus):
    assert corpus.route()[:2] == (600, 600)
    promise, routes = corpus.promise(), corpus.routes()
    assert (promise.issue, promise.audited, promise.outside) == (1, 200, 1)
    assert promise.holds
    bar = promise.threshold("student", ("bug",))
    for item, route in routes.items():
        sure = float(corpus.store.load("s")[item].max()) >= bar
        assert route.who == ("llm" if item == 301 else "student" if sure else "person")
    assert corpus.route()[:2] == (600, 0)
    assert corpus.store.issues() == 1


def test_an_audit_item_is_the_students_alone_though_the_annotator_was_asked_about_it(corpus):
    corpus.route()
    assert corpus.routes()[0].who != "llm"
    answer(corpus.store, 0, "bug")
    corpus.route()
    assert corpus.store.routes(unasked(corpus.names().route))[0].who != "llm"
    corpus.route(Threshold())
    name = route_recipe(Threshold(), "s", "d", corpus.store.answers(SCHEMA.names))
    assert corpus.store.routes(unasked(name))[0].who != "llm", "an item nobody picked has no annotation"


def test_a_crash_leaves_promise_and_routes_or_neither(corpus, monkeypatch):
    real = corpus.store.add

    def full(table, rows, **options):
        if table is t.route:
            raise OSError("the disk is full")
        return real(table, rows, **options)

    monkeypatch.setattr(corpus.store, "add", full)
    with pytest.raises(OSError, match="disk"):
        corpus.route()
    assert corpus.store.issues() == 0


def test_new_answers_on_audit_items_are_a_new_test_and_others_are_none(corpus):
    corpus.route()
    answer(corpus.store, 1)  # not of the audit sample; the student stays as it is
    corpus.route()
    assert corpus.store.issues() == 1
    gold = corpus.store.gold()[2]
    answer(corpus.store, 2, *gold)
    corpus.route()
    assert corpus.store.issues() == 1, "people say what was known: the same test"
    answer(corpus.store, 2, "bug" if gold == ("billing",) else "billing")
    corpus.route()
    assert corpus.store.issues() == 2
    assert corpus.promise().spent == pytest.approx(0.1 / 6)
    corpus.route(Certified(target=0.9))
    assert corpus.store.issues() == 3


def test_too_few_answers_spend_nothing_and_people_answer(tmp_path):
    few = Corpus(tmp_path).grow(100)
    few.reserve(range(20))
    try:
        few.route()
        assert few.store.issues() == 0
        assert {r.who for r in few.routes().values()} == {"person"}
        assert "No test was made" in few.promise().words
    finally:
        few.store.close()


def test_texts_that_come_later_are_routed_by_the_promise_there_is(corpus):
    corpus.route()
    before = corpus.promise()
    corpus.grow(200)
    assert corpus.route()[:2] == (800, 200)
    assert corpus.promise() == before
    assert corpus.store.count(t.look) == 1
    assert corpus.route()[:2] == (800, 0)
    assert corpus.store.count(t.look) == 1
    assert last_with_a_chance(corpus.store) == 599


@pytest.mark.parametrize("taught", [1, 50])
def test_new_texts_the_student_learnt_from_itself_are_no_reason_to_end_a_promise(corpus, taught):
    corpus.route()
    corpus.grow(200, sure=(0.6, 1.0) if taught == 1 else (0.97, 1.0))  # what it learnt from, it is sure of
    for item in range(600, 600 + taught):
        answer(corpus.store, item, *corpus.store.gold()[item])
    corpus.route()
    facts = json.loads(corpus.store.read(t.look.select())[0].facts)
    assert (facts["score"] == [0, 1, 1]) == (taught == 50)
    assert facts["embedding"][0] > 0
    assert corpus.promise().holds


def test_a_handful_of_new_texts_is_not_looked_at(corpus):
    corpus.route()
    corpus.grow(drift.FEWEST - 1)
    corpus.route()
    assert corpus.store.count(t.look) == 0


def test_texts_unlike_those_the_sample_was_drawn_from_end_the_promise(corpus):
    corpus.route()
    first = corpus.names().certificate
    corpus.grow(200, sure=(0.5, 0.7))
    corpus.route()
    ended = corpus.store.certificate(first)["withdrawn"]
    assert ended.startswith("200 texts came after the audit sample was drawn")
    assert "in 1% of runs at most" in ended
    assert {r.who for r in corpus.routes().values()} == {"person", "llm"}
    assert [s for s, r in corpus.routes().items() if r.who == "llm"] == [301]
    promise = corpus.promise()
    assert (promise.holds, promise.withdrawn, promise.issue) == (False, ended, 0)
    assert "withdrawn" in promise.words
    assert corpus.route()[1] == 0
    # Only what is reserved from now on is a sample of the corpus as it is.
    corpus.reserve(range(1, 800, 4))
    assert counts_since(corpus.store) > 0
    known = known_answers(corpus.store, SCHEMA, since=counts_since(corpus.store))
    assert set(known) == set(range(1, 800, 4))
    corpus.route()
    assert corpus.promise().audited == 200
    assert corpus.promise().withdrawn is None
    assert corpus.store.issues() == 2


def looks(shift, runs):
    """Share of first looks that end a promise, with new confidences moved by `shift`."""
    rng, ended = np.random.default_rng(0), 0
    for k in range(runs):
        sure = np.clip(rng.beta(5, 2, 400) / 2 + 0.5, 0, 1)
        sure[200:] = np.clip(sure[200:] - shift, 0.5, 1)
        arrays = {"s": np.c_[sure, 1 - sure], "v": rng.normal(size=(400, 3))}
        store = SimpleNamespace(load=arrays.__getitem__)
        sources = Sources(f"s{k}", "a", "d", vectors="v")
        arrays[f"s{k}"] = arrays["s"]
        who = list(range(200)), list(range(200)), list(range(200, 400)), list(range(200, 400))
        found = drift._shifts(store, sources, SCHEMA, 1, who)
        ended += min(one.p for one in found.values()) <= level_of(1, drift.ALARM, tests=3)
    return ended / runs


@pytest.mark.parametrize("runs", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_false_alarms_are_as_rare_as_stated_and_a_shift_is_found(runs):
    assert looks(0.0, runs) <= drift.ALARM + 2 * (drift.ALARM * (1 - drift.ALARM) / runs) ** 0.5
    assert looks(0.1, 5) == 1


def test_an_export_gets_certificate_bars_and_numbers_of_texts_not_learnt_from(corpus):
    corpus.route()
    found = shipped(corpus.store, corpus.ctx, SOURCES, corpus.names().certificate, schema=SCHEMA)
    assert found["certificate"]["words"] == corpus.promise().words
    assert found["certificate"]["withdrawn"] is None
    assert found["thresholds"] is None
    reference = found["reference"]
    assert (reference["of"], reference["n"]) == ("audit", 200)
    table = corpus.store.load("s")[list(AUDIT)]
    assert sorted(reference["confidence"]) == pytest.approx(sorted(table.max(axis=1).tolist()), abs=1e-6)
    assert sum(labels == [0] for labels in reference["labels"]) == (table.argmax(axis=1) == 0).sum()
    json.dumps(found)
    none = shipped(corpus.store, corpus.ctx, SOURCES, "", schema=SCHEMA)
    assert (none["certificate"], none["thresholds"]) == (None, None)


def test_bars_of_single_classes_are_exported_by_label(corpus):
    router = Certified(per_class=True, target=0.8)
    corpus.route(router)
    name = corpus.names(router).certificate
    found = shipped(corpus.store, corpus.ctx, SOURCES, name, schema=SCHEMA)
    assert set(found["thresholds"]) == {"bug", "billing"}
    assert any(bar is not None for bar in found["thresholds"].values())


def test_a_router_without_a_promise_keeps_its_recipe_and_leaves_no_certificate(corpus):
    corpus.route(Threshold())
    assert corpus.names(Threshold()).certificate == ""
    assert corpus.names(Threshold()).route == route_recipe(Threshold(), "s", "d", {})
    assert corpus.store.count(t.certificate) == 0


def test_what_else_saw_peoples_answers_is_said(corpus):
    corpus.route(peeked="The promise is approximate: the filter saw them too.")
    assert corpus.promise().words.endswith("the filter saw them too.")


def test_whatever_part_of_the_audit_sample_people_get_through_is_a_random_one():
    order = shuffled(range(10_000))
    assert sorted(order) == list(range(10_000))
    assert order == shuffled(reversed(range(10_000)))
    first = np.array(order[:500])
    assert abs(first.mean() - 5000) < 3 * 10_000 / (12 * 500) ** 0.5
    assert 30 < (np.diff(order[:500]) > 0).sum() / 5 < 70
