"""T-similarity: its golden value and range, heads whose gradients are right, and a confidence that ranks."""

import numpy as np
import pytest

from llmal.train.similarity import (
    Adam,
    Heads,
    confidences,
    diverging_gradient,
    diverse_heads,
    learning_gradient,
    similarity,
)
from llmal.train.stage import Examples


def rng(seed=0):
    return np.random.default_rng(seed)


def test_golden_value():
    heads = np.array([[[0.7, 0.2, 0.1]], [[0.6, 0.3, 0.1]], [[0.2, 0.7, 0.1]]])
    assert similarity(heads) == pytest.approx([0.373333], abs=1e-6)


@pytest.mark.parametrize("multi", [False, True])
def test_is_the_mean_over_pairs_of_heads(multi):
    p = rng().dirichlet(np.ones(4), size=(5, 20))
    pairs = [
        (p[i] * p[j] + (1 - p[i]) * (1 - p[j])).mean(axis=1) if multi else (p[i] * p[j]).sum(axis=1)
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert similarity(p, multi=multi) == pytest.approx(np.mean(pairs, axis=0))


@pytest.mark.parametrize("multi", [False, True])
def test_lies_in_0_to_1_and_is_1_only_where_all_heads_are_certain_of_the_same(multi):
    p = rng().dirichlet(np.full(3, 0.2), size=(5, 500))
    assert similarity(p, multi=multi).min() >= 0
    assert similarity(p, multi=multi).max() <= 1
    sure = np.tile(np.eye(3)[[0, 2]], (5, 1, 1))
    assert similarity(sure, multi=multi).tolist() == [1, 1]
    sure[0, 0] = [0.98, 0.02, 0]
    sure[0, 1] = [0, 1, 0]
    assert (similarity(sure, multi=multi) < 1).all()


def numeric(loss, heads, at, step=1e-6):
    """Slope of a loss of the heads along one weight."""
    values = []
    for sign in (1, -1):
        weights = heads.weights.copy()
        weights[at] += sign * step
        values.append(loss(heads._replace(weights=weights)))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("multi", [False, True])
def test_gradients_are_the_slopes_of_the_losses(multi):
    draw = rng(1)
    heads = Heads.fresh(4, 3, 6, draw, multi=multi)
    x, y, w = draw.normal(size=(9, 6)), np.eye(3)[np.arange(9) % 3], draw.uniform(size=9)

    def learn(h):
        p = h.probs(x)
        logs = y * np.log(p) + (1 - y) * np.log(1 - p) if multi else y * np.log(p)
        return -(logs.sum(axis=2) * w).sum() / w.sum()

    def differ(h):
        return similarity(h.probs(x), multi=multi).mean()

    for loss, gradient in (
        (learn, learning_gradient(heads, x, y, w)),
        (differ, diverging_gradient(heads, x)),
    ):
        for at in [(0, 0, 0), (1, 2, 5), (3, 1, 2)]:
            assert gradient[0][at] == pytest.approx(numeric(loss, heads, at), abs=1e-7)


def test_adam_equals_torch():
    torch = pytest.importorskip("torch")
    draw = rng(2)
    learner = Adam(Heads.fresh(2, 3, 4, draw, multi=False), 0.01)
    tensor = torch.tensor(learner.heads.weights.copy(), requires_grad=True)
    reference = torch.optim.Adam([tensor], lr=0.01)
    for _ in range(20):
        gradient = draw.normal(size=(2, 3, 4))
        learner.step((gradient, np.zeros((2, 3))))
        tensor.grad = torch.tensor(gradient)
        reference.step()
    assert learner.heads.weights == pytest.approx(tensor.detach().numpy(), abs=1e-7)


def biased(seed):
    """Two classes that two directions tell; the labelled rows show one of them only, the others both.

    Returns labelled examples, vectors of the rest, and whether the labelled direction has the rest right.
    """
    draw = rng(seed)
    n = 600
    y = np.arange(n) % 2
    x = draw.normal(size=(n, 8)) * 0.7
    x[:, 0] += 2 * y - 1
    far = draw.random(n) < 0.5  # where labels were never bought, the first direction says nothing
    far[:20] = False
    x[far, 0] = draw.normal(size=far.sum()) * 1.5
    x[far, 1] += 4
    x = x @ np.linalg.qr(draw.normal(size=(128, 8)))[0].T
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    known = Examples([""] * 20, x[:20], np.eye(2, dtype=np.float32)[y[:20]], np.ones(20, np.float32))
    return known, x[20:], far[20:]


def test_heads_agree_with_the_labels_and_differ_away_from_them():
    known, pool, far = biased(0)
    heads = diverse_heads(known, pool, rng(), multi=False)
    right = heads.probs(known.vectors).argmax(axis=2) == known.targets.argmax(axis=1)
    assert right.mean() > 0.8
    alike = similarity(heads.probs(pool))
    assert alike[far].mean() < alike[~far].mean() - 0.02


def test_without_the_pull_apart_heads_are_alike_everywhere():
    known, pool, far = biased(0)
    apart = similarity(diverse_heads(known, pool, rng(), multi=False).probs(pool))
    alone = similarity(diverse_heads(known, pool, rng(), multi=False, gamma=0.0).probs(pool))
    assert apart[far].mean() < alone[far].mean()


def test_confidences_are_one_a_text_and_follow_the_generator():
    known, vectors, _ = biased(3)
    pool = Examples([""] * len(vectors), vectors)
    one, same, other = (confidences(known, pool, rng(seed), multi=False) for seed in (1, 1, 2))
    assert one.shape == (len(vectors),)
    assert (one == same).all()
    assert (one != other).any()
