"""Candidate sets: the cost of an answer, the cheapest list, and promises that survive the choice."""

import doctest
import math
from functools import cache

import numpy as np
import pytest
from scipy import stats

from llmal.stats import candidates
from llmal.stats.candidates import ALPHAS, Choice, cheapest, choose, cost, expected_cost, mean_cost, shown
from llmal.stats.conformal import aps, lac, rank, thresholds

CLASSES = 20


def rng(seed=0):
    return np.random.default_rng(seed)


def world(seed, n, n_classes=CLASSES, pull=4.0):
    """Scores and truth: the model is rather sure of four items in five and knows little of the fifth."""
    draw = rng(seed)
    gold = draw.integers(n_classes, size=n)
    logits = draw.normal(size=(n, n_classes))
    logits[np.arange(n), gold] += draw.choice([1.0, pull], size=n, p=[0.2, 0.8])
    odds = np.exp(logits)
    return lac(odds / odds.sum(axis=1, keepdims=True)), gold


def test_docstring_examples_hold():
    result = doctest.testmod(candidates)
    assert result.attempted >= 1
    assert result.failed == 0


# --- cost


def test_the_costs_of_the_design_documents():
    found = cost([3, 3, 20], [True, False, True], 20)
    assert found == pytest.approx([2, 6.087463, 4.321928], abs=1e-6)


def test_an_empty_set_costs_what_the_full_list_costs():
    assert cost([0, 0], [False, True], 20) == pytest.approx([math.log2(20)] * 2)
    assert shown([[False, False], [True, False]]).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("n_classes", [2, 3, 20, 150])
def test_costs_by_hand_for_every_size(n_classes):
    for k in range(1, n_classes):
        hit, miss = cost([k, k], [True, False], n_classes)
        assert hit == pytest.approx(math.log2(k + 1))
        assert miss == pytest.approx(math.log2(k + 1) + math.log2(n_classes - k))


def test_the_expected_cost_is_the_mean_over_hits_and_misses():
    many = [cost([4], [hit], 50)[0] for hit in [True] * 9 + [False]]
    assert expected_cost([4], 0.1, 50)[0] == pytest.approx(np.mean(many))
    assert expected_cost([50], 0.1, 50)[0] == pytest.approx(math.log2(50))


# --- the choice of alpha


def brute(scores, gold, alphas):
    """Mean cost of each alpha with one item left out at a time, in plain loops over sorted lists."""
    n, n_classes = scores.shape
    means = []
    for alpha in alphas:
        total = 0.0
        for i in range(n):
            others = sorted(scores[j][gold[j]] for j in range(n) if j != i)
            k = math.ceil(n * (1 - alpha) - 1e-9)  # n - 1 others, plus one
            at = others[k - 1] if k <= n - 1 else math.inf
            inside = [c for c in range(n_classes) if scores[i][c] <= at] or list(range(n_classes))
            bits = math.log2(min(len(inside) + 1, n_classes))
            total += bits if gold[i] in inside else bits + math.log2(n_classes - len(inside))
        means.append(total / n)
    return means


@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_alpha_is_that_of_brute_force(seed):
    scores, gold = world(seed, candidates.FOLDS)  # as many items as folds: each is left out alone
    found = cheapest(scores, gold, rng=rng(seed))
    expected = brute(scores, gold, ALPHAS)
    assert found.bits == pytest.approx(expected)
    assert found.alpha == ALPHAS[int(np.argmin(np.round(expected, 9)))]
    assert found.n == candidates.FOLDS


def test_a_model_that_knows_nothing_saves_nothing_and_costs_nothing():
    draw = rng(1)
    scores, gold = lac(draw.dirichlet(np.ones(CLASSES), size=400)), draw.integers(CLASSES, size=400)
    assert cheapest(scores, gold, rng=draw).bits.min() <= math.log2(CLASSES) + 1e-9
    found = choose(scores, gold, rng=draw)
    assert found.saving.low <= 0.02
    assert found.saving.value == pytest.approx(0, abs=0.06)


def test_a_model_that_knows_everything_shows_one_class():
    gold = np.arange(400) % CLASSES
    found = choose(lac(np.eye(CLASSES)[gold]), gold, rng=rng())
    assert found.size == 1
    assert found.coverage.value == 1
    assert found.bits.value == 1  # right, or none of these
    assert found.saving.value == pytest.approx(1 - 1 / math.log2(CLASSES))


def test_alpha_can_be_held_to_what_is_promised():
    scores, gold = world(2, 300)
    free = choose(scores, gold, rng=rng())
    held = choose(scores, gold, rng=rng(), alphas=[0.05, 0.02])
    assert free.search.alpha > 0.05 >= held.search.alpha == held.thresholds.alpha
    assert held.size > free.size


def test_the_thresholds_rest_on_items_that_had_no_part_in_the_choice():
    scores, gold = world(3, 200)
    found = choose(scores, gold, rng=rng(7), share=0.25)
    order = rng(7).permutation(200)
    first, second = order[:50], order[50:]
    assert found.search.n == found.bits.n == found.coverage.n == 50
    assert found.thresholds.n == 150
    alone = thresholds(scores[second], gold[second], found.search.alpha)
    assert (found.thresholds.at == alone.at).all()
    # Other answers for the first part change alpha, the saving, and nothing else.
    other = gold.copy()
    other[first] = (other[first] + 1) % CLASSES
    moved = choose(scores, other, rng=rng(7), share=0.25)
    assert moved.search.alpha != found.search.alpha
    assert (moved.thresholds.at == thresholds(scores[second], gold[second], moved.search.alpha).at).all()


