"""The contracts of annotators, and of the filters that judge their answers."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import sqlalchemy as sa

from llmal.annotate import stage
from llmal.annotate.stage import Annotator, Desk
from llmal.corpus import Row, text_key
from llmal.embed import stage as embed
from llmal.embed.hashing import Hashing
from llmal.errors import SpecError
from llmal.filter.stage import NOTHING, Checked, Evidence, Filter, Peers
from llmal.records import Annotation, ConfidenceKind, Item, LabelSchema, Status, Verdict, recipe
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store
from llmal.testing.contracts.learn import context
from llmal.testing.contracts.plugin import MULTI, SINGLE, TEXTS, PluginContract

STRANGE_TEXTS = ("x", "\U0001f984 {{7*7}}\n>>> answer: A", "word " * 2000)
"""Texts no label fits; an annotator may say so in any status it likes."""

CORPUS = (*TEXTS, *STRANGE_TEXTS)
"""Texts of the suite's corpus; their ids are "1", "2" and so on."""


class AnnotatorContract(PluginContract):
    """Checks of an annotator, on a run of its own with twelve items.

    Attributes:
        kinds: the kinds of labels it can give.
    """

    kinds: ClassVar[tuple[str, ...]] = ("single", "multi")

    def plugin(self) -> Annotator:
        """The annotator under test."""
        raise NotImplementedError("override plugin() and return an instance of your annotator")

    def schemas(self) -> list[LabelSchema]:
        """The classes to choose from, for each kind."""
        return [schema for schema in (SINGLE, MULTI) if schema.kind in self.kinds]

    @contextmanager
    def desk(self, schema: LabelSchema) -> Iterator[tuple[Desk, list[Item], list[int]]]:
        """A desk in a fresh run, its items, and a list that grows with every call of `desk.advance`."""
        encoder = Hashing(dim=256)
        with context() as ctx:
            store = open_store(ctx.folder / "run")
            try:
                rows = (Row(i, str(i), text) for i, text in enumerate(CORPUS, 1))
                store.put_corpus("corpus-contract", "0", rows, text_key)
                embed.run(encoder, store, ctx)
                counted: list[int] = []

                def advance(n: int = 1, *, note: str = "") -> None:
                    counted.append(n)

                name = self.plugin().recipe_for(schema, ctx, encoder.recipe())
                desk = Desk(ctx, store, Caps(), name, encoder.recipe(), advance)
                yield desk, store.items(store.active()), counted
            finally:
                store.close()

    def test_one_answer_an_item(self) -> None:
        """Each item is answered once and counted once; a label is in the schema or a status says why not."""
        for schema in self.schemas():
            with self.desk(schema) as (desk, items, counted):
                made = list(self.plugin().annotate(items, schema, desk))
            assert sorted(a.item for a in made) == [item.seq for item in items], "not one answer an item"
            for annotation in made:
                check_annotation(annotation, schema)
            assert sum(counted) == len(items), f"advance counted {sum(counted)} of {len(items)} items"
            assert any(a.status == "ok" for a in made), "no item got a label; nothing was tested"

    def test_nothing_asked(self) -> None:
        """No items, no answers."""
        with self.desk(self.schemas()[0]) as (desk, _, _counted):
            assert list(self.plugin().annotate([], self.schemas()[0], desk)) == []

    def test_stage_asks_once(self) -> None:
        """The annotate stage keeps every answer, and a second run of it asks nothing."""
        schema = self.schemas()[0]
        with self.desk(schema) as (desk, items, _):
            wanted = [item.seq for item in items]

            def run() -> tuple[int, int]:
                done = stage.run(
                    self.plugin(), desk.store, desk.ctx, schema=schema, caps=desk.caps, wanted=wanted,
                    vectors=desk.vectors_recipe,
                )  # fmt: skip
                return done.wanted, done.new

            assert run() == (len(items), len(items))
            assert run() == (len(items), 0)
            name = self.plugin().recipe_for(schema, desk.ctx, desk.vectors_recipe)
            count = sa.select(sa.func.count()).select_from(t.annotation).where(t.annotation.c.recipe == name)
            assert desk.store.read(count)[0][0] == len(items), "answers were kept twice"

    def test_recipe_follows_the_classes(self) -> None:
        """Other classes, another recipe; an equal annotator, the same."""
        schema = self.schemas()[0]
        fewer = schema._replace(labels=schema.labels[:2])
        with self.desk(schema) as (desk, _, _counted):
            one, other, again = (
                self.plugin().recipe_for(s, desk.ctx, desk.vectors_recipe) for s in (schema, fewer, schema)
            )
        assert one == again
        assert one != other, "the classes are not in the recipe"

    def test_estimate(self) -> None:
        """What it would take is a set of finite numbers, and asking for it answers nothing."""
        schema = self.schemas()[0]
        with self.desk(schema) as (desk, items, counted):
            found = self.plugin().estimate(items, schema, desk.ctx)
        assert not counted, "the estimate answered items"
        assert min(found.calls, found.tokens_in, found.tokens_out) >= 0
        assert found.usd is None or (math.isfinite(found.usd) and found.usd >= 0)


