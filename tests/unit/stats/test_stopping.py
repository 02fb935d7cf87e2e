"""Stopping rules: scripted rounds, what is undefined, and a forecast that holds as often as it says."""

import doctest
import math

import numpy as np
import pytest
from scipy.special import ndtri

from llmal.stats import stopping
from llmal.stats.agreement import cohen_kappa
from llmal.stats.stopping import (
    Forecast,
    Verdict,
    classification_change,
    combined,
    delta_f,
    forecast,
    kappa_average,
    overall_uncertainty,
    plateau,
    same_items,
)

HALF = [0] * 50 + [1] * 50


def moved(rounds, share):
    """(rounds, 100) predictions of which `share` items change class from each round to the next."""
    rows = [np.array(HALF)]
    for _ in range(rounds - 1):
        row = rows[-1].copy()
        ends = np.concatenate([np.flatnonzero(row == c)[: round(share * 50)] for c in (0, 1)])
        row[ends] = 1 - row[ends]
        rows.append(row)
    return np.array(rows)


def test_docstring_examples_hold():
    result = doctest.testmod(stopping)
    assert result.attempted >= 7
    assert result.failed == 0


# --- rules on predictions


def test_kappa_stops_once_the_last_rounds_agree_and_not_before():
    noisy, still = moved(4, 0.1), np.repeat(moved(4, 0.1)[-1:], 3, axis=0)
    script = np.concatenate([noisy, still])
    stops = [kappa_average(script[:r], 2).stop for r in range(1, len(script) + 1)]
    # Rounds 4 to 7 are the same: three pairs without a change are there after round 7.
    assert stops == [False] * 6 + [True]


def test_kappa_is_the_mean_over_the_last_pairs():
    script = np.random.default_rng(0).integers(3, size=(6, 40))
    pairs = [cohen_kappa(script[i], script[i + 1], 3) for i in range(5)]
    assert kappa_average(script, 3).value == pytest.approx(np.mean(pairs[-3:]))
    assert kappa_average(script, 3, last=2).value == pytest.approx(np.mean(pairs[-2:]))


def test_one_class_throughout_counts_as_agreement_only_if_it_is_the_same_class_and_is_told():
    same = kappa_average([[1] * 20] * 4, 2)
    assert same.stop
    assert same.value == 1
    assert "one class" in same.note
    other = kappa_average([[0] * 20, [1] * 20] * 2, 2)
    assert not other.stop
    assert other.value <= 0
    mixed = kappa_average([[0] * 20, [0] * 10 + [1] * 10] * 2, 2)
    assert mixed.value == 0
    assert "one class" in mixed.note
    assert kappa_average(moved(4, 0.0), 2).note == ""


def test_before_there_are_enough_rounds_no_rule_can_tell():
    for rule in (kappa_average, delta_f):
        verdict = rule(moved(3, 0.0), 2)
        assert math.isnan(verdict.value)
        assert not verdict.stop
    assert not classification_change([], []).stop
    assert not overall_uncertainty(np.zeros((0, 3))).stop


@pytest.mark.parametrize(
    ("rule", "strict_first"),
    [
        (lambda x: kappa_average(moved(4, 0.04), 2, limit=x), (1.0, 0.95, 0.9, 0.5)),
        (lambda x: delta_f(moved(4, 0.04), 2, limit=x), (0.001, 0.03, 0.05, 0.5)),
        (lambda x: classification_change(HALF, moved(2, 0.04)[1], limit=x), (0.0, 0.03, 0.05, 0.5)),
        (lambda x: overall_uncertainty([[0.99, 0.01]] * 5, limit=x), (0.001, 0.05, 0.1, 0.5)),
        (lambda x: plateau(Forecast(0.002, 0.01, 50, 0.9, 6), limit=x), (0.001, 0.005, 0.02, 0.5)),
    ],
)
def test_a_stricter_limit_never_stops_sooner(rule, strict_first):
    stops = [rule(x).stop for x in strict_first]
    assert stops == sorted(stops)
    assert stops[0] is False or not stops[0]
    assert stops[-1]


