"""Soft against hard labels at 500 items: what an annotator's probabilities are worth to a student.

    OMP_NUM_THREADS=1 python tests/benchmarks/soft_labels.py --seeds 10
    OMP_NUM_THREADS=1 python tests/benchmarks/soft_labels.py --student finetune --seeds 3

500 train texts, drawn anew by each seed, with an annotator's probabilities, taught as `train.targets` says,
and scored with gold on the whole test split. The annotator is a logistic regression on all gold of the train
split (`teacher`), the share of recorded models that name a class (`babe votes`, 4-shot prompts; unparsed
answers and ties are left out), GPT-4o's label with the confidence it stated (`gwsd gpt-4o`), or the crowd
(`gwsd crowd`). `linear` learns MiniLM vectors. No recorded annotator of texts gave token probabilities.

accuracy in points, NLL in thousandths of a nat, over `hard` with the paired 95 % t interval; teacher right:
accuracy of the labels taught.

Measured 2026-11-21, `linear`, 10 seeds. Below the name: what `hard` comes to, in points and nats.

accuracy         trec teacher   babe teacher     babe votes    gwsd gpt-4o     gwsd crowd
teacher right            93.1           84.6           82.1           80.0           97.5
hard                    77.37          74.88          72.95          70.35          64.85
hard, weighed  +0.44 +-0.43   +0.03 +-0.39   +0.42 +-0.64   -0.85 +-1.24   +0.95 +-1.05
soft           +5.84 +-0.85   +0.53 +-0.58   -0.54 +-1.18   -1.65 +-1.81   +0.15 +-1.11
soft, weighed  +5.76 +-0.91   +0.71 +-0.72   -0.32 +-1.37   -2.35 +-1.28   -1.15 +-1.73
soft, half     +4.32 +-0.77   +0.20 +-0.44   +0.17 +-0.92   -0.60 +-1.09   +0.15 +-0.94

NLL
hard                    0.666          0.626          0.544          0.599          0.815
hard, weighed     -14 +-20      +100 +-95        -4 +-13       +10 +-10        -4 +-2
soft             -175 +-28      -123 +-96       -13 +-16       +20 +-3         +7 +-5
soft, weighed    -170 +-28      -124 +-96       -18 +-14       +18 +-8         +9 +-6
soft, half       -147 +-23       -77 +-95       -15 +-14        +9 +-2         +2 +-3

Probabilities of a teacher that knows what it says are worth much with six classes; with two they better the
student's own probabilities. Shares of votes, and confidences that nobody calibrated, are worth nothing or do
harm: so labels stay the default. `finetune` was not measured.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from llmal.context import Context
from llmal.records import Label, LabelSchema
from llmal.train.finetune import Finetune
from llmal.train.linear import Linear
from llmal.train.stage import Examples, Student
from llmal.train.targets import Targets, teach

N = 500
STUDENTS: dict[str, Student] = {"linear": Linear(), "finetune": Finetune()}
WAYS = {
    "hard": Targets(),
    "hard, weighed": Targets(weights="confidence"),
    "soft": Targets(use="soft"),
    "soft, weighed": Targets(use="soft", weights="confidence"),
    "soft, half": Targets(use="soft", share=0.5),
}
TEMPERED = {
    "soft, T 2": Targets(use="soft", temperature=2),
    "soft, T 4": Targets(use="soft", temperature=4),
    "soft, half, T 2": Targets(use="soft", share=0.5, temperature=2),
}
"""Only for a student that reads the temperature."""


class Set(NamedTuple):
    """Texts, vectors and classes, rows of the splits, and the annotator's probabilities, NaN without one."""

    texts: list[str]
    vectors: np.ndarray
    gold: np.ndarray
    train: np.ndarray
    test: np.ndarray
    probs: np.ndarray
    names: list[str]


def load(name: str, column: str = "label") -> Set:
    """A set without an annotator."""
    rows = pq.read_table(curves.SHARED / name / "examples.parquet").to_pylist()
    texts = [r["text"] for r in rows]
    names = sorted({r[column] for r in rows})
    gold = np.array([names.index(r[column]) for r in rows])
    parts = [np.flatnonzero([r["split"] == s for r in rows]) for s in ("train", "test")]
    empty = np.full((len(rows), len(names)), np.nan)
    return Set(texts, curves.embedded(name, texts), gold, *parts, empty, names)


def teacher(name: str) -> Set:
    """A logistic regression that learnt the gold of the whole train split."""
    data = load(name)
    model = LogisticRegression(C=curves.STRENGTH, max_iter=1000)
    model.fit(data.vectors[data.train], data.gold[data.train])
    return data._replace(probs=model.predict_proba(data.vectors))


