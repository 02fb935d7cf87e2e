"""Least confidence: ask where the student's likeliest label is least likely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.warm import Scored


class LeastConfidence(Scored):
    """One minus the probability of the likeliest label. Source: Lewis & Gale 1994.

    With independent labels (`kind: multi`): the same of each yes/no answer, averaged over labels.
    """

    def scores(self, probs: NDArray[np.float64], *, multi: bool = False) -> NDArray[np.float64]:
        """1 - max p."""
        if multi:
            return np.asarray((1 - np.maximum(probs, 1 - probs)).mean(axis=1))
        return np.asarray(1 - probs.max(axis=1))

    def reason(self, score: float) -> str:
        """The score in words."""
        return f"the likeliest label has probability {1 - score:.3f}"
