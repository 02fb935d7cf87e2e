"""Strategies against worked values, brute force, and the laws they promise to draw by."""

import itertools

import numpy as np
import pytest

from llmal.select.badge import Badge, distances, gradients
from llmal.select.entropy import Entropy
from llmal.select.facility_location import FacilityLocation
from llmal.select.geometry import Rows, squared_distances, squared_norms, within
from llmal.select.kcenter import KCenter
from llmal.select.kmeans import cluster, seeds
from llmal.select.least_confidence import LeastConfidence
from llmal.select.margin import Margin
from llmal.select.probcover import ProbCover
from llmal.select.stage import Pool
from llmal.select.typiclust import TypiClust
from llmal.select.warm import Batch, SubPool, clipped, mean_of_retrieved, retrieved

NOTHING = np.zeros(0, np.int64)
PROBS = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.34, 0.33, 0.33], [0.5, 0.5, 0.0]])


def rng(seed=0):
    return np.random.default_rng(seed)


def waves():
    """40 unit rows in 4 dimensions, from a formula, so that anyone can make them again."""
    i, j = np.arange(40)[:, None], np.arange(4)[None]
    x = np.sin(0.7 * i + 1.3 * j + 0.05 * i * j)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pool(vectors, *, probs=None, labelled=(), targets=None, classes=3):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(np.asarray(vectors, np.float32), rows, labelled, probs, classes, targets)


# --- before any label


def test_kcenter_picks_what_the_core_set_method_picks():
    chosen = KCenter().select(pool(waves(), labelled=[0]), 7, rng())
    assert chosen.rows.tolist() == [4, 14, 18, 29, 2, 32, 25]
    covered = np.sqrt(np.min([squared_distances(waves(), i) for i in (0, *chosen.rows)], axis=0)).max()
    assert covered == pytest.approx(0.792969, abs=1e-5)


def test_kcenter_is_within_twice_the_best_radius():
    vectors = rng(3).normal(size=(11, 2)).astype(np.float32)

    def radius(rows):
        return np.sqrt(np.min([squared_distances(vectors, i) for i in rows], axis=0)).max()

    best = min(radius(rows) for rows in itertools.combinations(range(11), 3))
    assert radius(KCenter().select(pool(vectors), 3, rng()).rows) <= 2 * best + 1e-6


def plain_greedy(vectors, chosen, k):
    """The textbook loop in float64: the farthest row from everything chosen, ties to the lowest."""
    x = np.asarray(vectors, np.float64)
    near = np.min([((x - x[i]) ** 2).sum(axis=1) for i in chosen], axis=0)
    picked = []
    for _ in range(k):
        near[[*chosen, *picked]] = -1
        picked.append(int((near >= near.max() - 1e-12 * (x**2).sum(axis=1).max()).argmax()))
        near = np.minimum(near, ((x - x[picked[-1]]) ** 2).sum(axis=1))
    return picked


@pytest.mark.parametrize("candidates", [4, 32, 512])
@pytest.mark.parametrize("kind", ["random", "duplicates", "rounded"])
def test_kcenter_in_few_passes_picks_what_the_plain_loop_picks(monkeypatch, kind, candidates):
    from llmal.select import kcenter as module

    monkeypatch.setattr(module, "CANDIDATES", candidates)
    vectors = rng(8).normal(size=(600, 12)).astype(np.float32)
    if kind == "duplicates":
        vectors[300:] = vectors[:300]
    if kind == "rounded":
        vectors = np.round(vectors)
    chosen = KCenter().select(pool(vectors, labelled=[5, 17]), 120, rng()).rows.tolist()
    assert chosen == plain_greedy(vectors, [5, 17], 120)


def test_facility_location_picks_and_gains():
    chosen = FacilityLocation().select(pool(waves()), 6, rng())
    assert chosen.rows.tolist() == [39, 17, 12, 15, 18, 1]
    gains = [20.944004, 9.715217, 3.659854, 1.390826, 1.108027, 0.479960]
    assert chosen.scores == pytest.approx(gains, abs=1e-5)
    assert chosen.scores.sum() == pytest.approx(37.297887, abs=1e-5)


