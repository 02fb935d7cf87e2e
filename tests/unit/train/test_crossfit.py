"""Out-of-sample predictions: what is said of an item that was learnt from does not rest on its own label."""

import numpy as np
import pytest

from llmal.context import Context
from llmal.corpus import Row, text_key
from llmal.embed import stage as embed
from llmal.embed.hashing import Hashing
from llmal.errors import SpecError
from llmal.records import Label, LabelSchema
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.train import crossfit, stage
from llmal.train.crossfit import crossfit_recipe, split
from llmal.train.linear import Linear
from llmal.train.stage import TrainingSet, student_recipe
from llmal.train.targets import HARD, Targets

N, LEARNT, FOLDS = 90, 60, 5
SCHEMA = LabelSchema("single", (Label(name="a"), Label(name="b")), False)
ENCODER = Hashing(dim=64)


class Counted(Linear):
    """Counts how often it is fitted, and may be killed."""

    def fit(self, examples, schema, rng, ctx):
        FITS.append(len(examples.texts))
        if len(FITS) == DIES[0]:
            raise KeyboardInterrupt
        return super().fit(examples, schema, rng, ctx)


FITS, DIES = [], [0]


@pytest.fixture
def line(tmp_path):
    """A store with N embedded texts of chance words, and labels of the first `LEARNT` of them."""
    FITS.clear()
    DIES[0] = 0
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    texts = [" ".join(draw.choice(words, 6)) for _ in range(N)]
    store = open_store(tmp_path / "run")
    ctx = Context(store.folder, home=tmp_path)
    store.put_corpus("c", "d", [Row(i, f"id{i}", text, None) for i, text in enumerate(texts)], text_key)
    embed.run(ENCODER, store, ctx)
    labels = [("ab"[i % 2],) for i in draw.permutation(LEARNT)]
    yield store, ctx, TrainingSet(list(range(10, 10 + LEARNT)), labels, ["human"] * LEARNT)
    store.close()


def fitted(store, ctx, data, targets=HARD):
    given = {"schema": SCHEMA, "data": data, "vectors": ENCODER.recipe(), "targets": targets}
    stage.run(Counted(), store, ctx, role="final", round_no=0, **given)
    return student_recipe(Counted(), data, SCHEMA, ENCODER.recipe(), ctx, targets)


def crossed(store, ctx, data, targets=HARD):
    name = fitted(store, ctx, data, targets)
    given = {"schema": SCHEMA, "data": data, "vectors": ENCODER.recipe(), "targets": targets}
    tally = crossfit.run(Counted(), store, ctx, fitted=name, folds=FOLDS, **given)
    return store.load(name), store.load(crossfit_recipe(name, FOLDS)), tally


def test_labels_without_meaning_are_not_foretold(line):
    """The student partly knows by heart the labels it saw; out of sample it does no better than chance."""
    store, ctx, data = line
    own, out, _ = crossed(store, ctx, data)
    y = np.array([labels == ("b",) for labels in data.labels]).astype(int)
    rows = np.array(data.items)
    assert out.shape == own.shape == (N, 2)
    assert (own[rows].argmax(axis=1) == y).mean() > 0.7
    assert (out[rows].argmax(axis=1) == y).mean() < 0.6
    learnt = np.zeros(N, bool)
    learnt[rows] = True
    assert (out[~learnt] == own[~learnt]).all()


def test_an_items_own_label_does_not_move_what_is_said_of_it(line):
    """Its fold changes nothing but the others' students; the folds of a turned label are the same size."""
    store, ctx, data = line
    parts = split(data, FOLDS, ctx.rng("crossfit"))
    item = int(parts[2][0])
    own, out, _ = crossed(store, ctx, data)
    rest = data.some(np.setdiff1d(np.arange(LEARNT), parts[2]).tolist())
    assert item not in rest.items
    shown = stage.examples_of(Linear(), store, rest, SCHEMA, ENCODER.recipe(), ctx, HARD)
    alone = Linear().fit(shown, SCHEMA, ctx.rng("crossfit", 3), ctx)
    vectors = np.asarray(store.load(ENCODER.recipe()))
    assert out[data.items[item]] == pytest.approx(
        alone.predict_proba(stage.Examples([""] * N, vectors))[data.items[item]], abs=1e-6
    )
    assert np.abs(own[data.items[item]] - out[data.items[item]]).max() > 1e-3


