"""Certified routing: what is promised holds over a whole run's refits, and what cannot be is not promised."""

import numpy as np
import pytest

from llmal.errors import SpecError
from llmal.records import Annotation, Label, LabelSchema
from llmal.route.certified import Certified
from llmal.route.certifying import grid_of
from llmal.route.learn_then_test import LearnThenTest
from llmal.route.risk_control import RiskControl
from llmal.route.sgr import Sgr
from llmal.route.stage import Audited, Case, Evidence

TWO = LabelSchema("single", (Label(name="yes"), Label(name="no")), False)
MANY = LabelSchema("multi", TWO.labels, False)
TARGET, DELTA, SEEDS = 0.95, 0.1, 400
ALLOWED = DELTA + 2 * (DELTA * (1 - DELTA) / SEEDS) ** 0.5
ROUTERS = (Certified(), Certified(test="betting"), Sgr(), LearnThenTest(), RiskControl())


def evidence(sure, right, *, said=None, **more):
    said = ["yes"] * len(sure) if said is None else said
    other = {"yes": "no", "no": "yes"}
    rows = zip(sure.tolist(), right.tolist(), said, strict=True)
    audited = tuple(
        Audited(Case(i, (label,), score, None), (label if ok else other[label],))
        for i, (score, ok, label) in enumerate(rows)
    )
    return Evidence(TWO, audited, len(audited), **more)


def accuracy(scores, chance, promise):
    """Of what is accepted; 1 where nothing is."""
    bar = promise.threshold("student", ("yes",))
    return 1.0 if bar is None or not (scores >= bar).any() else float(chance[scores >= bar].mean())


def broken_runs(*, spend, refits=5, n=100):
    """Share of runs in which a student that is just below the target was certified at any of its refits."""
    rng, broken = np.random.default_rng(1), 0
    corpus = rng.uniform(0.5, 1, 300)
    for _ in range(SEEDS):
        held = False
        for k in range(refits):
            sure, right = rng.uniform(0.5, 1, n), rng.random(n) < TARGET - 0.002
            given = evidence(sure, right, issue=k + 1 if spend else 1, scores=corpus)
            held |= Certified(target=TARGET, delta=DELTA).promise(given).holds
        broken += held
    return broken / SEEDS


def test_all_promises_of_a_run_hold_together_however_often_the_student_is_refitted():
    assert broken_runs(spend=True) <= ALLOWED


def test_the_check_above_would_see_a_run_that_does_not_spend_its_delta():
    assert broken_runs(spend=False) > ALLOWED


def test_answering_as_many_more_as_the_words_ask_for_and_testing_again_breaks_no_more_promises():
    rng, broken, runs = np.random.default_rng(6), 0, 100
    for _ in range(runs):
        given = evidence(rng.uniform(0.5, 1, 1500), rng.random(1500) < TARGET - 0.002)
        n, issue = 60, 1
        for _ in range(5):
            promise = Certified().promise(given._replace(audited=given.audited[:n], issue=issue))
            broken += promise.holds
            if promise.holds or promise.more is None or n + promise.more > 1500:
                break
            n, issue = n + promise.more, issue + bool(promise.issue)
    assert broken / runs <= DELTA + 2 * (DELTA * (1 - DELTA) / runs) ** 0.5


def informative(rng, n):
    """Confidence that is the chance of being right."""
    sure = rng.beta(6, 1, n) / 2 + 0.5
    return sure, sure


@pytest.mark.parametrize("in_sample", [False, True])
def test_a_promise_holds_for_texts_not_learnt_from_and_would_not_from_those_that_were(in_sample):
    rng, broken = np.random.default_rng(2), 0
    for _ in range(SEEDS):
        sure, chance = informative(rng, 200)
        right = rng.random(200) < chance
        if in_sample:  # a student remembers: right and sure where it learnt
            right, sure = np.ones(200, bool), np.maximum(sure, 0.9)
        promise = Certified(target=TARGET, delta=DELTA).promise(evidence(sure, right))
        new, truth = informative(rng, 2000)
        broken += accuracy(new, truth, promise) < TARGET
    assert (broken / SEEDS <= ALLOWED) is not in_sample


@pytest.mark.parametrize("picks", ["unsure", "sure"])
def test_what_is_left_keeps_the_promise_where_the_unsure_were_picked_and_at_worst_as_stated(
    picks,
):
    rng, broken, beyond = np.random.default_rng(3), 0, 0
    for _ in range(SEEDS):
        sure, chance = informative(rng, 3000)
        right = rng.random(3000) < chance
        audit, rest = np.split(rng.permutation(3000), [300])
        given = evidence(sure[audit], right[audit])
        promise = Certified(target=TARGET, delta=DELTA).promise(given)
        wish = sure + rng.normal(0, 0.02, 3000) if picks == "unsure" else -sure - right  # the worst there is
        _, left = np.split(rest[np.argsort(wish[rest])], [1000])
        bar = promise.threshold("student", ("yes",))
        took = left[sure[left] >= bar] if bar is not None else []
        if len(took):
            errors = 1 - right[took].mean()
            broken += errors > 1 - TARGET
            at_worst = Certified(target=TARGET)._at_worst(given._replace(scores=sure[left], taken=1000), bar)
            beyond += 1 - errors < at_worst
    assert beyond / SEEDS <= ALLOWED
    assert (broken / SEEDS <= ALLOWED) == (picks == "unsure")


