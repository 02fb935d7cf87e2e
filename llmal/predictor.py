"""Loads an exported folder and predicts: `llmal.load(folder).predict(texts)`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmal.errors import UserError
from llmal.export.transformers import FORMAT
from llmal.records import Label, LabelSchema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Predictor:
    """An exported classifier.

    Attributes:
        labels: the C label names, in the column order of `predict_proba`.
        kind: `single` or `multi`.
        schema: names and descriptions of the classes.
        threshold: probability from which the run asked no person, or None.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.kind = about["kind"]
        self.labels: list[str] = [label["name"] for label in about["labels"]]
        self.threshold: float | None = about["threshold"]
        self.schema = LabelSchema(about["kind"], tuple(Label(**label) for label in about["labels"]), False)
        self._encoder: Any = None
        if about["student"] == "finetune":
            from llmal.train.finetune import TransformerModel

            self._model: Any = TransformerModel.load(folder, self.kind, about["max_length"])
        else:
            from llmal.train.linear import LinearModel

            self._model = LinearModel.load(folder)
            encoder = _encoder(folder, about["encoder"])
            if (folder / "encoder").is_dir():
                encoder = encoder.loaded_from(folder / "encoder")
            self._encoder = encoder

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities: (n, C) float32; rows sum to 1 when single label."""
        from llmal.train.stage import Examples

        texts = list(texts)
        vectors = self._encoder.encode(texts) if self._encoder is not None else None
        probs: NDArray[np.float32] = self._model.predict_proba(Examples(texts, vectors))
        return probs

    def predict(self, texts: Sequence[str]) -> list[Any]:
        """The answer for each text: a label name, or when multi label a tuple of names, maybe empty."""
        from llmal.answers import best

        answers = [best(row, self.schema)[0] for row in self.predict_proba(texts)]
        return [a[0] for a in answers] if self.kind == "single" else answers


def load(folder: str | Path) -> Predictor:
    """Load an exported classifier; nothing in the folder is run.

    Args:
        folder: what `llmal run` or `llmal export` wrote.

    Raises:
        UserError: no `llmal.json` there, one of a newer llmal, or one that names code to import.
        ModelError: the weights could run code when read.
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
    return Predictor(folder, about)


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
