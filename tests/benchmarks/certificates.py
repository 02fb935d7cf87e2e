"""How often a certificate is broken, and how much of the best coverage it keeps, on made worlds.

    python tests/benchmarks/certificates.py violations --seeds 1000
    python tests/benchmarks/certificates.py coverage --seeds 200
    python tests/benchmarks/certificates.py classes --seeds 300

Worlds: `flat`, accuracy 0.002 below the target at every confidence, so that whatever is certified is broken;
`informative`, confidence is the probability of being right; `rare`, a tenth of the items is of a class that
the machine gets right every second time, as confident as ever; `bent`, as informative, but the twentieth of
which the machine is surest is right only 7 times in 10. Confidence is the largest of 2 or 10 softmax
probabilities, and once more rounded to 20 levels. The true accuracy above a threshold is that of the 200,000
items of the world, from which every sample is drawn with replacement.

`violations`: share of seeds whose certified accuracy is below the target, the worst over tied and untied
confidence; `risk-control` promises an average, so its row is the mean error that it accepts, over the one
allowed. `naive` takes the lowest threshold whose accuracy in the sample reaches the target. `coverage`: mean
coverage over that of the best threshold of the world, 0 where nothing is certified, and the share of seeds
certified. `classes`: share of seeds in which any class that `certify_classes` certified is below the target.
Prints JSON, one line a figure; `--worlds`, `--on` and `--rows` pick some.

2026-11-21, target 0.95, delta 0.1, worst of 2 and 10 classes (betting: before sequences had later starts).
Broken over 1,000 seeds, at most 0.119 wanted:

    accepted                     n = 100    300  1,000  3,000
    flat         fixed-sequence    0.094  0.098  0.079  0.058
                 betting, 8 steps  0.015  0.014  0.021  0.035
                 sgr               0.004  0.014  0.004  0.008
                 learn-then-test   0.030  0.020  0.008  0.010
                 naive             0.981  0.993  0.995  0.998
    informative  fixed-sequence    0.038  0.052  0.063  0.057
                 betting, 8 steps  0.003  0.011  0.012  0.003
                 sgr               0.002  0.006  0.006  0.007
                 learn-then-test   0.000  0.003  0.002  0.001
                 naive             0.643  0.756  0.885  0.982
    rare         fixed-sequence    0.061  0.101  0.036  0.038
                 betting, 8 steps  0.000  0.010  0.015  0.022
                 sgr               0.000  0.005  0.003  0.011
                 learn-then-test   0.000  0.003  0.006  0.011
                 naive             0.970  0.975  0.983  0.991
                 per class         0.000  0.037  0.090  0.043  (300 seeds)
    bent         fixed-sequence    0.071  0.042  0.032  0.022
                 sgr               0.001  0.004  0.004  0.006
                 learn-then-test   0.000  0.005  0.004  0.005
    everything
    flat         fixed-sequence    0.035  0.070  0.070  0.088
    informative  fixed-sequence    0.041  0.053  0.056  0.062
    rare         fixed-sequence    0.037  0.057  0.063  0.057
    all three    sgr at most 0.012, learn-then-test at most 0.007; risk-control accepts 0.85 to 1.004 of the
                 mean error allowed (within two standard errors of 1)

    Coverage over the best one, informative, 200 seeds ("everything": 100), without ties / 20 levels:

    accepted, n = 1,000                 2 classes      10 classes
    fixed-sequence (64 steps)           0.917 / 0.933  0.902 / 0.880
    fixed-sequence, 16 steps            0.886 / 0.930  0.866 / 0.878
    fixed-sequence, every item          0.925 / 0.933  0.910 / 0.880
    sgr                                 0.863 / 0.845  0.827 / 0.779
    learn-then-test                     0.813 / 0.854  0.761 / 0.775
    learn-then-test, Hoeffding-Bentkus  0.784 / 0.811  0.725 / 0.720
    betting, 8 steps                    0.783 / 0.789  0.720 / 0.731
    fixed-sequence, n = 100             0.468 / 0.302  0.384 / 0.243
                    n = 300             0.767 / 0.823  0.715 / 0.668
                    n = 3,000           0.949 / 0.975  0.938 / 0.933
    everything, n = 1,000
    fixed-sequence                      0.945 / 0.964  0.940 / 0.974
    sgr                                 0.920 / 0.922  0.913 / 0.932
    learn-then-test                     0.872 / 0.919  0.865 / 0.910
    risk-control, on average alone      1.001 / 1.014  1.000 / 1.030
"""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.stats.certificate import Certificate, On
from llmal.stats.certify import Certifier, certify_classes, fixed_sequence, learn_then_test, risk_control, sgr

