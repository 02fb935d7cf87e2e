"""The torch engine: the model as it is, in bfloat16 where torch's autocast puts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llmal.embed.engine import Batch

TOKENS_A_BATCH = 1024
"""Padded tokens of one batch: 512 and 1024 took the same time of one thread, 2048 13 % more (2026-11-21)."""


class Autocast:
    """Runs a sentence-transformers model in torch on the processor; matrix products in bfloat16.

    Texts are padded to the longest of their batch: 12 % more tokens where 256 film reviews are sorted by
    length (21 % with a budget of 2048, 93 % unsorted in batches of 32). Packing them without padding would
    save those, and need a forward pass of our own for each architecture.
    """

    budget = TOKENS_A_BATCH

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, batches: Iterator[Batch], out: NDArray[np.float32]) -> None:
        """Write the vectors of each batch into its rows of `out`."""
        import torch

        self.model.eval()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            for batch in batches:
                given = {
                    "input_ids": torch.from_numpy(batch.ids),
                    "attention_mask": torch.from_numpy(batch.mask),
                }
                out[batch.rows] = self.model(given)["sentence_embedding"].float().numpy()
