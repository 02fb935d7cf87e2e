"""Loads an exported folder and predicts: `llmal.load(folder).predict(texts)`."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmal import weights
from llmal.errors import MissingExtra, ModelError, UserError
from llmal.export.runtime import FILES, FORMAT, PACKAGES, Graph, probabilities
from llmal.text import repaired

# Where an export is only served, pydantic and all that is built on it need not be installed.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmal.records import LabelSchema


class Predictor:
    """An exported classifier.

    Attributes:
        labels: the C label names, in the column order of `predict_proba`.
        kind: `single` or `multi`.
        threshold: probability from which the run asked no person, or None.
        thresholds: label -> the same for that answer, where the run certified each label for itself.
        certificate: what the run promised, as in `llmal.json`, or None where it promised nothing.
        reference: confidences and answers to texts the student has not learnt from, to see drift by.
        backend: what computes: `openvino`, `onnx`, `int8`, or `torch` (the student as it was trained).
    """

    def __init__(self, folder: Path, about: dict[str, Any], backend: str | None = None) -> None:
        self.folder = folder
        self.kind = about["kind"]
        self.labels: list[str] = [label["name"] for label in about["labels"]]
        self.threshold: float | None = about["threshold"]
        self.thresholds: dict[str, float | None] | None = about.get("thresholds")
        self.certificate: dict[str, Any] | None = about.get("certificate")
        self.reference: dict[str, Any] | None = about.get("reference")
        self._about = about
        self._encoder: Any = None
        self.backend, self._graph = _graph(folder, about, backend)
        if self._graph is None:
            try:
                self._model = self._student(about)
            except ModuleNotFoundError as error:
                raise MissingExtra(
                    f"the package {error.name} is needed for this classifier",
                    where=str(folder),
                    hint="Install it with: pip install llmal",
                ) from error

    def _student(self, about: dict[str, Any]) -> Any:
        if about["student"] == "finetune":
            from llmal.train.finetune import TransformerModel

            model = TransformerModel.load(self.folder, self.kind, about["max_length"])
            model.exact = "onnx" in about  # one export, one answer, whatever computes it
            return model
        if about["student"] != "estimator" or about["encoder"] is not None:
            self._encoder = _encoder(self.folder, about["encoder"])
        if (self.folder / "encoder").is_dir():
            self._encoder = self._encoder.loaded_from(self.folder / "encoder")
        if "onnx" in about and hasattr(self._encoder, "precision"):
            self._encoder = self._encoder.model_copy(update={"precision": "float32"})
        if about["student"] == "estimator":
            from llmal.train.fitted import EstimatorModel

            return EstimatorModel.load(self.folder)
        from llmal.train.linear import LinearModel

        return LinearModel.load(self.folder)

    @cached_property
    def schema(self) -> LabelSchema:
        """Names and descriptions of the classes."""
        from llmal.records import Label, LabelSchema

        return LabelSchema(self.kind, tuple(Label(**label) for label in self._about["labels"]), False)

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities: (n, C) float32; rows sum to 1 when single label.

        Raises:
            UserError: not a sequence of texts.
        """
        texts = _read(texts)
        if self._graph is not None:
            return probabilities(self._graph.logits(texts), self.kind)
        from llmal.train.stage import Examples

        vectors = self._encoder.encode(texts) if self._encoder is not None else None
        probs: NDArray[np.float32] = self._model.predict_proba(Examples(texts, vectors))
        return probs

    def accepts(self, labels: Sequence[str], confidence: float) -> bool | None:
        """Whether the run would have asked nobody about an answer of this confidence (see `answers.best`).

        None where the run had no threshold; never where it promised something and could not certify it.
        """
        bar = self.threshold
        if self.thresholds is not None:
            bar = self.thresholds.get(labels[0]) if len(labels) == 1 else None
        if bar is None:
            return None if self.certificate is None else False
        return confidence >= bar

    def predict(self, texts: Sequence[str]) -> list[Any]:
        """The answer for each text: a label name, or when multi label a tuple of names, maybe empty."""
        from llmal.answers import given

        answers = [given(row, self.labels, self.kind) for row in self.predict_proba(texts)]
        return [a[0] for a in answers] if self.kind == "single" else answers


