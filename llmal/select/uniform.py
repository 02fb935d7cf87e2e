"""Uniform random picks: the baseline every strategy has to beat, and the only unbiased sample."""

from __future__ import annotations

import numpy as np

from llmal.select.stage import Pool, Selection, Selector


class Uniform(Selector):
    """Simple random sampling without replacement. Source: standard; the baseline of every comparison."""

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, each equally likely."""
        k = min(k, len(pool.unlabelled))
        rows = rng.permutation(pool.unlabelled)[:k]
        chance = k / len(pool.unlabelled) if k else 0.0
        return Selection(rows, np.full(k, chance), [f"drawn at random (chance {chance:.3g})"] * k)
