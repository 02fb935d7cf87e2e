"""Which answers of a language model stand: what the run's filter would accept, read by the run's people."""

import pytest

from llmal.annotate.llm import Llm
from llmal.filter.agreement import Agreement
from llmal.filter.auto import Auto
from llmal.filter.calibrated import Calibrated
from llmal.filter.confidence import Confidence
from llmal.filter.stage import Checked, Evidence
from llmal.records import Annotation, Label, LabelSchema
from llmal.serve.judge import Judge
from llmal.serve.promise import Terms, terms_of

SCHEMA = LabelSchema("single", (Label(name="a"), Label(name="b")), False)
PLAIN = Terms(None, 0.9, None, "")


def said(confidence, kind="logprobs", status="ok", item=0):
    return Annotation(item, status, ("a",) if status == "ok" else (), None, confidence, kind)


def people(right, n=60, confidence=0.95):
    """So many answers of the run, of which a share was right."""
    checked = tuple(Checked(said(confidence, item=i), i < right * n, True) for i in range(n))
    return Evidence(people=checked)


@pytest.mark.parametrize(("confidence", "stands"), [(0.8, True), (0.799, False), (None, False)])
def test_a_filter_of_single_answers_decides_as_in_the_run(confidence, stands):
    assert Judge(PLAIN, Confidence(at_least=0.8), SCHEMA).verdict(said(confidence)).stands is stands


def test_an_answer_without_a_label_never_stands_and_says_why():
    for status in ("suspect", "failed", "refused", "off_list"):
        verdict = Judge(PLAIN, Confidence(at_least=0), SCHEMA).verdict(said(0.99, status=status))
        assert not verdict.stands
        assert verdict.reason


def test_a_models_word_for_its_own_sureness_never_stands_alone():
    assert not Judge(PLAIN, Confidence(at_least=0.5), SCHEMA).verdict(said(1.0, "stated")).stands


@pytest.mark.parametrize(("right", "stands"), [(0.95, True), (0.5, False)])
def test_a_calibrating_filter_reads_the_confidence_as_the_runs_people_found_it(right, stands):
    judge = Judge(PLAIN, Calibrated(at_least=0.8, method="histogram"), SCHEMA, people(right))
    verdict = judge.verdict(said(0.95))
    assert verdict.stands is stands
    assert verdict.confidence == pytest.approx(right, abs=0.1)


def test_an_item_of_the_run_with_the_same_number_is_another_item():
    """Its own answer would be left out of what judges it."""
    judge = Judge(PLAIN, Calibrated(at_least=0.8, method="histogram"), SCHEMA, people(0.9))
    assert judge.verdict(said(0.95, item=0)) == judge.verdict(said(0.95, item=10**6))


@pytest.mark.parametrize(("judge", "least"), [(Auto(at_least=0.6), 0.6), (Agreement(), 0.8)])
def test_a_filter_that_compares_answers_lends_its_threshold(judge, least):
    at = Judge(PLAIN, judge, SCHEMA)
    assert at.verdict(said(least)).stands
    assert not at.verdict(said(least - 0.001)).stands


def certificate(llm):
    bars = [
        {"tier": "student", "label": None, "threshold": 0.7},
        {"tier": "llm", "label": None, "threshold": llm},
    ]
    about = {"by": "cascade", "target": 0.9, "delta": 0.1, "on": "accepted", "bars": bars, "words": "."}
    labels = [{"name": "a"}, {"name": "b"}]
    return terms_of({"certificate": about, "labels": labels, "threshold": 0.7}, where="")


def test_a_certified_bar_rules_in_place_of_the_filter():
    strict = Confidence(at_least=0.99)
    judge = Judge(certificate(0.9), strict, SCHEMA)
    assert (judge.verdict(said(0.9)).stands, judge.verdict(said(0.9)).promised) == (True, True)
    assert not judge.verdict(said(0.899)).stands
    assert not judge.verdict(said(None)).stands
    calibrated = Judge(certificate(0.9), Calibrated(method="histogram"), SCHEMA, people(0.5))
    assert calibrated.verdict(said(0.95)).stands, "the bar was tested on the confidence as the model gave it"
    assert not calibrated.verdict(said(0.85)).stands


def test_a_promise_about_machines_together_does_not_cover_one_of_them_alone():
    """Where it is about everything it does: the model's part is then people's, who are right."""
    both = certificate(0.9)
    assert "--llm" in both.without(None, 1).partial
    assert not both.without(Llm(model="m"), 1).partial
    assert "several texts" in both.without(Llm(model="m"), 4).partial
    everything = both._replace(promise=both.promise._replace(on="everything"))
    assert not everything.without(None, 1).partial
    assert not certificate(None).without(None, 1).partial
