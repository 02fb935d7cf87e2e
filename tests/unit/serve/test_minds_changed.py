"""A server that goes on serves what people hold now, and not what somebody took back."""

import asyncio

import pytest

from llmal.corpus import text_key
from llmal.errors import StoreError
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer, remark

from .conftest import PROMISE, SURE, UNSURE, ask, run, served, state


class People:
    """Who answers the texts of a server, from another process."""

    def __init__(self, folder):
        self.store = open_store(folder)
        self.store.share()

    def item(self, text):
        """The number of a text."""
        key = t.item.c.key == text_key(text)
        return self.store.read(t.item.select().with_only_columns(t.item.c.seq).where(key))[0][0]

    def say(self, text, *labels, **more):
        """One answer."""
        return answer(self.store, self.item(text), *labels, **more)

    def undo(self, text, number):
        """Take it back."""
        remark(self.store, self.item(text), "undo", of=number)


async def kept(service):
    """Wait until what goes on beside the answers is on disk: texts to be checked are kept there."""
    while service.cascade._beside:
        await asyncio.sleep(0.01)


def told(export, tmp_path, work, **options):
    """Run `work(client, service, people)` beside a server that has one text waiting."""

    async def all_of_it():
        async with served(export, state=tmp_path / "served", **options) as (client, service):
            assert (await ask(client, UNSURE))["route"] == "person"
            people = People(tmp_path / "served")
            try:
                await work(client, service, people)
            finally:
                people.store.close()

    run(all_of_it())


def test_an_answer_that_was_taken_back_is_served_no_more_and_its_text_waits_again(export, tmp_path):
    async def work(client, service, people):
        cascade = service.cascade
        given = people.say(UNSURE, "green")
        await cascade.look()
        assert (await ask(client, UNSURE))["labels"] == ["green"]
        assert cascade.queue.waiting == 0
        people.undo(UNSURE, given)
        await cascade.look()
        found = await ask(client, UNSURE)
        assert found["labels"] is None, "what nobody says any more is nobody's answer"
        assert cascade.queue.waiting == 1
        polled = (await client.get(f"/answer/{text_key(UNSURE)}")).json()
        assert polled["labels"] is None
        people.say(UNSURE, "blue")
        await cascade.look()
        assert (await ask(client, UNSURE))["labels"] == ["blue"]

    told(export, tmp_path, work)


@pytest.mark.parametrize("role", ["label", "adjudicate"])
def test_a_newer_answer_and_the_end_of_a_dispute_are_served_at_once(export, tmp_path, role):
    async def work(client, service, people):
        people.say(UNSURE, "green", person="Ann")
        await service.cascade.look()
        people.say(UNSURE, "red", person="Ann" if role == "label" else "Eve", role=role)
        people.say(UNSURE, "green", person="Bob") if role == "adjudicate" else None
        await service.cascade.look()
        assert (await ask(client, UNSURE))["labels"] == ["red"]

    told(export, tmp_path, work)


def test_where_people_differ_what_they_hold_together_is_served(export, tmp_path):
    async def work(client, service, people):
        for person, label in (("Ann", "green"), ("Bob", "green"), ("Cem", "red")):
            people.say(UNSURE, label, person=person)
        await service.cascade.look()
        assert (await ask(client, UNSURE))["labels"] == ["green"]

    told(export, tmp_path, work)


def test_after_a_restart_only_what_stands_is_known_and_what_was_taken_back_still_waits(export, tmp_path):
    async def work(client, service, people):
        people.undo(UNSURE, people.say(UNSURE, "green"))

    told(export, tmp_path, work)

    async def again():
        async with served(export, state=tmp_path / "served") as (client, service):
            assert service.cascade.queue.answered == {}
            assert service.cascade.queue.waiting == 1
            assert (await ask(client, UNSURE))["labels"] is None

    run(again())


def test_a_text_whose_answer_was_taken_back_waits_under_the_next_export_too(export, tmp_path):
    async def work(client, service, people):
        people.undo(UNSURE, people.say(UNSURE, "green"))

    told(export, tmp_path, work)
    state(export, certificate=PROMISE)

    async def again():
        async with served(export, state=tmp_path / "served") as (_, service):
            assert service.cascade.queue.waiting == 1

    run(again())


def test_words_on_other_texts_that_show_whom_to_believe_change_what_is_served(export, tmp_path):
    others = [f"{UNSURE} {i}" for i in range(12)]

    async def work(client, service, people):
        people.say(UNSURE, "green", person="Ann")
        people.say(UNSURE, "red", person="Bob")
        await service.cascade.look()
        assert (await ask(client, UNSURE))["labels"] == ["red"], "the newest of two"
        for i, text in enumerate(others):
            assert (await ask(client, text))["route"] == "person"
            true, wrong = ("green", "red") if i % 2 else ("red", "green")
            for person, label in (("Ann", true), ("Cem", true), ("Bob", wrong)):
                people.say(text, label, person=person)
        await service.cascade.look()
        assert (await ask(client, UNSURE))["labels"] == ["green"], "Bob is mostly wrong"

    told(export, tmp_path, work)


def test_a_checked_answer_that_was_taken_back_counts_neither_for_nor_against_the_promise(export, tmp_path):
    state(export, certificate=PROMISE)
    texts = [f"rose ruby rust {i}" for i in range(3)]

    async def work(client, service, people):
        for text in (*texts, SURE):
            await ask(client, text)
        await kept(service)
        given = {text: people.say(text, "blue" if text == texts[0] else "red") for text in texts}
        queue = service.cascade.queue
        assert queue.checked() == [False, True, True]
        people.undo(texts[0], given[texts[0]])
        assert queue.checked() == [True, True]
        people.say(texts[0], "red")
        assert queue.checked() == [True, True, True], "the slip was corrected"

    told(export, tmp_path, work, check_share=1.0)


def test_answers_that_came_while_no_server_ran_are_held_against_the_promise_at_the_first_look(
    export, tmp_path
):
    state(export, certificate=PROMISE)
    texts = [f"rose ruby rust {i}" for i in range(60)]

    async def ask_all(client, service, people):
        for text in texts:
            await ask(client, text)
        await kept(service)

    told(export, tmp_path, ask_all, check_share=1.0)
    people = People(tmp_path / "served")
    for text in texts:
        people.say(text, "blue")
    people.store.close()

    async def again():
        async with served(export, state=tmp_path / "served", check_share=1.0) as (_, service):
            await service.cascade.look()
            assert service.cascade.withdrawn.startswith("people found ")

    run(again())


def test_words_that_could_not_be_read_at_one_look_are_read_at_the_next(export, tmp_path, monkeypatch):
    async def work(client, service, people):
        queue = service.cascade.queue
        people.say(UNSURE, "green")
        with monkeypatch.context() as broken:
            broken.setattr(queue, "_take_note", lambda items: (_ for _ in ()).throw(StoreError("full")))
            with pytest.raises(StoreError):
                queue.look()
        assert queue.look()
        assert list(queue.answered.values()) == [("green",)]

    told(export, tmp_path, work)
