"""People's tables: what goes out comes back exactly, wrong rows are set aside, nothing counts twice."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.corpus import CorpusSpec, read, records, text_key
from llmal.errors import CorpusError, ReviewError
from llmal.records import Label, LabelSchema
from llmal.review.stage import Waiting
from llmal.review.table import COLUMNS, answered_out, hand_out, take_back
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="=cmd"), Label(name="none")), True)
MULTI = SCHEMA._replace(kind="multi", labels=SCHEMA.labels[:2])

NASTY = [
    "\ud800",
    "\0",
    "\u2028",
    "\x85",
    "\ufeff",
    "\r",
    "\r\n",
    "\n",
    '"',
    ",",
    ";",
    "\t",
    "=1+1",
    "+",
    "-",
    "@",
    "'",
    "\uff1d",
    "\u202e",
    "|",
    "😀",
]
ugly = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=3)), min_size=1, max_size=8).map("".join)
ugly_corpus = st.lists(ugly, min_size=1, max_size=8)


def filled(folder, texts):
    """A run whose corpus holds the texts."""
    store = open_store(folder / "run")
    path = folder / "c.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ["first", *texts]), encoding="utf-8"
    )
    store.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    return store


@pytest.fixture
def store(tmp_path):
    opened = filled(tmp_path, ["second", "third"])
    yield opened
    opened.close()


def table(tmp_path, *rows, name="t.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def key(store, seq):
    return store.items([seq])[0].key


@given(ugly_corpus, st.sampled_from(["t.jsonl", "t.csv"]), st.booleans())
@settings(max_examples=25, deadline=None, database=None)
def test_ugly_texts_go_out_and_come_back_row_for_row(tmp_path_factory, texts, name, multi):
    folder = tmp_path_factory.mktemp("r")
    store = filled(folder, texts)
    try:
        schema = MULTI if multi else SCHEMA
        queue = [Waiting(s, "audit", ("=cmd",), 0.5) for s in store.active()]
        path = folder / name
        assert hand_out(store, queue, path) == len(queue)
        rows = [row for _, row in records(path)]
        assert [row["item"] for row in rows] == [key(store, w.item) for w in queue]
        assert [row["text"] for row in rows] == store.texts(0, len(queue))
        answers = {row["item"]: ("bug" if i % 2 else "=cmd") for i, row in enumerate(rows)}
        if name == "t.csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows({**row, "answer": answers[row["item"]]} for row in rows)
        else:
            path.write_text(
                "".join(json.dumps({**row, "answer": answers[row["item"]]}) + "\n" for row in rows),
                encoding="utf-8",
            )
        taken = take_back(store, path, schema)
        assert (taken.new, taken.open, taken.aside) == (len(queue), 0, [])
        assert store.answers() == {w.item: (answers[key(store, w.item)],) for w in queue}
    finally:
        store.close()


def test_the_same_file_twice_adds_nothing_and_a_changed_mind_adds_one(store, tmp_path):
    path = table(
        tmp_path,
        {"item": key(store, 0), "answer": "bug"},
        {"item": key(store, 1), "answer": "bug"},
        {"item": key(store, 2), "answer": None},
    )
    assert take_back(store, path, SCHEMA)[:3] == (2, 0, 1)
    assert take_back(store, path, SCHEMA)[:3] == (0, 2, 1)
    changed = table(
        tmp_path,
        {"item": key(store, 0), "answer": "none"},
        {"item": key(store, 1), "answer": "bug"},
        name="u.jsonl",
    )
    assert take_back(store, changed, SCHEMA)[:3] == (1, 1, 0)
    assert store.answers() == {0: ("none",), 1: ("bug",)}
    assert take_back(store, path, SCHEMA).new == 0
    assert store.answers()[0] == ("none",)


def test_a_row_that_is_wrong_is_set_aside_with_its_line_and_the_others_count(store, tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [
        {"item": key(store, 0), "answer": "bug"},
        {"item": "f" * 32, "answer": "bug"},
        {"item": key(store, 1), "answer": "bgu\n"},
    ]
    path.write_bytes(
        b"".join(json.dumps(r).encode() + b"\n" for r in rows)
        + b"{torn\n"
        + json.dumps({"item": key(store, 2), "answer": ["bug", "none"]}).encode()
    )
    taken = take_back(store, path, SCHEMA)
    assert taken.new == 1
    assert taken.aside == [
        "t.jsonl:2: no such item",
        "t.jsonl:3: no label called 'bgu\ufffd'",
        "t.jsonl:4: not JSON (JSONDecodeError)",
        "t.jsonl:5: no label called \"['bug', 'none']\"",
    ]


def test_who_answered_is_kept_with_the_note_whatever_they_typed(store, tmp_path):
    path = table(
        tmp_path,
        {"item": key(store, 0), "answer": "bug", "person": "An\ud800a", "note": "a\0b\ud800"},
        {"item": key(store, 1), "answer": "bug"},
    )
    take_back(store, path, SCHEMA, person="Ben")
    found = store.read(
        t.answer.select().with_only_columns(t.answer.c.person, t.answer.c.note).order_by(t.answer.c.n)
    )
    assert [tuple(row) for row in found] == [("An\ufffda", "a\ufffdb\ufffd"), ("Ben", "")]


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("bug", ("bug",)),
        (" =cmd | bug ", ("bug", "=cmd")),
        (["=cmd", "bug"], ("bug", "=cmd")),
        ("none", ()),
        ([], ()),
        ("'=cmd", ("=cmd",)),
    ],
)
def test_an_answer_of_several_labels_is_a_list_bars_or_none(store, tmp_path, value, labels):
    assert take_back(store, table(tmp_path, {"item": key(store, 0), "answer": value}), MULTI).new == 1
    assert store.answers() == {0: labels}


def test_none_is_a_label_where_the_schema_has_it(store, tmp_path):
    take_back(
        store, table(tmp_path, {"item": key(store, 0), "answer": "none"}), SCHEMA._replace(kind="multi")
    )
    assert store.answers() == {0: ("none",)}


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_row_left_blank_is_open(store, tmp_path, value):
    assert take_back(store, table(tmp_path, {"item": key(store, 0), "answer": value}), SCHEMA)[:3] == (
        0,
        0,
        1,
    )


def test_a_spreadsheet_runs_no_cell_of_the_table_made_for_it_and_the_plain_table_is_exact(tmp_path):
    starts = ["=1+1", "+1", "-1", "@a", "\tx", "\ry", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
    store = filled(tmp_path, starts)
    queue = [Waiting(s, "audit", ("=cmd",), 0.5) for s in store.active()]
    hand_out(store, queue, tmp_path / "s.csv", spreadsheet=True)
    hand_out(store, queue, tmp_path / "p.csv")
    cells = [cell for _, row in records(tmp_path / "s.csv") for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20"))]
    assert [row["text"] for _, row in records(tmp_path / "p.csv")] == ["first", *starts]
    answered = [{"item": row["item"], "answer": row["guess"]} for _, row in records(tmp_path / "s.csv")]
    assert take_back(store, table(tmp_path, *answered), SCHEMA).aside == []
    store.close()


def test_people_whose_names_a_spreadsheet_would_run_come_back_as_themselves(tmp_path):
    store = filled(tmp_path, ["a"])
    answer(store, 0, "bug", person="=Bob")
    answered_out(store, SCHEMA, tmp_path / "s.csv", spreadsheet=True)
    assert "'=Bob" in (tmp_path / "s.csv").read_text(encoding="utf-8")
    assert take_back(store, tmp_path / "s.csv", SCHEMA).new == 0
    assert [word.person for word in store.words()] == ["=Bob"]
    store.close()


def test_a_text_with_hidden_characters_is_marked_for_the_person(tmp_path):
    store = filled(tmp_path, ["pay\u202epal"])
    hand_out(store, [Waiting(s, "audit") for s in store.active()], tmp_path / "t.jsonl")
    assert [row["why"] for _, row in records(tmp_path / "t.jsonl")] == ["audit", "audit; hidden characters"]
    store.close()


def test_tables_that_are_none_are_refused_in_one_line(store, tmp_path):
    with pytest.raises(ReviewError, match="no such table"):
        take_back(store, tmp_path / "gone.csv", SCHEMA)
    with pytest.raises(ReviewError, match=r"t\.jsonl:1: the table needs the columns 'item' and 'answer'"):
        take_back(store, table(tmp_path, {"id": 1}), SCHEMA)
    with pytest.raises(ReviewError, match=r"Use \.jsonl or \.csv"):
        hand_out(store, [], tmp_path / "t.xlsx")
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(CorpusError, match="unknown kind"):
        take_back(store, tmp_path / "t.xlsx", SCHEMA)


def sent(tmp_path, name, **options):
    """A run of three texts, and its table; the first row has a short list."""
    store = filled(tmp_path, ["second", "third"])
    some = ("=cmd", "bug")
    queue = [
        Waiting(0, "unsure", ("=cmd",), 0.5, some),
        Waiting(1, "unsure", ("bug",), 0.5),
        Waiting(2, "audit"),
    ]
    hand_out(store, queue, tmp_path / name, **options)
    return store, tmp_path / name


def shown_with(store):
    return dict(store.read(t.answer.select().with_only_columns(t.answer.c.item, t.answer.c.shown)))


@pytest.mark.parametrize(
    ("name", "cells"),
    [("t.jsonl", [["=cmd", "bug"], None, None]), ("t.csv", ["=cmd|bug", "", ""])],
)
def test_the_candidates_go_out_likeliest_first_and_the_full_list_is_an_empty_cell(tmp_path, name, cells):
    store, path = sent(tmp_path, name)
    assert [row["candidates"] for _, row in records(path)] == cells
    store.close()


def test_a_spreadsheet_runs_no_list_of_candidates(tmp_path):
    store, path = sent(tmp_path, "t.csv", spreadsheet=True)
    assert next(row["candidates"] for _, row in records(path)) == "'=cmd|bug"
    assert take_back(store, answered(tmp_path, path, "none"), SCHEMA).new == 3
    assert shown_with(store) == {0: '["=cmd", "bug"]', 1: None, 2: None}
    store.close()


def answered(tmp_path, path, label, **more):
    rows = [{**row, "answer": label, **more} for _, row in records(path)]
    return table(tmp_path, *rows, name="back.jsonl")


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_an_answer_outside_the_candidates_counts_and_they_are_kept_beside_it(tmp_path, name):
    store, path = sent(tmp_path, name)
    taken = take_back(store, answered(tmp_path, path, "none"), SCHEMA)
    assert (taken.new, taken.aside) == (3, [])
    assert store.answers() == dict.fromkeys(range(3), ("none",))
    assert shown_with(store) == {0: '["=cmd", "bug"]', 1: None, 2: None}
    store.close()


def test_a_table_from_before_candidates_still_comes_in(store, tmp_path):
    rows = [{c: None for c in COLUMNS if c != "candidates"} | {"item": key(store, s)} for s in range(3)]
    assert take_back(store, table(tmp_path, *({**r, "answer": "bug"} for r in rows)), SCHEMA).new == 3
    assert set(shown_with(store).values()) == {None}


@pytest.mark.parametrize(
    "value", ["bug|no such label", ["bug", 7], ["bug", ["bug"]], {"bug": 1}, 5, True, "\ud800", [], "|"]
)
def test_a_list_of_candidates_that_somebody_broke_is_dropped_and_the_answer_counts(store, tmp_path, value):
    path = table(tmp_path, {"item": key(store, 0), "answer": "bug", "candidates": value})
    taken = take_back(store, path, SCHEMA)
    assert (taken.new, taken.aside) == (1, [])
    assert shown_with(store) == {0: None}
