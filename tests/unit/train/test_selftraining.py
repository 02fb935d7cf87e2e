"""Students that teach another student: what that one is shown in a run, what is kept, shipped and refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from llmal.context import Context
from llmal.corpus import Row, text_key
from llmal.embed import stage as embed
from llmal.embed.hashing import Hashing
from llmal.plugins import build
from llmal.records import Label, LabelSchema
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.train import stage
from llmal.train.curriculum import Curriculum
from llmal.train.hast import Hast
from llmal.train.linear import Linear
from llmal.train.plasm import Plasm
from llmal.train.selftraining import Task, answers, likeliest, part
from llmal.train.stage import Examples, Model, Student, TrainingSet
from llmal.train.targets import Distil

SCHEMA = LabelSchema("single", (Label(name="fruit"), Label(name="tool")), False)
N = 40
TEXTS = [f"{('apple', 'pear', 'plum')[i % 3]} basket {i}" for i in range(N // 2)] + [
    f"{('hammer', 'saw', 'drill')[i % 3]} box {i}" for i in range(N // 2)
]
KNOWN = [0, 1, 2, 20, 21, 22]
AUDIT = [5, 25]
SHOWN = []
ASKED = []


class Reader(Student):
    """Reads texts only: the share of a text's words that it saw with each label. Source: none."""

    def fit(self, examples, schema, rng, ctx):
        SHOWN.append(examples)
        counts = {}
        for text, target, weight in zip(examples.texts, examples.targets, examples.weights, strict=True):
            for word in text.split():
                counts[word] = counts.get(word, 0.1) + weight * target
        return Words(counts)

    def load(self, folder, schema):
        return Words({k: np.array(v) for k, v in lines_of(folder / "words.txt")})


class Words(Model):
    def __init__(self, counts):
        self.counts = counts

    def predict_proba(self, examples):
        ASKED.append(examples)
        each = [sum(self.counts.get(w, np.full(2, 0.1)) for w in text.split()) for text in examples.texts]
        return np.float32([row / row.sum() for row in each])

    def save(self, folder):
        lines = [f"{word} {a} {b}" for word, (a, b) in self.counts.items()]
        (folder / "words.txt").write_text("\n".join(lines))


def lines_of(file):
    for line in file.read_text().splitlines():
        word, *values = line.split()
        yield word, [float(v) for v in values]


@pytest.fixture
def line(tmp_path):
    SHOWN.clear()
    ASKED.clear()
    store = open_store(tmp_path / "run")
    ctx = Context(store.folder, home=tmp_path)
    store.put_corpus("c", "d", [Row(i, f"id{i}", text, None) for i, text in enumerate(TEXTS)], text_key)
    embed.run(Hashing(dim=128), store, ctx)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in AUDIT])
    yield store, ctx
    store.close()


