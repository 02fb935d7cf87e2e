"""An alarm for changes in a stream: students are wrong more often than they say they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmal.stream.logistic import Floats

WORSE = np.array([3.0, 30.0])
"""Odds of a wrong answer after a change, as multiples of those told: where students doubt, and where not."""

LIMITS = (8.0, 5.0)
"""Evidence that raises the alarm: from rows that students would not answer, and from those asked by chance.

With risks told right each sum gets there once in e^8 = 3,000 and e^5 = 150 such rows, or less often.
"""

LEAST = 0.01
"""Least risk believed: chances below are told by few answers."""


class Alarm:
    """Evidence that answers are wrong more often than told, begun anew whenever it speaks for no change.

    Kept apart for rows that students would answer, asked about by chance, and for those they would not: there
    are many more of these, and what they say would drown the others.

    Source: Page 1954 (CUSUM); its bound on false alarms, Lorden 1971.

    Args:
        evidence: (2, 2), a row for each kind of rows, a column for each of `WORSE`; None begins anew.
    """

    def __init__(self, evidence: Sequence[Sequence[float]] | None = None) -> None:
        self.evidence = np.zeros((2, len(WORSE))) if evidence is None else np.array(evidence, np.float64)

    def see(self, risks: Floats, wrong: NDArray[np.bool_], by_chance: NDArray[np.bool_]) -> bool:
        """Take (n,) risks told beforehand, (n,) whether answers were wrong, (n,) whether asked by chance.

        Returns:
            Whether to raise the alarm.
        """
        told = np.clip(risks, LEAST, 1 - LEAST)[:, None]
        worse = WORSE * told / (1 + (WORSE - 1) * told)
        steps = np.where(wrong[:, None], np.log(worse / told), np.log((1 - worse) / (1 - told)))
        for step, kind in zip(steps, by_chance.astype(int).tolist(), strict=True):
            self.evidence[kind] = np.maximum(0.0, self.evidence[kind] + step)
            if self.evidence[kind].max() > LIMITS[kind]:
                self.evidence[:] = 0.0
                return True
        return False
