"""Base-versus-student difference: worked values, symmetry, and what the modifiers do with it."""

import numpy as np
import pytest

from llmal.errors import UserError
from llmal.select.base_delta import BaseDelta, moved
from llmal.select.stage import Pool
from llmal.testing.contracts.select import MadeSources

NOBODY = np.zeros(0, np.int64)


class Said(MadeSources):
    """Sources whose label names say what a test wants."""

    def __init__(self, prior):
        super().__init__(np.zeros((len(prior), 3), np.float32), NOBODY, prior.shape[1])
        self._prior = prior

    def prior(self):
        return self._prior


def rows(n=30, classes=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=n)


def pool(student, base, **more):
    vectors = np.eye(len(student), 3, dtype=np.float32)
    return Pool(
        vectors, np.arange(len(student)), NOBODY, student, student.shape[1], sources=Said(base), **more
    )


def test_worked_values():
    student, base = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]), np.array([[0.5, 0.1, 0.4], [0.0, 1.0, 0.0]])
    assert moved(student, base) == pytest.approx([0.3, 1.0])
    assert moved(student, base, multi=True) == pytest.approx([0.2, 2 / 3])


@pytest.mark.parametrize("multi", [False, True])
def test_nothing_where_they_agree_the_same_both_ways_and_whatever_the_classes_order(multi):
    one, other = rows(seed=1), rows(seed=2)
    assert moved(one, one, multi=multi).max() == 0
    assert moved(one, other, multi=multi) == pytest.approx(moved(other, one, multi=multi))
    turned = [2, 0, 3, 1]
    assert moved(one[:, turned], other[:, turned], multi=multi) == pytest.approx(
        moved(one, other, multi=multi)
    )
    assert moved(one, other, multi=multi).max() <= 1


@pytest.mark.parametrize("multi", [False, True])
def test_the_farthest_moved_are_picked(multi):
    student, base = rows(seed=1), rows(seed=2)
    chosen = BaseDelta().select(pool(student, base, multi=multi), 5, np.random.default_rng(0))
    gap = moved(student, base, multi=multi)
    assert chosen.rows.tolist() == np.argsort(-gap)[:5].tolist()
    assert chosen.reasons[0] == f"the student has moved by {gap.max():.3f} from what the label names say"


def test_outliers_are_left_out_and_batches_drawn_as_in_other_strategies():
    student, base = rows(seed=1), rows(seed=2)
    gap = moved(student, base)
    chosen = BaseDelta(clip=0.1).select(pool(student, base), 3, np.random.default_rng(0))
    assert chosen.rows.tolist() == np.argsort(-gap)[3:6].tolist()
    drawn = [
        BaseDelta(batch="softrank").select(pool(student, base), 5, np.random.default_rng(seed)).rows.tolist()
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_pool_without_label_names_is_refused():
    bare = pool(rows(), rows())._replace(sources=None)
    with pytest.raises(UserError, match="looks at texts or votes"):
        BaseDelta().select(bare, 2, np.random.default_rng(0))
