"""DEUCE: a cold start from two neighbour graphs, one of texts and one of zero-shot answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from llmal.select.entropy import Entropy
from llmal.select.fuzzy import graph, merged, strongest
from llmal.select.neighbours import nearest
from llmal.select.stage import Pool, Selection, Selector

MOST_ROWS = 20_000
"""Rows looked at; larger pools are sampled: 500 neighbours a row make ten million edges of these."""

FLAT = 0.01
"""Standard deviation of every class's zero-shot probability below which the answers are all one."""

PATH_EDGES = 32
"""Heaviest edges of a row that shortest paths may take."""

MOST_RUNS = 4_000
"""Shortest-path searches in all: starts are left out before a large batch takes hours."""


class Deuce(Selector):
    """Rows spread over a graph of alike texts and alike answers, the uncertain ones first (DEUCE).

    Zero-shot answers from the label names stand for the paper's prompted model; their softmax temperature is
    all the calibration there is. Two rows are joined when they are near in text or in answer, most strongly
    when in both. Uncertainty is the answer's entropy (over log C), to which neighbours in the same cluster
    (HDBSCAN*) add theirs. From each of several well joined rows the farthest row by path is added until there
    are k, and the set with the largest sum of uncertainty is kept.

    The paper does not say, and here it is so: an edge is 1 / weight long; clusters are looked for in the
    largest connected part; a row's degree is the sum of its weights; paths take each row's 32 heaviest edges.
    Labelled rows are not looked at.
    Source: Guo et al. 2025 (DEUCE), McInnes et al. 2018 (UMAP), Campello et al. 2013 (HDBSCAN*).
    """

    neighbours: int = Field(500, ge=1, description="neighbours of a row in each graph")
    smallest: int = Field(3, ge=2, description="rows a cluster has at least")
    gamma: float = Field(1.0, ge=0, description="what being alike in text and in answer adds to an edge")
    starts: int = Field(16, ge=1, description="sets made and compared, each from another row")

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, the most uncertain of the set first.

        Raises:
            UserError: the pool has no sources.
            ValueError: a zero-shot probability is not finite; the message names the row.
        """
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        rows, rest, notes = pool.unlabelled, pool.unlabelled[:0], []
        if len(rows) > MOST_ROWS:
            mixed = rng.permutation(rows)
            rows, rest = np.sort(mixed[:MOST_ROWS]), mixed[MOST_ROWS:]
            notes.append(f"looked at {MOST_ROWS:,} random texts of {len(pool.unlabelled):,}")
        answers = np.asarray(pool.look().prior()[rows])
        bad = ~np.isfinite(answers).all(axis=1)
        if bad.any():
            raise ValueError(f"the zero-shot probability of row {rows[bad][0]} is not finite")
        joined = graph(nearest(np.asarray(pool.vectors[rows]), self.neighbours, rng))
        if answers.std(axis=0).max() < FLAT:
            notes.append("the label names say the same of every text, so only the texts' vectors counted")
        else:
            joined = merged(joined, graph(nearest(answers, self.neighbours, rng)), self.gamma)
        entropy = Entropy().scores(np.asarray(answers, np.float64), multi=pool.multi)
        doubt = spread_doubt(joined, entropy, self.smallest)
        picked = farthest(joined, min(k, len(rows)), doubt, self.starts)
        picked = picked[np.lexsort((picked, -doubt[picked]))]
        extra = rest[: k - len(picked)]
        reasons = [
            f"uncertain by {doubt[i]:.3f} with its neighbours, and far from the others" for i in picked
        ]
        return Selection(
            np.concatenate([rows[picked], extra]),
            np.concatenate([doubt[picked], np.zeros(len(extra))]),
            reasons + ["at random: more were wanted than were looked at"] * len(extra),
            note="; ".join(notes),
        )


def spread_doubt(joined: csr_array, doubt: NDArray[np.float64], smallest: int) -> NDArray[np.float64]:
    """(n,) each row's doubt, plus that of neighbours in its cluster by weight and membership.

    Args:
        joined: (n, n) symmetric weights.
        doubt: (n,) >= 0.
        smallest: rows of a cluster at least.
    """
    cluster, member = clusters(joined, smallest)
    edges = joined.tocoo()
    inside = (cluster[edges.row] == cluster[edges.col]) & (cluster[edges.row] >= 0)
    added = edges.data[inside] * (member * doubt)[edges.col[inside]]
    return doubt + np.bincount(edges.row[inside], weights=added, minlength=len(doubt))


def clusters(joined: csr_array, smallest: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n,) clusters, -1 for none, and (n,) membership in [0, 1], of the largest connected part of a graph."""
    from sklearn.cluster import HDBSCAN

    n = joined.shape[0]
    cluster, member = np.full(n, -1), np.zeros(n)
    _, part = connected_components(joined, directed=False)
    rows = np.flatnonzero(part == np.bincount(part).argmax())
    if len(rows) <= smallest:
        return cluster, member
    length = joined[rows][:, rows].tocsr()
    length.data = 1 / length.data
    # A row with fewer neighbours than this would be infinitely far from all others.
    samples = min(smallest, int(np.diff(length.indptr).min()))
    found = HDBSCAN(min_cluster_size=smallest, min_samples=samples, metric="precomputed", copy=True).fit(
        length
    )
    cluster[rows], member[rows] = found.labels_, found.probabilities_
    return cluster, member


def farthest(joined: csr_array, k: int, doubt: NDArray[np.float64], starts: int) -> NDArray[np.int64]:
    """The best by summed doubt of several sets of k rows, each grown by the row farthest by path."""
    paths = strongest(joined, PATH_EDGES)
    paths.data = 1 / paths.data
    degree = np.asarray(joined.sum(axis=1))
    first = np.lexsort((np.arange(len(degree)), -degree))[: max(1, min(starts, MOST_RUNS // k))]
    sets = [_grown(paths, int(start), k) for start in first]
    return max(sets, key=lambda rows: float(doubt[rows].sum()))


def _grown(paths: csr_array, start: int, k: int) -> NDArray[np.int64]:
    nearest = np.full(paths.shape[0], np.inf)
    picked = [start]
    while len(picked) < k:
        # Nothing farther than the farthest row can come nearer: the search may end there.
        nearest = np.minimum(nearest, dijkstra(paths, indices=picked[-1], limit=float(nearest.max())))
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
    return np.array(picked, np.int64)
