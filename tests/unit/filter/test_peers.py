"""Filters that judge labels beside one another: they find wrong ones, and the audit teaches them nothing."""

import json

import numpy as np
import pytest

import llmal
from llmal.clean import FEWEST, INVALID
from llmal.errors import SpecError
from llmal.filter import agreement
from llmal.filter import peers as peers_of_filters
from llmal.filter.agreement import Agreement
from llmal.filter.all_of import All
from llmal.filter.confidence import Confidence
from llmal.filter.confident import Confident, cutoffs, doubtful, joint
from llmal.filter.peers import Crowd
from llmal.filter.small_loss import SmallLoss
from llmal.filter.stage import NOTHING, Evidence, Peers, decision_recipe, evidence_for
from llmal.plugins import build
from llmal.records import Annotation, Decision, Label, LabelSchema, recipe
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store

NAMES = ("ask", "buy", "cry")
SCHEMA = LabelSchema("single", tuple(Label(name=n) for n in NAMES), True)
FILTERS = [SmallLoss(), Confident(), Agreement()]
by_name = pytest.mark.parametrize("judge", FILTERS, ids=lambda one: one.name)


def texts(seed, n=600, noise=0.2, d=24, spread=0.9, classes=3):
    """Unit vectors around C centres, their classes, and labels wrong at a rate that differs by class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    x = rng.normal(size=(classes, d))[truth] + spread * rng.normal(size=(n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    wrong = rng.random(n) < noise * (0.5 + truth / (classes - 1))
    return x, truth, np.where(wrong, (truth + rng.integers(1, classes, n)) % classes, truth)


def peers(x, labels, reserved=()):
    said = tuple(Annotation(i, "ok", (NAMES[c],)) for i, c in enumerate(labels))
    name = recipe("peers", [a.labels for a in said], sorted(reserved))
    return Peers(name, said, frozenset(reserved), lambda: x)


def decided(judge, x, labels, reserved=()):
    there = peers(x, labels, reserved)
    return judge.decide(list(there.annotations), SCHEMA, Evidence(peers=there))


def held(judge, x, labels, reserved=()):
    return np.array([d.verdict != "accept" for d in decided(judge, x, labels, reserved)])


# --- finding wrong labels


@by_name
def test_what_is_held_is_wrong_far_more_often_than_what_is_accepted(judge):
    """Over seeds, at noise that differs by class: most of the held labels are wrong, few of the others."""
    found = []
    for seed in range(8):
        x, truth, labels = texts(seed)
        doubt, wrong = held(judge, x, labels), labels != truth
        found.append([wrong[doubt].mean(), wrong[~doubt].mean(), wrong.mean()])
    precision, left, before = np.mean(found, axis=0)
    assert 0.17 < before < 0.23
    assert precision > 0.7
    assert left < before / 2


@by_name
def test_the_measure_finds_a_filter_that_learns_nothing(judge):
    """Power: with vectors that have nothing to do with the texts no filter could pass the check above."""
    x, truth, labels = texts(0)
    doubt, wrong = held(judge, np.random.default_rng(1).permutation(x), labels), labels != truth
    assert not doubt.any() or wrong[doubt].mean() < 0.5


@by_name
def test_right_labels_are_nearly_all_accepted(judge):
    x, truth, _ = texts(3, spread=0.4)
    assert held(judge, x, truth).mean() < 0.01


@by_name
def test_scores_tell_wrong_labels_and_reasons_tell_the_scores(judge):
    from sklearn.metrics import roc_auc_score

    x, truth, labels = texts(2)
    made = decided(judge, x, labels)
    assert roc_auc_score(labels == truth, [d.score for d in made]) > 0.85
    assert all(0 <= d.score <= 1 for d in made)
    assert len({d.reason for d in made}) > 5


def test_a_moved_bar_needs_no_new_student():
    """Verdicts under another bar follow from the scores that were kept."""
    x, _, labels = texts(1)
    before, after = decided(Agreement(), x, labels), decided(Agreement(lift=2.5), x, labels)
    assert [d.score for d in before] == [d.score for d in after]
    assert [d.score >= 2.5 / 3 for d in before] == [d.verdict == "accept" for d in after]
    assert [d.verdict for d in before] != [d.verdict for d in after]
    before, after = (decided(SmallLoss(clean=bar), x, labels) for bar in (0.7, 0.01))
    assert [d.score for d in before] == [d.score for d in after]
    moved = [a.score > 0.01 or b.verdict == "accept" for b, a in zip(before, after, strict=True)]
    assert moved == [d.verdict == "accept" for d in after]
    assert [d.verdict for d in before] != [d.verdict for d in after]


# --- what is refused, and what is not known


@by_name
def test_an_answer_without_a_label_and_one_without_vectors_are_held(judge):
    made = judge.decide([Annotation(0, "refused"), Annotation(1, "ok", ("ask",))], SCHEMA, NOTHING)
    assert [d.verdict for d in made] == ["hold", "hold"]
    assert made[0].reason == "the model refused"
    assert "no vectors" in made[1].reason


@by_name
def test_too_few_answers_and_a_single_class_are_held_and_the_reason_says_so(judge):
    x, truth, _ = texts(0, n=FEWEST + 1)
    few = decided(judge, x[:-2], truth[:-2])
    assert {d.verdict for d in few} == {"hold"}
    assert "29 answers of 3 classes" in few[0].reason
    one = decided(judge, x, np.zeros_like(truth))
    assert {d.verdict for d in one} == {"hold"}
    assert "of 1 classes" in one[0].reason
    assert "accept" in {d.verdict for d in decided(judge, x, truth)}
    reserved = decided(judge, x, truth, reserved=(0, 1))
    assert "29 answers" in reserved[0].reason, "the audit's items were counted"


@by_name
def test_several_labels_an_item_are_refused_in_one_sentence_before_anything_is_asked(judge):
    multi = SCHEMA._replace(kind="multi")
    with pytest.raises(SpecError, match=f"filter: {judge.name} is for labels.kind: single; use"):
        judge.decide([], multi)
    with pytest.raises(SpecError, match="filter: all is for labels.kind: single"):
        All(of=("confidence", judge)).refuse_other_kinds(multi)
    All(of=("confidence", "calibrated")).refuse_other_kinds(multi)


@by_name
def test_items_of_the_audit_are_judged_and_teach_nothing(judge):
    """Whatever is said of them, nobody else's decision moves; and wrong answers about them are found."""
    x, truth, labels = texts(4)
    audit = list(range(0, 600, 6))
    rest = np.setdiff1d(np.arange(600), audit)
    before = decided(judge, x, labels, audit)
    other = labels.copy()
    other[audit] = (truth[audit] + 1) % 3
    after = decided(judge, x, other, audit)
    assert [before[i] for i in rest] == [after[i] for i in rest]
    assert np.mean([after[i].verdict != "accept" for i in audit]) > 0.5
    assert np.mean([before[i].verdict == "accept" for i in audit if labels[i] == truth[i]]) > 0.7
    free = decided(judge, x, other)
    assert [before[i] for i in rest] != [free[i] for i in rest], "the check cannot fail"


