"""Several people at one desk: each has their own items and answers, and what they differ on gets settled."""

import random
import threading
import time

import pytest

from llmal.desk.options import Options
from llmal.desk.pool import AHEAD
from llmal.desk.said import Refusal, Said
from llmal.errors import UserError
from llmal.review.options import ReviewSpec
from llmal.store import schema as t
from llmal.testing import facts as made

from .conftest import NAMES, SCHEMA, desk_of, facts, filled, new_id, page, run, token_of

ALL = ReviewSpec(order="doubt", overlap=1.0)
"""Everything is answered by two."""

NONE = ReviewSpec(order="doubt", overlap=0.0)
"""Nothing is."""


def said(item, what="answer", label="bug", **more):
    labels = [label] if what in ("answer", "adjudicate") else []
    return Said(id=more.pop("id", new_id()), item=item, what=what, labels=labels, **more)


def differ(desk, item=0):
    """Ada and Bob answer an item, not alike."""
    desk.say("ada", said(item, label="bug", note="it crashes"))
    return desk.say("bob", said(item, label="praise"))


# --- each has their own -------------------------------------------------------------------------------------


def test_items_lie_before_one_person_each_and_answers_are_kept_under_their_names(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=NONE)
    ada, bob = desk.start("ada"), desk.start("bob")
    assert not {i["item"] for i in ada["items"]} & {i["item"] for i in bob["items"]}
    assert (ada["several"], ada["adjudicates"], bob["adjudicates"]) == (True, True, False)
    for person, start in (("ada", ada), ("bob", bob)):
        for one in start["items"]:
            got = desk.say(person, said(one["item"]))
        assert got["mine"] == AHEAD
    assert {w.person for w in store.words(items=[one["item"] for one in ada["items"]])} == {"ada"}
    again = desk_of(store, SCHEMA, "bob", "ada", review=NONE)
    assert (again.start("ada")["mine"], again.start("bob")["mine"]) == (4, 4), "who answered what stays known"


def test_nobody_answers_takes_back_or_skips_for_another(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=NONE)
    first = desk.start("ada")["items"][0]["item"]
    for what in ("answer", "skip", "unsure"):
        with pytest.raises(Refusal):
            desk.say("bob", said(first, what))
    deed = said(first)
    desk.say("ada", deed)
    for wrong in (said(first, "undo", of=deed.id), said(first), said(first, "skip")):
        with pytest.raises(Refusal):
            desk.say("bob", wrong)
    assert [len(rows) for rows in facts(store)] == [1, 0]
    assert desk.start("bob")["last"] == []
    assert [one["item"] for one in desk.start("ada")["last"]] == [first]
    with pytest.raises(Refusal):
        desk_of(store, SCHEMA, "ada", "bob").say("bob", said(first, "undo", of=deed.id))


def test_the_same_deed_from_two_people_is_two_deeds(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    deed = said(0)
    for person in ("ada", "bob", "ada"):
        desk.say(person, deed)
    assert [w.person for w in store.words()] == ["ada", "bob"]


def test_after_a_start_anew_the_second_word_is_asked_of_somebody_else_blind(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(6)])
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    desk.say("ada", said(0))
    desk.say("ada", said(3))
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    found = desk.start("bob")
    assert [(i["item"], i["why"]) for i in found["items"][:2]] == [(0, "audit"), (3, "unsure")]
    assert not {0, 3} & {i["item"] for i in desk.start("ada")["items"]}
    assert (found["done"], desk.start("ada")["done"]) == (0, 2)
    store.close()


def test_a_skipped_audit_item_is_asked_of_the_other_and_one_nobody_is_sure_of_waits_on(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=NONE)
    desk.start("ada")
    desk.say("ada", said(0, "skip"))
    desk.say("ada", said(1, "unsure"))
    assert {i["item"] for i in desk.start("bob")["items"][:2]} == {0, 1}
    desk.say("bob", said(1, "unsure", note="me neither"))
    desk.say("bob", said(0))
    assert 1 not in store.answers()
    again = desk_of(store, SCHEMA, "ada", "bob", "cleo", review=NONE)
    assert again.start("cleo")["items"][0]["item"] == 1, "first for somebody new"
    assert again.start("cleo")["items"][0]["why"] == "audit"


