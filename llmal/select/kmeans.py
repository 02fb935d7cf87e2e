"""k-means medoids: one representative of each cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.geometry import BLOCK, CACHED, Rows, Vectors, nearest_squared, squared_norms
from llmal.select.stage import Pool, Selection, Selector

FIT_ROWS = 100_000
"""Rows k-means is fitted on at most; a larger pool is sampled first, then assigned whole."""

ROWS_A_CENTRE, MIN_FIT_ROWS = 256, 20_000
"""Rows fitted on for each centre, and in any case; 256 is the number faiss takes too."""

ROUNDS = 12
"""Of Lloyd's algorithm; eight more lower the inertia of reviews by 0.2 % at 100 centres, 0.01 % at 1,000."""

SAME = 1e-6
"""Squared distances of less than this share of the largest squared length are 0 in float32 products."""

MAX_CENTRES = 4096
"""Centres of one k-means; a larger request is filled by second and third members of each cluster."""


class KMeans(Selector):
    """The row nearest to each centre of a k-means with k clusters.

    Distinct under duplicated rows: clusters are served by decreasing size, each takes its nearest row not yet
    taken. With labelled rows there are k plus as many centres, and clusters that hold a labelled row wait.
    Source: Lloyd 1982, seeded as Arthur & Vassilvitskii 2007.
    """

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, representatives of the largest clusters first."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        rows = np.concatenate([pool.unlabelled, pool.labelled])
        vectors = Rows(pool.vectors, rows)
        u = len(pool.unlabelled)
        centres, label = cluster(vectors, min(k + len(pool.labelled), MAX_CENTRES), rng)
        parts = (slice(at, at + BLOCK) for at in range(0, len(rows), BLOCK))
        square = [((vectors[part] - centres[label[part]]) ** 2).sum(axis=1) for part in parts]
        distance = np.sqrt(np.concatenate(square))
        size = np.bincount(label[:u], minlength=len(centres))
        known = np.bincount(label[u:], minlength=len(centres)) > 0
        order = _one_a_cluster(label[:u], distance[:u], np.lexsort((-size, known)))[:k]
        reasons = [f"nearest to the centre of a cluster of {size[label[i]]}" for i in order]
        return Selection(pool.unlabelled[order], -distance[order].astype(np.float64), reasons)


def cluster(
    vectors: Vectors, k: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """k-means centres (k', d) and each row's cluster (n,); k' < k when there are fewer distinct rows.

    Lloyd's rounds by matrix products from k-means++ seeds, on a sample where rows are many. Vectors may be
    memory-mapped; they are read in blocks. The inertia comes out a little above that of scikit-learn, which
    tries several candidates for each seed, at a fraction of its time (`tests/benchmarks/select_speed.py`).
    """
    n = len(vectors)
    most = min(FIT_ROWS, max(MIN_FIT_ROWS, ROWS_A_CENTRE * k))
    fit = np.asarray(vectors[:] if n <= most else vectors[np.sort(rng.choice(n, most, replace=False))])
    square = squared_norms(fit)
    centres = fit[seeds(fit, square, min(k, len(fit)), rng)]
    label = np.full(len(fit), -1)
    for _ in range(ROUNDS):
        before, label = label, assigned(fit, centres)
        if (before == label).all():
            break
        centres = _means(fit, label, centres)
    label = assigned(vectors, centres)
    used, label = np.unique(label, return_inverse=True)
    return centres[used], label.astype(np.int64)


def seeds(
    vectors: NDArray[np.float32], square: NDArray[np.float64], k: int, rng: np.random.Generator
) -> list[int]:
    """Rows drawn as k-means++ draws them, by squared distance to the nearest one drawn; fewer if all repeat.

    Many are drawn at once by the distances known so far, and each is kept with the chance that is left of its
    own once those before it count too: so the law is that of one draw after the other.

    Args:
        vectors: (n, d).
        square: (n,) their squared lengths.
        k: how many.
        rng: for the draws.
    """
    drawn: list[int] = []
    new = [int(rng.integers(len(vectors)))]
    nearest = np.full(len(vectors), np.inf)
    while True:
        drawn += new
        if len(drawn) >= k:
            return drawn
        nearest = np.minimum(nearest, nearest_squared(vectors, square, vectors[new], square[new]))
        nearest[nearest <= SAME * square.max()] = 0.0
        total = nearest.sum()
        if total == 0:
            return drawn
        some = rng.choice(len(vectors), max(8, len(drawn)), p=nearest / total)
        gap = square[some, None] + square[some] - 2 * (vectors[some] @ vectors[some].T)
        now, least = nearest[some], nearest[some] * rng.random(len(some))
        new = []
        for i in range(len(some)):
            if now[i] > least[i] and len(drawn) + len(new) < k:
                new.append(int(some[i]))
                now = np.minimum(now, gap[i])


def assigned(vectors: Vectors, centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) the nearest centre of each row, ties to the first."""
    label = np.empty(len(vectors), np.int64)
    half = (squared_norms(centres) / 2).astype(np.float32)
    columns = np.ascontiguousarray(centres.T)
    # One buffer for all products: fresh pages would cost nearly as much as the products.
    room = np.empty((min(CACHED, len(vectors)), len(centres)), np.float32)
    for at in range(0, len(vectors), CACHED):
        part = np.asarray(vectors[at : at + CACHED])
        score = np.matmul(part, columns, out=room[: len(part)])
        score -= half
        score.argmax(axis=1, out=label[at : at + CACHED])
    return label


def _means(
    vectors: NDArray[np.float32], label: NDArray[np.int64], centres: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(k, d) the mean of each cluster; an empty one moves to one of the rows farthest from their centres."""
    from scipy.sparse import csc_array

    n, k = len(vectors), len(centres)
    count = np.bincount(label, minlength=k)
    sums = csc_array((np.ones(n, np.float32), label, np.arange(n + 1)), shape=(k, n)) @ vectors
    means = np.asarray(sums / np.maximum(count, 1)[:, None], np.float32)
    empty = np.flatnonzero(count == 0)
    if len(empty):
        gap = ((vectors - centres[label]) ** 2).sum(axis=1)
        means[empty] = vectors[np.lexsort((np.arange(n), -gap))[: len(empty)]]
    return means


def _one_a_cluster(
    label: NDArray[np.int64], distance: NDArray[np.float32], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows in turns: the nearest of each cluster in `order`, then the second nearest of each, and so on."""
    turn_of = np.empty(len(order), np.int64)
    turn_of[order] = np.arange(len(order))
    by_cluster = np.lexsort((np.arange(len(label)), distance, turn_of[label]))
    sorted_label = label[by_cluster]
    starts = np.r_[0, np.flatnonzero(np.diff(sorted_label)) + 1]
    lengths = np.diff(np.r_[starts, len(label)])
    place = np.arange(len(label)) - np.repeat(
        starts, lengths
    )  # 0 for a cluster's nearest row, 1 for its second
    return by_cluster[np.lexsort((turn_of[sorted_label], place))]
