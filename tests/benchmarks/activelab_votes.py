"""Votes that ActiveLab ("label again, or something new?") saves against new texts only, where people err.

    OMP_NUM_THREADS=1 python tests/benchmarks/activelab_votes.py --seeds 60 --pool 400 --arms new activelab
    OMP_NUM_THREADS=1 python tests/benchmarks/activelab_votes.py --seeds 20 --pool 4000 --arms new activelab

20 simulated workers, wrong on 10 to 50 % of the texts (30 % on average), give 50 votes a round on `mr`.
`new`: one vote each on the unlabelled texts of lowest ActiveLab score. `activelab`: the lowest scores of
labelled and unlabelled texts alike; where a text has been answered, another worker votes. Both choose with
the student that learns soft consensus (`llmal.stats.crowd.consensus` with the cross-fitted machine as a
voice). Scored beside it: the same student on the consensus' likeliest class, and on CROWDLAB's majority.
The student is a logistic regression (C = 1) on 64 principal components of MiniLM vectors.

Saved: 1 - votes of `activelab` / votes of `new`, for the best accuracy that `new` comes to, on the mean
curves; interval: 95 % by resampling the seeds.

Measured 2026-11-22: accuracy on the test split in points.

pool of 400, 60 seeds      100    200    300    400    500    600    700    800
new, majority             58.1   60.9   62.9   63.2      -      -      -      -
activelab, majority       57.6   61.5   62.8   63.3   64.3   65.7   66.2   66.9
new, soft                 58.3   61.3   63.1   63.8      -      -      -      -
activelab, soft           58.8   62.5   64.2   65.0   65.7   66.5   67.3   67.7

pool of 4,000, 20 seeds    100    200    300    400    500    600    700    800
new, soft                 59.2   62.3   63.8   65.0   65.9   66.3   67.1   67.6
activelab, soft           57.8   61.6   63.8   65.1   66.0   66.7   67.2   67.9

                          points over `new` at its last vote            votes saved
pool of 400               majority  consensus       soft      majority    consensus         soft
                       +0.11+-1.06 +0.97+-1.01 +1.15+-1.10   5 (-22..33)  32 (2..44)   31 (6..49)
pool of 4,000          -0.05+-1.13 +0.09+-1.22 +0.34+-1.17  -1 (-29..16)  2 (-28..25)  7 (-21..29)

Where texts are few beside the votes, "again or new" saves a third of them, and goes on when nothing new is
left. It does so only with the consensus as the label: a worker's skill shows in texts that several answered,
and CROWDLAB's majority makes nothing of it. Where texts are plenty it saves nothing that could be shown. Our
reading: of two classes with 30 % wrong, a linear student learns more from three new votes, each worth
(1 - 2 x 0.3)^2 = 0.16, than from a majority of three on one text, (1 - 2 x 0.216)^2 / 3 = 0.11 a vote.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
import warnings
from typing import NamedTuple

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from llmal.select.activelab import cross_fitted
from llmal.select.crowdlab import scores
from llmal.stats.crowd import consensus

WORKERS = 20
ERRORS = (0.1, 0.5)
"""Of the workers, drawn evenly: 30 % of the votes are wrong."""

BATCH, VOTES = 50, 800
DIMENSIONS = 64
"""Principal components of the MiniLM vectors that are kept, so that 20 seeds take minutes."""

ARMS = ("random", "new", "activelab")
STUDENTS = ("majority", "consensus", "soft")


class Corpus(NamedTuple):
    """Vectors and classes of the train and the test split."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load(name: str) -> Corpus:
    table = pq.read_table(curves.SHARED / name / "examples.parquet")
    vectors = curves.embedded(name, table["text"].to_pylist())
    _, y = np.unique(table["label"].to_pylist(), return_inverse=True)
    split = np.array(table["split"].to_pylist())
    train = split == "train"
    mean = vectors[train].mean(axis=0)
    axes = np.linalg.svd(vectors[train][:3000] - mean, full_matrices=False)[2][:DIMENSIONS]
    x = (vectors - mean) @ axes.T
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Corpus(x[train], y[train], x[split == "test"], y[split == "test"])


def fitted(x: np.ndarray, probs: np.ndarray) -> LogisticRegression:
    """The linear student, most regularised; soft targets are weighted rows of each class."""
    row, label = np.nonzero(probs > 0.01)
    return LogisticRegression(C=1.0, max_iter=100).fit(x[row], label, sample_weight=probs[row, label])


def said(model: LogisticRegression, x: np.ndarray, classes: int) -> np.ndarray:
    out = np.zeros((len(x), classes))
    if not len(x):
        return out
    out[:, model.classes_] = model.predict_proba(x)
    return out


