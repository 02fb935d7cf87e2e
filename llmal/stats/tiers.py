"""Three tiers: which items the student answers, which the model, which people, at the least cost."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.bounds import binomial_pvalue
from llmal.stats.certificate import On, take
from llmal.stats.certify import fixed_sequence

STEPS = 32
"""Points of a path. Thresholds by 64 cost 1 to 3 % less at n = 1,000, by 16 up to 5 % more
(`tests/benchmarks/tiers.py`)."""

NEVER = 2.0
"""A threshold above every confidence: that machine answers nothing."""

NOMINAL = 0.4
"""Share of delta for the path that takes the confidences at their word: the best one where they are right."""

BY_RANK = {1 / 3: 0.3, 0.1: 0.15}
"""Exponent e -> share of delta: where the student answers the share u of the corpus, the share u ** e of the
model's answers stands. Ranks do not mind a scale that is wrong."""

ALONE = 0.15
"""Share of delta for the path on which the model is never asked."""

_UNKNOWN: NDArray[np.float64] = 1 - np.geomspace(0.5, 1e-4, 64)
"""Stands for the model's confidences where none is known beside the audit sample's."""

_LOOSE = 1.1
"""The first point of a path is one where so many times the items that the test needs are expected."""

_SWEEP = 256
"""Prices of an error that the nominal path tries before it is thinned to `STEPS` points."""


class Audit(NamedTuple):
    """A random sample of what is to be routed, beside people's answers.

    Attributes:
        student, student_right: (n,) confidence in [0, 1], and whether its answer is people's answer.
        llm, llm_right: (n,) the same of the model; both are ignored where it did not answer.
        answered: (n,) whether the model gave an answer that can stand.
    """

    student: NDArray[np.float64]
    student_right: NDArray[np.bool_]
    llm: NDArray[np.float64]
    llm_right: NDArray[np.bool_]
    answered: NDArray[np.bool_]


class Prices(NamedTuple):
    """What an answer costs in any one unit; the student's is free, and a model's paid if it stands or not."""

    llm: float
    person: float


class Tiers(NamedTuple):
    """Who answers what, and what is promised of it.

    Attributes:
        student: the student answers from this confidence upward; `NEVER`: nothing.
        llm: of the rest the model is asked, and its answer stands from this confidence upward; `NEVER`: it
            is not asked at all. People answer what is left.
        certified: whether the promise holds; otherwise both thresholds are `NEVER`.
        shares: expected shares of the corpus that student, model and people answer; they sum to 1.
        asked: expected share of the corpus that the model is asked about.
        cost: expected price of an item, in the unit of `Prices`.
        alone: what an item costs where people answer everything.
        n: audited items that a machine would answer.
        more: about how many more answers of people are needed; 0 when certified, or when people alone are
            cheaper than all that is; None where no number helps.
        target, delta, on: what was asked.
        audited: items in the sample.
    """

    student: float
    llm: float
    certified: bool
    shares: tuple[float, float, float]
    asked: float
    cost: float
    alone: float
    n: int
    more: int | None
    target: float
    delta: float
    on: On
    audited: int

    @property
    def words(self) -> str:
        """The certificate for a person."""
        among = "the items a machine answers" if self.on == "accepted" else "all items, people's included"
        if not self.certified and self.more == 0:
            return f"People answer all: what can be certified at {self.target:.1%} costs more than they do."
        if not self.certified:
            wanted = f"Cannot certify an accuracy of {self.target:.1%} among {among}, so people answer all"
            if self.more is None:
                return f"{wanted}: {self.audited} audited items show it to be unlikely at any confidence."
            return f"{wanted}: about {self.more} more labels of people are needed ({self.audited} so far)."
        by_student, by_llm, by_people = (f"{share:.0%}".replace("%", " %") for share in self.shares)
        asked = "is not asked" if self.llm >= NEVER else by_llm
        return (
            f"The student answers {by_student}, the model {asked}, people {by_people} of the items. Accuracy "
            f"among {among} is at least {self.target:.1%} with probability {1 - self.delta:.1%} ({self.n} of "
            f"{self.audited} audited items answered by a machine)."
        )


class Path(NamedTuple):
    """Points from strict to lax, fixed without a look at the audit sample, and their share of delta.

    Attributes:
        student, llm: (k,) thresholds; the items that a machine answers grow from point to point.
        expected: (k,) about the share of items that a machine answers.
        share: of delta.
    """

    student: NDArray[np.float64]
    llm: NDArray[np.float64]
    expected: NDArray[np.float64]
    share: float


