"""What texts without a label are worth to a student: self-training, and answers of a teacher.

    OMP_NUM_THREADS=1 python tests/benchmarks/self_training.py --seeds 10

Gold is the oracle, MiniLM vectors are frozen, and `linear` is the student unless said otherwise. A seed draws
the first labels, the pool (1,500 train texts without a label) and every other chance. Scores are of the test
split, in points, as paired differences to the first line with 95 % t intervals over seeds.

rounds    30 labels, the same number of each class, then 10 times the 10 texts of the smallest margin. Area
          under the curve over 30, 50, 80, 130 labels. `in the rounds`: hast chooses and is scored; the others
          are taught what plain `linear` chose.
steps     60 random labels, curriculum with a network of one hidden layer of 32 (1,500 steps at the most):
          `linear` is the same wherever it starts. `goes on`: one network is taught on at every step, none is
          fresh. `from 0.9`: at every step all answers of at least 0.9 in place of a growing share.
sure      How well a confidence tells right from wrong answers about test texts (AUROC): the student's
          probability against T-similarity, with 60 labels drawn at random, or only among the texts that lie
          in the outer third along the first principal component (biased). `no pull`: five heads, gamma 0.
mismatch  130 labels as in `rounds`, margin of a logistic regression against random; then a successor of
          another kind learns from them: gradient boosting on 32 principal components, or a logistic
          regression on hashed words. `plasm`: with cleaned answers of `linear` about 1,000
          texts; `all answers`: uncleaned.
ups       As in `rounds`, badge on the whole pool against badge on what `within: ups` keeps of it; CPU time of
          choosing in percent of the first line's.

Measured 2026-11-21, 10 seeds. First line: points; the others: difference to it and its 95 % interval.

rounds: area         trec accuracy       macro-F1    mr accuracy       macro-F1  babe accuracy       macro-F1
linear                       60.27          59.18          65.81          65.31          67.43          65.14
hast in the rounds    +1.39 +-2.62   -0.18 +-2.90   +0.25 +-1.12   -0.03 +-1.53   -1.44 +-1.28   -2.39 +-3.71
hast                  +1.12 +-1.13   -0.82 +-2.08   -0.14 +-0.63   -0.67 +-1.08   -0.32 +-0.54   -1.82 +-1.23
hast similarity       -0.01 +-0.02   -0.02 +-0.03   -0.17 +-0.62   -0.66 +-1.06   -0.24 +-0.59   -1.69 +-1.29
curriculum            +2.54 +-1.13   -1.39 +-2.43   +0.74 +-0.54   +1.00 +-0.72   +0.28 +-0.79   +0.86 +-1.12
curriculum to 40 %    +2.85 +-1.27   +1.21 +-1.64   +0.87 +-0.35   +1.06 +-0.48   +0.31 +-0.61   +0.69 +-0.94

steps                trec accuracy       macro-F1    mr accuracy       macro-F1  babe accuracy       macro-F1
labels alone                 57.51          48.95          65.03          64.64          64.76          61.01
steps, restart        +3.41 +-1.85   +0.62 +-2.94   +1.56 +-1.22   +1.54 +-1.26   -0.10 +-1.65   -0.10 +-1.91
from 0.9, restart     +2.81 +-1.57   +0.08 +-2.99   +1.64 +-0.69   +1.67 +-0.70   +0.63 +-1.23   +0.76 +-1.51
steps, goes on        +4.34 +-1.45   +2.58 +-3.23   +1.31 +-0.49   +1.46 +-0.49   +0.32 +-0.89   +1.34 +-1.37
from 0.9, goes on     +1.41 +-1.57   -0.61 +-2.41   +1.29 +-0.59   +1.52 +-0.71   +0.53 +-1.01   +1.60 +-1.47

sure: AUROC            trec random         biased      mr random         biased    babe random         biased
probability                  71.14          72.28          62.54          61.63          64.48          67.29
T-similarity          -2.51 +-1.50   +2.84 +-1.98   -0.38 +-1.41   -0.06 +-1.61   -3.28 +-1.86   -5.10 +-2.13
no pull               -3.35 +-1.43   -0.16 +-2.43   +0.44 +-1.11   +1.56 +-1.85   -1.42 +-1.27   -2.19 +-1.74

mismatch: boosting   trec accuracy       macro-F1    mr accuracy       macro-F1  babe accuracy       macro-F1
random                       53.90          50.83          63.86          63.69          64.95          63.79
random, plasm         +7.45 +-1.62   +6.37 +-3.94   +2.68 +-1.91   +1.87 +-3.09   +1.44 +-1.82   -0.53 +-2.71
margin                +0.36 +-2.97   -0.39 +-2.93   -0.83 +-0.90   -0.95 +-1.08   -1.68 +-1.29   -1.41 +-1.42
margin, plasm         +7.01 +-2.19   +3.90 +-2.90   +1.71 +-2.64   +0.51 +-3.90   +2.27 +-1.21   -0.63 +-2.23
margin, all answers   +9.68 +-2.24   +7.64 +-2.69   +3.50 +-2.35   +2.81 +-2.99   +4.41 +-1.32   +3.09 +-1.64

mismatch: words      trec accuracy       macro-F1    mr accuracy       macro-F1  babe accuracy       macro-F1
random                       49.78          54.63          55.67          55.27          60.85          58.87
random, plasm         +4.72 +-1.40   -0.91 +-4.07   +2.08 +-1.85   +0.55 +-4.13   +4.17 +-2.08   +1.84 +-4.24
margin                -2.45 +-2.11   -3.42 +-3.19   -0.47 +-1.09   -0.37 +-1.22   -0.08 +-1.86   +1.02 +-2.50
margin, plasm         +4.66 +-3.38   -3.35 +-5.35   +1.66 +-2.05   -0.64 +-4.34   +5.05 +-1.41   +1.88 +-3.08
margin, all answers   +2.83 +-2.80   -2.61 +-4.25   +2.00 +-1.52   +1.24 +-2.24   +4.24 +-1.43   +3.89 +-1.89

On these labels the logistic regression they were chosen with scores, margin to random: trec +1.29 +-2.36, mr
+0.74 +-1.59, babe +2.49 +-0.82. ups: accuracy area trec +1.24 +-3.15, mr -0.14 +-0.83; CPU time of choosing
33 and 24 % of badge's on the whole pool.

What holds. A successor loses by labels that another student chose (babe, boosting; trec, words) where that
student gains or stays even, and a teacher's answers more than make up for it in accuracy. Curriculum helps on
trec and mr; stopped at 40 % it never had the lower mean of the two in accuracy, and keeps macro-F1 where the
last steps cost it. What does not help. HAST over linear: no interval above 0, macro-F1 down on babe.
T-similarity: better than the probability with biased labels on trec only, worse on babe; with six classes
hardly an answer reaches 0.5, so that HAST then teaches nothing. A fresh start at each step: no better than
going on. A growing share against a fixed 0.9: even. Cleaning in PLASM: lower means than all answers with
boosting, even with words.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from llmal.context import Context
from llmal.embed.hashing import Hashing
from llmal.records import Label, LabelSchema
from llmal.select.badge import Badge
from llmal.select.margin import Margin
from llmal.select.stage import Pool, Selector
from llmal.select.uniform import Uniform
from llmal.train.curriculum import Curriculum, evened
from llmal.train.hast import Hast
from llmal.train.linear import Linear
from llmal.train.plasm import Plasm
from llmal.train.selftraining import Task as Given
from llmal.train.selftraining import answers
from llmal.train.similarity import diverse_heads, similarity
from llmal.train.stage import Examples, Model, Student

warnings.simplefilter("ignore", ConvergenceWarning)

FIRST, BATCH, LAST = 30, 10, 130
BUDGETS = np.array([30, 50, 80, 130])
UNLABELLED, SMALL = 1500, 1000
FEW = 60
STEPS = 1500
"""Steps a network is taught for, at the most."""

MARGIN = Margin()
CHOOSING: dict[str, float] = {}
"""Recipe of a strategy -> CPU seconds it has taken."""

CONTEXT = Context(Path(tempfile.gettempdir()), home=Path(tempfile.gettempdir()))


class Data(NamedTuple):
    """A set, and the texts behind its train and test rows."""

    task: curves.Task
    texts: list[str]
    test_texts: list[str]

    def schema(self) -> LabelSchema:
        return LabelSchema("single", tuple(Label(name=n) for n in self.task.classes), False)

    def given(self, rows: np.ndarray, seed: int, most: int = UNLABELLED) -> Examples:
        """Labels of rows, and a pool without them."""
        rest = np.setdiff1d(np.arange(len(self.texts)), rows)
        pool = np.random.default_rng([seed, 7]).permutation(rest)[:most]
        return Examples(
            [self.texts[i] for i in rows],
            self.task.pool[rows],
            self.task.gold[rows],
            np.ones(len(rows), np.float32),
            Examples([self.texts[i] for i in pool], self.task.pool[pool]),
        )

    def fit(self, student: Student, rows: np.ndarray, seed: int, most: int = UNLABELLED) -> Model:
        given = self.given(rows, seed, most)
        return student.fit(given, self.schema(), np.random.default_rng(seed), CONTEXT)

    def score(self, model: Model) -> list[float]:
        """Accuracy and macro-F1 on the test split."""
        return list(curves.scores(model.predict_proba(self.test()), self.task)[:2])

    def test(self) -> Examples:
        return Examples(self.test_texts, self.task.test)


def load(name: str) -> Data:
    table = pq.read_table(curves.SHARED / name / "examples.parquet")
    texts = table["text"].to_pylist()
    split = table["split"].to_pylist()
    sides = [[x for x, s in zip(texts, split, strict=True) if s == side] for side in ("train", "test")]
    return Data(curves.task(name), *sides)


def bought(data: Data, seed: int, student: Student, by: Selector = MARGIN) -> list[tuple[np.ndarray, Model]]:
    """Rows and the student after each purchase, from `FIRST` to `LAST`."""
    number = data.task.gold.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(len(number))
    each = FIRST // len(data.task.classes)
    rows = np.concatenate([order[number[order] == c][:each] for c in range(len(data.task.classes))])
    out = []
    while True:
        model = data.fit(student, rows, seed)
        out.append((rows, model))
        if len(rows) >= LAST:
            return out
        left = np.setdiff1d(np.arange(len(number)), rows)
        probs = model.predict_proba(Examples(data.texts, data.task.pool))
        pool = Pool(data.task.pool, left, rows, probs, len(data.task.classes))
        started = time.process_time()
        more = by.select(pool, BATCH, np.random.default_rng([seed, len(rows)])).rows
        CHOOSING[by.recipe()] = CHOOSING.get(by.recipe(), 0.0) + time.process_time() - started
        rows = np.concatenate([rows, more])


def rounds(data: Data, seed: int) -> dict[str, list[float]]:
    """Area of accuracy and of macro-F1, and both at the last budget, of each arm."""
    plain = {len(rows): (rows, model) for rows, model in bought(data, seed, Linear())}
    own = {len(rows): model for rows, model in bought(data, seed, Hast())}
    arms: dict[str, Callable[[int], Model]] = {
        "linear": lambda n: plain[n][1],
        "hast in the rounds": lambda n: own[n],
    }
    students = {
        "hast": Hast(),
        "hast similarity": Hast(confidence="similarity"),
        "curriculum": Curriculum(),
        "curriculum to 40 %": Curriculum(until=0.4),
    }
    arms |= {k: lambda n, s=s: data.fit(s, plain[n][0], seed) for k, s in students.items()}
    out = {}
    for name, model in arms.items():
        found = np.array([data.score(model(int(n))) for n in BUDGETS])
        out[name] = [*curves.areas(found[None], BUDGETS)[0], *found[0], *found[-1]]
    return out


class Network(Model):
    """A network of one hidden layer as a fitted student."""

    def __init__(self, inner: MLPClassifier, classes: int) -> None:
        self.inner, self.classes = inner, classes

    def predict_proba(self, examples: Examples) -> np.ndarray:
        out = np.zeros((len(examples.vectors), self.classes), np.float32)
        out[:, self.inner.classes_] = self.inner.predict_proba(examples.vectors)
        return out


def taught(classes: int, seed: int, *, goes_on: bool) -> Callable[[Examples], Model]:
    """Teaches a network: a fresh one every time, or always the same."""

    def fresh() -> MLPClassifier:
        return MLPClassifier((32,), batch_size=32, warm_start=goes_on, random_state=seed)

    kept = fresh()

    def teach(given: Examples) -> Model:
        network = kept if goes_on else fresh()
        network.set_params(max_iter=max(20, STEPS * 32 // len(given.texts)))
        network.fit(given.vectors, given.targets.argmax(axis=1), sample_weight=given.weights)
        return Network(network, classes)

    return teach


def steps(data: Data, seed: int) -> dict[str, list[float]]:
    """Accuracy and macro-F1 of each arm."""
    rows = np.random.default_rng(seed).permutation(len(data.texts))[:FEW]
    given = data.given(rows, seed)
    task = Given(given._replace(pool=None), given.pool, data.schema(), np.random.default_rng(seed), CONTEXT)
    classes = len(data.task.classes)
    out = {"labels alone": data.score(taught(classes, seed, goes_on=False)(task.known))}
    for goes_on in (False, True):
        teach = taught(classes, seed, goes_on=goes_on)
        words = "goes on" if goes_on else "restart"
        out[f"steps, {words}"] = data.score(Curriculum().learn(task, teach))
        out[f"from 0.9, {words}"] = data.score(fixed(task, taught(classes, seed, goes_on=goes_on)))
    return out


def fixed(task: Given, teach: Callable[[Examples], Model]) -> Model:
    """Five steps with all answers of at least 0.9 at each, weighted by class as in `curriculum`."""
    model = teach(task.known)
    for _ in range(5):
        probs = model.predict_proba(task.pool)
        said, sure = answers(probs, task.schema), np.flatnonzero(probs.max(axis=1) >= 0.9)
        weights = evened(said.kinds[sure]) if len(sure) else np.ones(0)
        model = teach(task.with_answers(sure, said.targets[sure], weights))
    return model


def sure(data: Data, seed: int) -> dict[str, list[float]]:
    """AUROC of each confidence with random and with biased labels."""
    first = PCA(1, random_state=0).fit_transform(data.task.pool)[:, 0]
    order = np.random.default_rng(seed).permutation(len(first))
    outer = order[first[order] > np.quantile(first, 2 / 3)]
    out: dict[str, list[float]] = {"probability": [], "T-similarity": [], "no pull": []}
    for rows in (order[:FEW], outer[:FEW]):
        given = data.given(rows, seed)
        probs = data.fit(Linear(), rows, seed).predict_proba(data.test())
        right = data.task.test_gold[np.arange(len(probs)), probs.argmax(axis=1)] > 0
        by = {"probability": probs.max(axis=1)}
        for name, gamma in (("T-similarity", 1.0), ("no pull", 0.0)):
            rng = np.random.default_rng(seed)
            heads = diverse_heads(given, given.pool.vectors, rng, multi=False, gamma=gamma)
            by[name] = similarity(heads.probs(data.task.test))
        for name, confidence in by.items():
            out[name].append(roc_auc_score(right, confidence))
    return out


class Successor(Student):
    """A student of another kind than the one labels were chosen with. Source: none."""

    kind: str

    def fit(self, examples: Examples, schema: LabelSchema, rng: np.random.Generator, ctx: Context) -> Model:
        x, y = self.read(examples), examples.targets.argmax(axis=1)
        if self.kind == "boosting":
            inner = HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=5, random_state=0)
        else:
            inner = LogisticRegression(C=curves.STRENGTH, max_iter=1000)
        inner.fit(x, y, sample_weight=examples.weights)
        return Fitted(self, inner, len(schema.labels))

    def load(self, folder: Path, schema: LabelSchema) -> Model:
        raise NotImplementedError

    def read(self, examples: Examples) -> np.ndarray:
        if self.kind == "boosting":
            return examples.vectors @ COMPONENTS[examples.vectors.shape[1]]
        new = [text for text in dict.fromkeys(examples.texts) if text not in WORDS]
        WORDS.update(zip(new, Hashing(dim=512).encode(new), strict=True))
        return np.stack([WORDS[text] for text in examples.texts])


COMPONENTS: dict[int, np.ndarray] = {}
"""Width of vectors -> principal components of the set that is looked at."""

WORDS: dict[str, np.ndarray] = {}
"""Text -> its hashed words."""


class Fitted(Model):
    """A fitted successor."""

    def __init__(self, by: Successor, inner: object, classes: int) -> None:
        self.by, self.inner, self.classes = by, inner, classes

    def predict_proba(self, examples: Examples) -> np.ndarray:
        out = np.zeros((len(examples.texts), self.classes), np.float32)
        out[:, self.inner.classes_] = self.inner.predict_proba(self.by.read(examples))
        return out


def mismatch(data: Data, seed: int) -> dict[str, list[float]]:
    """Accuracy and macro-F1 of both successors and of the student the labels were chosen with."""
    if not seed:
        COMPONENTS[data.task.pool.shape[1]] = PCA(32, random_state=0).fit(data.task.pool).components_.T
    sets = {
        "random": bought(data, seed, Linear(), Uniform())[-1],
        "margin": bought(data, seed, Linear())[-1],
    }
    out: dict[str, list[float]] = {}
    for how, (rows, model) in sets.items():
        arms = {how: {}, f"{how}, plasm": {"pool": SMALL}}
        if how == "margin":
            arms["margin, all answers"] = {"pool": SMALL, "sure": 0.0, "quality": 1.0}
        for name, more in arms.items():
            out[name] = data.score(model)
            for kind in ("boosting", "words"):
                plain = Successor(kind=kind)
                student = Plasm(student=plain, **more) if more else plain
                out[name] += data.score(data.fit(student, rows, seed, SMALL))
    return out


def ups(data: Data, seed: int) -> dict[str, list[float]]:
    """Area of accuracy and of macro-F1, and the share of time, of badge with and without a subsample."""
    arms = {"badge": Badge(), "badge within ups": Badge(within="ups")}
    out = {}
    for name, by in arms.items():
        CHOOSING.pop(by.recipe(), None)
        models = {len(rows): model for rows, model in bought(data, seed, Linear(), by)}
        found = np.array([data.score(models[n]) for n in BUDGETS.tolist()])
        spent = CHOOSING[by.recipe()] / CHOOSING[Badge().recipe()]
        out[name] = [*curves.areas(found[None], BUDGETS)[0], spent]
    return out


PARTS = {
    "rounds": (rounds, ["acc area", "F1 area", "acc 30", "F1 30", "acc 130", "F1 130"]),
    "steps": (steps, ["acc", "F1"]),
    "sure": (sure, ["random", "biased"]),
    "ups": (ups, ["acc area", "F1 area", "time"]),
    "mismatch": (mismatch, ["acc", "F1", "boost acc", "boost F1", "words acc", "words F1"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--set", nargs="+", default=["trec", "mr", "babe"])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for name in options.set:
        data = load(name)
        for part in options.part:
            run, columns = PARTS[part]
            started = time.process_time()
            found = [run(data, seed) for seed in range(options.seeds)]
            spent = time.process_time() - started
            print(f"\n{part} {name}, {options.seeds} seeds, {spent:.0f} CPU s")
            print(f"{'':<22} " + " ".join(f"{c:>13}" for c in columns))
            base = np.array([next(iter(f.values())) for f in found])
            for i, arm in enumerate(found[0]):
                values = np.array([f[arm] for f in found])
                cells = [
                    curves.with_interval(values[:, j] - base[:, j])
                    if i
                    else f"{100 * values[:, j].mean():.2f}"
                    for j in range(values.shape[1])
                ]
                print(f"{arm:<22} " + " ".join(f"{c:>13}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
