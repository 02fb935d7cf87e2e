"""How long a client of `llmal serve` waits for the student, beside FastAPI with transformers' own pipeline.

    OMP_NUM_THREADS=1 python tests/benchmarks/serve_latency.py --keep FOLDER

A MiniLM student (extra `offline`) is fine-tuned on gold of `trec` (`../shared/data`) and exported with
`export: onnx`. Each server is a process of its own. Requests with one text each are sent on a clock, whether
or not earlier ones were answered; a request's time runs from the moment it was due, so a server that falls
behind shows it. The server routes by a threshold, watches drift and counts, as it does in use; the naive one
is an `async def` that calls the pipeline, as tutorials have it.

p50, p90, p99: milliseconds of the requests that were answered. cpu: milliseconds of the server's processor
time a request, which other work on the machine changes less. failed: requests without an answer; a text that
waits 5 s for its turn is refused with status 503, so that those who come later are served. load: what the
machine had to do meanwhile.

Measured 2026-11-21, `--seconds 30 --rates 10 50 --servers onnx naive`, one thread, two cores with no other
work (goal at 50 requests a second: p50 below 10 ms, p99 below 50 ms):

    server     req/s     p50     p90     p99    cpu failed  load
    onnx          10    8.54    9.93   11.17   7.47      0   0.8
    onnx          50    8.17    9.79   11.58   6.78      0   0.6
    naive         10   14.70   17.66   19.80  13.37      0   0.4
    naive         50   14.40   16.28   19.14  13.25      0   0.5

With ten other processes on the two cores both fell behind at 50 requests a second; at 10 both had a p50 of
32 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import numpy as np

import llmal
from llmal.context import Context, progress_for_terminal
from llmal.embed.hashing import Hashing
from llmal.export.onnx import Onnx
from llmal.export.stage import Parcel, write
from llmal.records import Label, LabelSchema
from llmal.testing.contracts.ship import FACTS
from llmal.train.finetune import Finetune
from llmal.train.stage import Examples

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BACKENDS = ("onnx", "openvino", "torch")
NAIVE = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline
app, classify = FastAPI(), pipeline("text-classification", sys.argv[1], device="cpu")
class Question(BaseModel):
    text: str
@app.get("/health")
async def health():
    return {}
@app.post("/predict")
async def predict(question: Question):
    return classify(question.text, truncation=True)[0]
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


def questions() -> tuple[list[str], list[str]]:
    """Texts and labels of `trec`, in an order of their own."""
    import pyarrow.parquet as pq

    rows = pq.read_table(DATA / "trec" / "examples.parquet").to_pylist()
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i]["text"] for i in order], [str(rows[i]["label"]) for i in order]


def exported(folder: Path, n: int) -> Path:
    """A student of the first `n` questions, with a certificate that lets it answer everything."""
    if (folder / "model").is_dir():
        return folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    texts, labels = questions()
    names = sorted(set(labels))
    schema = LabelSchema("single", tuple(Label(name=name) for name in names), False)
    targets = np.array([[label == name for name in names] for label in labels[:n]], np.float32)
    student = Finetune(epochs=2)
    ctx = Context(folder, home=folder, progress=progress_for_terminal())
    examples = Examples(texts[:n], None, targets, np.ones(n, np.float32))
    model = student.fit(examples, schema, np.random.default_rng(0), ctx)
    (folder / "student").mkdir()
    model.save(folder / "student")
    parcel = Parcel(folder / "student", "finetune", Hashing(), schema, 0.0, student.max_length, FACTS)
    write(Onnx(), parcel._replace(texts=tuple(texts[:100])), folder / "made")
    probs = llmal.load(folder / "made", backend="onnx").predict_proba(texts[n : n + 300])
    file = folder / "made" / "llmal.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    bars = [{"tier": "student", "label": None, "threshold": 0.0}]
    about["certificate"] = {"by": "benchmark", "target": 0.5, "delta": 0.1, "on": "accepted", "bars": bars}
    about["reference"] = {
        "of": "audit",
        "n": len(probs),
        "confidence": probs.max(axis=1).astype(float).tolist(),
        "labels": probs.argmax(axis=1)[:, None].tolist(),
    }
    file.write_text(json.dumps(about), encoding="utf-8")
    return (folder / "made").rename(folder / "model")


@contextmanager
def serving(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process; the body runs once it is healthy."""
    process = subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        asyncio.run(_healthy(port, process))
        yield process
    finally:
        process.terminate()
        process.wait()


async def _healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session:
        while process.poll() is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
                continue
            await asyncio.sleep(0.1)
    raise SystemExit("the server ended before it answered")


async def load(port: int, texts: list[str], rate: float, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of every answered request sent at a rate, and how many were not answered."""
    times: list[float] = []
    failed = 0

    async def one(session: aiohttp.ClientSession, text: str, due: float) -> None:
        nonlocal failed
        try:
            async with session.post(f"http://127.0.0.1:{port}/predict", json={"text": text}) as reply:
                await reply.read()
                ok = reply.status == 200
        except (aiohttp.ClientError, TimeoutError):
            ok = False
        failed += not ok
        if ok:
            times.append(1000 * (time.perf_counter() - due))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        start, tasks = time.perf_counter() + 0.1, []
        for i in range(int(rate * seconds)):
            due = start + i / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(session, texts[i % len(texts)], due)))
        await asyncio.gather(*tasks)
    return times, failed


def processor_ms(pid: int) -> float:
    """Milliseconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--train", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--rates", type=float, nargs="+", default=[10, 50, 100])
    arguments.add_argument("--servers", nargs="+", default=[*BACKENDS, "naive"])
    arguments.add_argument("--port", type=int, default=8799)
    arguments.add_argument("--keep", type=Path, help="folder that keeps the student made")
    given = arguments.parse_args()
    print(f"{'server':9} {'req/s':>6} {'p50':>7} {'p90':>7} {'p99':>7} {'cpu':>6} {'failed':>6} {'load':>5}")
    with tempfile.TemporaryDirectory() as place:
        folder = exported((given.keep or Path(place)).resolve(), given.train)
        texts = questions()[0][given.train + 300 :]
        for name in given.servers:
            own = [sys.executable, "-m", "llmal.cli", "serve", str(folder), "--port", str(given.port)]
            own += ["--backend", name, "--state", f"{place}/{name}", "--alarm-rate", "0.0001"]
            naive = [sys.executable, "-c", NAIVE, str(folder), str(given.port)]
            with serving(naive if name == "naive" else own, given.port) as process:
                asyncio.run(load(given.port, texts[:50], 20, 2.5))  # warms up
                for rate in given.rates:
                    before = processor_ms(process.pid)
                    times, failed = asyncio.run(load(given.port, texts, rate, given.seconds))
                    spent = (processor_ms(process.pid) - before) / max(1, len(times))
                    middle = np.percentile(times, [50, 90, 99]) if times else [np.nan] * 3
                    shown = " ".join(f"{value:7.2f}" for value in middle)
                    now = os.getloadavg()[0]
                    print(f"{name:9} {rate:6.0f} {shown} {spent:6.2f} {failed:6d} {now:5.1f}", flush=True)


if __name__ == "__main__":
    main()
