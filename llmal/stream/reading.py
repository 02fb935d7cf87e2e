"""Rows of a stream in small blocks: of a file always the same ones, of a pipe as they come."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.bulk.csvfile import Csv
from llmal.bulk.lines import CHUNK_BYTES, MAX_LINE_BYTES
from llmal.bulk.sources import Block, Jsonl, Position, TextSource, checked
from llmal.stream.wish import Wish
from llmal.stream.worker import Row

Batch = tuple[list[Row], Position | None]
"""Rows, and the place after them where one can go on from there."""


TOO_LONG = b"{"
"""Stands for a line longer than `MAX_LINE_BYTES`, which is one row that cannot be read."""


def source_of(path: Path | None, wish: Wish) -> TextSource:
    """What reads the input; no column has to be there but the text's."""
    if path is not None and path.suffix.lower() in (".csv", ".tsv"):
        return Csv(path, wish.text)
    return Jsonl(path, wish.text)


def batches(source: TextSource, at: Position, wish: Wish) -> Iterator[Batch]:
    """The rows from a place on, at most `wish.block` at a time."""
    if source.path is None:
        yield from _piped(source, wish)
        return
    for block in source.blocks(at):
        rows = _rows(block, wish)
        for start in range(0, len(rows), wish.block):
            last = start + wish.block >= len(rows)
            yield rows[start : start + wish.block], block.end if last else None


def _rows(block: Block, wish: Wish) -> list[Row]:
    return [
        _row(number, row, text, error, wish)
        for number, (row, text, error) in enumerate(
            zip(block.rows, block.texts, block.errors, strict=True), block.start.rows + 1
        )
    ]


def _row(number: int, row: dict[str, Any] | None, text: str | None, error: str, wish: Wish) -> Row:
    name = (row or {}).get(wish.id) if wish.id else None
    named = name if isinstance(name, str | int) and not isinstance(name, bool) and name != "" else number
    return Row(number, named, None if text is None else text[: wish.max_chars], error)


def _piped(source: TextSource, wish: Wish) -> Iterator[Batch]:
    """Rows of the standard input: those that have come are labelled before more are waited for."""
    at, rest, dropping = Position(), b"", False
    while True:
        chunk = sys.stdin.buffer.read1(CHUNK_BYTES)  # type: ignore[union-attr]
        whole, end, tail = (rest + chunk).rpartition(b"\n") if chunk else (rest, b"", b"")
        if dropping and (end or not chunk):
            whole, dropping = TOO_LONG + whole[len(whole.partition(b"\n")[0]) :], False
        rest = b"" if dropping else tail
        if len(rest) > MAX_LINE_BYTES:
            rest, dropping = b"", True
        pending: list[Row] = []
        for record, end_at in source.records(io.BytesIO(whole + end), at):
            at = end_at
            if isinstance(record, str):
                pending.append(_row(at.rows, None, None, record, wish))
            else:
                pending.append(_row(at.rows, record, *checked(record.get(source.text)), wish))
            if len(pending) == wish.block:
                yield pending, at
                pending = []
        if pending:
            yield pending, at
        if not chunk:
            return
