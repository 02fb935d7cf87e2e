"""Consensus of people with few answers each: what it promises, and planted crowds that it must read right."""

import doctest

import numpy as np
import pytest

from llmal.stats import crowd as module
from llmal.stats.crowd import consensus


def matrix(right, classes=3):
    """Confusion of somebody who is right that often and errs evenly."""
    out = np.full((classes, classes), (1 - right) / (classes - 1))
    np.fill_diagonal(out, right)
    return out


def crowd(seed, people, *, n=300, votes=3, balance=None):
    """Triples of `votes` people an item with the given confusion matrices (m, C, C), and the truth."""
    rng = np.random.default_rng(seed)
    m, classes = people.shape[:2]
    truth = rng.choice(classes, n, p=balance)
    item = np.repeat(np.arange(n), votes)
    person = np.argsort(rng.random((n, m)), axis=1)[:, :votes].reshape(-1)
    below = people[person, truth[item]].cumsum(axis=1)
    label = np.minimum((rng.random((len(item), 1)) > below).sum(axis=1), classes - 1)
    return item, person, label, truth


def skilled(seed, m=40, low=0.4, high=0.98, classes=3):
    return np.stack([matrix(a, classes) for a in np.random.default_rng(seed).uniform(low, high, m)])


def asked(item, person, label, people, n=300, classes=3, **more):
    return consensus(item, person, label, items=n, people=people, classes=classes, **more)


def majority_right(item, label, truth, classes=3):
    """Share of items that the majority gets right, a tie counted by its chance."""
    counts = np.zeros((len(truth), classes))
    np.add.at(counts, (item, label), 1)
    top = counts == counts.max(axis=1, keepdims=True)
    return (top / top.sum(axis=1, keepdims=True))[np.arange(len(truth)), truth].mean()


def gain(seeds, people_of, **world):
    """Accuracy over the majority's, one number a seed."""
    out = []
    for seed in seeds:
        people = people_of(seed)
        item, person, label, truth = crowd(seed, people, **world)
        found = asked(item, person, label, len(people), len(truth), people.shape[1])
        right = (found.probs.argmax(axis=1) == truth).mean()
        out.append(right - majority_right(item, label, truth, people.shape[1]))
    return np.array(out)


def test_docstring_examples_hold():
    assert doctest.testmod(module).failed == 0


def test_every_item_has_probabilities_and_every_person_a_matrix():
    item, person, label, _ = crowd(0, skilled(0))
    found = asked(item, person, label, 41, 302)
    assert found.probs.shape == (302, 3)
    assert found.confusion.shape == (41, 3, 3)
    for rows in (found.probs, found.confusion, found.balance):
        assert rows.sum(axis=-1) == pytest.approx(np.ones(rows.shape[:-1]))
    assert found.probs[300:] == pytest.approx(np.tile(found.balance, (2, 1)))


def test_the_order_of_the_votes_and_the_numbers_of_people_do_not_matter():
    item, person, label, _ = crowd(1, skilled(1))
    found = asked(item, person, label, 40)
    mixed = np.random.default_rng(0).permutation(len(item))
    assert (asked(item[mixed], person[mixed], label[mixed], 40).probs == found.probs).all()
    renamed = np.random.default_rng(1).permutation(40)
    assert asked(item, renamed[person], label, 40).probs == pytest.approx(found.probs, abs=1e-9)


def test_a_lone_vote_stands_and_two_alike_people_who_differ_are_a_tie():
    found = consensus([0, 1], [0, 1], [2, 1], items=2, people=2, classes=3)
    assert found.probs.argmax(axis=1).tolist() == [2, 1]
    tie = consensus([0, 0], [0, 1], [2, 1], items=1, people=2, classes=3).probs[0]
    assert tie[1] == pytest.approx(tie[2], abs=1e-9)
    assert tie[1] > tie[0]


def test_with_one_vote_an_item_the_votes_are_the_answer():
    item, person, label, _ = crowd(2, skilled(2), votes=1, balance=[0.8, 0.15, 0.05])
    assert (asked(item, person, label, 40).probs.argmax(axis=1) == label).all()


def test_somebody_with_many_votes_is_seen_as_they_are():
    people = np.stack([matrix(0.9), matrix(0.6), np.array([[0.9, 0.1, 0], [0.5, 0.5, 0], [0, 0.1, 0.9]])] * 2)
    item, person, label, _ = crowd(3, people, n=20_000, votes=4)
    found = asked(item, person, label, 6, 20_000)
    assert found.confusion == pytest.approx(people, abs=0.05)


def test_somebody_with_few_votes_is_drawn_to_the_crowd_and_somebody_without_any_is_as_the_crowd():
    people = np.concatenate([skilled(0, 20, 0.85, 0.85), matrix(0.1)[None]])
    item, person, label, _ = crowd(4, people)
    few = np.ones(len(item), bool)
    few[np.flatnonzero(person == 20)[3:]] = False
    found = asked(item[few], person[few], label[few], 22)
    right = np.trace(found.confusion, axis1=1, axis2=2) / 3
    assert 0.4 < right[20] < right[21] - 0.05
    assert right[21] == pytest.approx(np.median(right), abs=0.05)
    assert np.trace(asked(item, person, label, 21).confusion[20]) / 3 < 0.4


