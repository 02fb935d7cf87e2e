"""Students to export, made without training: loud random weights, so every class is some text's answer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from llmal.embed.hashing import Hashing
from llmal.embed.sentence import Sentence
from llmal.export.stage import Parcel
from llmal.records import Label, LabelSchema
from llmal.testing.contracts.ship import FACTS
from llmal.testing.tiny import tiny_bert
from llmal.train.finetune import TransformerModel, _fresh
from llmal.train.linear import LinearModel

WORDS = ("rose", "ruby", "rust", "grass", "leaf", "lime", "sky", "sea", "ink", "salt", "iron", "wool")
MAX_LENGTH = 48
"""Tokens the fine-tuned student reads; many of `texts` are longer."""


def texts(n: int, seed: int = 0) -> list[str]:
    """`n` made-up texts of 1 to 90 words, some of them not in the vocabulary."""
    rng = random.Random(seed)
    words = [*WORDS, "unheard", "of!", "Ünïcode"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 90))) for _ in range(n)]


def schema_of(n: int, kind: str = "single") -> LabelSchema:
    """`n` classes called `class 0` and so on."""
    return LabelSchema(kind, tuple(Label(name=f"class {i}") for i in range(n)), False)  # type: ignore[arg-type]


def tiny_sentence(folder: Path) -> Path:
    """Write a sentence-transformers folder over the tiny BERT: mean pooling, 32 numbers a text."""
    tiny_bert(folder, WORDS)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return folder


def finetuned(folder: Path, schema: LabelSchema, *, cut: str = "right") -> Parcel:
    """A parcel with a transformers student that cuts long texts at the side `cut`."""
    network, tokenizer = _fresh(str(tiny_bert(folder / "tiny", WORDS)), schema)
    tokenizer.truncation_side = cut
    model = TransformerModel(network.eval(), tokenizer, schema.kind, MAX_LENGTH)
    _spread(model, network.classifier)
    return _parcel(folder, "finetune", model, Hashing(dim=64), schema)


def linear(folder: Path, schema: LabelSchema) -> Parcel:
    """A parcel with a linear student on a sentence encoder."""
    encoder = Sentence(model=str(tiny_sentence(folder / "encoder")))
    coef = np.random.default_rng(0).normal(0, 40, (len(schema.names), 32)).astype(np.float32)
    # Vectors of one untrained encoder lie close together: take their mean away.
    bias = -coef @ encoder.encode(texts(300)).mean(axis=0)
    link = "softmax" if schema.kind == "single" else "sigmoid"
    return _parcel(folder, "linear", LinearModel(coef, bias, link), encoder, schema)


def _parcel(folder: Path, kind: str, model: Any, encoder: Any, schema: LabelSchema) -> Parcel:
    source = folder / "student"
    source.mkdir(parents=True)
    model.save(source)
    length = MAX_LENGTH if kind == "finetune" else None
    return Parcel(source, kind, encoder, schema, 0.9, length, FACTS, tuple(texts(40)))


def _spread(model: TransformerModel, head: Any) -> None:
    """Louder layers, centred scores: an untrained network gives nearly one answer to every text."""
    import torch

    model.exact = True
    with torch.inference_mode():
        for name, weight in model.network.named_parameters():
            if weight.dim() == 2 and "embeddings" not in name:
                weight.mul_(8.0)
        scores = model.logits(model.tokenize(texts(300)))
    head.weight.data.mul_((2.0 / scores.std(dim=0))[:, None])
    head.bias.data.copy_(-(scores.mean(dim=0) * 2.0 / scores.std(dim=0)))
