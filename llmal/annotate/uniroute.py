"""Several annotators, and for each item the one that errs least on texts like it, for its price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from llmal.annotate import stage
from llmal.annotate.stage import Annotator, Desk, Estimate
from llmal.audit import known_answers
from llmal.context import Context, Under
from llmal.errors import BudgetSpent
from llmal.plugins import slot
from llmal.records import Annotation, Item, LabelSchema, recipe
from llmal.stats.uniroute import best_strength, choose, cluster_errors
from llmal.store import schema as t
from llmal.store.store import annotation_rows

FEWEST = 30
"""Audit items people must have answered before errors are believed; as for the filter `calibrated`."""

FIT_ROWS = 20_000
"""Texts the clusters are made of at most; the others join the nearest."""

PRICED = 50
"""Items whose questions are written out to see what a call of each annotator costs."""


class Seen(NamedTuple):
    """What the audit sample shows of the annotators.

    Attributes:
        items: v validation items, in the order of the arrays below.
        wrong: (m, v) whether each annotator's answer is not people's; no answer is wrong too.
        clusters: (v,) of the validation items.
    """

    items: list[int]
    wrong: NDArray[np.bool_]
    clusters: NDArray[np.int64]


class UniRoute(Annotator):
    """Asks one of several annotators about each item: the one with the least error + weight x price there.

    The corpus is cut into clusters by k-means. All annotators answer the same few audit items, and their
    errors against people's answers, cluster by cluster, say whom to ask. An error in a cluster is drawn to
    the overall one as strongly as answers left out speak for: where no cluster tells annotators apart the
    best of all is asked. An audit item's own answer has no say about itself. A price is what an item costs
    over what it costs with the dearest annotator: at weight 0.1 that one is asked where it errs less than a
    free one by more than 0.1. A new annotator costs its answers on those audit items alone. Before people
    answered 30 of them the cheapest is asked, or the first of equals. Answers once given stay.
    Source: Jitkrittum et al. 2025 (UniRoute), with clusters.
    """

    of: tuple[slot("annotate"), ...] = Field(  # type: ignore[valid-type]
        min_length=1, description="the annotators, each a name or a mapping with `use`"
    )
    clusters: int = Field(20, ge=1, le=1000, description="groups of similar texts")
    weight: float = Field(
        0.0, ge=0, description="errors an item that the dearest annotator's price is worth; 0: errors decide"
    )
    validation: int = Field(
        100, ge=1, description="audit items that every annotator answers, once people answered them"
    )
    prices: tuple[float, ...] | None = Field(
        None, description="dollars an item of each annotator; by its own price when absent, 0 where local"
    )

    uses_vectors: ClassVar[bool] = True
    asks_one: ClassVar[bool] = True

    @model_validator(mode="after")
    def _a_price_each(self) -> UniRoute:
        if self.prices is not None and (len(self.prices) != len(self.of) or min(self.prices) < 0):
            raise ValueError(f"prices wants {len(self.of)} figures from 0 upward, one an annotator")
        return self

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of the options, the vectors, and of each annotator's own recipe."""
        options = [self.clusters, self.weight, self.validation, self.prices]
        return recipe("uniroute", *options, vectors_recipe, *self.parts(schema, ctx, vectors_recipe))

    def members(self) -> tuple[Annotator, ...]:
        """The annotators to choose from, in order."""
        return self.of

    def estimate(self, items: list[Item], schema: LabelSchema, ctx: Context) -> Estimate:
        """All items asked of the dearest annotator, and the validation items of each: the most it can be."""
        parts = [member.estimate(items, schema, ctx) for member in self.of]
        share = min(1.0, self.validation / max(1, len(items)))
        dearest = max(parts, key=lambda part: (part.usd or 0.0, part.calls))

        def most(own: float, all_of: list[float]) -> float:
            return own + share * sum(all_of)

        paid = [part.usd for part in parts if part.usd is not None]
        return Estimate(
            round(most(dearest.calls, [part.calls for part in parts])),
            round(most(dearest.tokens_in, [part.tokens_in for part in parts])),
            round(most(dearest.tokens_out, [part.tokens_out for part in parts])),
            most(dearest.usd or 0.0, paid) if paid else None,
            "; ".join(
                dict.fromkeys([*(p.note for p in parts if p.note), "as if the dearest were asked all"])
            ),
        )

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """One answer an item, of the annotator chosen for it; where the budget ends, what was answered."""
        if items:
            yield from _Work(self, items, schema, desk).answers()