def test_a_budget_counts_second_words_and_what_lies_before_people(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(8)])
    people = ("ada", "bob")
    desk = desk_of(store, SCHEMA, *people, budget=5, review=ALL)
    have = {p: desk.start(p)["items"] for p in people}
    given = 0
    while any(have.values()):
        assert sum(map(len, have.values())) <= 5 - given
        person = max(have, key=lambda p: len(have[p]))
        one = have[person].pop(0)
        got = desk.say(person, said(one["item"], have=[o["item"] for o in have[person]]))
        have[person] += got["items"]
        given += 1
        for p in people:
            known = [o["item"] for o in have[p]]
            have[p] += [o for o in desk.start(p)["items"] if o["item"] not in known]
    assert given == store.n_words() == 5
    assert got["left"] == 0
    store.close()


# --- blind or assisted --------------------------------------------------------------------------------------


def test_blind_the_machines_answer_comes_after_ones_own_and_never_of_items_that_measure(store):
    desk = desk_of(store)
    assert all(one["guess"] is None and one["confidence"] is None for one in desk.start("ada")["items"])
    assert "machine" not in desk.say("ada", said(0))
    deed = said(2, label="praise")
    for _ in range(2):
        assert desk.say("ada", deed)["machine"] == {"labels": ["bug"], "confidence": 0.502}
    assert "machine" not in desk.say("ada", said(3, "skip"))
    assert {row.saw for row in store.read(t.answer.select())} == {None}


def test_assisted_the_guess_stands_beside_all_but_what_measures_and_is_kept_with_the_answer(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(6)], audit=2)
    review = ReviewSpec(order="doubt", show="assisted", overlap=1.0)
    for people in (("ada", "bob"), ("bob", "ada")):  # the second time after a start anew
        desk = desk_of(store, SCHEMA, *people, review=review)
        found = desk.start(people[0])
        guesses = {one["item"]: one["guess"] for one in found["items"]}
        assert guesses == {0: None, 1: None, 2: ["bug"], 3: ["bug"]}
        for item in guesses:
            assert "machine" not in desk.say(people[0], said(item, label="praise"))
    rows = store.read(t.answer.select().order_by(t.answer.c.n))
    assert [row.saw for row in rows] == [None, None, '["bug"]', '["bug"]'] * 2
    store.close()


# --- what people differ on ----------------------------------------------------------------------------------


def test_a_dispute_is_told_to_who_settles_it_and_ends_with_that_word(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    assert differ(desk)["disputes"] == 0, "Bob settles nothing"
    assert desk.start("ada")["disputes"] == 1
    found = desk.disputes("ada")
    assert found["left"] == 1
    assert found["items"][0]["answers"] == [
        {"person": "ada", "labels": ["bug"], "note": "it crashes"},
        {"person": "bob", "labels": ["praise"], "note": ""},
    ]
    assert "guess" not in found["items"][0]
    deed = said(0, "adjudicate", "other", note="neither")
    for _ in range(2):
        assert desk.say("ada", deed)["disputes"] == 0
    assert store.answers()[0] == ("other",)
    assert [w.labels for w in store.words(items=[0]) if not w.adjudicates] == [("bug",), ("praise",)]
    with pytest.raises(Refusal):
        desk.say("ada", said(0, "adjudicate"))
    again = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    assert again.disputes("ada") == {"items": [], "left": 0}
    got = again.say("ada", said(0, "undo", of=deed.id))
    assert got["disputes"] == 1
    assert "undone" not in got


def test_who_may_not_settle_neither_reads_disputes_nor_ends_them(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    differ(desk)
    for ask in (lambda: desk.disputes("bob"), lambda: desk.say("bob", said(0, "adjudicate"))):
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.status == 403
    assert len(facts(store)[0]) == 2


def test_taking_a_word_back_ends_a_dispute_and_agreement_is_none(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    deed = said(0, label="praise")
    desk.say("ada", said(0))
    desk.say("bob", deed)
    assert desk.start("ada")["disputes"] == 1
    assert desk.say("bob", said(0, "undo", of=deed.id))["undone"]["item"] == 0
    assert desk.start("ada")["disputes"] == 0
    desk.say("bob", said(0))
    assert desk.start("ada")["disputes"] == 0
    assert desk.overlap() == {"wanted": 8, "done": 1}


def test_flags_answer_nothing_and_everybody_sees_them(store):
    desk = desk_of(store, SCHEMA, "ada", "bob")
    first = desk.start("ada")["items"][0]["item"]
    before = desk.start("ada")["left"]
    got = desk.say("ada", said(first, "flag", note="two languages"))
    assert (got["left"], got["done"]) == (before, 0)
    assert desk.start("ada")["items"][0]["flagged"] == "two languages"
    assert store.flagged() == {first: "two languages"}
    assert desk_of(store, SCHEMA, "bob").start("bob")["items"][0]["flagged"] == "two languages"
    desk.say("bob", said(first, "unflag"))
    assert desk.start("ada")["items"][0]["flagged"] is None
    with pytest.raises(Refusal):
        desk.say("ada", said(99, "flag"))


# --- what people may be asked -------------------------------------------------------------------------------


def test_texts_nobody_can_tell_do_not_take_the_place_of_the_rest_of_a_budget(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(30)], audit=0)
    now = [0.0]
    desk = desk_of(store, budget=3, review=NONE, clock=lambda: now[0])
    for _ in range(10):
        now[0] += 100.0
        for one in desk.start("ada")["items"][:3]:
            desk.say("ada", said(one["item"], "unsure"))
    assert store.count(t.remark) == 30
    store.close()


def test_taking_back_a_doubt_does_not_pass_the_budget(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(2)], audit=0)
    desk = desk_of(store, SCHEMA, "ada", "bob", budget=2, review=ALL)
    deeds = [said(one["item"], "unsure") for one in desk.start("ada")["items"]]
    for deed in deeds:
        desk.say("ada", deed)
    bobs = [one["item"] for one in desk.start("bob")["items"]]
    for deed in deeds:
        with pytest.raises(Refusal, match="somebody else"):
            desk.say("ada", said(deed.item, "undo", of=deed.id))
    for item in bobs:
        desk.say("bob", said(item))
    assert store.n_words() == 2
    store.close()


def test_a_settlement_is_an_answer_that_a_spent_budget_has_no_room_for(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(5)], audit=0)
    desk = desk_of(store, SCHEMA, "ada", "bob", "cy", budget=2, review=ALL)
    item = desk.start("bob")["items"][0]["item"]
    desk.say("bob", said(item))
    desk.start("cy")
    desk.say("cy", said(item, label="praise"))
    with pytest.raises(Refusal, match=r"budget\.people"):
        desk.say("ada", said(item, "adjudicate"))
    assert store.n_words() == 2
    store.close()


