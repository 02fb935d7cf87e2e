"""From a fitted student's folder to an ONNX graph: token ids and mask in, one score a class out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal import weights
from llmal.errors import UserError
from llmal.extras import need

LARGEST = 1_900_000_000
"""Bytes of weights one ONNX file holds: protocol buffers end at 2 GiB."""

BATCH = 16
"""Texts of one forward pass of the reference."""


class Source(NamedTuple):
    """A student in torch, on the processor, in float32.

    Attributes:
        network: torch module of (ids, mask), both (n, tokens) int64, to (n, C) scores.
        tokenizer: of transformers, a fast one.
        max_length: tokens of a text it reads.
        logits: texts to (n, C) scores by the student's own libraries; what the graph is compared with.
    """

    network: Any
    tokenizer: Any
    max_length: int
    logits: Callable[[list[str]], NDArray[np.float32]]


def classifier(folder: Path, max_length: int | None) -> Source:
    """A fine-tuned student from its transformers folder; nothing in the folder is run."""
    import torch

    weights.refuse_code(str(folder))
    with weights.quiet():
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        safe = {"trust_remote_code": False, "local_files_only": True}
        name = str(folder)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(name, use_safetensors=True, **safe)
            tokenizer = AutoTokenizer.from_pretrained(name, **safe)
        except OSError as error:
            raise weights.unreachable(name) from error
        except ValueError as error:
            raise weights.unusable(name, error) from error
    model = model.float().eval()
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    longest = min(max_length or positions, tokenizer.model_max_length, positions)

    class Scores(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    def logits(texts: list[str]) -> NDArray[np.float32]:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                batch = tokenizer(
                    texts[start : start + BATCH],
                    truncation=True,
                    max_length=longest,
                    padding=True,
                    return_tensors="pt",
                )
                parts.append(model(**batch).logits.numpy())
        return np.concatenate(parts)

    return Source(Scores().eval(), tokenizer, longest, logits)


def linear(folder: Path) -> Source:
    """Encoder and head of a linear student as one network, from an export of it.

    Pooling is the encoder's own; vectors are brought to length 1, as the head was fitted on.

    Raises:
        UserError: the encoder is not a sentence-transformers model.
    """
    import torch
    from safetensors.torch import load_file

    if not (folder / "encoder" / "modules.json").is_file():
        raise UserError(
            "only sentence-transformers encoders can become ONNX",
            where="export",
            hint="Use `export: transformers`, or another `embed:`",
        )
    model = weights.sentence_model(str(folder / "encoder"), device="cpu").float().eval()
    head = load_file(folder / "head.safetensors")

    class Scores(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.head = torch.nn.Linear(*reversed(head["coef"].shape))
            self.head.load_state_dict({"weight": head["coef"], "bias": head["bias"]})

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            pooled = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return self.head(torch.nn.functional.normalize(pooled["sentence_embedding"], dim=1))

    def logits(texts: list[str]) -> NDArray[np.float32]:
        vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        scores: NDArray[np.float32] = vectors @ head["coef"].numpy().T + head["bias"].numpy()
        return scores

    tokenizer = model.tokenizer
    return Source(Scores().eval(), tokenizer, min(model.max_seq_length, tokenizer.model_max_length), logits)


def convert(source: Source, file: Path) -> None:
    """Write the graph in float32, batch and length free, weights inside the file.

    What torch notes about its sources (places on this machine) is left out.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        UserError: the weights do not fit into one file.
    """
    for package in ("onnx", "onnxscript"):
        need(package, extra="onnx", why="for `export: onnx`")
    import torch

    if sum(w.numel() * 4 for w in source.network.parameters()) > LARGEST:
        raise UserError(
            "the student is too large for one ONNX file (2 GB)",
            where="export",
            hint="Use `export: transformers`, or a smaller encoder",
        )
    # Two rows of different length: with one row, or without a gap, torch would take that for a rule.
    ids = torch.full((2, 8), int(source.tokenizer.pad_token_id or 0), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    with weights.hushed(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            source.network,
            (ids, mask),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            verbose=False,
        )
        assert program is not None
        _forget_sources(program.model)
        program.save(file, external_data=False)


def _forget_sources(model: Any) -> None:
    """Drop the notes of where each node came from."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
    model.metadata_props.clear()


def to_int8(file: Path, out: Path) -> None:
    """Write the graph with int8 weights and activations scaled as they come (dynamic quantization).

    The scales are those of a whole batch, so a text's probabilities depend a little on the texts beside it.
    One bit of the weights is left unused: processors without VNNI overflow otherwise, and would answer
    differently. Source: Jacob et al. 2018.
    """
    onnx, _ = (need(name, extra="onnx", why="for `int8: true`") for name in ("onnx", "onnxruntime"))
    model = onnx.load(file)
    model.graph.ClearField("value_info")  # the shapes torch noted; the quantizer turns some tensors round
    with weights.hushed():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(model, out, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