class _Work:
    """The choice for some items, and their answers."""

    def __init__(self, plan: UniRoute, items: list[Item], schema: LabelSchema, desk: Desk) -> None:
        self.plan, self.items, self.schema, self.desk = plan, items, schema, desk
        self.names = plan.parts(schema, desk.ctx, desk.vectors_recipe)

    def answers(self) -> Iterator[Annotation]:
        """Look at the audit sample, choose, ask; then one annotation an item that was answered."""
        chosen, why = self._chosen()
        spent: BudgetSpent | None = None
        for place in range(len(self.plan.of)):
            try:
                self._ask(place, [i.seq for i, m in zip(self.items, chosen, strict=True) if m == place])
            except BudgetSpent as error:
                spent = error
        said = [self.desk.store.annotations(name) for name in self.names]
        made = [
            _of(said[m][item.seq], f"asked {self._name(m)}, {words}")
            for item, m, words in zip(self.items, chosen, why, strict=True)
            if item.seq in said[m]
        ]
        if spent is not None:
            self.desk.store.add(t.annotation, annotation_rows(self.desk.recipe, made))
            self.desk.advance(len(made))
            raise spent
        for annotation in made:
            yield annotation
            self.desk.advance()

    def _chosen(self) -> tuple[list[int], list[str]]:
        """Whom to ask about each item, and why."""
        prices, weight = self._prices(), self.plan.weight
        if len(self.plan.of) == 1:
            return [0] * len(self.items), ["the only one"] * len(self.items)
        centres = self._centres()
        seen = self._seen(centres)
        if seen is None:
            cheapest = int(np.argmin(prices))
            return [cheapest] * len(self.items), ["the cheapest, too few audit answers yet"] * len(self.items)
        clusters = _nearest(self._vectors([item.seq for item in self.items]), centres)
        strength = best_strength(seen.wrong, seen.clusters, len(centres), prices, weight)
        given = (seen.wrong, seen.clusters, len(centres))
        errors = cluster_errors(*given, strength=strength)
        best = choose(errors, prices, weight)
        place = {s: i for i, s in enumerate(seen.items)}
        chosen, why = [], []
        for item, k in zip(self.items, clusters.tolist(), strict=True):
            own, m = errors, int(best[k])
            if item.seq in place:
                own = cluster_errors(*given, strength=strength, without=place[item.seq])
                m = int(choose(own, prices, weight)[k])
            chosen.append(m)
            why.append(f"error {own[m, k]:.3f} in cluster {k + 1}")
        return chosen, why

    def _seen(self, centres: NDArray[np.float32]) -> Seen | None:
        """Everybody's answers on the validation items; None, and said, while people answered too few."""
        known = known_answers(self.desk.store, self.schema)
        drawn = sorted(self.desk.store.items(sorted(known)), key=lambda item: item.key)  # a hash: any order
        items = [item.seq for item in drawn[: self.plan.validation]]
        fewest = min(FEWEST, self.plan.validation)
        if len(items) < max(2, fewest):
            words = (
                f"people answered {len(items)} of {fewest} audit items that it takes to choose annotators by"
            )
            self.desk.ctx.progress.say(f"annotate: {words}; the cheapest is asked")
            return None
        for place in range(len(self.plan.of)):
            self._ask(place, items)
        said = [self.desk.store.annotations(name) for name in self.names]
        wrong = [[_wrong(of.get(s), known[s]) for s in items] for of in said]
        return Seen(items, np.array(wrong, np.bool_), _nearest(self._vectors(items), centres))

    def _ask(self, place: int, wanted: list[int]) -> None:
        if not wanted:
            return
        desk, member = self.desk, self.plan.of[place]
        ctx = copy(desk.ctx)
        ctx.progress = Under(desk.ctx.progress, desk.advance, self._name(place))
        stage.run(
            member, desk.store, ctx, schema=self.schema, caps=desk.caps, wanted=wanted,
            vectors=desk.vectors_recipe,
        )  # fmt: skip

    def _prices(self) -> Sequence[float]:
        if self.plan.prices is not None:
            return self.plan.prices
        some = self.items[:PRICED]
        found = [member.estimate(some, self.schema, self.desk.ctx).usd for member in self.plan.of]
        return [(usd or 0.0) / len(some) for usd in found]

    def _centres(self) -> NDArray[np.float32]:
        """(K, d) centres of the clusters, made once for these vectors."""
        store, plan = self.desk.store, self.plan
        name = recipe("uniroute-centres", self.desk.vectors_recipe, plan.clusters, self.desk.ctx.seed)
        if not store.covered(name):
            store.put_block(name, 0, self._clustered())
        return np.asarray(store.load(name))

    def _clustered(self) -> NDArray[np.float32]:
        from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]

        rng = self.desk.ctx.rng("uniroute")
        rows = self.desk.store.active()
        if len(rows) > FIT_ROWS:
            rows = sorted(rng.choice(rows, FIT_ROWS, replace=False).tolist())
        vectors = self._vectors(rows)
        count = min(self.plan.clusters, len(np.unique(vectors, axis=0)))
        made = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit(vectors)
        return np.asarray(made.cluster_centers_, np.float32)

    def _vectors(self, items: list[int]) -> NDArray[np.float32]:
        return np.asarray(self.desk.store.load(self.desk.vectors_recipe)[items], np.float32)

    def _name(self, place: int) -> str:
        return f"{self.plan.of[place].name} {place + 1}/{len(self.plan.of)}"


def _nearest(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) the nearest centre of each row."""
    square = (centres.astype(np.float64) ** 2).sum(axis=1)
    return np.asarray((square - 2 * (vectors @ centres.T)).argmin(axis=1), np.int64)


def _wrong(a: Annotation | None, people: tuple[str, ...]) -> bool:
    return a is None or a.status != "ok" or set(a.labels) != set(people)


def _of(a: Annotation, words: str) -> Annotation:
    return a._replace(detail=(f"{words}; {a.detail}" if a.detail else words)[:200])
