"""Students: scikit-learn's numbers, weights, reload, and a tiny transformer that over-fits on demand."""

import json
import logging
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from llmal.context import Context
from llmal.errors import ModelError
from llmal.records import Label, LabelSchema
from llmal.testing.tiny import POSITIONS, tiny_bert
from llmal.train.finetune import Finetune, TransformerModel
from llmal.train.linear import GRID, Linear, LinearModel
from llmal.train.stage import Examples

WORDS = {"red": ["rose", "ruby", "rust"], "green": ["grass", "leaf", "lime"], "blue": ["sky", "sea", "ink"]}


def schema_of(*names, kind="single"):
    return LabelSchema(kind, tuple(Label(name=name) for name in names), False)


THREE = schema_of(*WORDS)
MULTI = schema_of(*WORDS, kind="multi")


@pytest.fixture
def ctx(tmp_path):
    return Context(tmp_path, home=tmp_path)


def rng(seed=0):
    return np.random.default_rng(seed)


def noisy(n, classes, *, dim=12, seed=0):
    """Overlapping classes: vectors, class of each row."""
    draw = rng(seed)
    y = np.arange(n) % classes
    x = draw.normal(size=(classes, dim))[y] * 0.6 + draw.normal(size=(n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


def one_hot(y, classes):
    return np.eye(classes, dtype=np.float32)[y]


def data(x, targets, weights=None):
    weights = np.ones(len(x), np.float32) if weights is None else np.asarray(weights, np.float32)
    return Examples([""] * len(x), x, targets, weights)


# --- linear


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_equals_scikit_learn_on_few_items(classes, ctx):
    x, y = noisy(4 * classes, classes)  # four a class are too few to cross-validate: C is 10
    model = Linear().fit(data(x, one_hot(y, classes)), schema_of(*"abc"[:classes]), rng(), ctx)
    reference = LogisticRegression(C=10, max_iter=2000).fit(x, y)
    assert model.predict_proba(Examples([], x)) == pytest.approx(reference.predict_proba(x), abs=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_linear_chooses_as_a_grid_search_does(classes, balanced, ctx):
    x, y = noisy(150, classes)
    model = Linear(balanced=balanced).fit(
        data(x, one_hot(y, classes)), schema_of(*"abc"[:classes]), rng(5), ctx
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=int(rng(5).integers(2**31)))
    plain = LogisticRegression(max_iter=2000, class_weight="balanced" if balanced else None)
    search = GridSearchCV(plain, {"C": list(GRID)}, scoring="neg_log_loss", cv=folds).fit(x, y)
    assert model.predict_proba(Examples([], x)) == pytest.approx(search.predict_proba(x), abs=1e-5)


def test_linear_multi_is_one_against_the_rest(ctx):
    x, y = noisy(12, 3)
    targets = one_hot(y, 3)
    targets[:4] = [[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]]
    model = Linear().fit(data(x, targets), MULTI, rng(), ctx)
    probs = model.predict_proba(Examples([], x))
    for c in range(3):
        rarest = np.unique(targets[:, c], return_counts=True)[1].min()
        column = probs[:, c]
        fits = [
            LogisticRegression(C=k, max_iter=2000).fit(x, targets[:, c]).predict_proba(x)[:, 1] for k in GRID
        ]
        if rarest < 5:
            assert column == pytest.approx(fits[1], abs=1e-5)
        else:
            assert any(np.allclose(column, fit, atol=1e-5) for fit in fits)


def test_linear_soft_targets_are_weighted_rows(ctx):
    x, y = noisy(8, 2)
    soft = np.where(one_hot(y, 2) > 0, 0.75, 0.25).astype(np.float32)
    model = Linear().fit(data(x, soft), schema_of("a", "b"), rng(3), ctx)
    rows = np.repeat(x, 2, axis=0)
    classes, weights = np.tile([0, 1], 8), soft.ravel()
    fits = [LogisticRegression(C=k, max_iter=2000).fit(rows, classes, weights).predict_proba(x) for k in GRID]
    assert any(np.allclose(model.predict_proba(Examples([], x)), fit, atol=1e-4) for fit in fits)


def test_linear_a_text_with_a_soft_target_is_never_on_both_sides_of_a_fold(ctx):
    x, y = noisy(60, 3, dim=40)
    soft = (0.7 * one_hot(y, 3) + 0.1).astype(np.float32)
    texts, classes = np.nonzero(soft)
    weights = soft[texts, classes]
    cut = StratifiedKFold(5, shuffle=True, random_state=int(rng(3).integers(2**31)))

    def fitted(c, rows):
        return LogisticRegression(C=c, max_iter=2000).fit(x[texts[rows]], classes[rows], weights[rows])

    def chosen(folds):
        def loss(c):
            probs = [(fitted(c, a).predict_proba(x[texts[b]])[np.arange(len(b)), classes[b]], b)
                     for a, b in folds]  # fmt: skip
            return -sum((weights[b] * np.log(p)).sum() for p, b in probs)

        return min(GRID, key=loss)

    whole = [[np.flatnonzero(np.isin(texts, part)) for part in fold] for fold in cut.split(x, y)]
    torn = list(cut.split(texts, classes))
    assert chosen(whole) != chosen(torn)  # so the test can tell
    model = Linear().fit(data(x, soft), THREE, rng(3), ctx)
    wanted = fitted(chosen(whole), np.arange(len(texts))).predict_proba(x)
    assert model.predict_proba(Examples([], x)) == pytest.approx(wanted, abs=1e-4)


def test_linear_chooses_by_whole_texts_where_targets_are_soft(ctx):
    """A text whose classes lie in several folds would be judged by a student that has seen it."""
    x, y = noisy(60, 3, dim=40)
    soft = np.where(one_hot(y, 3) > 0, 0.6, 0.2).astype(np.float32)
    model = Linear().fit(data(x, soft), THREE, rng(5), ctx)
    splits = StratifiedKFold(5, shuffle=True, random_state=int(rng(5).integers(2**31))).split(x, y)
    whole = [tuple(np.repeat(part, 3) for part in split) for split in splits]

    def fitted(strength, rows):
        classes = np.tile([0, 1, 2], len(rows) // 3)
        weights = soft[rows, classes]
        return LogisticRegression(C=strength, max_iter=2000).fit(x[rows], classes, weights)

    def loss(strength):
        said = [(fitted(strength, train).predict_log_proba(x[test]), test) for train, test in whole]
        return -sum((soft[test] * log).sum() for log, test in said)

    best = min(GRID, key=loss)
    assert best == 10  # by rows it would be 1
    reference = fitted(best, np.repeat(np.arange(60), 3)).predict_proba(x)
    assert model.predict_proba(Examples([], x)) == pytest.approx(reference, abs=1e-4)


def test_linear_weight_two_is_two_rows_and_zero_is_none(ctx):
    x, y = noisy(8, 2)
    weights = np.array([2, 0, 1, 1, 1, 1, 1, 1])
    weighted = Linear().fit(data(x, one_hot(y, 2), weights), schema_of("a", "b"), rng(), ctx)
    rows = np.repeat(np.arange(8), weights)
    counted = Linear().fit(data(x[rows], one_hot(y[rows], 2)), schema_of("a", "b"), rng(), ctx)
    assert weighted.coef == pytest.approx(counted.coef, abs=1e-4)


@pytest.mark.parametrize(
    ("seen", "kind"), [([0, 2], "single"), ([1], "single"), ([0, 2], "multi"), ([], "multi")]
)
def test_linear_never_gives_a_class_it_never_saw(seen, kind, ctx):
    x, _ = noisy(12, 3)
    targets = np.zeros((12, 3), np.float32)
    for i in range(12):
        if seen:
            targets[i, seen[i % len(seen)]] = 1.0
    probs = (
        Linear().fit(data(x, targets), THREE._replace(kind=kind), rng(), ctx).predict_proba(Examples([], x))
    )
    unseen = [c for c in range(3) if c not in seen]
    assert probs[:, unseen].max() == 0
    if kind == "single":
        assert probs.sum(axis=1) == pytest.approx(np.ones(12), abs=1e-6)


def test_linear_label_given_to_every_item_is_certain(ctx):
    x, _ = noisy(6, 2)
    probs = Linear().fit(
        data(x, np.tile(np.float32([1, 0]), (6, 1))), schema_of("a", "b", kind="multi"), rng(), ctx
    )
    assert probs.predict_proba(Examples([], x)).tolist() == [[1.0, 0.0]] * 6


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_linear_reloads_identical(kind, ctx, tmp_path):
    x, y = noisy(30, 3)
    schema = THREE._replace(kind=kind)
    model = Linear().fit(data(x, one_hot(y, 3)), schema, rng(), ctx)
    model.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    again = Linear().load(tmp_path, schema)
    assert (again.predict_proba(Examples([], x)) == model.predict_proba(Examples([], x))).all()


def test_linear_probabilities_stand_extreme_scores():
    for link in ("softmax", "sigmoid"):
        model = LinearModel(np.array([[1e4], [-1e4]]), np.zeros(2), link)
        assert model.predict_proba(Examples([], np.float32([[1.0], [-1.0]]))).tolist() == [
            [1.0, 0.0],
            [0.0, 1.0],
        ]


# --- finetune


def texts_of(n, *, seed=0):
    """Texts of two to five words of one colour, and the colour of each."""
    draw, names = rng(seed), list(WORDS)
    y = np.arange(n) % len(names)
    return [" ".join(draw.choice(WORDS[names[c]], draw.integers(2, 6))) for c in y], y


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(
        tmp_path_factory.mktemp("tiny"), [w for words in WORDS.values() for w in words], hidden=32
    )


@pytest.fixture(scope="module")
def student(tiny):
    return Finetune(model=str(tiny), learning_rate=0.004)


TEXTS, Y = texts_of(32)
LEARN = Examples(TEXTS, None, one_hot(Y, 3), np.ones(32, np.float32))


@pytest.fixture(scope="module")
def fitted(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctx")
    return student.fit(LEARN, THREE, rng(1), Context(folder, home=folder))


def weights_of(model):
    return {name: value.numpy().copy() for name, value in model.network.state_dict().items()}


def same(one, other):
    return all((one[name] == other[name]).all() for name in one)


def test_finetune_learns_32_items_by_heart(fitted):
    probs = fitted.predict_proba(Examples(TEXTS, None))
    assert (probs.argmax(axis=1) == Y).all()
    assert probs.sum(axis=1) == pytest.approx(np.ones(32), abs=1e-5)


def test_finetune_same_seed_same_weights(student, fitted, ctx):
    again = student.fit(LEARN, THREE, rng(1), ctx)
    other = student.fit(LEARN, THREE, rng(2), ctx)
    assert same(weights_of(fitted), weights_of(again))
    assert not same(weights_of(fitted), weights_of(other))


def test_finetune_weight_zero_is_removal(student, fitted, ctx):
    wrong = Examples(
        [*TEXTS, "rose rose"],
        None,
        np.concatenate([LEARN.targets, one_hot([2], 3)]),
        np.append(LEARN.weights, np.float32(0)),
    )
    assert same(weights_of(fitted), weights_of(student.fit(wrong, THREE, rng(1), ctx)))


def test_finetune_frozen_words_stay(tiny, fitted, student, ctx):
    from safetensors.numpy import load_file

    before = load_file(tiny / "model.safetensors")["embeddings.word_embeddings.weight"]
    name = "bert.embeddings.word_embeddings.weight"
    assert (weights_of(fitted)[name] == before).all()
    free = student.model_copy(update={"freeze_words": False, "epochs": 1}).fit(LEARN, THREE, rng(1), ctx)
    assert (weights_of(free)[name] != before).any()


def test_finetune_multi(student, ctx, tmp_path):
    texts = [*TEXTS, "rose sky", "grass sea ink", "ruby leaf", "lime sky rust"] * 2
    targets = np.float32([[any(w in WORDS[name] for w in text.split()) for name in WORDS] for text in texts])
    given = Examples(texts, None, targets, np.ones(len(texts), np.float32))
    student = student.model_copy(update={"freeze_words": False})
    model = student.fit(given, MULTI, rng(), ctx)
    probs = model.predict_proba(Examples(texts, None))
    assert ((probs >= 0.5) == (targets >= 0.5)).mean() > 0.97
    model.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert (student.load(tmp_path, MULTI).predict_proba(Examples(texts, None)) == probs).all()


def test_finetune_reloads_identical(student, fitted, tmp_path):
    fitted.save(tmp_path)
    again = student.load(tmp_path, THREE)
    assert (again.predict_proba(Examples(TEXTS, None)) == fitted.predict_proba(Examples(TEXTS, None))).all()
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == {
        "0": "red",
        "1": "green",
        "2": "blue",
    }


def test_finetune_folder_is_a_transformers_pipeline(fitted, tmp_path):
    from transformers import pipeline

    fitted.save(tmp_path)
    texts = [*TEXTS, "rose " * 100]
    probs = fitted.predict_proba(Examples(texts, None))
    plain = pipeline("text-classification", model=str(tmp_path), device="cpu", truncation=True)(texts)
    assert [found["label"] for found in plain] == [list(WORDS)[c] for c in probs.argmax(axis=1)]
    # The student computes in bfloat16 where there is hardware for it, the pipeline in float32.
    assert [found["score"] for found in plain] == pytest.approx(probs.max(axis=1), abs=0.02)


def test_finetune_cuts_at_what_the_model_can_read(fitted, student, tmp_path):
    assert student.max_length > POSITIONS
    assert fitted.max_length == POSITIONS
    assert [len(tokens) for tokens in fitted.tokenize(["rose " * 500, "rose"])] == [POSITIONS, 3]
    assert fitted.predict_proba(Examples(["rose " * 500], None)).shape == (1, 3)
    fitted.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == POSITIONS


def test_finetune_predicts_nothing_of_nothing(fitted):
    assert fitted.predict_proba(Examples([], None)).shape == (0, 3)


def test_loading_is_silent_and_leaves_settings_alone(tiny, ctx, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as talk

    talk.set_verbosity_info()
    filters = list(warnings.filters)
    before = (talk.get_verbosity(), talk.is_progress_bar_enabled(), are_progress_bars_disabled())
    try:
        Finetune(model=str(tiny), epochs=1).fit(LEARN, THREE, rng(), ctx)
        after = (talk.get_verbosity(), talk.is_progress_bar_enabled(), are_progress_bars_disabled())
        assert logging.getLogger("transformers").level == logging.INFO
    finally:
        talk.set_verbosity_warning()
    assert before == after == (logging.INFO, True, False)
    assert warnings.filters == filters
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


def test_weights_that_are_not_there(ctx, tmp_path):
    with pytest.raises(ModelError, match="cannot use"):
        TransformerModel.load(tmp_path, "single", 16)
    (tmp_path / "config.json").write_text(
        '{"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2}'
    )
    with pytest.raises(ModelError, match="needs a config.json and weights as safetensors"):
        TransformerModel.load(tmp_path, "single", 16)
