"""`llmal stream` as a user calls it: rows in order, hostile rows, kills, a pipe, a budget that ends."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import llmal
from llmal.cli import app
from llmal.context import Silent
from llmal.errors import SpecError, UserError
from llmal.store.ledger import bill
from llmal.store.store import open_store
from llmal.stream import job
from llmal.stream.cascade import Options
from llmal.stream.wish import Wish
from llmal.testing.brains import classifier, identify
from llmal.testing.fakelm import FakeLM

WORDS = {
    "bug": ["crash", "error", "freeze", "broken", "slow"],
    "billing": ["invoice", "refund", "card", "charge", "price"],
}
HOME = {"PYTHONPATH": str(Path(llmal.__file__).parents[1])}
CALL = [sys.executable, "-m", "llmal.cli", "stream"]
KNOWN = sorted({word for words in WORDS.values() for word in words})


def label_of(text):
    """What the model says: the kind that has more of its words in the text."""
    return max(WORDS, key=lambda kind: sum(word in text for word in WORDS[kind]))


def corpus(n, seed=0):
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        kind = rng.choice(list(WORDS))
        rows.append(
            {"id": f"r{i}", "text": " ".join([*rng.choices(WORDS[kind], k=3), rng.choice(KNOWN), f"n{i}"])}
        )
    return rows


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pipeline(home, annotate, more=""):
    path = home / "p.yaml"
    path.write_text(
        "version: 1\ncorpus: {path: texts.jsonl, id: id}\nlabels: {names: [bug, billing]}\n"
        f"embed: {{use: hashing, dim: 64}}\nannotate: {annotate}\n{more}",
        encoding="utf-8",
    )
    return path


def recorded(home, rows):
    jsonl(home / "answers.jsonl", [{"id": row["id"], "label": label_of(row["text"])} for row in rows])
    return pipeline(home, "{use: recorded, path: answers.jsonl}")


def asked_of(server, more="", options=""):
    return f"{{use: llm, model: fake-lm, base_url: '{server.base_url}', price: local{options}}}\n{more}"


def go(home, file, source, out="out.jsonl", run="run", **wish):
    options = wish.pop("options", Options(share=0.3))
    return job.stream_file(
        file,
        source,
        out=home / out if out else None,
        wish=Wish(options, **wish),
        folder=home / run,
        progress=Silent(),
    )


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_gets_a_line_in_its_place_with_source_confidence_and_reason(tmp_path):
    rows = corpus(500)
    told = go(
        tmp_path,
        recorded(tmp_path, rows),
        jsonl(tmp_path / "texts.jsonl", rows),
        export=str(tmp_path / "small"),
    )
    out = lines(tmp_path / "out.jsonl")
    assert [line["id"] for line in out] == [row["id"] for row in rows]
    assert set(out[0]) == {"id", "label", "source", "confidence", "why"}
    assert {line["source"] for line in out[:64]} == {"llm"}
    assert {line["why"] for line in out[:64]} == {"warm-up"}
    assert told["sources"] == {s: sum(line["source"] == s for line in out) for s in told["sources"]}
    by_students = [line for line in out if line["source"].startswith("student:")]
    assert by_students
    assert all(0 <= line["confidence"] <= 1 for line in by_students)
    assert 0.2 < told["share_llm"] < 0.45
    right = [line["label"] == label_of(row["text"]) for line, row in zip(out, rows, strict=True)]
    assert sum(right) > 450
    assert not list(tmp_path.glob("out.jsonl.*"))
    model = llmal.load(tmp_path / "small")
    labels = model.predict([row["text"] for row in rows[:50]])
    assert sum(one == label_of(row["text"]) for one, row in zip(labels, rows[:50], strict=True)) > 40
    assert go(tmp_path, tmp_path / "p.yaml", tmp_path / "texts.jsonl")["rows"] == 500, (
        "again: nothing is left to do"
    )


def test_hostile_rows_keep_their_place_and_teach_nobody(tmp_path):
    rows = corpus(200)
    nasty = [
        '{"id": "a", "text": ""}', '{"id": "b", "text": 7}', "not json", "[1, 2]", '{"id": "c"}',
        '{"id": "d", "text": "\\ud800 crash \\u0000"}', '{"id": {"x": 1}, "text": "=1+1"}',
        '{"id": "e", "text": null}',
        json.dumps({"id": "f", "text": "refund " * 30_000}), '{"id": "g\\u2028", "text": "\\u2028 crash"}',
    ]  # fmt: skip
    source = tmp_path / "texts.jsonl"
    good = [json.dumps(row) for row in rows]
    source.write_text("\n".join([*good[:90], *nasty, "", *good[90:]]) + "\n", encoding="utf-8")
    told = go(tmp_path, recorded(tmp_path, rows), source, "out.csv", with_text=True)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        out = list(csv.DictReader(file))
    assert len(out) == told["rows"] == 210
    assert [line["id"] for line in out[90:100]] == ["a", "b", "93", "94", "c", "d", "97", "e", "f", "g\u2028"]
    errors = {line["id"]: line["why"] for line in out if line["source"] == "none"}
    assert set(errors) == {"a", "b", "93", "94", "c", "e"}
    assert "not a text: int" in errors["b"]
    assert told["unlabelled"]["no text"] == 3
    assert {line["label"] for line in out if line["id"].startswith("r")} <= {"bug", "billing"}


def test_the_same_text_is_asked_about_once(tmp_path):
    rows = [{"id": f"r{i}", "text": f"crash {WORDS['bug'][i % 5]} {i % 40}"} for i in range(160)]
    with FakeLM(classifier(label_of, confidence=0.9), identify=identify) as server:
        told = go(
            tmp_path,
            pipeline(tmp_path, asked_of(server)),
            jsonl(tmp_path / "texts.jsonl", rows),
            options=Options(mu=0.0),
        )
        assert max(server.counts.values()) == 1
    out = lines(tmp_path / "out.jsonl")
    assert told["sources"] == {"llm": 160}
    assert sum(line["why"] == "asked before" for line in out) >= 96
    assert {line["confidence"] for line in out} == {0.9}


def test_a_budget_that_ends_leaves_the_rest_to_students_and_says_so(tmp_path):
    rows = corpus(300)
    with FakeLM(classifier(label_of), identify=identify) as server:
        file = pipeline(tmp_path, asked_of(server, "budget: {calls: 111}"))
        told = go(tmp_path, file, jsonl(tmp_path / "texts.jsonl", rows), options=Options(mu=0.0))
        assert server.n_requests <= 111
    out = lines(tmp_path / "out.jsonl")
    assert "111 of 111 calls" in told["budget"]
    assert {line["source"] for line in out[-150:]} <= {"student:hashed", "student:encoder"}
    assert {line["why"] for line in out[-150:]} == {"the budget is spent"}
    none = go(
        tmp_path,
        pipeline(tmp_path, asked_of(server, "budget: {calls: 0}")),
        tmp_path / "texts.jsonl",
        "no.jsonl",
        "no",
    )
    assert none["sources"] == {"none": 300}


def test_another_input_begins_with_what_students_know(tmp_path):
    rows = corpus(400)
    first = recorded(tmp_path, rows)
    go(tmp_path, first, jsonl(tmp_path / "texts.jsonl", rows[:300]))
    told = go(tmp_path, first, jsonl(tmp_path / "more.jsonl", rows[300:]), "more_out.jsonl")
    out = lines(tmp_path / "more_out.jsonl")
    assert told["rows"] == 100
    assert "warm-up" not in {line["why"] for line in out}
    assert out[0]["id"] == "r300"


def test_what_cannot_work_is_refused_in_a_sentence(tmp_path):
    rows = corpus(20)
    file, source = recorded(tmp_path, rows), jsonl(tmp_path / "texts.jsonl", rows)
    for wish, words in (
        ({"options": Options(share=1.5)}, "is no share"),
        ({"options": Options(share=0.5, quality=0.9)}, "two ways"),
        ({"options": Options(share=0.5, rule="nets")}, "knows --mu only"),
        ({"out": "out.parquet"}, "no table of kind"),
    ):
        with pytest.raises(UserError, match=words):
            go(tmp_path, file, source, **wish)
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        go(tmp_path, file, source)
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    both = pipeline(tmp_path, "{use: panel, of: [zero-shot, {use: recorded, path: answers.jsonl}]}")
    with pytest.raises(SpecError, match="whole corpus"):
        go(tmp_path, both, source)


def test_a_pipe_is_labelled_as_it_comes(tmp_path):
    rows = corpus(120)
    file = recorded(tmp_path, rows)
    process = subprocess.Popen(
        [*CALL, str(file), "--in", "-", "--run", str(tmp_path / "run"), "-q"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | HOME,
    )  # fmt: skip
    said = []
    for start in (0, 3, 80):
        some = rows[start : {0: 3, 3: 80, 80: 120}[start]]
        process.stdin.write(
            "".join(json.dumps(row) + "\n" for row in some).encode() + (b'{"te' if start == 0 else b"")
        )
        process.stdin.flush()
        said += [json.loads(process.stdout.readline()) for _ in some[: len(some) - (start == 3)]]
        if start == 0:
            process.stdin.write(b'xt": "half a line crash", "id": "half"}\n')
            process.stdin.flush()
            said.append(json.loads(process.stdout.readline()))
    process.stdin.close()
    said += [json.loads(line) for line in process.stdout]
    assert process.wait(60) == 0
    process.stdout.close()
    assert [line["id"] for line in said] == ["r0", "r1", "r2", "half", *(f"r{i}" for i in range(3, 120))]


def test_the_command_line_takes_csv_and_prints_its_summary(tmp_path):
    rows = corpus(150)
    file = recorded(tmp_path, rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "text"])
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / "texts.csv").write_text(text.getvalue(), encoding="utf-8")
    call = [
        "stream",
        str(file),
        "--in",
        str(tmp_path / "texts.csv"),
        "--out",
        str(tmp_path / "out.tsv"),
        "--share",
        "0.4",
    ]
    done = CliRunner().invoke(app, [*call, "--run", str(tmp_path / "run"), "--json", "-q"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["rows"] == 150
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").count("\n") == 151
    assert CliRunner().invoke(app, [*call, "--run", str(tmp_path / "other"), "--rule", "best"]).exit_code == 2


NURSERY = """
import os, sys
import sklearn.feature_extraction.text, scipy.optimize
import llmal.bulk.sources, llmal.stream.job, llmal.annotate.llm, llmal.embed.hashing
import llmal.lm.transport, aiohttp
from pathlib import Path
from llmal.context import Silent
from llmal.stream.cascade import Options
from llmal.stream.wish import Wish
llmal.bulk.sources.BLOCK_ROWS = 64
llmal.stream.job.CHECKPOINT_S = 0.0
llmal.stream.job.PATIENCE = 0
print("ready", flush=True)
for line in sys.stdin:
    file, source, out, run = map(Path, line.split())
    pid = os.fork()
    if not pid:
        llmal.stream.job.stream_file(
            file, source, out=out, wish=Wish(Options(share=0.4)), folder=run, progress=Silent())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""
