"""k-center greedy (core-set): the farthest row from everything chosen, again and again."""

from __future__ import annotations

import numpy as np

from llmal.select.geometry import squared_distances
from llmal.select.stage import Pool, Selection, Selector


class KCenter(Selector):
    """Smallest largest distance to a chosen row, greedily: at most twice the optimum.

    Outliers are chosen first by construction, so it loses to typiclust when only a few items can be asked.
    Without a labelled row the first pick is the one nearest to the mean. Source: Sener & Savarese 2018,
    greedy bound of Gonzalez 1985.
    """

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, each the farthest from all picked and labelled ones at its turn."""
        k = min(k, len(pool.unlabelled))
        rows = pool.unlabelled
        vectors = np.asarray(pool.vectors[np.concatenate([rows, pool.labelled])])
        u = len(rows)
        nearest = np.full(u, np.inf)
        for i in range(u, len(vectors)):
            nearest = np.minimum(nearest, squared_distances(vectors, i)[:u])
        picked: list[int] = []
        radius: list[float] = []
        open_rows = np.ones(u, bool)
        for _ in range(k):
            at = (
                self._first(vectors)
                if not picked and u == len(vectors)
                else self._farthest(nearest, open_rows)
            )
            radius.append(float(np.sqrt(nearest[at])))
            picked.append(at)
            open_rows[at] = False
            nearest = np.minimum(nearest, squared_distances(vectors, at)[:u])
        reasons = [
            f"distance {r:.3f} from everything chosen" if np.isfinite(r) else "nearest to the mean"
            for r in radius
        ]
        scores = np.where(np.isfinite(radius), radius, 2.0) if radius else np.zeros(0)
        return Selection(
            rows[picked] if picked else np.zeros(0, np.int64), np.asarray(scores, np.float64), reasons
        )

    @staticmethod
    def _first(vectors: np.ndarray) -> int:
        return int(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).argmin())

    @staticmethod
    def _farthest(nearest: np.ndarray, open_rows: np.ndarray) -> int:
        return int(np.where(open_rows, nearest, -1.0).argmax())