def test_every_item_is_left_out_once_and_classes_are_spread_evenly():
    labels = [("a",)] * 17 + [("b",)] * 8
    parts = split(TrainingSet(list(range(25)), labels, [""] * 25), 4, np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(25))
    shares = [sum(row >= 17 for row in part) for part in parts]
    assert shares == [2, 2, 2, 2]
    assert len(split(TrainingSet([5, 9], [("a",), ("b",)], [""] * 2), 5, np.random.default_rng(0))) == 2


def test_folds_that_are_done_are_kept_when_the_rest_is_cut_off(line):
    store, ctx, data = line
    DIES[0] = 4  # the student itself, two folds, and in the third
    with pytest.raises(KeyboardInterrupt):
        crossed(store, ctx, data)
    DIES[0] = 0
    _, out, tally = crossed(store, ctx, data)
    assert tally == (FOLDS, 3, f"{LEARNT} items predicted by students without them", "")
    assert len(FITS) == 4 + 3
    assert FITS[1:] == [LEARNT - LEARNT // FOLDS] * 6
    again = crossed(store, ctx, data)
    assert len(FITS) == 7
    assert (again[1] == out).all()


def test_soft_targets_reach_the_students_of_the_folds(line):
    store, ctx, data = line
    soft = data._replace(sources=["llm"] * LEARNT, probs=[(0.6, 0.4)] * LEARNT)
    _, hard, _ = crossed(store, ctx, data)
    _, out, _ = crossed(store, ctx, soft, Targets(use="soft"))
    assert np.abs(out[data.items] - (0.6, 0.4)).max() < 0.05 < np.abs(hard[data.items] - (0.6, 0.4)).max()


def test_without_folds_the_students_own_predictions_count():
    assert crossfit_recipe("student-x", 0) == "student-x"
    assert crossfit_recipe("student-x", 3) != crossfit_recipe("student-x", 5) != "student-x"


def test_a_single_fold_is_refused_before_a_run(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("corpus: {path: x.jsonl}\nlabels: {names: [a, b]}\ntrain: {folds: 1}\n")
    with pytest.raises(SpecError, match="train.folds: one fold leaves nothing to learn from"):
        Pipeline.from_yaml(file)


def test_a_run_with_folds_routes_by_them(tmp_path):
    """The whole line, offline: the routes rest on the predictions out of sample."""
    from llmal import runner
    from llmal.state import recipes

    rows = [
        f'{{"text": "{c} {w} {i}", "label": "{c}"}}' for i, w in enumerate("xyz" * 10) for c in ("up", "off")
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(rows) + "\n")
    pipeline = Pipeline(
        corpus={"path": "c.jsonl", "text": "text", "gold": "label"},
        labels={"names": ["up", "off"]},
        audit={"size": 4},
        rounds={"max": 1, "size": 20},
        embed={"use": "hashing", "dim": 32},
        annotate="zero-shot",
        filter={"use": "confidence", "at_least": 0},
        train={"final": "linear", "folds": 3},
    )
    done = runner.run(pipeline, tmp_path / "run", home=tmp_path, until="route")
    assert done.stopped == "stopped after route, as asked"
    store = open_store(tmp_path / "run", write=False)
    try:
        names = recipes(pipeline, Context(tmp_path / "run", home=tmp_path), store)
        assert names.predictions == crossfit_recipe(names.student, 3)
        assert store.covered(names.predictions) == store.n_items()
        students = [r.role for r in store.read(t.student.select())]
        assert students == ["final"]
        assert store.routes(names.route)
    finally:
        store.close()
