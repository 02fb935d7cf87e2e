"""What FreeAL's loop buys: recorded answers of real models, and simulated ones, at the same number of calls.

    OMP_NUM_THREADS=1 python tests/benchmarks/freeal.py mr babe simulated students --seeds 10

llmal's own `freeal` runs over 1,000 train texts (babe: 600), drawn anew by each seed, with an annotator that
gives recorded answers in place of a call. babe: a model's zero-shot answers first, its answers with eight
fixed demonstrations when asked again; they stand in for answers with retrieved ones, which nobody recorded.
mr: one answer a text, so asking again gives the same one, and only sorting can help. simulated: trec, a
share of wrong answers that rises by class from half to one and a half of the noise named, and falls to 0.4
of that with demonstrations. One-shot gets as many more texts as the loop made calls. The student that is
scored is a logistic regression on the labels, on the test split (accuracy; macro-F1 is printed too).
`accepted`: taught only labels of a probability of 0.8, the default filter's. `students` compares students by
how well they tell wrong labels.

Measured 2026-11-21, 10 seeds. calls: an item, in one loop. base: accuracy of the first answers, clean: of
those on the clean list. Then points against one-shot at the loop's number of calls, paired, 95 % t interval
over seeds: the loop's labels, its student, the student of the accepted ones; and demonstrations for every
text with one call each (of some nine times the tokens).

                   calls   base clean  labels       student      accepted     all: labels  student
mr, chatgpt         1.27  93.94  95.5  -0.04+-0.21  -0.57+-0.42  +0.83+-0.64  -0.04+-0.21  -0.57+-0.42
trec 20%            1.31  78.67  95.6  +10.79+-0.45 +4.98+-0.90  +5.24+-1.18  +12.67+-0.43 +6.12+-0.80
trec 30%            1.39  68.11  90.5  +15.58+-0.74 +7.39+-1.33  +9.50+-1.14  +19.04+-0.29 +9.34+-1.34
trec 40%            1.44  57.08  80.5  +18.76+-1.07 +10.38+-1.13 +15.78+-2.11 +25.31+-0.76 +15.32+-1.44
babe, gpt_3_5       1.25  75.73  82.2  +3.28+-0.53  +2.00+-1.00  +3.58+-0.77  +3.54+-1.64  +3.49+-1.58
babe, zephyr        1.24  77.73  84.1  +1.78+-0.96  +1.31+-1.36  +2.36+-1.29  +0.28+-1.18  +1.12+-1.41
babe, mixtral_8x7b  1.21  62.12  66.2  +7.48+-1.41  +6.02+-1.25  +6.56+-1.32  +14.67+-1.85 +6.51+-0.61
babe, llama_13b     1.33  61.82  69.8  +8.88+-1.30  +6.25+-1.67  +8.19+-1.87  +14.15+-1.25 +9.63+-0.65
babe, openchat      1.25  63.08  69.1  +8.24+-1.25  +8.47+-1.35  +8.78+-1.53  +17.33+-1.17 +15.14+-1.30

What helps: the clean list is right more often than all answers on every set (C1), and labels and student
gain on babe and in simulation. What does not: on mr, where asking again changes nothing, the calls are lost,
and more texts are the better buy; a student of the accepted labels gains even there. A second loop changes
no recorded or simulated answer and only costs calls. Demonstrations for every text, where there are any and
the tokens are no matter, give clearly better labels than the loop with three of the five models, as good
ones with gpt_3_5 and worse ones with zephyr. Before classes weighed the same in the student (at C = 1), the
clean list of openchat, which names one class too often, was worse than its answers as a whole (57.9 against
63.1).
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from llmal import clean
from llmal.annotate import stage
from llmal.annotate.freeal import FreeAl
from llmal.annotate.stage import Annotator
from llmal.context import Context
from llmal.corpus import Row, text_key
from llmal.records import Annotation, Label, LabelSchema
from llmal.store.ledger import Caps
from llmal.store.store import open_store

MODELS = ("gpt_3_5", "zephyr", "mixtral_8x7b", "llama_13b", "openchat")
NOISE = (0.2, 0.3, 0.4)
ACCEPT = 0.8
"""Confidence from which the default filter lets a label train."""


class Set(NamedTuple):
    """A data set: train vectors and classes in the same order, test likewise, and ids of the train rows."""

    vectors: np.ndarray
    gold: np.ndarray
    test: np.ndarray
    test_gold: np.ndarray
    names: list[str]
    ids: list[str]


Says = Callable[[int, bool, list[int]], int]
"""Row, whether demonstrations are shown, their rows -> class, or -1 where the answer is none."""


def load(name: str) -> Set:
    table = pq.read_table(curves.SHARED / name / "examples.parquet")
    vectors = curves.embedded(name, table["text"].to_pylist())
    labels, split = table["label"].to_pylist(), np.array(table["split"].to_pylist())
    names = sorted(set(labels))
    gold = np.array([names.index(x) for x in labels])
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    ids = table["id"].to_pylist()
    return Set(vectors[train], gold[train], vectors[test], gold[test], names, [ids[r] for r in train])


def recorded(data: Set, name: str, model: str, prompt: str | None = None) -> np.ndarray:
    """(n,) class a model gave each train row; -1: no answer that could be read."""
    table = pq.read_table(curves.SHARED / name / "llm_labels.parquet").to_pylist()
    said = {r["id"]: r["label"] for r in table if r["annotator"] == model and r.get("prompt") == prompt}
    column = {name: c for c, name in enumerate(data.names)}
    return np.array([column.get(said.get(i) or "", -1) for i in data.ids])


class Replay(Annotator):
    """Gives the answer a function has for an item, with or without demonstrations. Source: none."""

    takes_demonstrations: ClassVar[bool] = True
    says: ClassVar[Says]
    calls: ClassVar[int] = 0

    def annotate(self, items, schema, desk):
        for item in items:
            Replay.calls += 1
            shown = [other.seq for other, _ in desk.shown.get(item.seq, ())]
            said = Replay.says(item.seq, bool(shown), shown)
            if said < 0:
                yield Annotation(item.seq, "unparsed")
            else:
                yield Annotation(item.seq, "ok", (schema.names[said],))
            desk.advance()


class Outcome(NamedTuple):
    """Labels (n,), -1 none; confidence (n,); calls made; which rows stayed after the first loop."""

    labels: np.ndarray
    sure: np.ndarray
    calls: int
    stayed: np.ndarray


def loop(data: Set, rows: np.ndarray, says: Says, loops: int, seed: int) -> Outcome:
    """llmal's own FreeAL over these rows of a set."""
    schema = LabelSchema("single", tuple(Label(name=n) for n in data.names), False)
    Replay.says, Replay.calls = lambda i, again, shown: says(rows[i], again, [rows[j] for j in shown]), 0
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "run")
        texts = (Row(i, str(i), f"text {i}") for i in range(len(rows)))
        store.put_corpus("c", "d", texts, text_key)
        store.put_block("v", 0, data.vectors[rows])
        ctx = Context(store.folder, home=store.folder, seed=seed)
        plan = FreeAl(of=Replay(), loops=loops)
        wanted = list(range(len(rows)))
        stage.run(plan, store, ctx, schema=schema, caps=Caps(), wanted=wanted, vectors="v")
        made = store.annotations(plan.recipe_for(schema, ctx, "v"))
        store.close()
    labels = np.array([data.names.index(made[i].labels[0]) if made[i].labels else -1 for i in wanted])
    sure = np.array([made[i].confidence or 0.0 for i in wanted])
    stayed = np.array([made[i].detail.startswith("not asked again") for i in wanted])
    return Outcome(labels, sure, Replay.calls, stayed)


