"""In which order people are asked: what the same minutes of a person correct, and what they teach.

    OMP_NUM_THREADS=1 python tests/benchmarks/review_order.py babe hate18 trec

llmal's linear student learns MiniLM vectors (extra `offline`) of 300 random texts; people answer those
others of which it is less sure than 0.8, in one order or another, until their minutes are over. `doubt`:
least sure first. `value`: `llmal.review.order` with the literature's pace. `fitted`: with the pace that
`reading_time.fit` finds in 100 times of this person. Who answers: in `noise` a person of the literature's
pace, each text's time off by a factor (log-normal, sd of the logarithm 0.5); in `slow start` one who needs 6
s for any text and 0.1 s a word, 0.5 s a bit, with the same noise.

Of `doubt` the answers (`n`), errors corrected (`fixed`), macro-F1 of all labels, people's and the student's
(`now`), and the same once a student taught with the answers has labelled the rest (`next`). Then what the
others have more of these, and of that student's accuracy in points on 1,000 other texts (`taught`): paired
differences, means of 10 students, +- one standard error.

Needs the shared data sets beside the project (`../shared/data`); vectors are kept in the temporary folder.

Measured 2026-11-22.

                    doubt                         more
who        min    n fixed   now  next  order          fixed         now        next      taught
babe, 472 errors among 1,721 texts
noise        5   25  13.1  72.7  73.3  value    +7.8 +- 1.3 +0.5 +- 0.1 +1.5 +- 0.4 +1.2 +- 0.4
            15   74  35.1  74.0  75.4  value   +19.1 +- 0.8 +1.2 +- 0.1 +1.0 +- 0.4 +0.2 +- 0.4
            30  148  70.4  76.1  77.3  value   +22.0 +- 2.2 +1.3 +- 0.1 +1.5 +- 0.4 +1.0 +- 0.5
            60  300 143.1  80.5  81.9  value   +19.6 +- 2.6 +1.2 +- 0.2 +1.5 +- 0.2 +0.6 +- 0.3
slow start   5   26  13.4  72.7  73.5  value    +1.4 +- 1.3 +0.1 +- 0.1 +0.2 +- 0.2 +0.2 +- 0.2
                                  fitted   +1.1 +- 0.8 +0.1 +- 0.1 +0.2 +- 0.2 +0.3 +- 0.3
            15   78  36.9  74.1  75.4  value    +6.1 +- 1.3 +0.4 +- 0.1 +0.2 +- 0.4 +0.5 +- 0.4
                                  fitted   +5.4 +- 1.1 +0.3 +- 0.1 -0.0 +- 0.4 +0.5 +- 0.2
            30  156  73.6  76.3  77.8  value    +6.0 +- 2.6 +0.4 +- 0.2 +0.2 +- 0.4 +0.3 +- 0.4
                                  fitted   +6.4 +- 1.3 +0.4 +- 0.1 +0.5 +- 0.3 +0.3 +- 0.4
            60  317 151.4  81.0  82.3  value    -4.5 +- 3.5 -0.3 +- 0.2 -0.1 +- 0.2 +0.4 +- 0.2
                                  fitted   +0.5 +- 2.4 +0.0 +- 0.2 +0.4 +- 0.2 +0.2 +- 0.2
hate18, 1,014 errors among 9,403 texts
noise        5   36  16.1  59.3  56.2  value    +9.7 +- 1.9 +0.3 +- 0.1 -2.0 +- 2.4 -0.0 +- 0.2
            15  103  48.2  60.7  61.6  value   +15.2 +- 2.9 +0.7 +- 0.2 -4.0 +- 0.8 -0.1 +- 0.1
            30  207  96.4  62.7  64.1  value   +18.8 +- 3.7 +1.0 +- 0.2 -0.5 +- 1.1 +0.2 +- 0.1
            60  411 183.2  66.9  68.5  value   +20.8 +- 3.7 +1.2 +- 0.2 +0.6 +- 0.2 -0.1 +- 0.1
slow start   5   29  13.1  59.2  57.7  value    +1.4 +- 1.1 -0.0 +- 0.1 -3.3 +- 1.4 -0.2 +- 0.1
                                  fitted   +2.1 +- 1.2 +0.0 +- 0.1 -1.2 +- 0.6 -0.3 +- 0.2
            15   84  39.4  60.3  60.5  value    -1.8 +- 1.9 -0.1 +- 0.1 -4.3 +- 2.0 -0.0 +- 0.2
                                  fitted   +2.8 +- 1.4 +0.0 +- 0.1 -2.6 +- 1.9 -0.0 +- 0.2
            30  167  79.1  62.0  62.6  value    -8.0 +- 3.1 -0.3 +- 0.2 -5.8 +- 1.3 -0.4 +- 0.2
                                  fitted   -1.2 +- 1.9 -0.2 +- 0.1 -1.3 +- 0.9 -0.1 +- 0.2
            60  334 152.0  65.4  67.1  value   -15.1 +- 3.8 -0.6 +- 0.2 -3.1 +- 0.8 -0.4 +- 0.1
                                  fitted   -2.3 +- 1.5 -0.2 +- 0.1 -1.0 +- 0.4 -0.1 +- 0.1
trec, 6 classes, 1,146 errors among 4,152 texts
noise        5   59  40.6  66.1  68.4  value    +7.2 +- 1.8 +1.4 +- 0.2 +3.8 +- 0.6 +0.9 +- 0.4
            15  181 118.9  68.7  73.5  value    +8.4 +- 2.8 +2.1 +- 0.3 +4.1 +- 0.8 +0.9 +- 0.3
            30  362 222.7  72.1  78.1  value   +15.6 +- 4.9 +2.5 +- 0.4 +2.8 +- 0.6 +0.4 +- 0.3
            60  730 402.2  77.8  84.5  value   +24.5 +- 3.9 +2.4 +- 0.4 +1.3 +- 0.3 +0.3 +- 0.2
slow start   5   31  22.8  65.6  66.9  value    -1.5 +- 1.4 +0.8 +- 0.2 +2.4 +- 0.5 +0.7 +- 0.4
                                  fitted   -0.7 +- 1.1 +0.3 +- 0.1 +0.9 +- 0.4 +0.5 +- 0.3
            15   97  65.0  66.8  69.9  value    -3.6 +- 1.4 +1.3 +- 0.2 +3.5 +- 0.6 +0.8 +- 0.4
                                  fitted   +0.7 +- 1.0 +0.8 +- 0.2 +1.7 +- 0.4 +0.8 +- 0.4
            30  193 125.5  68.9  73.9  value    -9.9 +- 2.7 +1.4 +- 0.3 +3.2 +- 0.7 +0.6 +- 0.3
                                  fitted   -4.9 +- 3.1 +0.8 +- 0.1 +1.7 +- 0.7 +0.5 +- 0.4
            60  386 235.4  72.5  78.5  value   -12.9 +- 4.2 +1.6 +- 0.4 +1.9 +- 0.7 -0.1 +- 0.3
                                  fitted   -4.1 +- 2.0 +0.7 +- 0.3 +1.3 +- 0.5 +0.3 +- 0.3

On average the student's confidence is 0.015 too high on babe, 0.025 on hate18 and 0.039 too low on trec. For
a person of just the literature's pace (`model`) `value` fixes 8.9 to 19.4 errors more on babe, 10.4 to 21.8
on hate18 and 6.1 to 24.9 on trec. Strictly by value, without turns for the least sure, 0.5 fewer to 4.0 more
than by `value` are fixed in `noise`.

What it says. By value the same minutes correct 60, 54, 31 and 14 % more errors on babe (after 5, 15, 30 and
60 minutes), 60, 32, 20 and 11 % on hate18, 18, 7, 7 and 6 % on trec, and the labels are better at once.
After the next round they are better, too, on babe and trec. On hate18, where one text in nine is hate, they
are up to 4 points worse in the first quarter of an hour and better after an hour: who labels a rare class
for few minutes at a time, to teach a student, takes `order: doubt`. Where time hardly grows with length, the
literature's pace corrects up to 10 % fewer errors than `doubt` (hate18, trec); fitted to the person's own
times the order corrects from 4 % fewer (trec, half an hour) to 15 % more (babe, a quarter), while its
macro-F1 is level or better, but for the next round on hate18. The page times everybody, and the pace is
fitted from 30 times on: the default is `value`.
"""

