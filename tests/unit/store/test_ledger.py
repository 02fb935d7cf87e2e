"""The ledger: cost and facts commit together or not at all, and nothing answered is ever asked again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import sqlalchemy as sa

from llmal.annotate.stage import forget_failures
from llmal.errors import BudgetSpent, StoreError
from llmal.records import Annotation
from llmal.store import schema as t
from llmal.store.ledger import PICO, Bill, Caps, Ledger, Settled, bill, unknown_fate
from llmal.store.store import annotation_rows, open_store

OK = Settled("ok", 30, True, 0.1, 200, "", 10, 2)


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def row(name, item=None):
    return {"hash": name, "purpose": "annotate", "model": "m", "prompt": "p", "item": item, "body": None}


def response(held, name, raw="{}"):
    return (t.response, [{"request": name, "attempt": held.attempt, "raw": raw, "model": "m"}])


def label(item, recipe="r", status="ok"):
    return (
        t.annotation,
        annotation_rows(recipe, [Annotation(item, status, ("a",) if status == "ok" else ())]),
    )


def use(store, caps, work):
    """Run `work(ledger)` on a loop of its own."""

    async def main():
        ledger = Ledger(store, caps)
        try:
            return await work(ledger)
        finally:
            ledger.close()

    return asyncio.run(main())


def test_a_call_is_booked_at_its_worst_before_it_is_sent_and_at_its_cost_after(store):
    async def work(ledger):
        held = await ledger.reserve(row("h1", 3), 1, 100)
        assert bill(store) == Bill(1, 0, 0, 100, 1)
        assert unknown_fate(store) == [(3, "h1", 100)]
        await ledger.settle(held, OK, [response(held, "h1")])
        assert bill(store) == Bill(1, 10, 2, 30, 0)
        assert unknown_fate(store) == []

    use(store, Caps(), work)


def test_a_cap_is_reached_exactly_and_never_passed(store):
    async def work(ledger):
        for name in ("a", "b", "c"):
            held = await ledger.reserve(row(name), 1, 40)
            await ledger.settle(held, OK, [])
        with pytest.raises(BudgetSpent, match=r"budget.usd: the next call could cost \$0.000000 and"):
            await ledger.reserve(row("d"), 1, 11)
        held = await ledger.reserve(row("d"), 1, 10)
        await ledger.settle(held, Settled("failed", 0, True, 0.0, 500, "server"), [])
        await ledger.reserve(row("e"), 1, 10)

    use(store, Caps(cost=100), work)
    assert bill(store).cost == 100


def test_refused_calls_leave_no_trace(store):
    async def work(ledger):
        with pytest.raises(BudgetSpent):
            await ledger.reserve(row("a"), 1, 2)

    use(store, Caps(cost=1), work)
    assert store.count(t.attempt) == store.count(t.request) == 0


def test_an_unsent_call_gives_its_room_back(store):
    async def work(ledger):
        for n in range(5):
            held = await ledger.reserve(row("a"), n + 1, 10)
            await ledger.settle(held, Settled("unsent", 0, True, 0.0, None, "unreachable"), [])
        ledger.let_go(await ledger.reserve(row("a"), 6, 10))
        with pytest.raises(BudgetSpent, match="1 of 1 calls are made"):
            await ledger.reserve(row("b"), 1, 0)

    use(store, Caps(cost=10, calls=1), work)
    assert bill(store)[:1] == (1,)


def test_who_finds_no_room_waits_for_calls_in_flight_to_cost_less(store):
    async def work(ledger):
        first = await ledger.reserve(row("a"), 1, 90)
        second = asyncio.create_task(ledger.reserve(row("b"), 1, 60))
        await asyncio.sleep(0.05)
        assert not second.done()
        await ledger.settle(first, OK, [])
        assert (await asyncio.wait_for(second, 5)).worst == 60

    use(store, Caps(cost=100), work)


def test_who_waits_for_room_is_refused_when_none_comes(store):
    async def work(ledger):
        first = await ledger.reserve(row("a"), 1, 90)
        second = asyncio.create_task(ledger.reserve(row("b"), 1, 60))
        await asyncio.sleep(0.02)
        ledger.let_go(first)  # cancelled or crashed: its worst case stays spent
        with pytest.raises(BudgetSpent):
            await asyncio.wait_for(second, 5)

    use(store, Caps(cost=100), work)
    assert bill(store).cost == 90


def test_totals_go_on_over_processes_with_calls_of_unknown_fate_at_their_worst(store):
    async def first(ledger):
        held = await ledger.reserve(row("a", 1), 1, 50)
        await ledger.settle(held, OK, [])
        await ledger.reserve(row("b", 2), 1, 50)

    async def second(ledger):
        with pytest.raises(BudgetSpent):
            await ledger.reserve(row("c"), 1, 21)
        held = await ledger.reserve(row("c"), 1, 20)
        assert held.attempt == 3

    use(store, Caps(cost=100), first)
    assert bill(store) == Bill(2, 10, 2, 80, 1)
    assert unknown_fate(store) == [(2, "b", 50)]
    use(store, Caps(cost=100), second)


def test_an_outcome_of_unknown_fate_counts_at_its_worst_and_is_told(store):
    async def work(ledger):
        held = await ledger.reserve(row("a"), 1, 50)
        await ledger.settle(held, Settled("unknown", held.worst, False, 60.0, None, "timeout"), [])

    use(store, Caps(), work)
    assert bill(store) == Bill(1, 0, 0, 50, 1)


def test_sums_are_exact_beyond_what_a_float_can_count(store):
    async def work(ledger):
        for n in range(3):
            held = await ledger.reserve(row(f"r{n}"), 1, 2**60)
            await ledger.settle(held, OK._replace(cost=2**60 + n), [])

    use(store, Caps(), work)
    assert bill(store).cost == 3 * 2**60 + 3


def test_cost_answer_and_label_commit_in_one_transaction(store):
    """A fact that violates a constraint takes the outcome and the answer down with it."""

    async def work(ledger):
        held = await ledger.reserve(row("a", 1), 1, 50)
        bad = (t.annotation, [{**label(1)[1][0], "status": None}])
        with pytest.raises(sa.exc.IntegrityError):
            await ledger.settle(held, OK, [response(held, "a"), bad])

    with (
        store.begin() as db
    ):  # on_conflict_do_nothing would pass over a NOT NULL; a trigger cannot be passed over
        db.execute(
            sa.text(
                "CREATE TRIGGER stop BEFORE INSERT ON annotation WHEN NEW.status IS NULL "
                "BEGIN SELECT RAISE(ABORT, 'no status'); END"
            )
        )
    use(store, Caps(), work)
    assert store.count(t.outcome) == store.count(t.response) == store.count(t.annotation) == 0
    assert bill(store) == Bill(1, 0, 0, 50, 1)


KILLED = """
import asyncio, os, sys
from pathlib import Path
from llmal.records import Annotation
from llmal.store import schema as t
from llmal.store.ledger import Caps, Ledger, Settled
from llmal.store.store import Store, annotation_rows, open_store

