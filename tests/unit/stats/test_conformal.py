"""Conformal sets: published values, brute force, and above all coverage as promised."""

import doctest
import inspect
import math

import numpy as np
import pytest
from scipy import stats

from llmal.stats import conformal
from llmal.stats.conformal import Thresholds, aps, lac, least, quantile, rank, spread, thresholds

SCORES = [0.05, 0.1, 0.12, 0.2, 0.22, 0.3, 0.35, 0.5, 0.6, 0.9]
SPLITS = 500
FALSE_ALARM = 1e-4


def rng(seed=0):
    return np.random.default_rng(seed)


def world(seed, n, n_classes=5, decimals=None):
    """Probabilities that know something of the truth, some items hard; with decimals, full of ties."""
    draw = rng(seed)
    gold = draw.integers(n_classes, size=n)
    logits = draw.normal(size=(n, n_classes))
    logits[np.arange(n), gold] += draw.choice([0.5, 3.0], size=n)
    odds = np.exp(logits)
    probs = odds / odds.sum(axis=1, keepdims=True)
    return (probs if decimals is None else np.round(probs, decimals)), gold


def test_docstring_examples_hold():
    result = doctest.testmod(conformal)
    assert result.attempted >= 7
    assert result.failed == 0


# --- scores and quantile


@pytest.mark.parametrize(("alpha", "value"), [(0.1, 0.9), (0.2, 0.6), (0.05, math.inf)])
def test_the_quantile_of_the_design_documents(alpha, value):
    assert quantile(SCORES, alpha) == value
    assert quantile(SCORES[::-1], alpha) == value


