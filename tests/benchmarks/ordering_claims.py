"""Whether what the literature says of strategies, beyond learning curves, holds here: a verdict a measure.

    OMP_NUM_THREADS=1 python tests/benchmarks/ordering_claims.py
    OMP_NUM_THREADS=1 python tests/benchmarks/ordering_claims.py --only kcenter deuce --seeds 10

A seed draws the pool, 2,500 of a set's training texts (2,000 for info-coevolution, all for power), the rows
to start from and the strategy's chances; the test texts stay the same, and so do pools in part, so intervals
speak of these sets and not of others. Vectors are MiniLM's, the student is logistic regression, gold answers
unless a line says otherwise. Columns: mean of the first strategy named, of the second (or the number asked
for), mean paired difference with its 95 % t interval, verdict: `not shown` where the interval includes 0.

kcenter, probcover: cold start. Covered is what lies within probcover's own radius of a pick.
deuce: the zero-shot answers of label names are right for 40 % (trec) and 70 % (clinc150) of texts. Of
    clinc150's 151 classes no strategy can miss fewer than 119, 87 and 23.
facility-location: the limit of exact search is lowered to 1,000 rows, so that the 2,500 are served as a pool
    of more than 20,000 is, judged on a sample.
diversify: 5 of 20 clusters answer at random, three rounds of 200.
badge: a batch of 100 after 100 random labels. power: margin with `batch: power`, the least of three runs.
activelab: three annotators, each wrong in 30 % of votes; 100 votes a round, to rows with or without a vote by
    one ranking of both, where the selector itself hands over k new rows and puts old ones forward beside
    them. `new only` is its score for new rows, `uniform` random new rows. Label accuracy is that of the rows
    with a vote, and those differ.
bual: three random classes of six are known; 50 random rows to start, then five rounds of 50.
base-delta: the student knows 1,000 film reviews (`mr`); the pool are Reddit comments (`goemotions`) whose
    feelings are all positive or all negative; 10 % of answers wrong; mean accuracy over six rounds of 50.
vessal: 50 random rows, five rounds of 50 in one pass each; mean accuracy over the rounds.
info-coevolution: rounds of 100 until it has enough or the pool is empty, which came first for every seed.
    The mark is uniform's mean accuracy from 900 to 1,100 labels.
discriminative: 50 rows to start, random ones or all of the commonest class.

Measured 2026-11-21, one thread, two cores busy with other work, 10 seeds, 411 CPU s:

kcenter: a smaller radius than random (1 CPU s)
radius, trec, 20 picks: kcenter, uniform                           1.342  1.368   -0.026 +-0.009  holds
radius, trec, 100 picks: kcenter, uniform                          1.259  1.320   -0.061 +-0.009  holds
radius, mr, 20 picks: kcenter, uniform                             1.301  1.350   -0.049 +-0.014  holds
radius, mr, 100 picks: kcenter, uniform                            1.224  1.299   -0.075 +-0.013  holds

probcover: more covered than by random and k-center picks, small budgets (3 CPU s)
share covered, trec, 12 picks: probcover, uniform                  0.029  0.007   +0.023 +-0.003  holds
share covered, trec, 12 picks: probcover, kcenter                  0.029  0.006   +0.023 +-0.002  holds
share covered, trec, 30 picks: probcover, uniform                  0.056  0.017   +0.040 +-0.003  holds
share covered, trec, 30 picks: probcover, kcenter                  0.056  0.015   +0.041 +-0.003  holds
share covered, mr, 4 picks: probcover, uniform                     0.014  0.002   +0.012 +-0.008  holds
share covered, mr, 4 picks: probcover, kcenter                     0.014  0.003   +0.011 +-0.007  holds
share covered, mr, 10 picks: probcover, uniform                    0.024  0.004   +0.019 +-0.011  holds
share covered, mr, 10 picks: probcover, kcenter                    0.024  0.005   +0.019 +-0.010  holds

deuce: fewer classes missed at 32, 64 and 128 picks (175 CPU s)
classes missed, trec, 32 picks: deuce, kmeans                      0.200  0.000   +0.200 +-0.302  not shown
classes missed, trec, 32 picks: deuce, typiclust                   0.200  0.100   +0.100 +-0.406  not shown
classes missed, trec, 32 picks: deuce, uniform                     0.200  0.500   -0.300 +-0.483  not shown
classes missed, trec, 64 picks: deuce, kmeans                      0.000  0.000   +0.000 +-0.000  not shown
classes missed, trec, 64 picks: deuce, typiclust                   0.000  0.100   -0.100 +-0.226  not shown
classes missed, trec, 64 picks: deuce, uniform                     0.000  0.400   -0.400 +-0.369  holds
classes missed, trec, 128 picks: deuce, kmeans                     0.000  0.000   +0.000 +-0.000  not shown
classes missed, trec, 128 picks: deuce, typiclust                  0.000  0.000   +0.000 +-0.000  not shown
classes missed, trec, 128 picks: deuce, uniform                    0.000  0.100   -0.100 +-0.226  not shown
classes missed, clinc150, 32 picks: deuce, kmeans                  119.0  119.2       -0.2 +-0.3  not shown
classes missed, clinc150, 32 picks: deuce, typiclust               119.0  119.1       -0.1 +-0.2  not shown
classes missed, clinc150, 32 picks: deuce, uniform                 119.0  121.9       -2.9 +-0.5  holds
classes missed, clinc150, 64 picks: deuce, kmeans                  87.30  88.40     -1.10 +-0.92  holds
classes missed, clinc150, 64 picks: deuce, typiclust               87.30  88.40     -1.10 +-0.92  holds
classes missed, clinc150, 64 picks: deuce, uniform                 87.30  98.10    -10.80 +-1.61  holds
classes missed, clinc150, 128 picks: deuce, kmeans                 32.70  40.00     -7.30 +-3.16  holds
classes missed, clinc150, 128 picks: deuce, typiclust              32.70  41.10     -8.40 +-3.34  holds
classes missed, clinc150, 128 picks: deuce, uniform                32.70  64.10    -31.40 +-2.51  holds

facility-location: stochastic greedy reaches 0.9 of lazy greedy (4 CPU s)
f(S) stochastic / lazy, trec, 20 picks: at least 0.9               0.993  0.900   +0.093 +-0.001  holds
f(S) stochastic / lazy, trec, 200 picks: at least 0.9              0.980  0.900   +0.080 +-0.001  holds

diversify: noisy clusters weigh less than an equal share after 3 rounds (1 CPU s)
weight of clusters answered at random, trec: an equal share is 1   0.829  1.000   -0.171 +-0.008  holds

badge: batches less redundant than margin's (1 CPU s)
mean cosine in a batch of 100, trec: badge, margin                 0.095  0.098   -0.003 +-0.004  not shown
mean cosine in a batch of 100, hate18: badge, margin               0.154  0.234   -0.080 +-0.016  holds

power: a power batch is more than 50 times as fast as badge (114 CPU s)
badge's / power's CPU s, trec, 4,950 rows, 100 picks: 50           19.89  50.00    -30.11 +-0.14  does not
badge's / power's CPU s, trec, 4,950 rows, 1000 picks: 50          123.7   50.0      +73.7 +-1.1  holds
badge's / power's CPU s, clinc150, 15,100 rows, 100 picks: 50      22.12  50.00    -27.88 +-0.69  does not
badge's / power's CPU s, clinc150, 15,100 rows, 1000 picks: 50     202.3   50.0     +152.3 +-4.3  holds

activelab: fewer votes than new labels only, at 30 % noise (63 CPU s)
labels right at 300 votes, trec: activelab, new only               0.737  0.694   +0.043 +-0.024  holds
test accuracy at 300 votes, trec: activelab, new only              0.597  0.602   -0.005 +-0.033  not shown
labels right at 600 votes, trec: activelab, new only               0.742  0.694   +0.049 +-0.017  holds
test accuracy at 600 votes, trec: activelab, new only              0.676  0.653   +0.023 +-0.021  holds
labels right at 1200 votes, trec: activelab, new only              0.798  0.701   +0.096 +-0.033  holds
test accuracy at 1200 votes, trec: activelab, new only             0.742  0.716   +0.026 +-0.019  holds
labels right at 300 votes, trec: activelab, uniform                0.737  0.708   +0.029 +-0.021  holds
test accuracy at 300 votes, trec: activelab, uniform               0.597  0.570   +0.027 +-0.029  not shown
labels right at 600 votes, trec: activelab, uniform                0.742  0.710   +0.033 +-0.015  holds
test accuracy at 600 votes, trec: activelab, uniform               0.676  0.598   +0.079 +-0.026  holds
labels right at 1200 votes, trec: activelab, uniform               0.798  0.700   +0.098 +-0.034  holds
test accuracy at 1200 votes, trec: activelab, uniform              0.742  0.632   +0.110 +-0.027  holds

bual: more of the known classes than margin (8 CPU s)
share known of 250 picks, trec, 3 of 6 known: bual, margin         0.793  0.407   +0.386 +-0.050  holds
test accuracy on known classes then: bual, margin                  0.851  0.815   +0.036 +-0.013  holds

base-delta: ahead of uncertainty when the domain shifts (3 CPU s)
test accuracy, mr to goemotions: base-delta, margin                0.741  0.729   +0.012 +-0.009  holds
test accuracy, mr to goemotions: base-delta, uniform               0.741  0.725   +0.016 +-0.006  holds

vessal: spends within 5 % of its budget, ahead of uniform on a stream (3 CPU s)
share of budget left after a pass, trec: at most 0.05              0.000  0.050   -0.050 +-0.001  holds
test accuracy, trec: vessal, uniform                               0.693  0.681   +0.012 +-0.013  not shown

info-coevolution: labels saved at equal accuracy (22 CPU s)
labels when it has enough, trec: info-coevolution, all              2000   2000           +0 +-0  not shown
test accuracy then: info-coevolution, uniform                      0.836  0.836   +0.000 +-0.002  not shown
labels to the mark, trec: info-coevolution, uniform                  870   1010       -140 +-152  not shown

discriminative: MMD to the pool falls faster than random's (13 CPU s)
MMD, 50 picks, random start: discriminative, uniform               0.057  0.077   -0.020 +-0.002  holds
MMD, 150 picks, random start: discriminative, uniform              0.038  0.053   -0.015 +-0.001  holds
MMD, 50 picks, one class at the start: discriminative, uniform     0.060  0.088   -0.028 +-0.002  holds
MMD, 150 picks, one class at the start: discriminative, uniform    0.038  0.057   -0.018 +-0.002  holds

With 30 seeds, for three that 10 leave open:
mean cosine in a batch of 100, trec: badge, margin                 0.095  0.098   -0.003 +-0.003  holds
test accuracy, trec: vessal, uniform                               0.696  0.684   +0.012 +-0.007  holds
labels to the mark, trec: info-coevolution, uniform                  827   1003        -177 +-68  holds
"""

