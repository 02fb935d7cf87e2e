"""Who answers: the student where it may, else the model where its answer stands, else people; once each."""

import asyncio
import json
import time

import numpy as np
import pytest

from llmal import handover
from llmal.errors import StoreError, UserError
from llmal.serve.opening import find, opened
from llmal.serve.options import Options
from llmal.store import schema as t
from llmal.store.ledger import bill
from llmal.store.store import open_store
from llmal.testing.brains import classifier, identify, text_id
from llmal.testing.fakelm import FakeLM, Fault

from .conftest import PROMISE, SURE, UNSURE, ask, pipeline_file, run, served, state

HAZY = "sea zzz rose"


def brain(confidence=0.97, label="blue"):
    return classifier(lambda text: label, confidence=confidence)


@pytest.fixture
def model():
    with FakeLM(brain(), identify=identify, price=(150_000, 600_000)) as server:
        yield server


def llm(home, server, **annotate):
    """Options that ask the fake model, with a cap."""
    return {"llm": True, "calls": 50, "pipeline": pipeline_file(home, server.base_url, **annotate)}


def answers_in(folder, tmp_path, answer):
    """Hand out what waits, fill in one answer everywhere, take it back; the rows."""
    table = tmp_path / "todo.jsonl"
    handover.review(folder, out=table, into=None, person="Ann", spreadsheet=False)
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    table.write_text("".join(json.dumps({**row, "answer": answer}) + "\n" for row in rows), encoding="utf-8")
    handover.review(folder, out=None, into=table, person="Ann", spreadsheet=False)
    return rows


def test_what_the_student_may_not_answer_the_model_answers_once_for_ever(export, tmp_path, model):
    """Asked again, beside itself, after a restart and under another export: one call a text, and its cost."""
    options = llm(tmp_path, model)

    async def work():
        async with served(export, **options) as (client, service):
            first = await ask(client, HAZY)
            assert (first["route"], first["label"], first["promised"]) == ("llm", "blue", False)
            assert first["reason"].startswith("student 0.")
            assert await asyncio.gather(*(ask(client, HAZY) for _ in range(5))) == [first] * 5
            assert (await ask(client, SURE))["route"] == "student"
            assert model.n_requests == 2  # one to learn what it can do
            counts = (await client.get("/metrics")).text
            assert "llmal_llm_calls 2.0" in counts
            assert bill(service.cascade.queue.store).cost == model.bill
        async with served(export, **options) as (client, _):
            assert await ask(client, HAZY) == first
        state(export, threshold=0.69)
        async with served(export, **options) as (client, _):
            again = await ask(client, HAZY)
            assert (again["route"], again["label"]) == ("llm", "blue")
        assert model.n_requests == 2

    run(work())


@pytest.mark.parametrize(
    ("confidence", "faults", "more", "words"),
    [
        (0.6, (), {}, "confidence 0.600 < 0.8"),
        (None, (), {}, "no confidence was given"),
        (0.97, (Fault("insufficient_quota"),), {}, "cannot be asked"),
        (0.97, (Fault("html", item=text_id(HAZY)),), {}, "the call failed"),
        (0.97, (Fault("refusal", item=text_id(HAZY)),), {}, "the model refused"),
        (0.97, (Fault("off_list", item=text_id(HAZY)),), {}, "answer"),
        (0.97, (), {"calls": 1}, "budget for the language model is spent"),
        (0.97, (), {"usd": 0.000001, "calls": None}, "budget for the language model is spent"),
        (0.97, (), {"llm_timeout_s": 0.05}, "took too long"),
    ],
)
def test_where_the_model_cannot_answer_a_person_does_and_the_reason_is_said(
    export, tmp_path, confidence, faults, more, words
):
    slow = 1.0 if "llm_timeout_s" in more else 0.0
    with FakeLM(brain(confidence), identify=identify, faults=faults, latency_s=slow) as server:
        options = llm(tmp_path, server, retries={"malformed": 0}) | more

        async def work():
            async with served(export, **options) as (client, _):
                found = await ask(client, HAZY)
                assert (found["route"], found["label"], len(found["queued"])) == ("person", None, 32)
                assert words in found["reason"]
                assert found["guess"]
                assert await ask(client, HAZY) == found

        run(work())