def test_what_others_spent_is_known_though_somebody_answers_while_it_is_read(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(30)], audit=0)
    desk = desk_of(store, SCHEMA, "ada", "bob", budget=12, review=NONE)
    item = desk.start("ada")["items"][0]["item"]
    for i in range(20, 28):
        made.answer(store, i, "bug", person="carl")
    made.remark(store, 29, "flag", person="carl", note="x")
    look = desk.source.look

    def slow():
        found = look()
        desk.say("ada", said(item))
        return found

    desk.source.look = slow
    desk._news.look_beside()
    desk.source.look = look
    assert desk._pool.left == 12 - store.n_words() == 3
    assert desk._news._stamp != desk.source.stamp(), "it would not look again, and never know of the flag"
    desk._news.look_beside()
    assert desk._news.flagged == {29: "x"}
    store.close()


# --- tokens -------------------------------------------------------------------------------------------------


def test_a_token_is_its_person_and_no_other(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=ALL)
    differ(desk)

    async def work():
        async with page(desk, "bob") as client:
            assert (await client.get("/start")).json()["person"] == "bob"
            assert (await client.get("/disputes")).status_code == 403
            settle = said(0, "adjudicate").model_dump()
            assert (await client.post("/say", json=settle)).status_code == 403
            people = (await client.get("/people")).json()
            assert [(p["name"], p["words"]) for p in people["people"]] == [("ada", 1), ("bob", 1)]
            assert people["overlap"] == {"wanted": 8, "done": 1}
            hers = {"authorization": f"Bearer {token_of('ada')}"}
            assert (await client.get("/start", headers=hers)).json()["person"] == "ada"
            assert (await client.get("/disputes", headers=hers)).json()["left"] == 1
            for shown in ("Bearer x", "", f"Bearer {token_of('cleo')}", f"Bearer {token_of('bob')}x"):
                for path in ("/start", "/people", "/disputes"):
                    got = await client.get(path, headers={"authorization": shown})
                    assert got.status_code == 401
                    assert set(got.json()) == {"error"}

    run(work())
    assert len(facts(store)[0]) == 2


def test_everybody_gets_a_token_of_their_own_and_the_first_settles_unless_told():
    options = Options(people=("ada", "bob", "cleo"))
    assert len(set(options.tokens)) == 3
    assert options.adjudicators == ("ada",)
    assert [options.who(b"Bearer " + token.encode()) for token in options.tokens] == ["ada", "bob", "cleo"]
    assert options.who(b"Bearer ") is options.who(b"") is None
    assert all(token not in repr(options) for token in options.tokens)


