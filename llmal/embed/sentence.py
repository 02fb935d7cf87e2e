"""Sentence-transformers encoders, from the hub, a folder, or the offline package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal import weights
from llmal.embed.stage import Encoder


class Sentence(Encoder):
    """A sentence-transformers model; its own pooling, unit rows. Source: Reimers & Gurevych 2019."""

    model: str = Field(
        weights.DEFAULT_ENCODER, description="hub name or folder of a sentence-transformers model"
    )
    batch_size: int = Field(32, ge=1, description="texts a forward pass")
    device: str | None = Field(None, description="torch device; the library's choice when absent")

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of texts: (n, d) float32, unit rows; texts beyond the model's length are cut by it."""
        vectors = self._model().encode(
            texts or [""], batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)[: len(texts)]

    def save(self, folder: Path) -> bool:
        """Write the model as a sentence-transformers folder of safetensors."""
        with weights.quiet():
            self._model().save(str(folder), create_model_card=False)
        return True

    def loaded_from(self, folder: Path) -> Sentence:
        """The same encoder from a saved folder."""
        return self.model_copy(update={"model": str(folder)})

    def _model(self) -> Any:
        listing = Path(self.model) / "modules.json"
        return _load(self.model, self.device, listing.stat().st_mtime_ns if listing.is_file() else 0)


@lru_cache(maxsize=2)
def _load(name: str, device: str | None, _written_at: int) -> Any:
    return weights.sentence_model(name, device=device)
