"""The cascade's promise: what it rests on, what it costs, and when there is none."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from llmal.records import Annotation, Label, LabelSchema
from llmal.route.cascade import LOCAL_USD, Cascade
from llmal.route.evidence import Audited
from llmal.route.model import Model
from llmal.route.promise import of_facts
from llmal.route.stage import Case, Evidence
from llmal.stats.bounds import alpha_spending

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
ROUTER = Cascade(target=0.85, delta=0.2)


def case(item, sure, llm=0.9, *, said="bug", **more):
    given = None if llm is None else Annotation(item, "ok", (said,), confidence=llm)
    return Case(item, ("bug",), sure, None, llm=given, **more)


def evidence(n=300, **changes):
    """All students say bug, and are right from 0.5 on; the model is right where the student is above 0.2."""
    rng = np.random.default_rng(0)
    audited = []
    for i, sure in enumerate(rng.random(n).round(3)):
        truth, able = "bug" if sure > 0.5 else "billing", sure > 0.2
        asked = case(i, sure, 0.9 if able else 0.3, said=truth if able else "bug")
        audited.append(Audited(asked, (truth,)))
    told = np.repeat([0.3, 0.9], [60, 240])
    given = {"scores": rng.random(2000), "model": Model(told, 0, 0.001), "outside": 7}
    return Evidence(SCHEMA, tuple(audited), n, **(given | changes))


def test_each_tier_gets_the_threshold_that_the_audit_sample_certifies():
    promise = ROUTER.promise(evidence())
    assert promise.holds
    assert (promise.issue, promise.spent, promise.outside) == (1, alpha_spending(0.2, 1), 7)
    student, llm = promise.bars
    dear = Cascade(target=0.85, delta=0.2, price={"llm": 0.05}).promise(evidence()).bars[0]
    assert 0.4 < dear.threshold < 0.7 < student.threshold, "a dearer model leaves more to the student"
    assert 0.3 < llm.threshold <= 0.9
    assert student.n + llm.n == promise.n > 200
    assert "with probability 80.0%" in promise.words
    assert of_facts(promise.facts()) == promise


def test_routes_follow_the_promise_and_say_so():
    promise = ROUTER.promise(evidence())
    bar = promise.threshold("student", ())
    made = ROUTER.route([case(0, bar), case(1, bar - 0.01), case(2, 0.1, 0.3), case(3, 0.1, None)], promise)
    assert [r.who for r in made] == ["student", "llm", "person", "person"]
    assert "as certified" in made[0].reason
    assert "the model's confidence 0.300 <" in made[2].reason
    assert "there is no answer of the model" in made[3].reason
    taught = case(5, 0.1, learnt=True)._replace(annotation=Annotation(5, "ok", ("billing",), confidence=0.4))
    for one in (promise, None):
        (route,) = ROUTER.route([taught], one)
        assert (route.who, route.labels) == ("llm", ("billing",))


def test_the_model_is_asked_where_the_student_is_not_sure_and_nothing_was_said_yet():
    promise = ROUTER.promise(evidence())
    bar = promise.threshold("student", ())
    cases = [case(0, 0.1, None), case(1, bar, None), case(2, 0.2, None), case(3, 0.3)]
    assert ROUTER.asks(cases, promise) == [2, 0]
    assert ROUTER.asks(cases, None) == []


@pytest.mark.parametrize(
    ("changes", "words", "more"),
    [
        ({"n": 5}, "more are needed even if all are right", True),
        ({"model": Model(np.zeros(0), 3, 0.0)}, "not asked about 3 of 300 audited items", False),
        ({"withdrawn": "the texts changed"}, "The promise was withdrawn: the texts changed", True),
        ({"scores": np.zeros(0)}, "Cannot certify", True),
    ],
)
def test_without_the_evidence_no_test_is_made_and_nothing_of_delta_is_spent(changes, words, more):
    promise = ROUTER.promise(evidence(**changes))
    assert (promise.holds, promise.issue, promise.spent) == (False, 0, 0.0)
    assert words in promise.words
    assert bool(promise.more) == more
    assert {r.who for r in ROUTER.route([case(0, 1.0), case(1, 0.2)], promise)} == {"person"}


def test_the_price_of_the_model_is_that_of_the_run_unless_the_file_says():
    cost = {}
    for price in ("auto", 0.08):
        words = Cascade(target=0.85, delta=0.2, price={"llm": price, "person": 0.1}).promise(evidence()).words
        cost[price] = float(words.rpartition("costs $")[2].split(",")[0])
    assert cost["auto"] < cost[0.08]
    free = evidence(model=Model(np.repeat([0.3, 0.9], [60, 240]), 0, 0.0))
    assert Cascade()._llm_usd(free) == LOCAL_USD
    with pytest.raises(ValidationError):
        Cascade(price={"person": 0})
    with pytest.raises(ValidationError):
        Cascade(price={"llm": -1})


def test_a_later_certificate_is_tested_at_a_smaller_share_of_delta():
    later = ROUTER.promise(evidence(issue=3))
    assert (later.issue, later.spent) == (3, alpha_spending(0.2, 3))
    assert json.loads(later.facts())["spent"] == later.spent
