"""What waits for people: audit first, without a guess, then the least sure; never more than the cap."""

import json

import pytest

from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Label, LabelSchema
from llmal.review.stage import run, waiting
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer, remark

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
NAMES = SCHEMA.names


@pytest.fixture
def store(tmp_path):
    """Ten items: 0 to 2 reserved (0 has gold), 3 to 6 routed to people, the rest to machines."""
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    rows = [{"text": f"t{i}", "label": "bug" if i in (0, 5) else None} for i in range(10)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl", gold="label"), path, SCHEMA), text_key)
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in range(3)])
    base = {"recipe": "r", "labels": '["bug"]', "reason": "unsure"}
    sure = {3: 0.6, 4: 0.4, 5: None, 6: 0.4}
    opened.add(
        t.route,
        [
            {**base, "item": i, "who": "person" if i in sure else "student", "confidence": sure.get(i, 0.99)}
            for i in range(10)
        ],
    )
    yield opened
    opened.close()


def test_audit_items_come_first_without_a_guess_then_the_least_sure(store):
    queue = waiting(store, names=NAMES, route="r", people=None)
    assert [w.item for w in queue] == [1, 2, 5, 4, 6, 3]
    assert [(w.why, w.guess, w.confidence) for w in queue[:2]] == [("audit", (), None)] * 2
    assert (queue[3].why, queue[3].guess, queue[3].confidence) == ("unsure", ("bug",), 0.4)


def test_before_any_route_only_the_audit_waits(store):
    assert [w.item for w in waiting(store, names=NAMES, route=None, people=None)] == [1, 2]


def test_what_is_answered_waits_no_more_and_counts_against_the_cap(store):
    answer(store, 4)
    answer(store, 1)
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=None)] == [2, 5, 6, 3]
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=3)] == [2]
    assert waiting(store, names=NAMES, route="r", people=1) == []


def test_an_answer_whose_label_is_gone_has_to_be_given_again(store):
    answer(store, 1, "removed")
    assert 1 in [w.item for w in waiting(store, names=NAMES, route="r", people=None)]


def test_items_that_left_the_corpus_wait_no_more(store, tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "t2"}\n{"text": "t3"}\n', encoding="utf-8")
    store.put_corpus("c", "e", read(CorpusSpec(path="d.jsonl"), path, SCHEMA), text_key)
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=None)] == [2, 3]


def test_the_stage_says_how_many_wait(store, tmp_path):
    assert run(store, Context(tmp_path, home=tmp_path), schema=SCHEMA, route="r", people=None)[:2] == (6, 0)


def doubt(store, item, at):
    row = {"item": item, "round": 0, "by": "activelab", "reason": f"doubt {item}", "recipe": "r", "at": at}
    store.add(t.doubt, [row])


def test_chosen_test_items_wait_with_the_audit_in_the_order_of_their_draws_and_blind(store):
    store.add(t.tested, [{"item": i, "at": 0.0} for i in (0, 1, 2, 3, 7, 9)])
    rows = [{"turn": k, "item": i, "chance": 0.1, "pool": 6, "at": 0.0} for k, i in enumerate((2, 7, 3))]
    store.add(t.draw, [{**row, "by": "uniform" if row["item"] == 2 else "student"} for row in rows])
    queue = waiting(store, names=NAMES, route="r", people=None)
    assert [w.item for w in queue] == [1, 2, 7, 3, 5, 4, 6]
    assert [(w.why, w.guess) for w in queue[:4]] == [("audit", ())] * 4


def test_labels_in_doubt_come_after_the_audit_until_a_person_has_answered_since(store):
    answer(store, 8)  # before the doubt: it is this answer that is doubted
    doubt(store, 8, at=1.0)
    doubt(store, 4, at=2.0)
    doubt(store, 0, at=3.0)  # reserved: it is answered blind or not at all
    queue = waiting(store, names=NAMES, route="r", people=None)
    assert [w.item for w in queue] == [1, 2, 8, 4, 5, 6, 3]
    assert (queue[2].why, queue[2].guess, queue[2].confidence) == ("doubt 8", ("bug",), 0.99)
    assert [w.item for w in waiting(store, names=NAMES, route=None, people=None)] == [1, 2, 8, 4]
    answer(store, 8, at=4.0)
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=None)] == [1, 2, 4, 5, 6, 3]


def test_a_doubt_ends_with_anybodys_newer_word_and_not_with_one_that_was_taken_back(store):
    doubt(store, 4, at=2.0)
    answer(store, 4, person="Ann", at=1.0)
    doubted = [1, 2, 4]
    assert [w.item for w in waiting(store, names=NAMES, route=None, people=None)] == doubted
    second = answer(store, 4, "billing", person="Bob", at=3.0)
    assert [w.item for w in waiting(store, names=NAMES, route=None, people=None)] == [1, 2]
    remark(store, 4, "undo", of=second, person="Bob")
    assert [w.item for w in waiting(store, names=NAMES, route=None, people=None)] == doubted


def test_one_word_is_enough_for_the_run_and_a_dispute_keeps_nothing_waiting(store):
    """Second words are the desk's to hand out; a run that waited for them would never end."""
    answer(store, 4, person="Ann")
    answer(store, 6, person="Ann")
    answer(store, 6, "billing", person="Bob")
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=None)] == [1, 2, 5, 3]


def test_second_words_of_an_item_are_answers_of_people_too(store):
    """The budget is people's time: two words on one item are two."""
    answer(store, 4, person="Ann")
    answer(store, 4, person="Bob")
    answer(store, 4, person="Bob")  # changed: still one word
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=3)] == [1]
    assert waiting(store, names=NAMES, route="r", people=2) == []


def test_what_people_put_off_flagged_or_disputed_waits_as_if_nothing_was_said(store):
    before = [w.item for w in waiting(store, names=NAMES, route="r", people=None)]
    for what in ("skip", "unsure", "flag"):
        remark(store, 4, what)
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=None)] == before
