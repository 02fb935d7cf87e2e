"""How long labelling takes: the literature's figures without times, the people's own pace with them."""

import numpy as np
import pytest
from scipy.optimize import minimize

from llmal.stats.reading_time import ENOUGH, LETTERS, Pace, fit

SLOW = Pace(start=6.0, word=0.05, bit=0.8)


def people(pace, n, seed, spread=0.5):
    """Times of people with this pace, the words of the texts, and how many labels were in sight."""
    draw = np.random.default_rng(seed)
    words = draw.lognormal(3, 0.8, n).round() + 1
    labels = np.where(draw.random(n) < 0.4, 3, 40)
    return pace.seconds(words, labels) * np.exp(spread * draw.normal(size=n)), words, labels


def test_without_times_it_is_what_the_literature_says():
    # 238 words in a minute (Brysbaert 2019), 1.63 s for a thought and a key (Card et al. 1980), 0.15 s a bit.
    assert Pace().seconds([238.0], 1) == pytest.approx(61.6)
    assert Pace().seconds([0.0], 16) == pytest.approx(1.6 + 0.6)
    assert round(LETTERS) == 6
    seconds, words, labels = people(SLOW, ENOUGH - 1, 0)
    assert fit(seconds, words, labels) == Pace()
    assert fit([], [], []) == Pace()


@pytest.mark.parametrize("truth", [SLOW, Pace(0.8, 0.5, 0.0), Pace(3.0, 0.12, 0.4), Pace()])
def test_with_enough_times_the_expected_time_of_a_text_is_near_the_real_one(truth):
    words, labels = np.array([5.0, 20.0, 60.0]), 40
    real = truth.seconds(words, labels) * np.exp(0.5**2 / 2)
    off = [fit(*people(truth, 1000, seed)).seconds(words, labels) / real - 1 for seed in range(30)]
    assert np.abs(np.mean(off, axis=0)).max() < 0.12
    assert np.abs(off).max() < 0.35
    # The prior alone would be far off for all of these people but the last.
    if truth != Pace():
        assert np.abs(Pace().seconds(words, labels) / real - 1).max() > 0.3


def test_a_few_pauses_of_an_hour_change_little():
    seconds, words, labels = people(SLOW, 400, 1)
    before = fit(seconds, words, labels).seconds(words, labels)
    seconds[:8] = 3600.0
    after = fit(seconds, words, labels).seconds(words, labels)
    assert np.abs(after / before - 1).max() < 0.15
    least_squares = np.linalg.lstsq(np.stack([np.ones(400), words], axis=1), seconds, rcond=None)[0]
    assert (np.stack([np.ones(400), words], axis=1) @ least_squares).mean() > 5 * before.mean()


def test_it_is_the_median_regression_that_an_independent_search_finds():
    seconds, words, _ = people(SLOW, 2000, 2)
    found = fit(seconds, words, 40)

    def error(logs):
        said = np.exp(logs[0]) + np.exp(logs[1]) * words
        return np.abs(np.log(seconds / said)).sum()

    other = np.exp(minimize(error, [0.0, -2.0], method="Nelder-Mead").x)
    for length in (3.0, 30.0, 100.0):
        typical = found.seconds([length], 40)[0] / found.mean
        assert typical == pytest.approx(other[0] + other[1] * length, rel=0.08)


def test_what_the_times_leave_open_stays_as_the_prior_has_it():
    """All had 40 labels in sight: a bit of choice still costs time, and more labels still take longer."""
    seconds, words, _ = people(Pace(start=3.2, word=0.5, bit=0.3), 300, 3)
    found = fit(seconds, words, 40)
    assert 0.1 < found.bit < 0.8
    assert found.seconds([10.0], 64) > found.seconds([10.0], 2)


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), 1e300, -1.0, 5e-324])
def test_times_that_no_clock_showed_do_no_harm(odd):
    seconds, words, labels = people(SLOW, 200, 4)
    before = fit(seconds, words, labels).seconds(words, labels)
    seconds[::20] = odd
    after = fit(seconds, words, labels).seconds(words, labels)
    assert np.abs(after / before - 1).max() < 0.5
    assert np.isfinite(fit(np.full(200, odd), words, labels)).all()


def test_times_of_zero_and_times_that_do_not_grow_with_length_break_nothing():
    words = np.linspace(1, 100, 60)
    same = fit(np.full(60, 5.0), words, 2)
    assert same.word >= 0
    assert np.isfinite(same).all()
    assert np.abs(same.seconds(words, 2) - 5.0).max() < 1.0
    assert fit(np.zeros(60), words, 2) == Pace()
    assert (fit(np.full(60, 1e-4), words, 1).seconds([0.0, 1e6], 1) > 0).all()
    falling = fit(10 - words / 20, words, 2)
    assert min(falling[:3]) >= 0
    assert falling.seconds([50.0], 2)[0] == pytest.approx(7.5, rel=0.3)
