"""The corpus: every row is an item's text or set aside with its reason; nothing is lost or crashes."""

import csv
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.corpus import CorpusSpec, json_line, read, records, repaired, shown, text_key, write_jsonl
from llmal.errors import CorpusError
from llmal.records import Label, LabelSchema

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
MULTI = SCHEMA._replace(kind="multi")

few = settings(max_examples=60, deadline=None, database=None)

# Lone surrogates, NUL, line breaks that are none in JSON, byte-order marks, hidden characters.
NASTY = [
    "\ud800",
    "\udfff",
    "\0",
    "\u2028",
    "\u2029",
    "\x85",
    "\ufeff",
    "\x0b",
    "\x0c",
    "\x1c",
    "\r",
    "\r\n",
    "\n",
    '"',
    ",",
    "\t",
    "\u202e",
    "\u200b",
    "\U000e0041",
    "e\u0301" * 40,
    "\ufffe",
    "=1+1",
    "{{7*7}}",
    "😀",
]
characters = st.one_of(st.sampled_from(NASTY), st.characters(), st.characters(categories=["Cs"]))
ugly = st.lists(characters, min_size=1, max_size=12).map("".join)


def rows_of(path, schema=SCHEMA, **spec):
    return list(read(CorpusSpec(path=path.name, **spec), path, schema))


def jsonl(tmp_path, *rows, name="c.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(path, schema=SCHEMA, **spec):
    """The one line a user reads about a corpus that cannot be used."""
    with pytest.raises(CorpusError) as caught:
        rows_of(path, schema, **spec)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 1200
    return text


def counted(path):
    """All rows, and the reason when the file was refused after the last of them."""
    rows, reason = [], ""
    try:
        for row in read(CorpusSpec(path=path.name), path, SCHEMA):
            rows.append(row)
    except CorpusError as error:
        reason = str(error)
    return rows, reason


# --- rows in == rows out ------------------------------------------------------------------------------------

good_lines = st.tuples(ugly, st.booleans()).map(
    lambda t: json.dumps({"text": t[0]}, ensure_ascii=t[1]).encode("utf-8", "surrogatepass")
)
torn_lines = st.one_of(
    st.binary(min_size=1, max_size=30).map(lambda b: b"x" + b.replace(b"\n", b"")),
    st.sampled_from(
        [b"[1, 2]", b"7", b"null", b'{"text": "a"', b'{"text": "\xff"}', b"[" * 5000, b"NaN", b"9" * 5000]
    ),
)


@given(
    st.lists(st.one_of(good_lines, good_lines, torn_lines), max_size=30),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n"]),
)
@few
def test_every_line_of_an_ugly_jsonl_is_a_text_or_an_exception_with_its_reason(
    tmp_path_factory, lines, bom, end
):
    path = tmp_path_factory.mktemp("c") / "c.jsonl"
    lines = [b'{"text": "first"}', *lines]
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + end.join(lines))
    rows, reason = counted(path)
    assert [row.position for row in rows] == list(range(1, len(lines) + 1))
    assert all((row.text is None) == bool(row.skipped) for row in rows)
    unreadable = sum(row.skipped.startswith("unreadable: ") for row in rows)
    assert bool(reason) == (unreadable > max(1, 0.05 * len(lines)))


@given(
    st.lists(ugly, min_size=1, max_size=20),
    st.booleans(),
    st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL)]),
)
@few
def test_every_row_of_an_ugly_csv_is_a_text_or_an_exception_with_its_reason(
    tmp_path_factory, texts, bom, how
):
    path = tmp_path_factory.mktemp("c") / "c.csv"
    encoding = "utf-8-sig" if bom else "utf-8"
    with path.open("w", encoding=encoding, errors="surrogatepass", newline="") as file:
        writer = csv.writer(file, lineterminator=how[0], quoting=how[1])
        writer.writerow(["n", "text"])
        writer.writerows(enumerate(["first", *texts]))
    rows, _ = counted(path)
    assert len(rows) == len(texts) + 1
    assert len({row.position for row in rows}) == len(rows)
    for row, text in zip(rows[1:], texts, strict=True):
        if any("\ud800" <= c <= "\udfff" for c in text):
            assert row.skipped == "unreadable: not UTF-8"
        elif row.text is not None:
            assert row.text == text.replace("\0", "\ufffd")
        else:
            assert row.skipped == "empty"


