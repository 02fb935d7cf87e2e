"""The weighted vote: copies share one say, merit counts, and nothing depends on order or names."""

import numpy as np
import pytest

from llmal.stats.votes import NONE, dawid_skene, log_odds, majority
from llmal.stats.weighted import weighted


def crowd(n, accuracies, *, copies=0, classes=2, seed=0):
    """Votes of independent annotators, the last of them followed by near copies of itself, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    columns = []
    for accuracy in accuracies:
        wrong = (truth + rng.integers(1, classes, size=n)) % classes
        columns.append(np.where(rng.random(n) < accuracy, truth, wrong))
    for _ in range(copies):
        columns.append(
            np.where(rng.random(n) < 0.95, columns[len(accuracies) - 1], rng.integers(classes, size=n))
        )
    return np.stack(columns, axis=1), truth


def anchored(truth, n, seed=0):
    known = np.full(len(truth), NONE)
    rows = np.random.default_rng(seed).choice(len(truth), n, replace=False)
    known[rows] = truth[rows]
    return known


def right(probs, truth):
    return float((probs.argmax(axis=1) == truth).mean())


@pytest.mark.parametrize("classes", [2, 4])
def test_five_copies_of_a_bad_annotator_do_not_outvote_two_good_ones(classes):
    gains = []
    for seed in range(10):
        votes, truth = crowd(2000, [0.85, 0.8, 0.6], copies=5, classes=classes, seed=seed)
        known = anchored(truth, 50, seed)
        ours = right(weighted(votes, classes, known=known).probs, truth)
        taken_for_independent = (majority(votes, classes), dawid_skene(votes, classes, known=known).probs)
        gains.append(ours - max(right(probs, truth) for probs in taken_for_independent))
    assert min(gains) > 0  # those that take copies for independent lose to the weighted vote every time
    assert np.mean(gains) > 0.1


def test_among_independent_annotators_it_is_about_as_good_as_the_best_possible_weights():
    accuracies = [0.9, 0.75, 0.6, 0.55, 0.7]
    short = []
    for seed in range(10):
        votes, truth = crowd(2000, accuracies, seed=seed)
        best = right(majority(votes, 2, weights=log_odds(accuracies, 2)), truth)
        short.append(best - right(weighted(votes, 2, known=anchored(truth, 50, seed)).probs, truth))
    assert np.mean(short) < 0.01


def test_without_any_answer_of_people_better_annotators_still_weigh_more():
    votes, truth = crowd(3000, [0.9, 0.75, 0.6, 0.5])
    found = weighted(votes, 2)
    assert (np.diff(found.weights) < 0).all()
    assert right(found.probs, truth) >= right(majority(votes, 2), truth)


def test_an_annotator_worse_than_chance_gets_no_say():
    votes, truth = crowd(2000, [0.85, 0.8, 0.2])
    assert weighted(votes, 2, known=anchored(truth, 100)).weights[2] == 0


def test_annotators_and_items_in_another_order_say_the_same():
    votes, truth = crowd(400, [0.85, 0.7, 0.6], classes=3)
    votes[np.random.default_rng(1).random(votes.shape) < 0.2] = NONE
    known = anchored(truth, 40)
    found = weighted(votes, 3, known=known)
    back = weighted(votes[::-1, [2, 0, 1]], 3, known=known[::-1])
    assert back.weights == pytest.approx(found.weights[[2, 0, 1]], abs=1e-4)
    assert back.probs[::-1] == pytest.approx(found.probs, abs=1e-3)


def test_probabilities_are_probabilities_also_where_nobody_votes_or_one_class_is_all_there_is():
    votes, truth = crowd(300, [0.9, 0.8, 0.7])
    votes[:5] = NONE
    found = weighted(votes, 2, known=anchored(truth, 30))
    assert found.probs.sum(axis=1) == pytest.approx(1)
    assert found.probs.min() > 0
    assert (found.probs[:5] == found.probs[0]).all()
    same = weighted(np.zeros((20, 3), int), 2)
    assert (same.probs.argmax(axis=1) == 0).all()
    assert weighted(np.zeros((0, 3), int), 2).probs.shape == (0, 2)
