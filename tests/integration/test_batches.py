"""Batch endpoints: no row unaccounted, no batch made twice, no cap passed, the same answers for less.

Rows of the fault catalogue (group N) and the tests that show them:

| row | tests |
|---|---|
| N20 | the parametrised `test_every_row_ends_in_done_failed_or_another_batch` and those after it |
| N21 | `test_killed_between_create_and_saving_its_id_...`, `test_an_answer_to_create_that_is_lost_...` |
| N3, N4, N17, N18, N22 for batches | the last section |
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from llmal.annotate.reading import annotation_of
from llmal.errors import BudgetSpent, Interrupted, ModelError
from llmal.lm import batch_books, batch_files, batches
from llmal.lm import transport as door
from llmal.lm.asker import Asker
from llmal.lm.batches import BatchTransport, open_batches
from llmal.lm.endpoint import Endpoint, Retries
from llmal.lm.prices import Price
from llmal.lm.transport import Transport
from llmal.lm.wire import Reply, Request
from llmal.prompts.file import load_prompt
from llmal.prompts.frame import render
from llmal.prompts.program import signature
from llmal.records import Annotation, Item, Label, LabelSchema
from llmal.store import schema as t
from llmal.store.ledger import Caps, Ledger, bill, unknown_fate
from llmal.store.store import Store, annotation_rows, open_store
from llmal.testing.batches import BatchFault
from llmal.testing.fakelm import FakeLM, Fault

KEY = "sk-canary/4f8a2b7c91e3"
SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing"), Label(name="other")), abstain=True)
PRICE, HALF = (150_000, 600_000), (75_000, 300_000)
RETRIES = Retries(rate_limit=2, server=1, malformed=1, connect=2, timeout=1)
N = 12
HERE = str(Path(__file__).parent)


def brain(ask):
    """The second option for every other item."""
    code = "AB"[int(ask.user.split("item ")[1].split(".")[0]) % 2] if "item " in ask.user else "A"
    return f"[[ ## answer ## ]]\n{code}\n\n[[ ## completed ## ]]"


def identify(messages: Any) -> str:
    return messages[-1]["content"].split("item ")[-1].split(".")[0]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(door, "LONGEST_WAIT_S", 0.002)
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.001)
    monkeypatch.setattr(batches, "LONGEST_POLL_S", 0.002)


@pytest.fixture(scope="module")
def running():
    with FakeLM(brain, identify=identify, api_key=KEY, price=PRICE) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset()
    running.batches.reset()
    running.batches.looks = 2
    running.faults = ()
    return running


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def request(seq: int) -> Request:
    frame = render(load_prompt(), SCHEMA)
    messages = frame.messages(Item(seq, f"k{seq}", f"item {seq}."), b"s")
    return Request("annotate", "fake-lm", messages, {"max_tokens": 64, "temperature": 0.0}, seq, "p")


def requests(n: int = N) -> list[Request]:
    return [request(i) for i in range(n)]


def endpoint(server: FakeLM, **more: Any) -> Endpoint:
    given = {"tolerate": 1.0, "timeout_s": 5.0, "retries": RETRIES} | more
    return Endpoint(base_url=server.base_url, key=KEY, key_name="CANARY_KEY", **given)


class Heard(list[str]):
    """What the user was shown."""

    def has(self, words: str) -> bool:
        return any(words in line for line in self)


def go(
    store: Store,
    where: Endpoint,
    asked: list[Request] | None = None,
    *,
    caps: Caps = Caps(),  # noqa: B008
    direct: bool = False,
    plain: bool = False,
    heard: Heard | None = None,
    record: Any = None,
) -> list[Annotation]:
    """All requests, as the annotator asks them; by batches unless `plain`."""
    sign = signature(load_prompt(), SCHEMA, strict=False)
    made: list[Annotation] = []

    def keep(one, end):
        made.append(annotation_of(one.item, end, sign, SCHEMA))
        return [(t.annotation, annotation_rows("r", [made[-1]]))]

    async def main():
        ledger = Ledger(store, caps)
        try:
            way: Transport
            if plain:
                way = Transport(where, ledger, Price(*PRICE))
            else:
                way = BatchTransport(where, ledger, Price(*PRICE), batch_price=Price(*HALF), direct=direct)
            async with way as transport:
                say = heard.append if heard is not None else lambda _: None
                await transport.ask_all(asked or requests(), record or keep, say=say)
        finally:
            ledger.close()

    asyncio.run(main())
    return sorted(made, key=lambda a: a.item)


def outcomes(store: Store) -> Counter[tuple[str, str]]:
    o = t.outcome.c
    return Counter(tuple(row) for row in store.read(sa.select(o.status, o.reason)))


def accounts_are_straight(store: Store, server: FakeLM) -> None:
    """Every call has an outcome, the books hold at least the bill, no answered call was asked again."""
    assert store.count(t.attempt) == store.count(t.outcome) == store.count(t.batch_call)
    assert unknown_fate(store) == []
    assert server.bill <= bill(store).cost
    assert open_batches(store) == []
    answered = {name for (name,) in store.read(sa.select(t.response.c.request))}
    a, o = t.attempt.c, t.outcome.c
    done = store.read(sa.select(a.request).join(t.outcome, o.attempt == a.n).where(o.status == "ok"))
    assert Counter(name for (name,) in done) == Counter(answered)


# --- the plain case -----------------------------------------------------------------------------------------


def test_answers_are_those_of_direct_calls_at_half_the_price(server, store, tmp_path):
    heard = Heard()
    by_batch = go(store, endpoint(server), heard=heard)
    batch_bill = server.bill
    assert (server.batches.made, server.batches.sizes) == (1, [N])
    assert bill(store) == (N, *bill(store)[1:3], batch_bill, 0)
    assert heard.has(f"batch 1: {N} calls sent as batch_0001")
    assert heard.has(f"batch 1: completed, {N} of {N} done")
    accounts_are_straight(store, server)
    other = open_store(tmp_path / "direct")
    by_call = go(other, endpoint(server), plain=True)
    assert by_call == by_batch
    assert {a.status for a in by_batch} == {"ok"}
    assert len({a.labels for a in by_batch}) == 2
    assert bill(other).cost == server.bill - batch_bill == 2 * batch_bill
    other.close()


def test_run_again_costs_nothing_and_a_batch_answer_serves_direct_calls_too(server, store):
    first = go(store, endpoint(server))
    assert go(store, endpoint(server)) == first
    assert go(store, endpoint(server), plain=True) == first
    assert (server.batches.made, server.n_requests) == (1, N)


def test_a_question_asked_twice_is_one_line(server, store):
    made = go(store, endpoint(server), [request(0), request(1), request(0)])
    assert [a.item for a in made] == [0, 0, 1]
    assert server.batches.sizes == [2]


@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_a_file_stays_within_the_provider_s_limits(limit, server, store, monkeypatch):
    if limit == "rows":
        monkeypatch.setattr(batch_books, "MOST_ROWS", 5)
    else:
        length = len(batch_files.line_of(request(0), request(0).hash()))
        monkeypatch.setattr(batches, "MOST_BYTES", 5 * length + length // 2)
    monkeypatch.setattr(batches, "MOST_OPEN", 2)
    assert len(go(store, endpoint(server))) == N
    assert server.batches.sizes == [5, 5, 2]
    accounts_are_straight(store, server)


def test_results_are_read_in_pieces(server, store, monkeypatch):
    monkeypatch.setattr(batch_files, "LINES", 3)
    assert {a.status for a in go(store, endpoint(server))} == {"ok"}


def test_what_ends_a_line_of_text_ends_no_line_of_results(store):
    odd = "[[ ## answer ## ]]\nB\n\n[[ ## completed ## ]]\u2028\x85\x0b\x1c"
    with FakeLM(lambda _: odd) as server:
        assert {a.status for a in go(store, endpoint(server))} == {"ok"}


# --- N20: what batches can do to a row ----------------------------------------------------------------------


def rows(kind: str, **more: Any) -> BatchFault:
    return BatchFault(kind, rows=(0, 3, 7), **more)


# name -> faults, sizes of the batches made, statuses of the items, outcomes of calls without an answer
CASES: dict[str, tuple[list[BatchFault], list[int], dict[str, int], dict[tuple[str, str], int]]] = {
    "expired": ([rows("expired", batch=1)], [12, 3], {"ok": 12}, {("failed", "expired"): 3}),
    "expired whole": ([BatchFault("expired", batch=1)], [12, 12], {"ok": 12}, {("failed", "expired"): 12}),
    "always expired": (
        [BatchFault("expired")], [12, 12], {"failed": 12}, {("failed", "expired"): 24},
    ),
    "missing": ([rows("missing", batch=1)], [12, 3], {"ok": 12}, {("unknown", "missing"): 3}),
    "always missing": (
        [rows("missing"), BatchFault("missing", batch=2)],
        [12, 3],
        {"ok": 9, "failed": 3},
        {("unknown", "missing"): 6},
    ),
    "status 0": ([rows("no_status", batch=1)], [12, 3], {"ok": 12}, {("unknown", "no_status"): 3}),
    "500": ([rows("error", batch=1)], [12, 3], {"ok": 12}, {("failed", "server"): 3}),
    "400": (
        [rows("error", batch=1, code=400)],
        [12],
        {"ok": 9, "failed": 3},
        {("failed", "bad_request"): 3},
    ),
    "429": ([rows("error", batch=1, code=429)], [12, 3], {"ok": 12}, {("failed", "rate_limit"): 3}),
    "no choices": ([rows("malformed", batch=1)], [12, 3], {"ok": 12}, {("unknown", "malformed"): 3}),
    "broken lines": ([rows("broken", batch=1)], [12, 3], {"ok": 12}, {("unknown", "missing"): 3}),
    "duplicates": ([rows("duplicate")], [12], {"ok": 12}, {}),
    "unknown names": ([BatchFault("unknown")], [12], {"ok": 12}, {}),
    "expired output": (
        [BatchFault("no_result_file", batch=1)], [12, 12], {"ok": 12}, {("unknown", "results_gone"): 12},
    ),
    "batch forgotten": (
        [BatchFault("gone", batch=1)], [12, 12], {"ok": 12}, {("unknown", "results_gone"): 12},
    ),
    "enqueued tokens": (
        [BatchFault("failed", batch=1, code="token_limit_exceeded")],
        [12, 6, 6],
        {"ok": 12},
        {("failed", "enqueued"): 12},
    ),
    "several at once": (
        [BatchFault("missing", rows=(0,), batch=1), BatchFault("error", rows=(1,), batch=1),
         BatchFault("expired", rows=(5,), batch=1), BatchFault("duplicate", rows=(2,)),
         BatchFault("unknown")],
        [12, 3],
        {"ok": 12},
        {("unknown", "missing"): 1, ("failed", "server"): 1, ("failed", "expired"): 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_row_ends_in_done_failed_or_another_batch(name, server, store):
    faults, sizes, statuses, ended = CASES[name]
    server.batches.faults = tuple(faults)
    made = go(store, endpoint(server))
    assert [a.item for a in made] == list(range(N))
    assert Counter(a.status for a in made) == statuses
    assert server.batches.sizes == sizes
    found = outcomes(store)
    assert found.pop(("ok", ""), 0) == statuses.get("ok", 0)
    assert found == ended
    assert all(a.labels == (("bug", "billing")[a.item % 2],) for a in made if a.status == "ok")
    accounts_are_straight(store, server)
    assert store.count(t.annotation) == N


def test_without_the_check_for_missing_rows_the_same_test_fails(server, store, monkeypatch):
    """Power check: a reader that believes `completed` leaves rows without an end."""

    async def believe(self, batch, ends):
        return None

    monkeypatch.setattr(batches._Work, "_settle_rest", believe)
    server.batches.faults = CASES["missing"][0]
    assert len(go(store, endpoint(server))) < N
    with pytest.raises(AssertionError):
        accounts_are_straight(store, server)


def test_lines_that_repeat_or_name_nobody_are_told(server, store):
    server.batches.faults = (rows("duplicate"), BatchFault("unknown"))
    heard = Heard()
    go(store, endpoint(server), heard=heard)
    assert heard.has("batch 1: 3 lines of results repeat another; left out")
    assert heard.has("batch 1: 1 lines of results carry no name of a call in it; left out")


def test_a_row_is_in_three_batches_at_the_most(server, store):
    server.batches.faults = (BatchFault("error", rows=(0,), code=429),)
    patient = endpoint(server, retries=Retries(rate_limit=6))
    made = go(store, patient)
    assert [a.item for a in made if a.status == "failed"] == [
        i for i in range(N) if made[i].detail == "rate_limit: scripted"
    ]
    assert server.batches.sizes == [12, 1, 1]


def test_a_batch_cancelled_at_the_provider_stops_the_run_and_keeps_its_answers(server, store):
    server.batches.faults = (rows("cancelled", batch=1),)
    with pytest.raises(ModelError, match="batch 1 was cancelled at the provider") as caught:
        go(store, endpoint(server))
    assert "Run again to ask the rest" in str(caught.value)
    assert store.count(t.annotation) == N - 3
    accounts_are_straight(store, server)
    assert len(go(store, endpoint(server))) == N
    assert server.batches.sizes == [12, 3]
    assert set(server.counts.values()) == {1}


def test_results_that_are_a_web_page_are_no_reason_to_pay_again(server, store):
    server.batches.faults = (BatchFault("html", "content", times=100),)
    with pytest.raises(ModelError, match="malformed: the file of results is none"):
        go(store, endpoint(server))
    assert len(open_batches(store)) == 1
    server.batches.faults = ()
    assert len(go(store, endpoint(server))) == N
    assert (server.batches.made, server.n_requests) == (1, N)


def test_a_batch_refused_at_validation_stops_the_run_and_costs_nothing(server, store):
    server.batches.faults = (BatchFault("failed", batch=1, code="invalid_json_line"),)
    with pytest.raises(ModelError, match="invalid_json_line: The batch cannot be run"):
        go(store, endpoint(server))
    assert (bill(store).cost, store.count(t.annotation)) == (0, 0)
    accounts_are_straight(store, server)
    assert len(go(store, endpoint(server))) == N


def test_answers_that_are_refused_filtered_or_cut_are_statuses_as_ever(server, store):
    server.faults = (Fault("refusal", item="0"), Fault("content_filter", item="1"), Fault("length", item="2"))
    made = go(store, endpoint(server))
    assert [a.status for a in made[:4]] == ["refused", "filtered", "length", "ok"]
    assert server.batches.sizes == [12]


def test_usage_that_is_missing_counts_with_the_worst_case(server, store):
    server.faults = (Fault("no_usage", item="0"),)
    go(store, endpoint(server))
    assert outcomes(store) == {("ok", ""): N - 1, ("ok", "no usage"): 1}
    assert store.count(t.outcome, t.outcome.c.exact == 0) == 1
    accounts_are_straight(store, server)


# --- calls about batches that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [(path, kind) for path in ("upload", "retrieve", "content") for kind in ("status", "lost", "html")]
    + [("content", "cut"), ("create", "status")],
)
def test_a_call_about_a_batch_is_tried_again_as_configured_and_makes_no_second_batch(
    path, kind, server, store
):
    server.batches.faults = (BatchFault(kind, path),)
    assert len(go(store, endpoint(server))) == N
    assert server.batches.calls[path] >= 2
    assert server.batches.made == 1
    accounts_are_straight(store, server)


@pytest.mark.parametrize("path", ["upload", "create"])
def test_a_rate_limit_is_waited_for(path, server, store):
    server.batches.faults = (BatchFault("status", path, times=2, code=429, retry_after=0.01),)
    assert len(go(store, endpoint(server))) == N
    assert server.batches.calls[path] == 3


@pytest.mark.parametrize("path", ["upload", "create", "list", "retrieve", "content"])
def test_a_provider_that_stays_down_ends_the_run_and_the_next_one_goes_on(path, server, store):
    server.batches.faults = (
        BatchFault("status", path, times=100, code=503),
        *((BatchFault("lost", "create"),) if path == "list" else ()),
    )
    with pytest.raises(ModelError, match="server: scripted|server: The engine is") as caught:
        go(store, endpoint(server))
    assert "open batches are read, not sent again" in str(caught.value)
    assert server.batches.calls[path] == 1 + RETRIES.server
    server.batches.faults = ()
    assert len(go(store, endpoint(server))) == N
    assert server.batches.made == 1
    assert set(server.counts.values()) == {1}
    accounts_are_straight(store, server)


@pytest.mark.parametrize("path", ["upload", "create", "retrieve", "content"])
@pytest.mark.parametrize("code", [401, 402])
def test_a_refused_key_or_no_credit_ends_the_run_and_the_key_is_nowhere(
    path, code, server, store, tmp_path, capfd
):
    server.batches.faults = (BatchFault("status", path, code=code),)
    words = "the key in CANARY_KEY was rejected" if code == 401 else "no credit left"
    with pytest.raises(ModelError, match=words) as caught:
        go(store, endpoint(server))
    assert server.batches.calls[path] == 1
    shown = repr(caught.getrepr(style="long")) + str(caught.value)
    printed = capfd.readouterr()
    assert KEY not in shown + printed.out + printed.err
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
    server.batches.faults = ()
    assert len(go(store, endpoint(server))) == N
    assert server.batches.made == 1


@pytest.mark.parametrize("path", ["upload", "create", "retrieve", "content"])
def test_the_key_follows_no_redirect(path, server, store):
    with FakeLM(brain, identify=identify) as elsewhere:
        server.batches.faults = (BatchFault("redirect", path, to=elsewhere.base_url + "/batches"),)
        with pytest.raises(ModelError, match="redirects elsewhere; the key is not sent there"):
            go(store, endpoint(server))
        assert elsewhere.keys_seen.total() == 0


def test_what_the_environment_says_of_openai_goes_to_no_endpoint(server, store, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "canary-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Canary: canary-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    provider = batch_files.Provider(endpoint(server))
    sent = provider._client.default_headers
    assert "canary-environment" not in str(sent)
    assert str(provider._client.base_url).startswith(server.base_url)
    assert len(go(store, endpoint(server))) == N
    assert set(server.keys_seen) == {KEY}


# --- N21 and every other moment to crash --------------------------------------------------------------------


def test_an_answer_to_create_that_is_lost_is_looked_for_not_repeated(server, store):
    server.batches.fill(45)  # somebody else's: the list has pages
    server.batches.faults = (BatchFault("lost", "create"),)
    assert len(go(store, endpoint(server))) == N
    assert (server.batches.calls["create"], server.batches.made) == (1, 46)
    accounts_are_straight(store, server)


CRASH = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import test_batches as here
from llmal.lm import batches, batch_files
moment = sys.argv[3]
batches.FIRST_POLL_S = batches.LONGEST_POLL_S = 0.001

def die(*_, **__):
    os.kill(os.getpid(), 9)

async def die_later(*_, **__):
    die()

if moment == "planned":
    batch_files.Provider.upload = die_later
elif moment == "uploaded":
    batch_files.Provider.create = die_later
elif moment == "created":
    batches._Work._created = die_later
elif moment == "saved":
    batches._Work._watch = die_later
elif moment == "half read":
    batch_files.LINES = 4
    real, seen = batches._Work._answered, []
    async def answered(self, call, end):
        await real(self, call, end)
        seen.append(1)
        if len(seen) == 7:
            die()
    batches._Work._answered = answered
elif moment == "read":
    batches._Work.step = (lambda real: lambda self, batch, name, value:
        die() if name == "ended" else real(self, batch, name, value))(batches._Work.step)
store = here.open_store(Path(sys.argv[1]))
where = here.Endpoint(base_url=sys.argv[2], key=here.KEY, tolerate=1.0, retries=here.RETRIES)
here.go(store, where)
"""

