"""What of a job is done, beside its unfinished output: enough to go on after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from llmal.bulk.lines import fingerprint_bytes
from llmal.bulk.sources import Position
from llmal.errors import StoreError, UserError
from llmal.records import recipe

FORMAT = 1
"""Of the journal and of what is appended to the part file."""


@dataclass
class Journal:
    """State of a job.

    Attributes:
        job: hashes of `input`, `model` and `options`: what must be the same to go on.
        bytes: of the part file that are whole blocks.
        rows: number of rows written.
        place: bytes of the input read.
        line: lines of the input read.
        errors: reason -> rows.
        review: rows a person should look at.
        columns: what was found out about the columns of the input, if that took a reading of its own.
        whole: the output is complete, only its name is missing.
    """

    job: dict[str, str]
    bytes: int = 0
    rows: int = 0
    place: int = 0
    line: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    review: int = 0
    columns: dict[str, str] | None = None
    whole: bool = False

    @property
    def position(self) -> Position:
        """Where the input goes on."""
        return Position(self.rows, self.place, self.line)


class Places:
    """The files of a job, all beside its output.

    Attributes:
        out: the output, there when it is whole and not before.
        part: blocks written so far.
        whole: a Parquet file before it gets its name.
        journal: what `part` holds.
        lock: held while a process works on this output.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.part, self.whole, self.journal, self.lock = (
            out.with_name(out.name + ending) for ending in (".part", ".whole", ".part.json", ".lock")
        )

    def read(self) -> Journal | None:
        """The journal of an unfinished job; None where there is none that can be used."""
        try:
            told = json.loads(self.journal.read_text(encoding="utf-8"))
            if told.pop("format") != FORMAT:
                return None
            journal = TypeAdapter(Journal).validate_python(told)
            if journal.whole:  # what is missing is the name, or nothing at all
                there = self.part.exists() or self.whole.exists() or self.out.exists()
                return journal if there else None
            size = self.part.stat().st_size
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return journal if size >= journal.bytes else None

    def write(self, journal: Journal) -> None:
        """Replace the journal in one step; the part file must be on the disk by then."""
        new = self.journal.with_name(self.journal.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(journal)}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.journal)

    def deliver(self, journal: Journal) -> None:
        """Give a whole output its name; goes on where a kill fell in between."""
        if not journal.whole:
            journal.whole = True
            self.write(journal)
        ready = self.whole if self.out.suffix.lower() == ".parquet" else self.part
        if ready.exists():
            ready.replace(self.out)
            _sync_folder(self.out.parent)
        self.clear()

    def clear(self) -> None:
        """Remove what is only there while a job is unfinished."""
        for path in (self.part, self.whole, self.journal, self.journal.with_name(self.journal.name + ".new")):
            path.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process a time.

        Raises:
            StoreError: another process is writing this output.
            UserError: the folder is not there or cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.lock)
        if not self.out.parent.is_dir():
            raise UserError("no such folder", where=str(self.out.parent), hint="Make it, or name another")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                "another process is writing this output", where=str(self.out), hint="Wait for it, or stop it"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write here: {error.strerror}", where=str(self.out)) from error
        try:
            yield
        finally:
            with contextlib.suppress(
                OSError
            ):  # Windows keeps an open file; an empty one left over does no harm
                self.lock.unlink()
            lock.release()


def job(file: Path | None, folder: Path, options: dict[str, Any]) -> dict[str, str]:
    """Hashes of what decides the output: the input's identity, the model's files, the options."""
    return {
        "input": identity(file),
        "model": recipe("predict-model", [[name, digest] for name, digest in _files(folder)]),
        "options": recipe("predict-options", options),
    }


def identity(file: Path | None) -> str:
    """Hash of a file's size, time of change, first and last mebibyte.

    To read all of it would take about as long as the work.
    """
    if file is None:
        return recipe("predict-input", "standard input")
    state = file.stat()
    ends = hashlib.sha256(fingerprint_bytes(file)).hexdigest()
    return recipe("predict-input", state.st_size, state.st_mtime_ns, ends)


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "README.md":
            with path.open("rb") as file:
                yield path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename last; where folders cannot be opened (Windows) the system sees to it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