def test_a_model_that_nobody_reaches_is_left_alone_for_a_while(export, tmp_path, capsys):
    """The first client waits for the refusal, the others do not; none gets an error."""
    with FakeLM(brain(), identify=identify) as server:
        options = llm(tmp_path, server, retries={"connect": 0})

    async def work():
        async with served(export, **options) as (client, _):
            found = [await ask(client, f"zzz {i}") for i in range(5)]
        assert {one["route"] for one in found} == {"person"}
        assert all("cannot be asked" in one["reason"] for one in found)

    run(work())
    assert capsys.readouterr().err.count("cannot be asked") == 1


def test_an_answer_that_came_too_late_is_paid_for_and_kept(export, tmp_path):
    with FakeLM(brain(), identify=identify, latency_s=0.4, price=(150_000, 600_000)) as server:
        options = llm(tmp_path, server) | {"llm_timeout_s": 0.05}

        async def work():
            async with served(export, **options) as (client, _):
                assert (await ask(client, HAZY))["route"] == "person"
            store = open_store(tmp_path / "model-serving", write=False)
            assert bill(store).cost == server.bill
            assert store.count(t.response) == 2
            store.close()

        run(work())


def test_a_model_without_a_cap_or_that_is_no_model_is_refused_before_anything_is_kept(
    export, tmp_path, model
):
    file = pipeline_file(tmp_path, model.base_url)
    with pytest.raises(UserError, match="--usd or --calls"):
        opened(find(export, Options(llm=True, pipeline=file)), Options(llm=True, pipeline=file))
    with pytest.raises(UserError, match="zero-shot"):
        opened(find(export, Options(llm=True)), Options(llm=True, calls=1))
    file = pipeline_file(tmp_path, model.base_url, demonstrations=3)
    with pytest.raises(UserError, match="demonstrations"):
        opened(find(export, Options(pipeline=file)), Options(llm=True, calls=1))
    assert not (tmp_path / "model-serving").exists()


def test_two_servers_never_share_a_ledger(export):
    async def work():
        async with served(export):
            with pytest.raises(StoreError, match="another server"):
                opened(find(export, Options()), Options())
        async with served(export):
            pass

    run(work())


def test_certified_thresholds_rule_and_the_model_has_one_of_its_own(export, tmp_path, model):
    bars = [{"tier": "student", "label": None, "threshold": None}, {"tier": "student", "label": "red",
            "threshold": 0.7}, {"tier": "llm", "label": None, "threshold": 0.98}]  # fmt: skip
    state(export, certificate={**PROMISE, "bars": bars}, threshold=None)

    async def work():
        async with served(export, **llm(tmp_path, model)) as (client, _):
            red, green = await ask(client, SURE), await ask(client, "grass leaf lime")
            assert (red["route"], red["promised"]) == ("student", True)
            assert (green["route"], green["guess"]) == ("person", ["green"])
            assert "0.9700 < 0.9800, as certified" in green["reason"]
        bars[2]["threshold"] = 0.9
        state(export, certificate={**PROMISE, "bars": bars})
        async with served(export, **llm(tmp_path, model)) as (client, _):
            again = await ask(client, "grass leaf lime")  # it waits for a person already
            assert again | {"model": ""} == green | {"model": ""}
            other = await ask(client, "grass leaf")
            assert (other["route"], other["label"], other["promised"]) == ("llm", "blue", True)

    run(work())


def test_a_promise_about_student_and_model_is_none_about_the_student_alone(export):
    bars = [*PROMISE["bars"], {"tier": "llm", "label": None, "threshold": 0.9}]
    state(export, certificate={**PROMISE, "bars": bars})

    async def work():
        async with served(export) as (client, _):
            found = await ask(client, SURE)
            assert (found["route"], found["promised"]) == ("student", False)
            assert (await client.get("/health")).json()["certificate"] == "does not cover this"
            assert "--llm" in (await client.get("/")).json()["promise"]

    run(work())


def test_a_confidence_at_the_threshold_is_enough_and_one_step_below_is_not(export):
    async def work():
        async with served(export) as (client, _):
            sure = (await ask(client, SURE))["confidence"]
        for threshold, route in ((sure, "student"), (float(np.nextafter(sure, 2)), "person")):
            state(export, threshold=threshold)
            async with served(export) as (client, _):
                assert (await ask(client, SURE))["route"] == route

    run(work())


def test_a_certificate_that_certifies_nothing_leaves_every_text_to_people(export):
    state(export, certificate={**PROMISE, "bars": [], "words": "Cannot certify."}, threshold=None)

    async def work():
        async with served(export) as (client, _):
            assert (await ask(client, SURE))["route"] == "person"
            assert (await client.get("/")).json()["promise"] == "Cannot certify."
            assert (await client.get("/health")).json()["certificate"] == "none"

    run(work())


