"""What `llmal predict` is asked for, and the reader and the writer that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llmal.bulk.columns import ROW, Column, named
from llmal.bulk.csvfile import Csv
from llmal.bulk.parquet import Parquet
from llmal.bulk.sinks import ANSWERS, PROBABILITY, ArrowSink, CsvSink, JsonlSink, Sink
from llmal.bulk.sources import BLOCK_BYTES, BLOCK_ROWS, Jsonl, Source
from llmal.corpus import listed, shown
from llmal.errors import CorpusError, UserError
from llmal.predictor import Predictor

SOURCES: dict[str, Callable[..., Source]] = {
    ".jsonl": Jsonl, ".ndjson": Jsonl, ".csv": Csv, ".tsv": Csv, ".parquet": Parquet,
}  # fmt: skip
"""Ending -> what reads it."""


class Wish(NamedTuple):
    """What is asked for.

    Attributes:
        text: column with the text.
        id: column that names a row.
        keep: `all` columns of the input, or the `id` alone (the row's number where there is none).
        probs: write the probability of every class too.
        backend: what computes; see `llmal.load`.
        spreadsheet: put ' before CSV cells that a spreadsheet would run.
        force: write over an output that is there, or start anew where another job was left unfinished.
    """

    text: str = "text"
    id: str | None = None
    keep: str = "all"
    probs: bool = False
    backend: str | None = None
    spreadsheet: bool = False
    force: bool = False


def check_paths(file: Path | None, out: Path | None, wish: Wish) -> None:
    """Raise where the call cannot work, before anything is loaded."""
    if wish.keep not in ("all", "id"):
        raise UserError(f"'{shown(wish.keep)}' cannot be kept", where="--keep", hint="Use all or id")
    if file is not None and not file.is_file():
        raise CorpusError("no such file", where=str(file))
    for path in filter(None, (file, out)):
        if path.suffix.lower() not in SOURCES:
            raise UserError(
                f"unknown kind of table '{shown(path.suffix)}'",
                where=str(path),
                hint=f"Known: {listed(SOURCES)}",
            )
    if out is not None and file is not None and out.exists() and out.samefile(file):
        raise UserError("the output is the input", where=str(out), hint="Name another file with --out")
    if wish.spreadsheet and (out is None or SOURCES[out.suffix.lower()] is not Csv):
        raise UserError(
            "only CSV can be made fit for a spreadsheet", where="--for-spreadsheet", hint="Write .csv"
        )
    if out is not None and out.is_dir():
        raise UserError("the output is a folder", where=str(out), hint="Name a file with --out")
    if file is None and wish.keep == "all" and not is_jsonl(out):
        raise UserError(
            "the columns of a table cannot be known before the standard input was read",
            where=str(out),
            hint="Write .jsonl, or give --keep id",
        )


def is_jsonl(path: Path | None) -> bool:
    """Whether rows of any shape can be written there; the standard output takes them too."""
    return path is None or SOURCES[path.suffix.lower()] is Jsonl


def options(out: Path, wish: Wish, model: Predictor) -> dict[str, Any]:
    """What decides the output besides input and model."""
    import llmal

    asked = wish._replace(force=False, backend=model.backend)._asdict()
    return {
        **asked,
        "format": out.suffix.lower(),
        "version": llmal.__version__,
        "block": [BLOCK_ROWS, BLOCK_BYTES],
    }


def source_of(file: Path | None, wish: Wish) -> Source:
    """What reads the input."""
    kind = SOURCES[file.suffix.lower()] if file else Jsonl
    return kind(file, wish.text, [wish.id] if wish.id else [], narrow=wish.keep == "id")


def sink_of(
    out: Path | None, source: Source, model: Predictor, wish: Wish, kinds: dict[str, str] | None
) -> Sink:
    """What writes the output.

    Args:
        out: its place; None for the standard output.
        source: what is read.
        model: whose labels are written.
        wish: columns and options.
        kinds: column -> kind of a JSONL file that becomes a table.
    """
    classes = model.labels if wish.probs else []
    multi = model.kind == "multi"
    if is_jsonl(out):
        columns = _columns(source, wish, {}, [*ANSWERS, "probabilities"]) if wish.keep == "id" else None
        return JsonlSink(columns, classes, multi=multi)
    assert out is not None
    told = [*ANSWERS, *(PROBABILITY + name for name in classes)]
    columns = _columns(source, wish, kinds or {}, told)
    if out.suffix.lower() == ".parquet":
        types = {f.name: f.type for f in source.schema} if isinstance(source, Parquet) else {}
        return ArrowSink(columns, classes, multi=multi, types=types)
    delimiter = "\t" if out.suffix.lower() == ".tsv" else ","
    return CsvSink(columns, classes, multi=multi, delimiter=delimiter, inert=wish.spreadsheet)


def _columns(source: Source, wish: Wish, kinds: dict[str, str], told: list[str]) -> list[Column]:
    """The columns kept of the input."""
    if wish.keep == "id" and wish.id is None:
        return [Column("", ROW, "int")]
    names = [wish.id] if wish.keep == "id" and wish.id else (source.columns or list(kinds))
    new = named(names, told)
    return [Column(name, new[name], kinds.get(name, "text")) for name in names]
