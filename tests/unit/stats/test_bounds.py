"""Bounds: published values, scipy, exact enumeration, and error rates of tests under peeking."""

import doctest
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from llmal.stats import bounds
from llmal.stats.bounds import (
    alpha_spending,
    betting_lower,
    betting_pvalue,
    binomial_lower,
    binomial_pvalue,
    binomial_upper,
    hoeffding_bentkus,
    labels_needed,
)

DELTA = 0.1


def allowed(seeds: int) -> float:
    """Error rate that a correct test stays under: delta and two standard errors."""
    return DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / seeds)


def test_docstring_examples_hold():
    result = doctest.testmod(bounds)
    assert result.attempted >= 8
    assert result.failed == 0


# --- exact binomial


@pytest.mark.parametrize(
    ("wrong", "n", "delta", "upper"),
    [(3, 200, 0.05, 0.038310), (0, 100, 0.05, 0.029513), (3, 200, 0.05 / 8, 0.052384)],
)
def test_upper_bound_of_the_error_matches_published_values(wrong, n, delta, upper):
    assert binomial_upper(wrong, n, delta) == pytest.approx(upper, abs=1e-6)
    assert binomial_lower(n - wrong, n, delta) == pytest.approx(1 - upper, abs=1e-6)


@pytest.mark.parametrize("n", [1, 20, 59])
@pytest.mark.parametrize("least", [0.5, 0.95])
def test_exact_pvalue_is_scipys(n, least):
    ours = binomial_pvalue(np.arange(n + 1), n, least)
    theirs = [stats.binomtest(k, n, least, alternative="greater").pvalue for k in range(n + 1)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_test_and_bound_agree_at_every_count():
    for n in (30, 60, 200):
        passed = binomial_pvalue(np.arange(n + 1), n, 0.9) <= DELTA
        assert passed.any()
        assert passed.tolist() == [binomial_lower(k, n, DELTA) >= 0.9 for k in range(n + 1)]


@pytest.mark.parametrize("corpus", [60, 200, 1000])
@pytest.mark.parametrize("target", [0.8, 0.95])
def test_a_sample_without_replacement_breaks_the_promise_no_more_often(corpus, target):
    right = math.ceil(corpus * target) - 1  # the corpus that is just below the target
    for n in range(1, corpus, 1 + corpus // 30):
        counts = np.arange(n + 1)
        passed = counts[binomial_pvalue(counts, n, target) <= DELTA]
        assert stats.hypergeom(corpus, right, n).pmf(passed).sum() <= DELTA + 1e-12


# --- losses anywhere in [0, 1]


def test_hoeffding_bentkus_matches_the_published_value_and_survives_rounding():
    assert float(hoeffding_bentkus(0.015, 200, 0.05)) == pytest.approx(0.024596, abs=1e-6)
    assert float(hoeffding_bentkus(0.1 + 0.2, 10, 0.5)) == pytest.approx(
        float(hoeffding_bentkus(0.3, 10, 0.5))
    )


def test_hoeffding_bentkus_is_never_below_the_exact_test():
    wrong = np.arange(101)
    loose = hoeffding_bentkus(wrong / 100, 100, 0.1)
    assert (loose >= binomial_pvalue(100 - wrong, 100, 0.9) - 1e-12).all()
    assert loose[0] < 0.001
    assert loose[50] == 1


@pytest.mark.parametrize("n", [30, 200])
def test_hoeffding_bentkus_errs_at_most_delta_on_graded_losses(n):
    losses = np.random.default_rng(0).beta(0.2, 1.8, size=(1000, n))  # mean 0.1: not below the limit
    assert (hoeffding_bentkus(losses.mean(axis=1), n, 0.1) <= DELTA).mean() <= allowed(1000)
    assert (hoeffding_bentkus(losses.mean(axis=1), n, 0.4) <= DELTA).mean() > 0.9


# --- betting


@pytest.mark.parametrize("least", [0.5, 0.9])
def test_betting_errs_at_most_delta_over_all_sequences(least):
    every = np.array(list(itertools.product([0, 1], repeat=10)))
    chance = np.where(every, least, 1 - least).prod(axis=1)
    found = np.array([betting_pvalue(values, least) for values in every])
    for delta in (0.2, 0.4, 0.8, 0.9):
        assert chance[found <= delta].sum() <= delta
    assert chance[found <= 0.8].sum() > 0.2


@pytest.mark.parametrize("mean", [0.5, 0.95])
def test_betting_may_be_looked_at_after_every_label(mean):
    rng = np.random.default_rng(1)
    binary = rng.random((400, 300)) < mean
    graded = rng.beta(mean, 1 - mean, size=(400, 300))
    for drawn in (binary, graded):
        assert np.mean([betting_pvalue(row, mean) <= DELTA for row in drawn]) <= allowed(400)
    # An exact test at every label is not allowed, and fails: this simulation sees the difference.
    looks = np.arange(1, 301)
    peeked = binomial_pvalue(binary.cumsum(axis=1), looks, mean).min(axis=1) <= DELTA
    assert peeked.mean() > 2 * DELTA


def test_betting_finds_a_true_difference_and_never_takes_it_back():
    values = np.random.default_rng(2).random(600) < 0.98
    path = [betting_pvalue(values[:n], 0.95) for n in range(0, 601, 50)]
    assert path[0] == 1
    assert path == sorted(path, reverse=True)
    assert path[-1] < 0.05


def test_betting_bound_is_the_test_turned_round():
    values = np.random.default_rng(3).beta(9, 1, size=200)
    low = betting_lower(values, 0.05)
    assert betting_pvalue(values, low) <= 0.05
    assert betting_pvalue(values, low + 1e-6) > 0.05
    assert 0.8 < low < 0.9
    assert betting_lower([], 0.05) == pytest.approx(0, abs=1e-9)
    assert betting_lower(values[:50], 0.05) <= low


# --- how many labels, and how often


@pytest.mark.parametrize("target", [0.8, 0.95])
@pytest.mark.parametrize("gain", [0.2, 0.5, 0.8])
def test_labels_needed_gives_about_the_power_asked_for(target, gain):
    accuracy = target + gain * (1 - target)
    n = labels_needed(accuracy, target, DELTA)
    counts = np.arange(n + 1)
    passed = binomial_pvalue(counts, n, target) <= DELTA
    assert 0.65 < stats.binom(n, accuracy).pmf(counts[passed]).sum() < 0.92


@pytest.mark.parametrize(("delta", "n"), [(0.05, 59), (0.1, 45)])
def test_labels_needed_without_any_error_is_the_least_that_can_pass(delta, n):
    assert labels_needed(1.0, 0.95, delta) == n
    assert binomial_pvalue(n, n, 0.95) <= delta < binomial_pvalue(n - 1, n - 1, 0.95)


def test_shares_of_delta_never_sum_to_more_than_delta():
    spent = np.cumsum([alpha_spending(0.1, issue) for issue in range(1, 1001)])
    assert (spent < 0.1).all()
    assert spent[-1] == pytest.approx(0.1, rel=2e-3)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: binomial_lower(3, 10, 0.5), "delta must lie"),
        (lambda: binomial_upper(3, 10, 0), "delta must lie"),
        (lambda: binomial_pvalue(3, 10, 1), "share to be tested"),
        (lambda: hoeffding_bentkus(0.1, 10, 0), "share to be tested"),
        (lambda: betting_pvalue([0.5, 1.5], 0.9), r"values in \[0, 1\]"),
        (lambda: betting_pvalue([0.5, math.nan], 0.9), r"values in \[0, 1\]"),
        (lambda: betting_lower([[0.5]], 0.1), r"shape \(n,\)"),
        (lambda: alpha_spending(0.1, 0), "counted from 1"),
        (lambda: labels_needed(0.9, 1.2, 0.1), "share to be tested"),
    ],
)
def test_nonsense_is_refused(call, why):
    with pytest.raises(ValueError, match=why):
        call()
