"""Evaluating: the audit sample is random, never trained on, and measures what machines would have done."""

import json

import numpy as np
import pytest

from llmal.audit import known_answers
from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.evaluate.stage import reserve, run
from llmal.records import Annotation, Decision, Label, LabelSchema
from llmal.route.stage import route_recipe
from llmal.route.stage import run as route
from llmal.route.threshold import Threshold
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer
from llmal.train.stage import training_set

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
N = 12


def open_with(folder, gold):
    opened = open_store(folder / "run")
    path = folder / "c.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"t{i}", "label": gold.get(i)}) + "\n" for i in range(N)),
        encoding="utf-8",
    )
    spec = CorpusSpec(path="c.jsonl", gold="label")
    opened.put_corpus("c", "d", read(spec, path, SCHEMA), text_key)
    return opened


@pytest.fixture
def store(tmp_path):
    opened = open_with(tmp_path, {})
    yield opened
    opened.close()


@pytest.fixture
def ctx(tmp_path):
    return Context(tmp_path, home=tmp_path, seed=3)


def annotate(store, items, label="bug", verdict="accept"):
    store.add(
        t.annotation, annotation_rows("a", [Annotation(i, "ok", (label,), confidence=0.9) for i in items])
    )
    store.add(t.decision, [{**Decision(i, verdict, 0.9, "sure")._asdict(), "recipe": "d"} for i in items])


def predict(store, rows):
    store.put_block("s", 0, np.array(rows, np.float32))


def measure(store, ctx):
    route(Threshold(), store, ctx, schema=SCHEMA, predictions="s", annotations="a", decisions="d")
    name = route_recipe(Threshold(), "s", "d", store.answers(SCHEMA.names))
    tally = run(store, ctx, schema=SCHEMA, student="s", route=name, annotations="a")
    found = {m.name: (m.value, m.n) for m in store.read(t.measure.select())}
    return tally, found


def test_the_sample_is_drawn_once_and_grows_without_touching_what_was_looked_at(store, ctx):
    assert reserve(store, ctx, size=3)[:2] == (3, 3)
    first = store.audit()
    assert reserve(store, ctx, size=3)[:2] == (3, 0)
    free = [i for i in range(N) if i not in first]
    store.add(
        t.pick,
        [
            {
                "item": free[0],
                "round": 0,
                "rank": 0,
                "by": "x",
                "score": None,
                "reason": "",
                "recipe": "r",
                "at": 0.0,
            }
        ],
    )
    answer(store, free[1], "bug")
    tally = reserve(store, ctx, size=N)
    grown = set(store.audit())
    assert set(first) < grown
    assert len(grown) == N // 2, "a sample of the whole corpus leaves nothing to learn from"
    assert not grown & set(free[:2])
    assert tally.note == f"at most half of the corpus is reserved, not {N}"


def test_the_same_seed_draws_the_same_sample_and_another_seed_another(tmp_path, ctx):
    drawn = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        (tmp_path / name).mkdir()
        opened = open_with(tmp_path / name, {})
        reserve(opened, Context(tmp_path, home=tmp_path, seed=seed), size=5)
        drawn.append(opened.audit())
        opened.close()
    assert drawn[0] == drawn[1] != drawn[2]


def test_audit_items_are_never_trained_on_even_when_people_and_machines_answered_them(store, ctx):
    reserve(store, ctx, size=4)
    audit = store.audit()
    annotate(store, range(N))
    for item in audit:
        answer(store, item, "billing")
    data = training_set(store, schema=SCHEMA, annotations="a", decisions="d")
    assert data.items == [i for i in range(N) if i not in audit]
    assert set(data.sources) == {"llm"}


def test_gold_is_never_trained_on(tmp_path):
    opened = open_with(tmp_path, dict.fromkeys(range(N), "bug"))
    assert training_set(opened, schema=SCHEMA, annotations="a", decisions="d").items == []
    opened.close()


def test_a_persons_answer_beats_the_gold_of_the_corpus(tmp_path, ctx):
    opened = open_with(tmp_path, {0: "bug", 1: "bug"})
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in (0, 1, 2)])
    answer(opened, 1, "billing")
    assert known_answers(opened, SCHEMA) == {0: ("bug",), 1: ("billing",)}
    opened.close()


def test_nothing_is_measured_and_it_is_said_while_no_answer_is_known(store, ctx):
    reserve(store, ctx, size=2)
    tally = run(store, ctx, schema=SCHEMA, student="s", route="r", annotations="a")
    assert tally[:3] == (0, 0, "nothing can be measured: 2 audit items need people's answers first")


