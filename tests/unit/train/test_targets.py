"""Soft targets and weights: the annotator's distribution as the options ask; people's answers as given."""

import numpy as np
import pytest

from llmal.context import Context
from llmal.corpus import Row, text_key
from llmal.embed import stage as embed
from llmal.embed.hashing import Hashing
from llmal.errors import SpecError
from llmal.records import Annotation, Decision, Label, LabelSchema
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.train import stage
from llmal.train.linear import Linear
from llmal.train.stage import student_recipe, training_set
from llmal.train.targets import HARD, Targets, likelihood, teach

SCHEMA = LabelSchema("single", (Label(name="a"), Label(name="b"), Label(name="c")), False)
SOFT = Targets(use="soft")


def taught(probs, sure=None, *, how=SOFT, label=0, machine=True, kind="single", classes=3):
    """Targets of one item of the class."""
    labels = np.eye(classes, dtype=np.float32)[[label]]
    return teach(labels, [probs], [sure], np.array([machine]), kind, how)


def row(*args, **options):
    return taught(*args, **options).targets[0].tolist()


def test_the_annotators_distribution_is_the_target():
    assert row((0.5, 0.3, 0.2)) == pytest.approx([0.5, 0.3, 0.2])


def test_mass_the_annotator_gave_to_no_class_goes_to_those_it_did_not_name():
    assert row((0.7, 0.0, 0.0)) == pytest.approx([0.7, 0.15, 0.15])
    assert row((0.6, 0.2, 0.0)) == pytest.approx([0.6, 0.2, 0.2])
    assert row((0.5, 0.2, 0.0, 0.0), classes=4) == pytest.approx([0.5, 0.2, 0.15, 0.15])
    assert row((0.4, 0.2, 0.1)) == pytest.approx([0.5, 0.3, 0.2])  # all are named: to all


def test_the_label_gets_the_probability_of_being_right_and_the_others_keep_their_proportions():
    assert row((0.5, 0.3, 0.2), 0.8) == pytest.approx([0.8, 0.12, 0.08])
    assert row((1.0, 0.0, 0.0), 0.9) == pytest.approx([0.9, 0.05, 0.05])
    assert row(None, 0.9) == pytest.approx([0.9, 0.05, 0.05])
    assert row((0.5, 0.3, 0.2), 1.0) == pytest.approx([1, 0, 0])


def test_nothing_known_is_the_label():
    found = taught(None)
    assert found.targets.tolist() == [[1, 0, 0]]
    assert found.distil is None


@pytest.mark.parametrize("how", [SOFT, Targets(use="soft", share=0.5, weights="confidence")])
def test_people_are_taught_as_they_answered_whatever_a_machine_said(how):
    found = taught((0.1, 0.8, 0.1), 0.2, how=how, machine=False)
    assert found.targets.tolist() == [[1, 0, 0]]
    assert found.weights.tolist() == [1]


def test_the_share_mixes_probabilities_and_label_and_keeps_both():
    found = taught((0.5, 0.3, 0.2), how=Targets(use="soft", share=0.5, temperature=2))
    assert found.targets[0] == pytest.approx([0.75, 0.15, 0.1])
    assert found.distil.labels.tolist() == [[1, 0, 0]]
    assert found.distil.probs[0] == pytest.approx([0.5, 0.3, 0.2])
    assert found.distil.share.tolist() == [0.5]
    assert found.distil.temperature == 2


def test_confidence_weighs_and_an_answer_without_one_weighs_one():
    how = Targets(weights="confidence")
    assert taught(None, 0.75, how=how).weights.tolist() == [0.75]
    assert taught((0.75, 0.25, 0.0), None, how=how).weights.tolist() == [1]
    assert taught(None, 0.75).weights.tolist() == [1]
    assert row((0.5, 0.3, 0.2), 0.75, how=how) == [1, 0, 0]


def test_several_labels_have_probabilities_of_their_own():
    assert row((0.9, 0.4, 0.0), 0.5, kind="multi") == pytest.approx([0.9, 0.4, 0.0])


def test_how_likely_a_label_is_right_is_what_the_filter_calibrated_else_what_the_annotator_measured():
    given = Annotation(0, "ok", ("a",), None, 0.7, "logprobs")
    score = Decision(0, "accept", 0.9, "")
    assert likelihood(given, score, calibrated=True) == 0.9
    assert likelihood(given, score, calibrated=False) == 0.7
    assert likelihood(given, score._replace(score=None), calibrated=True) == 0.7
    stated = given._replace(kind="stated")
    assert likelihood(stated, score, calibrated=False) is None
    assert likelihood(stated, score, calibrated=True) == 0.9


# --- in a run


N = 10