MOMENTS = {"planned": 0, "uploaded": 0, "created": 1, "saved": 1, "half read": 1, "read": 1}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_between_create_and_saving_its_id_or_at_any_other_moment_no_second_batch(
    moment, server, tmp_path
):
    died = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path / "run"), server.base_url, moment, HERE],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert died.returncode == -9, died.stderr
    assert server.batches.made == MOMENTS[moment]
    store = open_store(tmp_path / "run")
    kept = store.count(t.response)
    assert unknown_fate(store) == []
    heard = Heard()
    made = go(store, endpoint(server), heard=heard)
    assert [(a.item, a.status) for a in made] == [(i, "ok") for i in range(N)]
    assert server.batches.made == 1
    assert set(server.counts.values()) == {1}
    assert kept == {"half read": 8, "read": N}.get(moment, 0)
    assert heard.has("found at the provider, not sent again") == (moment == "created")
    accounts_are_straight(store, server)
    assert bill(store).cost == server.bill
    go(store, endpoint(server))
    assert server.batches.made == 1
    store.close()


def test_without_looking_first_a_second_batch_would_be_paid_for(server, tmp_path, monkeypatch):
    """Power check: the count at the provider sees a run that does not re-attach."""
    subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path / "run"), server.base_url, "created", HERE],
        capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip

    async def blind(self, batch):
        return None

    monkeypatch.setattr(batches._Work, "_find", blind)
    store = open_store(tmp_path / "run")
    go(store, endpoint(server))
    assert server.batches.made == 2
    store.close()


