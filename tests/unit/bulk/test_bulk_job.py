"""A job that is killed goes on, one that is changed says so, and an output is whole or not there."""

import contextlib
import csv
import datetime
import decimal
import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

import llmal
from llmal.answers import best
from llmal.bulk import answers as answers_module
from llmal.bulk.job import predict_file, told_text
from llmal.bulk.journal import Places
from llmal.bulk.wish import Wish
from llmal.context import Silent
from llmal.errors import CorpusError, LlmalError, ModelError, StoreError, UserError
from llmal.testing.exported import WORDS, colours

TEXTS = [f"{word} {i % 7}" for i, words in enumerate(WORDS.values()) for word in words for _ in range(5)]
ENDINGS = ("jsonl", "csv", "parquet")


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: colours(folder / kind, kind=kind) for kind in ("single", "multi")}


@pytest.fixture
def small(monkeypatch):
    """Blocks of four rows, each kept at once."""
    monkeypatch.setattr("llmal.bulk.sources.BLOCK_ROWS", 4)
    monkeypatch.setattr("llmal.bulk.parquet.BLOCK_ROWS", 4)
    monkeypatch.setattr("llmal.bulk.sinks.GROUP_ROWS", 12)
    monkeypatch.setattr("llmal.bulk.job.CHECKPOINT_S", 0.0)


