"""What tests of review share: a run whose corpus holds given texts."""

import json

import pytest

from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Label, LabelSchema
from llmal.store.store import open_store


@pytest.fixture
def filled(tmp_path):
    """A function that makes a run of texts in a folder of that name; all are closed at the end."""
    opened = []

    def made(texts, name="a"):
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "c.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        store = open_store(folder / "run")
        opened.append(store)
        schema = LabelSchema("single", (Label(name="a"), Label(name="b")), False)  # no text has gold
        store.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, schema), text_key)
        return store

    yield made
    for store in opened:
        store.close()
