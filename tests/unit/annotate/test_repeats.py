"""One item asked several times: orders rotate, probabilities average, votes count, silence is a status."""

import numpy as np
import pytest

from llmal.annotate.repeats import agreed
from llmal.annotate.views import narrowed, rotated, widened
from llmal.records import Annotation, Label, LabelSchema

SINGLE = LabelSchema("single", tuple(Label(name=n) for n in "abcd"), True)
MULTI = LabelSchema("multi", SINGLE.labels, True)


def said(labels, probs=None, status="ok", request="r"):
    return Annotation(7, status, tuple(labels), probs, None, "none", "why", request)


@pytest.mark.parametrize("by", range(6))
def test_an_answer_comes_back_in_the_order_of_the_schema(by):
    turned = rotated(SINGLE, by)
    assert sorted(turned.names) == sorted(SINGLE.names)
    assert turned.names[0] == "abcd"[by % 4]
    probs = tuple({"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}[name] for name in turned.names)
    assert widened(said("a", probs), turned, SINGLE).probs == (0.4, 0.3, 0.2, 0.1)
    assert widened(said("a"), turned, SINGLE).probs is None


def test_a_class_that_was_not_shown_has_no_probability():
    view = narrowed(SINGLE, {"d", "b"})
    assert view.names == ["b", "d"]
    assert widened(said("b", (0.7, 0.3)), view, SINGLE).probs == (0.0, 0.7, 0.0, 0.3)


def test_what_the_first_place_adds_averages_out():
    truth = np.array([0.1, 0.5, 0.3, 0.1])
    parts = []
    for by in range(4):
        biased = np.roll(truth, -by) * np.array([4.0, 1, 1, 1])
        biased /= biased.sum()
        label = rotated(SINGLE, by).names[int(biased.argmax())]
        parts.append(widened(said([label], tuple(biased)), rotated(SINGLE, by), SINGLE))
    assert len({p.labels for p in parts}) > 1, "each order on its own is biased"
    found = agreed(parts, SINGLE)
    assert (found.labels, found.kind, found.status) == (("b",), "logprobs", "ok")
    assert found.confidence == pytest.approx(found.probs[1])


def test_votes_are_shares_drawn_towards_even_and_silence_counts_against():
    parts = [said("a"), said("a"), said("b"), said("", status="abstained")]
    found = agreed(parts, SINGLE)
    assert found.labels == ("a",)
    assert found.probs == pytest.approx((3 / 8, 2 / 8, 1 / 8, 1 / 8))
    assert found.kind == "samples"
    assert "3 of 4 answers carry a label, 2 of them this" in found.detail


def test_independent_labels_are_shares_of_yes():
    parts = [said("ab"), said("a"), said("a"), said("")]
    found = agreed(parts, MULTI)
    assert found.labels == ("a",)
    assert found.probs == pytest.approx((4 / 6, 2 / 6, 1 / 6, 1 / 6))
    assert found.confidence == pytest.approx(4 / 6)


def test_mostly_silent_is_a_status_with_its_count():
    parts = [said("", status="refused"), said("", status="abstained"), said("", status="refused"), said("a")]
    found = agreed(parts, SINGLE)
    assert (found.status, found.labels, found.probs) == ("refused", (), None)
    assert found.detail.startswith("2 of 4 answers; ")


def test_the_order_of_arrival_changes_nothing():
    rng = np.random.default_rng(0)
    parts = [said(["abcd"[i % 4]], tuple(rng.dirichlet(np.ones(4))), request=f"r{i}") for i in range(6)]
    parts += [said("", status="abstained", request="r9")]
    first = agreed(parts, SINGLE)
    for _ in range(20):
        assert agreed([parts[i] for i in rng.permutation(len(parts))], SINGLE) == first


def test_probabilities_and_bare_votes_are_never_mixed():
    found = agreed([said("a", (0.9, 0.1, 0, 0)), said("b")], SINGLE)
    assert found.kind == "samples"
