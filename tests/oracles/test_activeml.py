"""Strategies against scikit-activeml, pick by pick or score by score; where it departs from a paper, how."""

import numpy as np
import pytest

from llmal.select import typiclust
from llmal.select.badge import Badge, distances, gradients
from llmal.select.contrastive import Contrastive
from llmal.select.discriminative import Discriminative
from llmal.select.entropy import Entropy
from llmal.select.kcenter import KCenter
from llmal.select.least_confidence import LeastConfidence
from llmal.select.margin import Margin
from llmal.select.probcover import ProbCover, purest_radius
from llmal.select.stage import Pool
from llmal.select.typiclust import TypiClust


@pytest.fixture(scope="module")
def peer():
    """The package, imported only when one of these tests runs: it takes about a second."""
    return pytest.importorskip("skactiveml.pool")


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def waves():
    """40 unit rows in 4 dimensions, from a formula, so that anyone can make them again."""
    i, j = np.arange(40)[:, None], np.arange(4)[None]
    return unit(np.sin(0.7 * i + 1.3 * j + 0.05 * i * j))


def blobs(sizes, dim=8, seed=0):
    """Well separated unit rows and the blob of each, rows shuffled."""
    draw = rng(seed)
    blob = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return unit(np.eye(dim)[blob] + 0.1 * draw.normal(size=(len(blob), dim))), blob


def pool(vectors, *, probs=None, labelled=(), classes=3):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(np.asarray(vectors, np.float32), rows, labelled, probs, classes)


def random_pool(*, n=120, labelled=15, dim=6, classes=4, seed=0):
    draw = rng(seed)
    probs = draw.dirichlet(np.ones(classes), size=n)
    return pool(unit(draw.normal(size=(n, dim))), probs=probs, labelled=range(labelled), classes=classes)


def asked(some):
    """The labels as the peer wants them: NaN where there is none."""
    y = np.full(len(some.vectors), np.nan)
    y[some.labelled] = np.arange(len(some.labelled)) % some.n_classes
    return y


def student(some, *, vectors=False):
    """The peer's view of a student whose word is given: its input is the number of a row."""
    from skactiveml.base import SkactivemlClassifier

    class Told(SkactivemlClassifier):
        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            rows = X[:, 0].astype(int)
            return (some.probs[rows], some.vectors[rows]) if vectors else some.probs[rows]

    return Told(classes=list(range(some.n_classes)))


def numbers(some):
    return np.arange(len(some.vectors), dtype=float)[:, None]


def in_rows(some, chosen):
    """Scores by row of the pool, NaN where nothing was picked."""
    scores = np.full(len(some.vectors), np.nan)
    scores[chosen.rows] = chosen.scores
    return scores[some.unlabelled]


# --- before any label


@pytest.mark.parametrize(("dim", "labelled"), [(4, [0]), (16, [3]), (16, [7, 30, 31])])
def test_kcenter_picks_the_rows_of_coreset(peer, dim, labelled):
    some = pool(unit(rng(dim).normal(size=(250, dim))), labelled=labelled)
    theirs = peer.CoreSet(random_state=0).query(some.vectors.astype(float), asked(some), batch_size=25)
    assert KCenter().select(some, 25, rng()).rows.tolist() == theirs.tolist()


class Given:
    """A clustering that is known beforehand, in the form the peer calls one."""

    def __init__(self, label, n_clusters):
        self.label = label

    def fit_predict(self, _):
        return self.label


def their_typical(peer, vectors, label, n, **options):
    """The peer's pick of each cluster, on clusters that are given."""
    plugin = peer.TypiClust(cluster_algo=Given, cluster_algo_dict={"label": label}, random_state=0, **options)
    return plugin.query(
        vectors.astype(float), np.full(len(vectors), np.nan), batch_size=n, return_utilities=True
    )


def our_typical(vectors, label, n, **options):
    nobody = np.zeros(len(vectors), bool)
    return TypiClust(**options).from_clusters(vectors, label, nobody, n, rng())


