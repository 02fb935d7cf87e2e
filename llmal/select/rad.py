"""Robust active distillation: ask about what the student needs and the annotator is likely to know."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.margin import margins
from llmal.select.stage import Pool, Selection
from llmal.select.warm import Warm

FEWEST = 30
"""Checked answers below which their share of errors is not relied upon; as for the filter `calibrated`."""

TYPICAL = 0.15
"""Share of wrong answers where nothing is known of the annotator: between those of recorded models, of which
the good ones are wrong about 6 to 20 % of the time."""


class Game(NamedTuple):
    """How to draw so that the worst errors of the annotator cost least.

    Attributes:
        chance: (n,) probability of each row, 0 outside the support; sums to 1.
        value: gain that an adversary who spoils m answers leaves.
        support: rows that may be drawn.
    """

    chance: NDArray[np.float64]
    value: float
    support: int


class Rad(Warm):
    """Draws rows so that the expected gain is largest after the worst of the annotator's errors.

    The gain of a row is 1 less the gap between the student's two likeliest labels. Of n answers m may be
    wrong, and they are taken to be those that would have helped most. The best draw leaves the least
    informative rows out and, among the others, gives a row a chance in inverse proportion to its gain: the
    most doubtful texts, which an annotator most often gets wrong too, are asked a little less. With m = 0 it
    is margin sampling. Source: Baykal et al. 2023 (RAD); the closed form and how m is found are ours.
    """

    errors: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the annotator's answers that are wrong; None: as 30 or more answers of people "
        "show, else 0.15",
    )

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Draw k rows without replacement; rows outside the support follow by gain where it is too small."""
        assert pool.probs is not None
        rows = pool.unlabelled
        gain = 1.0 - margins(np.asarray(pool.probs[rows], np.float64), multi=pool.multi)
        share, why = self._share(pool)
        found = solve(gain, round(share * len(rows)))
        with np.errstate(divide="ignore"):
            keys = np.log(found.chance) + rng.gumbel(size=len(rows))
        order = np.lexsort((rows, -gain, -keys))[:k]
        reasons = [
            f"gain {gain[i]:.3f}, chance {found.chance[i]:.2g} a draw"
            if found.chance[i] > 0
            else f"gain {gain[i]:.3f}, beyond the support"
            for i in order
        ]
        note = (
            f"rad expects {share:.0%} wrong answers ({why}): {found.support} of {len(rows)} texts drawn from"
        )
        return Selection(rows[order], gain[order], reasons, note=note)

    def _share(self, pool: Pool) -> tuple[float, str]:
        if self.errors is not None:
            return self.errors, "as the file says"
        n, wrong = pool.sources.checked() if pool.sources is not None else (0, 0)
        if n >= FEWEST:
            return wrong / n, f"{wrong} of {n} that people checked"
        return TYPICAL, f"people checked only {n}"


def solve(gain: NDArray[np.float64], m: int) -> Game:
    """The draw that is best against an adversary who spoils m of the n answers.

    Maximises, over distributions p, the minimum over sets S of m rows of the sum of p_i g_i outside S. The k
    rows with the largest gains are drawn with p_i proportional to 1 / g_i, where k > m makes
    (k - m) / (sum of 1 / g) largest; that maximum is the value.

    Args:
        gain: (n,) at least 0; rows without any are never drawn.
        m: answers the adversary spoils. With as many as there are rows with a gain, nothing is left to win:
            the value is 0, and all of these are drawn alike.

    Source: derived here; equal to the linear program (tests/unit/select/test_rad.py).
    """
    order = np.argsort(-gain, kind="stable")
    order = order[gain[order] > 0]
    chance = np.zeros(len(gain))
    if m >= len(order):
        some = order if len(order) else np.arange(len(gain))
        chance[some] = 1 / max(len(some), 1)
        return Game(chance, 0.0, len(some))
    inverse = 1 / gain[order]
    total = np.cumsum(inverse)
    values = (np.arange(1, len(order) + 1) - m) / total
    k = int(values.argmax()) + 1
    if m == 0:  # any draw among the largest gains is best; of all these, the one that treats them alike
        k = int((gain[order] >= gain[order[0]] * (1 - 1e-12)).sum())
    chance[order[:k]] = inverse[:k] / total[k - 1]
    return Game(chance, float(values[k - 1]), k)
