"""Probability of a rare class: ask about the texts the student takes for the class there is too little of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.margin import margins
from llmal.select.stage import Pool, Selection
from llmal.select.warm import Warm


class Prc(Warm):
    """Highest probability of the rarest class, some picks by margin. Source: Varadarajan et al. 2023.

    Of several rare classes the likeliest counts. The picks by margin (a guard of ours, not the paper's) let
    the student see texts just outside the class too, and keep it from finding the same few again and again.
    Rows equally likely rare come by margin, the closest first: a class without one label yet has probability
    0 everywhere. The picks say nothing of how frequent the class is; estimate that on the audit.
    """

    rarest: int = Field(1, ge=1, description="how many classes count as rare: those with the fewest labels")
    mix: float = Field(0.2, ge=0, le=1, description="share of the picks taken by margin instead")

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick k rows, every turn for the margin spread evenly among those for the rare classes."""
        assert pool.probs is not None
        rows = pool.unlabelled
        probs = np.asarray(pool.probs[rows], np.float64)
        rare = rarest(pool, probs, self.rarest)
        chance, gap = probs[:, rare].max(axis=1), margins(probs, multi=pool.multi)
        likely = iter(np.lexsort((rows, gap, -chance)).tolist())
        close = iter(np.lexsort((rows, gap)).tolist())
        known = [f"'{pool.names[c]}'" if pool.names else f"number {c + 1}" for c in rare]
        names = "class " + " or ".join(known)
        picked: dict[int, str] = {}
        for by_margin in turns(k, self.mix):
            row = next(i for i in (close if by_margin else likely) if i not in picked)
            words = f"chance {chance[row]:.3f} of the rare {names}"
            picked[row] = f"margin {gap[row]:.3f} between the two likeliest labels" if by_margin else words
        order = list(picked)
        return Selection(rows[order], chance[order], list(picked.values()))


def rarest(pool: Pool, probs: NDArray[np.float64], n: int) -> list[int]:
    """Columns of the n classes with the fewest labelled rows, ties to the lowest column; ascending.

    Where no row has a label, the student's mean probability stands for the count.

    Args:
        pool: its targets are counted.
        probs: (u, C) of the unlabelled rows.
        n: how many; at most C are there.
    """
    counted = pool.targets is not None and bool(np.any(pool.targets))
    count = np.asarray(pool.targets > 0).sum(axis=0) if counted else probs.mean(axis=0)  # type: ignore[operator]
    return sorted(np.argsort(count, kind="stable")[:n].tolist())


def turns(k: int, share: float, start: float = 0.0) -> NDArray[np.bool_]:
    """(k,) which of k turns belong to a party with this share: spread evenly, floor(k share + start) in all.

    Args:
        k: turns.
        share: of the party, in [0, 1].
        start: in [0, 1); a uniform draw makes the expected number k share exactly.
    """
    due = np.floor(np.arange(k + 1) * share + start + 1e-9)  # 0.29 * 100 is a little less than 29
    return np.asarray(np.diff(due) > 0)
