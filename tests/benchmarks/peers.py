"""Query strategies of small-text and scikit-activeml behind our protocol, for `label_efficiency.py --peers`.

They see the same vectors. small-text is handed our student's probabilities; scikit-activeml fits the same
logistic regression itself, which is how it is used. Single-label sets only.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from llmal.select.badge import Badge
from llmal.select.contrastive import Contrastive
from llmal.select.discriminative import Discriminative
from llmal.select.entropy import Entropy
from llmal.select.kcenter import KCenter
from llmal.select.least_confidence import LeastConfidence
from llmal.select.margin import Margin
from llmal.select.probcover import ProbCover
from llmal.select.stage import Pool, Selection, Selector
from llmal.select.typiclust import TypiClust

OURS: dict[str, Selector] = {
    "margin": Margin(),
    "entropy": Entropy(),
    "least-confidence": LeastConfidence(),
    "badge": Badge(),
    "kcenter": KCenter(),
    "contrastive": Contrastive(),
    "discriminative": Discriminative(),
    "typiclust": TypiClust(),
    "probcover": ProbCover(),
}


FROM_THE_START = {"typiclust", "probcover"}
"""Strategies for the first batch; the others start with uniform's items."""


class Peer(NamedTuple):
    """Another library's strategy; `pick` gives rows of the pool."""

    name: str
    pick: Callable[[Pool, int, int], Any]

    def __repr__(self) -> str:
        return self.name

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        seed = int(rng.integers(2**31))
        np.random.seed(seed)  # noqa: NPY002 - small-text draws from the global generator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = np.asarray(self.pick(pool, k, seed), np.int64)
        return Selection(rows, np.zeros(len(rows)), [""] * len(rows))


class Student:
    """A classifier as small-text wants one: rows in, probabilities and vectors out."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return self.pool.probs[rows]

    def embed(self, rows: np.ndarray, return_proba: bool = False, pbar: Any = None) -> Any:
        vectors = self.pool.vectors[rows]
        return (vectors, self.pool.probs[rows]) if return_proba else vectors


def small_text(make: Callable[[], Any]) -> Callable[[Pool, int, int], Any]:
    def pick(pool: Pool, k: int, seed: int) -> Any:
        said = pool.targets.argmax(axis=1)
        rows = np.arange(len(pool.vectors))
        return make().query(Student(pool), rows, pool.unlabelled, pool.labelled, said, n=k)

    return pick


def skactiveml(make: Callable[[int, Pool], Any], needs: str = "") -> Callable[[Pool, int, int], Any]:
    def pick(pool: Pool, k: int, seed: int) -> Any:
        from skactiveml.classifier import SklearnClassifier
        from sklearn.linear_model import LogisticRegression

        y = np.full(len(pool.vectors), np.nan)
        y[pool.labelled] = pool.targets.argmax(axis=1)
        more = {}
        if needs:
            strength = 10.0 if needs == "clf" else 1.0
            classes = range(pool.n_classes) if needs == "clf" else [0, 1]
            more[needs] = SklearnClassifier(LogisticRegression(C=strength, max_iter=1000), classes=classes)
        return make(seed, pool).query(X=pool.vectors, y=y, batch_size=k, **more)

    return pick


def peers() -> dict[str, dict[str, Peer]]:
    """Ours -> library -> theirs, of the libraries installed here."""
    out: dict[str, dict[str, Peer]] = {name: {} for name in OURS}
    if importlib.util.find_spec("small_text"):
        import small_text as st

        for name, make in {
            "margin": st.BreakingTies,
            "entropy": st.PredictionEntropy,
            "least-confidence": st.LeastConfidence,
            "contrastive": lambda: st.ContrastiveActiveLearning(pbar=None),
        }.items():
            out[name]["small-text"] = Peer(f"small-text {name}", small_text(make))
    if importlib.util.find_spec("skactiveml"):
        import skactiveml.pool as sk

        def uncertainty(method: str) -> Callable[[Pool, int, int], Any]:
            return skactiveml(lambda seed, _: sk.UncertaintySampling(method=method, random_state=seed), "clf")

        for name, pick in {
            "margin": uncertainty("margin_sampling"),
            "entropy": uncertainty("entropy"),
            "least-confidence": uncertainty("least_confident"),
            "badge": skactiveml(lambda seed, _: sk.Badge(random_state=seed), "clf"),
            "kcenter": skactiveml(lambda seed, _: sk.CoreSet(random_state=seed)),
            "contrastive": skactiveml(lambda seed, _: sk.ContrastiveAL(random_state=seed), "clf"),
            "discriminative": skactiveml(
                lambda seed, _: sk.DiscriminativeAL(random_state=seed), "discriminator"
            ),
            "typiclust": skactiveml(lambda seed, _: sk.TypiClust(k=20, random_state=seed)),
            "probcover": skactiveml(
                lambda seed, pool: sk.ProbCover(n_classes=pool.n_classes, random_state=seed)
            ),
        }.items():
            out[name]["scikit-activeml"] = Peer(f"scikit-activeml {name}", pick)
    return out