def course(data: Corpus, arm: str, seed: int, pool: int) -> dict[int, dict[str, float]]:
    """Votes so far -> accuracy on the test split by student, of the consensus, and rows with a vote."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.y))[:pool]
    x, y, classes = data.x[rows], data.y[rows], int(data.y.max()) + 1
    right = 1 - rng.uniform(*ERRORS, WORKERS)
    wrong = (y[:, None] + rng.integers(1, classes, (len(y), WORKERS))) % classes
    say = np.where(rng.random(wrong.shape) < right, y[:, None], wrong)
    votes, out = np.full(say.shape, -1), {}

    def ask(which: np.ndarray) -> None:
        for row in which:
            who = rng.choice(np.flatnonzero(votes[row] < 0))
            votes[row, who] = say[row, who]

    ask(rng.permutation(len(y))[:BATCH])
    while True:
        there = (votes >= 0).any(axis=1)
        known, new, n = np.flatnonzero(there), np.flatnonzero(~there), int((votes >= 0).sum())
        mine = votes[known]
        mine = mine[:, (mine >= 0).any(axis=0)]
        model = cross_fitted(x[known], mine, classes, rng)
        item, person = np.nonzero(mine >= 0)
        triple = item, person, mine[item, person]
        sizes = {"items": len(known), "people": mine.shape[1], "classes": classes}
        soft = consensus(*triple, **sizes, model=model).probs
        students = {"soft": fitted(x[known], soft)}
        if n % 100 == 0:
            label = scores(mine, model, np.full((1, classes), 1 / classes)).label
            hard = consensus(*triple, **sizes).probs.argmax(axis=1)
            students["majority"] = fitted(x[known], np.eye(classes)[label])
            students["consensus"] = fitted(x[known], np.eye(classes)[hard])
            out[n] = {name: float(s.score(data.test_x, data.test_y)) for name, s in students.items()}
            out[n] |= {"labels": float((soft.argmax(axis=1) == y[known]).mean()), "rows": len(known)}
        if n >= VOTES:
            return out
        found = scores(mine, model, said(students["soft"], x[new], classes))
        if arm == "random":
            chosen = rng.permutation(new)[:BATCH]
        elif arm == "new":
            chosen = new[np.argsort(found.unlabelled, kind="stable")[:BATCH]]
        else:
            both = np.concatenate([found.unlabelled, found.labelled])
            both[len(new) :][(mine >= 0).all(axis=1)] = np.inf  # everybody has answered it
            chosen = np.concatenate([new, known])[np.argsort(both, kind="stable")[:BATCH]]
        if len(chosen) < BATCH:
            return out  # nothing new is left
        ask(chosen)


def mean_curve(
    runs: list[dict[int, dict[str, float]]], what: str, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    at = np.array(sorted(set.intersection(*(set(run) for run in runs))))
    return at, np.array([np.mean([runs[s][n][what] for s in seeds]) for n in at])


def votes_for(at: np.ndarray, curve: np.ndarray, target: float) -> float:
    """Votes at which a curve first reaches the target; the last ones where it never does."""
    best = np.maximum.accumulate(curve)
    if best[-1] < target:
        return float("nan")
    return float(np.interp(target, best, at))


def saving(
    runs: dict[str, list], base: str, student: str, resamples: int = 1000
) -> tuple[float, float, float]:
    """1 - votes of ActiveLab / votes of the base, at what the base reaches last; interval over seeds."""
    rng = np.random.default_rng(0)
    n = len(runs[base])

    def one(seeds: np.ndarray) -> float:
        at, theirs = mean_curve(runs[base], student, seeds)
        here, ours = mean_curve(runs["activelab"], student, seeds)
        found = votes_for(here, ours, float(theirs.max()))
        reached = votes_for(at, theirs, float(theirs.max()))
        # Where it is not reached, what the base needs for all that ActiveLab reaches is the other way round.
        return (
            1 - found / reached if found == found else votes_for(at, theirs, float(ours.max())) / here[-1] - 1
        )

    draws = [one(rng.integers(0, n, n)) for _ in range(resamples)]
    return one(np.arange(n)), *np.quantile(draws, [0.025, 0.975])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="mr")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--arms", nargs="+", default=ARMS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = load(args.set)
    runs = {arm: [course(data, arm, seed, args.pool) for seed in range(args.seeds)] for arm in args.arms}
    every = np.arange(args.seeds)
    for arm, some in runs.items():
        for what in (*STUDENTS, "labels", "rows"):
            at, curve = mean_curve(some, what, every)
            scale = 1 if what == "rows" else 100
            print(
                f"{arm:10}{what:10}"
                + "".join(f"{n}: {scale * c:.1f}  " for n, c in zip(at, curve, strict=True))
            )
    for base in (arm for arm in runs if arm != "activelab"):
        last = max(runs[base][0])
        for student in STUDENTS:
            apart = np.array(
                [
                    a[min(last, max(a))][student] - b[last][student]
                    for a, b in zip(runs["activelab"], runs[base], strict=True)
                ]
            )
            half = 2.09 * apart.std(ddof=1) / np.sqrt(len(apart))
            found, low, high = saving(runs, base, student)
            print(
                f"{student}: over {base} at {last} votes {100 * apart.mean():+.2f} +-{100 * half:.2f}; "
                f"saves {100 * found:.0f} % of the votes ({100 * low:.0f} to {100 * high:.0f})"
            )


if __name__ == "__main__":
    main()
