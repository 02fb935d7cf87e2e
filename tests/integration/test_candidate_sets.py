"""The whole line with twenty labels: people choose from short lists, the right label mostly on them."""

import json

import numpy as np
import pytest
import sqlalchemy as sa

import llmal
from llmal.explain import explain, explain_text
from llmal.handover import review
from llmal.report import full, full_text, outcome_text
from llmal.review.table import COLUMNS
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store

TOPICS = [f"topic {chr(97 + i)}" for i in range(20)]
AUDIT = 120


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run: 900 texts with three words of their topic and four of any, gold for the audit sample to use."""
    folder = tmp_path_factory.mktemp("line")
    draw = np.random.default_rng(0)
    rows = []
    for i in range(900):
        topic = int(draw.integers(20))
        words = [f"w{topic}x{k}" for k in draw.integers(6, size=3)]
        words += [
            f"w{other}x{k}"
            for other, k in zip(draw.integers(20, size=4), draw.integers(6, size=4), strict=True)
        ]
        rows.append(
            {"id": str(i), "text": f"{' '.join(draw.permutation(words))} n{i}", "label": TOPICS[topic]}
        )
    for name in ("corpus", "answers"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def spec(**changes):
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
        "labels": {"names": TOPICS},
        "audit": {"size": AUDIT},
        "rounds": {"max": 1, "size": 250},
        "embed": {"use": "hashing", "dim": 256},
        "annotate": {"use": "recorded", "path": "answers.jsonl"},
        "select": "uniform",
        "filter": {"use": "confidence", "unknown": "accept"},
        "train": {"rounds": "linear", "final": "linear"},
    }
    return Pipeline.model_validate(said | changes)


@pytest.fixture(scope="module")
def done(home):
    return llmal.run(spec(), home / "run", home=home)


def truth(home):
    rows = map(json.loads, (home / "corpus.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["text"]: row["label"] for row in rows}


def handed_out(run, path):
    review(run, out=path, into=None, person="p", spreadsheet=False)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_run_says_what_the_lists_save(home, done):
    saving, held = done.measures["candidates.saving"], done.measures["candidates.coverage"]
    assert 0 < saving["low"] < saving["value"] < 1
    assert held["n"] == saving["n"] >= 20
    assert f"{saving['value']:.1%} less" in done.candidates
    assert done.as_json()["candidate_sets"] == done.candidates
    assert done.candidates.split(":")[0] in " ".join(outcome_text(done).split())
    assert done.candidates in full_text(full(done.run))


def test_the_table_has_short_lists_with_the_right_label_mostly_on_them(home, done):
    rows, right = handed_out(done.run, home / "todo.jsonl"), truth(home)
    assert set(rows[0]) == set(COLUMNS)
    short = [row for row in rows if row["candidates"]]
    assert len(short) > 100
    hits = np.mean([right[row["text"]] in row["candidates"] for row in short])
    held = done.measures["candidates.coverage"]
    assert held["low"] - 0.1 < hits < held["high"] + 0.1
    assert all(row["guess"][0] == row["candidates"][0] for row in short)


def test_explain_shows_the_list_of_an_item(home, done):
    row = next(row for row in handed_out(done.run, home / "e.jsonl") if row["candidates"])
    row_id = row["text"].rsplit(" n", 1)[1]
    found = explain(done.run, row_id)
    assert found["candidates"] == tuple(row["candidates"])
    assert f"  shown     {', '.join(row['candidates'])}" in explain_text(found)


def counts(run):
    store = open_store(run, write=False)
    try:
        tables = (t.annotation, t.student, t.answer, t.candidates)
        return [store.read(sa.select(sa.func.count()).select_from(table))[0][0] for table in tables]
    finally:
        store.close()


def test_going_on_adds_nothing_another_part_makes_lists_alone_and_answers_keep_what_was_shown(home, done):
    again = llmal.run(spec(), done.run, home=home)
    assert (again.facts_added, again.candidates) == (0, done.candidates)
    before = counts(done.run)
    held = llmal.run(spec(review={"miss": [0.3]}), done.run, home=home)
    assert counts(done.run)[:3] == before[:3]
    assert counts(done.run)[3] > before[3]
    assert "at least 70 % of items" in held.candidates
    off = llmal.run(spec(review={"candidates": "never"}), done.run, home=home)
    assert off.candidates == "no candidate sets, as asked"
    assert "candidates.saving" not in off.measures
    assert "short lists" not in outcome_text(off)
    assert not any(row["candidates"] for row in handed_out(done.run, home / "off.jsonl"))

    llmal.run(spec(), done.run, home=home)
    right, path = truth(home), home / "back.jsonl"
    rows = [row for row in handed_out(done.run, path) if row["candidates"]][:20]
    path.write_text(
        "".join(json.dumps({**r, "answer": right[r["text"]]}) + "\n" for r in rows), encoding="utf-8"
    )
    assert review(done.run, out=None, into=path, person="p", spreadsheet=False)["taken"]["new"] == 20
    row_id = rows[0]["text"].rsplit(" n", 1)[1]
    kept = explain(done.run, row_id)
    assert kept["answers"][0]["shown"] == rows[0]["candidates"]
    assert f"by p, from {', '.join(rows[0]['candidates'])}" in explain_text(kept)
    # The routes follow the answers, so until the next run those made last are handed out, lists and all.
    left = handed_out(done.run, home / "left.jsonl")
    assert not {row["item"] for row in left} & {row["item"] for row in rows}
    assert any(row["candidates"] for row in left)
