"""Routing: the answer is that of whoever gives it; more confidence never sends an item to a person."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Annotation, Decision, Label, LabelSchema, unasked
from llmal.route.stage import Case, route_recipe, run
from llmal.route.threshold import Threshold
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
share = st.floats(0, 1)
accepted = st.none() | st.builds(
    Annotation,
    item=st.just(0),
    status=st.just("ok"),
    labels=st.just(("billing",)),
    confidence=st.none() | share,
)
cases = st.builds(
    Case, item=st.integers(0, 9), labels=st.just(("bug",)), confidence=share, annotation=accepted
)


@given(st.lists(cases, max_size=8), share)
@settings(max_examples=100, deadline=None, database=None)
def test_one_route_an_item_with_a_reason_and_the_answer_of_whoever_gives_it(given_, at_least):
    made = Threshold(at_least=at_least).route(given_)
    assert [r.item for r in made] == [c.item for c in given_]
    for case, r in zip(given_, made, strict=True):
        assert r.reason
        assert r.who == "llm" if case.annotation else r.who in ("student", "person")
        assert r.labels == (case.annotation.labels if case.annotation else case.labels)


@given(share, share, share, accepted)
@settings(max_examples=100, deadline=None, database=None)
def test_raising_the_students_confidence_never_moves_an_item_to_a_person(one, other, at_least, annotation):
    low, high = (
        Threshold(at_least=at_least).route([Case(0, ("bug",), c, annotation)])[0].who
        for c in sorted((one, other))
    )
    assert not (low != "person" and high == "person")


@pytest.fixture
def store(tmp_path):
    """Four items, 0 and 1 reserved; the student is sure of 0 and 2, an annotation of 3 is accepted."""
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(4)), encoding="utf-8")
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in (0, 1)])
    opened.put_block("s", 0, np.array([[0.95, 0.05], [0.6, 0.4], [0.01, 0.99], [0.5, 0.5]], np.float32))
    opened.add(
        t.annotation,
        annotation_rows(
            "a",
            [
                Annotation(3, "ok", ("billing",), confidence=0.9),
                Annotation(1, "ok", ("bug",), confidence=0.1),
            ],
        ),
    )
    decided = [Decision(3, "accept", 0.9, "sure"), Decision(1, "hold", 0.1, "unsure")]
    opened.add(t.decision, [{**d._asdict(), "recipe": "d"} for d in decided])
    yield opened
    opened.close()


def route(store, tmp_path):
    tally = run(
        Threshold(),
        store,
        Context(tmp_path, home=tmp_path),
        schema=SCHEMA,
        predictions="s",
        annotations="a",
        decisions="d",
    )
    return tally, route_recipe(Threshold(), "s", "d", store.answers(SCHEMA.names))


def test_every_item_is_routed_once(store, tmp_path):
    tally, name = route(store, tmp_path)
    assert tally[:2] == (4, 4)
    assert tally.note == "2 student, 1 llm, 1 person"
    assert {s: r.who for s, r in store.routes(name).items()} == {
        0: "student",
        1: "person",
        2: "student",
        3: "llm",
    }
    assert route(store, tmp_path)[0][:2] == (4, 0)


def test_a_persons_answer_stands_and_what_a_machine_would_have_said_of_audit_items_is_kept_beside(
    store, tmp_path
):
    for item in (0, 1, 2):
        answer(store, item, "billing")
    tally, name = route(store, tmp_path)
    assert tally[:2] == (4, 4)
    routes = store.routes(name)
    assert {s: r.who for s, r in routes.items()} == {0: "person", 1: "person", 2: "person", 3: "llm"}
    assert {routes[s].labels for s in (0, 1, 2)} == {("billing",)}
    assert {s: (r.who, r.labels) for s, r in store.routes(unasked(name)).items()} == {
        0: ("student", ("bug",)),
        1: ("person", ("bug",)),
    }
    newest = store.read(t.route.select().with_only_columns(t.route.c.recipe).order_by(t.route.c.recipe))
    assert {r for (r,) in newest} == {name, unasked(name)}
