"""SetFit: which pairs it learns from, what tuning does to the vectors, and what it ships as."""

import itertools
from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import llmal
from llmal.context import Context, Silent
from llmal.embed.hashing import Hashing
from llmal.errors import ModelError
from llmal.export.onnx import Onnx
from llmal.export.stage import Parcel, write
from llmal.records import Label, LabelSchema
from llmal.testing.contracts.ship import FACTS
from llmal.testing.tiny import tiny_sentence
from llmal.train import pairs as pairing
from llmal.train import setfit
from llmal.train.pairs import Pairs, batches, likeness, pairs_of
from llmal.train.setfit import SetFit, encode
from llmal.train.stage import Examples

WORDS = {"red": ["rose", "ruby", "rust"], "green": ["grass", "leaf", "lime"], "blue": ["sky", "sea", "ink"]}
SINGLE = LabelSchema("single", tuple(Label(name=name) for name in WORDS), False)
EYE = np.eye(3, dtype=np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def texts_of(n, seed=0):
    """Texts of two to five words of one colour, and the colour of each."""
    draw, names = rng(seed), list(WORDS)
    y = np.arange(n) % len(names)
    return [" ".join(draw.choice(WORDS[names[c]], draw.integers(2, 6))) for c in y], y


TEXTS, Y = texts_of(24)
LEARN = Examples(TEXTS, None, EYE[Y], np.ones(len(Y), np.float32))


class Watch(Silent):
    """Remembers the bars."""

    def __init__(self):
        self.bars = []

    @contextmanager
    def task(self, title, total):
        steps = []
        yield lambda n=1, *, note="": steps.append(n)
        self.bars.append((title, total, sum(steps)))


@pytest.fixture
def ctx(tmp_path):
    return Context(tmp_path, home=tmp_path, progress=Watch())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_sentence(tmp_path_factory.mktemp("tiny"), [w for words in WORDS.values() for w in words])


@pytest.fixture(scope="module")
def student(tiny):
    return SetFit(model=str(tiny), learning_rate=0.004)


@pytest.fixture(scope="module")
def fitted(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctx")
    return student.fit(LEARN, SINGLE, rng(1), Context(folder, home=folder))


def weights_of(encoder):
    return {name: value.cpu().numpy().copy() for name, value in encoder.state_dict().items()}


def same(one, other):
    return all((one[name] == other[name]).all() for name in one)


# --- pairs


def counted(made):
    """How often each pair of rows stands in it, whichever comes first."""
    seen = {}
    for i, j in zip(made.first.tolist(), made.second.tolist(), strict=True):
        seen[min(i, j), max(i, j)] = seen.get((min(i, j), max(i, j)), 0) + 1
    return seen


def test_every_pair_is_taught_and_the_rarer_sort_again_until_both_are_as_many():
    y = np.array([0] * 6 + [1] * 3 + [2])
    made = pairs_of(EYE[y], "single", 20, rng())
    near, far = [[p for p in itertools.combinations(range(10), 2) if (y[p[0]] == y[p[1]]) == alike]
                 for alike in (True, False)]  # fmt: skip
    assert (len(near), len(far)) == (18, 27)
    assert (made.alike == 1).sum() == (made.alike == 0).sum() == 27
    seen = counted(made)
    assert all(seen[p] == 1 for p in far)
    assert {seen[p] for p in near} == {1, 2}
    assert set(seen) == {*near, *far}
    assert all((y[i] == y[j]) == a for i, j, a in zip(*made, strict=True))


@pytest.mark.parametrize("each", [1, 3])
def test_the_cap_is_so_many_pairs_a_text_of_either_sort(each):
    made = pairs_of(EYE[np.arange(60) % 3], "single", each, rng())
    assert (made.alike == 1).sum() == (made.alike == 0).sum() == each * 60
    assert set(counted(made).values()) == {1}


def test_pairs_of_very_many_texts_are_drawn(monkeypatch):
    monkeypatch.setattr(pairing, "EVERY", 3000)
    y = np.arange(200) % 3
    made = pairs_of(EYE[y], "single", 2, rng())
    assert len(made.first) == 2 * 2 * 200
    assert (made.first != made.second).all()
    assert ((y[made.first] == y[made.second]) == (made.alike == 1)).all()
    assert set(made.first) | set(made.second) == set(range(200))


@pytest.mark.parametrize("rows", [[0, 0, 0], [0, 1, 2], [1], []])
def test_nothing_to_contrast_gives_no_pairs(rows):
    assert len(pairs_of(EYE[np.array(rows, int)], "single", 20, rng()).first) == 0


def test_likeness_is_the_probability_of_a_common_label():
    one, two, three = [0.75, 0.25, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]
    soft = np.array([one, two, three], np.float32)
    first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
    assert likeness(soft, "single", first, second).tolist() == [0.375, 0.25, 0.0]
    several = np.float32([[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    assert likeness(several, "multi", first, second).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_unsure_labels_are_paired_by_the_likeliest_and_taught_as_unsure(kind):
    y = np.arange(30) % 3
    sure = 0.6 if kind == "multi" else 0.4
    made = pairs_of(np.where(EYE[y] > 0, sure, 0.3).astype(np.float32), kind, 2, rng())
    near = y[made.first] == y[made.second]
    assert near.sum() == (~near).sum() == 60
    common = {"single": (0.34, 0.33), "multi": (1 - 0.64 * 0.91**2, 1 - 0.82**2 * 0.91)}[kind]
    assert made.alike == pytest.approx(np.where(near, *common), abs=1e-6)


def test_likeness_in_parts_is_the_same(monkeypatch):
    targets = rng().dirichlet(np.ones(3), 40).astype(np.float32)
    first, second = np.triu_indices(40, 1)
    whole = likeness(targets, "single", first, second)
    monkeypatch.setattr(pairing, "EVERY", 100)
    assert (likeness(targets, "single", first, second) == whole).all()
    assert whole == pytest.approx((targets @ targets.T)[first, second], abs=1e-6)


def test_a_batch_holds_pairs_of_similar_length_and_every_pair_comes_once():
    lengths = rng().integers(1, 200, 50)
    made = pairs_of(EYE[np.arange(50) % 3], "single", 8, rng())
    longest = np.maximum(lengths[made.first], lengths[made.second])
    cut = list(batches(made, lengths, 16, rng(3)))
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(made.first)))
    assert max(len(b) for b in cut) == 16
    padded = sum(len(b) * longest[b].max() for b in cut)
    plain = rng(3).permutation(len(longest))
    unsorted = sum(
        len(plain[i : i + 16]) * longest[plain[i : i + 16]].max() for i in range(0, len(plain), 16)
    )
    assert padded < 0.8 * unsorted
    assert not np.array_equal(longest[np.concatenate(cut)], np.sort(longest))  # not from short to long


# --- tuning


def test_tuning_draws_together_what_shares_a_label(tiny, fitted):
    before, after = (encode(e, TEXTS) for e in (llmal_encoder(tiny), fitted.encoder))
    alike = Y[:, None] == Y
    np.fill_diagonal(alike, False)
    for vectors, near, far in ((before, 0.0, 1.0), (after, 0.8, 0.3)):
        cosines = vectors @ vectors.T
        assert cosines[alike].mean() >= near
        assert cosines[Y[:, None] != Y].mean() <= far
    gap = [v @ v.T for v in (before, after)]
    assert [g[alike].mean() - g[Y[:, None] != Y].mean() for g in gap] == sorted(
        g[alike].mean() - g[Y[:, None] != Y].mean() for g in gap
    )


def llmal_encoder(folder):
    from llmal.weights import sentence_model

    return sentence_model(str(folder))


def test_the_head_is_a_logistic_regression_on_the_tuned_vectors(student, ctx):
    few = Examples(*(part[:9] for part in (TEXTS, EYE[Y])), None)  # three a class: C is 10, as in `linear`
    model = student.fit(Examples(few.texts, None, EYE[Y[:9]], np.ones(9, np.float32)), SINGLE, rng(), ctx)
    reference = LogisticRegression(C=10, max_iter=2000).fit(encode(model.encoder, TEXTS[:9]), Y[:9])
    wanted = reference.predict_proba(encode(model.encoder, TEXTS))
    assert model.predict_proba(Examples(TEXTS, None)) == pytest.approx(wanted, abs=1e-5)


def test_loss_is_that_of_sentence_transformers(tiny, monkeypatch):
    import torch
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    monkeypatch.setattr("llmal.weights.has_bf16", lambda device: False)
    encoder = llmal_encoder(tiny)
    made = pairs_of(EYE[Y], "single", 1, rng())
    mine = setfit._loss(encoder, TEXTS, made, np.ones(len(Y), np.float32))
    sides = [encoder.tokenize([TEXTS[i] for i in rows]) for rows in (made.first, made.second)]
    theirs = CosineSimilarityLoss(encoder)(sides, torch.from_numpy(made.alike))
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)


def test_a_text_of_weight_two_counts_as_two_texts(tiny):
    encoder = llmal_encoder(tiny)
    w = np.float32([2, 1, 1])
    alike = np.float32([0, 1])
    weighted = setfit._loss(encoder, TEXTS[:3], Pairs(np.array([0, 1]), np.array([1, 2]), alike), w)
    counted = Pairs(np.array([0, 3, 1]), np.array([1, 1, 2]), np.float32([0, 0, 1]))
    four = setfit._loss(encoder, [*TEXTS[:3], TEXTS[0]], counted, np.ones(4, np.float32))
    assert weighted.item() == pytest.approx(four.item(), rel=1e-3)


def test_with_one_class_the_encoder_stays_as_it_is(student, tiny, ctx):
    rows = np.flatnonzero(Y == 0)
    one = Examples([TEXTS[i] for i in rows], None, EYE[Y[rows]], np.ones(len(rows), np.float32))
    model = student.fit(one, SINGLE, rng(), ctx)
    assert same(weights_of(llmal_encoder(tiny)), weights_of(model.encoder))
    assert model.predict_proba(Examples(["grass"], None)).tolist() == [[1.0, 0.0, 0.0]]
    assert ctx.progress.bars == []


def test_the_bar_counts_the_steps(student, ctx):
    student.model_copy(update={"epochs": 2, "pairs": 1}).fit(LEARN, SINGLE, rng(), ctx)
    assert ctx.progress.bars == [("tune the encoder of setfit", 6, 6)]  # 2 x 48 pairs in batches of 16


def test_seed_decides(student, fitted, ctx):
    again, other = (student.fit(LEARN, SINGLE, rng(seed), ctx) for seed in (1, 2))
    assert same(weights_of(fitted.encoder), weights_of(again.encoder))
    assert not same(weights_of(fitted.encoder), weights_of(other.encoder))


def test_the_runs_own_encoder_is_never_tuned(tiny, student, ctx):
    from llmal.embed.sentence import Sentence

    shared = Sentence(model=str(tiny), precision="float32")
    before = shared.encode(TEXTS)
    tuned = student.model_copy(update={"pairs": 1}).fit(LEARN, SINGLE, rng(), ctx)
    assert (shared.encode(TEXTS) == before).all()
    assert not np.allclose(before, encode(tuned.encoder, TEXTS), atol=0.01)


def test_long_texts_are_cut_by_the_saved_student_too(tiny, ctx, tmp_path):
    student = SetFit(model=str(tiny), max_length=8, pairs=1)
    student.fit(LEARN, SINGLE, rng(), ctx).save(tmp_path)
    model = student.load(tmp_path, SINGLE)
    short, long = "rose " * 6, "rose " * 6 + "sky " * 500
    probs = model.predict_proba(Examples([short, long], None))
    assert probs[0] == pytest.approx(probs[1], abs=1e-6)


# --- what it is saved and shipped as


def test_saved_as_a_sentence_transformers_folder_and_a_head(fitted, tmp_path):
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer

    fitted.save(tmp_path)
    head = load_file(tmp_path / "head.safetensors")
    plain = SentenceTransformer(str(tmp_path / "encoder"))
    scores = plain.encode(TEXTS, normalize_embeddings=True) @ head["coef"].T + head["bias"]
    assert (scores.argmax(axis=1) == fitted.predict_proba(Examples(TEXTS, None)).argmax(axis=1)).all()
    assert not [f.name for f in tmp_path.rglob("*") if f.suffix in (".bin", ".pkl", ".pt", ".joblib", ".py")]


def test_pickled_weights_in_a_saved_student_are_refused(student, fitted, tmp_path):
    fitted.save(tmp_path)
    weights = next((tmp_path / "encoder").rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match="pickle"):
        student.load(tmp_path, SINGLE)


def test_a_model_that_is_not_there_is_one_sentence(tmp_path, ctx):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        SetFit(model=str(tmp_path / "empty")).fit(LEARN, SINGLE, rng(), ctx)


@pytest.mark.slow  # the converter takes half of this file's time
def test_ships_as_onnx_with_its_own_encoder(student, ctx, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = student.model_copy(update={"pairs": 2}).fit(LEARN, SINGLE, rng(), ctx)
    (tmp_path / "student").mkdir()
    model.save(tmp_path / "student")
    parcel = Parcel(tmp_path / "student", "setfit", Hashing(), SINGLE, 0.9, 256, FACTS, tuple(TEXTS))
    write(Onnx(), parcel, tmp_path / "out")
    wanted = model.predict_proba(Examples(TEXTS, None))
    for backend in ("onnx", "torch"):
        found = llmal.load(tmp_path / "out", backend=backend).predict_proba(TEXTS)
        assert found == pytest.approx(wanted, abs=1e-4), backend
