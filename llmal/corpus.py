"""Reads a corpus from JSONL, CSV, Parquet or a data set's name; bad rows are set aside with their reason."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmal.errors import CorpusError
from llmal.records import Labels, LabelSchema, recipe
from llmal.text import HIDDEN, SURROGATE, repaired

MAX_CELL_CHARS = 128 * 1024 * 1024
"""Characters of one CSV cell; beyond this a file is more likely broken quoting than text."""

BAD_ROWS_TOLERATED = 0.05
"""Share of rows that may be unreadable before the whole file is refused: more points to a wrong format."""

_BLANKS = re.compile(r"\s+")
# Line breaks to `str.splitlines` but not to JSON, which leaves them bare; and what UTF-8 cannot hold.
_BREAKS_JSONL = re.compile("[\x85\u2028\u2029\ud800-\udfff]")


class CorpusSpec(BaseModel):
    """Where the texts are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        description="JSONL, CSV, TSV or Parquet file beside the pipeline file, or hf://NAME[:SPLIT]"
    )
    text: str = Field("text", description="column with the text")
    id: str | None = Field(
        None, description="column with an id of your own; without it the row number serves"
    )
    gold: str | None = Field(
        None, description="column with people's answers known beforehand; never trained on"
    )
    max_chars: int = Field(20_000, ge=100, description="longer texts are cut here, flagged and counted")

    def recipe(self) -> str:
        """Hash of everything but the bytes of the file."""
        return recipe("corpus", self.model_dump())


class Row(NamedTuple):
    """One row of the corpus file.

    Attributes:
        position: 1-based line (JSONL, CSV) or row number, for messages.
        id: the user's id, else the position as text.
        text: repaired and cut text, or None when the row was set aside.
        gold: the answer known beforehand, or None.
        flags: what is odd about the text.
        skipped: why the row was set aside, or empty.
    """

    position: int
    id: str
    text: str | None
    gold: Labels | None = None
    flags: tuple[str, ...] = ()
    skipped: str = ""


