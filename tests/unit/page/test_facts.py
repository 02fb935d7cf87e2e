"""The facts of a report: what counting the store by hand gives, and plain data throughout."""

import json

import numpy as np
import pytest

from llmal.folder import opened
from llmal.page.facts import collect
from llmal.page.plane import placed
from llmal.page.sample import FEWEST, Audited, confusion, risk
from llmal.records import Label, LabelSchema
from llmal.stats.intervals import wilson

SINGLE = LabelSchema("single", (Label(name="a"), Label(name="b")), True)


def audited(truth, said, confidence):
    right = np.array([set(a) == set(b) for a, b in zip(truth, said, strict=True)])
    return Audited(list(range(len(truth))), truth, said, np.array(confidence), right)


def test_two_reports_of_one_state_differ_in_the_date_only(hostile, hostile_folder):
    with opened(hostile_folder) as (pipeline, store, ctx):
        again = collect(pipeline, store, ctx)
    assert again | {"made": ""} == hostile | {"made": ""}


def test_facts_are_plain_data_that_survive_json(hostile):
    assert json.loads(json.dumps(hostile, allow_nan=False)) == hostile
    assert (hostile["format"], hostile["version"]) == ("llmal.report", 1)


def test_no_path_of_this_machine_stands_in_them(hostile, hostile_folder):
    assert hostile["run"] == "run"
    assert str(hostile_folder.parent) not in json.dumps(hostile)


def test_sums_agree_with_each_other(hostile):
    source = hostile["labels"]["source"]
    by_class = {w: sum(c[w] for c in hostile["classes"]) for w in ("human", "llm", "student", "open")}
    assert by_class == {"human": source["human"], "llm": source["llm"], "student": source["student"],
                        "open": source["none"]}  # fmt: skip
    n = hostile["measures"]["student.accuracy"]["n"]
    assert n == hostile["people"]["audit_by_people"] + hostile["people"]["audit_by_gold"]
    assert n == sum(map(sum, hostile["confusion"]["matrix"])) == hostile["risk_coverage"]["points"][-1]["n"]
    assert sum(b["n"] for b in hostile["reliability"]) == n
    value = hostile["measures"]["student.accuracy"]["value"]
    assert hostile["risk_coverage"]["points"][-1]["value"] == pytest.approx(value, abs=1e-6)
    assert hostile["disagreements"]["n"] == round(n * (1 - value))
    assert sum(r["people"] for r in hostile["spending"]["by_round"]) == hostile["people"]["texts"]


def test_disagreements_are_real_ones_the_surest_first(hostile):
    shown = hostile["disagreements"]["shown"]
    sure = [d["confidence"] for d in shown]
    assert sure == sorted(sure, reverse=True)
    assert all(d["people"] != d["student"] for d in shown)


def test_slices_hold_enough_items_and_are_worst_first(hostile):
    worst = hostile["slices"]["worst"]
    assert all(s["n"] >= FEWEST for s in worst)
    assert [s["value"] for s in worst] == sorted(s["value"] for s in worst)
    assert all(s["low"] <= s["value"] <= s["high"] for s in worst)
    assert hostile["slices"]["looked_at"] == len(worst)


def test_the_threshold_of_the_run_is_marked_with_its_own_interval():
    sample = audited([("a",)] * 4, [("a",), ("a",), ("b",), ("b",)], [0.9, 0.8, 0.8, 0.2])
    chosen = risk(sample, 0.8)["threshold"]
    expected = wilson(2, 3)
    assert (chosen["coverage"], chosen["n"]) == (0.75, 3)
    assert chosen["low"] == pytest.approx(expected.low, abs=1e-6)
    assert risk(sample, 0.95)["threshold"] == {"at_least": 0.95, "coverage": 0.0, "n": 0}
    assert risk(sample, None)["threshold"] is None


def test_many_classes_become_a_list_of_the_largest_confusions():
    names = [f"c{i}" for i in range(150)]
    schema = LabelSchema("single", tuple(Label(name=n) for n in names), True)
    truth = [(names[i % 150],) for i in range(300)] + [("c3",)] * 7
    said = [*truth[:300], *[("c9",)] * 7]
    found = confusion(audited(truth, said, [0.5] * 307), schema)
    assert found["pairs"] == [{"people": "c3", "student": "c9", "count": 7, "of": 9}]
    assert found["others"] == 0


def test_several_labels_a_text_become_a_line_a_label():
    schema = SINGLE._replace(kind="multi")
    found = confusion(audited([("a", "b"), (), ("a",)], [("a",), ("b",), ("a",)], [0.5] * 3), schema)
    assert found["labels"] == [
        {"label": "a", "both": 2, "missed": 0, "added": 0},
        {"label": "b", "both": 0, "missed": 1, "added": 1},
    ]


def test_a_class_nobody_gave_is_an_empty_row():
    found = confusion(audited([("a",)] * 3, [("a",)] * 3, [0.5] * 3), SINGLE)
    assert found["matrix"] == [[3, 0], [0, 0]]


def clouds(seed, apart, n=600, d=384):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centres = np.eye(3, d) * apart
    return centres[labels] + rng.normal(0, 1 / np.sqrt(d), (n, d)), labels


def spread(places, labels):
    """Share of the places' variance that lies between the labels' means."""
    means = np.array([places[labels == c].mean(axis=0) for c in range(3)])[labels]
    return float(((means - places.mean(axis=0)) ** 2).sum() / ((places - places.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_map_shows_labels_apart_where_they_are_and_not_where_they_are_drawn_at_random(seed):
    vectors, labels = clouds(seed, apart=1.0)
    assert spread(placed(vectors, labels)[0], labels) > 0.8
    drawn = np.random.default_rng(seed + 100).permutation(labels)
    assert spread(placed(vectors - vectors.mean(axis=0), drawn)[0], drawn) < 0.1
    # Straight from all 384 directions, without the strongest ones first, random labels would look apart.
    noise = np.random.default_rng(seed).normal(size=vectors.shape)
    means = np.array([noise[drawn == c].mean(axis=0) for c in range(3)])
    naive = noise @ np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2][:2].T
    assert spread(naive, drawn) > 0.3
    assert spread(placed(noise, drawn)[0], drawn) < 0.1


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (np.ones((5, 8)), [0, 1, 0, 1, 0]),  # one text over and over
        (np.random.default_rng(0).normal(size=(50, 1)), [0] * 25 + [1] * 25),  # one direction
        (np.random.default_rng(0).normal(size=(50, 8)), [-1] * 50),  # no labels yet
        (np.random.default_rng(0).normal(size=(3, 5000)), [0, 1, 2]),  # wider than many
    ],
)
def test_odd_vectors_have_places_or_none(vectors, labels):
    places, kept = placed(vectors, np.array(labels))
    assert 0 <= kept <= 1
    assert places is None or (places.shape == (len(vectors), 2) and np.isfinite(places).all())