def load(folder: str | Path, *, backend: str | None = None) -> Predictor:
    """Load an exported classifier; nothing in the folder is run.

    Args:
        folder: what `llmal run` or `llmal export` wrote.
        backend: `onnx`, `int8` and `openvino` run the ONNX file without importing torch or transformers,
            `torch` the student itself. When absent: `openvino` where it is installed and the processor
            computes in bfloat16, else `onnx`, else `torch`, as files and packages allow. `onnx` and `torch`
            give the same answers, `openvino` those of bfloat16; `int8` is used only when asked for by name.

    Raises:
        UserError: no `llmal.json` there, one of a newer llmal, or one that names code to import; no such
            backend, or the export has no file for it.
        MissingExtra: the backend's packages are not installed.
        ModelError: the folder could run code when read, or a file is not what it should be.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "llmal.json").read_text(encoding="utf-8"))
        missing = {"format", "student", "kind", "labels", "threshold"} - set(about)
        if missing:
            raise ValueError(f"llmal.json lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            "no exported classifier here", where=str(folder), hint="Name the folder of an export"
        ) from error
    if about["format"] > FORMAT:
        raise UserError(
            f"exported by a newer llmal (format {about['format']})", where=str(folder), hint="Upgrade llmal"
        )
    weights.refuse_code(str(folder))
    weights.refuse_auto_map(folder)
    return Predictor(folder, about, backend)


def _read(texts: Sequence[str]) -> list[str]:
    """The texts as the corpus was read: what no tokenizer can hold is replaced."""
    if isinstance(texts, str):
        raise UserError("one text was given where a list of texts is expected", hint="Write predict([text])")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(
                f"text {position} is no text but {type(text).__name__}",
                where="predict",
                hint="Leave such rows out, or write them as text",
            )
    return [repaired(text)[0] for text in texts]


def _graph(folder: Path, about: dict[str, Any], asked: str | None) -> tuple[str, Graph | None]:
    """The backend to use and the graph it runs: the one asked for, else the fastest that is as good."""
    if asked not in (None, "torch", *FILES):
        known = ", ".join(sorted(FILES))
        raise UserError(f"no backend called '{asked}'", where="backend", hint=f"Use {known} or torch")
    there = [name for name, file in FILES.items() if "onnx" in about and (folder / file).is_file()]
    if asked is None:
        return _fastest(folder, about, there)
    if asked == "torch":
        return asked, None
    if asked not in there:
        raise UserError(
            f"this export has no {FILES[asked]}",
            where=str(folder),
            hint="Export again with `export: onnx`" + (" and `int8: true`" if asked == "int8" else ""),
        )
    if asked != "openvino":
        return asked, Graph(folder, about["onnx"], asked)
    from llmal.export.vino import Vino

    return asked, Vino(folder, about["onnx"], about["kind"])


def _fastest(folder: Path, about: dict[str, Any], there: list[str]) -> tuple[str, Graph | None]:
    if "openvino" in there and importlib.util.find_spec("openvino"):
        from llmal.export.vino import Vino, usable

        try:
            if usable(about["onnx"]):
                return "openvino", Vino(folder, about["onnx"], about["kind"])
        except ModelError as error:
            warnings.warn(f"{error.message}, so OpenVINO is not used", RuntimeWarning, stacklevel=4)
    installed = all(importlib.util.find_spec(package) for package in PACKAGES)
    # Where nothing is installed, the lighter packages are the ones to ask for.
    if "onnx" in there and (installed or importlib.util.find_spec("torch") is None):
        return "onnx", Graph(folder, about["onnx"])
    return "torch", None


def _encoder(folder: Path, value: Any) -> Any:
    """The encoder a folder names: one that is registered here, never a module of the folder's choice."""
    from llmal.plugins import build, known

    name = value.get("use") if isinstance(value, dict) else value
    if not isinstance(name, str) or name not in known("embed"):
        raise UserError(
            f"the encoder '{name}' of this classifier is not installed",
            where=str(folder / "llmal.json"),
            hint="Install the package that registers it under the entry points `llmal.embed`",
        )
    return build("embed", value)
