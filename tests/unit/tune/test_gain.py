"""The gain of a prompt: its interval covers, and the rule keeps no more useless prompts than it promises."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from llmal.records import Annotation
from llmal.tune.gain import difference, kept, paired, score


def likeliest(fixed, caused, n, delta):
    """Share of `caused` that makes the counts likeliest under a difference, found by search."""

    def unlikely(q):
        shares = (q + delta, q, 1 - 2 * q - delta)
        counts = (fixed, caused, n - fixed - caused)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True))

    low, high = max(0.0, -delta), (1 - delta) / 2
    return minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x


def tango(fixed, caused, n, z=1.959963984540054):
    """Tango's interval from its definition: score statistic at the restricted maximum of the likelihood."""

    def statistic(delta):
        q = likeliest(fixed, caused, n, delta)
        return (fixed - caused - n * delta) / math.sqrt(max(n * (2 * q + delta * (1 - delta)), 1e-30))

    point = (fixed - caused) / n
    low = brentq(lambda d: statistic(d) - z, -1 + 1e-9, point - 1e-9)
    high = brentq(lambda d: statistic(d) + z, point + 1e-9, 1 - 1e-9)
    return low, high


@pytest.mark.parametrize(("fixed", "caused", "n"), [(20, 3, 100), (12, 9, 50), (30, 10, 60), (2, 25, 80)])
def test_the_interval_is_tangos(fixed, caused, n):
    assert difference(fixed, caused, n) == pytest.approx(tango(fixed, caused, n), abs=1e-5)


def test_swapping_the_prompts_mirrors_the_interval():
    for fixed, caused, n in ((0, 0, 50), (5, 0, 50), (7, 3, 20), (20, 20, 40)):
        low, high = difference(fixed, caused, n)
        assert difference(caused, fixed, n) == pytest.approx((-high, -low), abs=1e-9)
        assert -1 <= low <= (fixed - caused) / n <= high <= 1


def test_few_changes_prove_nothing_whatever_the_approximation_says():
    """Four fixed and none broken is a coin that fell heads four times: 1 in 16."""
    assert difference(4, 0, 100)[0] == 0.0
    assert difference(5, 0, 100)[0] == 0.0
    assert difference(6, 0, 100)[0] > 0.0


@pytest.mark.parametrize("counts", [(1, 0, 0), (-1, 2, 10), (6, 5, 10)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="cannot be"):
        difference(*counts)


WORLDS = [(0.1, 0.1), (0.02, 0.02), (0.2, 0.05), (0.05, 0.15), (0.3, 0.3), (0.4, 0.02)]
"""Shares of items a new prompt fixes and breaks."""


@pytest.mark.parametrize(("up", "down"), WORLDS)
@pytest.mark.parametrize("n", [50, 150])
def test_the_interval_covers(up, down, n):
    rng = np.random.default_rng([int(100 * up), int(100 * down), n])
    drawn = rng.multinomial(n, [up, down, 1 - up - down], size=1500)
    inside = [low <= up - down <= high for low, high in (difference(f, c, n) for f, c, _ in drawn.tolist())]
    assert np.mean(inside) > 0.935  # 0.95 less three standard errors of 1,500 draws


def test_without_the_pairing_the_interval_would_not_cover():
    """Power check: an interval that takes every change for a fix misses the truth nearly always."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(150, [0.1, 0.1, 0.8], size=300)
    assert np.mean([low <= 0 <= high for low, high in (difference(f + c, 0, 150) for f, c, _ in drawn)]) < 0.1


def world(rng, n, accuracy, candidates, up, down):
    """Right or wrong under the old prompt, and under candidates that fix and break at random."""
    old = rng.random(n) < accuracy
    new = [np.where(old, rng.random(n) >= down, rng.random(n) < up) for _ in range(candidates)]
    return old.astype(float).tolist(), [x.astype(float).tolist() for x in new]


def decided(seed, *, rule="positive", judge="report", candidates=6, up=0.28, down=0.12, n=60):
    """Whether a prompt is kept: the best of some on the validation answers, judged on the report answers.

    With accuracy 0.7, breaking 0.12 of right answers and fixing 0.28 of wrong ones leaves it as it is.
    """
    rng = np.random.default_rng(seed)
    old, new = world(rng, n, 0.7, candidates, up, down)
    found = [paired(old, x) for x in new]
    validate = max(found, key=lambda g: g.value)
    old, (again, *_) = world(rng, n, 0.7, 1, up, down)
    report = paired(old, again) if judge == "report" else validate
    return kept(validate, report, rule)


SEEDS = range(600)
SPARE = 3 * math.sqrt(0.25 / len(SEEDS))


def test_optimisers_that_add_nothing_are_kept_no_more_often_than_promised():
    assert np.mean([decided(seed) for seed in SEEDS]) <= 0.5 + SPARE
    assert np.mean([decided(seed, rule="certain") for seed in SEEDS]) <= 0.025 + 3 * math.sqrt(0.025 / 600)


def test_judging_on_the_answers_they_were_chosen_on_breaks_the_promise():
    """Power check: the best of six on its own answers looks better nearly always."""
    assert np.mean([decided(seed, judge="validate") for seed in SEEDS]) > 0.8
    certain = [decided(seed, judge="validate", rule="certain", candidates=20) for seed in SEEDS]
    assert np.mean(certain) > 0.12


def test_a_prompt_that_harms_is_hardly_ever_kept_and_one_that_helps_mostly():
    harm = [decided(seed, up=0.05, down=0.25, n=100) for seed in range(200)]
    helps = [decided(seed, rule="certain", up=0.7, down=0.05, n=100) for seed in range(200)]
    assert np.mean(harm) < 0.02
    assert np.mean(helps) > 0.8


def test_failed_calls_leave_the_item_out_on_both_sides():
    made = paired([1.0, None, 0.0, 0.0, 1.0], [1.0, 1.0, None, 1.0, 0.0])
    assert (made.n, made.fixed, made.caused, made.value) == (3, 1, 1, 0.0)
    with pytest.raises(ValueError, match="No item"):
        paired([None], [1.0])
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1.0], [1.0, 0.0])


def test_half_credits_get_a_bootstrap_and_whole_ones_do_not():
    rng = np.random.default_rng(0)
    before = rng.choice([0.0, 0.5, 1.0], 80).tolist()
    after = [min(1.0, x + 0.5) for x in before]
    made = paired(before, after, rng=rng)
    assert 0 < made.low < made.value < made.high < 0.5
    whole = paired([0.0] * 10 + [1.0] * 40, [1.0] * 50)
    assert (whole.low, whole.high) == difference(10, 0, 50)
    assert paired([0.5], [1.0]).low == -1.0


def test_declining_is_wrong_unless_it_is_given_a_worth():
    declined = Annotation(0, "abstained")
    assert score(declined, ("bug",)) == 0.0
    assert score(declined, ("bug",), abstained=0.5) == 0.5
    assert score(Annotation(0, "ok", ("bug",)), ("bug",)) == 1.0
    assert score(Annotation(0, "ok", ("billing",)), ("bug",)) == 0.0
    assert score(Annotation(0, "off_list"), ()) == 0.0
    assert score(Annotation(0, "failed"), ("bug",)) is None
