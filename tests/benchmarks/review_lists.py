"""Short lists as the review stage makes them: whether they hold what they promise, and what comes first.

    OMP_NUM_THREADS=1 python tests/benchmarks/review_lists.py trec clinc150 tweet_emoji
    OMP_NUM_THREADS=1 python tests/benchmarks/review_lists.py --picks trec clinc150

A logistic student on MiniLM vectors (extra `offline`) learns from some gold labels; a router leaves to people
what it is less sure of than a gate. `review.candidates.decide` with its defaults makes lists from the answers
about an audit sample of 200 items, once from those of them that would have waited, as the stage does, and
once from all, as the published method does. Measured on the other items that wait; `promised` is rank / (n +
1) at the share of misses that was chosen, `claimed` the saving that people are told, `inside` how often its
95 % interval holds the real one. Means of 20 audit samples for each of 5 students.

Order: after the same bits, 15 and 40 % of what answers to all that waits would cost, how many of the labels
that the student had wrong are right (`right`, %), and what a student taught with the answers gains in
accuracy on 1,500 other texts (`gain`, points). `least sure`: by the student's confidence, as the stage has
it; `worth`: by 1 - confidence over the expected cost, much as the published method has it, as paired
differences, +- one standard error over 5 students.

`--picks`: what the lists would hold of items that margin picked and the filter held back (three in ten of 400
picks), and of the other items that wait. Here an empty list lacks the label; above it is the full list.

candidate_sets.py beside this script measures the statistics alone.

Needs the shared data sets beside the project (`../shared/data`); vectors are kept in the temporary folder.

Measured 2026-11-21.

                        answers about  promised  held  claimed  saved  inside  pays  size  empty
trec, 50 classes
gate 0.5, 59 % wait     those that wait    .827  .832     .361   .354     .97  1.00   6.4   .000
                        all                .821  .776     .475   .360     .26  1.00   4.8   .000
gate 0.9, 95 % wait     those that wait    .809  .804     .460   .461     .96  1.00   3.3   .000
                        all                .809  .800     .477   .461     .96  1.00   3.2   .000
clinc150, 150 classes
gate 0.5, 74 % wait     those that wait    .835  .879     .597   .593     .98   .99   9.2   .031
                        all                .851  .875     .647   .592     .74  1.00  13.7   .077
gate 0.9, 100 % wait    those that wait    .859  .906     .652   .651     .96  1.00   9.6   .049
tweet_emoji, 20 classes
gate 0.5, 79 % wait     those that wait    .871  .877     .030   .026     .97   .25  13.9   .000
gate 0.9, 100 % wait    those that wait    .857  .852     .040   .033     .93   .38  12.8   .000

                      least sure               worth
gate  bits     answers  right   gain    answers  more right    more gain
trec
0.5   15 %         164   16.4   +3.7        187  -0.5 +- 0.4  +0.9 +- 0.3
0.5   40 %         476   43.3   +8.7        506  -0.7 +- 0.7  +0.3 +- 0.6
0.9   15 %         226   18.0   +4.8        238  -1.2 +- 0.2  +0.7 +- 0.2
0.9   40 %         654   46.9  +10.6        689  -0.5 +- 0.4  +0.2 +- 0.1
clinc150
0.5   15 %         127   19.1   +5.7        192  -2.3 +- 0.8  +0.7 +- 0.7
0.5   40 %         430   51.7  +10.1        586  -5.4 +- 2.3  +0.9 +- 0.2
0.9   15 %         120   17.8   +5.3        211  -1.2 +- 1.4  +1.9 +- 1.0
0.9   40 %         417   49.3  +10.0        793  -3.0 +- 2.2  +1.8 +- 0.7
tweet_emoji
0.9   15 %         296   16.1   +0.9        297  -0.1 +- 0.1  +0.7 +- 0.2
0.9   40 %         786   42.3   +2.4        792  +0.0 +- 0.2  +0.5 +- 0.2

                     promised  unpicked  picks held back
trec      gate 0.5       .811      .812             .762
          gate 0.9       .808      .824             .732
clinc150  gate 0.5       .880      .881             .735
          gate 0.9       .898      .905             .776

What it says. Lists made from the answers about items that wait hold what they promise and save what they
claim; from all answers they would not, where the router takes much off people: the student's errors gather
in what is left. On tweet_emoji lists save 3 %, and `auto` makes none in two of three runs. Picks held back
are harder than the sample: they get the full list. By worth people correct fewer labels for the same bits,
most of all on clinc150, and answer more items, which teach the student up to two points more: the stage
keeps the simple order.
"""

from __future__ import annotations

