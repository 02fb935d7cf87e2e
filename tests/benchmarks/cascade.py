"""What a stream costs and keeps: quality against the share of calls, simpler ways, and what changes do.

OMP_NUM_THREADS=1 python tests/benchmarks/cascade.py --seeds 5
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
from collections.abc import Callable
from typing import Any, NamedTuple

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix, vstack
from scipy.stats import t as student_t
from sklearn.metrics import f1_score

from llmal.stream.cascade import STRENGTHS, Cascade, Options
from llmal.stream.levels import COLUMNS, Level, hashed
from llmal.stream.logistic import softmax

BLOCK = 32
"""Rows decided about at once, as in `llmal stream`."""

POOL = 9000
"""Sentences of babe's pool that join the stream, drawn once."""

SHARES = (0.3, 0.2, 0.4, 0.1, 0.5)
STATIC = (0.2, 0.3, 0.4)
"""Risks by the students' own probability from which a static threshold asks."""

PAPER = (2e-4, 4e-4, 6e-4)
"""Prices mu of the published rule."""

Measure = Callable[[np.ndarray, np.ndarray], float]
MEASURES: dict[str, Measure] = {
    "accuracy": lambda said, gold: float((said == gold).mean()),
    "F1 of hate": lambda said, gold: float(f1_score(gold, said, pos_label=0)),
    "macro-F1": lambda said, gold: float(f1_score(gold, said, average="macro")),
}


class Stream(NamedTuple):
    """Hashed rows, vectors, the model's answers, gold (-1 where people gave none), and what is measured."""

    grams: csr_matrix
    vectors: np.ndarray
    llm: np.ndarray
    gold: np.ndarray
    measures: tuple[str, ...]

    def at(self, rows: np.ndarray) -> Stream:
        """Some rows, in this order."""
        return Stream(self.grams[rows], self.vectors[rows], self.llm[rows], self.gold[rows], self.measures)


def recorded(name: str, annotator: str, prompt: str | None, measures: tuple[str, ...]) -> Stream:
    """A set's rows that a model answered."""
    table = pq.read_table(curves.SHARED / name / "examples.parquet")
    texts, labels, ids = (table.column(c).to_pylist() for c in ("text", "label", "id"))
    names = sorted(set(labels))
    wanted = [("annotator", "=", annotator), *([("prompt", "=", prompt)] if prompt else [])]
    said = pq.read_table(curves.SHARED / name / "llm_labels.parquet", filters=wanted).to_pylist()
    answers = {row["id"]: names.index(row["label"]) for row in said if row["label"] is not None}
    rows = np.array([i for i, one in enumerate(ids) if one in answers])
    vectors = curves.embedded(name, texts)
    llm = np.array([answers[ids[i]] for i in rows])
    gold = np.array([names.index(labels[i]) for i in rows])
    return Stream(hashed([texts[i] for i in rows]), vectors[rows], llm, gold, measures)


def with_pool(known: Stream) -> Stream:
    """Babe among sentences of its pool, which several models labelled and no person did."""
    table = pq.read_table(curves.SHARED / "babe" / "pool_llm_majority.parquet")
    rows = np.random.default_rng(0).permutation(table.num_rows)[:POOL]
    texts, labels = (table.column(c).take(rows).to_pylist() for c in ("text", "llm_label"))
    llm = np.array([int(label != "biased") for label in labels])
    vectors = curves.embedded("babe-pool", texts)
    return Stream(
        vstack([known.grams, hashed(texts)]).tocsr(), np.concatenate([known.vectors, vectors]),
        np.concatenate([known.llm, llm]), np.concatenate([known.gold, np.full(POOL, -1)]), known.measures,
    )  # fmt: skip


class Static:
    """The baseline everybody has: ask where the students' own probability is below a threshold."""

    def says(self, tables: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Label and 1 - probability of the levels' geometric mean."""
        mixed = softmax(np.mean([np.log(np.maximum(p, 1e-6)) for p in tables], axis=0))
        return mixed.argmax(axis=1), 1 - mixed.max(axis=1)

    def learn(self, records: Any) -> None:
        """Nothing."""


def run(stream: Stream, options: Options, rule: Any = None) -> tuple[np.ndarray, np.ndarray, Cascade]:
    """Labels given, whether the model gave them, and the cascade at the end."""
    cascade = Cascade(options, int(stream.llm.max()) + 1, stream.vectors.shape[1])
    cascade.rule = rule or cascade.rule
    n = len(stream.llm)
    said, asked = np.empty(n, np.int64), np.empty(n, np.bool_)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(n, start + BLOCK))
        verdict = cascade.judge(stream.grams[rows], lambda i, rows=rows: stream.vectors[rows[i]])
        places = np.flatnonzero(verdict.asked)
        said[rows] = np.where(verdict.asked, stream.llm[rows], verdict.label)
        asked[rows] = verdict.asked
        given = stream.llm[rows[places]]
        cascade.learn(verdict, places, given, stream.grams[rows], stream.vectors[rows[places]])
    return said, asked, cascade


