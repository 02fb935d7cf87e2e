"""Candidate sets: the right label is on the list as often as promised, of the items that wait."""

import json
import math
import re

import numpy as np
import pytest

from llmal.audit import known_answers
from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Label, LabelSchema, unasked
from llmal.review import candidates
from llmal.review.candidates import decide, evidence, sets_of
from llmal.review.options import ReviewSpec
from llmal.review.stage import UNLIKE, run, waiting
from llmal.stats.conformal import rank
from llmal.stats.intervals import clopper_pearson
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer

CLASSES = 20
SCHEMA = LabelSchema("single", tuple(Label(name=f"c{i}") for i in range(CLASSES)), True)
NAMES = SCHEMA.names
AUTO = ReviewSpec()


def rng(*seed):
    return np.random.default_rng(seed)


def world(draw, n, n_classes=CLASSES):
    """Probabilities and truth: the student is rather sure of three items in five, less so of others."""
    gold = draw.integers(n_classes, size=n)
    logits = draw.normal(size=(n, n_classes))
    logits[np.arange(n), gold] += draw.choice([1.0, 4.0], size=n, p=[0.4, 0.6])
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), gold


# --- the promise, by simulation through what the stage calls

SEEDS, FRESH, LEAST_SURE = 300, 40, 0.6
"""Trials, new items in each, and the probability from which the router lets the student answer."""


def band(chances, tail=5e-4):
    """(low, high) count of hits, from the exact distribution of a sum of hits with these chances."""
    mass = np.ones(1)
    for p in chances:
        mass = np.convolve(mass, [1 - p, p])
    below = np.cumsum(mass)
    return int(np.searchsorted(below, tail)), int(np.searchsorted(below, 1 - tail))


def trials(round_to=None, whole=False):
    """Of each trial: whether the list of the first new item that waits has its label, what was promised, and
    the share of all of them. `whole` breaks the rule that the answers are about items that wait."""
    hits, promised, shares = [], [], []
    for seed in range(SEEDS):
        draw = rng(seed, 7)
        n = int(draw.choice([60, 120, 200]))
        probs, gold = world(draw, 8 * n)
        waits = probs.max(axis=1) < LEAST_SURE
        probs = probs if round_to is None else probs.round(round_to)
        old = np.arange(n) if whole else np.flatnonzero(waits)[:n]
        new = np.flatnonzero(waits & (np.arange(8 * n) > old[-1]))[:FRESH]
        found = decide(ReviewSpec(candidates="always"), probs[old], gold[old], SCHEMA, draw)
        lists = sets_of(found.choice, probs[new], NAMES)
        hit = [NAMES[g] in some for g, some in zip(gold[new], lists, strict=True)]
        fitted = found.choice.thresholds
        hits.append(hit[0])
        promised.append(min(1.0, rank(fitted.n, fitted.alpha) / (fitted.n + 1)))
        shares.append(np.mean(hit))
    return np.array(hits), np.array(promised), np.array(shares)


def deviations(gap):
    """How many standard errors the mean is from 0."""
    return gap.mean() / (gap.std(ddof=1) / math.sqrt(len(gap)))


def test_the_lists_hold_the_right_label_as_often_as_promised():
    """Coverage of items that wait lies in the exact band, with alpha chosen and 60 to 200 answers."""
    hits, promised, shares = trials()
    low, high = band(promised)
    assert low <= hits.sum() <= high
    assert abs(deviations(shares - promised)) < 4


def test_where_many_probabilities_are_equal_they_hold_it_at_least_as_often():
    hits, promised, shares = trials(round_to=1)
    assert hits.sum() >= band(promised)[0]
    assert deviations(shares - promised) > -4


def test_answers_about_all_items_would_promise_too_much_to_those_that_wait():
    """A power check: with the whole audit sample the same simulation falls short of the promise."""
    hits, promised, shares = trials(whole=True)
    assert hits.sum() < band(promised)[0]
    assert deviations(shares - promised) < -4


