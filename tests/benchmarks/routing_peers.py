"""Routing beside tracer-llm and bargain: the same recorded answers, and worlds made to break a promise.

    python -m venv PEERS && PEERS/bin/pip install tracer-llm bargain
    python tests/benchmarks/routing_peers.py real --fits 50 --peers PEERS/bin/python
    python tests/benchmarks/routing_peers.py recall --trials 100 --peers PEERS/bin/python
    python tests/benchmarks/routing_peers.py gate --sizes 500 1000 --peers PEERS/bin/python
    python tests/benchmarks/routing_peers.py gate --sizes 3000 --fits 50 --peers PEERS/bin/python
    python tests/benchmarks/routing_peers.py promises --trials 50 --peers PEERS/bin/python

A library that the interpreter lacks is left out, and that is said. What each promises, at delta 0.1:
tracer-llm 0.3.3 (`fit`, `load_router`): where its surrogate answers, it agrees with the language model at
least as often as the target; calibrated on a fifth of the model's answers, the rest of them train it.
bargain 0.1.3: `BARGAIN_A`, of all that is handed out the target share is what its oracle would have said;
`BARGAIN_P`, precision; `BARGAIN_R`, recall, with the warning that beta above 0 changes the guarantee. Its
oracle is a language model in its documents; people can stand in for it. Neither speaks of people's answers
unless people are the oracle.
llmal (`route: certified`): people are right about what the machine answers (`accepted`), or of all items
(`everything`), proven on a random audit sample of their answers; the model may stand in as judge.

`real`: mr, babe, gwsd, hate18 as `recorded.py` reads them. Each trial draws 1,000 (babe, gwsd: 800) answers
of the model; the cheap machine is a logistic regression on MiniLM vectors that learned them, tracer-llm
fits its own (left with its two logistic regressions, `--zoo`); all other items are the corpus to route.
Routers are named by who judges and what about. n: answers of the judge in the audit sample; bargain decides
itself how many it samples (n~), and llmal is given as many, and 500. With the model as judge, llmal's
student learns from four fifths of the answers and the last fifth goes to the audit, so that both pay the
same. Who judges also answers what the machine does not. Columns: mach, share of the corpus the machine
answers; =llm, =ppl, how often that is the model's and people's answer; olm, oppl, the same of all that is
handed out; brk, share of trials that break the promise as it is worded; ppl, with people as the judge
instead; deep, by more than 2 points; calls of the model and answers of people in a trial.

`recall`: 10,000 items, target 0.9 at 400 answers; positives that look like negatives are hidden. llmal has no
recall router: a threshold on "negative" certified for everything among the positives of the audit sample
promises recall, since each of them left out is an error. `gate`: a model that agrees with the best possible
surrogate 0.002 less often than the target of 0.9 at every point, so that every router passed is below it.
`promises`: worlds of `certificates.py`, 10,000 items, target 0.95.

2026-11-21, 200 trials (tracer-llm: the first 50), minutes a set.

mr, target 0.9                      mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .004 .847 .835  .999 .937  .020 .020 .020   8,250      0
llmal, llm, accepted, n=200         .060 .912 .899  .995 .933  .060 .145 .000   7,654      0
bargain, llm, everything            .404 .877 .863  .947 .897  .060 .440 .020   5,337      0
bargain, people, everything, n~51   .379 .882 .869  .907 .948  .040 .040 .010   1,000  4,522
llmal, people, everything, n=51     .331 .895 .882  .912 .957  .025 .025 .000   1,000  4,886
llmal, people, everything, n=500    .504 .856 .843  .888 .921  .045 .045 .000   1,000  3,862
llmal, people, accepted, n=500      .037 .944 .934  .936 .997  .020 .020 .000   1,000  7,026

mr, target 0.95                     mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .000    -    -  1.00 .937  .000 .000 .000   8,278      0
llmal, llm, accepted, n=200         .008 .923 .908  .999 .937  .040 .040 .025   8,020      0
bargain, llm, everything            .258 .909 .896  .975 .919  .035 1.00 .010   6,404      0
bargain, people, everything, n~52   .231 .915 .902  .925 .976  .035 .035 .010   1,000  5,597
llmal, people, everything, n=52     .197 .921 .909  .925 .978  .145 .145 .040   1,000  5,854
llmal, people, everything, n=500    .314 .899 .885  .917 .964  .065 .065 .000   1,000  5,150
llmal, people, accepted, n=500      .003 .943 .932  .937 1.00  .020 .020 .005   1,000  7,258

babe, target 0.9                    mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .000    -    -  1.00 .851  .000 .000 .000   3,019      0
llmal, llm, accepted, n=160         .032 .916 .910  .997 .850  .015 .025 .005   2,793      0
bargain, llm, everything            .428 .879 .877  .945 .841  .075 1.00 .030   2,069      0
bargain, people, everything, n~51   .415 .882 .880  .843 .948  .080 .080 .015     800  1,298
llmal, people, everything, n=51     .352 .902 .901  .846 .961  .040 .040 .010     800  1,455
llmal, people, everything, n=500    .543 .858 .855  .836 .921  .025 .025 .005     800  1,284
llmal, people, accepted, n=500      .090 .946 .951  .850 .995  .005 .005 .000     800  2,064

babe, target 0.95                   mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .000    -    -  1.00 .851  .000 .000 .000   3,019      0
llmal, llm, accepted, n=160         .001 .927 .923  1.00 .850  .005 .005 .005   2,857      0
bargain, llm, everything            .262 .916 .916  .976 .849  .065 1.00 .010   2,437      0
bargain, people, everything, n~52   .265 .916 .916  .849 .976  .035 .035 .010     800  1,630
llmal, people, everything, n=52     .208 .933 .936  .850 .983  .040 .040 .020     800  1,768
llmal, people, everything, n=500    .357 .901 .900  .848 .964  .050 .050 .000     800  1,604
llmal, people, accepted, n=500      .007 .945 .954  .850 1.00  .020 .020 .000     800  2,207

gwsd, target 0.9                    mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .000    -    -  1.00 .800  .000 .000 .000   2,049      0
llmal, llm, accepted, n=160         .000    -    -  1.00 .800  .000 .000 .000   1,889      0
bargain, llm, everything            .267 .803 .783  .946 .783  .080 1.00 .025   1,716      0
bargain, people, everything, n~51   .238 .810 .792  .791 .949  .040 .040 .010     800    951
llmal, people, everything, n=51     .207 .826 .814  .793 .959  .030 .030 .015     800  1,001
llmal, people, everything, n=500    .342 .795 .773  .786 .923  .015 .015 .000     800    993
llmal, people, accepted, n=500      .002 .894 .904  .800 1.00  .010 .010 .005     800  1,248

gwsd, target 0.95                   mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .000    -    -  1.00 .800  .000 .000 .000   2,049      0
llmal, llm, accepted, n=160         .000    -    -  1.00 .800  .000 .000 .000   1,889      0
bargain, llm, everything            .132 .835 .826  .977 .794  .055 1.00 .005   1,884      0
bargain, people, everything, n~51   .123 .837 .829  .796 .978  .020 .020 .015     800  1,095
llmal, people, everything, n=51     .106 .845 .847  .797 .982  .045 .045 .020     800  1,122
llmal, people, everything, n=500    .192 .829 .817  .794 .965  .020 .020 .000     800  1,105
llmal, people, accepted, n=500      .000    -    -  .800 1.00  .000 .000 .000     800  1,249

hate18, target 0.9                  mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .285 .934 .922  .980 .834  .040 .120 .000   7,940      0
llmal, llm, accepted, n=200         .434 .949 .945  .973 .838  .045 .090 .015   6,377      0
bargain, llm, everything            .622 .931 .921  .954 .840  .070 1.00 .045   4,668      0
bargain, people, everything, n~53   .597 .937 .928  .847 .954  .025 .025 .015   1,000  3,908
llmal, people, everything, n=53     .590 .938 .929  .846 .954  .055 .055 .030   1,000  4,006
llmal, people, everything, n=500    .748 .908 .895  .851 .921  .050 .050 .005   1,000  2,820
llmal, people, accepted, n=500      .602 .937 .927  .847 .954  .060 .060 .005   1,000  4,167

hate18, target 0.95                 mach =llm =ppl  olm  oppl  brk  ppl  deep  calls people
tracer-llm, llm, accepted           .036 .948 .945  .998 .833  .040 .040 .020  10,352      0
llmal, llm, accepted, n=200         .143 .972 .972  .996 .835  .030 .040 .005   9,145      0
bargain, llm, everything            .429 .962 .958  .982 .839  .025 1.00 .010   6,539      0
bargain, people, everything, n~55   .423 .963 .959  .841 .981  .020 .020 .005   1,000  5,601
llmal, people, everything, n=55     .378 .966 .963  .840 .982  .055 .055 .025   1,000  6,060
llmal, people, everything, n=500    .565 .945 .937  .846 .964  .050 .050 .000   1,000  4,503
llmal, people, accepted, n=500      .223 .976 .976  .836 .994  .045 .045 .005   1,000  7,649

recall, 100 trials    2 % positive        15 % hidden         10 % positive       15 % hidden
                      missed recall returned (share of trials, mean, mean share of items)
bargain, beta 0       .000 1.00 1.00      .000 1.00 1.00      .060 .967 .352      .000 .971 .820
bargain, beta 0.01    .050 .977 .662      .430 .924 .639      .020 .988 .732      .060 .987 .921
bargain, beta 0.05    .280 .935 .576      .500 .865 .533      .030 .953 .482      .430 .911 .591
llmal                 .000 1.00 .961      .000 1.00 .961      .030 .972 .494      .080 .967 .777

gate: share of trials in which a router below the target is passed (all 200 trials; 3,000: 50)
                      500 answers  1,000  3,000 of the model
tracer-llm            .120         .170   .200
llmal                 .105         .075   .040
where agreement follows confidence, 3,000 (50 trials): broken .040 and .140, coverage .665 and .702

promises, 50 trials        flat        informative  rare       (broken, coverage)
everything, bargain, n~57  .000 .387   .040 .588    .060 .383
everything, llmal, same n  .060 .354   .080 .599    .160 .330
everything, llmal, n=500   .060 .711   .020 .744    .080 .534
accepted, bargain, n=400   .000 .044   .040 .614    .000 .046
accepted, llmal, n=400     .020 .042   .060 .595    .100 .034

What it says. bargain keeps its word everywhere but for recall with beta above 0, where the target is missed
in up to half of the trials (it warns of that, without a figure). tracer-llm breaks its own on the recorded
sets in at most 4 % of trials, mostly because it hands nothing to its surrogate: with 160 to 200 answers to
calibrate it passes hardly anywhere but on hate18. Where agreement is a hair below the target it passes a
router in 12 to 20 % of trials, where its alpha is 10 %, and not less often with more answers: it tries three
methods and many thresholds, each at the full alpha, and checks the winner on few answers.
A promise about the model is none about people. With the model as bargain's oracle, what is handed out misses
the target against people in every trial of babe, gwsd and hate18, where the model itself is right in 80 to
85 %, and in 44 % (0.9) and all (0.95) of mr, where it is in 94 %. That is no fault of bargain's, which never
said so, and it costs no answer of people. llmal with the model as judge breaks more often against people
too (mr .145, against .060 by its own judge).
With people as its oracle, bargain is the better router for 50 answers: it samples where the threshold may
lie, and the machine answers up to a quarter more than under llmal's certificate from a random audit of that
size (level on hate18 at 0.9). It stops there, and llmal's audit may grow: at n = 500 the machine answers 1.2
to 1.6 times as much as under bargain; people answer 8 to 28 % less in all on mr and hate18, as much on babe,
and up to 4 % more on gwsd, where the audit is 40 % of the corpus. The audit also measures, as a sample that
follows the threshold does not. What is accepted alone is the stricter question, and there n = 500 leaves
this student little of mr, babe and gwsd. On recall both hold, and neither is ahead of the other throughout.
One row of llmal's is above delta and two standard errors (0.142): mr at 0.95, everything, n = 52, 0.145.
Seven other draws of its audits gave 0.04 to 0.09; all eight together 0.071 (1,600 trials).

"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy; small problems are slower on many

import numpy as np
from certificates import world
from recorded import NONE, SETS, Recorded, learnt, recorded

from llmal.stats.certify import certified

DELTA = 0.1
TARGETS = (0.9, 0.95)
TRIALS = 200
TRACES = {"mr": 1000, "babe": 800, "gwsd": 800, "hate18": 1000}
"""Answers of the language model that the student learns from."""

HELD = 0.2
"""Share of its traces that tracer-llm keeps to calibrate; llmal gets as many answers for its audit sample."""

AUDIT = 500
HEAVY = ("dt", "rf", "et", "gbt", "xgb")
"""Trees, which tracer-llm's own command line leaves out."""

