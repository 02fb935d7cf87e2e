"""Base-versus-student difference: ask where learning changed the answer most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.stage import Pool
from llmal.select.warm import Ranked


class BaseDelta(Ranked):
    """Rows on which the student has moved farthest from what the label names alone say.

    The score is the total variation 0.5 sum |student - base|, in [0, 1]; the base is a zero-shot softmax over
    the cosines to the label names. With independent labels (`kind: multi`) it is the mean difference of the
    yes/no probabilities. The base is not calibrated: where it says little, this asks where the student is
    sure. Source: Bansal & Sharma 2023 (EAGLE), who take |fine-tuned - base| of a task's score; for classes
    total variation is the plain counterpart.
    """

    def scored(self, pool: Pool) -> NDArray[np.float64]:
        """(u,) difference between the student's word and the label names'."""
        assert pool.probs is not None
        student = np.asarray(pool.probs[pool.unlabelled], np.float64)
        base = np.asarray(pool.look().prior()[pool.unlabelled], np.float64)
        return moved(student, base, multi=pool.multi)

    def reason(self, score: float) -> str:
        """The difference."""
        return f"the student has moved by {score:.3f} from what the label names say"


def moved(
    student: NDArray[np.float64], base: NDArray[np.float64], *, multi: bool = False
) -> NDArray[np.float64]:
    """(u,) total variation between rows of (u, C) probabilities; with `multi` the mean difference."""
    gap = np.abs(student - base)
    return np.asarray(gap.mean(axis=1) if multi else gap.sum(axis=1) / 2)
