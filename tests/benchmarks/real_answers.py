"""Students taught by real recorded answers: film reviews labelled by ChatGPT, questions labelled by people.

    python tests/benchmarks/real_answers.py mr --seeds 0 1 2
    python tests/benchmarks/real_answers.py trec --seeds 0 1 2

The answers are served by FakeLM in replay over HTTP and pass through prompt, parser, store, filter and
student to an exported folder, which is loaded again and scored on the set's own test split. Needs the shared
data sets beside the project (`../shared/data`). Prints one line a seed and student, and the means.

Reference: TF-IDF (1-2 grams) + logistic regression trained on all 8,278 parsed ChatGPT labels of `mr` scores
0.780.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from llmal.context import PlainLines, Silent
from llmal.predictor import load
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.stats.intervals import wilson
from llmal.testing.brains import classifier, identify
from llmal.testing.fakelm import FakeLM

SHARED = Path(os.environ.get("LLMAL_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"

SETS = {
    "mr": {
        "labels": {
            "negative": "the reviewer thinks little of the film",
            "positive": "the reviewer likes the film",
        },
        "rounds": {"max": 5, "size": 290},
    },
    "trec": {
        "labels": {
            "abbreviation": "asks what an abbreviation stands for",
            "entity": "asks for a thing: animal, colour, food, product, event, word",
            "description": "asks for a definition, description, manner or reason",
            "human": "asks for a person or a group",
            "location": "asks for a place",
            "numeric": "asks for a number, date, distance, price",
        },
        "rounds": {"max": 5, "size": 290},
    },
}


def examples(name: str) -> list[dict[str, str]]:
    return pq.read_table(SHARED / name / "examples.parquet").to_pylist()


def answers(name: str, rows: list[dict[str, str]]) -> dict[str, str | None]:
    """Text -> recorded answer; gold is the oracle where no model's answers were recorded."""
    if name == "trec":
        return {row["text"]: row["label"] for row in rows}
    table = pq.read_table(SHARED / name / "llm_labels.parquet").to_pylist()
    by_id = {row["id"]: row["label"] for row in table if row["annotator"] == "chatgpt"}
    return {row["text"]: by_id.get(row["id"]) for row in rows}


def pipeline(name: str, base_url: str, seed: int, final: str, then: str) -> Pipeline:
    return Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
            "labels": {"names": SETS[name]["labels"]},
            "seed": seed,
            "rounds": SETS[name]["rounds"],
            "select": {"first": "typiclust", "then": then},
            "annotate": {"use": "llm", "model": "recorded", "base_url": base_url, "price": "local"},
            "filter": {"use": "confidence", "unknown": "accept"},
            "train": {"rounds": "linear", "final": final},
            "budget": {"calls": 1500},
        }
    )


def one(name: str, seed: int, finals: list[str], folder: Path, then: str) -> list[dict[str, object]]:
    rows = examples(name)
    train, test = ([r for r in rows if r["split"] == s] for s in ("train", "test"))
    folder.mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({k: r[k] for k in ("id", "text", "label")}) + "\n" for r in train)
    found = []
    with FakeLM(classifier(answers(name, train)), model="recorded", identify=identify) as server:
        for final in finals:  # the second student reuses every pick, answer and vector of the first
            started = time.monotonic()
            progress = PlainLines() if sys.stderr.isatty() else Silent()
            done = run(
                pipeline(name, server.base_url, seed, final, then),
                folder / "run",
                home=folder,
                progress=progress,
            )
            model = load(done.export)
            right = sum(
                a == r["label"] for a, r in zip(model.predict([r["text"] for r in test]), test, strict=True)
            )
            score = wilson(right, len(test))
            audit = done.measures["student.accuracy"]
            found.append(
                {
                    "seed": seed,
                    "student": final,
                    "calls_at_server": server.n_requests,
                    "calls": done.bill.calls,
                    "nulls": done.labels["verdict"]["hold"],
                    "accepted": done.labels["verdict"]["accept"],
                    "accuracy": score.value,
                    "interval": [round(score.low, 4), round(score.high, 4)],
                    "n": score.n,
                    "audit": [round(audit[k], 3) for k in ("value", "low", "high")],
                    "seconds": round(time.monotonic() - started),
                }
            )
            print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--students", nargs="+", default=["linear", "finetune"])
    parser.add_argument("--then", default="margin", help="query strategy of the later rounds")
    options = parser.parse_args()
    every = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            every += one(options.set, seed, options.students, Path(scratch) / str(seed), options.then)
    for student in options.students:
        scores = [r["accuracy"] for r in every if r["student"] == student]
        print(
            f"{options.set} {student}: mean accuracy {statistics.mean(scores):.4f} over {len(scores)} seeds"
        )


if __name__ == "__main__":
    main()
