"""How often the promise of three tiers is broken, and what it costs beside an oracle, on made worlds.

    python tests/benchmarks/tiers.py violations --seeds 400
    python tests/benchmarks/tiers.py costs --seeds 100

Worlds: a student right on 0.82 and a model right on 0.89 of 100,000 items of 10 classes, their confidences
correlated (0.5 of a Gaussian copula). `flat`: both are right with 0.002 less than the target whatever their
confidence; `informative`: confidence is the probability of being right; `rare`: a tenth of the items is of a
class that both get right every second time, as confident as ever. Each once more with confidences rounded to
20 levels. For the costs also `boastful`: informative, but the model's confidence is its tenth root;
`strong` and `weak`: informative, a student right on 0.91 and on 0.66.

`broken` is the share of seeds whose chosen thresholds miss the target in the world; `free` is the same rule
without its price: every point of every path tested at the full delta, the cheapest that passes taken.
`cost` is the mean true cost over the least of a 60 x 60 grid of thresholds that keep the target in the world.
Prices: a person 1, the model 0.01 or 0.2. Prints JSON, one line a figure.

2026-11-21, target 0.95, delta 0.1. Broken over 400 seeds, the worse of tied and untied, at most 0.13 wanted:

    n                               100    300  1,000     without its price
    accepted    flat              0.035  0.037  0.055     0.268  0.443  0.398
                informative       0.018  0.020  0.010     0.105  0.120  0.085
                rare              0.028  0.022  0.013     0.158  0.203  0.220
    everything  flat              0.028  0.043  0.035     0.090  0.185  0.170
                informative       0.040  0.025  0.010     0.083  0.098  0.072
                rare              0.037  0.028  0.010     0.072  0.090  0.052

    True cost over the oracle's, 40 seeds, 32 points a path; "alone" is what people alone cost:

    n                         alone    100    300  1,000
    accepted    informative     8.7    5.9    1.9    1.4  (model 0.01; certified in 0.45 of seeds at n = 100)
                                4.8    3.5    1.6    1.3  (model 0.2)
                boastful        8.7    7.2    2.1    1.5  (0.01; 0.23 of seeds at n = 100)
                                4.8    4.1    1.7    1.3  (0.2)
                strong         21.9    9.3    2.6    1.9  (0.01; 0.70 of seeds at n = 100)
                               13.4    6.2    2.1    1.6  (0.2)
                weak            9.1    6.7    2.1    1.5  (0.01; 0.35 of seeds at n = 100)
                                3.5    2.8    1.4    1.2  (0.2)
    everything  informative    10.0    2.7    1.8    1.4  (0.01)
                                5.4    2.1    1.6    1.3  (0.2)
                boastful       10.0    2.8    1.9    1.5  (0.01)
                strong         24.9    4.1    2.8    2.1  (0.01)
                weak           10.6    2.8    2.0    1.6  (0.01)

    Certified with student and people alone (fixed sequence at the full delta), model 0.01:

    accepted    informative             7.2    4.7    3.8
                strong                  7.1    3.6    3.0
                weak                    9.1    9.0    8.5
    everything  informative             5.0    3.9    3.4
                strong                  5.3    3.6    2.9

    With 16 points a path costs at n = 1,000 are up to 5 % higher, with 64 up to 3 % lower.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.stats import tiers
from llmal.stats.certificate import On
from llmal.stats.certify import fixed_sequence
from llmal.stats.tiers import NEVER, Audit, Prices, paths, pvalues, three_tiers

TARGET = 0.95
DELTA = 0.1
POPULATION = 100_000
SIZES = (100, 300, 1000)
QUESTIONS: tuple[On, ...] = ("accepted", "everything")
GRID = 60
SHARPNESS = {"strong": (12.0, 8.0), "weak": (3.0, 12.0)}  # spread of the logits of student and model
WORLDS = ("flat", "informative", "rare")


class World(NamedTuple):
    """A population: confidences of student and model, and their chances of being right."""

    student: NDArray[np.float64]
    llm: NDArray[np.float64]
    student_sure: NDArray[np.float64]
    llm_sure: NDArray[np.float64]

    def truth(self, student: float, llm: float, price: float) -> tuple[float, float, float]:
        """(cost, machine's share, share that a machine answers wrong) of a pair of thresholds."""
        first = self.student >= student
        then = ~first & (self.llm >= llm)
        n = len(first)
        machine = float(first.sum() + then.sum()) / n
        right = float(self.student_sure[first].sum() + self.llm_sure[then].sum()) / n
        asked = 0.0 if llm >= NEVER else 1 - float(first.mean())
        return price * asked + 1 - machine, machine, machine - right


def world(name: str, tied: bool) -> World:
    """One of the worlds of the module's docstring."""
    rng = np.random.default_rng(1)
    ranks = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], POPULATION).argsort(axis=0).argsort(axis=0)
    columns = []
    for place, sharp in enumerate(SHARPNESS.get(name, (6.0, 10.0))):
        logits = np.exp(sharp * rng.normal(size=(POPULATION, 10)))
        columns.append(np.sort(logits.max(axis=1) / logits.sum(axis=1))[ranks[:, place]])
    sure = [column.copy() for column in columns]
    if name == "flat":
        sure = [np.full(POPULATION, TARGET - 0.002)] * 2
    if name == "rare":
        some = rng.random(POPULATION) < 0.1
        sure = [np.where(some, 0.5, column) for column in sure]
    if name == "boastful":
        columns[1] = columns[1] ** 0.1
    if tied:
        columns = [np.round(column * 20) / 20 for column in columns]
    return World(*columns, *sure)


