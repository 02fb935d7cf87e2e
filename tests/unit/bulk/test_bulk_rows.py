"""Rows out are rows in: ugly texts and ugly bytes, in three formats, whole and from any block on."""

import csv
import io
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmal.bulk.csvfile import Csv
from llmal.bulk.job import predict_file
from llmal.bulk.lines import ANY, LF, lines
from llmal.bulk.parquet import Parquet
from llmal.bulk.sources import Jsonl, Position
from llmal.bulk.wish import Wish
from llmal.context import Silent
from llmal.errors import CorpusError
from llmal.records import Label, LabelSchema
from llmal.text import HIDDEN

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
UGLY = st.text(
    st.one_of(
        st.sampled_from(
            "\",;\t\r\n\0\ufeff\u2028\x85\x1c\x0b\u200b=+@|[]{}\\'#ab \ud800\udfff\xe9\U0001f600"
        ),
        st.characters(exclude_categories=()),
    ),
    max_size=12,
)
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


class Parity:
    """A model whose answer is whether the text has an even number of characters."""

    labels = ["even", "odd"]
    kind = "single"
    threshold = None
    backend = "torch"
    schema = LabelSchema("single", (Label(name="even"), Label(name="odd")), False)

    def accepts(self, labels, confidence):
        return None

    def predict_proba(self, texts):
        assert len(set(texts)) == len(texts), "a text was predicted twice in one block"
        odd = np.array([len(text) % 2 for text in texts], np.float32)
        return np.stack([1 - odd, odd], axis=1).reshape(-1, 2)


@contextmanager
def small(rows=3, chunk=5):
    """Blocks and chunks so small that every text has one's end somewhere."""
    with (
        patch("llmal.bulk.sources.BLOCK_ROWS", rows),
        patch("llmal.bulk.parquet.BLOCK_ROWS", rows),
        patch("llmal.bulk.lines.CHUNK_BYTES", chunk),
        patch("llmal.bulk.sinks.GROUP_ROWS", 2 * rows),
        patch("os.fsync"),
    ):
        yield


def predicted(file, suffix, wish=None):
    """What `predict_file` writes for a file, as the rows of an independent reader."""
    with tempfile.TemporaryDirectory() as place, patch("llmal.bulk.job.load", lambda *a, **k: Parity()):
        (Path(place) / "model").mkdir()
        out = Path(place) / f"out{suffix}"
        done = predict_file(Path(place) / "model", file, out=out, wish=wish, progress=Silent())
        assert sorted(path.name for path in Path(place).iterdir()) == ["model", out.name]
        rows = read(out)
    assert done["rows"] == len(rows)
    return rows


def read(path):
    if path.suffix == ".jsonl":
        body = path.read_bytes().decode()
        assert body.count("\n") == len(body.splitlines()), "a reader that splits at U+2028 sees other lines"
        return [json.loads(line, parse_constant=pytest.fail) for line in body.splitlines()]
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True))


