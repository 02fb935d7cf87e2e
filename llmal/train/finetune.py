"""Fine-tunes a small transformer into a classifier that plain transformers loads: the student to ship."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal import weights
from llmal.context import Context
from llmal.records import LabelSchema
from llmal.train.stage import Examples, Model, Student

if TYPE_CHECKING:
    import torch

TOKENS_A_BATCH = 4096
"""Padded tokens of one batch at prediction: keeps two cores busy without outgrowing their caches."""

MIN_STEPS = 150
"""Optimiser steps a small data set gets at least: below it the head of a fresh classifier has not settled."""


class Finetune(Student):
    """A pre-trained encoder with a fresh classification head, all weights trained.

    AdamW, linear warm-up and decay, gradient clipping; batches of similar length; bfloat16 arithmetic on
    hardware that has it. Re-initialised every time: warm starts hurt. Source: Devlin et al. 2019; schedule as
    in Mosbach et al. 2021 (longer training at a small rate is what stabilises small data).
    """

    model: str = Field(weights.DEFAULT_ENCODER, description="hub name or folder of an encoder")
    epochs: int = Field(4, ge=1, description="passes over the data, more where that is fewer than 150 steps")
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps over which the rate rises")
    smoothing: float = Field(
        0.05, ge=0, lt=1, description="label smoothing: share of each target spread over all classes"
    )
    freeze_words: bool = Field(
        True, description="leave word embeddings as pre-trained: about half the weights"
    )
    max_length: int = Field(256, ge=8, le=8192, description="tokens of a text; longer ones are cut")

    def fit(
        self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context
    ) -> TransformerModel:
        """Train on texts, targets (soft ones too) and weights."""
        import torch

        assert examples.targets is not None
        assert examples.weights is not None
        keep = np.flatnonzero(examples.weights > 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            network, tokenizer = _fresh(self.model, schema)
            model = TransformerModel(network, tokenizer, schema.kind, self.max_length)
            tokens = _cut(model.tokenize([examples.texts[i] for i in keep]))
            self._train(model, tokens, examples.targets[keep], examples.weights[keep], rng, ctx)
        return model

    def load(self, folder: Path, schema: LabelSchema) -> TransformerModel:
        """A fitted student from a transformers folder."""
        return TransformerModel.load(folder, schema.kind, self.max_length)

    def _train(
        self,
        model: TransformerModel,
        tokens: list[list[int]],
        y: NDArray[np.float32],
        w: NDArray[np.float32],
        rng: np.random.Generator,
        ctx: Context,
    ) -> None:
        import torch

        steps_an_epoch = -(-len(tokens) // self.batch_size)
        epochs = max(self.epochs, -(-MIN_STEPS // steps_an_epoch))
        total = epochs * steps_an_epoch
        model.network.get_input_embeddings().requires_grad_(not self.freeze_words)
        learnt = [w for w in model.network.parameters() if w.requires_grad]
        optimiser = torch.optim.AdamW(learnt, self.learning_rate, weight_decay=self.weight_decay, fused=True)
        rise = max(1, int(self.warmup * total))
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / rise, (total - step) / max(1, total - rise))
        )
        model.network.train()
        with ctx.progress.task("train finetune", total) as advance:
            for _ in range(epochs):
                for rows in _batches([len(t) for t in tokens], self.batch_size, rng):
                    loss = self._loss(model, [tokens[i] for i in rows], y[rows], w[rows])
                    optimiser.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(learnt, 1.0)
                    optimiser.step()
                    rate.step()
                    advance(1, note=f"loss {loss.item():.3f}")
        model.network.eval()

    def _loss(
        self, model: TransformerModel, tokens: list[list[int]], y: NDArray[np.float32], w: NDArray[np.float32]
    ) -> torch.Tensor:
        import torch

        logits = model.logits(tokens)
        target = torch.from_numpy(y).to(logits.device)
        if model.kind == "single":
            target = target * (1 - self.smoothing) + self.smoothing / target.shape[1]
            each = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
        else:
            target = target * (1 - self.smoothing) + self.smoothing / 2
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, target, reduction="none"
            ).mean(dim=1)
        weight = torch.from_numpy(w).to(logits.device)
        return (each * weight).sum() / weight.sum()


class TransformerModel(Model):
    """A sequence classifier with its tokenizer; `kind` says whether its outputs exclude each other."""

    def __init__(self, network: Any, tokenizer: Any, kind: str, max_length: int) -> None:
        self.network = network.to(_device())
        self.tokenizer = tokenizer
        self.kind = kind
        positions = getattr(network.config, "max_position_embeddings", None) or max_length
        self.max_length = min(max_length, tokenizer.model_max_length, positions)
        # Plain transformers cuts where the student does, once asked to cut.
        tokenizer.model_max_length = self.max_length
        # Texts are tokenized first and sorted before padding, which the library would warn about.
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, cut to `max_length`."""
        ids: list[list[int]] = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        return ids

    def logits(self, tokens: list[list[int]]) -> torch.Tensor:
        """(n, C) float32 scores of texts given as token ids."""
        import torch

        device = next(self.network.parameters()).device
        batch = self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=_has_bf16(device.type)):
            out: torch.Tensor = self.network(**batch).logits
        return out.float()

    def predict_proba(self, examples: Examples) -> NDArray[np.float32]:
        """(n, C) probabilities from texts; batches of similar length."""
        import torch

        tokens = self.tokenize(examples.texts) if examples.texts else []
        out = np.zeros((len(tokens), self.network.config.num_labels), np.float32)
        self.network.eval()
        with torch.inference_mode():
            for rows in _by_length([len(t) for t in tokens]):
                logits = self.logits([tokens[i] for i in rows])
                probs = torch.softmax(logits, dim=1) if self.kind == "single" else torch.sigmoid(logits)
                out[rows] = probs.cpu().numpy()
        return out

    def save(self, folder: Path) -> None:
        """Write a transformers folder: safetensors, config with `id2label`, tokenizer."""
        with weights.quiet():
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, kind: str, max_length: int) -> TransformerModel:
        """Read what `save` wrote; nothing in the folder is ever run."""
        network, tokenizer = _pretrained(str(folder))
        network.eval()
        return cls(network, tokenizer, kind, max_length)