from __future__ import annotations

import argparse
import math
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import f1_score

from llmal.records import Route
from llmal.review import order as review
from llmal.stats.reading_time import LETTERS, Pace, fit

LEARNT, TEST, SEEDS = 300, 1000, 10
MINUTES = (5, 15, 30, 60)
GATE = 0.8
TIMED = 100
"""Answers that the fitted pace rests on."""

PEOPLE = {
    "model": (Pace(), 0.0),
    "noise": (Pace(), 0.5),
    "slow start": (Pace(start=6.0, word=0.1, bit=0.5), 0.5),
}
"""Who answers: the typical time of a text, and the spread (sd of its logarithm) around it."""

WAYS = ("value", "no turns", "fitted")


class Line:
    """One student, what it says of the texts it did not learn from, and how long each of these is."""

    def __init__(self, name: str, seed: int, student: str) -> None:
        rows = pq.read_table(curves.SHARED / name / "examples.parquet").to_pylist()
        texts = [r["text"] for r in rows]
        self.x = curves.embedded(name, texts)
        classes = sorted({r["label"] for r in rows})
        self.gold = np.array([classes.index(r["label"]) for r in rows])
        self.n_classes, self.student, self.seed = len(classes), student, seed
        self.rng = np.random.default_rng(seed)
        mixed = self.rng.permutation(len(rows))
        self.learnt, self.test, self.rest = mixed[:LEARNT], mixed[-TEST:], mixed[LEARNT:-TEST]
        self.words = np.array([len(texts[i]) for i in self.rest]) / LETTERS
        self.base, probs = self.taught(self.learnt)
        said = probs(self.x[self.rest])
        self.sure, self.guess, self.truth = said.max(axis=1), said.argmax(axis=1), self.gold[self.rest]

    def taught(self, rows: np.ndarray):
        """Accuracy and macro-F1 on the test texts of a student of these rows, and the student."""
        targets = np.eye(self.n_classes, dtype=np.float32)[self.gold[rows]]
        said = curves.fitted(self.student, self.x[rows], targets, False, 0)
        guess, truth = said(self.x[self.test]).argmax(axis=1), self.gold[self.test]
        return np.array([(guess == truth).mean(), f1_score(truth, guess, average="macro")]), said

    def times(self, pace: Pace, spread: float) -> np.ndarray:
        """Seconds that each text takes this person."""
        off = np.random.default_rng([self.seed, 1]).normal(size=len(self.words))
        return pace.seconds(self.words, self.n_classes) * np.exp(spread * off)

    def queues(self, took: np.ndarray) -> dict[str, np.ndarray]:
        """Places among `rest` of what waits, in each order."""
        waits = np.flatnonzero(self.sure < GATE)
        least = waits[np.argsort(self.sure[waits], kind="stable")]
        routes = [Route(int(i), "person", (), float(self.sure[i]), "") for i in least]
        timed = np.random.default_rng([self.seed, 2]).permutation(len(self.rest))[:TIMED]
        fitted = fit(took[timed], self.words[timed], self.n_classes)
        out = {"doubt": least}
        for way, pace in {"value": Pace(), "fitted": fitted}.items():
            seconds = pace.seconds(self.words[least], self.n_classes)
            out[way] = np.array([r.item for r in review.interleaved(routes, seconds)])
        seconds = Pace().seconds(self.words[least], self.n_classes)
        out["no turns"] = least[np.argsort(-(1 - self.sure[least]) / seconds, kind="stable")]
        return out

    def bought(self, took: np.ndarray, queue: np.ndarray, minutes: float) -> list[float]:
        """Answers, errors corrected, macro-F1 of the labels now and after a round (%), the student's gain."""
        taken = queue[np.cumsum(took[queue]) <= 60 * minutes]
        final = self.guess.copy()
        final[taken] = self.truth[taken]
        fixed = (self.guess[taken] != self.truth[taken]).sum()
        after, said = self.taught(np.concatenate([self.learnt, self.rest[taken]]))
        again = said(self.x[self.rest]).argmax(axis=1)
        again[taken] = self.truth[taken]
        labels = [100 * f1_score(self.truth, one, average="macro") for one in (final, again)]
        return [len(taken), float(fixed), *labels, *(100 * (after - self.base))]


