"""A million texts through `llmal predict`: memory, rate, rows in and out, and a kill -9 in the middle.

    OMP_NUM_THREADS=1 python tests/benchmarks/predict_million.py

The texts are the questions of `trec` (`../shared/data`; made-up sentences where they are not at hand), again
and again with a number, so that no two are alike; every 10,000th row has none. A linear student on hashed
letters is fitted on some of them and exported. Each format is input and output of one job, which is killed
with -9 when half of its rows are kept, and started again. With `--whole` a job that nobody kills follows, and
the two outputs are compared. `minilm` is a classifier over all-MiniLM-L6-v2 (extra `offline`) as `export:
onnx` writes it, on 20,000 rows; its line tells how long a million would take at that rate.

peak MB: of the process, from the kernel's count. kept: rows the second start went on after. rows/s: by
the clock, both starts together; rows/CPU s: by the processor's time, which other work on the machine does
not change. answers: hash over ids, labels and errors in the order of the rows, read with another reader; two
formats that got the same answers have the same. same: equal to the byte to the output of the job that nobody
killed.

2026-11-21, one thread, a machine whose two cores some thirty processes shared (so rows/s says little; the
three formats ran side by side). In this run the peak came from `getrusage`, which counts the memory of the
script that starts the job as well: an upper bound. As it is read now, 40,000 rows (with `--whole`: same yes)
peak at 219 MB as CSV and 271 MB as Parquet.

    format     rows in  rows out no label  rows/s rows/CPU s peak MB      kept   answers
    parquet  1,000,000 1,000,000      100     770     16,209  <= 310   502,048  035985dd
    jsonl    1,000,000 1,000,000      100     743     14,776  <= 303   500,736  035985dd
    csv      1,000,000 1,000,000      100     742     14,754  <= 301   504,832  035985dd
    minilm: 20,000 rows, csv to parquet: 21 rows/s, 411 rows/CPU s, peak <= 1219 MB; a million: 13.0 hours by
    the clock, 0.7 of one processor
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from llmal.context import Context
from llmal.embed.hashing import Hashing
from llmal.export.stage import Parcel, write
from llmal.export.transformers import Transformers
from llmal.records import Label, LabelSchema
from llmal.testing.contracts.ship import FACTS
from llmal.train.linear import Linear
from llmal.train.stage import Examples

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
DIM = 512
EMPTY_EVERY = 10_000
AT_ONCE = 50_000


def recorded() -> list[str]:
    """Texts of the recorded corpus."""
    file = DATA / "trec" / "examples.parquet"
    texts = pq.read_table(file, columns=["text"]).column("text").to_pylist() if file.is_file() else []
    if not texts:
        rng = random.Random(0)
        words = ["who", "was", "the", "first", "film", "never", "ends", "what", "city", "is", "dull", "great"]
        texts = [" ".join(rng.choices(words, k=rng.randint(4, 25))) for _ in range(20_000)]
    return texts


def tables(texts: list[str], n: int) -> Iterator[pa.Table]:
    """The rows, some at a time."""
    rows = enumerate(islice(cycle(texts), n))
    while some := list(islice(rows, AT_ONCE)):
        yield pa.table(
            {
                "id": [f"row-{i}" for i, _ in some],
                "text": [f"{text} ({i})" if i % EMPTY_EVERY else "" for i, text in some],
            }
        )


def write_input(path: Path, texts: list[str], n: int) -> None:
    """The same rows in the format of the ending."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as out:
            for table in tables(texts, n):
                out.write_table(table)
    elif path.suffix == ".csv":
        with pa.csv.CSVWriter(path, schema) as out:
            for table in tables(texts, n):
                out.write_table(table)
    else:
        with path.open("w", encoding="utf-8") as file:
            for table in tables(texts, n):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


def read_back(path: Path) -> Iterator[tuple[str, str, str]]:
    """Id, label and error of each row of an output, by another reader."""
    names = ["id", "label", "error"]
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            for line in file:
                row = json.loads(line)
                yield row["id"], row["label"] or "", row["error"] or ""
        return
    if path.suffix == ".parquet":
        batches = pq.ParquetFile(path).iter_batches(columns=names)
    else:
        batches = pa.csv.open_csv(path, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in names]
        yield from ((i, label or "", error or "") for i, label, error in zip(*columns, strict=True))


def checked(path: Path, n: int) -> str:
    """Hash of the answers; ends the script unless each row is there, in its place, with label or error."""
    digest, rows = hashlib.sha256(), 0
    for rows, (row_id, label, error) in enumerate(read_back(path), 1):
        if (
            row_id != f"row-{rows - 1}"
            or bool(label) == bool(error)
            or bool(error) != ((rows - 1) % EMPTY_EVERY == 0)
        ):
            sys.exit(f"row {rows} of {path.name} is wrong: {row_id!r} {label!r} {error!r}")
        digest.update(f"{row_id} {label} {error}\n".encode())
    if rows != n:
        sys.exit(f"{n} rows went in and {rows} came out")
    return digest.hexdigest()[:8]


