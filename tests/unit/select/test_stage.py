"""The select stage: picks are facts, a strategy may doubt labels or have enough, and sources tell no gold."""

import json

import numpy as np
import pytest

from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Annotation, Label, LabelSchema
from llmal.select import stage
from llmal.select.sources import StoreSources
from llmal.select.stage import NONE_LEFT, Selection, Selector
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)


class Given(Selector):
    """Takes the first rows, with what a test has it say besides."""

    again: dict[int, str] = {}
    enough: str = ""
    note: str = ""

    def select(self, pool, k, rng):
        rows = pool.unlabelled[:k]
        words = {"again": self.again, "enough": self.enough, "note": self.note}
        return Selection(rows, np.ones(len(rows)), ["first"] * len(rows), **words)


@pytest.fixture
def store(tmp_path):
    """Ten items, all with gold."""
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": "bug"}) + "\n" for i in range(10)))
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl", gold="label"), path, SCHEMA), text_key)
    opened.put_block("v", 0, np.eye(10, 4, dtype=np.float32))
    yield opened
    opened.close()


def names(texts):
    """Label names as vectors: the first two directions."""
    return np.eye(2, 4, dtype=np.float32)[[SCHEMA.names.index(text) for text in texts]]


def choose(store, selector, *, round_no=0, size=3):
    ctx = Context(store.folder, home=store.folder)
    given = {"probs": None, "vectors": "v", "schema": SCHEMA, "labels": {}}
    return stage.run(selector, store, ctx, round_no=round_no, size=size, **given)


def test_a_full_round_is_left_alone_and_a_short_one_says_so(store):
    assert choose(store, Given()) == (3, 3, "", "")
    assert choose(store, Given()) == (3, 0, "", "")
    assert choose(store, Given(), round_no=1, size=9) == (9, 7, "the pool held only 7 of 9 wanted", NONE_LEFT)
    assert choose(store, Given(), round_no=2) == (3, 0, "", NONE_LEFT)


def test_what_a_strategy_has_to_say_is_shown(store):
    assert choose(store, Given(note="recall 0.9")).note == "recall 0.9"


def test_labels_in_doubt_are_kept_with_their_reason(store):
    choose(store, Given())
    choose(store, Given(again={2: "votes differ", 0: "alone"}), round_no=1)
    assert store.doubts() == {0: "alone", 2: "votes differ"}
    answer(store, 2, at=1e12)
    assert store.doubts() == {0: "alone"}


def test_a_strategy_that_has_enough_ends_the_rounds_now_and_when_run_again(store):
    selector = Given(enough="little left to learn")
    assert choose(store, selector, round_no=1).ends == "little left to learn"
    assert stage.enough(store, selector, 0) == "", "the round before was wanted"
    assert choose(store, selector, round_no=1) == (3, 0, "", "little left to learn")
    assert stage.enough(store, Given(), 1) == "", "another strategy has said nothing"


def test_a_changed_corpus_is_looked_at_anew(store, tmp_path):
    selector = Given(enough="little left to learn")
    choose(store, selector)
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(12)))
    store.put_corpus("c2", "d2", read(CorpusSpec(path="more.jsonl"), path, SCHEMA), text_key)
    assert stage.enough(store, selector, 0) == ""


def test_votes_are_those_of_machines_and_people_never_gold(store):
    store.add(
        t.annotation, annotation_rows("a", [Annotation(1, "ok", ("billing",)), Annotation(2, "refused")])
    )
    store.add(
        t.annotation, annotation_rows("b", [Annotation(1, "ok", ("gone",)), Annotation(3, "ok", ("bug",))])
    )
    of_panel = Annotation(1, "ok", ("bug",), (1.0, 0.0), 1.0, "votes")
    store.add(t.annotation, annotation_rows("c", [of_panel]))
    answer(store, 2, "billing")
    answer(store, 2, "bug")
    answer(store, 2, "billing", role=t.ADJUDICATE)  # has seen the votes, and is none
    ctx = Context(store.folder, home=store.folder, encode=names)
    found = StoreSources(store, ctx, SCHEMA, store.load("v"), np.array([1, 2, 4]))
    assert found.votes().tolist() == [[1, -1, -1], [-1, -1, 0], [-1, -1, -1]], "the newest of a person counts"
    assert found.texts(np.array([4, 0])) == ["t4", "t0"]
    prior = found.prior()
    assert prior.shape == (10, 2)
    assert prior.sum(axis=1) == pytest.approx(1.0)
    assert prior[0].argmax() == 0
    assert prior[1].argmax() == 1
