"""Any estimator as a student, any student as an estimator: weights, missing classes, and no pickle."""

import json
import sys
import textwrap

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import llmal
from llmal.context import Context, Silent
from llmal.embed.hashing import Hashing
from llmal.errors import MissingExtra, ModelError, UserError
from llmal.export.stage import Parcel, write
from llmal.export.transformers import Transformers
from llmal.plugins import build
from llmal.records import Label, LabelSchema
from llmal.testing.contracts import StudentContract
from llmal.testing.contracts.plugin import check_no_pickle
from llmal.testing.contracts.ship import FACTS
from llmal.train.adapter import as_estimator
from llmal.train.estimator import Estimator
from llmal.train.linear import Linear
from llmal.train.stage import Examples

LOGISTIC = "sklearn.linear_model:LogisticRegression"
FOREST = "sklearn.ensemble:RandomForestClassifier"
TREE = "sklearn.tree._tree.Tree"
COLOURS = {"red": "rose ruby rust", "green": "grass leaf lime", "blue": "sky sea ink"}
THREE = LabelSchema("single", tuple(Label(name=name) for name in COLOURS), False)
MULTI = THREE._replace(kind="multi")
EYE = np.eye(3, dtype=np.float32)


class Said(Silent):
    """Remembers the lines."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def ctx(tmp_path):
    return Context(tmp_path, home=tmp_path, progress=Said())


def rng(seed=0):
    return np.random.default_rng(seed)


def noisy(n=60, classes=3, seed=0):
    """Overlapping classes: vectors, class of each row."""
    draw = rng(seed)
    y = np.arange(n) % classes
    x = draw.normal(size=(classes, 8))[y] * 0.7 + draw.normal(size=(n, 8))
    return x.astype(np.float32), y


def data(x, targets, weights=None):
    weights = np.ones(len(targets), np.float32) if weights is None else np.asarray(weights, np.float32)
    return Examples([""] * len(x), x, np.asarray(targets, np.float32), weights)


def asked(x):
    return Examples([""] * len(x), x)


# --- an estimator as a student


def test_the_student_is_the_estimator(ctx):
    x, y = noisy()
    model = Estimator(make=LOGISTIC, options={"C": 3.0}).fit(data(x, EYE[y]), THREE, rng(), ctx)
    assert model.predict_proba(asked(x)) == pytest.approx(
        LogisticRegression(C=3.0).fit(x, y).predict_proba(x)
    )


def test_weights_and_soft_targets_are_weighted_rows(ctx):
    x, y = noisy(20)
    soft, w = 0.7 * EYE[y] + 0.1, rng().uniform(0.5, 2, 20)
    model = Estimator(make=LOGISTIC).fit(data(x, soft, w), THREE, rng(), ctx)
    reference = LogisticRegression().fit(
        np.repeat(x, 3, axis=0), np.tile([0, 1, 2], 20), (soft * w[:, None]).ravel()
    )
    assert model.predict_proba(asked(x)) == pytest.approx(reference.predict_proba(x), abs=1e-5)
    assert ctx.progress.lines == []


def test_without_weights_the_likeliest_label_is_taught_and_said(ctx):
    x, y = noisy(20)
    student = Estimator(make="sklearn.neighbors:KNeighborsClassifier", trusted=ALSO_OF_NEIGHBOURS)
    model = student.fit(data(x, 0.7 * EYE[y] + 0.1), THREE, rng(), ctx)
    assert (
        model.predict_proba(asked(x)) == KNeighborsClassifier().fit(x, y).predict_proba(x).astype(np.float32)
    ).all()
    assert len(ctx.progress.lines) == 1
    assert "takes no weights" in ctx.progress.lines[0]


ALSO_OF_NEIGHBOURS = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
)


@pytest.mark.parametrize("seen", [[0, 2], [1]])
def test_a_class_never_seen_gets_nothing(seen, ctx, tmp_path):
    x, _ = noisy(12)
    y = np.array(seen)[np.arange(12) % len(seen)]
    model = Estimator(make=LOGISTIC).fit(data(x, EYE[y]), THREE, rng(), ctx)
    probs = model.predict_proba(asked(x))
    assert probs[:, [c for c in range(3) if c not in seen]].max() == 0
    assert probs.sum(axis=1) == pytest.approx(np.ones(12), abs=1e-6)
    model.save(tmp_path)
    again = Estimator(make=LOGISTIC).load(tmp_path, THREE)
    assert (again.predict_proba(asked(x)) == probs).all()


def test_several_labels_are_one_estimator_each(ctx, tmp_path):
    x, y = noisy(40)
    targets = EYE[y] + EYE[(y + (x[:, 0] > 0)) % 3] > 0
    targets = targets.astype(np.float32)
    model = Estimator(make=LOGISTIC).fit(data(x, targets), MULTI, rng(), ctx)
    wanted = [LogisticRegression().fit(x, column).predict_proba(x)[:, 1] for column in targets.T]
    assert model.predict_proba(asked(x)) == pytest.approx(np.stack(wanted, axis=1), abs=1e-6)
    model.save(tmp_path)
    assert (
        Estimator(make=LOGISTIC).load(tmp_path, MULTI).predict_proba(asked(x))
        == model.predict_proba(asked(x))
    ).all()


def words(name="tfidf_words", **options):
    """The user's own module of `own` below, reading texts."""
    return Estimator(make=f"{name}:make", reads="texts", options=options)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, beside the pipeline file."""

    def module(name, body):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(body))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return module


TFIDF = """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def make(c=1.0):
        return make_pipeline(TfidfVectorizer(), LogisticRegression(C=c))