def test_a_signal_ends_the_waiting_and_the_next_run_reads_what_was_made_meanwhile(server, store, monkeypatch):
    server.batches.looks = 10**6
    monkeypatch.setattr(batches, "LONGEST_POLL_S", 0.05)
    real, seen = batches._Work._watch, []

    async def watch(self):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), 15)
        return await real(self)

    monkeypatch.setattr(batches._Work, "_watch", watch)
    with pytest.raises(
        Interrupted, match="open batches go on at the provider. Run again to read them"
    ) as got:
        go(store, endpoint(server))
    assert got.value.exit_code == 143
    assert bill(store).unknown == 0
    assert bill(store).calls == N
    server.batches.looks = 1
    heard = Heard()
    assert len(go(store, endpoint(server), heard=heard)) == N
    assert heard.has("batch 1 is still open at the provider: waiting for it, nothing is sent again")
    assert server.batches.made == 1


def stopped(server: FakeLM, store: Store, monkeypatch: Any) -> None:
    """Leave a batch open at the provider."""
    with monkeypatch.context() as patch:
        patch.setattr(batches._Work, "_watch", None)
        with pytest.raises(TypeError):
            go(store, endpoint(server))
    assert len(open_batches(store)) == 1


def test_batches_switched_off_an_open_one_is_read_and_only_the_rest_is_asked_directly(
    server, store, monkeypatch
):
    stopped(server, store, monkeypatch)
    made = go(store, endpoint(server), requests(N + 3), direct=True)
    assert [a.item for a in made] == list(range(N + 3))
    assert (server.batches.made, server.n_requests) == (1, N + 3)
    assert set(server.counts.values()) == {1}


