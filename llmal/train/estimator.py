"""Any classifier of scikit-learn's shape as a student: a function of the user's makes it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, field_validator

from llmal.context import Context
from llmal.errors import UserError
from llmal.records import LabelSchema
from llmal.train.fitted import EstimatorModel, Part
from llmal.train.stage import Examples, Student


class Estimator(Student):
    """A classifier with `fit`, `predict_proba` and `classes_`, made by a function or class of any package.

    It is given numbers for labels, those of the classes that occur, and `sample_weight` where its `fit`
    takes that: soft targets are then weighted rows of each class, otherwise the likeliest label. With several
    labels a text there is one classifier a label. Its chance comes from numpy's global generator, seeded
    meanwhile. Change `options` or the name when the code behind `make` changes: the recipe holds no code.
    Source: the estimator interface of scikit-learn, Buitinck et al. 2013.
    """

    make: str = Field(
        pattern=r"^[\w.]+:[\w.]+$", description="`module:function` or `module:Class` that gives a classifier"
    )
    options: dict[str, JsonValue] = Field(default_factory=dict, description="arguments of that function")
    reads: Literal["vectors", "texts"] = Field("vectors", description="what it is given of each item")
    trusted: tuple[str, ...] = Field((), description="types it may be saved of, beside those skops trusts")

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"trusted"})

    @field_validator("make")
    @classmethod
    def _importable(cls, value: str) -> str:
        """While the pipeline file is read, a module beside it can be imported; later it is already there."""
        _function(value)
        return value

    @property
    def uses_vectors(self) -> bool:  # type: ignore[override]
        """Whether it reads vectors."""
        return self.reads == "vectors"

    def fit(
        self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context
    ) -> EstimatorModel:
        """Learn from vectors or texts, targets and weights.

        Raises:
            UserError: what was made is no such classifier, or failed.
        """
        assert examples.targets is not None
        assert examples.weights is not None
        keep = np.flatnonzero(examples.weights > 0)
        y, w = examples.targets[keep], examples.weights[keep]
        tables = [y] if schema.kind == "single" else [np.stack([1 - p, p], axis=1) for p in y.T]
        self._tell(tables, w, ctx)
        with seeded(int(rng.integers(2**31))):
            parts = [self._part(examples, keep, table, w) for table in tables]
        return EstimatorModel(parts, schema.kind, len(schema.labels), self.reads, self.trusted)

    def load(self, folder: Path, schema: LabelSchema) -> EstimatorModel:
        """A fitted student from its folder.

        Raises:
            UserError: the folder holds types that neither skops nor `trusted` names.
        """
        return EstimatorModel.load(folder, self.trusted, self._made)

    def _made(self) -> Any:
        made = _function(self.make)(**self.options)
        for wanted in ("fit", "predict_proba"):
            if not hasattr(made, wanted):
                raise UserError(
                    f"'{self.make}' gave a {type(made).__name__}, which has no {wanted}",
                    where="train",
                    hint="Wrap it, for example in sklearn.calibration.CalibratedClassifierCV",
                )
        return made

    def _tell(self, tables: list[NDArray[np.float32]], w: NDArray[np.float32], ctx: Context) -> None:
        soft = any(((table > 0) & (table < 1)).any() for table in tables)
        if (soft or (w != 1).any()) and _weight_name(self._made()) is None:
            ctx.progress.say(
                f"{self.make} takes no weights: it is taught the likeliest label of every text alike"
            )

    def _part(
        self, examples: Examples, keep: NDArray[np.int64], y: NDArray[np.float32], w: NDArray[np.float32]
    ) -> Part:
        """One classifier over the classes (columns of y) that occur; none where there is only one."""
        made = self._made()
        name = _weight_name(made)
        rows, classes = np.nonzero(y) if name else (np.arange(len(y)), y.argmax(axis=1))
        seen, numbers = np.unique(classes, return_inverse=True)
        if len(seen) < 2:
            return Part(None, seen)
        weight = w[rows] * y[rows, classes]
        more = {name: weight} if name and (weight != 1).any() else {}
        try:
            made.fit(shown(examples, self.reads, keep[rows]), numbers, **more)
            return Part(made, seen[np.asarray(made.classes_).astype(np.int64)])
        except Exception as error:  # code of the user's or of any package
            raise UserError(
                f"the classifier of '{self.make}' failed: {type(error).__name__}: {error}", where="train"
            ) from error


def shown(examples: Examples, reads: str, rows: NDArray[np.int64]) -> Any:
    """Vectors (n, d) or n texts of some rows."""
    if reads == "texts":
        return [examples.texts[i] for i in rows]
    assert examples.vectors is not None
    return examples.vectors[rows]


def _function(name: str) -> Any:
    """What `module:attribute` names.

    Raises:
        ValueError: there is no such thing, or it cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise ValueError(f"cannot import '{name}': {error}") from error
    if not callable(found):
        raise ValueError(f"'{name}' is no function and no class")
    return found


def _weight_name(estimator: Any) -> str | None:
    """The argument of `fit` that takes weights; of a pipeline, that of its last step."""
    steps = getattr(estimator, "steps", None)
    if steps:
        last, inner = steps[-1]
        name = _weight_name(inner)
        return f"{last}__{name}" if name else None
    return "sample_weight" if "sample_weight" in inspect.signature(estimator.fit).parameters else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed numpy's and torch's global generators inside, which estimators draw from; they return after."""
    before = np.random.get_state()  # noqa: NPY002 - the generator estimators use
    torch = sys.modules.get("torch")
    with ExitStack() as stack:
        if torch is not None:
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
