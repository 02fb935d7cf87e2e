"""What a client gets and what is refused: one sentence of JSON, nothing of its text, and never a 500."""

import json
import re
import sys

import pytest

from llmal.errors import MissingExtra, UserError
from llmal.serve import server
from llmal.serve.options import MOST_BYTES, MOST_CHARS, MOST_TEXTS, Options
from llmal.testing.attacks import FAMILIES, attack
from llmal.testing.exported import WORDS, colours

from .conftest import PROMISE, SURE, UNSURE, ask, run, served, state

FOREIGN = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost:x", "", "[::2]",
           "0.0.0.0", "localhost@evil.example", "127.0.0.1:8000:1")  # fmt: skip
JSON = {"content-type": "application/json"}


def test_an_answer_says_who_gave_it_how_sure_why_and_what_is_promised(export):
    state(export, certificate=PROMISE, threshold=0.7)

    async def work():
        async with served(export) as (client, _):
            sure, unsure = await ask(client, SURE), await ask(client, UNSURE)
            both = (await client.post("/predict", json={"texts": [SURE, UNSURE]})).json()
        assert (sure["route"], sure["label"], sure["labels"], sure["promised"]) == (
            "student",
            "red",
            ["red"],
            True,
        )
        assert sure["confidence"] >= 0.7
        assert sure["reason"].startswith("student 0.")
        assert (unsure["route"], unsure["label"], unsure["promised"]) == ("person", None, False)
        assert unsure["guess"]
        assert len(unsure["queued"]) == 32
        model = both["model"]
        assert [{"model": model, **answer} for answer in both["answers"]] == [sure, unsure]

    run(work())


def test_several_labels_a_text(tmp_path):
    folder = colours(tmp_path / "model", kind="multi", threshold=0.5)

    async def work():
        async with served(folder) as (client, _):
            found = await ask(client, SURE)
        assert found["labels"] == ["red"]
        assert "label" not in found

    run(work())


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'"SECRET"', 422, "expected {"),
        (b"{}", 422, "expected"),
        (b'{"text": "a", "texts": ["SECRET"]}', 422, "expected"),
        (b'{"text": 5}', 422, "text: "),
        (b'{"text": null, "texts": null}', 422, "expected"),
        (b'{"texts": ["a", {"SECRET": 1}]}', 422, "texts.1: "),
        (b'{"texts": []}', 422, "texts: "),
        (b'{"texts": "SECRET"}', 422, "texts: "),
        (b'{"text": "a", "SECRET": 1}', 422, "not known"),
        (b'{"text": "  \\n"}', 422, "blank"),
        (json.dumps({"text": "SECRET " * MOST_CHARS}).encode(), 413, "characters"),
        (json.dumps({"texts": ["a"] * (MOST_TEXTS + 1)}).encode(), 413, "texts: "),
        (b" " * (MOST_BYTES + 1), 413, "bytes"),
    ],
)
def test_what_is_no_question_is_refused_in_one_sentence(export, body, status, words):
    async def work():
        async with served(export) as (client, _):
            reply = await client.post("/predict", content=body, headers=JSON)
        assert reply.status_code == status
        assert list(reply.json()) == ["error"]
        assert words in reply.json()["error"]
        assert "SECRET" not in reply.text

    run(work())


def test_a_page_elsewhere_cannot_ask_through_a_browser(export):
    """Without leave it sends no JSON, and as Host its own name, wherever that was pointed."""

    async def work():
        async with served(export) as (client, service):
            for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
                body = json.dumps({"text": UNSURE})
                reply = await client.post("/predict", content=body, headers={"content-type": kind})
                assert reply.status_code == 415
            for host in FOREIGN:
                for path in ("/", "/health", "/metrics", "/answer/" + "0" * 32):
                    assert (await client.get(path, headers={"host": host})).status_code == 400, (host, path)
            for host in ("localhost", "127.0.0.1:8000", "[::1]:65535", "LOCALHOST:1"):
                assert (await client.get("/health", headers={"host": host})).status_code == 200, host
            assert service.cascade.queue.waiting == 0

    run(work())


def test_a_token_stands_before_everything_but_health(export):
    token = "a-token-that-nobody-guesses"

    async def work():
        async with served(export, host="0.0.0.0", token=token) as (client, _):
            for path in ("/", "/metrics", "/answer/" + "0" * 32, "/predict", "/nothing"):
                for shown in ({}, {"authorization": "Bearer x"}, {"authorization": token}):
                    assert (await client.get(path, headers=shown)).status_code == 401, (path, shown)
            health = await client.get("/health", headers={"host": "anything.example"})
            assert health.status_code == 200
            right = {"authorization": f"Bearer {token}"}
            assert (await client.get("/", headers=right)).status_code == 200
            assert (await client.post("/predict", json={"text": SURE}, headers=right)).status_code == 200
            doubled = [("authorization", f"Bearer {token}"), ("authorization", "Bearer x")]
            assert (await client.get("/", headers=doubled)).status_code == 401

    run(work())