def test_typiclust_picks_the_same_typical_rows_of_the_same_clusters(peer):
    vectors = unit(rng(1).normal(size=(310, 6)))
    label = rng(2).permutation(np.repeat(np.arange(5), [80, 70, 60, 55, 45]))
    theirs, typicality = their_typical(peer, vectors, label, 5, k=20)
    rows, scores, _ = our_typical(vectors, label, 5)
    assert rows.tolist() == theirs.tolist()
    assert scores == pytest.approx([typicality[i, row] for i, row in enumerate(theirs)], rel=1e-4)


@pytest.mark.parametrize("labelled", [0, 2])
def test_typiclust_picks_the_same_rows_where_both_cluster_for_themselves(peer, labelled):
    vectors, blob = blobs([80, 70, 60, 55, 45], seed=3)
    some = pool(vectors, labelled=[int(np.flatnonzero(blob == b)[0]) for b in range(labelled)])
    theirs = peer.TypiClust(k=20, cluster_algo_dict={"n_init": 20}, random_state=0)
    theirs = theirs.query(vectors.astype(float), asked(some), batch_size=5 - labelled)
    assert sorted(blob[theirs]) == list(range(labelled, 5)), "the peer found the blobs"
    starts = [TypiClust().select(some, 5 - labelled, rng(s)).rows for s in range(10)]
    alike = [rows for rows in starts if sorted(blob[rows]) == list(range(labelled, 5))]
    assert len(alike) >= 5, "one k-means start may split a blob"
    assert all(rows.tolist() == theirs.tolist() for rows in alike)


def test_typiclust_looks_at_twenty_neighbours_where_the_peer_by_default_looks_at_five(peer):
    """The paper and its authors' code take 20; the peer's default of 5 finds other rows typical."""
    vectors = unit(rng(1).normal(size=(310, 6)))
    label = rng(2).permutation(np.repeat(np.arange(5), [80, 70, 60, 55, 45]))
    theirs, _ = their_typical(peer, vectors, label, 5)
    assert TypiClust().neighbours == 20
    assert our_typical(vectors, label, 5)[0].tolist() != theirs.tolist()
    assert our_typical(vectors, label, 5, neighbours=5)[0].tolist() == theirs.tolist()


def test_typiclust_halves_a_small_cluster_where_the_peer_takes_all_of_it(peer):
    """The authors' code looks at no more than half of a cluster, min(20, size // 2); the peer at size - 1."""
    vectors, label = waves(), np.repeat([0, 1, 2], [15, 14, 11])
    theirs, typicality = their_typical(peer, vectors, label, 3, k=20)
    rows, scores, _ = our_typical(vectors, label, 3)
    assert label[rows].tolist() == label[theirs].tolist() == [0, 1, 2]
    assert (scores > 1.05 * np.nanmax(typicality, axis=1)).all()


def test_typiclust_takes_plain_distances_as_the_paper_and_the_peer_do(peer):
    """The authors' index returns squared distances, and row 28 instead of 20 becomes typical."""
    label = np.arange(40) % 4
    plain, squared = (our_typical(waves(), label, 4, squared=s)[0].tolist() for s in (False, True))
    theirs, _ = their_typical(peer, waves(), label, 4, k=5)
    assert set(plain) == set(theirs.tolist()) == {19, 20, 21, 22}
    assert set(squared) == {19, 21, 22, 28}


# With a single radius there is nothing to choose by purity; the peer warns of that whatever the data.
no_purity = pytest.mark.filterwarnings("ignore:The maximum purity was -1:UserWarning")


@pytest.fixture
def lowest_of_ties(monkeypatch, peer):
    """Let the peer break ties as we do; it draws among them otherwise."""
    from skactiveml.pool import _prob_cover

    def lowest(utilities, random_state):
        return np.array([np.nanargmax(utilities)])

    monkeypatch.setattr(_prob_cover, "rand_argmax", lowest)


