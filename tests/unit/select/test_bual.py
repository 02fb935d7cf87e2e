"""BUAL: worked score, negative labels, what happens without unknown rows, and the share of known ones."""

import numpy as np
import pytest

from llmal.select import bual
from llmal.select.bual import Adam, Bual, complementary, fitted, predicted, scaled, score, softmax, unlike
from llmal.select.margin import Margin, margins
from llmal.select.stage import Pool


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def news(*, n=600, labelled=60, seed=0, width=0.22, dim=24):
    """Two known topics and two unknown ones; the student has seen the known ones alone."""
    draw = rng(seed)
    topic = draw.integers(4, size=n)
    vectors = unit(np.eye(4, dim)[topic] + width * draw.normal(size=(n, dim)))
    rows = np.arange(labelled)
    targets = np.eye(4, dtype=np.float32)[topic[:labelled]][:, :2]
    known = targets.any(axis=1)
    some = Pool(vectors, np.arange(n), rows[:0], None, 2)
    student = fitted(vectors[rows[known]], targets[known])
    probs = predicted(some, [student]).astype(np.float32)
    return some._replace(
        unlabelled=np.arange(labelled, n), labelled=rows, probs=probs, targets=targets
    ), topic


def test_golden_score():
    assert score(0.2, 0.7, 0.5, 0.4) == pytest.approx(0.324)


def test_without_chance_of_unknown_the_score_is_the_students():
    student = rng().random(9)
    assert score(np.zeros(9), 1.0, rng(1).random(9), student) == pytest.approx(student)
    negative = rng(1).random(9)
    assert score(np.ones(9), 0.4, negative, student) == pytest.approx(negative)


@pytest.mark.parametrize("case", ["no targets", "nothing labelled", "all known", "all unknown"])
def test_without_both_kinds_the_students_margin_decides(case):
    some, _ = news()
    if case == "no targets":
        some = some._replace(targets=None)
    if case == "nothing labelled":
        some = some._replace(labelled=some.labelled[:0], targets=some.targets[:0])
    if case == "all known":
        known = some.targets.any(axis=1)
        some = some._replace(labelled=some.labelled[known], targets=some.targets[known])
    if case == "all unknown":
        some = some._replace(targets=np.zeros_like(some.targets))
    chosen = Bual().select(some, 20, rng())
    assert chosen.rows.tolist() == Margin().select(some, 20, rng()).rows.tolist()
    why = "nothing off-topic" if case == "all known" else "nothing labelled"
    assert all(why in reason for reason in chosen.reasons)


def test_the_largest_uncertainty_is_asked_not_the_largest_margin():
    some, _ = news()
    chosen = Bual().select(some._replace(targets=None), len(some.unlabelled), rng())
    gaps = margins(np.asarray(some.probs[chosen.rows], np.float64))
    assert (np.diff(gaps) >= -1e-7).all(), "the printed formula would start with the easiest row"


def test_a_negative_label_is_never_a_true_one():
    allowed = rng().random((500, 4)) < 0.5
    allowed[:, 2] |= ~allowed.any(axis=1)
    drawn = np.stack([complementary(allowed, rng(seed)) for seed in range(40)])
    assert allowed[np.arange(500), drawn].all()
    free = complementary(np.ones((8000, 4), bool), rng())
    assert np.bincount(free) / 8000 == pytest.approx(np.full(4, 0.25), abs=0.02)


def test_negative_gradient_by_differences():
    z, wrong = rng(2).normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    found = unlike(softmax(z), wrong)
    rows = np.arange(5)

    def loss(scores):
        return -np.log(1 - softmax(scores)[rows, wrong])

    for c in range(4):
        nudge = np.zeros((5, 4))
        nudge[:, c] = 1e-6
        assert found[:, c] == pytest.approx((loss(z + nudge) - loss(z - nudge)) / 2e-6, abs=1e-6)