"""


def test_a_pipeline_of_the_users_reads_texts_with_weights(own, ctx, tmp_path):
    student = words(own("tfidf_words", TFIDF), c=5.0)
    texts = [" ".join(w.split()[i : i + 2]) for w in COLOURS.values() for i in (0, 1, 2)]
    y, w = np.repeat([0, 1, 2], 3), np.float32([1, 2, 3] * 3)
    model = student.fit(Examples(texts, None, EYE[y], w), THREE, rng(), ctx)
    reference = make_pipeline(TfidfVectorizer(), LogisticRegression(C=5.0))
    reference.fit(texts, y, logisticregression__sample_weight=w)
    assert model.predict_proba(Examples(texts, None)) == pytest.approx(reference.predict_proba(texts))
    assert not student.uses_vectors
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    again = student.load(tmp_path / "kept", THREE).predict_proba(Examples(texts, None))
    assert (again == model.predict_proba(Examples(texts, None))).all()


def test_named_in_a_pipeline_file_with_its_module_beside_it(own, tmp_path):
    name = own("words_beside", TFIDF)
    sys.path.remove(str(tmp_path))
    file = tmp_path / "run.yaml"
    file.write_text(
        "corpus: {path: texts.jsonl}\nlabels: {names: [a, b]}\n"
        f"train:\n  rounds: {{use: estimator, make: '{name}:make', reads: texts, options: {{c: 2}}}}\n"
        f"  final: {{use: estimator, make: '{LOGISTIC}'}}\n"
    )
    sys.modules.pop(name, None)
    spec = llmal.Pipeline.from_yaml(file).train
    assert spec.rounds == build("train", {"use": "estimator", "make": f"{name}:make", "reads": "texts",
                                          "options": {"c": 2}})  # fmt: skip
    assert spec.final.uses_vectors


class TestForest(StudentContract):
    """A forest draws from numpy's global generator, and holds a type skops does not trust by itself."""

    def plugin(self):
        return Estimator(make=FOREST, options={"n_estimators": 8}, trusted=(TREE,))


class TestTexts(StudentContract):
    """TF-IDF and a logistic regression, reading texts."""

    def plugin(self):
        return Estimator(make=f"{__name__}:tfidf", reads="texts")


def tfidf():
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=100))