def test_at_another_address_the_questions_of_an_open_batch_are_not_asked_again(server, store, monkeypatch):
    stopped(server, store, monkeypatch)
    with FakeLM(brain, identify=identify) as elsewhere:
        for direct in (False, True):
            with pytest.raises(ModelError, match="a batch that is open at .* holds questions of this run"):
                go(store, endpoint(elsewhere), direct=direct)
        assert elsewhere.n_requests == elsewhere.batches.made == 0
        others = [request(i) for i in range(50, 55)]
        assert len(go(store, endpoint(elsewhere), others)) == 5
    assert len(go(store, endpoint(server))) == N


def test_other_questions_do_not_lose_what_an_open_batch_answered(server, store, monkeypatch):
    """A prompt that was changed meanwhile: the old batch is read and kept, the new questions are asked."""
    stopped(server, store, monkeypatch)
    assert len(go(store, endpoint(server), [request(i) for i in range(50, 55)])) == 5
    assert store.count(t.response) == N + 5
    assert len(go(store, endpoint(server))) == N
    assert server.batches.sizes == [12, 5]


def test_failures_of_an_open_batch_are_recorded_when_their_questions_come(server, store, monkeypatch):
    stopped(server, store, monkeypatch)
    server.batches.looks = 1
    server.batches.faults = (BatchFault("error", rows=(0,), code=400),)
    made = go(store, endpoint(server))
    assert Counter(a.status for a in made) == {"ok": N - 1, "failed": 1}
    assert server.batches.sizes == [12]


