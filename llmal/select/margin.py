"""Margin sampling: ask where the student's two likeliest labels are closest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from llmal.errors import UserError
from llmal.select.stage import Pool, Selection, Selector, top


class Margin(Selector):
    """Smallest gap between the two likeliest labels (breaking ties). Source: Scheffer et al. 2001.

    With independent labels (`kind: multi`) the gap of a label is |2p - 1|, averaged over labels.
    """

    needs_probs: ClassVar[bool] = True

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick the min(k, u) rows with the smallest margin; ties go to the lowest row.

        Raises:
            UserError: there is no student yet.
            ValueError: a probability is not finite.
        """
        if pool.probs is None:
            raise UserError(
                "margin needs a student's probabilities",
                where="select",
                hint="Use a cold start under `first`",
            )
        gap = margins(pool.probs[pool.unlabelled])
        best = top(-gap, pool.unlabelled, min(k, len(gap)))
        reasons = [f"margin {gap[i]:.3f} between the two likeliest labels" for i in best]
        return Selection(pool.unlabelled[best], -gap[best], reasons)


def margins(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Gap between the two likeliest labels, (n,) in [0, 1].

    Rows that do not sum to 1 are read as independent labels.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if probs.shape[1] == 1:
        return np.asarray(np.abs(2 * probs[:, 0] - 1))
    if len(probs) and not np.allclose(probs.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.abs(2 * probs - 1).mean(axis=1))
    two = np.partition(probs, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])
