"""Parquet in blocks, and Arrow values as the Python ones that text formats can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmal.bulk.sources import BLOCK_BYTES, BLOCK_ROWS, Block, Position, Source, checked
from llmal.corpus import shown
from llmal.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER_BYTES = 2**20
"""Of a column read at once, so that a row group of any size is streamed and not loaded."""


class Parquet(Source):
    """Record batches of the file, row group by row group.

    Args:
        path: the file.
        text: column with the text.
        also: other columns that must be there.
        narrow: read no column but these.

    Raises:
        CorpusError: not Parquet, a wanted column missing, a name twice, or texts that are no texts.
    """

    unit = "rows"

    def __init__(self, path: Path, text: str, also: Sequence[str] = (), *, narrow: bool = False) -> None:
        import pyarrow as pa

        super().__init__(path, text, also, narrow=narrow)
        with self._opened() as file:
            schema = file.schema_arrow
            self._groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            self._group_bytes = [
                file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)
            ]
        names = schema.names
        twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        if twice:
            raise CorpusError(
                f"two columns are called '{shown(min(twice))}'", where=self.name, hint="Rename one"
            )
        self._must_have(names)
        kept = [field for field in schema if not narrow or field.name in self.wanted]
        self.schema = pa.schema([pa.field(f.name, _plain(f.type)) for f in kept])
        self.columns = self.schema.names
        kind = self.schema.field(text).type
        if not (_is_text(kind) or pa.types.is_null(kind)):
            texts = [field.name for field in schema if _is_text(_plain(field.type))]
            raise CorpusError(
                f"column '{shown(text)}' holds {kind}, not text",
                where=self.name,
                hint=f"Columns of text: {', '.join(map(shown, texts[:20])) or 'none'}",
            )

    @property
    def total(self) -> int:
        """Rows, from the file's own description."""
        return sum(self._groups)

    def blocks(self, at: Position) -> Iterator[Block]:
        """The batches from a row on."""
        first = 0
        with self._opened() as file:
            for group, n in enumerate(self._groups):
                if first + n > at.rows:
                    yield from self._group(file, group, first, at.rows)
                first += n

    def _group(self, file: Any, group: int, row: int, wanted: int) -> Iterator[Block]:
        """Blocks of one row group, those before `wanted` left out."""
        import pyarrow as pa

        mean = self._group_bytes[group] / max(1, self._groups[group])
        size = max(1, min(BLOCK_ROWS, int(BLOCK_BYTES / max(1.0, mean))))
        batches = file.iter_batches(size, row_groups=[group], columns=self.columns if self.narrow else None)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise CorpusError(
                    "not readable as Parquet from this row",
                    where=f"{self.name}:{row + 1}",
                    hint=shown(str(error)),
                ) from error
            if batch is None:
                return
            for part in _split(_cast(batch, self.schema)):
                row += part.num_rows
                if row > wanted:
                    yield self._block(part, Position(row - part.num_rows), Position(row))

    def _block(self, batch: pa.RecordBatch, start: Position, end: Position) -> Block:
        cells = [checked(value) for value in values(batch.column(self.text))]
        return Block(batch, [text for text, _ in cells], [error for _, error in cells], start, end)

    def _opened(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert self.path is not None
        try:
            return pq.ParquetFile(self.path, buffer_size=BUFFER_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise CorpusError("not readable as Parquet", where=self.name, hint=shown(str(error))) from error


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without a dictionary, which would tie blocks to each other."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [batch.column(name) for name in schema.names]
    plain = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in columns]
    return pa.RecordBatch.from_arrays(plain, schema=schema)


def _split(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Halves of halves, until each is small enough or one row."""
    if batch.num_rows <= 1 or batch.nbytes <= BLOCK_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _split(batch.slice(0, half))
    yield from _split(batch.slice(half))


def values(column: pa.Array) -> list[Any]:
    """Python values of a column; dates as text, and bytes that are not UTF-8 replaced: never an error."""
    import pyarrow as pa

    if pa.types.is_temporal(column.type):
        try:
            return list(column.cast(pa.string()).to_pylist())
        except (pa.ArrowException, ValueError):  # a calendar that Arrow cannot write: one by one below
            return [_value(cell) for cell in column]
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(cell) for cell in column]


def _value(cell: Any) -> Any:
    import pyarrow as pa

    try:
        return cell.as_py()
    except UnicodeDecodeError:
        nested = pa.types.is_nested(cell.type)
        return (
            "\N{REPLACEMENT CHARACTER}"
            if nested
            else cell.cast(pa.binary()).as_py().decode("utf-8", "replace")
        )
    except (ValueError, OverflowError, pa.ArrowException):
        return str(cell)
