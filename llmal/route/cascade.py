"""Three tiers with a promise: the student first, then the model, then a person, at the least cost."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from llmal.records import Route
from llmal.route.promise import Tier
from llmal.route.stage import Bar, Case, Evidence, Promise, Router
from llmal.route.words import untested
from llmal.stats.bounds import alpha_spending, labels_needed
from llmal.stats.certificate import On
from llmal.stats.tiers import NEVER, NOMINAL, Audit, Prices, Tiers, three_tiers

TIERS: tuple[Tier, Tier] = ("student", "llm")
"""The machines, in the order in which they may answer."""

LOCAL_USD = 1e-4
"""Dollars an answer of a model on one's own machine, with `llm: auto`: 10,000 answers for an hour at $1."""


class Price(BaseModel):
    """What an answer costs, in dollars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    llm: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        "auto", description="of the model; auto: the mean of this run's answers, 0.0001 where they were free"
    )
    person: float = Field(0.1, gt=0, allow_inf_nan=False, description="of a person; 20 s at $18 an hour")


class Cascade(Router):
    """The student answers what it is sure of, the model what it is sure of of the rest, people what is left.

    Both thresholds are chosen together, so that the expected cost is least among all pairs whose accuracy
    the audit sample certifies: with probability 1 - delta it is at least the target. The run asks the model
    about every item that the student leaves to it and that has no answer yet, and routes it by the same
    thresholds. The model's confidence is taken as it gives it: a calibrated one would be fitted on the very
    answers that the promise is tested with. Needs `audit: {annotate: true}`: the model has to answer audit
    items too. Where the budget ends people answer the rest, and a promise about the items accepted is about
    all that machines were meant to answer. Items that the student learnt from keep the answer that taught
    it, outside the promise, unless `train.folds` predicts them out of sample. An annotator that changes as
    answers come (freeal, panel, demonstrations) is taken to be the one that answered the audit items.
    Source: fixed sequences at shares of delta, Angelopoulos, Bates, Candes, Jordan & Lei 2021; certified
    cascades: Jung, Brahman & Choi 2024; see `llmal.stats.tiers`.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"audited", "llm"})

    target: float = Field(0.95, gt=0, lt=1, description="accuracy against people that is promised")
    delta: float = Field(
        0.1, gt=0, lt=0.5, description="probability that any promise of the run may be broken"
    )
    on: On = Field(
        "accepted", description="accepted: among items machines answer; everything: people's answers included"
    )
    price: Price = Field(Price(), description="dollars an answer, {llm: auto, person: 0.1}")

    def promise(self, evidence: Evidence) -> Promise:
        """Thresholds for the student and the model, from the audited items."""
        n, spent = len(evidence.audited), alpha_spending(self.delta, evidence.issue)
        none = Promise(self.name, self.target, self.delta, self.on, audited=n)
        if missing := evidence.model.unasked:
            words = f"Cannot certify: the model was not asked about {missing} of {n} audited items yet."
            return none._replace(words=words)
        fewest = labels_needed(1.0, self.target, spent * NOMINAL) or 1
        if evidence.withdrawn or n < fewest or not len(evidence.scores):
            none = none._replace(more=max(1, fewest - n))
            return none._replace(words=untested(none, evidence, fewest))
        prices, audit = Prices(self._llm_usd(evidence), self.price.person), _audit(evidence)
        corpus, told = evidence.scores, evidence.model.told
        ask = partial(three_tiers, audit, prices, target=self.target, on=self.on, corpus=corpus, told=told)
        made = ask(delta=spent)
        if made.more:  # what is needed is what the next test needs, which is stricter
            made = made._replace(more=ask(delta=alpha_spending(self.delta, evidence.issue + 1)).more)
        first = audit.student >= made.student
        then = ~first & audit.answered & (audit.llm >= made.llm)
        return none._replace(
            bars=(_bar("student", made.student, first), _bar("llm", made.llm, then)),
            issue=evidence.issue,
            spent=spent,
            n=made.n,
            coverage=made.n / n,
            bound=self.target if made.certified else 0.0,
            more=made.more,
            outside=evidence.outside,
            words=" ".join([made._replace(delta=self.delta).words, *self._behind(made, evidence, spent)]),
        )

    def asks(self, cases: list[Case], promise: Promise | None) -> list[int]:
        """Items the model has to be asked about, those the student is surest of first."""
        bar = promise.threshold("llm", ()) if promise is not None else None
        if promise is None or bar is None:
            return []
        student = promise.threshold("student", ())
        sure = NEVER if student is None else student
        left = [c for c in cases if c.llm is None and not c.learnt and c.confidence < sure]
        return [c.item for c in sorted(left, key=lambda c: (-c.confidence, c.item))]

    def route(self, cases: list[Case], promise: Promise | None = None) -> list[Route]:
        """One route for each case, in order."""
        return [self._route(case, promise) for case in cases]

    def _route(self, case: Case, promise: Promise | None) -> Route:
        a, said = case.annotation, f"student probability {case.confidence:.3f}"
        if a is not None and case.learnt:
            return Route(
                case.item, "llm", a.labels, a.confidence, "an accepted annotation, it was learnt from"
            )
        to_person = Route(case.item, "person", case.labels, case.confidence, f"{said}; nothing is certified")
        if promise is None or not promise.holds:
            return to_person
        first, then = (promise.threshold(tier, ()) for tier in TIERS)
        if first is not None and case.confidence >= first:
            return to_person._replace(who="student", reason=f"{said} >= {first:.3f}, as certified")
        short = f"{said}, which is never certified" if first is None else f"{said} < {first:.3f}"
        if then is None:
            return to_person._replace(reason=f"{short}; the model is not asked")
        if case.llm is None:
            return to_person._replace(reason=f"{short}; there is no answer of the model")
        sure = _confidence(case)
        if sure < then:
            return to_person._replace(reason=f"{short}; the model's confidence {sure:.3f} < {then:.3f}")
        reason = f"{short}; the model's confidence {sure:.3f} >= {then:.3f}, as certified"
        return Route(case.item, "llm", case.llm.labels, sure, reason)

    def _behind(self, made: Tiers, evidence: Evidence, spent: float) -> list[str]:
        """What stands behind the promise: its price, the test, and the items that it is not about."""
        words = (
            [f"An item costs ${made.cost:.4f}, by people alone ${made.alone:.4f}."] if made.certified else []
        )
        words.append(f"Test number {evidence.issue} of this run, at {spent:.2%}.")
        if evidence.outside:
            words.append(f"{evidence.outside} items the student learnt from are outside the promise.")
        return words

    def _llm_usd(self, evidence: Evidence) -> float:
        if self.price.llm == "auto":
            return evidence.model.usd or LOCAL_USD
        return self.price.llm


def _audit(evidence: Evidence) -> Audit:
    cases = [one.case for one in evidence.audited]
    truth = [set(one.answer) for one in evidence.audited]
    by_student = [set(c.labels) == said for c, said in zip(cases, truth, strict=True)]
    by_llm = [c.llm is not None and set(c.llm.labels) == said for c, said in zip(cases, truth, strict=True)]
    return Audit(
        np.array([c.confidence for c in cases], np.float64),
        np.array(by_student, np.bool_),
        np.array([_confidence(c) for c in cases], np.float64),
        np.array(by_llm, np.bool_),
        np.array([c.llm is not None for c in cases], np.bool_),
    )


def _bar(tier: Tier, threshold: float, mine: NDArray[np.bool_]) -> Bar:
    return Bar(tier, None, None if threshold >= NEVER else threshold, int(mine.sum()), float(mine.mean()))


def _confidence(case: Case) -> float:
    """As the model gave it; the answers of one that gives none stand or fall together."""
    return 0.0 if case.llm is None or case.llm.confidence is None else case.llm.confidence
