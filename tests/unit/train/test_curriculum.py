"""Curriculum labelling: golden thresholds, ties, growing steps, and a fresh student at each."""

import numpy as np
import pytest

from llmal.context import Context
from llmal.records import Label, LabelSchema
from llmal.train.curriculum import Curriculum, evened, surest, threshold
from llmal.train.linear import Linear
from llmal.train.stage import Examples

TAUGHT = []
"""What the watched student was given to learn from, in order."""


class Watched(Linear):
    """A linear student that keeps what it was shown."""

    def fit(self, examples, schema, rng, ctx):
        TAUGHT.append(examples)
        return super().fit(examples, schema, rng, ctx)


@pytest.fixture
def ctx(tmp_path):
    TAUGHT.clear()
    return Context(tmp_path, home=tmp_path)


SCHEMA = LabelSchema("single", (Label(name="a"), Label(name="b")), False)


def problem(seed=0, n=50):
    """Four labels and a pool of two overlapping classes, three quarters of it of the first."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 0, 1, 1], (np.arange(n) % 4 == 3).astype(int)])
    x = rng.normal(size=(n + 4, 6)) + 1.5 * np.eye(6)[y]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    texts = [f"text {i}" for i in range(n + 4)]
    pool = Examples(texts[4:], x[4:])
    return Examples(texts[:4], x[:4], np.eye(2, dtype=np.float32)[y[:4]], np.ones(4, np.float32), pool)


def test_golden_thresholds():
    sure = np.array([0.3, 0.5, 0.55, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99])
    found = [threshold(sure, t / 5) for t in range(1, 6)]
    assert found == pytest.approx([0.91, 0.82, 0.66, 0.54, 0.3])
    assert [len(surest(sure, t / 5)) for t in range(1, 6)] == [2, 4, 6, 8, 10]


def test_all_that_tie_at_the_threshold_are_taken():
    assert surest(np.array([0.9, 0.8, 0.8, 0.8, 0.1]), 0.4).tolist() == [0, 1, 2, 3]
    assert len(surest(np.full(7, 0.5), 0.2)) == 7


def test_steps_grow_to_the_whole_pool_and_labels_are_in_each(ctx):
    given = problem()
    Curriculum(student=Watched()).fit(given, SCHEMA, np.random.default_rng(0), ctx)
    assert [len(step.texts) - 4 for step in TAUGHT] == [0, 10, 20, 30, 40, 50]
    for step in TAUGHT:
        assert step.texts[:4] == given.texts
        assert (step.targets[:4] == given.targets).all()
        assert (step.weights[:4] == 1).all()


def test_each_step_takes_the_surest_answers_of_the_student_before_it(ctx):
    given = problem(1)
    Curriculum(student=Watched(), steps=4).fit(given, SCHEMA, np.random.default_rng(0), ctx)
    for before, after in zip(TAUGHT[:-1], TAUGHT[1:], strict=True):
        model = Linear().fit(before, SCHEMA, np.random.default_rng(0), ctx)
        probs = model.predict_proba(given.pool)
        rows = [given.pool.texts.index(text) for text in after.texts[4:]]
        assert sorted(rows) == surest(probs.max(axis=1), (len(rows)) / 50).tolist()
        assert (after.targets[4:].argmax(axis=1) == probs[rows].argmax(axis=1)).all()


def test_the_last_student_is_one_that_never_saw_the_earlier_steps(ctx):
    given = problem(2)
    model = Curriculum(student=Watched()).fit(given, SCHEMA, np.random.default_rng(0), ctx)
    fresh = Linear().fit(TAUGHT[-1], SCHEMA, np.random.default_rng(0), ctx)
    assert model.coef == pytest.approx(fresh.coef, rel=0.2)  # its folds are drawn anew, its start is not kept
    assert np.corrcoef(model.coef.ravel(), fresh.coef.ravel())[0, 1] > 0.999


def test_answers_are_evened_out_by_class():
    weights = evened(np.array([2, 2, 2, 5]))
    assert weights == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2])
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("balanced", [True, False])
def test_weights_of_answers(balanced, ctx):
    given = problem(3)
    Curriculum(student=Watched(), weight=0.5, balanced=balanced).fit(
        given, SCHEMA, np.random.default_rng(0), ctx
    )
    last = TAUGHT[-1]
    said = last.targets[4:].argmax(axis=1)
    totals = [last.weights[4:][said == c].sum() for c in (0, 1)]
    assert sum(totals) == pytest.approx(25)
    assert (totals[0] == pytest.approx(totals[1])) == balanced


def test_it_can_stop_before_the_least_sure(ctx):
    Curriculum(student=Watched(), until=0.8).fit(problem(), SCHEMA, np.random.default_rng(0), ctx)
    assert [len(step.texts) - 4 for step in TAUGHT] == [0, 10, 20, 30, 40]
    TAUGHT.clear()
    Curriculum(student=Watched(), until=0.1).fit(problem(), SCHEMA, np.random.default_rng(0), ctx)
    assert [len(step.texts) - 4 for step in TAUGHT] == [0, 10]  # at least one step, or it is no curriculum


def test_similarity_orders_in_place_of_the_probability(ctx):
    given = problem(4)
    for confidence in ("max", "similarity"):
        Curriculum(student=Watched(), until=0.2, confidence=confidence).fit(
            given, SCHEMA, np.random.default_rng(0), ctx
        )
    plain, by_heads = TAUGHT[1], TAUGHT[3]
    assert len(plain.texts) == len(by_heads.texts) == 14
    assert plain.texts != by_heads.texts
