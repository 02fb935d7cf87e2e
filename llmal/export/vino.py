"""Runs an exported ONNX file with OpenVINO in bfloat16, on processors that compute in it."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llmal import extras
from llmal.errors import ModelError
from llmal.export.runtime import PROBES, Graph, probabilities, threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGES = ("openvino", "tokenizers")
"""What this backend needs beside llmal and numpy."""

TOLERANCE = 0.05
"""Largest difference of a probability of `PROBES` from what the export states: a wrong kernel is far off."""

OUTSIDE = b"\n\x08location\x12"
"""How an ONNX file says that weights lie in another file; exports keep theirs inside."""


class Vino(Graph):
    """The same file and answers as `Graph`, but for rounding; attributes and errors are its own.

    Attributes:
        difference: largest difference of a probability of `PROBES` from what the export states.

    Raises:
        ModelError: also when the probabilities of `PROBES` differ by more than `TOLERANCE`.
    """

    extra: ClassVar[str] = "openvino"
    budget: ClassVar[int] = 512
    """Padded tokens of one batch: each stream has the cache of one core."""

    def __init__(self, folder: Path, about: dict[str, Any], kind: str) -> None:
        super().__init__(folder, about, "openvino")
        found = probabilities(self.logits(list(PROBES)), kind)
        try:
            self.difference = float(np.abs(found - np.array(about["probes"], np.float32)).max())
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "the export does not state what to check bfloat16 by",
                where=str(folder),
                hint='Load it with backend="onnx"',
            ) from error
        if not self.difference <= TOLERANCE:  # holds for NaN too
            raise ModelError(
                f"in bfloat16 a probability differs by {self.difference:.2g} from what the export "
                f"states, more than {TOLERANCE:g}",
                where=str(folder),
                hint='Load it with backend="onnx"',
            )

    def _runtime(self, why: str) -> Any:
        return extras.openvino(why=why)

    def _open(self, runtime: Any, file: Path) -> int:
        body = file.read_bytes()
        if OUTSIDE in body:
            raise ValueError("its weights lie in another file")
        streams = threads() or os.cpu_count() or 1
        options = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_CPU_PINNING": False,  # other work on the machine may hold a core
        }
        core = runtime.Core()
        model = core.read_model(model=body, weights=b"")
        self.session = core.compile_model(model, "CPU", options)
        self.queue = runtime.AsyncInferQueue(self.session, streams)
        self.queue.set_callback(_keep)
        self.alone = threading.Lock()
        return int(model.output(0).get_partial_shape()[1].get_length())

    def logits(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, C) scores; as many batches at once as there are streams."""
        with self.alone:
            return super().logits(texts)

    def _run(self, rows: Any, ids: NDArray[np.int64], mask: NDArray[np.int64], out: Any) -> None:
        self.queue.start_async({"input_ids": ids, "attention_mask": mask}, (out, rows))

    def _finish(self) -> None:
        self.queue.wait_all()


def _keep(request: Any, place: tuple[NDArray[np.float32], Any]) -> None:
    out, rows = place
    out[rows] = request.get_output_tensor(0).data


def usable(about: dict[str, Any]) -> bool:
    """Whether it is installed, pays here (bfloat16 in hardware), and can be checked by the export."""
    if (
        not isinstance(about, dict)
        or "probes" not in about
        or not all(importlib.util.find_spec(package) for package in PACKAGES)
    ):
        return False
    core = extras.openvino(why="").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
