"""What public code does otherwise than the papers, written out small, and that ours does not."""

import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin

from llmal.select.contrastive import Contrastive, divergence
from llmal.select.kmeans import KMeans
from llmal.select.least_confidence import LeastConfidence
from llmal.select.probcover import ProbCover
from llmal.select.stage import Pool
from llmal.select.typiclust import TypiClust


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pool(vectors, *, probs=None, labelled=(), classes=3):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(np.asarray(vectors, np.float32), rows, labelled, probs, classes)


def heaps(*sizes):
    """Tight heaps of unit rows, far from each other, one after the other."""
    where = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0)
    return unit(where + 0.01 * rng().normal(size=where.shape))


def covered(vectors, rows, delta):
    """Share of rows nearer than delta to one of the chosen."""
    return (pairwise_distances(vectors, vectors[rows]) < delta).any(axis=1).mean()


# --- k-means medoids


def test_medoids_are_the_rows_nearest_to_the_centres_of_scikit_learn():
    vectors = heaps(40, 30, 20, 10)
    centres = SklearnKMeans(4, n_init=1, random_state=int(rng(1).integers(2**31))).fit(vectors)
    by_size = np.argsort(-np.bincount(centres.labels_), kind="stable")
    nearest = pairwise_distances_argmin(centres.cluster_centers_[by_size], vectors)
    assert KMeans().select(pool(vectors), 4, rng(1)).rows.tolist() == nearest.tolist()


def test_medoids_are_distinct_where_the_nearest_row_alone_is_taken_twice():
    """Centres that share their nearest row: code that takes it for each of them returns it twice."""
    vectors = np.repeat(np.eye(3, dtype=np.float32), [6, 4, 2], axis=0)
    centres = vectors[[0, 1, 6, 7, 10]]  # more centres than places
    assert len(set(pairwise_distances_argmin(centres, vectors).tolist())) == 3
    assert len(set(KMeans().select(pool(vectors), 5, rng()).rows.tolist())) == 5


# --- typiclust


def test_typiclust_counts_labels_by_cluster_where_the_authors_count_by_position():
    """Their counts shift as soon as a cluster number is missing; ours do not depend on the numbers."""
    vectors, label = unit(rng(3).normal(size=(60, 5))), np.repeat([0, 1, 2, 3], [24, 16, 12, 8])
    labelled = np.zeros(60, bool)
    labelled[:20] = True  # most of the largest cluster
    picks = [
        TypiClust().from_clusters(vectors, numbers[label], labelled, 8, rng())[0].tolist()
        for numbers in (np.arange(4), np.array([2, 3, 7, 11]))
    ]
    assert picks[0] == picks[1]
    assert label[picks[0]].tolist() == [1, 2, 3, 0, 1, 2, 3, 0]


# --- probcover


