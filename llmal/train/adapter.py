"""Students and exported classifiers as scikit-learn knows a classifier, for its tools and those built on it.

>>> from llmal.train.adapter import as_estimator
>>> from llmal.train.linear import Linear
>>> as_estimator(Linear()).fit([[0.0, 1.0], [1.0, 0.0]], ["no", "yes"]).classes_.tolist()
['no', 'yes']
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A base class cannot be imported later; nobody imports this module who does not use scikit-learn.
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from llmal.context import Context
from llmal.errors import UserError
from llmal.plugins import build
from llmal.records import Label, LabelSchema
from llmal.train.stage import Examples, Student


class Exported(Protocol):
    """What `llmal.load` gives."""

    kind: str
    labels: list[str]

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, C) probabilities, columns as in `labels`."""


def as_estimator(what: Student | Exported, *, encoder: Any = None, seed: int = 0) -> Any:
    """A scikit-learn classifier: an unfitted one from a student, a fitted one from an exported classifier.

    Args:
        what: a student (`Linear()`, `SetFit()`, ...), or what `llmal.load` gave.
        encoder: embed plug-in (`"sentence"`) that turns texts into vectors, for a student that reads vectors
            and is to be given texts; without it such a student is given vectors.
        seed: of everything random in the student.

    Returns:
        Something with `classes_` (ascending), `predict` and `predict_proba`, to be cloned, cross-validated
        and calibrated. One label a text only.

    Raises:
        UserError: an exported classifier that gives any number of labels.
    """
    if isinstance(what, Student):
        return StudentClassifier(what, encoder, seed)
    return FittedClassifier(what)


class StudentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A student to be fitted to texts or vectors (n, d), and one label each."""

    def __init__(self, student: Any, encoder: Any = None, seed: int = 0) -> None:
        self.student = student
        self.encoder = encoder
        self.seed = seed

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> StudentClassifier:
        """Learn; weight 0 is the same as leaving the text out.

        Raises:
            UserError: X or y is not of a form the student learns from.
        """
        labels = np.asarray(y)
        if labels.ndim != 1:
            raise UserError(f"labels of shape {labels.shape} where one label a text is expected", where="y")
        self.classes_, column = np.unique(labels, return_inverse=True)
        schema = LabelSchema("single", tuple(Label(name=str(c)) for c in self.classes_), False)
        weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight)
        targets = np.eye(len(self.classes_), dtype=np.float32)[column]
        given = self._read(X)._replace(targets=targets, weights=weight.astype(np.float32))
        with tempfile.TemporaryDirectory() as folder:
            ctx = Context(Path(folder), home=Path(folder), seed=self.seed)
            self.model_ = self.student.fit(given, schema, np.random.default_rng(self.seed), ctx)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(n, C) probabilities, columns as in `classes_`."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict_proba(self._read(X)), np.float64)

    def predict(self, X: Any) -> NDArray[Any]:
        """(n,) likeliest labels."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _read(self, x: Any) -> Examples:
        """Texts, or vectors where numbers are given or an encoder makes them."""
        texts = _texts(x)
        if not self.student.uses_vectors:
            if texts is None:
                raise UserError(f"the student '{self.student.name}' reads texts, not numbers", where="X")
            return Examples(texts, None)
        if texts is None:
            vectors = np.asarray(x, np.float32)
        elif self.encoder is None:
            raise UserError(
                f"the student '{self.student.name}' reads vectors",
                where="X",
                hint='Give vectors, or an encoder: as_estimator(student, encoder="sentence")',
            )
        else:
            vectors = build("embed", self.encoder).encode(texts)  # type: ignore[attr-defined]
        return Examples(texts or [""] * len(vectors), vectors)


class FittedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An exported classifier that reads texts; it stays as it is, so put it into a `FrozenEstimator`."""

    def __init__(self, model: Exported) -> None:
        self.model = model
        if model.kind != "single":
            raise UserError("this classifier gives any number of labels a text", where="as_estimator")

    def __sklearn_is_fitted__(self) -> bool:
        """It was fitted in its run."""
        return True

    @property
    def classes_(self) -> NDArray[np.str_]:
        """(C,) label names, ascending."""
        return np.sort(np.array(self.model.labels))

    def fit(self, X: Any, y: ArrayLike) -> FittedClassifier:
        """Learn nothing more."""
        return self

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float64]:
        """(n, C) probabilities, columns as in `classes_`."""
        order = np.argsort(np.array(self.model.labels))
        texts = _texts(X)
        if texts is None:
            raise UserError("an exported classifier reads texts, not numbers", where="X")
        return np.asarray(self.model.predict_proba(texts)[:, order], np.float64)

    def predict(self, X: Sequence[str]) -> NDArray[np.str_]:
        """(n,) likeliest labels."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _texts(x: Any) -> list[str] | None:
    """The texts, or None where x holds something else."""
    if getattr(x, "ndim", 1) != 1:
        return None
    rows = x.tolist() if hasattr(x, "tolist") else list(x)
    return rows if all(isinstance(row, str) for row in rows) else None
