"""Columns of the output: those kept of the input, and what JSONL rows need to become a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llmal.bulk.sources import Source
from llmal.errors import CorpusError
from llmal.text import SURROGATE

if TYPE_CHECKING:
    import pyarrow as pa

    from llmal.context import Progress

MOST_COLUMNS = 2000
"""Keys of JSONL rows that become columns of a table; more are data used as keys."""

BEFORE = "input."
"""Put before the name of an input column that has the name of an answer."""

ROW = "row"
"""Column with the number of the row, where nothing else says which row it is."""


class Column(NamedTuple):
    """A column kept: its name in the input and in the output, and what it holds.

    `kind` is `text`, `int`, `float`, `bool`, or `json` for a mixture, written as JSON.
    """

    source: str
    name: str
    kind: str = "text"


def named(names: Sequence[str], answers: Iterable[str]) -> dict[str, str]:
    """Input name -> output name: its own, unless an answer is called so; no two are the same."""
    used = set(answers)
    out: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name in used):  # those that keep their name come first
        new = holdable(name)
        while new in used:
            new = BEFORE + new
        used.add(new)
        out[name] = new
    return {name: out[name] for name in names}


def kinds_of(source: Source, progress: Progress) -> dict[str, str]:
    """Column -> kind over all rows of a file whose rows are free: reads it once.

    Raises:
        CorpusError: more than `MOST_COLUMNS` different keys.
    """
    from llmal.bulk.sources import Position

    found: dict[str, str] = {}
    done = 0
    with progress.task("columns", source.total) as advance:
        for block in source.blocks(Position()):
            for row in block.rows:
                for name, value in (row or {}).items():
                    before = found.get(name)
                    if before != "json":
                        found[name] = _joined(before, value)
            if len(found) > MOST_COLUMNS:
                raise CorpusError(
                    f"the rows have more than {MOST_COLUMNS:,} different keys, too many for a table",
                    where=source.name,
                    hint="Write .jsonl, or give --keep id",
                )
            advance(block.end.place - done)
            done = block.end.place
    return {name: kind or "text" for name, kind in found.items()}


def _joined(before: str | None, value: Any) -> str:
    """The kind that holds the column so far and one more value; empty where all were null."""
    kind = _kind(value)
    if not before or not kind or before == kind:
        return kind or before or ""
    return "float" if {before, kind} == {"int", "float"} else "json"


def _kind(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):  # a float holds whole numbers to 2**53; beyond that JSON does
        return "int" if abs(value) <= 2**53 else "json"
    return "float" if isinstance(value, float) else "json"


def writable(value: Any) -> Any:
    """A value of the user's file as JSON can hold it: dates, decimals and bytes as text, no NaN."""
    if isinstance(value, dict):
        return {str(k): writable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [writable(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def cell(value: Any) -> str:
    """A value as the text of one CSV cell: nothing for null, texts as they are, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return holdable(value)
    return json.dumps(value) if isinstance(value, bool | int) else as_json(value)


def as_json(value: Any) -> str:
    """JSON that UTF-8 can hold."""
    try:
        return holdable(json.dumps(writable(value), ensure_ascii=False))
    except RecursionError:
        return '"nested too deeply"'


def holdable(text: str) -> str:
    """The text with U+FFFD for what UTF-8 cannot hold; NUL stays."""
    return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def array(column: Column, values: Iterable[Any]) -> pa.Array:
    """The values of a column of kind `kind` as Arrow."""
    import pyarrow as pa

    if column.kind in ("json", "text"):
        write = as_json if column.kind == "json" else cell
        return pa.array([None if v is None else write(v) for v in values], pa.string())
    return pa.array(list(values), arrow_type(column.kind))


def arrow_type(kind: str) -> pa.DataType:
    """The type of a column of this kind."""
    import pyarrow as pa

    return {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}.get(kind, pa.string())
