"""DEUCE: worked graph weights, the graph of both, clusters, spread, and what is picked."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from llmal.select import deuce
from llmal.select.deuce import Deuce, clusters, farthest, spread_doubt
from llmal.select.fuzzy import graph, merged, strongest, weights
from llmal.select.neighbours import Nearest, nearest
from llmal.select.stage import Pool
from llmal.testing.contracts.select import MadeSources

NOBODY = np.zeros(0, np.int64)


class Said(MadeSources):
    """Sources whose label names say what a test wants."""

    def __init__(self, vectors, prior):
        super().__init__(vectors, NOBODY, prior.shape[1])
        self._prior = np.asarray(prior, np.float32)

    def prior(self):
        return self._prior


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def blobs(sizes, *, d=8, spread=0.15, seed=0):
    """Groups of rows around axes, and the group of each."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    return unit(np.eye(len(sizes), d)[label] + spread * rng(seed).normal(size=(len(label), d))), label


def pool(vectors, prior, **more):
    return Pool(
        vectors, np.arange(len(vectors)), NOBODY, None, prior.shape[1], sources=Said(vectors, prior), **more
    )


# --- the graphs


def test_weights_are_the_worked_ones():
    found = weights(np.array([[0.2, 0.3, 0.5, 0.9]]))
    assert found[0] == pytest.approx([1, 0.659290, 0.286569, 0.054142], abs=1e-5)
    assert -0.1 / np.log(found[0, 1]) == pytest.approx(0.240043, abs=1e-5)


def test_every_row_of_weights_sums_to_log2_k_on_any_scale():
    distance = np.sort(rng().random((50, 16)), axis=1)
    for scale in (1e-6, 1.0, 1e6):
        found = weights(distance * scale)
        assert found.sum(axis=1) == pytest.approx(4)
        assert (found[:, 0] == 1).all()
        assert (np.diff(found) <= 0).all()


def test_equal_distances_and_single_neighbours_have_weights():
    assert weights(np.zeros((2, 4))).tolist() == [[1, 1, 1, 1]] * 2
    assert weights(np.array([[0.3]])).tolist() == [[1]]
    assert weights(np.array([[0.0, 0, 0, 1, 2]]))[0] == pytest.approx([1, 1, 1, 0, 0])


def test_two_directions_make_one_edge():
    near = Nearest(
        np.array([[1, 2], [0, 2], [1, 0]], np.int32), np.array([[1, 2], [1, 3], [1, 4]], np.float32), None
    )
    found = graph(near).toarray()
    assert (found == found.T).all()
    one_way = np.zeros((3, 3))
    for i in range(3):
        one_way[i, near.rows[i]] = weights(near.distance[i : i + 1])[0]
    one_way[one_way < 1e-3] = 0
    assert found == pytest.approx(one_way + one_way.T - one_way * one_way.T)
    assert pytest.approx(0.72) == 0.6 + 0.3 - 0.6 * 0.3


def test_an_edge_of_both_graphs_outweighs_every_edge_of_one():
    one = csr_array(np.array([[0, 0.6, 1.0], [0.6, 0, 0], [1.0, 0, 0]]))
    other = csr_array(np.array([[0, 0.3, 0], [0.3, 0, 0.9], [0, 0.9, 0]]))
    both = merged(one, other, 1.0).toarray()
    assert both[0, 1] == pytest.approx(1.18)
    assert both[0, 2] == 1.0
    assert both[1, 2] == pytest.approx(0.9)
    vectors = unit(rng(1).normal(size=(60, 5)))
    answers = rng(2).dirichlet(np.ones(4), size=60).astype(np.float32)
    g, h = (graph(nearest(x, 12, rng())) for x in (vectors, answers))
    both, dual = merged(g, h, 1.0), g.multiply(h).toarray() > 0
    single = (both.toarray() > 0) & ~dual
    assert dual.any()
    assert both.toarray()[dual].min() > both.toarray()[single].max()


def test_the_strongest_edges_stay_where_either_end_wants_them():
    dense = np.triu(rng().random((20, 20)), 1)
    dense += dense.T
    found = strongest(csr_array(dense), 3).toarray()
    wanted = np.zeros((20, 20), bool)
    for i in range(20):
        wanted[i, np.argsort(-dense[i])[:3]] = True
    assert ((found > 0) == (wanted | wanted.T)).all()
    assert (found[found > 0] == dense[found > 0]).all()


# --- clusters and spread


def test_clusters_are_those_of_the_largest_part():
    vectors, label = blobs([30, 30, 12], spread=0.05)
    big, small = (graph(nearest(vectors[part], 8, rng())) for part in (label < 2, label == 2))
    bridge = np.zeros((60, 60))
    bridge[0, 59] = bridge[59, 0] = 0.01
    joined = np.zeros((72, 72))
    joined[:60, :60] = big.toarray() + bridge
    joined[60:, 60:] = small.toarray()
    cluster, member = clusters(csr_array(joined), 3)
    assert (cluster[60:] == -1).all()
    assert (member[60:] == 0).all()
    assert not set(cluster[:30][cluster[:30] >= 0]) & set(cluster[30:60][cluster[30:60] >= 0])
    assert (member >= 0).all()
    assert (member <= 1).all()
    doubt = rng().random(72)
    spread = spread_doubt(csr_array(joined), doubt, 3)
    assert (spread[60:] == doubt[60:]).all()