ZOO = {"linear": (*HEAVY, "mlp_1h", "mlp_2h", "sgd_log"), "default": HEAVY}
"""What tracer-llm is told to skip: `linear` leaves it two logistic regressions, as our student is one."""

CORPUS = 10_000
BUDGET = 400
WORLDS = (("flat", False), ("informative", False), ("rare", False))
"""Of `certificates.py`, and whether confidence is rounded to 20 levels."""


class Peers:
    """The interpreter that has the other libraries, and which of them it has."""

    def __init__(self, python: str) -> None:
        self.python = python
        self.script = str(Path(__file__).with_name("peer_routers.py"))
        found = subprocess.run([python, self.script], capture_output=True, text=True, check=True).stdout
        self.have: dict[str, str | None] = json.loads(found)

    def has(self, name: str) -> bool:
        if not self.have[name]:
            print(f"{name} is not installed for {self.python}; its rows are left out.", file=sys.stderr)
        return bool(self.have[name])

    def run(self, spec: dict[str, Any], **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """What the peer answers; the arrays go and come in files."""
        with tempfile.TemporaryDirectory() as place:
            job, out = Path(place) / "job.npz", Path(place) / "out.npz"
            np.savez(job, spec=np.array(json.dumps(spec)), **arrays)
            subprocess.run([self.python, self.script, str(job), str(out)], check=True)
            with np.load(out, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}


class Trial(NamedTuple):
    """One split of a set: rows of the traces, rows of the corpus, the student's answers and confidence."""

    traces: np.ndarray
    corpus: np.ndarray
    said: np.ndarray
    scores: np.ndarray


def trials(items: Recorded, share: float, count: int) -> list[Trial]:
    """Splits with a student that learned from `share` of the traces; the split depends on the seed alone."""
    asked = np.flatnonzero(items.teacher != NONE)
    out = []
    for seed in range(count):
        order = np.random.default_rng([11, seed]).permutation(asked)
        traces, corpus = order[: TRACES[items.name]], order[TRACES[items.name] :]
        own = traces[: round(share * len(traces))]
        probs = learnt(items.vectors[own], items.teacher[own], items.vectors[corpus], len(items.classes))
        out.append(Trial(traces, corpus, probs.argmax(axis=1), probs.max(axis=1)))
    return out


class Row(NamedTuple):
    """Means over trials of one router.

    Attributes:
        machine: share of the corpus that the cheap model answers.
        llm, people: its accuracy there against the language model and against people.
        out_llm, out_people: the same of all that is handed out, whoever answered.
        own: share of trials in which the promise, as it is worded, is broken.
        against_people: share of trials in which it is broken when people are the judge.
        deep: share in which, by its own judge, more than 2 points are missing.
        calls, answers: of the language model and of people, per trial.
    """

    machine: float
    llm: float
    people: float
    out_llm: float
    out_people: float
    own: float
    against_people: float
    deep: float
    calls: float
    answers: float


def row(
    items: Recorded, many: list[Trial], kept: list[np.ndarray], said: list[np.ndarray], **how: Any
) -> Row:
    """Measure one router: `kept` and `said` are what the cheap model answers of each trial's corpus.

    `judge`: "llm" or "people", whom the promise is about; `on`: "accepted" or "everything"; `others`: who
    answers the rest; `calls`, `answers`: (trials,) what was spent besides the rest.
    """
    found = []
    for one, keep, label, calls, answers in zip(many, kept, said, how["calls"], how["answers"], strict=True):
        truth = {"llm": items.teacher[one.corpus], "people": items.gold[one.corpus]}
        out = np.where(keep, label, truth[how["others"]])
        mine = {k: float((label == v)[keep].mean()) if keep.any() else np.nan for k, v in truth.items()}
        every = {k: float((out == v).mean()) for k, v in truth.items()}
        measured = mine if how["on"] == "accepted" else every
        short = {k: max(0.0, np.nan_to_num(how["target"] - v)) for k, v in measured.items()}
        rest = int((~keep).sum())
        found.append(
            (
                keep.mean(),
                mine["llm"],
                mine["people"],
                every["llm"],
                every["people"],
                short[how["judge"]] > 1e-12,
                short["people"] > 1e-12,
                short[how["judge"]] > 0.02,
                calls + (rest if how["others"] == "llm" else 0),
                answers + (rest if how["others"] == "people" else 0),
            )
        )
    return Row(
        *np.array([np.nanmean(c) if np.isfinite(c).any() else np.nan for c in np.array(found, float).T])
    )


def ours(items: Recorded, many: list[Trial], judge: str, on: Any, target: float, sizes: Any) -> Row:
    """llmal: a threshold certified on an audit sample of the corpus, `sizes` answers of the judge."""
    kept, spent = [], []
    for seed, (one, n) in enumerate(zip(many, sizes, strict=True)):
        audit = np.random.default_rng([12, seed]).choice(len(one.corpus), int(n), replace=False)
        truth = (items.teacher if judge == "llm" else items.gold)[one.corpus]
        right = one.said == truth
        found = certified(one.scores[audit], right[audit], target=target, delta=DELTA, on=on)
        keep = one.scores >= (np.inf if found.threshold is None else found.threshold)
        kept.append(keep)
        spent.append(int(keep[audit].sum()))  # the others of the audit sample are among the rest already
    zero, traces = np.zeros(len(many)), len(many[0].traces)
    learned = (1 - HELD) * traces if judge == "llm" else traces
    calls = learned + (np.array(spent) if judge == "llm" else zero)
    answers = np.array(spent) if judge == "people" else zero
    said = [one.said for one in many]
    how = {"judge": judge, "on": on, "others": judge, "target": target, "calls": calls, "answers": answers}
    return row(items, many, kept, said, **how)


def bargain(
    peers: Peers, items: Recorded, many: list[Trial], targets: list[float]
) -> dict[tuple[float, str], tuple[Row, np.ndarray]]:
    """`bargain` for accuracy: (target, its oracle) -> its row, and how many answers each trial sampled."""
    judges = {"llm": items.teacher, "people": items.gold}
    got = peers.run(
        {"kind": "accuracy", "targets": targets, "delta": DELTA},
        said=np.array([one.said for one in many]),
        scores=np.array([one.scores for one in many]),
        truth=np.array([[truth[one.corpus] for one in many] for truth in judges.values()]),
    )
    said, zero = [one.said for one in many], np.zeros(len(many))
    calls = zero + len(many[0].traces)
    out = {}
    for (i, target), (j, judge) in product(enumerate(targets), enumerate(judges)):
        how = {"judge": judge, "on": "everything", "others": judge, "target": target}
        kept = list(~got["used"][i, j])
        out[target, judge] = (
            row(items, many, kept, said, calls=calls, answers=zero, **how),
            got["sampled"][i, j],
        )
    return out


def tracer(
    peers: Peers, items: Recorded, many: list[Trial], targets: list[float], zoo: str
) -> dict[float, Row]:
    """`tracer-llm` fitted to the traces; it promises agreement with the language model where it answers."""
    got = peers.run(
        {"kind": "tracer", "targets": targets, "skip": ZOO[zoo]},
        vectors=items.vectors,
        new=items.vectors,
        rows=np.array([one.traces for one in many]),
        out=np.array([one.corpus for one in many]),
        teacher=np.array([items.teacher[one.traces] for one in many]),
    )
    zero = np.zeros(len(many))
    out = {}
    for target, kept, said in zip(targets, got["handled"], got["said"], strict=True):
        how = {"judge": "llm", "on": "accepted", "others": "llm", "target": target}
        calls = zero + len(many[0].traces)
        out[target] = row(items, many, list(kept), list(said), calls=calls, answers=zero, **how)
    return out


def say(name: str, r: Row) -> None:
    figures = " ".join(f"{v:7.3f}" for v in r[:8])
    print(f"{name:38} {figures} {r.calls:7.0f} {r.answers:7.0f}", flush=True)


def real(peers: Peers, names: list[str], targets: list[float], count: int, fits: int, zoo: str) -> None:
    """The recorded sets, every router on the same splits; tracer-llm on the first `fits` of them."""
    heads = ["machine", "=llm", "=people", "out=llm", "out=ppl", "broken", "by-ppl", "deep"]
    heads += ["calls", "people"]
    for name in names:
        items = recorded(name)
        whole, part = trials(items, 1.0, count), trials(items, 1 - HELD, count)
        few = round(HELD * TRACES[name])
        second = bargain(peers, items, whole, targets) if peers.has("bargain") else {}
        first = tracer(peers, items, whole[:fits], targets, zoo) if peers.has("tracer-llm") else {}
        for target in targets:
            print(f"\n{name}, target {target}".ljust(39), " ".join(f"{h:>7}" for h in heads))
            if first:
                say("tracer-llm, llm, accepted", first[target])
            say(f"llmal, llm, accepted, n={few}", ours(items, part, "llm", "accepted", target, [few] * count))
            sampled = np.full(count, 64)
            if second:
                say("bargain, llm, everything", second[target, "llm"][0])
                found, sampled = second[target, "people"]
                say(f"bargain, people, everything, n~{sampled.mean():.0f}", found)
            for on, n in (("everything", sampled), ("everything", AUDIT), ("accepted", AUDIT)):
                sizes = np.maximum(np.broadcast_to(n, count), 1)
                title = f"llmal, people, {on}, n={sizes.mean():.0f}"
                say(title, ours(items, whole, "people", on, target, sizes))


def corpora(name: str, tied: bool, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, CORPUS) confidence and whether the answer is right, drawn from a world of `certificates.py`."""
    place = world(name, 2, tied, TARGETS[-1])
    scores, right = np.zeros((count, CORPUS)), np.zeros((count, CORPUS), bool)
    for seed in range(count):
        rng = np.random.default_rng([13, seed])
        rows = rng.integers(0, len(place.scores), CORPUS)
        scores[seed], right[seed] = place.scores[rows], rng.random(CORPUS) < place.sure[rows]
    return scores, right


def positives(share: float, hidden: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, CORPUS) scores and what is positive; of the positives `hidden` look like negatives."""
    scores, truth = np.zeros((count, CORPUS)), np.zeros((count, CORPUS), bool)
    for seed in range(count):
        rng = np.random.default_rng([14, seed])
        truth[seed] = rng.random(CORPUS) < share
        seen = truth[seed] & (rng.random(CORPUS) >= hidden)
        scores[seed] = 1 / (1 + np.exp(-rng.normal(np.where(seen, 1.5, -2.5), 1.5)))
    return scores, truth


def recall(peers: Peers, count: int) -> None:
    """A recall target: BARGAIN_R against a certificate among the positives of a random sample.

    Returning too little is a machine that says "negative" and is wrong about every positive, so recall is the
    accuracy among all positives, and `certified` with `on: everything` promises it.
    """
    target = TARGETS[0]
    print("\nrecall >= 0.9, budget 400".ljust(39), " missed  recall returned")
    for share, hidden in product((0.02, 0.1), (0.0, 0.15)):
        scores, truth = positives(share, hidden, count)
        print(f"{share:.0%} positive, {hidden:.0%} hidden")
        for beta in (0, 0.01, 0.05) if peers.has("bargain") else ():
            spec = {"kind": "chosen", "class": "BARGAIN_R", "target": target, "delta": DELTA}
            found = peers.run({**spec, "more": {"budget": BUDGET, "beta": beta}}, scores=scores, truth=truth)[
                "found"
            ]
            _returned(f"  bargain, beta {beta}", found, truth, target)
        found = np.ones_like(truth)
        for seed in range(count):
            audit = np.random.default_rng([15, seed]).choice(CORPUS, BUDGET, replace=False)
            mine = audit[truth[seed, audit]]
            if len(mine):
                wrong = np.zeros(len(mine), bool)
                one = certified(1 - scores[seed, mine], wrong, target=target, delta=DELTA, on="everything")
                found[seed] = one.threshold is None or 1 - scores[seed] < one.threshold
            found[seed, audit] = truth[seed, audit]
        _returned("  llmal", found, truth, target)


def _returned(name: str, found: np.ndarray, truth: np.ndarray, target: float) -> None:
    share = (found & truth).sum(axis=1) / truth.sum(axis=1)
    print(f"{name:38} {(share < target).mean():7.3f} {share.mean():7.3f} {found.mean():7.3f}", flush=True)


def promises(peers: Peers, count: int) -> None:
    """Accuracy of everything and precision of what is accepted, worlds of `certificates.py`, target 0.95."""
    target = TARGETS[-1]
    print("\naccuracy >= 0.95 of everything / accepted".ljust(43), "broken coverage  n")
    for name, tied in WORLDS:
        scores, right = corpora(name, tied, count)
        print(f"{name}{', ties' if tied else ''}")
        sampled = np.full(count, 64)
        if peers.has("bargain"):
            got = peers.run(
                {"kind": "accuracy", "targets": [target], "delta": DELTA},
                said=np.ones(right.shape, int),
                scores=scores,
                truth=right[None].astype(int),
            )
            sampled = got["sampled"][0, 0]
            _kept("  everything, bargain", ~got["used"][0, 0], right, "everything", sampled)
            spec = {"kind": "chosen", "class": "BARGAIN_P", "target": target, "delta": DELTA}
            found = peers.run({**spec, "more": {"budget": BUDGET}}, scores=scores, truth=right)["found"]
            _kept("  accepted, bargain", found, right, "accepted", np.full(count, BUDGET))
        for on, n in (("everything", sampled), ("everything", AUDIT), ("accepted", BUDGET)):
            sizes = np.broadcast_to(n, count)
            kept = np.zeros(right.shape, bool)
            for seed in range(count):
                audit = np.random.default_rng([16, seed]).choice(CORPUS, int(sizes[seed]), replace=False)
                asked: Any = (scores[seed, audit], right[seed, audit])
                one = certified(*asked, target=target, delta=DELTA, on=on)
                kept[seed] = scores[seed] >= (np.inf if one.threshold is None else one.threshold)
            _kept(f"  {on}, llmal", kept, right, on, sizes)


def _kept(name: str, kept: np.ndarray, right: np.ndarray, on: str, n: np.ndarray) -> None:
    wrong = (kept & ~right).sum(axis=1)
    most = kept.sum(axis=1) if on == "accepted" else kept.shape[1]
    broken = wrong > (1 - TARGETS[-1]) * most + 1e-9
    print(f"{name:42} {broken.mean():7.3f} {kept.mean():7.3f} {n.mean():5.0f}", flush=True)


def gate(peers: Peers, count: int, sizes: list[int], zoo: str) -> None:
    """Whether a router is passed whose agreement with the language model is below the target everywhere.

    Eight normal coordinates, of which the first, with a gap around 0, gives the class; the language model
    says it, but for a share of answers drawn by lot. `informative`: no gap, and the less sure the closer.
    """
    target = TARGETS[0]
    print("\nagreement >= 0.9 with the language model".ljust(42), "broken passed coverage")
    for name, n in product(("0.002 below", "informative"), sizes):
        x, sure = _points(name, target, count, n, 17)
        new, new_sure = _points(name, target, count, 1000, 18)
        luck = np.random.default_rng(19).random(sure.shape) < sure
        teacher = (luck == (x[..., 0] > 0)).astype(int)
        if peers.has("tracer-llm"):
            spec = {"kind": "tracer", "targets": [target], "skip": ZOO[zoo]}
            got = peers.run(spec, vectors=x, new=new, teacher=teacher)
            kept, said = got["handled"][0], got["said"][0]
            _passed(f"{name}, {n} answers, tracer-llm", kept, said, new, new_sure, target)
        said, kept = np.zeros(new_sure.shape, int), np.zeros(new_sure.shape, bool)
        cut = round((1 - HELD) * n)
        for seed in range(count):
            both = np.concatenate([x[seed, cut:], new[seed]])
            probs = learnt(x[seed, :cut], teacher[seed, :cut], both, 2)
            label, scores = probs.argmax(axis=1), probs.max(axis=1)
            held = n - cut
            right = label[:held] == teacher[seed, cut:]
            one = certified(scores[:held], right, target=target, delta=DELTA)
            said[seed] = label[held:]
            kept[seed] = scores[held:] >= (np.inf if one.threshold is None else one.threshold)
        _passed(f"{name}, {n} answers, llmal", kept, said, new, new_sure, target)


def _points(name: str, target: float, count: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, n, 8) vectors and the chance that the language model says the class of each."""
    x = np.random.default_rng(seed).normal(size=(count, n, 8)).astype(np.float32)
    if name == "informative":
        return x, 1 / (1 + np.exp(-3 * np.abs(x[..., 0].astype(float))))
    x[..., 0] += np.sign(x[..., 0])
    return x, np.full(x.shape[:2], target - float(name.split()[0]))


def _passed(
    name: str, kept: np.ndarray, said: np.ndarray, x: np.ndarray, sure: np.ndarray, target: float
) -> None:
    agrees = np.where(said == (x[..., 0] > 0), sure, 1 - sure)
    total = kept.sum(axis=1)
    mean = (agrees * kept).sum(axis=1) / np.maximum(total, 1)
    broken = (total > 0) & (mean < target)
    print(f"{name:41} {broken.mean():7.3f} {(total > 0).mean():6.3f} {kept.mean():7.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["real", "recall", "promises", "gate"])
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has bargain and tracer-llm")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS))
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--fits", type=int, default=TRIALS, help="trials of tracer-llm, which is slow")
    parser.add_argument("--sizes", nargs="+", type=int, default=[500, 1000, 3000], help="answers, of gate")
    parser.add_argument("--zoo", choices=sorted(ZOO), default="linear")
    given = parser.parse_args()
    peers = Peers(given.peers)
    print(json.dumps(peers.have))
    if given.part == "real":
        real(peers, given.sets, given.targets, given.trials, given.fits, given.zoo)
    elif given.part == "gate":
        gate(peers, given.fits, given.sizes, given.zoo)
    else:
        {"recall": recall, "promises": promises}[given.part](peers, given.trials)


if __name__ == "__main__":
    main()
