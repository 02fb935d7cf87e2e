"""A run in which eight texts wait for people, and its review page inside the test's own process."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from llmal.corpus import CorpusSpec, read, text_key
from llmal.desk.app import app_of, version
from llmal.desk.options import Options
from llmal.desk.queue import Desk
from llmal.desk.source import Source
from llmal.records import Label, LabelSchema
from llmal.review.options import ReviewSpec
from llmal.review.stage import waiting
from llmal.store import schema as t
from llmal.store.store import open_store

NAMES = ("bug", "billing", "praise", "other")
SCHEMA = LabelSchema("single", tuple(Label(name=name) for name in NAMES), True)
TOKEN = "a-token-for-tests-only"
HOME = "http://localhost:8765"
_ids = itertools.count(1)


def new_id():
    return f"{next(_ids):032x}"


def filled(folder, texts, schema=SCHEMA, audit=2, short=()):
    """A store whose texts all wait: the first `audit` measure, the others are routed to people."""
    store = open_store(folder / "run")
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"text": x}) + "\n" for x in texts), encoding="utf-8")
    store.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, schema), text_key)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in range(audit)])
    base = {"recipe": "r", "who": "person", "labels": json.dumps([schema.names[0]]), "reason": "unsure"}
    rest = range(audit, store.n_items())
    store.add(t.route, [{**base, "item": i, "confidence": 0.5 + i / 1000} for i in rest])
    if short:
        made = {
            "recipe": "s",
            "route": "r",
            "asked": ReviewSpec().recipe(),
            "used": 1,
            "words": "",
            "at": 0.0,
        }
        store.add(t.shortlist, [made])
        store.add(t.candidates, [{"item": i, "recipe": "s", "labels": json.dumps(list(short))} for i in rest])
    return store


def desk_of(store, schema=SCHEMA, *people, budget=None, review=None, **more):
    """A desk for these people, Ada alone where none is named; Ada settles disputes."""
    review = review or ReviewSpec(order="doubt")

    def refill():
        return waiting(store, names=schema.names, route="r", people=None, options=review)

    source = Source(store, schema.names, refill, budget)
    return Desk(source, schema, people or ("ada",), version(), review=review, adjudicators=("ada",), **more)


@pytest.fixture
def store(tmp_path):
    opened = filled(tmp_path, [f"text {i}" for i in range(8)])
    yield opened
    opened.close()


@asynccontextmanager
async def page(desk, person="ada", **more):
    """The page of one of the people; the tokens of the others are made of their names."""
    tokens = tuple(token_of(name) for name in desk.people)
    app = app_of(desk, Options(people=desk.people, tokens=tokens, **more))
    headers = {"authorization": f"Bearer {token_of(person)}", "origin": HOME}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url=HOME, headers=headers
    ) as client:
        yield client


def token_of(person):
    return TOKEN if person == "ada" else f"{TOKEN}-of-{person}"


def run(work):
    return asyncio.run(work)


def facts(store):
    """Everything people have said so far."""
    return [[tuple(row) for row in store.read(table.select())] for table in (t.answer, t.remark)]