# --- what cannot be a student


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("no_such_module:make", "cannot import"),
        ("sklearn.linear_model:NoSuch", "cannot import"),
        ("sklearn.linear_model", "should match pattern"),
        ("sys:maxsize", "is no function and no class"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_when_the_file_is_read(make, words):
    with pytest.raises(ValidationError, match=words):
        Estimator(make=make)


def test_one_without_probabilities_is_told(ctx):
    x, y = noisy(12)
    with pytest.raises(UserError, match="LinearSVC, which has no predict_proba"):
        Estimator(make="sklearn.svm:LinearSVC").fit(data(x, EYE[y]), THREE, rng(), ctx)


def test_one_that_fails_is_one_sentence(ctx):
    x, y = noisy(12)
    with pytest.raises(UserError, match="the classifier of '.*' failed: InvalidParameterError"):
        Estimator(make=LOGISTIC, options={"C": -1}).fit(data(x, EYE[y]), THREE, rng(), ctx)


def test_the_recipe_follows_what_is_made_and_not_what_is_trusted():
    plain = Estimator(make=FOREST)
    assert plain.recipe() == Estimator(make=FOREST, trusted=(TREE,)).recipe()
    assert plain.recipe() != Estimator(make=FOREST, options={"n_estimators": 5}).recipe()
    assert plain.recipe() != Estimator(make=LOGISTIC).recipe()


# --- kept without pickle


def fitted(student, ctx):
    x, y = noisy(30)
    return student.fit(data(x, EYE[y]), THREE, rng(), ctx), x


def test_types_that_skops_does_not_trust_are_named(ctx, tmp_path):
    model, _ = fitted(Estimator(make=FOREST), ctx)
    with pytest.raises(UserError, match=rf"write trusted: \[{TREE}\]"):
        model.save(tmp_path)


def test_what_is_kept_is_json_and_arrays(ctx, tmp_path):
    model, x = fitted(Estimator(make=FOREST, options={"n_estimators": 3}, trusted=(TREE,)), ctx)
    model.save(tmp_path)
    check_no_pickle(tmp_path)
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} == {".json", ".npy"}
    again = Estimator(make=FOREST, trusted=(TREE,)).load(tmp_path, THREE)
    assert (again.predict_proba(asked(x)) == model.predict_proba(asked(x))).all()
    with pytest.raises(ModelError, match="Untrusted types"):
        Estimator(make=FOREST).load(tmp_path, THREE)


def test_a_file_that_names_a_function_to_run_is_refused(ctx, tmp_path):
    model, _ = fitted(Estimator(make=LOGISTIC), ctx)
    model.save(tmp_path)
    schema = next(tmp_path.rglob("schema.json"))
    held = json.loads(schema.read_text())
    held |= {"__class__": "system", "__module__": "os"}
    schema.write_text(json.dumps(held))
    with pytest.raises(ModelError, match="system"):
        Estimator(make=LOGISTIC).load(tmp_path, THREE)


def test_a_file_cut_short_is_one_sentence(ctx, tmp_path):
    model, _ = fitted(Estimator(make=LOGISTIC), ctx)
    model.save(tmp_path)
    schema = next(tmp_path.rglob("schema.json"))
    schema.write_text(schema.read_text()[:50])
    with pytest.raises(ModelError, match="cannot read the estimator"):
        Estimator(make=LOGISTIC).load(tmp_path, THREE)


OWN = """
    import json
    from pathlib import Path
    import numpy as np

    class Majority:
        rule = staticmethod(lambda x: x)  # nothing skops could keep

        def fit(self, X, y):
            self.classes_, n = np.unique(y, return_counts=True)
            self.share = (n / n.sum()).tolist()
            return self

        def predict_proba(self, X):
            return np.tile(self.share, (len(X), 1))

        def save(self, folder):
            Path(folder, "share.json").write_text(json.dumps(self.share))

        def load(self, folder):
            self.share = json.loads(Path(folder, "share.json").read_text())
"""


def test_an_estimator_that_saves_itself_does_so(own, ctx, tmp_path):
    student = Estimator(make=f"{own('saves_itself', OWN)}:Majority")
    x, _ = noisy(10)
    y = np.array([0] * 7 + [2] * 3)
    model = student.fit(data(x, EYE[y]), THREE, rng(), ctx)
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    assert (tmp_path / "kept" / "part-0" / "share.json").is_file()
    again = student.load(tmp_path / "kept", THREE)
    assert again.predict_proba(asked(x[:1])) == pytest.approx(np.array([[0.7, 0.0, 0.3]]))


