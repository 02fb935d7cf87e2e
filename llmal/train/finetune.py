"""Fine-tunes a small transformer into a classifier that plain transformers loads: the student to ship."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal import weights
from llmal.batching import by_length
from llmal.context import Context
from llmal.records import Kind, LabelSchema, canonical
from llmal.train.checkpoint import Checkpoint
from llmal.train.loop import TOKENS_A_BATCH, Course, Loop
from llmal.train.objective import Lesson
from llmal.train.stage import Examples, Model, Student

if TYPE_CHECKING:
    import torch

FEWEST_HELD = 20
"""Items held out below which their loss says too little to stop or choose by; none are held out then."""


class Finetune(Student):
    """A pre-trained encoder with a fresh classification head, all weights trained.

    AdamW, linear warm-up and decay, gradient clipping; batches of similar length; bfloat16 arithmetic on
    hardware that has it. Re-initialised every time: warm starts hurt. A start whose loss stays where it began
    is given up for another one, twice at most. A training that was killed goes on from its last checkpoint
    and ends with the same weights. What is held out stops the training and chooses among starts; it is drawn
    from the items to learn from, which a strategy picked, so it measures nothing. Source: Devlin et al. 2019;
    schedule and restarts as in Mosbach et al. 2021 (longer training at a small rate is what stabilises small
    data).
    """

    version: ClassVar[int] = 2
    distils: ClassVar[bool] = True
    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"checkpoint_s"})

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
    holdout: float = Field(
        0.0, ge=0, le=0.5, description="share of the items held out, class by class, to stop and choose by"
    )
    patience: int = Field(
        3,
        ge=1,
        description="passes without a lower held-out loss before training stops; not before 150 steps",
    )
    seeds: int = Field(1, ge=1, le=20, description="trainings from different draws; the best is kept")
    checkpoint_s: float = Field(60.0, ge=0, description="seconds between two checkpoints")

    def fit(
        self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context
    ) -> TransformerModel:
        """Train on texts, targets (soft ones too) and weights."""
        import torch

        assert examples.targets is not None
        assert examples.weights is not None
        seed = int(rng.integers(2**31))

        def fresh() -> TransformerModel:
            return TransformerModel(*_fresh(self.model, schema), schema.kind, self.max_length)

        with torch.random.fork_rng():
            keep = np.flatnonzero(examples.weights > 0)
            tokens = _cut(fresh().tokenize([examples.texts[i] for i in keep]))
            soft = None if examples.distil is None else examples.distil.some(keep)
            lesson = Lesson(tokens, examples.targets[keep], examples.weights[keep], soft)
            held = self._held_out(lesson.targets, schema, seed, ctx)
            rest = np.setdiff1d(np.arange(len(keep)), held)
            course = Course(
                self, schema.kind, lesson.some(rest), lesson.some(held) if len(held) else None, seed
            )
            kept = Checkpoint(ctx, self._course_name(course, schema), self.checkpoint_s)
            return Loop(course, fresh, kept, ctx).run()

    def load(self, folder: Path, schema: LabelSchema) -> TransformerModel:
        """A fitted student from a transformers folder."""
        return TransformerModel.load(folder, schema.kind, self.max_length)

    def _held_out(
        self, targets: NDArray[np.float32], schema: LabelSchema, seed: int, ctx: Context
    ) -> NDArray[np.int64]:
        """Rows to stop and choose by: the share of each class when single, of all when multi."""
        rng = np.random.default_rng([seed, 0])
        kinds = targets.argmax(axis=1) if schema.kind == "single" else np.zeros(len(targets), np.int64)
        held = [
            rng.permutation(rows)[: round(self.holdout * len(rows))]
            for rows in (np.flatnonzero(kinds == c) for c in np.unique(kinds))
        ]
        found = np.sort(np.concatenate([np.zeros(0, np.int64), *held]))
        if self.holdout and len(found) < FEWEST_HELD:
            ctx.progress.say(f"train: {len(found)} items are too few to hold out; all are learnt from")
            return found[:0]
        return found

    def _course_name(self, course: Course, schema: LabelSchema) -> str:
        """Hash of all that determines the weights: a checkpoint is gone on with for this very training."""
        import torch

        about = [
            self.recipe(),
            schema.recipe(),
            course.seed,
            torch.__version__,
            _device(),
            weights.has_bf16(_device()),
        ]
        digest = hashlib.sha256(canonical(about).encode())
        for lesson in (course.lesson, course.held):
            if lesson is not None:
                digest.update(canonical(lesson.tokens).encode())
                soft = () if lesson.distil is None else lesson.distil[:3]
                for numbers in (lesson.targets, lesson.weights, *soft):
                    digest.update(numbers.tobytes())
        return f"finetune-{digest.hexdigest()[:16]}"


class TransformerModel(Model):
    """A sequence classifier with its tokenizer; `kind` says whether its outputs exclude each other."""

    def __init__(self, network: Any, tokenizer: Any, kind: Kind, max_length: int) -> None:
        self.network = network.to(_device())
        self.tokenizer = tokenizer
        self.kind = kind
        # Predicts in float32 whatever the hardware has, as an export in another format does.
        self.exact = False
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
        fast = not self.exact and weights.has_bf16(device.type)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
            out: torch.Tensor = self.network(**batch).logits
        return out.float()

    def predict_proba(self, examples: Examples) -> NDArray[np.float32]:
        """(n, C) probabilities from texts; batches of similar length."""
        import torch

        tokens = self.tokenize(examples.texts) if examples.texts else []
        out = np.zeros((len(tokens), self.network.config.num_labels), np.float32)
        self.network.eval()
        with torch.inference_mode():
            for rows in by_length([len(t) for t in tokens], TOKENS_A_BATCH):
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
    def load(cls, folder: Path, kind: Kind, max_length: int) -> TransformerModel:
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


def _cut(tokens: list[list[int]]) -> list[list[int]]:
    """Training texts cut to the 95th percentile of their lengths, the closing token kept.

    One very long text pads its whole batch to its own length.
    """
    longest = int(np.percentile([len(t) for t in tokens], 95, method="higher"))
    return [t if len(t) <= longest else t[: longest - 1] + t[-1:] for t in tokens]
