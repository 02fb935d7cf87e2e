"""Rows of the output: id, label, who gave it, how sure, and why it was or was not asked about."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmal.bulk.columns import cell, holdable, writable
from llmal.corpus import json_line

DIGITS = 4
"""Of a confidence written."""


class Line(NamedTuple):
    """One row of the output.

    Attributes:
        id: of the input's row, or its number.
        text: None where it is not asked for.
        label: None where nobody could give one.
        source: `student:hashed`, `student:encoder`, `llm` or `none`.
        confidence: of a student, the chance that the model would say the same; of the model, its own, if any.
        why: in words.
    """

    id: Any
    text: str | None
    label: str | None
    source: str
    confidence: float | None
    why: str


def written(lines: Sequence[Line], kind: str, *, texts: bool) -> bytes:
    """Rows as JSONL (`.jsonl`, `.ndjson`), CSV or TSV, without a heading.

    Args:
        lines: the rows.
        kind: ending of the output's name.
        texts: whether the text is among the columns.
    """
    names = columns(texts=texts)
    rows = [{name: getattr(line, name) for name in names} for line in lines]
    if kind not in (".csv", ".tsv"):
        return "".join(json_line({k: _held(v) for k, v in row.items()}) + "\n" for row in rows).encode()
    return _cells([[cell(row[name]) for name in names] for row in rows], kind)


def heading(kind: str, *, texts: bool) -> bytes:
    """What stands before the first row."""
    return _cells([columns(texts=texts)], kind) if kind in (".csv", ".tsv") else b""


def columns(*, texts: bool) -> list[str]:
    """Names of the columns."""
    return [name for name in Line._fields if texts or name != "text"]


def _held(value: Any) -> Any:
    return holdable(value) if isinstance(value, str) else writable(value)


def _cells(rows: list[list[str]], kind: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t" if kind == ".tsv" else ",", lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