@pytest.mark.slow
def test_a_router_that_sets_its_threshold_by_the_same_answers_does_not_break_the_promise():
    """The lowest confidence from which at most 15 % of answers are wrong, by a bound; lists for the rest."""
    promised, shares = [], []
    for seed in range(SEEDS):
        draw, n = rng(seed, 9), 200
        probs, gold = world(draw, 1200)
        sure, right, lowest = probs.max(axis=1), probs.argmax(axis=1) == gold, 2.0
        for at in np.sort(sure[:n])[::-1][20::10]:
            taken = sure[:n] >= at
            if clopper_pearson(int((~right[:n])[taken].sum()), int(taken.sum()), level=0.8).high > 0.15:
                break
            lowest = at
        old, new = np.flatnonzero(sure[:n] < lowest), n + np.flatnonzero(sure[n:] < lowest)
        found = decide(ReviewSpec(candidates="always"), probs[old], gold[old], SCHEMA, draw).choice
        lists = sets_of(found, probs[new], NAMES)
        shares.append(np.mean([NAMES[g] in some for g, some in zip(gold[new], lists, strict=True)]))
        promised.append(min(1.0, rank(found.thresholds.n, found.thresholds.alpha) / (found.thresholds.n + 1)))
    assert deviations(np.array(shares) - np.array(promised)) > -4


def test_fewer_misses_mean_longer_lists_that_hold_the_shorter_ones():
    probs, gold = world(rng(1), 500)
    lists = [
        sets_of(decide(ReviewSpec(miss=(a,)), probs[:300], gold[:300], SCHEMA, rng(2)).choice, probs, NAMES)
        for a in (0.05, 0.1, 0.2, 0.4)
    ]
    for longer, shorter in zip(lists, lists[1:], strict=False):
        assert all(set(few) <= set(more) for more, few in zip(longer, shorter, strict=True))
        assert sum(map(len, longer)) > sum(map(len, shorter))


# --- whether there are any


def test_it_says_what_is_saved_and_promised_with_the_number_of_items():
    probs, gold = world(rng(3), 200)
    found = decide(AUTO, probs, gold, SCHEMA, rng(3))
    assert found.used
    assert f"of {CLASSES} classes on average" in found.words
    assert "of 100 items [" in found.words
    assert "% less [" in found.words
    assert f"at least {100 - 100 * found.choice.thresholds.alpha:.4g} % of items" in found.words


def test_a_student_that_knows_nothing_gives_no_list_unless_asked_and_the_reason_is_told():
    draw = rng(4)
    probs, gold = draw.dirichlet(np.ones(CLASSES), size=60), draw.integers(CLASSES, size=60)
    found = decide(AUTO, probs, gold, SCHEMA, rng(4))
    assert not found.used
    assert found.words.startswith("no candidate sets, since they may save nothing. ")
    assert decide(ReviewSpec(candidates="always"), probs, gold, SCHEMA, rng(4)).used


@pytest.mark.parametrize(
    ("options", "schema", "n", "why"),
    [
        (ReviewSpec(candidates="never"), SCHEMA, 50, "as asked"),
        (ReviewSpec(candidates="always"), SCHEMA._replace(kind="multi"), 50, "any number of the labels"),
        (ReviewSpec(candidates="always"), SCHEMA._replace(labels=SCHEMA.labels[:2]), 50, "two labels"),
        (AUTO, SCHEMA, 3, "need 4 answers about audit items .* there are 3"),
    ],
)
def test_where_lists_cannot_help_there_are_none_and_the_reason_is_told(options, schema, n, why):
    probs, gold = world(rng(5), n, len(schema.labels))
    found = decide(options, probs, gold, schema, rng(5))
    assert (found.choice, found.used) == (None, False)
    assert re.search(f"^no candidate sets.*{why}", found.words)


