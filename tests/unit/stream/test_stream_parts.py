"""The parts of a stream's cascade: regression, memory, rules, alarm."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from llmal.stream.alarm import Alarm
from llmal.stream.deferral import Records, enough_for, share_of_calls
from llmal.stream.levels import COLUMNS, Level, Memory, hashed
from llmal.stream.logistic import fit, scores, softmax
from llmal.stream.nets import COSTS, Nets, cascade_cost


def test_the_cost_of_a_cascade_is_the_golden_one():
    assert cascade_cost([0.3, 0.6], [0.5, 0.2], mu=0.001, costs=[1, 1182]) == pytest.approx(0.58706, abs=1e-5)
    many = cascade_cost(np.tile([0.3, 0.6], (4, 1)), np.tile([0.5, 0.2], (4, 1)), mu=0.001, costs=[1, 1182])
    np.testing.assert_allclose(many, 0.58706)
    assert cascade_cost([0, 0], [0.5, 0.2], mu=1, costs=[1, 1182]) == 0.5
    assert cascade_cost([1, 1], [0.5, 0.2], mu=1, costs=[1, 1182]) == 1183
    with pytest.raises(ValueError, match="alike"):
        cascade_cost([0.3], [0.5, 0.2], mu=1, costs=[1, 1182])


def test_the_published_networks_go_down_the_slope_of_that_cost():
    rng = np.random.default_rng(0)
    tables = rng.dirichlet(np.ones(3), (16, 2)).astype(np.float32)
    records = Records(tables, rng.integers(3, size=16), np.ones(16), np.ones(16))
    nets = Nets(2, 3, mu=1e-3, seed=0)
    losses = -np.log(tables[np.arange(16), :, records.labels])
    wrong = tables.argmax(axis=2) != records.labels[:, None]

    def objective():
        d = np.stack([nets.says([tables[:, 0]])[1], nets.says([tables[:, 0], tables[:, 1]])[1]], axis=1)
        cost = cascade_cost(d, losses, mu=1e-3, costs=COSTS)
        return (cost + ((d - np.minimum(wrong + 0.3, 1)) ** 2).sum(axis=1)).mean()

    before = objective()
    for _ in range(50):
        nets.learn(records)
    assert objective() < before - 0.05


@pytest.mark.parametrize("sparse", [False, True])
def test_a_regression_gone_on_with_ends_where_scikit_learns_does(sparse):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 6))
    y = (x[:, :3] + rng.normal(size=(300, 3))).argmax(axis=1)
    w = rng.uniform(0.5, 2, 300)
    rows = csr_matrix(x) if sparse else x
    coef = np.zeros((7, 3))
    for _ in range(20):
        coef = fit(rows, y, w, coef, 1.0)
    other = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(x, y, w)
    np.testing.assert_allclose(softmax(scores(rows, coef)), other.predict_proba(x), atol=3e-3)


def test_hashed_rows_need_no_vocabulary_and_keep_about_one_length():
    texts = ["a refund please", "A REFUND please", "", "\0\ufffd", "refund " * 500]
    rows = hashed(texts)
    assert rows.shape == (5, COLUMNS)
    np.testing.assert_array_equal(rows[0].toarray(), hashed(["unseen", texts[0]])[1].toarray())
    assert abs(rows[0] - rows[1]).nnz == 0
    assert rows[2].nnz == 0
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1)).A1 if hasattr(rows.sum(axis=1), "A1") else None
    assert lengths is None or (np.abs(lengths[[0, 4]] - 1) < 0.2).all()


def test_a_column_that_is_forgotten_has_no_say_any_more():
    level = Level("hashed", 1.0, np.ones((COLUMNS + 1, 2), np.float32))
    rows = csr_matrix(([1.0, 1.0], ([0, 1], [3, 5])), (2, COLUMNS), dtype=np.float32)
    level.learn(rows, np.array([0, 1]), np.ones(2))
    assert not level.coef[7].any()
    assert level.coef[3, 0] > level.coef[3, 1]


def test_memory_holds_the_newest_and_a_fading_part_of_the_old():
    memory = Memory(most=100)
    rows = csr_matrix(np.eye(50, COLUMNS, dtype=np.float32))
    for _ in range(20):
        memory.take(rows, np.zeros((50, 2), np.float32), np.zeros(50, np.int64), seed=0)
    turns = memory.turns()
    assert len(turns) == 100
    assert memory.turn == 1000
    assert len(set(turns.tolist())) == 100
    assert (turns >= 900).mean() > 0.5
    assert (turns < 800).any()


def test_limits_are_those_that_trying_all_would_find():
    risks = np.random.default_rng(2).random(200) ** 2
    limit = enough_for(risks, 0.9)
    tried = [r for r in risks if np.where(risks <= r, risks, 0).mean() <= 0.1]
    assert limit == max(tried)
    assert enough_for(np.array([0.5, 0.6]), 1.0) == -1.0
    assert (risks > share_of_calls(risks, 0.25)).mean() == pytest.approx(0.25, abs=0.01)
    assert not (risks > share_of_calls(risks, 0.0)).any()


def test_the_alarm_is_quiet_while_risks_are_true_and_loud_when_they_are_not():
    false = found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        risks = rng.beta(1, 6, 300)
        false += Alarm().see(risks, rng.random(300) < risks, rng.random(300) < 0.1)
        worse = 4 * risks / (1 + 3 * risks)
        found += Alarm().see(risks, rng.random(300) < worse, rng.random(300) < 0.1)
    assert false <= 25  # once in 1,100 answers or less often: at most 24 of 100 runs of 300 on average
    assert found >= 95
