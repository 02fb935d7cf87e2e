"""Fitted estimators of the user's: their probabilities in the columns of the run, and how they are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from llmal import weights
from llmal.errors import ModelError, UserError
from llmal.extras import need
from llmal.train.stage import Examples, Model


class Part(NamedTuple):
    """One classifier.

    Attributes:
        estimator: fitted; None when it only ever saw one class.
        columns: (k,) the class of each of its probabilities.
    """

    estimator: Any
    columns: NDArray[np.int64]


class EstimatorModel(Model):
    """One classifier over all classes, or when multi one for each label (its columns: no, yes).

    Kept as skops keeps it, unpacked (JSON and arrays), or as its own `save(folder)` and `load(folder)` do.
    """

    def __init__(
        self, parts: list[Part], kind: str, n_classes: int, reads: str, trusted: Sequence[str] = ()
    ) -> None:
        self.parts, self.kind, self.n_classes = parts, kind, n_classes
        self.reads, self.trusted = reads, tuple(trusted)

    def predict_proba(self, examples: Examples) -> NDArray[np.float32]:
        """(n, C) probabilities from vectors or texts; a class never seen gets 0."""
        x: Any = examples.texts if self.reads == "texts" else examples.vectors
        n, width = len(x), self.n_classes if self.kind == "single" else 2
        found = [_probs(part, x, n, width) for part in self.parts]
        if self.kind == "multi":
            return np.stack([probs[:, 1] for probs in found], axis=1).astype(np.float32)
        return np.asarray(found[0] / found[0].sum(axis=1, keepdims=True), np.float32)

    def save(self, folder: Path) -> None:
        """Write `estimator.json`, and a folder for each classifier.

        Raises:
            UserError: one holds what cannot be kept without pickle, or is of a type nobody trusts.
        """
        parts, used = [], set()
        for i, part in enumerate(self.parts):
            own = hasattr(part.estimator, "save") and hasattr(part.estimator, "load")
            if part.estimator is not None:
                (folder / f"part-{i}").mkdir()
                if own:
                    part.estimator.save(str(folder / f"part-{i}"))
                else:
                    used |= _dump(part.estimator, folder / f"part-{i}", self.trusted)
            kept = None if part.estimator is None else "own" if own else "skops"
            parts.append({"columns": part.columns.tolist(), "kept": kept})
        about = {"kind": self.kind, "classes": self.n_classes, "reads": self.reads, "parts": parts}
        about["trusted"] = sorted(used)  # for an export to refuse; what is loaded never says whom to trust
        (folder / "estimator.json").write_text(json.dumps(about) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls, folder: Path, trusted: Sequence[str] = (), make: Callable[[], Any] | None = None
    ) -> EstimatorModel:
        """Read what `save` wrote; nothing in the folder says what may be trusted or run.

        Args:
            folder: of the student.
            trusted: types allowed beside those of skops.
            make: gives a fresh estimator, for one that has a `load` of its own; None refuses those.
        """
        weights.refuse_code(str(folder))
        about = json.loads((folder / "estimator.json").read_text(encoding="utf-8"))
        parts = []
        for i, part in enumerate(about["parts"]):
            place, estimator = folder / f"part-{i}", None
            if part["kept"] == "skops":
                estimator = _load(place, trusted)
            elif part["kept"] is not None:
                if make is None:
                    raise ModelError("this estimator can only be read by its own code", where=str(folder))
                fresh = make()
                back = fresh.load(str(place))
                estimator = fresh if back is None else back
            parts.append(Part(estimator, np.array(part["columns"], np.int64)))
        return cls(parts, about["kind"], about["classes"], about["reads"], trusted)


def _probs(part: Part, x: Any, n: int, width: int) -> NDArray[np.float64]:
    """(n, width) probabilities of one classifier, columns of the run."""
    out = np.zeros((n, width))
    if n:
        given = 1.0 if part.estimator is None else np.asarray(part.estimator.predict_proba(x), np.float64)
        out[:, part.columns] = given
    if not np.isfinite(out).all():
        raise UserError("the student gave a probability that is not finite", where="train")
    return np.clip(out, 0.0, 1.0)


def _dump(estimator: Any, folder: Path, trusted: Sequence[str]) -> set[str]:
    """Write what skops makes of it, its zip unpacked so that anybody can look inside.

    Returns:
        The types in it that skops does not trust by itself.
    """
    need("skops", extra="skops", why="to keep an estimator without pickle")
    from skops import io as keeper

    try:
        body = keeper.dumps(estimator)
        named = set(keeper.get_untrusted_types(data=body))
    except Exception as error:  # an object skops has no way to keep; it raises errors of many kinds
        raise UserError(
            f"a {type(estimator).__name__} cannot be kept without pickle: {error}",
            where="train",
            hint="Give it the methods save(folder) and load(folder)",
        ) from error
    if unknown := sorted(named - set(trusted)):
        raise UserError(
            f"a {type(estimator).__name__} holds types that are trusted only by name",
            where="train",
            hint=f"If you trust them, write trusted: [{', '.join(unknown)}]",
        )
    with ZipFile(io.BytesIO(body)) as held:
        held.extractall(folder)
    return named


def _load(folder: Path, trusted: Sequence[str]) -> Any:
    need("skops", extra="skops", why="to read an estimator that was kept without pickle")
    from skops import io as keeper

    packed = io.BytesIO()
    with ZipFile(packed, "w") as held:
        for file in sorted(folder.iterdir()):
            held.write(file, file.name)
    try:
        return keeper.loads(packed.getvalue(), trusted=list(trusted))
    except Exception as error:  # types nobody trusts, or a file that was changed
        raise ModelError(
            f"cannot read the estimator: {error}", where=str(folder), hint="Train it again"
        ) from error
