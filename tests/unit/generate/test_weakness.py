"""What a generator is told of a student: the report, the loss, hard negatives, and when the loop ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, precision_recall_fscore_support

from llmal.generate.weakness import loss, lowest, report, stalled, told_apart
from llmal.records import Label, LabelSchema

NAMES = ["a", "b", "c", "d"]
SINGLE = LabelSchema("single", tuple(Label(name=name) for name in NAMES), True)
MULTI = SINGLE._replace(kind="multi")


def drawn(seed, n, kind):
    rng = np.random.default_rng(seed)
    if kind == "single":
        return [(NAMES[c],) for c in rng.integers(0, 3, n)]  # one class never occurs
    return [
        tuple(name for name, yes in zip(NAMES, rng.random(4) < 0.4, strict=True) if yes) for _ in range(n)
    ]


def table(labels):
    return np.array([[name in some for name in NAMES] for some in labels], int)


@pytest.mark.parametrize("schema", [SINGLE, MULTI], ids=["single", "multi"])
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_report_has_the_numbers_of_scikit_learn(schema, seed, n):
    truth, said = drawn(seed, n, schema.kind), drawn(seed + 1, n, schema.kind)
    theirs = precision_recall_fscore_support(table(truth), table(said), average=None, zero_division=0)
    ours = np.array([[r.precision, r.recall, r.f1, r.support] for r in report(truth, said, schema)]).T
    np.testing.assert_allclose(ours, np.array(theirs), atol=1e-12)
    assert [r.name for r in report(truth, said, schema)] == NAMES


def test_the_loss_is_scikit_learns_log_loss_and_finite_where_a_student_is_certain_and_wrong():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 50)
    truth = drawn(1, 50, "single")
    columns = [NAMES.index(some[0]) for some in truth]
    assert loss(truth, probs, SINGLE) == pytest.approx(log_loss(columns, probs, labels=range(4)))
    several = drawn(2, 50, "multi")
    each = [log_loss(table(several)[:, c], probs[:, c], labels=[0, 1]) for c in range(4)]
    assert loss(several, probs, MULTI) == pytest.approx(np.mean(each))
    assert 10 < loss([("a",)], np.array([[0.0, 1.0, 0, 0]]), SINGLE) < 20


def test_hard_negatives_come_surest_first_and_ties_in_order_of_rows():
    probs = np.array(
        [[0.9, 0.1, 0, 0], [0.6, 0.4, 0, 0], [0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0], [0.99, 0.01, 0, 0]],
        np.float32,
    )
    told = told_apart([("b",), ("b",), ("b",), ("b",), ("a",)], probs, SINGLE)
    assert told.wrong == [0, 2, 1]
    assert told.right == [3, 4]
    assert told.said == [("a",), ("a",), ("a",), ("b",), ("a",)]


def test_independent_labels_are_right_only_as_a_whole():
    probs = np.array([[0.9, 0.9, 0.1, 0.1], [0.9, 0.4, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]], np.float32)
    told = told_apart([("a", "b"), ("a", "b"), ()], probs, MULTI)
    assert (told.right, told.wrong) == ([0, 2], [1])


@pytest.mark.parametrize(
    ("losses", "best", "stops"),
    [
        ([1.0], 0, False),
        ([1.0, 0.9, 0.8], 2, False),
        ([1.0, 1.0, 1.0], 0, True),  # an equal loss is no improvement
        ([1.0, 0.5, 0.6], 1, False),
        ([1.0, 0.5, 0.6, 0.7], 1, True),
        ([1.0, 0.5, 0.6, 0.4, 0.5], 3, False),
    ],
)
def test_the_loop_ends_when_patience_is_out_and_the_first_of_the_lowest_is_the_best(losses, best, stops):
    assert lowest(losses) == best
    assert stalled(losses, 2) is stops
