"""Alpha and kappa: published and independent values, intervals that hold, and where nothing can be said."""

import doctest

import numpy as np
import pytest

from llmal.stats import reliability
from llmal.stats.agreement import cohen_kappa
from llmal.stats.reliability import krippendorff_alpha, masi, pairwise_kappa

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", part C: four observers, twelve units.
OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def words(table):
    """Triples of a table of people by items, -1 for none."""
    person, item = np.nonzero(table >= 0)
    return item, person, table[person, item]


def observers():
    rows = [row.split() for row in OBSERVERS.strip().splitlines()]
    return np.array([[-1 if cell == "." else int(cell) for cell in row] for row in rows])


def sets(seed):
    """Sets of four labels that three people give to 30 items, each to about three quarters of them."""
    rng = np.random.default_rng(seed)
    first = rng.random((30, 4)) < 0.4
    given = [np.where(rng.random((30, 4)) < keep, first, rng.random((30, 4)) < 0.4) for keep in (1, 0.8, 0.7)]
    person, item = np.nonzero(np.add.outer(np.arange(3), np.arange(30)) % 4)
    return item, person, np.stack(given)[person, item]


def people(rng, n, balance, right, m):
    """(m, n) labels of people who are right that often, and the alpha that they have in the long run."""
    classes = len(balance)
    truth = rng.choice(classes, n, p=balance)
    wrong = (truth + rng.integers(1, classes, (m, n))) % classes
    spread = np.full((classes, classes), (1 - right) / (classes - 1))
    np.fill_diagonal(spread, right)
    used = balance @ spread
    disagree = 1 - (np.array(balance)[:, None] * spread**2).sum()
    return np.where(rng.random((m, n)) < right, truth, wrong), 1 - disagree / (1 - (used**2).sum())


def coverage(runs, measure, **world):
    held = []
    for seed in range(runs):
        table, true = people(np.random.default_rng(seed), **world)
        found = measure(*words(table), seed=seed)
        if found is not None:
            held.append(found.low <= true <= found.high)
    return np.mean(held)


def test_docstring_examples_hold():
    assert doctest.testmod(reliability).failed == 0


def test_alpha_is_the_published_one():
    found = krippendorff_alpha(*words(observers()))
    assert found.value == pytest.approx(0.743421052631579, abs=1e-12)  # printed as .743
    assert found.n == 11
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("seed", "value"), [(0, 0.31518534895718187), (1, 0.45679012345679026), (2, 0.3759891196834818)]
)
def test_alpha_of_incomplete_tables_is_that_of_another_implementation(seed, value):
    # krippendorff 0.9.0, level_of_measurement="nominal"
    rng = np.random.default_rng(seed)
    table = np.where(rng.random((5, 40)) < 0.6, np.arange(40) % 4, rng.integers(0, 4, (5, 40)))
    table[rng.random(table.shape) < 0.5] = -1
    assert krippendorff_alpha(*words(table)).value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("seed", "alpha", "kappa"),
    [(0, 0.5977541284403667, 0.7741530740276035), (1, 0.45603782843377794, 0.603015848592091)],
)
def test_sets_are_weighed_by_masi_as_another_implementation_does(seed, alpha, kappa):
    # nltk 3.10.4, AnnotationTask with MASI in thirds (its own rounds them to 0.67 and 0.33)
    item, person, label = sets(seed)
    assert krippendorff_alpha(item, person, label).value == pytest.approx(alpha, abs=1e-12)
    assert pairwise_kappa(item, person, label)[0].estimate.value == pytest.approx(kappa, abs=1e-12)


def test_masi_is_nothing_for_the_same_set_and_one_for_sets_apart():
    one = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
    other = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    assert masi(one, other) == pytest.approx(np.array([[0, 2 / 3, 8 / 9, 1, 1], [1, 1, 1, 1, 0]]))


def test_sets_of_one_label_are_classes_that_are_alike_or_not():
    item, person, label = words(observers())
    singles = np.eye(6, dtype=bool)[label]
    assert krippendorff_alpha(item, person, singles) == krippendorff_alpha(item, person, label)


