"""Diversify and conquer: quotas, weights, planted noise, and clusters that stay."""

import numpy as np
import pytest

from llmal.records import Label, LabelSchema
from llmal.select.diversify import Diversify, drawn, even, scores
from llmal.select.kmeans import cluster
from llmal.select.stage import Pool
from llmal.train.linear import Linear
from llmal.train.stage import Examples

TWO = LabelSchema("single", (Label(name="yes"), Label(name="no")), True)


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def topics(*, n=600, k=6, seed=0, width=0.05):
    """Rows around k directions, and which one."""
    draw = rng(seed)
    topic = draw.integers(k, size=n)
    return unit(np.eye(k, k + 4)[topic] + width * draw.normal(size=(n, k + 4))), topic


def pool(vectors, *, labelled=(), probs=None, targets=None, classes=2, multi=False):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(vectors, rows, labelled, probs, classes, targets, multi)


def test_without_answers_every_cluster_gives_the_same():
    vectors, topic = topics()
    for k in (6, 60, 63):
        chosen = Diversify(clusters=6).select(pool(vectors), k, rng())
        given = np.bincount(topic[chosen.rows], minlength=6)
        assert given.sum() == k
        assert given.max() - given.min() <= 1
    fewer = Diversify(clusters=6).select(pool(vectors), 4, rng())
    assert len(set(topic[fewer.rows])) == 4


def test_rows_inside_a_cluster_are_equally_likely():
    vectors, _ = topics(n=12, k=2)
    count = np.zeros(12)
    for seed in range(600):
        count[Diversify(clusters=2).select(pool(vectors), 4, rng(seed)).rows] += 1
    _, label = cluster(vectors, 2, rng(0))
    expected = 600 * 2 / np.bincount(label)[label]
    assert count == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_quotas_sum_and_respect_what_is_there(seed):
    draw = rng(seed)
    free = draw.integers(0, 9, size=12)
    weights = draw.dirichlet(np.full(12, 0.3))
    for k in (1, 5, int(free.sum()) - 1, int(free.sum())):
        for quotas in (even(k, free, draw), drawn(k, free, weights, draw)):
            assert quotas.sum() == k
            assert (quotas <= free).all()
            assert (quotas >= 0).all()


def test_even_quotas_differ_by_one_where_nothing_runs_out():
    quotas = even(17, np.array([9, 9, 1, 9]), rng())
    assert quotas[2] == 1
    others = quotas[[0, 1, 3]]
    assert others.max() - others.min() <= 1


def test_quotas_follow_the_weights():
    weights = np.array([0.5, 0.3, 0.2, 0.0])
    total = sum(drawn(100, np.full(4, 1000), weights, rng(seed)) for seed in range(50))
    assert total / 5000 == pytest.approx(weights, abs=0.02)
    last = drawn(5, np.array([1, 1, 1, 9]), weights, rng())
    assert last.tolist() == [1, 1, 1, 2], "weight 0 only when needed"


def test_weights_by_hand():
    found = Diversify().weights(np.array([1.0, 0.5, 0.0, np.nan]), np.array([0, 0, 1, 3]), 4)
    by_hand = np.exp([0.75, 0.0])
    by_hand = np.array([*by_hand, by_hand.mean(), by_hand.mean()])
    assert found == pytest.approx(by_hand / by_hand.sum()), "clusters without a score have the mean weight"
    assert found.sum() == pytest.approx(1)
    sharp = Diversify(temperature=0.1).weights(np.array([1.0, 0.5, 0.0]), np.array([0, 0, 1]), 2)
    assert sharp == pytest.approx(np.exp([7.5, 0]) / np.exp([7.5, 0]).sum())
    assert Diversify().weights(np.array([np.nan]), np.array([0]), 4) is None
    assert Diversify().weights(np.zeros(0), np.zeros(0, np.int64), 4) is None
    cold = Diversify(temperature=1e-6).weights(np.array([0.0, 0.2]), np.array([0, 1]), 3)
    assert cold == pytest.approx(np.full(3, 1 / 3)), "weights too small for a number are equal"


def test_scores_by_hand():
    vectors = unit(rng().normal(size=(5, 3)))
    probs = np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [np.nan, np.nan], [0.2, 0.8]], np.float32)
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, 1]], np.float32)
    some = pool(vectors, labelled=range(4), probs=probs, targets=targets)
    assert scores(some)[:3] == pytest.approx([0.9, 0.3, 0.0])
    assert np.isnan(scores(some)[3]), "the student said nothing"
    assert scores(some._replace(probs=None)).tolist() == [1, 1, 0, 1]
    assert np.isnan(scores(some._replace(targets=None))).all()
    many = some._replace(multi=True)
    assert scores(many)[:3] == pytest.approx([0.9, 0.3, 0.5])
    assert scores(many._replace(probs=None)).tolist() == [1, 1, 1, 1]


