"""Only the review page itself gets or gives anything: what is forged reads and changes nothing."""

import itertools
import random
import re

import httpx
import pytest

from llmal.desk.app import FILES, HERE, POLICY, app_of
from llmal.desk.options import Options
from llmal.desk.queue import Desk
from llmal.errors import UserError
from llmal.testing.hostile import HOSTILE

from .conftest import HOME, TOKEN, desk_of, facts, new_id, page, run

HOSTS = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost:x", "", "[::2]",
         "localhost@evil.example", "127.0.0.1:8765:1", "0.0.0.0:8765", "LOCALHOST:8765 ")  # fmt: skip
ORIGINS = ("null", "", "https://evil.example", "http://localhost", "http://localhost:1", "http://evil.example:8765",
           "http://localhost:8765.evil.example", "http://localhost:8765/", "file://", "http://localhost:8765@x",
           "ftp://localhost:8765", "http://[", "http://localhost:8765 http://evil.example")  # fmt: skip
TOKENS = ("", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"bearer {TOKEN}", f"Bearer {TOKEN}x",
          f"Bearer {TOKEN[:-1]}", f"Bearer  {TOKEN}", "Bearer null", "Bearer undefined")  # fmt: skip
KINDS = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "",
    "text/json",
)


def deed(item=0, **more):
    return {"id": new_id(), "item": item, "what": "answer", "labels": ["bug"], **more}


def test_the_page_itself_reads_and_answers(store):
    async def work():
        async with page(desk_of(store)) as client:
            start = (await client.get("/start")).json()
            assert start["items"][0]["text"].startswith("text ")
            done = await client.post("/say", json=deed(start["items"][0]["item"]))
            assert (done.status_code, done.json()["done"]) == (200, 1)

    run(work())
    assert len(facts(store)[0]) == 1


def test_the_files_hold_nothing_of_the_run_and_every_answer_has_the_headers(store):
    async def work():
        async with page(desk_of(store)) as client:
            bare = {"authorization": "", "origin": HOME}
            for path, (name, kind) in FILES.items():
                got = await client.get(path, headers=bare)
                assert got.content == (HERE / name).read_bytes()
                assert got.headers["content-type"].startswith(kind)
            answers = [got, await client.get("/start", headers=bare)]
            answers += [await client.get(path) for path in ("/nowhere", "/start", "/say")]
            for got in answers:
                assert got.headers["content-security-policy"] == POLICY
                assert got.headers["x-content-type-options"] == "nosniff"
                assert got.headers["cache-control"] == "no-store"
                assert got.headers["x-frame-options"] == "DENY"

    run(work())


def forged(rng):
    """A request with one to three things wrong with it; sometimes by a method nobody offers."""
    headers = {"host": "localhost:8765", "origin": HOME, "authorization": f"Bearer {TOKEN}",
               "content-type": "application/json"}  # fmt: skip
    method, path = rng.choice((("POST", "/say"), ("GET", "/start")))
    wrong = rng.sample(("host", "origin", "token", "site", "method"), rng.randint(1, 3))
    if "host" in wrong:
        headers["host"] = rng.choice(HOSTS)
    if "origin" in wrong:
        headers["origin"] = rng.choice(ORIGINS)
    if "token" in wrong:
        headers["authorization"] = rng.choice(TOKENS)
    if "site" in wrong:
        headers["sec-fetch-site"] = rng.choice(("cross-site", "same-site", "none", ""))
    if "method" in wrong:
        method = rng.choice(
            ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "GET" if path == "/say" else "POST")
        )
    return method, path, headers


