"""What to ask when nobody has said how: representatives first, then where the student is least sure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from llmal.select.kmeans import KMeans
from llmal.select.margin import Margin
from llmal.select.prc import Prc
from llmal.select.stage import Pool, Selection, Selector
from llmal.select.typiclust import TypiClust
from llmal.select.uniform import Uniform

COLD_ITEMS, COLD_A_CLASS = 20, 2
"""With fewer labelled rows than these a student's doubts say little: in all, and times the classes."""

FEW_A_CLASS = 20
"""Up to so many rows a class representatives beat chance; with more, each class has many, and the centres of
many small clusters pass a rare class by."""

TYPICAL_A_CLASS = 5
"""With `kind: multi`, up to so many rows a class typical ones beat central ones (measured on one corpus)."""

RARE_A_CLASS = 10
"""Labelled rows a class from which the student's mean probability tells a rare class from a missed one."""


RARE_SHARE = 0.1
"""Share of the picks by probability of a rare class; more of them cost accuracy."""


class Choice(NamedTuple):
    """A strategy and why it is the one."""

    strategy: Selector
    why: str


class Auto(Selector):
    """Picks a strategy by how much is labelled and how frequent the classes are. Source: ours.

    Cold: k-means representatives while there are at most 20 rows a class (typical ones, with `kind: multi`,
    while there are at most 5), uniform beyond. Warm: the gap between the two likeliest labels, the most
    uncertain left out as outliers. Where the student gives a class less than `rare` of the pool, and less
    than half of an equal share, nothing is left out, and every tenth pick is what looks most like that class.
    The thresholds were chosen by the learning curves in `tests/benchmarks/label_efficiency.py`.
    """

    clip: float = Field(0.05, ge=0, lt=1, description="share of the most uncertain rows left out as outliers")
    rare: float = Field(0.05, ge=0, lt=1, description="share of the pool below which a class counts as rare")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows by the strategy that fits."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        strategy, why = self.choice(pool, k)
        # With `kind: multi` too the gap of the two likeliest labels decides: most labels are surely absent.
        chosen = strategy.select(pool._replace(multi=False), k, rng)
        reasons = [f"{strategy.name}: {reason}" for reason in chosen.reasons]
        note = "; ".join(words for words in (f"{strategy.name}, as {why}", chosen.note) if words)
        return chosen._replace(reasons=reasons, note=note)

    def choice(self, pool: Pool, k: int) -> Choice:
        """The strategy for k more rows of this pool."""
        have, classes = len(pool.labelled), pool.n_classes
        if pool.probs is None or have < max(COLD_ITEMS, COLD_A_CLASS * classes):
            if have + k <= FEW_A_CLASS * classes:
                typical = pool.multi and have + k <= TYPICAL_A_CLASS * classes
                return Choice(
                    TypiClust() if typical else KMeans(), f"{have + k} rows are few for {classes} classes"
                )
            return Choice(Uniform(), f"{have + k} rows are many for {classes} classes")
        rare = self.rare_classes(pool) if have >= RARE_A_CLASS * classes else 0
        if rare:  # unclipped: the few texts of a rare class are among the most uncertain
            return Choice(Prc(rarest=rare, mix=1 - RARE_SHARE), f"the student finds little of {rare} classes")
        return Choice(Margin(clip=self.clip), "there is a student")

    def rare_classes(self, pool: Pool) -> int:
        """How many classes are rare, by the student's mean probability over the unlabelled rows."""
        assert pool.probs is not None
        share = np.asarray(pool.probs[pool.unlabelled], np.float64).mean(axis=0)
        return int((share < min(self.rare, 0.5 / pool.n_classes)).sum())
