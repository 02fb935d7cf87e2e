"""Active testing: unbiased whatever is drawn, intervals that hold, and picks that were certain refused."""

import doctest

import numpy as np
import pytest

from llmal.stats import lure as module
from llmal.stats.intervals import wilson
from llmal.stats.lure import Draws, draw, lure, lure_weights, proposal

POOL = 1000


def test_docstring_examples_hold():
    result = doctest.testmod(module)
    assert result.attempted >= 4
    assert result.failed == 0


def pool(rate=0.15, knows=2.0, seed=0):
    """Losses, and what a surrogate expects of each item."""
    rng = np.random.default_rng(seed)
    expected = rng.beta(rate * knows, (1 - rate) * knows, POOL)
    return (rng.random(POOL) < expected).astype(float), expected


def estimates(losses, chances, n, seeds, *, level=0.95):
    found = []
    for seed in range(seeds):
        drawn = draw(chances, n, rng=np.random.default_rng(seed))
        found.append(lure(losses[drawn.items], drawn.chances, len(losses), level=level))
    return found


# --- weights


def test_weights_are_the_published_ones():
    assert lure_weights([0.3, 0.2, 0.25], 6) == pytest.approx([0.733333, 1, 1], abs=1e-6)
    assert lure([1, 0, 1], [0.3, 0.2, 0.25], 6).value == pytest.approx(0.577778, abs=1e-6)


def test_uniform_draws_weigh_one_and_give_the_plain_mean():
    chances = [1 / 10, 1 / 9, 1 / 8, 1 / 7]
    assert lure_weights(chances, 10) == pytest.approx(np.ones(4))
    assert lure([1, 0, 0, 1], chances, 10).value == pytest.approx(0.5)


def test_the_whole_pool_gives_the_plain_mean_without_width():
    losses, expected = pool()
    drawn = draw(proposal(expected), POOL, rng=np.random.default_rng(0))
    assert sorted(drawn.items) == list(range(POOL))
    found = lure(losses[drawn.items], drawn.chances, POOL)
    assert found[:3] == pytest.approx((losses.mean(),) * 3)


def test_weights_equal_the_sum_of_martingale_steps():
    rng = np.random.default_rng(0)
    q, losses, n_pool = rng.uniform(0.05, 0.3, 6), rng.random(6), 9
    m = np.arange(1, 7)
    steps = n_pool * (n_pool - 6) / ((n_pool - m) * (n_pool - m + 1))
    alone = losses / (n_pool * q) + (np.cumsum(losses) - losses) / n_pool
    assert (steps * alone).mean() == pytest.approx(lure(losses, q, n_pool).value)


# --- no bias


def test_the_estimate_is_unbiased_in_a_tiny_pool_by_going_through_every_order():
    losses, chances = np.array([1.0, 0.0, 0.5, 0.2]), np.array([0.5, 0.1, 0.3, 0.1])
    total = 0.0
    for first in range(4):
        for second in set(range(4)) - {first}:
            q = [chances[first], chances[second] / (1 - chances[first])]
            total += q[0] * q[1] * lure(losses[[first, second]], q, 4).value
    assert total == pytest.approx(losses.mean(), abs=1e-12)


@pytest.mark.parametrize("knows", ["errors", "nothing", "the opposite"])
def test_the_mean_over_many_draws_is_the_truth_and_the_plain_mean_of_the_drawn_is_not(knows):
    losses, expected = pool()
    expected = {"errors": expected, "nothing": expected[::-1], "the opposite": 1 - expected}[knows]
    chances = proposal(expected)
    values, plain = [], []
    for seed in range(600):
        drawn = draw(chances, 40, rng=np.random.default_rng(seed))
        values.append(lure(losses[drawn.items], drawn.chances, POOL).value)
        plain.append(losses[drawn.items].mean())
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - losses.mean()) < 3 * error
    if knows != "nothing":
        assert abs(np.mean(plain) - losses.mean()) > 5 * error


def test_a_surrogate_refitted_after_each_draw_keeps_it_unbiased():
    losses, _ = pool()
    losses, topic = losses[:60], np.arange(60) % 3
    values = []
    for seed in range(300):
        rng, left, seen, chances = np.random.default_rng(seed), np.arange(60), [], []
        for _ in range(12):
            right = np.array([1 + sum(losses[i] for i in seen if topic[i] == t) for t in range(3)])
            one = draw(proposal(right[topic[left]] / 13), 1, rng=rng)
            seen.append(int(left[one.items[0]]))
            chances.append(float(one.chances[0]))
            left = np.delete(left, one.items[0])
        values.append(lure(losses[seen], chances, 60).value)
    assert abs(np.mean(values) - losses.mean()) < 3 * np.std(values) / np.sqrt(len(values))


# --- intervals


WORLDS = [(0.05, 2.0, 1), (0.15, 1.0, 1), (0.15, 2.0, -1), (0.4, 2.0, 1)]


def coverage(n, *, seeds=200, level=0.95):
    hits = []
    for rate, knows, way in WORLDS:
        losses, expected = pool(rate, knows)
        found = estimates(losses, proposal(expected[::way]), n, seeds, level=level)
        hits.append(np.mean([f.low <= losses.mean() <= f.high for f in found]))
    return np.array(hits)


@pytest.mark.parametrize(("n", "least"), [(30, 0.87), (100, 0.91)])
def test_intervals_hold_whether_the_surrogate_knows_or_not(n, least):
    hits = coverage(n)
    assert hits.min() > least  # 30 draws: the limit that the docstring tells
    assert 0.93 < hits.mean() < 0.99