from __future__ import annotations

import argparse
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import pyarrow.parquet as pq
from label_efficiency import SHARED, embedded, task  # beside this file
from scipy import stats
from sklearn.linear_model import LogisticRegression

from llmal.embed.sentence import Sentence
from llmal.prototypes import anchors, zero_shot
from llmal.records import Label, LabelSchema
from llmal.select import crowdlab, diversify, facility_location
from llmal.select.activelab import cross_fitted
from llmal.select.badge import Badge
from llmal.select.base_delta import BaseDelta
from llmal.select.bual import Bual
from llmal.select.deuce import Deuce
from llmal.select.discriminative import Discriminative
from llmal.select.diversify import Diversify
from llmal.select.facility_location import FacilityLocation
from llmal.select.geometry import nearest_squared, squared_norms
from llmal.select.info_coevolution import InfoCoevolution
from llmal.select.kcenter import KCenter
from llmal.select.kmeans import KMeans, cluster
from llmal.select.margin import Margin
from llmal.select.probcover import ProbCover, purest_radius
from llmal.select.stage import Pool, Selection, Selector
from llmal.select.typiclust import TypiClust
from llmal.select.uniform import Uniform
from llmal.select.vessal import Vessal

ROWS = 2_500
"""Texts of the pool that a seed draws from a training set."""

