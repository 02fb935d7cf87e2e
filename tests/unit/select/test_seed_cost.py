"""Representatives for a price: brute force, the budget, and what is done when it does not last."""

import itertools

import numpy as np
import pytest

from llmal.select import seed_cost
from llmal.select.facility_location import FacilityLocation
from llmal.select.seed_cost import BYTES_A_TOKEN, SeedCost, _Gains, alike, better, greedy
from llmal.select.stage import Pool
from llmal.testing.contracts.select import MadeSources

NOBODY = np.zeros(0, np.int64)


class Texts(MadeSources):
    """Sources with texts of given lengths in bytes."""

    def __init__(self, lengths):
        super().__init__(np.zeros((len(lengths), 3), np.float32), NOBODY, 3)
        self._lengths = lengths

    def texts(self, rows):
        return ["x" * int(self._lengths[row]) for row in rows]


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pool(vectors, lengths, labelled=()):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(vectors, rows, labelled, None, 3, sources=Texts(lengths))


def gains(vectors, labelled=()):
    made = pool(vectors, np.ones(len(vectors)), labelled)
    return _Gains(made, made.unlabelled, rng())


def worth(vectors, rows):
    """Mean similarity of every row to the nearest of some."""
    return alike(vectors, vectors[list(rows)]).max(axis=1).mean() if len(rows) else 0.0


def best_by_brute_force(vectors, cost, allowed, sizes):
    sets = (s for size in sizes for s in itertools.combinations(range(len(cost)), size))
    return max((worth(vectors, s) for s in sets if cost[list(s)].sum() <= allowed), default=0.0)


@pytest.mark.parametrize("seed", range(25))
def test_better_of_two_is_within_the_bound_and_the_budget(seed):
    draw = rng(seed)
    n = int(draw.integers(4, 12))
    vectors = unit(draw.normal(size=(n, 3)))
    cost = np.ceil(draw.pareto(1.0, n) * 5).astype(np.int64) + 1
    allowed = int(draw.integers(cost.min(), cost.sum()))
    # k = n and a budget below the cost of all: the number of picks does not bind, only the budget does.
    chosen = better(gains(vectors), cost, allowed, n)
    assert cost[chosen.rows].sum() <= allowed
    best = best_by_brute_force(vectors, cost, allowed, range(1, n + 1))
    assert worth(vectors, chosen.rows) >= (1 - 1 / np.e) / 2 * best
    assert chosen.gains.sum() == pytest.approx(worth(vectors, chosen.rows), abs=1e-6)


@pytest.mark.parametrize("seed", range(15))
def test_a_batch_is_full_whenever_the_budget_lets_it_be(seed):
    draw = rng(seed)
    n, k = 10, int(draw.integers(1, 6))
    vectors = unit(draw.normal(size=(n, 3)))
    cost = draw.integers(1, 60, n)
    allowed = int(draw.integers(np.sort(cost)[:k].sum(), cost.sum()))
    for rule in ("gain", "gain per token"):
        chosen = greedy(gains(vectors), cost, allowed, k, rule)
        assert len(set(chosen.rows.tolist())) == k
        assert cost[chosen.rows].sum() <= allowed
        assert (np.diff(chosen.scores) <= 1e-9).all()
    best = best_by_brute_force(vectors, cost, allowed, [k])
    assert worth(vectors, better(gains(vectors), cost, allowed, k).rows) >= (1 - 1 / np.e) / 2 * best


def test_each_rule_is_what_plain_greedy_takes():
    draw = rng(7)
    vectors, cost = unit(draw.normal(size=(30, 4))), draw.integers(1, 40, 30)
    for rule in ("gain", "gain per token"):
        rows: list[int] = []
        left = 200
        while len(rows) < 8:
            free = [i for i in range(30) if i not in rows]

            def filled(i, free=free, rows=rows):
                others = sorted(cost[j] for j in free if j != i)
                return cost[i] + sum(others[: 7 - len(rows)])

            fits = [i for i in free if filled(i) <= left]
            gain = {i: worth(vectors, [*rows, i]) - worth(vectors, rows) for i in fits}
            rows.append(max(fits, key=lambda i: gain[i] / (cost[i] if rule == "gain per token" else 1)))
            left -= cost[rows[-1]]
        assert greedy(gains(vectors), cost, 200, 8, rule).rows.tolist() == rows