def test_forged_requests_change_nothing_and_read_nothing(store):
    rng = random.Random(7)

    async def work():
        app = app_of(desk_of(store), Options(people=("ada",), tokens=(TOKEN,)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=HOME) as client:
            for number in range(1_000):
                method, path, headers = forged(rng)
                headers = {k: v.encode() for k, v in headers.items()}
                got = await client.request(method, path, headers=headers, json=deed(number % 8))
                assert 400 <= got.status_code < 500, (method, path, headers)
                assert "text " not in got.text
                assert set(got.json()) == {"error"} if method != "HEAD" else True

    run(work())
    assert facts(store) == [[], []]


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_of_another_page_could_not_send_what_is_taken(store, kind):
    async def work():
        async with page(desk_of(store)) as client:
            got = await client.post("/say", headers={"content-type": kind}, json=deed())
            assert got.status_code == 415

    run(work())
    assert facts(store) == [[], []]


def test_a_post_without_origin_is_nobodys(store):
    async def work():
        app = app_of(desk_of(store), Options(people=("ada",), tokens=(TOKEN,)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=HOME) as client:
            got = await client.post("/say", headers={"authorization": f"Bearer {TOKEN}"}, json=deed())
            assert got.status_code == 403

    run(work())
    assert facts(store) == [[], []]


WRONG = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"id": "x"}']
BENT = [
    {"id": "x"}, {"id": "F" * 32}, {"item": -1}, {"item": "0"}, {"item": 1.5}, {"item": 2**70},
    {"what": "delete"}, {"labels": "bug"}, {"labels": [1]}, {"labels": ["nobody's"]}, {"seconds": -1},
    {"seconds": "1"}, {"more": 1}, {"note": 7}, {"note": "x" * 20_001}, {"of": "; DROP TABLE answer"},
    {"have": ["0"]}, {"item": 10**6},
]  # fmt: skip


def test_what_is_not_as_expected_is_told_in_one_sentence_without_its_text(store):
    async def work():
        async with page(desk_of(store)) as client:
            for body in WRONG:
                got = await client.post("/say", content=body, headers={"content-type": "application/json"})
                assert got.status_code in (400, 422), body
            for bent in BENT:
                got = await client.post("/say", json=deed() | bent)
                assert got.status_code in (409, 422), bent
                assert len(got.text) < 200
            got = await client.post(
                "/say", content=b'{"seconds": NaN}', headers={"content-type": "application/json"}
            )
            assert got.status_code == 422

    run(work())
    assert facts(store) == [[], []]


def test_a_full_disk_is_told_and_nothing_counts_as_kept(store, monkeypatch):
    from llmal.errors import StoreError

    def full(*_, **__):
        raise StoreError("the run's store failed: database or disk is full")

    desk = desk_of(store)
    monkeypatch.setattr(store, "add", full)

    async def work():
        async with page(desk) as client:
            got = await client.post("/say", json=deed())
            assert got.status_code == 503
            assert "full" in got.json()["error"]
            assert (await client.get("/start")).json()["left"] == 8

    run(work())


def test_the_script_puts_nothing_on_the_page_but_text():
    script = (HERE / "page.js").read_text(encoding="utf-8")
    banned = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\.(src|href)\s*="
    assert not re.search(banned, script)
    markup = (HERE / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\son\w+=|\sstyle=|https?://|<script(?! src=\"/page\.js\" defer>)", markup)
    assert "url(" not in (HERE / "page.css").read_text(encoding="utf-8")


def test_beyond_this_machine_there_is_a_warning_and_every_name_is_a_host(store):
    outside = Options(host="0.0.0.0", people=("ada",), tokens=(TOKEN,))
    assert "nothing on the way is encrypted" in outside.warning()
    assert Options().warning() == Options(host="::1").warning() == ""
    assert len({Options().tokens for _ in range(50)}) == 50
    assert (one := Options()).tokens[0] not in repr(one)

    async def work():
        async with page(desk_of(store), host="0.0.0.0") as client:
            named = {"host": "box.example", "origin": "https://box.example"}
            assert (await client.get("/start", headers=named)).status_code == 200
            assert (await client.get("/start", headers=named | {"authorization": ""})).status_code == 401

    run(work())


@pytest.mark.parametrize("name", ["", "  ", "x" * 201])
def test_a_person_has_a_name(name):
    with pytest.raises(UserError):
        Options(people=(name,)).check()


def test_hostile_data_leaves_as_json_that_no_browser_takes_for_a_page(tmp_path):
    from .conftest import filled

    store = filled(tmp_path, list(HOSTILE.values()), audit=0)

    async def work():
        async with page(desk_of(store)) as client:
            got = await client.get("/start")
            assert got.headers["content-type"] == "application/json"
            texts = {one["text"] for one in got.json()["items"]}
            assert texts <= set(HOSTILE.values())

    run(work())
    store.close()


def test_forgeries_would_succeed_without_the_guard(store):
    """The power of the tests above: the same requests at the bare application read and change."""
    from llmal.desk import app as module

    class Open(module.DeskGuard):
        def refusal(self, scope):
            scope["person"] = "ada"

    rng, done = random.Random(7), 0
    old, module.DeskGuard = module.DeskGuard, Open
    try:
        app = app_of(desk_of(store), Options(people=("ada",), tokens=(TOKEN,)))
    finally:
        module.DeskGuard = old

    async def work():
        nonlocal done
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=HOME) as client:
            for number in range(100):
                method, path, headers = forged(rng)
                headers = {k: v.encode() for k, v in headers.items()}
                got = await client.request(method, path, headers=headers, json=deed(number % 8))
                done += got.status_code == 200

    run(work())
    assert done > 20
    assert len(facts(store)[0]) > 0


def test_every_deed_goes_through_one_lock(store):
    assert isinstance(desk_of(store), Desk)
    both = [desk_of(store)] * 2
    ids = itertools.cycle(both)

    async def work():
        import asyncio

        async with page(next(ids)) as client:
            items = (await client.get("/start")).json()
            assert items["left"] == 8
            got = await asyncio.gather(
                *(client.post("/say", json=deed(i)) for i in range(8) for _ in range(3))
            )
            assert sorted(one.status_code for one in got) == [200] * 8 + [409] * 16

    run(work())
    assert len(facts(store)[0]) == 8