@pytest.mark.parametrize(
    ("people", "settle"),
    [(("ada", "ada"), ()), (("ada", " "), ()), (("ada",), ("bob",)), (tuple(map(str, range(101))), ())],
)
def test_names_that_would_mix_people_up_are_refused(people, settle):
    with pytest.raises(UserError):
        Options(people=people, adjudicators=settle).check()


# --- at once ------------------------------------------------------------------------------------------------


def test_ten_people_at_once_share_the_items_without_loss(tmp_path):
    store = filled(tmp_path, [f"t{i}" for i in range(150)])
    people = tuple(f"p{i}" for i in range(10))
    desk = desk_of(store, SCHEMA, *people, review=ReviewSpec(order="doubt", overlap=0.2))

    def work(person):
        rng, items = random.Random(person), desk.start(person)["items"]
        while items:
            items = desk.say(person, said(items[0]["item"], label=rng.choice(NAMES)))["items"]

    threads = [threading.Thread(target=work, args=(p,)) for p in people]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    # Whoever was last to say something left second words to people who had gone by then.
    for person in people:
        while items := desk.start(person)["items"]:
            desk.say(person, said(items[0]["item"]))
    rows = store.read(t.answer.select())
    assert len({(r.item, r.person) for r in rows}) == len(rows) == 150 + 30
    assert sorted(r.n for r in rows) == [*range(1, 181)]
    store.close()


def test_what_a_run_writes_beside_the_page_is_found_without_a_start_anew(store):
    desk = desk_of(store, SCHEMA, "ada")
    for one in range(8):
        desk.start("ada")
        got = desk.say("ada", said(one))
    assert got["left"] == 0
    store.add(t.item, [{"seq": 8, "key": "k", "text": "new", "flags": "[]"}])
    store.add(t.row, [{"corpus": 1, "position": 9, "id": "9", "item": 8, "gold": None, "skipped": ""}])
    store.add(t.route, [{"recipe": "r", "who": "person", "labels": '["bug"]', "reason": "unsure",
                         "item": 8, "confidence": 0.1}])  # fmt: skip
    until = time.monotonic() + 10
    while not (items := desk.start("ada")["items"]) and time.monotonic() < until:
        time.sleep(0.05)
    assert [one["item"] for one in items] == [8]


def test_what_comes_in_while_people_have_items_before_them_joins_the_queue_meanwhile(tmp_path):
    now = [0.0]
    store = filled(tmp_path, [f"t{i}" for i in range(9)])
    store.add(t.route, [{"recipe": "old", "who": "student", "labels": '["bug"]', "reason": "sure",
                         "item": 0, "confidence": 0.9}])  # fmt: skip
    desk = desk_of(store, SCHEMA, "ada", "bob", review=NONE, clock=lambda: now[0])
    before = desk.start("bob")["items"]
    store.number(t.answer, [
        {"item": 8, "person": "cleo", "labels": '["other"]', "note": "", "source": "table", "line": 1,
         "at": 1.0, "seconds": None, "shown": None},
        {"item": before[0]["item"], "person": "cleo", "labels": '["other"]', "note": "", "source": "table",
         "line": 2, "at": 1.0, "seconds": None, "shown": None},
    ])  # fmt: skip
    assert desk.start("ada")["left"] == 9, "nobody asked yet"
    now[0] += 3
    desk.start("ada")
    desk.close()
    assert desk.start("ada")["left"] == 9 - 2
    assert [one["item"] for one in desk.start("bob")["items"]] == [one["item"] for one in before]
    got = desk.say("bob", said(before[0]["item"], label="bug"))
    assert got["mine"] == 1, "what was on the screen may still be answered"
    assert desk.start("ada")["disputes"] == 1
    store.close()


def test_an_answer_in_doubt_is_looked_at_by_somebody_else_first(store):
    desk = desk_of(store, SCHEMA, "ada", "bob", review=NONE)
    desk.say("ada", said(5))
    store.add(t.doubt, [{"item": 5, "round": 1, "by": "x", "reason": "looks wrong", "recipe": "d",
                         "at": time.time() + 1}])  # fmt: skip
    desk = desk_of(store, SCHEMA, "ada", "bob", review=NONE)
    first = desk.start("bob")["items"][0]
    assert (first["item"], first["why"]) == (5, "looks wrong")
    shown = []
    while len(items := desk.start("ada")["items"]):
        shown += [one["item"] for one in items if one["item"] not in shown]
        desk.say("ada", said(items[0]["item"]))
    assert 5 not in shown, "he has it before him"
    alone = desk_of(store, SCHEMA, "ada", review=NONE)
    assert 5 in [one["item"] for one in alone.start("ada")["items"]], "where nobody else answers, she does"
