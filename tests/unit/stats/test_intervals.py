"""Intervals: published values, scipy, and above all coverage."""

import doctest
import inspect
from functools import cache, partial
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from llmal.stats import intervals
from llmal.stats.agreement import cohen_kappa, macro_f1
from llmal.stats.intervals import bootstrap, clopper_pearson, wilson

# Newcombe 1998, table I, methods 3 and 5.
NEWCOMBE = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]


def test_docstring_examples_hold():
    result = doctest.testmod(intervals)
    assert result.attempted >= 3
    assert result.failed == 0


# --- shares


@pytest.mark.parametrize(("successes", "n", "score", "exact"), NEWCOMBE)
def test_shares_match_the_published_table(successes, n, score, exact):
    assert wilson(successes, n)[1:3] == pytest.approx(score, abs=6e-5)
    assert clopper_pearson(successes, n)[1:3] == pytest.approx(exact, abs=6e-5)


@pytest.mark.parametrize(("successes", "n", "upper"), [(3, 200, 0.038310), (0, 100, 0.029513)])
def test_one_sided_bound_is_the_end_of_a_two_sided_interval(successes, n, upper):
    # A one-sided 95% bound leaves 5% above, as the upper end of a two-sided 90% interval does.
    assert clopper_pearson(successes, n, level=0.9).high == pytest.approx(upper, abs=1e-6)


@pytest.mark.parametrize(("interval", "method"), [(wilson, "wilson"), (clopper_pearson, "exact")])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_shares_match_scipy(interval, method, level):
    for n in (1, 7, 50):
        for successes in range(n + 1):
            theirs = stats.binomtest(successes, n).proportion_ci(level, method=method)
            ours = interval(successes, n, level=level)
            assert ours[1:3] == pytest.approx((theirs.low, theirs.high), abs=1e-9)
            assert ours.value == successes / n
            assert ours.n == n


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_share_ends_are_exact_and_mirrored(interval):
    assert interval(0, 9).low == 0.0
    assert interval(9, 9).high == 1.0
    assert interval(2, 9).low == pytest.approx(1 - interval(7, 9).high)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@pytest.mark.parametrize(
    ("successes", "n", "level", "message"),
    [
        (0, 0, 0.95, "at least one item"),
        (4, 3, 0.95, r"0\.\.3"),
        (-1, 3, 0.95, r"0\.\.3"),
        (1, 3, 1.0, "strictly between"),
        (1, 3, 95, "strictly between"),
    ],
)
def test_shares_refuse_what_is_no_share(interval, successes, n, level, message):
    with pytest.raises(ValueError, match=message):
        interval(successes, n, level=level)


def share_coverage(interval, n, shares, level=0.95):
    """Probability of covering each true share: all n + 1 outcomes weighted, so no simulation noise."""
    ends = [interval(k, n, level=level) for k in range(n + 1)]
    low, high = (np.array([[e[i]] for e in ends]) for i in (1, 2))
    weights = stats.binom.pmf(np.arange(n + 1)[:, None], n, shares)
    return (weights * ((low <= shares) & (shares <= high))).sum(axis=0)


def covers_at_least_its_level(coverage):
    return coverage.min() >= 0.95


def covers_its_level_on_average(coverage):
    return abs(coverage.mean() - 0.95) < 0.008 and coverage.min() > 0.915


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize(
    ("interval", "holds"),
    [(wilson, covers_its_level_on_average), (clopper_pearson, covers_at_least_its_level)],
)
def test_shares_cover(interval, holds, n):
    shares = np.linspace(0.05, 0.95, 2001)
    assert holds(share_coverage(interval, n, shares))
    assert not holds(share_coverage(interval, n, shares, level=0.9)), "the check has no power"


@pytest.mark.parametrize("n", [30, 100])
def test_exact_interval_covers_where_wilson_does_not(n):
    shares = np.linspace(0.0005, 0.05, 500)
    assert share_coverage(clopper_pearson, n, shares).min() >= 0.95
    assert 0.83 < share_coverage(wilson, n, shares).min() < 0.85  # the number in its docstring


# --- bootstrap

# Gold classes 0, 1, 2 with these shares; a prediction is right with 0.75, else one of the two others.
SHARES = np.array([0.5, 0.3, 0.2])
JOINT = SHARES[:, None] * np.where(np.eye(3, dtype=bool), 0.75, 0.125)
N_SAMPLES = 200


