"""What an endpoint can do is asked once, narrowed by its refusals, and kept."""

from __future__ import annotations

import asyncio

import pytest

from llmal.errors import BudgetSpent, ModelError
from llmal.lm.endpoint import Endpoint, Retries
from llmal.lm.prices import Price
from llmal.lm.probe import Abilities, abilities
from llmal.lm.transport import Transport
from llmal.store import schema as t
from llmal.store.ledger import Caps, Ledger, bill
from llmal.store.store import open_store
from llmal.testing.fakelm import Answer, FakeLM, Fault, Rejection

NO_CAPS = Caps()
SAID = Answer("A", [("A", {"A": -0.1, "B": -2.4})])
NO_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is."
)
OTHER_LIMIT = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def probe(server, store, *, caps=NO_CAPS, model="fake-lm", **more):
    async def main():
        ledger = Ledger(store, caps)
        where = Endpoint(base_url=server.base_url, retries=Retries(connect=0, server=0, timeout=0), **more)
        try:
            async with Transport(where, ledger, Price(1, 1)) as transport:
                return await abilities(transport, store, model)
        finally:
            ledger.close()

    return asyncio.run(main())


def picky(*, no=(), temperature=True, limit_name="max_tokens", logprobs=SAID):
    """A brain that refuses fields in the words of real servers."""

    def brain(ask):
        if limit_name not in ask.body:
            raise Rejection(400, OTHER_LIMIT, code="unsupported_parameter")
        if not temperature and "temperature" in ask.body:
            raise Rejection(400, NO_TEMPERATURE, code="unsupported_value")
        return logprobs

    return brain


def test_one_short_question_tells_everything(store):
    with FakeLM(lambda _: SAID, max_model_len=4096) as server:
        assert probe(server, store) == Abilities(20, "max_tokens", True, 4096, "fake-lm")
        assert server.n_requests == bill(store).calls == 1
        assert server.requests[0].body["max_tokens"] == 16


def test_abilities_are_kept_so_that_a_second_run_asks_nothing(store):
    with FakeLM(lambda _: SAID) as server:
        first = probe(server, store)
        assert probe(server, store) == first
        assert server.n_requests == 1
        assert server.keys_seen.total() == 2  # the question, and the free look at /models


def test_another_model_is_another_question(store):
    with FakeLM(lambda _: SAID) as server:
        probe(server, store)
        with pytest.raises(ModelError, match="does not know this model"):
            probe(server, store, model="other")


@pytest.mark.parametrize(("most", "asked", "found"), [(20, [20], 20), (5, [20, 5], 5), (3, [20, 5, None], 0)])
def test_log_probabilities_are_narrowed_to_what_is_allowed(most, asked, found, store):
    with FakeLM(lambda _: SAID, max_top_logprobs=most) as server:
        assert probe(server, store).top_logprobs == found
        assert [r.body.get("top_logprobs") for r in server.requests] == asked


def test_an_endpoint_without_log_probabilities_is_asked_without(store):
    with FakeLM(lambda _: SAID, supports_logprobs=False) as server:
        able = probe(server, store)
    assert able.top_logprobs == 0
    assert "logprobs" not in able.options(64, logprobs=True)


def test_an_endpoint_that_takes_the_field_and_gives_nothing_has_none(store):
    with FakeLM(lambda _: "A") as server:
        assert probe(server, store).top_logprobs == 0


def test_few_candidates_in_the_probes_answer_do_not_narrow_later_questions(store):
    with FakeLM(lambda _: Answer("A", [("A", {"A": 0.0})])) as server:
        assert probe(server, store).top_logprobs == 20


def test_everything_at_once_is_narrowed_and_refusals_cost_nothing(store):
    brain = picky(temperature=False, limit_name="max_completion_tokens")
    with FakeLM(brain, supports_logprobs=False, price=(1, 1)) as server:
        able = probe(server, store)
        assert server.n_requests == 5
        assert server.bill == bill(store).cost
    assert able == Abilities(0, "max_completion_tokens", False, 8192, "fake-lm")
    assert able.options(64, logprobs=True) == {"max_completion_tokens": 64}


def test_narrowing_does_not_count_as_failing(store):
    async def main(server):
        ledger = Ledger(store, Caps())
        async with Transport(Endpoint(base_url=server.base_url), ledger, Price(1, 1)) as transport:
            await abilities(transport, store, "fake-lm")
            assert (transport.failed, transport.ended) == (0, 0)
        ledger.close()

    with FakeLM(
        picky(temperature=False, limit_name="max_completion_tokens"), supports_logprobs=False
    ) as server:
        asyncio.run(main(server))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("status", status=500), "had an error"),
        (Fault("status", status=400, message="no such thing"), "no such thing"),
        (Fault("status", status=401), "was rejected"),
        (Fault("html"), "doctype"),
    ],
)
def test_an_endpoint_that_cannot_answer_is_told_before_any_work(fault, words, store):
    with FakeLM(lambda _: SAID) as server:
        server.faults = (fault,)
        with pytest.raises(ModelError, match=words):
            probe(server, store, key="sk-0123456789", key_name="K")
    assert store.count(t.endpoint) == 0


def test_nobody_there_is_told_with_a_question(store):
    server = FakeLM(lambda _: SAID).start()
    server.stop()
    with pytest.raises(ModelError, match=r"cannot connect.*is the server running\?"):
        probe(server, store)


def test_the_question_is_within_the_budget(store):
    with FakeLM(lambda _: SAID) as server:
        with pytest.raises(BudgetSpent):
            probe(server, store, caps=Caps(calls=0))
        assert server.n_requests == 0