NOISE = 0.3
"""Share of an annotator's votes that are wrong."""

POSITIVE = {
    "admiration",
    "amusement",
    "approval",
    "caring",
    "desire",
    "excitement",
    "gratitude",
    "joy",
    "love",
    "optimism",
    "pride",
    "relief",
}
NEGATIVE = {
    "anger",
    "annoyance",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "fear",
    "grief",
    "nervousness",
    "remorse",
    "sadness",
}
"""Names of GoEmotions by sentiment, as its authors group them; the other five belong to neither."""


class Found(NamedTuple):
    """What one seed measured: ours should be the larger one (or the smaller, where the claim says less)."""

    what: str
    ours: float
    other: float
    less: bool = False


class Data(NamedTuple):
    """A pool with (n, C) answers to be bought, a row of zeros being none, and a test set with classes."""

    pool: np.ndarray
    answers: np.ndarray
    test: np.ndarray
    gold: np.ndarray


class Step(NamedTuple):
    """After a purchase: all rows so far, test accuracy, the (n, C) student, and the last selection."""

    rows: np.ndarray
    accuracy: float
    probs: np.ndarray
    selection: Selection | None


# --- data and student


whole = functools.cache(task)
encoder = functools.cache(Sentence)


def drawn(name: str, seed: int, rows: int = ROWS) -> Data:
    """So many random rows of a set's training texts, and its test texts."""
    data = whole(name)
    some = np.sort(rng_of(seed, 1).choice(len(data.pool), min(rows, len(data.pool)), replace=False))
    return Data(data.pool[some], data.gold[some], data.test, data.test_gold.argmax(axis=1))


