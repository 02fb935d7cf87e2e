"""Several annotators about each item: their votes become one answer by how far each can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from llmal.annotate import stage
from llmal.annotate.stage import Annotator, Desk, Estimate
from llmal.answers import best
from llmal.context import Context, Under
from llmal.plugins import slot
from llmal.records import Annotation, Item, LabelSchema, recipe
from llmal.stats.votes import NONE, complete, dawid_skene, majority, suspects
from llmal.stats.weighted import weighted

LEARN = 50
"""Items all members are asked about before one is spared: their votes show who is right how often."""


class Panel(Annotator):
    """Asks several annotators and combines what they say, each weighed by how often it is right.

    Every member's answers are facts of their own: a member that is added later costs its own calls only, and
    none is asked twice. How often a member is right is worked out from all answers so far, with people's
    answers (never the audit's) as the anchor; an answer once combined stays as it was. With `sure` the
    members are asked in turn, and an item leaves as soon as the consensus on it is that sure; put the
    cheapest first. Members that copy one another count as independent, so the confidence comes out too high;
    `combine: weighted` sees who errs together.
    Source: Dawid & Skene 1979; language models as workers of different quality: Zhao et al. 2022 (LMTurk).
    """

    of: tuple[slot("annotate"), ...] = Field(  # type: ignore[valid-type]
        min_length=2, description="the annotators, each a name or a mapping with `use`"
    )
    combine: Literal["majority", "dawid-skene", "matrix", "weighted"] = Field(
        "dawid-skene",
        description="how votes become one answer; matrix needs three members; weighted: members that err "
        "together share one say, best with 50 answers of people or more",
    )
    sure: float | None = Field(
        None, gt=0.5, lt=1, description="ask no further member about an item the consensus is this sure of"
    )

    @model_validator(mode="after")
    def _enough(self) -> Panel:
        if self.combine == "matrix" and len(self.of) < 3:
            raise ValueError("matrix completion needs three members; use dawid-skene")
        return self

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of how answers are combined and of each member's own recipe."""
        return recipe("panel", self.combine, self.sure, *self.parts(schema, ctx, vectors_recipe))

    def members(self) -> tuple[Annotator, ...]:
        """The annotators asked, in order."""
        return self.of

    def estimate(self, items: list[Item], schema: LabelSchema, ctx: Context) -> Estimate:
        """What asking every member about every item would take; with `sure`, the most it can."""
        parts = [member.estimate(items, schema, ctx) for member in self.of]
        usd = [part.usd for part in parts if part.usd is not None]
        notes = dict.fromkeys(part.note for part in parts if part.note)
        if self.sure is not None:
            notes["fewer where the first members agree"] = None
        return Estimate(
            sum(part.calls for part in parts),
            sum(part.tokens_in for part in parts),
            sum(part.tokens_out for part in parts),
            sum(usd) if usd else None,
            "; ".join(notes),
        )

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """One answer an item, made when every member it needs has answered."""
        if not items:
            return
        names = self.parts(schema, desk.ctx, desk.vectors_recipe)
        wanted = [item.seq for item in items]
        first = wanted[: self._still_to_learn(names, desk)] if self.sure is not None else wanted
        self._ask(first, names, schema, desk, spare=None)
        self._ask(wanted[len(first) :], names, schema, desk, spare=self.sure)
        said = [desk.store.annotations(name) for name in names]
        rows = sorted(set().union(*said))
        votes = _votes(said, rows, schema)
        asked = np.array([[row in of for of in said] for row in rows], np.bool_)
        self._name_suspects(votes, asked, schema, desk)
        probs = dict(zip(rows, self._combined(votes, rows, schema, desk), strict=True))
        for item in items:
            yield _answer(item.seq, [of.get(item.seq) for of in said], probs[item.seq], schema)
            desk.advance()

    def _still_to_learn(self, names: list[str], desk: Desk) -> int:
        every = set.intersection(*(set(desk.store.annotations(name)) for name in names))
        return max(0, LEARN - len(every))

    def _ask(
        self, wanted: list[int], names: list[str], schema: LabelSchema, desk: Desk, *, spare: float | None
    ) -> None:
        """Every member about every item; with `spare` only about those the members before leave unsure."""
        for place, member in enumerate(self.of):
            if place and spare is not None:
                wanted = self._unsure(wanted, names, schema, desk, spare)
            if not wanted:
                return
            ctx = copy(desk.ctx)
            ctx.progress = Under(desk.ctx.progress, desk.advance, f"{member.name} {place + 1}/{len(self.of)}")
            vectors = desk.vectors_recipe
            stage.run(
                member, desk.store, ctx, schema=schema, caps=desk.caps, wanted=wanted, vectors=vectors
            )  # fmt: skip

    def _unsure(
        self, wanted: list[int], names: list[str], schema: LabelSchema, desk: Desk, spare: float
    ) -> list[int]:
        said = [desk.store.annotations(name) for name in names]
        rows = sorted(set().union(*said))
        probs = self._combined(_votes(said, rows, schema), rows, schema, desk)
        sure = {row: best(p, schema)[1] for row, p in zip(rows, probs, strict=True)}
        return [row for row in wanted if sure[row] < spare]

    def _combined(
        self, votes: NDArray[np.int64], rows: list[int], schema: LabelSchema, desk: Desk
    ) -> NDArray[np.float64]:
        """(n, C) consensus; with independent labels each label is a question of its own."""
        reserved = desk.store.reserved()
        people = {s: said for s, said in desk.store.answers(schema.names).items() if s not in reserved}
        columns = schema.columns()
        if schema.kind == "single":
            known = [columns[people[row][0]] if people.get(row) else NONE for row in rows]
            return self._model(votes[:, :, 0], len(columns), np.array(known, np.int64))
        out = np.empty((len(rows), len(columns)))
        for name, c in columns.items():
            known = [int(name in people[row]) if row in people else NONE for row in rows]
            out[:, c] = self._model(votes[:, :, c], 2, np.array(known, np.int64))[:, 1]
        return out

    def _model(
        self, votes: NDArray[np.int64], n_classes: int, known: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        if self.combine == "majority":
            return majority(votes, n_classes)
        if self.combine == "matrix":
            return complete(votes, n_classes).probs
        if self.combine == "weighted":
            return weighted(votes, n_classes, known=known).probs
        return dawid_skene(votes, n_classes, known=known).probs

    def _name_suspects(
        self, votes: NDArray[np.int64], asked: NDArray[np.bool_], schema: LabelSchema, desk: Desk
    ) -> None:
        if schema.kind == "single":
            for one in suspects(votes[:, :, 0], len(schema.labels), names=schema.names, asked=asked):
                who = f"member {one.annotator + 1} ({self.of[one.annotator].name})"
                desk.ctx.progress.say(f"annotate: {who} {one.why}; take it out, or change its prompt")


def _votes(said: Sequence[dict[int, Annotation]], rows: list[int], schema: LabelSchema) -> NDArray[np.int64]:
    """(n, m, 1) class of each member's label; multi: (n, m, C) ones and zeros; -1 is none."""
    columns = schema.columns()
    width = 1 if schema.kind == "single" else len(columns)
    out = np.full((len(rows), len(said), width), NONE, np.int64)
    for i, row in enumerate(rows):
        for j, of in enumerate(said):
            a = of.get(row)
            if a is None or a.status != "ok":
                continue
            if schema.kind == "single":
                out[i, j, 0] = columns[a.labels[0]]
            else:
                out[i, j] = [name in a.labels for name in columns]
    return out


def _answer(
    item: int, said: list[Annotation | None], probs: NDArray[np.float64], schema: LabelSchema
) -> Annotation:
    """The consensus on one item; where no member gave a label, the first member's reason stands."""
    asked = [a for a in said if a is not None]
    given = [a for a in asked if a.status == "ok"]
    if not given:
        return Annotation(item, asked[0].status, detail=f"no member gave a label: {asked[0].detail}"[:200])
    labels, confidence = best(probs, schema)
    agree = sum(set(a.labels) == set(labels) for a in given)
    words = f"{agree} of {len(given)} members say so" + (
        f", {len(asked) - len(given)} gave no label" if len(given) < len(asked) else ""
    )
    row = tuple(float(p) for p in np.clip(probs, 0, 1))
    return Annotation(item, "ok", labels, row, min(confidence, 1.0), "votes", words)
