"""Info-Coevolution: worked fusion, votes by brute force, gains that fall and never rise, and when to stop."""

import numpy as np
import pytest

from llmal.select import info_coevolution
from llmal.select.info_coevolution import Ballots, InfoCoevolution, fuse, opinions
from llmal.select.stage import Pool
from llmal.select.warm import SubPool


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pool(vectors, probs, *, labelled=(), targets=None, multi=False):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    probs = np.asarray(probs, np.float32)
    return Pool(np.asarray(vectors, np.float32), rows, labelled, probs, probs.shape[1], targets, multi)


def clumps(*, n=200, labelled=40, seed=0, classes=3, multi=False):
    """Rows around six directions, so near that they vote on each other."""
    draw = rng(seed)
    vectors = unit(np.eye(6, 12)[draw.integers(6, size=n)] + 0.08 * draw.normal(size=(n, 12)))
    probs = draw.uniform(size=(n, classes)) if multi else draw.dirichlet(np.ones(classes), size=n)
    if multi:
        targets = (draw.random((labelled, classes)) < 0.5).astype(np.float32)
        targets[:, 0] = 1
    else:
        targets = np.eye(classes, dtype=np.float32)[draw.integers(classes, size=labelled)]
    return pool(vectors, probs, labelled=range(labelled), targets=targets, multi=multi)


@pytest.mark.parametrize(
    ("other", "same", "value"), [(0.7, True, 0.903226), (0.7, False, 0.631579), (0.3, False, 0.8)]
)
def test_golden_fusion(other, same, value):
    for one, two in ((0.8, other), (other, 0.8)):
        assert fuse(np.array(one), np.array(two), same=np.array(same)) == pytest.approx(value, abs=1e-6)


def test_fusion_of_certain_voices():
    certain = np.ones(2)
    assert fuse(certain, certain, same=np.array([True, False])) == pytest.approx([1, 0.5])
    assert fuse(certain, np.array([0.7, 0.2]), same=np.array([False, False])) == pytest.approx([1, 1])


def test_agreement_raises_and_conflict_lowers_confidence():
    one, other = rng().random(500), rng(1).random(500)
    high = np.maximum(one, other)
    agreed = fuse(one, other, same=np.ones(500, bool))
    differ = fuse(one, other, same=np.zeros(500, bool))
    assert (agreed >= high - 1e-9).all()
    assert (differ <= high + 1e-9).all()
    assert ((agreed >= 0) & (agreed <= 1) & (differ >= 0)).all()


def test_confidence_is_counted_from_chance():
    guess, sure = opinions(np.array([[1 / 3, 1 / 3, 1 / 3], [0, 0, 1], [0.5, 0.25, 0.25]], np.float32))
    assert guess.tolist() == [[0], [2], [0]]
    assert sure[:, 0] == pytest.approx([0, 1, 0.25], abs=1e-6)
    guess, sure = opinions(np.array([[0.9, 0.5]], np.float32), multi=True)
    assert guess.tolist() == [[1, 0]]
    assert sure[0] == pytest.approx([0.8, 0], abs=1e-6)
    assert opinions(np.array([[0.2]], np.float32))[1][0] == pytest.approx([0.6], abs=1e-6)


def test_the_gain_falls_with_confidence():
    # One function of the released code lost the minus sign of its entropy, which turns this round.
    probs = np.array([[1 - p, p] for p in (0.5, 0.6, 0.8, 0.99, 1.0)])
    some = pool(np.eye(5), probs)
    chosen = InfoCoevolution().select(some, 5, rng())
    gain = dict(zip(chosen.rows.tolist(), chosen.scores, strict=True))
    assert [gain[i] for i in range(5)] == pytest.approx([1, 0.8, 0.4, 0.02, 0], abs=1e-6)


def confidence_by_hand(some, row, voters, k, near):
    """Of one row of a single-label pool; voters are (vector, class)."""
    x = some.vectors[row].astype(np.float64)
    close = sorted(((float(x @ v), c) for v, c in voters), reverse=True)[:k]
    close = [(min(s, 1), c) for s, c in close if s > near]
    p, classes = some.probs[row].astype(np.float64), some.n_classes
    mine = (p.max() - 1 / classes) / (1 - 1 / classes)
    if not close:
        return mine
    weight = [sum(s for s, c in close if c == kind) for kind in range(classes)]
    vote = max(weight) / len(close)
    high, low = max(mine, vote), min(mine, vote)
    if low <= 0.5:
        return high
    against = low if weight.index(max(weight)) == p.argmax() else 1 - low
    return high * against / (high * against + (1 - high) * (1 - against))


