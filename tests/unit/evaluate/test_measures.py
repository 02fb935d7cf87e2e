"""The table of measures against cases worked by hand."""

import math

import numpy as np
import pytest

from llmal.evaluate.table import measures_of
from llmal.records import Label, LabelSchema

SINGLE = LabelSchema("single", (Label(name="a"), Label(name="b"), Label(name="c")), True)
MULTI = SINGLE._replace(kind="multi")

# Answers against gold: a right twice and given once too often, b right once and missed once, c never seen.
GOLD = [("a",), ("a",), ("b",), ("b",)]
GIVEN = [("a",), ("a",), ("b",), ("a",)]


def measured(given, gold, schema=SINGLE, confidence=None):
    sure = np.full(len(given), math.nan) if confidence is None else np.asarray(confidence, float)
    return measures_of(None, given, sure, gold, schema, np.random.default_rng(0))


def test_single_label_measures_are_the_hand_worked_ones():
    found = measured(GIVEN, GOLD)
    values = {name: estimate.value for name, estimate in found.items()}
    # F1: a = 2*2/(2*2+1) = 0.8, b = 2*1/(2*1+1) = 2/3, c is in neither. Kappa: (3/4 - 1/2) / (1 - 1/2).
    assert values == pytest.approx(
        {
            "accuracy": 3 / 4,
            "macro_f1": (0.8 + 2 / 3) / 2,
            "kappa": 0.5,
            "precision[a]": 2 / 3,
            "recall[a]": 1,
            "precision[b]": 1,
            "recall[b]": 1 / 2,
            "f1[a]": 0.8,
            "f1[b]": 2 / 3,
        }
    )
    assert {name: estimate.n for name, estimate in found.items()} == {
        "accuracy": 4,
        "macro_f1": 4,
        "kappa": 4,
        "precision[a]": 3,
        "recall[a]": 2,
        "precision[b]": 1,
        "recall[b]": 2,
        "f1[a]": 4,
        "f1[b]": 4,
    }


def test_several_labels_count_as_right_only_all_together():
    given = [("a", "b"), ("a",), (), ("c",)]
    gold = [("a", "b"), ("a", "b"), (), ("b",)]
    values = {name: estimate.value for name, estimate in measured(given, gold, MULTI).items()}
    assert values["accuracy"] == 2 / 4
    # Labels given and true: 3; given: 4; true: 5.
    assert values["micro_f1"] == pytest.approx(2 * 3 / (4 + 5))
    assert values["recall[b]"] == pytest.approx(1 / 3)
    assert values["precision[c]"] == 0
    assert "recall[c]" not in values


def test_every_measure_has_its_n_and_an_interval_that_holds_it():
    rng = np.random.default_rng(1)
    gold = [(str(c),) for c in rng.choice(list("abc"), 60)]
    given = [g if rng.random() < 0.8 else ("a",) for g in gold]
    for name, e in measured(given, gold, confidence=rng.random(60)).items():
        assert e.n > 0, name
        assert e.low - 1e-9 <= e.value <= e.high + 1e-9, name
        assert e.low < e.high, name


def test_the_order_of_items_changes_no_value():
    swap = [2, 0, 3, 1]
    one, other = measured(GIVEN, GOLD), measured([GIVEN[i] for i in swap], [GOLD[i] for i in swap])
    assert {k: v.value for k, v in one.items()} == pytest.approx({k: v.value for k, v in other.items()})


def test_calibration_is_measured_only_where_every_answer_has_a_confidence():
    assert "ece" in measured(GIVEN, GOLD, confidence=[0.9] * 4)
    assert "ece" not in measured(GIVEN, GOLD, confidence=[0.9, 0.9, math.nan, 0.9])


def test_one_item_gives_shares_and_no_false_bootstrap():
    found = measured([("a",)], [("a",)])
    assert found["accuracy"].value == 1
    assert "kappa" not in found