def write(path, texts):
    """A table with the columns `n` and `text`; None becomes an empty cell where there is no null."""
    rows = [{"n": str(i), "text": text} for i, text in enumerate(texts)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        schema = pa.schema([("n", pa.string()), ("text", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=4)
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["n", "text"], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(text.getvalue().encode())
    return path


def utf8(text):
    """The text as UTF-8 can hold it."""
    return text if text is None else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


CLASSICS = [
    "a\rb",
    "a\nb",
    "a\r\nb",
    'a"b',
    '"',
    "a,b",
    "a\tb",
    "\ufeffa",
    "a\0b",
    "\ud800",
    "=1+1",
    " a ",
    None,
    "\r",
]
"""Texts that break a reader or a writer that was not thought through; each in every format, every time."""

BLANK = " \t\r\n\0\ufeff\u2028\x85\x1c\x0b\u200b"


@pytest.mark.parametrize("source", FORMATS)
def test_no_text_is_so_ugly_that_a_row_is_lost_or_moved(source, tmp_path):
    """Each text comes out in its own row, unchanged, with its own answer; a row without one says so."""

    @QUICK
    @given(st.lists(st.one_of(UGLY, st.none()), max_size=9))
    @example(CLASSICS)
    def check(texts):
        if source != ".jsonl":  # only JSON can write half a character
            texts = [utf8(text) for text in texts]
        file = write(tmp_path / f"in{source}", texts)
        for target in FORMATS:
            with small():
                found = predicted(file, target)
            assert [row["n"] for row in found] == [str(i) for i in range(len(texts))]
            for row, text in zip(found, texts, strict=True):
                wanted = text if source == target == ".jsonl" else utf8(text)
                no_null = {".csv", ".tsv"} & {source, target}
                assert (row["text"] or None) == (wanted or None) if no_null else row["text"] == wanted
                if row["error"]:
                    assert row["error"] == "no text"
                    assert not row["label"]
                    assert all(c in BLANK or c.isspace() or HIDDEN.match(c) for c in text or "")
                else:
                    assert row["label"] == Parity.labels[len(text) % 2]

    check()


BYTES = st.lists(
    st.one_of(
        st.sampled_from(
            [b'"', b",", b"\n", b"\r", b"\r\n", b"a", b"\0", b"\xff", b"\xef\xbb\xbf", b" ", b"\t"]
        ),
        st.binary(max_size=3),
        st.sampled_from([b'{"text": "a"}', b'{"text": 1}', b'{"n": 1}', b"[]", b"{", b'"a","b"', b"NaN"]),
    ),
    max_size=25,
).map(b"".join)


@QUICK
@given(BYTES)
def test_any_bytes_are_as_many_jsonl_rows_as_lines_that_are_not_blank(body):
    with tempfile.TemporaryDirectory() as place, small():
        file = Path(place) / "in.jsonl"
        file.write_bytes(b'{"text": "first"}\n' + body)
        if body.startswith((b"\xff\xfe", b"\xfe\xff")):
            return
        wanted = sum(bool(line.strip()) for line in file.read_bytes().split(b"\n"))
        for suffix in FORMATS:
            assert len(predicted(file, suffix)) == wanted


@QUICK
@given(BYTES)
@example(b'a,b\n"open,b\nc,d\ne,f\n')
@example(b'"a"b,c\nd,e\r"f\rg",h\r\n\xff,i\nj\n')
def test_any_bytes_are_as_many_csv_rows_as_a_strict_reader_finds_if_it_reads_them(body):
    """Where a strict reader gives up, the rows before the broken place are its rows, and none is lost."""
    with tempfile.TemporaryDirectory() as place, small():
        file = Path(place) / "in.csv"
        file.write_bytes(b"text,b\n" + body)
        strict, whole = [], True
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
            try:
                strict.extend(row for row in csv.reader(text, strict=True) if row)
            except csv.Error:
                whole = False
        blocks = list(Csv(file, "text").blocks(Position()))
        rows = [row for block in blocks for row in block.rows]
        assert len(rows) == len(strict) - 1 if whole else len(rows) >= len(strict)
        for row, cells in zip(rows, strict[1:], strict=False):
            assert row is None or list(row.values()) == cells
        assert whole or any("quotes" in error for block in blocks for error in block.errors)
        if rows:
            assert blocks[-1].end.rows == len(rows)
        for suffix in FORMATS:
            assert len(predicted(file, suffix)) == len(rows)


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path):
    file = tmp_path / "in.csv"
    file.write_text('n,text\n1,fine\n2,"never closed\n3,fine\n4,"closed\n in the next line"\n5,fine\n')
    found = predicted(file, ".jsonl")
    assert [row.get("n") for row in found] == ["1", None, "3", "4", "5"]
    assert found[1]["error"] == "unreadable: line 3 has broken quotes"
    assert found[3]["text"] == "closed\n in the next line"


@pytest.mark.parametrize("suffix", FORMATS)
def test_reading_from_any_block_on_gives_the_same_blocks(suffix, tmp_path):
    """What going on after a kill rests on: the rest is the same from the end of every block."""

    @QUICK
    @given(
        st.lists(UGLY.map(utf8), max_size=12),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        st.integers(1, 9),
    )
    def check(texts, encoding, chunk):
        file = write(tmp_path / f"in{suffix}", texts)
        if suffix != ".parquet":
            file.write_bytes(file.read_bytes().decode().encode(encoding))
        kind = {".jsonl": Jsonl, ".parquet": Parquet}.get(suffix, Csv)
        with small(rows=2, chunk=chunk):
            source = kind(file, "text")
            whole = list(source.blocks(Position()))
            for i, block in enumerate(whole):
                assert list(source.blocks(block.end)) == whole[i + 1 :]
        got = [row["text"] for block in whole for row in rows_of(block)]
        assert got == texts

    check()


def rows_of(block):
    return block.rows if isinstance(block.rows, list) else block.rows.to_pylist()


@QUICK
@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b'"']), max_size=30).map(b"".join), st.integers(1, 7))
def test_lines_do_not_depend_on_how_bytes_arrive(body, chunk):
    with patch("llmal.bulk.lines.CHUNK_BYTES", chunk), patch("llmal.bulk.lines.MAX_LINE_BYTES", 6):
        for ends, universal in ((LF, False), (ANY, True)):
            got = list(lines(io.BufferedReader(io.BytesIO(body)), ends))
            text = io.TextIOWrapper(io.BytesIO(body), "ascii", newline="" if universal else "\n")
            wanted = [line.encode() for line in text]
            assert [line.size for line in got] == [len(line) for line in wanted]
            assert [line.body for line in got] == [line if len(line) <= 6 else None for line in wanted]