def _pretrained(name: str, **options: Any) -> tuple[Any, Any]:
    """Network and tokenizer from safetensors, without remote code."""
    weights.refuse_code(name)
    safe = {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}
    with weights.quiet():  # "some weights are newly initialised" is the point
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            network = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True, **safe, **options
            )
            return network.float(), AutoTokenizer.from_pretrained(name, **safe)
        except OSError as error:
            raise weights.unreachable(name) from error
        except ValueError as error:
            raise weights.unusable(name, error) from error


def _fresh(name: str, schema: LabelSchema) -> tuple[Any, Any]:
    labels = dict(enumerate(schema.names))
    return _pretrained(
        weights.resolve(name),
        num_labels=len(labels),
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
        problem_type="single_label_classification"
        if schema.kind == "single"
        else "multi_label_classification",
    )


def _device() -> str:
    """The GPU when there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _has_bf16(device: str) -> bool:
    """Whether bfloat16 is faster than float32 here; without hardware for it, it is many times slower."""
    import torch

    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device == "cuda" and torch.cuda.is_bf16_supported()


def _cut(tokens: list[list[int]]) -> list[list[int]]:
    """Training texts cut to the 95th percentile of their lengths, the closing token kept.

    One very long text pads its whole batch to its own length.
    """
    longest = int(np.percentile([len(t) for t in tokens], 95, method="higher"))
    return [t if len(t) <= longest else t[: longest - 1] + t[-1:] for t in tokens]


def _batches(lengths: list[int], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Random batches of texts of similar length.

    Shuffled, sorted within stretches of 32 batches, batches shuffled.
    """
    order = rng.permutation(len(lengths))
    every = np.array(lengths)
    stretches = [order[i : i + 32 * size] for i in range(0, len(order), 32 * size)]
    batches = [
        s[i : i + size]
        for s in (s[np.argsort(every[s], kind="stable")] for s in stretches)
        for i in range(0, len(s), size)
    ]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _by_length(lengths: list[int]) -> Iterator[NDArray[np.int64]]:
    """Batches of at most `TOKENS_A_BATCH` padded tokens, longest texts first."""
    order = np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, TOKENS_A_BATCH // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
