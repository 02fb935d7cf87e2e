"""What a person does on the desk is a fact at once: appended, superseded, taken back, and never twice."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.desk.pool import AHEAD
from llmal.desk.said import Refusal, Said
from llmal.records import Label, LabelSchema
from llmal.store import schema as t
from llmal.testing.hostile import HOSTILE, LABELS, PERSON

from .conftest import NAMES, SCHEMA, desk_of, facts, filled, new_id


def said(item, what="answer", labels=("bug",), **more):
    return Said(id=more.pop("id", new_id()), item=item, what=what, labels=list(labels), **more)


def order(desk, n=20):
    """The items in the order a person gets them, told apart by skipping all."""
    seen = []
    for _ in range(n):
        one = desk.start("ada")["items"]
        if not one or one[0]["item"] in seen:
            return seen
        seen.append(one[0]["item"])
        desk.say("ada", said(seen[-1], "skip"))
    return seen


def test_the_audit_comes_first_with_all_labels_and_no_machines_answer_is_sent(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(5)], short=("praise", "bug"))
    found = desk_of(store).start("ada")
    assert [(i["why"], i["candidates"]) for i in found["items"][:3]] == [
        ("audit", []), ("audit", []), ("unsure", ["bug", "praise"]),
    ]  # fmt: skip
    assert {one["guess"] for one in found["items"]} == {one["confidence"] for one in found["items"]} == {None}
    assert len(found["items"]) == AHEAD
    assert (found["done"], found["left"]) == (0, 5)
    assert [label["name"] for label in found["labels"]] == list(NAMES)
    store.close()


def test_an_answer_is_kept_with_person_seconds_comment_short_list_and_page(tmp_path):
    store = filled(tmp_path, ["a", "b", "c"], audit=1, short=("praise", "bug"))
    desk = desk_of(store)
    desk.say("ada", said(0, seconds=2.345, note="why not"))
    desk.say("ada", said(1, labels=["praise"], full=False))
    found = desk.say("ada", said(2, labels=["other"], full=True))
    rows = store.read(t.answer.select())
    assert [(a.n, a.item, a.person, json.loads(a.labels), a.note, a.seconds, a.shown) for a in rows] == [
        (1, 0, "ada", ["bug"], "why not", 2.35, None) if rows[0].seconds == 2.35
        else (1, 0, "ada", ["bug"], "why not", 2.34, None),
        (2, 1, "ada", ["praise"], "", None, '["praise", "bug"]'),
        (3, 2, "ada", ["other"], "", None, None),
    ]  # fmt: skip
    assert all(a.source.startswith("page-") and a.source.rpartition(":")[2] for a in rows)
    assert (found["done"], found["left"], found["items"]) == (3, 0, [])
    store.close()


def test_a_deed_sent_again_adds_nothing_whatever_came_between(store):
    desk = desk_of(store)
    first = desk.start("ada")["items"]
    deed, skip = said(first[0]["item"]), said(first[1]["item"], "skip")
    for one in (deed, deed, skip, deed, skip):
        desk.say("ada", one)
    before = facts(store)
    assert [len(rows) for rows in before] == [1, 1]
    for one in (deed, skip):
        desk_of(store).say("ada", one)  # the server was killed and started again
    assert facts(store) == before


def test_undo_appends_and_the_item_waits_again_at_once(store):
    desk = desk_of(store)
    item = desk.start("ada")["items"][0]["item"]
    deed = said(item)
    desk.say("ada", deed)
    assert item in store.answers()
    undo = said(item, "undo", of=deed.id)
    for _ in range(2):
        found = desk.say("ada", undo)
    assert found["undone"]["item"] == item
    assert (found["done"], found["left"]) == (0, 8)
    assert item not in store.answers()
    assert [len(rows) for rows in facts(store)] == [1, 1]  # nothing was erased
    desk.say("ada", said(item, labels=["praise"]))
    assert store.answers()[item] == ("praise",)
    assert item not in order(desk)


def test_undo_reaches_back_over_a_restart_and_brings_the_answer_before_it_back(store):
    item = desk_of(store).start("ada")["items"][0]["item"]
    desk_of(store).say("ada", said(item))
    desk = desk_of(store)
    last = desk.start("ada")["last"]
    assert [one["item"] for one in last] == [item]
    found = desk.say("ada", said(item, "undo", of=last[0]["id"]))
    assert found["undone"]["why"] == "audit"
    assert desk.start("ada")["last"] == []


def test_skipped_comes_last_and_not_sure_comes_back_at_the_next_start_only(store):
    desk = desk_of(store)
    first, second = (one["item"] for one in desk.start("ada")["items"][:2])
    desk.say("ada", said(first, "skip"))
    desk.say("ada", said(second, "unsure", note="hm"))
    assert order(desk)[-1] == first
    assert second not in order(desk)
    assert store.answers() == {}
    assert second in order(desk_of(store))


@pytest.mark.parametrize(
    "wrong",
    [
        said(0, labels=["nobody's"]), said(0, labels=[]), said(0, labels=["bug", "praise"]), said(99),
        said(0, "undo", of="f" * 32), said(0, "undo"), said(99, "skip"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_no_trace(store, wrong):
    with pytest.raises(Refusal):
        desk_of(store).say("ada", wrong)
    assert facts(store) == [[], []]


def test_nobody_takes_back_what_somebody_else_said(store):
    deed = said(0)
    desk_of(store).say("ada", deed)
    with pytest.raises(Refusal):
        desk_of(store, SCHEMA, "eve").say("eve", said(0, "undo", of=deed.id))
    assert 0 in store.answers()


def test_several_labels_or_none_where_a_text_may_have_them(tmp_path):
    schema = LabelSchema("multi", tuple(Label(name=name) for name in LABELS), False)
    store = filled(tmp_path, ["a", "b"], schema, audit=0)
    desk = desk_of(store, schema)
    desk.say("ada", said(0, labels=[LABELS[2], LABELS[0]]))
    desk.say("ada", said(1, labels=[]))
    assert store.answers() == {0: (LABELS[0], LABELS[2]), 1: ()}
    store.close()


def test_hostile_texts_names_and_comments_are_data(tmp_path):
    texts = [*HOSTILE.values()]
    schema = LabelSchema("single", tuple(Label(name=name) for name in LABELS), False)
    store = filled(tmp_path, texts, schema, audit=0)
    desk = desk_of(store, schema, PERSON)
    for i, text in enumerate(texts):
        assert desk.say(PERSON, said(i, "skip"))["left"] == len(texts) - i
        desk.say(PERSON, said(i, labels=[LABELS[i % 4]], note=text + "\ud800\0"))
    rows = store.read(t.answer.select())
    assert [r.note for r in rows] == [text + "\ufffd\ufffd" for text in texts]
    assert {r.person for r in rows} == {PERSON}
    store.close()


deeds = st.lists(
    st.tuples(st.sampled_from(["answer", "skip", "unsure", "undo", "again"]), st.integers(0, 3)), max_size=25
)


@settings(max_examples=25, deadline=None)
@given(steps=deeds)
def test_whatever_is_done_the_store_says_what_the_person_said_last(tmp_path_factory, steps):
    """A model of one dict and one stack, against the desk: answers, undos and repeats in any order."""
    store = filled(tmp_path_factory.mktemp("model"), ["a", "b", "c", "d"])
    desk, model, stack, sent = desk_of(store), {}, [], []
    for what, number in steps:
        items = [one["item"] for one in desk.start("ada")["items"]]
        if what == "again" and sent:
            desk.say("ada", sent[number % len(sent)])
        elif what == "undo" and stack:
            deed = stack.pop()
            desk.say("ada", said(deed.item, "undo", of=deed.id))
            model.pop(deed.item, None)
        elif what in ("answer", "skip", "unsure") and items:
            deed = said(items[number % len(items)], what, [NAMES[number]])
            desk.say("ada", deed)
            stack.append(deed)
            sent.append(deed)
            if what == "answer":
                model[deed.item] = (NAMES[number],)
        assert store.answers() == model
    store.close()