place, real = int(sys.argv[2]), Store.add
store = open_store(Path(sys.argv[1]))
writes = 0

def add(self, table, rows, *, db=None):
    global writes
    if db is not None:
        if writes == place:
            os._exit(9)
        writes += 1
    return real(self, table, rows, db=db)

Store.add = add

async def main():
    ledger = Ledger(store, Caps())
    row = {"hash": "a", "purpose": "annotate", "model": "m", "prompt": "p", "item": 1, "body": None}
    held = await ledger.reserve(row, 1, 50)
    answer = [{"request": "a", "attempt": held.attempt, "raw": "{}", "model": "m"}]
    label = annotation_rows("r", [Annotation(1, "ok", ("x",))])
    end = Settled("ok", 30, True, 0.1, 200, "", 10, 2)
    await ledger.settle(held, end, [(t.response, answer), (t.annotation, label)])
    ledger.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("place", "kept"),
    [(0, (0, 0)), (1, (0, 0)), (2, (1, 0)), (3, (1, 0)), (4, (1, 0)), (5, (1, 1))],
    ids=[
        "first write",
        "between request and attempt",
        "first of the end",
        "after the outcome",
        "before the label",
        "end",
    ],
)
def test_a_process_killed_between_two_writes_keeps_all_of_a_commit_or_nothing(place, kept, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED), encoding="utf-8")
    run = subprocess.run([sys.executable, script, tmp_path / "run", str(place)], check=False)
    assert run.returncode == (0 if place == 5 else 9)
    store = open_store(tmp_path / "run")
    reserved, settled = kept
    assert store.count(t.request) == store.count(t.attempt) == reserved
    assert store.count(t.outcome) == store.count(t.response) == store.count(t.annotation) == settled
    assert bill(store) == ((1, 10, 2, 30, 0) if settled else (reserved, 0, 0, 50 * reserved, reserved))
    store.close()


def test_an_end_that_is_not_waited_for_is_on_disk_before_whatever_is_booked_after_it(store):
    async def work(ledger):
        for n in range(20):
            held = await ledger.reserve(row(f"a{n}"), 1, 50)
            written = ledger.settling(held, OK, [response(held, f"a{n}")])
            assert bill(store).unknown in (0, 1)
            later = await ledger.reserve(row(f"b{n}"), 1, 50)
            assert written.done()
            assert store.count(t.response) == n + 1
            assert bill(store).unknown == 1
            await ledger.settle(later, OK, [])

    use(store, Caps(), work)


