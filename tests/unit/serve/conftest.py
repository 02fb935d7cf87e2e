"""A served classifier of three colours inside the test's own process, and a pipeline with a fake model."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from llmal.runner import private_files
from llmal.serve.app import app_of
from llmal.serve.opening import find, opened
from llmal.serve.options import Options
from llmal.testing.exported import WORDS, colours

SURE = "rose ruby rust"
"""A text the student of colours is sure of."""

UNSURE = "zzz nothing of the kind"
PROMISE = {
    "by": "certified", "target": 0.8, "delta": 0.1, "on": "accepted", "audited": 100,
    "words": "At least 80 %.",
    "bars": [{"tier": "student", "label": None, "threshold": 0.7, "n": 50, "coverage": 0.5}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """However busy the machine is."""
    monkeypatch.setattr("llmal.serve.student.PATIENCE_S", 60.0)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("colours") / "model")


@pytest.fixture
def export(exported, tmp_path):
    """A copy of the export; `certify` gives it a certificate and a calibration sample."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in exported.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def state(folder, **more):
    """Change what `llmal.json` states."""
    file = folder / "llmal.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | more), encoding="utf-8")


def pipeline_file(home, base_url, **annotate):
    """A pipeline for the colours whose annotator is a model at an address."""
    llm = {"use": "llm", "model": "fake-lm", "base_url": base_url, "price": {"input": 0.15, "output": 0.6}}
    given = {
        "corpus": {"path": "served.jsonl"},
        "labels": {"names": list(WORDS), "abstain": False},
        "embed": {"use": "hashing", "dim": 64},
        "annotate": llm | annotate,
        "filter": {"use": "confidence", "at_least": 0.8},
    }
    file = home / "pipeline.yaml"
    file.write_text(json.dumps(given), encoding="utf-8")
    return file


@asynccontextmanager
async def served(folder, **options):
    """A client of the server, and the service behind it; open and warm."""
    given = Options(**options)
    given.check()
    with private_files():
        service = opened(find(folder, given), given)
        try:
            await service.cascade.open()
            door = httpx.ASGITransport(app=app_of(service, None))
            async with httpx.AsyncClient(transport=door, base_url="http://localhost") as client:
                yield client, service
        finally:
            await service.cascade.close(5)


async def ask(client, text):
    """The answer to one text."""
    reply = await client.post("/predict", json={"text": text})
    assert reply.status_code == 200, reply.text
    return reply.json()


def run(work):
    """Run one asynchronous piece of work."""
    return asyncio.run(work)
