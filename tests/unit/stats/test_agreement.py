"""Agreement: hand-worked tables, invariances, scikit-learn."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from llmal.stats import agreement
from llmal.stats.agreement import (
    accuracy,
    cohen_kappa,
    confusion,
    macro_f1,
    multilabel_macro_f1,
    multilabel_micro_f1,
    precision_recall_f1,
    subset_accuracy,
)

# Gold 0 five times, 1 three times, 2 twice; class 3 is in neither.
GOLD = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 1])
COUNTS = [[3, 2, 0, 0], [1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]

SINGLE = {
    "accuracy": lambda g, p: accuracy(g, p),
    "macro_f1": lambda g, p: macro_f1(g, p, 4),
    "cohen_kappa": lambda g, p: cohen_kappa(g, p, 4),
}
MULTI = {
    "subset_accuracy": subset_accuracy,
    "multilabel_macro_f1": multilabel_macro_f1,
    "multilabel_micro_f1": multilabel_micro_f1,
}

few = settings(max_examples=30, deadline=None, database=None)
class_pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25)
label_rows = st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=15)


def split_classes(pairs):
    table = np.array(pairs)
    return table[:, 0], table[:, 1]


def split_labels(rows):
    table = np.array(rows)
    return table[:, :3], table[:, 3:]


def test_docstring_examples_hold():
    result = doctest.testmod(agreement)
    assert result.attempted >= 8
    assert result.failed == 0


# --- one class per item


def test_confusion_by_hand():
    counts = confusion(GOLD, PREDICTED, 4)
    assert counts.tolist() == COUNTS
    assert counts.dtype == np.int64


def test_confusion_of_narrow_integers_does_not_overflow():
    # 20 * 21 + 20 = 440 is beyond int8.
    classes = np.array([20], dtype=np.int8)
    assert confusion(classes, classes, 21)[20, 20] == 1


def test_scores_by_hand():
    scores = precision_recall_f1(COUNTS)
    np.testing.assert_allclose(scores.precision, [3 / 5, 2 / 5, np.nan, np.nan])
    np.testing.assert_allclose(scores.recall, [3 / 5, 2 / 3, 0, np.nan])
    np.testing.assert_allclose(scores.f1, [3 / 5, 1 / 2, 0, np.nan])


def test_single_numbers_by_hand():
    assert accuracy(GOLD, PREDICTED) == 0.5
    # Class 3 is absent from both and not in the mean; class 2 is gold, never predicted, and counts as 0.
    assert macro_f1(GOLD, PREDICTED, 4) == pytest.approx((0.6 + 0.5 + 0) / 3)
    # Chance: (5 * 5 + 3 * 5 + 2 * 0) / 100 = 0.4.
    assert cohen_kappa(GOLD, PREDICTED, 4) == pytest.approx((0.5 - 0.4) / (1 - 0.4))


def test_kappa_of_constants():
    assert cohen_kappa([1, 1, 1], [1, 1, 1], 3) == 1.0
    assert cohen_kappa([1, 1, 1], [2, 2, 2], 3) == 0.0
    assert cohen_kappa([0, 0, 1], [1, 1, 0], 2) == pytest.approx(-0.8)


@few
@given(class_pairs)
def test_single_numbers_match_scikit_learn(pairs):
    gold, predicted = split_classes(pairs)
    assert accuracy(gold, predicted) == pytest.approx(metrics.accuracy_score(gold, predicted))
    assert macro_f1(gold, predicted, 4) == pytest.approx(metrics.f1_score(gold, predicted, average="macro"))
    assert (confusion(gold, predicted, 4) == metrics.confusion_matrix(gold, predicted, labels=range(4))).all()
    theirs = metrics.precision_recall_fscore_support(gold, predicted, labels=range(4), zero_division=np.nan)
    ours = precision_recall_f1(confusion(gold, predicted, 4))
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(mine, other)
    if len(set(gold) | set(predicted)) > 1:
        assert cohen_kappa(gold, predicted, 4) == pytest.approx(metrics.cohen_kappa_score(gold, predicted))


@pytest.mark.parametrize("name", SINGLE)
@few
@given(pairs=class_pairs, seed=st.integers(0, 99))
def test_single_numbers_ignore_row_order_repetition_and_class_names(name, pairs, seed):
    gold, predicted = split_classes(pairs)
    value = SINGLE[name](gold, predicted)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(gold)), rng.permutation(4)
    assert SINGLE[name](gold[order], predicted[order]) == pytest.approx(value)
    assert SINGLE[name](np.tile(gold, 3), np.tile(predicted, 3)) == pytest.approx(value)
    assert SINGLE[name](names[gold], names[predicted]) == pytest.approx(value)
    assert (value == 1) == (gold == predicted).all()


@few
@given(class_pairs)
def test_kappa_is_symmetric_and_swapping_sides_swaps_precision_and_recall(pairs):
    gold, predicted = split_classes(pairs)
    assert cohen_kappa(gold, predicted, 4) == pytest.approx(cohen_kappa(predicted, gold, 4))
    one = precision_recall_f1(confusion(gold, predicted, 4))
    other = precision_recall_f1(confusion(predicted, gold, 4))
    np.testing.assert_array_equal(one.precision, other.recall)
    np.testing.assert_array_equal(one.f1, other.f1)


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([], [], "n = 0"),
        ([0, 1], [0], "alike"),
        ([[0], [1]], [[0], [1]], "alike"),
        ([0, 1], [0, -1], r"predicted must lie in 0\.\.3"),
        ([0, 4], [0, 1], r"gold must lie in 0\.\.3"),
        ([0.0, 1.0], [0, 1], "gold must hold integer"),
        (["a", "b"], [0, 1], "gold must hold integer"),
    ],
)
@pytest.mark.parametrize("measure", [confusion, macro_f1, cohen_kappa])
def test_single_numbers_refuse(measure, gold, predicted, message):
    with pytest.raises(ValueError, match=message):
        measure(gold, predicted, 4)


def test_accuracy_refuses_and_needs_no_class_count():
    assert accuracy([7, -3], [7, 2]) == 0.5
    with pytest.raises(ValueError, match="alike"):
        accuracy([0, 1], [0])
    with pytest.raises(ValueError, match="n = 0"):
        accuracy(np.empty(0, dtype=int), np.empty(0, dtype=int))


def test_odd_tables_are_refused():
    with pytest.raises(ValueError, match="n_classes"):
        confusion([0], [0], 0)
    for table in ([[1, 2]], [1, 2], np.empty((0, 0))):
        with pytest.raises(ValueError, match="square"):
            precision_recall_f1(table)
    with pytest.raises(ValueError, match="negative"):
        precision_recall_f1([[1, -1], [0, 1]])


# --- several labels per item

TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
ANSWER = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)


def test_multilabel_by_hand():
    assert subset_accuracy(TRUTH, ANSWER) == 0.5
    # Label 0: 2 hits, 2 gold, 3 answers; label 1: 1 hit, 2 gold, 1 answer; label 2 occurs nowhere.
    assert multilabel_macro_f1(TRUTH, ANSWER) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert multilabel_micro_f1(TRUTH, ANSWER) == pytest.approx(6 / 8)


def test_multilabel_without_any_label():
    nothing = np.zeros((3, 2), dtype=bool)
    assert subset_accuracy(nothing, nothing) == 1.0
    assert math.isnan(multilabel_macro_f1(nothing, nothing))
    assert math.isnan(multilabel_micro_f1(nothing, nothing))


@few
@given(label_rows)
def test_multilabel_matches_scikit_learn(rows):
    truth, answer = split_labels(rows)
    assert subset_accuracy(truth, answer) == pytest.approx(metrics.accuracy_score(truth, answer))
    present = (truth | answer).any(axis=0)
    if not present.any():
        return
    labels = np.flatnonzero(present)
    for ours, average in ((multilabel_macro_f1, "macro"), (multilabel_micro_f1, "micro")):
        theirs = metrics.f1_score(truth, answer, labels=labels, average=average, zero_division=0)
        assert ours(truth, answer) == pytest.approx(theirs)


@pytest.mark.parametrize("name", MULTI)
@few
@given(rows=label_rows, seed=st.integers(0, 99))
def test_multilabel_ignores_row_order_repetition_and_label_order(name, rows, seed):
    truth, answer = split_labels(rows)
    value = pytest.approx(MULTI[name](truth, answer), nan_ok=True)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(truth)), rng.permutation(3)
    assert MULTI[name](truth[order], answer[order]) == value
    assert MULTI[name](np.tile(truth, (3, 1)), np.tile(answer, (3, 1))) == value
    assert MULTI[name](truth[:, names], answer[:, names]) == value


@pytest.mark.parametrize("name", MULTI)
@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        (np.empty((0, 3), dtype=bool), np.empty((0, 3), dtype=bool), "at least one item"),
        (np.empty((3, 0), dtype=bool), np.empty((3, 0), dtype=bool), "at least one item"),
        (TRUTH, ANSWER[:3], "alike"),
        (TRUTH[:, 0], ANSWER[:, 0], "alike"),
        (TRUTH.astype(float), ANSWER, "must be bool"),
        (TRUTH, ANSWER.astype(int), "must be bool"),
    ],
)
def test_multilabel_refuses(name, gold, predicted, message):
    with pytest.raises(ValueError, match=message):
        MULTI[name](gold, predicted)