def kept(machine: float, wrong: float, on: On) -> bool:
    """Whether the target is kept."""
    return wrong <= (1 - TARGET) * (machine if on == "accepted" else 1) + 1e-12


def oracle(place: World, price: float, on: On) -> float:
    """Least cost of a pair of thresholds that keeps the target."""
    marks = np.linspace(0, 1, GRID)
    pairs = product(np.quantile(place.student, marks), np.append(np.quantile(place.llm, marks), NEVER))
    found = (place.truth(float(s), float(m), price) for s, m in pairs)
    alone = (place.truth(NEVER, float(m), price) for m in np.quantile(place.llm, marks))
    return min([1.0, *(cost for cost, machine, wrong in (*found, *alone) if kept(machine, wrong, on))])


def sample(place: World, n: int, seed: int) -> tuple[Audit, NDArray[np.float64]]:
    """An audit sample, and the model's confidences in 300 other items."""
    rng = np.random.default_rng([7, seed])
    rows = rng.integers(0, POPULATION, n)
    right = [rng.random(n) < sure[rows] for sure in place[2:]]
    audit = Audit(place.student[rows], right[0], place.llm[rows], right[1], np.ones(n, bool))
    return audit, place.llm[rng.integers(0, POPULATION, 300)]


def free(
    audit: Audit, told: NDArray[np.float64], corpus: NDArray[np.float64], price: float, on: On
) -> tuple[float, float]:
    """The cheapest point of any path that passes at the full delta: the broken rule."""
    found = [(math.inf, NEVER, NEVER)]
    for path in paths(np.sort(corpus), told, Prices(price, 1.0), target=TARGET, on=on):
        good = pvalues(path, audit, TARGET, on) <= DELTA
        for s, m in zip(path.student[good], path.llm[good], strict=True):
            by = audit.student >= s
            machine = by | (audit.llm >= m)
            found.append((price * (m < NEVER) * float((~by).mean()) + float((~machine).mean()), s, m))
    return min(found)[1:]


def trials(place: World, n: int, seeds: int, on: On, price: float, rule: str) -> NDArray[np.float64]:
    """(seeds, 3): true cost, broken, certified."""
    corpus = np.sort(place.student)[:: POPULATION // 2000]
    out = np.zeros((seeds, 3))
    for seed in range(seeds):
        audit, told = sample(place, n, seed)
        if rule == "free":
            student, llm = free(audit, told, corpus, price, on)
        elif rule == "two tiers":
            found = fixed_sequence(audit.student, audit.student_right, target=TARGET, delta=DELTA, on=on)
            student, llm = NEVER if found.threshold is None else found.threshold, NEVER
        else:
            made = three_tiers(
                audit, Prices(price, 1.0), target=TARGET, delta=DELTA, on=on, corpus=corpus, told=told
            )
            student, llm = made.student, made.llm
        cost, machine, wrong = place.truth(student, llm, price)
        out[seed] = cost, not kept(machine, wrong, on), min(student, llm) < NEVER
    return out


def violations(seeds: int, price: float) -> None:
    """Print the share of broken promises, the worst of tied and untied confidences."""
    limit = DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / seeds)
    for on, name, rule in product(QUESTIONS, WORLDS, ("three_tiers", "free")):
        places = [world(name, tied) for tied in (False, True)]
        worst = [
            max(float(trials(place, n, seeds, on, price, rule)[:, 1].mean()) for place in places)
            for n in SIZES
        ]
        tell(on=on, world=name, rule=rule, broken=worst, holds=max(worst) <= limit)


def costs(seeds: int) -> None:
    """Print the true cost over the oracle's."""
    for on, name, price in product(QUESTIONS, ("informative", "boastful", "strong", "weak"), (0.01, 0.2)):
        place = world(name, False)
        least = oracle(place, price, on)
        for steps in (16, 32, 64):
            tiers.STEPS = steps
            found = [trials(place, n, seeds, on, price, "three_tiers") for n in SIZES]
            ratio = [float(f[:, 0].mean()) / least for f in found]
            sure = [float(f[:, 2].mean()) for f in found]
            tell(on=on, world=name, price=price, steps=steps, oracle=least, cost=ratio, certified=sure)
        tiers.STEPS = 32
        alone = [float(trials(place, n, seeds, on, price, "two tiers")[:, 0].mean()) / least for n in SIZES]
        tell(on=on, world=name, price=price, rule="two tiers", cost=alone)


def tell(**figures: object) -> None:
    """One line of JSON."""
    short = {
        k: [round(x, 3) for x in v] if isinstance(v, list) else round(v, 4) if isinstance(v, float) else v
        for k, v in figures.items()
    }
    print(json.dumps(short), flush=True)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["violations", "costs"])
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--price", type=float, default=0.01, help="of the model, for violations")
    told = parser.parse_args()
    if told.part == "violations":
        violations(told.seeds, told.price)
    else:
        costs(told.seeds)


if __name__ == "__main__":
    main()