@given(st.lists(st.dictionaries(st.sampled_from(["text", "a"]), ugly, min_size=1), max_size=8))
@few
def test_what_is_written_as_jsonl_reads_back_row_for_row_by_any_reader(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("w") / "w.jsonl"
    assert write_jsonl(path, iter(rows)) == len(rows)
    text = path.read_bytes().decode("utf-8")
    assert len(text.splitlines()) == len(rows)
    rows = json.loads(json.dumps(rows))  # two halves that meet become one character: JSON knows no other way
    assert [json.loads(line) for line in text.splitlines()] == rows
    assert [record for _, record in records(path)] == rows


@given(ugly)
@few
def test_a_repaired_text_can_be_held_by_sqlite_and_arrow_and_says_that_it_was_repaired(text):
    fixed, flags = repaired(text)
    fixed.encode("utf-8")
    assert "\0" not in fixed
    assert len(fixed) == len(text)
    assert (fixed != text) == bool({"broken characters", "NUL"} & set(flags))


@given(ugly)
@few
def test_text_from_data_never_breaks_the_line_of_a_message(text):
    assert shown(text, limit=20).isprintable()
    assert len(shown(text * 40)) <= 80


# --- C1 to C8, one at a time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \n"),
        ("a.csv", b""),
        ("a.csv", b"text,gold\n"),
        ("a.jsonl", b'{"text": " "}\n'),
    ],
)
def test_a_corpus_without_a_usable_text_is_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert told(path).startswith(f"{name}: ")


def test_one_row_is_a_corpus(tmp_path):
    (row,) = rows_of(jsonl(tmp_path, {"text": "hello"}))
    assert (row.position, row.id, row.text) == (1, "1", "hello")


def test_blank_null_and_invisible_texts_are_set_aside_as_empty_and_keep_their_id(tmp_path):
    path = jsonl(
        tmp_path,
        *({"id": f"r{i}", "text": t} for i, t in enumerate(["", " \n\t", None, "\u200b\ufeff", "x"])),
    )
    rows = rows_of(path, id="id")
    assert [r.skipped for r in rows] == ["empty"] * 4 + [""]
    assert [r.id for r in rows] == ["r0", "r1", "r2", "r3", "r4"]


def test_texts_that_differ_in_case_blanks_or_composition_share_a_key():
    assert text_key("Caf\u00e9  AU\nlait ") == text_key(" cafe\u0301 au lait")
    assert text_key("a") != text_key("b")


def test_an_id_for_two_texts_is_refused_naming_both_rows(tmp_path):
    path = jsonl(tmp_path, {"id": 7, "text": "a"}, {"id": 8, "text": "b"}, {"id": "7", "text": "c"})
    text = told(path, id="id")
    assert text.startswith("c.jsonl:3: ")
    assert "rows 1 and 3" in text


def test_an_id_repeated_with_the_same_text_is_set_aside_not_lost(tmp_path):
    rows = rows_of(jsonl(tmp_path, {"id": "a", "text": "x"}, {"id": "a", "text": "X "}), id="id")
    assert [r.skipped for r in rows] == ["", "repeats row 1"]
    assert rows[1].id == "a#2"


@pytest.mark.parametrize("missing", [None, ""])
def test_a_row_without_its_id_is_named(tmp_path, missing):
    text = told(jsonl(tmp_path, {"id": "a", "text": "x"}, {"id": missing, "text": "y"}), id="id")
    assert text.startswith("c.jsonl:2: no id in column 'id'")


def test_lone_surrogates_and_nul_are_repaired_and_flagged(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "a\\ud800b"}\n{"text": "a\\u0000b"}\n')
    assert [(r.text, r.flags) for r in rows_of(path)] == [
        ("a\ufffdb", ("broken characters",)),
        ("a\ufffdb", ("NUL",)),
    ]


def test_bad_utf_8_is_set_aside_with_the_byte_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n{"text": "c"}\n')
    rows = rows_of(path)
    assert [r.text for r in rows] == ["a", None, "c"]
    assert rows[1].skipped == "unreadable: not UTF-8 at byte 10 of the line"


