"""Choosing among annotators: the right expert is asked, each call once, prices and budgets hold."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from llmal.annotate import stage
from llmal.annotate.stage import Annotator, Estimate
from llmal.annotate.uniroute import FEWEST, UniRoute
from llmal.context import Context, Silent
from llmal.corpus import CorpusSpec, read, text_key
from llmal.errors import BudgetSpent
from llmal.records import Annotation, Label, LabelSchema
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing"), Label(name="praise")), True)
N, RESERVED = 300, 90
RNG = np.random.default_rng(5)
TRUTH, TOPIC = RNG.integers(3, size=N), RNG.integers(2, size=N)
VECTORS = np.eye(2, 4)[TOPIC] + 0.05 * RNG.normal(size=(N, 4))

ASKED: dict[str, list[int]] = {}


class Expert(Annotator):
    """Right on one topic, wrong on every other."""

    who: str
    topic: int = 0
    usd: float = 0.0
    silent: bool = False
    budget: int = 10_000

    def annotate(self, items, schema, desk):
        for item in items:
            if len(ASKED.get(self.who, [])) >= self.budget:
                raise BudgetSpent("no more", where="budget.calls")
            ASKED.setdefault(self.who, []).append(item.seq)
            said = (TRUTH[item.seq] + (TOPIC[item.seq] != self.topic)) % 3
            a = Annotation(item.seq, "ok", (schema.names[said],), None, 0.9, "own", detail=self.who)
            a = Annotation(item.seq, "refused", detail=self.who) if self.silent else a
            desk.store.add(t.annotation, annotation_rows(desk.recipe, [a]))  # as one that is paid by the call
            yield a
            desk.advance()

    def estimate(self, items, schema, ctx):
        return Estimate(len(items), usd=self.usd * len(items))


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _nobody_was_asked():
    ASKED.clear()


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(N)))
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    opened.put_block("v", 0, unit.astype(np.float32))
    opened.add(t.audit, [{"item": item, "at": 0.0} for item in range(RESERVED)])
    yield opened
    opened.close()


def people_answer(store, n=RESERVED):
    for item in range(n):
        answer(store, item, SCHEMA.names[TRUTH[item]])


def run(store, plan, *, wanted=None, progress=None):
    ctx = Context(store.folder, home=store.folder, progress=progress)
    wanted = list(range(RESERVED, N)) if wanted is None else wanted
    stage.run(plan, store, ctx, schema=SCHEMA, caps=Caps(), wanted=wanted, vectors="v")
    return store.annotations(plan.recipe_for(SCHEMA, ctx, "v"))


def right(found):
    return float(np.mean([a.labels == (SCHEMA.names[TRUTH[s]],) for s, a in found.items()]))


def experts(*usd, **changes):
    return [Expert(who=f"e{i}", topic=i, usd=price, **changes) for i, price in enumerate(usd)]


def test_each_item_goes_to_the_expert_of_its_topic_and_to_nobody_else(store):
    people_answer(store)
    found = run(store, UniRoute(of=experts(1.0, 0.1), clusters=2, validation=60))
    assert right(found) == 1.0
    for i in range(2):
        mine = [s for s in ASKED[f"e{i}"] if s >= RESERVED]
        assert sorted(mine) == [s for s in range(RESERVED, N) if TOPIC[s] == i]
        assert len(ASKED[f"e{i}"]) == len(set(ASKED[f"e{i}"])) == len(mine) + 60
    assert all("in cluster" in a.detail and a.confidence == 0.9 and a.kind == "own" for a in found.values())


def test_a_heavy_price_asks_the_cheapest_alone(store):
    people_answer(store)
    run(store, UniRoute(of=experts(1.0, 0.1), clusters=2, weight=50, validation=60))
    assert not [s for s in ASKED["e0"] if s >= RESERVED]
    given = UniRoute(of=experts(1.0, 0.1), clusters=2, weight=50, validation=60, prices=(0.1, 0.2))
    assert all("e0" in a.detail for a in run(store, given).values())


def test_a_new_annotator_costs_its_answers_on_the_validation_items_and_what_it_is_better_at(store):
    people_answer(store)
    run(store, UniRoute(of=experts(1.0), clusters=2, validation=60))
    assert len(ASKED["e0"]) == N - RESERVED, "one alone is tried on nothing"
    ASKED.clear()
    run(store, UniRoute(of=experts(1.0, 1.0), clusters=2, validation=60))
    assert len(ASKED["e0"]) == 60
    assert len(ASKED["e1"]) == 60 + sum(TOPIC[RESERVED:] == 1)
    ASKED.clear()
    team = [*experts(1.0, 1.0), Expert(who="bad", topic=7, usd=1.0)]
    run(store, UniRoute(of=team, clusters=2, validation=60))
    assert {who: len(asked) for who, asked in ASKED.items()} == {"bad": 60}


def test_before_people_answered_enough_the_cheapest_is_asked_and_it_says_so(store):
    people_answer(store, FEWEST - 1)
    progress = Said()
    run(store, UniRoute(of=experts(1.0, 0.1), clusters=2), progress=progress)
    assert list(ASKED) == ["e1"]
    assert f"people answered {FEWEST - 1} of {FEWEST} audit items" in progress.lines[0]
    assert "the cheapest is asked" in progress.lines[0]


def test_an_audit_items_own_answer_does_not_decide_who_is_asked_about_it(store):
    people_answer(store)
    plan = UniRoute(of=experts(0.0, 0.0), clusters=1, validation=RESERVED)
    run(store, plan, wanted=[0])
    ctx = Context(store.folder, home=store.folder)
    (first,) = store.annotations(plan.recipe_for(SCHEMA, ctx, "v")).values()
    others = [TOPIC[s] != m for m in range(2) for s in range(1, RESERVED)]
    wrong = np.array(others).reshape(2, -1).sum(axis=1)
    assert f"e{wrong.argmin()}" in first.detail


def test_annotators_that_give_no_answer_count_as_wrong(store):
    people_answer(store)
    team = [Expert(who="mute", silent=True), Expert(who="weak", topic=1)]
    found = run(store, UniRoute(of=team, clusters=1, validation=60))
    assert {a.detail.rpartition(" ")[2] for a in found.values()} == {"weak"}


def test_where_the_budget_ends_what_was_answered_is_kept_and_the_rest_comes_later(store):
    people_answer(store)
    short = UniRoute(of=experts(1.0, 0.1, budget=100), clusters=2, validation=60)
    with pytest.raises(BudgetSpent):
        run(store, short)
    ctx = Context(store.folder, home=store.folder)
    kept = store.annotations(short.recipe_for(SCHEMA, ctx, "v"))
    assert len(kept) == 80
    assert right(kept) == 1.0
    whole = run(store, UniRoute(of=experts(1.0, 0.1), clusters=2, validation=60))
    assert len(whole) == N - RESERVED


@pytest.mark.parametrize("wrong", [{"of": []}, {"of": ["zero-shot"], "prices": (1.0, 2.0)}, {"weight": -1}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        UniRoute.model_validate({"of": ["zero-shot"]} | wrong)
