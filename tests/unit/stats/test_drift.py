"""Drift tests: p-values that keep their level in small samples and with ties, and find a planted shift."""

import doctest

import numpy as np
import pytest
from scipy import stats

from llmal.stats import drift
from llmal.stats.drift import class_shift, embedding_shift, score_shift


def within(rate, level, runs):
    """Whether a rate of false alarms is the level or less, but for two standard errors of chance."""
    return rate <= level + 2 * np.sqrt(level * (1 - level) / runs)


def test_docstring_examples_hold():
    result = doctest.testmod(drift)
    assert result.attempted >= 4
    assert result.failed == 0


# --- against other implementations


@pytest.mark.parametrize("moved", [0.0, 0.4, 0.8])
def test_gap_and_p_of_scores_match_scipy(moved):
    rng = np.random.default_rng(5)
    old, new = rng.normal(size=60), rng.normal(moved, size=35)
    theirs = stats.ks_2samp(old, new, method="exact")
    ours = score_shift(old, new, rng=rng, permutations=19_999)
    assert ours.statistic == pytest.approx(theirs.statistic)
    # Ended after 20 extreme draws, the p-value is known to about a fifth of itself; 4 standard errors.
    assert ours.p == pytest.approx(theirs.pvalue, rel=4 / np.sqrt(drift.ENOUGH))


@pytest.mark.parametrize(("old", "new"), [([30, 10], [5, 9]), ([40, 3], [12, 3]), ([8, 1], [1, 7])])
def test_two_classes_match_the_exact_chance_of_such_tables(old, new):
    ours = class_shift(old, new, rng=np.random.default_rng(0), permutations=19_999).p
    # Exact: the chance of tables with the same margins whose chi-square is at least as large.
    both = np.add(old, new)
    support = np.arange(sum(new) + 1)
    chance = stats.hypergeom(sum(both), both[0], sum(new)).pmf(support)
    far = np.abs(support - sum(new) * both[0] / sum(both))
    exact = chance[far >= far[new[0]] - 1e-9].sum()
    assert ours == pytest.approx(exact, rel=4 / np.sqrt(drift.ENOUGH))


def test_statistic_of_classes_is_pearsons():
    old, new = [30, 20, 5, 0], [10, 25, 5, 0]
    ours = class_shift(old, new, rng=np.random.default_rng(0))
    theirs = stats.chi2_contingency([old[:3], new[:3]], correction=False)
    assert ours.statistic == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, rel=0.8)


def test_discrepancy_is_the_mean_kernel_within_minus_the_one_across():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(8, 3)), rng.normal(1, 1, size=(5, 3))
    pooled = np.concatenate([old, new])
    apart = ((pooled[:, None] - pooled) ** 2).sum(axis=2)
    kernel = np.exp(-apart / np.median(apart[np.triu_indices(13, 1)]))
    expected = kernel[:8, :8].mean() + kernel[8:, 8:].mean() - 2 * kernel[:8, 8:].mean()
    assert embedding_shift(old, new, rng=rng).statistic == pytest.approx(expected)


# --- level and power

RUNS = 250


def scores(rng, n, moved):
    return np.clip(rng.normal(0.8 - moved, 0.15, size=n), 0, 1)


def tied(rng, n, moved):
    # What models say of themselves: a few round numbers.
    return rng.choice(
        [0.7, 0.8, 0.9, 0.95], size=n, p=np.array([1, 2, 4, 3]) / 10 + moved * np.array([2, 1, -1, -2])
    )


def classes(rng, n, moved):
    # The last two are rare: often none is in a batch of 40.
    return rng.multinomial(n, np.array([0.6, 0.36, 0.03, 0.01]) + moved * np.array([-1, 0.2, 0.7, 0.1]))


def vectors(rng, n, moved):
    return rng.normal(size=(n, 20)) + moved * np.eye(20)[0]


TESTS = {
    "scores": (score_shift, scores, 0.15),
    "tied scores": (score_shift, tied, 0.1),
    "classes": (class_shift, classes, 0.3),
    "vectors": (embedding_shift, vectors, 1.5),
}


