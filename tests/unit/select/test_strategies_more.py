"""Rare class, least disagree metric, contrastive, discriminative, mixed: golden values and brute force."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from llmal.errors import UserError
from llmal.plugins import build
from llmal.select import contrastive, ldm
from llmal.select.contrastive import Contrastive, divergence
from llmal.select.discriminative import Discriminative, sizes
from llmal.select.entropy import Entropy
from llmal.select.kcenter import KCenter
from llmal.select.ldm import Ldm, gammas, head, labels, seeds
from llmal.select.margin import Margin, margins
from llmal.select.mixed import Mixed, in_turn
from llmal.select.prc import Prc, rarest, turns
from llmal.select.stage import Pool
from llmal.select.uniform import Uniform


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def ranks(x):
    return np.argsort(np.argsort(x))


def pool(vectors, *, probs=None, labelled=(), targets=None, classes=3):
    labelled = np.array(labelled, np.int64)
    rows = np.setdiff1d(np.arange(len(vectors)), labelled)
    return Pool(np.asarray(vectors, np.float32), rows, labelled, probs, classes, targets)


def random_pool(*, n=60, labelled=6, classes=3, seed=0, targets=True):
    draw = rng(seed)
    columns = np.arange(labelled) % classes
    return pool(
        unit(draw.normal(size=(n, 8))),
        probs=draw.dirichlet(np.ones(classes), size=n),
        labelled=range(labelled),
        targets=np.eye(classes, dtype=np.float32)[columns] if targets else None,
        classes=classes,
    )


# --- prc


def test_the_rare_class_is_the_one_with_the_fewest_labels():
    probs = np.full((4, 3), 1 / 3)
    some = pool(np.eye(9), labelled=range(5, 9), targets=np.eye(3)[[0, 0, 1, 2]])
    assert rarest(some, probs, 1) == [1], "of two equally rare classes the lower column"
    assert rarest(some, probs, 2) == [1, 2]
    assert rarest(some, probs, 9) == [0, 1, 2]
    assert rarest(some._replace(targets=np.eye(3)[[0, 1, 1, 0]]), probs, 1) == [2], "a class without a label"
    guess = np.array([[0.5, 0.1, 0.4], [0.3, 0.2, 0.5]])
    for nothing in (None, np.zeros((4, 3))):
        assert rarest(some._replace(targets=nothing), guess, 1) == [1], (
            "the student's guess where no label is"
        )


def test_prc_ranks_by_the_column_of_the_rare_class():
    some = random_pool()._replace(targets=np.eye(3)[[0, 0, 0, 1, 2, 2]])
    chosen = Prc(mix=0).select(some, 10, rng())
    by_hand = sorted(some.unlabelled, key=lambda row: -some.probs[row, 1])[:10]
    assert chosen.rows.tolist() == by_hand
    assert chosen.scores == pytest.approx(some.probs[by_hand, 1])
    assert "class number 2" in chosen.reasons[0]


def test_prc_with_two_rare_classes_takes_the_likelier_of_them():
    some = random_pool()._replace(targets=np.eye(3)[[0, 0, 0, 1, 2, 2]])
    likely = some.probs[:, [1, 2]].max(axis=1)
    by_hand = sorted(some.unlabelled, key=lambda row: -likely[row])[:10]
    assert Prc(rarest=2, mix=0).select(some, 10, rng()).rows.tolist() == by_hand


@pytest.mark.parametrize(("mix", "by_margin"), [(0.0, 0), (0.2, 4), (0.29, 5), (0.5, 10), (1.0, 20)])
def test_prc_leaves_the_margin_its_share(mix, by_margin):
    some = random_pool()
    chosen = Prc(mix=mix).select(some, 20, rng())
    assert sum(reason.startswith("margin") for reason in chosen.reasons) == by_margin
    if mix == 1:
        assert chosen.rows.tolist() == Margin().select(some, 20, rng()).rows.tolist()


def test_a_class_no_one_has_seen_is_no_reason_to_take_the_first_rows():
    some = random_pool()
    probs = np.column_stack([some.probs[:, :2] / some.probs[:, :2].sum(axis=1, keepdims=True), np.zeros(60)])
    some = some._replace(probs=probs, targets=np.eye(3)[[0, 1, 0, 1, 0, 1]])
    assert Prc(mix=0).select(some, 9, rng()).rows.tolist() == Margin().select(some, 9, rng()).rows.tolist()


@pytest.mark.parametrize(("k", "share"), [(1, 0.2), (7, 0.3), (100, 0.29), (30, 0.1), (9, 1.0), (0, 0.5)])
def test_turns_are_as_many_as_the_share_and_evenly_spread(k, share):
    mine = turns(k, share)
    assert len(mine) == k
    assert mine.sum() == int(round(k * share, 9))
    gaps = np.diff(np.flatnonzero(mine))
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_prc_names_the_rare_classes_where_they_have_names():
    some = random_pool()
    plain = Prc(mix=0).select(some, 1, rng()).reasons[0]
    named = Prc(mix=0).select(some._replace(names=("bug", "billing", "praise")), 1, rng()).reasons[0]
    assert "of the rare class number 1" in plain
    assert "of the rare class 'bug'" in named


# --- contrastive


def test_divergence_golden():
    near = np.array([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]])
    assert divergence(np.array([[0.5, 0.3, 0.2]]), near) == pytest.approx([0.319764], abs=1e-6)


def test_equal_predictions_do_not_diverge_and_a_zero_is_no_error():
    p = rng().dirichlet(np.ones(4), size=5)
    assert divergence(p, np.repeat(p[:, None], 3, axis=1)) == pytest.approx(np.zeros(5), abs=1e-12)
    value = divergence(np.array([[1.0, 0.0]]), np.array([[[0.0, 1.0]]]))
    assert value == pytest.approx([12 * np.log(10)], abs=1e-6)


def test_contrastive_equals_brute_force_over_labelled_neighbours(monkeypatch):
    monkeypatch.setattr(contrastive, "BLOCK", 7)
    some = random_pool(n=50, labelled=12, seed=3)
    scores = {}
    for row in some.unlabelled:
        gap = np.linalg.norm(some.vectors[some.labelled] - some.vectors[row], axis=1)
        near = some.labelled[np.argsort(gap)[:4]]
        scores[int(row)] = np.mean(
            [np.sum(some.probs[j] * np.log(some.probs[j] / some.probs[row])) for j in near]
        )
    chosen = Contrastive(neighbours=4).select(some, 15, rng())
    assert chosen.rows.tolist() == sorted(scores, key=lambda row: -scores[row])[:15]
    assert chosen.scores == pytest.approx([scores[int(row)] for row in chosen.rows], rel=1e-6)


def test_a_row_is_not_its_own_neighbour():
    # Trap J3: were unlabelled rows neighbours, the odd row's twins would hide it.
    vectors = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    probs = np.repeat([[0.9, 0.1], [0.2, 0.8]], 10, axis=0)
    probs[10] = [0.9, 0.1]
    some = pool(vectors, probs=probs, labelled=[0, 10], classes=2)
    chosen = Contrastive(neighbours=1).select(some, 9, rng())
    assert sorted(chosen.rows) == list(range(11, 20))


def test_more_neighbours_than_labelled_rows_are_all_of_them():
    some = random_pool()
    few, many = (Contrastive(neighbours=n).select(some, 9, rng()) for n in (6, 500))
    assert few.rows.tolist() == many.rows.tolist()
    assert "6 nearest labelled" in many.reasons[0]


def test_labelled_rows_without_a_prediction_are_no_neighbours():
    some = random_pool()
    probs = some.probs.copy()
    probs[3] = np.nan
    without = some._replace(labelled=np.delete(some.labelled, 3))
    for n in (1, 10):
        left_out = Contrastive(neighbours=n).select(some._replace(probs=probs), 9, rng())
        assert left_out.rows.tolist() == Contrastive(neighbours=n).select(without, 9, rng()).rows.tolist()
    nobody = some._replace(labelled=np.zeros(0, np.int64))
    chosen = Contrastive().select(nobody, 9, rng())
    assert chosen.rows.tolist() == Margin().select(nobody, 9, rng()).rows.tolist()


def test_contrastive_with_independent_labels_averages_over_them():
    probs = np.array([[0.9, 0.2], [0.5, 0.5], [0.9, 0.4]])
    some = pool(unit(rng().normal(size=(3, 4))), probs=probs, labelled=[0], classes=2)._replace(multi=True)

    def yes_no(p, q):
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    chosen = Contrastive().select(some, 2, rng())
    assert chosen.rows.tolist() == [1, 2]
    by_hand = [(yes_no(0.9, 0.5) + yes_no(0.2, 0.5)) / 2, yes_no(0.2, 0.4) / 2]
    assert chosen.scores == pytest.approx(by_hand)


# --- least disagree metric


def test_gammas_golden():
    values = np.array([0.02, 0.05, 0.10, 0.20, 0.40])
    assert gammas(values, 2) == pytest.approx([1, 1, 1, 0.518993, 0.070238], abs=1e-6)
    assert gammas(values[::-1], 2) == pytest.approx([0.070238, 0.518993, 1, 1, 1], abs=1e-6)


def test_gammas_where_values_are_equal_zero_or_all_wanted():
    assert gammas(np.ones(4), 4).tolist() == [1] * 4
    assert gammas(np.ones(4), 2).tolist() == [1] * 4
    assert np.isfinite(gammas(np.array([0, 0, 0, 0.5]), 1)).all()
    assert np.isfinite(gammas(np.zeros(3), 1)).all()


def test_the_head_of_a_linear_student_is_found_again():
    draw = rng(2)
    vectors, weights = unit(draw.normal(size=(500, 6))), draw.normal(size=(7, 4)) * 3
    scores = vectors @ weights[:-1] + weights[-1]
    one = head(vectors, softmax(scores), many=False)
    assert one == pytest.approx(weights - weights.mean(axis=1, keepdims=True), abs=1e-3)
    assert head(vectors, 1 / (1 + np.exp(-scores)), many=True) == pytest.approx(weights, abs=1e-2)


def test_on_a_circle_the_metric_orders_by_the_angle_to_the_boundary():
    angle = 2 * np.pi * (np.arange(400) + 0.37) / 400
    vectors = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    weights = np.array([[1.0, -1.0], [0.5, -0.5], [0.0, 0.0]], np.float32)
    away = np.arcsin(np.abs(vectors @ weights[:2, 0]) / np.hypot(1.0, 0.5))
    values = Ldm(patience=20, most=200).metric(vectors, weights, rng())
    assert np.corrcoef(ranks(away), ranks(values))[0, 1] > 0.98
    assert values.min() > 0
    assert values.max() <= 1


def test_the_metric_is_the_smallest_share_among_the_nudges_drawn():
    draw = rng(4)
    vectors, weights = unit(draw.normal(size=(30, 3))), draw.normal(size=(4, 3)).astype(np.float32)
    plugin = Ldm(patience=1000, most=7)
    values = plugin.metric(vectors, weights, rng(9))
    again, best = rng(9), np.ones(30)
    scale = np.sqrt(np.mean(weights**2))
    before = (vectors @ weights[:-1] + weights[-1]).argmax(axis=1)
    for sigma, _ in itertools.product(10.0 ** np.linspace(-5, 0, 51), range(7)):
        nudged = weights + again.standard_normal((4, 3), np.float32) * np.float32(sigma * scale)
        flips = (vectors @ nudged[:-1] + nudged[-1]).argmax(axis=1) != before
        best = np.where(flips, np.minimum(best, flips.mean()), best)
    assert values == pytest.approx(best)


def test_the_metric_does_not_depend_on_the_scale_of_the_weights():
    draw = rng(5)
    vectors, weights = unit(draw.normal(size=(200, 4))), draw.normal(size=(5, 3)).astype(np.float32)
    small, large = (Ldm(most=10).metric(vectors, weights * by, rng()) for by in (1, 64))
    assert (small == large).all()


def test_ldm_starts_at_the_boundary_and_follows_the_margin_of_a_linear_student():
    draw = rng(6)
    vectors, weights = unit(draw.normal(size=(400, 6))), draw.normal(size=(7, 3)) * 2
    probs = softmax(vectors @ weights[:-1] + weights[-1])
    values = Ldm().metric(vectors, head(vectors, probs, many=False), rng())
    assert np.corrcoef(ranks(values), ranks(margins(probs)))[0, 1] > 0.9
    chosen = Ldm().select(pool(vectors, probs=probs), 10, rng())
    assert chosen.scores[0] == chosen.scores.max()
    assert margins(probs)[chosen.rows].mean() < 0.5 * margins(probs).mean()
    assert "agrees with the student on 100%" in chosen.reasons[0]


def test_ldm_says_when_the_stand_in_does_not_speak_for_the_student():
    some = random_pool(n=300, seed=8)
    agreed = int(Ldm(patience=2, most=3).select(some, 3, rng()).reasons[0].split()[-1].rstrip("%"))
    assert agreed < 70


def test_ldm_spreads_its_picks():
    # Rows 0-3 are twins at the boundary; after the first of them its twins have distance 0.
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    values = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    for seed in range(20):
        picked = seeds(values, vectors, 3, rng(seed))
        assert picked[0] == 0
        assert sorted(picked[1:]) == [4, 5]
    assert sorted(seeds(values, vectors, 6, rng())) == list(range(6))


def test_ldm_draws_by_gamma_squared_times_cosine_distance():
    vectors = unit(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]))
    values = np.array([0.1, 0.2, 0.3, 0.4])
    chance = gammas(values, 2) ** 2 * (1 - vectors @ vectors[0])
    chance /= chance.sum()
    seen = np.bincount([seeds(values, vectors, 2, rng(s))[1] for s in range(3000)], minlength=4) / 3000
    assert np.abs(seen - chance).max() < 4 * np.sqrt(0.25 / 3000)


def test_ldm_looks_at_a_sample_of_a_large_pool_and_still_picks_enough(monkeypatch):
    monkeypatch.setattr(ldm, "MOST_ROWS", 20)
    looked = []

    def spy(vectors, probs, *, many):
        looked.append(len(vectors))
        return head(vectors, probs, many=many)

    monkeypatch.setattr(ldm, "head", spy)
    some = random_pool()
    for k in (5, 40):
        assert len(set(Ldm(patience=1, most=2).select(some, k, rng()).rows.tolist())) == k
    assert looked == [20, 40]


def test_ldm_with_independent_labels_counts_a_flip_of_any():
    draw = rng(3)
    vectors, weights = unit(draw.normal(size=(200, 4))), draw.normal(size=(5, 2))
    probs = 1 / (1 + np.exp(-(vectors @ weights[:-1] + weights[-1])))
    found = head(vectors, probs, many=True)
    assert (labels(vectors, found, True) == (probs > 0.5)).all()
    chosen = Ldm().select(pool(vectors, probs=probs, classes=2)._replace(multi=True), 5, rng())
    nearest = np.abs(probs - 0.5).min(axis=1)
    assert nearest[chosen.rows[0]] <= np.sort(nearest)[5]


# --- discriminative


def two_clusters(n=40):
    centres = np.repeat(np.eye(2), n, axis=0)
    return unit(np.column_stack([centres, np.zeros((2 * n, 2))]) + 0.05 * rng(1).normal(size=(2 * n, 4)))


def test_labels_in_one_cluster_send_the_first_picks_to_the_other():
    chosen = Discriminative().select(pool(two_clusters(), labelled=range(5)), 4, rng())
    assert chosen.rows.min() >= 40
    assert chosen.scores.min() > 0.5


def test_picks_count_as_labelled_from_the_next_mini_round_on():
    some = pool(two_clusters(), labelled=range(5))
    at_once, in_turns = (Discriminative(rounds=n).select(some, 20, rng()).rows for n in (1, 20))
    assert at_once.min() >= 40, "one round sees the other cluster alone"
    assert (in_turns < 40).any(), "several come back once that cluster has its share"


def test_discriminative_draws_the_labelled_and_the_rest_together_faster_than_chance():
    some = pool(two_clusters(), labelled=range(5))

    def apart(rows):
        known = np.concatenate([some.labelled, rows])
        rest = np.setdiff1d(some.unlabelled, rows)
        return np.linalg.norm(some.vectors[known].mean(axis=0) - some.vectors[rest].mean(axis=0))

    ours = [apart(Discriminative().select(some, 10, rng(s)).rows) for s in range(5)]
    chance = [apart(Uniform().select(some, 10, rng(s)).rows) for s in range(5)]
    assert np.mean(ours) < 0.8 * np.mean(chance)


def test_a_mini_round_equals_a_fit_written_out():
    from sklearn.linear_model import LogisticRegression

    some = random_pool(n=30, labelled=5, seed=2)
    model = LogisticRegression(max_iter=1000)
    model.fit(some.vectors, [0 if i < 5 else 1 for i in range(30)])
    chance = model.predict_proba(some.vectors[5:])[:, 1]
    chosen = Discriminative(rounds=1).select(some, 6, rng())
    assert chosen.rows.tolist() == (5 + np.argsort(-chance)[:6]).tolist()
    assert chosen.scores == pytest.approx(np.sort(chance)[::-1][:6], abs=1e-4)


def test_unlabelled_rows_are_sampled_to_the_ratio(monkeypatch):
    import sklearn.linear_model

    fitted = []

    class Spy(sklearn.linear_model.LogisticRegression):
        def fit(self, x, y):
            fitted.append(np.bincount(y).tolist())
            return super().fit(x, y)

    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", Spy)
    Discriminative(ratio=3, rounds=4).select(random_pool(labelled=6), 8, rng())
    assert fitted == [[6, 18], [8, 24], [10, 30], [12, 36]]


def test_without_labels_the_first_mini_round_is_drawn():
    some = pool(two_clusters())
    chosen = Discriminative(rounds=2).select(some, 6, rng())
    assert [reason.startswith("drawn at random") for reason in chosen.reasons] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("k", "rounds", "parts"), [(10, 3, [4, 3, 3]), (2, 10, [1, 1]), (0, 10, []), (7, 1, [7])]
)
def test_mini_rounds_share_the_batch(k, rounds, parts):
    assert sizes(k, rounds) == parts


# --- mixed


def test_members_take_turns_by_their_shares():
    assert list(itertools.islice(in_turn((2.0, 1.0, 1.0)), 8)) == [0, 1, 2, 0, 0, 1, 2, 0]
    assert np.bincount(list(itertools.islice(in_turn((5.0, 3.0, 2.0)), 100))).tolist() == [50, 30, 20]


def test_one_member_without_chance_is_that_member():
    some = random_pool()
    alone = Margin().select(some, 12, rng())
    mixed = Mixed(of=("margin",), random=0).select(some, 12, rng())
    assert mixed.rows.tolist() == alone.rows.tolist()
    assert mixed.reasons == [f"margin: {why}" for why in alone.reasons]


def test_a_row_two_members_want_is_taken_once_and_the_second_gives_its_next_best():
    some = random_pool()
    best = Margin().select(some, 6, rng()).rows.tolist()
    chosen = Mixed(of=("margin", "margin"), random=0).select(some, 6, rng())
    assert chosen.rows.tolist() == best


def test_every_pick_names_its_member_and_each_gets_its_share():
    chosen = Mixed(of=(Margin(), "kcenter"), shares=(3, 1), random=0.2).select(random_pool(), 40, rng())
    count = [
        sum(r.startswith(by) for r in chosen.reasons) for by in ("margin: ", "kcenter: ", "drawn at random")
    ]
    assert count == [24, 8, 8]
    assert (np.diff(chosen.scores) < 0).all()


def test_chance_keeps_its_share_in_batches_too_small_for_a_whole_pick():
    some, plugin = random_pool(), Mixed(of=("margin",), random=0.25)
    drawn = [plugin.select(some, 1, rng(s)).reasons[0].startswith("drawn") for s in range(2000)]
    assert abs(np.mean(drawn) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)


def test_rows_drawn_by_chance_are_uniform():
    some, plugin = random_pool(n=20, labelled=4), Mixed(of=("margin",), random=1)
    rows = np.concatenate([plugin.select(some, 2, rng(s)).rows for s in range(2000)])
    seen = np.bincount(rows, minlength=20)[4:] / len(rows)
    assert np.abs(seen - 1 / 16).max() < 4 * np.sqrt(1 / 16 / len(rows))


def test_mixed_needs_a_student_when_a_member_does():
    cold = Mixed(of=("kcenter", "uniform"))
    assert not cold.needs_probs
    assert len(cold.select(random_pool()._replace(probs=None), 9, rng()).rows) == 9
    warm = Mixed(of=("kcenter", {"use": "mixed", "of": ["margin"]}))
    assert warm.needs_probs
    with pytest.raises(UserError, match="margin needs a student"):
        warm.select(random_pool()._replace(probs=None), 9, rng())


def test_mixed_is_written_as_it_is_read():
    said = {"use": "mixed", "of": ["kcenter", {"use": "entropy", "clip": 0.05}], "shares": [2.0, 1.0]}
    made = build("select", said)
    assert made == Mixed(of=(KCenter(), Entropy(clip=0.05)), shares=(2, 1))
    assert made.to_spec() == said
    within = Mixed(of=(made, "uniform"))
    assert build("select", within.to_spec()) == within


@pytest.mark.parametrize(
    "wrong",
    [
        {"of": []},
        {"of": ["margin"], "shares": [1, 2]},
        {"of": ["margin"], "shares": [0]},
        {"of": ["margin"], "shares": [float("inf")]},
        {"of": ["margin"], "random": 1.5},
        {"of": ["no-such"]},
        {"of": ["confidence"]},
    ],
)
def test_mixed_refuses(wrong):
    with pytest.raises(ValidationError):
        Mixed.model_validate(wrong)
