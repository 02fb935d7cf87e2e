"""Margin sampling: ask where the student's two likeliest labels are closest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.warm import Scored, independent


class Margin(Scored):
    """Smallest gap between the two likeliest labels (breaking ties). Source: Scheffer et al. 2001.

    With independent labels (`kind: multi`) the gap of a label is |2p - 1|, averaged over labels.
    """

    def scores(self, probs: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 - gap."""
        return 1.0 - margins(probs)

    def reason(self, score: float) -> str:
        """The score in words."""
        return f"margin {1 - score:.3f} between the two likeliest labels"


def margins(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gap between the two likeliest labels, (n,) in [0, 1].

    Rows that do not sum to 1 are read as independent labels.
    """
    if independent(probs):
        return np.asarray(np.abs(2 * probs - 1).mean(axis=1))
    two = np.partition(probs, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])
