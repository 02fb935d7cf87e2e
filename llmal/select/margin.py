"""Margin sampling: ask where the student's two likeliest labels are closest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.warm import Scored


class Margin(Scored):
    """Smallest gap between the two likeliest labels (breaking ties). Source: Scheffer et al. 2001.

    With independent labels (`kind: multi`) the gap of a label is |2p - 1|, averaged over labels; most labels
    are surely absent from most texts and say little, so `two` takes the two likeliest there too.
    """

    two: bool = Field(False, description="`kind: multi`: the gap between the two likeliest labels")

    def scores(self, probs: NDArray[np.float64], *, multi: bool = False) -> NDArray[np.float64]:
        """1 - gap."""
        return 1.0 - margins(probs, multi=multi and not self.two)

    def reason(self, score: float) -> str:
        """The score in words."""
        return f"margin {1 - score:.3f} between the two likeliest labels"


def margins(probs: NDArray[np.float64], *, multi: bool = False) -> NDArray[np.float64]:
    """Gap between the two likeliest labels, (n,) in [0, 1].

    Args:
        probs: (n, C).
        multi: each column is a yes/no answer of its own; so is a single one.
    """
    if multi or probs.shape[1] == 1:
        return np.asarray(np.abs(2 * probs - 1).mean(axis=1))
    two = np.partition(probs, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])
