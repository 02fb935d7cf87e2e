"""Choosing among models by the error of each on texts of one kind, and by price."""

import doctest

import numpy as np
import pytest

from llmal.stats import uniroute
from llmal.stats.uniroute import best_strength, choose, cluster_errors, relative


def test_errors_are_drawn_towards_the_overall_one_where_people_answered_few_items():
    wrong = [[1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0]]
    found = cluster_errors(wrong, [0, 0, 0, 1, 1, 1], 3)
    assert found[0] == pytest.approx([(1 + 5 / 6) / 8, (0 + 5 / 6) / 8, 1 / 6])
    assert found[1] == pytest.approx([(2 + 5 * 4 / 6) / 8, (2 + 5 * 4 / 6) / 8, 4 / 6])


def test_an_items_own_answer_has_no_say():
    wrong = np.array([[1, 0, 0, 1], [0, 1, 0, 1]], bool)
    for i in range(4):
        flipped = wrong.copy()
        flipped[:, i] ^= True
        one, other = (cluster_errors(w, [0, 0, 1, 1], 2, without=i) for w in (wrong, flipped))
        assert (one == other).all()


def test_at_weight_0_the_best_of_each_cluster_is_asked_whatever_it_costs():
    rng = np.random.default_rng(0)
    errors = rng.random((4, 30))
    assert (choose(errors, rng.random(4), 0.0) == errors.argmin(axis=0)).all()


def test_the_dearer_the_errors_weigh_less_until_the_cheapest_is_asked_everywhere():
    rng = np.random.default_rng(1)
    errors, prices = rng.random((4, 30)), np.array([3.0, 1.0, 2.0, 8.0])
    paid = [prices[choose(errors, prices, weight)].sum() for weight in (0, 0.1, 0.5, 1, 10, np.inf)]
    assert paid == sorted(paid, reverse=True)
    assert (choose(errors, prices, 100.0) == 1).all()
    assert (choose(errors, prices, np.inf) == 1).all()


def test_of_equals_the_cheapest_is_asked_then_the_first():
    assert choose([[0.2], [0.2], [0.2]], [2.0, 1.0, 1.0], 0.0).tolist() == [1]
    assert choose([[0.2], [0.2]], [0.0, 0.0], 5.0).tolist() == [0]


def test_one_model_is_asked_everything():
    assert choose([[0.9, 0.1]], [7.0], 3.0).tolist() == [0, 0]


def test_prices_are_relative_to_the_dearest():
    assert relative([1, 2, 4]).tolist() == [0.25, 0.5, 1.0]
    assert relative([0, 0]).tolist() == [0, 0]


def test_experts_of_a_topic_each_come_close_to_an_oracle():
    """Four topics, four models right on 0.95 of their own and 0.6 of the others; 200 validation items."""
    rng = np.random.default_rng(2)
    right = 0.6 + 0.35 * np.eye(4)
    routed, single = [], []
    for _ in range(20):
        topics = rng.integers(0, 4, 200)
        errors = cluster_errors(rng.random((4, 200)) >= right[:, topics], topics, 4)
        chosen = choose(errors, np.ones(4), 0.0)
        routed.append(right[chosen, np.arange(4)].mean())
        single.append(right[errors.mean(axis=1).argmin()].mean())
    assert np.mean(routed) > 0.94
    assert np.mean(single) < 0.7


def test_answers_left_out_tell_whether_clusters_say_anything():
    """Where models differ by cluster they are drawn together little, where they do not the best is asked."""
    rng = np.random.default_rng(4)
    topics = rng.integers(0, 4, 200)
    for right, apart in (
        (0.6 + 0.35 * np.eye(4), True),
        (np.array([[0.9] * 4, [0.8] * 4, [0.7] * 4, [0.6] * 4]), False),
    ):
        wrong = rng.random((4, 200)) >= right[:, topics]
        strength = best_strength(wrong, topics, 4, np.ones(4), 0.0)
        chosen = choose(cluster_errors(wrong, topics, 4, strength=strength), np.ones(4), 0.0)
        assert (len(set(chosen.tolist())) == 4) == apart
        assert np.isfinite(strength) or not apart
    assert best_strength(wrong, topics, 4, np.ones(4), np.inf) == np.inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cluster_errors([[1, 0]], [0], 1), "must be"),
        (lambda: cluster_errors([[1]], [0], 1, without=0), "one item or more"),
        (lambda: cluster_errors([[1]], [2], 2), "lie in"),
        (lambda: choose([[0.1]], [1.0, 2.0], 0.0), "do not fit"),
        (lambda: choose([[0.1]], [1.0], -1.0), "do not fit"),
        (lambda: relative([-1.0]), "Prices"),
        (lambda: relative([]), "Prices"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_examples_in_the_docstrings_are_true():
    assert doctest.testmod(uniroute).failed == 0
