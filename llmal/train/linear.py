"""Logistic regression on frozen vectors: the student for choosing, fitted in a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.context import Context
from llmal.records import LabelSchema
from llmal.train.stage import Examples, Model, Student

GRID = (1.0, 10.0, 100.0)
"""Inverse regularisation strengths tried; unit vectors want larger ones than scikit-learn's default of 1."""

FOLDS = 5


class Linear(Student):
    """Multinomial logistic regression (one per label when multi), C by cross-validated log loss.

    Source: Cox 1958.
    """

    balanced: bool = Field(False, description="weigh classes inversely to how often they occur")

    uses_vectors: ClassVar[bool] = True

    def fit(
        self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context
    ) -> LinearModel:
        """Learn from vectors, targets and weights; soft targets are read as weighted rows of each class."""
        assert examples.vectors is not None
        assert examples.targets is not None
        assert examples.weights is not None
        keep = examples.weights > 0
        x, y, w = examples.vectors[keep], examples.targets[keep], examples.weights[keep]
        seed = int(rng.integers(2**31))
        if schema.kind == "single":
            return LinearModel(*self._single(x, y, w, seed), "softmax")
        columns = [
            self._single(x, np.stack([1 - y[:, c], y[:, c]], axis=1), w, seed) for c in range(y.shape[1])
        ]
        coef = np.stack([(c[1] - c[0]) for c, _ in columns])
        bias = np.array([b[1] - b[0] for _, b in columns], np.float32)
        return LinearModel(coef, bias, "sigmoid")

    def load(self, folder: Path, schema: LabelSchema) -> LinearModel:
        """A fitted student from `head.safetensors` and `head.json`."""
        return LinearModel.load(folder)

    def _single(
        self, x: NDArray[np.float32], y: NDArray[np.float32], w: NDArray[np.float32], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights (C, d) and biases (C,); a class never seen gets a bias that makes it probability 0."""
        rows, classes = np.nonzero(y)
        seen = np.unique(classes)
        coef = np.zeros((y.shape[1], x.shape[1]), np.float32)
        bias = np.full(y.shape[1], -1e4, np.float32)
        if len(seen) == 1:
            bias[seen] = 0.0
            return coef, bias
        model = self._best(x, y, w, seed)
        if (
            len(seen) == 2
        ):  # scikit-learn keeps one row for two classes: softmax of (0, z) is its sigmoid of z
            coef[seen[1]], bias[seen[0]], bias[seen[1]] = model.coef_[0], 0.0, model.intercept_[0]
        else:
            coef[seen], bias[seen] = model.coef_, model.intercept_
        return coef, bias

    def _best(
        self, x: NDArray[np.float32], targets: NDArray[np.float32], weights: NDArray[np.float32], seed: int
    ) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold

        items, y = np.nonzero(targets)
        w = weights[items] * targets[items, y]

        def fitted(c: float, rows: NDArray[np.int64]) -> Any:
            kind = "balanced" if self.balanced else None
            model = LogisticRegression(C=c, max_iter=2000, class_weight=kind)
            return model.fit(x[items[rows]], y[rows], w[rows])

        likeliest = targets.argmax(axis=1)
        kinds, counts = np.unique(likeliest, return_counts=True)
        if len(kinds) < 2 or counts.min() < FOLDS:
            return fitted(GRID[1], np.arange(len(y)))
        # Whole items are left out: the rows of a soft target's classes are one text.
        splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, likeliest)
        folds = [[np.flatnonzero(np.isin(items, part)) for part in split] for split in splits]

        def loss(c: float) -> float:
            total = 0.0
            for train, test in folds:
                model = fitted(c, train)
                column = np.searchsorted(model.classes_, y[test]).clip(max=len(model.classes_) - 1)
                said = model.predict_proba(x[items[test]])[np.arange(len(test)), column]
                said[model.classes_[column] != y[test]] = 0.0  # a class the other folds never saw
                total += float((w[test] * -np.log(np.maximum(said, 1e-12))).sum())
            return total

        return fitted(min(GRID, key=loss), np.arange(len(y)))


class LinearModel(Model):
    """Weights (C, d), biases (C,), and how scores become probabilities (`softmax` or `sigmoid`)."""

    def __init__(self, coef: NDArray[np.float32], bias: NDArray[np.float32], link: str) -> None:
        self.coef = np.ascontiguousarray(coef, np.float32)
        self.bias = np.ascontiguousarray(bias, np.float32)
        self.link = link

    def predict_proba(self, examples: Examples) -> NDArray[np.float32]:
        """(n, C) probabilities from vectors."""
        assert examples.vectors is not None
        scores = (examples.vectors @ self.coef.T + self.bias).astype(np.float64)
        if self.link == "sigmoid":
            return np.asarray(0.5 * (1 + np.tanh(scores / 2)), np.float32)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `head.json`."""
        from safetensors.numpy import save_file

        save_file({"coef": self.coef, "bias": self.bias}, folder / "head.safetensors")
        (folder / "head.json").write_text(json.dumps({"link": self.link}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LinearModel:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(folder / "head.safetensors")
        link = json.loads((folder / "head.json").read_text(encoding="utf-8"))["link"]
        return cls(tensors["coef"], tensors["bias"], link)