def learn(store, ctx, student):
    labels = [("fruit",) if i < N // 2 else ("tool",) for i in KNOWN]
    pool = tuple(i for i in range(N) if i not in (*KNOWN, *AUDIT))
    data = TrainingSet(KNOWN, labels, ["human"] * len(KNOWN), pool)
    vectors = Hashing(dim=128).recipe()
    given = {"schema": SCHEMA, "data": data, "vectors": vectors, "role": "final", "round_no": 0}
    stage.run(student, store, ctx, **given)
    return stage.student_recipe(student, data, SCHEMA, vectors, ctx)


STUDENTS = [
    Hast(neighbours=4, student=Reader()),
    Curriculum(student=Reader()),
    Plasm(student=Reader(), quality=0.9),
]


@pytest.mark.parametrize("student", STUDENTS, ids=lambda s: s.name)
def test_a_student_that_reads_texts_is_shown_texts_to_learn_from_and_to_answer(student, line):
    store, ctx = line
    name = learn(store, ctx, student)
    assert all(all(given.texts) for given in SHOWN)
    last = ASKED[-1]
    assert last.texts == TEXTS
    assert last.vectors is None
    probs = np.asarray(store.load(name))
    assert (probs.argmax(axis=1) == np.repeat([0, 1], N // 2)).all()


@pytest.mark.parametrize("student", STUDENTS, ids=lambda s: s.name)
def test_its_own_answers_never_replace_a_label_or_reach_the_audit_sample(student, line):
    store, ctx = line
    learn(store, ctx, student)
    assert len(SHOWN[-1].texts) > len(KNOWN)
    for given in SHOWN:
        own = given.texts[len(KNOWN) :]
        assert not {TEXTS[i] for i in (*KNOWN, *AUDIT)} & set(own)
        assert len(set(own)) == len(own)
        assert given.texts[: len(KNOWN)] == [TEXTS[i] for i in KNOWN]


@pytest.mark.parametrize("student", [Hast(), Curriculum(), Plasm()], ids=lambda s: s.name)
def test_what_is_kept_is_what_the_inner_student_keeps(student, line):
    store, ctx = line
    name = learn(store, ctx, student)
    folder = store.folder / store.fact(t.student, name).folder
    assert sorted(file.name for file in folder.iterdir()) == ["head.json", "head.safetensors"]
    again = Linear().load(folder, SCHEMA)
    vectors = np.asarray(store.load(Hashing(dim=128).recipe()))
    probs = again.predict_proba(Examples([""] * N, vectors))
    assert probs == pytest.approx(np.asarray(store.load(name)), abs=1e-6)


def test_ships_as_the_innermost_student():
    inner = Reader()
    assert inner.shipped is inner
    assert Hast(student=inner).shipped == inner
    assert Plasm(student="finetune", teacher="linear").shipped.name == "finetune"


def test_a_file_names_the_inner_student_with_its_options():
    made = build("train", {"use": "hast", "student": {"use": "linear", "balanced": True}, "pool": 100})
    assert made.student == Linear(balanced=True)
    assert made.pool_size == 100
    assert made.to_spec() == {"use": "hast", "student": {"use": "linear", "balanced": True}, "pool": 100}
    assert made.recipe() != build("train", {"use": "hast", "student": "linear", "pool": 100}).recipe()


@pytest.mark.parametrize("place", ["student", "teacher"])
def test_a_self_training_student_does_not_teach_another(place):
    with pytest.raises(ValidationError, match="'hast' learns from texts without a label itself"):
        Plasm(**{place: Hast()})


def test_an_answer_with_several_labels_is_as_sure_as_its_least_sure_label():
    multi = SCHEMA._replace(kind="multi")
    probs = np.float32([[0.9, 0.2], [0.6, 0.99], [0.1, 0.2]])
    assert likeliest(probs, SCHEMA) == pytest.approx([0.9, 0.99, 0.2])
    assert likeliest(probs, multi) == pytest.approx([0.8, 0.6, 0.8])
    assert answers(probs, multi).targets.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert answers(probs[[0, 0, 2]], multi).counts(np.arange(3)).tolist() == [1, 2]


def test_soft_targets_keep_their_parts_beside_answers_that_have_none(line):
    _, ctx = line
    x = np.eye(4, dtype=np.float32)
    soft = np.float32([[0.9, 0.1], [0.2, 0.8]])
    parts = Distil(np.eye(2, dtype=np.float32), soft, np.float32([1, 0.5]), 2.0)
    known = Examples(["a", "b"], x[:2], soft, np.ones(2, np.float32), distil=parts)
    task = Task(known, Examples(["c", "d"], x[2:]), SCHEMA, np.random.default_rng(0), ctx)
    made = task.with_answers(np.array([1]), np.float32([[0, 1]]), np.array([0.5]))
    assert made.texts == ["a", "b", "d"]
    assert made.distil.labels.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert made.distil.share.tolist() == [1, 0.5, 0]
    assert made.distil.probs[2].tolist() == [0, 1]
    assert made.distil.temperature == 2.0
    assert part(made, np.array([2, 0])).distil.share.tolist() == [0, 1]
