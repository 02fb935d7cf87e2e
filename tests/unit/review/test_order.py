"""The order in which people are asked: more corrections in the same minutes, and nothing waits for ever."""

import json

import numpy as np
import pytest

from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Label, LabelSchema, Route
from llmal.review.options import ReviewSpec
from llmal.review.order import TURN, about, expected, interleaved, minutes, pace, ranked
from llmal.review.stage import waiting
from llmal.stats.reading_time import Pace
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer, remark

NAMES = ("bug", "billing", "praise", "other")
SCHEMA = LabelSchema("single", tuple(Label(name=name) for name in NAMES), True)
WORD = "aaaaa "


def filled(folder, texts, sure, audit=0):
    """A store whose texts wait: item -> how sure the machine is of its label."""
    store = open_store(folder / "run")
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"text": x}) + "\n" for x in texts), encoding="utf-8")
    store.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in range(audit)])
    base = {"recipe": "r", "who": "person", "labels": '["bug"]', "reason": "unsure"}
    store.add(t.route, [{**base, "item": i, "confidence": sure[i]} for i in range(len(texts))])
    return store


@pytest.fixture
def store(tmp_path):
    """Texts of 1 to 100 words, the longest the least sure; 4 is short and nothing is known of its label."""
    texts = [f"{i} " + WORD * n for i, n in enumerate((100, 50, 20, 5, 1))]
    opened = filled(tmp_path, texts, [0.4, 0.5, 0.52, 0.55, None])
    yield opened
    opened.close()


def routes_of(store):
    return list(store.routes("r", who="person").values())


def items(routes):
    return [r.item for r in routes]


def test_by_value_comes_first_what_corrects_most_in_a_minute_and_by_doubt_what_is_least_sure(store):
    found = routes_of(store)
    assert items(ranked(store, found, by="value", labels=4)) == [4, 3, 2, 1, 0]
    assert items(ranked(store, found, by="doubt", labels=4)) == [4, 0, 1, 2, 3]
    assert ranked(store, [], by="value", labels=4) == []


def test_both_orders_hold_each_item_once_and_do_not_depend_on_the_order_given(store):
    found = routes_of(store)
    for by in ("value", "doubt"):
        once = ranked(store, found, by=by, labels=4)
        assert sorted(once) == sorted(found)
        assert ranked(store, found[::-1], by=by, labels=4) == once


def test_equal_items_come_in_the_order_of_the_corpus(tmp_path):
    store = filled(tmp_path, [f"{i:03} text" for i in range(30)], [0.5] * 30)
    for by in ("value", "doubt"):
        assert items(ranked(store, routes_of(store), by=by, labels=4)) == list(range(30))
    store.close()


def test_a_surely_right_answer_of_any_length_comes_last(tmp_path):
    store = filled(tmp_path, ["0 " + WORD * 200, "1 x", "2 " + WORD * 9], [0.99, 1.0, 0.6])
    assert items(ranked(store, routes_of(store), by="value", labels=4)) == [2, 0, 1]
    store.close()


def test_a_text_of_twenty_thousand_words_comes_at_ten_times_its_place_by_doubt_at_the_latest():
    draw = np.random.default_rng(0)
    sure = np.sort(draw.random(1000))
    seconds = draw.lognormal(2, 1, 1000)
    long = [0, 7, 40, 90]
    seconds[long] = 20_000 * 0.25
    least_sure = [Route(i, "person", (), float(c), "") for i, c in enumerate(sure)]
    place = {r.item: n for n, r in enumerate(interleaved(least_sure, seconds))}
    assert sorted(place) == list(range(1000))
    assert all(place[i] <= TURN * i for i in range(1000))
    by_value = np.argsort(-(1 - sure) / seconds).tolist()
    assert min(by_value.index(i) for i in long) > 900  # without turns they would come last of all


def test_a_long_text_comes_also_where_people_answer_two_texts_a_day():
    """The order is made anew each day, and new texts arrive that are shorter."""
    least_sure = [Route(i, "person", (), 0.2 + i / 100, "") for i in range(5)]
    seconds = np.array([9000.0, 5.0, 5.0, 5.0, 5.0])
    days = 0
    while any(r.item == 0 for r in least_sure):
        done = interleaved(least_sure, seconds)[:2]
        least_sure = [r for r in least_sure if r not in done]
        least_sure += [Route(100 + 2 * days + k, "person", (), 0.5, "") for k in (0, 1)]
        seconds = np.array([9000.0 if r.item == 0 else 3.0 for r in least_sure])
        days += 1
        assert days < 10