def votes() -> Set:
    """Shares of the models that name each class of babe."""
    data = load("babe")
    ids = pq.read_table(curves.SHARED / "babe" / "examples.parquet")["id"].to_pylist()
    place = {i: n for n, i in enumerate(ids)}
    counts = np.zeros(data.probs.shape)
    for r in pq.read_table(curves.SHARED / "babe" / "llm_labels.parquet").to_pylist():
        if r["prompt"] == "4-shot" and r["label"] in data.names:
            counts[place[r["id"]], data.names.index(r["label"])] += 1
    counts[counts[:, 0] == counts[:, 1]] = np.nan
    return data._replace(probs=counts / counts.sum(axis=1, keepdims=True))


def stated() -> Set:
    """GPT-4o's binary label, with what it said its confidence was."""
    data = load("gwsd", "label_binary")
    ids = pq.read_table(curves.SHARED / "gwsd" / "examples.parquet")["id"].to_pylist()
    place = {i: n for n, i in enumerate(ids)}
    probs = data.probs.copy()
    for r in pq.read_table(curves.SHARED / "gwsd" / "llm_labels.parquet").to_pylist():
        sure = max(r["confidence"], 0.51)  # its label stays the likelier of the two
        probs[place[r["id"]]] = 1 - sure
        probs[place[r["id"]], data.names.index(r["label"])] = sure
    return data._replace(probs=probs)


def crowd() -> Set:
    """The source's probabilities from eight people's votes, three classes."""
    data = load("gwsd")
    rows = pq.read_table(curves.SHARED / "gwsd" / "examples.parquet").to_pylist()
    probs = np.array([[r[f"p_{n}"] for n in data.names] for r in rows])
    return data._replace(probs=probs / probs.sum(axis=1, keepdims=True))


CASES: dict[str, Callable[[], Set]] = {
    "mr teacher": lambda: teacher("mr"),
    "babe teacher": lambda: teacher("babe"),
    "trec teacher": lambda: teacher("trec"),
    "clinc150 teacher": lambda: teacher("clinc150"),
    "babe votes": votes,
    "gwsd gpt-4o": stated,
    "gwsd crowd": crowd,
}


def one(data: Set, student: Student, ways: dict[str, Targets], seed: int) -> dict[str, Any]:
    """Way -> accuracy and NLL on the test split; and the share of labels taught that are right."""
    known = data.train[~np.isnan(data.probs[data.train]).any(axis=1)]
    rows = np.random.default_rng(seed).permutation(known)[:N]
    schema = LabelSchema("single", tuple(Label(name=n) for n in data.names), False)
    y = data.probs[rows].argmax(axis=1)
    labels = np.eye(len(data.names), dtype=np.float32)[y]
    probs, sure = [tuple(p) for p in data.probs[rows].tolist()], data.probs[rows].max(axis=1).tolist()
    texts, asked = [data.texts[i] for i in rows], [data.texts[i] for i in data.test]
    out: dict[str, Any] = {"right": (y == data.gold[rows]).mean()}
    for way, how in ways.items():
        taught = teach(labels, probs, sure, np.ones(N, bool), "single", how)
        distil = taught.distil if student.distils else None
        given = Examples(texts, data.vectors[rows], taught.targets, taught.weights, None, distil)
        with tempfile.TemporaryDirectory() as folder:
            ctx = Context(Path(folder), home=Path(folder))
            model = student.fit(given, schema, np.random.default_rng(seed), ctx)
        said = model.predict_proba(Examples(asked, data.vectors[data.test]))
        gold = data.gold[data.test]
        own = np.maximum(said[np.arange(len(gold)), gold], 1e-6)
        out[way] = [(said.argmax(axis=1) == gold).mean(), -np.log(own).mean()]
    return out


def compare(title: str, name: str, seeds: int, only: list[str]) -> None:
    """Print one table."""
    data, student = CASES[title](), STUDENTS[name]
    ways = {w: how for w, how in {**WAYS, **(TEMPERED if student.distils else {})}.items() if w in only}
    found = [one(data, student, ways, seed) for seed in range(seeds)]
    base = np.array([f["hard"] for f in found])
    right = 100 * np.mean([f["right"] for f in found])
    print(f"\n{title}, {name}, {seeds} seeds: teacher right {right:.1f} %;", end=" ")
    print(f"hard: accuracy {100 * base[:, 0].mean():.2f}, NLL {base[:, 1].mean():.3f}")
    for way in ways:
        if way != "hard":
            gap = np.array([f[way] for f in found]) - base
            nll = curves.with_interval(1000 * gap[:, 1], 1)
            print(f"{way:<18}{curves.with_interval(gap[:, 0]):>16}{nll:>18} / 1000", flush=True)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--student", choices=STUDENTS, default="linear")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *TEMPERED], default=[*WAYS, *TEMPERED])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for title in options.only:
        compare(title, options.student, options.seeds, options.ways)


if __name__ == "__main__":
    main()
