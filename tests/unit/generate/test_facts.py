"""Parts that stay as dealt, and texts that are items of no corpus."""

import pytest
import sqlalchemy as sa

from llmal.corpus import Row, text_key
from llmal.generate import facts
from llmal.store import schema as t
from llmal.store.store import open_store


def rows(texts):
    return iter([Row(i, str(i), text) for i, text in enumerate(texts, 1)])


@pytest.fixture
def store(tmp_path):
    made = open_store(tmp_path / "run")
    made.put_corpus("r", "d", rows([f"text {i}" for i in range(400)]), text_key)
    yield made
    made.close()


def test_each_kind_of_label_gives_its_share_and_a_part_once_given_stays(store):
    items, labels = list(range(300)), [("a",) if i % 10 else ("b",) for i in range(300)]
    facts.deal(store, items, labels, share=0.2, seed=0)
    first = facts.parts(store)
    assert sum(labels[s] == ("a",) for s in first) == 54
    assert sum(labels[s] == ("b",) for s in first) == 6
    facts.deal(store, list(range(400)), [("a",)] * 400, share=0.5, seed=1)  # more items, other labels, share
    now = facts.parts(store)
    assert first <= now
    assert not (now - first) & set(range(300))
    assert 90 < len(now - first) <= 100


def test_a_written_text_is_an_item_of_no_corpus_until_a_corpus_holds_it(store):
    made = facts.add_items(store, ["a new text", "TEXT  7", "another"])
    assert made == [400, 7, 401]
    assert store.hidden() == {400, 401}
    assert set(store.active()) == set(range(400))
    assert facts.add_items(store, ["A new text"]) == [400]
    assert facts.keys_there(store, ["a new text", "text 7", "unheard"], {400}) == [False, True, False]
    store.put_corpus("r", "e", rows(["a new text", "text 7"]), text_key)
    assert store.hidden() == {401}
    assert store.active() == [7, 400]


def test_items_of_another_recipe_or_of_a_loop_broken_off_are_no_reason_to_refuse_a_text(store):
    made = facts.add_items(store, ["one", "two", "three"])
    keep = [facts.Text(1, 0, made[0], "one", ("a",), "accept", "why")]
    assert facts.keep_written(store, "mine", keep) == 1
    assert facts.keep_written(store, "other", [keep[0]._replace(item=made[1], text="two")]) == 1
    assert facts.strangers(store, "mine") == {made[1], made[2]}
    assert facts.written(store, "mine") == keep
    assert facts.written(store, "mine", 2) == []
    with store.engine.connect() as db:
        plan = db.execute(sa.text("EXPLAIN QUERY PLAN SELECT seq FROM item WHERE flags = '[\"synthetic\"]'"))
        assert "item_synthetic" in str(plan.all())  # and no walk over all texts
    assert store.count(t.synthetic) == 2
