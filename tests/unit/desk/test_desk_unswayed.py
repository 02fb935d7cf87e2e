"""Who has yet to answer is told neither what the others said nor, blind, what a machine says."""

import json

import pytest

from llmal.desk.app import version
from llmal.desk.beside import demonstrations
from llmal.desk.queue import Desk
from llmal.desk.said import Refusal
from llmal.desk.source import Source
from llmal.records import ANSWERED
from llmal.review.options import ReviewSpec
from llmal.review.stage import waiting
from llmal.store import schema as t
from llmal.testing import facts as made

from .conftest import NAMES, SCHEMA, desk_of, filled, new_id
from .test_desk_people import ALL, said


def desk_over(store, *people, review, route="r", limit=None, **more):
    """A desk on one route's items, those below `limit()` where that is given."""

    def refill():
        found = waiting(store, names=SCHEMA.names, route=route, people=None, options=review)
        return [w for w in found if limit is None or w.item < limit()]

    source = Source(store, SCHEMA.names, refill, None)
    return Desk(source, SCHEMA, people, version(), review=review, **more)


@pytest.mark.parametrize("show", ["blind", "assisted"])
def test_a_second_opinion_never_hears_the_first_one_as_a_machines(tmp_path, show):
    store = filled(tmp_path, [f"t{i}" for i in range(8)], audit=0)
    made.answer(store, 0, "praise", person="ada")
    row = {"recipe": "r2", "who": "person", "confidence": 1.0, "labels": json.dumps(["praise"])}
    store.add(t.route, [{**row, "item": 0, "reason": ANSWERED}])
    doubt = {"item": 0, "round": 0, "by": "activelab", "reason": "1 of 1 votes agree", "recipe": "a"}
    store.add(t.doubt, [{**doubt, "at": 9e12}])
    review = ReviewSpec(order="doubt", overlap=0.0, show=show)
    desk = desk_over(store, "ada", "bob", review=review, route="r2")
    (one,) = desk.start("bob")["items"]
    assert (one["item"], one["guess"], one["confidence"]) == (0, None, None)
    assert "machine" not in desk.say("bob", said(0))
    assert [a.saw for a in store.read(t.answer.select())] == [None, None]
    store.close()


def test_who_settles_gives_her_own_answer_before_she_hears_the_others(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", "cy", review=ReviewSpec(order="doubt", overlap=1.0, people=3))
    item = desk.start("bob")["items"][0]["item"]
    desk.start("cy"), desk.start("ada")
    desk.say("bob", said(item, label="bug"))
    desk.say("cy", said(item, label="praise"))
    assert (desk.disputes("ada"), desk.start("ada")["disputes"]) == ({"items": [], "left": 0}, 0)
    with pytest.raises(Refusal, match="your own answer"):
        desk.say("ada", said(item, "adjudicate"))
    desk.say("ada", said(item, label="bug"))
    assert desk.disputes("ada")["left"] == 1
    desk.say("ada", said(item, "adjudicate"))
    assert desk.disputes("ada")["left"] == 0


def test_an_answer_given_anew_after_the_machines_word_says_that_it_was_seen(store):
    desk = desk_of(store)
    item = next(
        w.item for w in waiting(store, names=SCHEMA.names, route="r", people=None) if w.why != "audit"
    )
    deed = said(item, label="other")
    assert desk.say("ada", deed)["machine"]["labels"] == ["bug"]
    desk.say("ada", said(item, "undo", of=deed.id))
    desk.say("ada", said(item, label="bug"))
    assert [a.saw for a in store.read(t.answer.select())] == [None, '["bug"]']


def test_no_deed_but_an_answer_kept_brings_the_machines_word(store):
    desk = desk_of(store)
    name = new_id()
    desk.say("ada", said(4, "flag", id=name))
    assert "machine" not in desk.say("ada", said(4, id=name))
    assert not store.count(t.answer)
    deed = said(4)
    assert (
        desk.say("ada", deed)["machine"] == desk.say("ada", deed)["machine"]
    )  # sent again after a lost reply


def test_a_short_list_tells_the_likeliest_label_to_nobody_who_answers_blind(tmp_path):
    for show, some, expected in (
        ("blind", ("praise", "bug"), ["bug", "praise"]),
        ("assisted", ("praise", "bug"), ["praise", "bug"]),
        ("blind", ("praise",), []),
        ("assisted", ("praise",), ["praise"]),
    ):
        store = filled(tmp_path / show / str(len(some)), ["a", "b"], audit=0, short=some)
        desk = desk_of(store, review=ReviewSpec(order="doubt", show=show))
        assert [one["candidates"] for one in desk.start("ada")["items"]] == [expected] * 2
        store.close()


def test_no_example_tells_the_answer_to_a_text_that_a_second_person_is_to_answer(tmp_path):
    store = filled(tmp_path, [f"text number {i} here" for i in range(40)], audit=0)
    for i in range(10):
        made.answer(store, i, NAMES[i % 4], person="ada")
    upto = [14]

    def beside(apart):
        return {"guidelines": "", "demonstrations": demonstrations(store, SCHEMA, apart=apart)}

    review = ReviewSpec(order="doubt", overlap=0.5)
    desk = desk_over(store, "ada", "bob", review=review, limit=lambda: upto[0], beside=beside)
    assert desk.start("bob")["demonstrations"]
    upto[0] = 40
    desk._news.look()  # a run has written more
    started = desk.start("bob")
    examples, asked = {one["text"] for one in started["demonstrations"]}, set()
    while items := desk.start("bob")["items"]:
        asked |= {one["text"] for one in items}
        desk.say("bob", said(items[0]["item"]))
    assert len(asked) > 20
    assert not asked & examples
    store.close()


def test_why_a_text_was_flagged_is_told_to_nobody_who_is_to_answer_it_unswayed(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    item = desk.start("ada")["items"][0]["item"]
    desk.say("ada", said(item, "flag", note="clearly a bug"))
    assert desk.start("ada")["items"][0]["flagged"] == "clearly a bug"
    desk.say("ada", said(item))
    assert desk.start("bob")["items"][0]["flagged"] == ""


def test_only_who_settles_disputes_takes_a_settlement_back(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    for person in ("ada", "bob"):
        desk.start(person)
    desk.say("ada", said(0, label="bug"))
    desk.say("bob", said(0, label="praise"))
    deed = said(0, "adjudicate")
    desk.say("ada", deed)
    desk.close()
    later = desk_over(store, "ada", "bob", review=ALL, adjudicators=("bob",))
    with pytest.raises(Refusal):
        later.say("ada", said(0, "undo", of=deed.id))
    assert any(word.adjudicates for word in store.words())