def test_a_wrong_variance_is_seen(monkeypatch):
    real = module._variance
    monkeypatch.setattr(module, "_variance", lambda *given: 0.5 * real(*given))
    assert coverage(100).mean() < 0.92


def test_no_error_seen_is_no_proof_of_none():
    found = estimates(np.zeros(POOL), proposal(np.full(POOL, 0.1)), 30, 1)[0]
    assert found.value == 0
    assert 0.05 < found.high < 0.25


def test_a_good_surrogate_saves_width_and_one_that_knows_nothing_costs_a_third_at_most():
    losses, expected = pool(0.15, 0.5)
    alone = wilson(int(round(100 * losses.mean())), 100)
    width = [
        np.mean([f.high - f.low for f in estimates(losses, proposal(e), 100, 60)]) / (alone.high - alone.low)
        for e in (expected, expected[::-1])
    ]
    assert width[0] < 0.75
    assert width[1] < 1.34


def test_several_labels_an_item_enter_as_their_share_of_wrong_ones():
    rng = np.random.default_rng(0)
    losses = (rng.random((POOL, 4)) < 0.2).mean(axis=1)
    found = estimates(losses, proposal(losses + 0.1), 60, 200)
    assert np.mean([f.value for f in found]) == pytest.approx(losses.mean(), abs=0.01)
    assert np.mean([f.low <= losses.mean() <= f.high for f in found]) > 0.93


# --- proposal and draws


def test_every_item_keeps_a_chance_and_a_likelier_error_a_larger_one():
    chances = proposal([0.0, 0.5, 1.0, 0.0, 0.0])
    assert chances.sum() == pytest.approx(1)
    assert chances.min() > 0.45 / 5
    assert chances[2] > chances[1] > chances[0]
    assert proposal(np.zeros(4)) == pytest.approx(np.full(4, 0.25))
    assert proposal([0.0, 1.0], floor=0.5) == pytest.approx([0.2, 0.8])


def test_draws_follow_their_chances_and_record_them_among_what_remained():
    chances = np.array([0.1, 0.2, 0.3, 0.4])
    firsts, seconds = np.zeros(4), np.zeros((4, 4))
    for seed in range(2000):
        items, q = draw(chances, 2, rng=np.random.default_rng(seed))
        firsts[items[0]] += 1
        seconds[items[0], items[1]] += 1
        assert q[0] == pytest.approx(chances[items[0]])
        assert q[1] == pytest.approx(chances[items[1]] / (1 - chances[items[0]]))
    assert firsts / 2000 == pytest.approx(chances, abs=0.04)
    assert seconds[3] / seconds[3].sum() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 0], abs=0.07)


def test_the_same_state_draws_the_same():
    chances = proposal(np.linspace(0, 1, 50))
    one, two = (draw(chances, 20, rng=np.random.default_rng(5)) for _ in range(2))
    assert isinstance(one, Draws)
    assert (one.items == two.items).all()
    assert (one.chances == two.chances).all()


# --- refusals


def test_items_picked_for_certain_are_refused():
    order = np.argsort(-pool()[1])[:30]
    with pytest.raises(ValueError, match="certain while 999 other items remained"):
        lure(pool()[0][order], np.ones(30), POOL)
    with pytest.raises(ValueError, match="Draw 2 was certain"):
        lure_weights([0.5, 1.0], 3)
    assert lure_weights([0.5, 1.0], 2) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lure([1, 0], [0.1, 0.1], 1), "between 1 and 1"),
        (lambda: lure([1, 0], [0.1, 0.0], 9), r"in \(0, 1\]"),
        (lambda: lure([1, 0], [0.1, 1.2], 9), r"in \(0, 1\]"),
        (lambda: lure([1, 2], [0.1, 0.1], 9), r"in \[0, 1\]"),
        (lambda: lure([1], [0.1], 9), "at least two"),
        (lambda: lure([1, 0, 0], [0.1, 0.1], 9), "3 losses for 2"),
        (lambda: lure([1, 0], [0.1, 0.1], 9, level=2), "level"),
        (lambda: proposal([]), "each item"),
        (lambda: proposal([0.1, -0.1]), "at least 0"),
        (lambda: proposal([0.1, 0.2], floor=0), "floor"),
        (lambda: draw([0.5, 0.0], 1, rng=np.random.default_rng(0)), "positive chance"),
        (lambda: draw([0.5, 0.5], 3, rng=np.random.default_rng(0)), r"1\.\.2"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_interval_for_items_like_the_pools_is_wider_and_has_a_width_when_all_were_drawn():
    chances = 1 / (40 - np.arange(40))
    loss = np.arange(40) % 4 == 0
    whole, beyond = (lure(loss, chances, 40, beyond=b) for b in (False, True))
    assert whole.high == whole.low == whole.value == beyond.value == 0.25
    assert beyond.low < 0.15 < 0.35 < beyond.high
    some, like = (lure(loss[:20], chances[:20], 40, beyond=b) for b in (False, True))
    assert like.low < some.low < some.value == like.value < some.high < like.high
    far = lure(loss[:20], 1 / (10**6 - np.arange(20)), 10**6, beyond=True)
    assert far == pytest.approx(lure(loss[:20], 1 / (10**6 - np.arange(20)), 10**6), abs=1e-4)
