"""Where stopping rules stop, what that loses, and whether the forecast of the next labels holds.

    OMP_NUM_THREADS=1 python tests/benchmarks/stopping.py --set mr babe --seeds 10
    OMP_NUM_THREADS=1 python tests/benchmarks/stopping.py --set trec --seeds 3
    OMP_NUM_THREADS=1 python tests/benchmarks/stopping.py --set mr babe --seeds 10 --audit 100
    OMP_NUM_THREADS=1 python tests/benchmarks/stopping.py --simulate 400 --audit 100

llmal's linear student on frozen MiniLM vectors buys 50 labels a round up to 1,500 (`label_efficiency.py` has
the sets, vectors and selectors). An audit sample of 300 random items of the pool is never bought; the stop
set is 1,000 others at random. After each round the rules see what they would see in a run, `plateau` the
audit answers alone; the test split, which no rule sees, says what stopping there loses against the full run.
No rule stops before round 5.

Needs the shared data sets beside the project and the offline weights, as `label_efficiency.py`; runs are kept
in the temporary folder, `--fresh` computes them anew.

Measured 2026-11-21; trec 3 runs a strategy, mr and babe 10. For each rule: runs that stopped before the end,
mean labels at stop (1,500 where none), points of accuracy lost on average and at worst. `uncertainty 0.05`
never stopped.

uniform                                     trec                      mr                    babe
kappa 0.99                  0/3 1500  0.00  0.00   0/10 1500  0.00  0.00   0/10 1500  0.00  0.00
kappa 0.98                  0/3 1500  0.00  0.00   0/10 1500  0.00  0.00   0/10 1500  0.00  0.00
kappa 0.95                  3/3  767 +4.58 +6.77  10/10 1155 +0.39 +1.10   9/10 1015 -0.05 +1.69
no change                   0/3 1500  0.00  0.00   6/10 1345 +0.21 +0.85   4/10 1370 +0.15 +1.36
delta-F 0.05                3/3  717 +5.11 +5.98  10/10  695 +1.31 +2.80  10/10  730 +0.76 +2.54
plateau 0.5                 2/3 1367 +0.46 +1.39  10/10  710 +1.90 +4.20  10/10  735 +0.54 +3.73
plateau 0.2                 0/3 1500  0.00  0.00   6/10 1075 +0.98 +4.20   8/10 1050 +0.07 +1.53
kappa 0.99 + plateau 0.5    0/3 1500  0.00  0.00   0/10 1500  0.00  0.00   0/10 1500  0.00  0.00
kappa 0.95 + plateau 0.5    2/3 1367 +0.46 +1.39  10/10 1185 +0.28 +1.10   8/10 1090 -0.07 +1.69

margin                                      trec                      mr                    babe
kappa 0.99                  2/3 1400 +0.46 +1.39   0/10 1500  0.00  0.00   0/10 1500  0.00  0.00
kappa 0.98                  3/3 1083 +2.52 +3.39   2/10 1470 +0.08 +0.80   1/10 1500  0.00  0.00
kappa 0.95                  3/3  717 +4.12 +5.78  10/10 1070 +0.62 +1.90  10/10  725 +1.27 +4.41
no change                   0/3 1500  0.00  0.00   0/10 1500  0.00  0.00  10/10 1090 +0.59 +1.69
delta-F 0.05                3/3  717 +4.85 +7.17  10/10  710 +1.44 +2.70  10/10  545 +2.05 +3.90
plateau 0.5                 3/3 1217 +1.46 +3.59  10/10  715 +1.35 +4.25  10/10  730 +1.20 +2.54
plateau 0.2                 0/3 1500  0.00  0.00   8/10 1095 +0.29 +1.90   7/10 1215 +0.56 +3.39
kappa 0.99 + plateau 0.5    2/3 1400 +0.46 +1.39   0/10 1500  0.00  0.00   0/10 1500  0.00  0.00
kappa 0.95 + plateau 0.5    3/3 1217 +1.46 +3.59  10/10 1110 +0.54 +1.90  10/10  830 +1.10 +2.54

The published limit of 0.99 all but never comes within 1,500 labels; 0.95 alone stops trec 4 points early.
Together with the plateau 0.95 loses at most 1.5 points on average. The bound of what the next 50 labels buy
(level 0.9) was kept by the gain of the mean test curve, which has noise of its own, in 0.91, 0.88, 0.88 of
looks (uniform) and 0.85, 0.94, 0.94 (margin); by a single run's own next step, which the bound is not about,
in 0.71 to 0.81. Median bound in the first and second half of the rounds: trec 1.6 to 2.1 and 0.5 to 0.6
points, mr 1.0 and 0.3 to 0.4, babe 0.9 to 1.1 and 0.3.

`rounds.stop: auto` is the pair kappa 0.95 + plateau 0.5. With 100 audit answers, the first of the 300, as a
run reserves unless told otherwise:

uniform                                     trec                      mr                    babe
kappa 0.95 + plateau 0.5    2/3 1233 +1.46 +3.59   8/10 1345 +0.22 +0.65   8/10 1145 -0.25 +0.85
margin
kappa 0.95 + plateau 0.5    2/3 1217 +2.12 +5.78   8/10 1290 +0.39 +1.25   9/10 1045 +0.68 +1.36

It saves a tenth to a third of the labels and costs up to 2 points on average, 6 at worst, on the set whose
rare classes come late. So it is not what a run does unless asked: `rounds.stop` is `never`.

Scripted curves, audit of 100 and 300, `plateau 0.5` alone asked after every round from the fifth to the 29th,
400 runs each. Luck: points by which a student of 200 labels differs from another. Too early: share of runs
that stop while the next 50 labels would add more than 0.5 points in expectation; then the mean and largest
gain that was left among all that stopped.

                        audit of 100                               audit of 300
curve           luck   stopped  labels  too early  gain  worst    stopped  labels  too early  gain  worst
steep to 90      0.5      0.88    1083      0.043  0.23   1.04       0.98    1079      0.013  0.22   0.62
steep to 90      2.0      0.89    1037      0.072  0.27   1.28       0.99    1058      0.022  0.23   0.73
slow to 90       0.5      0.91     955      0.052  0.24   0.82       1.00     945      0.025  0.23   0.58
slow to 90       2.0      0.93     915      0.085  0.27   1.01       0.99     914      0.048  0.24   1.01
slow to 75       0.5      0.97     867      0.033  0.19   0.67       1.00     809      0.010  0.19   0.55
slow to 75       2.0      0.98     827      0.048  0.21   0.67       1.00     762      0.045  0.21   0.67
quickly flat     0.5      1.00     747      0.005  0.10   0.53       1.00     683      0.000  0.10   0.38
quickly flat     2.0      1.00     715      0.005  0.10   0.53       1.00     658      0.013  0.12   0.53
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from label_efficiency import Margin, Pool, Task, Uniform, fitted, folder, task  # beside this file

from llmal.stats.stopping import (
    LEAST_ROUNDS,
    Verdict,
    classification_change,
    combined,
    delta_f,
    forecast,
    kappa_average,
    overall_uncertainty,
    plateau,
    same_items,
)

STEP, AUDIT, STOP_SET = 50, 300, 1000
AFTER = {"uniform": Uniform(), "margin": Margin()}
"""What buys after the first round, which is uniform's."""