def test_a_file_of_another_format_is_refused_with_the_counts(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("id,text\n1,a\n2,b\n", encoding="utf-8")
    text = told(path)
    assert text.startswith("c.jsonl: 3 of 3 rows are unreadable")
    assert "UTF-8" in text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_a_byte_order_mark_names_the_encoding(tmp_path, encoding, name):
    body = 'text\n"a\u2028b, c"\nd\n' if name == "c.csv" else '{"text": "a\u2028b, c"}\n{"text": "d"}\n'
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    path = tmp_path / name
    path.write_bytes((mark + body).encode(encoding))
    assert [r.text for r in rows_of(path)] == ["a\u2028b, c", "d"]


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_a_lone_surrogate_in_utf_16_costs_its_row_alone(tmp_path, name):
    lines = (
        ["text", "a", "\ud800", "c"]
        if name == "c.csv"
        else [f'{{"text": "{t}"}}' for t in ("a", "\ud800", "c")]
    )
    path = tmp_path / name
    path.write_bytes(("\ufeff" + "\n".join(lines) + "\n").encode("utf-16-le", "surrogatepass"))
    rows = rows_of(path)
    assert [r.text for r in rows] == ["a", None, "c"]
    assert rows[1].skipped.startswith("unreadable: not UTF-8")


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_utf_16_that_ends_inside_a_character_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes('text\n{"text": "a"}\n'.encode("utf-16") + b"\x41")
    with pytest.raises(CorpusError, match=r"^c\.\w+: the file ends inside a character of UTF-16"):
        list(records(path))


def test_line_separators_inside_a_text_split_no_row(tmp_path):
    texts = ["a\u2028b", "c\x85d", "e\u2029f", "g\x0bh\x0ci", "j\rk", "l\r\nm"]
    path = tmp_path / "c.jsonl"
    path.write_bytes("\r\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts).encode())
    assert [r.text for r in rows_of(path)] == texts


def test_a_csv_quote_that_is_never_closed_is_refused_where_it_opens_instead_of_swallowing_rows(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(
        'id,text\n1,fine\n2,"oops\n' + "".join(f"{i},t\n" for i in range(3, 99)), encoding="utf-8"
    )
    text = told(path)
    assert text.startswith("c.csv:3: not readable as CSV")
    assert "quotes" in text


def test_a_heading_that_stands_twice_is_refused_but_empty_headings_are_not(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("text,text\na,b\n", encoding="utf-8")
    assert told(path).startswith("c.csv:1: the heading 'text' stands twice")
    path.write_text("text,,\na,,\n", encoding="utf-8")
    assert [r.text for r in rows_of(path)] == ["a"]


def test_a_csv_row_of_the_wrong_width_is_set_aside_and_its_line_is_that_of_the_file(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('text,n\n"two\nlines",1\nalone\nlast,2\n', encoding="utf-8")
    rows = rows_of(path)
    assert [(r.position, r.text) for r in rows] == [(2, "two\nlines"), (4, None), (5, "last")]
    assert rows[1].skipped == "unreadable: 1 cells under 2 headings"


def test_tsv_splits_at_tabs_alone(tmp_path):
    path = tmp_path / "c.tsv"
    path.write_text("text\tn\na, b\t1\n", encoding="utf-8")
    assert rows_of(path)[0].text == "a, b"


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_a_text_of_10_mb_is_cut_by_the_files_own_policy_and_flagged(tmp_path, name):
    path = tmp_path / name
    text = "word " * 2_000_000
    path.write_text(
        f"text\n{text}\nshort\n" if name == "c.csv" else f'{{"text": "{text}"}}\n{{"text": "short"}}\n',
        encoding="utf-8",
    )
    rows = rows_of(path, max_chars=500)
    assert [len(r.text) for r in rows] == [500, 5]
    assert [r.flags for r in rows] == [("truncated",), ()]


def test_thousands_of_combining_marks_pass_as_they_are(tmp_path):
    text = "a" + "\u0301" * 2000
    assert rows_of(jsonl(tmp_path, {"text": text}))[0].text == text


@pytest.mark.slow
def test_a_line_of_100_mb_takes_less_than_four_times_its_size_in_memory(tmp_path):
    path = tmp_path / "c.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(100):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n{"text": "short"}\n')
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from llmal.corpus import CorpusSpec, read; from llmal.records import Label, LabelSchema\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak(); path = Path(sys.argv[1])\n"
        "schema = LabelSchema('single', (Label(name='a'),), True)\n"
        "rows = list(read(CorpusSpec(path='c.jsonl'), path, schema))\n"
        "print(len(rows), len(rows[0].text), rows[0].flags[0], peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    n, length, flag, grown = done.stdout.split()
    assert (n, length, flag) == ("2", "20000", "truncated")
    assert int(grown) < 4 * path.stat().st_size


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\u2066", "\U000e0041", "\u2060", "\ufeff", "\u00ad"])
def test_hidden_characters_are_flagged_and_kept_for_a_person_to_see(tmp_path, hidden):
    (row,) = rows_of(jsonl(tmp_path, {"text": f"pay{hidden}pal"}))
    assert row.text == f"pay{hidden}pal"
    assert row.flags == ("hidden characters",)


# --- columns, gold, kinds of file ---------------------------------------------------------------------------


def test_a_wrong_column_is_told_with_the_columns_there_are(tmp_path):
    assert "no column 'text'; the row has: id, body" in told(jsonl(tmp_path, {"id": 1, "body": "x"}))


def test_a_file_of_a_million_columns_is_refused_without_spelling_them_out(tmp_path):
    path = tmp_path / "c.csv"
    wide = ",".join(f"c{i}" for i in range(200_000))
    path.write_text(f"{wide}\n{wide}\n", encoding="utf-8")
    assert "and 199980 more" in told(path)


@pytest.mark.parametrize(
    ("value", "kind"), [(3, "int"), (["a"], "list"), (True, "bool"), ({"a": 1}, "dict"), (1.5, "float")]
)
def test_a_text_that_is_no_text_is_refused_with_its_kind_and_the_text_columns(tmp_path, value, kind):
    text = told(jsonl(tmp_path, {"text": value, "body": "words"}))
    assert text.startswith(f"c.jsonl:1: column 'text' holds {kind}, not text")
    assert "Set corpus.text to a text column: body" in text


def test_gold_outside_the_labels_is_refused_at_its_line(tmp_path):
    text = told(
        jsonl(tmp_path, {"text": "a", "label": "bug"}, {"text": "b", "label": "bgu\u202e\n"}), gold="label"
    )
    assert text.startswith("c.jsonl:2: gold label 'bgu\ufffd\ufffd' is not one of labels.names: bug, billing")


def test_a_gold_column_that_no_row_has_is_refused_not_ignored(tmp_path):
    assert "no row has a column 'lable'" in told(jsonl(tmp_path, {"text": "a", "label": "bug"}), gold="lable")


def test_rows_may_lack_gold_where_others_have_it(tmp_path):
    rows = rows_of(
        jsonl(tmp_path, {"text": "a"}, {"text": "b", "label": ""}, {"text": "c", "label": "bug"}),
        gold="label",
    )
    assert [r.gold for r in rows] == [None, None, ("bug",)]


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (["billing", "bug"], ("bug", "billing")),
        ("bug|billing", ("bug", "billing")),
        ('["bug"]', ("bug",)),
        ([], ()),
        ("", None),
    ],
)
def test_gold_of_several_labels_comes_as_a_list_or_with_bars(tmp_path, value, gold):
    assert rows_of(jsonl(tmp_path, {"text": "a", "label": value}), MULTI, gold="label")[0].gold == gold


@pytest.mark.parametrize("value", [5, '["bug"', {"bug": 1}, True])
def test_gold_of_several_labels_that_is_no_list_is_refused_in_one_line(tmp_path, value):
    assert told(jsonl(tmp_path, {"text": "a", "label": value}), MULTI, gold="label").startswith(
        "c.jsonl:1: gold '"
    )


def test_parquet_rows_come_out_one_for_one(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": ["a\u2028b", None, "c"], "n": [1, 2, 3]}), path)
    assert [(r.text, r.skipped) for r in rows_of(path)] == [("a\u2028b", ""), (None, "empty"), ("c", "")]


def test_a_broken_parquet_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "c.parquet"
    path.write_bytes(b"PAR1 not at all")
    assert told(path).startswith("c.parquet: not readable as Parquet")


def test_a_parquet_file_damaged_inside_is_refused_in_one_line(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": [f"text number {i}" for i in range(5000)]}), path, compression="zstd")
    body = bytearray(path.read_bytes())
    body[40:4000] = bytes(3960)
    path.write_bytes(body)
    assert "not readable as Parquet" in told(path)


@pytest.mark.parametrize(
    "where", ["gone.jsonl", "http://host/c.jsonl", "file:///etc/passwd", ".", "/dev/zero"]
)
def test_what_is_no_file_is_refused_and_nothing_is_fetched(tmp_path, where):
    with pytest.raises(CorpusError, match="no such corpus file"):
        list(read(CorpusSpec(path=where), tmp_path / where, SCHEMA))


def test_an_unknown_ending_is_told_with_the_known_ones(tmp_path):
    path = tmp_path / "c.xlsx"
    path.touch()
    assert "Known: .jsonl, .ndjson, .csv, .tsv, .parquet" in told(path)


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, iter([{"a": 1}]))

    def broken():
        yield {"a": 2}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_jsonl(path, broken())
    assert path.read_text(encoding="utf-8") == '{"a": 1}\n'


def test_ordinary_unicode_is_written_as_itself():
    assert json_line({"text": "naïve 😀"}) == '{"text": "naïve 😀"}'
