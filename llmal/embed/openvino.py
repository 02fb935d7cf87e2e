"""The OpenVINO engine: a model converted once, kept in the user's cache, run in one stream a core."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmal import extras, weights

if TYPE_CHECKING:
    from llmal.embed.engine import Batch

FORMAT = 1
"""Raised when a converted model of an earlier llmal must not be used any more."""

TOKENS_A_BATCH = 512
"""Padded tokens of one batch: 6 % are padding then, with 2048 21 % (256 film reviews at once, 2026-11-21)."""

GROUP = 128
"""Values that share a scale in int8 activations: 64 kept .955 of ten neighbours, 128 .948, 384 .923."""

KEPT = 8
"""Converted models the cache holds; the one unused for longest makes room."""

FILES = ("model.xml", "model.bin")
"""What openvino writes: the graph, and the weights as plain numbers."""


class Compiled:
    """A model compiled for the processor, as many streams as threads, each batch run by one of them.

    Args:
        model: a SentenceTransformer of float32 weights.
        arithmetic: f32, bf16, or int8: weights a row, activations as they come in groups of `GROUP`.
    """

    budget = TOKENS_A_BATCH

    def __init__(self, model: Any, arithmetic: str) -> None:
        runtime = quiet_openvino()
        graph = converted(model, runtime)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if arithmetic != "f32" and weights.has_bf16("cpu") else "f32",
            "NUM_STREAMS": threads(),
            "INFERENCE_NUM_THREADS": threads(),
            "ENABLE_CPU_PINNING": False,  # other work on the machine may hold a core
        }
        if arithmetic == "int8":
            _to_int8(graph)
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(GROUP)
        self._compiled = runtime.Core().compile_model(graph, "CPU", options)
        self._queue = runtime.AsyncInferQueue(self._compiled, threads())
        self._queue.set_callback(_keep)
        self._alone = threading.Lock()

    def run(self, batches: Iterator[Batch], out: NDArray[np.float32]) -> None:
        """Write the vectors of each batch into its rows of `out`; batches are made as streams come free."""
        with self._alone:
            for batch in batches:
                self._queue.start_async([batch.ids, batch.mask], (out, batch.rows))
            self._queue.wait_all()


def _keep(request: Any, given: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    out, rows = given
    out[rows] = request.get_output_tensor(0).data


def threads() -> int:
    """Threads to use: `OMP_NUM_THREADS` where it is set, as torch reads it, else one a core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quiet_openvino() -> Any:
    """The package, its telemetry off: on import and on conversion it would otherwise report over the network.

    The second half is for a program that has imported openvino before: what converts models is given
    openvino's own stand-in for a missing `openvino_telemetry`.
    """
    runtime = extras.openvino(why="for `backend: openvino`")
    from openvino.tools.ovc import telemetry_stub

    for name, module in list(sys.modules.items()):
        if name.startswith("openvino.tools.ovc") and hasattr(module, "tm"):
            vars(module)["tm"] = telemetry_stub
    return runtime


def converted(model: Any, runtime: Any) -> Any:
    """The model as an OpenVINO graph of (ids, mask): from the cache where its weights are the same.

    The cache is a folder only the user can write to, holds no code, and is read only when the digests noted
    beside the files fit; without such a folder the model is converted each time.
    """
    parent = cache()
    if parent is None:
        return _convert(model, runtime)
    place = parent / _key(model, runtime)
    if not _whole(place):
        graph = _convert(model, runtime)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            runtime.save_model(graph, str(made / FILES[0]), compress_to_fp16=False)
            (made / "digests.json").write_text(json.dumps(_digests(made)), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            try:
                made.rename(place)
            except OSError:  # another process was quicker, or the disk is full: this one has its graph
                return graph
        _make_room(parent)
    os.utime(place)
    return runtime.Core().read_model(str(place / FILES[0]))


def cache() -> Path | None:
    """The user's cache folder for converted models; None where there is none of the user's own."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "llmal" / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = folder.stat()
    except OSError:
        return None
    foreign = hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022)
    return None if foreign or not os.access(folder, os.W_OK) else folder


def _make_room(parent: Path) -> None:
    """Remove converted models that were not used for longest, beyond `KEPT`."""
    places = [place for place in parent.iterdir() if (place / "digests.json").is_file()]
    for place in sorted(places, key=lambda place: place.stat().st_mtime_ns, reverse=True)[KEPT:]:
        shutil.rmtree(place, ignore_errors=True)


def _key(model: Any, runtime: Any) -> str:
    """Digest of the weights, the architecture and the converter."""
    import torch
    import transformers

    versions = [FORMAT, runtime.__version__, torch.__version__, transformers.__version__]
    digest = hashlib.sha256(json.dumps([*versions, repr(model)]).encode())
    config = {k: v for k, v in model[0].auto_model.config.to_dict().items() if k != "_name_or_path"}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def _whole(folder: Path) -> bool:
    """Whether a converted model is there as it was written."""
    try:
        noted = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
        return bool(noted == _digests(folder))
    except (OSError, ValueError):
        return False


def _convert(model: Any, runtime: Any) -> Any:
    import torch

    class Vectors(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model({"input_ids": input_ids, "attention_mask": attention_mask})[
                "sentence_embedding"
            ]

    # Two rows of different length: with one row, or without a gap, the trace would take that for a rule.
    ids = torch.full((2, 8), int(model.tokenizer.pad_token_id), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with weights.hushed(), torch.no_grad():
        return runtime.convert_model(Vectors().eval(), example_input=(ids, mask))


def _to_int8(graph: Any) -> None:
    """Keep the weights of every linear layer as int8 with a scale a row. Source: Jacob et al. 2018."""
    import openvino.opset13 as ops

    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
            continue
        constant = node.input(1).get_source_output().get_node()
        if constant.get_type_name() != "Constant" or len(constant.get_output_shape(0)) != 2:
            continue
        weight = np.asarray(constant.get_data(), np.float32)
        scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12) / 127
        small = ops.constant(np.round(weight / scale).astype(np.int8))
        made = ops.multiply(ops.convert(small, "f32"), ops.constant(scale.astype(np.float32)))
        node.input(1).replace_source_output(made.output(0))
