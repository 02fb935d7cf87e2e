"""What a report says of people: who said how much, how far they agree, what they left open and took back."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import llmal
from llmal.explain import explain, explain_text
from llmal.page.html import page
from llmal.page.overview import Given, people
from llmal.page.spending import spending
from llmal.records import Label, LabelSchema
from llmal.report import full, full_text, outcome_text, state_of
from llmal.review.holes import Holes, holes
from llmal.spec import Pipeline
from llmal.store.store import open_store
from llmal.testing.facts import answer, remark
from llmal.testing.hostile import HOSTILE

TOPICS = {"fruit": "apple pear plum", "metal": "iron copper zinc", "sport": "tennis hockey rowing"}
NAMES = list(TOPICS)
SCHEMA = LabelSchema("single", tuple(Label(name=name) for name in NAMES), True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 90 texts without gold, 40 of them audit, that people answer by and by."""
    home = tmp_path_factory.mktemp("people")
    rows, said = [], []
    for i in range(90):
        label = NAMES[i % 3]
        rows.append({"id": str(i), "text": f"{TOPICS[label].split()[i % 2]} note {i}"})
        said.append({"id": str(i), "label": label, "sure": 0.9 if i % 5 else 0.4})
    for name, data in (("corpus", rows), ("answers", said)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")
    asked = Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id"},
            "labels": {"names": NAMES},
            "audit": {"size": 40},
            "rounds": {"max": 1, "size": 20},
            "embed": {"use": "hashing", "dim": 64},
            "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
            "filter": {"use": "confidence", "at_least": 0.5},
            "train": {"rounds": "linear", "final": "linear"},
        }
    )
    llmal.run(asked, home / "run", home=home)
    return home, asked


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to be changed."""
    import shutil

    home, asked = finished
    place = tmp_path / "home"
    shutil.copytree(home, place)
    return place, asked


def again(run):
    home, asked = run
    return llmal.run(asked, home / "run", home=home)


def test_what_was_taken_back_is_told_as_such_and_counted_nowhere(run):
    home, _ = run
    store = open_store(home / "run")
    ids = store.ids(None)
    first, second = store.audit()[:2]
    answer(store, first, "fruit", person="Ann", seconds=30.0)
    remark(store, second, "undo", of=answer(store, second, "metal", person="Ann"), person="Ann")
    done = SimpleNamespace(waiting=0)
    counted = people(store, SCHEMA, done, Given({}, store.answers(NAMES)))
    assert (counted["answers"], counted["texts"], counted["audit_by_people"]) == (1, 1, 1)
    rounds = {r["part"]: r["people"] for r in spending(store, local=True)["by_round"]}
    assert rounds["audit sample"] == 1
    store.close()
    told = explain(home / "run", ids[second])
    assert [a["taken_back"] for a in told["answers"]] == [True]
    assert told["together"] is None
    assert "answered  metal by Ann (taken back)" in explain_text(told)
    assert [a["taken_back"] for a in explain(home / "run", ids[first])["answers"]] == [False]


def test_an_undo_or_a_flag_alone_has_the_report_made_anew(run):
    home, _ = run
    store = open_store(home / "run")
    seq = store.audit()[0]
    n = answer(store, seq, "fruit")
    before = [full(home / "run")["of"]]
    for what, of in (("undo", n), ("flag", None), ("unsure", None)):
        remark(store, seq, what, of=of)
        before.append(full(home / "run")["of"])
    store.close()
    assert len(set(before)) == 4


def test_holes_are_counted_bounded_and_told_wherever_the_measures_are(run):
    home, _ = run
    store = open_store(home / "run")
    audit = store.active(store.audit())
    right = {s: NAMES[int(i) % 3] for s, i in store.ids(audit).items()}
    for s in audit[6:]:
        answer(store, s, right[s], person="Ann")
    for s in audit[:4]:
        remark(store, s, "unsure", person="Ann")
    remark(store, audit[4], "skip", person="Ann")
    remark(store, audit[5], "unsure", person="Ann")
    remark(store, audit[5], "undo", person="Ann")  # waits for its turn as if nothing was said
    remark(store, audit[7], "unsure", person="Bob")  # Ann answered it: no hole
    assert holes(store, SCHEMA) == Holes(4, 1, 34, 40)
    store.close()
    done = again(run)
    m = done.measures["student.accuracy"]
    bound = done.as_json()["audit_holes"]["bounds"]["student.accuracy"]
    assert m["n"] == 34
    assert bound["low"] == pytest.approx(m["value"] * 34 / 39)
    assert bound["high"] == pytest.approx((m["value"] * 34 + 5) / 39)
    words = "5 of 40 audit texts have no answer: people were not sure of 4 and passed over 1."
    found = full(home / "run")
    assert found["audit_holes"]["unsure"] == 4
    for told in (outcome_text(state_of(home / "run")), full_text(found), page(found)):
        assert words in " ".join(told.split())
    assert any("5 audit texts were put off" in words for words in found["next"])


@pytest.mark.parametrize("seed", range(5))
def test_the_true_accuracy_on_the_whole_sample_lies_within_the_bounds(seed):
    """Whatever the answers to the holes would have been, for a measure over all texts or over a part."""
    rng = np.random.default_rng(seed)
    right, hole, part = rng.random(200) < 0.8, rng.random(200) < 0.1, rng.random(200) < 0.7
    for member in (np.ones(200, bool), part):
        seen = member & ~hole
        m = {"student.accuracy": {"value": right[seen].mean(), "n": int(seen.sum())}}
        bound = Holes(int(hole.sum()), 0, int((~hole).sum()), 200).bounds(m)["student.accuracy"]
        assert bound["low"] <= right[member].mean() <= bound["high"]
        assert bound["low"] < right[seen].mean() < bound["high"]


def test_without_holes_nothing_is_said_of_them(run):
    found = full(run[0] / "run")
    assert found["audit_holes"]["words"] == ""
    assert "Holes" not in full_text(found)
    assert "audit holes" not in outcome_text(state_of(run[0] / "run"))


def test_each_persons_words_time_and_agreement_stand_in_text_data_and_page(run):
    home, _ = run
    store = open_store(home / "run")
    items = store.active()[:30]
    for i, s in enumerate(items):
        answer(store, s, NAMES[i % 3], person="Ann", seconds=6.0)
        if i < 20:
            answer(store, s, NAMES[(i + (i < 4)) % 3], person="Bob", seconds=12.0)
    gone = answer(store, items[0], "sport", person="Ann", seconds=60.0)
    remark(store, items[0], "undo", of=gone, person="Ann")
    answer(store, items[1], NAMES[1], person="Eve", role="adjudicate")
    remark(store, items[2], "flag", person="Bob", note="an address in it")
    remark(store, items[25], "skip", person="Bob", seconds=60.0)
    flagged = store.ids([items[2]])[items[2]]
    store.close()
    found = full(home / "run")
    crew = found["people"]["crew"]
    ann, bob, eve = crew["people"]
    assert (ann["name"], ann["words"], ann["minutes"], ann["median_seconds"]) == ("Ann", 30, 4.0, 6.0)
    assert (bob["words"], bob["minutes"], eve["words"], eve["settled"]) == (20, 5.0, 0, 1)
    assert crew["minutes"] == 9.0, "time is spent, whatever became of the answer"
    assert ann["agreement"]["value"] == bob["agreement"]["value"] == pytest.approx(16 / 20)
    assert ann["agreement"]["low"] < 0.8 < ann["agreement"]["high"]
    assert (ann["agreement"]["n"], eve["agreement"]) == (20, None)
    assert (crew["shared"], crew["disputes"], crew["settled"]) == (20, 3, 1)
    assert 0.2 < crew["alpha"]["low"] < crew["alpha"]["value"] < crew["alpha"]["high"] < 1
    assert [(k["a"], k["b"], k["n"]) for k in crew["kappa"]] == [("Ann", "Bob", 20)]
    text, html = full_text(found), page(found)
    assert "9.0 minutes of people in all" in text
    assert "9 minutes in all" in html
    assert "50 answers of people in 9.0 minutes" in html
    assert "Krippendorff's alpha" in text
    assert "Krippendorff's alpha is" in html.replace("&#39;", "'")
    assert f"flagged {flagged}: an address in it" in text
    assert "an address in it" in html
    assert any("People differ on 3 texts" in words for words in found["next"])
    assert "flagged   by Bob: an address in it" in explain_text(explain(home / "run", flagged))


def test_who_answers_at_random_is_named_with_the_reason(run):
    home, _ = run
    rng = np.random.default_rng(0)
    store = open_store(home / "run")
    for i, s in enumerate(store.active()):
        for person in ("Ann", "Bob"):
            answer(store, s, NAMES[i % 3], person=person)
        answer(store, s, str(rng.choice(NAMES)), person="Cem")
    store.close()
    found = full(home / "run")
    warnings = {p["name"]: p["warning"] for p in found["people"]["crew"]["people"]}
    assert warnings["Ann"] == warnings["Bob"] == ""
    assert warnings["Cem"]
    assert "in doubt: Cem: " in full_text(found)
    assert any(words.startswith("Look at the answers of Cem") for words in found["next"])


def test_one_person_alone_is_told_without_any_agreement(run):
    home, _ = run
    store = open_store(home / "run")
    for s in store.active()[:5]:
        answer(store, s, "fruit", person="Ann")
    store.close()
    found = full(home / "run")
    crew = found["people"]["crew"]
    assert (crew["alpha"], crew["kappa"], crew["shared"]) == (None, [], 0)
    assert "Krippendorff" not in full_text(found) + page(found)
    assert ">Ann<" in page(found)


def test_hostile_names_and_notes_are_text_in_terminal_and_page(run):
    home, _ = run
    kinds = list(HOSTILE.values())
    store = open_store(home / "run")
    some = store.active()[: len(kinds)]
    for s, kind in zip(some, kinds, strict=True):
        for other in (kind, kinds[0]):
            answer(store, s, "fruit" if other == kind else "metal", person=other)
        remark(store, s, "flag", person=kind, note=kind)
    ids = store.ids(some)
    store.close()
    found = full(home / "run")
    html, text = page(found), full_text(found)
    for harm in ("<script", "<img src=x", 'onerror="alert', "<iframe", "</style><style", "<link rel"):
        assert harm not in html.lower()
    told = text + explain_text(explain(home / "run", ids[some[0]]))
    assert not {c for c in told if (ord(c) < 32 and c != "\n") or c in "\x9b\u202e\u2066\u200b"}


def test_several_labels_an_item_have_agreement_too(tmp_path):
    from llmal.review.people import crew

    schema = LabelSchema("multi", SCHEMA.labels, False)
    store = open_store(tmp_path / "run")
    try:
        for s in range(12):
            answer(store, s, "fruit", *(["metal"] if s % 2 else []), person="Ann")
            answer(store, s, "fruit", *(["metal"] if s % 2 and s > 3 else []), person="Bob")
        found = crew(store, schema)
    finally:
        store.close()
    assert found["people"][0]["agreement"]["value"] == pytest.approx(10 / 12, abs=1e-5)
    assert 0 < found["alpha"]["value"] < 1
    assert found["disputes"] == 2
