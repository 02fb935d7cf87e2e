"""The default strategy: representatives while rows are few, then margin, and a share for rare classes."""

import numpy as np
import pytest

from llmal.select.auto import Auto
from llmal.select.kmeans import KMeans
from llmal.select.margin import Margin
from llmal.select.prc import Prc
from llmal.select.stage import Pool
from llmal.select.typiclust import TypiClust
from llmal.select.uniform import Uniform


def pool(n=600, labelled=0, *, classes=3, shares=None, multi=False):
    """A pool whose student gives each class a share of the rows."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    probs = None
    if shares is not None:
        probs = rng.dirichlet(np.array(shares) * 5, size=n).astype(np.float32)
    targets = np.eye(classes, dtype=np.float32)[np.arange(labelled) % classes]
    rows = np.arange(n)
    return Pool(vectors, rows[labelled:], rows[:labelled], probs, classes, targets, multi)


def strategy(pool, k=20):
    return Auto().choice(pool, k).strategy


def test_few_rows_a_class_are_representatives_and_many_are_drawn_by_chance():
    assert strategy(pool(), 60) == KMeans()
    assert strategy(pool(), 61) == Uniform()
    assert strategy(pool(classes=150), 500) == KMeans()
    assert strategy(pool(classes=20, multi=True), 100) == TypiClust()
    assert strategy(pool(classes=20, multi=True), 101) == KMeans()


def test_a_student_of_a_handful_of_labels_is_not_asked():
    even = [1 / 3] * 3
    assert strategy(pool(labelled=19, shares=even)) == KMeans()
    assert strategy(pool(labelled=20, shares=even)) == Margin(clip=0.05)
    assert strategy(pool(labelled=60, shares=[0.02] * 50, classes=50)) == KMeans(), "two a class"


def test_a_class_far_below_its_share_is_rare_but_fifty_equal_ones_are_not():
    assert strategy(pool(labelled=60, shares=[0.6, 0.38, 0.02])) == Prc(rarest=1, mix=0.9)
    assert strategy(pool(labelled=60, shares=[0.6, 0.34, 0.06])) == Margin(clip=0.05)
    assert isinstance(strategy(pool(2000, labelled=600, shares=[0.02] * 50, classes=50)), Margin)


def test_what_was_chosen_and_why_is_said():
    chosen = Auto().select(pool(), 12, np.random.default_rng(0))
    assert chosen.note == "kmeans, as 12 rows are few for 3 classes"
    assert all(reason.startswith("kmeans: nearest to the centre") for reason in chosen.reasons)
    alike = KMeans().select(pool(), 12, np.random.default_rng(0))
    assert chosen.rows.tolist() == alike.rows.tolist()


def test_independent_labels_are_chosen_by_the_gap_of_the_two_likeliest():
    some = pool(labelled=30, shares=[0.4, 0.3, 0.3], multi=True)
    chosen = Auto(clip=0).select(some, 9, np.random.default_rng(0))
    alike = Margin(two=True).select(some, 9, np.random.default_rng(0))
    assert chosen.rows.tolist() == alike.rows.tolist()
    assert chosen.rows.tolist() != Margin().select(some, 9, np.random.default_rng(0)).rows.tolist()


@pytest.mark.parametrize("option", [{"clip": 1.0}, {"rare": -0.1}])
def test_options_have_a_range(option):
    with pytest.raises(ValueError, match="greater|less"):
        Auto(**option)
