"""BESRA: worked values, mutual information, the trap of the released code, and what makes it fall back."""

import itertools

import numpy as np
import pytest

from llmal.plugins import build
from llmal.select import besra
from llmal.select.besra import Besra, answered, entropy, fitted, said, spread
from llmal.select.margin import Margin
from llmal.select.stage import Pool

TWO = np.array([0.2, 0.7])
"""Two members' probabilities; a golden value of each loss goes with them."""


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def topics(*, n=300, labelled=60, seed=0, multi=True):
    """Rows around four directions; two labels, each of two directions."""
    draw = rng(seed)
    group = draw.integers(4, size=n)
    vectors = unit(np.eye(4, 8)[group] + 0.25 * draw.normal(size=(n, 8)))
    yes = np.stack([group < 2, group % 2 == 0], axis=1).astype(np.float32)
    if not multi:
        yes = np.eye(4, dtype=np.float32)[group]
    probs = draw.uniform(0.05, 0.95, yes.shape).astype(np.float32)
    known = np.arange(labelled)
    return Pool(vectors, np.arange(labelled, n), known, probs, yes.shape[1], yes[:labelled], multi)


@pytest.mark.parametrize(("loss", "value"), [("log", 0.132505), ("brier", 0.031250), ("beta", 0.067327)])
def test_golden_divergence_of_two_members(loss, value):
    assert entropy(TWO.mean(), loss) - entropy(TWO, loss).mean() == pytest.approx(value, abs=1e-5)
    # A row on which the members are opposites tells which of them is right, so its answer gains just that.
    here, there = np.array([[[1e-9], [1 - 1e-9]]]), TWO[None, :, None]
    assert Besra(loss=loss).gains(here, there)[0, 0] == pytest.approx(value, abs=1e-5)


def test_the_class_0_term_takes_the_chance_of_class_0():
    # The released code multiplies the loss of a no by the chance of a yes: a loss that "improves" below 0.
    q = TWO.mean()
    no = np.log((1 - TWO) / (1 - q))
    wrong = (TWO * no + (1 - TWO) * no).mean()
    assert wrong == pytest.approx(-0.116, abs=5e-4)
    right = (TWO * np.log(TWO / q) + (1 - TWO) * no).mean()
    ours = entropy(q, "log") - entropy(TWO, "log").mean()
    assert ours == pytest.approx(right)
    assert ours == pytest.approx(0.1325, abs=1e-4)


def test_losses_by_integration():
    c = (np.arange(200_000) + 0.5) / 200_000

    def by_integral(q, a):
        yes = (c[c > q] ** (a - 1) * (1 - c[c > q])).sum()
        no = (c[c < q] ** a).sum()
        return (q * yes + (1 - q) * no) / len(c)

    for q, (loss, a) in itertools.product((0.05, 0.4, 0.9), (("beta", 0.1), ("brier", 1.0))):
        assert entropy(np.array(q), loss) == pytest.approx(by_integral(q, a), abs=2e-5)
    assert entropy(np.array(0.3), "brier") == pytest.approx(0.3 * 0.7 / 2)


def mutual_information(p, q):
    """Of two yes/no answers that are independent given the member, from their joint table."""
    total = 0.0
    for a, b in itertools.product((0, 1), (0, 1)):
        pa = p if a else 1 - p
        qb = q if b else 1 - q
        joint = (pa * qb).mean()
        total += joint * np.log(joint / (pa.mean() * qb.mean()))
    return total


def test_log_loss_gives_mutual_information():
    draw = rng(1)
    here, there = draw.uniform(0.01, 0.99, (3, 5, 4)), draw.uniform(0.01, 0.99, (3, 5, 6))
    found = Besra(loss="log").gains(here, there)
    for i, j in itertools.product(range(4), range(6)):
        by_hand = sum(mutual_information(here[c, :, i], there[c, :, j]) for c in range(3))
        assert found[i, j] == pytest.approx(by_hand)


@pytest.mark.parametrize("loss", ["beta", "log", "brier"])
def test_an_answer_never_makes_things_worse(loss):
    draw = rng(2)
    here, there = draw.beta(0.3, 0.3, (4, 8, 50)), draw.beta(0.3, 0.3, (4, 8, 40))
    here, there = np.clip(here, 1e-6, 1 - 1e-6), np.clip(there, 1e-6, 1 - 1e-6)
    assert Besra(loss=loss).gains(here, there).min() >= -1e-12