def table(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    return path


def read(path):
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return pq.read_table(path).to_pylist()


def corpus(path, n=None):
    return table(path, [{"n": i, "text": text} for i, text in enumerate(TEXTS[:n])])


def run(model, file, out, progress=None, **wish):
    return predict_file(model, file, out=out, wish=Wish(**wish), progress=progress or Silent())


# --- what is written


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("target", ENDINGS)
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_each_row_gets_the_answer_the_loaded_classifier_gives(source, target, kind, models, tmp_path, small):
    rows = [{"n": str(i), "text": text} for i, text in enumerate([*TEXTS, "  "])]
    out = tmp_path / f"out.{target}"
    done = run(models[kind], table(tmp_path / f"in.{source}", rows), out, probs=True)
    assert (done["rows"], done["errors"], done["resumed_at"]) == (len(rows), {"no text": 1}, 0)
    found = read(out)
    model = llmal.load(models[kind])
    for row, probs, text in zip(found, model.predict_proba(TEXTS), TEXTS, strict=False):
        labels, sure = best(probs, model.schema)
        wanted = labels[0] if kind == "single" else list(labels)
        if target == "csv" and kind == "multi":
            wanted = "|".join(wanted) or "[]"
        assert (row["text"], row["label"]) == (text, wanted)
        assert float(row["probability"]) == pytest.approx(sure, abs=1e-6)
        assert row["needs_review"] in (sure < 0.7, str(sure < 0.7).lower())
        every = row.get("probabilities") or {
            name.removeprefix("probability:"): float(value)
            for name, value in row.items()
            if name.startswith("probability:")
        }
        assert list(every) == model.labels
        assert list(every.values()) == pytest.approx(probs, abs=1e-6)
    assert [row["n"] for row in found] == [row["n"] for row in rows]
    assert found[-1]["label"] in (None, "")
    assert found[-1]["error"] == "no text"


def test_rows_that_cannot_be_labelled_are_counted_and_stay_in_their_place(models, tmp_path):
    file = tmp_path / "in.jsonl"
    lines = [
        '{"text": "rose ruby"}',
        "{not json",
        '{"text": 7}',
        "[1]",
        '{"body": "x"}',
        '{"text": "sky sea"}',
    ]
    file.write_text("\n".join(lines))
    done = run(models["single"], file, tmp_path / "out.jsonl")
    assert done["errors"] == {"unreadable": 2, "not a text": 1, "no text": 1}
    found = read(tmp_path / "out.jsonl")
    assert [row["label"] for row in found] == ["red", None, None, None, None, "blue"]
    assert [row["needs_review"] for row in found[1:5]] == [True] * 4
    assert found[1] == {
        "row": 2, "label": None, "probability": None, "needs_review": True,
        "error": "unreadable: line 2 is not JSON",
    }  # fmt: skip
    assert "4 without a label (2 unreadable, 1 not a text, 1 no text)" in told_text(done)


@pytest.mark.parametrize("target", ENDINGS)
def test_an_input_column_called_as_an_answer_keeps_its_values_under_another_name(target, models, tmp_path):
    rows = [{"text": "rose", "label": "gold", "error": "mine", "input.label": "old", "probability": 2.0}]
    run(models["single"], table(tmp_path / "in.parquet", rows), tmp_path / f"out.{target}")
    (row,) = read(tmp_path / f"out.{target}")
    assert (row["label"], row["error"]) == ("red", None if target != "csv" else "")
    assert row["input.input.label"] == "gold"
    assert (row["input.label"], row["input.error"]) == ("old", "mine")
    assert float(row["input.probability"]) == 2.0


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("target", ENDINGS)
def test_the_id_alone_is_kept_when_asked(source, target, models, tmp_path):
    file = corpus(tmp_path / f"in.{source}", 6)
    run(models["single"], file, tmp_path / f"named.{target}", keep="id", id="n")
    found = read(tmp_path / f"named.{target}")
    assert list(found[0]) == ["n", "label", "probability", "needs_review", "error"]
    assert [int(row["n"]) for row in found] == list(range(6))
    run(models["single"], file, tmp_path / f"counted.{target}", keep="id")
    assert [int(row["row"]) for row in read(tmp_path / f"counted.{target}")] == list(range(1, 7))


def test_jsonl_rows_of_many_shapes_become_a_table(models, tmp_path):
    rows = [
        {"text": "rose", "whole": 1, "half": 1, "mixed": 1, "yes": True, "deep": {"a": [1]}},
        {"text": "sky", "half": 0.5, "mixed": "one", "late": "x", "yes": None, "big": 2**70},
    ]
    file = table(tmp_path / "in.jsonl", rows)
    run(models["single"], file, tmp_path / "out.parquet")
    kinds = {f.name: str(f.type) for f in pq.read_schema(tmp_path / "out.parquet")}
    assert [kinds[name] for name in ("whole", "half", "mixed", "yes", "deep", "late", "big")] == [
        "int64", "double", "string", "bool", "string", "string", "string",
    ]  # fmt: skip
    first, second = read(tmp_path / "out.parquet")
    assert (first["whole"], first["half"], first["mixed"], first["deep"]) == (1, 1.0, "1", '{"a": [1]}')
    assert (second["mixed"], second["late"], second["big"]) == ('"one"', "x", str(2**70))
    run(models["single"], file, tmp_path / "out.csv")
    assert [row["mixed"] for row in read(tmp_path / "out.csv")] == ["1", "one"]


def test_jsonl_keys_that_are_data_are_no_table(models, tmp_path):
    file = table(tmp_path / "in.jsonl", [{"text": "rose", f"key {i}": i} for i in range(2100)])
    with pytest.raises(CorpusError, match="more than 2,000 different keys"):
        run(models["single"], file, tmp_path / "out.csv")


def test_parquet_columns_of_any_type_are_handed_on(models, tmp_path):
    rows = [
        {
            "text": "rose",
            "day": datetime.date(2024, 2, 29),
            "price": decimal.Decimal("1.50"),
            "raw": b"\xff",
            "x": float("nan"),
            "tags": ["a", "b"],
        }
    ]
    nano = pa.array([1], pa.timestamp("ns", "UTC"))
    kinds = pa.array(["k"]).dictionary_encode()
    source = pa.Table.from_pylist(rows).append_column("at", nano).append_column("kind", kinds)
    pq.write_table(source, tmp_path / "in.parquet")
    run(models["single"], tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["at"].equals(source["at"])
    assert found["tags"].equals(source["tags"])
    assert found["price"].equals(source["price"])
    assert found["kind"].to_pylist() == ["k"]
    run(models["single"], tmp_path / "in.parquet", tmp_path / "out.jsonl")
    (row,) = read(tmp_path / "out.jsonl")
    assert (row["day"], row["price"], row["x"], row["tags"]) == ("2024-02-29", "1.50", None, ["a", "b"])
    assert row["at"].startswith("1970-01-01 00:00:00.000000001")


def test_parquet_text_that_is_not_utf8_stays_a_row(models, tmp_path):
    raw = pa.array([b"rose ruby", b"sky sea \xff"])
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "in.parquet")
    run(models["single"], tmp_path / "in.parquet", tmp_path / "out.csv")
    found = read(tmp_path / "out.csv")
    assert [(row["text"], row["label"]) for row in found] == [
        ("rose ruby", "red"),
        ("sky sea \ufffd", "blue"),
    ]


def test_a_csv_for_a_spreadsheet_runs_nothing_and_the_other_is_not_touched(models, tmp_path):
    file = table(
        tmp_path / "in.csv", [{"text": "=cmd|' /C calc'!A1", "note": "@x"}, {"text": "rose", "note": ""}]
    )
    run(models["single"], file, tmp_path / "plain.csv")
    run(models["single"], file, tmp_path / "safe.csv", spreadsheet=True)
    assert [row["text"] for row in read(tmp_path / "plain.csv")] == ["=cmd|' /C calc'!A1", "rose"]
    assert [row["text"] for row in read(tmp_path / "safe.csv")] == ["'=cmd|' /C calc'!A1", "rose"]
    assert read(tmp_path / "safe.csv")[0]["note"] == "'@x"


@pytest.mark.parametrize("target", ENDINGS)
def test_an_input_without_rows_is_an_output_without_rows(target, models, tmp_path):
    for name, body in (("in.jsonl", ""), ("in.csv", "text\n")):
        (tmp_path / name).write_text(body)
        done = run(models["single"], tmp_path / name, tmp_path / f"{name}.{target}")
        assert done["rows"] == 0
        assert read(tmp_path / f"{name}.{target}") == []


# --- the model


class Moody:
    """A classifier that cannot take some texts."""

    def __init__(self, model, bad):
        self.__dict__ |= {"_model": model, "_bad": bad, "seen": []}

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict_proba(self, texts):
        self.seen.extend(texts)
        if any(self._bad(text) for text in texts):
            raise IndexError("index out of range\n in self")
        return self._model.predict_proba(texts)


def test_a_text_the_model_fails_on_is_one_row_with_an_error(models, tmp_path):
    moody = Moody(llmal.load(models["single"]), lambda text: text == TEXTS[7])
    with patch("llmal.bulk.job.load", lambda *a, **k: moody):
        done = run(models["single"], corpus(tmp_path / "in.csv"), tmp_path / "out.csv")
    found = read(tmp_path / "out.csv")
    assert [row["error"] for row in found if row["text"] == TEXTS[7]] == [
        "the model failed: IndexError: index out of range in self"
    ] * TEXTS.count(TEXTS[7])
    assert done["errors"] == {"the model failed": TEXTS.count(TEXTS[7])}
    assert all(row["label"] for row in found if row["text"] != TEXTS[7])


def test_a_model_that_fails_on_every_text_stops_the_job(models, tmp_path):
    for failure in (IndexError, lambda words: ModelError(words)):
        moody = Moody(llmal.load(models["single"]), lambda text: True)
        moody.predict_proba = lambda texts, failure=failure: (_ for _ in ()).throw(failure("no"))
        with (
            patch("llmal.bulk.job.load", lambda *a, m=moody, **k: m),
            pytest.raises((IndexError, ModelError)),
        ):
            run(models["single"], corpus(tmp_path / "in.csv"), tmp_path / "out.csv", force=True)
        assert not (tmp_path / "out.csv").exists()


def test_an_answer_that_is_no_number_is_an_error(models, tmp_path):
    moody = Moody(llmal.load(models["single"]), lambda text: False)
    moody.predict_proba = lambda texts: np.full((len(texts), 3), np.nan, np.float32)
    with patch("llmal.bulk.job.load", lambda *a, **k: moody):
        done = run(models["single"], corpus(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert done["errors"] == {"the model failed": len(TEXTS)}


def test_a_text_that_stands_twice_in_a_block_is_predicted_once(models, tmp_path):
    moody = Moody(llmal.load(models["single"]), lambda text: False)
    with patch("llmal.bulk.job.load", lambda *a, **k: moody):
        run(models["single"], corpus(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert sorted(moody.seen) == sorted(set(TEXTS))


# --- killed and taken up again


class Killed(BaseException):
    """Stands for SIGKILL: no handler of errors catches it."""


class Trap:
    """Dies at the n-th call of anything that makes bytes or names last."""

    def __init__(self, monkeypatch, n):
        self.left, self.sprung = n, False
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))

    def wrapped(self, call):
        def trapped(path, *arguments, **named):
            if not self.sprung and "lock" not in str(path):
                self.left -= 1
                if self.left < 0:
                    self.sprung = True
                    raise Killed
            return call(path, *arguments, **named)

        return trapped


@pytest.mark.parametrize(
    ("source", "target"),
    [("jsonl", "jsonl"), ("csv", "csv"), ("parquet", "parquet"), ("jsonl", "parquet")],
)
def test_killed_at_any_step_the_job_goes_on_and_ends_the_same_to_the_byte(
    source, target, models, tmp_path, small
):
    file = corpus(tmp_path / f"in.{source}", 11)
    run(models["single"], file, tmp_path / f"whole.{target}")
    wanted = (tmp_path / f"whole.{target}").read_bytes()
    out = tmp_path / f"out.{target}"
    resumed = steps = 0
    while True:
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, steps)
            with contextlib.suppress(Killed):
                run(models["single"], file, out)
        if not trap.sprung:
            break
        if out.exists() and not (tmp_path / f"out.{target}.part.json").exists():
            assert out.read_bytes() == wanted
        else:
            done = run(models["single"], file, out)
            resumed += done["resumed_at"] > 0
            assert done["rows"] == 11
        assert out.read_bytes() == wanted
        assert not list(tmp_path.glob("out.*.*")), "something was left over"
        out.unlink()
        steps += 1
    assert steps > 15
    assert resumed > 5


@pytest.mark.parametrize("target", ENDINGS)
def test_half_a_block_after_the_last_kept_one_is_cut_off(target, models, tmp_path, small, monkeypatch):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / f"out.{target}"
    run(models["single"], file, tmp_path / f"whole.{target}")
    stop_after(models, file, out, 3)
    part = tmp_path / f"out.{target}.part"
    with part.open("ab") as torn:
        torn.write(b"\xff half a block, as a full disk or a power cut leaves it\n{" * 200)
    done = run(models["single"], file, out)
    assert done["resumed_at"] == 12
    assert out.read_bytes() == (tmp_path / f"whole.{target}").read_bytes()


def stop_after(models, file, out, blocks, **wish):
    """Run a job and kill it in the block after so many."""
    left = [blocks]

    def dying(model, block):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return answers_module.answer(model, block)

    with patch("llmal.bulk.job.answer", dying), pytest.raises(Killed):
        run(models["single"], file, out, **wish)


def test_what_was_done_is_not_done_again(models, tmp_path, small):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"
    stop_after(models, file, out, 5)
    moody = Moody(llmal.load(models["single"]), lambda text: False)
    heard = Heard()
    with patch("llmal.bulk.job.load", lambda *a, **k: moody):
        done = run(models["single"], file, out, progress=heard)
    assert (done["rows"], done["resumed_at"]) == (len(TEXTS), 20)
    assert heard.lines == ["going on after 20 rows"]
    assert set(moody.seen) == set(TEXTS[20:])


@pytest.mark.parametrize("target", ENDINGS)
def test_the_journal_never_tells_of_bytes_that_are_not_on_the_disk(
    target, models, tmp_path, small, monkeypatch
):
    """At each write of the journal, the part file has the bytes it tells of, and they were synced after."""
    synced = {}
    real_sync, real_write = os.fsync, Places.write

    def sync(handle):
        real_sync(handle)
        state = os.fstat(handle)
        synced[state.st_ino] = state.st_size

    def write(places, journal):
        assert synced[places.part.stat().st_ino] >= journal.bytes
        real_write(places, journal)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Places, "write", write)
    out = tmp_path / f"out.{target}"
    assert run(models["single"], corpus(tmp_path / "in.csv"), out)["rows"] == len(TEXTS)


def test_a_part_file_shorter_than_its_journal_is_started_anew(models, tmp_path, small):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"
    stop_after(models, file, out, 5)
    (tmp_path / "out.csv.part").write_bytes(b"n,text")
    assert run(models["single"], file, out)["resumed_at"] == 0
    assert len(read(out)) == len(TEXTS)


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"format": 1}', '{"format": 99}', '{"format": 1, "job": 3}']
)
def test_a_journal_that_cannot_be_read_is_no_reason_to_stop(body, models, tmp_path):
    (tmp_path / "out.csv.part").write_text("rubbish")
    (tmp_path / "out.csv.part.json").write_text(body)
    run(models["single"], corpus(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert len(read(tmp_path / "out.csv")) == len(TEXTS)


def change_input(models, file):
    corpus(file, 40)


def change_model(models, file):
    (models["single"] / "head.json").write_text('{"link":  "softmax"}\n')


@pytest.mark.parametrize(
    ("change", "wish", "words"),
    [
        (change_input, {}, "other input"),
        (change_model, {}, "other model"),
        (None, {"probs": True}, "other options"),
        (None, {"keep": "id"}, "other options"),
    ],
)
def test_an_unfinished_output_of_another_job_is_not_thrown_away_unasked(
    change, wish, words, models, tmp_path, small
):
    shutil.copytree(models["single"], tmp_path / "model")
    own = {"single": tmp_path / "model"}
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"
    stop_after(own, file, out, 5)
    if change:
        change(own, file)
    with pytest.raises(UserError, match=f"with 20 rows of another job .{words}. is here. Give --force"):
        run(own["single"], file, out, **wish)
    heard = Heard()
    done = run(own["single"], file, out, progress=heard, force=True, **wish)
    assert done["resumed_at"] == 0
    assert heard.lines == ["starting anew; 20 rows of an unfinished job are given up"]


def test_an_output_that_is_there_is_not_written_over_unasked(models, tmp_path, small):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"
    out.write_text("dear")
    with pytest.raises(UserError, match="the output is there already. Give --force"):
        run(models["single"], file, out)
    assert out.read_text() == "dear"
    stop_after(models, file, out, 5, force=True)
    assert out.read_text() == "dear", "the old output stays until the new one is whole"
    assert run(models["single"], file, out, force=True)["resumed_at"] == 20, (
        "--force again goes on all the same"
    )
    assert len(read(out)) == len(TEXTS)


def test_two_processes_do_not_write_one_output(models, tmp_path):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"
    with (
        FileLock(tmp_path / "out.csv.lock"),
        pytest.raises(StoreError, match="out.csv: another process is writing this output"),
    ):
        run(models["single"], file, out)
    assert not out.exists()
    run(models["single"], file, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_file_that_changes_while_it_is_read_is_no_finished_job(models, tmp_path, small):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"

    def growing(model, block):
        with file.open("a") as more:
            more.write("99,rose\n")
        return answers_module.answer(model, block)

    with patch("llmal.bulk.job.answer", growing), pytest.raises(CorpusError, match="the file changed while"):
        # twenty rows or so are added to what is read; the last read may or may not see the last of them
        run(models["single"], corpus(file, 8), out)
    assert not out.exists()


def test_a_full_disk_is_told_in_one_sentence_and_the_job_goes_on_later(models, tmp_path, small, monkeypatch):
    file, out = corpus(tmp_path / "in.csv"), tmp_path / "out.csv"
    calls = []

    def full(handle, real=os.fsync):
        calls.append(handle)
        if len(calls) > 10:
            raise OSError(28, "No space left on device")
        return real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"cannot go on: No space left on device\. See to the disk"):
            run(models["single"], file, out)
    assert not out.exists()
    assert run(models["single"], file, out)["resumed_at"] > 0


# --- calls that cannot work


def test_calls_that_cannot_work_are_refused_in_one_sentence(models, tmp_path):
    model, file = models["single"], corpus(tmp_path / "in.csv")
    wrong = table(tmp_path / "wrong.jsonl", [{"body": "rose"}])
    numbers = table(tmp_path / "numbers.parquet", [{"text": 1, "other": "x"}])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 it is not")
    (tmp_path / "folder.csv").mkdir()
    cases = [
        (tmp_path / "none.csv", "out.csv", {}, "no such file"),
        (file, "out.xlsx", {}, "unknown kind of table '.xlsx'. Known: .jsonl"),
        (file, "in.csv", {"force": True}, "the output is the input"),
        (file, "folder.csv", {}, "the output is a folder"),
        (file, "none/out.csv", {}, "no such folder"),
        (file, "out.jsonl", {"spreadsheet": True}, "only CSV can be made fit for a spreadsheet"),
        (file, "out.csv", {"keep": "most"}, "'most' cannot be kept"),
        (file, "out.csv", {"text": "body"}, "no column 'body'. It has: n, text"),
        (file, "out.csv", {"id": "key"}, "no column 'key'"),
        (wrong, "out.jsonl", {}, "no column 'text'. It has: body"),
        (numbers, "out.csv", {}, "column 'text' holds int64, not text. Columns of text: other"),
        (tmp_path / "no.parquet", "out.csv", {}, "not readable as Parquet"),
        (file, "out.csv", {"backend": "abacus"}, "no backend called 'abacus'"),
        (None, "out.csv", {}, "cannot be known before the standard input was read"),
    ]
    for source, out, wish, words in cases:
        with pytest.raises(LlmalError) as caught:
            run(model, source, tmp_path / out, **wish)
        assert words in str(caught.value), caught.value
        assert not (tmp_path / "out.csv").exists()
    assert not list(tmp_path.glob("*.lock"))