def clusters_of(chosen):
    """Row -> the cluster its reason names."""
    names = [why.split("cluster ")[1].split(",")[0] for why in chosen.reasons]
    return dict(zip(chosen.rows.tolist(), names, strict=True))


def test_clusters_stay_the_same_whatever_the_round_draws():
    vectors, _ = topics()
    first = Diversify(clusters=6).select(pool(vectors), 600, rng(1))
    later = Diversify(clusters=6).select(pool(vectors, labelled=range(300)), 300, rng(2))
    before, after = clusters_of(first), clusters_of(later)
    assert len(after) == 300
    assert all(before[row] == name for row, name in after.items())
    other = Diversify(clusters=40, seed=1).select(pool(vectors), 600, rng(1))
    assert other.reasons != Diversify(clusters=40).select(pool(vectors), 600, rng(1)).reasons


def test_number_of_clusters_follows_the_corpus():
    vectors = unit(rng().normal(size=(400, 6)))
    chosen = Diversify().select(pool(vectors), 400, rng())
    assert "one of 20 with equal shares" in chosen.reasons[0]


def played(seed, rounds, *, clusters=6, size=40):
    """Rounds on a corpus whose topics 0 and 1 get answers at random; weights after each, and all picks."""
    vectors, topic = topics(seed=seed)
    draw = rng(seed + 100)
    gold = np.where(topic < 2, draw.integers(2, size=len(topic)), topic % 2)
    plugin = Diversify(clusters=clusters)
    _, label = cluster(vectors, clusters, rng(plugin.seed))
    noisy = {int(np.bincount(label[topic == t]).argmax()) for t in (0, 1)}
    asked, probs, weights = np.zeros(0, np.int64), None, []
    for round_no in range(rounds):
        targets = np.eye(2, dtype=np.float32)[gold[asked]]
        some = pool(vectors, labelled=asked, probs=probs, targets=targets)
        asked = np.concatenate([asked, plugin.select(some, size, rng(round_no)).rows])
        targets = np.eye(2, dtype=np.float32)[gold[asked]]
        examples = Examples([], vectors[asked], targets, np.ones(len(asked), np.float32))
        student = Linear().fit(examples, TWO, rng(), None)
        probs = student.predict_proba(Examples([], vectors))
        some = pool(vectors, labelled=asked, probs=probs, targets=targets)
        weights.append(plugin.weights(scores(some), label[some.labelled], clusters))
    return np.array(weights), noisy, asked


def test_planted_noise_loses_weight():
    for seed in range(3):
        weights, noisy, _ = played(seed, 3)
        assert (weights[-1][sorted(noisy)] < 1 / 6).all()
        clean = [c for c in range(6) if c not in noisy]
        assert weights[-1][clean].min() > weights[-1][sorted(noisy)].max()


def test_rounds_spend_the_whole_budget():
    # The released code draws rows * share / clusters / rounds in later rounds: as many times too few as
    # there are clusters. The budget of a round is its own here, whatever the number of clusters.
    rounds, size = 3, 60
    _, _, asked = played(0, rounds, size=size)
    assert len(set(asked.tolist())) == len(asked) == rounds * size, "no row twice"
    share = rounds * size / 600
    assert int(600 * share / 6 / rounds) == size // 6


def test_a_used_up_cluster_passes_its_quota_on():
    vectors, topic = topics()
    few = np.flatnonzero(topic == 0)
    rest = np.flatnonzero(topic > 0)
    asked = few[2:]
    targets = np.tile(np.array([[1, 0]], np.float32), (len(asked), 1))
    probs = np.tile(np.array([[1, 0]], np.float32), (600, 1))
    some = pool(vectors, labelled=asked, probs=probs, targets=targets)
    for k in (10, len(rest) + 2):
        chosen = Diversify(clusters=6, temperature=0.01).select(some, k, rng())
        assert len(set(chosen.rows.tolist())) == k


def test_reasons_tell_the_share():
    vectors, _ = topics()
    targets = np.zeros((20, 2), np.float32)
    some = pool(vectors, labelled=range(20), targets=targets, probs=None)
    chosen = Diversify(clusters=6).select(some, 9, rng())
    assert "1.00 times an equal share" in chosen.reasons[0]
