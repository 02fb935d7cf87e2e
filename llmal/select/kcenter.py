"""k-center greedy (core-set): the farthest row from everything chosen, again and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.geometry import BLOCK, Rows, nearest_squared, squared_distances, squared_norms
from llmal.select.stage import Pool, Selection, Selector

CANDIDATES = 512
"""Farthest rows among which picks are made before all rows are looked at again."""

TIE = 1e-12
"""Squared distances this near to each other, in units of the largest squared length, count as the same."""


class KCenter(Selector):
    """Smallest largest distance to a chosen row, greedily: at most twice the optimum.

    Outliers are chosen first by construction, so it loses to typiclust when only a few items can be asked.
    Without a labelled row the first pick is the one nearest to the mean. Source: Sener & Savarese 2018,
    greedy bound of Gonzalez 1985.
    """

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, each the farthest from all picked and labelled ones at its turn."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        vectors = Rows(pool.vectors, np.concatenate([pool.unlabelled, pool.labelled]))[:]
        picked, radius = farthest_first(vectors, len(pool.unlabelled), k)
        reasons = [
            f"distance {r:.3f} from everything chosen" if np.isfinite(r) else "nearest to the mean"
            for r in radius
        ]
        return Selection(pool.unlabelled[picked], np.where(np.isfinite(radius), radius, 2.0), reasons)


def farthest_first(
    vectors: NDArray[np.float32], candidates: int, k: int
) -> tuple[list[int], NDArray[np.float64]]:
    """Greedy k-center among the first `candidates` rows; the other rows are chosen already.

    The picks are those of the plain loop (distance of every row to each pick in float64, ties to the lowest
    row), made in few passes: among the rows that lie farthest, picks are made for as long as the farthest of
    them lies farther than any other row can, then one float32 product brings all rows up to date.

    Returns:
        k rows in the order of picking, and how far each lay from everything chosen (inf where nothing was).
    """
    square = squared_norms(vectors)
    scale = float(square.max())
    error = (2 * vectors.shape[1] + 16) * 2.0**-24 * scale  # of float32, see nearest_squared
    chosen = list(range(candidates, len(vectors)))
    picked: list[int] = []
    found: list[float] = []
    nearest = np.full(candidates, np.inf)  # to float32 accuracy; -inf for picked rows
    if not chosen:
        picked, found, chosen = [_central(vectors)], [np.inf], [_central(vectors)]
    new = chosen
    while True:
        near = nearest_squared(vectors[:candidates], square[:candidates], vectors[new], square[new])
        nearest = np.minimum(nearest, near)
        nearest[picked] = -np.inf
        if len(picked) == k:
            break
        some, limit = _farthest(nearest, 2 * error)
        part = vectors[some].astype(np.float64) if len(some) <= BLOCK else vectors[some]
        known = np.asarray(vectors[chosen], np.float64)
        exact = nearest_squared(part, square[some], known, square[chosen])
        at, lengths = _among(part, square[some], exact, k - len(picked), limit + error, TIE * scale)
        new = [int(i) for i in some[at]]
        picked, chosen, found = picked + new, chosen + new, found + lengths
    return picked, np.sqrt(found)


def _central(vectors: NDArray[np.float32]) -> int:
    """The row nearest to the mean."""
    mean = vectors.mean(axis=0)
    blocks = range(0, len(vectors), BLOCK)
    return int(
        np.concatenate([((vectors[at : at + BLOCK] - mean) ** 2).sum(axis=1) for at in blocks]).argmin()
    )


def _farthest(nearest: NDArray[np.float64], band: float) -> tuple[NDArray[np.int64], float]:
    """The farthest rows, ascending, with all that tie with the farthest; and the largest of the others."""
    if len(nearest) <= CANDIDATES:
        return np.flatnonzero(np.isfinite(nearest)), -np.inf
    least = min(np.partition(nearest, -CANDIDATES)[-CANDIDATES], nearest.max() - band)
    inside = (nearest >= least) & np.isfinite(nearest)
    return np.flatnonzero(inside), float(np.max(nearest, where=~inside, initial=-np.inf))


def _among(
    part: NDArray[np.floating],
    square: NDArray[np.float64],
    nearest: NDArray[np.float64],
    k: int,
    limit: float,
    tie: float,
) -> tuple[list[int], list[float]]:
    """Up to k greedy picks among few rows, for as long as they lie farther than `limit`."""
    at: list[int] = []
    lengths: list[float] = []
    while len(at) < min(k, len(part)):
        most = nearest.max()
        if at and most - tie <= limit:  # the first is always farther
            break
        row = int((nearest >= most - tie).argmax())
        at.append(row)
        lengths.append(float(nearest[row]))
        nearest = np.minimum(nearest, squared_distances(part, row, square))
        nearest[at] = -np.inf
    return at, lengths
