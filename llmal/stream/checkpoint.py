"""Where a stream stands: one folder that holds the students, and how much of the output is on the disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from llmal.bulk.sources import Position
from llmal.stream.state import Arrays

FORMAT = 1
"""Of the files below."""

NAME = "stream.json"


@dataclass
class Checkpoint:
    """State of a stream.

    Attributes:
        learner: hash of classes, encoder and annotator: whose students these are.
        job: hashes of input and options: what must be the same to go on with this output.
        corpus: number of the store's snapshot that holds the rows asked about.
        facts: of the cascade, beside its arrays.
        tally: counts so far.
        arrays: name of the file with the cascade's arrays.
        out: the output's path.
        bytes: of the unfinished output that are whole blocks.
        rows, place, line: where the input goes on.
        spent: why the model is asked no more, empty while it is.
        caps: of the budget when that was found.
        begun: calls and picodollars of the ledger when the job began.
        whole: the output is complete.
    """

    learner: str
    job: dict[str, str]
    corpus: int
    facts: dict[str, Any] = field(default_factory=dict)
    tally: dict[str, Any] = field(default_factory=dict)
    arrays: str = ""
    out: str = ""
    bytes: int = 0
    rows: int = 0
    place: int = 0
    line: int = 0
    spent: str = ""
    caps: list[int | None] = field(default_factory=list)
    begun: list[int] = field(default_factory=lambda: [0, 0])
    whole: bool = False

    @property
    def position(self) -> Position:
        """Where the input goes on."""
        return Position(self.rows, self.place, self.line)


def read(folder: Path) -> tuple[Checkpoint, Arrays] | None:
    """The newest checkpoint with its arrays; None where there is none that can be used."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        told = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if told.pop("format") != FORMAT:
            return None
        kept = TypeAdapter(Checkpoint).validate_python(told)
        return kept, load_file(folder / kept.arrays)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError):
        return None


def write(folder: Path, kept: Checkpoint, arrays: Arrays) -> None:
    """Replace the checkpoint in one step; the output must be on the disk by then."""
    from safetensors.numpy import save

    whole = "-whole" if kept.whole else ""
    kept.arrays = f"students-{kept.corpus}-{kept.rows}{whole}.safetensors"
    _put(folder / kept.arrays, save(arrays))
    _put(folder / NAME, json.dumps({"format": FORMAT, **asdict(kept)}).encode())
    for path in folder.glob("students-*.safetensors"):
        if path.name != kept.arrays:
            path.unlink()


def _put(path: Path, content: bytes) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