def p_values(name, moved, runs=RUNS, permutations=199):
    test, draw, _ = TESTS[name]
    rng = np.random.default_rng(1)
    return np.array(
        [
            test(draw(rng, 100, 0.0), draw(rng, 40, moved), rng=rng, permutations=permutations).p
            for _ in range(runs)
        ]
    )


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_without_a_shift_a_small_p_is_as_rare_as_it_says(name, level):
    found = p_values_without_a_shift(name)
    assert within((found <= level).mean(), level, RUNS)


_SEEN = {}


def p_values_without_a_shift(name):
    if name not in _SEEN:
        _SEEN[name] = p_values(name, 0.0)
    return _SEEN[name]


@pytest.mark.parametrize("name", TESTS)
def test_the_level_is_used_not_just_kept(name):
    """A test that never fires would keep any level; most of it is used."""
    assert (p_values_without_a_shift(name) <= 0.2).mean() > 0.1


@pytest.mark.parametrize("name", TESTS)
def test_a_planted_shift_is_found(name):
    assert (p_values(name, TESTS[name][2], runs=50) <= 0.05).mean() >= 0.9


def test_chi_square_by_its_textbook_curve_would_break_its_level_in_small_counts():
    """What the drawn tables are for: at level 0.01 the asymptotic test fires too often in this world."""
    rng = np.random.default_rng(2)
    old, new = (rng.multinomial(n, [0.96] + [0.005] * 8, size=2000) for n in (500, 30))
    both = old + new
    share = both / 530
    square = np.where(both > 0, (new - 30 * share) ** 2 / np.where(both > 0, share, 1), 0).sum(axis=1)
    fired = stats.chi2.sf(square * (1 / 30 + 1 / 500), (both > 0).sum(axis=1) - 1) <= 0.01
    assert not within(fired.mean(), 0.01, 2000)
    ours = [class_shift(a, b, rng=rng, permutations=199).p for a, b in zip(old[:250], new[:250], strict=True)]
    assert within(np.mean(np.array(ours) <= 0.01), 0.01, 250)


# --- edges


def test_equal_sides_and_single_classes_show_nothing():
    rng = np.random.default_rng(0)
    assert score_shift([0.9] * 30, [0.9] * 10, rng=rng).p == 1
    assert class_shift([30, 0], [10, 0], rng=rng).p == 1
    assert embedding_shift(np.ones((30, 4)), np.ones((10, 4)), rng=rng).p == 1


def test_the_least_p_is_told_and_reached():
    seen = score_shift(np.zeros(50), np.ones(50), rng=np.random.default_rng(0), permutations=99)
    assert seen.p == seen.least == 0.01


def test_the_same_state_gives_the_same_p_and_large_sides_are_thinned():
    old, new = (
        np.random.default_rng(1).normal(size=(5000, 8)),
        np.random.default_rng(2).normal(size=(3000, 8)),
    )
    one, two = (embedding_shift(old, new, rng=np.random.default_rng(7), most=100) for _ in range(2))
    assert one == two
    assert embedding_shift(old, new + 1, rng=np.random.default_rng(7), most=100).p <= 0.001


@pytest.mark.parametrize(
    ("test", "old", "new", "message"),
    [
        (score_shift, [], [0.5], "at least one"),
        (score_shift, [0.5], [np.nan], "finite"),
        (score_shift, [[0.5]], [0.5], r"\(n,\)"),
        (class_shift, [1, 2], [1, 2, 3], "alike"),
        (class_shift, [1, 2], [0, 0], "at least one"),
        (class_shift, [1, -2], [1, 1], "counts"),
        (class_shift, [0.5, 0.5], [1, 1], "counts"),
        (embedding_shift, np.ones((3, 2)), np.ones((3, 4)), r"\(n, d\)"),
    ],
)
def test_what_makes_no_sense_is_refused(test, old, new, message):
    with pytest.raises(ValueError, match=message):
        test(old, new, rng=np.random.default_rng(0))


def test_a_test_needs_permutations():
    with pytest.raises(ValueError, match="permutations"):
        score_shift([0.5], [0.5], rng=np.random.default_rng(0), permutations=0)
    with pytest.raises(ValueError, match="most"):
        embedding_shift(np.ones((3, 2)), np.ones((3, 2)), rng=np.random.default_rng(0), most=1)
