"""People's words: the newest of each counts, several are weighed together, and what is taken back is gone."""

import json
from collections import Counter

import numpy as np
import pytest

from llmal.records import Word
from llmal.store import schema as t
from llmal.store.dispute import settled
from llmal.store.store import open_store
from llmal.testing.facts import answer, remark


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def word(item, person, *labels, adjudicates=False):
    return Word(item, person, labels, "", None, 0.0, adjudicates)


def test_a_persons_word_is_the_newest_that_stands(store):
    answer(store, 7, "bug", person="Ann", seconds=2.5)
    second = answer(store, 7, "billing", person="Ann", at=3.0)
    assert store.words() == [Word(7, "Ann", ("billing",), "", None, 3.0)]
    remark(store, 7, "undo", of=second, person="Ann")
    assert store.words() == [Word(7, "Ann", ("bug",), "", 2.5, 0.0)]


def test_words_come_as_they_were_said_and_the_one_that_settles_stands_beside_them(store):
    answer(store, 1, "bug", person="Ann")
    answer(store, 1, "billing", person="Bob")
    answer(store, 2, "bug", person="Bob")
    answer(store, 1, "bug", person="Bob", role="adjudicate")
    answer(store, 1, "praise", person="Ann")
    said = [(w.item, w.person, w.labels[0], w.adjudicates) for w in store.words()]
    assert said == [
        (1, "Bob", "billing", False),
        (2, "Bob", "bug", False),
        (1, "Bob", "bug", True),
        (1, "Ann", "praise", False),
    ]
    assert [w.item for w in store.words(items=[2, 9])] == [2]
    assert {w.labels for w in store.words(["bug"])} == {("bug",)}


def test_where_people_agree_or_one_answered_alone_that_word_counts(store):
    answer(store, 1, "bug", person="Ann")
    answer(store, 1, "bug", person="Bob")
    answer(store, 2, "billing", person="Bob")
    assert store.answers() == {1: ("bug",), 2: ("billing",)}


def test_two_against_one_win_whoever_spoke_last(store):
    for person, label in (("Ann", "bug"), ("Bob", "bug"), ("Cem", "billing")):
        answer(store, 1, label, person=person)
    assert store.answers() == {1: ("bug",)}


def test_an_exact_tie_goes_to_the_newest_word(store):
    answer(store, 1, "bug", person="Ann")
    answer(store, 1, "billing", person="Bob")
    assert store.answers() == {1: ("billing",)}
    answer(store, 1, "bug", person="Ann")  # said again: now Ann's is the newest
    assert store.answers() == {1: ("bug",)}


def test_one_word_against_somebody_who_answers_at_random_wins_however_late_that_one_speaks(store):
    """Majority alone could not tell: the other items show who is to be believed."""
    rng = np.random.default_rng(0)
    for item in range(40):
        true = ("bug", "billing", "praise")[item % 3]
        answer(store, item, true, person="Ann")
        answer(store, item, true, person="Bob")
        answer(store, item, str(rng.choice(["bug", "billing", "praise"])), person="Cem")
    answer(store, 99, "bug", person="Ann")
    answer(store, 99, "billing", person="Cem")
    assert store.answers()[99] == ("bug",)


def test_the_word_that_settles_a_dispute_counts_until_it_is_taken_back(store):
    answer(store, 1, "bug", person="Ann")
    settles = answer(store, 1, "billing", person="Eve", role="adjudicate")
    answer(store, 1, "bug", person="Bob")
    assert store.answers() == {1: ("billing",)}
    remark(store, 1, "undo", of=settles, person="Eve")
    assert store.answers() == {1: ("bug",)}


def test_a_word_with_a_label_that_is_gone_weighs_nothing(store):
    answer(store, 1, "bug", person="Ann")
    answer(store, 1, "gone", person="Bob")
    answer(store, 2, "gone", person="Ann")
    answer(store, 2, "gone", person="Bob")
    answer(store, 3, "bug", person="Ann")
    answer(store, 3, "gone", person="Eve", role="adjudicate")
    assert store.answers(["bug", "billing"]) == {1: ("bug",), 3: ("bug",)}
    assert store.answers()[2] == ("gone",)


def test_several_labels_an_item_are_weighed_one_by_one():
    said = [
        word(1, "Ann", "a", "b"),
        word(1, "Bob", "a"),
        word(1, "Cem", "a", "c"),
        word(2, "Ann"),
        word(2, "Bob"),
        word(2, "Cem", "b"),
    ]
    assert settled(said) == {1: ("a",), 2: ()}


def test_a_tie_of_several_labels_goes_to_the_newest_word_label_by_label():
    assert settled([word(1, "Ann", "a", "b"), word(1, "Bob", "a", "c")]) == {1: ("a", "c")}
    assert settled([word(1, "Ann", "a", "c"), word(1, "Bob")]) == {1: ()}


def test_settled_disputes_show_who_is_right_elsewhere():
    """Bob and Ann differ on everything; on thirty items it was settled that Ann is right."""
    names = ("a", "b")
    said = []
    for item in range(30):
        said += [word(item, "Ann", names[item % 2]), word(item, "Bob", names[1 - item % 2])]
    closed = [word(item, "Eve", names[item % 2], adjudicates=True) for item in range(30)]
    new = [word(40, "Ann", "a"), word(40, "Bob", "b")]
    assert settled([*said, *new])[40] == ("b",), "without a word that settles, the newest counts"
    assert settled([*said, *closed, *new])[40] == ("a",)


