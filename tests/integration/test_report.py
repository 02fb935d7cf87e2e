"""What a run leaves for people: report.html and report.json, whatever kind of run and however it ended."""

import json
import stat

import pytest

import llmal
from llmal.cli import app
from llmal.report import full, full_text
from llmal.spec import Pipeline
from llmal.store.ledger import PICO
from llmal.testing.brains import classifier, identify
from llmal.testing.fakelm import FakeLM, Fault

TOPICS = {"fruit": "apple pear plum", "metal": "iron copper zinc", "sport": "tennis hockey rowing"}


class Lines:
    """Progress that keeps what was said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def task(self, title, total):
        from llmal.context import Silent

        return Silent().task(title, total)


def corpus(folder, n=180, *, gold=True, multi=False):
    names = list(TOPICS)
    rows, answers = [], []
    for i in range(n):
        given = [t for j, t in enumerate(names) if (i >> j) & 1] if multi else [names[i % 3]]
        words = " ".join(TOPICS[t].split()[i % 3] for t in given)
        rows.append({"id": str(i), "text": f"{words} note {i}"})
        if gold:
            rows[-1]["label"] = given if multi else given[0]
        said = given if multi else [names[(i + (i % 10 == 3)) % 3]]
        answers.append({"id": str(i), "label": said if multi else said[0], "sure": 0.9 if i % 5 else 0.4})
    for name, data in (("corpus", rows), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")


def pipeline(**changes):
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
        "labels": {"names": list(TOPICS)},
        "audit": {"size": 60},
        "rounds": {"max": 2, "size": 40},
        "embed": {"use": "hashing", "dim": 64},
        "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
        "filter": {"use": "confidence", "at_least": 0.5},
        "train": {"rounds": "linear", "final": "linear"},
    }
    return Pipeline.model_validate(said | changes)


def told(capsys, *words):
    """What the command prints."""
    with pytest.raises(SystemExit) as end:
        app([str(word) for word in words])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_run_ends_with_a_page_and_its_data_for_its_owner_alone(tmp_path, capsys, kind):
    corpus(tmp_path, multi=kind == "multi")
    lines = Lines()
    asked = pipeline(labels={"kind": kind, "names": list(TOPICS)})
    done = llmal.run(asked, tmp_path / "run", home=tmp_path, progress=lines)
    page, data = tmp_path / "run/report.html", tmp_path / "run/report.json"
    assert stat.S_IMODE(page.stat().st_mode) == stat.S_IMODE(data.stat().st_mode) == 0o600
    assert [line for line in lines.said if line.startswith("report")]
    found = json.loads(data.read_text(encoding="utf-8"))
    assert found["measures"] == done.measures
    value = done.measures["student.accuracy"]["value"]
    assert f"{100 * value:.1f} %" in page.read_text(encoding="utf-8") or value in (0, 1)
    before = page.stat().st_mtime_ns, data.stat().st_mtime_ns
    again = llmal.run(asked, tmp_path / "run", home=tmp_path)
    assert again.facts_added == 0
    assert (page.stat().st_mtime_ns, data.stat().st_mtime_ns) == before
    # The command says the same, and writes the page wherever it is wanted.
    printed = json.loads(told(capsys, "report", tmp_path / "run", "--json", "--html", tmp_path / "mine.html"))
    assert printed | {"made": ""} == found | {"made": ""}
    assert "<h1>" in (tmp_path / "mine.html").read_text(encoding="utf-8")
    text = told(capsys, "report", tmp_path / "run")
    assert all(sentence in text for sentence in found["answer"])


def test_the_report_is_made_anew_when_people_have_answered(tmp_path):
    from llmal.handover import review

    corpus(tmp_path, gold=False)
    asked = pipeline(corpus={"path": "corpus.jsonl", "id": "id"})
    llmal.run(asked, tmp_path / "run", home=tmp_path)
    first = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "nothing has been measured against people" in first
    assert "Answer fewer, answer better" not in first
    found = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    assert found["risk_coverage"] is found["confusion"] is found["disagreements"] is None
    assert found["learning"] == {"use": "linear", "points": [], "final": None}
    todo = tmp_path / "todo.jsonl"
    review(tmp_path / "run", out=todo, into=None, person="", spreadsheet=False)
    lines = [json.loads(line) for line in todo.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["answer"] = [next(t for t, words in TOPICS.items() if line["text"].split()[0] in words)]
    todo.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    review(tmp_path / "run", out=None, into=todo, person="P", spreadsheet=False)
    llmal.run(asked, tmp_path / "run", home=tmp_path)
    second = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Answer fewer, answer better" in second
    assert "60 by people" in second


@pytest.mark.parametrize("until", ["embed", "annotate", "train"])
def test_a_run_that_stopped_early_has_a_report_that_says_so(tmp_path, capsys, until):
    corpus(tmp_path)
    llmal.run(pipeline(), tmp_path / "run", home=tmp_path, until=until)
    found = json.loads(told(capsys, "report", tmp_path / "run", "--json", "--html", tmp_path / "report.html"))
    assert found["measures"] == {}
    assert found["answer"][0] == "None of 180 texts has a label yet."
    assert "Nothing has been measured yet" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert full_text(found)


def test_what_cannot_be_drawn_is_told_and_fails_no_run(tmp_path, monkeypatch):
    def broken(found):
        raise RuntimeError("no <b>ink</b>\x1b[31m")

    corpus(tmp_path)
    monkeypatch.setattr("llmal.page.write.page", broken)
    lines = Lines()
    done = llmal.run(pipeline(), tmp_path / "run", home=tmp_path, progress=lines)
    assert done.export is not None
    (line,) = [line for line in lines.said if line.startswith("report")]
    assert "report.html could not be written (RuntimeError: no <b>ink</b>\ufffd[31m)" in line
    assert not list((tmp_path / "run").glob("*.part"))
    monkeypatch.undo()
    llmal.run(pipeline(), tmp_path / "run", home=tmp_path)
    assert (tmp_path / "run/report.html").is_file()


def test_a_hundred_and_fifty_classes_one_of_them_empty(tmp_path):
    names = [f"class number {i}" for i in range(150)]
    rows = [{"id": str(i), "text": f"w{i % 149} text {i}", "label": names[i % 149]} for i in range(900)]
    for name in ("corpus", "answers"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row | {"sure": 0.9}) + "\n" for row in rows), encoding="utf-8"
        )
    asked = pipeline(
        labels={"names": names}, rounds={"max": 1, "size": 600}, embed={"use": "hashing", "dim": 256}
    )
    llmal.run(asked, tmp_path / "run", home=tmp_path)
    found = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    assert found["confusion"]["kind"] == "largest"
    assert found["classes"][149] == {
        "label": "class number 149",
        "human": 0,
        "llm": 0,
        "student": 0,
        "open": 0,
    }
    assert "class number 149" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_money_is_told_by_round_and_by_source_and_adds_up_to_the_bill(tmp_path):
    corpus(tmp_path)

    def label_of(text):
        return next(t for t, words in TOPICS.items() if any(word in text for word in words.split()))

    with FakeLM(classifier(label_of), identify=identify, price=(150_000, 600_000)) as server:
        server.faults = (Fault("refusal", share=0.1),)
        llm = {"use": "llm", "model": "fake-lm", "base_url": server.base_url}
        llm["price"] = {"input": 0.15, "output": 0.6}
        asked = pipeline(
            annotate=llm,
            audit={"size": 30, "annotate": True},
            filter={"use": "confidence", "unknown": "accept"},
        )
        done = llmal.run(asked, tmp_path / "run", home=tmp_path)
    found = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    for rows in found["spending"].values():
        assert sum(r["calls"] for r in rows) == done.bill.calls
        assert sum(r["usd"] for r in rows) == pytest.approx(done.bill.cost / PICO)
        assert sum(r["tokens_in"] for r in rows) == done.bill.tokens_in
    calls = {r["part"]: r["calls"] for r in found["spending"]["by_round"]}
    assert (calls["audit sample"], calls["round 1"], calls["round 2"]) == (30, 40, 40)
    assert "fake-lm" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("target", "size", "state"), [(0.7, 90, "valid"), (0.95, 10, "refused")])
def test_the_certificate_stands_there_in_words(tmp_path, target, size, state):
    corpus(tmp_path, n=240)
    asked = pipeline(route={"use": "certified", "target": target, "delta": 0.1}, audit={"size": size})
    done = llmal.run(asked, tmp_path / "run", home=tmp_path)
    found = full(tmp_path / "run")
    assert found["promise"]["state"] == state
    assert found["promise"]["words"] == done.certificate["words"]
    assert found["certificate"] == done.certificate
    assert found["promise"]["words"][:60] in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    threshold = found["risk_coverage"]["threshold"]
    assert (threshold is not None) == (state == "valid")
