"""Few-shot: the sentence encoder is tuned on pairs of texts, then a logistic regression reads its vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal import weights
from llmal.context import Context
from llmal.records import LabelSchema
from llmal.train.linear import Linear, LinearModel
from llmal.train.loop import rate
from llmal.train.pairs import Pairs, batches, pairs_of
from llmal.train.stage import Examples, Model, Student

WEIGHT_DECAY = 0.01
"""Of AdamW, as sentence-transformers' own training has it."""


class SetFit(Student):
    """A sentence encoder that learns which texts belong together, with a logistic regression on its vectors.

    The cosine of a pair is drawn to 1 where the two share a label and to 0 where they do not (mean squared
    error; soft targets give the probability between). With one class, or one text of each, nothing can be
    contrasted and the encoder stays as it is. Made for 8 to 64 texts a class: its time grows with the
    square of their number up to the cap, and wrong labels count twice. Source: Tunstall et al. 2022 (SetFit).
    """

    model: str = Field(weights.DEFAULT_ENCODER, description="hub name or folder of a sentence encoder")
    pairs: int = Field(20, ge=1, description="most pairs a text, of those alike and of those unlike")
    epochs: int = Field(1, ge=1, description="passes over the pairs")
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps over which the rate rises")
    balanced: bool = Field(False, description="weigh classes inversely to how often they occur")
    max_length: int = Field(256, ge=8, le=8192, description="tokens of a text; longer ones are cut")

    def fit(
        self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context
    ) -> SetFitModel:
        """Tune the encoder on texts, targets (soft ones too) and weights, then fit the regression."""
        import torch

        assert examples.targets is not None
        assert examples.weights is not None
        keep = np.flatnonzero(examples.weights > 0)
        texts = [examples.texts[i] for i in keep]
        y, w = examples.targets[keep], examples.weights[keep]
        encoder = weights.sentence_model(self.model).float()
        encoder.max_seq_length = min(encoder.max_seq_length or self.max_length, self.max_length)
        made = pairs_of(y, schema.kind, self.pairs, rng)
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            self._tune(encoder, texts, made, w, rng, ctx)
        head = Linear(balanced=self.balanced).fit(
            Examples(texts, encode(encoder, texts), y, w), schema, rng, ctx
        )
        return SetFitModel(encoder, head)

    def load(self, folder: Path, schema: LabelSchema) -> SetFitModel:
        """A fitted student from its encoder's folder and the regression beside it."""
        return SetFitModel(weights.sentence_model(str(folder / "encoder")), LinearModel.load(folder))

    def _tune(
        self,
        encoder: Any,
        texts: list[str],
        pairs: Pairs,
        w: NDArray[np.float32],
        rng: np.random.Generator,
        ctx: Context,
    ) -> None:
        import torch

        total = self.epochs * -(-len(pairs.first) // self.batch_size)
        if not total:
            return
        lengths = np.array([len(text) for text in texts])
        learnt = [p for p in encoder.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(learnt, self.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, total, self.warmup))
        encoder.train()
        with ctx.progress.task("tune the encoder of setfit", total) as advance:
            for _ in range(self.epochs):
                for rows in batches(pairs, lengths, self.batch_size, rng):
                    loss = _loss(encoder, texts, pairs.at(rows), w)
                    optimiser.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(learnt, 1.0)
                    optimiser.step()
                    schedule.step()
                    advance(1, note=f"loss {loss.item():.3f}")
        optimiser.zero_grad()  # gradients are as large as the model, which is kept
        encoder.eval()


class SetFitModel(Model):
    """A tuned sentence-transformers model, and the regression that reads its unit vectors."""

    def __init__(self, encoder: Any, head: LinearModel) -> None:
        self.encoder = encoder.eval()
        self.head = head

    def predict_proba(self, examples: Examples) -> NDArray[np.float32]:
        """(n, C) probabilities from texts."""
        vectors = encode(self.encoder, examples.texts)
        return self.head.predict_proba(Examples(examples.texts, vectors))

    def save(self, folder: Path) -> None:
        """Write a sentence-transformers folder `encoder`, and the regression as safetensors."""
        self.head.save(folder)
        with weights.quiet():
            self.encoder.save(str(folder / "encoder"), create_model_card=False)


def encode(encoder: Any, texts: list[str]) -> NDArray[np.float32]:
    """(n, d) float32 unit rows, in batches of 32: an export that `embed: sentence` reads gives the same."""
    vectors = encoder.encode(texts or [""], batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, np.float32)[: len(texts)]


def _loss(encoder: Any, texts: list[str], pairs: Pairs, w: NDArray[np.float32]) -> Any:
    """Weighted mean squared error of the cosines; a text that stands in several pairs is read once."""
    import torch

    rows, place = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    prepare = getattr(encoder, "preprocess", None) or encoder.tokenize  # its older name
    read = prepare([texts[i] for i in rows])
    device = encoder.device
    batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in read.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=weights.has_bf16(device.type)):
        vectors = encoder(batch)["sentence_embedding"]
    vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
    half = len(pairs.first)
    cosine = (vectors[place[:half]] * vectors[place[half:]]).sum(dim=1)
    target = torch.from_numpy(pairs.alike).to(device)
    weight = torch.from_numpy(w[pairs.first] * w[pairs.second]).to(device)
    return ((cosine - target).square() * weight).sum() / weight.sum()
