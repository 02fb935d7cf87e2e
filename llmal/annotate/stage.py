"""The annotate stage: the protocol of an annotator, and its answers, each with status and confidence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.context import Advance, Context
from llmal.plugins import Plugin
from llmal.records import Annotation, Item, Labels, LabelSchema, Tally, batched, recipe
from llmal.store import schema as t
from llmal.store.ledger import Caps, Facts
from llmal.store.store import Store, annotation_rows

BATCH = 64
"""Answers a commit for annotators that are not paid by the call: what a crash can cost."""


Shown = tuple[tuple[Item, Labels], ...]
"""Other items with their answers, to be shown as demonstrations, least to most similar."""


class Estimate(NamedTuple):
    """What annotating would take, before any paid call.

    Attributes:
        calls: requests to an endpoint.
        tokens_in, tokens_out: in all.
        usd: dollars, None where tokens and seconds are counted instead.
        note: on what the figures rest.
    """

    calls: int
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    note: str = ""


@dataclass(frozen=True)
class Desk:
    """What an annotator finds on its desk.

    Attributes:
        ctx: shared context: encoder, randomness, progress, paths.
        store: the run's store, for annotators that keep a ledger.
        caps: what the run may spend.
        recipe: of the annotations being made.
        vectors_recipe: of the items' vectors.
        advance: call once for each item answered.
        shown: item -> demonstrations to ask about it with, for annotators that take them.
    """

    ctx: Context
    store: Store
    caps: Caps
    recipe: str
    vectors_recipe: str
    advance: Advance
    shown: Mapping[int, Shown] = field(default_factory=dict)

    def facts(self, annotation: Annotation) -> Facts:
        """An annotation as rows, for committing together with its cost."""
        return [(t.annotation, annotation_rows(self.recipe, [annotation]))]

    def vectors(self, items: list[Item]) -> NDArray[np.float32]:
        """The items' vectors: (len(items), d) float32, unit rows."""
        return np.asarray(self.store.load(self.vectors_recipe)[[item.seq for item in items]])


class Annotator(Plugin):
    """Labels items: a language model with a prompt, a zero-shot rule, a file of recorded answers.

    Contract (tested for every annotator): one annotation an item, in any order; the labels are in the schema
    or the status says why there is none; probabilities are finite, (C,), and sum to at most 1 when single;
    a bad answer is a status, never an exception.
    """

    group: ClassVar[str] = "annotate"
    uses_vectors: ClassVar[bool] = False
    commits: ClassVar[bool] = False  # each answer is kept, with its cost, before `annotate` gives it back
    takes_demonstrations: ClassVar[bool] = False
    """Whether it shows the model what stands in `Desk.shown`."""
    asks_one: ClassVar[bool] = False
    """Whether it asks one of its members about an item, and no other."""

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of all that determines an answer."""
        return recipe(
            "annotation", self.recipe(), schema.recipe(), vectors_recipe if self.uses_vectors else ""
        )

    def members(self) -> tuple[Annotator, ...]:
        """Annotators whose answers this one combines; nobody unless overridden."""
        return ()

    def parts(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> list[str]:
        """Recipes of the members' own answers, in order."""
        return [member.recipe_for(schema, ctx, vectors_recipe) for member in self.members()]

    @abstractmethod
    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """Answer about each item. May commit its answers itself; committing twice does no harm."""

    def estimate(self, items: list[Item], schema: LabelSchema, ctx: Context) -> Estimate:
        """What annotating these items would take; nothing unless overridden."""
        return Estimate(0, note="no paid calls")


def run(
    annotator: Annotator, store: Store, ctx: Context, *, schema: LabelSchema, caps: Caps, wanted: list[int],
    vectors: str, under: str = "",
) -> Tally:  # fmt: skip
    """Annotate every wanted item that has no answer under the current recipe.

    Args:
        annotator: who answers.
        store: of the run.
        ctx: shared context.
        schema: the classes.
        caps: what the run may spend in all.
        wanted: items to be answered.
        vectors: recipe of the items' vectors.
        under: recipe that the answers are kept under, where it is not the annotator's own.

    Returns:
        Answers wanted and new, and how many of the new carry no label.

    Raises:
        BudgetSpent, ModelError, Interrupted: from the transport; everything answered before is kept.
    """
    name = under or annotator.recipe_for(schema, ctx, vectors)
    have = dict(store.read(_statuses(name)))
    missing = [s for s in wanted if s not in have]
    if not missing:
        return Tally(len(wanted), 0)
    before = len(have)
    with ctx.progress.task("annotate", len(missing)) as advance:
        desk = Desk(ctx, store, caps, name, vectors, advance)
        ask(annotator, missing, schema, desk)
    now = dict(store.read(_statuses(name)))
    bare = sum(now[s] != "ok" for s in missing if s in now)
    return Tally(len(wanted), len(now) - before, f"{bare} without a label" if bare else "")


def ask(annotator: Annotator, items: list[int], schema: LabelSchema, desk: Desk) -> None:
    """Have items answered and keep what is said under the desk's recipe, some at a time."""
    for batch in batched(annotator.annotate(desk.store.items(items), schema, desk), BATCH):
        if not annotator.commits:
            desk.store.add(t.annotation, annotation_rows(desk.recipe, batch))


def forget_failures(store: Store, name: str) -> int:
    """Let failed calls be asked again: their annotations are removed, the ledger keeps every attempt.

    What the filter said of them goes too, or the new answer would never be judged.
    """
    where = (t.annotation.c.recipe == name, t.annotation.c.status == "failed")
    with store.begin() as db:
        failed = t.annotation.select().with_only_columns(t.annotation.c.item).where(*where)
        db.execute(t.decision.delete().where(t.decision.c.item.in_(failed)))
        return int(db.execute(t.annotation.delete().where(*where)).rowcount)


def _statuses(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a SQLAlchemy select
    import sqlalchemy as sa

    return sa.select(t.annotation.c.item, t.annotation.c.status).where(t.annotation.c.recipe == name)