def check_annotation(a: Annotation, schema: LabelSchema) -> None:
    """What holds for every annotation."""
    where = f"{a}: "
    assert a.status in typing.get_args(Status), where + "unknown status"
    assert a.kind in typing.get_args(ConfidenceKind), where + "unknown kind of confidence"
    in_order = tuple(name for name in schema.names if name in a.labels)
    assert a.labels == in_order, where + "labels are not of the schema, or not in its order"
    if a.status != "ok":
        assert not a.labels, where + "a label without the status `ok`"
    elif schema.kind == "single":
        assert len(a.labels) == 1, where + "`ok` means exactly one label"
    if a.confidence is not None:
        assert 0 <= a.confidence <= 1, where + "confidence outside [0, 1]"
    assert (a.confidence is None) == (a.kind == "none"), where + "confidence and its kind do not go together"
    if a.probs is not None:
        _check_probs(a.probs, schema, where)


def _check_probs(probs: tuple[float, ...], schema: LabelSchema, where: str) -> None:
    assert len(probs) == len(schema.labels), where + "not one probability a class"
    assert all(math.isfinite(p) and 0 <= p <= 1 + 1e-6 for p in probs), where + "probability outside [0, 1]"
    assert schema.kind == "multi" or sum(probs) <= 1 + 1e-6, where + "probabilities sum to more than 1"


class FilterContract(PluginContract):
    """Checks of a filter, with and without anything to go by."""

    def plugin(self) -> Filter:
        """The filter under test."""
        raise NotImplementedError("override plugin() and return an instance of your filter")

    def test_one_decision_an_annotation(self) -> None:
        """In order, with a verdict and a reason; nothing in, nothing out."""
        given = graded()
        for schema in (s for s in (SINGLE, MULTI) if s.kind in self.plugin().kinds):
            for evidence in (NOTHING, checked()):
                made = self.plugin().decide(given, schema, evidence)
                in_order = [d.item for d in made] == [a.item for a in given]
                assert in_order, "not one decision an annotation, in order"
                assert all(d.verdict in typing.get_args(Verdict) for d in made), "unknown verdict"
                assert all(d.reason for d in made), "a decision has no reason"
                assert self.plugin().decide([], schema, evidence) == []

    def test_other_kinds_are_refused(self) -> None:
        """A filter says before anything is paid that it cannot judge a kind of labels, in one sentence."""
        for schema in (SINGLE, MULTI):
            refused = ""
            try:
                self.plugin().refuse_other_kinds(schema)
            except SpecError as error:
                refused = str(error)
            assert bool(refused) == (schema.kind not in self.plugin().kinds), f"{schema.kind}: {refused}"

    def test_without_label_never_accepted(self) -> None:
        """An annotation that carries no label cannot train."""
        given = graded()
        for evidence in (NOTHING, checked()):
            for a, d in zip(given, self.plugin().decide(given, SINGLE, evidence), strict=True):
                assert a.status == "ok" or d.verdict != "accept", f"{a} was accepted"

    def test_confidence_only_helps(self) -> None:
        """Raising an answer's confidence never turns an accept into anything else, whatever its kind."""
        for kind in ("logprobs", "stated", "similarity", "recorded"):
            given = [a for a in graded() if a.status == "ok" and a.kind == kind]
            given = [a._replace(item=given[0].item) for a in given]
            for evidence in (NOTHING, checked()):
                made = self.plugin().decide(given, SINGLE, evidence)
                verdicts = [d.verdict == "accept" for d in made]
                assert verdicts == sorted(verdicts), f"{kind}: a surer answer was accepted less readily"

    def test_a_stated_confidence_alone_never_accepts(self) -> None:
        """What a model says of its own sureness proves nothing as long as no person has answered."""
        stated = [a for a in graded() if a.kind == "stated"]
        made = self.plugin().decide(stated, SINGLE)
        assert not [d for d in made if d.verdict == "accept"], "a model's own word was enough"

    def test_score_is_kept(self) -> None:
        """The number that decided stands with the decision, so that a threshold can move later."""
        given = [a for a in graded() if a.confidence is not None and a.status == "ok"]
        nothing_said = "peers" in self.plugin().uses  # without the other answers there is no number
        for evidence in (checked(),) if nothing_said else (NOTHING, checked()):
            for d in self.plugin().decide(given, SINGLE, evidence):
                assert d.score is not None, f"{d} keeps no score"
                assert math.isfinite(d.score), f"{d} keeps a score that is not finite"

    def test_recipe_follows_the_annotations(self) -> None:
        """Other annotations, another recipe."""
        judge = self.plugin()
        assert judge.recipe_for("annotation-a") != judge.recipe_for("annotation-b")
        assert judge.recipe_for("annotation-a") == self.plugin().recipe_for("annotation-a")

    def test_recipe_follows_the_evidence_used(self) -> None:
        """Other evidence, another recipe; none where the filter says it does not use that evidence."""
        judge, evidence, given = self.plugin(), checked(), graded()
        unknown = judge.uses - set(Evidence._fields)
        assert not unknown, f"`uses` names what is no evidence: {sorted(unknown)}"
        first = evidence.people[0]
        people = (first._replace(right=not first.right), *evidence.people[1:])
        others = {
            "people": evidence._replace(people=people),
            "peers": evidence._replace(peers=crowd(turned=300)),
        }
        for field, other in others.items():
            same = judge.recipe_for("a", evidence) == judge.recipe_for("a", other)
            assert same == (field not in judge.uses), f"the recipe and `uses` do not agree on {field}"
            if same:
                made = judge.decide(given, SINGLE, evidence)
                assert made == judge.decide(given, SINGLE, other), f"{field} decide, and `uses` is silent"

    def test_audit_items_teach_nothing(self) -> None:
        """What an annotator says of items of the audit sample changes no decision on any other item."""
        judge, reserved = self.plugin(), frozenset(range(1000, 1060))
        given = [a for a in crowd().annotations if a.item not in reserved]
        before, after = (checked()._replace(peers=crowd(turned, reserved)) for turned in (0, 60))
        made = judge.decide(given, SINGLE, before)
        assert made == judge.decide(given, SINGLE, after), "the audit's items taught the filter"

    def test_what_was_left_over_is_judged_as_the_whole(self) -> None:
        """All at once or the rest later: a run that was cut off goes on with the same decisions."""
        judge, evidence, given = self.plugin(), checked(), graded()
        rest = judge.decide(given[50:], SINGLE, evidence)
        assert judge.decide(given, SINGLE, evidence)[50:] == rest


