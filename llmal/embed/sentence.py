"""Sentence-transformers encoders, from the hub, a folder, or the offline package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from llmal import weights
from llmal.embed import engine
from llmal.embed.stage import Encoder
from llmal.records import recipe


class Sentence(Encoder):
    """A sentence-transformers model; its own pooling, unit rows. Source: Reimers & Gurevych 2019.

    On a processor with bfloat16 the forward pass runs in it, about twice as fast; elsewhere in float32. A
    backend is used only after its vectors have been compared with sentence-transformers' own in float32
    (`engine.MEAN_COSINE`, `engine.LEAST_COSINE`); else the library's own loop runs, and the run says so. On a
    GPU it always does.

    Backend and bfloat16 stay out of the recipe: vectors keep a cosine of .99999 to float32 on film reviews,
    logistic regression on them is as accurate (one text of 500 apart), and a run that goes on where a package
    or a processor differs must not embed again. So one run may hold vectors of both kinds, and the vectors of
    one text in two batches may differ by 0.002 an entry. `precision: float32` asks for the same numbers
    everywhere and has a recipe of its own; int8 has one too, as it changes one neighbour of 20.
    """

    model: str = Field(
        weights.DEFAULT_ENCODER, description="hub name or folder of a sentence-transformers model"
    )
    batch_size: int = Field(32, ge=1, description="texts a forward pass, in sentence-transformers' own loop")
    device: str | None = Field(None, description="torch device; the library's choice when absent")
    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="what runs the model on a processor; auto takes the fastest that is installed"
    )
    precision: Literal["auto", "float32", "int8"] = Field(
        "auto",
        description="auto is bfloat16 where the processor has it, else float32; int8 (with openvino) is "
        "faster still, and changes some neighbours",
    )

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"batch_size", "device", "backend"})

    @model_validator(mode="after")
    def _openvino_is_for_processors(self) -> Sentence:
        if self.precision == "int8" and self.backend == "torch":
            raise ValueError("precision int8 runs in openvino only; leave backend out")
        if self._on_cpu and self.device not in (None, "cpu"):
            raise ValueError(f"openvino runs on the processor, not on {self.device!r}; leave device out")
        return self

    @property
    def _on_cpu(self) -> bool:
        return self.backend == "openvino" or self.precision == "int8"

    def recipe(self) -> str:
        """As of any plug-in; the default precision is left out, so that earlier runs keep their vectors."""
        hidden = self.not_in_recipe | ({"precision"} if self.precision == "auto" else set())
        return recipe(self.group, self.name, self.version, self.model_dump(mode="json", exclude=set(hidden)))

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of texts: (n, d) float32, unit rows; texts beyond the model's length are cut by it.

        Raises:
            MissingExtra: openvino was asked for and is not installed.
            ModelError: the weights cannot be had, or int8 was asked for and the model loses too much by it.
        """
        vectors = self._opened().encode(texts or [""], self.batch_size)
        return np.asarray(vectors, dtype=np.float32)[: len(texts)]

    def note(self) -> str:
        """What runs the model here, and how near its vectors are to float32."""
        return self._opened().note

    def save(self, folder: Path) -> bool:
        """Write the model as a sentence-transformers folder of safetensors."""
        with weights.quiet():
            self._opened().model.save(str(folder), create_model_card=False)
        return True

    def loaded_from(self, folder: Path) -> Sentence:
        """The same encoder from a saved folder, on the fastest backend of the machine that loads it."""
        return self.model_copy(update={"model": str(folder), "backend": "auto"})

    def _opened(self) -> engine.Library:
        listing = Path(self.model) / "modules.json"
        written_at = listing.stat().st_mtime_ns if listing.is_file() else 0
        device = "cpu" if self._on_cpu else self.device
        return _open(self.model, device, self.backend, self.precision, written_at)


@lru_cache(maxsize=2)
def _open(name: str, device: str | None, backend: str, precision: str, _written_at: int) -> engine.Library:
    return engine.opened(weights.sentence_model(name, device=device), backend=backend, precision=precision)
