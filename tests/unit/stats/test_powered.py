"""Prediction-powered estimates: published numbers, coverage from 30 answers on, no harm from a bad LLM."""

import doctest

import numpy as np
import pytest

from llmal.stats import powered, powered_quality
from llmal.stats.intervals import wilson
from llmal.stats.powered import mean, share
from llmal.stats.powered_quality import accuracy, per_class, prevalence

REST = 1000


@pytest.mark.parametrize("module", [powered, powered_quality])
def test_docstring_examples_hold(module):
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0


# --- golden values: ppi-python 0.2.3, ppi_mean_pointestimate and ppi_mean_ci, run once on 2026-11-21


def waves():
    """40 values, the machine's, and the machine's of 160 further items."""
    few, many = np.arange(40), np.arange(40, 200)
    return np.sin(1.3 * few) + 0.3 * np.cos(2.1 * few) + 1, np.sin(1.3 * few) + 0.9, np.sin(1.3 * many) + 0.9


def yes_no():
    few, many = np.arange(40), np.arange(40, 200)
    gold = np.sin(1.3 * few) + 0.4 * np.cos(2.1 * few) > 0.2
    return gold, np.sin(1.3 * few) > 0.1, np.sin(1.3 * many) > 0.1


def eight():
    return [1, 0, 1, 1, 0, 1, 0, 1], [1, 0, 1, 0, 0, 1, 1, 1], [1] * 14 + [0] * 10


GOLDEN = [
    (waves, None, 0.95, (1.0119261711705327, 0.8933487770876801, 1.1305035652533855)),
    (waves, 0, 0.95, (1.014667384527496, 0.787598192115189, 1.241736576939803)),
    (waves, 0.5, 0.95, (1.0129121649826152, 0.8740940413165229, 1.1517302886487073)),
    (waves, 1, 0.95, (1.011156945437734, 0.8828813856126909, 1.1394325052627772)),
    (yes_no, None, 0.95, (0.4380492443198879, 0.33093651751595426, 0.5451619711238215)),
    (yes_no, 1, 0.95, (0.43125, 0.3073250445739038, 0.5551749554260963)),
    (eight, None, 0.9, (0.61127277, 0.35345821, 0.86908734)),
    (eight, 0, 0.9, (0.625, 0.34346143, 0.90653857)),
    (eight, 1, 0.9, (0.58333333, 0.24874684, 0.91791983)),
]


@pytest.mark.parametrize(("data", "lam", "level", "expected"), GOLDEN)
def test_estimate_and_interval_are_those_of_ppi_python(data, lam, level, expected):
    found = mean(*data(), lam=lam, level=level, interval="normal")
    assert found[:3] == pytest.approx(expected, abs=1e-8)


def test_trust_in_the_machine_is_the_published_one():
    assert mean(*eight()).lam == pytest.approx(0.329453, abs=1e-6)


def test_weighted_estimate_is_that_of_ppi_python():
    gold, machine, rest = waves()
    weights = 1 + 0.5 * np.sin(0.9 * np.arange(40))
    assert mean(gold, machine, rest, weights=weights, lam=0.5).value == pytest.approx(1.0100481091942426)


# --- coverage, and the power of the check


def binary(rng, n, common, right):
    gold = rng.random(n + REST) < common
    said = np.where(rng.random(n + REST) < right, gold, ~gold)
    return gold[:n], said[:n], said[n:]


def covered(interval, n, worlds, seeds=100):
    """Share of intervals that hold the true share, the mean over worlds of (share, LLM right)."""
    hits = []
    for common, right in worlds:
        for seed in range(seeds):
            found = interval(*binary(np.random.default_rng(seed), n, common, right))
            hits.append(found.low <= common <= found.high)
    return float(np.mean(hits))


WORLDS = [(0.1, 0.9), (0.3, 0.75), (0.3, 0.9), (0.5, 0.9), (0.8, 0.9), (0.8, 0.75)]


@pytest.mark.parametrize("n", [30, 100])
def test_share_covers_its_level(n):
    assert 0.93 <= covered(share, n, WORLDS) <= 0.98


