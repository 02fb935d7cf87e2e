"""What is written: JSONL, CSV or Arrow, a block as bytes that can only be appended; Parquet at the end."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmal.bulk.answers import Answers
from llmal.bulk.columns import ROW, Column, array, arrow_type, cell, named, writable
from llmal.bulk.parquet import values
from llmal.bulk.sources import Block
from llmal.corpus import json_line

if TYPE_CHECKING:
    import pyarrow as pa

ANSWERS = ("label", "probability", "needs_review", "error")
"""Columns of every output, after those of the input."""

PROBABILITY = "probability:"
"""Before a class, the name of the column with its probability."""

GROUP_ROWS = 65_536
"""Rows of a row group of the Parquet file written; fewer where they are large."""

GROUP_BYTES = 64 * 2**20
"""A row group ends here too."""


class Sink(ABC):
    """Turns blocks into bytes; the same block gives the same bytes, whatever came before it.

    Args:
        columns: those kept of the input; None keeps what each row has.
        classes: labels whose probabilities are written; empty for none.
        multi: whether a row can have several labels.
    """

    def __init__(self, columns: list[Column] | None, classes: list[str], *, multi: bool) -> None:
        self.columns, self.classes, self.multi = columns, classes, multi

    def head(self) -> bytes:
        """What stands before the first block."""
        return b""

    @abstractmethod
    def body(self, block: Block, answers: Answers) -> bytes:
        """One block."""


def dicts(block: Block) -> list[dict[str, Any] | None]:
    """The rows of a block as dicts."""
    if isinstance(block.rows, list):
        return block.rows
    batch = block.rows
    columns = [values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _rows(block: Block, columns: list[Column]) -> Iterator[list[Any]]:
    """The kept cells of each row, the row's number among them where it is asked for."""
    for number, row in enumerate(dicts(block), block.start.rows + 1):
        known = row or {}
        yield [number if c.source == "" and c.name == ROW else known.get(c.source) for c in columns]


class JsonlSink(Sink):
    """One object a line; probabilities of all classes as an object."""

    def body(self, block: Block, answers: Answers) -> bytes:
        """One block."""
        kept = self._kept(block)
        lines = []
        for base, table, *answer in zip(kept, answers.table, *answers[:4], strict=True):
            row = {**base, **dict(zip(ANSWERS, answer, strict=True))}
            if self.classes:
                row["probabilities"] = None if table is None else dict(zip(self.classes, table, strict=True))
            lines.append(json_line(row) + "\n")
        return "".join(lines).encode()

    def _kept(self, block: Block) -> Iterator[dict[str, Any]]:
        taken = {*ANSWERS, *(["probabilities"] if self.classes else [])}
        if self.columns is not None:
            for cells in _rows(block, self.columns):
                yield {c.name: writable(v) for c, v in zip(self.columns, cells, strict=True)}
            return
        for number, row in enumerate(dicts(block), block.start.rows + 1):
            if row is None:
                yield {ROW: number}
                continue
            try:
                made = writable(row)
            except RecursionError:
                made = {ROW: number, "unwritable": "nested too deeply"}
            if taken.isdisjoint(made):
                yield made
            else:
                names = named(list(made), taken)
                yield {names[name]: value for name, value in made.items()}


