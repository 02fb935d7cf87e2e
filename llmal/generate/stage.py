"""The generate stage: the protocol of a generator, the loop around it, and what of its texts may teach."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.context import Context
from llmal.errors import BudgetSpent
from llmal.generate import facts
from llmal.generate.facts import Known, Names
from llmal.generate.guard import Measuring, leaks
from llmal.generate.weakness import ClassScore, lowest
from llmal.plugins import Plugin
from llmal.records import Annotation, Labels, LabelSchema, Tally
from llmal.store.store import Store

if TYPE_CHECKING:
    from llmal.lm.asker import Asker
    from llmal.lm.wire import Message

FEWEST = 20
"""Items to measure on, below which a loss says nothing: its standard error is then about 0.2."""


class Draft(NamedTuple):
    """A text as a generator wrote it: the labels it was written for, or why it is not as asked."""

    text: str
    labels: Labels = ()
    wrong: str = ""


class Shown(NamedTuple):
    """A labelled text the student may learn from, beside what the student said of it unseen."""

    text: str
    labels: Labels
    said: Labels


class Look(NamedTuple):
    """What a generator sees of a student.

    Attributes:
        schema: the classes.
        report: a line a class, on the items that measure; their texts are never shown.
        right: texts the student got right, drawn at random.
        wrong: texts it got wrong, drawn at random.
        hard: texts it got wrong although it was sure, the surest first.
    """

    schema: LabelSchema
    report: list[ClassScore]
    right: list[Shown]
    wrong: list[Shown]
    hard: list[Shown]


class Pen(NamedTuple):
    """How a generator asks a model: through the run's ledger; and the run's key for fences."""

    ask: Callable[[Asker, Sequence[Sequence[Message]], float], list[str | None]]
    secret: bytes


class Generator(Plugin):
    """Writes new labelled texts from which a student would learn what it lacks.

    The stage does the rest for every generator: the loop and its stop, the guards, and the share.

    Contract (tested for every generator): an answer of any form gives drafts, never an exception; a draft has
    labels of the schema or says what is wrong; nothing is asked but through the pen.
    """

    group: ClassVar[str] = "generate"

    texts: int = Field(320, ge=1, description="most written texts that teach")
    loops: int = Field(
        10, ge=1, le=100, description="times texts are asked for; the student is fitted after each"
    )
    each: int = Field(32, ge=1, le=200, description="texts asked for in one loop")
    patience: int = Field(
        5, ge=1, description="loops without a lower loss on the validation part after which it ends"
    )
    share: float = Field(0.3, gt=0, le=0.5, description="most of the training rows that may be written texts")
    validation: float = Field(
        0.2, ge=0.05, le=0.5, description="share of the labelled items that measure, and are never shown"
    )
    alike: float = Field(0.95, gt=0, le=1, description="cosine above which a text repeats one there is")
    shown: int = Field(
        16, ge=1, le=100, description="texts of each kind shown: right, wrong, wrong though sure"
    )

    # How much is written, not what: raising one of these goes on from the texts there are.
    not_in_recipe: ClassVar[frozenset[str]] = frozenset(
        {"texts", "loops", "each", "patience", "share", "validation"}
    )

    @abstractmethod
    def write(self, look: Look, n: int, pen: Pen) -> list[Draft]:
        """Up to n texts; more are not read."""


class Bench(NamedTuple):
    """What the loop works with, from other stages.

    Attributes:
        learn: items and their labels -> a student, as items -> (n, C) probabilities.
        embed: gives every item of the store that has none a vector.
        label: asks the pipeline's annotator about items, who is not told what they were written for.
        pen: for the generator.
    """

    learn: Callable[[list[int], list[Labels]], Callable[[list[int]], NDArray[np.floating]]]
    embed: Callable[[], object]
    label: Callable[[list[int]], dict[int, Annotation]]
    pen: Pen


def used(generator: Generator, store: Store, names: Names, known: Known) -> dict[int, Labels]:
    """Written texts that teach: those up to the best loop, by item; none before a loop was measured."""
    losses = [one.loss for one in facts.measured(store, names.measures)]
    return usable(generator, store, names, known, upto=lowest(losses)) if losses else {}


def usable(
    generator: Generator,
    store: Store,
    names: Names,
    known: Known,
    *,
    upto: int,
    against: Measuring | None = None,
) -> dict[int, Labels]:
    """Texts of the loops 1 to `upto` that may teach now, in the order written, within share and number.

    What is near a text that measures is left out anew each time: the audit sample may have grown since.
    `against` is `facts.measuring` where it is at hand.
    """
    active = set(store.active())
    good = [
        one
        for one in facts.written(store, names.texts)
        if one.loop <= upto and one.verdict == "accept" and one.item is not None and one.item not in active
    ]
    if not good:
        return {}
    seqs = [one.item for one in good if one.item is not None]
    vectors = np.asarray(store.load(names.vectors)[seqs])
    measuring = against or facts.measuring(store, names.vectors, known)
    lost = leaks([one.text for one in good], vectors, measuring, cosine=generator.alike)
    kept = [(s, one.labels) for s, one, leak in zip(seqs, good, lost, strict=True) if not leak]
    return dict(kept[: most(generator, len(known.items))])


def most(generator: Generator, n: int) -> int:
    """Written texts that may stand beside n labelled items."""
    return min(generator.texts, int(generator.share / (1 - generator.share) * n + 1e-9))


def run(
    generator: Generator, store: Store, ctx: Context, *, schema: LabelSchema, names: Names, known: Known,
    bench: Bench,
) -> Tally:  # fmt: skip
    """Loop: measure a student, have texts written where it is weak, have them labelled blind, fit again.

    A loop whose texts are in the store is not asked again, also when labels have changed since; a student
    that was measured on the same data is not fitted again. Ends at the last loop, when the loss has not
    fallen for `patience` loops, or when no more texts may be added.

    Args:
        generator: who writes.
        store: of the run.
        ctx: shared context.
        schema: the classes.
        names: of the facts made here.
        known: the labelled items, in their two parts.
        bench: student, encoder, annotator and pen.

    Returns:
        Texts asked for and new facts about texts; the note says what the loops came to.

    Raises:
        ModelError, Interrupted: from the transport; every answer is kept.
    """
    from llmal.generate.loop import Work

    n = len(known.validate[0])
    if n < FEWEST or len({name for labels in known.learn[1] for name in labels}) < 2:
        return Tally(0, 0, f"{n} labelled texts to measure on, {FEWEST} are needed; nothing is written")
    work = Work(generator, store, ctx, schema, names, known, bench)
    spent = ""
    try:
        work.loops()
    except BudgetSpent as error:
        spent = f"; the budget is spent: {error.message}"
    return Tally(work.asked, work.new, work.words() + spent)