def test_the_published_interval_covers_too_little_at_thirty_and_the_check_sees_it():
    assert covered(lambda *data: mean(*data, interval="normal"), 30, WORLDS) < 0.91


@pytest.mark.parametrize("factor", [0.5, 0.7])
def test_a_variance_that_is_too_small_is_seen(monkeypatch, factor):
    real = powered._variance
    monkeypatch.setattr(powered, "_variance", lambda values, shares: factor * real(values, shares))
    assert covered(share, 100, WORLDS) < 0.93


def test_a_disagreement_that_was_not_seen_still_widens_the_interval():
    gold = [1] * 15 + [0] * 15
    found = share(gold, gold, [1, 0] * 500)
    assert found.high - found.low > 0.1
    plain = mean(gold, gold, [1, 0] * 500, interval="normal")
    assert found.high - found.low > 1.5 * (plain.high - plain.low)


@pytest.mark.parametrize("n", [30, 100, 300])
def test_an_llm_that_is_right_nine_times_in_ten_saves_a_fifth_of_the_width(n):
    ours, alone = [], []
    for seed in range(60):
        gold, said, rest = binary(np.random.default_rng(seed), n, 0.4, 0.9)
        found, people = share(gold, said, rest), wilson(int(gold.sum()), n)
        ours.append(found.high - found.low)
        alone.append(people.high - people.low)
    assert np.mean(ours) < 0.8 * np.mean(alone)
    assert found.worth > 1.4 * n


def test_an_llm_that_guesses_or_is_always_wrong_costs_next_to_nothing_and_misleads_nobody():
    for right in (0.5, 0.02):
        ours, alone, hits = [], [], []
        for seed in range(100):
            gold, said, rest = binary(np.random.default_rng(seed), 60, 0.3, right)
            found, people = share(gold, said, rest), wilson(int(gold.sum()), 60)
            ours.append(found.high - found.low)
            alone.append(people.high - people.low)
            hits.append(found.low <= 0.3 <= found.high)
        assert np.mean(ours) < 1.05 * np.mean(alone)
        assert np.mean(hits) > 0.9


def test_without_a_machine_or_with_few_answers_it_is_the_wilson_interval():
    gold = [1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1]
    for found, n in ((share(gold, gold, []), 12), (share(gold[:8], gold[:8], [1, 0] * 9), 8)):
        assert found[:3] == pytest.approx(wilson(sum(gold[:n]), n)[:3])
        assert found.lam == 0
        assert found.worth == n


# --- unequal chances to be asked


def unequal(rng, *, weigh):
    """Rare items asked four times as often as the others; the LLM is right in 85 %."""
    gold = rng.random(4000) < 0.2
    said = np.where(rng.random(4000) < 0.85, gold, ~gold)
    chance = np.where(said, 0.08, 0.02)
    asked = rng.random(4000) < chance
    weights = 1 / chance[asked] if weigh else None
    return share(gold[asked], said[asked], said[~asked] if not weigh else said, weights=weights)


def test_inverse_chances_undo_unequal_sampling_and_leaving_them_out_is_seen():
    weighed = [unequal(np.random.default_rng(seed), weigh=True) for seed in range(300)]
    plain = [unequal(np.random.default_rng(seed), weigh=False) for seed in range(300)]
    assert np.mean([f.value for f in weighed]) == pytest.approx(0.2, abs=0.01)
    assert np.mean([f.low <= 0.2 <= f.high for f in weighed]) > 0.92
    assert abs(np.mean([f.value for f in plain]) - 0.2) > 0.01


def test_equal_weights_in_any_unit_change_nothing():
    gold, said, rest = eight()
    assert share(gold, said, rest, weights=[7.0] * 8) == share(gold, said, rest)


# --- quality of a student


def students(rng, n, classes=4, own=0.8, right=0.9):
    gold = rng.choice(classes, p=np.arange(classes, 0, -1) / np.arange(classes + 1).sum(), size=n + REST)

    def wrong(share_right):
        off = (gold + rng.integers(1, classes, size=n + REST)) % classes
        return np.where(rng.random(n + REST) < share_right, gold, off)

    student, llm = wrong(own), wrong(right)
    llm[rng.random(n + REST) < 0.02] = -1
    return gold, student, llm