# --- money --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7, 1.0])
def test_a_cap_is_never_passed_and_what_a_batch_gives_back_is_used(share, server, store):
    whole = sum(worst(one) for one in requests(40))
    cap = int(share * whole)
    ends = pytest.raises(BudgetSpent, match="could cost") if share < 0.2 else nullcontext()
    with ends:
        go(store, endpoint(server), requests(40), caps=Caps(cost=cap))
    assert server.bill <= bill(store).cost <= cap
    asked = server.n_requests
    assert asked == store.count(t.annotation)
    assert (asked == 0) == (share == 0.0)
    if share == 1.0:
        assert (asked, server.batches.made) == (40, 1)
    if share == 0.05:
        assert server.batches.made > 1  # 2 fit at first, more as each batch costs less than it held
    accounts_are_straight(store, server)


def worst(one: Request) -> int:
    tokens = one.bytes_in() + door.TEMPLATE_TOKENS + door.TOKENS_A_MESSAGE * len(one.messages)
    return Price(*HALF).of(tokens, one.max_tokens())


def test_without_reservations_the_same_check_finds_overspending(server, store, monkeypatch):
    monkeypatch.setattr(Transport, "_worst", lambda *_: 0)
    go(store, endpoint(server), requests(40), caps=Caps(cost=1000))
    assert server.bill > 1000


