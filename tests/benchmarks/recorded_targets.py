"""What 0.95 costs and gives on recorded answers of real annotators, over many audit samples.

    OMP_NUM_THREADS=1 python tests/benchmarks/recorded_targets.py accepted everything
    OMP_NUM_THREADS=1 python tests/benchmarks/recorded_targets.py accepted --sizes 1000 2000
    OMP_NUM_THREADS=1 python tests/benchmarks/recorded_targets.py accepted --certifier sgr
    OMP_NUM_THREADS=1 python tests/benchmarks/recorded_targets.py classes --sets hate18
    OMP_NUM_THREADS=1 python tests/benchmarks/recorded_targets.py cascade

Sets: mr (ChatGPT), babe (GPT-4 and nine more models, 8-shot), gwsd (GPT-4o, two classes), hate18 (GPT-3.5 and
Llama 2). `student`: logistic regression on MiniLM vectors that learned the model's answers, out of sample
over 5 folds. `llm stated`: the model's answer and what it said of its confidence. `llm agreed`: its answer
and the mean of the student's probability of it and, where there are more models, the share of them that
agree. Each draw takes an audit sample of people's answers, certifies 0.95 at delta 0.1 as `use: certified`
does, and then looks at all items. cert: share of draws with a certificate. cov: share of items the machine
answers, 0 without one. acc: accuracy against people where there is one, `accepted`: of what the machine
answers, `everything`: of all items, people's included. brk: share of draws that certify and stay below 0.95;
delta and two standard errors are 0.142. ppl: share of items that people answer, the audit included.
By everybody's gold: `alone`, accuracy on all items; `top`, the most at a coverage of at least 5 %; `up to`
which coverage it is 0.95. `reach`: the highest target that 4 of 5 draws certify at n = 500.

Needs what `recorded.py` needs. Each line takes less than 15 s of CPU.

2026-11-21, 200 draws; items: mr 8,662, babe 3,021, gwsd 2,050, hate18 10,703.

accepted          n = 100                   n = 200                   n = 500
                  cert cov  acc  brk  ppl   cert cov  acc  brk  ppl   cert cov  acc  brk  ppl
mr     student    0.00 .000    - .000 1.00  0.06 .014 .929 .055 .986  0.10 .016 .945 .095 .985
       llm agreed 0.37 .230 .964 .045 .773  0.46 .182 .976 .020 .822  0.75 .339 .973 .030 .681
babe   student    0.01 .002 .908 .005 .998  0.11 .028 .947 .065 .974  0.32 .059 .964 .015 .951
       llm agreed 0.13 .066 .950 .065 .936  0.40 .121 .974 .005 .887  0.84 .228 .978 .035 .810
gwsd   student    0.00 .000    - .000 1.00  0.01 .001 .854 .005 .999  0.00 .000    - .000 1.00
       llm stated 0.00 .000    - .000 1.00  0.00 .000    - .000 1.00  0.15 .025 .969 .000 .982
       llm agreed 0.00 .000    - .000 1.00  0.00 .000    - .000 1.00  0.03 .005 .939 .030 .996
hate18 student    0.26 .128 .959 .050 .874  0.59 .202 .979 .020 .801  0.89 .353 .971 .070 .663
       llm agreed 0.31 .163 .961 .055 .838  0.61 .225 .980 .010 .779  0.94 .426 .970 .055 .594

accepted          n = 1,000                 n = 2,000                alone top        up to reach at n = 500
                  cert cov  acc  brk  ppl   cert cov  acc  brk  ppl                            cov  acc  ppl
mr     student    0.14 .014 .957 .020 .987  0.07 .004 .958 .000 .997 .756 .961 at .09 .140 0.85 .352 .894 .668
       llm agreed 0.91 .531 .967 .040 .531  1.00 .726 .960 .030 .442 .896 .991 at .08 .908 0.94 .515 .965 .515
babe   student    0.53 .069 .974 .015 .954  0.41 .051 .974 .000 .983 .764 .985 at .09 .249 0.91 .165 .956 .862
       llm agreed 0.86 .294 .970 .030 .803  1.00 .430 .962 .010 .854 .850 .995 at .06 .503 0.95 .228 .978 .810
gwsd   student    0.00 .000    - .000 1.00  0.00 .000    - .000 1.00 .665 .913 at .07 none 0.74 .235 .811 .823
       llm stated 0.16 .026 .969 .000 .987  0.99 .159 .969 .000 .996 .800 .969 at .16 .160 0.90 .133 .969 .899
       llm agreed 0.07 .006 .964 .000 .997  0.03 .001 .977 .000 1.00 .800 .981 at .05 .133 0.86 .157 .924 .881
hate18 student    0.97 .424 .967 .040 .616  1.00 .482 .961 .020 .608 .829 .995 at .06 .543 0.96 .278 .979 .735
       llm agreed 0.98 .496 .965 .060 .550  1.00 .544 .959 .065 .558 .833 .997 at .06 .595 0.96 .338 .978 .678

everything        n = 100                   n = 200                   n = 500
                  cert cov  acc  brk  ppl   cert cov  acc  brk  ppl   cert cov  acc  brk  ppl
mr     student    1.00 .255 .979 .060 .748  1.00 .320 .971 .050 .688  1.00 .369 .963 .070 .652
       llm agreed 1.00 .560 .979 .045 .446  1.00 .699 .971 .070 .317  1.00 .813 .964 .045 .234
babe   student    1.00 .277 .982 .030 .731  1.00 .357 .971 .045 .666  1.00 .405 .964 .050 .662
       llm agreed 1.00 .428 .980 .030 .586  1.00 .533 .970 .035 .502  1.00 .584 .964 .030 .512
gwsd   student    1.00 .134 .981 .035 .872  1.00 .185 .971 .065 .832  1.00 .214 .965 .045 .838
       llm stated 1.00 .146 .996 .000 .862  1.00 .160 .995 .000 .856  1.00 .160 .995 .000 .879
       llm agreed 1.00 .197 .982 .020 .812  1.00 .260 .972 .030 .764  1.00 .305 .964 .040 .769
hate18 student    1.00 .466 .980 .030 .539  1.00 .542 .972 .035 .468  1.00 .600 .963 .080 .427
       llm agreed 1.00 .504 .979 .040 .501  1.00 .577 .972 .035 .433  1.00 .637 .963 .050 .392

accepted, n = 500, llm agreed: cov by certifier    mr    babe  hate18
fixed-sequence (the default)                       .339  .228  .426
learn-then-test                                    .182  .039  .245
sgr                                                .158  .007  .154

hate18, hate is .1117 of it: one certificate for all, or one a class (all of them together at delta 0.1).
`hate`: share of items that the machine calls hate and is trusted with, `prec`: how often that is right. F1
(macro) and `prior` are those of the whole corpus once people have answered the rest.

                   one for all                               a class each
n = 500            cov  hate  prec brk  F1   prior ppl       cov  hate  prec brk  F1   prior ppl
student            .353 .0193 .633 .070 .972 .1159 .663      .568 .0000    - .000 .957 .0961 .459
llm agreed         .426 .0281 .620 .055 .967 .1204 .594      .721 .0000    - .000 .957 .0957 .312
same, n = 200      .225 .0110 .673 .010 .987 .1146 .779      .439 .0000    - .000 .979 .1038 .569

Cascade of student, `llm agreed` and people (accepted; an answer of the model costs a hundredth of a
person's; `asked`: share of items the model is asked about; confidences as they are, not calibrated).

                   n = 200                                   n = 500
                   cert student llm  asked acc  brk  ppl     cert student llm  asked acc  brk  ppl
mr                 0.12 .012    .051 .103  .962 .010 .939    0.36 .027    .138 .338  .968 .015 .844
babe               0.03 .003    .007 .022  .958 .005 .991    0.22 .018    .061 .202  .965 .010 .934
gwsd               0.00 .000    .000 .000     - .000 1.00    0.00 .000    .000 .000     - .000 1.00
hate18             0.16 .021    .051 .136  .972 .005 .930    0.73 .136    .183 .507  .972 .035 .696

What it says. No promise is broken more often than delta allows. Of everything, 0.95 is certified in every
draw, at n = 100 too, and 100 answers of people are enough to leave 25 to 56 % of the items of mr, babe and
hate18 to a machine. Of the items accepted it is dear: at n = 500 the model's tier keeps 37 % (mr), 45 %
(babe) and 72 % (hate18) of the coverage that perfect knowledge would allow, and gwsd is out of reach: only
what GPT-4o states at 0.95 or more, 16 % of the items, is that good, and some 80 audited items of it prove it
in 15 % of draws. Where 0.95 hardly exists, the few certificates that are issued are mostly the lucky ones
(mr, student, n = 500: 10 % of draws, nearly all of them broken): delta counts all draws, not those with a
certificate. In a large sample the sequence has later starts: with the first alone, 77 to 90 items whatever n
is, mr's model was certified in 0.87 of draws at n = 1,000 and in 0.70 at 2,000, and gwsd's student at no
target from 0.5 up. Their price is paid where the top slice alone is good enough: babe's student is certified
in 0.41 of draws instead of 0.47 (n = 2,000), gwsd's stated confidence in 0.16 instead of 0.23 (n = 1,000).
One certificate for all passes on hate18 because most items are easy `noHate`; what the machine calls hate
is then right 6 times in 10. A certificate a class refuses hate (its best twentieth is right 7 times in 10)
and lets the machine answer more of the rest, 72 % instead of 43 %. Hate that it calls `noHate` stays, within
the 5 %, so that the prior comes out at .096 instead of .112: take it from the audit.
The joint cascade divides delta among four paths, and pays for it here: it certifies less often than the
model's tier alone (mr 0.36 against 0.75 at n = 500), and people answer more. It asks the model less.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy; small problems are slower on many

import numpy as np
from recorded import NONE, SETS, Recorded, learnt, recorded

from llmal.stats.certify import CERTIFIERS, certified, certify_classes

TARGET = 0.95
DELTA = 0.1
DRAWS = 200
SIZES = (100, 200, 500)
FOLDS = 5
LEAST = 0.05
"""Smallest share of a corpus whose accuracy is called what a source tops out at."""

REACHED = 0.8
"""Share of audit samples that must certify a target for it to count as reachable."""

TOLD = 200
PRICE = 0.01
"""What an answer of the model costs where one of people costs 1, for the cascade."""


class Source(NamedTuple):
    """(n,) what a machine answers, how sure it is, and whether that is people's answer."""

    name: str
    said: np.ndarray
    scores: np.ndarray
    right: np.ndarray