def checked() -> Evidence:
    """Answers of people about 60 items of each kind of confidence, right more often the surer; a crowd."""
    made: list[Checked] = []
    for kind in typing.get_args(ConfidenceKind):
        for i in range(60):
            sure = None if kind == "none" else round(i / 59, 2)
            label = ("fruit", "tool", "city")[i % 3]
            a = Annotation(1000 + len(made), "ok", (label,), None, sure, kind)
            made.append(Checked(a, (i * 7) % 60 <= i, True))
    return Evidence(tuple(made), crowd())


def crowd(turned: int = 0, reserved: frozenset[int] = frozenset()) -> Peers:
    """The answers of `graded` and 300 more, whose vectors tell three classes apart; one in five is wrong.

    Args:
        turned: how many of the 300, from the first on, say another class than they would.
        reserved: items of the audit sample.
    """
    rng, names = np.random.default_rng(0), ("fruit", "tool", "city")
    said = [a for a in graded() if a.status == "ok"]
    true = np.array([0] * len(said) + [i % 3 for i in range(300)])
    vectors = np.eye(3, 8)[true] + rng.normal(scale=0.2, size=(len(true), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for i in range(300):
        label = names[(i + (rng.random() < 0.2) + (i < turned)) % 3]
        said.append(Annotation(1000 + i, "ok", (label,)))
    name = recipe("peers", "vectors", [[a.item, a.labels, a.item in reserved] for a in said])
    return Peers(name, tuple(said), reserved, lambda: vectors.astype(np.float32))


def graded() -> list[Annotation]:
    """Every status, and answers of every kind with confidences from 0 to 1, ascending within a kind."""
    made = [Annotation(0, "ok", ("fruit",))]
    for status in typing.get_args(Status):
        if status != "ok":
            made.append(Annotation(len(made), status, detail="reason"))
    for kind in typing.get_args(ConfidenceKind):
        for step in range(21) if kind != "none" else ():
            sure = step / 20
            probs = (sure, 1 - sure, 0.0)
            made.append(Annotation(len(made), "ok", ("fruit",), probs, sure, kind))
    return made