import argparse
import math
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import candidate_sets as lists
import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq

from llmal.records import Label, LabelSchema
from llmal.review.candidates import Decided, decide, sets_of
from llmal.review.options import ReviewSpec
from llmal.stats.candidates import cost, expected_cost
from llmal.stats.conformal import rank

LEARNT = {"trec": 500, "clinc150": 600, "tweet_emoji": 800}
GATES = (0.5, 0.9)
STUDENTS, SAMPLES, AUDIT, TEST, CORPUS = 5, 20, 200, 1500, 3000
SPENT = (0.15, 0.4)
TWEETS = 7000
"""Of tweet_emoji, so that embedding them takes a minute."""


class Line:
    """One student, and what it says of the items that it did not learn from."""

    def __init__(self, x: np.ndarray, gold: np.ndarray, learnt: int, seed: int) -> None:
        self.x, self.gold, self.rng = x, gold, np.random.default_rng(seed)
        self.n_classes = int(gold.max()) + 1
        names = [f"c{i}" for i in range(self.n_classes)]
        self.schema = LabelSchema("single", tuple(Label(name=n) for n in names), True)
        order = self.rng.permutation(len(gold))
        corpus, self.test = order[: min(CORPUS, len(gold) - TEST)], order[-TEST:]
        self.learnt, self.rest = corpus[:learnt], corpus[learnt:]
        self.base, probs = self.taught(self.learnt)
        self.probs = probs(x[self.rest]).astype(np.float64)
        self.truth = gold[self.rest]

    def taught(self, rows: np.ndarray):
        """Accuracy on the test texts of a student of these rows, and the student."""
        targets = np.eye(self.n_classes, dtype=np.float32)[self.gold[rows]]
        student = curves.fitted("logistic", self.x[rows], targets, False, 0)
        return float((student(self.x[self.test]).argmax(axis=1) == self.gold[self.test]).mean()), student

    def lists(self, gate: float, *, whole: bool) -> tuple[Decided, np.ndarray, list[tuple[str, ...]]]:
        """Lists made with a fresh audit sample, and the rows they are for."""
        audit = self.rng.permutation(len(self.rest))[:AUDIT]
        waits = self.probs.max(axis=1) < gate
        evidence = audit if whole else audit[waits[audit]]
        options = ReviewSpec(candidates="always")
        found = decide(options, self.probs[evidence], self.truth[evidence], self.schema, self.rng)
        waits[audit] = False
        rows = np.flatnonzero(waits)
        return found, rows, sets_of(found.choice, self.probs[rows], self.schema.names)

    def paid(self, rows: np.ndarray, made: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Of each item the bits its answer takes, and whether what is shown holds its label."""
        names = self.schema.names
        full = np.array([len(some) in (0, self.n_classes) for some in made])
        hit = np.array([names[g] in some for g, some in zip(self.truth[rows], made, strict=True)]) | full
        return cost([len(some) for some in made], hit, self.n_classes), hit


def promise(lines: list[Line], gate: float) -> None:
    """What the lists promise and claim, and what they hold and save."""
    for whole in (False, True):
        found = []
        for line in lines:
            for _ in range(SAMPLES):
                made, rows, some = line.lists(gate, whole=whole)
                bits, hit = line.paid(rows, some)
                fitted, claim = made.choice.thresholds, made.choice.saving
                saved = 1 - bits.mean() / math.log2(line.n_classes)
                promised = min(1.0, rank(fitted.n, fitted.alpha) / (fitted.n + 1))
                empty = np.mean([not one for one in some])
                size = np.mean([len(one) or line.n_classes for one in some])
                inside, pays = claim.low <= saved <= claim.high, claim.low > 0
                found.append((promised, hit.mean(), claim.value, saved, inside, pays, size, empty))
        words = "  ".join(f"{v:7.3f}" for v in np.mean(found, axis=0))
        print(f"{'all' if whole else 'that wait':10} {gate:4}  {words}", flush=True)


def picks(x: np.ndarray, gold: np.ndarray, learnt: int, gate: float, size: int = 200) -> None:
    """What lists hold of items that a strategy picked and the filter held back, and of the others that wait.

    Two rounds of `size` picks by margin; seven in ten teach.
    """
    found = []
    for seed in range(STUDENTS):
        line = Line(x, gold, learnt // 2, seed)
        taught, held, left = line.learnt, np.empty(0, int), np.arange(len(line.rest))
        left = line.rng.permutation(left)
        audit, left = left[:AUDIT], left[AUDIT:]
        for _ in range(2):
            top = np.sort(line.taught(taught)[1](x[line.rest[left]]), axis=1)
            near = np.argsort(top[:, -1] - top[:, -2])
            picked, left = left[near[:size]], left[near[size:]]
            kept = line.rng.random(size) < 0.7
            taught = np.concatenate([taught, line.rest[picked[kept]]])
            held = np.concatenate([held, picked[~kept]])
        line.probs = line.taught(taught)[1](x[line.rest]).astype(np.float64)
        waits = line.probs.max(axis=1) < gate
        for _ in range(SAMPLES):
            some = line.rng.permutation(audit[waits[audit]])[: AUDIT // 2]
            options = ReviewSpec(candidates="always")
            made = decide(options, line.probs[some], line.truth[some], line.schema, line.rng).choice
            fitted = made.thresholds
            row = [min(1.0, rank(fitted.n, fitted.alpha) / (fitted.n + 1))]
            for part in (left, held):
                rows = part[waits[part]]
                sets = sets_of(made, line.probs[rows], line.schema.names)
                row.append(np.mean([f"c{g}" in one for g, one in zip(line.truth[rows], sets, strict=True)]))
            found.append(row)
    promised, others, held_back = np.mean(found, axis=0)
    print(f"{gate:4}  {promised:.3f}  {others:.3f}  {held_back:.3f}", flush=True)


def order(lines: list[Line], gate: float) -> None:
    """What the same bits buy in both orders."""
    found: dict[tuple[float, str], list[tuple[float, ...]]] = {}
    for line in lines:
        made, rows, some = line.lists(gate, whole=False)
        bits, _ = line.paid(rows, some)
        sure, wrong = line.probs[rows].max(axis=1), line.probs[rows].argmax(axis=1) != line.truth[rows]
        miss, sizes = made.choice.thresholds.alpha, [len(one) for one in some]
        worth = (1 - sure) / expected_cost(sizes, miss, line.n_classes)
        for way, queue in {"least sure": np.argsort(sure), "worth": np.argsort(-worth)}.items():
            for share in SPENT:
                taken = queue[np.cumsum(bits[queue]) <= share * bits.sum()]
                accuracy, _ = line.taught(np.concatenate([line.learnt, line.rest[rows[taken]]]))
                row = (len(taken), 100 * wrong[taken].sum() / wrong.sum(), 100 * (accuracy - line.base))
                found.setdefault((share, way), []).append(row)
    for share in SPENT:
        first, second = (np.array(found[share, way]) for way in ("least sure", "worth"))
        gap = second - first
        error = gap.std(axis=0, ddof=1) / math.sqrt(len(gap))
        (a, b, c), (d, _, _) = first.mean(axis=0), second.mean(axis=0)
        _, more_right, more_learnt = gap.mean(axis=0)
        print(
            f"{gate:4} {share:4.0%}  {a:4.0f} {b:5.1f} {c:+5.1f}   {d:4.0f}  "
            f"{more_right:+.1f} +- {error[1]:.1f}  {more_learnt:+.1f} +- {error[2]:.1f}",
            flush=True,
        )


def texts(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and truth."""
    if name == "tweet_emoji":
        rows = pq.read_table(curves.SHARED / name / "examples.parquet").slice(0, TWEETS).to_pylist()
        x, truth = curves.embedded(f"{name}-{TWEETS}", [r["text"] for r in rows]), [r["label"] for r in rows]
    else:
        rows, x = lists.rows_of(name)
        truth = [r["truth"] for r in rows]
    classes = sorted(set(truth))
    return x, np.array([classes.index(c) for c in truth])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+", choices=sorted(LEARNT))
    parser.add_argument("--picks", action="store_true", help="only what lists hold of items that were picked")
    args = parser.parse_args()
    for name in args.sets:
        x, gold = texts(name)
        if args.picks:
            print(f"\n{name}\ngate promised unpicked picks held back")
            for gate in GATES:
                picks(x, gold, LEARNT[name], gate)
            continue
        lines = [Line(x, gold, LEARNT[name], seed) for seed in range(STUDENTS)]
        base = np.mean([line.base for line in lines])
        print(f"\n{name}: {gold.max() + 1} classes, student right {base:.3f}")
        print("answers    gate promised   held   claimed    saved   inside     pays     size    empty")
        for gate in GATES:
            waits = np.mean([(line.probs.max(axis=1) < gate).mean() for line in lines])
            print(f"           {gate:4}  {waits:.0%} waits")
            promise(lines, gate)
        print("gate bits  least sure: answers, right, gain   worth: answers, more right, more gain")
        for gate in GATES:
            order(lines, gate)


if __name__ == "__main__":
    main()