def out_of_sample(items: Recorded) -> np.ndarray:
    """(n, C) probabilities of students that learned the teacher's answers to the items of other folds."""
    fold = np.random.default_rng(0).permutation(len(items.gold)) % FOLDS
    probs = np.zeros((len(items.gold), len(items.classes)))
    for k in range(FOLDS):
        known = (fold != k) & (items.teacher != NONE)
        probs[fold == k] = learnt(
            items.vectors[known], items.teacher[known], items.vectors[fold == k], len(items.classes)
        )
    return probs


def sources(items: Recorded) -> list[Source]:
    """The student alone, and the teacher alone by what confidence there is.

    `stated`: what the model said. `agreed`: the mean of the student's probability of the model's answer and,
    where there are more models, the share of them that say the same.
    """
    probs = out_of_sample(items)
    teacher = items.teacher
    answered = teacher != NONE
    own = np.where(answered, probs[np.arange(len(teacher)), np.maximum(teacher, 0)], 0.0)
    others = items.answers[:, 1:]
    agree = (others == teacher[:, None]).mean(axis=1) if others.shape[1] else own
    made = [("student", probs.argmax(axis=1), probs.max(axis=1))]
    if items.stated is not None:
        made.append(("llm stated", teacher, np.nan_to_num(items.stated)))
    made.append(("llm agreed", teacher, np.where(answered, (own + agree) / 2, 0.0)))
    return [Source(name, said, scores, said == items.gold) for name, said, scores in made]