TARGET = 0.95
DELTA = 0.1
POPULATION = 200_000
WORLDS = ("flat", "informative", "rare", "bent")
QUESTIONS: tuple[On, ...] = ("accepted", "everything")
SIZES = (100, 300, 1000, 3000)
SHARPNESS = {2: 3.0, 10: 6.0}  # spread of the logits: 0.88 and 0.82 of the answers are right

ROWS: dict[str, Certifier] = {
    "fixed-sequence": fixed_sequence,
    "fixed-sequence, 16 steps": partial(fixed_sequence, steps=16),
    "fixed-sequence, every item": partial(fixed_sequence, steps=1_000_000),
    "betting, 8 steps": partial(fixed_sequence, test="betting", steps=8),
    "sgr": sgr,
    "learn-then-test": learn_then_test,
    "learn-then-test, Hoeffding-Bentkus": partial(learn_then_test, test="hoeffding-bentkus"),
    "risk-control": risk_control,
}


class World(NamedTuple):
    """A population, most confident first: confidence, chance of being right, its running sum, the answer."""

    scores: NDArray[np.float64]
    sure: NDArray[np.float64]
    total: NDArray[np.float64]
    answers: NDArray[np.int64]

    def accuracy(self, threshold: float) -> tuple[float, float]:
        """Coverage and accuracy at a threshold."""
        count = len(self.scores) - int(np.searchsorted(self.scores[::-1], threshold))
        return count / len(self.scores), float(self.total[count - 1]) / count if count else 1.0

    def best(self, target: float, on: On) -> float:
        """Coverage of the lowest threshold that keeps the target."""
        counts = np.append(np.flatnonzero(np.diff(self.scores)) + 1, len(self.scores))  # ties go together
        wrong = counts - self.total[counts - 1]
        kept = counts[wrong <= (1 - target) * (counts if on == "accepted" else len(self.scores))]
        return float(kept[-1]) / len(self.scores) if len(kept) else 0.0


def world(name: str, classes: int, tied: bool, target: float = TARGET) -> World:
    """One of the worlds of the module's docstring."""
    rng = np.random.default_rng(1)
    logits = np.exp(SHARPNESS[classes] * rng.normal(size=(POPULATION, classes)))
    scores = logits.max(axis=1) / logits.sum(axis=1)
    answers = logits.argmax(axis=1)
    sure = np.full(POPULATION, target - 0.002) if name == "flat" else scores.copy()
    if name == "rare":
        sure[rng.random(POPULATION) < 0.1] = 0.5
    if name == "bent":
        sure[scores > np.quantile(scores, 0.95)] = 0.7
    if tied:
        scores = np.round(scores * 20) / 20
    order = np.argsort(-scores, kind="stable")
    return World(scores[order], sure[order], np.cumsum(sure[order]), answers[order])


