"""The transformers folder, and beside it an ONNX file that runs without torch, checked against it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.errors import LlmalError
from llmal.export import graph
from llmal.export.runtime import FILES, PACKAGES, PROBES, Graph, probabilities
from llmal.export.stage import Parcel
from llmal.export.transformers import Transformers
from llmal.extras import need

TOLERANCE = 1e-4
"""Largest difference of a probability between ONNX and torch with which an export goes out."""

ODD = (
    "",
    " ",
    "a",
    "😀 👩‍👩‍👧‍👦 é e\u0301 \u202eabc\u202c",
    "\x00\x01\x07\x1b[31m\x7f\ufeff\u200b",
    "[CLS] [SEP] [PAD] <s> </s> <pad> <|endoftext|>",
    "word " * 3000,
)
"""Texts the two must agree on beside the corpus: empty, emoji, control characters, special tokens, long."""


class Onnx(Transformers):
    """All that `transformers` writes, and `model.onnx`: `llmal.load` needs neither torch nor transformers.

    A linear student becomes one graph with its encoder. A student that needs no torch anyway (linear on
    `embed: hashing`) is shipped as it is. Source: the ONNX standard, by torch.onnx and onnxruntime.
    """

    int8: bool = Field(
        False, description="write model.int8.onnx too: smaller and faster, and its answers differ a little"
    )

    def export(self, parcel: Parcel, folder: Path) -> None:
        """Write into an existing, empty folder.

        Raises:
            MissingExtra: a package of the extra `onnx` is not installed.
            UserError: the student is of a kind this exporter cannot ship.
            LlmalError: the ONNX file answers otherwise than the student.
        """
        for package in ("onnx", "onnxscript", *PACKAGES):
            need(package, extra="onnx", why="for `export: onnx`")
        super().export(parcel, folder)
        if parcel.kind == "estimator" or (parcel.headed and not (folder / "encoder").is_dir()):
            return
        source = graph.linear(folder) if parcel.headed else graph.classifier(folder, parcel.max_length)
        about = _described(source, parcel, folder)
        graph.convert(source, folder / FILES["onnx"])
        texts = [*parcel.texts, *ODD]
        wanted = probabilities(source.logits(texts), parcel.schema.kind)
        made = Graph(folder, about)
        about |= _compared(made, texts, wanted, parcel)
        if not about["difference"] <= TOLERANCE:  # holds for NaN too
            raise LlmalError(
                f"the ONNX file answers otherwise than the student: a probability differs by "
                f"{about['difference']:.2g}, more than {TOLERANCE:g}",
                where="export",
                hint="Ship it with `export: transformers`",
            )
        probes = probabilities(made.logits(list(PROBES)), parcel.schema.kind)
        about["probes"] = [[round(float(p), 6) for p in row] for row in probes]
        if self.int8:
            graph.to_int8(folder / FILES["onnx"], folder / FILES["int8"])
            about["int8"] = _compared(Graph(folder, about, "int8"), texts, wanted, parcel)
        _written(folder, about)

    def libraries(self, parcel: Parcel, folder: Path) -> list[str]:
        """The packages whose versions the card states."""
        return [*super().libraries(parcel, folder), "onnx", "onnxruntime"]


def _described(source: graph.Source, parcel: Parcel, folder: Path) -> dict[str, Any]:
    """How to make the graph's input from a text; puts `tokenizer.json` at the top of the folder."""
    if parcel.headed and (folder / "encoder" / "tokenizer.json").is_file():
        shutil.copy2(folder / "encoder" / "tokenizer.json", folder / "tokenizer.json")
    if not (folder / "tokenizer.json").is_file():
        raise LlmalError(
            "this encoder's tokenizer runs in transformers only (it has no tokenizer.json)",
            where="export",
            hint="Ship it with `export: transformers`",
        )
    return {
        "max_length": int(source.max_length),
        "truncate": source.tokenizer.truncation_side,
        "pad": int(source.tokenizer.pad_token_id or 0),
        "pad_side": source.tokenizer.padding_side,
    }


def _compared(made: Graph, texts: list[str], wanted: NDArray[np.float32], parcel: Parcel) -> dict[str, Any]:
    """Largest difference of a probability, and the share of the corpus' texts with the same answer."""
    found = probabilities(made.logits(texts), parcel.schema.kind)
    if parcel.schema.kind == "single":
        same = found.argmax(axis=1) == wanted.argmax(axis=1)
    else:
        same = ((found >= 0.5) == (wanted >= 0.5)).all(axis=1)
    real = len(parcel.texts) or len(texts)
    return {
        "texts": len(texts),
        "difference": float(np.abs(found - wanted).max()),
        "agreement": float(same[:real].mean()),
    }


def _written(folder: Path, onnx: dict[str, Any]) -> None:
    """Add the part `onnx` to `llmal.json`, and a section to the card."""
    file = folder / "llmal.json"
    about = json.loads(file.read_text(encoding="utf-8")) | {"onnx": onnx}
    file.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "## ONNX",
        "",
        f"`{FILES['onnx']}` is the same classifier in float32 for onnxruntime; with `tokenizer.json` and "
        "`llmal.json` it is all that `llmal.load` needs.",
        "",
        f"- Against torch in float32 on {onnx['texts']} texts, a probability differed by "
        f"{onnx['difference']:.1g} at most.",
        "- Where openvino is installed and the processor has bfloat16, `llmal.load` computes in that, once "
        "its answers to eight texts were near those stated in `llmal.json`.",
    ]
    if "int8" in onnx:
        small = onnx["int8"]
        lines.append(
            f'- `{FILES["int8"]}` (asked for with `backend="int8"`) gave the same answer to '
            f"{small['agreement']:.1%} of the corpus' texts among them; a probability differed by "
            f"{small['difference']:.2g} at most, and depends on the texts beside it. "
            "The measures above are not its own."
        )
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write("\n" + "\n".join(lines) + "\n")
