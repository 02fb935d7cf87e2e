"""Class shares from people's answers: right in the long run, and nothing is corrected without a reason."""

import json

import numpy as np
import pytest

import llmal
from llmal.context import Context
from llmal.generation import labelled
from llmal.prior import FEWEST, MOST, class_shares, class_weights
from llmal.spec import Pipeline
from llmal.state import recipes
from llmal.store.store import open_store
from llmal.train.targets import Targets

CONFUSION = np.array([[0.8, 0.2, 0.0], [0.1, 0.85, 0.05], [0.3, 0.0, 0.7]])
SHARES = np.array([0.6, 0.3, 0.1])


def answers(seed, n, shares=SHARES):
    """(n,) right classes, and what an annotator with `CONFUSION` names."""
    rng = np.random.default_rng(seed)
    right = rng.choice(3, n, p=shares)
    return right, (rng.random((n, 1)) > CONFUSION[right].cumsum(axis=1)).sum(axis=1)


def test_shares_of_a_worked_example():
    """Ten checked answers and one assumed right of each class: rows 5+1, 1 | 1, 2+1 of named 8 and 2."""
    given, right = np.array([0] * 6 + [1] * 4), np.array([0] * 5 + [1] + [0] + [1] * 3)
    found = class_shares(given, right, np.array([8.0, 2.0]))
    assert found == pytest.approx([0.8 * 6 / 7 + 0.2 * 1 / 5, 0.8 * 1 / 7 + 0.2 * 4 / 5])


def test_corrected_shares_are_nearer_to_the_truth_than_named_ones():
    """Over 40 seeds with 100 checked answers; and with 20,000 they are the truth."""
    ours, raw = [], []
    for seed in range(40):
        right, given = answers(seed, 1100)
        named = np.bincount(given, minlength=3) / 1100
        truth = np.bincount(right, minlength=3) / 1100
        ours.append(np.abs(class_shares(given[:100], right[:100], named) - truth).sum() / 2)
        raw.append(np.abs(named - truth).sum() / 2)
    assert np.mean(ours) < np.mean(raw) / 2
    right, given = answers(0, 20_000)
    found = class_shares(given, right, np.bincount(given, minlength=3))
    assert found == pytest.approx(SHARES, abs=0.01)


def test_weighted_labels_have_the_corrected_shares_whatever_a_filter_left():
    right, given = answers(1, 1000)
    named, taught = np.bincount(given, minlength=3), np.array([100.0, 300.0, 20.0])
    weights = class_weights(given[:200], right[:200], named, taught)
    assert taught @ weights == pytest.approx(taught.sum())
    assert taught * weights / taught.sum() == pytest.approx(class_shares(given[:200], right[:200], named))


def test_nothing_is_corrected_where_people_contradict_nothing_or_checked_little():
    named, taught = np.array([5.0, 3.0, 2.0]), np.array([3.0, 3.0, 2.0])
    same = np.arange(60) % 3
    assert class_weights(same, same, named, taught).tolist() == [1, 1, 1]
    wrong = (same + (np.arange(60) < 20)) % 3
    assert class_weights(wrong[: FEWEST - 1], same[: FEWEST - 1], named, taught).tolist() == [1, 1, 1]
    assert class_weights(wrong, same, named, taught).tolist() != [1, 1, 1]
    assert class_weights(wrong, same, named, np.zeros(3)).tolist() == [1, 1, 1]


def test_weights_have_bounds_and_a_class_nobody_teaches_is_no_error():
    given, right = np.zeros(60, np.int64), np.repeat([0, 1], 30)
    weights = class_weights(given, right, np.array([99.0, 1.0, 0.0]), np.array([999.0, 1.0, 0.0]))
    assert weights[1] == MOST
    assert np.isfinite(weights).all()


# --- in a run


def prepared(folder, prior):
    """A run whose annotator calls every third metal a fruit, with people's answers as the corpus's gold."""
    rows, said = [], []
    for i in range(300):
        name = ("fruit", "metal")[i % 2]
        word = {"fruit": "apple pear plum", "metal": "iron zinc tin"}[name].split()[i % 3]
        rows.append({"id": str(i), "text": f"{word} note {i}", "label": name})
        said.append({"id": str(i), "label": "fruit" if i % 6 == 1 else name, "sure": 0.9})
    for file, data in (("corpus", rows), ("answers", said)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data))
    return Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
            "labels": {"names": ["fruit", "metal"]},
            "audit": {"size": 90, "annotate": True},
            "rounds": {"max": 1, "size": 150},
            "embed": {"use": "hashing", "dim": 64},
            "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
            "filter": "confidence",
            "train": {"rounds": "linear", "final": "linear", "targets": {"prior": prior}},
        }
    )


def test_a_run_gives_classes_the_shares_that_people_say_they_have(tmp_path):
    made = {prior: prepared(tmp_path, prior) for prior in ("taught", "people")}
    outcome = {p: llmal.run(plan, tmp_path / p, home=tmp_path) for p, plan in made.items()}
    assert outcome["people"].measures["student.macro_f1"]["n"] == 90
    assert llmal.run(made["people"], tmp_path / "people", home=tmp_path).facts_added == 0
    store = open_store(tmp_path / "people")
    plan = made["people"]
    schema, ctx = plan.label_schema(), Context(store.folder, home=tmp_path, seed=plan.seed)
    names = recipes(plan, ctx, store)
    plain = recipes(made["taught"], ctx, store)
    assert names.student != plain.student
    assert names.decisions == plain.decisions
    data = labelled(plan, store, names.annotations, names.decisions)
    taught = data.taught(schema, plan.train.targets)
    shares = taught.weights @ taught.targets / taught.weights.sum()
    raw = taught.targets.mean(axis=0)
    assert raw[0] > 0.6
    assert shares[0] == pytest.approx(0.5, abs=0.06)
    assert (data.taught(schema, Targets()).weights == 1).all()
    human = data._replace(sources=["human"] * len(data.items))
    assert (human.taught(schema, plan.train.targets).weights == 1).all(), "people's answers were weighted"
    store.close()


def test_without_answers_about_the_audit_nothing_is_weighted(tmp_path):
    plan = prepared(tmp_path, "people")
    quiet = plan.model_copy(update={"audit": plan.audit.model_copy(update={"annotate": False})})
    llmal.run(quiet, tmp_path / "run", home=tmp_path)
    store = open_store(tmp_path / "run")
    ctx = Context(store.folder, home=tmp_path, seed=plan.seed)
    taught = quiet.model_copy(update={"train": prepared(tmp_path, "taught").train})
    assert recipes(quiet, ctx, store).student == recipes(taught, ctx, store).student
    store.close()