"""Children that have done their imports, so that kills fall into work; blocks small enough for many kills."""


@pytest.mark.parametrize("most", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_output_is_the_same_and_no_answer_is_paid_for_twice(tmp_path, most):
    rows = corpus(120 + 60 * most)
    source = jsonl(tmp_path / "texts.jsonl", rows)
    with FakeLM(classifier(label_of, confidence=0.9), identify=identify, latency_s=0.01) as server:
        file = pipeline(tmp_path, asked_of(server))
        go(tmp_path, file, source, "whole.jsonl", "whole", options=Options(share=0.4))
        wanted = (tmp_path / "whole.jsonl").read_bytes()
        server.reset()
        nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | HOME,
        )  # fmt: skip
        assert nursery.stdout.readline() == "ready\n"
        kills, rng, out = 0, random.Random(1), tmp_path / "out.jsonl"
        for turn in range(40):
            nursery.stdin.write(f"{file} {source} {out} {tmp_path / 'run'}\n")
            nursery.stdin.flush()
            pid, before = int(nursery.stdout.readline()), server.n_requests
            until, more = time.monotonic() + 60, rng.randrange(10, 50)
            while (
                turn < most
                and time.monotonic() < until
                and not out.exists()
                and server.n_requests < before + more
            ):
                time.sleep(0.002)
            if turn < most and not out.exists():
                os.kill(pid, signal.SIGKILL)
                kills += 1
            assert nursery.stdout.readline() == "gone\n"
            if out.exists():
                break
        nursery.stdin.close()
        nursery.wait(30)
        nursery.stdout.close()
        again = {name: n for name, n in server.counts.items() if n > 1}
    assert kills >= most / 2, "no kill fell into the work: the test proves nothing"
    assert out.read_bytes() == wanted
    assert sum(again.values()) - len(again) <= 16 * kills, (
        "more than what was in flight at a kill was paid again"
    )
    store = open_store(tmp_path / "run", write=False)
    spent = bill(store)
    store.close()
    assert server.n_requests <= spent.calls <= server.n_requests + 16 * kills
