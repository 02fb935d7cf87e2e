"""A whole run with certified routing: its promise in table, labels, export and card, and what ends it."""

import json

import numpy as np
import pytest

import llmal
from llmal.explain import explain
from llmal.report import outcome_text, state_of
from llmal.spec import Pipeline

TOPICS = {"fruit": "apple pear plum cherry grape melon", "metal": "iron copper zinc silver gold tin"}


def corpus(folder, n=700, *, strange=0):
    """Texts about two topics, one in eight about neither, with gold and recorded answers."""
    rng, rows, answers = np.random.default_rng(0), [], []
    for i in range(n + strange):
        name = list(TOPICS)[i % 2]
        clear = i < n and i % 8
        words = [TOPICS[name].split()[(i // 2 + k) % 6] for k in range(3)] if clear else ["harbour", "boat"]
        text = f"{' '.join(words)} number {rng.integers(1000)}"
        rows.append({"id": str(i), "text": f"{text} {i}", "label": name})
        answers.append({"id": str(i), "label": name, "sure": 0.9})
    for file, data in (("corpus", rows), ("answers", answers)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")
    return rows


def spec(**changes):
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
        "labels": {"names": list(TOPICS)},
        "audit": {"size": 200},
        "rounds": {"max": 2, "size": 40},
        "embed": {"use": "hashing", "dim": 128},
        "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
        "filter": {"use": "confidence", "at_least": 0.5},
        "train": {"rounds": "linear", "final": "linear"},
        "route": {"use": "certified", "target": 0.9},
    }
    return Pipeline.model_validate(said | changes)


def labels_of(run):
    lines = (run / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_a_run_promises_what_it_can_and_says_so_everywhere(tmp_path):
    corpus(tmp_path)
    done = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    found = done.as_json()["certificate"]
    bar = found["bars"][0]["threshold"]
    assert bar is not None
    assert (found["issue"], found["audited"], found["withdrawn"]) == (1, 200, None)
    assert found["words"] in " ".join(outcome_text(done).split())
    assert state_of(done.run).certificate == found
    labels = labels_of(done.run)
    student = [row for row in labels.values() if row["label_source"] == "student" and row["accepted"]]
    assert all(row["confidence"] >= round(bar, 6) for row in student)
    assert all("certified for 90.0%" in row["reason"] for row in student)
    assert "certified for 90.0%" in explain(done.run, student[0]["id"])["route"]["reason"]
    truth = {str(i): list(TOPICS)[i % 2] for i in range(700)}
    assert sum(row["label"] == truth[row["id"]] for row in student) / len(student) >= 0.9
    about = json.loads((done.export / "llmal.json").read_text(encoding="utf-8"))
    assert about["certificate"] == found
    assert (about["threshold"], about["thresholds"]) == (bar, None)
    assert (about["reference"]["of"], about["reference"]["n"]) == ("audit", 200)
    card = (done.export / "README.md").read_text(encoding="utf-8")
    assert "## Certificate" in card
    assert found["words"] in card
    model = llmal.load(done.export)
    assert model.accepts(("fruit",), bar)
    assert not model.accepts(("fruit",), bar - 0.001)
    again = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    assert (again.facts_added, again.certificate) == (0, found)


def test_texts_of_another_kind_end_the_promise_for_good_until_a_new_sample(tmp_path):
    corpus(tmp_path)
    llmal.run(spec(), tmp_path / "run", home=tmp_path)
    corpus(tmp_path, strange=150)
    done = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    assert done.certificate["withdrawn"].startswith("150 texts came after the audit sample was drawn")
    labels = labels_of(done.run)
    assert not any(row["label_source"] == "student" and row["accepted"] for row in labels.values())
    about = json.loads((done.export / "llmal.json").read_text(encoding="utf-8"))
    assert (about["threshold"], about["certificate"]["withdrawn"]) == (None, done.certificate["withdrawn"])
    assert llmal.load(done.export).accepts(("fruit",), 1.0) is False
    assert llmal.run(spec(), tmp_path / "run", home=tmp_path).facts_added == 0
    larger = llmal.run(spec(audit={"size": 400}), tmp_path / "run", home=tmp_path)
    assert (larger.certificate["audited"], larger.certificate["withdrawn"]) == (200, None)
    assert larger.certificate["issue"] == 2


def test_with_folds_items_the_student_learnt_from_stand_under_the_same_bar(tmp_path):
    corpus(tmp_path)
    folded = spec(train={"rounds": "linear", "final": "linear", "folds": 3})
    done = llmal.run(folded, tmp_path / "run", home=tmp_path)
    assert done.certificate["outside"] == 0
    assert "outside the promise" not in done.certificate["words"]
    assert not any(row["label_source"] == "llm" for row in labels_of(done.run).values())
    plain = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    assert plain.certificate["outside"] == 80
    assert sum(row["label_source"] == "llm" for row in labels_of(plain.run).values()) == 80


@pytest.mark.parametrize("router", ["sgr", "risk-control"])
def test_small_samples_promise_nothing_and_people_answer(tmp_path, router):
    corpus(tmp_path)
    done = llmal.run(spec(audit={"size": 8}, route=router), tmp_path / "run", home=tmp_path)
    assert done.certificate["issue"] == 0
    assert "Cannot certify" in done.certificate["words"]
    assert "Set audit.size to about" in done.certificate["words"]
    assert done.labels["source"]["student"] == 0
    about = json.loads((done.export / "llmal.json").read_text(encoding="utf-8"))
    assert about["threshold"] is None
    assert about["reference"]["of"] == "unlearnt"
