"""Never paid twice: `kill -9` at random points of a run, and what the endpoint's own counters say afterwards.

    python tests/benchmarks/kills.py --kills 200

A child process runs a pipeline against an OpenAI-compatible server in a third process; the driver kills the
child at a random moment after its first new committed answer, looks at store and counters, and starts the
next child, which goes on. Children are forked from a process that has done its imports, so that kills fall
into work, not imports.

Promises checked (the server's counters decide):
  - an answer that was committed when the kill fell is never asked again;
  - repeats a kill <= calls in flight;
  - every item asked more than once is listed as a call of unknown fate, and those count as spent;
  - the finished run, run again, makes no call.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import sqlalchemy as sa

from llmal.prompts.program import adapter  # noqa: F401 - imported before the fork on purpose, as are the rest
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.ledger import bill, unknown_fate
from llmal.store.store import open_store
from llmal.testing.brains import text_id

IN_FLIGHT = 16

SERVER = """
import sys, time
from llmal.testing.brains import classifier, identify
from llmal.testing.fakelm import FakeLM
with FakeLM(classifier(lambda text: "even" if len(text) % 2 == 0 else "odd"), identify=identify,
            latency_s=(0.05, 0.15), price=(1_000, 2_000)) as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""


def pipeline(base_url: str) -> Pipeline:
    return Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id"},
            "labels": {"names": ["even", "odd"]},
            "audit": {"size": 0},
            "rounds": {"max": 1, "size": 1_000_000},
            "embed": {"use": "hashing", "dim": 16},
            "select": {"first": "uniform"},
            "annotate": {
                "use": "llm",
                "model": "fake-lm",
                "base_url": base_url,
                "in_flight": IN_FLIGHT,
                "price": {"input": "0.001", "output": "0.002"},
            },
            "filter": {"use": "confidence", "unknown": "accept"},
            "train": {"rounds": "linear", "final": "linear"},
        }
    )


def counters(base_url: str) -> dict[str, int]:
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/fake/counters", timeout=10) as answer:
        return dict(json.load(answer)["counts"])


def committed(folder: Path) -> set[str]:
    """Ids of items whose answer is in the store."""
    if not (folder / "store.sqlite").is_file():
        return set()
    store = open_store(folder, write=False)
    try:
        query = sa.select(t.item.c.text).join(t.request, t.request.c.item == t.item.c.seq)
        query = query.join(t.response, t.response.c.request == t.request.c.hash)
        return {text_id(text) for (text,) in store.read(query)}
    finally:
        store.close()


def listed(folder: Path) -> list[str]:
    """Ids of items with a call of unknown fate, one entry a call."""
    store = open_store(folder, write=False)
    try:
        return [
            text_id(item.text)
            for item in store.items([i for i, _, _ in unknown_fate(store) if i is not None])
        ]
    finally:
        store.close()


def child(base_url: str, folder: Path, home: Path, until: str | None) -> int:
    """Fork a child that runs the pipeline; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        run(pipeline(base_url), folder, home=home, until=until)
        code = 0
    os._exit(code)


def drive(kills: int, seed: int, items: int, scratch: Path) -> dict[str, object]:
    rng = random.Random(seed)
    words = [f"message {i} {'x' * rng.randrange(20)}" for i in range(items)]
    (scratch / "corpus.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "text": w}) + "\n" for i, w in enumerate(words)), encoding="utf-8"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    base_url = server.stdout.readline().strip()
    folder = scratch / "run"
    asked_again = 0
    worst_repeats = 0
    done_early = 0
    try:
        pid = child(base_url, folder, scratch, "select")  # before the first paid call: vectors and picks
        assert os.waitpid(pid, 0)[1] == 0
        kept: dict[
            str, int
        ] = {}  # item -> requests the server had counted when the item was first seen committed
        before = counters(base_url)
        for _ in range(kills):
            start = len(committed(folder))
            pid = child(base_url, folder, scratch, "annotate")
            while len(committed(folder)) == start and os.waitpid(pid, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.6))
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            time.sleep(0.02)  # requests already in the server's socket are counted before the next look
            now = counters(base_url)
            repeats = sum(n - before[i] for i, n in now.items() if before.get(i, 0) >= 1 and n > before[i])
            worst_repeats = max(worst_repeats, repeats)
            asked_again += sum(now[i] > n for i, n in kept.items())
            for item in committed(folder):
                kept.setdefault(item, now[item])
            before = now
            done_early += len(kept) >= items
        pid = child(base_url, folder, scratch, None)
        assert os.waitpid(pid, 0)[1] == 0
        final = counters(base_url)
        asked_again += sum(final[i] > n for i, n in kept.items())
        lost = listed(folder)
        repeated = {i for i, n in final.items() if n > 1 and i != "probe"}
        pid = child(base_url, folder, scratch, None)
        assert os.waitpid(pid, 0)[1] == 0
        store = open_store(folder, write=False)
        try:
            totals = bill(store)
        finally:
            store.close()
        return {
            "kills": kills,
            "items": items,
            "kills_after_the_last_item": done_early,
            "committed_answers_asked_again": asked_again,
            "repeats_in_all": sum(n - 1 for i, n in final.items() if i != "probe"),
            "most_repeats_a_kill": worst_repeats,
            "in_flight": IN_FLIGHT,
            "calls_of_unknown_fate": len(lost),
            "repeated_but_not_listed": len(repeated - set(lost)),
            "calls_in_ledger_minus_calls_at_server": totals.calls - sum(final.values()),
            "calls_when_run_again": sum(counters(base_url).values()) - sum(final.values()),
        }
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, help="texts in the corpus; enough for all kills when absent")
    options = parser.parse_args()
    items = options.items or 200 + 75 * options.kills  # a kill lets about 50 answers through
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        found = drive(options.kills, options.seed, items, Path(scratch))
    found["seconds"] = round(time.monotonic() - started)
    print(json.dumps(found, indent=1))
    broken = {k: found[k] for k in BROKEN if found[k]}
    if broken or found["most_repeats_a_kill"] > IN_FLIGHT:
        sys.exit(f"a promise is broken: {broken or 'more repeats a kill than calls in flight'}")


BROKEN = (
    "committed_answers_asked_again",
    "repeated_but_not_listed",
    "calls_when_run_again",
    "kills_after_the_last_item",
)

if __name__ == "__main__":
    main()