def rng_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@functools.cache
def label_names(*names: str) -> tuple[np.ndarray, LabelSchema]:
    schema = LabelSchema("single", tuple(Label(name=n) for n in names), False)
    return anchors(schema, encoder().encode), schema


def prior(vectors: np.ndarray, *names: str) -> np.ndarray:
    """(n, C) what label names alone say."""
    return zero_shot(vectors, *label_names(*names)).astype(np.float32)


def student(x: np.ndarray, y: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """(m, C) probabilities for `asked`, by logistic regression on classes y."""
    seen = np.unique(y)
    probs = np.zeros((len(asked), classes), np.float32)
    fit = LogisticRegression(C=10.0, max_iter=300).fit(x, y) if len(seen) > 1 else None
    probs[:, seen] = fit.predict_proba(asked) if fit else 1.0
    return probs


def bought(
    data: Data,
    selector: Selector,
    first: np.ndarray,
    sizes: list[int],
    seed: int,
    *,
    taught: tuple[np.ndarray, np.ndarray] | None = None,
    sources: SimpleNamespace | None = None,
) -> Iterator[Step]:
    """Buy `first`, then so many at a time, and fit after each; `taught` is what the student knows before."""
    rows, probs, selection = first, None, None
    classes = data.answers.shape[1]
    for at, size in enumerate([0, *sizes]):
        if at:
            left = np.setdiff1d(np.arange(len(data.pool)), rows)
            pool = Pool(data.pool, left, rows, probs, classes, data.answers[rows], False, sources)
            selection = selector.select(pool, size, rng_of(seed, 2, at))
            rows = np.concatenate([rows, selection.rows])
        answered = rows[data.answers[rows].any(axis=1)]
        x, y = data.pool[answered], data.answers[answered].argmax(axis=1)
        if taught is not None:
            x, y = np.concatenate([taught[0], x]), np.concatenate([taught[1], y])
        both = student(x, y, np.concatenate([data.pool, data.test]), classes)
        probs, tested = both[: len(data.pool)], both[len(data.pool) :]
        yield Step(rows, float((tested.argmax(axis=1) == data.gold).mean()), probs, selection)


def at_random(data: Data, k: int, seed: int) -> np.ndarray:
    """Rows to start from, the same for all strategies."""
    return rng_of(seed, 3).choice(len(data.pool), k, replace=False)


def cold(data: Data, selector: Selector, k: int, seed: int, names: list[str] | None = None) -> np.ndarray:
    sources = SimpleNamespace(prior=lambda: prior(data.pool, *names)) if names else None
    nothing = np.zeros(0, np.int64)
    pool = Pool(
        data.pool, np.arange(len(data.pool)), nothing, None, data.answers.shape[1], None, False, sources
    )
    return selector.select(pool, k, rng_of(seed, 2)).rows


# --- the claims: each measures one seed


def kcenter(seed: int) -> Iterator[Found]:
    for name in ("trec", "mr"):
        data = drawn(name, seed)
        for k in (20, 100):
            ours, other = (to_nearest(data, cold(data, s, k, seed)).max() for s in (KCenter(), Uniform()))
            yield Found(f"radius, {name}, {k} picks: kcenter, uniform", ours, other, less=True)


def to_nearest(data: Data, rows: np.ndarray) -> np.ndarray:
    """(n,) distance of each row to the nearest of some."""
    square = squared_norms(data.pool)
    return np.sqrt(np.maximum(0, nearest_squared(data.pool, square, data.pool[rows], square[rows])))


def probcover(seed: int) -> Iterator[Found]:
    for name in ("trec", "mr"):
        data = drawn(name, seed)
        classes = data.answers.shape[1]
        delta = purest_radius(data.pool, classes, rng_of(seed, 4))
        for k in (2 * classes, 5 * classes):
            strategies = {
                "probcover": ProbCover(delta=delta),
                "uniform": Uniform(),
                "kcenter": KCenter(),
            }
            share = {
                by: (to_nearest(data, cold(data, s, k, seed)) < delta).mean() for by, s in strategies.items()
            }
            for other in ("uniform", "kcenter"):
                what = f"share covered, {name}, {k} picks: probcover, {other}"
                yield Found(what, share["probcover"], share[other])


def deuce(seed: int) -> Iterator[Found]:
    for name in ("trec", "clinc150"):
        data, names = drawn(name, seed), whole(name).classes
        for k in (32, 64, 128):
            missed = {}
            for selector in (Deuce(), KMeans(), TypiClust(), Uniform()):
                rows = cold(data, selector, k, seed, names)
                missed[selector.name] = (~data.answers[rows].any(axis=0)).sum()
            for other in ("kmeans", "typiclust", "uniform"):
                what = f"classes missed, {name}, {k} picks: deuce, {other}"
                yield Found(what, missed["deuce"], missed[other], less=True)


def stochastic(seed: int) -> Iterator[Found]:
    """The limit of exact search is lowered so that the pool is served as a large one is."""
    data = drawn("trec", seed)
    for k in (20, 200):
        exact = worth(data, cold(data, FacilityLocation(), k, seed))
        with patch.object(facility_location, "EXACT_ROWS", 1_000):
            quick = worth(data, cold(data, FacilityLocation(), k, seed))
        yield Found(f"f(S) stochastic / lazy, trec, {k} picks: at least 0.9", quick / exact, 0.9)


def worth(data: Data, rows: np.ndarray) -> float:
    """Mean of (1 + cosine) / 2 to the nearest pick."""
    return float(1 - (to_nearest(data, rows) ** 2).mean() / 4)


def noisy_clusters(seed: int) -> Iterator[Found]:
    """A quarter of 20 clusters answer at random; 3 rounds of 200, then the chance of such a cluster."""
    data, selector, k = drawn("trec", seed), Diversify(clusters=20), 200
    _, label = cluster(data.pool, 20, np.random.default_rng(selector.seed))
    count = int(label.max()) + 1
    rng = rng_of(seed, 4)
    noisy = rng.choice(count, count // 4, replace=False)
    lost = np.flatnonzero(np.isin(label, noisy))
    answers = data.answers.copy()
    answers[lost] = np.eye(answers.shape[1], dtype=np.float32)[rng.integers(answers.shape[1], size=len(lost))]
    data = data._replace(answers=answers)
    *_, last = bought(data, selector, cold(data, selector, k, seed), [k, k], seed)
    pool = Pool(data.pool, lost, last.rows, last.probs, answers.shape[1], answers[last.rows])
    weights = selector.weights(diversify.scores(pool), label[last.rows], count)
    what = "weight of clusters answered at random, trec: an equal share is 1"
    yield Found(what, count * weights[noisy].mean(), 1.0, less=True)


def badge(seed: int) -> Iterator[Found]:
    for name in ("trec", "hate18"):
        data = drawn(name, seed)
        cosine = []
        for selector in (Badge(), Margin()):
            *_, last = bought(data, selector, at_random(data, 100, seed), [100], seed)
            batch = data.pool[last.selection.rows]
            cosine.append(((batch @ batch.T).sum() - len(batch)) / (len(batch) * (len(batch) - 1)))
        yield Found(f"mean cosine in a batch of 100, {name}: badge, margin", *cosine, less=True)


def power(seed: int) -> Iterator[Found]:
    for name in ("trec", "clinc150"):
        data = drawn(name, seed, 20_000)
        probs = prior(data.pool, *whole(name).classes)
        pool = Pool(data.pool, np.arange(len(probs)), np.zeros(0, np.int64), probs, probs.shape[1])
        for k in (100, 1000):
            taken = [seconds(s, pool, k, seed) for s in (Badge(), Margin(batch="power"))]
            what = f"badge's / power's CPU s, {name}, {len(probs):,} rows, {k} picks: 50"
            yield Found(what, taken[0] / taken[1], 50.0)


def seconds(selector: Selector, pool: Pool, k: int, seed: int) -> float:
    """CPU seconds, the least of three."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        selector.select(pool, k, rng_of(seed, 2))
        taken.append(time.process_time() - started)
    return min(taken)


def activelab(seed: int) -> Iterator[Found]:
    """Three annotators; a vote goes to one of them who has not seen the row."""
    data = drawn("trec", seed)
    found = {by: voted(data, by, seed) for by in ("again", "new", "uniform")}
    for by, words in (("new", "new only"), ("uniform", "uniform")):
        for place, votes in ((2, 300), (5, 600), (11, 1200)):
            ours, other = found["again"][place], found[by][place]
            yield Found(f"labels right at {votes} votes, trec: activelab, {words}", ours[0], other[0])
            yield Found(f"test accuracy at {votes} votes, trec: activelab, {words}", ours[1], other[1])


def voted(data: Data, by: str, seed: int, k: int = 100, rounds: int = 12) -> list[tuple[float, float]]:
    """Label and test accuracy after each k votes; `again` may ask for a second vote on a row."""
    n, classes = data.answers.shape
    truth, rng = data.answers.argmax(axis=1), rng_of(seed, 4)
    wrong = (truth[:, None] + rng.integers(1, classes, (n, 3))) % classes
    said = np.where(rng.random((n, 3)) < NOISE, wrong, truth[:, None])  # what each would say of each row
    turn = rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1)
    votes, given = np.full((n, 3), -1), np.zeros(n, np.int64)
    asked, out = at_random(data, k, seed), []
    for at in range(rounds):
        who = turn[asked, given[asked]]
        votes[asked, who] = said[asked, who]
        given[asked] += 1
        rows, left = np.flatnonzero(given), np.flatnonzero(given == 0)
        probs = cross_fitted(data.pool[rows], votes[rows], classes, rng_of(seed, 5, at))
        label = crowdlab.scores(votes[rows], probs, np.full((1, classes), 1 / classes)).label
        both = student(data.pool[rows], label, np.concatenate([data.pool, data.test]), classes)
        tested = both[n:].argmax(axis=1)
        out.append((float((label == truth[rows]).mean()), float((tested == data.gold).mean())))
        value = crowdlab.scores(votes[rows], probs, both[left].astype(np.float64))
        score = np.full(n, np.inf)
        score[left] = value.unlabelled if by != "uniform" else rng_of(seed, 6, at).random(len(left))
        if by == "again":
            score[rows] = np.where(given[rows] < 3, value.labelled, np.inf)
        asked = np.argsort(score, kind="stable")[:k]
    return out


def bual(seed: int) -> Iterator[Found]:
    """Half of the classes are unknown: a question about one of them is answered by none of the labels."""
    data = drawn("trec", seed)
    known = np.sort(rng_of(seed, 4).choice(6, 3, replace=False))
    tested = np.isin(data.gold, known)
    data = Data(
        data.pool, data.answers[:, known], data.test[tested], np.searchsorted(known, data.gold[tested])
    )
    share, accuracy = [], []
    for selector in (Bual(), Margin()):
        *_, last = bought(data, selector, at_random(data, 50, seed), [50] * 5, seed)
        share.append(data.answers[last.rows[50:]].any(axis=1).mean())
        accuracy.append(last.accuracy)
    yield Found("share known of 250 picks, trec, 3 of 6 known: bual, margin", *share)
    yield Found("test accuracy on known classes then: bual, margin", *accuracy)


def base_delta(seed: int) -> Iterator[Found]:
    """From 1,000 film reviews to Reddit comments with a feeling of one side; a tenth of answers is wrong."""
    films, comments = drawn("mr", seed, 1_000), sided("train")
    rng = rng_of(seed, 4)
    some = rng.choice(len(comments[1]), ROWS, replace=False)
    said = np.where(rng.random(ROWS) < 0.1, 1 - comments[1][some], comments[1][some])
    data = Data(comments[0][some], np.eye(2, dtype=np.float32)[said], *sided("test"))
    sources = SimpleNamespace(prior=lambda: prior(data.pool, "negative", "positive"))
    taught = films.pool, films.answers.argmax(axis=1)
    none = np.zeros(0, np.int64)
    mean = {}
    strategies = {"base-delta": BaseDelta(), "margin": Margin(), "uniform": Uniform()}
    for by, selector in strategies.items():
        steps = bought(data, selector, none, [50] * 6, seed, taught=taught, sources=sources)
        mean[by] = np.mean([step.accuracy for step in list(steps)[1:]])
    for other in ("margin", "uniform"):
        what = f"test accuracy, mr to goemotions: base-delta, {other}"
        yield Found(what, mean["base-delta"], mean[other])


@functools.cache
def sided(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of GoEmotions' comments that are positive only or negative only, and 1 or 0."""
    table = pq.read_table(SHARED / "goemotions" / "examples.parquet")
    vectors = embedded("goemotions", table.column("text").to_pylist())
    names = [set(row) for row in table.column("labels").to_pylist()]
    side = np.array([1 if row <= POSITIVE else 0 if row <= NEGATIVE else -1 for row in names])
    rows = np.flatnonzero((side >= 0) & (np.array(table.column("split").to_pylist()) == split))
    return vectors[rows], side[rows]


def vessal(seed: int) -> Iterator[Found]:
    data = drawn("trec", seed)
    first = at_random(data, 50, seed)
    spent, mean = [], []
    for selector in (Vessal(), Uniform()):
        steps = list(bought(data, selector, first, [50] * 5, seed))[1:]
        mean.append(np.mean([step.accuracy for step in steps]))
        filled = [r.startswith("drawn at random") for step in steps for r in step.selection.reasons]
        spent.append(1 - np.mean(filled))
    yield Found("share of budget left after a pass, trec: at most 0.05", 1 - spent[0], 0.05, less=True)
    yield Found("test accuracy, trec: vessal, uniform", *mean)


def info_coevolution(seed: int) -> Iterator[Found]:
    """Rounds of 100 until it says enough or the pool is empty; the mark is uniform's from 900 to 1,100."""
    data = drawn("trec", seed, 2_000)
    first = at_random(data, 100, seed)
    sizes = [100] * (len(data.pool) // 100 - 1)
    ours = []
    for step in bought(data, InfoCoevolution(), first, sizes, seed):
        ours.append(step)
        if step.selection is not None and step.selection.enough:
            break
    other = list(bought(data, Uniform(), first, sizes, seed))
    end = len(ours) - 1
    what = "labels when it has enough, trec: info-coevolution, all"
    yield Found(what, len(ours[end].rows), len(data.pool), less=True)
    yield Found("test accuracy then: info-coevolution, uniform", ours[end].accuracy, other[end].accuracy)
    goal = np.mean([step.accuracy for step in other[8:11]])
    needs = [next((len(s.rows) for s in by if s.accuracy >= goal), len(by[-1].rows)) for by in (ours, other)]
    what = "labels to the mark, trec: info-coevolution, uniform"
    yield Found(what, *needs, less=True)


def discriminative(seed: int) -> Iterator[Found]:
    data = drawn("trec", seed)
    commonest = data.answers.sum(axis=0).argmax()
    one = rng_of(seed, 4).permutation(np.flatnonzero(data.answers[:, commonest]))[:50]
    for words, first in (("random start", at_random(data, 50, seed)), ("one class at the start", one)):
        runs = [list(bought(data, s, first, [50, 100], seed)) for s in (Discriminative(), Uniform())]
        for at, k in ((1, 50), (2, 150)):
            gap = [discrepancy(data.pool, run[at].rows) for run in runs]
            what = f"MMD, {k} picks, {words}: discriminative, uniform"
            yield Found(what, *gap, less=True)


def discrepancy(pool: np.ndarray, rows: np.ndarray) -> float:
    """MMD of some rows from all, Gaussian kernel of the median distance. Source: Gretton et al. 2012."""
    square = np.maximum(0, 2 - 2 * (pool @ pool.T))
    kernel = np.exp(-square / np.median(square))
    mean = kernel[np.ix_(rows, rows)].mean() + kernel.mean() - 2 * kernel[rows].mean()
    return float(np.sqrt(max(mean, 0)))


CLAIMS: dict[str, tuple[str, Callable[[int], Iterator[Found]]]] = {
    "kcenter": ("a smaller radius than random", kcenter),
    "probcover": ("more covered than by random and k-center picks, small budgets", probcover),
    "deuce": ("fewer classes missed at 32, 64 and 128 picks", deuce),
    "facility-location": ("stochastic greedy reaches 0.9 of lazy greedy", stochastic),
    "diversify": ("noisy clusters weigh less than an equal share after 3 rounds", noisy_clusters),
    "badge": ("batches less redundant than margin's", badge),
    "power": ("a power batch is more than 50 times as fast as badge", power),
    "activelab": ("fewer votes than new labels only, at 30 % noise", activelab),
    "bual": ("more of the known classes than margin", bual),
    "base-delta": ("ahead of uncertainty when the domain shifts", base_delta),
    "vessal": ("spends within 5 % of its budget, ahead of uniform on a stream", vessal),
    "info-coevolution": ("labels saved at equal accuracy", info_coevolution),
    "discriminative": ("MMD to the pool falls faster than random's", discriminative),
}


# --- report


def verdict(pairs: list[Found]) -> str:
    """Means, mean paired difference with its 95 % t interval, and what follows."""
    ours, other = (np.array([getattr(p, side) for p in pairs], float) for side in ("ours", "other"))
    gap = ours - other
    half = np.inf  # one seed shows nothing
    if len(gap) > 1:
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
    better = -gap.mean() if pairs[0].less else gap.mean()
    says = "holds" if better > half else "does not" if better < -half else "not shown"
    digits = max(0, 4 - len(str(int(max(ours.mean(), other.mean())))))
    numbers = [f"{x:.{digits}f}" for x in (ours.mean(), other.mean())]
    wide = f"{gap.mean():+.{digits}f} +-{half:.{digits}f}"
    return f"{pairs[0].what:<65} {numbers[0]:>6} {numbers[1]:>6} {wide:>16}  {says}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in options.only:
        claim, measure = CLAIMS[name]
        started = time.process_time()
        rounds = [list(measure(seed)) for seed in range(options.seeds)]
        print(f"\n{name}: {claim} ({time.process_time() - started:.0f} CPU s)", flush=True)
        for pairs in zip(*rounds, strict=True):
            print(verdict(list(pairs)), flush=True)


if __name__ == "__main__":
    main()