@pytest.mark.parametrize("seed", range(20))
def test_people_of_equal_worth_are_weighed_as_a_majority_would(seed):
    """Against counting by hand, where every item has three votes of people who are right 80 % of the time."""
    rng = np.random.default_rng(seed)
    said = []
    for item in range(120):
        true = int(rng.integers(2))
        for person in ("Ann", "Bob", "Cem"):
            said.append(word(item, person, "ab"[true if rng.random() < 0.8 else 1 - true]))
    most = {s: Counter(w.labels for w in said if w.item == s).most_common(1)[0][0] for s in range(120)}
    found = settled(said)
    assert np.mean([found[s] == most[s] for s in most]) > 0.85
    assert all(found[s] == most[s] for s in most if len({w.labels for w in said if w.item == s}) == 1)


def test_people_who_share_many_items_are_judged_by_a_part_of_them(monkeypatch):
    """What is held is as often right, and somebody who answers at random is found out all the same."""
    rng = np.random.default_rng(0)
    said, true = [], rng.integers(3, size=600)
    for item, label in enumerate(true):
        for person, right in (("Ann", 0.9), ("Bob", 0.9), ("Cem", 0.0)):
            said.append(word(item, person, "abc"[label if rng.random() < right else int(rng.integers(3))]))
    shares = {}
    for most in (5000, 200):
        monkeypatch.setattr("llmal.store.dispute.MOST", most)
        found = settled(said)
        assert len(found) == 600
        shares[most] = np.mean([found[s] == ("abc"[label],) for s, label in enumerate(true)])
    assert shares[5000] > 0.9
    assert shares[200] > shares[5000] - 0.03
    cems = {w.item: w.labels for w in said if w.person == "Cem"}
    torn = [s for s in found if len({w.labels for w in said if w.item == s}) == 3]
    assert torn
    assert not any(found[s] == cems[s] for s in torn)


@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_answers_is_what_all_of_them_say_and_nothing_heard_before_is_kept(
    store, tmp_path, seed
):
    """Words, changed minds, ends of disputes and undos at random, read by another process all the while."""
    rng = np.random.default_rng(seed)
    reader = open_store(tmp_path / "run", write=False)
    numbers = []
    try:
        for _ in range(40):
            item = int(rng.integers(8))
            person, label = (
                str(rng.choice(["Ann", "Bob", "Cem"])),
                str(rng.choice(["bug", "billing", "gone"])),
            )
            if numbers and rng.random() < 0.2:
                n, whose = numbers.pop(int(rng.integers(len(numbers))))
                remark(store, whose, "undo", of=n)
            else:
                role = "adjudicate" if rng.random() < 0.15 else "label"
                numbers.append((answer(store, item, label, person=person, role=role), item))
            names = ["bug", "billing"]
            whole = reader.answers(names)
            assert whole == settled(store.words(names)), "the rule, from every word that stands"
            some = sorted({int(s) for s in rng.integers(0, 10, 4)})
            assert reader.answers(names, some) == {s: whole[s] for s in some if s in whole}
    finally:
        reader.close()


@pytest.mark.parametrize("seed", range(4))
def test_with_one_person_the_newest_answer_counts_as_it_always_has(store, seed):
    rng = np.random.default_rng(seed)
    given = {}
    for _ in range(40):
        item, label = int(rng.integers(12)), str(rng.choice(["bug", "billing"]))
        answer(store, item, label)
        given[item] = (label,)
    assert store.answers() == given
    assert store.n_words() == len(given)


def test_words_are_counted_once_for_each_person_and_item(store):
    for person in ("Ann", "Bob", "Ann"):
        answer(store, 1, "bug", person=person)
    gone = answer(store, 2, "bug", person="Ann")
    answer(store, 3, "removed", person="Ann")
    assert (store.n_words(), store.n_words(["bug"])) == (4, 3)
    remark(store, 2, "undo", of=gone)
    assert store.n_words(["bug"]) == 2


def test_a_flag_stays_until_anybody_takes_it_away_and_answers_nothing(store):
    remark(store, 1, "flag", person="Ann", note="an address in it")
    remark(store, 2, "flag", person="Ann", note="first")
    remark(store, 2, "flag", person="Bob", note="second")
    remark(store, 3, "unsure", person="Bob", note="no flag")
    assert store.flagged() == {1: "an address in it", 2: "second"}
    remark(store, 1, "unflag", person="Bob")
    assert store.flagged() == {2: "second"}
    remark(store, 1, "flag", person="Bob", note="after all")
    assert store.flagged() == {2: "second", 1: "after all"}
    assert store.answers() == {}
    assert store.words() == []


def test_what_was_put_off_is_unsure_where_anybody_said_so_and_gone_once_it_was_taken_back(store):
    remark(store, 1, "skip", person="Ann")
    remark(store, 2, "skip", person="Ann")
    remark(store, 2, "unsure", person="Bob")
    remark(store, 3, "unsure", person="Ann")
    remark(store, 3, "undo", person="Ann")
    remark(store, 4, "unsure", person="Ann")
    remark(store, 4, "flag", person="Ann")  # says nothing of that
    remark(store, 5, "flag", person="Ann")
    remark(store, 6, "unsure", person="Ann")
    remark(store, 6, "skip", person="Ann")
    assert store.put_off() == {1: "skip", 2: "unsure", 4: "unsure", 6: "skip"}
    assert store.put_off([2, 3]) == {2: "unsure"}


def test_what_a_person_saw_of_a_machine_is_kept_beside_the_answer(store):
    row = {"n": 1, "item": 1, "person": "p", "labels": '["bug"]', "note": "", "source": "s", "line": 1}
    store.add(
        t.answer, [{**row, "at": 0.0, "seconds": None, "role": "label", "saw": json.dumps(["billing"])}]
    )
    found = store.read(t.answer.select())[0]
    assert (found.role, json.loads(found.saw)) == ("label", ["billing"])
