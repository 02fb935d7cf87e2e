"""Watching for drift: false alarms over a whole sequence no more often than stated, and a fall is found."""

import doctest

import numpy as np
import pytest

from llmal.stats import watch
from llmal.stats.drift import class_shift, score_shift
from llmal.stats.watch import accuracy_alarm, level_of, looks_alarm, permutations_for, stream_alarm


def within(rate, level, runs):
    """Whether a rate of false alarms is the level or less, but for two standard errors of chance."""
    return rate <= level + 2 * np.sqrt(level * (1 - level) / runs)


def test_docstring_examples_hold():
    result = doctest.testmod(watch)
    assert result.attempted >= 5
    assert result.failed == 0


# --- repeated looks

ALPHA = 0.1
LOOKS = 8


def look_at(calibration, batch, rng):
    """P-values of one look: scores and classes of a batch against the calibration sample."""
    need = permutations_for(level_of(LOOKS, ALPHA, tests=2))
    return [
        test(old, new, rng=rng, permutations=need).p
        for test, old, new in zip((score_shift, class_shift), calibration, batch, strict=True)
    ]


def sample(rng, n, moved=0.0):
    return rng.normal(moved, size=n), rng.multinomial(n, [0.5, 0.3, 0.2])


def sequence(rng):
    """(LOOKS, 2) p-values without a change, every look against the same calibration sample."""
    calibration = sample(rng, 60)
    return np.array([look_at(calibration, sample(rng, 30), rng) for _ in range(LOOKS)])


@pytest.fixture(scope="module")
def unchanged():
    rng = np.random.default_rng(3)
    return np.array([sequence(rng) for _ in range(100)])


@pytest.mark.parametrize("looks", [None, LOOKS])
def test_all_looks_together_raise_a_false_alarm_as_rarely_as_stated(unchanged, looks):
    fired = [looks_alarm(p, alpha=ALPHA, looks=looks).at is not None for p in unchanged]
    assert within(np.mean(fired), ALPHA, len(fired))


def test_looking_again_at_an_uncorrected_level_would_not_keep_it(unchanged):
    """The broken version: each look at alpha, as if it were the only one."""
    fired = (unchanged <= ALPHA).any(axis=(1, 2))
    assert not within(fired.mean(), ALPHA, len(fired))
    assert fired.mean() > 3 * ALPHA


def test_a_shift_is_found_soon():
    rng = np.random.default_rng(8)
    found = []
    for _ in range(10):
        calibration, seen = sample(rng, 60), []
        for look in range(5):
            seen.append(look_at(calibration, sample(rng, 30, moved=1.4 * (look >= 3)), rng))
            if looks_alarm(seen, alpha=ALPHA).at is not None:
                break
        found.append(looks_alarm(seen, alpha=ALPHA).at)
    late = [at for at in found if at is None or at >= 3]
    assert len(late) >= 7
    assert sum(at is not None for at in late) >= 0.9 * len(late)


def test_levels_of_any_number_of_looks_sum_to_alpha_and_a_plan_shares_it_evenly():
    assert sum(3 * level_of(t, 0.05, tests=3) for t in range(1, 5000)) == pytest.approx(0.05, rel=1e-3)
    assert sum(level_of(t, 0.05, looks=7) for t in range(1, 8)) == pytest.approx(0.05)


def test_a_look_that_could_not_have_fired_is_told():
    p = [[1 / 1000]] * 8
    seen = looks_alarm(p, alpha=0.01, least=[[1 / 1000]] * 8)
    assert seen.at == 0
    assert looks_alarm([[0.5]] * 8, alpha=0.01, least=[[1 / 1000]] * 8).blind == 6
    assert permutations_for(level_of(8, 0.01)) >= 1 / level_of(8, 0.01)


# --- item by item


def streams(runs, moved=0.0, at=0, n=80, spread=1.0, rounded=False):
    rng = np.random.default_rng(4)
    out = []
    for _ in range(runs):
        old, new = rng.normal(size=100), rng.normal(size=n)
        new[at:] = spread * new[at:] + moved
        old, new = (x.round() if rounded else x for x in (old, new))
        out.append(stream_alarm(old, new, alpha=ALPHA, rng=rng).at)
    return out


@pytest.mark.parametrize("rounded", [False, True])
def test_a_stream_without_change_seldom_raises_an_alarm(rounded):
    found = streams(200, rounded=rounded)
    assert within(np.mean([at is not None for at in found]), ALPHA, len(found))


@pytest.mark.parametrize(("moved", "spread"), [(1.0, 1.0), (-1.0, 1.0), (0.0, 3.0), (0.0, 0.2)])
def test_a_stream_that_moves_or_spreads_raises_one(moved, spread):
    found = streams(30, moved=moved, spread=spread)
    assert np.mean([at is not None for at in found]) >= 0.9


