"""Runs an exported ONNX file with numpy, tokenizers and onnxruntime: no torch, no transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llmal.batching import by_length, padded
from llmal.errors import ModelError
from llmal.extras import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
"""Of `llmal.json`; `llmal.load` refuses newer ones."""

FILES = {"onnx": "model.onnx", "int8": "model.int8.onnx", "openvino": "model.onnx"}
"""Backend -> the file it runs, always at the top of an export."""

PACKAGES = ("onnxruntime", "tokenizers")
"""What the backends `onnx` and `int8` need beside llmal and numpy."""

PROBES = (
    "",
    "I would buy this again; it arrived early and works well.",
    "Do not waste your money: it broke after two days, and nobody answers.",
    "The committee meets on Tuesday to discuss the budget for next year.",
    "How far is it from the station to the museum?",
    "Der Zug nach Wien hatte gestern eine Stunde Verspätung.",
    "ok",
    "word " * 400,
)
"""Texts whose probabilities an export states, so that a machine can check itself before it answers others."""


class Graph:
    """A classifier as an ONNX file with its tokenizer.

    The file cannot reach out of its folder: onnxruntime refuses weights kept elsewhere, and an ONNX file
    holds operators of a fixed list, no code.

    Args:
        folder: holds the ONNX file and `tokenizer.json`.
        about: the `onnx` part of `llmal.json`.
        backend: a key of `FILES`.

    Raises:
        MissingExtra: a package is not installed.
        ModelError: a file is not what it should be.
    """

    extra: ClassVar[str] = "onnx"
    budget: ClassVar[int] = 2048
    """Padded tokens of one batch: enough to fill the cores, little enough for their caches."""

    def __init__(self, folder: Path, about: dict[str, Any], backend: str = "onnx") -> None:
        runtime = self._runtime(f"to run {FILES[backend]}")
        tokenizers = need("tokenizers", extra=self.extra, why=f"to run {FILES[backend]}")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.tokenizer.enable_truncation(int(about["max_length"]), direction=about["truncate"])
            self.tokenizer.no_padding()
            self.pad, self.left = int(about["pad"]), about["pad_side"] == "left"
            self.classes = self._open(runtime, folder / FILES[backend])
        except Exception as error:  # either library raises bare exceptions of its own
            raise ModelError(
                f"cannot read the exported classifier: {' '.join(str(error).split())[:300]}",
                where=str(folder),
                hint="Export it again",
            ) from error

    def logits(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, C) scores; batches of similar length, padded to the longest text of the batch."""
        tokens = [coded.ids for coded in self.tokenizer.encode_batch(texts)]
        out = np.zeros((len(tokens), self.classes), np.float32)
        for rows in by_length([len(ids) for ids in tokens], self.budget):
            self._run(rows, *padded([tokens[i] for i in rows], self.pad, left=self.left), out)
        self._finish()
        return out

    def _runtime(self, why: str) -> Any:
        return need("onnxruntime", extra=self.extra, why=why)

    def _open(self, runtime: Any, file: Path) -> int:
        """Load the file, on the processor: results then do not depend on which accelerator is there."""
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors; they are raised as well
        options.intra_op_num_threads = threads()
        self.session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return int(self.session.get_outputs()[0].shape[1])

    def _run(self, rows: Any, ids: NDArray[np.int64], mask: NDArray[np.int64], out: Any) -> None:
        """Write the scores of one batch into its rows of `out`, at the latest when `_finish` is called."""
        out[rows] = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    def _finish(self) -> None:
        """Wait for batches that are under way."""


def threads() -> int:
    """Threads to compute with: `OMP_NUM_THREADS` where it is a number, as torch reads it; 0: one a core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() else 0


def probabilities(logits: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Scores (n, C) to probabilities: rows sum to 1 when `kind` is single, each column alone when multi."""
    scores = logits.astype(np.float64)
    if kind == "multi":
        return np.asarray(0.5 * (1 + np.tanh(scores / 2)), np.float32)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)