def test_no_page_loads_anything_from_elsewhere(export):
    async def work():
        async with served(export) as (client, _):
            for path in ("/docs", "/redoc", "/openapi.json", "/answer/..%2f..%2fstore.sqlite", "/answer/x"):
                reply = await client.get(path)
                assert reply.status_code == 404
                assert list(reply.json()) == ["error"]
            reply = await client.get("/predict")
            assert (reply.status_code, list(reply.json())) == (405, ["error"])
            for path in ("/", "/health", "/metrics"):
                headers = (await client.get(path)).headers
                assert headers["x-content-type-options"] == "nosniff"
                assert "default-src 'none'" in headers["content-security-policy"]
                assert headers["cache-control"] == "no-store"

    run(work())


def test_hostile_texts_get_an_answer_and_stand_in_no_log_reason_or_count(export, capsys):
    canary = "Xk7canaryQ"
    broken = [f"{canary}\ud800", f"{canary}\0", f"{canary}\u202e", f'{canary}"}}\n# HELP x', f"={canary}()"]
    posed = [attack(name, f"{canary} sea", label="blue", code="C", labels=list(WORDS)) for name in FAMILIES]
    texts = [*broken, *posed, canary * 1900]

    async def work():
        async with served(export) as (client, _):
            for text in texts:
                reply = await client.post("/predict", content=json.dumps({"text": text}), headers=JSON)
                assert reply.status_code == 200
                assert canary not in reply.text
            await client.get(f"/{canary}")
            counts = (await client.get("/metrics")).text
            assert canary not in counts
            assert sum(float(n) for n in re.findall(r"llmal_answers_total{.*} (.*)", counts)) == len(texts)

    run(work())
    said = capsys.readouterr()
    assert canary not in said.out + said.err


def test_a_student_that_fails_on_a_text_is_a_reason_to_ask_a_person(export, capsys):
    async def work():
        async with served(export) as (client, service):

            def broken(texts):
                raise RuntimeError(f"cannot read {texts}")

            service.cascade.tiers.student._model.predict_proba = broken
            found = await ask(client, "SECRET text")
            assert (found["route"], found["guess"], len(found["queued"])) == ("person", None, 32)
            assert "failed" in found["reason"]
            assert 'llmal_errors_total{what="student"} 1.0' in (await client.get("/metrics")).text

    run(work())
    assert "SECRET" not in capsys.readouterr().err


def test_a_bug_of_ours_is_a_500_that_repeats_no_text(export, capsys):
    async def work():
        async with served(export) as (client, service):

            async def broken(texts):
                raise RuntimeError(texts)

            service.cascade.answers = broken
            reply = await client.post("/predict", json={"text": "SECRET"})
            assert reply.status_code == 500
            assert "SECRET" not in reply.text

    run(work())
    assert "SECRET" not in capsys.readouterr().err


def test_a_full_disk_is_no_500_and_no_id(export):
    """An id is only given for what is on disk."""

    async def work():
        async with served(export) as (client, service):

            async def full(facts):
                raise OSError("no space left")

            service.cascade.queue.ledger.append = full
            found = await ask(client, UNSURE)
            assert (found["route"], found["queued"]) == ("person", None)
            assert "could not be written" in found["reason"]

    run(work())


def test_before_the_model_answered_nothing_is_ready(export):
    async def work():
        async with served(export) as (client, service):
            model, service.cascade.tiers.student._model = service.cascade.tiers.student._model, None
            health = await client.get("/health")
            assert (health.status_code, health.json()["ready"]) == (503, False)
            reply = await client.post("/predict", json={"text": SURE})
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
            service.cascade.tiers.student._model = model
            assert (await client.get("/health")).json()["ready"]

    run(work())


def test_others_can_reach_a_server_only_with_a_token_that_cannot_be_guessed():
    for options in (Options(host="0.0.0.0"), Options(host="::"), Options(host="example.org"),
                    Options(token="short"), Options(check_share=2), Options(alarm_rate=0.5),
                    Options(check_share=0.1, queue=False)):  # fmt: skip
        with pytest.raises(UserError):
            options.check()
    Options(host="0.0.0.0", token="x" * 32).check()
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        Options(host=host).check()


def test_without_the_extra_the_pip_line_is_told(export, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "fastapi" else found(name, *a)
    )
    with pytest.raises(MissingExtra, match=r"llmal\[serve\]"):
        server.serve(export, Options())
    assert not (export.parent / "model-serving").exists()


def test_what_is_no_export_is_refused(tmp_path):
    from llmal.serve.opening import find

    with pytest.raises(UserError, match="no exported classifier"):
        find(tmp_path, Options())


def test_the_state_lies_beside_an_export_because_the_next_export_replaces_the_folder(export):
    from llmal.serve.opening import find

    assert find(export, Options()).state == export.parent / "model-serving"


def test_importing_the_command_line_loads_no_server():
    import subprocess

    code = (
        "import llmal.cli, sys; print([m for m in ('fastapi', 'uvicorn', 'llmal.serve') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