def shown(lines: list[Line], who: str) -> None:
    """What each order buys, and paired differences from `doubt`."""
    pace, spread = PEOPLE[who]
    found: dict[tuple[str, int], list[list[float]]] = {}
    for line in lines:
        took = line.times(pace, spread)
        for way, queue in line.queues(took).items():
            for minutes in MINUTES:
                found.setdefault((way, minutes), []).append(line.bought(took, queue, minutes))
    for minutes in MINUTES:
        base = np.array(found["doubt", minutes])
        print(f"{who:10} {minutes:3}  doubt    " + " ".join(f"{v:7.1f}" for v in base.mean(axis=0)))
        for way in WAYS:
            gap = np.array(found[way, minutes]) - base
            error = gap.std(axis=0, ddof=1) / math.sqrt(len(gap))
            words = " ".join(f"{m:+7.1f} +- {e:.1f}" for m, e in zip(gap.mean(axis=0), error, strict=True))
            print(f"                {way:8} {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+", choices=("babe", "hate18", "trec"))
    parser.add_argument("--student", default="linear", choices=("linear", "logistic"))
    args = parser.parse_args()
    for name in args.sets:
        lines = [Line(name, seed, args.student) for seed in range(SEEDS)]
        right = np.mean([line.base for line in lines], axis=0)
        off = np.mean([line.sure.mean() - (line.guess == line.truth).mean() for line in lines])
        errors = np.mean([(line.guess != line.truth).sum() for line in lines])
        print(f"\n{name}: accuracy {right[0]:.3f}, macro-F1 {right[1]:.3f}, {len(lines[0].rest)} texts")
        print(f"{errors:.0f} errors, confidence too high by {off:+.3f}")
        print("who        min  order  answers  fixed  F1 now  F1 next round  taught acc  taught F1")
        for who in PEOPLE:
            shown(lines, who)


if __name__ == "__main__":
    main()
