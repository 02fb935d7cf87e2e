"""Whose answers are in doubt: bad people are named, honest ones are not, at the level that is promised."""

import numpy as np
import pytest

from llmal.stats.people import against_others, doubtful_people


def world(seed, m, *, bad="", shared=30, votes=2, classes=3, balance=None, low=0.75, high=0.95):
    """Words of m people, `votes` an item and about `shared` each; person 0 may be bad, the others are honest.

    `minority`: as honest as the others, but with a reading of its own of a third of the first class.
    """
    rng = np.random.default_rng(seed)
    n = m * shared // votes
    truth = rng.choice(classes, n, p=balance)
    item = np.repeat(np.arange(n), votes)
    person = np.argsort(rng.random((n, m)), axis=1)[:, :votes].reshape(-1)
    meant = truth[item]
    if bad == "minority":
        other = (person == 0) & (meant == 0) & (rng.random(n) < 1 / 3)[item]
        meant = np.where(other, 1, meant)
    wrong = (meant + rng.integers(1, classes, len(item))) % classes
    label = np.where(rng.random(len(item)) < rng.uniform(low, high, m)[person], meant, wrong)
    mine = person == 0
    drawn = rng.integers(classes, size=len(item))
    spoilt = {"random": drawn, "one": np.full_like(label, drawn[0]), "against": (meant + 1) % classes}
    if bad in spoilt:
        label[mine] = spoilt[bad][mine]
    return item, person, label


def named(seed, m, *, classes=3, **more):
    found = doubtful_people(*world(seed, m, classes=classes, **more), people=m, classes=classes)
    return [one.annotator for one in found]


def rates(seeds, m, **more):
    """How often person 0 is named, and how often anybody else is."""
    found = [named(seed, m, **more) for seed in seeds]
    return np.mean([0 in who for who in found]), np.mean([bool(set(who) - {0}) for who in found])


@pytest.mark.parametrize("m", [3, 5, 20])
@pytest.mark.parametrize(("bad", "words"), [("one", "answers"), ("against", "answers against the others")])
def test_one_bad_person_is_found_and_named(m, bad, words):
    found = []
    for seed in range(8):
        triple = world(seed, m, bad=bad, shared=40)
        people = doubtful_people(*triple, people=m, classes=3, names=["red", "green", "blue"])
        found.append([one.annotator for one in people] == [0] and people[0].why.startswith(words))
        if people and bad == "one":
            assert any(name in people[0].why for name in ("red", "green", "blue"))
    assert np.mean(found) >= 0.75


def test_somebody_who_draws_labels_is_named_once_enough_is_shared():
    power, alarm = rates(range(10), 5, bad="random", shared=120)
    assert power >= 0.8
    assert alarm == 0
    assert rates(range(10), 5, bad="random", shared=10)[0] <= 0.2, "ten words are no evidence"


@pytest.mark.parametrize("bad", ["", "minority"])
def test_honest_people_and_a_careful_minority_are_not_named(bad):
    for m in (3, 20):
        assert not any(named(seed, m, bad=bad) for seed in range(12))


def test_careful_people_are_not_named_where_nearly_every_item_is_of_one_class():
    rare = {"classes": 2, "balance": [0.95, 0.05], "shared": 100}
    assert sum(bool(named(seed, 5, **rare)) for seed in range(12)) <= 1
    item, person, label = world(0, 5, **rare)
    label[person == 0] = 0
    assert doubtful_people(item, person, label, people=5, classes=2) == []


def test_two_people_accuse_nobody_and_words_that_nobody_shares_say_nothing():
    item, person, label = world(0, 2, bad="against", shared=100)
    assert doubtful_people(item, person, label, people=2, classes=3) == []
    alone = np.arange(90)
    assert doubtful_people(alone, alone % 3, np.zeros(90, np.int64), people=3, classes=2) == []
    none = np.zeros(0, np.int64)
    assert doubtful_people(none, none, none, people=0, classes=2) == []


def test_sets_of_labels_are_compared_label_by_label():
    rng = np.random.default_rng(0)
    truth = rng.random((150, 8)) < 0.15
    item, person = np.repeat(np.arange(150), 3), np.tile(np.arange(3), 150)
    label = truth[item] ^ (rng.random((450, 8)) < 0.03)
    assert doubtful_people(item, person, label, people=3, classes=8) == []
    label[person == 2] = rng.random((150, 8)) < 0.15
    (found,) = doubtful_people(item, person, label, people=3, classes=8)
    assert found.annotator == 2
    assert found.votes <= 150
    assert found.accuracy < 0.6


def test_the_words_say_on_how_many_items_somebody_was_right():
    item, person, label = world(1, 5, bad="against", shared=60)
    right, given = against_others(item, person, label, people=5, classes=3)
    (found,) = doubtful_people(item, person, label, people=5, classes=3)
    assert found.why.endswith(f"right on {right[0]} of {given[0]}, below chance")
    assert (found.accuracy, found.votes) == (right[0] / given[0], given[0])


def test_words_that_are_none_are_refused():
    with pytest.raises(ValueError, match="alike"):
        doubtful_people([0, 1], [0], [0], people=1, classes=2)
    with pytest.raises(ValueError, match="at most one vote"):
        doubtful_people([0] * 4, [0, 0, 1, 2], [0, 1, 1, 1], people=3, classes=2)


@pytest.mark.slow
@pytest.mark.parametrize("m", [3, 5, 20])
@pytest.mark.parametrize(
    "crowd",
    [
        {},
        {"bad": "minority"},
        {"classes": 2, "balance": [0.85, 0.15]},
        {"low": 0.6, "high": 0.95, "votes": 3},
        {"shared": 10},
    ],
    ids=str,
)
def test_in_1000_worlds_of_honest_people_somebody_is_named_in_fewer_than_one_of_twenty(m, crowd):
    worlds = range(1000 if m < 20 else 300)
    found = np.mean([bool(named(seed, m, **crowd)) for seed in worlds])
    assert found <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("m", "bad", "shared", "least"),
    [(3, "one", 30, 0.6), (3, "against", 30, 0.85), (5, "one", 30, 0.9), (5, "against", 30, 0.9)]
    + [(20, "one", 30, 0.85), (20, "against", 30, 0.85), (3, "random", 100, 0.8), (20, "random", 100, 0.7)],
)
def test_a_bad_person_is_named_in_most_worlds_and_nobody_else_is(m, bad, shared, least):
    power, alarm = rates(range(300 if m < 20 else 100), m, bad=bad, shared=shared)
    assert power >= least
    assert alarm <= 0.05