def test_people_answer_in_a_table_while_the_server_goes_on(export, tmp_path):
    async def work():
        async with served(export) as (client, service):
            waits = await ask(client, UNSURE)
            place = f"/answer/{waits['queued']}"
            assert (await client.get(place)).json()["answered"] is False
            rows = answers_in(tmp_path / "model-serving", tmp_path, "green")
            assert [(row["item"], row["text"], row["guess"]) for row in rows] == [
                (waits["queued"], UNSURE, waits["guess"])
            ]
            assert (await client.get(place)).json()["labels"] == ["green"]
            await service.cascade.look()
            found = await ask(client, UNSURE.upper())
            assert (found["route"], found["label"]) == ("person", "green")
            assert service.cascade.queue.waiting == 0
        async with served(export) as (client, _):
            assert (await ask(client, UNSURE))["label"] == "green"

    run(work())


def test_what_waits_goes_on_waiting_under_a_new_export(export, tmp_path):
    async def work():
        async with served(export) as (client, _):
            await ask(client, UNSURE)
        state(export, threshold=0.75)
        async with served(export) as (client, service):
            await ask(client, "zzz another")
            assert service.cascade.queue.waiting == 2
        rows = answers_in(tmp_path / "model-serving", tmp_path, "red")
        assert {row["text"] for row in rows} == {UNSURE, "zzz another"}

    run(work())


def test_without_a_queue_nothing_of_a_text_is_kept(export, tmp_path):
    async def work():
        async with served(export, queue=False) as (client, _):
            found = await ask(client, UNSURE)
        assert (found["route"], found["queued"]) == ("person", None)

    run(work())
    store = open_store(tmp_path / "model-serving", write=False)
    assert store.n_items() == 0
    store.close()


def test_a_full_queue_is_said_and_takes_no_more(export, monkeypatch):
    monkeypatch.setattr("llmal.serve.queue.MOST_QUEUED", 2)

    async def work():
        async with served(export) as (client, _):
            found = [await ask(client, f"zzz {i}") for i in range(3)]
        assert [one["queued"] is not None for one in found] == [True, True, False]
        assert "full" in found[2]["reason"]

    run(work())


def test_two_hundred_requests_at_once_get_the_answers_they_get_alone(export, tmp_path, model):
    """Many about the same texts: every text is one call and one entry, whoever asks first."""
    texts = [f"{('rose', 'zzz', 'sea rose')[i % 3]} {i % 40}" for i in range(200)]

    async def work():
        async with served(export, **llm(tmp_path, model) | {"calls": 500}) as (client, service):
            found = await asyncio.gather(*(ask(client, text) for text in texts))
            asked = model.n_requests
            alone = [await ask(client, text) for text in texts]
            assert model.n_requests == asked
            assert {one["route"] for one in found} == {"student", "llm"}
            assert found == alone
            kept = service.cascade.queue.store.n_items()
        assert max(model.answered.values()) == 1
        assert kept == len({text for text, one in zip(texts, found, strict=True) if one["route"] == "llm"})

    run(work())


def test_too_many_texts_at_once_are_told_to_come_back(export, monkeypatch):
    monkeypatch.setattr("llmal.serve.app.MOST_WAITING", 3)

    async def work():
        async with served(export) as (client, _):
            reply = await client.post("/predict", json={"texts": [SURE] * 4})
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
            assert (await client.post("/predict", json={"texts": [SURE] * 3})).status_code == 200

    run(work())


def test_a_text_that_waited_too_long_is_not_answered_for_nobody(export, monkeypatch):
    """Under more load than it can bear a server still answers those who came lately."""

    async def work():
        async with served(export) as (client, service):
            lane = service.cascade.tiers.student._lane
            monkeypatch.setattr("llmal.serve.student.PATIENCE_S", 0.05)
            lane.submit(time.sleep, 0.3)
            reply = await client.post("/predict", json={"text": SURE})
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
            monkeypatch.setattr("llmal.serve.student.PATIENCE_S", 30)
            assert (await ask(client, SURE))["route"] == "student"
            assert service._waiting == 0

    run(work())


def test_long_requests_and_short_ones_take_turns(export):
    """One text does not wait for all 100 of a request that came before it."""

    async def work():
        async with served(export) as (client, _):
            long = asyncio.create_task(
                client.post("/predict", json={"texts": [f"rose {i}" for i in range(100)]})
            )
            await asyncio.sleep(0)
            await ask(client, SURE)
            assert not long.done()
            await long

    run(work())