def test_facility_location_lazily_is_greedy_exactly():
    vectors = rng(5).normal(size=(60, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = (1 + vectors.astype(np.float64) @ vectors.T.astype(np.float64)) / 2
    served, naive = np.zeros(60), []
    for _ in range(8):
        gains = np.maximum(near - served[:, None], 0).sum(axis=0)
        gains[naive] = -1
        naive.append(int(gains.argmax()))
        served = np.maximum(served, near[:, naive[-1]])
    assert FacilityLocation().select(pool(vectors), 8, rng()).rows.tolist() == naive


def test_facility_location_picks_the_same_when_similarities_do_not_fit_in_memory(monkeypatch):
    from llmal.select import facility_location as module

    kept = FacilityLocation().select(pool(waves(), labelled=[3]), 9, rng())
    monkeypatch.setattr(module, "KEPT_ROWS", 0)
    anew = FacilityLocation().select(pool(waves(), labelled=[3]), 9, rng())
    assert anew.rows.tolist() == kept.rows.tolist()
    assert anew.scores == pytest.approx(kept.scores, abs=1e-5)


def test_facility_location_by_chance_reaches_nine_tenths_of_greedy(monkeypatch):
    from llmal.select import facility_location as module

    vectors = rng(6).normal(size=(400, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def value(rows):
        return ((1 + vectors @ vectors[rows].T) / 2).max(axis=1).sum()

    exact = value(FacilityLocation().select(pool(vectors), 20, rng()).rows)
    monkeypatch.setattr(module, "EXACT_ROWS", 300)
    assert value(FacilityLocation().select(pool(vectors), 20, rng()).rows) >= 0.9 * exact


def test_probcover_covers_as_worked_out():
    chosen = ProbCover(delta=0.5).select(pool(waves()), 6, rng())
    assert chosen.rows.tolist() == [30, 8, 12, 26, 11, 15]
    assert np.cumsum(chosen.scores).tolist() == [7, 12, 17, 22, 25, 28]


def test_probcover_fills_up_by_kcenter_once_all_is_covered():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    chosen = ProbCover(delta=0.5).select(pool(vectors), 5, rng())
    assert chosen.scores.tolist() == [4, 4, 4, 0, 0]
    assert chosen.reasons[3].startswith("everything is covered")


def test_neighbours_within_a_radius_equal_brute_force():
    vectors = waves()
    gap = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    graph = within(vectors, 0.5)
    for i in range(40):
        assert graph.of(i).tolist() == np.flatnonzero(gap[i] < 0.5).tolist()


def test_seeds_are_drawn_as_one_after_the_other_by_squared_distance():
    vectors = rng(13).normal(size=(6, 3)).astype(np.float32)
    gap = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2).astype(float)
    law = np.zeros((6, 6, 6))
    for i, j in itertools.permutations(range(6), 2):
        both = np.minimum(gap[i], gap[j])
        law[i, j] = gap[i, j] / gap[i].sum() / 6 * both / both.sum()
    square, generator, seen = squared_norms(vectors), rng(14), np.zeros((6, 6, 6))
    for _ in range(6000):
        seen[tuple(seeds(vectors, square, 3, generator))] += 1 / 6000
    assert np.abs(seen - law).max() < 4.5 * np.sqrt(law.max() / 6000)


def test_a_cluster_for_each_distinct_row_and_no_more():
    vectors = np.eye(5, dtype=np.float32)[rng(15).integers(3, size=50)]
    centres, label = cluster(vectors, 10, rng())
    assert centres.shape == (3, 5)
    assert centres[label] == pytest.approx(vectors)
    assert len(cluster(np.zeros((20, 4), np.float32), 7, rng())[0]) == 1


def test_rows_are_a_view_where_they_follow_one_another():
    vectors = waves()
    some = Rows(vectors, np.arange(5, 30))
    assert np.shares_memory(some[3:9], vectors)
    assert (some[3:9] == vectors[8:14]).all()
    assert (some[np.array([4, 0])] == vectors[[9, 5]]).all()
    apart = Rows(vectors, np.array([3, 9, 1, 6]))
    assert (apart[:] == vectors[[3, 9, 1, 6]]).all(), "first and last are not enough to tell"
    assert apart.shape == (4, 4)


def plain_typicality(vectors, label, labelled, k, neighbours):
    """The reference's loop: one cluster after the other, typicality among what is left of it, all anew."""
    size, known = np.bincount(label), np.bincount(label, weights=labelled)
    order = [c for c in np.lexsort((np.arange(len(size)), -size, known)) if size[c] > 5]
    gone, picked = labelled.copy(), []
    for i in range(k):
        members = np.flatnonzero((label == order[i % len(order)]) & ~gone)
        n = min(neighbours, len(members) // 2)
        gap = np.linalg.norm(vectors[members][:, None] - vectors[members][None], axis=2)
        typical = 1 / (np.sort(gap, axis=1)[:, 1 : n + 1].mean(axis=1) + 1e-5)
        picked.append(int(members[typical.argmax()]))
        gone[picked[-1]] = True
    return picked


@pytest.mark.parametrize("neighbours", [3, 20])
def test_typiclust_measures_typicality_anew_after_each_pick(neighbours):
    vectors = rng(12).normal(size=(240, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    label, labelled = np.arange(240) % 3, np.zeros(240, bool)
    labelled[[4, 7, 30]] = True
    rows, _, _ = TypiClust(neighbours=neighbours).from_clusters(vectors, label, labelled, 150, rng())
    assert rows.tolist() == plain_typicality(vectors.astype(float), label, labelled, 150, neighbours)


@pytest.mark.parametrize("n", [40, 1500, 2300])
def test_neighbours_within_a_radius_are_the_same_over_several_blocks(n):
    vectors = rng(n).normal(size=(n, 3))
    gap = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    graph = within(vectors.astype(np.float32), 0.3)
    seen = np.zeros((n, n), bool)
    seen[np.repeat(np.arange(n), np.diff(graph.start)), graph.rows] = True
    assert (seen == (gap < 0.3))[np.abs(gap - 0.3) > 1e-5].all()
    assert all((np.diff(graph.of(i)) > 0).all() for i in range(n))


# --- with a student


def test_scores_as_worked_out():
    assert LeastConfidence().scores(PROBS) == pytest.approx([0.3, 0.6, 0.66, 0.5])
    assert 1 - Margin().scores(PROBS) == pytest.approx([0.5, 0.05, 0.01, 0.0])
    nats = [0.801819, 1.080528, 1.098513, 0.693147]
    assert Entropy().scores(PROBS) * np.log(3) == pytest.approx(nats, abs=1e-6)


def test_badge_distances_equal_those_of_the_written_out_gradients():
    h = waves()[:4]
    g = gradients(PROBS)
    norms = (g**2).sum(axis=1) * (h.astype(np.float64) ** 2).sum(axis=1)
    assert np.sqrt(norms) == pytest.approx([0.374166, 0.738241, 0.808332, 0.707107], abs=1e-5)
    assert np.sqrt(distances(g, h, norms, 0)[1]) == pytest.approx(0.534678, abs=1e-5)
    written = np.einsum("ic,id->icd", g, h).reshape(4, -1)
    for i in range(4):
        explicit = ((written - written[i]) ** 2).sum(axis=1)
        assert distances(g, h, norms, i) == pytest.approx(explicit, abs=1e-6)


def test_badge_takes_the_longest_gradient_first_and_draws_the_second_by_squared_distance():
    some = pool(waves()[:4], probs=PROBS)
    g, h = gradients(PROBS), waves()[:4]
    norms = (g**2).sum(axis=1) * (h.astype(np.float64) ** 2).sum(axis=1)
    chance = distances(g, h, norms, 2)
    chance[2] = 0
    chance /= chance.sum()
    picks = [Badge().select(some, 2, rng(seed)).rows for seed in range(3000)]
    assert {int(p[0]) for p in picks} == {2}
    seen = np.bincount([p[1] for p in picks], minlength=4) / 3000
    assert np.abs(seen - chance).max() < 4 * np.sqrt(0.25 / 3000)


@pytest.mark.parametrize(
    ("batch", "chance"),
    [
        (Batch(use="power"), [0.066667, 0.133333, 0.266667, 0.533333]),
        (Batch(use="power", beta=2), [0.011765, 0.047059, 0.188235, 0.752941]),
        (Batch(use="softmax"), [0.182856, 0.202087, 0.246830, 0.368227]),
        (Batch(use="softrank"), [0.12, 0.16, 0.24, 0.48]),
        (Batch(use="power", beta=0), [0.25] * 4),
    ],
)
def test_a_batch_is_drawn_by_the_law_it_promises(batch, chance):
    scores, rows = np.array([0.1, 0.2, 0.4, 0.8]), np.arange(4)
    odds = np.exp(batch.log_odds(scores, np.argsort(-scores)))
    assert odds / odds.sum() == pytest.approx(chance, abs=1e-5)
    generator = rng(1)
    first = np.bincount([batch.order(scores, rows, generator)[0] for _ in range(4000)], minlength=4) / 4000
    assert np.abs(first - chance).max() < 4 * np.sqrt(0.25 / 4000)


def test_a_steep_batch_is_the_top():
    scores, rows = rng(2).random(30), np.arange(30)
    order = Batch(use="power", beta=1e6).order(scores, rows, rng())
    assert order.tolist() == Batch().order(scores, rows, rng()).tolist()


def test_clipping_leaves_the_most_uncertain_out():
    confidence = np.arange(1, 101) / 100
    kept = clipped(1 - confidence, 0.05)
    assert np.flatnonzero(~kept).tolist() == [0, 1, 2, 3, 4]
    some = pool(np.eye(100), probs=np.stack([np.linspace(0.5, 1, 100), np.linspace(0.5, 0, 100)], axis=1))
    assert Margin(clip=0.05).select(some, 3, rng()).rows.tolist() == [5, 6, 7]
    assert Margin().select(some, 3, rng()).rows.tolist() == [0, 1, 2]
    everything = Margin(clip=0.05).select(some, 100, rng()).rows
    assert sorted(everything) == list(range(100)), "relaxed rather than picking fewer"


def test_twins_of_a_pick_are_skipped_until_nothing_else_is_left():
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    probs = np.array([[0.5, 0.5], [0.51, 0.49], [0.6, 0.4], [0.9, 0.1]])
    assert Margin(apart=0.98).select(pool(vectors, probs=probs), 3, rng()).rows.tolist() == [0, 2, 3]
    assert Margin(apart=0.98).select(pool(vectors, probs=probs), 4, rng()).rows.tolist() == [0, 2, 3, 1]


def test_candidates_of_several_anchors_get_the_mean_similarity():
    at, near = np.array([[7], [7], [9]]), np.array([[0.9], [0.5], [0.8]], np.float32)
    scores = mean_of_retrieved(at, near, 12)
    assert scores[7] == pytest.approx(0.7)
    assert scores[9] == pytest.approx(0.8)
    assert np.isinf(scores[[i for i in range(12) if i not in (7, 9)]]).all()


def test_anchors_retrieve_the_same_rows_block_by_block(monkeypatch):
    from llmal.select import warm

    vectors = rng(9).normal(size=(5000, 4)).astype(np.float32)
    some = pool(vectors, labelled=[3, 8, 900])
    at, near = retrieved(some, some.labelled, 7)
    monkeypatch.setattr(warm, "SIMILARITIES", 1)
    again, near_again = retrieved(some, some.labelled, 7)
    order, order_again = np.argsort(-near, axis=1), np.argsort(-near_again, axis=1)
    by_hand = np.argsort(-(vectors[some.labelled] @ vectors[some.unlabelled].T), axis=1)[:, :7]
    assert (np.take_along_axis(at, order, axis=1) == by_hand).all()
    assert (np.take_along_axis(again, order_again, axis=1) == by_hand).all()


@pytest.mark.parametrize("use", ["anchoral", "seals"])
def test_a_sub_pool_holds_rows_near_the_labelled_ones_and_no_labelled_row(use):
    vectors = np.concatenate([np.tile([1.0, 0.0], (20, 1)), np.tile([0.0, 1.0], (20, 1))]) + rng(4).normal(
        size=(40, 2), scale=0.01
    )
    targets = np.array([[1.0, 0.0]])
    some = pool(vectors, labelled=[0], targets=targets, classes=2)
    rows = SubPool(use=use, neighbours=10).rows(some, 5, rng())
    assert len(rows) == 10
    assert rows.max() < 20
    assert 0 not in rows
    assert len(SubPool(use=use, neighbours=2).rows(some, 15, rng())) == 15, "topped up at random"


def test_a_sub_pool_of_everything_changes_nothing():
    vectors, probs = waves(), rng(7).dirichlet(np.ones(3), size=40)
    some = pool(vectors, probs=probs, labelled=[0, 1], targets=np.eye(3)[:2])
    all_of_it = SubPool(neighbours=38, most=38)
    assert (
        Margin(within=all_of_it).select(some, 9, rng()).rows.tolist()
        == Margin().select(some, 9, rng()).rows.tolist()
    )


def test_modifiers_compose_in_the_file():
    from llmal.plugins import build

    said = {"use": "margin", "clip": 0.05, "within": {"use": "anchoral"}, "batch": {"use": "power"}}
    strategy = build("select", said)
    assert strategy == Margin(clip=0.05, within=SubPool(), batch=Batch(use="power"))
    assert build("select", strategy.to_spec()) == strategy
    assert build("select", {"use": "margin", "within": "seals", "batch": "softrank"}).within.use == "seals"