def test_pickles_beside_it_are_refused(own, ctx, tmp_path):
    student = Estimator(make=f"{own('saves_itself_too', OWN)}:Majority")
    model, _ = fitted(student, ctx)
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    (tmp_path / "kept" / "part-0" / "more.pkl").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"more\.pkl is a pickle"):
        student.load(tmp_path / "kept", THREE)


def test_without_skops_the_pip_line_is_told(ctx, tmp_path, monkeypatch):
    import importlib.util

    model, _ = fitted(Estimator(make=LOGISTIC), ctx)
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "skops" else there(name, *more)
    )
    with pytest.raises(MissingExtra, match=r"llmal\[skops\]"):
        model.save(tmp_path)


# --- shipped


def parcel_of(model, folder, encoder):
    folder.mkdir()
    model.save(folder)
    return Parcel(folder, "estimator", encoder, THREE, 0.9, None, FACTS)


@pytest.mark.parametrize("reads", ["vectors", "texts"])
def test_ships_with_what_it_reads(reads, ctx, tmp_path):
    encoder, texts = Hashing(dim=64), [w for words in COLOURS.values() for w in words.split()]
    student = Estimator(make=f"{__name__}:tfidf" if reads == "texts" else LOGISTIC, reads=reads)
    given = Examples(texts, encoder.encode(texts), np.repeat(EYE, 3, axis=0), np.ones(9, np.float32))
    model = student.fit(given, THREE, rng(), ctx)
    write(Transformers(), parcel_of(model, tmp_path / "student", encoder), tmp_path / "out")
    check_no_pickle(tmp_path / "out")
    loaded = llmal.load(tmp_path / "out")
    assert loaded.predict_proba(texts) == pytest.approx(model.predict_proba(given), abs=1e-6)
    assert loaded.predict(["rose", "sky"]) == ["red", "blue"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'library_name: "sklearn"' in card
    assert "Without llmal" not in card


@pytest.mark.parametrize("kind", ["tree", "own"])
def test_what_others_could_not_read_is_not_shipped(kind, ctx, tmp_path, monkeypatch):
    tree = Estimator(make=FOREST, options={"n_estimators": 2}, trusted=(TREE,))
    model, _ = fitted(tree if kind == "tree" else Estimator(make=LOGISTIC), ctx)
    if kind == "own":
        monkeypatch.setattr(LogisticRegression, "save", lambda self, folder: None, raising=False)
        monkeypatch.setattr(LogisticRegression, "load", lambda self, folder: self, raising=False)
    parcel = parcel_of(model, tmp_path / "student", Hashing())
    with pytest.raises(UserError, match="this estimator cannot be shipped"):
        write(Transformers(), parcel, tmp_path / "out")


def test_an_export_cannot_say_whom_to_trust(ctx, tmp_path):
    model, _ = fitted(Estimator(make=LOGISTIC), ctx)
    write(Transformers(), parcel_of(model, tmp_path / "student", Hashing()), tmp_path / "out")
    schema = next((tmp_path / "out").rglob("schema.json"))
    schema.write_text(
        json.dumps(json.loads(schema.read_text()) | {"__class__": "system", "__module__": "os"})
    )
    about = json.loads((tmp_path / "out" / "estimator.json").read_text())
    (tmp_path / "out" / "estimator.json").write_text(json.dumps(about | {"trusted": ["os.system"]}))
    with pytest.raises(ModelError, match="system"):
        llmal.load(tmp_path / "out")


# --- a student as an estimator


def test_a_student_is_cross_validated_as_an_estimator(ctx):
    x, y = noisy(60)
    names = np.array(["c", "a", "b"])[y]
    student = as_estimator(Linear())
    probs = cross_val_predict(student, x, names, method="predict_proba", cv=3)
    reference = cross_val_predict(LogisticRegression(C=10), x, names, method="predict_proba", cv=3)
    assert np.abs(probs - reference).mean() < 0.1  # the student chooses C itself
    assert probs.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-5)
    assert cross_val_score(student, x, names, cv=3).mean() > 0.5
    assert clone(student).get_params() == student.get_params()