def test_doubt_spreads_by_weight_and_membership_inside_clusters(monkeypatch):
    joined = csr_array(np.array([[0, 0.5, 0.2], [0.5, 0, 0], [0.2, 0, 0]]))
    monkeypatch.setattr(deuce, "clusters", lambda *_: (np.array([0, 0, -1]), np.array([1.0, 0.4, 0.0])))
    found = spread_doubt(joined, np.array([0.1, 0.6, 0.9]), 3)
    assert found == pytest.approx([0.1 + 0.5 * 0.4 * 0.6, 0.6 + 0.5 * 1.0 * 0.1, 0.9])


def test_graphs_too_small_for_a_cluster_have_none():
    cluster, member = clusters(csr_array(np.ones((3, 3)) - np.eye(3)), 3)
    assert cluster.tolist() == [-1] * 3
    assert member.tolist() == [0] * 3


# --- the sets


def test_each_pick_is_the_farthest_by_path():
    chain = np.zeros((9, 9))
    for i in range(8):
        chain[i, i + 1] = chain[i + 1, i] = 1.0
    chain[4, 3] = chain[3, 4] = 1.1  # row 4 has the largest degree but one; row 3 is the first of equals
    picked = farthest(csr_array(chain), 3, np.zeros(9), 1)
    assert picked.tolist() == [3, 8, 0]


def test_the_set_with_most_doubt_is_kept():
    vectors = unit(rng(3).normal(size=(80, 6)))
    joined = graph(nearest(vectors, 10, rng()))
    doubt = rng(4).random(80)
    one = doubt[farthest(joined, 8, doubt, 1)].sum()
    best = doubt[farthest(joined, 8, doubt, 16)].sum()
    degree = np.asarray(joined.sum(axis=1))
    paths = strongest(joined, deuce.PATH_EDGES)
    paths.data = 1 / paths.data
    every = [doubt[deuce._grown(paths, int(i), 8)].sum() for i in np.argsort(-degree)[:16]]
    assert one == pytest.approx(every[0])
    assert best == pytest.approx(max(every))


def test_unconnected_parts_are_all_reached():
    joined = csr_array(np.kron(np.eye(3), np.ones((5, 5)) - np.eye(5)))
    assert connected_components(joined)[0] == 3
    assert {int(i) // 5 for i in farthest(joined, 3, np.zeros(15), 4)} == {0, 1, 2}


# --- the strategy


def test_two_blobs_give_picks_of_both():
    vectors, label = blobs([60, 12])
    prior = rng().dirichlet(np.ones(3), size=72)
    for seed in range(5):
        chosen = Deuce(neighbours=10).select(pool(vectors, prior), 4, rng(seed))
        assert set(label[chosen.rows]) == {0, 1}
        assert chosen.note == ""


def test_label_names_that_say_nothing_are_left_out_and_told():
    vectors, label = blobs([40, 40])
    flat = np.full((80, 3), 1 / 3) + 1e-4 * rng().normal(size=(80, 3))
    chosen = Deuce(neighbours=10).select(pool(vectors, flat), 4, rng())
    assert "say the same of every text" in chosen.note
    assert set(label[chosen.rows]) == {0, 1}


def test_classes_are_covered_that_the_texts_alone_do_not_show():
    vectors = unit(rng(5).normal(size=(200, 16)))
    prior = np.full((200, 4), 0.02)
    prior[np.arange(200), np.where(np.arange(200) % 25 == 0, 3, np.arange(200) % 3)] = 0.94
    prior *= rng(6).uniform(0.97, 1.03, size=prior.shape)
    chosen = Deuce(neighbours=20).select(pool(vectors, prior), 12, rng())
    assert set(prior[chosen.rows].argmax(axis=1)) == {0, 1, 2, 3}


def test_large_pools_are_sampled_and_told(monkeypatch):
    monkeypatch.setattr(deuce, "MOST_ROWS", 40)
    vectors, _ = blobs([60, 60])
    prior = rng().dirichlet(np.ones(3), size=120)
    chosen = Deuce(neighbours=10).select(pool(vectors, prior), 50, rng())
    assert chosen.note == "looked at 40 random texts of 120"
    assert len(set(chosen.rows.tolist())) == 50
    assert chosen.reasons[-1].startswith("at random")


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tiny_pools(n):
    vectors = unit(rng().normal(size=(n, 4)))
    for multi in (False, True):
        chosen = Deuce().select(pool(vectors, rng().dirichlet(np.ones(3), size=n), multi=multi), n, rng())
        assert sorted(chosen.rows.tolist()) == list(range(n))


def test_a_prior_that_is_not_a_number_names_the_row():
    vectors, _ = blobs([20, 20])
    prior = rng().dirichlet(np.ones(3), size=40)
    prior[17, 1] = np.nan
    with pytest.raises(ValueError, match="row 17 is not finite"):
        Deuce().select(pool(vectors, prior), 4, rng())
