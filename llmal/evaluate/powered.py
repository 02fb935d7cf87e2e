"""Measures that lean on machine answers to all items, corrected by people's: classes, accuracy and F1.

The audit sample is a random sample of the whole corpus, and the student never learnt from it. The other items
are not alike: some were picked, mostly hard ones, and the student learnt from those. Counting its word on
them counts what it knows by heart; leaving them out leaves the easy ones. So the student stands in for people
in two cases only: where every item it learnt from is predicted by students without that item (`train.folds`),
and then on all items; or where it learnt from next to nothing of the corpus (`FEW`), and then on all others.
A student that learns from texts without labels, too, has seen all but the audit sample: it never does. An
annotator that was asked about every item, the audit sample too, stands in for people about classes.

Measured by `tests/unit/evaluate/test_powered.py` in a made-up corpus of three classes: 1,000 runs that pick
400 or 600 of 1,000 items, 5 folds and 100 answers. Intervals of 95 % held in 93.7 to 96.4 %; those of class
shares were 0.6 to 0.8 times as wide as people's alone, that of accuracy 0.92. With the items learnt from left
out intervals of shares and accuracy held in 2 to 24 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import MULTI_FROM
from llmal.records import Labels, LabelSchema
from llmal.stats.intervals import Estimate, wilson
from llmal.stats.powered import Powered, share
from llmal.stats.powered_quality import per_class

FEW = 0.1
"""What the student learnt from may be left out while its share of the corpus times the root of the number of
people's answers is at most this: that moves a mean by about an eighth of the standard error of people's
answers, and by a third if all of it were of one kind and nothing else was."""

MOST = 50_000
"""Items without people's answer that are looked at, random ones of more: beyond that nothing narrows."""

Floats = NDArray[np.float64]
Found = dict[str, tuple[Estimate, str]]
"""Measure -> its estimate, and in words how it was made."""


class Guess(NamedTuple):
    """What a machine says about the audit sample, and about other items that stand for the corpus.

    Attributes:
        audit: (n, C) in [0, 1], chance of each label, or 1 for each label given.
        rest: (N, C), of items without people's answer.
        words: who says so.
    """

    audit: Floats
    rest: Floats
    words: str


def rest_of(
    active: Iterable[int],
    audit: Iterable[int],
    learnt: Iterable[int],
    *,
    n: int,
    crossfit: bool,
    rng: np.random.Generator,
) -> NDArray[np.int64] | None:
    """Items whose predictions stand for the corpus beside the audit sample; None where none do.

    Args:
        active: items of the corpus.
        audit: the audit sample.
        learnt: items that the student learnt from.
        n: people's answers.
        crossfit: whether those are predicted by students without them.
        rng: for a sample where there are more than `MOST`.
    """
    corpus = set(active)
    known = corpus & set(learnt)
    if not crossfit and len(known) * math.sqrt(n) > FEW * len(corpus):
        return None
    rest = np.array(sorted(corpus - set(audit) - (set() if crossfit else known)), np.int64)
    return np.sort(rng.choice(rest, MOST, replace=False)) if len(rest) > MOST else rest


def prevalence(gold: Floats, guess: Guess | None, schema: LabelSchema) -> Found:
    """How common each label is in the corpus: `prevalence[label]`.

    Args:
        gold: (n, C) ones where people gave a label.
        guess: a machine's word, or None: then people's answers alone, with Wilson's interval.
        schema: the classes.
    """
    found: Found = {}
    n = len(gold)
    for label, c in schema.columns().items():
        words = f"people's {n} audit answers alone"
        estimate = wilson(int(gold[:, c].sum()), n)
        if guess is not None and n >= 2:
            powered = share(gold[:, c], guess.audit[:, c], guess.rest[:, c])
            estimate, words = _plain(powered), _words(powered, guess)
        found[f"prevalence[{label}]"] = estimate, words
    return found