def curve(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and accuracy at every threshold, most confident first; equal scores go together."""
    order = np.argsort(-source.scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(source.scores[order])), len(order) - 1)
    right = np.cumsum(source.right[order])[last]
    return (last + 1) / len(order), right / (last + 1)


def audits(size: int, n: int, draws: int) -> list[np.ndarray]:
    """Simple random samples of a corpus."""
    return [np.random.default_rng([21, n, seed]).choice(size, n, replace=False) for seed in range(draws)]


class Plan(NamedTuple):
    """What to run: resamplings, audit sizes, and the certifier's name."""

    draws: int
    sizes: list[int]
    certifier: str


def resampled(source: Source, n: int, target: float, on: Any, plan: Plan) -> np.ndarray:
    """(draws, 5): certified, coverage, accuracy that the promise is about, broken, answers of people."""
    how = CERTIFIERS[plan.certifier]
    size = len(source.right)
    found = np.zeros((plan.draws, 5))
    for seed, audit in enumerate(audits(size, n, plan.draws)):
        one = how(source.scores[audit], source.right[audit], target=target, delta=DELTA, on=on)
        kept = source.scores >= (np.inf if one.threshold is None else one.threshold)
        wrong = int((kept & ~source.right).sum())
        among = int(kept.sum()) if on == "accepted" else size
        accuracy = 1 - wrong / among if kept.any() else np.nan
        people = n + int((~kept).sum()) - int((~kept[audit]).sum())
        found[seed] = kept.any(), kept.mean(), accuracy, accuracy < target - 1e-12, people
    return found


def tops(items: Recorded, source: Source) -> float:
    """Print where the source stands by everybody's gold, without any certificate; the most it reaches."""
    coverage, accuracy = curve(source)
    some = coverage >= LEAST
    best = int(np.flatnonzero(some)[accuracy[some].argmax()])
    reach = np.flatnonzero(some & (accuracy >= TARGET))
    print(
        f"{_name(items, source):19} alone {source.right.mean():.3f}, most {accuracy[best]:.3f} at coverage "
        f"{coverage[best]:.2f}, {TARGET} up to coverage {coverage[reach[-1]] if len(reach) else 0:.3f}, "
        f"{len(coverage)} confidences",
        flush=True,
    )
    return float(accuracy[best])


def accepted(items: Recorded, found: list[Source], plan: Plan) -> None:
    """The promise about what a machine answers, and the highest target that is reachable."""
    for source in found:
        most = tops(items, source)
        blocks(items, source.name, [resampled(source, n, TARGET, "accepted", plan) for n in plan.sizes])
        for target in np.arange(0.99, 0.49, -0.01).round(2):
            if target > most:
                continue
            table = resampled(source, plan.sizes[-1], float(target), "accepted", plan)
            if table[:, 0].mean() >= REACHED:
                blocks(items, f"{source.name} {target}", [table])
                break


def everything(items: Recorded, found: list[Source], plan: Plan) -> None:
    """The promise about all items, people being right about theirs."""
    for source in found:
        blocks(items, source.name, [resampled(source, n, TARGET, "everything", plan) for n in plan.sizes])


def blocks(items: Recorded, name: str, tables: list[np.ndarray]) -> None:
    """One line: certified, coverage, accuracy, broken and the share of items for people, for each size."""
    out = f"{items.name:6} {name:15}"
    for table in tables:
        share, coverage, _, broken, people = table.mean(axis=0)
        accuracy = np.nanmean(table[:, 2]) if share else np.nan
        out += f"  {share:4.2f} {coverage:.3f} {accuracy:5.3f} {broken:.3f} {people / len(items.gold):.3f}"
    print(out, flush=True)


def _name(items: Recorded, source: Source) -> str:
    return f"{items.name} {source.name}"


def classes(items: Recorded, found: list[Source], plan: Plan) -> None:
    """One certificate a class, against one for all: what the rare class gets."""
    rare = int(np.bincount(items.gold).argmin())
    prior = float((items.gold == rare).mean())
    print(f"{items.name}: {items.classes[rare]} is {prior:.4f} of the corpus")
    for source in found:
        whole = source.said == rare
        mine = Source(source.name, source.said[whole], source.scores[whole], source.right[whole])
        coverage, accuracy = curve(mine)
        best = int(accuracy[coverage >= LEAST].argmax())
        hit = int((whole & source.right).sum())
        print(
            f"{source.name}: precision {source.right[whole].mean():.3f}, recall "
            f"{hit / (items.gold == rare).sum():.3f}, most {accuracy[coverage >= LEAST][best]:.3f} at "
            f"{coverage[coverage >= LEAST][best]:.2f} of its answers"
        )
        for n, kind in product(plan.sizes, ("one for all", "a class each")):
            rows = [
                _labelled(items, source, audit, rare, kind) for audit in audits(len(whole), n, plan.draws)
            ]
            table = np.array(rows)
            share, broken, kept, _, f1, seen, people = table.mean(axis=0)
            precision = np.nanmean(table[:, 3]) if np.isfinite(table[:, 3]).any() else np.nan
            print(
                f"  {n:3} {kind:12}  {share:.3f} {kept:.4f} {precision:5.3f} {broken:.3f} {f1:.3f} "
                f"{seen:.4f} {people / len(whole):.3f}",
                flush=True,
            )


def _labelled(items: Recorded, source: Source, audit: np.ndarray, rare: int, kind: str) -> tuple[float, ...]:
    """Shares answered by the machine, and what the corpus looks like once people have answered the rest."""
    scores, right, said = (x[audit] for x in (source.scores, source.right, source.said))
    if kind == "one for all":
        one = certified(scores, right, target=TARGET, delta=DELTA)
        limits = [one.threshold] * len(items.classes)
    else:
        many = certify_classes(scores, right, said, len(items.classes), target=TARGET, delta=DELTA)
        limits = [None if c is None else c.threshold for c in many]
    cuts = np.array([np.inf if t is None else t for t in limits])
    kept = source.scores >= cuts[source.said]
    kept[source.said == NONE] = False
    mine = kept & (source.said == rare)
    parts = [source.right[kept & (source.said == c)] for c in range(len(items.classes))]
    if kind == "one for all":
        parts = [source.right[kept]]
    broken = any(len(p) and p.mean() < TARGET - 1e-12 for p in parts)
    machine = kept.copy()
    machine[audit] = False  # people's answers are kept
    out = np.where(machine, source.said, items.gold)
    return (
        float(kept.mean()),
        float(broken),
        float(mine.mean()),
        float(source.right[mine].mean()) if mine.any() else np.nan,
        macro_f1(out, items.gold),
        float((out == rare).mean()),
        float((~machine).sum()),
    )


def macro_f1(said: np.ndarray, gold: np.ndarray) -> float:
    found = []
    for c in np.unique(gold):
        hit = int(((said == c) & (gold == c)).sum())
        found.append(2 * hit / (int((said == c).sum()) + int((gold == c).sum())))
    return float(np.mean(found))


def cascade(items: Recorded, found: list[Source], plan: Plan) -> None:
    """Student, model and people with thresholds chosen together, against each machine alone.

    The model's confidences in 200 other items, without outcomes, shape the paths, as a filter's would.
    """
    from llmal.stats.tiers import Audit, Prices, three_tiers

    student, llm = found[0], found[-1]
    size = len(items.gold)
    answered = llm.said != NONE
    for n in plan.sizes:
        rows = []
        for seed, audit in enumerate(audits(size, n, plan.draws)):
            rest = np.setdiff1d(np.arange(size), audit)
            told = np.random.default_rng([22, seed]).choice(rest, TOLD, replace=False)
            columns = (student.scores, student.right, llm.scores, llm.right, answered)
            one = three_tiers(
                Audit(*(x[audit] for x in columns)),
                Prices(PRICE, 1.0),
                target=TARGET,
                delta=DELTA,
                corpus=student.scores,
                told=llm.scores[told],
            )
            first = student.scores >= one.student
            second = ~first & answered & (llm.scores >= one.llm)
            kept = first | second
            right = np.where(first, student.right, llm.right)
            accuracy = float(right[kept].mean()) if kept.any() else np.nan
            people = n + int((~kept).sum()) - int((~kept[audit]).sum())
            asked = float((~first).mean()) if second.any() else 0.0
            broken = accuracy < TARGET - 1e-12
            rows.append((kept.any(), first.mean(), second.mean(), asked, accuracy, broken, people / size))
        table = np.array(rows, float)
        share, low, high, asked, _, broken, people = table.mean(axis=0)
        accuracy = np.nanmean(table[:, 4]) if share else np.nan
        print(
            f"{items.name:6} {n:4}  {share:4.2f} {low:.3f} {high:.3f} {asked:.3f} {accuracy:5.3f} "
            f"{broken:.3f} {people:.3f}",
            flush=True,
        )


PARTS: dict[str, tuple[Any, str]] = {
    "accepted": (accepted, "certified, coverage, accuracy, broken, people for each n"),
    "everything": (everything, "certified, coverage, accuracy, broken, people for each n"),
    "classes": (classes, "machine, rare ones, their precision, broken, macro-F1, prior, people"),
    "cascade": (cascade, "certified, student, model, model asked, accuracy, broken, people"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="+", choices=sorted(PARTS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--certifier", choices=sorted(CERTIFIERS), default="fixed-sequence")
    given = parser.parse_args()
    plan = Plan(given.draws, given.sizes, given.certifier)
    sets = [(items, sources(items)) for items in map(recorded, given.sets)]
    for part in given.parts:
        run, heads = PARTS[part]
        print(f"{part}: {heads}")
        for items, found in sets:
            run(items, found, plan)


if __name__ == "__main__":
    main()