def test_it_beats_the_majority_where_people_differ():
    assert gain(range(20), skilled).mean() > 0.015
    spam = lambda seed: np.concatenate([skilled(seed, 32, 0.85, 0.85), skilled(seed, 8, 1 / 3, 1 / 3)])  # noqa: E731
    assert gain(range(20), spam).mean() > 0.015


@pytest.mark.parametrize(
    ("people", "world"),
    [
        (lambda seed: skilled(seed, 40, 0.75, 0.75), {}),
        (lambda seed: skilled(seed, 40, 0.8, 0.9), {"balance": [0.9, 0.08, 0.02]}),
        (lambda seed: skilled(seed, 40, 0.8, 0.95, 2), {"balance": [0.95, 0.05]}),
        (lambda seed: np.stack([np.array([[0.95, 0.05], [0.4, 0.6]])] * 40), {"balance": [0.8, 0.2]}),
        (
            lambda seed: np.stack([np.array([[0.9, 0.08, 0.02], [0.1, 0.85, 0.05], [0.05, 0.45, 0.5]])] * 40),
            {},
        ),
        (lambda seed: skilled(seed, 4, 0.6, 0.95), {"n": 30, "votes": 2}),
        (lambda seed: skilled(seed, 40, 0.6, 0.9, 20), {}),
    ],
    ids=["alike", "skewed", "rare", "blind to one", "all err alike", "thirty items", "twenty classes"],
)
def test_it_is_no_worse_than_the_majority_where_that_is_hard_to_beat(people, world):
    found = gain(range(30), people, **world)
    assert found.mean() > -0.004 - 2 * found.std() / np.sqrt(len(found))


def test_known_answers_stay_and_tell_who_is_right():
    people = np.stack([matrix(0.95), *[matrix(0.05)] * 2])
    item, person, label, truth = crowd(5, people)
    known = np.where(np.arange(300) < 100, truth, -1)
    found = asked(item, person, label, 3, known=known)
    assert (found.probs[:100].argmax(axis=1) == truth[:100]).all()
    assert (found.probs[100:].argmax(axis=1) == truth[100:]).mean() > 0.9
    alone = asked(item, person, label, 3)
    assert (alone.probs[100:].argmax(axis=1) == truth[100:]).mean() < 0.7


def test_a_good_machine_helps_and_one_that_knows_nothing_does_not_hurt():
    rng = np.random.default_rng(6)
    helped, hurt = [], []
    for seed in range(10):
        item, person, label, truth = crowd(seed, skilled(seed, 40, 0.6, 0.8), votes=2)
        alone = (asked(item, person, label, 40).probs.argmax(axis=1) == truth).mean()
        good = np.stack([matrix(0.8)[c] for c in np.where(rng.random(300) < 0.8, truth, (truth + 1) % 3)])
        sure = np.eye(3)[rng.integers(3, size=300)]
        helped.append(
            (asked(item, person, label, 40, model=good).probs.argmax(axis=1) == truth).mean() - alone
        )
        hurt.append((asked(item, person, label, 40, model=sure).probs.argmax(axis=1) == truth).mean() - alone)
    assert np.mean(helped) > 0.05
    assert np.mean(hurt) > -0.02


def test_an_item_without_votes_has_the_machines_word():
    item, person, label, _ = crowd(7, skilled(7, 40, 0.8, 0.9))
    model = np.full((301, 3), 1 / 3)
    model[:300] = 0.1 + 0.7 * np.eye(3)[label[::3]]
    model[300] = [0.1, 0.1, 0.8]
    assert asked(item, person, label, 40, 301, model=model).probs[300].argmax() == 2


def test_many_items_and_people_with_few_votes_take_little_memory():
    rng = np.random.default_rng(8)
    item = rng.permutation(1_000_000)[:2000]
    found = consensus(
        item, np.arange(2000) * 10, rng.integers(2, size=2000), items=1_000_000, people=20_000, classes=2
    )
    assert found.probs.shape == (1_000_000, 2)


def test_no_votes_no_items_and_one_class_are_no_error():
    none = np.zeros(0, np.int64)
    assert consensus(none, none, none, items=0, people=0, classes=2).probs.shape == (0, 2)
    even = consensus(none, none, none, items=2, people=1, classes=2, model=[[0.5, 0.5]] * 2)
    assert even.probs == pytest.approx(np.full((2, 2), 0.5))
    assert consensus([0, 0], [0, 1], [0, 0], items=1, people=2, classes=1).probs.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("votes", "more", "words"),
    [
        (([0], [0, 1], [0]), {}, "alike"),
        (([0], [0], [3]), {}, "label must lie in 0..2"),
        (([0], [2], [0]), {}, "person must lie in 0..1"),
        (([-1], [0], [0]), {}, "item must lie in 0..4"),
        (([0.5], [0], [0]), {}, "whole numbers"),
        (([0, 0], [1, 1], [0, 1]), {}, "at most one vote"),
        (([0], [0], [0]), {"known": [0]}, "known must be"),
        (([0], [0], [0]), {"known": [0, 0, 0, 0, 3]}, "known must lie"),
        (([0], [0], [0]), {"model": np.ones((5, 2))}, "model must be"),
        (([0], [0], [0]), {"model": np.full((5, 3), np.nan)}, "hold probabilities"),
    ],
)
def test_votes_that_are_none_are_refused(votes, more, words):
    with pytest.raises(ValueError, match=words):
        consensus(*votes, items=5, people=2, classes=3, **more)
