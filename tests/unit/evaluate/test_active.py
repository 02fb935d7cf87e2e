"""Active testing: people answer where the student is likely wrong, and accuracy is measured without bias."""

import numpy as np
import pytest

from llmal.context import Context
from llmal.evaluate import active
from llmal.evaluate.stage import reserve
from llmal.records import Label, LabelSchema
from llmal.review.stage import waiting
from llmal.stats.intervals import wilson
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer
from llmal.train.stage import training_set

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
N = 60


@pytest.fixture
def ctx(tmp_path):
    return Context(tmp_path, home=tmp_path, seed=3)


@pytest.fixture
def store(tmp_path):
    opened = filled(tmp_path / "run")
    yield opened
    opened.close()


def filled(folder, n=N):
    opened = open_store(folder)
    opened.add(t.corpus, [{"n": 1, "recipe": "c", "digest": "d", "at": 0.0}])
    opened.add(t.item, [{"seq": i, "key": str(i), "text": f"t{i}", "flags": "[]"} for i in range(n)])
    opened.add(
        t.row, [{"corpus": 1, "position": i, "id": str(i), "item": i, "skipped": ""} for i in range(n)]
    )
    return opened


def predict(store, name, sure):
    store.put_block(name, 0, np.array([[p, 1 - p] for p in sure], np.float32))


def choose(store, ctx, n, student="s"):
    return active.choose(store, ctx, schema=SCHEMA, student=student, active=n)


def test_the_audit_sample_is_the_uniform_part_of_the_draws_from_the_pool(store, ctx):
    assert reserve(store, ctx, size=8, pool=24)[:2] == (8, 8)
    drawn = store.draws()
    assert sorted(d.item for d in drawn) == store.audit()
    assert {*store.audit()} < {*store.tested()}
    assert [d.chance for d in drawn] == pytest.approx([1 / (24 - i) for i in range(8)])
    assert {(d.pool, d.by) for d in drawn} == {(24, "uniform")}
    assert reserve(store, ctx, size=8, pool=24)[:3] == (8, 0, "")


def test_nothing_of_the_pool_is_ever_learnt_from_whoever_answered_it(store, ctx):
    reserve(store, ctx, size=8, pool=24)
    for item in range(N):
        answer(store, item)
    data = training_set(store, schema=SCHEMA, annotations="a", decisions="d")
    assert data.items == [i for i in range(N) if i not in store.tested()]
    assert not {*data.pool} & {*store.tested()}


def test_a_larger_sample_takes_items_of_the_corpus_not_of_the_pool(store, ctx):
    reserve(store, ctx, size=8, pool=24)
    before = store.audit()
    assert reserve(store, ctx, size=12, pool=24).new == 4
    assert not ({*store.audit()} - {*before}) & {*store.tested()}
    assert len(store.draws()) == 8


def test_a_sample_that_was_reserved_before_the_pool_is_its_first_draws(store, ctx):
    reserve(store, ctx, size=8)
    reserve(store, ctx, size=8, pool=24)
    assert sorted(d.item for d in store.draws()) == store.audit()
    assert len(store.tested()) == 24


def test_a_pool_asked_for_after_the_first_pick_is_refused_in_words(store, ctx):
    reserve(store, ctx, size=8)
    pick = {"round": 0, "rank": 0, "by": "x", "score": None, "reason": "", "recipe": "r", "at": 0.0}
    store.add(t.pick, [{**pick, "item": next(i for i in range(N) if i not in store.audit())}])
    assert "before the first pick" in reserve(store, ctx, size=8, pool=24).note
    assert store.tested() == []