def test_a_line_longer_than_memory_allows_is_one_broken_row(tmp_path):
    file = tmp_path / "in.jsonl"
    with patch("llmal.bulk.lines.MAX_LINE_BYTES", 100):
        file.write_text('{"text": "a"}\n{"text": "' + "x" * 5000 + '"}\n{"text": "bb"}')
        found = predicted(file, ".csv")
    assert [row["label"] for row in found] == ["odd", "", "even"]
    assert found[1]["error"] == "unreadable: line 2 is too long"


@pytest.mark.parametrize("suffix", FORMATS)
def test_long_texts_end_a_block_early(suffix, tmp_path):
    file = write(tmp_path / f"in{suffix}", ["a" * 1000, "b" * 1000, "c" * 1000, "d"])
    kind = {".jsonl": Jsonl, ".parquet": Parquet}.get(suffix, Csv)
    with patch("llmal.bulk.sources.BLOCK_BYTES", 900), patch("llmal.bulk.parquet.BLOCK_BYTES", 900):
        blocks = list(kind(file, "text").blocks(Position()))
    assert [len(block.texts) for block in blocks] == [1, 1, 1, 1]


def test_a_text_of_a_million_characters_and_one_is_told(tmp_path):
    file = write(tmp_path / "in.jsonl", ["x" * 1_000_000, "x" * 1_000_001])
    found = predicted(file, ".jsonl", Wish(keep="id", id="n"))
    assert [row["label"] for row in found] == ["even", None]
    assert found[1]["error"] == "too long: 1,000,001 characters, at most 1,000,000"


def test_a_csv_file_in_another_encoding_keeps_its_rows(tmp_path):
    file = tmp_path / "in.csv"
    file.write_bytes("n,text\n1,café\n2,plain\n".encode("latin-1"))
    found = predicted(file, ".parquet")
    assert [(row["n"], row["error"]) for row in found] == [
        (None, "unreadable: line 2 is not UTF-8"),
        ("2", None),
    ]


def test_a_utf16_file_that_ends_inside_a_character_keeps_its_rows(tmp_path):
    file = tmp_path / "in.csv"
    file.write_bytes("text\na\nbb".encode("utf-16") + b"x")
    assert [row["label"] for row in predicted(file, ".jsonl")] == ["odd", "odd"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the file is empty"),
        (b"\n\r\n", "the file is empty"),
        (b"a,b\n1,2\n", "no column 'text'. It has: a, b"),
        (b"text,a,a\n", "the heading 'a' stands twice"),
        (b'text,"a\n1,2\n', "the header line has broken quotes"),
    ],
)
def test_a_csv_file_without_a_usable_header_is_refused(body, words, tmp_path):
    file = tmp_path / "in.csv"
    file.write_bytes(body)
    with pytest.raises(CorpusError) as caught:
        Csv(file, "text")
    assert words in str(caught.value)


def test_blank_headings_get_names_and_keep_their_cells(tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("text,,\na,1,2\n")
    (row,) = predicted(file, ".csv")
    assert (row["column 2"], row["column 3"]) == ("1", "2")