@pytest.mark.parametrize("k", [1, 3, 8, 100])
def test_votes_by_brute_force(k, monkeypatch):
    monkeypatch.setattr(info_coevolution, "AT_ONCE", 17)
    some = clumps()
    chosen = InfoCoevolution(neighbours=k).select(some, 1, rng(2))
    voters = [(some.vectors[i], int(t.argmax())) for i, t in zip(some.labelled, some.targets, strict=True)]
    by_hand = np.array([1 - confidence_by_hand(some, row, voters, k, 0.85) for row in some.unlabelled])
    assert chosen.scores[0] == pytest.approx(by_hand[some.unlabelled.searchsorted(chosen.rows[0])], abs=1e-5)
    drawn = np.concatenate(
        [InfoCoevolution(neighbours=k).select(some, 1, rng(seed)).rows for seed in range(300)]
    )
    expected = by_hand[some.unlabelled.searchsorted(drawn)].mean()
    assert expected == pytest.approx((by_hand**2).sum() / by_hand.sum(), rel=0.1), "in proportion to gain"


def test_a_pick_speaks_to_its_neighbours():
    # Rows 0 and 1 are near and guessed alike, row 2 near and guessed otherwise, row 3 far away.
    vectors = unit(np.array([[1, 0, 0], [1, 0.1, 0], [1, 0, 0.1], [0, 0, 1]]))
    probs = np.array([[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.5, 0.5]])
    some = pool(vectors, probs)
    alone = 1 - 0.4
    seen = set()
    for seed in range(40):
        chosen = InfoCoevolution().select(some, 2, rng(seed))
        first, second = chosen.rows.tolist()
        gain = chosen.scores[1]
        seen.add((first, second))
        near_and_alike = {first, second} == {0, 1}
        if near_and_alike:
            assert gain < alone - 0.5, "an answer like its own is taken as good as given"
        elif 3 not in (first, second):
            assert gain >= alone - 1e-6, "another answer never lowers the gain"
        else:
            assert gain == pytest.approx(1 if second == 3 else alone)
    assert (0, 1) in seen or (1, 0) in seen
    assert {(0, 2), (1, 2), (2, 0), (2, 1)} & seen


def test_gains_of_alike_rows_only_fall():
    some = clumps()
    alike = some._replace(probs=np.tile(np.array([0.6, 0.3, 0.1], np.float32), (200, 1)))
    chosen = InfoCoevolution().select(alike, 160, rng(1))
    everything = []
    for k in (1, 20, 80, 160):
        everything.append(chosen.scores[k - 1 :].sum())
    assert (np.diff(everything) < 0).all()
    assert chosen.scores.max() <= 1


def test_the_farthest_voter_makes_room():
    ballots = Ballots(1, 2, 2, np.array([[0], [1], [0]], np.int32))
    row = np.array([0])
    ballots.count_in(row, np.array([[0.9, 0.5, 0.95]], np.float32), 0.85)
    assert sorted(ballots.close[0]) == pytest.approx([0.9, 0.95])
    ballots.add(row, np.array([0.88], np.float32), np.array([1], np.int32))
    assert sorted(ballots.close[0]) == pytest.approx([0.9, 0.95])
    ballots.add(row, np.array([1.01], np.float32), np.array([1], np.int32))
    assert sorted(ballots.close[0]) == pytest.approx([0.95, 1.0])
    guess, sure = np.array([[1]], np.int32), np.array([[0.2]], np.float32)
    assert ballots.fused(row, guess, sure)[0, 0] == pytest.approx(1.0 / 2), "half of two voters say 1"