def worth(data: Set, rows: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy of the labels there are; accuracy and macro-F1 on the test split of a student taught them."""
    ok = labels >= 0
    right = (labels == data.gold[rows])[ok].mean()
    seen = np.unique(labels[ok])
    said = np.full(len(data.test), seen[0])
    if len(seen) > 1:
        model = LogisticRegression(C=curves.STRENGTH, max_iter=1000)
        said = model.fit(data.vectors[rows[ok]], labels[ok]).predict(data.test)
    return [right, (said == data.test_gold).mean(), f1_score(data.test_gold, said, average="macro")]


def compare(title: str, data: Set, says: Callable[[int], Says], n: int, seeds: int) -> None:
    """One-shot against the loop: labels and student, at the loop's number of calls."""
    found: dict[str, list[list[float]]] = {}
    more = []
    for seed in range(seeds):
        rows = np.random.default_rng(seed).permutation(len(data.gold))
        speak = says(seed)
        first = np.array([speak(r, False, []) for r in rows])
        again = np.array([speak(r, True, list(rows[:10])) for r in rows[:n]])
        out: dict[str, list[float]] = {}
        for loops in (1, 2):
            made = loop(data, rows[:n], speak, loops, seed)
            same = min(made.calls, len(rows))
            out[f"one-shot, calls of loop {loops}"] = worth(data, rows[:same], first[:same])
            out[f"loop {loops}"] = worth(data, rows[:n], made.labels)
            accepted = np.where(made.sure >= ACCEPT, made.labels, -1)
            out[f"loop {loops}, accepted"] = worth(data, rows[:n], accepted)
            if loops == 1:
                kept = made.stayed & (first[:n] >= 0)
                clean_right = (first[:n] == data.gold[rows[:n]])[kept].mean()
                more.append([made.calls / n, kept.mean(), clean_right, (made.sure >= ACCEPT).mean()])
        out["one-shot, n items"] = worth(data, rows[:n], first[:n])
        out["with demonstrations, n items"] = worth(data, rows[:n], again)
        for name, values in out.items():
            found.setdefault(name, []).append(values)
    calls, kept, clean_right, accepted = np.mean(more, axis=0)
    print(
        f"\n{title}: n {n}, {seeds} seeds; {calls:.2f} calls an item; {kept:.2f} of the items clean, "
        f"{clean_right:.3f} of these right; {accepted:.2f} accepted",
        flush=True,
    )
    for name, values in found.items():
        base = found[f"one-shot, calls of loop {2 if 'loop 2' in name else 1}"]
        mean = 100 * np.mean(values, axis=0)
        difference = np.array(values) - np.array(base)
        gaps = "  ".join(curves.with_interval(difference[:, m]) for m in range(3))
        print(f"{name:30} {mean[0]:6.2f} {mean[1]:6.2f} {mean[2]:6.2f}   {gaps}", flush=True)


def on_mr(seeds: int) -> None:
    data = load("mr")
    said = recorded(data, "mr", "chatgpt")
    compare("mr, chatgpt", data, lambda _: lambda row, _again, _shown: int(said[row]), 1000, seeds)


def on_babe(seeds: int) -> None:
    data = load("babe")
    for model in MODELS:
        first, again = (recorded(data, "babe", model, p) for p in ("zero-shot", "8-shot"))

        def says(row: int, shown: bool, _rows: list[int], first=first, again=again) -> int:
            return int((again if shown else first)[row])

        compare(f"babe, {model}", data, lambda _, says=says: says, 600, seeds)


def on_simulated(seeds: int) -> None:
    data = load("trec")
    c = len(data.names)
    for noise in NOISE:

        def says(seed: int, noise: float = noise) -> Says:
            rng = np.random.default_rng(seed)
            luck, other = rng.random(len(data.gold)), rng.integers(1, c, len(data.gold))
            chance = noise * (0.5 + data.gold / (c - 1))  # from half to one and a half, by class

            def say(row: int, shown: bool, rows: list[int]) -> int:
                err = chance[row] * (0.4 if shown else 1.0)
                return int((data.gold[row] + (other[row] if luck[row] < err else 0)) % c)

            return say

        compare(f"trec, simulated noise {noise:.0%}", data, says, 1000, seeds)


def on_students(seeds: int) -> None:
    """Which student tells wrong labels: AUROC of its loss, and how right the clean labels are."""
    cases = {}
    for name, model, prompt in (
        ("mr", "chatgpt", None),
        ("babe", "gpt_3_5", "zero-shot"),
        ("babe", "llama_13b", "zero-shot"),
    ):
        data = load(name)
        cases[f"{name} {model}"] = (data, recorded(data, name, model, prompt))
    data = load("trec")
    rng, c = np.random.default_rng(0), len(data.names)
    wrong = rng.random(len(data.gold)) < 0.3 * (0.5 + data.gold / (c - 1))
    cases["trec 30 %"] = (data, np.where(wrong, (data.gold + rng.integers(1, c, len(wrong))) % c, data.gold))
    for title, (data, said) in cases.items():
        for n in (300, 1000):
            for strength in (0.3, 1.0, 3.0, 10.0):
                for way in ("cross-fitted", "in-sample"):
                    found = np.mean([student(data, said, n, s, strength, way) for s in range(seeds)], axis=0)
                    words = "auroc {:.3f} clean {:.2f} right {:.3f} student's label right {:.3f}".format(
                        *found
                    )
                    print(f"{title:16} n {n:5} {way:12} C {strength:4}: {words}", flush=True)


def student(data: Set, said: np.ndarray, n: int, seed: int, strength: float, way: str) -> list[float]:
    rows = np.random.default_rng(seed).permutation(len(said))[:n]
    x, gold, labels = data.vectors[rows], data.gold[rows], said[rows]
    ok = labels >= 0
    if way == "in-sample":
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000).fit(x[ok], labels[ok])
        probs = np.full((n, len(data.names)), clean.EVEN / len(data.names))
        probs[:, model.classes_] += (1 - clean.EVEN) * model.predict_proba(x)
    else:
        before, clean.STRENGTH = clean.STRENGTH, strength
        probs = clean.cross_fitted(x, labels, len(data.names), seed=seed)
        clean.STRENGTH = before
    losses = clean.cross_entropy(probs, labels)
    kept = clean.small_losses(losses, seed=seed).mask
    wrong = labels != gold
    pseudo = (probs.argmax(axis=1) == gold)[kept].mean()
    return [roc_auc_score(wrong[ok], losses[ok]), kept[ok].mean(), 1 - wrong[kept].mean(), pseudo]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=("mr", "babe", "simulated", "students"))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    work = {"mr": on_mr, "babe": on_babe, "simulated": on_simulated, "students": on_students}
    for name in options.what:
        work[name](options.seeds)


if __name__ == "__main__":
    main()
