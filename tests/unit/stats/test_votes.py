"""Votes of several annotators: golden values, recovery of planted annotators, and who is found out."""

import numpy as np
import pytest

from llmal.stats.votes import (
    NONE,
    complete,
    dawid_skene,
    log_odds,
    majority,
    mismatch,
    overlaps,
    suspects,
)

TEN = np.array([[n >> 2 & 1, n >> 1 & 1, n & 1] for n in (0, 1, 6, 7, 2, 5, 0, 6, 1, 7)])


def crowd(n, accuracies, *, classes=2, asked=1.0, seed=0):
    """Votes of independent annotators, wrong ones spread evenly, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    votes = np.empty((n, len(accuracies)), np.int64)
    for j, accuracy in enumerate(accuracies):
        wrong = (truth + rng.integers(1, classes, size=n)) % classes
        votes[:, j] = np.where(rng.random(n) < accuracy, truth, wrong)
    votes[rng.random(votes.shape) >= asked] = NONE
    return votes, truth


def right(probs, truth):
    return float((probs.argmax(axis=1) == truth).mean())


# --- majority


def test_a_majority_is_a_share_of_the_votes_given():
    votes = [[0, 0, 1], [2, NONE, NONE], [0, 1, NONE]]
    expected = [[2 / 3, 1 / 3, 0], [0, 0, 1], [0.5, 0.5, 0]]
    assert majority(votes, 3) == pytest.approx(np.array(expected))


def test_an_item_without_a_vote_gets_the_balance():
    assert majority([[NONE, NONE]], 2, balance=[0.9, 0.1]).tolist() == [[0.9, 0.1]]
    assert majority([[NONE, NONE]], 2).tolist() == [[0.5, 0.5]]


def test_annotators_in_another_order_say_the_same():
    votes, _ = crowd(50, [0.8, 0.6, 0.7], classes=3, asked=0.7)
    assert majority(votes[:, [2, 0, 1]], 3) == pytest.approx(majority(votes, 3))


def test_a_vote_of_chance_weighs_nothing_and_a_better_one_more():
    weights = log_odds([0.2, 0.5, 0.7, 0.9, 1.0], 2)
    assert weights[:2].tolist() == [0, 0]
    assert (np.diff(weights[1:]) > 0).all()
    assert weights[3] == pytest.approx(np.log(9))
    votes, truth = crowd(4000, [0.9, 0.6, 0.6])
    assert right(majority(votes, 2, weights=log_odds([0.9, 0.6, 0.6], 2)), truth) > right(
        majority(votes, 2), truth
    )


# --- Dawid-Skene


def test_dawid_skene_gives_the_golden_posterior():
    found = dawid_skene(TEN, 2, smoothing=0, most=1000, tolerance=1e-9)
    assert found.probs[:, 1] == pytest.approx([0, 0, 1, 1, 0, 1, 0, 1, 0, 1], abs=2e-4)


def test_the_likelihood_never_falls():
    votes, _ = crowd(200, [0.8, 0.7, 0.55, 0.6], classes=3, asked=0.8)

    def likelihood(steps):
        found = dawid_skene(votes, 3, smoothing=0, most=steps, tolerance=0)
        total = np.log(found.balance)[None].repeat(len(votes), axis=0)
        for j in range(votes.shape[1]):
            given = votes[:, j] != NONE
            total[given] += np.log(np.maximum(found.confusion[j][:, votes[given, j]].T, 1e-300))
        return float(np.logaddexp.reduce(total, axis=1).sum())

    values = [likelihood(steps) for steps in (0, 1, 2, 5, 20, 60)]
    assert (np.diff(values) >= -1e-9).all()


def test_planted_confusions_are_recovered_and_beat_the_majority():
    accuracies = [0.9, 0.75, 0.6, 0.6, 0.55]
    votes, truth = crowd(5000, accuracies, classes=3)
    found = dawid_skene(votes, 3)
    for j, accuracy in enumerate(accuracies):
        assert np.diag(found.confusion[j]) == pytest.approx([accuracy] * 3, abs=0.04)
    assert right(found.probs, truth) > right(majority(votes, 3), truth) + 0.02


def test_peoples_answers_are_taken_as_true_and_turn_a_crowd_that_is_mostly_wrong():
    votes, truth = crowd(1000, [0.3, 0.3, 0.3, 0.8])
    assert right(dawid_skene(votes, 2).probs, truth) < 0.5, "without an anchor the wrong majority wins"
    known = np.where(np.arange(1000) < 50, truth, NONE)
    found = dawid_skene(votes, 2, known=known)
    assert (found.probs[np.arange(50), truth[:50]] == 1).all()
    assert right(found.probs[50:], truth[50:]) > 0.8


def test_an_item_nobody_voted_on_gets_the_balance():
    votes = np.vstack([crowd(300, [0.8] * 3)[0], [[NONE] * 3]])
    found = dawid_skene(votes, 2)
    assert found.probs[-1] == pytest.approx(found.balance, abs=1e-6)


# --- matrix completion


def true_mu(accuracies):
    return np.array([[a, 1 - a] if side == 0 else [1 - a, a] for a in accuracies for side in (0, 1)])


def test_true_parameters_leave_nothing_unexplained():
    mu, half = true_mu([0.8, 0.7, 0.9]), np.array([0.5, 0.5])
    overlap = (mu * half) @ mu.T
    assert overlap[0, 2] == pytest.approx(0.31)
    overlap[range(6), range(6)] = (mu * half).sum(axis=1)
    assert mismatch(mu, overlap, half, 3) == pytest.approx(0, abs=1e-12)
    assert mismatch(true_mu([0.8, 0.7, 0.8]), overlap, half, 3) > 1e-3


def test_matrix_completion_gives_the_golden_posterior_of_its_sources():
    mu = true_mu([0.8, 0.7, 0.9])
    every = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    odds = np.array(
        [[np.prod([mu[2 * j + v, c] for j, v in enumerate(row)]) for c in (0, 1)] for row in every]
    )
    copies = np.repeat(every, np.round(odds.sum(axis=1) * 10_000).astype(int), axis=0)
    found = complete(copies, 2)
    assert found.confusion[:, 0, 0] == pytest.approx([0.8, 0.7, 0.9], abs=2e-3)
    place = int(np.flatnonzero((copies == [0, 0, 1]).all(axis=1))[0])
    assert found.probs[place] == pytest.approx([0.509091, 0.490909], abs=5e-3)


def test_matrix_completion_beats_the_majority_of_unequal_sources_that_abstain():
    votes, truth = crowd(20_000, [0.9, 0.55, 0.6, 0.8, 0.55], classes=3, asked=0.7)
    assert right(complete(votes, 3).probs, truth) > right(majority(votes, 3), truth) + 0.02


def test_two_sources_do_not_tell_which_is_better():
    with pytest.raises(ValueError, match="needs three annotators, got 2"):
        complete([[0, 1]], 2)


def test_overlaps_count_pairs_of_answers():
    votes = np.array([[0, 0], [0, 1], [1, NONE]])
    said = (votes[:, :, None] == np.arange(2)).astype(float)
    assert overlaps(said)[0].tolist() == pytest.approx([2 / 3, 0, 1 / 3, 1 / 3])


# --- suspects


def test_nobody_is_suspected_among_honest_annotators_over_many_crowds():
    false = sum(
        bool(suspects(crowd(200, [0.85, 0.7, 0.75, 0.65], classes=3, seed=s)[0], 3)) for s in range(100)
    )
    assert false <= 5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda truth, rng: np.ones_like(truth), "answers 1 to 100% of its items"),
        (lambda truth, rng: (truth + 1) % 3, "answers against the others"),
        (lambda truth, rng: rng.integers(3, size=len(truth)), "hardly better than chance"),
    ],
)
def test_one_bad_annotator_is_found_and_named(spoil, words):
    for seed in range(30):
        votes, truth = crowd(600, [0.85, 0.7, 0.75, 0.65], classes=3, seed=seed)
        votes[:, 2] = spoil(truth, np.random.default_rng(1000 + seed))
        found = suspects(votes, 3)
        assert [s.annotator for s in found] == [2]
        assert found[0].why.startswith(words)


def test_one_class_is_no_fault_where_nearly_every_item_is_of_it():
    rng = np.random.default_rng(0)
    truth = (rng.random(500) < 0.05).astype(np.int64)
    votes = np.column_stack([np.where(rng.random(500) < 0.9, truth, 1 - truth) for _ in range(3)])
    votes[:, 0] = 0
    assert not [s for s in suspects(votes, 2) if "of its items" in s.why]


def test_two_annotators_accuse_nobody():
    assert suspects([[0, 1], [1, 0]], 2) == []


# --- bad input


@pytest.mark.parametrize("votes", [[0, 1], [[0.5, 1.0]], [[0, 3]], [[-2, 0]]])
def test_votes_that_are_none_are_refused(votes):
    for ask in (majority, dawid_skene, complete, suspects):
        with pytest.raises(ValueError, match="votes must"):
            ask(votes, 3)


def test_no_items_are_no_error():
    nothing = np.zeros((0, 3), np.int64)
    assert (
        majority(nothing, 2).shape == dawid_skene(nothing, 2).probs.shape == complete(nothing, 2).probs.shape
    )


def test_an_annotator_that_is_mostly_silent_is_named_and_one_that_was_not_asked_is_not():
    votes, _ = crowd(600, [0.85, 0.8, 0.85, 0.85])
    votes[np.random.default_rng(1).random(600) < 0.6, 3] = NONE
    assert suspects(votes, 2, asked=votes != NONE) == []
    assert suspects(votes, 2) == []
    (found,) = suspects(votes, 2, asked=np.ones(votes.shape, bool))
    assert found.annotator == 3
    assert found.why.startswith("gives no label to 6")
    votes[:, 3] = np.where(np.random.default_rng(2).random(600) < 0.05, NONE, crowd(600, [0.85])[0][:, 0])
    assert suspects(votes, 2, asked=np.ones(votes.shape, bool)) == [], "a few gaps are no fault"