def test_a_cap_on_calls_counts_rows(server, store):
    with pytest.raises(BudgetSpent, match="7 of 7 calls are made"):
        go(store, endpoint(server), caps=Caps(calls=7))
    assert (server.batches.sizes, server.n_requests) == ([7], 7)


def test_rows_without_an_answer_stay_spent_where_they_may_have_been_charged(server, store):
    server.batches.faults = (rows("missing"), BatchFault("missing", batch=2))
    go(store, endpoint(server))
    assert bill(store).unknown == 6
    assert bill(store).cost >= server.bill


def test_too_many_failures_stop_the_run_after_all_its_answers_are_kept(server, store):
    server.batches.faults = (BatchFault("error", rows=range(6), code=400),)
    with pytest.raises(ModelError, match="5 of 11 calls failed, more than annotate.tolerate = 0.02"):
        go(store, endpoint(server, tolerate=0.02))
    assert store.count(t.annotation) == N
    accounts_are_straight(store, server)


def test_a_reader_that_fails_loses_no_paid_answer(server, store):
    def broken(_request, end):
        assert isinstance(end, Reply)
        raise RuntimeError("parser bug")

    with pytest.raises(RuntimeError, match="parser bug"):
        go(store, endpoint(server), record=broken)
    assert store.count(t.response) == N
    assert len(go(store, endpoint(server))) == N
    assert (server.batches.made, server.n_requests) == (1, N)


# --- the option ---------------------------------------------------------------------------------------------


def test_the_option_chooses_batches_at_the_price_the_file_or_the_table_gives(server, store, monkeypatch):
    monkeypatch.setenv("CANARY_KEY", KEY)
    price = {"input": 0.15, "output": 0.6, "batch": 0.5}
    asker = Asker(
        model="fake-lm", base_url=server.base_url, api_key_env="CANARY_KEY", price=price, batch_api=True
    )
    ledger = Ledger(store, Caps())
    by_batch = asker.transport(ledger)
    assert isinstance(by_batch, BatchTransport)
    assert by_batch.batch_price == (75_000, 300_000, False)
    assert type(asker.model_copy(update={"batch_api": False}).transport(ledger)) is Transport
    known = {"model": "gpt-4o-mini", "batch_api": True}
    assert Asker(**known).transport(ledger).batch_price == (75_000, 300_000, False)
    other = Asker(**known, base_url="https://example.org/v1").transport(ledger)
    assert other.batch_price == other.price  # nobody says: the full price is the worst case
    ledger.close()
