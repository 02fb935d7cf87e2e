"""CSV and TSV row for row: where the quotes of a row are broken, one line is lost and not the rest."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmal.bulk.lines import ANY, BOM, MAX_LINE_BYTES, Bytes, Line, lines
from llmal.bulk.sources import Block, Position, TextSource
from llmal.corpus import MAX_CELL_CHARS, shown
from llmal.errors import CorpusError
from llmal.text import SURROGATE, repaired

MAX_RECORD_LINES = 100_000
"""Lines of one row; beyond this, or `MAX_LINE_BYTES`, a quote was opened and never closed."""


class Csv(TextSource):
    """A row is a record of RFC 4180, or one line where its quotes are broken; blank lines are none.

    Args:
        path: the file; `.tsv` has tabs between cells.
        text: column with the text.
        also: other columns that must be there.
        narrow: has no effect; a line is read whole.

    Raises:
        CorpusError: no header, a heading twice, or a wanted column missing.
    """

    def __init__(self, path: Path, text: str, also: Sequence[str] = (), *, narrow: bool = False) -> None:
        super().__init__(path, text, also, narrow=narrow)
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        csv.field_size_limit(MAX_CELL_CHARS)
        self._header: list[str] = []
        start = Position()
        with self._stream(start) as stream:
            first = next(self._cells(stream, start), None)
        self._header, self._start = self._headings(first)
        self.columns = self._header
        self._must_have(self._header)

    def blocks(self, at: Position) -> Iterator[Block]:
        """Blocks of at most `BLOCK_ROWS` rows and about `BLOCK_BYTES`, after the header."""
        return super().blocks(at if at.place else self._start)

    def records(self, stream: Bytes, at: Position) -> Iterator[tuple[dict[str, Any] | str, Position]]:
        """Each row, or why it cannot be read, with the place after it."""
        header = self._header
        for cells, line, end in self._cells(stream, at):
            if isinstance(cells, str):
                yield f"unreadable: line {line} {cells}", end
            elif len(cells) != len(header):
                yield f"unreadable: line {line} has {len(cells)} cells under {len(header)} headings", end
            elif any(not cell.isascii() and SURROGATE.search(cell) for cell in cells):
                yield f"unreadable: line {line} is not UTF-8", end
            else:
                yield dict(zip(header, cells, strict=True)), end

    def _cells(self, stream: Bytes, at: Position) -> Iterator[tuple[list[str] | str, int, Position]]:
        """Cells of each record or what is wrong with it, its first line, and the place after it."""
        feed = _Feed(lines(stream, ANY), first=at.place == 0)
        reader = csv.reader(feed, delimiter=self.delimiter, strict=True)
        while True:
            feed.forget()
            found: list[str] | str
            try:
                found = next(reader)
            except StopIteration:
                return
            except csv.Error:
                found = "is too long" if feed.taken[0].body is None else "has broken quotes"
                feed.back_but_one()
                reader = csv.reader(feed, delimiter=self.delimiter, strict=True)
            size, line = sum(line.size for line in feed.taken), at.line + 1
            at = Position(at.rows + bool(found), at.place + size, at.line + len(feed.taken))
            if found:
                yield found, line, at

    def _headings(self, first: tuple[list[str] | str, int, Position] | None) -> tuple[list[str], Position]:
        if first is None:
            raise CorpusError("the file is empty", where=self.name, hint="It needs a header line and rows")
        cells, line, end = first
        if isinstance(cells, str):
            raise CorpusError(f"the header line {cells}", where=f"{self.name}:{line}", hint="Correct it")
        names = [repaired(name)[0] or f"column {i}" for i, name in enumerate(cells, 1)]
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise CorpusError(
                    f"the heading '{shown(name)}' stands twice",
                    where=f"{self.name}:{line}",
                    hint="Rename one",
                )
            seen.add(name)
        return names, end._replace(rows=0)


class _TooLong(csv.Error):
    """A row that does not end."""


class _Feed:
    """Lines for `csv.reader`; remembers those of the record it is in."""

    def __init__(self, source: Iterator[Line], *, first: bool) -> None:
        self._source = source
        self._again: deque[Line] = deque()
        self._first = first
        self._bytes = 0
        self.taken: list[Line] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self.taken.append(line)
        self._bytes += line.size
        if line.body is None or self._bytes > MAX_LINE_BYTES or len(self.taken) > MAX_RECORD_LINES:
            raise _TooLong
        body = line.body
        if self._first:
            self._first, body = False, body.removeprefix(BOM)
        return body.decode("utf-8", "surrogateescape")

    def forget(self) -> None:
        """A new record begins."""
        self.taken, self._bytes = [], 0

    def back_but_one(self) -> None:
        """Give all lines but the first back, to be read anew."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]
