"""Confident learning against cleanlab: thresholds, counts, how many labels are wrong, and which."""

import numpy as np
import pytest

from llmal.filter.confident import cutoffs, doubtful, joint


@pytest.fixture(scope="module")
def peer():
    """The package, imported only when one of these tests runs: pandas comes with it, a second or two."""
    pytest.importorskip("cleanlab")
    from cleanlab import count
    from cleanlab import filter as filters

    return count, filters


def case(seed):
    """Probabilities that know something of the truth, and labels wrong at a rate that differs by class."""
    draw = np.random.default_rng(seed)
    classes, n = int(draw.integers(2, 7)), int(draw.integers(60, 900))
    truth = draw.choice(classes, n, p=draw.dirichlet(np.full(classes, 3.0)))
    wrong = draw.random(n) < draw.uniform(0, 0.5, classes)[truth]
    labels = np.where(wrong, (truth + draw.integers(1, classes, n)) % classes, truth)
    labels[: 2 * classes] = np.arange(2 * classes) % classes
    odds = draw.uniform(0, 4) * np.eye(classes)[truth] + draw.gamma(1, size=(n, classes))
    return odds / odds.sum(axis=1, keepdims=True), labels


def found(probs, labels):
    ours = joint(probs, labels)
    return ours, doubtful(probs, labels, cutoffs(probs, labels, ours.wrong))


def apart(probs, thresholds):
    """Rows that reach two thresholds or more, while the likeliest class of all is below its own."""
    reached = probs >= thresholds - 1e-6
    return (reached.sum(axis=1) > 1) & ~reached[np.arange(len(probs)), probs.argmax(axis=1)]


@pytest.mark.parametrize("seed", range(40))
def test_thresholds_counts_and_issues_are_the_peers(peer, seed):
    count, filters = peer
    probs, labels = case(seed)
    ours, held = found(probs, labels)
    assert ours.thresholds == pytest.approx(count.get_confident_thresholds(labels, probs), abs=1e-9)
    counts = count.compute_confident_joint(labels, probs, calibrate=False)
    off = ~np.eye(len(counts), dtype=bool)
    odd = apart(probs, ours.thresholds).sum()
    assert np.abs(ours.counts - counts)[off].sum() <= 2 * odd
    assert ours.counts.sum() == pytest.approx(counts.sum(), abs=len(counts))  # it fills the diagonal with 1
    if not odd:
        scaled = count.compute_confident_joint(labels, probs, calibrate=True)
        rows, _ = np.nonzero(np.where(off, ours.wrong - scaled, 0))
        assert np.abs(ours.wrong - scaled)[off].max() <= 1
        assert all(len(set(counts[row].tolist())) < len(counts) for row in rows), "not a matter of equals"
        if not len(rows):  # which of two equal counts is rounded up is nobody's rule
            assert (held == filters.find_label_issues(labels, probs, n_jobs=1)).all()


def test_most_cases_are_the_same_to_the_label(peer):
    """The comparison above is not empty: issues there are many, and few cases have odd rows or ties."""
    same, issues = 0, 0
    for seed in range(40):
        probs, labels = case(seed)
        held = found(probs, labels)[1]
        same += (held == peer[1].find_label_issues(labels, probs, n_jobs=1)).all()
        issues += held.sum()
    assert same >= 30
    assert issues > 1000


def test_a_class_below_its_threshold_is_not_the_right_one_as_it_can_be_for_the_peer(peer):
    """The paper takes the likeliest among the classes whose threshold is reached, the peer among all.

    Row 0 reaches the thresholds of classes 1 and 2 (0.3), not that of class 0 (0.9), which is its likeliest.
    """
    probs = np.array([(0.38, 0.32, 0.3), (0.96, 0.02, 0.02), (0.4, 0.3, 0.3), (0.35, 0.3, 0.35)])
    probs = np.concatenate([probs, np.tile([0.98, 0.01, 0.01], (8, 1)), np.tile([0.5, 0.25, 0.25], (4, 1))])
    labels = np.array([1, 0, 1, 2] + [0] * 8 + [1, 2, 1, 2])
    ours = joint(probs, labels)
    assert apart(probs, ours.thresholds)[0]
    theirs = peer[0].compute_confident_joint(labels, probs, calibrate=False)
    assert theirs[1, 0] > ours.counts[1, 0]


@pytest.mark.filterwarnings("ignore:May not flag all label issues:UserWarning")
def test_a_class_that_nobody_names_is_nobodys_right_label(peer):
    probs, labels = case(3)
    wider = np.concatenate([probs * 0.9, np.full((len(probs), 1), 0.1)], axis=1)
    theirs = peer[1].find_label_issues(labels, wider, n_jobs=1)
    ours, held = found(wider, labels)
    assert not ours.wrong[:, -1].any()
    assert (held == theirs).all()