def test_kappa_of_two_is_cohens_and_comes_for_every_pair_that_shares_items():
    rng = np.random.default_rng(3)
    table = np.where(rng.random((3, 60)) < 0.7, np.arange(60) % 3, rng.integers(0, 3, (3, 60)))
    table[2, 1:] = -1
    (found,) = pairwise_kappa(*words(table))
    assert (found.a, found.b, found.estimate.n) == (0, 1, 60)
    assert found.estimate.value == pytest.approx(cohen_kappa(table[0], table[1], 3))
    assert found.estimate.low < found.estimate.value < found.estimate.high


def test_numbers_of_items_people_and_classes_and_the_order_do_not_matter():
    item, person, label = words(observers())
    found = krippendorff_alpha(item, person, label)
    mixed = np.random.default_rng(0).permutation(len(item))
    other = krippendorff_alpha(item[mixed] * 7 + 3, 9 - person[mixed], 50 - label[mixed])
    assert other == pytest.approx(found)
    assert krippendorff_alpha(item, person, label) == found


def test_where_there_is_nothing_to_compare_there_is_no_alpha():
    assert krippendorff_alpha([0, 1, 2], [0, 1, 0], [0, 1, 0]) is None
    assert krippendorff_alpha([0, 0, 1], [0, 1, 0], [0, 1, 0]) is None
    assert krippendorff_alpha([0, 0, 1, 1], [0, 1, 0, 1], [2, 2, 2, 2]) is None
    assert pairwise_kappa([0, 0, 1, 1], [0, 1, 0, 1], [2, 2, 2, 2]) == []
    none = np.zeros(0, np.int64)
    assert krippendorff_alpha(none, none, none) is None
    assert pairwise_kappa(none, none, none) == []


def test_without_a_disagreement_the_interval_still_has_a_width_that_shrinks_with_the_items():
    low = []
    for n in (10, 100, 1000):
        table = np.tile(np.arange(n) % 2, (2, 1))
        found = krippendorff_alpha(*words(table))
        assert (found.value, found.high) == (1, 1)
        low.append(found.low)
        (pair,) = pairwise_kappa(*words(table))
        assert pair.estimate.low == pytest.approx(found.low, abs=0.05)
    assert 0.3 < low[0] < 0.5 < low[1] < 0.95 < low[2] < 1


@pytest.mark.parametrize(
    ("label", "words"), [(np.zeros((2, 3)), "bool"), ([0], "alike"), (np.zeros((2, 1, 1)), "alike")]
)
def test_words_that_are_none_are_refused(label, words):
    for ask in (krippendorff_alpha, pairwise_kappa):
        with pytest.raises(ValueError, match=words):
            ask([0, 0], [0, 1], label)
        with pytest.raises(ValueError, match="at most one word"):
            ask([0, 0], [1, 1], [0, 1])


WORLDS = [
    {"n": 30, "balance": [0.5, 0.5], "right": 0.9, "m": 2},
    {"n": 100, "balance": [0.9, 0.1], "right": 0.95, "m": 2},
    {"n": 100, "balance": [0.4, 0.4, 0.2], "right": 0.75, "m": 3},
    {"n": 30, "balance": [0.5, 0.5], "right": 0.99, "m": 3},
    {"n": 300, "balance": [0.8, 0.15, 0.05], "right": 0.9, "m": 3},
]


def test_intervals_hold_what_they_say():
    quick = lambda *triple, seed: krippendorff_alpha(*triple, seed=seed, resamples=300)  # noqa: E731
    assert coverage(200, quick, **WORLDS[2]) >= 0.91
    half = lambda *triple, seed: krippendorff_alpha(*triple, seed=seed, resamples=300, level=0.5)  # noqa: E731
    assert 0.4 <= coverage(200, half, **WORLDS[2]) <= 0.62, (
        "an interval of half the level holds half the time"
    )


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_intervals_hold_what_they_say_in_harder_worlds(world):
    assert coverage(1000, krippendorff_alpha, **world) >= 0.93
    if world["m"] == 2:
        kappa = lambda *triple, seed: pairwise_kappa(*triple, seed=seed)[0].estimate  # noqa: E731
        assert coverage(1000, kappa, **world) >= 0.93
