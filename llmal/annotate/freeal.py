"""FreeAL: a small student says which answers to trust, and the rest is asked again with those as examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from math import ceil
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from llmal.annotate import stage
from llmal.annotate.retrieval import people, retrieved
from llmal.annotate.stage import Annotator, Desk, Estimate
from llmal.clean import CLEAN, FEWEST, INVALID, cross_entropy, cross_fitted, examples, small_losses
from llmal.context import Context, Under
from llmal.errors import BudgetSpent, SpecError
from llmal.plugins import slot
from llmal.records import Annotation, Item, LabelSchema, recipe
from llmal.store import schema as t
from llmal.store.store import annotation_rows

BYTES_A_TOKEN = 4.0
"""UTF-8 bytes of English a token covers, for estimates only."""

FRAME_TOKENS = 60
"""Tokens of a demonstration besides its text: field markers, fence, answer; for estimates only."""

FINAL = frozenset({"failed", "filtered", "suspect"})
"""Statuses that no demonstration changes: such an item is not asked again."""


class Look(NamedTuple):
    """What the student makes of the answers at the start of a loop.

    Attributes:
        row: item -> its row below.
        probs: (n, C) of students that did not learn from the row itself.
        kept: (n,) whether it is clean.
        known: item -> class, of the items that may serve as demonstrations.
    """

    row: dict[int, int]
    probs: NDArray[np.float64]
    kept: NDArray[np.bool_]
    known: dict[int, int]


class FreeAl(Annotator):
    """Asks an annotator, lets a small student sort the answers, and asks again about the doubtful ones.

    In each loop a logistic regression learns from all answers so far (people's where there are some, the
    audit's never). Answers with a small loss are clean: these items leave the loop with their label. Every
    other item is asked about again, this time with demonstrations: the texts most like it among those people
    answered or student and annotator agree on. The probability of a label is the mean of what the student
    says, which did not learn from the item, and what the annotator said last (its own distribution where it
    gives one, else all on its label); with several classes it is far too low, so let the filter `calibrated`
    read it. Where the budget ends, items that wait for an answer stay open.
    Source: Xiao et al. 2023 (FreeAL). There a clean item takes the student's label, and that student has
    learnt from it; ours has not, and where it disagrees on a clean item it is wrong more often.
    """

    of: slot("annotate") = Field(description="the annotator, a name or a mapping with `use`")  # type: ignore[valid-type]
    loops: int = Field(1, ge=1, le=3, description="times doubtful items are asked about again")
    demonstrations: int = Field(10, ge=1, le=50, description="examples shown when asking again")
    clean: float = Field(
        CLEAN, gt=0, lt=1, description="probability of a small loss from which an answer is trusted"
    )
    pool: int = Field(100, ge=2, description="examples to choose from, all classes together")

    uses_vectors: ClassVar[bool] = True

    @model_validator(mode="after")
    def _can_be_shown(self) -> FreeAl:
        if not self.of.takes_demonstrations:
            raise ValueError(
                f"freeal asks again with demonstrations, and {self.of.name} takes none; use llm in its place"
            )
        return self

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of options, vectors and the annotator's own recipe.

        Raises:
            SpecError: labels are independent of one another.
        """
        if schema.kind == "multi":
            raise SpecError(
                ["annotate: freeal is for labels.kind: single; use llm or panel for several labels"]
            )
        first = self.of.recipe_for(schema, ctx, vectors_recipe)
        return recipe("freeal", self.recipe(), vectors_recipe, first)

    def members(self) -> tuple[Annotator, ...]:
        """The annotator asked."""
        return (self.of,)

    def parts(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> list[str]:
        """The annotator's own recipe, and one for its answers of each loop."""
        first = self.of.recipe_for(schema, ctx, vectors_recipe)
        # What decides who is asked again stays out: an answer once paid for serves other thresholds too.
        loops = range(1, self.loops + 1)
        return [first, *(recipe("freeal-loop", first, vectors_recipe, self.demonstrations, n) for n in loops)]

    def estimate(self, items: list[Item], schema: LabelSchema, ctx: Context) -> Estimate:
        """The first answers, and every item asked about again in each loop: the most it can be."""
        one = self.of.estimate(items, schema, ctx)
        a_text = sum(len(i.text.encode()) for i in items) / BYTES_A_TOKEN
        shown = ceil(self.demonstrations * (a_text + FRAME_TOKENS * len(items))) if one.tokens_in else 0
        tokens_in = one.tokens_in + self.loops * (one.tokens_in + shown)
        tokens_out = one.tokens_out * (1 + self.loops)
        # A token read is never dearer than one written: scaling by all tokens is on the safe side.
        more = (tokens_in + tokens_out) / max(1, one.tokens_in + one.tokens_out)
        usd = None if one.usd is None else one.usd * more
        words = filter(None, (one.note, "at most: an item whose answer looks clean is not asked about again"))
        return Estimate(one.calls * (1 + self.loops), tokens_in, tokens_out, usd, "; ".join(words))

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """One answer an item, made when the last loop is done; see the class for a budget that ends."""
        if items:
            yield from _Work(self, items, schema, desk).answers()


class _Work:
    """The loops over some items."""

    def __init__(self, plan: FreeAl, items: list[Item], schema: LabelSchema, desk: Desk) -> None:
        self.plan, self.schema, self.desk = plan, schema, desk
        self.wanted = [item.seq for item in items]
        self.names = plan.parts(schema, desk.ctx, desk.vectors_recipe)
        self.reserved = desk.store.reserved()
        columns = schema.columns()
        self.people = {s: columns[labels[0]] for s, labels in people(desk, schema).items()}
        self.seed = int(desk.ctx.rng("freeal").integers(2**31))
        self.said = [desk.store.annotations(name) for name in self.names]
        self.settled: dict[int, int] = {}  # item -> the loop whose clean list it was on
        self.waiting: set[int] = set()
        self.spent: BudgetSpent | None = None

    def answers(self) -> Iterator[Annotation]:
        """Ask, sort, ask again; then one annotation for each item that waits for nothing."""
        self._first()
        look = self._look(1)
        for loop in range(1, self.plan.loops + 1):
            if look is None or self.waiting:
                break
            self._settle(look, loop)
            self._again(look, loop)
            look = self._look(loop + 1) or look
        made = [self._answer(s, look) for s in self.wanted if s in self.said[0] and s not in self.waiting]
        if self.spent is not None:
            self.desk.store.add(t.annotation, annotation_rows(self.desk.recipe, made))
            self.desk.advance(len(made))
            raise self.spent
        for annotation in made:
            yield annotation
            self.desk.advance()

    def _first(self) -> None:
        """The annotator's answers as it gives them without us: switching to it, or from it, costs nothing."""
        ctx, vectors = self._under("first answers"), self.desk.vectors_recipe
        given = {"schema": self.schema, "caps": self.desk.caps, "wanted": self.wanted, "vectors": vectors}
        try:
            stage.run(self.plan.of, self.desk.store, ctx, **given)  # type: ignore[arg-type]
        except BudgetSpent as error:
            self.spent = error
        self.said[0] = self.desk.store.annotations(self.names[0])

    def _under(self, title: str) -> Context:
        ctx = copy(self.desk.ctx)
        ctx.progress = Under(self.desk.ctx.progress, self.desk.advance, title)
        return ctx

    def _look(self, loop: int) -> Look | None:
        """What a student makes of the answers from before a loop; None, and said, where it cannot learn."""
        seqs = sorted(self.said[0].keys() | self.people.keys())
        labels = np.array([self._class(s, loop) for s in seqs], np.int64)
        mine = np.array([s not in self.reserved for s in seqs], bool)
        learnt = np.where(mine, labels, INVALID)
        n, kinds = int((learnt != INVALID).sum()), len(np.unique(learnt[learnt != INVALID]))
        if n < FEWEST or kinds < 2:
            words = (
                f"annotate: {n} labels of {kinds} classes are too few to sort answers by; they stay as given"
            )
            self.desk.ctx.progress.say(words)
            return None
        vectors = np.asarray(self.desk.store.load(self.desk.vectors_recipe)[seqs])
        probs = cross_fitted(vectors, learnt, len(self.schema.labels), seed=self.seed)
        found = small_losses(cross_entropy(probs, labels), at_least=self.plan.clean, seed=self.seed, fit=mine)
        if found.note and loop <= self.plan.loops:
            self.desk.ctx.progress.say(f"annotate: {found.note}; all answers count as clean")
        good = examples(vectors, probs, learnt, most=self.plan.pool, seed=self.seed)
        known = {seqs[r]: int(labels[r]) for r in good} | self.people
        return Look({s: r for r, s in enumerate(seqs)}, probs, found.mask, known)

    def _class(self, item: int, loop: int) -> int:
        """The item's class at the start of a loop: a person's, else that of the last answer."""
        if item in self.people:
            return self.people[item]
        newest = self._newest(item, min(loop, self.settled.get(item, loop)))
        return self.schema.columns()[newest.labels[0]] if newest.status == "ok" else INVALID

    def _newest(self, item: int, loop: int) -> Annotation:
        return next(self.said[n][item] for n in reversed(range(loop)) if item in self.said[n])

    def _settle(self, look: Look, loop: int) -> None:
        """Items on the clean list leave with the label they have, and are not asked about again."""
        for s, row in look.row.items():
            if look.kept[row] and s in self.said[0] and s not in self.people:
                self.settled.setdefault(s, loop)

    def _again(self, look: Look, loop: int) -> None:
        """Ask about what is left with demonstrations; items that the budget does not reach wait."""
        done = self.settled.keys() | self.people.keys()
        left = [s for s in self.wanted if s in self.said[0] and s not in done]
        left = [s for s in left if self.said[0][s].status not in FINAL]
        names = self.schema.names
        known = {s: (names[c],) for s, c in look.known.items()}
        if left and len(set(known.values())) < 2:
            self.desk.ctx.progress.say("annotate: there are no examples of two classes to ask again with")
            return
        k = min(self.plan.demonstrations, len(known))
        here = sum(s in self.said[0] for s in self.wanted)
        self.desk.ctx.progress.say(
            f"annotate: loop {loop}: {here - len(left)} of {here} answers stay, {len(left)} items are asked "
            f"about again with {k} demonstrations out of {len(known)}"
        )
        have = self.said[loop]
        missing = [s for s in left if s not in have]
        if missing and self.spent is None:
            ctx, items = self._under(f"loop {loop}"), self.desk.store.items(missing)
            shown = retrieved(items, known, k, self.schema, self.desk)
            try:
                with ctx.progress.task("annotate", len(missing)) as advance:
                    desk = replace(self.desk, ctx=ctx, recipe=self.names[loop], advance=advance, shown=shown)
                    stage.ask(self.plan.of, missing, self.schema, desk)
            except BudgetSpent as error:
                self.spent = error
            have = self.said[loop] = self.desk.store.annotations(self.names[loop])
        if self.spent is not None:
            self.waiting = {s for s in left if s not in have or loop < self.plan.loops}

    def _answer(self, item: int, look: Look | None) -> Annotation:
        """Label, probability and the item's story in a few words."""
        first = self.said[0][item]
        if look is None:
            return first
        loop = self.settled.get(item, len(self.said))
        newest, words = self._newest(item, loop), self._story(item, loop)
        if newest.status != "ok":
            return newest._replace(detail=f"{words}; {newest.detail}"[:200])
        model = newest.probs or [float(name == newest.labels[0]) for name in self.schema.names]
        probs = (look.probs[look.row[item]] + np.asarray(model)) / 2
        row = tuple(float(p) for p in np.clip(probs, 0, 1))
        sure = row[self.schema.columns()[newest.labels[0]]]
        return Annotation(item, "ok", newest.labels, row, sure, "votes", words, newest.request)

    def _story(self, item: int, loop: int) -> str:
        """How the label came about: every answer, and why there was no further question."""
        said = [self.said[n][item] for n in range(loop) if item in self.said[n]]
        steps = " -> ".join(a.labels[0] if a.status == "ok" else a.status for a in said)
        clean = "its loss is small" if item in self.settled else ""
        if len(said) > 1:
            words = f"asked again with {self.plan.demonstrations} demonstrations: {steps}"
            return f"{words}; {clean}" if clean else words
        answered = "a person answered" if item in self.people else ""
        return f"not asked again: {clean or answered or 'nothing to show, or no answer to expect'}"
