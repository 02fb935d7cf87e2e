"""Calibration: hand-worked cases, a brute-force twin, scikit-learn, a planted temperature."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import metrics

from llmal.stats import calibration
from llmal.stats.calibration import auroc, brier, expected_calibration_error, fit_temperature, log_loss

few = settings(max_examples=30, deadline=None, database=None)
# Elevenths: many ties, and no number that floats hold exactly.
scored = st.lists(st.tuples(st.integers(0, 11), st.booleans()), min_size=1, max_size=40)

# systems.md, section I, line C7.
LOGITS = np.array([[3, 0, 0], [2, 1, 0], [0, 3, 0], [4, 0, 1], [1, 0, 2], [0, 2, 1]], dtype=float)
GOLD = np.array([0, 1, 1, 0, 2, 2])


def split(rows):
    return np.array([s for s, _ in rows]) / 11, np.array([c for _, c in rows])


def test_docstring_examples_hold():
    result = doctest.testmod(calibration)
    assert result.attempted >= 6
    assert result.failed == 0


# --- ECE


def twin_ece(confidence, correct, bins):
    """Row by row: the bin is where the middle of the ranks of all equal confidences falls."""
    n = len(confidence)
    content = {}
    for c, r in zip(confidence.tolist(), correct.tolist(), strict=True):
        below = sum(other < c for other in confidence.tolist())
        equal = sum(other == c for other in confidence.tolist())
        content.setdefault(bins * (2 * below + equal) // (2 * n), []).append((c, r))
    return sum(abs(sum(c for c, _ in rows) - sum(r for _, r in rows)) for rows in content.values()) / n


def test_ece_by_hand():
    # Two bins: |1.2 - 1| and |1.8 - 2|, over four items.
    assert expected_calibration_error(
        [0.6, 0.9, 0.6, 0.9], [True, True, False, True], bins=2
    ) == pytest.approx(0.1)
    assert expected_calibration_error([1.0, 1.0, 1.0], [True, True, True]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1.0


def test_ece_bins_have_equal_mass():
    # Bins of equal width would put 0.90..0.93 into one bin and see no gap there.
    confidence = np.array([0.90, 0.91, 0.92, 0.93])
    correct = np.array([False, False, True, True])
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx((1.81 + 0.15) / 4)


def test_ece_of_distinct_confidences_equals_plain_slicing():
    rng = np.random.default_rng(0)
    confidence, correct = np.sort(rng.random(60)), rng.random(60) < 0.7
    slices = np.array_split(np.arange(60), 15)
    expected = sum(abs(confidence[s].sum() - correct[s].sum()) for s in slices) / 60
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_ece_keeps_ties_together():
    # Cut in the middle, the four would make a bin that is all right and one that is all wrong: gap 0.5.
    assert expected_calibration_error([0.5] * 4, [True, True, False, False], bins=2) == 0.0


def test_ece_with_more_bins_than_items_bins_each_confidence():
    assert expected_calibration_error([0.2, 0.7], [True, True], bins=1000) == pytest.approx((0.8 + 0.3) / 2)


@few
@given(rows=scored, bins=st.integers(1, 20))
def test_ece_matches_its_twin(rows, bins):
    confidence, correct = split(rows)
    value = expected_calibration_error(confidence, correct, bins=bins)
    assert value == pytest.approx(twin_ece(confidence, correct, bins))


@few
@given(rows=scored, bins=st.integers(1, 20), seed=st.integers(0, 99))
def test_ece_ignores_row_order_and_repetition(rows, bins, seed):
    confidence, correct = split(rows)
    value = expected_calibration_error(confidence, correct, bins=bins)
    order = np.random.default_rng(seed).permutation(len(rows))
    # Exactly, not approximately: two runs over one store must print the same digits.
    assert expected_calibration_error(confidence[order], correct[order], bins=bins) == value
    thrice = expected_calibration_error(np.tile(confidence, 3), np.tile(correct, 3), bins=bins)
    assert thrice == pytest.approx(value)


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "message"),
    [
        ([], np.empty(0, dtype=bool), 15, "n = 0"),
        ([0.5, 0.5], [True], 15, "alike"),
        ([0.5], [1], 15, "must be bool"),
        ([1.01], [True], 15, r"\[0, 1\]"),
        ([-0.1], [True], 15, r"\[0, 1\]"),
        ([math.nan], [True], 15, "not a number"),
        ([0.5], [True], 0, "bins"),
    ],
)
def test_ece_refuses(confidence, correct, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidence, correct, bins=bins)


def test_ece_takes_a_float32_softmax():
    assert expected_calibration_error([1.0000001], [True]) < 1e-6


# --- Brier and log loss


def random_table(seed, n=40, n_classes=3):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, n_classes, n)
    gold[:n_classes] = np.arange(n_classes)  # scikit-learn reads the classes off gold
    return rng.dirichlet(np.ones(n_classes), n), gold


def test_scores_by_hand():
    probs = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]
    assert brier(probs, [0, 2]) == pytest.approx(((0.09 + 0.04 + 0.01) + (0.01 + 0.36 + 0.49)) / 2)
    assert log_loss(probs, [0, 2]) == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2)


def test_scores_at_their_ends():
    assert brier([[1.0, 0.0]], [0]) == 0.0
    assert brier([[1.0, 0.0]], [1]) == 2.0
    assert log_loss([[1.0, 0.0]], [0]) == 0.0
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(36.0437, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_scores_match_scikit_learn(seed):
    probs, gold = random_table(seed)
    assert log_loss(probs, gold) == pytest.approx(metrics.log_loss(gold, probs))
    # Two classes only: the many-class form of scikit-learn is newer than the version that llmal asks for. Its
    # score is of the positive class alone, half of ours.
    two, binary = random_table(seed, n_classes=2)
    assert brier(two, binary) == pytest.approx(2 * metrics.brier_score_loss(binary, two[:, 1]))
    assert brier(probs, gold) == pytest.approx(((probs - np.eye(3)[gold]) ** 2).sum() / len(gold))


@pytest.mark.parametrize("score", [brier, log_loss])
def test_scores_ignore_row_order_repetition_and_class_names(score):
    probs, gold = random_table(7)
    value = pytest.approx(score(probs, gold))
    order = np.random.default_rng(0).permutation(len(gold))
    assert score(probs[order], gold[order]) == value
    assert score(np.tile(probs, (2, 1)), np.tile(gold, 2)) == value
    assert score(probs[:, [2, 0, 1]], np.array([1, 2, 0])[gold]) == value


@pytest.mark.parametrize("score", [brier, log_loss])
def test_scores_leave_their_input_alone(score):
    probs, gold = random_table(1)
    before = probs.copy()
    score(probs, gold)
    np.testing.assert_array_equal(probs, before)


@pytest.mark.parametrize(
    ("probs", "gold", "message"),
    [
        (np.empty((0, 2)), np.empty(0, dtype=int), "at least one item"),
        ([[0.5, 0.5]], [0, 1], "Expected"),
        ([0.5, 0.5], [0, 1], "Expected"),
        ([[0.5, 0.5]], [2], r"0\.\.1"),
        ([[0.5, 0.5]], [-1], r"0\.\.1"),
        ([[0.5, 0.5]], [0.0], "integer"),
        ([[0.5, 0.4]], [0], "sum to 1"),
        ([[1.5, -0.5]], [0], "non-negative"),
        ([[math.nan, 1.0]], [0], "sum to 1"),
    ],
)
@pytest.mark.parametrize("score", [brier, log_loss])
def test_scores_refuse(score, probs, gold, message):
    with pytest.raises(ValueError, match=message):
        score(probs, gold)


# --- temperature


def planted(seed, n, temperature):
    """Logits that are right about the classes once divided by the temperature."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(scale=2, size=(n, 4))
    gold = (softmax(honest, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return honest * temperature, np.minimum(gold, 3)


def test_temperature_golden_values():
    temperature = fit_temperature(LOGITS, GOLD)
    assert temperature == pytest.approx(0.992327, abs=1e-6)
    assert log_loss(softmax(LOGITS / temperature, axis=1), GOLD) == pytest.approx(0.579741, abs=1e-6)
    assert log_loss(softmax(LOGITS, axis=1), GOLD) == pytest.approx(0.579758, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    logits, gold = planted(0, 4000, temperature)
    assert fit_temperature(logits, gold) == pytest.approx(temperature, rel=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_temperature_matches_scipy(seed):
    logits, gold = planted(seed, 80, 2.0)

    def loss(log_temperature):
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(80), gold].mean()

    theirs = math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(logits, gold) == pytest.approx(theirs, rel=1e-5)


def test_temperature_scales_with_the_logits_and_ignores_row_shifts():
    logits, gold = planted(1, 200, 1.0)
    value = fit_temperature(logits, gold)
    assert fit_temperature(5 * logits, gold) == pytest.approx(5 * value)
    shifts = np.random.default_rng(0).normal(scale=1000, size=(200, 1))
    assert fit_temperature(logits + shifts, gold) == pytest.approx(value)
    assert fit_temperature(log_softmax(logits, axis=1), gold) == pytest.approx(value)
    order = np.random.default_rng(0).permutation(200)
    assert fit_temperature(logits[order], gold[order]) == pytest.approx(value)
    assert fit_temperature(np.tile(logits, (2, 1)), np.tile(gold, 2)) == pytest.approx(value)


def test_temperature_without_a_finite_best():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, [0, 1]) == 0.01
    assert fit_temperature(logits, [1, 0]) == 100.0
    assert fit_temperature(np.full((3, 2), 7.0), [0, 1, 1]) == 1.0
    assert fit_temperature([[1e6, 0.0], [0.0, 1e6]], [0, 1]) == 0.01  # exp must not overflow


def test_temperature_lowers_held_out_ece():
    lowered = 0
    for seed in range(40):
        logits, gold = planted(seed, 700, 2.5)
        temperature = fit_temperature(logits[:200], gold[:200])
        held, truth = logits[200:], gold[200:]
        right = held.argmax(axis=1) == truth
        before, after = (
            expected_calibration_error(softmax(held / t, axis=1).max(axis=1), right)
            for t in (1.0, temperature)
        )
        lowered += after < before
    assert lowered >= 38  # 95% of the seeds


@pytest.mark.parametrize(
    ("logits", "gold", "message"),
    [
        (np.empty((0, 2)), np.empty(0, dtype=int), "at least one item"),
        ([[0.0, -math.inf]], [0], "finite"),
        ([[0.0, math.nan]], [0], "finite"),
        ([[0.0, 1.0]], [2], r"0\.\.1"),
        ([[0.0, 1.0]], [0, 1], "Expected"),
    ],
)
def test_temperature_refuses(logits, gold, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, gold)


# --- AUROC


def test_auroc_by_hand():
    # Pairs (right, wrong): .9 > .8, .9 > .1, .8 = .8 half, .8 > .1.
    assert auroc([0.9, 0.8, 0.8, 0.1], [True, True, False, False]) == 3.5 / 4
    assert auroc([1, 2], [False, True]) == 1.0
    assert auroc([2, 1], [False, True]) == 0.0
    assert auroc([3, 3, 3], [False, True, True]) == 0.5


def test_auroc_of_one_kind_is_undefined():
    assert math.isnan(auroc([0.1, 0.2], [True, True]))
    assert math.isnan(auroc([0.1, 0.2], [False, False]))


@few
@given(rows=scored, seed=st.integers(0, 99))
def test_auroc_matches_scikit_learn_and_ignores_order_repetition_and_scale(rows, seed):
    score, correct = split(rows)
    if correct.all() or not correct.any():
        assert math.isnan(auroc(score, correct))
        return
    value = auroc(score, correct)
    assert value == pytest.approx(metrics.roc_auc_score(correct, score))
    order = np.random.default_rng(seed).permutation(len(rows))
    assert auroc(score[order], correct[order]) == value
    assert auroc(np.tile(score, 3), np.tile(correct, 3)) == value
    assert auroc(np.exp(3 * score), correct) == value
    assert auroc(-score, correct) == pytest.approx(1 - value)


def test_auroc_ranks_infinite_scores_and_refuses_nan():
    assert auroc([-math.inf, 0.0, math.inf], [False, False, True]) == 1.0
    with pytest.raises(ValueError, match="not a number"):
        auroc([math.nan, 1.0], [True, False])
    with pytest.raises(ValueError, match="n = 0"):
        auroc([], np.empty(0, dtype=bool))
    with pytest.raises(ValueError, match="must be bool"):
        auroc([0.1, 0.2], [0, 1])