def at_random(stream: Stream, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Any rows go to the model; the student taught with all of them labels the rest, at the end."""
    asked = np.random.default_rng([seed, 1]).random(len(stream.llm)) < share
    y, tables = stream.llm[asked], []
    for strength, x in zip(STRENGTHS, (stream.grams, stream.vectors), strict=True):
        width = COLUMNS if x is stream.grams else x.shape[1]
        level = Level("", strength, np.zeros((width + 1, int(stream.llm.max()) + 1), np.float32))
        for _ in range(4):
            level.learn(x[asked], y, np.ones(len(y)))
        tables.append(level.probabilities(x))
    return np.where(asked, stream.llm, Static().says(tables)[0]), asked


Way = Callable[[Stream, int], tuple[np.ndarray, np.ndarray]]


def _by(options: Options, rule: type[Static] | None = None) -> Way:
    return lambda stream, seed: run(stream, options._replace(seed=seed), rule and rule())[:2]


WAYS: dict[str, Way] = {
    **{f"llmal, share {share}": _by(Options(share=share)) for share in SHARES},
    "at random, 30 %": lambda stream, seed: at_random(stream, 0.3, seed),
    **{f"static, {1 - risk:.1f}": _by(Options(mu=risk), Static) for risk in STATIC},
    **{f"published, mu {mu:g}": _by(Options(mu=mu, rule="nets")) for mu in PAPER},
}
"""Name -> labels, and which the model gave."""


def interval(values: list[float], *, sign: bool = True) -> str:
    """Mean and half the width of its 95 % t interval, in points."""
    x = 100 * np.asarray(values)
    half = student_t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else float("nan")
    return f"{x.mean():{'+' if sign else ''}.1f} +-{half:.1f}"


def curve(name: str, stream: Stream, seeds: range, only: str) -> None:
    """Print quality against calls."""
    rated = stream.gold >= 0
    own = {m: MEASURES[m](stream.llm[rated], stream.gold[rated]) for m in stream.measures}
    print(
        f"\n{name}: {len(rated):,} rows; the model's own "
        + ", ".join(f"{m} {100 * v:.1f}" for m, v in own.items())
    )
    print(f"{'':26}{'calls %':>14}{'as the model %':>18}" + "".join(f"{m:>16}" for m in own), flush=True)
    orders = [np.random.default_rng(seed).permutation(len(rated)) for seed in seeds]
    for way, work in WAYS.items():
        if only not in way:
            continue
        found = []
        for seed, order in zip(seeds, orders, strict=True):
            mixed = stream.at(order)
            has = mixed.gold >= 0
            said, asked = work(mixed, seed)
            scores = [MEASURES[m](said[has], mixed.gold[has]) - own[m] for m in own]
            found.append([asked.mean(), (said == mixed.llm).mean(), *scores])
        cells = [list(column) for column in zip(*found, strict=True)]
        told = f"{way:26}{interval(cells[0], sign=False):>14}{interval(cells[1], sign=False):>18}"
        print(told + "".join(f"{interval(c):>16}" for c in cells[2:]), flush=True)


def shifted(name: str, before: Stream, after: Stream, seeds: range, window: int = 250) -> None:
    """Print calls and agreement around a change half way, with chance and without."""
    print(f"\n{name}, changes after {len(before.llm):,} rows; windows of {window} rows from 500 before it")
    for way, explore in (("explore 0.02", 0.02), ("explore 0", 0.0)):
        calls, same, alarms, early = [], [], [], 0
        for seed in seeds:
            rng = np.random.default_rng(seed)
            a, b = (s.at(rng.permutation(len(s.llm))) for s in (before, after))
            rest = (np.concatenate(pair) for pair in zip(a[1:4], b[1:4], strict=True))
            both = Stream(vstack([a.grams, b.grams]).tocsr(), *rest, a.measures)
            said, asked, cascade = run(both, Options(mu=0.2, explore=explore, seed=seed))
            cut = slice(len(a.llm) - 500, len(a.llm) + 1500)
            calls.append(asked[cut].reshape(-1, window).mean(axis=1))
            same.append((said == both.llm)[cut].reshape(-1, window).mean(axis=1))
            late = [x - len(a.llm) for x in cascade.alarms if x >= len(a.llm)]
            early += len(cascade.alarms) - len(late)
            alarms.append(late[0] if late else None)
        for words, table in (("calls %", calls), ("as the model %", same)):
            print(f"{way:14}{words:16}" + "".join(f"{100 * v:6.1f}" for v in np.mean(table, axis=0)))
        print(f"{way:14}rows to the first alarm: {alarms}; alarms before the change: {early}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default="hate18,babe,pool,shift")
    parser.add_argument("--only", default="", help="ways whose name holds this")
    given = parser.parse_args()
    seeds, began = range(given.seeds), time.process_time()
    sets = given.sets.split(",")
    if "hate18" in sets:
        hate = recorded("hate18", "gpt-3.5-turbo-1106", None, ("F1 of hate", "macro-F1"))
        curve("hate18, gpt-3.5-turbo-1106", hate, seeds, given.only)
    babe = recorded("babe", "gpt_4", "8-shot", ("accuracy",))
    if "babe" in sets:
        curve("babe, gpt_4 8-shot", babe, seeds, given.only)
        weaker = recorded("babe", "gpt_3_5", "8-shot", ("accuracy",))
        curve("babe, gpt_3_5 8-shot", weaker, seeds, "llmal, share 0.3")
    if "pool" in sets:
        curve(f"babe among {POOL:,} of its pool, gpt_4 8-shot", with_pool(babe), seeds, "llmal, share 0.3")
    if "shift" in sets:
        film = recorded("mr", "chatgpt", None, ("accuracy",))
        rows = np.random.default_rng(0).permutation(len(film.llm))[:1500]
        shifted(
            "Media bias, then film reviews under the same two names",
            babe.at(np.arange(2000)),
            film.at(rows),
            seeds,
        )
        hate = recorded("hate18", "gpt-3.5-turbo-1106", None, ("F1 of hate", "macro-F1"))
        yes, no = (np.flatnonzero(hate.llm == c) for c in (0, 1))
        first, then = np.concatenate([yes[:150], no[:2350]]), np.concatenate([yes[150:900], no[2350:3100]])
        shifted("hate18, `hate` from 6 % to 50 % of the answers", hate.at(first), hate.at(then), seeds)
    print(f"\n{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