def test_delta_f_needs_every_one_of_the_last_pairs_below():
    still = moved(4, 0.0)
    assert delta_f(still, 2).stop
    jump = np.concatenate([still[:2], moved(2, 0.2)])
    assert delta_f(jump, 2).value == pytest.approx(0.2)
    assert not delta_f(jump, 2).stop


def test_change_counts_the_candidates_whose_class_moved():
    assert classification_change([0, 1, 2, 2], [0, 1, 2, 0]).value == 0.25
    assert classification_change([0, 1, 2, 2], [0, 1, 2, 2]).stop


def test_uncertainty_is_one_for_a_guess_and_zero_for_a_sure_student():
    for classes in (2, 5):
        assert overall_uncertainty(np.full((7, classes), 1 / classes)).value == pytest.approx(1)
        assert overall_uncertainty(np.eye(classes)).value == 0


def test_all_rules_must_agree_and_the_first_rounds_never_stop():
    yes, no = Verdict(True, 1.0, 0.99, "Look here."), Verdict(False, 0.02, 0.005)
    assert combined([yes, yes], rounds=5).stop
    assert not combined([yes, yes], rounds=4).stop
    assert not combined([yes, no], rounds=9).stop
    assert combined([yes, no], rounds=9).value == 0.5
    assert "Look here." in combined([yes], rounds=9).note


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kappa_average([[0, 3]] * 5, 2), r"0\.\.1"),
        (lambda: kappa_average([[0.5, 1.0]] * 5, 2), "integer classes"),
        (lambda: kappa_average([[0, 1]] * 5, 2, limit=99), "limit"),
        (lambda: delta_f([[0, 1]] * 5, 2, last=0), "last"),
        (lambda: classification_change([0, 1], [0]), "alike"),
        (lambda: overall_uncertainty([[1.5, -0.5]]), "probs"),
        (lambda: plateau(Forecast(0, 0, 50, 0.9, 5), limit=0), "limit"),
        (lambda: combined([], rounds=9), "verdict"),
        (lambda: same_items([[True]]), "at least 2"),
        (lambda: forecast([1, 2, 2, 4], [0.5] * 4, [0.1] * 4), "rise"),
        (lambda: forecast([1, 2, 3, 4], [0.5] * 3, [0.1] * 4), r"\(k,\)"),
        (lambda: forecast([1, 2, 3, 4], [0.5] * 4, [0.1] * 4, step=0), "step"),
        (lambda: forecast([1, 2, 3, 4], [0.5, np.nan, 0.5, 0.5], [0.1] * 4), "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the forecast


def test_few_rounds_give_no_forecast_and_no_stop():
    early = forecast([50, 100, 150], [0.5, 0.6, 0.65], [0.02] * 3)
    assert math.isnan(early.high)
    assert not plateau(early).stop
    assert "cannot be told" in early.words


def test_forecast_of_an_exact_line_is_the_line():
    x = np.arange(100, 600, 50)
    seen = forecast(x, 0.5 + 0.0002 * x, np.full(len(x), 1e-9), step=50)
    assert seen.gain == pytest.approx(0.01)
    assert seen.high == pytest.approx(0.01, abs=1e-6)
    assert seen.words.startswith("The next 50 labels buy at most 1.0 points")


def test_a_falling_curve_promises_nothing_rather_than_a_loss():
    x = np.arange(100, 600, 50)
    assert forecast(x, 0.9 - 0.0002 * x, np.full(len(x), 1e-9)).high == 0


def test_gold_of_the_same_items_says_how_rounds_vary_together():
    right = np.random.default_rng(0).random((2, 4000)) < [[0.7], [0.7]]
    values, covariance = same_items(np.concatenate([right, right[:1]]))
    assert values == pytest.approx(right.mean(axis=1)[[0, 1, 0]])
    assert covariance[0, 0] == pytest.approx(0.21 / 4000, rel=0.05)
    # A student measured against itself differs by nothing but the added half items.
    pull = np.array([1, 0, -1])
    assert pull @ covariance @ pull == pytest.approx(1 / 4000**2)
    errors = np.sqrt(np.diag(covariance))
    wide = forecast([1, 2, 3, 4], [0.5] * 4, np.full(4, errors[0]))
    tight = forecast([1, 2, 3, 4], [0.5] * 4, np.full((4, 4), 0.9) * errors[0] ** 2 + np.eye(4) * 1e-9)
    assert tight.high < wide.high


CURVES = [(0.9, 1.0, 0.4), (0.8, 0.8, 0.6), (0.95, 2.0, 0.8), (0.85, 0.4, 0.15), (0.75, 0.0, 1.0)]
"""a, b, c of a - b n^-c: steep, usual, quickly flat, nearly straight, and flat from the start."""

SCHEDULES = [
    np.arange(50, 250, 50),
    np.arange(50, 450, 50),
    np.arange(50, 1050, 50),
    np.array([25, 38, 58, 88, 133, 200, 300, 400]),
]


def rounds_of(curve, labels, gold, luck, rng):
    """(k, gold) bool, right or wrong: items differ in difficulty, every training set has its luck."""
    a, b, c = curve
    p = a - b * labels**-c + luck * (labels / 200) ** -0.5 * rng.normal(size=len(labels))
    hard = np.sqrt(0.8) * rng.normal(size=gold)
    return hard + np.sqrt(0.2) * rng.normal(size=(len(labels), gold)) < ndtri(np.clip(p, 0.01, 0.99))[:, None]


def within(rate, level, runs):
    """Whether a rate of misses is the stated one or less, but for two standard errors of chance."""
    return rate <= level + 2 * np.sqrt(level * (1 - level) / runs)


def coverage(bound, runs, seed=0):
    """Worst share over all worlds of runs whose bound holds the curve's next gain."""
    rng = np.random.default_rng(seed)
    found = []
    for curve in CURVES:
        for labels in SCHEDULES:
            _, b, c = curve
            gain = b * (labels[-1] ** -c - (labels[-1] + 50.0) ** -c)
            for gold, luck in ((100, 0.005), (100, 0.02), (400, 0.02)):
                x = labels.astype(float)
                held = [bound(x, rounds_of(curve, x, gold, luck, rng)) >= gain for _ in range(runs)]
                found.append(np.mean(held))
    return np.array(found)


def ours(labels, right):
    return forecast(labels, *same_items(right), step=50, level=0.9).high


def without_luck(labels, right):
    """A broken version: the gold sample is the only doubt, and the normal quantile does for few points."""
    first = min(int(np.searchsorted(labels, labels[-1] / 2)), len(labels) - 4)
    values, covariance = same_items(right[first:])
    pull = (labels[first:] - labels[first:].mean()) / ((labels[first:] - labels[first:].mean()) ** 2).sum()
    return 50 * (pull @ values + ndtri(0.9) * np.sqrt(pull @ covariance @ pull))


def power_law(labels, right):
    """The usual way: the power law that fits best, taken at its word."""
    values, best = right.mean(axis=0) if right.ndim == 1 else right.mean(axis=1), (np.inf, 0.0)
    for c in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0):
        z = labels**-c
        b = max(0.0, -np.polyfit(z, values, 1)[0])
        left = values - values.mean() + b * (z - z.mean())
        best = min(best, (float(left @ left), b * (labels[-1] ** -c - (labels[-1] + 50) ** -c)))
    return best[1]


def test_the_bound_holds_as_often_as_it_says():
    """At most one run in ten gains more than the bound, whatever the curve, the rounds or the gold sample."""
    runs = 40
    found = coverage(ours, runs)
    # Sixty worlds: the worst of them is two or three standard errors low.
    assert found.min() >= 0.9 - 3 * np.sqrt(0.09 / runs)
    assert within(1 - found.mean(), 0.1, runs * len(found))


def test_a_bound_that_forgets_the_luck_of_training_is_found_out():
    runs = 40
    assert coverage(without_luck, runs).min() < 0.9 - 3 * np.sqrt(0.09 / runs)


@pytest.mark.slow
def test_the_bound_holds_over_many_seeds_and_a_power_law_does_not():
    runs = 400
    assert coverage(ours, runs).min() >= 0.9 - 3 * np.sqrt(0.09 / runs)
    assert coverage(power_law, 50).min() < 0.5
