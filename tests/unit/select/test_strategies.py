"""Query strategies: golden values, brute-force twins, separated blobs, scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.neighbors import NearestNeighbors

from llmal.errors import UserError
from llmal.select import kmeans, typiclust
from llmal.select.kmeans import KMeans, cluster
from llmal.select.margin import Margin, margins
from llmal.select.stage import Pool, top
from llmal.select.typiclust import TypiClust
from llmal.select.uniform import Uniform

few = settings(max_examples=40, deadline=None, database=None)

# systems.md, section I: the data of lines A1 to A6.
ROW, COLUMN = np.mgrid[0:40, 0:4]
GOLDEN = np.sin(0.7 * ROW + 1.3 * COLUMN + 0.05 * ROW * COLUMN)
GOLDEN = (GOLDEN / np.linalg.norm(GOLDEN, axis=1, keepdims=True)).astype(np.float32)
NOBODY = np.zeros(40, bool)

# systems.md, section I, line B1.
PROBS = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.34, 0.33, 0.33], [0.5, 0.5, 0.0]])


def rng(seed=0):
    return np.random.default_rng(seed)


def pool_of(vectors, *, labelled=(), probs=None, classes=3):
    labelled = np.array(labelled, np.int64)
    unlabelled = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(np.asarray(vectors, np.float32), unlabelled, labelled, probs, classes)


def blobs(n_blobs=5, each=30, spread=0.02, dim=16, seed=0):
    """Well separated unit vectors and the blob of each row, rows shuffled."""
    draw = rng(seed)
    centres = np.linalg.qr(draw.normal(size=(dim, dim)))[0][:n_blobs]
    blob = draw.permutation(np.repeat(np.arange(n_blobs), each))
    rows = centres[blob] + spread * draw.normal(size=(len(blob), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), blob


# --- margin


def test_margins_golden():
    assert margins(PROBS) == pytest.approx([0.5, 0.05, 0.01, 0.0], abs=1e-12)


def test_margin_picks_golden():
    chosen = Margin().select(pool_of(np.eye(4), probs=PROBS), 3, rng())
    assert chosen.rows.tolist() == [3, 2, 1]
    assert chosen.scores == pytest.approx([1.0, 0.99, 0.95])
    assert chosen.reasons[1] == "margin 0.010 between the two likeliest labels"


def twin_margin(row):
    """Sort, subtract."""
    first, second = sorted(row.tolist(), reverse=True)[:2]
    return first - second


@few
@given(hnp.arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(2, 5)), elements=st.integers(1, 4)))
def test_margin_equals_its_twin(counts):
    probs = counts / counts.sum(axis=1, keepdims=True)  # few distinct values: many ties
    gaps = [twin_margin(row) for row in probs]
    assert margins(probs) == pytest.approx(gaps, abs=1e-12)
    order = sorted(range(len(gaps)), key=lambda i: (margins(probs)[i], i))
    chosen = Margin().select(pool_of(np.zeros((len(probs), 2)), probs=probs), len(probs), rng())
    assert chosen.rows.tolist() == order


def test_margin_does_not_care_about_the_order_of_classes():
    probs = rng(1).dirichlet(np.ones(4), size=30)
    pool = pool_of(np.zeros((30, 2)), probs=probs)
    turned = pool._replace(probs=probs[:, [2, 0, 3, 1]])
    assert Margin().select(pool, 9, rng()).rows.tolist() == Margin().select(turned, 9, rng()).rows.tolist()


def test_two_classes_margin_ranks_as_confidence_and_entropy():
    p = rng(2).uniform(0.01, 0.99, 50)
    probs = np.stack([p, 1 - p], axis=1)
    by_confidence = np.argsort(probs.max(axis=1))
    by_entropy = np.argsort((probs * np.log(probs)).sum(axis=1))
    picked = Margin().select(pool_of(np.zeros((50, 2)), probs=probs), 50, rng()).rows
    assert picked.tolist() == by_confidence.tolist() == by_entropy.tolist()


def test_margin_of_independent_labels_is_the_mean_distance_from_a_half():
    probs = np.array([[0.9, 0.8, 0.1], [0.5, 0.4, 0.6], [1.0, 0.0, 0.0]])
    assert margins(probs, multi=True) == pytest.approx([(0.8 + 0.6 + 0.8) / 3, 0.4 / 3, 1.0])
    assert Margin().scores(probs, multi=True) == pytest.approx(1 - margins(probs, multi=True))
    assert Margin(two=True).scores(probs, multi=True) == pytest.approx([0.9, 0.9, 0.0])


def test_margin_says_which_row_is_not_a_number():
    probs = PROBS.copy()
    probs[2, 0] = np.nan
    with pytest.raises(ValueError, match="row 2 is not finite"):
        Margin().select(pool_of(np.eye(4), probs=probs), 1, rng())


def test_margin_needs_a_student():
    with pytest.raises(UserError, match="needs a student"):
        Margin().select(pool_of(np.eye(4)), 1, rng())


def test_top_breaks_ties_by_the_lowest_row():
    assert top(np.array([1.0, 2.0, 2.0, 0.0]), np.array([3, 5, 8, 9]), 3).tolist() == [1, 2, 0]


# --- typiclust


@pytest.mark.parametrize(("squared", "picks"), [(False, [20, 21, 22, 19]), (True, [28, 21, 22, 19])])
def test_typiclust_golden(squared, picks):
    rows, scores, reasons = TypiClust(squared=squared).from_clusters(
        GOLDEN, np.arange(40) % 4, NOBODY, 4, rng()
    )
    assert rows.tolist() == picks
    if not squared:
        assert scores == pytest.approx([1.81142, 1.18194, 1.26725, 1.20999], abs=1e-5)
    assert reasons[0].startswith("typical (density")
    assert reasons[0].endswith("of a cluster of 10")


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_typicality_against_scikit_learn(squared, neighbours):
    vectors, _ = blobs(3, 12, spread=0.3)
    label = np.arange(36) % 3
    rows, scores, _ = TypiClust(squared=squared, neighbours=neighbours).from_clusters(
        vectors, label, np.zeros(36, bool), 3, rng()
    )
    for c, row, score in zip(range(3), rows, scores, strict=True):
        members = np.flatnonzero(label == c)
        k = min(neighbours, len(members) // 2)
        distance = NearestNeighbors(n_neighbors=k).fit(vectors[members]).kneighbors()[0].astype(float)
        typical = 1 / ((distance**2 if squared else distance).mean(axis=1) + 1e-5)
        assert row == members[typical.argmax()]
        assert score == pytest.approx(typical.max(), rel=1e-3)


def test_typiclust_serves_clusters_without_labels_first_and_larger_ones_first():
    label = np.repeat([0, 1, 2, 3], [20, 8, 7, 5])
    labelled = np.zeros(40, bool)
    labelled[0] = True  # the largest cluster is covered
    rows, _, _ = TypiClust().from_clusters(GOLDEN, label, labelled, 6, rng())
    assert label[rows].tolist() == [1, 2, 0, 1, 2, 0]  # the cluster of five is an outlier to the method
    assert 0 not in rows


def test_typiclust_falls_back_on_small_clusters():
    label = np.repeat([0, 1, 2], [30, 5, 5])
    rows, _, _ = TypiClust().from_clusters(GOLDEN, label, NOBODY, 33, rng())
    assert sorted(label[rows].tolist()) == [0] * 30 + [1, 1, 2]
    assert len(set(rows.tolist())) == 33


def test_typiclust_gives_all_rows_of_a_cluster_larger_than_it_can_measure(monkeypatch):
    monkeypatch.setattr(typiclust, "LARGEST", 8)
    rows, _, _ = TypiClust().from_clusters(GOLDEN, np.zeros(40, np.int64), NOBODY, 37, rng())
    assert len(set(rows.tolist())) == 37


def test_typiclust_measures_only_the_clusters_it_serves(monkeypatch):
    sizes = []
    measure = TypiClust._by_typicality

    def counted(self, vectors, members, rng):
        sizes.append(len(members))
        return measure(self, vectors, members, rng)

    monkeypatch.setattr(TypiClust, "_by_typicality", counted)
    TypiClust().from_clusters(GOLDEN, np.arange(40) % 4, NOBODY, 2, rng())
    assert sizes == [10, 10]


def test_cluster_without_neighbours_is_typical_one():
    assert list(TypiClust()._by_typicality(GOLDEN, np.array([7]), rng())) == [(7, 1.0)]


# --- both on blobs


@pytest.mark.parametrize("strategy", [KMeans(), TypiClust()], ids=["kmeans", "typiclust"])
def test_one_pick_a_blob(strategy):
    vectors, blob = blobs()
    hits = 0
    for seed in range(10):  # one k-means start may split a blob; nearly always it does not
        rows = strategy.select(pool_of(vectors), 5, rng(seed)).rows
        hits += len(set(blob[rows].tolist())) == 5
    assert hits >= 9


@pytest.mark.parametrize("strategy", [KMeans(), TypiClust()], ids=["kmeans", "typiclust"])
def test_blobs_with_a_label_wait(strategy):
    vectors, blob = blobs()
    labelled = [int(np.flatnonzero(blob == b)[0]) for b in (0, 1)]
    hits = 0
    for seed in range(10):
        rows = strategy.select(pool_of(vectors, labelled=labelled), 3, rng(seed)).rows
        hits += set(blob[rows].tolist()) == {2, 3, 4}
    assert hits >= 7  # five centres of seven may still share a blob


# --- k-means


def test_kmeans_picks_the_rows_nearest_to_the_centres():
    vectors, _ = blobs(4, 20, spread=0.2)
    chosen = KMeans().select(pool_of(vectors), 6, rng(3))
    centres, label = cluster(vectors, 6, rng(3))
    size = np.bincount(label)
    for row, score in zip(chosen.rows, chosen.scores, strict=True):
        members = np.flatnonzero(label == label[row])
        distance = np.linalg.norm(vectors[members] - centres[label[row]], axis=1)
        assert row == members[distance.argmin()]
        assert -score == pytest.approx(distance.min(), abs=1e-5)
    assert sorted(size[label[chosen.rows]], reverse=True) == size[label[chosen.rows]].tolist()


def test_kmeans_is_as_tight_as_scikit_learns():
    vectors, _ = blobs(16, 60, spread=0.2)

    def inertia(centres):
        return ((vectors[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1).sum()

    ours = [inertia(cluster(vectors, 40, rng(seed))[0]) for seed in range(5)]
    theirs = [
        inertia(SklearnKMeans(40, n_init=1, random_state=s).fit(vectors).cluster_centers_) for s in range(5)
    ]
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


def test_kmeans_fits_on_a_sample_of_a_large_pool(monkeypatch):
    monkeypatch.setattr(kmeans, "FIT_ROWS", 60)
    vectors, blob = blobs()
    rows = KMeans().select(pool_of(vectors), 5, rng(1)).rows
    assert len(set(rows.tolist())) == 5
    _, label = cluster(vectors, 5, rng(1))
    assert len(label) == len(vectors)
    # Rows of one blob share a cluster, whether they were in the sample or not.
    assert all(len(set(label[blob == b])) == 1 for b in range(5)) or len(set(blob[rows])) >= 4


def test_kmeans_serves_more_picks_than_centres(monkeypatch):
    monkeypatch.setattr(kmeans, "MAX_CENTRES", 4)
    vectors, blob = blobs(4, 20)
    rows = KMeans().select(pool_of(vectors), 12, rng(0)).rows
    assert len(set(rows.tolist())) == 12
    _, label = cluster(vectors, 4, rng(0))
    assert label[rows[:4]].tolist() == label[rows[4:8]].tolist() == label[rows[8:]].tolist()
    assert len(set(label[rows[:4]])) == 4


# --- uniform


def test_uniform_is_uniform():
    pool = pool_of(np.zeros((6, 2)), labelled=[0])
    count = np.zeros(6)
    for seed in range(600):
        count[Uniform().select(pool, 2, rng(seed)).rows] += 1
    assert count[0] == 0
    assert count[1:] == pytest.approx([240] * 5, abs=60)  # five standard deviations of a binomial
    assert Uniform().select(pool, 2, rng()).scores.tolist() == [0.4, 0.4]