class CsvSink(Sink):
    """Cells as they are; labels with | between them, as `corpus.gold` reads them.

    Args:
        columns: those kept of the input.
        classes: labels whose probabilities are written.
        multi: whether a row can have several labels.
        delimiter: between cells.
        inert: put ' before cells that a spreadsheet would run.
    """

    def __init__(
        self, columns: list[Column], classes: list[str], *, multi: bool, delimiter: str, inert: bool
    ) -> None:
        super().__init__(columns, classes, multi=multi)
        self.delimiter = delimiter
        self.formula: tuple[str, ...] = ()
        if inert:
            from llmal.review.table import FORMULA

            self.formula = FORMULA

    def head(self) -> bytes:
        """The header line."""
        assert self.columns is not None
        names = [c.name for c in self.columns]
        return self._written([[*names, *ANSWERS, *(PROBABILITY + name for name in self.classes)]])

    def body(self, block: Block, answers: Answers) -> bytes:
        """One block."""
        assert self.columns is not None
        none = [""] * len(self.classes)
        rows = []
        for kept, table, label, *rest in zip(
            _rows(block, self.columns), answers.table, *answers[:4], strict=True
        ):
            probs = (table or none) if self.classes else []
            rows.append([*map(cell, [*kept, self._label(label), *rest]), *map(str, probs)])
        return self._written(rows)

    def _label(self, label: str | list[str] | None) -> str | None:
        if not isinstance(label, list):
            return label
        plain = bool(label) and not any("|" in name or name.startswith("[") for name in label)
        return "|".join(label) if plain else json.dumps(label, ensure_ascii=False)

    def _written(self, rows: list[list[str]]) -> bytes:
        if self.formula:
            rows = [[f"'{c}" if c.startswith(self.formula) else c for c in row] for row in rows]
        text = io.StringIO(newline="")
        # CR LF between rows: only then does the writer quote a cell with a lone CR, where readers split.
        csv.writer(text, delimiter=self.delimiter, lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode()


class ArrowSink(Sink):
    """Each block a little Arrow stream of its own; all of them become row groups of a Parquet file.

    Args:
        columns: those kept of the input.
        classes: labels whose probabilities are written.
        multi: whether a row can have several labels.
        types: Arrow types of columns read from Parquet, which are handed on as they are.
    """

    def __init__(
        self, columns: list[Column], classes: list[str], *, multi: bool, types: dict[str, Any]
    ) -> None:
        import pyarrow as pa

        super().__init__(columns, classes, multi=multi)
        kept = [(c.name, types.get(c.source, arrow_type(c.kind))) for c in columns]
        label = pa.list_(pa.string()) if multi else pa.string()
        told = [("label", label), ("probability", pa.float64()), ("needs_review", pa.bool_())]
        every = [(PROBABILITY + name, pa.float64()) for name in classes]
        self.schema = pa.schema([*kept, *told, ("error", pa.string()), *every])

    def body(self, block: Block, answers: Answers) -> bytes:
        """One block."""
        import pyarrow as pa

        answered: list[list[Any]] = [*answers[:4]]
        for i in range(len(self.classes)):
            answered.append([None if row is None else row[i] for row in answers.table])
        types = self.schema.types[-len(answered) :]
        made = [pa.array(column, kind) for column, kind in zip(answered, types, strict=True)]
        batch = pa.RecordBatch.from_arrays([*self._kept(block), *made], schema=self.schema)
        out = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        with pa.ipc.new_stream(out, self.schema, options=options) as stream:
            stream.write_batch(batch)
        return bytes(out.getvalue())

    def _kept(self, block: Block) -> list[pa.Array]:
        assert self.columns is not None
        if isinstance(block.rows, list):
            cells = list(_rows(block, self.columns))
            return [array(c, (row[i] for row in cells)) for i, c in enumerate(self.columns)]
        numbers = Column("", ROW, "int")
        count = range(block.start.rows + 1, block.end.rows + 1)
        return [array(c, count) if c == numbers else block.rows.column(c.source) for c in self.columns]

    def finish(self, part: Path, whole: Path) -> None:
        """Join the blocks into one Parquet file, a row group at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        waiting: list[Any] = []
        rows = size = 0
        with part.open("rb") as file, pq.ParquetWriter(whole, self.schema, compression="zstd") as out:
            while file.peek(1):
                table = pa.ipc.open_stream(file).read_all()
                waiting.append(table)
                rows, size = rows + table.num_rows, size + table.nbytes
                if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                    out.write_table(pa.concat_tables(waiting), row_group_size=rows)
                    waiting, rows, size = [], 0, 0
            if waiting:
                out.write_table(pa.concat_tables(waiting), row_group_size=rows)