def test_many_calls_share_a_commit(store, monkeypatch):
    commits = []
    real = type(store).begin

    def slow(self):
        commits.append(threading.current_thread().name)
        time.sleep(0.01)
        return real(self)

    monkeypatch.setattr(type(store), "begin", slow)

    async def call(ledger, n):
        held = await ledger.reserve(row(f"r{n}", n), 1, 50)
        await ledger.settle(held, OK, [response(held, f"r{n}"), label(n)])

    async def work(ledger):
        await asyncio.gather(*(call(ledger, n) for n in range(64)))

    use(store, Caps(), work)
    assert set(commits) == {"llmal-ledger"}
    assert len(commits) <= 8
    assert bill(store) == Bill(64, 640, 128, 64 * 30, 0)
    assert store.count(t.annotation) == 64


def test_what_is_told_as_kept_is_kept(store):
    """A settled call can be read by anyone the moment `settle` returns."""

    async def call(ledger, n):
        held = await ledger.reserve(row(f"r{n}", n), 1, 50)
        assert store.count(t.attempt, t.attempt.c.n == held.attempt) == 1
        await ledger.settle(held, OK, [response(held, f"r{n}", raw=str(n))])
        assert ledger.kept([f"r{n}"]) == {f"r{n}": str(n)}

    async def work(ledger):
        await asyncio.gather(*(call(ledger, n) for n in range(40)))
        assert len(ledger.kept([f"r{n}" for n in range(2000)])) == 40

    use(store, Caps(), work)


def test_a_store_that_cannot_be_written_is_told_before_anything_is_sent(store, monkeypatch):
    def full(_self):
        raise StoreError("cannot write the run's store: database or disk is full")

    async def work(ledger):
        monkeypatch.setattr(type(store), "begin", full)
        with pytest.raises(StoreError, match="disk is full"):
            await ledger.reserve(row("a"), 1, 50)
        monkeypatch.undo()
        await ledger.reserve(row("b"), 1, 50)

    use(store, Caps(), work)
    assert store.count(t.attempt) == 1


def test_closing_commits_what_is_waiting(store):
    async def work(ledger):
        held = await ledger.reserve(row("a"), 1, 50)
        settling = asyncio.create_task(ledger.settle(held, OK, []))
        await asyncio.sleep(0)
        return settling

    async def main():
        ledger = Ledger(store, Caps())
        settling = await work(ledger)
        ledger.close()
        await settling

    asyncio.run(main())
    assert bill(store).unknown == 0


def test_facts_are_never_overwritten(store):
    async def work(ledger):
        held = await ledger.reserve(row("a", 1), 1, 50)
        await ledger.settle(held, OK, [response(held, "a", "first"), label(1)])
        await ledger.append([response(held, "a", "second"), label(1, status="failed")])
        assert ledger.kept(["a"]) == {"a": "first"}

    use(store, Caps(), work)
    assert store.annotations("r")[1].status == "ok"


def test_only_failures_are_forgotten_to_be_asked_again(store):
    statuses = ("ok", "failed", "refused", "length", "filtered", "unparsed", "off_list", "abstained")

    async def work(ledger):
        await ledger.append([label(n, status=status) for n, status in enumerate(statuses)])
        await ledger.append([label(1, recipe="another", status="failed")])

    use(store, Caps(), work)
    assert forget_failures(store, "r") == 1
    assert {a.status for a in store.annotations("r").values()} == set(statuses) - {"failed"}
    assert store.annotations("another")[1].status == "failed"


def test_a_bill_can_be_read_while_calls_settle_and_never_dips(store):
    seen = []
    done = threading.Event()

    def watch():
        reader = open_store(store.folder, write=False)
        while not done.is_set():
            seen.append(bill(reader))
        reader.close()

    async def call(ledger, n):
        held = await ledger.reserve(row(f"r{n}"), 1, 30)
        await ledger.settle(held, OK, [])

    async def work(ledger):
        for start in range(0, 100, 5):
            await asyncio.gather(*(call(ledger, n) for n in range(start, start + 5)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        use(store, Caps(), work)
    finally:
        done.set()
        watcher.join()
    costs = [b.cost for b in seen]
    assert costs == sorted(
        costs
    )  # reserved and settled at the same cost: a dip would be a call counted nowhere
    assert all(b.cost == 30 * b.calls for b in seen)


def test_a_picodollar_budget_is_exact():
    from llmal.spec import BudgetSpec

    assert BudgetSpec(usd=0.1).caps() == Caps(PICO // 10, None)
    assert BudgetSpec(usd=0.29, calls=7).caps() == Caps(29 * PICO // 100, 7)
    assert BudgetSpec().caps() == Caps(None, None)