def test_by_class_a_label_with_few_answers_stands_on_every_list():
    draw = rng(6)
    gold = np.concatenate([draw.integers(4, size=396), [4, 4, 4, 4]])
    logits = draw.normal(size=(400, 5)) + 4 * np.eye(5)[gold]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    small = SCHEMA._replace(labels=SCHEMA.labels[:5])
    found = decide(ReviewSpec(by_class=True, miss=(0.1,)), probs, gold, small, rng(6))
    assert "in every set: c4" in found.words
    assert all("c4" in some for some in sets_of(found.choice, probs, small.names))


# --- through a run's store

N = 130
AUDITED, SURE, PICKED = 60, (60, 65), range(120, 125)
"""Items 0 to 59 are the audit sample, all but the last with gold; the student answers 60 to 64."""


@pytest.fixture
def store(tmp_path):
    """A run whose router leaves everything to people but a few items, also of the audit sample."""
    opened = open_store(tmp_path / "run")
    probs, gold = world(rng(8), N)
    path = tmp_path / "c.jsonl"
    rows = [{"text": f"t{i}", "label": NAMES[g] if i < AUDITED - 1 else None} for i, g in enumerate(gold)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl", gold="label"), path, SCHEMA), text_key)
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in range(AUDITED)])
    base = {"round": 0, "by": "margin", "score": None, "reason": "", "recipe": "s", "at": 0.0}
    opened.add(t.pick, [{**base, "item": i, "rank": i} for i in PICKED])
    opened.put_block("p", 0, probs.astype(np.float32))
    machine = {*range(10), *range(*SURE)}
    opened.add(t.route, [route(i, probs[i], "student" if i in machine else "person") for i in range(N)])
    yield opened
    opened.close()


def route(item, row, who, recipe="r"):
    sure = {"confidence": float(row.max()), "reason": "unsure"}
    return {"item": item, "recipe": recipe, "who": who, "labels": json.dumps([NAMES[row.argmax()]]), **sure}


def made(store, options=AUTO, people=None):
    ctx = Context(store.folder, home=store.folder)
    return run(store, ctx, schema=SCHEMA, route="r", people=people, options=options, student="p")


def choice(store, options=AUTO):
    return store.shortlist("r", options.recipe())


def listed(store):
    return store.candidates(choice(store).recipe)


def test_lists_are_for_what_waits_not_for_audit_items_picks_doubts_or_what_a_person_answered(store):
    doubt = {"round": 0, "by": "activelab", "reason": "doubt", "recipe": "s", "at": 1.0}
    store.add(t.doubt, [{**doubt, "item": 70}])
    answer(store, 71, "c1")
    done = made(store)
    expected = (set(range(SURE[1], 120)) | set(range(125, N))) - {70, 71}
    assert set(listed(store)) == expected
    assert done.new == 1 + len(expected)
    queue = {w.item: w for w in waiting(store, names=NAMES, route="r", people=None)}
    assert {59, 70, 120} <= set(queue)
    assert [queue[i].candidates for i in (59, 70, 120)] == [(), (), ()]
    assert (queue[59].why, queue[59].guess) == ("audit", ())
    assert any(w.candidates for w in queue.values())


def test_the_likeliest_label_stands_first(store):
    made(store)
    probs = store.load("p")
    for s, some in listed(store).items():
        chances = [probs[s][NAMES.index(name)] for name in some]
        assert chances == sorted(chances, reverse=True)


def test_the_evidence_is_the_audit_items_that_would_have_waited(store):
    assert set(evidence(store, SCHEMA, "r")) == set(range(10, AUDITED - 1))
    answer(store, 59, "c1")  # now a person's, and routed so; asked before, a machine would have answered it
    answer(store, 3, "c2")
    probs = store.load("p")
    store.add(
        t.route, [route(59, probs[59], "student", unasked("r")), route(3, probs[3], "person", unasked("r"))]
    )
    found = evidence(store, SCHEMA, "r")
    assert set(found) == {3, *range(10, AUDITED - 1)}
    assert found[3] == ("c2",)
    assert found.items() <= known_answers(store, SCHEMA).items()


