"""Entropy: ask where the student's distribution is flattest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.warm import Scored


class Entropy(Scored):
    """Entropy of the student's distribution, divided by its largest value log C.

    With independent labels (`kind: multi`): the entropy of each yes/no answer, averaged over labels.
    Source: Shannon 1948, as a strategy Settles 2009.
    """

    def scores(self, probs: NDArray[np.float64], *, multi: bool = False) -> NDArray[np.float64]:
        """Entropy in [0, 1]; 0 log 0 is 0."""
        if multi or probs.shape[1] == 1:
            return np.asarray((_bits(probs) + _bits(1 - probs)).mean(axis=1) / np.log(2))
        return np.asarray(np.clip(_bits(probs).sum(axis=1) / np.log(probs.shape[1]), 0, 1))

    def reason(self, score: float) -> str:
        """The score in words."""
        return f"entropy {score:.3f} of at most 1"


def _bits(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-p * np.log(np.where(p > 0, p, 1.0)))