def test_members_of_one_mind_gain_nothing():
    same = np.repeat(rng(3).uniform(0.1, 0.9, (2, 1, 7)), 5, axis=1)
    assert np.abs(Besra().gains(same, same)).max() < 1e-12


def test_heads_learn_their_label():
    some = topics()
    heads = fitted(np.asarray(some.vectors[some.labelled]), some.targets, 5, rng())
    assert heads.shape == (2, 5, 9)
    p = said(np.asarray(some.vectors[some.labelled]), heads)
    assert p.shape == (2, 5, 60)
    assert ((p.mean(axis=1).T > 0.5) == (some.targets > 0)).mean() > 0.95
    assert np.ptp(p, axis=1).max() > 0.01, "members differ"


def test_a_label_without_both_answers_gets_its_share():
    vectors = unit(rng().normal(size=(10, 8)))
    targets = np.zeros((10, 2), np.float32)
    targets[:, 1] = 1
    p = said(vectors, fitted(vectors, targets, 3, rng()))
    assert p[0] == pytest.approx(0.5 / 11)
    assert p[1] == pytest.approx(10.5 / 11)


def test_what_a_row_without_a_label_means():
    some = topics()
    targets = some.targets.copy()
    targets[:7] = 0
    known, note = answered(some._replace(targets=targets))
    assert len(known.rows) == 60
    empty = int((~targets.any(axis=1)).sum())
    assert note.startswith(f"{empty} labelled rows without a label")
    known, note = answered(some._replace(targets=targets, multi=False))
    assert len(known.rows) == 60 - empty
    assert known.targets.any(axis=1).all()
    assert note == ""
    assert Besra().select(some._replace(targets=targets), 3, rng()).note


@pytest.mark.parametrize("multi", [True, False])
def test_picks_are_of_the_half_that_gains_most(multi):
    some = topics(multi=multi)
    chosen = Besra().select(some, 20, rng(5))
    assert len(set(chosen.rows.tolist())) == 20
    assert (np.diff(chosen.scores) <= 0).all()
    everything = Besra().select(some, 240, rng(5))
    half = np.median(everything.scores)
    assert chosen.scores.min() >= half - 1e-12
    assert all("beta loss" in reason for reason in chosen.reasons)


def test_spread_takes_one_of_each_direction_and_fills_up():
    gains = np.repeat(np.eye(3), 4, axis=0) * np.linspace(2, 1, 12)[:, None]
    assert {int(i) // 4 for i in spread(gains, 3, rng())} == {0, 1, 2}
    twins = np.repeat(np.eye(2), 5, axis=0)
    found = spread(twins, 6, rng())
    assert len(set(found.tolist())) == 6
    assert {0, 5} <= set(found.tolist()), "one of each, the first of equals"
    assert spread(gains, 12, rng()).tolist() == list(range(12))


@pytest.mark.parametrize("case", ["no targets", "nothing labelled", "no accepted answer", "one mind"])
def test_the_margin_decides_where_there_is_no_ensemble(case):
    some = topics(multi=case == "one mind")
    if case == "no targets":
        some = some._replace(targets=None)
    if case == "nothing labelled":
        some = some._replace(labelled=some.labelled[:0], targets=some.targets[:0])
    if case == "no accepted answer":
        some = some._replace(targets=np.zeros_like(some.targets))
    if case == "one mind":  # one answer to everything: no head can differ
        some = some._replace(targets=np.ones_like(some.targets))
    chosen = Besra().select(some, 9, rng())
    assert chosen.rows.tolist() == Margin().select(some, 9, rng()).rows.tolist()
    why = "of one mind" if case == "one mind" else "nothing to fit"
    assert all(why in reason for reason in chosen.reasons)


def test_large_pools_are_sampled(monkeypatch):
    monkeypatch.setattr(besra, "MOST_ROWS", 30)
    monkeypatch.setattr(besra, "BLOCK", 16)
    some = topics()
    for k in (1, 29, 31, 240):
        chosen = Besra().select(some, k, rng())
        assert len(set(chosen.rows.tolist())) == k


def test_blocks_change_nothing(monkeypatch):
    some = topics()
    whole = Besra().select(some, 12, rng(4))
    monkeypatch.setattr(besra, "BLOCK", 7)
    assert Besra().select(some, 12, rng(4)).rows.tolist() == whole.rows.tolist()


def test_options_in_the_file():
    made = build("select", {"use": "besra", "loss": "log", "members": 4})
    assert made == Besra(loss="log", members=4)
    assert made.recipe() != Besra(members=4).recipe()