def population_value(measure):
    # 400 copies of every cell's share are whole items, so the measure of this list is the population's.
    cells = np.rint(JOINT.ravel() * 400).astype(int)
    assert cells.sum() == 400
    codes = np.repeat(np.arange(9), cells)
    return measure(codes // 3, codes % 3, 3)


@cache
def intervals_of_samples(measure, n):
    def statistic(gold, predicted):
        return measure(gold, predicted, 3)

    estimates = []
    for seed in range(N_SAMPLES):
        rng = np.random.default_rng(seed)
        codes = rng.choice(9, size=n, p=JOINT.ravel())
        estimates.append(bootstrap(statistic, codes // 3, codes % 3, rng=rng, resamples=149))
    return np.array([estimate[:3] for estimate in estimates])


def coverage(measure, n, width=1.0):
    """Share of samples whose interval, shrunk around its value to this part of its width, holds the truth."""
    value, low, high = intervals_of_samples(measure, n).T
    truth = population_value(measure)
    return np.mean((value - width * (value - low) <= truth) & (truth <= value + width * (high - value)))


# 200 samples at coverage 0.95 have a standard deviation of 0.015; 0.91 is 2.6 of them below.
LEAST_COVERAGE = 0.91


@pytest.mark.parametrize("measure", [macro_f1, cohen_kappa])
@pytest.mark.parametrize("n", [30, 100])
def test_bootstrap_covers(measure, n):
    assert LEAST_COVERAGE <= coverage(measure, n) <= 0.99
    assert coverage(measure, n, width=0.6) < LEAST_COVERAGE, "the check has no power"


def test_bootstrap_matches_scipy_bca_at_the_widened_level():
    # Skewed, so that bias and acceleration both matter: a plain percentile interval is told apart below.
    n, resamples = 40, 4000
    sample = np.random.default_rng(3).exponential(size=n) ** 2
    z = np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)
    level = 2 * NormalDist().cdf(z) - 1
    scipy_interval = partial(
        stats.bootstrap, (sample,), np.mean, confidence_level=level, n_resamples=resamples, axis=-1
    )
    theirs = scipy_interval(method="BCa", rng=np.random.default_rng(0)).confidence_interval
    percentile = scipy_interval(method="percentile", rng=np.random.default_rng(0)).confidence_interval
    ours = bootstrap(np.mean, sample, rng=np.random.default_rng(1), resamples=resamples)
    noise = 0.06 * (theirs.high - theirs.low)
    assert ours[1:3] == pytest.approx((theirs.low, theirs.high), abs=noise)
    assert percentile.high < theirs.high - noise, "the check has no power"


def test_widened_tails_are_wider_at_small_n_only():
    widened = intervals._widened_z
    assert widened(0.95, 30) == pytest.approx(2.0802, abs=1e-4)  # sqrt(30 / 29) * 2.0452 of a t table
    assert widened(0.95, 10**6) == pytest.approx(1.95996, abs=1e-4)


def test_bca_tails_by_hand():
    # 30 of 100 draws lie below and 20 tie: p = 0.4, bias = -0.2533. Ends -0.2533 -+ 2, acceleration 0.1:
    # -0.2533 - 2.2533 / 1.22533 = -2.0923 and -0.2533 + 1.7467 / 0.82533 = 1.8630.
    draws = np.repeat([0.0, 1.0, 2.0], [30, 20, 50])
    tails = intervals._bca_tails(1.0, draws, 0.1, 2.0)
    assert tails == pytest.approx((stats.norm.cdf(-2.0923), stats.norm.cdf(1.8630)), abs=1e-5)


@pytest.mark.parametrize(("acceleration", "end", "expected"), [(0.5, 1, 1.0), (-0.5, 0, 0.0)])
def test_bca_tails_end_at_the_pole(acceleration, end, expected):
    # 1 -+ 0.5 * 2.5 is negative: beyond the pole the formula would return the other tail.
    draws = np.array([0.0, 2.0] * 50)
    assert intervals._bca_tails(1.0, draws, acceleration, 2.5)[end] == expected


def test_rows_of_all_arrays_move_together():
    tags = np.arange(40)
    seen = []

    def statistic(a, b, c):
        seen.append(set(a.tolist()))
        assert (a == b).all()
        assert (c == np.stack([a, -a], axis=1)).all()
        return a.mean()

    bootstrap(
        statistic, tags, tags, np.stack([tags, -tags], axis=1), rng=np.random.default_rng(0), resamples=40
    )
    assert len(seen[0]) == 40
    assert all(len(rows) < 40 for rows in seen[1:])


def test_the_rng_decides_and_level_widens():
    sample = np.random.default_rng(5).normal(size=30)
    first, same, other = (
        bootstrap(np.mean, sample, rng=np.random.default_rng(seed), resamples=200) for seed in (1, 1, 2)
    )
    assert first == same
    assert first[1:3] != other[1:3]
    wide = bootstrap(np.mean, sample, rng=np.random.default_rng(1), resamples=200, level=0.99)
    assert wide.low < first.low < first.value < first.high < wide.high
    assert first.value == pytest.approx(sample.mean())
    assert first.n == 30


def test_undefined_resamples_are_left_out():
    # A resample without the last row (about 0.37 of them) is undefined; the others have the value at least 1.
    sample = np.array([0.0] * 29 + [1.0])

    def statistic(rows):
        return rows.sum() if rows.any() else np.nan

    estimate = bootstrap(statistic, sample, rng=np.random.default_rng(0), resamples=400)
    assert estimate.low == 1.0
    assert 2 <= estimate.high <= 6


def test_mostly_undefined_is_refused():
    sample = np.arange(30)

    def needs_two_rows(rows):
        return 1.0 if {0, 1} <= set(rows.tolist()) else np.inf  # defined on (1 - 1 / e)^2 = 0.40 of resamples

    with pytest.raises(ValueError, match=r"undefined on \d+ of 400 resamples"):
        bootstrap(needs_two_rows, sample, rng=np.random.default_rng(0), resamples=400)
    with pytest.raises(ValueError, match="undefined on the whole sample"):
        bootstrap(lambda rows: np.nan, sample, rng=np.random.default_rng(0))


def test_no_variation_gives_width_zero():
    classes = np.arange(30) % 3
    estimate = bootstrap(
        lambda g, p: macro_f1(g, p, 3), classes, classes, rng=np.random.default_rng(0), resamples=100
    )
    assert estimate == (1.0, 1.0, 1.0, 30)


def test_the_value_lies_within_its_interval_though_the_statistic_is_biased():
    # Every resample repeats rows, so the share of distinct rows is always below that of the sample.
    estimate = bootstrap(
        lambda rows: len(np.unique(rows)) / len(rows),
        np.arange(30),
        rng=np.random.default_rng(0),
        resamples=100,
    )
    assert estimate.low < estimate.value == estimate.high == 1.0


def test_jackknife_of_many_rows_is_grouped():
    calls = 0

    def statistic(rows):
        nonlocal calls
        calls += 1
        return rows.mean()

    estimate = bootstrap(
        statistic,
        np.random.default_rng(0).exponential(size=2500),
        rng=np.random.default_rng(0),
        resamples=200,
    )
    assert calls == 1 + 200 + 1000
    assert estimate.low < estimate.value < estimate.high


def test_grouped_acceleration_is_close_to_the_whole_one(monkeypatch):
    # Sorted: neighbours left out together would overstate the skewness by the root of the group size.
    sample = np.sort(np.random.default_rng(0).exponential(size=900) ** 2)
    whole = intervals._acceleration(np.mean, [sample], np.random.default_rng(0))
    monkeypatch.setattr(intervals, "_MAX_JACKKNIFE_GROUPS", 300)
    grouped = intervals._acceleration(np.mean, [sample], np.random.default_rng(0))
    deviation = sample - sample.mean()
    by_hand = (deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5)  # Efron 1987, for a mean
    assert whole == pytest.approx(by_hand, rel=1e-6)
    assert grouped == pytest.approx(by_hand, rel=0.25)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((), {}, "at least one array"),
        (([],), {}, "at least two rows, got 0"),
        (([1],), {}, "at least two rows, got 1"),
        (([1, 2], [1, 2, 3]), {}, r"\[2, 3\] rows"),
        (([1, 2],), {"level": 0.0}, "strictly between"),
        (([1, 2],), {"resamples": 39}, "39 resamples"),
        (([1, 2],), {"resamples": 100, "level": 0.99}, "100 resamples"),
    ],
)
def test_bootstrap_refuses(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(lambda *columns: 0.0, *arrays, rng=np.random.default_rng(0), **options)


def test_bootstrap_takes_the_least_count_that_fills_both_tails():
    assert bootstrap(np.mean, [1, 2], rng=np.random.default_rng(0), resamples=40).value == 1.5


def test_imports_only_numpy_at_module_top():
    # Start-up must not pay for scipy: only two of the functions need it.
    top = [
        line for line in inspect.getsource(intervals).splitlines() if line.startswith(("import ", "from "))
    ]
    assert top
    assert not [line for line in top if "scipy" in line or "llmal" in line]