# --- agreement


def test_shares_are_those_of_the_nearest_others_written_out(monkeypatch):
    x, _, labels = texts(5, n=90)
    taught = np.where(np.arange(90) % 7 == 0, INVALID, labels)
    monkeypatch.setattr(agreement, "ROWS", 32)
    found = Agreement(neighbours=9, lift=1.2).weigh(Crowd(lambda: x, labels, taught, list(NAMES)))
    size = {c: int((taught == c).sum()) for c in range(3)}
    for i in range(90):
        others = [j for j in range(90) if j != i and taught[j] != INVALID]
        near = sorted(others, key=lambda j: -float(x[i] @ x[j]))[:9]
        votes = [sum(labels[j] == c for j in near) / size[c] for c in range(3)]
        assert found.score[i] == pytest.approx(votes[labels[i]] / sum(votes))
        assert found.clean[i] == (found.score[i] >= 0.4)
    assert "of its 9 neighbours" in found.why[0]
    strict = Agreement(neighbours=9, lift=9).weigh(Crowd(lambda: x, labels, taught, list(NAMES)))
    assert (strict.clean == (found.score > 1 - 1e-9)).all(), "the bar is never higher than all of them"


def test_labels_of_a_small_class_are_not_held_for_being_few():
    """One class in eight texts, somewhat mixed with the others: few of its right labels are held."""
    found = []
    for seed in range(8):
        x, truth, _ = texts(seed, n=900, spread=1.5)
        few = np.flatnonzero((truth != 2) | (np.random.default_rng(seed).random(900) < 0.25))
        found.append(held(Agreement(), x[few], truth[few])[truth[few] == 2].mean())
    assert np.mean(found) < 0.1


def test_neighbours_are_looked_for_among_a_sample_where_there_are_many(monkeypatch):
    x, truth, labels = texts(6)
    monkeypatch.setattr(agreement, "MOST", 200)
    doubt, wrong = held(Agreement(), x, labels), labels != truth
    assert wrong[doubt].mean() > 0.6
    assert decided(Agreement(), x, labels) == decided(Agreement(), x, labels)


# --- confident learning


GIVEN = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0])
PROBS = np.array(
    [(.9, .05, .05), (.8, .1, .1), (.1, .8, .1), (.1, .8, .1), (.2, .7, .1), (.6, .3, .1), (.1, .1, .8),
     (.05, .05, .9), (.3, .5, .2), (.5, .2, .3)]
)  # fmt: skip