def authors_probcover(vectors, delta, k, *, block=500):
    """The authors' graph and loop: rows after the last whole block reach nobody, full coverage is no end."""
    near = pairwise_distances(vectors) < delta
    near[len(vectors) // block * block :] = False
    picked = []
    for _ in range(k):
        picked.append(int(near.sum(axis=1).argmax()))
        near[:, near[picked[-1]].copy()] = False
    return picked


def test_probcover_sees_the_rows_the_authors_lose_behind_the_last_whole_block():
    """The authors build the graph in blocks of 500 and forget the rest, here the largest heap of all."""
    vectors = heaps(200, 180, 120, 240)
    theirs = authors_probcover(vectors, 0.5, 4)
    assert max(theirs) < 500
    chosen = ProbCover(delta=0.5).select(pool(vectors), 4, rng())
    assert chosen.rows[0] >= 500
    assert chosen.scores.tolist() == [240, 200, 180, 120]
    assert covered(vectors, theirs, 0.5) == pytest.approx(500 / 740)
    assert covered(vectors, chosen.rows, 0.5) == 1


def test_probcover_goes_on_where_the_authors_choose_the_first_row_again():
    """Once all is covered the largest degree is 0 and the authors' argmax is row 0, time after time."""
    vectors = heaps(250, 150, 100)
    theirs = authors_probcover(vectors, 0.5, 6)
    assert theirs[3:] == [0, 0, 0]
    chosen = ProbCover(delta=0.5).select(pool(vectors), 6, rng())
    assert chosen.scores.tolist() == [250, 150, 100, 0, 0, 0]
    assert len(set(chosen.rows.tolist())) == 6
    assert all(why.startswith("everything is covered") for why in chosen.reasons[3:])


def small_text_probcover(vectors, delta, k):
    """small-text removes the edges of the chosen node only; what it covers keeps its degree."""
    near = (pairwise_distances(vectors) <= delta) & ~np.eye(len(vectors), dtype=bool)
    picked = []
    for _ in range(k):
        picked.append(int(near.sum(axis=1).argmax()))
        near[picked[-1]] = near[:, picked[-1]] = False
    return picked


def test_probcover_counts_what_is_not_covered_yet_where_small_text_counts_all():
    """The paper removes every edge into a covered row; small-text stays in the densest heap."""
    vectors = heaps(50, 30, 10)
    theirs = small_text_probcover(vectors, 0.5, 3)
    assert max(theirs) < 50
    assert covered(vectors, theirs, 0.5) == pytest.approx(50 / 90)
    chosen = ProbCover(delta=0.5).select(pool(vectors), 3, rng())
    assert np.cumsum(chosen.scores).tolist() == [50, 80, 90]
    assert covered(vectors, chosen.rows, 0.5) == 1


# --- contrastive


def small_text_contrastive(some, neighbours):
    """small-text searches among all rows, so the first neighbour of a row is the row itself."""
    away = pairwise_distances(some.vectors[some.unlabelled], some.vectors)
    near = np.argsort(away, axis=1)[:, :neighbours]
    return divergence(some.probs[some.unlabelled], some.probs[near])


def test_contrastive_compares_with_labelled_rows_where_small_text_has_a_row_compared_with_itself():
    """The paper and its authors' code search among labelled rows only."""
    draw = rng(6)
    some = pool(
        unit(draw.normal(size=(120, 6))),
        probs=draw.dirichlet(np.ones(4), size=120),
        labelled=range(30),
        classes=4,
    )
    assert small_text_contrastive(some, 1) == pytest.approx(np.zeros(90), abs=1e-12)
    assert Contrastive(neighbours=1).select(some, 90, rng()).scores.max() > 1
    theirs = some.unlabelled[np.argsort(-small_text_contrastive(some, 10))[:20]]
    ours = Contrastive(neighbours=10).select(some, 20, rng()).rows
    assert set(theirs.tolist()) != set(ours.tolist())


def test_contrastive_finds_a_region_that_departs_from_its_labels_where_small_text_sees_agreement():
    """In the second heap the student contradicts on every unlabelled row what it says on labelled ones."""
    vectors = heaps(40, 40)
    probs = np.repeat([[0.9, 0.1], [0.2, 0.8]], 40, axis=0)
    labelled = [*range(3), 40, 41, 42]
    probs[[40, 41, 42]] = [0.9, 0.1]
    probs[3:40] = [0.8, 0.2]
    some = pool(vectors, probs=probs, labelled=labelled, classes=2)
    ours = Contrastive(neighbours=3).select(some, 37, rng())
    assert ours.rows.min() > 42
    theirs = small_text_contrastive(some, 3)
    assert np.median(theirs[some.unlabelled > 42]) == pytest.approx(0, abs=1e-9)


# --- clipping


def test_clipping_looks_at_the_pool_where_released_code_counts_labelled_rows_too():
    """Labelled rows are confident, so a percentile over all rows leaves out more of the pool than asked.

    Here twice as much: 5 % of 200 rows are the 10 least confident of the 100 unlabelled ones.
    """
    confidence = np.concatenate([0.5 + np.arange(1, 101) / 250, np.full(100, 0.99)])
    some = pool(
        np.ones((200, 1)),
        probs=np.stack([confidence, 1 - confidence], axis=1),
        labelled=range(100, 200),
        classes=2,
    )
    all_rows = np.where(confidence < np.percentile(confidence, 5), 1.0, confidence)
    theirs = np.argsort(all_rows[:100], kind="stable")[:3]
    assert theirs.tolist() == [10, 11, 12]
    assert LeastConfidence(clip=0.05).select(some, 3, rng()).rows.tolist() == [5, 6, 7]
    assert LeastConfidence().select(some, 3, rng()).rows.tolist() == [0, 1, 2]
