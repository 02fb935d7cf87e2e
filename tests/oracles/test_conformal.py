"""Conformal sets against MAPIE: the same sets, its scores and its draws given."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from llmal.stats.conformal import aps, lac, thresholds

CLASSES = 6


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its probabilities."""

    def fit(self, x, y):
        self.classes_ = np.arange(CLASSES)
        self.n_features_in_ = CLASSES
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


@pytest.fixture(scope="module")
def peer():
    """The package, imported only when one of these tests runs."""
    return pytest.importorskip("mapie.classification")


def world(seed, n):
    draw = np.random.default_rng(seed)
    gold = np.concatenate([np.arange(CLASSES), draw.integers(CLASSES, size=n - CLASSES)])
    logits = draw.normal(size=(n, CLASSES)) + 1.5 * np.eye(CLASSES)[gold]
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), gold


def theirs(peer, score, alphas, probs, gold, fresh, seed):
    """(n, C, alphas) sets of MAPIE."""
    model = peer.SplitConformalClassifier(
        Given().fit(None, None),
        confidence_level=[1 - a for a in alphas],
        conformity_score=score,
        prefit=True,
        random_state=seed,
    )
    extra = {"include_last_label": "randomized"} if score == "aps" else {}
    return model.conformalize(probs, gold).predict_set(fresh, conformity_score_params=extra)[1]


def its_draws(seed):
    """MAPIE leaves u of the class's own mass off, u from its own generator anew for each call."""
    return SimpleNamespace(random=lambda n: np.random.RandomState(seed).uniform(size=n))


@pytest.mark.parametrize("n", [20, 57, 300])
@pytest.mark.parametrize("seed", range(3))
def test_lac_gives_the_same_sets(peer, seed, n):
    probs, gold = world(seed, n)
    fresh, _ = world(seed + 100, 200)
    alphas = [0.07, 0.1, 0.23, 0.5]
    found = theirs(peer, "lac", alphas, probs, gold, fresh, seed)
    for i, alpha in enumerate(alphas):
        ours = thresholds(lac(probs), gold, alpha).sets(lac(fresh))
        assert (ours == found[:, :, i]).all()
        assert 0 < ours.mean() < 1


@pytest.mark.parametrize("n", [20, 57, 300])
@pytest.mark.parametrize("seed", range(3))
def test_randomised_aps_gives_the_same_sets(peer, seed, n):
    probs, gold = world(seed, n)
    fresh, _ = world(seed + 100, 200)
    alphas = [0.07, 0.1, 0.23, 0.5]
    found = theirs(peer, "aps", alphas, probs, gold, fresh, seed)
    for i, alpha in enumerate(alphas):
        fitted = thresholds(aps(probs, rng=its_draws(seed)), gold, alpha)
        ours = fitted.sets(aps(fresh, rng=its_draws(seed)))
        assert (ours == found[:, :, i]).all()
        assert 0 < ours.mean() < 1