def test_thresholds_joint_and_issues_of_a_worked_example():
    """Ten rows counted by hand, and by cleanlab."""
    found = joint(PROBS, GIVEN)
    assert found.thresholds == pytest.approx([0.575, 0.6, 0.633333], abs=1e-5)
    assert found.counts.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 2]]
    assert np.flatnonzero(doubtful(PROBS, GIVEN, cutoffs(PROBS, GIVEN, found.wrong))).tolist() == [2, 5]


def test_labels_that_are_all_believed_have_no_issue():
    sure = np.eye(3)[GIVEN]
    found = joint(sure, GIVEN)
    assert not found.wrong.any()
    assert not doubtful(sure, GIVEN, cutoffs(sure, GIVEN, found.wrong)).any()


def test_labels_of_a_class_with_few_answers_are_not_judged():
    x, truth, labels = texts(7)
    labels[labels == 2] = 1
    labels[np.flatnonzero(truth == 0)[:4]] = 2
    assert not held(Confident(), x, labels)[labels == 2].any()
    assert held(Confident(rare=1), x, labels)[labels == 2].any()


def test_a_second_student_takes_right_labels_back_and_leaves_no_more_wrong_ones():
    """Over seeds, of what is accepted: more right labels, and hardly a larger share of wrong ones."""
    gains = []
    for seed in range(4):
        x, truth, labels = texts(seed, noise=0.3, spread=1.2)
        right = labels == truth
        one, two = (~held(Confident(again=again), x, labels) for again in (False, True))
        gains.append(
            [(two & right).mean() - (one & right).mean(), (~right)[two].mean() - (~right)[one].mean()]
        )
    more, worse = np.mean(gains, axis=0)
    assert more > 0.01
    assert worse < 0.02


# --- several filters


class Says(Confidence):
    """Gives one verdict to everything. Source: none."""

    verdict: str = "accept"
    score: float | None = 0.4

    def decide(self, annotations, schema, evidence=NOTHING):
        return [Decision(a.item, self.verdict, self.score, f"because {self.verdict}") for a in annotations]


def test_all_accept_or_none_does_and_the_one_that_refused_has_the_word():
    yes, no, out = Says(), Says(verdict="hold", score=0.1), Says(verdict="drop", score=0.2)
    asked = [Annotation(7, "ok", ("ask",))]
    made = {
        names: All(of=of).decide(asked, SCHEMA)[0]
        for names, of in {"yy": (Says(score=None), yes), "yn": (yes, no), "ndy": (no, out, yes)}.items()
    }
    assert (made["yy"].verdict, made["yy"].score) == ("accept", 0.4)
    assert made["yy"].reason.count("because accept") == 2
    assert (made["yn"].verdict, made["yn"].score) == ("hold", 0.1)
    assert (made["ndy"].verdict, made["ndy"].score, made["ndy"].item) == ("drop", 0.2, 7)


def test_all_needs_what_its_filters_need_and_says_so_in_a_file():
    judge = build("filter", {"use": "all", "of": ["calibrated", {"use": "agreement", "lift": 1.5}]})
    assert judge.uses == {"people", "peers"}
    assert judge.of[1].lift == 1.5
    assert build("filter", judge.to_spec()) == judge
    assert All(of=("confidence", Confidence())).uses == frozenset()
    assert judge.recipe() != build("filter", {"use": "all", "of": ["calibrated", "agreement"]}).recipe()


# --- in a run


TOPICS = {"fruit": "apple pear plum cherry grape melon", "metal": "iron copper zinc silver gold tin"}
EVERY = {"use": "all", "of": [{"use": "confidence", "at_least": 0.5}, "small-loss"]}


def pipeline(folder, judge, n=400, **changes):
    rows, said = [], []
    for i in range(n):
        name, other = (list(TOPICS) if i % 2 else list(TOPICS)[::-1])[:2]
        words = TOPICS[name].split()
        rows.append({"id": str(i), "text": f"{words[i % 6]} {words[i % 5]} note {i}", "label": name})
        said.append({"id": str(i), "label": other if i % 8 == 3 else name, "sure": 0.9 if i % 5 else 0.3})
    for file, data in (("corpus", rows), ("answers", said)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")
    return Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
            "labels": {"names": list(TOPICS)},
            "audit": {"size": 40, "annotate": True},
            "rounds": {"max": 3, "size": 60},
            "embed": {"use": "hashing", "dim": 256},
            "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
            "train": {"rounds": "linear", "final": "linear"},
            "filter": judge,
            **changes,
        }
    )