def test_equal_prices_give_what_facility_location_gives():
    vectors = unit(rng(2).normal(size=(60, 5)))
    made = pool(vectors, np.full(60, 40), labelled=[3, 9])
    plain = FacilityLocation().select(made, 7, rng())
    assert SeedCost().select(made, 7, rng()).rows.tolist() == plain.rows.tolist()


def test_of_twins_the_shorter_is_taken():
    vectors = np.repeat(unit(rng(4).normal(size=(6, 8))), 2, axis=0)
    lengths = np.tile([4000, 40], 6)
    chosen = SeedCost().select(pool(vectors, lengths), 6, rng())
    assert set(chosen.rows % 2) == {1}
    assert sorted(chosen.rows // 2) == list(range(6))


def test_the_budget_is_kept_and_told():
    draw = rng(5)
    vectors, lengths = unit(draw.normal(size=(80, 6))), draw.integers(10, 2000, 80)
    tokens = lengths / BYTES_A_TOKEN + 16
    for budget in (None, 1000.0, 2500.0):
        chosen = SeedCost(budget=budget).select(pool(vectors, lengths), 10, rng())
        limit = 10 * tokens.mean() if budget is None else budget
        assert tokens[chosen.rows].sum() <= limit
        assert chosen.note.startswith(f"{tokens[chosen.rows].sum():,.0f} of ")
        assert "over the budget" not in chosen.note


def test_where_the_budget_does_not_last_the_cheapest_follow():
    draw = rng(6)
    vectors, lengths = unit(draw.normal(size=(40, 6))), draw.integers(100, 900, 40)
    tokens = lengths / BYTES_A_TOKEN + 16
    chosen = SeedCost(budget=150).select(pool(vectors, lengths), 10, rng())
    over = int(chosen.note.split()[0])
    assert f"{over} of 10 picks are over the budget" in chosen.note
    assert tokens[chosen.rows[: 10 - over]].sum() <= 150
    rest = np.setdiff1d(np.arange(40), chosen.rows)
    assert tokens[chosen.rows[10 - over :]].max() <= tokens[rest].min()
    assert (chosen.scores[10 - over :] == 0).all()


def test_empty_texts_cost_something():
    chosen = SeedCost().select(pool(unit(rng().normal(size=(20, 4))), np.zeros(20)), 5, rng())
    assert chosen.note.startswith("80 of 80 tokens")


def test_large_pools_are_sampled(monkeypatch):
    monkeypatch.setattr(seed_cost, "MOST_ROWS", 50)
    draw = rng(8)
    made = pool(unit(draw.normal(size=(200, 6))), draw.integers(10, 500, 200))
    for k in (5, 80, 200):
        assert len(set(SeedCost().select(made, k, rng(1)).rows.tolist())) == k


def test_similarities_that_do_not_fit_in_memory_are_computed_anew(monkeypatch):
    draw = rng(9)
    made = pool(unit(draw.normal(size=(90, 6))), draw.integers(10, 900, 90), labelled=[4, 40])
    kept = SeedCost(budget=700).select(made, 9, rng())
    monkeypatch.setattr(seed_cost, "KEPT", 0)
    monkeypatch.setattr(seed_cost, "CACHED", 7)
    anew = SeedCost(budget=700).select(made, 9, rng())
    assert anew.rows.tolist() == kept.rows.tolist()
    assert anew.scores == pytest.approx(kept.scores)


def test_a_tight_budget_is_spent_by_gain_per_token_where_that_is_worth_more():
    draw = rng(10)
    vectors = unit(draw.normal(size=(100, 6)))
    lengths = np.where(np.arange(100) % 2, 30, 3000)
    chosen = SeedCost(budget=2000).select(pool(vectors, lengths), 12, rng())
    assert chosen.note.endswith("by largest gain per token")
    cost = np.ceil(lengths + 16 * BYTES_A_TOKEN).astype(np.int64)
    plain = greedy(gains(vectors), cost, 2000 * BYTES_A_TOKEN, 12, "gain")
    assert worth(vectors, chosen.rows) > worth(vectors, plain.rows)
