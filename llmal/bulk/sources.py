"""What is read: JSONL, CSV or Parquet in blocks, row for row, with a place to go on from after each."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmal.bulk.lines import BOM, LF, Bytes, lines, opened
from llmal.corpus import listed, shown
from llmal.errors import CorpusError
from llmal.text import HIDDEN, repaired

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 1024
"""Rows predicted and written at once: enough to sort by length and to find repeats."""

BLOCK_BYTES = 8 * 2**20
"""A block ends here too, so that memory stays flat where texts are long."""

MAX_TEXT_CHARS = 1_000_000
"""A longer text is told as an error: it is a file, not an item, and could take all memory."""


class Position(NamedTuple):
    """Rows before this place; its byte (text formats); lines before it."""

    rows: int = 0
    place: int = 0
    line: int = 0


class Block(NamedTuple):
    """Some rows.

    Attributes:
        rows: as dicts, None for a row that cannot be read; or an Arrow record batch.
        texts: the text to label, or None.
        errors: why a row has no text to label, else empty.
        start: place before the first row.
        end: place after the last.
    """

    rows: list[dict[str, Any] | None] | pa.RecordBatch
    texts: list[str | None]
    errors: list[str]
    start: Position
    end: Position


class Source(ABC):
    """A table to read.

    Args:
        path: the file; None for the standard input.
        text: column with the text.
        also: other columns that must be there.
        narrow: read no column but these.

    Attributes:
        columns: their names in order; None where each row has its own (JSONL).
        unit: what `total` counts: `rows` or `bytes`.
    """

    columns: list[str] | None = None
    unit = "bytes"

    def __init__(
        self, path: Path | None, text: str, also: Sequence[str] = (), *, narrow: bool = False
    ) -> None:
        self.path, self.text, self.wanted, self.narrow = path, text, [text, *also], narrow
        self.name = path.name if path else "standard input"

    @property
    def total(self) -> int:
        """Bytes or rows in all; 0 when unknown."""
        return self.path.stat().st_size if self.path else 0

    @abstractmethod
    def blocks(self, at: Position) -> Iterator[Block]:
        """The blocks from a place on; the same ones whatever the place, if it is the end of a block."""

    def _must_have(self, columns: list[str]) -> None:
        """Raise unless the text column and those asked for are there."""
        for wanted in self.wanted:
            if wanted not in columns:
                raise CorpusError(
                    f"no column '{shown(wanted)}'", where=self.name, hint=f"It has: {listed(columns)}"
                )


def checked(value: Any) -> tuple[str | None, str]:
    """The text of a cell as a model can read it, or None and why not."""
    if value is None or (isinstance(value, str) and not HIDDEN.sub("", value).strip()):
        return None, "no text"
    if not isinstance(value, str):
        return None, f"not a text: {type(value).__name__}"
    if len(value) > MAX_TEXT_CHARS:
        return None, f"too long: {len(value):,} characters, at most {MAX_TEXT_CHARS:,}"
    return repaired(value)[0], ""


class TextSource(Source):
    """JSONL or CSV: rows with the byte after each."""

    def blocks(self, at: Position) -> Iterator[Block]:
        """Blocks of at most `BLOCK_ROWS` rows and about `BLOCK_BYTES`."""
        rows: list[dict[str, Any] | None] = []
        texts: list[str | None] = []
        errors: list[str] = []
        start = end = at
        with self._stream(at) as stream:
            for row, end in self.records(stream, at):
                broken = isinstance(row, str)
                text, error = (None, row) if isinstance(row, str) else self._text(row)
                rows.append(None if broken else row)  # type: ignore[arg-type]
                texts.append(text)
                errors.append(str(error))
                if len(rows) == BLOCK_ROWS or end.place - start.place >= BLOCK_BYTES:
                    yield Block(rows, texts, errors, start, end)
                    rows, texts, errors, start = [], [], [], end
        if rows:
            yield Block(rows, texts, errors, start, end)

    @abstractmethod
    def records(self, stream: Bytes, at: Position) -> Iterator[tuple[dict[str, Any] | str, Position]]:
        """Each row, or why it cannot be read, with the place after it."""

    def _text(self, row: dict[str, Any]) -> tuple[str | None, str]:
        if self.text not in row:
            return None, "no text: the column is missing"
        return checked(row[self.text])

    @contextmanager
    def _stream(self, at: Position) -> Iterator[Bytes]:
        if self.path is None:
            yield sys.stdin.buffer  # type: ignore[misc]
            return
        with self.path.open("rb") as file:
            yield opened(file, at.place)


class Jsonl(TextSource):
    """One JSON object a line; blank lines are no rows."""

    def records(self, stream: Bytes, at: Position) -> Iterator[tuple[dict[str, Any] | str, Position]]:
        """Each row, or why it cannot be read, with the place after it."""
        for line in lines(stream, LF):
            at = Position(at.rows, at.place + line.size, at.line + 1)
            body = line.body
            if body is not None and at.line == 1:
                body = body.removeprefix(BOM)
            if body is None or body.strip():
                at = at._replace(rows=at.rows + 1)
                yield _parsed(body, at.line), at


def _parsed(body: bytes | None, line: int) -> dict[str, Any] | str:
    if body is None:
        return f"unreadable: line {line} is too long"
    try:
        row = json.loads(body.decode())
    except UnicodeDecodeError as error:
        return f"unreadable: line {line} is not UTF-8 at byte {error.start}"
    except (ValueError, RecursionError):
        return f"unreadable: line {line} is not JSON"
    return row if isinstance(row, dict) else f"unreadable: line {line} is not a JSON object"