def test_decisions_are_named_by_answers_audit_and_vectors_which_are_read_only_to_decide(
    tmp_path,
):
    def named(**changes):
        given = {"schema": SCHEMA, "annotations": "a", "vectors": "v", **changes}
        return evidence_for(Agreement(), store, **given).peers

    store = open_store(tmp_path / "run")  # it holds no vectors: none are read here
    said = [Annotation(i, "ok", ("ask",)) for i in range(3)] + [Annotation(3, "refused")]
    for name, labels in (("a", ("ask",)), ("b", ("buy",)), ("c", ("ask",))):
        store.add(t.annotation, annotation_rows(name, [said[0]._replace(labels=labels), *said[1:]]))
    first = named()
    assert [a.item for a in first.annotations] == [0, 1, 2]
    assert named(annotations="b").name != first.name, "another label"
    assert named(annotations="c").name == first.name
    assert named(vectors="w").name != first.name
    store.add(t.audit, [{"item": 9, "at": 0.0}])
    assert named().name == first.name, "an item of the audit that nobody was asked about"
    store.add(t.audit, [{"item": 1, "at": 0.0}])
    assert named().name != first.name
    assert named().reserved == {1}
    before = decision_recipe(Agreement(), store, schema=SCHEMA, annotations="a", vectors="v")
    store.add(t.annotation, annotation_rows("a", [Annotation(7, "ok", ("cry",))]))
    assert decision_recipe(Agreement(), store, schema=SCHEMA, annotations="a", vectors="v") != before
    assert evidence_for(Confidence(), store, schema=SCHEMA, annotations="a", vectors="v") == NOTHING
    store.close()


@pytest.mark.parametrize("judge", ["small-loss", "confident", "agreement", EVERY], ids=str)
def test_a_finished_run_run_again_adds_nothing_and_one_cut_between_rounds_ends_alike(tmp_path, judge):
    plan = pipeline(tmp_path, judge)
    whole = llmal.run(plan, tmp_path / "whole", home=tmp_path)
    assert whole.labels["verdict"]["hold"] > 0
    assert whole.measures["student.accuracy"]["value"] > 0.9
    assert "annotator.calibrated_ece" not in whole.measures, "its scores are no probability of being right"
    again = llmal.run(plan, tmp_path / "whole", home=tmp_path)
    assert (again.facts_added, again.labels, again.measures) == (0, whole.labels, whole.measures)
    for rounds in (1, 2):
        llmal.run(plan, tmp_path / "cut", home=tmp_path, rounds=rounds, until="filter")
    llmal.run(plan, tmp_path / "cut", home=tmp_path, until="annotate")
    cut = llmal.run(plan, tmp_path / "cut", home=tmp_path)
    assert (cut.labels, cut.measures) == (whole.labels, whole.measures)


def test_the_student_of_a_run_learns_fewer_wrong_labels(tmp_path):
    from llmal.context import Context
    from llmal.state import recipes

    shares = {}
    for name in ("confidence", "small-loss"):
        judge = {"use": "confidence", "at_least": 0.0} if name == "confidence" else name
        plan = pipeline(tmp_path, judge)
        llmal.run(plan, tmp_path / name, home=tmp_path)
        store = open_store(tmp_path / name)
        ctx = Context(store.folder, home=tmp_path, seed=plan.seed)
        names = recipes(plan, ctx, store)
        taught = {s for s, d in store.decisions(names.decisions).items() if d.verdict == "accept"}
        taught -= set(store.audit())
        gold, given = store.gold(), store.annotations(names.annotations)
        shares[name] = np.mean([given[s].labels != gold[s] for s in taught])
        store.close()
    assert shares["small-loss"] < shares["confidence"] / 3


def test_a_file_that_asks_for_several_labels_is_refused_before_anything_is_asked(tmp_path):
    plan = pipeline(tmp_path, "small-loss", labels={"names": list(TOPICS), "kind": "multi"})
    with pytest.raises(SpecError, match="small-loss is for labels.kind: single"):
        llmal.run(plan, tmp_path / "run", home=tmp_path)


def test_a_moved_threshold_in_a_run_fits_no_student_and_reads_no_vectors(tmp_path, monkeypatch):
    """What the student said is kept with the run: another bar, or another filter, finds it there."""
    fitted = []
    real = peers_of_filters.cross_fitted
    monkeypatch.setattr(peers_of_filters, "cross_fitted", lambda *a, **k: fitted.append(1) or real(*a, **k))
    llmal.run(pipeline(tmp_path, "small-loss"), tmp_path / "run", home=tmp_path)
    first = len(fitted)
    assert first > 0
    moved = [
        llmal.run(pipeline(tmp_path, judge), tmp_path / "run", home=tmp_path, until="filter").labels[
            "verdict"
        ]
        for judge in ({"use": "small-loss", "clean": 0.01}, {"use": "confident", "again": False})
    ]
    assert len(fitted) == first
    assert moved[0] != moved[1]