def test_accuracy_with_several_classes_covers_and_unparsed_answers_do_no_harm():
    found = []
    for seed in range(300):
        gold, student, llm = students(np.random.default_rng(seed), 50)
        found.append(accuracy(gold[:50], student[:50], llm[:50], student[50:], llm[50:]))
    assert 0.92 < np.mean([f.low <= 0.8 <= f.high for f in found]) <= 0.99
    assert np.mean([f.value for f in found]) == pytest.approx(0.8, abs=0.01)


def test_several_labels_an_item_count_as_right_together():
    gold = np.array([[1, 0], [1, 1], [0, 0], [0, 1]] * 5)
    student = np.array([[1, 0], [1, 0], [0, 0], [0, 1]] * 5)
    assert accuracy(gold, student, gold, student, gold).value == pytest.approx(0.75)
    assert [p.value for p in prevalence(gold, gold, gold, 2)] == pytest.approx([0.5, 0.5])
    found = per_class(gold, student, gold, student, gold, 2)
    assert found[1].recall.value == pytest.approx(0.5)
    assert found[1].f1.value == pytest.approx(2 / 3)


def test_shares_of_four_classes_cover_their_level():
    shares = np.array([4, 3, 2, 1]) / 10
    hits = []
    for seed in range(150):
        gold, _, llm = students(np.random.default_rng(seed), 60)
        found = prevalence(gold[:60], llm[:60], llm[60:], 4)
        hits.append([p.low <= s <= p.high for p, s in zip(found, shares, strict=True)])
    assert 0.93 < np.mean(hits) < 0.985


def test_precision_recall_and_f1_cover_and_a_missing_variance_is_seen(monkeypatch):
    def held(seeds=80):
        hits = []
        for seed in range(seeds):
            gold, student, llm = students(np.random.default_rng(seed), 60, classes=2)
            found = per_class(gold[:60], student[:60], llm[:60], student[60:], llm[60:], 2)[1]
            hit, false = 0.8 / 3, 0.2 * 2 / 3
            truth = (hit / (hit + false), 0.8, 2 * hit / (1 / 3 + hit + false))
            hits.append([f.low <= t <= f.high for f, t in zip(found, truth, strict=True)])
        return np.mean(hits, axis=0)

    assert (held() > 0.9).all()
    real = powered._variance
    monkeypatch.setattr(powered, "_variance", lambda values, shares: 0.4 * real(values, shares))
    assert (held() < 0.9).all()


def test_all_of_the_pool_answered_gives_the_plain_measures():
    gold, student, _ = students(np.random.default_rng(0), 500)
    found = per_class(gold, student, gold, student[:0], gold[:0], 4)
    for c, quality in enumerate(found):
        hit = int(((gold == c) & (student == c)).sum())
        assert quality.precision.value == pytest.approx(hit / (student == c).sum())
        assert quality.recall.value == pytest.approx(hit / (gold == c).sum())
        assert quality.f1.value == pytest.approx(2 * hit / ((gold == c).sum() + (student == c).sum()))


def test_a_class_that_nobody_saw_has_no_number():
    labels = np.zeros(40, int)
    found = per_class(labels, labels, labels, labels, labels, 2)[1]
    assert found == (None, None, None)


# --- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: share([1], [1], [1]), "at least two"),
        (lambda: share([1, 0], [1], [1]), "same items"),
        (lambda: share([1, 2], [1, 0], [1]), r"in \[0, 1\]"),
        (lambda: mean([1.0, np.nan], [1, 0], [1]), "finite"),
        (lambda: mean([1, 0], [1, 0], [1], lam=2), "lam"),
        (lambda: mean([1, 0], [1, 0], [1], level=95), "level"),
        (lambda: share([1, 0], [1, 0], [1], weights=[1, 0]), "positive"),
        (lambda: prevalence([0, 2], [0, 1], [1], 2), "classes"),
        (lambda: accuracy([0, 1], [0], [0, 1], [0], [1]), "Lengths"),
        (lambda: per_class([0, 1], [0], [0, 1], [0], [1], 2), "Lengths"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