def hashed_linear(folder: Path, texts: list[str]) -> Path:
    """The quick classifier: questions that begin with who, when or where, and the others."""
    encoder = Hashing(dim=DIM)
    schema = LabelSchema("single", (Label(name="fact"), Label(name="other")), False)
    rng = np.random.default_rng(0)
    some = [texts[i] for i in rng.choice(len(texts), 2000, replace=False)]
    asks = np.array([text.startswith(("Who", "When", "Where")) for text in some], np.float32)
    given = Examples(
        some, encoder.encode(some), np.stack([asks, 1 - asks], 1), np.ones(len(some), np.float32)
    )
    source = folder / "student"
    source.mkdir()
    Linear().fit(given, schema, rng, Context(folder, home=folder)).save(source)
    write(Transformers(), Parcel(source, "linear", encoder, schema, 0.9, None, FACTS), folder / "linear")
    return folder / "linear"


def minilm(folder: Path, texts: list[str]) -> Path:
    """An encoder of 22 million weights with a head that is not trained, which changes no speed."""
    from llmal.export.onnx import Onnx
    from llmal.train.finetune import Finetune, TransformerModel, _fresh

    schema = LabelSchema("single", (Label(name="fact"), Label(name="other")), False)
    student = Finetune()
    model = TransformerModel(*_fresh(student.model, schema), schema.kind, student.max_length)
    source = folder / "transformer"
    source.mkdir()
    model.save(source)
    parcel = Parcel(source, "finetune", Hashing(), schema, 0.9, student.max_length, FACTS, tuple(texts[:200]))
    write(Onnx(), parcel, folder / "minilm")
    return folder / "minilm"


class Done:
    """One call of the verb: what it told, seconds, peak of its memory in MB."""

    def __init__(self, model: Path, file: Path, out: Path, *, kill_after: int | None = None) -> None:
        command = [sys.executable, "-m", "llmal.cli", "predict", str(model), str(file), "--out", str(out)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        child = subprocess.Popen([*command, "--json", "--quiet"], stdout=subprocess.PIPE, text=True)
        self.peak_mb = 0
        while child.poll() is None:
            self.peak_mb = max(self.peak_mb, peak_mb(child.pid))
            if kill_after is not None and kept(out) >= kill_after:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.05)
        assert child.stdout is not None
        told = child.stdout.read()
        child.wait()
        self.seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.killed = child.returncode == -signal.SIGKILL
        if not self.killed and child.returncode:
            sys.exit(f"llmal predict ended with {child.returncode}")
        self.told: dict[str, Any] = {} if self.killed else json.loads(told)


def peak_mb(pid: int) -> int:
    """Most memory a process ever had. `getrusage` would count what its parent had when it was started."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def kept(out: Path) -> int:
    """Rows that a new start would not do again."""
    try:
        return int(json.loads(out.with_name(out.name + ".part.json").read_text(encoding="utf-8"))["rows"])
    except OSError:
        return 0


def measure(model: Path, file: Path, folder: Path, n: int, *, whole: bool) -> str:
    """One line of the table."""
    out = folder / f"out{file.suffix}"
    first = Done(model, file, out, kill_after=n // 2)
    if not first.killed:
        sys.exit("the job was over before the kill")
    second = Done(model, file, out)
    digest = checked(out, n)
    same = "-"
    peak = max(first.peak_mb, second.peak_mb)
    if whole:
        other = folder / f"whole{file.suffix}"
        peak = max(peak, Done(model, file, other).peak_mb)
        same = (
            "yes"
            if subprocess.run(["cmp", "-s", str(out), str(other)], check=False).returncode == 0
            else "NO"
        )
        other.unlink()
    rate, cpu = n / (first.seconds + second.seconds), n / (first.cpu + second.cpu)
    missing, kept_rows = sum(second.told["errors"].values()), second.told["resumed_at"]
    line = (
        f"{file.suffix[1:]:8} {n:>9,} {second.told['rows']:>9,} {missing:>8} {rate:>7,.0f} {cpu:>10,.0f} "
        f"{peak:>7} {kept_rows:>9,} {digest:>9} {same:>5}"
    )
    out.unlink()
    if same == "NO" or peak > 2000:
        sys.exit(f"a promise is broken\n{line}")
    return line


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", default="parquet,jsonl,csv")
    parser.add_argument("--whole", action="store_true", help="compare with a job that is not killed")
    parser.add_argument("--minilm-rows", type=int, default=20_000, help="0 leaves it out")
    parser.add_argument("--scratch", type=Path, help="folder for some GB; the system's own when absent")
    given = parser.parse_args()
    texts = recorded()
    mean = sum(map(len, texts)) / len(texts)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{len(texts):,} recorded texts of {mean:.0f} characters; threads: {threads}")
    print(
        "format     rows in  rows out no label  rows/s rows/CPU s peak MB      kept   answers  same",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=given.scratch) as place:
        folder = Path(place)
        model = hashed_linear(folder, texts)
        for ending in given.formats.split(","):
            file = folder / f"in.{ending}"
            write_input(file, texts, given.rows)
            print(measure(model, file, folder, given.rows, whole=given.whole), flush=True)
            file.unlink()
        if given.minilm_rows:
            model = minilm(folder, texts)
            write_input(folder / "in.csv", texts, given.minilm_rows)
            done = Done(model, folder / "in.csv", folder / "out.parquet")
            rate, cpu = given.minilm_rows / done.seconds, given.minilm_rows / done.cpu
            hours = f"{1e6 / rate / 3600:.1f} hours by the clock, {1e6 / cpu / 3600:.1f} of one processor"
            print(
                f"minilm: {given.minilm_rows:,} rows, csv to parquet: {rate:,.0f} rows/s, "
                f"{cpu:,.0f} rows/CPU s, peak {done.peak_mb} MB; a million: {hours}"
            )


if __name__ == "__main__":
    main()