PROTOCOL = 1
"""Part of the name of kept runs; raise it when what is recorded changes."""


def run(data: Task, strategy: str, seed: int, most: int) -> dict[str, np.ndarray]:
    """Buy to the end; what each round predicted and how right it was."""
    rng = np.random.default_rng([seed, 7])
    n, n_classes, gold = len(data.gold), len(data.classes), data.gold.argmax(axis=1)
    order = rng.permutation(n)
    audit, stop_set = order[:AUDIT], order[AUDIT : AUDIT + STOP_SET]
    bought, probs = np.zeros(0, np.int64), None
    found: dict[str, list] = {k: [] for k in ("labels", "stop", "right", "test", "entropy", "changed")}
    for step in range(min(most, n - AUDIT) // STEP):
        left = np.setdiff1d(np.arange(n), np.concatenate([audit, bought]))
        selector = AFTER[strategy] if step else Uniform()
        pool = Pool(data.pool, left, bought, probs, n_classes, data.gold[bought], data.multi)
        new = selector.select(pool, STEP, np.random.default_rng([seed, step])).rows
        bought = np.concatenate([bought, new])
        predict = fitted("linear", data.pool[bought], data.gold[bought], data.multi, seed)
        before, probs = probs, predict(data.pool)
        said = probs.argmax(axis=1)
        unasked = np.setdiff1d(left, new)
        changed = classification_change(before[new].argmax(axis=1), said[new]).value if step else np.nan
        found["labels"].append(len(bought))
        found["stop"].append(said[stop_set])
        found["right"].append(said[audit] == gold[audit])
        found["test"].append((predict(data.test).argmax(axis=1) == data.test_gold.argmax(axis=1)).mean())
        found["entropy"].append(overall_uncertainty(np.clip(probs[unasked], 0, 1)).value)
        found["changed"].append(changed)
    return {k: np.array(v) for k, v in found.items()}


def kept(data: Task, strategy: str, seed: int, options) -> dict[str, np.ndarray]:
    """A run from the temporary folder, or computed and put there."""
    path = folder() / f"stopping{PROTOCOL}-{data.name}-{strategy}-{options.most}-{seed}.npz"
    if options.fresh or not path.exists():
        np.savez(path, **run(data, strategy, seed, options.most))
    with np.load(path) as file:
        return dict(file)


def bounds(found: dict[str, np.ndarray], upto: int, options):
    """The forecast after so many rounds, from the first of the audit answers."""
    values, covariance = same_items(found["right"][:upto, : options.audit])
    return forecast(found["labels"][:upto], values, covariance, step=STEP)


def verdicts(found: dict[str, np.ndarray], upto: int, n_classes: int, options) -> dict[str, Verdict]:
    """What every rule says after so many rounds."""
    still, seen = found["stop"][:upto], bounds(found, upto, options)
    kappa, flat = kappa_average(still, n_classes), plateau(seen)
    changed, entropy = found["changed"][upto - 1], found["entropy"][upto - 1]
    return {
        "kappa 0.99": kappa,
        "kappa 0.98": kappa_average(still, n_classes, limit=0.98),
        "kappa 0.95": kappa_average(still, n_classes, limit=0.95),
        "uncertainty 0.05": Verdict(entropy < 0.05, entropy, 0.05),
        "no change": Verdict(changed <= 0, changed, 0.0),
        "delta-F 0.05": delta_f(still, n_classes),
        "plateau 0.5": flat,
        "plateau 0.2": plateau(seen, limit=0.002),
        "kappa 0.99 + plateau 0.5": combined([kappa, flat], rounds=upto),
        "kappa 0.95 + plateau 0.5": combined(
            [kappa_average(still, n_classes, limit=0.95), flat], rounds=upto
        ),
    }


def report(data: Task, runs: list[dict[str, np.ndarray]], strategy: str, options) -> None:
    """Print where each rule stopped and how often the forecast held."""
    n_classes = len(data.classes)
    last = runs[0]["labels"][-1]
    end = np.array([r["test"][-1] for r in runs])
    print(f"\n{data.name}, {strategy}: {len(runs)} runs to {last} labels, accuracy {100 * end.mean():.1f}")
    print(f"{'rule':<26} {'stopped':>7} {'labels':>6} {'lost':>6} {'sd':>5} {'worst':>6}")
    rounds = range(LEAST_ROUNDS, len(runs[0]["labels"]) + 1)
    all_of = [{k: verdicts(r, k, n_classes, options) for k in rounds} for r in runs]
    for rule in all_of[0][LEAST_ROUNDS]:
        ends = [next((k for k in rounds if each[k][rule].stop), None) for each in all_of]
        at = np.array([k or len(r["labels"]) for k, r in zip(ends, runs, strict=True)])
        lost = 100 * np.array([r["test"][-1] - r["test"][k - 1] for k, r in zip(at, runs, strict=True)])
        labels = np.mean([r["labels"][k - 1] for k, r in zip(at, runs, strict=True)])
        stopped = f"{sum(k is not None for k in ends)}/{len(runs)}"
        print(f"{rule:<26} {stopped:>7} {labels:6.0f} {lost.mean():+6.2f}", end="")
        print(f" {lost.std(ddof=1) if len(lost) > 1 else 0:5.2f} {lost.max():+6.2f}")
    mean = np.mean([r["test"] for r in runs], axis=0)
    looks = list(rounds)[:-1]
    high = np.array([[bounds(r, k, options).high for k in looks] for r in runs])
    alone = np.array([[r["test"][k] - r["test"][k - 1] for k in looks] for r in runs])
    whole = np.array([mean[k] - mean[k - 1] for k in looks])
    print(f"next {STEP} labels: bound of level 0.9 holds for the mean of the runs in", end=" ")
    print(f"{(high >= whole).mean():.3f} of {high.size} looks, for the run itself in", end=" ")
    half = len(looks) // 2
    print(
        f"{(high >= alone).mean():.3f}; median bound {100 * np.median(high[:, :half]):.2f} points in the",
        end="",
    )
    print(f" first half, {100 * np.median(high[:, half:]):.2f} in the second", flush=True)


CURVES = {
    "steep to 90": (0.90, 3.0, 0.5),
    "slow to 90": (0.90, 0.9, 0.25),
    "slow to 75": (0.75, 0.6, 0.25),
    "quickly flat": (0.80, 8.0, 1.0),
}
"""Expected accuracy a - b n^-c after n labels: (a, b, c)."""


def simulate(n_audit: int, runs: int) -> None:
    """Print how often the plateau rule, asked after every round, stops while the next labels buy more."""
    from scipy.special import ndtri

    labels = np.arange(STEP, 1501, STEP)
    print("curve           luck  stopped  labels  too early   gain  worst")
    for title, (a, b, c) in CURVES.items():
        curve = a - b * labels**-c
        left = np.append(np.diff(curve), 0)
        for luck in (0.005, 0.02):
            at = []
            for seed in range(runs):
                rng = np.random.default_rng(seed)
                spread = luck * np.sqrt(200 / labels) * rng.normal(size=len(labels))
                limit = ndtri(np.clip(curve + spread, 0.01, 0.99))[:, None]
                hard = 0.8 * rng.normal(size=n_audit) + 0.6 * rng.normal(size=(len(labels), n_audit))
                right = hard < limit
                at.append(next((k for k in range(LEAST_ROUNDS, len(labels)) if plateau(forecast(
                    labels[:k], *same_items(right[:k]), step=STEP)).stop), None))  # fmt: skip
            ends = np.array([k for k in at if k is not None], int)
            gain = 100 * left[ends - 1]
            early = (gain > 0.5).sum() / runs
            print(f"{title:<14} {100 * luck:5.1f} {len(ends) / runs:8.2f}", end="")
            print(f" {labels[ends - 1].mean():7.0f} {early:10.3f}", end="")
            print(f" {gain.mean():6.2f} {gain.max():6.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", nargs="+", default=["trec", "mr", "babe"])
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--most", type=int, default=1500, help="labels of the full run")
    parser.add_argument("--audit", type=int, default=AUDIT, help=f"answers that rules see, at most {AUDIT}")
    parser.add_argument("--fresh", action="store_true", help="compute runs anew")
    parser.add_argument("--simulate", type=int, default=0, help="runs of scripted curves instead of sets")
    options = parser.parse_args()
    if options.simulate:
        return simulate(options.audit, options.simulate)
    for name in options.set:
        data = task(name)
        for strategy in AFTER:
            started = time.process_time()
            runs = [kept(data, strategy, s, options) for s in range(options.seeds)]
            print(
                f"{name} {strategy}: {time.process_time() - started:.0f} CPU s", file=sys.stderr, flush=True
            )
            report(data, runs, strategy, options)


if __name__ == "__main__":
    main()
