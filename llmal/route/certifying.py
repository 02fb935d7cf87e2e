"""What routers that certify the student have in common: from an audit sample to bars, words and routes."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from llmal.errors import SpecError
from llmal.records import LabelSchema, Route
from llmal.route.stage import Bar, Case, Evidence, Promise, Router
from llmal.route.words import untested, words_of
from llmal.stats.bounds import alpha_spending
from llmal.stats.certificate import Certificate, On
from llmal.stats.certify import STEPS, certify_classes

Floats = NDArray[np.float64]
Truth = NDArray[np.bool_]


class Certifying(Router):
    """Routes to the student what a certificate allows, and everything else to people.

    **What is promised**: with probability 1 - `delta`, over all promises of a run, accuracy among what the
    student answers is at least `target`, for a random text from where the corpus came from that the student
    has not learnt from. Audit items are such texts: drawn before anything was chosen, never taught, answered
    here by the student alone even where an annotator was asked about them.

    **What it leaves out**: an item that taught the student keeps the annotation that taught it, and is not
    what the promise is about; with `train.folds` such items are predicted by students that did not see them,
    and the bar is theirs too. What a strategy picked is no longer among the rest, so the rest is easier than
    a random text where it picked hard ones, and harder where it picked easy ones. At worst, errors among the
    accepted rest rise by as many parts as the picked items are of it; the words of the promise say so where
    it matters. People must answer the audit items they get, not those they like.

    Every refit is a new test on the same sample, and so is every new answer. The k-th spends
    delta / (k (k + 1)), so answer the whole audit sample before running again. So few answers that none
    could pass spend nothing. Strictly the number of answers must not hang on what they say; who always
    answers as many more as the words ask for, and tests again, up to six times, was promised too much in 6
    and 7 of 100 runs at delta 0.1 (600 runs, accuracy 0.002 and 0.0001 below the target). The promise is
    withdrawn when texts come that no longer look like those the sample was drawn from
    (`llmal.route.drift`). Answers that contradict it need no alarm: they are a new test, and it fails.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"audited"})

    target: float = Field(0.95, gt=0, lt=1, description="accuracy against people that is promised")
    delta: float = Field(
        0.1, gt=0, lt=0.5, description="probability that any promise of the run may be broken"
    )
    on: On = Field(
        "accepted",
        description="accepted: among items the student answers; everything: people's answers included",
    )
    per_class: bool = Field(False, description="a bar and a promise for each label the student may answer")

    def refuse_other_kinds(self, schema: LabelSchema) -> None:
        """Raise SpecError where a bar for each label is asked for and a text may have several."""
        if self.per_class and schema.kind != "single":
            raise SpecError(["route: per_class is for labels.kind: single; leave it out"])

    @abstractmethod
    def fewest(self, delta: float) -> int:
        """Audited items that can pass the test at this delta when all are right."""

    @abstractmethod
    def certify(self, scores: Floats, right: Truth, *, delta: float, grid: Floats | None) -> Certificate:
        """The certificate of a sample; the grid holds thresholds fixed without it, where there are any."""

    def promise(self, evidence: Evidence) -> Promise:
        """The bars that the audited items certify."""
        n, spent = len(evidence.audited), alpha_spending(self.delta, evidence.issue)
        made = Promise(self.name, self.target, self.delta, self.on, audited=n, outside=evidence.outside)
        classes = np.array([_class(one.case, evidence.schema) for one in evidence.audited], np.int64)
        groups = len(evidence.schema.labels) if self.per_class else 1
        most = int(np.bincount(classes, minlength=1).max()) if self.per_class else n
        fewest = self.fewest(spent / groups)
        if evidence.withdrawn or most < fewest:
            made = made._replace(more=math.ceil(fewest * max(1, n) / max(1, most)) - n)
            return made._replace(words=untested(made, evidence, fewest))
        made = made._replace(issue=evidence.issue, spent=spent)
        scores = np.array([one.case.confidence for one in evidence.audited], np.float64)
        right = np.array([set(one.case.labels) == set(one.answer) for one in evidence.audited], np.bool_)
        made = self._by_class(made, evidence, scores, right, classes) if self.per_class else (
            self._for_all(made, evidence, scores, right)
        )  # fmt: skip
        return made._replace(words=words_of(made, evidence))

    def _for_all(self, made: Promise, evidence: Evidence, scores: Floats, right: Truth) -> Promise:
        grid = grid_of(evidence.scores)
        found = self.certify(scores, right, delta=made.spent, grid=grid)
        more = found.more
        if found.threshold is None:  # what is needed is what the next test needs, which is stricter
            later = alpha_spending(self.delta, evidence.issue + 1)
            more = self.certify(scores, right, delta=later, grid=grid).more
        return made._replace(
            bars=(Bar("student", None, found.threshold, found.n, found.coverage),),
            n=found.n,
            coverage=found.coverage,
            bound=found.bound,
            more=more,
            expected=found.expected,
            spent=0.0 if found.expected else made.spent,
            at_worst=self._at_worst(evidence, found.threshold),
        )

    def _at_worst(self, evidence: Evidence, threshold: float | None) -> float | None:
        rest = 0 if threshold is None else int((evidence.scores >= threshold).sum())
        if not rest or self.on != "accepted":
            return None
        return max(0.0, 1 - (1 - self.target) * (1 + evidence.taken / rest))

    def _by_class(
        self, made: Promise, evidence: Evidence, scores: Floats, right: Truth, classes: NDArray[np.int64]
    ) -> Promise:
        names, grid, n = evidence.schema.names, grid_of(evidence.scores), len(scores)

        def one(
            scores: ArrayLike, right: ArrayLike, *, target: float, delta: float, on: On = "accepted"
        ) -> Certificate:
            return self.certify(np.asarray(scores), np.asarray(right), delta=delta, grid=grid)

        found = certify_classes(
            scores, right, classes, len(names), target=self.target, delta=made.spent, on=self.on,
            certifier=one,
        )  # fmt: skip
        held = [c for c in found if c and c.threshold is not None]
        # A class's labels come with those of all others: so many audit items bring one of its own.
        needs = [math.ceil(c.more * n / c.audited) for c in found if c and c.more]
        accepted = sum(c.n for c in held)
        return made._replace(
            bars=tuple(
                Bar("student", name, c.threshold, c.n, c.n / n) if c else Bar("student", name, None)
                for name, c in zip(names, found, strict=True)
            ),
            n=accepted,
            coverage=accepted / n,
            bound=min((c.bound for c in held), default=0.0),
            more=0 if held else min(needs, default=None),
            expected=any(c.expected for c in held),
        )

    def route(self, cases: list[Case], promise: Promise | None = None) -> list[Route]:
        """One route for each case, in order."""
        return [self._route(case, promise) for case in cases]

    def _route(self, case: Case, promise: Promise | None) -> Route:
        a = case.annotation
        if case.learnt and a is not None:
            why = "an accepted annotation; the student learnt from it"
            return Route(case.item, "llm", a.labels, a.confidence, why)
        said = f"student probability {case.confidence:.3f}"
        bar = promise.threshold("student", case.labels) if promise is not None else None
        if bar is None:
            return Route(case.item, "person", case.labels, case.confidence, f"{said}; nothing is certified")
        sure = case.confidence >= bar
        reason = f"{said} {'>=' if sure else '<'} {bar:.3f}, certified for {self.target:.1%}"
        return Route(case.item, "student" if sure else "person", case.labels, case.confidence, reason)


def grid_of(scores: Floats, steps: int = STEPS) -> Floats | None:
    """(steps,) thresholds from the corpus's own confidences, at even shares of it, and 0; None for too few.

    Each is the confidence of an item, so that equal ones stay together; none is of the audit sample, so that
    they were fixed without it.
    """
    if len(scores) < steps:
        return None
    return np.append(np.quantile(scores, np.linspace(0, 1, steps)[1:], method="lower"), 0.0)


def _class(case: Case, schema: LabelSchema) -> int:
    return schema.names.index(case.labels[0]) if schema.kind == "single" else 0