def test_a_fitted_student_names_its_classes(ctx):
    x, y = noisy(30)
    student = as_estimator(Linear(), seed=3).fit(x, np.array(["c", "a", "b"])[y])
    assert student.classes_.tolist() == ["a", "b", "c"]
    direct = Linear().fit(data(x, EYE[[2, 0, 1]][y]), THREE, rng(3), ctx)
    assert student.predict_proba(x) == pytest.approx(direct.predict_proba(asked(x)))
    assert (student.predict(x) == student.classes_[student.predict_proba(x).argmax(axis=1)]).all()


def test_sample_weight_zero_leaves_a_row_out():
    x, y = noisy(30)
    w = (np.arange(30) < 20).astype(float)
    weighted = as_estimator(Linear()).fit(x, y, sample_weight=w)
    assert weighted.predict_proba(x) == pytest.approx(
        as_estimator(Linear()).fit(x[:20], y[:20]).predict_proba(x)
    )


def test_texts_are_encoded_for_a_student_that_reads_vectors():
    texts = [" ".join([w] * 3) for words in COLOURS.values() for w in words.split()] * 2
    y = np.repeat(list(COLOURS), 3).tolist() * 2
    student = as_estimator(Linear(), encoder=Hashing(dim=64)).fit(texts, y)
    assert student.predict(["rose", "the sky"]).tolist() == ["red", "blue"]
    calibrated = CalibratedClassifierCV(student, cv=2).fit(texts, y)
    assert calibrated.predict(["rose", "sky"]).tolist() == ["red", "blue"]


def test_a_student_is_told_what_it_cannot_read():
    x, y = noisy(12)
    with pytest.raises(UserError, match="reads vectors"):
        as_estimator(Linear()).fit(["a", "b"], [0, 1])
    with pytest.raises(UserError, match="reads texts, not numbers"):
        as_estimator(Estimator(make=LOGISTIC, reads="texts")).fit(x, y)
    with pytest.raises(UserError, match="one label a text is expected"):
        as_estimator(Linear()).fit(x, EYE[y])


@pytest.fixture
def exported(tmp_path, ctx):
    """An export whose labels are not in alphabetical order, and its texts."""
    encoder, texts = Hashing(dim=64), [w for words in COLOURS.values() for w in words.split()]
    schemas = {}
    for schema in (THREE, MULTI):
        given = Examples(texts, encoder.encode(texts), np.repeat(EYE, 3, axis=0), np.ones(9, np.float32))
        (tmp_path / schema.kind).mkdir()
        Linear().fit(given, schema, rng(), ctx).save(tmp_path / schema.kind)
        parcel = Parcel(tmp_path / schema.kind, "linear", encoder, schema, None, None, FACTS)
        write(Transformers(), parcel, tmp_path / f"{schema.kind}-out")
        schemas[schema.kind] = llmal.load(tmp_path / f"{schema.kind}-out")
    return schemas, texts


def test_an_exported_classifier_is_calibrated_by_scikit_learn(exported):
    loaded, texts = exported
    model = as_estimator(loaded["single"])
    assert model.classes_.tolist() == ["blue", "green", "red"]
    assert (model.predict(texts) == loaded["single"].predict(texts)).all()
    columns = [loaded["single"].labels.index(c) for c in model.classes_]
    assert (
        model.predict_proba(texts) == loaded["single"].predict_proba(texts)[:, columns].astype(np.float64)
    ).all()
    y = np.repeat(list(COLOURS), 3)
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), method="sigmoid", cv=2).fit(texts, y)
    assert (calibrated.predict(texts) == y).all()
    with pytest.raises(UserError, match="reads texts, not numbers"):
        model.predict(np.zeros((2, 64)))
    with pytest.raises(UserError, match="any number of labels"):
        as_estimator(loaded["multi"])


def test_cleanlab_takes_a_student(ctx):
    cleanlab = pytest.importorskip("cleanlab.classification")
    x, y = noisy(90, 2)
    wrong = y.copy()
    wrong[:6] = 1 - wrong[:6]
    found = cleanlab.CleanLearning(as_estimator(Linear()), seed=0, cv_n_folds=3).find_label_issues(x, wrong)
    assert found["is_label_issue"][:6].mean() > found["is_label_issue"][6:].mean()