def naive(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Lowest threshold whose accuracy in the sample reaches the target."""
    order = np.argsort(-scores, kind="stable")
    good = np.flatnonzero(np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= TARGET)
    return float(scores[order][good[-1]]) if len(good) else None


def _outcome(place: World, threshold: float | None, on: On) -> tuple[float, bool, float]:
    """Coverage, whether the promise is broken, and the share accepted and wrong."""
    if threshold is None:
        return 0.0, False, 0.0
    coverage, accuracy = place.accuracy(threshold)
    wrong = coverage * (1 - accuracy)
    held = accuracy if on == "accepted" else 1 - wrong
    return coverage, held < TARGET - 1e-12, wrong


def trials(place: World, rows: list[str], on: On, n: int, seeds: int) -> NDArray[np.float64]:
    """(rows, seeds, 4): coverage, broken, accepted and wrong, certified; one sample serves all rows."""
    found = np.zeros((len(rows), seeds, 4))
    for seed in range(seeds):
        rng = np.random.default_rng([7, seed])
        items = rng.integers(0, POPULATION, n)
        scores, right = place.scores[items], rng.random(n) < place.sure[items]
        for i, row in enumerate(rows):
            if row == "naive":
                threshold = naive(scores, right)
            else:
                threshold = ROWS[row](scores, right, target=TARGET, delta=DELTA, on=on).threshold
            found[i, seed] = *_outcome(place, threshold, on), threshold is not None
    return found


def by_class(classes: int, tied: bool, n: int, seeds: int) -> float:
    """Share of seeds in which the accuracy of any certified class is below the target, in the rare world."""
    place = world("rare", classes, tied)
    masks = [place.answers == c for c in range(classes)]
    parts = [World(place.scores[m], place.sure[m], np.cumsum(place.sure[m]), place.answers[m]) for m in masks]
    broken = 0
    for seed in range(seeds):
        rng = np.random.default_rng([8, seed])
        rows = rng.integers(0, POPULATION, n)
        right = rng.random(n) < place.sure[rows]
        ones: list[Certificate | None] = certify_classes(
            place.scores[rows], right, place.answers[rows], classes, target=TARGET, delta=DELTA
        )
        broken += any(
            _outcome(part, one.threshold, "accepted")[1]
            for part, one in zip(parts, ones, strict=True)
            if one is not None
        )
    return broken / seeds


def violations(seeds: int, names: list[str], questions: list[On], rows: list[str]) -> None:
    """Print one line for each question, world, number of classes and row."""
    limit = DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / seeds)
    for name, on, classes in product(names, questions, SHARPNESS):
        places = [world(name, classes, tied) for tied in (False, True)]
        some = _answering(rows, on)
        found = [[trials(place, some, on, n, seeds) for place in places] for n in SIZES]
        for i, row in enumerate(some):
            column, unit = (2, 1 - TARGET) if row == "risk-control" else (1, 1.0)
            rates = [[both[i, :, column] / unit for both in sizes] for sizes in found]
            worst = [max(float(r.mean()) for r in sizes) for sizes in rates]
            noise = max(float(r.std()) for sizes in rates for r in sizes) / math.sqrt(seeds)
            held = max(worst) <= (1 + 2 * noise if row == "risk-control" else limit)
            _tell(on=on, world=name, classes=classes, row=row, worst=worst, holds=held)


def per_class(seeds: int) -> None:
    """Print one line for each number of classes: `certify_classes` in the rare world."""
    for classes in SHARPNESS:
        worst = [max(by_class(classes, tied, n, seeds) for tied in (False, True)) for n in SIZES]
        _tell(on="per class", world="rare", classes=classes, row="fixed-sequence", worst=worst)


def coverage(seeds: int, names: list[str], questions: list[On], rows: list[str]) -> None:
    """Print coverage over the best one, and the share certified, for each size."""
    for name, on, classes, tied in product(names, questions, SHARPNESS, (False, True)):
        place = world(name, classes, tied)
        best = place.best(TARGET, on)
        some = [row for row in _answering(rows, on) if row != "naive"]
        found = [trials(place, some, on, n, seeds) for n in SIZES]
        for i, row in enumerate(some):
            kept = [float(f[i, :, 0].mean()) / best for f in found] if best else None
            sure = [float(f[i, :, 3].mean()) for f in found]
            _tell(
                on=on, world=name, classes=classes, tied=tied, best=best, row=row, kept=kept, certified=sure
            )


def _answering(rows: list[str], on: On) -> list[str]:
    return [row for row in rows if row != ("risk-control" if on == "accepted" else "naive")]


def _tell(**figures: object) -> None:
    short = {k: [round(x, 3) for x in v] if isinstance(v, list) else v for k, v in figures.items()}
    print(json.dumps(short), flush=True)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["violations", "coverage", "classes"])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument(
        "--worlds", nargs="*", choices=WORLDS, help="of violations all, of coverage informative"
    )
    parser.add_argument("--on", nargs="*", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--rows", nargs="*", choices=[*ROWS, "naive"], default=[*ROWS, "naive"])
    told = parser.parse_args()
    if told.part == "violations":
        violations(told.seeds, told.worlds or list(WORLDS), told.on, told.rows)
    elif told.part == "classes":
        per_class(told.seeds)
    else:
        coverage(told.seeds, told.worlds or ["informative"], told.on, told.rows)


if __name__ == "__main__":
    main()