def text_key(text: str) -> str:
    """Hash shared by texts that differ only in case, blanks or Unicode composition."""
    normal = _BLANKS.sub(" ", unicodedata.normalize("NFC", text).casefold()).strip()
    return hashlib.sha256(b"llmal:text:" + normal.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read(spec: CorpusSpec, path: Path, schema: LabelSchema) -> Iterator[Row]:
    """Every row of the corpus in file order, good or set aside; never two texts with one id.

    Args:
        spec: columns and policies.
        path: the file (ignored for `hf://` names).
        schema: the labels; gold outside them is an error, for it is almost always a typing slip in one of the
            two.

    Raises:
        CorpusError: unreadable file, missing or mistyped column, one id for two texts, unknown gold label,
            no usable row, or more than 5 % unreadable rows.
    """
    seen: dict[str, tuple[int, str]] = {}
    total = bad = usable = 0
    gold_somewhere = spec.gold is None
    for position, record in _records(spec, path):
        row = _row(spec, path, schema, position, record)
        total += 1
        gold_somewhere = gold_somewhere or (isinstance(record, dict) and spec.gold in record)
        bad += row.skipped.startswith("unreadable")
        if row.text is not None:
            row = _once(row, seen, path)
        usable += row.text is not None
        yield row
    if bad > max(1, BAD_ROWS_TOLERATED * total):
        raise CorpusError(
            f"{bad} of {total} rows are unreadable",
            where=path.name,
            hint="Is it the format its name says (.jsonl, .csv, .tsv, .parquet), in UTF-8?",
        )
    if not usable:
        raise CorpusError(
            f"no usable text in {total} rows", where=path.name, hint="The file needs rows with text"
        )
    if not gold_somewhere:
        raise CorpusError(
            f"no row has a column '{spec.gold}'",
            where=path.name,
            hint="Set corpus.gold to the column with people's answers, or leave it out",
        )


def _once(row: Row, seen: dict[str, tuple[int, str]], path: Path) -> Row:
    key = text_key(row.text or "")
    first = seen.setdefault(row.id, (row.position, key))
    if first[0] == row.position:
        return row
    if first[1] != key:
        raise CorpusError(
            f"id '{shown(row.id)}' stands for two texts, in rows {first[0]} and {row.position}",
            where=f"{path.name}:{row.position}",
            hint="Give each text an id of its own, or leave corpus.id out",
        )
    return row._replace(text=None, skipped=f"repeats row {first[0]}", id=f"{row.id}#{row.position}")


def _row(
    spec: CorpusSpec, path: Path, schema: LabelSchema, position: int, record: dict[str, Any] | str
) -> Row:
    if isinstance(record, str):
        return Row(position, f"row {position}", None, skipped=f"unreadable: {record}")
    if spec.text not in record:
        raise CorpusError(
            f"no column '{spec.text}'; the row has: {listed(record)}",
            where=f"{path.name}:{position}",
            hint="Set corpus.text to the column with the text",
        )
    raw_id = record.get(spec.id) if spec.id else None
    if spec.id and (raw_id is None or raw_id == ""):
        raise CorpusError(
            f"no id in column '{spec.id}'", where=f"{path.name}:{position}", hint="Or leave corpus.id out"
        )
    row_id = repaired(str(raw_id))[0] if raw_id is not None else str(position)
    value = record[spec.text]
    if value is None or (isinstance(value, str) and not HIDDEN.sub("", value).strip()):
        return Row(position, row_id, None, skipped="empty")
    if not isinstance(value, str):
        kind = type(value).__name__
        others = [name for name, other in record.items() if isinstance(other, str) and name != spec.id]
        raise CorpusError(
            f"column '{spec.text}' holds {kind}, not text",
            where=f"{path.name}:{position}",
            hint=f"Set corpus.text to a text column: {listed(others) or 'there is none'}",
        )
    text, flags = repaired(value)
    if len(text) > spec.max_chars:
        text, flags = text[: spec.max_chars], (*flags, "truncated")
    gold = _gold(record.get(spec.gold), schema, f"{path.name}:{position}") if spec.gold else None
    return Row(position, row_id, text, gold, flags)


def shown(value: str, *, limit: int = 80) -> str:
    """Text from data made fit for one line of a message: no control or hidden characters, cut to `limit`."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def listed(names: Iterable[str], *, most: int = 20) -> str:
    """Names from data for one line of a message; a file of a million columns is not spelt out."""
    every = list(names)
    return ", ".join(
        [*map(shown, every[:most]), *([f"and {len(every) - most} more"] if len(every) > most else [])]
    )


def _gold(value: Any, schema: LabelSchema, where: str) -> Labels | None:
    if value is None or value == "":
        return None
    try:
        names = _as_names(value, schema)
    except (ValueError, TypeError) as error:
        words = f"gold '{shown(value)}' is not a list of labels"
        raise CorpusError(words, where=where, hint='Write ["a", "b"] or a|b') from error
    unknown = [name for name in names if name not in schema.columns()]
    if unknown:
        raise CorpusError(
            f"gold label '{shown(unknown[0])}' is not one of labels.names: {', '.join(schema.names)}",
            where=where,
            hint="Correct the row, or add the label",
        )
    return tuple(name for name in schema.names if name in names)


def _as_names(value: Any, schema: LabelSchema) -> list[str]:
    if schema.kind == "single":
        return [str(value)]
    if isinstance(value, str):  # a CSV cell: JSON list, or names with | between
        value = json.loads(value) if value.startswith("[") else [part for part in value.split("|") if part]
    if not isinstance(value, list | tuple):
        raise TypeError("not a list")
    return [str(name) for name in value]


def _records(spec: CorpusSpec, path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    if spec.path.startswith("hf://"):
        return _from_datasets(spec.path.removeprefix("hf://"))
    if not path.is_file():
        raise CorpusError(
            "no such corpus file", where=str(spec.path), hint="corpus.path starts at the pipeline file"
        )
    return records(path)


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(position, record) of every row of a table file; a row that cannot be read is its reason instead.

    Raises:
        CorpusError: the file's ending is not known, or its format is broken as a whole.
    """
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CorpusError(
            f"unknown kind of corpus '{path.suffix}'", where=path.name, hint=f"Known: {', '.join(readers)}"
        )
    return reader(path)


def _encoding(path: Path) -> str:
    """The encoding its byte-order mark names, else UTF-8."""
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-8-sig" if head.startswith(b"\xef\xbb\xbf") else "utf-8"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines by LF alone: `str.splitlines` would also split at U+2028 and U+0085, inside a text."""
    encoding = _encoding(path)
    if encoding == "utf-16":
        try:
            with path.open(encoding=encoding, errors="surrogatepass", newline="\n") as text:
                for position, line in enumerate(text, 1):
                    yield position, line.encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise _cut_short(path) from error
        return
    with path.open("rb") as file:
        for position, raw in enumerate(file, 1):
            yield position, raw.removeprefix(b"\xef\xbb\xbf") if position == 1 else raw


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for position, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except UnicodeDecodeError as error:
            yield position, f"not UTF-8 at byte {error.start} of the line"
        except (ValueError, RecursionError) as error:
            yield position, f"not JSON ({type(error).__name__})"
        else:
            yield position, record if isinstance(record, dict) else "not a JSON object"


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    csv.field_size_limit(MAX_CELL_CHARS)
    encoding = _encoding(path)
    errors = "surrogatepass" if encoding == "utf-16" else "surrogateescape"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        # Strict: a quote that is never closed would otherwise swallow the rest of the file into one text.
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        start = 1
        try:
            header = _csv_header(next(reader, None), path)
            start = reader.line_num + 1
            for cells in reader:
                position, start = start, reader.line_num + 1
                if cells:
                    yield position, _csv_record(header, cells)
        except csv.Error as error:
            where = f"{path.name}:{start}"
            raise CorpusError(f"not readable as CSV: {error}", where=where, hint="Check quotes") from error
        except UnicodeDecodeError as error:
            raise _cut_short(path) from error


def _csv_header(header: list[str] | None, path: Path) -> list[str]:
    if header is None:
        raise CorpusError("the file is empty", where=path.name, hint="It needs a header line and rows")
    seen: set[str] = set()
    for name in filter(None, header):  # blank headings are a spreadsheet's empty columns: harmless
        if name in seen:
            raise CorpusError(
                f"the heading '{shown(name)}' stands twice", where=f"{path.name}:1", hint="Rename one"
            )
        seen.add(name)
    return header


def _cut_short(path: Path) -> CorpusError:
    return CorpusError("the file ends inside a character of UTF-16", where=path.name, hint="Save it as UTF-8")


def _csv_record(header: list[str], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(header):
        return f"{len(cells)} cells under {len(header)} headings"
    if any(SURROGATE.search(cell) for cell in cells):  # bytes that are not UTF-8 arrive as surrogates
        return "not UTF-8"
    return dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError("not readable as Parquet", where=path.name, hint=shown(str(error))) from error
    position = 0
    with file:
        batches = file.iter_batches(batch_size=4096)
        while True:
            try:
                batch = next(batches, None)
                records = [] if batch is None else batch.to_pylist()
            except (pa.ArrowException, OSError, ValueError) as error:
                where = f"{path.name}:{position + 1}"
                raise CorpusError(
                    "not readable as Parquet from this row", where=where, hint=shown(str(error))
                ) from error
            if batch is None:
                return
            for record in records:
                position += 1
                yield position, record


def _from_datasets(name: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import datasets

    name, _, split = name.partition(":")
    try:
        data = datasets.load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the library raises anything from OSError to its own; all mean "cannot load"
        raise CorpusError(
            f"cannot load data set '{name}'", where="corpus.path", hint=shown(str(error))
        ) from error
    yield from enumerate(data, 1)


def write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows as JSONL, whole or not at all; returns how many."""
    part = path.with_name(path.name + ".part")
    n = 0
    with open(part, "w", encoding="utf-8", newline="\n") as file:
        for n, row in enumerate(rows, 1):  # noqa: B007 - n is the count after the loop
            file.write(json_line(row) + "\n")
    part.replace(path)
    return n


def json_line(row: dict[str, Any]) -> str:
    """A row as one line of JSON for every reader, those that split at U+2028 or U+0085 included."""
    line = json.dumps(row, ensure_ascii=False)
    return json.dumps(row) if _BREAKS_JSONL.search(line) else line