def test_negative_gradient_where_a_wrong_class_is_certain():
    assert np.isfinite(unlike(np.array([[1.0, 0.0]]), np.array([0]))).all()


def test_a_head_learns_its_labels():
    some, topic = news()
    head = fitted(np.asarray(some.vectors), np.eye(4, dtype=np.float32)[topic])
    assert (predicted(some, [head]).argmax(axis=1) == topic[60:]).mean() > 0.97


def test_several_labels_of_a_row_share_it():
    vectors = unit(np.ones((20, 3)))
    head = fitted(vectors, np.tile(np.array([[1, 1, 0]], np.float32), (20, 1)))
    assert softmax(np.append(vectors[0], 1.0) @ head) == pytest.approx([0.5, 0.5, 0], abs=0.02)


def test_prediction_is_the_mean_over_snapshots(monkeypatch):
    monkeypatch.setattr(bual, "BLOCK", 50)
    some, _ = news()
    heads = [rng(seed).normal(size=(25, 3)) for seed in range(4)]
    x = np.concatenate([some.vectors[some.unlabelled], np.ones((540, 1))], axis=1)
    by_hand = np.mean([softmax(x @ head) for head in heads], axis=0)
    assert predicted(some, heads) == pytest.approx(by_hand, abs=1e-5)


def test_adam_finds_a_minimum():
    weights = np.array([3.0, -2.0])
    step = Adam(weights)
    for _ in range(2000):
        step(2 * (weights - np.array([1.0, 0.5])))
    assert weights == pytest.approx([1.0, 0.5], abs=0.01)


def test_scaled():
    assert scaled(np.array([2.0, 4.0, 3.0])).tolist() == [0, 1, 0.5]
    assert scaled(np.full(3, 0.7)).tolist() == [0, 0, 0]


def test_asks_for_more_rows_of_known_topics_than_the_margin_does():
    ours, plain = [], []
    for seed in range(4):
        some, topic = news(seed=seed)
        ours.append((topic[Bual(epochs=20).select(some, 60, rng(seed)).rows] < 2).mean())
        plain.append((topic[Margin().select(some, 60, rng(seed)).rows] < 2).mean())
    assert np.mean(ours) > np.mean(plain) + 0.3
    assert np.mean(ours) > 0.8


def test_rows_taken_for_unknown_come_last():
    some, topic = news()
    chosen = Bual(epochs=5).select(some, len(some.unlabelled), rng())
    assert (np.diff(chosen.scores) <= 0).all()
    last = topic[chosen.rows[-200:]]
    assert (last >= 2).mean() > 0.9
    assert "off-topic" in chosen.reasons[0]


@pytest.mark.parametrize("classes", [1, 3])
def test_yes_no_answers(classes):
    some, _ = news()
    draw = rng(3)
    targets = (draw.random((60, classes)) < 0.5).astype(np.float32)
    targets[:3] = 1  # no label is wrong: nothing negative to learn
    targets[3:9] = 0
    probs = draw.random((600, classes)).astype(np.float32)
    multi = some._replace(targets=targets, probs=probs, n_classes=classes, multi=True)
    for k in (1, 20, 540):
        chosen = Bual(epochs=3).select(multi, k, rng())
        assert len(set(chosen.rows.tolist())) == k
        assert np.isfinite(chosen.scores).all()


def test_same_rng_same_picks():
    some, _ = news()
    first, second = (Bual(epochs=5).select(some, 30, rng(9)) for _ in range(2))
    assert first.rows.tolist() == second.rows.tolist()
    assert (first.scores == second.scores).all()


def test_every_row_may_be_taken_for_unknown():
    some, _ = news()
    one = some.targets.copy()
    one[np.flatnonzero(one.any(axis=1))[1:]] = 0
    chosen = Bual(epochs=2).select(some._replace(targets=one), 540, rng())
    assert len(set(chosen.rows.tolist())) == 540
