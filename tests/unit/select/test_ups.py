"""Subsampling by uncertainty: golden chances, how many rows stay, and a strategy that looks at those."""

import numpy as np
import pytest

from llmal.plugins import build
from llmal.select.least_confidence import LeastConfidence
from llmal.select.margin import Margin
from llmal.select.stage import Pool
from llmal.select.ups import chances, subsample, unsure
from llmal.select.warm import SubPool


def rng(seed=0):
    return np.random.default_rng(seed)


def test_golden_chances():
    expected = [1, 1, 0.3679, 0.1353, 0.0498, 0.0183, 0.0067, 0.0025, 0.0009, 0.0003]
    assert chances(10, 0.1, 0.1) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("gamma", "temperature"), [(0.1, 0.01), (0.1, 0.1), (0.1, 0.25), (0.0, 0.05)])
def test_share_kept_is_what_the_law_says(gamma, temperature):
    n, runs = 2000, 200
    expected = gamma + temperature * (1 - np.exp(-(1 - gamma) / temperature))
    kept = [
        len(subsample(rng(s).random(n), 0, rng([s, 1]), gamma=gamma, temperature=temperature)) / n
        for s in range(runs)
    ]
    p = chances(n, gamma, temperature)
    sigma = np.sqrt((p * (1 - p)).sum() / n**2 / runs)
    assert abs(np.mean(kept) - expected) < 3 * sigma + 1 / n  # the sum over ranks is not quite the integral


def test_the_most_uncertain_always_stay_and_it_is_topped_up():
    sure = np.linspace(0, 1, 100)
    kept = subsample(sure, 5, rng(), gamma=0.1, temperature=0.01)
    assert set(range(90, 100)) <= set(kept)
    assert kept.tolist() == sorted(set(kept))
    assert set(range(50, 100)) <= set(subsample(sure, 50, rng(), gamma=0.1, temperature=0.001))
    assert len(subsample(sure, 200, rng(), gamma=0.1, temperature=0.01)) == 100
    assert subsample(np.zeros(0), 3, rng(), gamma=0.1, temperature=0.1).tolist() == []


def test_unsure():
    probs = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    assert unsure(probs) == pytest.approx([0.3, 0.6])
    assert unsure(np.array([[0.9, 0.5], [0.1, 1.0]]), multi=True) == pytest.approx([0.3, 0.05])


class Counting(Margin):
    """Counts the rows it was shown."""

    def scores(self, probs, *, multi=False):
        SEEN.append(len(probs))
        return super().scores(probs, multi=multi)


SEEN = []


def test_a_strategy_looks_at_the_rows_that_stay():
    n = 3000
    probs = rng().dirichlet(np.ones(4), size=n)
    pool = Pool(np.eye(8, dtype=np.float32)[np.arange(n) % 8], np.arange(0, n, 2), np.array([1, 3]), probs, 4)
    SEEN.clear()
    chosen = Counting(within=SubPool(use="ups")).select(pool, 20, rng())
    (looked_at,) = SEEN
    assert looked_at == pytest.approx(0.11 * n / 2, rel=0.2)
    assert set(chosen.rows) <= set(pool.unlabelled)
    assert len(chosen.rows) == 20
    most_doubtful = LeastConfidence().select(pool, 20, rng()).rows
    assert LeastConfidence(within="ups").select(pool, 20, rng()).rows.tolist() == most_doubtful.tolist()


def test_a_file_can_name_it():
    short = build("select", {"use": "badge", "within": "ups"})
    assert short.within == SubPool(use="ups", gamma=0.1, temperature=0.01)
    assert build("select", {"use": "badge", "within": {"use": "ups", "temperature": 0.25}}) != short
