"""What the export promises about answers, and from which confidence each tier may give one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.annotate.llm import Llm
from llmal.errors import UserError
from llmal.records import Labels
from llmal.route.promise import Promise, Tier, of_facts


class Reference(NamedTuple):
    """What the student said of the calibration sample: (n,) scores and (n, C) labels, bool."""

    scores: NDArray[np.float64]
    labels: NDArray[np.bool_]


class Terms(NamedTuple):
    """Under which terms answers are given.

    Attributes:
        promise: the run's certificate; None where it has none, or none that certifies anything.
        threshold: from which student confidence the run asked no person, where nothing is promised.
        reference: for the watch over drift; None where the export has none.
        words: what is promised, for people.
        ended: why the promise was withdrawn before it was exported, or nothing.
        partial: why the promise does not cover what is served though it stands, or nothing.
    """

    promise: Promise | None
    threshold: float | None
    reference: Reference | None
    words: str
    ended: str = ""
    partial: str = ""

    def bar(self, tier: Tier, labels: Labels) -> float | None:
        """From which confidence this answer of a tier stands; None: it never does, or nothing says."""
        if self.promise is not None:
            return self.promise.threshold(tier, labels)
        return self.threshold if tier == "student" else None

    def without(self, llm: Llm | None, batch: int) -> Terms:
        """The terms where the language model is not asked, or not as the run asked it.

        A promise about what all machines answer together says nothing about the student alone; one about
        everything does, for people's answers are as good as any.

        Args:
            llm: as it is asked here; None where it is not.
            batch: texts a prompt in the run.
        """
        if self.promise is None or not self.promises_llm:
            return self
        if llm is None and self.promise.on == "accepted":
            return self._replace(
                partial="the promise is about student and language model together: add --llm"
            )
        if llm is not None and batch > 1:
            return self._replace(partial="the promise is about prompts with several texts, here each has one")
        return self

    @property
    def promises_llm(self) -> bool:
        """Whether the certificate is also about the language model's answers."""
        bars = self.promise.bars if self.promise is not None else ()
        return any(bar.tier == "llm" and bar.threshold is not None for bar in bars)


def terms_of(about: dict[str, Any], *, where: str) -> Terms:
    """The terms that `llmal.json` states.

    Args:
        about: its content; `certificate` holds the facts of a promise, `reference` what the student said of
            the calibration sample, `threshold` the plain threshold of a run without a certificate.
        where: for messages.

    Raises:
        UserError: one of them is not what an export writes.
    """
    try:
        facts = about.get("certificate")
        promise = of_facts(facts) if facts else None
        ended = str(facts.get("withdrawn") or "") if facts else ""
        reference = _reference(about.get("reference"), len(about["labels"]))
        threshold = None if about["threshold"] is None else float(about["threshold"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "the certificate in llmal.json cannot be read", where=where, hint="Export it again"
        ) from error
    if promise is not None and promise.holds:
        return Terms(promise, None, reference, promise.words, ended)
    words = promise.words if promise is not None else "Nothing is promised: the run has no certificate."
    return Terms(None, threshold if promise is None else None, reference, words, ended)


def _reference(given: Any, n_classes: int) -> Reference | None:
    """Of `{"confidence": [...], "labels": [[column, ...], ...]}`."""
    if not given or not given["confidence"]:
        return None
    scores = np.asarray(given["confidence"], np.float64)
    table = np.zeros((len(scores), n_classes), bool)
    if scores.ndim != 1 or len(given["labels"]) != len(scores) or not np.isfinite(scores).all():
        raise ValueError("confidences and labels of different length")
    for row, columns in zip(table, given["labels"], strict=True):
        row[np.asarray(columns, np.int64)] = True
    return Reference(scores, table)
