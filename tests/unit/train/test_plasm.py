"""PLASM: the share to leave out, TracIn's closed form, and what of a teacher's answers is taught."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from llmal.context import Context
from llmal.records import Label, LabelSchema
from llmal.train import plasm
from llmal.train.linear import Linear
from llmal.train.plasm import Plasm, dropped_share, self_influence
from llmal.train.similarity import Heads, learning_gradient
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


def schema_of(classes, kind="single"):
    return LabelSchema(kind, tuple(Label(name=f"c{i}") for i in range(classes)), False)


def rng(seed=0):
    return np.random.default_rng(seed)


def blobs(n, classes=3, *, spread=0.25, seed=0):
    """n unit vectors around as many axes as there are classes, and the class of each."""
    y = np.arange(n) % classes
    x = np.eye(16)[y] + spread * rng(seed).normal(size=(n, 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


def examples(x, y, classes=3, pool=None):
    return Examples(
        [f"text {i}" for i in range(len(x))],
        x,
        np.eye(classes, dtype=np.float32)[y],
        np.ones(len(x), np.float32),
        pool,
    )


def test_share_left_out_makes_up_for_what_is_wrong_and_not_gone_yet():
    assert dropped_share(0.8, 0.05) == pytest.approx(0.15)
    assert dropped_share(0.8, 0.3) == 0
    assert dropped_share(1.0, 0.0) == 0


@pytest.mark.parametrize("multi", [False, True])
def test_closed_form_is_the_squared_length_of_the_gradient(multi):
    x, y = blobs(6)
    targets = np.eye(3)[y]
    heads = Heads.fresh(1, 3, 16, rng(), multi=multi)
    off = heads.probs(x)[0] - targets
    closed = (off**2).sum(axis=1) * ((x.astype(float) ** 2).sum(axis=1) + 1)
    for i in range(6):
        w, b = learning_gradient(heads, x[[i]], targets[[i]], np.ones(1))
        assert closed[i] == pytest.approx((w**2).sum() + (b**2).sum())


def test_wrong_labels_have_the_largest_influence_on_themselves():
    found = []
    for seed in range(5):
        x, y = blobs(300, seed=seed)
        wrong = rng(seed).random(300) < 0.15
        said = np.where(wrong, (y + 1) % 3, y)
        found.append(roc_auc_score(wrong, self_influence(examples(x, said), rng(), multi=False)))
    assert np.mean(found) > 0.95


def planted(ctx, **options):
    """A student taught by a teacher that is wrong about a tenth of the pool; the rows it was taught."""
    x, y = blobs(200)
    pool = Examples([f"pool {i}" for i in range(180)], x[20:])
    Plasm(student=Watched(), **options).fit(examples(x[:20], y[:20], pool=pool), schema_of(3), rng(), ctx)
    given = TAUGHT[-1]
    rows = np.array([int(text.split()[1]) for text in given.texts[20:]])
    return given, rows, y[20:]


class Mistaken(Linear):
    """A linear student that answers every tenth text with the next class."""

    def fit(self, examples, schema, rng, ctx):
        model = super().fit(examples, schema, rng, ctx)
        right = model.predict_proba

        def predict_proba(asked):
            probs = right(asked)
            probs[::10] = np.roll(probs[::10], 1, axis=1)
            return probs

        model.predict_proba = predict_proba
        return model


def test_what_the_teacher_gets_wrong_is_left_out_first(ctx):
    given, rows, _ = planted(ctx, teacher=Mistaken(), quality=0.9, sure=0.0)
    assert len(rows) == 180 - 18
    assert (rows % 10 == 0).sum() <= 4  # 18 are planted; chance would keep 16
    assert (given.weights == 1).all()


def test_labels_stay_and_answers_follow(ctx):
    given, rows, truth = planted(ctx, quality=1.0)
    assert given.texts[:20] == [f"text {i}" for i in range(20)]
    assert (given.targets[20:].argmax(axis=1) == truth[rows]).mean() > 0.95


def test_share_of_unsure_answers_counts_as_left_out(ctx):
    every = planted(ctx, quality=1.0, sure=0.0)[1]
    sure = planted(ctx, quality=1.0, sure=0.9)[1]
    both = planted(ctx, quality=0.95, sure=0.9)[1]
    assert len(every) == 180
    assert len(sure) < 171  # more than one in twenty is gone, so that no more has to go
    assert sure.tolist() == both.tolist()


def test_quality_is_that_of_labels_the_teacher_did_not_learn_from(ctx, monkeypatch):
    seen = []
    monkeypatch.setattr(plasm, "dropped_share", lambda quality, gone: seen.append(quality) or 0.0)
    x, y = blobs(60, spread=0.2)
    shuffled = rng(1).permutation(y)
    pool = Examples(["a"] * 10, x[:10])
    for labels in (y, shuffled):
        Plasm().fit(examples(x, labels, pool=pool), schema_of(3), rng(), ctx)
    assert seen[0] > 0.9
    assert seen[1] < 0.6  # learnt by heart, it would be near 1
    Plasm().fit(examples(x[:3], y[:3], pool=pool), schema_of(3), rng(), ctx)
    assert seen[2] == 1.0  # three labels cannot say


def test_nothing_sure_leaves_the_labels(ctx):
    x, y = blobs(40, spread=2.0)
    pool = Examples(["a"] * 10, x[30:])
    Plasm(student=Watched(), sure=0.9999, quality=0.9).fit(
        examples(x[:30], y[:30], pool=pool), schema_of(3), rng(), ctx
    )
    assert len(TAUGHT[-1].texts) == 30
