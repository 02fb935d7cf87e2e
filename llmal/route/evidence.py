"""What a router sees: the items to route, and what people's answers say about machines."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.answers import best
from llmal.audit import counts_since, known_answers
from llmal.records import Annotation, Labels, LabelSchema
from llmal.route.model import Model, answers_of, look
from llmal.store import schema as t
from llmal.store.store import Store


class Case(NamedTuple):
    """One item as a router sees it.

    Attributes:
        item: its `seq`.
        labels, confidence: the student's answer and its probability of being right.
        annotation: the accepted annotation, or None.
        learnt: whether the student learnt from the item and its confidence is what it remembers; never with
            `train.folds`, whose predictions are those of students that did not see it.
        llm: the annotator's answer with a label, whether it may train or not, its confidence as it gave it:
            a calibrated one would rest on the answers that a promise is tested with. None where there is
            none, or the router does not use it.
    """

    item: int
    labels: Labels
    confidence: float
    annotation: Annotation | None
    learnt: bool = False
    llm: Annotation | None = None


class Audited(NamedTuple):
    """An audit item as a new item of the corpus would be seen, and what people say of it.

    Attributes:
        case: without an accepted annotation, and not learnt from.
        answer: people's.
    """

    case: Case
    answer: Labels


class Evidence(NamedTuple):
    """What a router may rest a promise on.

    Attributes:
        schema: the classes.
        audited: audit items that people answered, by item; a random sample, never learnt from.
        reserved: items of the corpus in the audit sample, answered or not.
        issue: number that a test made now would have in this run, from 1.
        scores: (m,) float64, the student's confidence of items of the corpus that are neither learnt from
            nor of the audit sample, in order of item.
        outside: items of the corpus whose accepted annotation stands because the student learnt from them.
        taken: items no longer among the rest of the corpus because they were picked: those of `outside`, and
            those that people answered but for audit items.
        withdrawn: why the run's last promise ended, where no audit item has been reserved since that counts.
        model: what is known of the annotator, for a router that uses `llm`.
    """

    schema: LabelSchema
    audited: tuple[Audited, ...] = ()
    reserved: int = 0
    issue: int = 1
    scores: NDArray[np.float64] = np.zeros(0)
    outside: int = 0
    taken: int = 0
    withdrawn: str = ""
    model: Model = Model()


class Sources(NamedTuple):
    """Where the store holds what routes follow from: names of facts.

    Attributes:
        predictions: of the final student, or those out of sample where there are.
        annotations: of the annotator.
        decisions: the filter's word on them.
        out_of_sample: whether the predictions of learnt items are by students that did not see them.
        vectors: of the items.
        peeked: what else of the run looked at people's answers on audit items, in words; empty for nothing.
    """

    predictions: str
    annotations: str
    decisions: str
    out_of_sample: bool = False
    vectors: str = ""
    peeked: str = ""


def learnt_from(store: Store, sources: Sources) -> set[int]:
    """Items whose prediction is in sample because their annotation taught the student."""
    if sources.out_of_sample:
        return set()
    accepted = {s for s, d in store.decisions(sources.decisions).items() if d.verdict == "accept"}
    return accepted - store.reserved()


def confidences(probs: NDArray[np.floating], schema: LabelSchema) -> NDArray[np.float64]:
    """(n,) how sure the student is of each whole answer: `answers.best` for many rows of (n, C)."""
    sure = probs.max(axis=1) if schema.kind == "single" else np.maximum(probs, 1 - probs).min(axis=1)
    return np.asarray(sure, np.float64)


def evidence_for(
    store: Store, sources: Sources, *, schema: LabelSchema, answered: Collection[int], llm: bool = False
) -> Evidence:
    """Everything the store holds of the evidence; see `Evidence`.

    Args:
        store: of the run.
        sources: names of what is read.
        schema: the classes.
        answered: items that people answered.
        llm: fill `Case.llm` of the audited items, and `model`.
    """
    since = counts_since(store)
    active, reserved = store.active(), set(store.audit(since))
    known = known_answers(store, schema, since=since)
    table = store.load(sources.predictions)
    said = answers_of(store, sources.annotations) if llm else {}
    items = sorted(known)
    audited = tuple(
        Audited(Case(s, *best(row, schema), None, llm=said.get(s)), known[s])
        for s, row in zip(items, np.asarray(table[items]), strict=True)
    )
    learnt = learnt_from(store, sources)
    rest = [s for s in active if s not in learnt and s not in answered]
    held = store.reserved()
    free = np.asarray(table[[s for s in rest if s not in held]])
    here = reserved.intersection(active)
    why = store.read(t.withdrawal.select().order_by(t.withdrawal.c.at.desc()).limit(1))
    return Evidence(
        schema,
        audited,
        reserved=len(here),
        issue=1 + store.issues(),
        scores=confidences(free, schema) if len(free) else np.zeros(0),
        outside=len(learnt.difference(answered).intersection(active)),
        taken=len(learnt.union(answered).difference(held).intersection(active)),
        withdrawn=str(why[0].reason) if why and not here else "",
        model=look(store, sources.annotations, known) if llm else Model(),
    )