def test_it_corrects_more_in_the_same_minutes_than_doubt_alone_also_where_times_are_not_as_expected():
    """Twenty simulated desks; the order that takes the longest first must lose where this one wins."""
    gained, lost = [], []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        sure = np.sort(draw.uniform(0.3, 0.9, 800))
        seconds = Pace().seconds(draw.lognormal(3.2, 0.6, 800), 4)
        took = seconds * np.exp(0.5 * draw.normal(size=800))
        wrong = draw.random(800) > sure
        least_sure = [Route(i, "person", (), float(c), "") for i, c in enumerate(sure)]

        def fixed(order, took=took, wrong=wrong):
            return wrong[order][np.cumsum(took[order]) <= 900].sum()

        doubt = fixed(np.arange(800))
        gained.append(fixed(np.array(items(interleaved(least_sure, seconds)))) / doubt)
        lost.append(fixed(np.array(items(interleaved(least_sure, 1 / seconds)))) / doubt)
    assert np.mean(gained) > 1.25
    assert np.mean(lost) < 0.8


def test_what_measures_and_what_is_in_doubt_still_comes_first(tmp_path):
    texts = [f"{i} " + WORD * (60 - 10 * i) for i in range(5)]
    store = filled(tmp_path, texts, [0.9, 0.4, 0.5, 0.5, 0.5], audit=1)
    answer(store, 1)
    row = {"item": 1, "round": 0, "by": "activelab", "reason": "again", "recipe": "r", "at": 1.0}
    store.add(t.doubt, [row])
    for by, rest in (("value", [2, 4, 3]), ("doubt", [2, 3, 4])):
        queue = waiting(store, names=NAMES, route="r", people=None, options=ReviewSpec(order=by))
        assert [w.item for w in queue] == [0, 1, *rest]
    store.close()


def test_minutes_are_those_of_the_literature_until_people_were_timed_and_then_their_own(tmp_path):
    texts = [f"{i:02} " + WORD * (1 + i) for i in range(60)]
    store = filled(tmp_path, texts, [0.5] * 60)
    words = np.array([len(x) for x in texts]) / 5.6
    everything = range(60)
    assert minutes(store, everything, labels=4) == pytest.approx((1.6 + words * 60 / 238 + 0.3).sum() / 60)
    assert minutes(store, [], labels=4) == 0
    for i in range(40):
        answer(store, i, seconds=20.0 + i % 3)
    found = pace(store, labels=4)
    assert found.n == 40
    assert found.seconds(words[:40], 4).mean() == pytest.approx(21, rel=0.1)
    assert minutes(store, everything, labels=4) > 15
    store.close()


def test_what_was_taken_back_an_adjudication_and_an_untimed_answer_say_nothing_of_the_pace(tmp_path):
    store = filled(tmp_path, [f"text {i:03}" for i in range(60)], [0.5] * 60)
    for i in range(40):
        n = answer(store, i, seconds=30.0)
        if i < 20:
            remark(store, i, "undo", of=n)
    for i in range(40, 60):
        answer(store, i, seconds=30.0, role="adjudicate")
        answer(store, i, person="q")
    assert pace(store, labels=4) == Pace()
    store.close()


def test_a_short_list_takes_less_time_than_all_labels(store):
    short = expected(store, [0, 1], labels=50, sets={0: ("bug",), 1: ()})
    full = expected(store, [0, 1], labels=50)
    assert short[0] < full[0]
    assert short[1] == full[1]


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (0.0, "less than a minute of work"),
        (1.2, "about 1 minute of work"),
        (7.6, "about 8 minutes of work"),
        (41.0, "about 40 minutes of work"),
        (130.0, "about 2.2 hours of work"),
        (6000.0, "about 100 hours of work"),
    ],
)
def test_minutes_in_words_look_like_the_estimate_they_are(work, words):
    assert about(work) == words