def three_tiers(
    audit: Audit,
    prices: Prices,
    *,
    target: float,
    delta: float,
    on: On = "accepted",
    corpus: ArrayLike,
    told: ArrayLike = (),
) -> Tiers:
    """The cheapest pair of thresholds among those certified along four paths.

    Each path leads from strict to lax and is tested as a fixed sequence, at its own share of delta, until a
    point fails; all points that passed hold together with probability 1 - delta, so that the cheapest may be
    chosen by any rule. The paths are fixed beforehand by scores without outcomes of items outside the audit
    sample: one takes confidences at their word and finds the thresholds that are best at each price of an
    error, two go by ranks, and on one the model is not asked at all.

    Args:
        audit: see `Audit`; none of its answers may have trained what gave the scores.
        prices: see `Prices`; llm at least 0, person above 0.
        target: in (0, 1), the accuracy to promise.
        delta: in (0, 0.5), the share of samples for which the promise may be broken.
        on: accepted: among the items that a machine answers; everything: among all, people being right.
        corpus: (N,) the student's confidences in what is to be routed, N >= 1: they give the quantiles of
            the paths, and the share that the student answers.
        told: (m,) the model's confidences in other items than the audit's; an even spread when empty.

    Returns:
        The thresholds. Costs are expected: the student's share is that of `corpus`, the model's that of the
        audited items that the student leaves.

    Raises:
        ValueError: lengths differ, no items, or a number outside its range.

    Source: Learn then Test, Angelopoulos, Bates, Candes, Jordan & Lei 2021 (fixed sequences, each at a share
    of delta); cascades with a guarantee: Jung, Brahman & Choi 2024; prices: Chen, Zaharia & Zou 2023
    (FrugalGPT). The paths are ours.

    Example:
        >>> sure, yes = np.full(200, 0.9), np.ones(200, bool)
        >>> audit = Audit(sure, yes, sure, yes, yes)
        >>> three_tiers(audit, Prices(0.01, 1.0), target=0.95, delta=0.1, corpus=sure).shares
        (1.0, 0.0, 0.0)
    """
    audit, known = _checked(audit, prices), np.sort(np.asarray(corpus, np.float64))
    if known.ndim != 1 or not len(known):
        raise ValueError(f"The corpus' confidences must be (N,), N >= 1, got {known.shape}.")
    take(audit.student, audit.student_right, target, delta, on)  # checks the question
    made = paths(known, told, prices, target=target, on=on)
    found: list[tuple[float, float, float]] = []
    for path in made:
        ready = _ready(path, len(audit.student), target, delta * path.share, on)
        good = np.cumprod(pvalues(ready, audit, target, on) <= delta * path.share).astype(bool)
        for s, m in zip(ready.student[good], ready.llm[good], strict=True):
            found.append((_costs(float(s), float(m), audit, known, prices).cost, float(s), float(m)))
    asked = (target, delta, on, len(audit.student))
    if not found or min(found)[0] >= prices.person:
        more = 0 if found else _more(made[0], audit, target, delta * NOMINAL, on)
        return Tiers(NEVER, NEVER, False, (0.0, 0.0, 1.0), 0.0, prices.person, prices.person, 0, more, *asked)
    _, student, llm = min(found)
    bill = _costs(student, llm, audit, known, prices)
    return Tiers(student, llm, True, bill.shares, bill.asked, bill.cost, prices.person, bill.n, 0, *asked)


def paths(
    corpus: NDArray[np.float64], told: ArrayLike, prices: Prices, *, target: float, on: On
) -> tuple[Path, ...]:
    """The four paths of `three_tiers`, the nominal one first; `corpus` ascending."""
    other = np.sort(np.asarray(told, np.float64)) if np.size(told) else _UNKNOWN
    shares = np.linspace(0, 1, STEPS + 1)[1:]
    ranked = [
        _path(_lowest(corpus, shares), _lowest(other, shares**e), corpus, other, part)
        for e, part in BY_RANK.items()
    ]
    never = np.full(STEPS, NEVER)
    alone = _path(_lowest(corpus, shares), never, corpus, other, ALONE)
    return (_nominal(corpus, other, prices, target, on), *ranked, alone)


def pvalues(path: Path, audit: Audit, target: float, on: On) -> NDArray[np.float64]:
    """(k,) p-values of "the accuracy is not above the target", for each point of a path."""
    accepted, right = _counts(path, audit)
    if on == "everything":
        n = len(audit.student)
        return binomial_pvalue(n - (accepted - right), np.full_like(accepted, n), target)
    return binomial_pvalue(right, accepted, target)


def _counts(path: Path, audit: Audit) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    by_student = audit.student >= path.student[:, None]
    by_llm = ~by_student & audit.answered & (audit.llm >= path.llm[:, None])
    right = (by_student & audit.student_right) | (by_llm & audit.llm_right)
    return (by_student | by_llm).sum(axis=1), right.sum(axis=1)


