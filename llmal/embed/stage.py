"""The embed stage: the protocol of an encoder, and the blocks of vectors it leaves on disk."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import Tally, batched
from llmal.store.store import Store

BLOCK = 2048
"""Texts a block: what a crash can cost, and what memory holds at once (3 MB of vectors at 384 dimensions)."""

STEP = 256
"""Texts an encoder is given at once: enough to sort by length, little enough for the bar to move."""


class Encoder(Plugin):
    """Texts in, vectors out.

    Contract (tested for every encoder): unit rows; the same text gives the same row whatever stands beside
    it; an empty list gives an empty array.
    """

    group: ClassVar[str] = "embed"

    @abstractmethod
    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of texts: (n, d) float32, rows of length 1."""

    def note(self) -> str:
        """Words for the run's line, once something is encoded: what did the work; none (the default)."""
        return ""

    def save(self, folder: Path) -> bool:
        """Write what is needed to encode elsewhere; False (the default) when the options alone are enough."""
        return False

    def loaded_from(self, folder: Path) -> Encoder:
        """This encoder, reading what `save` wrote."""
        return self


def run(encoder: Encoder, store: Store, ctx: Context) -> Tally:
    """Embed every item that has no vector yet, block by block.

    Args:
        encoder: the encoder.
        store: of the run.
        ctx: shared context.

    Returns:
        How many vectors were wanted and made.
    """
    recipe = encoder.recipe()
    n, done = store.n_items(), store.covered(recipe)
    if done >= n:
        return Tally(n, 0)
    made = 0
    with ctx.progress.task("embed", n - done) as advance:
        for start in range(done, n, BLOCK):
            parts = []
            for texts in batched(store.texts(start, min(start + BLOCK, n)), STEP):
                parts.append(checked(encoder.encode(texts), len(texts), encoder.name))
                advance(len(texts))
            block = np.concatenate(parts)
            store.put_block(recipe, start, block)
            made += len(block)
    return Tally(n, made, encoder.note())


def checked(vectors: NDArray[np.float32], n: int, name: str) -> NDArray[np.float32]:
    """Vectors as every later stage expects them, or an error that names the encoder.

    Raises:
        ValueError: wrong shape, or a number that is not finite.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != n:
        raise ValueError(f"encoder '{name}' gave shape {vectors.shape} for {n} texts; expected ({n}, d)")
    if not np.isfinite(vectors).all():
        raise ValueError(f"encoder '{name}' gave a vector that is not finite")
    return vectors
