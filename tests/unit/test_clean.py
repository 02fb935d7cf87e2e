"""Sorting labels by a student's losses: two kinds are told apart, one kind stays whole, chance is seeded."""

import numpy as np
import pytest

from llmal.clean import (
    CLEAN,
    EVEN,
    FEWEST,
    INVALID,
    cross_entropy,
    cross_fitted,
    examples,
    small_losses,
)


def two_kinds(seed, n=1000, share=0.8):
    """Losses around 0.2 and around 2, and which are of the first kind."""
    rng = np.random.default_rng(seed)
    low = rng.random(n) < share
    return np.abs(np.where(low, rng.normal(0.2, 0.1, n), rng.normal(2.0, 0.4, n))), low


def blobs(seed, n=600, n_classes=3, noise=0.3, d=20):
    """Unit vectors around C centres, their classes, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    x = rng.normal(size=(n_classes, d))[truth] + 1.2 * rng.normal(size=(n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    chance = (
        noise * np.array([0.5, 1.0, 1.5] + [1.0] * n_classes)[truth]
    )  # some classes are mistaken more often
    wrong = rng.random(n) < chance
    return x, truth, np.where(wrong, (truth + rng.integers(1, n_classes, n)) % n_classes, truth)


def share_right(mask_of):
    return [np.mean(mask_of(losses) == low) for losses, low in (two_kinds(seed) for seed in range(20))]


def test_two_kinds_of_loss_are_told_apart():
    assert min(share_right(lambda losses: small_losses(losses).mask)) >= 0.95


@pytest.mark.parametrize(
    "broken",
    [
        lambda losses: small_losses(losses).posterior < CLEAN,  # the other component
        lambda losses: losses < np.median(losses),  # half of them, whatever they are
    ],
)
def test_the_measure_notices_a_broken_mask(broken):
    assert max(share_right(broken)) < 0.95


def test_two_kinds_are_told_apart_as_by_expectation_and_maximisation_written_out():
    for seed in range(5):
        losses, _ = two_kinds(seed)
        x = (losses - losses.min()) / (losses.max() - losses.min())
        mean, var, weight = np.array([0.1, 0.7]), np.full(2, 0.05), np.full(2, 0.5)
        for _ in range(200):
            dense = weight * np.exp(-((x[:, None] - mean) ** 2) / (2 * var)) / np.sqrt(var)
            share = dense / dense.sum(axis=1, keepdims=True)
            weight = share.mean(axis=0)
            mean = (share * x[:, None]).sum(axis=0) / share.sum(axis=0)
            var = (share * (x[:, None] - mean) ** 2).sum(axis=0) / share.sum(axis=0) + 5e-4
        twin = (share[:, 0] > CLEAN) | (x < mean[0])
        assert np.mean(small_losses(losses).mask == twin) > 0.98


def test_a_smaller_loss_is_never_less_clean():
    rng = np.random.default_rng(1)
    losses = np.concatenate([rng.normal(0.5, 0.02, 300), rng.gamma(2.0, 0.8, 300)])  # the low one is narrow
    found = small_losses(losses)
    assert found.note == ""
    in_order = found.posterior[np.argsort(losses)]
    assert (np.diff(in_order) <= 1e-9).all()
    assert found.mask[losses.argmin()]
    assert not found.mask[losses.argmax()]


def test_losses_of_one_kind_are_all_clean_and_it_is_said():
    whole = [small_losses(np.random.default_rng(seed).normal(1, 0.1, 400)) for seed in range(20)]
    assert sum(bool(found.note) for found in whole) >= 18
    assert all(found.mask.all() for found in whole if found.note)
    assert small_losses(np.full(50, 0.3)).note == "all losses are the same"
    few = small_losses(np.linspace(0, 5, FEWEST - 1))
    assert few.mask.all()
    assert "too few" in few.note


def test_a_row_without_a_label_is_never_clean():
    losses, _ = two_kinds(3)
    losses[::10] = np.nan
    for found in (small_losses(losses), small_losses(np.full(100, np.nan))):
        assert not found.mask[::10].any()
        assert (found.posterior[::10] == 0).all()
    assert small_losses(losses, fit=np.zeros(len(losses), bool)).note


def test_rows_can_be_judged_that_the_mixture_was_not_fitted_on():
    losses, low = two_kinds(4)
    half = np.arange(len(losses)) % 2 == 0
    found = small_losses(losses, fit=half)
    assert np.mean(found.mask[~half] == low[~half]) > 0.95
    assert small_losses(np.where(half, losses, 99.0), fit=half).mask[~half].sum() == 0


def test_a_label_does_not_speak_for_itself():
    """Where labels are pure chance, a student that has not seen them agrees by chance only."""
    from sklearn.linear_model import LogisticRegression

    agree, in_sample = [], []
    for seed in range(5):
        x, _, _ = blobs(seed, n=300)
        labels = np.random.default_rng(seed + 100).integers(2, size=300)
        agree.append(np.mean(cross_fitted(x, labels, 2, seed=0).argmax(axis=1) == labels))
        in_sample.append(LogisticRegression(C=10).fit(x, labels).score(x, labels))
    assert np.mean(agree) < 0.55
    assert np.mean(in_sample) > 0.57, "a student that has seen them would be noticed"


def test_a_row_without_a_label_teaches_nothing():
    x, _, labels = blobs(1)
    gone = labels.copy()
    gone[::4] = INVALID
    kept = gone != INVALID
    with_them = cross_fitted(x, gone, 3, seed=7)
    without = cross_fitted(x[kept], gone[kept], 3, seed=7)
    np.testing.assert_allclose(with_them[kept], without, atol=1e-4)
    assert np.isnan(cross_entropy(with_them, gone)[~kept]).all()
    assert np.mean(with_them[~kept].argmax(axis=1) == blobs(1)[1][~kept]) > 0.7, "yet something is said of it"


def test_probabilities_are_whole_and_losses_bounded():
    x, _, labels = blobs(2, n=90)
    labels[labels == 2] = 0
    labels[5] = 2  # a class with one row: its fold has never seen it
    probs = cross_fitted(x, labels, 4, seed=0)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    assert cross_entropy(probs, labels).max() <= np.log(4 / EVEN) + 1e-9
    assert cross_entropy(probs, labels)[5] > 2
    lonely = cross_fitted(x[:3], np.array([0, 1, INVALID]), 2, seed=0)
    assert np.isfinite(lonely).all()
    np.testing.assert_allclose(lonely.sum(axis=1), 1)


@pytest.mark.parametrize("noise", [0.2, 0.3, 0.4])
def test_clean_labels_are_right_more_often_than_all(noise):
    """The promise of the method (FreeAL): with a fifth to two fifths of labels wrong, by class."""
    gains = []
    for seed in range(8):
        x, truth, labels = blobs(seed, noise=noise)
        clean = small_losses(cross_entropy(cross_fitted(x, labels, 3, seed=seed), labels), seed=seed).mask
        gains.append(np.mean(labels[clean] == truth[clean]) - np.mean(labels == truth))
        assert 0.2 < clean.mean() < 0.95
    assert min(gains) > 0.05


def test_examples_are_agreed_upon_sure_and_no_more_than_asked_for():
    x, _, labels = blobs(3)
    probs = cross_fitted(x, labels, 3, seed=0)
    rows = examples(x, probs, labels, most=30)
    assert len(rows) == 30
    assert len(set(rows.tolist())) == 30
    assert (probs[rows].argmax(axis=1) == labels[rows]).all()
    for c in range(3):
        agreed = np.flatnonzero((labels == c) & (probs.argmax(axis=1) == c))
        bar = np.sort(probs[agreed, c])[-int(np.ceil(0.2 * len(agreed)))]
        mine = rows[labels[rows] == c]
        assert len(mine) == 10
        assert (probs[mine, c] >= bar).all()


def test_fewer_candidates_than_clusters_are_all_taken():
    x, _, labels = blobs(4, n=60)
    labels[labels == 2] = INVALID
    probs = cross_fitted(x, labels, 3, seed=0)
    rows = examples(x, probs, labels, most=100)
    agreed = [int(((labels == c) & (probs.argmax(axis=1) == c)).sum()) for c in (0, 1)]
    assert len(rows) == sum(int(np.ceil(0.2 * n)) for n in agreed)
    assert not (labels[rows] == INVALID).any()
    many = examples(x, np.eye(12)[np.zeros(60, int)], np.zeros(60, np.int64), most=6)
    assert len(many) == 1, "more classes than examples: one each"


def test_the_same_seed_gives_the_same_of_everything():
    x, _, labels = blobs(5)
    one, other, third = (cross_fitted(x, labels, 3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)
    losses = cross_entropy(one, labels)
    assert np.array_equal(small_losses(losses, seed=1).posterior, small_losses(losses, seed=1).posterior)
    assert np.array_equal(examples(x, one, labels, seed=1), examples(x, one, labels, seed=1))


def test_a_fold_of_many_rows_learns_from_some_of_them(monkeypatch):
    import llmal.clean as clean

    x, truth, labels = blobs(6, noise=0.1)
    monkeypatch.setattr(clean, "FIT_ROWS", 100)
    probs = cross_fitted(x, labels, 3, seed=0)
    assert np.mean(probs.argmax(axis=1) == truth) > 0.7
