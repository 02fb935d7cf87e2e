"""Whether served texts still look like those the promise was made on; remembered over restarts."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from llmal.serve.promise import Reference
from llmal.serve.student import Reading
from llmal.stats.live import Live

REPEATS = 50_000
"""Texts remembered so that one that is sent again and again counts once, as the calibration sample's do."""

REASON = "the texts served no longer look like those it was made on ({what}, after {n} texts)"


class Drift:
    """A watch over the student's confidences and labels.

    Args:
        reference: what the student said of the calibration sample.
        names: of the classes.
        alpha: probability of ever raising a false alarm.
        seed: secret of the store.
        file: where the state is kept.
        certificate: what the watch is about; a state about another one is not gone on with.
    """

    def __init__(
        self, reference: Reference, names: list[str], *, alpha: float, seed: int, file: Path, certificate: str
    ) -> None:
        self.names, self._file = names, file
        self._name = hashlib.sha256(f"{certificate} {alpha}".encode()).hexdigest()
        self._live = Live(reference.scores, reference.labels, alpha=alpha, seed=seed)
        self._lately: OrderedDict[bytes, None] = OrderedDict()
        self._kept = self.seen = 0
        self._restore()

    @property
    def evidence(self) -> float:
        """The strongest evidence so far as a share of what raises the alarm, 0 and up."""
        return float((self._live.evidence / self._live.limits).max())

    def add(self, text: str, reading: Reading) -> str | None:
        """Count one text that was served; why the promise ends, where it does now."""
        mark = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        if mark in self._lately:
            self._lately.move_to_end(mark)
            return None
        self._lately[mark] = None
        if len(self._lately) > REPEATS:
            self._lately.popitem(last=False)
        self.seen += 1
        if not self._live.add(reading.confidence, reading.given):
            return None
        place = int((self._live.evidence / self._live.limits).argmax())
        what = "how sure the student is" if place == 0 else f"how often it says '{self.names[place - 1]}'"
        return REASON.format(what=what, n=f"{self.seen:,}")

    def state(self) -> bytes | None:
        """What `keep` writes; None where nothing is new since it last did."""
        if self.seen == self._kept:
            return None
        out = BytesIO()
        seen = np.array([self.seen], np.float64)
        np.savez(out, allow_pickle=False, name=np.array(self._name), total=seen, **self._live.state())
        self._kept = self.seen
        return out.getvalue()

    def keep(self, state: bytes | None) -> None:
        """Write a state, whole or not at all; may be called beside the event loop, as disks are slow."""
        if state is None:
            return
        part = self._file.with_suffix(".part")
        with part.open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file)

    def _restore(self) -> None:
        """Go on from the kept state; one that is of another certificate, or damaged, is left alone."""
        if not self._file.is_file():
            return
        try:
            with self._file.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                state = {name: kept[name] for name in kept.files}
            if str(state.pop("name")) != self._name:
                return
            self.seen = self._kept = int(state.pop("total")[0])
            self._live.restore(state)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            self.seen = self._kept = 0