def test_run_again_adds_nothing_and_what_is_missing_is_added_as_it_was(store):
    first = made(store)
    before = listed(store)
    again = made(store)
    assert (again.new, again.note) == (0, first.note)
    with store.begin() as db:
        db.execute(t.candidates.delete().where(t.candidates.c.item > 100))
    assert made(store).new == sum(s > 100 for s in before)
    assert listed(store) == before
    assert store.count(t.shortlist) == 1


def test_the_note_and_the_measures_say_what_is_saved_with_interval_and_number(store):
    done = made(store)
    assert done.note.startswith("66 items wait for people; People see ")
    rows = {m.name: m for m in store.read(t.measure.select())}
    assert set(rows) == {"candidates.saving", "candidates.coverage", "candidates.bits"}
    assert all(m.low <= m.value <= m.high and m.n == 24 for m in rows.values())
    assert rows["candidates.saving"].measured_on == (
        "24 of 49 audit items that are left to people; the thresholds rest on the others"
    )


def test_more_answers_or_another_choice_make_new_lists_and_keep_the_old(store):
    made(store)
    first = choice(store).recipe
    answer(store, 20, "c5")
    store.add(t.route, [route(20, store.load("p")[20], "person", unasked("r"))])
    made(store)
    second = choice(store).recipe
    other = ReviewSpec(miss=(0.3,))
    made(store, other)
    third = choice(store, other).recipe
    assert len({first, second, third}) == 3
    assert store.candidates(first)
    assert choice(store, other).used
    never = ReviewSpec(candidates="never")
    assert made(store, never).note.endswith("; no candidate sets, as asked")
    assert not any(w.candidates for w in waiting(store, names=NAMES, route="r", people=None, options=never))
    assert made(store).new == 0  # asked as before: the lists are there
    assert any(w.candidates for w in waiting(store, names=NAMES, route="r", people=None))


def test_by_doubt_the_least_sure_come_first_with_lists_too_and_without_a_likely_label_first_of_all(store):
    half = ReviewSpec(miss=(0.5,), order="doubt")
    before = [w.item for w in waiting(store, names=NAMES, route="r", people=None, options=half)]
    made(store, ReviewSpec(miss=(0.5,)))
    queue = waiting(store, names=NAMES, route="r", people=None, options=half)
    assert [w.item for w in queue] == before
    unlike = [w.why.startswith(UNLIKE) for w in queue if w.why != "audit" and w.item not in PICKED]
    assert 0 < sum(unlike) < len(unlike)
    assert unlike == sorted(unlike, reverse=True)
    assert [w.item for w in waiting(store, names=NAMES, route="r", people=40, options=half)] == before[:40]


def test_an_item_with_no_likely_label_says_so_and_gets_the_full_list(store):
    made(store)
    name = choice(store).recipe
    with store.begin() as db:
        db.execute(t.candidates.update().where(t.candidates.c.item == 80).values(labels="[]"))
        db.execute(t.candidates.update().where(t.candidates.c.item == 81).values(labels=json.dumps(NAMES)))
    queue = {w.item: w for w in waiting(store, names=NAMES, route="r", people=None)}
    assert (queue[80].why, queue[80].candidates) == (f"{UNLIKE}; unsure", ())
    assert (queue[81].why, queue[81].candidates) == ("unsure", ())
    assert store.candidates(name)[80] == ()


def test_items_by_the_million_are_made_in_blocks(store, monkeypatch):
    made(store)
    whole = listed(store)
    with store.begin() as db:
        db.execute(t.candidates.delete())
    monkeypatch.setattr(candidates, "BLOCK", 7)
    made(store)
    assert listed(store) == whole
