"""k-means medoids: one representative of each cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.stage import Pool, Selection, Selector

FIT_ROWS = 100_000
"""Rows k-means is fitted on; a larger pool is sampled first, then assigned whole."""

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
        vectors = np.asarray(pool.vectors[rows])
        u = len(pool.unlabelled)
        centres, label = cluster(vectors, min(k + len(pool.labelled), MAX_CENTRES), rng)
        distance = np.sqrt(np.maximum(0, ((vectors - centres[label]) ** 2).sum(axis=1)))
        size = np.bincount(label[:u], minlength=len(centres))
        known = np.bincount(label[u:], minlength=len(centres)) > 0
        order = _one_a_cluster(label[:u], distance[:u], np.lexsort((-size, known)))[:k]
        reasons = [f"nearest to the centre of a cluster of {size[label[i]]}" for i in order]
        return Selection(pool.unlabelled[order], -distance[order].astype(np.float64), reasons)


def cluster(
    vectors: NDArray[np.float32], k: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """k-means centres (k', d) and each row's cluster (n,); k' < k when there are fewer distinct rows.

    Full k-means on up to `FIT_ROWS` rows with at most 50 centres, mini-batches beyond (scikit-learn).
    """
    import warnings

    from sklearn.cluster import KMeans as Full
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    n = len(vectors)
    seed = int(rng.integers(2**31))
    fit = vectors if n <= FIT_ROWS else vectors[np.sort(rng.choice(n, FIT_ROWS, replace=False))]
    k = min(k, len(fit))
    if k <= 50 or len(fit) <= 20_000:
        model = Full(k, n_init=1, random_state=seed)
    else:
        model = MiniBatchKMeans(k, n_init=1, batch_size=max(4096, 2 * k), random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than centres: handled below
        model.fit(fit)
    label = model.labels_ if fit is vectors else model.predict(vectors)
    used, label = np.unique(label, return_inverse=True)
    return model.cluster_centers_[used].astype(np.float32), label.astype(np.int64)


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
