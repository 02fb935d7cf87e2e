"""HAST: weights and acceptance by hand, what is never taught, and when the first student stays."""

import numpy as np
import pytest

from llmal.context import Context, Silent
from llmal.records import Label, LabelSchema
from llmal.train.hast import Hast, agreement, class_weights, nearest
from llmal.train.linear import Linear
from llmal.train.stage import Examples

TAUGHT = []
"""What the watched student was given to learn from, in order."""


class Watched(Linear):
    """A linear student that keeps what it was shown."""

    def fit(self, examples, schema, rng, ctx):
        TAUGHT.append(examples)
        return super().fit(examples, schema, rng, ctx)


class Spoken(Silent):
    """Keeps what was said."""

    def __init__(self):
        self.words = []

    def say(self, text):
        self.words.append(text)


@pytest.fixture
def ctx(tmp_path):
    TAUGHT.clear()
    return Context(tmp_path, home=tmp_path, progress=Spoken())


def rng(seed=0):
    return np.random.default_rng(seed)


def schema_of(*names, kind="single"):
    return LabelSchema(kind, tuple(Label(name=name) for name in names), False)


def around(*counts, spread=0.02, seed=0):
    """Unit vectors close to the first axes, so many to each, and the axis of each row."""
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.eye(6)[y] + spread * rng(seed).normal(size=(len(y), 6))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


def problem(*counts, classes, labels=2, spread=0.02):
    """Labels of each class, and a pool with so many texts around each class."""
    x, y = around(*[labels] * classes, spread=spread, seed=1)
    pool, truth = around(*counts, spread=spread)
    texts = [f"pool {i}" for i in range(len(pool))]
    known = Examples(
        [f"known {i}" for i in range(len(x))],
        x,
        np.eye(classes, dtype=np.float32)[y],
        np.ones(len(x), np.float32),
        Examples(texts, pool),
    )
    return known, truth


def test_golden_class_weights():
    assert class_weights(np.array([30, 10, 20])) == pytest.approx([4.174298, 7.310586, 5.0], abs=1e-6)
    assert class_weights(np.array([6, 0, 3]))[1] == 10


def test_neighbours_are_those_of_brute_force_and_never_the_row_itself():
    x = rng().normal(size=(1200, 5)).astype(np.float32)
    near = nearest(x, 14)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    assert [set(row) for row in near] == [set(row) for row in np.argsort(-cosine, axis=1)[:, :14]]
    assert nearest(np.ones((4, 3), np.float32), 14).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert nearest(np.ones((1, 3), np.float32), 14).shape == (1, 0)


def test_agreement_on_a_neighbourhood_made_by_hand():
    kinds = np.array([0, 0, 1, 1])
    near = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    assert agreement(kinds, near) == pytest.approx([1 / 3] * 4)
    assert agreement(kinds, near[:, :0]).tolist() == [0] * 4


def at(*degrees):
    """Unit vectors of a plane."""
    return np.float32([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def test_an_answer_its_neighbours_did_not_get_is_not_taught(ctx):
    # The student parts the plane at 45 degrees: the text at 44 is answered as those at 0 are.
    x, y = at(0, 2, 88, 90), np.array([0, 0, 1, 1])
    angles = [*range(10), 44, *range(47, 57)]
    pool = Examples([f"at {d}" for d in angles], at(*angles))
    known = Examples(["known"] * 4, x, np.eye(2, dtype=np.float32)[y], np.ones(4, np.float32), pool)
    schema = schema_of("a", "b")
    Hast(student=Watched(), neighbours=5).fit(known, schema, rng(), ctx)
    first, taught = TAUGHT
    assert Linear().fit(first, schema, rng(), ctx).predict_proba(Examples([], at(44))).argmax() == 0
    given = dict(zip(taught.texts[4:], taught.targets[4:].argmax(axis=1), strict=True))
    assert given == {f"at {d}": int(d > 45) for d in angles if d != 44}


def test_answers_that_are_not_sure_enough_are_left_out(ctx):
    known, _ = problem(12, 12, classes=2, spread=0.5)
    Hast(student=Watched(), sure=0.9, neighbours=4).fit(known, schema_of("a", "b"), rng(), ctx)
    first, second = TAUGHT
    model = Linear().fit(first, schema_of("a", "b"), rng(), ctx)
    sure = model.predict_proba(Examples([], second.vectors[4:])).max(axis=1)
    assert 0 < len(sure) < 24
    assert sure.min() > 0.9


def test_labels_stay_as_they_are_beside_answers_weighted_by_class(ctx):
    known, _ = problem(30, 10, 20, classes=3)
    known = known._replace(weights=np.float32([1, 1, 1, 0.5, 1, 0]))
    Hast(student=Watched(), neighbours=5).fit(known, schema_of(*"abc"), rng(), ctx)
    given = TAUGHT[1]
    assert given.texts[:5] == known.texts[:5]
    assert given.weights[:5].tolist() == [1, 1, 1, 0.5, 1]
    assert given.texts[5:] == known.pool.texts
    weights = given.weights[5:]
    assert weights == pytest.approx(np.repeat([0.4174298, 0.7310586, 0.5], [30, 10, 20]), abs=1e-6)
    assert given.pool is None


def test_answers_of_one_class_are_not_taught(ctx):
    known, _ = problem(25, classes=2)
    schema = schema_of("a", "b")
    model = Hast(student=Watched()).fit(known, schema, rng(), ctx)
    assert len(TAUGHT) == 1
    assert ctx.progress.words == [
        "hast: answers of fewer than two classes were accepted, so the student keeps to labels"
    ]
    plain = Linear().fit(known._replace(pool=None), schema, rng(), ctx)
    assert (model.coef == plain.coef).all()


def test_a_pool_of_one_text_is_no_neighbourhood(ctx):
    known, _ = problem(1, classes=2)
    Hast(student=Watched()).fit(known, schema_of("a", "b"), rng(), ctx)
    assert len(TAUGHT) == 1


def test_rounds_start_from_the_labels_each_time(ctx):
    known, _ = problem(12, 12, classes=2)
    Hast(student=Watched(), neighbours=5, rounds=3).fit(known, schema_of("a", "b"), rng(), ctx)
    assert [len(given.texts) for given in TAUGHT] == [4, 28, 28, 28]


def test_sets_of_labels_are_answers_of_their_own(ctx):
    x, y = around(2, 2, 2, seed=1)
    pool, _ = around(12, 12, 12)
    targets = np.float32([[1, 0], [0, 1], [1, 1]])[y]
    known = Examples([""] * 6, x, targets, np.ones(6, np.float32), Examples([""] * 36, pool))
    Hast(student=Watched(), neighbours=5).fit(known, schema_of("a", "b", kind="multi"), rng(), ctx)
    said = np.unique(TAUGHT[1].targets[6:], axis=0)
    assert {tuple(row) for row in said} <= {(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)}
    assert len(said) >= 2


def test_similarity_decides_in_place_of_the_probability(ctx):
    known, _ = problem(12, 12, classes=2)
    schema = schema_of("a", "b")
    Hast(student=Watched(), neighbours=5, confidence="similarity", sure=0.999).fit(known, schema, rng(), ctx)
    assert len(TAUGHT) == 1  # no two heads are as certain as that
    Hast(student=Watched(), neighbours=5, confidence="similarity", sure=0.3).fit(known, schema, rng(), ctx)
    assert len(TAUGHT[-1].texts) > 4