def test_machines_are_measured_on_the_audit_sample_whether_people_or_gold_answered_it(tmp_path, ctx):
    # Four audit items: the student is sure of three of them and right about two.
    probs = [[0.99, 0.01], [0.95, 0.05], [0.02, 0.98], [0.6, 0.4]] + [[0.5, 0.5]] * (N - 4)
    truth = {0: "bug", 1: "billing", 2: "billing", 3: "bug"}
    found = []
    for name, gold in (("people", {}), ("gold", truth)):
        (tmp_path / name).mkdir()
        opened = open_with(tmp_path / name, gold)
        opened.add(t.audit, [{"item": i, "at": 0.0} for i in truth])
        predict(opened, probs)
        if not gold:
            for item, label in truth.items():
                answer(opened, item, label)
        found.append(measure(opened, ctx)[1])
        opened.close()
    assert found[0] == found[1]
    assert found[0]["student.accuracy"] == (0.75, 4)
    assert found[0]["accepted.coverage"] == (0.75, 4)
    assert found[0]["accepted.accuracy"] == (pytest.approx(2 / 3), 3)


def test_an_annotation_of_an_audit_item_is_no_answer_since_a_text_nobody_picked_has_none(tmp_path, ctx):
    # The student is unsure of all, the annotator right about the audit items it was asked about.
    for name, gold in (("people", {}), ("gold", dict.fromkeys(range(4), "bug"))):
        (tmp_path / name).mkdir()
        opened = open_with(tmp_path / name, gold)
        opened.add(t.audit, [{"item": i, "at": 0.0} for i in range(4)])
        predict(opened, [[0.6, 0.4]] * N)
        annotate(opened, range(6))
        if not gold:
            for item in range(4):
                answer(opened, item, "bug")
        found = measure(opened, ctx)[1]
        assert found["accepted.coverage"] == (0.0, 4), name
        assert "accepted.accuracy" not in found, name
        opened.close()


def test_where_the_annotator_was_asked_about_every_text_its_answers_to_audit_items_count(tmp_path, ctx):
    opened = open_with(tmp_path, dict.fromkeys(range(4), "bug"))
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in range(4)])
    predict(opened, [[0.6, 0.4]] * N)
    annotate(opened, range(N))
    found = measure(opened, ctx)[1]
    assert (found["accepted.coverage"], found["accepted.accuracy"]) == ((1.0, 4), (1.0, 4))
    assert found["prevalence[bug]"][0] == 1.0
    opened.close()


def test_measures_are_made_once_and_anew_when_an_answer_arrives(store, ctx):
    predict(store, [[0.9, 0.1]] * N)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in (0, 1)])
    answer(store, 0, "bug")
    tally, _ = measure(store, ctx)
    assert tally.new == tally.wanted > 0
    assert measure(store, ctx)[0].new == 0
    answer(store, 1, "billing")
    assert measure(store, ctx)[0].new > 0


def test_the_annotator_is_measured_where_it_was_asked_about_audit_items(store, ctx):
    predict(store, [[0.9, 0.1]] * N)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in (0, 1)])
    annotate(store, [0, 1, 5], "billing", "hold")
    answer(store, 0, "bug")
    answer(store, 1, "billing")
    assert measure(store, ctx)[1]["annotator.accuracy"] == (0.5, 2)


def test_the_calibration_error_of_the_filters_scores_stands_beside_the_raw_one(store, ctx):
    predict(store, [[0.9, 0.1]] * N)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in range(4)])
    annotate(store, range(4))
    for item, label in enumerate(["bug", "bug", "billing", "billing"]):
        answer(store, item, label)
    raw = measure(store, ctx)[1]
    assert "annotator.ece" in raw
    assert "annotator.calibrated_ece" not in raw, "the scores are the raw confidences"
    scored = [{**Decision(i, "hold", 0.5, "calibrated")._asdict(), "recipe": "d2"} for i in range(4)]
    store.add(t.decision, scored)
    given = {"schema": SCHEMA, "student": "s", "route": "r2", "annotations": "a", "decisions": "d2"}
    run(store, ctx, **given)
    found = {m.name: m.value for m in store.read(t.measure.select().where(t.measure.c.value.is_not(None)))}
    assert found["annotator.ece"] == pytest.approx(0.4)
    assert found["annotator.calibrated_ece"] == pytest.approx(0.0)