def test_a_change_in_the_stream_is_found_after_it_came():
    found = streams(30, moved=2.0, at=30)
    assert np.mean([at is not None and at >= 30 for at in found]) >= 0.8


# --- people's answers to accepted items


def answers(runs, accuracy, n=300, at=0, before=0.95):
    rng = np.random.default_rng(6)
    share = np.where(np.arange(n) < at, before, accuracy)
    return rng.random((runs, n)) < share


@pytest.mark.parametrize("accuracy", [0.9, 0.93])
def test_accuracy_at_or_above_the_target_seldom_raises_an_alarm(accuracy):
    found = [accuracy_alarm(r, target=0.9, alpha=ALPHA).at for r in answers(200, accuracy)]
    assert within(np.mean([at is not None for at in found]), ALPHA, len(found))


def test_testing_after_every_answer_at_one_level_would_raise_many():
    """The broken version: an exact binomial test after every 20 answers, each at alpha."""
    from scipy.stats import binom

    right = answers(400, 0.9)
    looks = np.arange(20, 301, 20)
    p = binom.cdf(np.cumsum(right, axis=1)[:, looks - 1], looks, 0.9)
    assert not within((p <= ALPHA).any(axis=1).mean(), ALPHA, len(right))


def test_a_fall_is_found_also_after_a_long_good_time():
    early = [accuracy_alarm(r, target=0.9, alpha=ALPHA).at for r in answers(40, 0.75)]
    assert np.mean([at is not None for at in early]) >= 0.95
    late = [accuracy_alarm(r, target=0.9, alpha=ALPHA).at for r in answers(40, 0.7, n=500, at=300)]
    assert np.mean([at is not None and at >= 300 for at in late]) >= 0.9


@pytest.mark.parametrize("accuracy", [0.8, 0.9])
def test_the_capital_is_worth_no_more_on_average_than_it_was(accuracy):
    """What the rate of false alarms rests on, exactly: the mean over all sequences of seven answers."""
    every = np.array(np.meshgrid(*[[0, 1]] * 7)).reshape(7, -1).T
    chance = np.where(every, accuracy, 1 - accuracy).prod(axis=1)
    ends = np.array([accuracy_alarm(r, target=0.8, alpha=1e-9).path[-1] for r in every])
    assert chance.sum() == pytest.approx(1)
    if accuracy == 0.8:
        assert chance @ ends == pytest.approx(1)
    else:
        assert chance @ ends < 0.9


def test_the_path_does_not_depend_on_what_comes_later():
    right = answers(1, 0.8)[0]
    whole = accuracy_alarm(right, target=0.9, alpha=1e-9).path
    assert accuracy_alarm(right[:40], target=0.9, alpha=1e-9).path.tolist() == whole[:40].tolist()
    scores = np.random.default_rng(0).normal(size=60)
    paths = [
        stream_alarm(scores[:30], scores[30:end], alpha=1e-9, rng=np.random.default_rng(1)).path
        for end in (45, 60)
    ]
    assert paths[1][:15].tolist() == paths[0].tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: level_of(0, 0.05), "from 1"),
        (lambda: level_of(4, 0.05, looks=3), "looks"),
        (lambda: level_of(1, 0.05, tests=0), "tests"),
        (lambda: permutations_for(1.0), "level"),
        (lambda: looks_alarm([1.5]), r"\[0, 1\]"),
        (lambda: looks_alarm([0.5, 0.5], least=[0.1]), "least"),
        (lambda: stream_alarm([0.1], [np.inf], rng=np.random.default_rng(0)), "finite"),
        (lambda: stream_alarm([0.1], [0.1], alpha=0, rng=np.random.default_rng(0)), "alpha"),
        (lambda: accuracy_alarm([0.5], target=0.9), "0 and 1"),
        (lambda: accuracy_alarm([1], target=1.0), "target"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_seen_is_no_alarm():
    assert accuracy_alarm([], target=0.9).at is None
    assert stream_alarm([0.5], [], rng=np.random.default_rng(0)).at is None
    assert looks_alarm(np.zeros((0, 2))).at is None


@pytest.mark.slow
def test_false_alarms_over_a_thousand_long_sequences_stay_within_the_rate():
    streamed = streams(1000, n=300)
    judged = [accuracy_alarm(r, target=0.9, alpha=ALPHA).at for r in answers(1000, 0.9, n=1000)]
    for found in (streamed, judged):
        assert within(np.mean([at is not None for at in found]), ALPHA, len(found))
