"""Calibrators: as in scikit-learn, never falling, and chosen by answers that were left out."""

import json

import numpy as np
import pytest
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression

from llmal.stats.calibration import expected_calibration_error, fit_temperature
from llmal.stats.calibrators import (
    METHODS,
    Curve,
    hierarchical,
    histogram,
    identity,
    isotonic,
    platt,
    restored,
    temperature,
)
from llmal.stats.calibrators_choice import choose, cross_fitted, folds_of

STATED = np.array([0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def source(n, seed, *, slope=1.0, shift=0.0):
    """Raw confidence whose log-odds are slope * true + shift, and who was right."""
    rng = np.random.default_rng(seed)
    true = rng.normal(1.5, 1.2, n)
    return sigmoid(slope * true + shift), rng.random(n) < sigmoid(true)


def stated(n, seed):
    """Over-confident answers in a handful of distinct values."""
    rng = np.random.default_rng(seed)
    raw = rng.choice(STATED, n)
    return raw, rng.random(n) < raw**3


def brier(probs, right):
    return float(((probs - right) ** 2).mean())


# --- against scikit-learn


@pytest.mark.parametrize("seed", range(12))
def test_isotonic_is_scikit_learns_isotonic_regression(seed):
    n = 5 + 23 * seed
    raw, right = stated(n, seed) if seed % 2 else source(n, seed)
    low = 1 / (n + 2)
    theirs = IsotonicRegression(y_min=low, y_max=1 - low, out_of_bounds="clip").fit(raw, right)
    asked = np.concatenate([raw, np.random.default_rng(seed).random(200), [0, 1]])
    assert isotonic(raw, right)(asked) == pytest.approx(theirs.predict(asked), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_platt_is_scikit_learns_sigmoid_calibration(seed):
    raw, right = source(40 + 60 * seed, seed, slope=2.0, shift=-0.5)
    slope, shift = _sigmoid_calibration(logit(raw), right.astype(int))
    ours = platt(raw, right)
    assert (ours.slope, ours.shift) == pytest.approx((-slope, -shift), abs=2e-3)


def test_temperature_agrees_with_the_temperature_of_two_class_distributions():
    raw, right = source(4000, 3, slope=2.5)
    table = np.stack([np.zeros(len(raw)), logit(np.clip(raw, 1e-4, 1 - 1e-4))], axis=1)
    assert 1 / temperature(raw, right).slope == pytest.approx(
        fit_temperature(table, right.astype(int)), rel=0.01
    )


# --- each method


@pytest.mark.parametrize("known", [0.5, 2.0, 4.0])
def test_a_known_temperature_is_recovered(known):
    found = [1 / temperature(*source(3000, seed, slope=known)).slope for seed in range(5)]
    assert np.mean(found) == pytest.approx(known, rel=0.07)


def test_platt_recovers_a_known_line():
    found = [platt(*source(3000, seed, slope=2.0, shift=1.0)) for seed in range(5)]
    assert np.mean([line.slope for line in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([line.shift for line in found]) == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_a_surer_answer_of_a_class_is_never_less_likely_right(method, seed):
    rng = np.random.default_rng(seed)
    raw = rng.choice(STATED, 60) if seed % 2 else rng.random(60)
    right = rng.random(60) < (1 - raw if seed > 1 else raw)  # seeds 2 and 3: the surer, the more often wrong
    classes = rng.choice(list("abc"), 60).tolist()
    made = METHODS[method](raw, right, classes)
    grid = np.linspace(0, 1, 101)
    for c in "abcx":
        values = made(grid, [c] * 101)
        assert (np.diff(values) >= 0).all()
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_order_of_the_rows_does_not_matter_and_json_holds_all_of_it(method):
    raw, right = stated(150, 1)
    classes = np.random.default_rng(2).choice(list("ab"), 150)
    made = METHODS[method](raw, right, classes.tolist())
    back = METHODS[method](raw[::-1], right[::-1], classes[::-1].tolist())
    again = restored(json.loads(json.dumps(made.state())))
    asked, of = np.linspace(0, 1, 51), ["a"] * 51
    assert back(asked, of) == pytest.approx(made(asked, of), abs=1e-9)
    assert again(asked, of).tolist() == made(asked, of).tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0, 1])
def test_all_right_or_all_wrong_gives_finite_and_modest_numbers(method, share):
    raw = np.array([0.5, 0.9, 0.9, 1.0, 0.0, 1.0, 0.8])
    made = METHODS[method](raw, np.full(7, bool(share)), list("aabbcca"))
    values = made(raw, list("aabbcca"))
    assert np.isfinite(values).all()
    if method != "identity":
        assert 0 < values.min() <= values.max() < 1


def test_unknown_states_and_confidences_outside_the_range_are_refused():
    with pytest.raises(ValueError, match="no calibrator is called 'magic'"):
        restored({"name": "magic"})
    with pytest.raises(ValueError, match="must lie in"):
        platt([1.2], [True])
    with pytest.raises(ValueError, match="one class an answer"):
        platt([0.2], [True], ["a", "b"])
    with pytest.raises(ValueError, match="2 folds"):
        cross_fitted(platt, [0.2], [True])


def test_equal_confidences_share_a_bin_of_the_histogram():
    raw = np.array([0.8] * 60 + [0.9] * 40)
    right = np.array([True] * 30 + [False] * 30 + [True] * 36 + [False] * 4)
    made = histogram(raw, right)
    assert isinstance(made, Curve)
    assert made.at == [0.8, 0.9]
    assert made([0.8, 0.9]) == pytest.approx([0.505, 0.895], abs=0.01)


def test_a_class_with_three_answers_is_not_trusted_on_its_own_and_one_with_many_is():
    rng = np.random.default_rng(0)
    shares = {"a": 0.95, "b": 0.9, "c": 0.85, "d": 0.8, "e": 0.7}
    classes = [c for c in shares for _ in range(300)] + ["rare"] * 3
    right = np.concatenate([rng.random(300) < share for share in shares.values()] + [[False] * 3])
    raw = np.full(1503, 0.8)
    made = hierarchical(raw, right, classes)
    for i, c in enumerate(shares):
        assert made([0.8], [c])[0] == pytest.approx(right[300 * i : 300 * i + 300].mean(), abs=0.03)
    rare, new = made([0.8] * 2, ["rare", "never seen"])
    assert 0.5 < rare < new - 0.1  # drawn down by its three wrong answers, but nowhere near 0
    assert platt(raw[1500:], right[1500:])([0.8])[0] < 0.3  # what they say on their own


def test_classes_that_do_not_differ_are_not_told_apart():
    apart = []
    for seed in range(10):
        raw, right = source(300, seed)
        made = hierarchical(raw, right, np.random.default_rng(seed).choice(list("abcde"), 300).tolist())
        apart.append(np.ptp(made([0.8] * 5, list("abcde"))))
    assert np.mean(apart) < 0.06


# --- left out


@pytest.mark.parametrize("n", [3, 50, 203])
def test_folds_are_of_equal_size_and_share_every_range_of_confidence(n):
    raw, _ = stated(n, 0)
    fold = folds_of(raw, 5, 0)
    sizes = np.bincount(fold, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    if n == 203:
        assert np.ptp([raw[fold == f].mean() for f in range(5)]) < 0.02


def own_answer_shows(values_of, raw, right):
    """Whether changing one answer changes the value of that very item."""
    before = values_of(raw, right)
    for i in range(0, len(raw), 7):
        other = right.copy()
        other[i] = not other[i]
        if values_of(raw, other)[i] != before[i]:
            return True
    return False


def test_an_items_own_answer_never_touches_its_value_not_even_through_the_choice():
    raw, right = stated(70, 4)
    assert not own_answer_shows(lambda c, y: cross_fitted(choose, c, y), raw, right)
    assert own_answer_shows(lambda c, y: platt(c, y)(c), raw, right)  # what it would look like


# --- the choice


def chosen_in_sample(raw, right):
    """The broken rule: scored on the answers it was fitted on."""
    made = [fit(raw, right, None) for fit in METHODS.values()]
    return min(made, key=lambda m: brier(m(raw), right))


HELD = 4000


def regret(rule, n, seeds, **known):
    """Squared error on held-out answers, less that of the raw confidence; one a seed."""
    out = []
    for seed in range(seeds):
        raw, right = source(n + HELD, seed, **known)
        made = rule(raw[:n], right[:n])
        out.append(brier(made(raw[n:]), right[n:]) - brier(raw[n:], right[n:]))
    return np.array(out)


@pytest.mark.parametrize(("n", "most"), [(30, 0.008), (100, 0.003), (300, 0.001)])
def test_a_calibrated_source_is_left_about_as_good_as_it_is(n, most):
    assert regret(choose, n, 30).mean() < most
    assert regret(chosen_in_sample, n, 30).mean() > 1.5 * most  # power: in-sample scores over-fit


@pytest.mark.parametrize("known", [{"slope": 3.0}, {"shift": 1.5}, {"slope": 0.4}])
def test_a_source_that_is_off_is_put_right(known):
    found = regret(choose, 200, 30, **known)
    assert (found < 0).mean() >= 0.9
    assert found.mean() < -0.006


@pytest.mark.parametrize("known", [{"slope": 3.0}, {"shift": 1.5}])
def test_calibration_error_falls_on_held_out_answers_in_95_of_100_seeds(known):
    fell = []
    for seed in range(60):
        raw, right = source(200 + HELD, seed, **known)
        made = choose(raw[:200], right[:200], seed=seed)
        before, after = (expected_calibration_error(v, right[200:]) for v in (raw[200:], made(raw[200:])))
        fell.append(after < before)
    assert np.mean(fell) >= 0.95


def test_stated_confidence_of_seven_values_is_calibrated_too():
    errors = []
    for seed in range(20):
        raw, right = stated(200 + HELD, seed)
        made = choose(raw[:200], right[:200])
        errors.append([expected_calibration_error(v, right[200:]) for v in (raw[200:], made(raw[200:]))])
    before, after = np.mean(errors, axis=0)
    assert before > 0.1
    assert after < 0.05


def test_classes_are_used_where_they_tell_something_and_only_there():
    rng = np.random.default_rng(1)
    raw = rng.choice(STATED, 400)
    classes = rng.choice(["sound", "weak"], 400)
    right = rng.random(400) < np.where(classes == "sound", 0.95, 0.4)
    assert choose(raw, right, classes.tolist()).name == "hierarchical"
    assert choose(raw, rng.random(400) < raw, classes.tolist()).name == "identity"


def test_identity_is_the_raw_number():
    assert identity([0.0, 0.3, 1.0], [True, False, True])([0.0, 0.3, 1.0]).tolist() == [0.0, 0.3, 1.0]