@pytest.mark.parametrize("router", ROUTERS, ids=lambda r: f"{r.name} {getattr(r, 'test', '')}")
def test_too_few_answers_are_not_tested_and_spend_nothing(router):
    fewest = router.fewest(DELTA / 2)
    for n in (0, fewest - 1):
        promise = router.promise(evidence(np.full(n, 0.9), np.ones(n, bool)))
        assert (promise.issue, promise.spent, promise.holds, promise.more) == (0, 0, False, fewest - n)
        assert "nothing of delta is spent" in promise.words
        assert f"{n} audit items" in promise.words
    enough = router.promise(evidence(np.full(fewest, 0.9), np.ones(fewest, bool)))
    assert enough.issue == 1
    assert enough.holds, "all are right, and the count is said to suffice"


def test_words_say_what_is_missing_and_how_to_get_it():
    right = np.arange(100) % 25 > 0
    promise = Certified().promise(evidence(np.full(100, 0.9), right))
    assert not promise.holds
    assert promise.more > 100
    assert f"about {promise.more} more answers" in promise.words
    assert f"Set audit.size to about {100 + promise.more}" in promise.words
    waiting = evidence(np.full(100, 0.9), right)._replace(reserved=5000)
    assert "Answer the audit items that wait (4900)" in Certified().promise(waiting).words
    hopeless = Certified().promise(evidence(np.full(200, 0.9), np.arange(200) % 2 == 0))
    assert hopeless.more is None
    assert "unlikely at any confidence" in hopeless.words


def test_what_is_missing_is_reckoned_for_the_next_test_which_is_stricter():
    given = evidence(np.full(100, 0.9), np.arange(100) % 25 > 0)
    assert Certified().promise(given._replace(issue=2)).more > Certified().promise(given).more


def test_a_withdrawn_promise_tests_nothing():
    promise = Certified().promise(Evidence(TWO, withdrawn="texts changed"))
    assert not promise.holds
    assert promise.issue == 0
    assert "withdrawn: texts changed" in promise.words


def test_each_class_has_its_own_bar_and_all_promises_hold_together():
    rng, broken, kept = np.random.default_rng(4), 0, 0
    for _ in range(SEEDS):
        said = np.where(rng.random(400) < 0.3, "no", "yes")
        right = rng.random(400) < np.where(said == "no", TARGET - 0.002, 0.99)
        promise = Certified(per_class=True).promise(
            evidence(rng.uniform(0.5, 1, 400), right, said=said.tolist())
        )
        broken += promise.threshold("student", ("no",)) is not None
        kept += promise.threshold("student", ("yes",)) is not None
        assert [bar.label for bar in promise.bars] == ["yes", "no"]
        assert ("For each of" in promise.words) == promise.holds
    assert broken / SEEDS <= ALLOWED
    assert kept / SEEDS > 0.4


def test_bars_of_single_classes_need_one_label_a_text():
    Certified().refuse_other_kinds(MANY)
    with pytest.raises(SpecError, match="per_class is for labels.kind: single"):
        Certified(per_class=True).refuse_other_kinds(MANY)


def test_equal_confidences_are_accepted_together_and_compared_as_they_are_stored():
    third = float(np.float32(1 / 3) + np.float32(0.5))
    scores = np.array([third] * 150 + [0.6] * 50)
    right = np.array([True] * 150 + [True, False] * 25)
    promise = Certified().promise(evidence(scores, right, scores=np.repeat(scores, 2)))
    assert promise.n == 150
    at = Certified().route([Case(0, ("yes",), third, None), Case(1, ("yes",), 0.6, None)], promise)
    assert [r.who for r in at] == ["student", "person"]


def test_the_grid_is_made_of_confidences_of_the_corpus_and_nothing_for_too_few():
    scores = np.random.default_rng(0).random(1000)
    grid = grid_of(scores)
    assert set(grid) <= {*scores, 0.0}
    assert len(grid) == 64
    assert grid_of(scores[:63]) is None


def test_only_an_item_that_was_learnt_from_keeps_its_annotation():
    said = Annotation(0, "ok", ("no",), confidence=0.8)
    promise = Certified().promise(evidence(np.full(100, 0.9), np.ones(100, bool)))
    taught = Case(0, ("yes",), 0.99, said, learnt=True)
    for known in (promise, None):
        route = Certified().route([taught], known)[0]
        assert (route.who, route.labels) == ("llm", ("no",))
    out_of_sample = Certified().route([taught._replace(learnt=False)], promise)[0]
    assert (out_of_sample.who, out_of_sample.labels) == ("student", ("yes",))


def test_items_outside_the_promise_are_counted_in_its_words():
    promise = Certified().promise(evidence(np.full(100, 0.9), np.ones(100, bool), outside=37))
    assert promise.outside == 37
    assert "37 items the student learnt from are outside the promise" in promise.words


def test_what_picking_may_cost_is_said_where_it_matters():
    given = evidence(np.full(100, 0.9), np.ones(100, bool), scores=np.full(500, 0.9), taken=100)
    promise = Certified().promise(given)
    assert promise.at_worst == pytest.approx(0.94)
    assert "If the 100 texts picked from the corpus were its easiest, it is 94.0%" in promise.words
    assert "easiest" not in Certified().promise(given._replace(taken=5)).words