def _lowest(ascending: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds from which about these shares of the scores lie; at 1 it is 0, whatever the scores."""
    places = ((1 - shares) * (len(ascending) - 1)).round().astype(np.int64)
    return np.where(shares >= 1, 0.0, ascending[places])


def _path(
    student: NDArray[np.float64], llm: NDArray[np.float64], corpus: NDArray[np.float64],
    told: NDArray[np.float64], share: float,
) -> Path:  # fmt: skip
    first = 1 - np.searchsorted(corpus, student) / len(corpus)
    then = 1 - np.searchsorted(told, llm) / len(told)
    return Path(student, llm, first + (1 - first) * then, share)


def _nominal(
    corpus: NDArray[np.float64], told: NDArray[np.float64], prices: Prices, target: float, on: On
) -> Path:
    """Best thresholds for every price of an error, were each confidence the probability of being right.

    At the price w an answer of confidence c is worth taking while w (1 - c - spare) is at most the price of
    what comes next: a person after the model, and the model with what it leaves to people after the student.
    """
    spare = 1 - target if on == "accepted" else 0.0  # accepted items pay in the errors that they may have
    w = prices.person * np.geomspace(1e4, 1 / (1 - spare), _SWEEP)
    left = np.minimum(w[:, None] * (1 - told - spare), prices.person).mean(axis=1)
    llm = np.clip(1 - spare - prices.person / w, 0, 1)
    student = np.clip(1 - spare - (prices.llm + left) / w, 0, NEVER)
    student = np.minimum.accumulate(student)  # strict to lax, also where a model got cheaper by its errors
    whole = _path(student, llm, corpus, told, NOMINAL)
    marks = np.linspace(whole.expected[0], whole.expected[-1], STEPS)
    rows = np.unique(np.searchsorted(whole.expected, marks).clip(0, _SWEEP - 1))
    return Path(whole.student[rows], whole.llm[rows], whole.expected[rows], NOMINAL)


def _ready(path: Path, n: int, target: float, delta: float, on: On) -> Path:
    """The path from the first point on that can be expected to pass; decided without the sample's scores."""
    first = take(np.zeros(n), np.zeros(n, bool), target, delta, on).least(delta, "binomial")
    keep = path.expected * n >= (_LOOSE * first if on == "accepted" else first)
    return Path(path.student[keep], path.llm[keep], path.expected[keep], path.share)


class _Bill(NamedTuple):
    cost: float
    shares: tuple[float, float, float]
    asked: float
    n: int


def _costs(student: float, llm: float, audit: Audit, corpus: NDArray[np.float64], prices: Prices) -> _Bill:
    first = 1 - float(np.searchsorted(corpus, student)) / len(corpus)
    rest = audit.student < student
    stands = rest & audit.answered & (audit.llm >= llm)
    then = float(stands.sum() / rest.sum()) if rest.any() else 0.0
    asked = 0.0 if llm >= NEVER else 1 - first
    people = (1 - first) * (1 - then)
    cost = prices.llm * asked + prices.person * people
    return _Bill(cost, (first, (1 - first) * then, people), asked, int((~rest).sum() + stands.sum()))


def _more(path: Path, audit: Audit, target: float, delta: float, on: On) -> int | None:
    """Labels that are missing, as if the place on the nominal path were one score for student and model."""
    by_student = audit.student >= path.student[:, None]
    taken = by_student | (audit.answered & (audit.llm >= path.llm[:, None]))
    first = np.where(taken.any(axis=0), taken.argmax(axis=0), len(path.student))
    place = np.minimum(first, len(path.student) - 1)
    right = np.where(by_student[place, np.arange(len(first))], audit.student_right, audit.llm_right)
    scores = 1 - first / (len(path.student) + 1)
    found = fixed_sequence(scores, right & (first < len(path.student)), target=target, delta=delta, on=on)
    return found.more if found.threshold is None else 1  # so near that the first step alone was too strict


def _checked(audit: Audit, prices: Prices) -> Audit:
    shape = np.shape(audit.student)
    if any(np.shape(column) != shape for column in audit) or len(shape) != 1:
        raise ValueError(f"The audit's columns must all be (n,), got {[np.shape(c) for c in audit]}.")
    if not (math.isfinite(prices.llm) and math.isfinite(prices.person) and prices.person > 0 <= prices.llm):
        raise ValueError(f"Prices must be finite, the model's at least 0 and a person's above, got {prices}.")
    answered = np.asarray(audit.answered, bool)
    llm = np.where(answered, np.asarray(audit.llm, np.float64), 0.0)
    if not ((llm >= 0) & (llm <= 1)).all():
        raise ValueError("The model's confidences must lie in [0, 1].")
    right = np.asarray(audit.llm_right, bool) & answered
    return Audit(
        np.asarray(audit.student, np.float64), np.asarray(audit.student_right, bool), llm, right, answered
    )
