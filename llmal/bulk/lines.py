"""Lines of a text file of any size, each with the bytes it took: a place in the file to come back to."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is one broken row: a text of a million characters fits with room to spare."""

CHUNK_BYTES = 2**20
"""Read at once."""

BOM = codecs.BOM_UTF8
LF = re.compile(rb"\n")
"""Ends of JSONL lines; U+2028 and U+0085 may stand inside a text."""

ANY = re.compile(rb"\r\n|\n|\r(?=[^\n])")
"""Ends of CSV lines. A CR that is last in the buffer waits for what follows."""


class Bytes(Protocol):
    """What lines are read from."""

    def read1(self, size: int, /) -> bytes:
        """Up to `size` bytes, empty at the end."""


class Line(NamedTuple):
    """One line: its bytes with the line end, or None when it is longer than `MAX_LINE_BYTES`; bytes taken."""

    body: bytes | None
    size: int


def lines(file: Bytes, ends: re.Pattern[bytes]) -> Iterator[Line]:
    """Every line; memory holds one of them and one chunk.

    What a line is depends on the bytes alone, never on how they arrive in chunks.
    """
    buffer, dropped = b"", 0
    while chunk := file.read1(CHUNK_BYTES):
        searched = max(0, len(buffer) - 1)
        buffer += chunk
        start = 0
        for end in ends.finditer(buffer, searched):
            yield _line(buffer[start : end.end()], dropped)
            start, dropped = end.end(), 0
        buffer = buffer[start:]
        if len(buffer) > MAX_LINE_BYTES:
            dropped, buffer = dropped + len(buffer) - 1, buffer[-1:]
    if buffer:
        yield _line(buffer, dropped)


def _line(body: bytes, dropped: int) -> Line:
    size = dropped + len(body)
    return Line(body if size <= MAX_LINE_BYTES else None, size)


class Recoded:
    """A UTF-16 file as UTF-8; lone surrogates become bytes that are not UTF-8, for the row to be told broken.

    Args:
        file: with its byte-order mark.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")

    def read1(self, size: int, /) -> bytes:
        """Some bytes, empty at the end."""
        while True:
            raw = self._file.read(size)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError:  # the file ends inside a character
                self._decoder.reset()
                text = "\N{REPLACEMENT CHARACTER}"
            if text or not raw:
                return text.encode("utf-8", "surrogatepass")


def opened(file: BinaryIO, place: int) -> Bytes:
    """The file as UTF-8 from a place on, in bytes of the UTF-8 it is read as."""
    head = file.read(2)
    if head not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        file.seek(place)
        return file  # type: ignore[return-value]
    file.seek(0)
    recoded, rest = Recoded(file), b""
    while place > 0 and (chunk := recoded.read1(CHUNK_BYTES)):
        place, rest = place - len(chunk), chunk[place:]
    return _After(rest, recoded)


class _After:
    """Bytes read too far, then the rest."""

    def __init__(self, first: bytes, rest: Bytes) -> None:
        self._first, self._rest = first, rest

    def read1(self, size: int, /) -> bytes:
        """Some bytes, empty at the end."""
        first, self._first = self._first, b""
        return first or self._rest.read1(size)


def fingerprint_bytes(path: Path) -> bytes:
    """The first and the last mebibyte of a file: with size and time, enough to tell that it was changed."""
    with path.open("rb") as file:
        head = file.read(CHUNK_BYTES)
        file.seek(max(0, path.stat().st_size - CHUNK_BYTES))
        return head + file.read(CHUNK_BYTES)