@pytest.mark.parametrize("labelled", [[], [4, 90]])
@pytest.mark.parametrize("delta", [0.3, 0.6])
@pytest.mark.usefixtures("lowest_of_ties")
@no_purity
def test_probcover_picks_and_covers_as_the_peer(peer, delta, labelled):
    some = pool(unit(rng(5).normal(size=(300, 4))), labelled=labelled)
    theirs, degrees = peer.ProbCover(deltas=[delta], random_state=0).query(
        some.vectors.astype(float), asked(some), batch_size=20, return_utilities=True
    )
    chosen = ProbCover(delta=delta).select(some, 20, rng())
    assert chosen.rows.tolist() == theirs.tolist()
    assert chosen.scores.tolist() == np.nanmax(degrees, axis=1).tolist()


@no_purity
def test_probcover_covers_as_much_as_the_peer_whichever_tie_it_draws(peer):
    chosen = ProbCover(delta=0.5).select(pool(waves()), 6, rng())
    assert np.cumsum(chosen.scores).tolist() == [7, 12, 17, 22, 25, 28]
    _, degrees = peer.ProbCover(deltas=[0.5], random_state=0).query(
        waves().astype(float), np.full(40, np.nan), batch_size=6, return_utilities=True
    )
    assert np.nanmax(degrees, axis=1).cumsum().tolist() == [7, 12, 17, 22, 25, 28]


def test_the_radius_is_the_peers_where_clusters_are_the_same(peer):
    for seed in range(3):
        vectors, _ = blobs([60, 50, 40], seed=seed)
        theirs = peer.ProbCover(n_classes=3, deltas=np.arange(1, 21) / 10, random_state=0)
        theirs.query(vectors.astype(float), np.full(150, np.nan))
        ours = purest_radius(vectors, 3, rng(seed))
        assert ours == pytest.approx(theirs.delta_max_)
        assert 0.3 < ours < 1.3, "neither end of the scale"


# --- with a student


@pytest.mark.parametrize(
    ("ours", "method", "unit_of_theirs"),
    [
        (LeastConfidence(), "least_confident", 1.0),
        (Margin(), "margin_sampling", 1.0),
        (Entropy(), "entropy", np.log(4)),  # ours is a share of the largest entropy there is
    ],
    ids=["least_confidence", "margin", "entropy"],
)
def test_uncertainty_is_that_of_uncertainty_sampling(peer, ours, method, unit_of_theirs):
    some = random_pool()
    some.probs[[20, 21]] = [[0.5, 0.5, 0, 0], [1, 0, 0, 0]]
    theirs, utilities = peer.UncertaintySampling(method=method, random_state=0).query(
        numbers(some), asked(some), clf=student(some), fit_clf=False, batch_size=30, return_utilities=True
    )
    chosen = ours.select(some, len(some.unlabelled), rng())
    assert in_rows(some, chosen) == pytest.approx(utilities[0][some.unlabelled] / unit_of_theirs, abs=1e-12)
    assert chosen.rows[:30].tolist() == theirs.tolist()


def their_badge(peer, some, k):
    plugin = peer.Badge(random_state=0)
    clf = student(some, vectors=True)
    picks, odds = plugin.query(
        numbers(some), asked(some), clf=clf, fit_clf=False, batch_size=k, return_utilities=True
    )
    return np.array(picks), odds[:, some.unlabelled]


def factors(some):
    g = gradients(some.probs[some.unlabelled])
    h = some.vectors[some.unlabelled]
    return g, h, (g**2).sum(axis=1) * (h.astype(float) ** 2).sum(axis=1)


def test_badge_measures_gradients_as_the_peer_which_writes_them_out(peer):
    some = random_pool(seed=4)
    g, h, norms = factors(some)
    picks, odds = their_badge(peer, some, 2)
    assert odds[0] == pytest.approx(norms / norms.sum(), rel=1e-5)
    assert Badge().select(some, 1, rng()).rows[0] == picks[0]
    first = int(np.searchsorted(some.unlabelled, picks[0]))
    written = (g[:, :, None] * h[:, None, :]).reshape(len(g), -1)
    away = distances(g, h, norms, first)
    assert away == pytest.approx(((written - written[first]) ** 2).sum(axis=1), abs=1e-6)


