"""The student, asked about one text at a time, so that no answer depends on its company."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import best, label_table
from llmal.predictor import Predictor, load
from llmal.records import Labels

WARM_UP = ("ready?", "a longer text, so that buffers are made for it too: " + "word " * 60)
"""Asked before the first client is: libraries load and compile on their first call."""


PATIENCE_S = 5.0
"""Seconds a text may wait for its turn: when more is sent than can be answered, those who waited longest have
mostly gone, and answering them would keep everybody waiting for ever."""


class Busy(Exception):
    """A text that waited longer than `PATIENCE_S`."""


class Reading(NamedTuple):
    """What the student said of a text: labels, confidence in double precision, (C,) which labels."""

    labels: Labels
    confidence: float
    given: NDArray[np.bool_]


class Student:
    """An exported classifier behind a queue of one lane.

    Texts are never put into one batch: padded to the length of another a text's scores move in the last
    digits, and near a threshold its route would follow its company.

    Args:
        folder: the export.
        backend: as in `llmal.load`.
    """

    def __init__(self, folder: Path, backend: str | None) -> None:
        self._folder, self._backend = folder, backend
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="llmal-student")
        self._model: Predictor | None = None

    @property
    def ready(self) -> bool:
        """Whether it has answered its first texts."""
        return self._model is not None

    @property
    def backend(self) -> str:
        """What computes; empty before it is ready."""
        return self._model.backend if self._model else ""

    async def open(self) -> None:
        """Load the classifier and have it answer once.

        Raises:
            LlmalError: it cannot be loaded.
        """
        await asyncio.get_running_loop().run_in_executor(self._lane, self._open)

    def _open(self) -> None:
        model = load(self._folder, backend=self._backend)
        for text in WARM_UP:
            model.predict_proba([text])
        self._model = model

    async def read(self, text: str) -> Reading:
        """What it says of one text; texts of several requests take turns.

        Raises:
            Busy: too many texts came before it.
        """
        due = time.monotonic() + PATIENCE_S
        return await asyncio.get_running_loop().run_in_executor(self._lane, self._read, text, due)

    def _read(self, text: str, due: float) -> Reading:
        if time.monotonic() > due:
            raise Busy
        assert self._model is not None
        row = self._model.predict_proba([text])[0]
        if not np.isfinite(row).all():
            raise ValueError("a probability that is no number")
        schema = self._model.schema
        labels, confidence = best(row, schema)
        return Reading(labels, confidence, label_table([labels], schema)[0] > 0)

    def close(self) -> None:
        """Let the text in hand be finished."""
        self._lane.shutdown(wait=True, cancel_futures=True)
