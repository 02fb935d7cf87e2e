"""Where a long training stands, kept on disk now and then, so that a killed one goes on from there."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmal.context import Context

if TYPE_CHECKING:
    import torch

FOLDER = "checkpoints"
"""In the run's folder; empty or absent when no training is under way."""


@dataclass
class Place:
    """Where a training stands.

    Attributes:
        attempt: number of the start, from 0; `stuck` of them learnt nothing and were given up.
        epoch, batch: the next batch; `step` is its number in this attempt.
        loss, weight: sums over this epoch's batches so far.
        lowest: of the held-out losses in this attempt; `since` epochs have not got below it.
        best: lowest loss of all attempts, whose weights are kept beside.
    """

    attempt: int = 0
    stuck: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    lowest: float = float("inf")
    since: int = 0
    best: float = float("inf")


class Checkpoint:
    """One file that is written whole or not at all: tensors, and the place as JSON in its header."""

    def __init__(self, ctx: Context, name: str, every_s: float) -> None:
        self._file = ctx.folder / FOLDER / f"{name}.safetensors"
        self._every = every_s
        self._last = time.monotonic()
        self._ctx = ctx

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._last >= self._every

    def write(self, place: Place, tensors: dict[str, torch.Tensor]) -> None:
        """Replace what was kept; a crash meanwhile leaves the old state."""
        from safetensors.torch import save_file

        self._file.parent.mkdir(exist_ok=True)
        part = self._part()
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part, _header(place))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self._file)
        self._last = time.monotonic()

    def read(self) -> tuple[Place, dict[str, torch.Tensor]] | None:
        """What was kept of this very training, or None; those of others are removed."""
        from safetensors import SafetensorError, safe_open

        for other in self._file.parent.glob("*.safetensors*"):
            if other != self._file:
                other.unlink()
        if not self._file.is_file():
            return None
        try:
            with safe_open(self._file, "pt") as file:
                place = Place(**json.loads(file.metadata()["place"]))
                return place, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            self._ctx.progress.say(f"train: {self._file.name} cannot be read ({error}); training starts anew")
            return None

    def remove(self) -> None:
        """Forget it: the training is over."""
        for file in (self._file, self._part()):
            file.unlink(missing_ok=True)
        if self._file.parent.is_dir() and not any(self._file.parent.iterdir()):
            self._file.parent.rmdir()

    def _part(self) -> Path:
        return self._file.with_name(self._file.name + ".part")


def _header(place: Place) -> dict[str, str]:
    return {"place": json.dumps(asdict(place))}
