"""The run folder: one writer, facts that stay, arrays in blocks, and a corpus that may change."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.corpus import CorpusSpec, read, text_key
from llmal.errors import CorpusError, StoreError
from llmal.records import Annotation, Label, LabelSchema
from llmal.runner import private_files
from llmal.store import schema as t
from llmal.store import store as module
from llmal.store.store import annotation_rows, open_store

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def fill(store, folder, rows, **spec):
    """Write rows as a corpus and take a snapshot of it; returns its digest."""
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    corpus = CorpusSpec(path="c.jsonl", **spec)
    store.put_corpus(corpus.recipe(), str(hash(path.read_bytes())), read(corpus, path, SCHEMA), text_key)


# --- one writer ---------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from llmal.store.store import open_store
store = open_store(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_at_once_and_told_who_holds_the_run_and_a_kill_frees_it(tmp_path, holder):
    started = time.perf_counter()
    with pytest.raises(StoreError, match=f"in use by process {holder.pid} on ") as caught:
        open_store(tmp_path / "run")
    assert time.perf_counter() - started < 1
    assert caught.value.exit_code == 5
    assert len(str(caught.value).splitlines()) == 1
    open_store(tmp_path / "run", write=False).close()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    open_store(tmp_path / "run").close()


def test_a_lock_file_left_by_a_dead_process_or_copied_with_the_run_holds_nothing(tmp_path):
    open_store(tmp_path / "run").close()
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / "holder.json").write_text(
        '{"pid": 1, "host": "gone", "since": "?"}', encoding="utf-8"
    )
    open_store(tmp_path / "run").close()


def test_a_moved_run_is_the_same_run(tmp_path):
    first = open_store(tmp_path / "run")
    fill(first, tmp_path, [{"text": "a"}])
    first.put_block("v", 0, np.ones((1, 2), np.float32))
    secret = first.secret()
    first.close()
    (tmp_path / "run").rename(tmp_path / "moved")
    again = open_store(tmp_path / "moved")
    assert again.secret() == secret
    assert again.texts(0, 1) == ["a"]
    assert again.load("v").tolist() == [[1, 1]]
    again.close()


def test_no_run_is_told_not_made_when_it_is_only_read(tmp_path):
    with pytest.raises(StoreError, match="no run here"):
        open_store(tmp_path / "run", write=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_paid(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write the run folder"):
        open_store(tmp_path / "file" / "run")


def test_what_a_run_writes_is_for_its_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        with private_files():
            opened = open_store(tmp_path / "run")
            fill(opened, tmp_path, [{"text": "a"}])
            opened.put_block("v", 0, np.ones((1, 2), np.float32))
            found = [tmp_path / "run", *(tmp_path / "run").rglob("*")]
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in found}
            folders = {p.name for p in found if p.is_dir()}
            opened.close()
        assert os.umask(0) == 0
    finally:
        os.umask(old)
    assert {"run", "arrays"} <= folders
    assert "store.sqlite" in modes
    assert modes == {name: 0o700 if name in folders else 0o600 for name in modes}


def test_a_damaged_store_is_told_in_one_line(tmp_path):
    open_store(tmp_path / "run").close()
    (tmp_path / "run" / "store.sqlite").write_bytes(b"not a database at all" * 500)
    for write in (True, False):
        with pytest.raises(StoreError, match="llmal doctor") as caught:
            open_store(tmp_path / "run", write=write)
        assert len(str(caught.value).splitlines()) == 1


# --- facts --------------------------------------------------------------------------------------------------


def test_a_fact_is_appended_once_and_never_overwritten(store):
    row = {"item": 3, "at": 1.0}
    assert store.add(t.audit, [row, {"item": 4, "at": 1.0}]) == 2
    assert store.add(t.audit, [{**row, "at": 2.0}, {"item": 5, "at": 2.0}]) == 1
    assert store.read(t.audit.select().where(t.audit.c.item == 3)) == [(3, 1.0)]
    assert store.added == 3


def test_facts_beyond_one_statement_are_all_kept(store):
    assert (
        store.add(t.audit, ({"item": i, "at": 0.0} for i in range(2 * module.BATCH + 7)))
        == 2 * module.BATCH + 7
    )
    assert store.audit() == list(range(2 * module.BATCH + 7))


def test_a_transaction_that_fails_keeps_nothing(store):
    def broken():
        with store.begin() as db:
            store.add(t.audit, [{"item": 1, "at": 0.0}], db=db)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        broken()
    assert store.audit() == []


def test_a_full_disk_is_a_store_error_and_what_was_committed_stays(store):
    store.add(t.audit, [{"item": 1, "at": 0.0}])
    with store.engine.connect() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        db.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StoreError, match="full") as caught:
        store.add(t.meta, [{"name": f"n{i}", "value": "x" * 5000} for i in range(50)])
    assert "Everything committed so far is kept" in str(caught.value)
    assert store.audit() == [1]
    assert store.count(t.meta, t.meta.c.name == "n0") == 0


def test_an_annotation_comes_back_as_it_went_in(store):
    given = Annotation(3, "ok", ("bug",), (0.25, 0.75), 0.75, "logprobs", "", None)
    bare = Annotation(4, "failed", detail="timeout")
    store.add(t.annotation, annotation_rows("r", [given, bare]))
    assert store.annotations("r") == {3: given, 4: bare}
    assert store.annotations("other") == {}


def test_the_newest_answer_of_a_person_counts_and_a_vanished_label_does_not(store):
    base = {"person": "p", "note": "", "source": "s", "at": 0.0, "seconds": None}
    said = [(1, 7, ["bug"]), (2, 7, ["billing"]), (3, 8, ["bug"])]
    store.add(
        t.answer,
        [{**base, "n": n, "item": item, "labels": json.dumps(labels), "line": n} for n, item, labels in said],
    )
    assert store.answers() == {7: ("billing",), 8: ("bug",)}
    assert store.answers(["bug"]) == {8: ("bug",)}


def test_a_note_is_made_once(store):
    assert store.note("x", lambda: "first") == "first"
    assert store.note("x", lambda: "second") == "first"
    assert len(store.secret()) == 16


# --- corpus -------------------------------------------------------------------------------------------------


def test_rows_of_one_text_share_an_item_and_every_row_stays(store, tmp_path):
    fill(
        store,
        tmp_path,
        [{"text": "Hello"}, {"text": " hello "}, {"text": ""}, {"text": "other"}, {"text": "HELLO"}],
    )
    assert store.n_items() == 2
    assert [(r.position, r.item) for r in store.rows()] == [(1, 0), (2, 0), (3, None), (4, 1), (5, 0)]
    assert store.texts(0, 2) == ["Hello", "other"]


def test_an_edited_corpus_brings_its_changed_rows_as_new_items_and_others_keep_theirs(store, tmp_path):
    fill(store, tmp_path, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    keys = {item.text: item.key for item in store.items([0, 1, 2])}
    fill(store, tmp_path, [{"text": "c"}, {"text": "b, edited"}, {"text": "a"}, {"text": "new"}])
    assert [item.text for item in store.items([0, 1, 2, 3, 4])] == ["a", "b", "c", "b, edited", "new"]
    assert store.active() == [0, 2, 3, 4]
    assert store.items([2])[0].key == keys["c"]
    assert [r.item for r in store.rows()] == [2, 3, 0, 4]
    fill(store, tmp_path, [{"text": "b"}])
    assert store.active() == [1]
    assert store.n_items() == 5


def test_the_same_bytes_read_the_same_way_are_known_and_a_changed_file_is_not(store, tmp_path):
    spec = CorpusSpec(path="c.jsonl")
    store.put_corpus(spec.recipe(), "d1", iter(()), text_key)
    assert store.has_corpus(spec.recipe(), "d1")
    assert not store.has_corpus(spec.recipe(), "d2")
    assert not store.has_corpus(CorpusSpec(path="c.jsonl", max_chars=100).recipe(), "d1")


def test_a_corpus_that_turns_out_wrong_leaves_no_trace(store, tmp_path):
    with pytest.raises(CorpusError):
        fill(store, tmp_path, [{"text": "a"}, {"text": 5}])
    assert store.n_items() == 0
    assert store.newest_corpus() == 0


def test_gold_of_rows_that_repeat_a_text_and_disagree_is_dropped(store, tmp_path):
    rows = [("a", "bug"), ("A", "bug"), ("b", "bug"), ("B ", "billing"), ("c", None), ("C", "billing")]
    fill(store, tmp_path, [{"text": text, "label": label} for text, label in rows], gold="label")
    assert store.gold() == {0: ("bug",), 2: ("billing",)}


# --- arrays -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None, database=None)
def test_an_array_saved_in_blocks_is_the_array(tmp_path_factory, sizes):
    store = open_store(tmp_path_factory.mktemp("r"))
    whole = np.random.default_rng(0).random((sum(sizes), 3), np.float32)
    for size in sizes:
        start = store.covered("v")
        store.put_block("v", start, whole[start : start + size])
        assert store.covered("v") == start + size
        assert np.array_equal(store.load("v"), whole[: start + size])
    store.close()


def test_a_block_whose_fact_was_never_committed_is_written_again(store):
    store.put_block("v", 0, np.zeros((2, 2), np.float32))
    with store.begin() as db:
        db.execute(t.array.delete())
    assert store.covered("v") == 0
    store.put_block("v", 0, np.ones((3, 2), np.float32))
    assert store.load("v").tolist() == [[1, 1]] * 3


def test_arrays_that_are_not_there_or_hold_objects_are_refused(store):
    with pytest.raises(StoreError, match="no array gone"):
        store.load("gone")
    store.put_block("v", 0, np.zeros((1, 1), np.float32))
    np.save(
        store.folder / "arrays" / "v-000000000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True
    )
    with pytest.raises(ValueError, match="Python objects"):
        store.load("v")


# --- versions -----------------------------------------------------------------------------------------------


def set_version(folder, version):
    with sqlite3.connect(folder / "store.sqlite") as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'version'", (str(version),))
    db.close()


@pytest.mark.parametrize("write", [True, False])
def test_a_run_made_by_a_newer_llmal_is_refused_untouched(tmp_path, write):
    open_store(tmp_path / "run").close()
    set_version(tmp_path / "run", 99)
    with pytest.raises(StoreError, match="99"):
        open_store(tmp_path / "run", write=write)
    with sqlite3.connect(tmp_path / "run" / "store.sqlite") as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone() == ("99",)
    db.close()
    set_version(tmp_path / "run", module.VERSION)
    open_store(tmp_path / "run", write=write).close()  # the refusal let go of the lock


CRASH = """
import os, signal, sys
from pathlib import Path
from llmal.store import schema as t
from llmal.store.store import open_store
opened = open_store(Path(sys.argv[1]))
opened.add(t.audit, [{"item": 7, "at": 0.0}])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_older_run_is_copied_whole_before_it_is_migrated_even_after_a_crash(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    ran = subprocess.run([sys.executable, "-c", CRASH, str(folder)], check=False)
    assert ran.returncode == -signal.SIGKILL
    from llmal.store import migrations

    steps = (*migrations.STEPS, lambda db: db.exec_driver_sql("ALTER TABLE audit ADD COLUMN more TEXT"))
    monkeypatch.setattr(migrations, "STEPS", steps)
    monkeypatch.setattr(migrations, "VERSION", len(steps))
    monkeypatch.setattr(module, "VERSION", len(steps))
    open_store(folder).close()
    copy = folder / f"store.v{len(steps) - 1}.sqlite"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    for path, columns in ((copy, 2), (folder / "store.sqlite", 3)):
        db = sqlite3.connect(path)
        (row,) = db.execute("SELECT * FROM audit").fetchall()
        db.close()
        assert row[0] == 7
        assert len(row) == columns
