"""A promise ends when texts drift or people find answers wrong: for every later answer, over restarts."""

import numpy as np
import pytest

from llmal.serve.drift import Drift
from llmal.serve.promise import Reference
from llmal.serve.student import Reading
from llmal.testing.exported import WORDS

from .conftest import PROMISE, SURE, ask, run, served, state
from .test_cascade import answers_in


def population(seed, n=120):
    """Texts drawn from one and the same kind."""
    rng = np.random.default_rng(seed)
    words = [word for some in WORDS.values() for word in some]
    return [f"{' '.join(rng.choice(words, 3))} {seed} {i}" for i in range(n)]


OLD = population(0)
"""What the calibration sample is made of."""

NEW = [f"ink ink ink {i}" for i in range(120)]


async def certified(export, **more):
    """Give the export a promise, and the student's own words on `OLD` as its calibration sample."""
    async with served(export, state=export.parent / "first") as (client, _):
        told = (await client.post("/predict", json={"texts": OLD})).json()["answers"]
    columns = {"red": 0, "green": 1, "blue": 2}
    labels = [[columns[(one["labels"] or one["guess"])[0]]] for one in told]
    reference = {
        "of": "audit",
        "n": len(OLD),
        "confidence": [one["confidence"] for one in told],
        "labels": labels,
    }
    state(export, certificate={**PROMISE, **more}, reference=reference)


@pytest.mark.parametrize("on_drift", ["defer", "warn"])
def test_on_drift_the_promise_ends_for_good(export, on_drift, capsys):
    async def work():
        await certified(export)
        async with served(export, on_drift=on_drift) as (client, _):
            first = await ask(client, SURE)
            assert (first["route"], first["promised"]) == ("student", True)
            for text in NEW:
                last = await ask(client, text)
            assert last["promised"] is False
            health = (await client.get("/health")).json()
            assert (health["certificate"], health["drift"], health["ready"]) == ("withdrawn", "alarm", True)
            counts = (await client.get("/metrics")).text
            assert "llmal_certificate_valid 0.0" in counts
            assert "llmal_drift_alarm 1.0" in counts
        async with served(export, on_drift=on_drift) as (client, _):
            again = await ask(client, SURE)
            assert (again["route"], again["promised"]) == (
                "person" if on_drift == "defer" else "student",
                False,
            )
            assert "the promise is withdrawn: the texts served no longer look like" in again["reason"]
        state(export, certificate={**PROMISE, "issue": 2})  # a new certificate begins anew
        async with served(export, on_drift=on_drift) as (client, _):
            assert (await ask(client, SURE))["promised"] is True

    run(work())
    assert "withdrawn" in capsys.readouterr().err


def test_texts_like_those_of_the_calibration_sample_raise_no_alarm(export):
    async def work():
        await certified(export)
        async with served(export) as (client, service):
            for text in population(1):
                await ask(client, text)
            assert service.cascade.drift.seen == len(OLD)
            assert (await client.get("/health")).json()["drift"] == "none seen"

    run(work())


def test_one_text_sent_again_and_again_counts_once(export):
    """A monitor that asks the same every second is no drift."""

    async def work():
        await certified(export)
        async with served(export) as (client, service):
            for _ in range(150):
                await ask(client, SURE)
            assert service.cascade.drift.seen == 1

    run(work())


def test_the_watch_goes_on_where_a_stop_left_it(tmp_path):
    rng = np.random.default_rng(0)
    reference = Reference(rng.random(50), np.eye(3, dtype=bool)[rng.integers(0, 3, 50)])
    given = {"alpha": 0.05, "seed": 1, "file": tmp_path / "drift.npz"}
    first = Drift(reference, ["a", "b", "c"], certificate="one", **given)
    for i in range(20):
        first.add(f"text {i}", Reading(("a",), 0.9, np.array([True, False, False])))
    first.keep(first.state())
    assert first.state() is None
    evidence = first.evidence
    again = Drift(reference, ["a", "b", "c"], certificate="one", **given)
    assert (again.seen, again.evidence) == (20, evidence)
    assert Drift(reference, ["a", "b", "c"], certificate="two", **given).seen == 0
    (tmp_path / "drift.npz").write_bytes(b"PK\x03\x04 torn")
    assert Drift(reference, ["a", "b", "c"], certificate="one", **given).seen == 0


def test_people_see_checked_answers_blind_and_their_word_ends_a_promise_that_is_not_kept(export, tmp_path):
    """Red texts that people call blue: wrong answers of a random share, so the alarm is a sound one."""
    texts = [f"rose ruby rust {i}" for i in range(60)]

    async def work():
        state(export, certificate=PROMISE)
        async with served(export, check_share=1.0) as (client, service):
            for text in texts:
                assert (await ask(client, text))["promised"] is True
        rows = answers_in(tmp_path / "model-serving", tmp_path, "blue")
        assert {row["text"] for row in rows} == set(texts)
        assert {(row["why"], row["guess"], row["confidence"]) for row in rows} == {("audit", None, None)}
        async with served(export, check_share=1.0) as (client, service):
            await service.cascade.look()
            assert service.cascade.queue.withdrawn().startswith("people found ")
            assert (await ask(client, SURE))["route"] == "person"
            assert "llmal_checked 60.0" in (await client.get("/metrics")).text

    run(work())


def test_right_answers_leave_the_promise_alone_and_so_does_a_promise_about_everything(export, tmp_path):
    texts = [f"rose ruby rust {i}" for i in range(60)]

    async def work():
        for on, answer in (("accepted", "red"), ("everything", "blue")):
            state(export, certificate={**PROMISE, "on": on})
            place = tmp_path / on
            async with served(export, check_share=1.0, state=place) as (client, service):
                for text in texts:
                    await ask(client, text)
                await service.cascade.answers([SURE])
            answers_in(place, tmp_path, answer)
            async with served(export, check_share=1.0, state=place) as (_, service):
                await service.cascade.look()
                assert service.cascade.withdrawn is None

    run(work())


def test_the_share_that_people_check_is_a_share_of_texts_and_the_same_after_a_restart(export):
    async def work():
        drawn = []
        for _ in range(2):
            async with served(export) as (_, service):
                drawn.append([service.cascade.queue.drawn(f"text {i}", 0.2) for i in range(2000)])
        assert drawn[0] == drawn[1]
        assert 320 < sum(drawn[0]) < 480  # 400 are expected, with a standard deviation of 18

    run(work())


def test_a_certificate_that_was_withdrawn_before_the_export_promises_nothing(export):
    state(export, certificate={**PROMISE, "withdrawn": "its texts drifted"})

    async def work():
        async with served(export) as (client, _):
            found = await ask(client, SURE)
            assert (found["route"], found["promised"]) == ("person", False)
            assert "its texts drifted" in found["reason"]

    run(work())
