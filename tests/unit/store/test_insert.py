"""Rows appended with few statements are the rows appended one by one."""

from __future__ import annotations

import pytest

from llmal.store import schema as t
from llmal.store.insert import MOST_ROWS, append
from llmal.store.store import open_store


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def rows(n, start=0):
    return [{"name": f"n{i}", "value": f"'\"; {i} é \x00"} for i in range(start, start + n)]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 63, 64, 65, 127, 200, 1001])
def test_any_number_of_rows_arrives_whole_and_in_order(n, store):
    with store.begin() as db:
        assert append(db, t.meta, rows(n)) == n
    found = {name: value for name, value in store.read(t.meta.select()) if name.startswith("n")}
    assert list(found.items()) == [(row["name"], row["value"]) for row in rows(n)]


def test_rows_that_are_there_are_left_alone_and_not_counted(store):
    with store.begin() as db:
        append(db, t.meta, rows(MOST_ROWS))
        again = [{**row, "value": "other"} for row in rows(MOST_ROWS + 10, start=5)]
        assert append(db, t.meta, again) == 15
        assert append(db, t.meta, [again[0], again[0]]) == 0
    assert store.noted("n5") == rows(1, 5)[0]["value"]
    assert store.noted("n70") == "other"


def test_rows_with_other_columns_or_unknown_ones_are_refused_and_nothing_is_kept(store):
    before = store.count(t.meta)
    for bad in ({"name": "b"}, {"name": "b", "value": "c", "more": 1}):
        with pytest.raises(ValueError, match="different columns"), store.begin() as db:
            append(db, t.meta, [*rows(1), bad])
    with pytest.raises(KeyError, match="no column more in the table meta"), store.begin() as db:
        append(db, t.meta, [{"name": "b", "more": 1}])
    assert store.count(t.meta) == before