def test_what_was_drawn_stays_drawn_and_another_student_changes_later_draws_alone(tmp_path, ctx):
    for name in ("whole", "cut"):
        opened = filled(tmp_path / name)
        reserve(opened, ctx, size=8, pool=30)
        predict(opened, "s", np.linspace(0.5, 1, N))
        predict(opened, "other", np.linspace(1, 0.5, N))
        if name == "whole":
            assert choose(opened, ctx, 6)[:2] == (6, 6)
            whole = opened.draws()
            assert choose(opened, ctx, 6)[:2] == (6, 0)
            choose(opened, ctx, 10, "other")
            assert opened.draws()[: len(whole)] == whole
            assert {d.by for d in opened.draws()[len(whole) :]} == {"other"}
            assert {d.item for d in opened.draws()} <= {*opened.tested()}
        else:
            choose(opened, ctx, 6)
            assert opened.draws() == whole
        opened.close()


def test_people_are_asked_for_the_draws_in_their_order_after_the_sample(store, ctx):
    reserve(store, ctx, size=8, pool=30)
    predict(store, "s", np.linspace(0.5, 1, N))
    choose(store, ctx, 6)
    drawn = [d.item for d in store.draws()]
    queue = waiting(store, names=SCHEMA.names, route=None, people=None)
    assert sorted(w.item for w in queue[:8]) == store.audit()
    assert [w.item for w in queue[8:]] == drawn[8:]
    assert {w.why for w in queue} == {"audit"}, "no machine's answer may be shown beside a test item"


def test_the_measure_stops_at_the_first_draw_without_an_answer(store, ctx):
    reserve(store, ctx, size=4, pool=30)
    predict(store, "s", np.linspace(0.5, 1, N))
    choose(store, ctx, 4)
    drawn = [d.item for d in store.draws()]
    for item in drawn[:4]:
        answer(store, item)
    assert active.measure(store, SCHEMA, "s", active.tested(store, SCHEMA)) == {}
    for item in [*drawn[4:6], drawn[7]]:
        answer(store, item, "billing")
    found = active.tested(store, SCHEMA)
    assert (found.items, found.active, found.drawn) == (drawn[:6], 2, 8)
    estimate, words = active.measure(store, SCHEMA, "s", found)["accuracy.active"]
    assert estimate.n == 6
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert words.startswith("active testing: 6 of 8 test items, 2 of them chosen")
    sure = active.accuracy([False] * 4 + [True] * 2, [1 / (30 - i) for i in range(6)], 30)
    assert sure.value == pytest.approx(4 / 6), "with equal chances it is the plain share"


def world(rng, pool, error):
    """Confidence of a student that is right as often as it says, and where it errs."""
    sure = np.clip(1 - rng.beta(0.5, 0.5 * (1 - error) / error, pool), 0.4, 1)
    return sure, rng.random(pool) > sure


def runs(seeds, *, pool=1000, size=50, chosen=100, error=0.15, weigh=True):
    """Error of each estimate, whether its interval held, and its width over that of random items."""
    sample = np.random.default_rng(7)
    true = 1 - float(np.mean([world(sample, 100_000, error)[1].mean() for _ in range(3)]))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        sure, wrong = world(rng, pool, error)
        first = rng.permutation(pool)[:size]
        left = np.setdiff1d(np.arange(pool), first)
        more = active.next_draws(1 - sure[left], chosen, rng)
        items = np.concatenate([first, left[more.items]])
        chances = np.concatenate([1 / (pool - np.arange(size)), more.chances])
        if not weigh:
            chances = 1 / (pool - np.arange(size + chosen))
        found = active.accuracy(wrong[items], chances, pool)
        plain = wilson(round(true * len(items)), len(items))
        yield (
            found.value - true,
            found.low <= true <= found.high,
            (found.high - found.low) / (plain.high - plain.low),
        )


def test_chosen_items_give_an_unbiased_accuracy_an_interval_that_holds_and_is_narrower():
    off, held, wide = np.array(list(runs(600))).T
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(len(off))
    assert 0.93 <= held.mean() <= 0.975
    assert wide.mean() < 0.95


def test_the_simulation_finds_out_that_chosen_items_must_be_weighed():
    _, held, _ = np.array(list(runs(100, weigh=False))).T
    assert held.mean() < 0.75
