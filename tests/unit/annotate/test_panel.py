"""A panel: every member's answers are kept, the better ones weigh more, and sure items are spared."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from llmal.annotate import stage
from llmal.annotate.panel import LEARN, Panel
from llmal.annotate.stage import Annotator
from llmal.context import Context, Silent
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Annotation, Label, LabelSchema
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing"), Label(name="praise")), True)
MULTI = LabelSchema("multi", SCHEMA.labels, True)
N = 400
TRUTH = np.random.default_rng(5).integers(3, size=N)

ASKED: dict[str, list[int]] = {}


class Worker(Annotator):
    """Right with a chance of its own, the same on every day."""

    who: str
    right: float = 0.8
    always: str = ""
    silent: bool = False

    def annotate(self, items, schema, desk):
        for item in items:
            ASKED.setdefault(self.who, []).append(item.seq)
            rng = np.random.default_rng([item.seq, *self.who.encode()])
            truth = int(TRUTH[item.seq])
            said = truth if rng.random() < self.right else (truth + rng.integers(1, 3)) % 3
            if self.silent:
                yield Annotation(item.seq, "refused", detail="I would rather not")
            else:
                yield Annotation(item.seq, "ok", (self.always or schema.names[said],), detail=self.who)
            desk.advance()


@pytest.fixture(autouse=True)
def _nobody_was_asked():
    ASKED.clear()


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(N)))
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    yield opened
    opened.close()


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def run(store, panel, *, wanted=None, schema=SCHEMA, progress=None):
    ctx = Context(store.folder, home=store.folder, progress=progress)
    given = {"schema": schema, "caps": Caps(), "vectors": "v"}
    stage.run(panel, store, ctx, wanted=list(range(N)) if wanted is None else wanted, **given)
    return store.annotations(panel.recipe_for(schema, ctx, "v"))


def right(annotations):
    return float(np.mean([a.labels == (SCHEMA.names[TRUTH[s]],) for s, a in annotations.items()]))


def workers(*rights):
    return tuple(Worker(who=f"w{i}", right=r) for i, r in enumerate(rights))


@pytest.mark.parametrize("combine", ["dawid-skene", "matrix", "weighted"])
def test_better_members_weigh_more_than_in_a_majority(store, combine):
    unequal = workers(0.95, 0.5, 0.5, 0.5, 0.5)
    by_count = run(store, Panel(of=unequal, combine="majority"))
    assert {who: len(asked) for who, asked in ASKED.items()} == {f"w{i}": N for i in range(5)}
    weighed = run(store, Panel(of=unequal, combine=combine))
    assert all(len(asked) == N for asked in ASKED.values()), "kept answers are combined anew, nobody is asked"
    assert right(weighed) > right(by_count) + 0.03
    assert all(a.kind == "votes" and abs(sum(a.probs) - 1) < 1e-5 for a in weighed.values())


def test_a_member_added_later_is_the_only_one_asked(store):
    run(store, Panel(of=workers(0.9, 0.8)))
    ASKED.clear()
    run(store, Panel(of=workers(0.9, 0.8, 0.7)))
    assert list(ASKED) == ["w2"]


def test_items_that_are_sure_spare_the_later_members(store):
    run(store, Panel(of=workers(0.95, 0.9, 0.6), sure=0.9), wanted=list(range(100)))
    asked = {who: len(items) for who, items in ASKED.items()}
    assert asked["w0"] == 100
    assert LEARN <= asked["w2"] < 100
    found = run(store, Panel(of=workers(0.95, 0.9, 0.6), sure=0.9))
    asked = {who: len(items) for who, items in ASKED.items()}
    assert asked["w0"] == N
    assert asked["w2"] < asked["w0"] / 2 + LEARN
    assert right(found) > 0.9


def test_everybody_is_asked_about_the_first_items(store):
    run(store, Panel(of=workers(0.95, 0.9), sure=0.6), wanted=list(range(LEARN)))
    assert ASKED["w0"] == ASKED["w1"] == list(range(LEARN))


def test_people_anchor_a_panel_that_is_mostly_wrong_but_never_on_the_audit(store):
    bad = workers(0.2, 0.2, 0.2, 0.9)
    before = right(run(store, Panel(of=bad)))
    for item in range(60):
        answer(store, item, SCHEMA.names[TRUTH[item]])
    store.add(t.audit, [{"item": item, "at": 0.0} for item in range(60)])
    reserved = Panel(of=(*bad, Worker(who="new", right=0.5)))
    assert right(run(store, reserved)) < before + 0.2, "the audit's answers were used"
    for item in range(100, 160):
        answer(store, item, SCHEMA.names[TRUTH[item]])
    anchored = Panel(of=(*bad, Worker(who="newer", right=0.5)))
    assert right(run(store, anchored)) > 0.75 > before


def test_a_bad_member_is_named(store):
    progress = Said()
    team = (*workers(0.9, 0.8, 0.8), Worker(who="x", always="praise"))
    run(store, Panel(of=team), progress=progress)
    (line,) = progress.lines
    assert "member 4" in line
    assert "answers praise to 100% of its items" in line


def test_where_no_member_gives_a_label_the_reason_stands(store):
    team = (Worker(who="a", silent=True), Worker(who="b", silent=True))
    found = run(store, Panel(of=team), wanted=[3])
    assert (found[3].status, found[3].labels) == ("refused", ())
    assert "I would rather not" in found[3].detail
    one = (Worker(who="a", silent=True), *workers(1.0, 1.0))
    found = run(store, Panel(of=one), wanted=[4])
    assert found[4].labels == (SCHEMA.names[TRUTH[4]],)
    assert found[4].detail == "2 of 2 members say so, 1 gave no label"


def test_independent_labels_are_questions_of_their_own(store):
    found = run(store, Panel(of=workers(0.9, 0.8, 0.85)), schema=MULTI)
    hits = [set(a.labels) == {SCHEMA.names[TRUTH[s]]} for s, a in found.items()]
    assert np.mean(hits) > 0.9


def test_matrix_completion_wants_three():
    with pytest.raises(ValidationError, match="needs three members"):
        Panel(of=workers(0.9, 0.8), combine="matrix")
