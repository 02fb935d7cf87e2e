"""VeSSAL: worked chances, the plain loop it must equal, the budget, and what is projected."""

import numpy as np
import pytest

from llmal.select import vessal
from llmal.select.badge import gradients
from llmal.select.stage import Pool
from llmal.select.vessal import Shorten, Stream, Vessal, chances


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pool(*, n=200, classes=3, dim=8, seed=0, multi=False):
    draw = rng(seed)
    probs = draw.uniform(size=(n, classes)) if multi else draw.dirichlet(np.ones(classes), size=n)
    none = np.zeros(0, np.int64)
    return Pool(
        unit(draw.normal(size=(n, dim))), np.arange(n), none, probs.astype(np.float32), classes, None, multi
    )


class Luck:
    """A generator whose numbers are known: always the same one, or those given."""

    def __init__(self, numbers):
        self.numbers = list(numbers)

    def random(self, n):
        return np.array([self.numbers.pop(0) for _ in range(n)])


def plain(u, k, luck):
    """One row after another, with the matrices written out."""
    inverse, sigma = 100 * np.eye(u.shape[1]), np.zeros((u.shape[1], u.shape[1]))
    picked, newness = [], []
    for t, row in enumerate(u):
        sigma = (t * sigma + np.outer(row, row)) / (t + 1)
        z = row @ inverse @ row
        rate = (k - len(picked)) / (len(u) - t)
        p = z * rate / np.trace(sigma @ inverse)
        if luck[t] < min(p, 1):
            toward = inverse @ row
            inverse = inverse - np.outer(toward, toward) / (1 + z)
            picked.append(t)
            newness.append(p / rate)
    return picked, newness, inverse


def test_golden_chances():
    u = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    z = 100 * (u**2).sum(axis=1)
    rate = 1 / np.array([3, 2, 1])  # one of three wanted, none taken
    assert rate * chances(z, np.cumsum(z), 1) == pytest.approx([1 / 3, 1 / 2, 1.5])
    for luck, taken in (
        ([1 / 3 - 1e-9, 0.9, 0.9], [0]),
        ([1 / 3 + 1e-9, 1 / 2 - 1e-9, 0.9], [1]),
        ([1 / 3 + 1e-9, 1 / 2 + 1e-9, 1 - 1e-9], [2]),
    ):
        stream = Stream(2, 1, 3)
        stream.offer(u, Luck(luck))
        assert stream.picked == taken


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_blocks_equal_the_plain_loop(size):
    u = rng(1).normal(size=(200, 5)) * rng(2).uniform(0.1, 2, (200, 1))
    luck = rng(3).random(200)
    stream, numbers = Stream(5, 12, 200), Luck(luck)
    for at in range(0, 200, size):
        stream.offer(u[at : at + size], numbers)
    picked, newness, inverse = plain(u, 12, luck)
    assert len(picked) > 5
    assert stream.picked == picked
    assert stream.newness == pytest.approx(newness)
    assert stream.inverse == pytest.approx(inverse)


def test_the_inverse_is_the_inverse_after_five_rows():
    u = rng(4).normal(size=(5, 6))
    stream = Stream(6, 5, 5)
    stream.offer(u, Luck([0.0] * 5))
    assert stream.picked == [0, 1, 2, 3, 4]
    explicit = np.linalg.inv(np.eye(6) / 100 + u.T @ u)
    assert stream.inverse == pytest.approx(explicit, rel=1e-9, abs=1e-11)


def test_the_running_sum_is_a_trace():
    u = rng(5).normal(size=(60, 4))
    stream, numbers = Stream(4, 20, 90), Luck(rng(6).random(60))
    for at in range(0, 60, 25):
        stream.offer(u[at : at + 25], numbers)
    assert 0 < len(stream.picked) < 20
    assert stream.total == pytest.approx(np.trace(u.T @ u @ stream.inverse))


@pytest.mark.parametrize("k", [20, 100, 400])
def test_the_rate_meets_the_budget(k):
    taken = []
    for seed in range(5):
        some = pool(n=2000, seed=seed)
        stream = Stream(24, k, 2000)
        u = Shorten(3, 8, rng())(gradients(np.asarray(some.probs, np.float64)), some.vectors)
        stream.offer(u, rng(seed))
        taken.append(len(stream.picked))
    assert np.mean(taken) == pytest.approx(k, rel=0.05)


def test_short_gradients_are_not_projected():
    some = pool()
    g = gradients(np.asarray(some.probs, np.float64))
    shorten = Shorten(3, 8, rng())
    assert shorten.width == 24
    found = shorten(g, some.vectors)
    assert found[7] == pytest.approx(np.outer(g[7], some.vectors[7]).ravel())


def test_projection_keeps_inner_products():
    draw = rng(7)
    g, h = draw.normal(size=(6, 40)), unit(draw.normal(size=(6, 64)))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    found = [Shorten(40, 64, rng(seed))(g, h) for seed in range(200)]
    assert found[0].shape == (6, 256)
    inner = np.mean([u @ u.T for u in found], axis=0)
    assert inner == pytest.approx((g @ g.T) * (h @ h.T), abs=0.05)  # 4 standard errors


def test_projected_gradients_are_never_written_out(monkeypatch):
    monkeypatch.setattr(vessal, "AT_ONCE", 16)
    some = pool(n=100, classes=400, dim=384)
    assert len(set(Vessal().select(some, 10, rng()).rows.tolist())) == 10


def test_new_directions_are_taken_before_repeats():
    # 190 equal rows and 10 others, all equally uncertain: as many draws at random would find half of one.
    vectors = np.zeros((200, 12), np.float32)
    vectors[:190, 0] = 1
    vectors[190:, 1:11] = np.eye(10)
    some = pool()._replace(vectors=vectors, probs=np.full((200, 3), 1 / 3, np.float32))
    found = [(Vessal().select(some, 10, rng(seed)).rows >= 190).sum() for seed in range(20)]
    assert np.mean(found) > 3


def test_what_the_pass_leaves_open_is_drawn_at_random():
    sure = pool()._replace(probs=np.tile(np.eye(3, dtype=np.float32)[:1], (200, 1)))  # every gradient is 0
    chosen = Vessal().select(sure, 7, rng())
    assert chosen.scores.tolist() == [0.0] * 7
    assert all("at random" in reason for reason in chosen.reasons)
    assert len(set(chosen.rows.tolist())) == 7


def test_newest_first():
    chosen = Vessal().select(pool(), 30, rng())
    assert (np.diff(chosen.scores) <= 0).all()
    assert "times as new" in chosen.reasons[0]


@pytest.mark.parametrize("classes", [1, 5])
def test_yes_no_answers(classes):
    some = pool(classes=classes, multi=True)
    probs = some.probs.copy()
    probs[:100] = np.round(probs[:100])  # certain of every answer, yes and no alike: no gradient
    chosen = Vessal().select(some._replace(probs=probs), 20, rng())
    assert (chosen.rows[chosen.scores > 0] >= 100).all()
    assert (chosen.scores > 0).sum() > 10


def test_of_a_large_pool_a_part_passes_by(monkeypatch):
    monkeypatch.setattr(vessal, "MOST_ROWS", 50)
    some = pool()
    for k in (10, 50, 60, 200):
        chosen = Vessal().select(some, k, rng())
        assert len(set(chosen.rows.tolist())) == k
        assert chosen.note == (f"of 200 rows {max(50, k)} passed by" if k < 200 else "")