def test_the_rank_is_exact_for_every_hundredth_and_n():
    # In floats (n + 1)(1 - alpha) lies above a whole number now and then: (99 + 1) * (1 - 0.42), say.
    for hundredths in range(100):
        for n in range(300):
            assert rank(n, hundredths / 100) == max(1, -(-(n + 1) * (100 - hundredths) // 100))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3, 0.5, 0.98])
def test_the_least_number_of_items_is_where_the_threshold_becomes_finite(alpha):
    n = least(alpha)
    assert quantile(np.zeros(n), alpha) == 0
    assert quantile(np.zeros(n - 1), alpha) == math.inf


def test_without_calibration_items_every_class_is_in_every_set():
    fitted = thresholds(np.empty((0, 3)), np.empty(0, int), 0.1)
    assert fitted.sets(np.ones((2, 3))).all()
    assert "9 are the least" in fitted.told("abc")


def test_lac_is_what_is_missing_to_one():
    assert lac([[0.5, 0.25, 0.25]]).tolist() == [[0.5, 0.75, 0.75]]


def test_aps_adds_up_the_likelier_classes_whatever_the_order():
    probs, _ = world(0, 40)
    found = aps(probs)
    for row, scores in zip(probs, found, strict=True):
        for c, p in enumerate(row):
            assert scores[c] == pytest.approx(row[row >= p].sum())
    shuffle = rng().permutation(5)
    assert aps(probs[:, shuffle]) == pytest.approx(found[:, shuffle])


def test_randomised_aps_leaves_off_one_share_an_item():
    probs, _ = world(0, 2000)
    left_off = (aps(probs) - aps(probs, rng=rng(1))) / probs
    assert left_off == pytest.approx(np.repeat(left_off[:, :1], 5, axis=1), abs=1e-6)
    assert stats.kstest(left_off[:, 0], "uniform").pvalue > 0.001
    assert (aps(probs, rng=rng(1)) == aps(probs, rng=rng(1))).all()


def test_sets_follow_by_hand():
    fitted = thresholds([[0.1, 0.9], [0.4, 0.6], [0.7, 0.3], [0.8, 0.2]], [0, 0, 1, 0], 0.4)
    assert fitted.at.tolist() == [0.4, 0.4]  # the third of .1 .3 .4 .8
    assert fitted.sets([[0.4, 0.41], [0.5, 0.5], [0.0, 0.1]]).tolist() == [
        [True, False],
        [False, False],
        [True, True],
    ]


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("score", [lac, aps])
def test_sets_grow_as_alpha_falls(score, by_class):
    probs, gold = world(3, 300)
    fresh = score(world(4, 200)[0])
    last = np.zeros(fresh.shape, bool)
    for alpha in (0.9, 0.6, 0.3, 0.1, 0.05, 0.02, 0.0):
        sets = thresholds(score(probs), gold, alpha, by_class=by_class, small="always").sets(fresh)
        assert (sets >= last).all()
        last = sets
    assert last.all()


# --- coverage


def chance(hits, trials, promised):
    """Probability of a count of hits as unlikely as this one, where each trial hits with `promised`."""
    return stats.binomtest(int(hits), trials, promised).pvalue


def covered(seed, n, alpha, *, decimals=None, score=lac, lots=False, fit=thresholds):
    """Of `SPLITS` draws of n calibration items and one new item, in how many the new item's set holds."""
    probs, gold = world(seed, SPLITS * (n + 1), decimals=decimals)
    scores = score(probs).reshape(SPLITS, n + 1, -1)
    gold = gold.reshape(SPLITS, n + 1)
    draw = rng(seed + 1) if lots else None
    hits = 0
    for s, g in zip(scores, gold, strict=True):
        fitted = fit(s[:n], g[:n], alpha, rng=draw)
        hits += fitted.sets(s[n:], rng=draw)[0, g[n]]
    return hits


def random_aps(probs):
    return aps(probs, rng=rng(99))


@pytest.mark.parametrize("score", [lac, aps, random_aps])
@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_coverage_lies_in_the_exact_binomial_band(alpha, n, score):
    """The splits are independent, so hits are Binomial(splits, rank / (n + 1)): neither less nor more."""
    hits = covered(int(1000 * alpha) + n, n, alpha, score=score)
    assert chance(hits, SPLITS, rank(n, alpha) / (n + 1)) > FALSE_ALARM


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_with_ties_and_lots_coverage_is_still_exact(alpha, n):
    """Probabilities to one decimal: without lots sets would hold more than promised, and be larger."""
    hits = covered(int(1000 * alpha) + n, n, alpha, decimals=1, lots=True)
    assert chance(hits, SPLITS, rank(n, alpha) / (n + 1)) > FALSE_ALARM


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_with_ties_and_without_lots_coverage_is_what_the_ties_make_it_and_never_less(alpha, n):
    """The coverage of a discrete score is known: P(fewer than rank of n scores lie below the new one)."""
    values, p = np.array([0.0, 0.2, 0.5, 0.7]), np.array([0.55, 0.2, 0.15, 0.1])
    below = np.cumsum(p) - p
    exact = float((p * stats.binom.cdf(rank(n, alpha) - 1, n, below)).sum())
    assert exact >= rank(n, alpha) / (n + 1)
    draw, hits = rng(n), 0
    for _ in range(SPLITS):
        right = draw.choice(values, n + 1, p=p)
        fitted = thresholds(right[:n, None], np.zeros(n, int), alpha)
        hits += fitted.sets(right[n:, None])[0, 0]
    assert chance(hits, SPLITS, exact) > FALSE_ALARM


def uncorrected(scores, gold, alpha, rng=None):
    """The sample quantile: the ceil(n (1 - alpha))-th of n scores, without the + 1."""
    right = scores[np.arange(len(gold)), gold]
    at = np.quantile(right, 1 - alpha, method="inverted_cdf")
    full = np.full(scores.shape[1], at)
    return Thresholds(full, np.ones_like(full), full, full > 2, alpha, len(gold))


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_band_sees_a_quantile_without_the_correction(alpha):
    """A power check: at n = 20 the sample quantile holds 4.5 points too little, and is caught."""
    assert uncorrected(np.arange(20)[:, None], np.zeros(20, int), alpha).at[0] == rank(20, alpha) - 2
    hits = covered(int(1000 * alpha) + 20, 20, alpha, fit=uncorrected)
    assert hits / SPLITS < 1 - alpha - 0.02
    assert chance(hits, SPLITS, rank(20, alpha) / 21) < FALSE_ALARM


def test_each_class_is_covered_as_promised_where_all_together_would_not_do():
    """One class in ten is hard: one threshold for all gives it far less than the others."""
    alpha, n, tested = 0.1, 400, 20_000
    draw = rng(5)

    def items(count):
        gold = (draw.random(count) < 0.1).astype(int)
        right = draw.beta(np.where(gold, 6, 2), 6)
        return np.where(np.eye(2)[gold] == 1, right[:, None], draw.random((count, 1))), gold

    fresh, truth = items(tested)
    shares = {True: [], False: []}
    for _ in range(60):
        scores, gold = items(n)
        for by_class, found in shares.items():
            hit = thresholds(scores, gold, alpha, by_class=by_class).sets(fresh)[np.arange(tested), truth]
            found.append([hit[truth == c].mean() for c in (0, 1)])
    means = {k: np.mean(v, axis=0) for k, v in shares.items()}
    errors = np.std(shares[True], axis=0) / math.sqrt(60)
    assert (means[True] >= 1 - alpha - 3 * errors).all()
    assert (means[True] <= 1 - alpha + 3 * errors + [1 / 300, 1 / 25]).all()
    assert means[False][1] < 0.7


# --- by class


def brute(scores, gold, alpha):
    """Threshold of each class, by sorting a list of its scores; None where it has less than 1 / alpha."""
    out = []
    for c in range(scores.shape[1]):
        own = sorted(scores[i, c] for i in range(len(gold)) if gold[i] == c)
        k = math.ceil((len(own) + 1) * (1 - alpha) - 1e-9)
        out.append(own[k - 1] if len(own) * alpha >= 1 - 1e-9 else None)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_by_class_are_those_of_brute_force(seed):
    probs, gold = world(seed, 80, n_classes=6)
    expected = brute(lac(probs), gold, 0.08)
    for small, other in (("pooled", quantile(lac(probs)[np.arange(80), gold], 0.08)), ("always", math.inf)):
        fitted = thresholds(lac(probs), gold, 0.08, by_class=True, small=small)
        assert fitted.own.tolist() == [e is not None for e in expected]
        assert fitted.at.tolist() == [other if e is None else e for e in expected]
        assert fitted.items.tolist() == [
            80 if e is None else int((gold == c).sum()) for c, e in enumerate(expected)
        ]


def test_it_says_of_which_classes_nothing_is_promised():
    gold = np.repeat([0, 1, 2], [20, 20, 3])
    scores = rng().random((43, 4))
    pooled = thresholds(scores, gold, 0.1, by_class=True)
    assert "90 % of items of each of 2 classes" in pooled.told(["a", "b", "c", "d"])
    assert "nothing is promised of them: c, d." in pooled.told(["a", "b", "c", "d"])
    always = thresholds(scores, gold, 0.1, by_class=True, small="always")
    assert always.sets(np.ones((5, 4)))[:, 2:].all()
    assert "in every set: c, d." in always.told(["a", "b", "c", "d"])
    assert "43 calibration items" in thresholds(scores, gold, 0.1).told(["a", "b", "c", "d"])


# --- spread


@pytest.mark.parametrize(("n", "alpha"), [(20, 0.1), (19, 0.05), (500, 0.02), (99, 0.5)])
def test_the_spread_is_that_of_the_beta_distribution(n, alpha):
    k = rank(n, alpha)
    found = spread(n, alpha, level=0.8)
    assert found.value == pytest.approx(k / (n + 1))
    assert (found.low, found.high) == pytest.approx(stats.beta(k, n + 1 - k).ppf([0.1, 0.9]))


@pytest.mark.parametrize(("n", "alpha", "tested"), [(20, 0.1, 50), (19, 0.05, 1), (500, 0.02, 1000)])
def test_the_spread_on_tested_items_is_beta_binomial(n, alpha, tested):
    k = rank(n, alpha)
    law = stats.betabinom(tested, k, n + 1 - k)
    found = spread(n, alpha, tested=tested, level=0.9)
    low, high = round(found.low * tested), round(found.high * tested)
    assert law.cdf(low - 1) - 1e-9 < 0.05 < law.cdf(low) + 1e-9
    assert law.sf(high) - 1e-9 < 0.05 < law.sf(high - 1) + 1e-9


def test_measured_coverages_lie_in_the_spread_as_often_as_it_says():
    n, tested, alpha = 50, 200, 0.1
    draws = rng(8).random((3000, n + tested))
    at = np.sort(draws[:, :n], axis=1)[:, rank(n, alpha) - 1]
    share = (draws[:, n:] <= at[:, None]).mean(axis=1)
    found = spread(n, alpha, tested=tested, level=0.9)
    inside = ((found.low <= share + 1e-12) & (share <= found.high + 1e-12)).mean()
    assert 0.89 <= inside <= 0.94


def test_too_few_items_cover_everything():
    assert spread(18, 0.05)[:3] == (1, 1, 1)


# --- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank(5, 1.0), r"\[0, 1\)"),
        (lambda: quantile([0.1, math.nan], 0.1), "1 nan"),
        (lambda: lac([[0.2, 1.2]]), r"\[0, 1\]"),
        (lambda: lac([0.2, 0.8]), r"\(n, C\)"),
        (lambda: aps([[0.2, 0.2]]), "sum to 1"),
        (lambda: thresholds([[0.1, 0.9]], [2], 0.1), r"0\.\.1"),
        (lambda: thresholds([[0.1, 0.9]], [0.0], 0.1), "whole numbers"),
        (lambda: thresholds([[0.1, 0.9]], [0, 1], 0.1), "whole numbers"),
        (lambda: thresholds([[0.1, 0.9]], [0], 0.1).sets([[0.1, 0.2, 0.7]]), "2 classes"),
        (lambda: spread(0, 0.1), "at least one"),
        (lambda: spread(10, 0.1, tested=0), "at least one"),
        (lambda: spread(10, 0.1, level=1), "strictly between"),
        (lambda: least(0), "alpha 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_public_functions_say_where_they_come_from():
    for function in (lac, aps, rank, thresholds, spread):
        assert "Source:" in inspect.getdoc(function)