def test_it_works_by_class_and_with_adaptive_scores():
    draw = rng(4)
    gold = draw.integers(4, size=400)
    odds = np.exp(draw.normal(size=(400, 4)) + 3 * np.eye(4)[gold])
    scores = aps(odds / odds.sum(axis=1, keepdims=True), rng=draw)
    found = choose(scores, gold, rng=draw, by_class=True, alphas=[0.1])
    assert found.thresholds.own.all()
    assert found.coverage.value > 0.8
    assert found.size < 3


def test_it_tells_what_is_saved_and_held():
    found = choose(*world(5, 200), rng=rng(5))
    assert isinstance(found, Choice)
    text = found.told()
    assert f"{found.size:.1f} of {CLASSES} classes" in text
    assert f"{found.saving.value:.1%} less" in text
    assert f"of {found.coverage.n} items" in text


# --- what it promises, by simulation

POPULATION = 10_000
"""Items; the first thousand of them say what answers cost."""

TRIALS = 250


def published(scores, gold, alphas):
    """Alpha and threshold as in the published code: on the same items, and without the + 1."""
    right = scores[np.arange(len(gold)), gold]
    tried = []
    for alpha in alphas:
        at = np.quantile(right, 1 - alpha, method="higher")
        seen = shown(scores <= at)
        bits = cost(seen.sum(axis=1), seen[np.arange(len(gold)), gold], CLASSES)
        tried.append((bits.mean(), alpha, at))
    return min(tried)[1:]


@cache
def trials():
    """Choices from 40 items each: how far coverage is above the promise, ours and the published way's, and
    whether the interval holds the cost to come."""
    scores, gold = world(11, POPULATION)
    right = scores[np.arange(POPULATION), gold]
    draw, alphas = rng(12), np.round(np.arange(0.08, 0.5, 0.08), 2)
    above, above_published, inside = [], [], []
    for _ in range(TRIALS):
        rows = draw.integers(POPULATION, size=40)
        found = choose(scores[rows], gold[rows], rng=draw, alphas=alphas)
        n, fitted = found.thresholds.n, found.thresholds
        above.append((right <= fitted.at[0]).mean() - rank(n, fitted.alpha) / (n + 1))
        alpha, at = published(scores[rows], gold[rows], alphas)
        above_published.append((right <= at).mean() - (1 - alpha))
        seen = shown(fitted.sets(scores[:1000]))
        to_come = cost(seen.sum(axis=1), seen[np.arange(1000), gold[:1000]], CLASSES).mean()
        inside.append(found.bits.low <= to_come <= found.bits.high)
    return np.array(above), np.array(above_published), np.array(inside)


def deviations(gap):
    """How many standard errors the mean is from 0."""
    return gap.mean() / (gap.std() / math.sqrt(len(gap)))


def test_the_promise_holds_after_the_choice():
    """Coverage is what was promised at whichever alpha was chosen, on average over draws of the items."""
    assert abs(deviations(trials()[0])) < 4


def test_the_published_way_does_not_keep_the_promise():
    """A power check of the simulation: with the same items for both and no + 1, coverage falls short."""
    assert deviations(trials()[1]) < -4


def test_the_interval_of_the_cost_holds_it():
    """With 20 items to measure on, a 95 % interval holds the cost to come in at least 95 % of choices."""
    inside = trials()[2]
    assert stats.binomtest(int(inside.sum()), TRIALS, 0.95, alternative="less").pvalue > 1e-3


def test_a_plain_t_interval_would_be_too_short():
    """Misses are rare and dear: twenty answers without one say nothing of what a miss costs."""
    draw = rng(13)
    costs = np.where(draw.random((2000, 20)) < 0.03, 6.1, 2.0)
    mean = 0.03 * 6.1 + 0.97 * 2.0
    plain = stats.t(19).ppf(0.975) * costs.std(axis=1, ddof=1) / math.sqrt(20)
    assert (np.abs(costs.mean(axis=1) - mean) <= plain).mean() < 0.6
    ours = [mean_cost(row, CLASSES) for row in costs[:400]]
    assert np.mean([e.low <= mean <= e.high for e in ours]) >= 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cost([1], [True], 1), "nothing to choose"),
        (lambda: cost([4], [True], 3), r"0\.\.3"),
        (lambda: cheapest(*world(0, 1), rng=rng()), "Two items"),
        (lambda: cheapest(*world(0, 9), rng=rng(), alphas=[]), "At least one alpha"),
        (lambda: cheapest(*world(0, 9), rng=rng(), alphas=[1.0]), r"\[0, 1\)"),
        (lambda: choose(*world(0, 3), rng=rng()), "Four items"),
        (lambda: choose(*world(0, 9), rng=rng(), share=1.0), "strictly between"),
        (lambda: mean_cost([], 5), "at least one"),
        (lambda: mean_cost([1.0], 5, level=2), "strictly between"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