def test_a_single_neighbour_is_no_certainty():
    vectors = unit(np.array([[1, 0], [1, 0.3]]))
    some = pool(vectors, [[0.5, 0.5], [0.5, 0.5]], labelled=[1], targets=np.eye(2, dtype=np.float32)[:1])
    similarity = float(vectors[0] @ vectors[1])
    assert InfoCoevolution().select(some, 1, rng()).scores[0] == pytest.approx(1 - similarity, abs=1e-6)


def test_an_answer_that_was_not_accepted_does_not_vote():
    some = clumps()
    nothing = some._replace(targets=np.zeros_like(some.targets))
    silent = InfoCoevolution().select(nothing._replace(labelled=some.labelled[:0], targets=None), 9, rng(3))
    chosen = InfoCoevolution().select(nothing, 9, rng(3))
    assert chosen.rows.tolist() == silent.rows.tolist()


def test_enough_when_little_is_left_to_gain():
    sure = np.array([[0.999, 0.001]] * 50)
    some = pool(np.eye(50), sure)
    chosen = InfoCoevolution().select(some, 10, rng())
    assert len(set(chosen.rows.tolist())) == 10
    assert "add 0.10 to confidence in all" in chosen.enough
    assert InfoCoevolution().select(pool(np.eye(50), [[0.98, 0.02]] * 50), 10, rng()).enough == ""
    part = InfoCoevolution(within=SubPool(most=5)).select(some, 3, rng())
    assert part.enough == "", "a part of the pool says nothing of the rest"


def test_guesses_within_a_batch_do_not_end_the_run():
    # Every gain is used up by the picks' own guesses, of which no answer is known yet.
    twins = pool(np.tile(np.eye(1, 4, dtype=np.float32), (30, 1)), [[0.7, 0.3]] * 30)
    chosen = InfoCoevolution().select(twins, 10, rng())
    assert chosen.scores[0] == pytest.approx(0.6, abs=1e-6)
    assert chosen.scores[1:].max() < 1e-6
    assert chosen.enough == ""


def test_where_nothing_is_left_to_gain_rows_are_drawn_at_random():
    some = pool(np.eye(20), np.eye(2)[[0, 1] * 10])
    chosen = InfoCoevolution().select(some, 20, rng())
    assert sorted(chosen.rows.tolist()) == list(range(20))
    assert all("at random" in reason for reason in chosen.reasons)
    assert chosen.enough


@pytest.mark.parametrize("classes", [1, 4])
def test_yes_no_answers(classes):
    some = clumps(classes=classes, multi=True)
    for k in (1, 30, 160):
        chosen = InfoCoevolution().select(some, k, rng(k))
        assert len(set(chosen.rows.tolist())) == k
        assert ((chosen.scores >= 0) & (chosen.scores <= 1)).all()


def test_one_label_of_several_may_be_settled():
    # Labelled twin says yes to the first label and no to the second; the student knows nothing.
    vectors = np.tile(np.array([[1, 0]], np.float32), (2, 1))
    targets = np.array([[1, 0]], np.float32)
    settled = pool(vectors, np.full((2, 2), 0.5), labelled=[1], targets=targets, multi=True)
    assert InfoCoevolution().select(settled, 1, rng()).scores[0] == pytest.approx(0, abs=1e-6)
    away = pool(np.eye(2), np.array([[1, 0.5], [0.5, 0.5]]), labelled=[1], targets=targets, multi=True)
    assert InfoCoevolution().select(away, 1, rng()).scores[0] == pytest.approx(0.5, abs=1e-6)


def test_a_row_with_none_of_the_labels_is_a_no_to_each():
    vectors = np.tile(np.array([[1, 0]], np.float32), (2, 1))
    nothing = np.zeros((1, 2), np.float32)
    some = pool(vectors, np.full((2, 2), 0.5), labelled=[1], targets=nothing, multi=True)
    assert InfoCoevolution().select(some, 1, rng()).scores[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("multi", [False, True])
def test_blocks_change_nothing(monkeypatch, multi):
    some = clumps(multi=multi)
    whole = InfoCoevolution().select(some, 30, rng(4))
    monkeypatch.setattr(info_coevolution, "AT_ONCE", 5)
    parts = InfoCoevolution().select(some, 30, rng(4))
    assert parts.rows.tolist() == whole.rows.tolist()
    assert parts.scores == pytest.approx(whole.scores)
