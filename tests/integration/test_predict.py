"""`llmal predict` as a user calls it: killed with -9 at random moments, in a pipe, on a file of some size."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import llmal
from llmal.cli import app
from llmal.testing.exported import WORDS, colours

HOME = {"PYTHONPATH": str(Path(llmal.__file__).parents[1])}
WORD = [word for words in WORDS.values() for word in words]

NURSERY = """
import os, sys
import pyarrow.parquet, sklearn.feature_extraction.text, sklearn.linear_model
import llmal.bulk.job, llmal.bulk.parquet, llmal.bulk.sources, llmal.train.linear, llmal.embed.hashing
from pathlib import Path
from llmal.context import Silent
llmal.bulk.sources.BLOCK_ROWS = llmal.bulk.parquet.BLOCK_ROWS = 50
llmal.bulk.job.CHECKPOINT_S = 0.0
print("ready", flush=True)
for line in sys.stdin:
    model, file, out = map(Path, line.split())
    pid = os.fork()
    if not pid:
        llmal.bulk.job.predict_file(model, file, out=out, progress=Silent())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""
"""Children that have done their imports, so that kills fall into work; blocks small enough for many kills."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("models") / "colours")


@pytest.fixture(scope="module")
def nursery():
    """Starts one job and returns its process id; `done` waits for its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | HOME,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"

    def start(*arguments):
        process.stdin.write(" ".join(map(str, arguments)) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    start.done = lambda: process.stdout.readline() == "gone\n"
    yield start
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def texts(n, seed=0):
    rng = random.Random(seed)
    return [
        {"n": i, "text": f'{" ".join(rng.choices(WORD, k=6))}, "{i}"\n=' if i % 7 else ""} for i in range(n)
    ]


def table(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
    return path


def rows_done(out):
    try:
        return json.loads(out.with_name(out.name + ".part.json").read_text(encoding="utf-8"))["rows"]
    except OSError:
        return 0


@pytest.mark.parametrize("ending", [pytest.param("jsonl", marks=pytest.mark.slow), "csv", "parquet"])
def test_killed_again_and_again_the_output_is_the_same_to_the_byte(ending, model, nursery, tmp_path):
    """Each kill falls at a random moment after new rows were kept; the next child goes on from there."""
    file = table(tmp_path / f"in.{ending}", texts(3000))
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    nursery(model, file, whole)
    assert nursery.done()
    rng = random.Random(ending)
    kills = 0
    for _ in range(4):
        before = rows_done(out)
        child = nursery(model, file, out)
        while rows_done(out) <= before and not out.exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        kills += not out.exists()
        os.kill(child, signal.SIGKILL)
        assert nursery.done()
        assert out.exists() or rows_done(out) > before
    assert kills >= 2, "the jobs were over before the kills: the test proves nothing"
    if not out.exists():
        nursery(model, file, out)
        assert nursery.done()
    assert out.read_bytes() == whole.read_bytes()
    left = {path.name for path in tmp_path.iterdir()} - {file.name, whole.name, out.name, f"{out.name}.lock"}
    assert not left


def llmal_predict(*arguments, **named):
    command = [sys.executable, "-m", "llmal.cli", "predict", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, env=os.environ | HOME, timeout=120, check=False, **named
    )


def test_the_verb_writes_a_table_and_tells_what_is_in_it(model, tmp_path):
    file = table(tmp_path / "in.csv", texts(20))
    arguments = [model, file, "--out", tmp_path / "out.parquet", "--id", "n", "--probs", "--json", "--quiet"]
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["rows"], told["errors"], told["resumed_at"]) == (20, {"no text": 3}, 0)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == [
        "n", "text", "label", "probability", "needs_review", "error",
        "probability:red", "probability:green", "probability:blue",
    ]  # fmt: skip


def test_the_verb_works_in_a_pipe(model, tmp_path):
    lines = b'{"text": "rose ruby"}\nnot json\n\n{"text": "sky"}\n'
    done = llmal_predict(model, "-", input=lines)
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["label"] for row in found] == ["red", None, "blue"]
    to_file = CliRunner().invoke(
        app, ["predict", str(model), "-", "--out", str(tmp_path / "out.csv"), "--keep", "id"], input=lines
    )
    assert to_file.exit_code == 0
    assert f"wrote 3 rows to {tmp_path / 'out.csv'}, 1 without a label (1 unreadable)" in to_file.output
    head, *rows = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert head == "row,label,probability,needs_review,error"
    assert [row.split(",")[:2] for row in rows] == [["1", "red"], ["2", ""], ["3", "blue"]]


def test_the_verb_tells_one_line_where_there_is_no_export(tmp_path):
    done = llmal_predict(tmp_path, table(tmp_path / "in.csv", texts(2)))
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"no exported classifier here" in done.stderr


PEAK = """
import sys
from pathlib import Path
from llmal.bulk.job import predict_file
from llmal.context import Silent
done = predict_file(*map(Path, sys.argv[1:3]), out=Path(sys.argv[3]), progress=Silent())
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(done["rows"], int(peak.split()[1]) // 1024)
"""
"""Rows and MB. `getrusage` would count what the test's own process had when it started this one."""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the kernel tells no peak here")
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_ten_times_the_rows_take_no_more_memory(ending, model, tmp_path):
    """Peak of the process for 20,000 and for 200,000 short texts; the rows alone would be 100 MB more."""
    peaks = []
    for n in (20_000, 200_000):
        file = table(tmp_path / f"in{n}.{ending}", texts(n))
        command = [sys.executable, "-c", PEAK, model, file, tmp_path / f"out{n}.{ending}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | HOME, check=True)
        rows, peak = map(int, done.stdout.split())
        assert rows == n
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 50, f"MB: {peaks}"
    assert peaks[1] < 1000
