"""The filter: no label, no training; more confidence never hurts; a retried call is judged anew."""

import typing

import pytest
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st

from llmal.annotate.stage import forget_failures
from llmal.context import Context
from llmal.filter.confidence import Confidence
from llmal.filter.stage import run
from llmal.records import Annotation, Label, LabelSchema, Status
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
share = st.floats(0, 1)
annotations = st.builds(
    Annotation,
    item=st.integers(0, 99),
    status=st.sampled_from(typing.get_args(Status)),
    labels=st.just(("bug",)),
    confidence=st.none() | share,
    kind=st.sampled_from(["logprobs", "stated", "none"]),
)


@given(st.lists(annotations, max_size=8), share, st.sampled_from(["hold", "accept"]))
@configured(max_examples=100, deadline=None, database=None)
def test_one_decision_an_annotation_with_a_reason_and_none_without_a_label_is_accepted(
    given_, at_least, unknown
):
    made = Confidence(at_least=at_least, unknown=unknown).decide(given_, SCHEMA)
    assert [d.item for d in made] == [a.item for a in given_]
    for a, d in zip(given_, made, strict=True):
        assert d.reason
        assert d.verdict != "accept" or a.status == "ok"
        assert d.score == (a.confidence if a.status == "ok" else None)


@given(share, share, share)
@configured(max_examples=100, deadline=None, database=None)
def test_raising_a_confidence_never_takes_an_accept_back_and_a_lower_bar_never_adds_a_hold(
    one, other, at_least
):
    low, high = sorted((one, other))
    verdict = {
        c: Confidence(at_least=at_least)
        .decide([Annotation(0, "ok", ("bug",), confidence=c)], SCHEMA)[0]
        .verdict
        for c in (low, high)
    }
    assert not (verdict[low] == "accept" and verdict[high] != "accept")
    easier = (
        Confidence(at_least=low)
        .decide([Annotation(0, "ok", ("bug",), confidence=at_least)], SCHEMA)[0]
        .verdict
    )
    harder = (
        Confidence(at_least=high)
        .decide([Annotation(0, "ok", ("bug",), confidence=at_least)], SCHEMA)[0]
        .verdict
    )
    assert not (harder == "accept" and easier != "accept")


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def decide(store, judge, tmp_path):
    return run(judge, store, Context(tmp_path, home=tmp_path), schema=SCHEMA, annotations="a")


def test_decisions_are_made_once_and_a_moved_bar_decides_anew_without_asking_again(store, tmp_path):
    store.add(
        t.annotation,
        annotation_rows("a", [Annotation(0, "ok", ("bug",), confidence=0.7), Annotation(1, "abstained")]),
    )
    judge, easier = Confidence(), Confidence(at_least=0.6)
    assert decide(store, judge, tmp_path)[:2] == (2, 2)
    assert decide(store, judge, tmp_path)[:2] == (2, 0)
    assert decide(store, easier, tmp_path).note == "1 accepted, 1 held, 0 dropped"
    assert [store.decisions(j.recipe_for("a"))[0].verdict for j in (judge, easier)] == ["hold", "accept"]


def test_the_answer_of_a_retried_call_is_judged(store, tmp_path):
    judge = Confidence()
    store.add(
        t.annotation,
        annotation_rows(
            "a", [Annotation(0, "failed", detail="timeout"), Annotation(1, "ok", ("bug",), confidence=0.9)]
        ),
    )
    decide(store, judge, tmp_path)
    assert forget_failures(store, "a") == 1
    store.add(t.annotation, annotation_rows("a", [Annotation(0, "ok", ("bug",), confidence=0.9)]))
    assert decide(store, judge, tmp_path)[:2] == (2, 1)
    assert store.decisions(judge.recipe_for("a"))[0].verdict == "accept"