def quality(gold: Floats, student: Guess, guess: Guess, schema: LabelSchema) -> Found:
    """`accuracy.powered`, and `f1[label].powered` of every class that the sample holds.

    The value of accuracy is about new items: those that the student learnt from count with what students
    without them say.

    Args:
        gold: (n, C) ones where people gave a label.
        student: its probabilities; those of `rest` without having learnt from the item.
        guess: who stands in for people: the annotator, or the student's own probabilities.
        schema: the classes.
    """
    multi = schema.kind == "multi"
    said, said_rest = _given(student.audit, multi), _given(student.rest, multi)
    right = (said == gold).all(axis=1).astype(np.float64)
    sure, sure_rest = (_agreed(table, own, multi) for table, own in
                       ((guess.audit, said), (guess.rest, said_rest)))  # fmt: skip
    powered = share(right, sure, sure_rest)
    found: Found = {"accuracy.powered": (_plain(powered), _words(powered, guess))}
    for label, c in schema.columns().items():
        one = slice(c, c + 1)
        f1 = per_class(
            gold[:, one], said[:, one], guess.audit[:, one], said_rest[:, one], guess.rest[:, one], 1
        )[0].f1
        if f1 is not None:
            found[f"f1[{label}].powered"] = _plain(f1), _words(f1, guess)
    return found


def priors(
    said: Mapping[int, Labels], taught: Mapping[int, Labels], audit: Iterable[int], schema: LabelSchema
) -> Found:
    """How common each label is among the annotator's answers and among what the student learnt from.

    Both are counts, and stand beside `prevalence[label]`. A class twice as common there as in the corpus came
    in by the annotator's errors, by the picks, or by the filter. Where the annotator answered audit items,
    its share among those has an interval and compares with people's straight away: no pick is in it.

    Args:
        said: item -> labels of the annotator.
        taught: item -> labels that the final student learnt.
        audit: the audit items that are measured on.
        schema: the classes.
    """
    drawn = [said[s] for s in audit if s in said]
    found = {}
    if drawn:
        found = {
            f"prior.annotator[{label}]": (
                wilson(sum(label in labels for labels in drawn), len(drawn)),
                f"the annotator's answers to {len(drawn)} audit items",
            )
            for label in schema.names
        }
    elif said:
        found = _counted(
            "annotator", list(said.values()), "answers of the annotator, none of audit items", schema
        )
    return found | (
        _counted("taught", list(taught.values()), "labels the student learnt", schema) if taught else {}
    )


def _counted(who: str, labels: list[Labels], what: str, schema: LabelSchema) -> Found:
    n = len(labels)
    counts = {name: sum(name in some for some in labels) / n for name in schema.names}
    return {
        f"prior.{who}[{name}]": (Estimate(v, v, v, n), f"counted: all {n} {what}")
        for name, v in counts.items()
    }


def _given(probs: Floats, multi: bool) -> Floats:
    """(n, C) ones for the answer that probabilities stand for, as `llmal.answers.best` has it."""
    if multi:
        return np.asarray(probs >= MULTI_FROM, np.float64)
    return np.asarray(probs.argmax(axis=1)[:, None] == np.arange(probs.shape[1]), np.float64)


def _agreed(table: Floats, own: Floats, multi: bool) -> Floats:
    """(n,) how likely all labels of the answer are meant, going by a table of chances or of ones."""
    meant = np.where(own > 0, table, 1 - table)
    return np.asarray(meant.min(axis=1) if multi else (table * own).sum(axis=1), np.float64)


def _plain(found: Powered) -> Estimate:
    return Estimate(found.value, found.low, found.high, found.n)


def _words(found: Powered, guess: Guess) -> str:
    if found.lam == 0:
        return f"people's {found.n} audit answers alone; {guess.words} adds nothing"
    return (
        f"prediction-powered: people's {found.n} audit answers and {guess.words} on {found.rest} more items; "
        f"worth {found.worth:.0f} answers"
    )