@pytest.fixture
def line(tmp_path):
    """A store with N embedded items: 6 annotated and accepted, of these one answered by a person too."""
    store = open_store(tmp_path / "run")
    ctx = Context(store.folder, home=tmp_path)
    store.put_corpus("c", "d", [Row(i, f"id{i}", f"text number {i}", None) for i in range(N)], text_key)
    embed.run(Hashing(dim=16), store, ctx)
    given = [
        Annotation(i, "ok", ("ab"[i % 2],), (0.6, 0.3, 0.1) if i % 2 == 0 else (0.2, 0.7, 0.1), 0.6, "votes")
        for i in range(6)
    ]
    store.add(t.annotation, annotation_rows("given", given))
    store.add(
        t.decision, [{**Decision(i, "accept", 0.9, "")._asdict(), "recipe": "decided"} for i in range(6)]
    )
    answer = {"person": "p", "note": "", "source": "s", "line": 1, "at": 1.0, "seconds": None}
    store.add(t.answer, [{"n": 1, "item": 3, "labels": '["c"]', **answer}])
    yield store, ctx
    store.close()


def learnt(store, *, calibrated):
    return training_set(store, schema=SCHEMA, annotations="given", decisions="decided", calibrated=calibrated)


def test_the_training_set_holds_distributions_and_calibrated_scores_but_no_machines_word_on_peoples_items(
    line,
):
    store, _ = line
    data = learnt(store, calibrated=True)
    assert data.labels[3] == ("c",)
    assert data.probs[2:5] == [(0.6, 0.3, 0.1), None, (0.6, 0.3, 0.1)]
    assert data.sure[2:5] == [0.9, None, 0.9]
    assert learnt(store, calibrated=False).sure[2] == 0.6
    targets = data.taught(SCHEMA, SOFT).targets
    assert targets[2] == pytest.approx([0.9, 0.075, 0.025])
    assert targets[3].tolist() == [0, 0, 1]


class Onlooker(Linear):
    """Remembers what it was shown."""

    def fit(self, examples, schema, rng, ctx):
        SHOWN.append(examples)
        return super().fit(examples, schema, rng, ctx)


class Distiller(Onlooker):
    distils = True


SHOWN = []


@pytest.mark.parametrize("student", [Onlooker(), Distiller()])
def test_a_run_shows_soft_targets_to_the_student_and_their_parts_to_one_that_distils(line, student):
    store, ctx = line
    SHOWN.clear()
    how = Targets(use="soft", weights="confidence", temperature=2)
    data = learnt(store, calibrated=True)
    given = {"schema": SCHEMA, "data": data, "vectors": Hashing(dim=16).recipe(), "targets": how}
    stage.run(student, store, ctx, role="final", round_no=0, **given)
    assert SHOWN[0].targets[0] == pytest.approx([0.9, 0.075, 0.025])
    assert SHOWN[0].weights == pytest.approx([0.9, 0.9, 0.9, 1, 0.9, 0.9])
    assert (SHOWN[0].distil is not None) == student.distils
    stage.run(student, store, ctx, role="final", round_no=0, **given)
    assert len(SHOWN) == 1  # found again


def test_a_students_name_follows_distributions_and_weights_only_where_it_is_taught_them(line):
    store, ctx = line
    raw, calibrated = (learnt(store, calibrated=c) for c in (False, True))

    def name(student, data, how=HARD):
        return student_recipe(student, data, SCHEMA, "v", ctx, how)

    assert name(Linear(), raw) == name(Linear(), calibrated)
    assert name(Linear(), raw, Targets(temperature=2, share=0.5)) == name(Linear(), raw)
    assert name(Linear(), raw, SOFT) != name(Linear(), calibrated, SOFT) != name(Linear(), raw)
    weighed = Targets(weights="confidence")
    assert name(Linear(), raw, weighed) != name(Linear(), calibrated, weighed) != name(Linear(), raw)
    warm = Targets(use="soft", temperature=2)
    assert name(Linear(), raw, warm) == name(Linear(), raw, SOFT)
    assert name(Distiller(), raw, warm) != name(Distiller(), raw, SOFT)
    bare = raw._replace(probs=[None] * 6, sure=[None] * 6)
    assert name(Linear(), bare, Targets(use="soft", weights="confidence")) == name(Linear(), bare)


FILE = {"corpus": {"path": "x.jsonl"}, "labels": {"names": ["a", "b"]}}


def test_a_pipeline_says_what_is_taught_and_by_default_it_is_the_label():
    assert Pipeline.model_validate(FILE).train.targets == HARD
    said = {"use": "soft", "temperature": 2, "share": 0.5, "weights": "confidence"}
    pipeline = Pipeline.model_validate({**FILE, "train": {"targets": said}})
    assert pipeline.to_spec()["train"] == {"targets": {**said, "temperature": 2.0}}


def test_a_misspelt_option_of_the_targets_is_told_with_its_place(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "corpus: {path: x.jsonl}\nlabels: {names: [a, b]}\ntrain:\n  targets: {use: soft, temprature: 2}\n"
    )
    with pytest.raises(SpecError, match="train.targets.temprature: unknown key; did you mean 'temperature'"):
        Pipeline.from_yaml(file)