class Noted(np.random.Generator):
    """A generator that remembers the odds it was asked to draw by."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.odds = []

    def choice(self, n, *, p):
        self.odds.append(p)
        return super().choice(n, p=p)


def test_badge_draws_by_the_distance_to_picks_where_the_peer_counts_the_origin_as_one(peer):
    """The peer's second draw is by min(|g|^2, distance to the first pick), so long gradients lose odds.

    The paper's k-means++ and the authors' code know no pick at the origin, nor does ours.
    """
    some = random_pool(seed=4)
    g, h, norms = factors(some)
    picks, odds = their_badge(peer, some, 2)
    away = distances(g, h, norms, int(np.searchsorted(some.unlabelled, picks[0])))
    nearer = np.minimum(norms, away)
    left = some.unlabelled != picks[0]
    assert odds[1][left] == pytest.approx((nearer / nearer.sum())[left], abs=1e-6)
    draw = Noted(0)
    Badge().select(some, 2, draw)
    assert draw.odds[0] == pytest.approx(away / away.sum(), abs=1e-9)
    assert np.abs(odds[1] - draw.odds[0])[left].max() > 1e-3


@pytest.mark.parametrize("neighbours", [1, 10, 15])
def test_contrastive_scores_are_those_of_contrastive_al(peer, neighbours):
    some = random_pool(labelled=15, seed=6)
    theirs, utilities = peer.ContrastiveAL(
        nearest_neighbors_dict={"n_neighbors": neighbours}, eps=1e-7, random_state=0
    ).query(
        numbers(some),
        asked(some),
        clf=student(some, vectors=True),
        fit_clf=False,
        batch_size=30,
        return_utilities=True,
    )
    chosen = Contrastive(neighbours=neighbours).select(some, len(some.unlabelled), rng())
    assert in_rows(some, chosen) == pytest.approx(utilities[0][some.unlabelled], abs=1e-4)
    assert chosen.rows[:30].tolist() == theirs.tolist()


def test_contrastive_compares_with_ten_neighbours_where_the_peer_by_default_takes_five(peer):
    """The paper's number is 10; the peer leaves it to its neighbour search, which takes 5."""
    some = random_pool(labelled=40, seed=6)
    theirs = peer.ContrastiveAL(random_state=0).query(
        numbers(some), asked(some), clf=student(some, vectors=True), fit_clf=False, batch_size=20
    )
    assert Contrastive().neighbours == 10
    assert Contrastive(neighbours=5).select(some, 20, rng()).rows.tolist() == theirs.tolist()
    assert Contrastive().select(some, 20, rng()).rows.tolist() != theirs.tolist()


@pytest.mark.parametrize("at_once", [True, False], ids=["one fit", "a fit for each pick"])
def test_discriminative_picks_the_rows_of_discriminative_al(peer, at_once):
    """The peer fits anew after each pick unless told not to; ours splits the batch into `rounds`."""
    from skactiveml.classifier import SklearnClassifier
    from sklearn.linear_model import LogisticRegression

    some = random_pool(labelled=20, seed=7)
    theirs, utilities = peer.DiscriminativeAL(greedy_selection=at_once, random_state=0).query(
        some.vectors.astype(float),
        asked(some),
        discriminator=SklearnClassifier(LogisticRegression(max_iter=1000)),
        batch_size=12,
        return_utilities=True,
    )
    chosen = Discriminative(rounds=1 if at_once else 12).select(some, 12, rng())
    assert chosen.rows.tolist() == theirs.tolist()
    at = np.arange(12), theirs
    assert chosen.scores == pytest.approx(utilities[at], abs=1e-5)


def test_large_clusters_are_sampled_and_still_give_the_peers_rows(peer, monkeypatch):
    """Typicality of a sample is an estimate: its pick is among the peer's most typical tenth."""
    vectors = unit(1 + 0.5 * rng(9).normal(size=(600, 5)))
    label = np.zeros(600, np.int64)
    _, typicality = their_typical(peer, vectors, label, 1, k=20)
    monkeypatch.setattr(typiclust, "LARGEST", 200)
    row = our_typical(vectors, label, 1)[0][0]
    assert typicality[0][row] >= np.quantile(typicality[0], 0.9)
