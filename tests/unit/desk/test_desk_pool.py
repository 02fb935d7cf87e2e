"""No item lies before two people at once, and none is answered twice beyond what is to be compared."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.desk.lots import by_lot, chosen
from llmal.desk.pool import AHEAD, LEASE_S, Pool
from llmal.review.stage import Waiting


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


def pool_of(n, *people, words=None, left=None, halves=(), **more):
    words = words or {}
    pool = Pool(people, clock=Clock(), **more)
    waiting = [Waiting(i, "unsure") for i in range(n) if i not in {w.item for w in halves}]
    pool.choose({*range(n), *words})
    pool.fill(waiting, words, halves=halves, left=left)
    return pool


def everything(pool, people, rng=None):
    """Everybody answers what they are given until nothing is left; item -> who answered it."""
    found, busy = {}, list(people)
    while busy:
        person = rng.choice(busy) if rng else busy[0]
        given = pool.give(person)
        if not given:
            busy.remove(person)
            continue
        pool.said(person, given[0])
        found.setdefault(given[0], []).append(person)
    return found


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("people", [("ada", "bob"), ("ada", "bob", "cleo")])
def test_each_item_goes_to_one_person_and_the_share_to_two_different_ones(share, people):
    pool = pool_of(1000, *people, share=share, seed=3)
    found = everything(pool, people, random.Random(1))
    assert sorted(found) == [*range(1000)]
    assert all(len(set(who)) == len(who) for who in found.values())
    counts = Counter(len(who) for who in found.values())
    assert set(counts) <= {1, 2}
    assert counts[2] == pytest.approx(share * 1000, abs=1)
    assert all(pool.waits(p) == 0 and pool.done(p) == 1000 for p in people)


def test_one_person_alone_is_never_asked_twice():
    found = everything(pool_of(100, "ada", share=1.0), ["ada"])
    assert Counter(map(len, found.values())) == {1: 100}


def test_the_lots_depend_on_item_and_seed_alone_and_stay_when_more_items_come():
    few, many = range(0, 1000), range(0, 3000)
    one = chosen(few, 0.1, 7)
    assert one == chosen([*reversed(few)], 0.1, 7) != chosen(few, 0.1, 8)
    assert len(one) == 100
    more = chosen(many, 0.1, 7, one)
    assert one <= more
    assert len(more) == 300
    halves = [sum(item < 500 for item in chosen(few, 0.5, seed)) for seed in range(200)]
    assert 245 < sum(halves) / 200 < 255  # no seed's lot prefers low numbers
    assert sorted(by_lot(few, 7)) == [*few]


def test_what_lies_before_one_person_is_not_given_to_another():
    pool = pool_of(20, "ada", "bob")
    first, second = pool.give("ada"), pool.give("bob")
    assert len(first) == len(second) == AHEAD
    assert not {*first} & {*second}
    assert pool.give("ada") == first, "a page opened anew gets what lies before its person"
    assert pool.give("ada", have=first) == []
    assert not pool.may("bob", first[0])
    assert pool.waits("bob") == 20, "what lies before her may come to him yet"


def test_without_a_sign_of_life_items_go_to_others_and_a_late_answer_is_still_taken():
    pool = pool_of(8, "ada", "bob")
    mine = pool.give("ada")
    pool._clock.now += LEASE_S - 1
    assert not {*pool.give("bob")} & {*mine}
    pool._clock.now += 2
    others = pool.give("bob", have=[4, 5, 6, 7])
    assert others == []
    for item in (4, 5, 6, 7):
        pool.said("bob", item)
    assert pool.give("bob") == mine, "in the order in which they lay there"
    assert pool.may("ada", mine[0])
    pool.said("ada", mine[0])
    assert pool.holds("bob", mine[0])
    assert pool.may("bob", mine[0]), "he has it on his screen"


def test_who_comes_back_before_anybody_took_the_items_has_them_still():
    pool = pool_of(4, "ada", "bob")
    mine = pool.give("ada")
    pool._clock.now += LEASE_S + 1
    assert pool.give("ada", have=mine) == []
    assert pool.give("bob") == []
    pool._clock.now += LEASE_S + 1
    assert pool.give("ada") == mine


def test_skipped_comes_last_for_the_one_and_first_for_the_other():
    pool = pool_of(12, "ada", "bob")
    item = pool.give("ada")[0]
    pool.said("bob", pool.give("bob")[0])  # his own are beyond hers by now
    pool.later("ada", item)
    assert pool.give("bob")[-1] == item
    pool.later("bob", item)  # both: it comes last for both, and is not lost
    found = everything(pool, ["ada"])
    assert [*found][-1] == item


def test_an_item_nobody_is_sure_of_stays_open_and_goes_round_once():
    pool = pool_of(1, "ada", "bob", "cleo")
    seen = []
    for person in ("ada", "bob", "cleo"):
        assert pool.give(person) == [0]
        pool.unsure(person, 0)
        seen.append([pool.waits(p) for p in ("ada", "bob", "cleo")])
    assert seen == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert [pool.give(p) for p in ("ada", "bob", "cleo")] == [[], [], []]
    assert 0 not in pool.answered


def test_a_doubted_answer_goes_first_to_somebody_new_and_last_to_who_gave_it():
    pool = pool_of(10, "ada", "bob", words={3: ("ada",)})
    assert pool.give("bob")[0] == 3
    pool = pool_of(10, "ada", "bob", words={3: ("ada",)})
    assert [*everything(pool, ["ada"])][-1] == 3, "where nobody else comes, she is asked again"
    assert pool_of(10, "ada", words={3: ("ada",)}).give("ada") == [0, 1, 2, 4]


@pytest.mark.parametrize("left", [0, 1, 5, 13])
def test_no_more_is_handed_out_than_words_are_left_second_ones_included(left):
    people = ("ada", "bob", "cleo")
    pool = pool_of(10, *people, share=1.0, left=left)
    given = 0
    while any(found := {p: pool.give(p) for p in people}.items()):
        before = {p: items for p, items in found if items}
        assert sum(map(len, before.values())) <= pool.left
        if not before:
            break
        person = max(before, key=lambda p: len(before[p]))
        pool.said(person, before[person][0])
        pool.left -= 1
        given += 1
    assert given == min(left, 20)
    assert all(pool.waits(p) == 0 for p in people)


def test_an_answer_taken_back_lies_before_the_same_person_at_once():
    pool = pool_of(6, "ada", "bob")
    item = pool.give("ada")[0]
    pool.said("ada", item)
    pool.back("ada", Waiting(item, "unsure"), [])
    assert pool.give("ada")[0] == item
    assert not pool.may("bob", item)
    assert pool.done("ada") == 0


def test_what_another_has_by_now_is_not_taken_back_from_them():
    pool = pool_of(6, "ada", "bob")
    item = pool.give("ada")[0]
    pool.unsure("ada", item)
    assert pool.takes_back("ada", item)
    assert pool.give("bob")[0] == item
    assert not pool.takes_back("ada", item)


def test_a_look_at_the_run_takes_nothing_from_anybodys_screen():
    pool = pool_of(10, "ada", "bob")
    mine = pool.give("ada")
    pool.said("ada", mine[0])
    # Read before she answered the first; the run answers the second itself now, and has five new ones.
    fresh = [Waiting(i, "new") for i in (*mine[:1], *range(2, 15))]
    pool.fill(fresh, {}, touched={mine[0]})
    assert pool.give("ada")[:3] == mine[1:]
    assert pool.known(mine[2]).why == "unsure", "as it was shown"
    assert mine[0] not in everything(pool, ["ada", "bob"])
    assert pool.done("ada") == 15


steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["say", "skip", "unsure", "undo", "sleep", "look"])),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, share=st.sampled_from([0.0, 0.3, 1.0]), left=st.none() | st.integers(0, 12))
def test_whatever_people_do_counts_agree_with_a_walk_over_everything(steps, share, left):
    """The counts that are kept step by step, against counting anew; and no item with two readers too many."""
    people = ("ada", "bob", "cleo")
    pool = pool_of(9, *people, share=share, left=left)
    words = {i: set() for i in range(9)}
    past = {p: [] for p in people}
    for who, what in steps:
        person = people[who]
        given = pool.give(person)
        if what == "say" and given:
            pool.said(person, given[0])
            words[given[0]].add(person)
            past[person].append(given[0])
            pool.left = None if pool.left is None else max(0, pool.left - 1)
        elif what in ("skip", "unsure") and given:
            (pool.later if what == "skip" else pool.unsure)(person, given[0])
        elif what == "undo" and past[person]:
            item = past[person].pop()
            words[item].discard(person)
            pool.back(person, Waiting(item, "unsure"), words[item])
            pool.left = None if pool.left is None else pool.left + 1
        elif what == "sleep":
            pool._clock.now += LEASE_S * 0.7
        elif what == "look":
            spoken = {i: said for i, said in words.items() if said}
            halves = [i for i in pool.compared if len(words[i]) == 1]
            rest = [Waiting(i, "unsure") for i in range(9) if not words[i]]
            pool.fill(rest, spoken, halves=[Waiting(i, "unsure") for i in halves], left=pool.left)
        wanted = {i: 2 if i in pool.compared else 1 for i in range(9)}
        for i in range(9):
            assert len(words[i]) + sum(pool.holds(p, i) for p in people if p not in words[i]) <= wanted[i] + 1
        for p in people:
            over = sum(p in o.said or p in o.unsure for o in pool._open.values())
            assert pool._over[p] == over
            waits = sum(bool(o.said) and p not in o.said and p not in o.unsure for o in pool._open.values())
            assert pool.done(p) == sum(map(bool, words.values())) - waits
            assert pool.waits(p) >= len(pool._held[p]) or pool.left is not None
