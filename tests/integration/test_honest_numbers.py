"""A run with active testing and a stop rule: what it measures, never learns from, and says."""

import json

import pytest

import llmal
from llmal.folder import opened
from llmal.report import full, full_text, outcome_text
from llmal.spec import Pipeline

TOPICS = {
    "fruit": "apple pear plum cherry grape melon",
    "metal": "iron copper zinc silver gold tin",
    "sport": "tennis hockey rowing chess judo golf",
}
SHARES = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]
"""Topic of each of ten texts in turn: half fruit, one in ten sport."""


def corpus(folder, n=700):
    """Texts of a topic, every seventh with words of another one beside; the annotator is 95 % right."""
    rows, answers = [], []
    for i in range(n):
        topic = list(TOPICS)[SHARES[i % 10]]
        other = list(TOPICS)[(SHARES[i % 10] + 1) % 3] if i % 7 == 3 else topic
        words = [
            TOPICS[t].split()[(i // 3 + k) % 6]
            for k, t in enumerate((topic, other, other if i % 21 == 3 else topic))
        ]
        rows.append({"id": str(i), "text": f"{' '.join(words)} note {i * 37 % 101}", "label": topic})
        answers.append({"id": str(i), "label": other if i % 20 == 3 else topic, "sure": 0.9})
    for name, data in (("corpus", rows), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")


def spec(**changes):
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
        "labels": {"names": list(TOPICS)},
        "audit": {"size": 160, "pool": 240, "active": 40},
        "rounds": {"max": 8, "size": 45, "stop": "auto"},
        "embed": {"use": "hashing", "dim": 256},
        "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
        "train": {"rounds": "linear", "final": "linear", "folds": 3},
    }
    return Pipeline.model_validate(said | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    corpus(folder)
    done = llmal.run(spec(), folder / "run", home=folder)
    return folder, done


def test_every_kind_of_measure_is_there_with_its_interval_and_how_it_was_made(run):
    _, done = run
    for name, how in {
        "student.accuracy": "audit sample, 160 items",
        "student.accuracy.powered": "prediction-powered: people's 160 audit answers and the student's word",
        "student.accuracy.active": "active testing: 200 of 200 test items, 40 of them chosen",
        "student.f1[sport]": "audit sample",
        "prevalence[sport]": "prediction-powered",
        "prior.taught[sport]": "counted: all",
        "prior.annotator[sport]": "counted: all",
    }.items():
        m = done.measures[name]
        assert m["low"] <= m["value"] <= m["high"], name
        assert m["measured_on"].startswith(how), m
    assert 0.04 < done.measures["prevalence[sport]"]["value"] < 0.2
    forecast = done.measures["forecast.next_50"]
    assert forecast["value"] < forecast["high"]
    assert forecast["measured_on"].startswith("The next 50 labels buy at most")


def test_the_rounds_end_when_more_labels_pay_little_and_the_run_says_why(run):
    folder, done = run
    assert "rounds.stop: auto" in done.stopped
    again = llmal.run(spec(), folder / "run", home=folder)
    assert (again.facts_added, again.stopped, again.measures) == (0, done.stopped, done.measures)
    with opened(folder / "run") as (_, store, _):
        picks, tested = store.picks(), set(store.tested())
    assert 5 * 45 <= len(picks) < 8 * 45
    assert not tested & set(picks)


def test_a_run_that_was_cut_draws_the_same_test_items_and_measures_the_same(run):
    folder, done = run
    for until in ("select", "route"):
        llmal.run(spec(), folder / "cut", home=folder, until=until)
    assert llmal.run(spec(), folder / "cut", home=folder).measures == done.measures
    drawn = []
    for name in ("run", "cut"):
        with opened(folder / name) as (_, store, _):
            drawn.append(store.draws())
    assert drawn[0] == drawn[1]


def test_the_report_groups_the_measures_of_labels(run):
    folder, done = run
    lines = full_text(full(folder / "run")).splitlines()
    head = next(line for line in lines if line.split()[:1] == ["label"])
    assert head.split() == [
        "label",
        "in",
        "corpus",
        "annotator",
        "taught",
        "student",
        "F1",
        "precision",
        "recall",
    ]
    assert any(line.split()[:1] == ["sport"] for line in lines)
    assert done.measures["forecast.next_50"]["measured_on"] in outcome_text(done)


def test_active_items_without_a_pool_to_draw_them_from_are_refused():
    with pytest.raises(ValueError, match="audit.pool, which must hold 60 \\+ 30 or more"):
        spec(audit={"size": 60, "active": 30})
