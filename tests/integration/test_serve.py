"""`llmal serve` as a process of its own, over a real socket: killed, stopped and started again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from llmal.store.ledger import bill
from llmal.store.store import open_store
from llmal.testing.brains import classifier, identify
from llmal.testing.exported import WORDS, colours
from llmal.testing.fakelm import FakeLM

TOKEN = "a-token-that-nobody-guesses"
CANARY = "Xk7canaryQ"


@pytest.fixture
def export(tmp_path):
    return colours(tmp_path / "model")


def pipeline_file(home, server):
    llm = {
        "use": "llm",
        "model": "fake-lm",
        "base_url": server.base_url,
        "price": {"input": 0.15, "output": 0.6},
    }
    given = {"corpus": {"path": "served.jsonl"}, "labels": {"names": list(WORDS), "abstain": False},
             "annotate": llm, "filter": {"use": "confidence"}}  # fmt: skip
    (home / "pipeline.yaml").write_text(json.dumps(given), encoding="utf-8")
    return str(home / "pipeline.yaml")


@contextmanager
def serving(folder, *more):
    """A server's process and its address, once it is ready; killed at the end if it still runs."""
    command = [sys.executable, "-m", "llmal.cli", "serve", str(folder), "--port", "0", *more]
    env = os.environ | {"LLMAL_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    try:
        line = process.stderr.readline()
        assert " at http://" in line, line + process.stderr.read()
        url = line.split()[-1]
        until = time.monotonic() + 60
        while time.monotonic() < until and sent(url, "/health")[0] != 200:
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def sent(url, path, body=None):
    """Status and JSON of one request; (0, None) where nobody answered."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=30) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
    except (OSError, ValueError, http.client.HTTPException):
        return 0, None


def ask(url, text):
    return sent(url, "/predict", {"text": text})[1]


@pytest.mark.slow
def test_what_was_acknowledged_or_paid_for_outlives_kill_9(export, tmp_path):
    """Every id that a client got waits for people, and the next server pays for no text again."""

    def label_of(text):
        return "blue" if "sea" in text else "red"

    texts = [f"{CANARY} {'sea zzz' if i % 2 else 'zzz'} {i}" for i in range(60)]
    with FakeLM(classifier(label_of, confidence=0.99), identify=identify, latency_s=0.02) as server:
        options = ("--llm", "--calls", "500", "--pipeline", pipeline_file(tmp_path, server))
        acknowledged = {}
        with serving(export, *options) as (process, url), ThreadPoolExecutor(8) as clients:

            def client(text):
                found = ask(url, text)
                if found is not None:
                    acknowledged[text] = found
                if len(acknowledged) == 25:
                    process.send_signal(signal.SIGKILL)

            list(clients.map(client, texts))
            said = process.stderr.read()
        assert 25 <= len(acknowledged) < 60
        paid = dict(server.answered)
        with serving(export, *options) as (process, url):
            again = {text: ask(url, text) for text in acknowledged}
            assert again == acknowledged
            asked_again = {item for item, n in server.answered.items() if n > 1}
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            said += process.stderr.read()
        # A call that was open when the server died has no known fate; those asked about here had an answer.
        assert not asked_again & set(paid)
        store = open_store(tmp_path / "model-serving", write=False)
        total = bill(store)  # calls booked when the server died may not have been sent: they count as spent
        assert total.calls - total.unknown <= server.n_requests <= total.calls
        store.close()
    assert CANARY not in said
    assert TOKEN not in said


@pytest.mark.slow
def test_queue_ids_outlive_kill_9_and_review_finds_them(export, tmp_path):
    with serving(export) as (process, url):
        ids = {ask(url, f"zzz {i}")["queued"] for i in range(5)}
        process.send_signal(signal.SIGKILL)
        process.wait()
    table = tmp_path / "todo.jsonl"
    command = [
        sys.executable,
        "-m",
        "llmal.cli",
        "review",
        str(tmp_path / "model-serving"),
        "--out",
        str(table),
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert {json.loads(line)["item"] for line in table.read_text(encoding="utf-8").splitlines()} == ids


@pytest.mark.slow
def test_a_stop_signal_lets_requests_finish(export, tmp_path):
    with FakeLM(classifier(lambda _: "blue", confidence=0.99), identify=identify, latency_s=1.0) as server:
        options = ("--llm", "--calls", "9", "--pipeline", pipeline_file(tmp_path, server))
        with serving(export, *options) as (process, url), ThreadPoolExecutor(1) as client:
            open_request = client.submit(ask, url, "sea zzz")
            until = time.monotonic() + 20
            while server.n_requests < 1 and time.monotonic() < until:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            found = open_request.result()
            assert process.wait(timeout=30) == 0
    assert (found["route"], found["label"]) == ("llm", "blue")


@pytest.mark.slow
def test_raw_requests_that_pretend_are_refused(export):
    """No Host, two of them, a foreign one, a wrong length, a second request hidden in a first."""
    lines = {
        b"GET / HTTP/1.1\r\n\r\n": b" 400 ",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n": b" 400 ",
        b"GET / HTTP/1.0\r\n\r\n": b" 400 ",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n": b" 400 ",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n": b" 4",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        b"\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n": b" 4",
    }  # fmt: skip
    with serving(export) as (_, url):
        place = url.removeprefix("http://").split(":")
        for line, expected in lines.items():
            with socket.create_connection((place[0], int(place[1])), timeout=10) as raw:
                raw.sendall(line)
                reply = raw.recv(65536)
            assert expected in reply.split(b"\r\n")[0], (line, reply)
            assert b"labels" not in reply
        assert sent(url, "/health")[0] == 200


def test_without_a_token_no_other_machine_is_served(export):
    command = [sys.executable, "-m", "llmal.cli", "serve", str(export), "--host", "0.0.0.0"]
    env = {name: value for name, value in os.environ.items() if name != "LLMAL_TOKEN"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert "LLMAL_TOKEN" in done.stderr
