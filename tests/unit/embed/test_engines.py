"""A fast backend gives sentence-transformers' vectors, or the library's own loop runs and it is said."""

import importlib.util
import json
import re

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from llmal import weights
from llmal.context import Context
from llmal.corpus import Row, text_key
from llmal.embed import engine, openvino, sentence, stage
from llmal.embed.sentence import Sentence
from llmal.errors import MissingExtra, ModelError
from llmal.records import recipe
from llmal.store.store import open_store
from llmal.testing.contracts import EncoderContract
from llmal.testing.contracts.learn import ODD_TEXTS
from llmal.testing.contracts.plugin import check_no_pickle
from llmal.testing.contracts.ship import no_network
from llmal.testing.tiny import tiny_bert

TEXTS = [
    f"{a} {b} {c}" for a in ("rose", "sky") for b in ("is", "was red and") for c in ("here", "there, not")
]
KINDS = "sentence_transformers.models."
installed = importlib.util.find_spec

needs_openvino = pytest.mark.skipif(not installed("openvino"), reason="the extra `openvino` is not installed")
BACKENDS = ["torch", pytest.param("openvino", marks=needs_openvino)]


def folder_of(folder, pooling="mean_tokens", *, extra=None, seed=0, **settings):
    """A sentence-transformers folder over the tiny BERT; `extra` is one more module.

    Its weights are made larger: as drawn, all texts would have nearly the same vector.
    """
    weight_file = tiny_bert(folder, seed=seed) / "model.safetensors"
    tensors = {name: t * (8 if t.ndim == 2 else 1) for name, t in load_file(weight_file).items()}
    save_file(tensors, weight_file, metadata={"format": "np"})
    parts = [("", "Transformer", None), ("1_Pooling", "Pooling", {"word_embedding_dimension": 32})]
    parts[1][2][f"pooling_mode_{pooling}"] = True
    parts[1][2].setdefault("pooling_mode_mean_tokens", False)
    parts += [(f"2_{extra[0]}", *extra)] if extra else []
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": KINDS + kind}
        for i, (path, kind, _) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for path, _, config in parts[1:]:
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "config.json").write_text(json.dumps(config))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _apart(monkeypatch, shelf):
    """A cache folder of the tests' own, bfloat16 whatever the machine, no network, and nothing kept open."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shelf))
    monkeypatch.setattr(weights, "has_bf16", lambda device: True)
    sentence._open.cache_clear()
    with no_network():
        yield


def library(folder, texts):
    """What sentence-transformers says in float32."""
    model = weights.sentence_model(str(folder), device="cpu")
    return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def without(monkeypatch, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else installed(n, *a))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("pooling", "extra"),
    [("mean_tokens", None), ("cls_token", ("Normalize", {})), ("max_tokens", None)],
    ids=["mean", "cls, normalised", "max"],
)
def test_vectors_are_those_of_the_library(backend, pooling, extra, tmp_path):
    """Pooling and length are the model's own, also for blank, long and foreign texts."""
    folder = folder_of(tmp_path / "model", pooling, extra=extra)
    encoder = Sentence(model=str(folder), backend=backend)
    texts = [*TEXTS, *ODD_TEXTS]
    found = encoder.encode(texts)
    wanted = library(folder, texts)
    assert found.shape == wanted.shape
    assert 1e-6 < np.abs(found - wanted).max() < 5e-3 < np.abs(wanted[0] - wanted[-1]).max()
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert encoder.note().startswith(f"by {backend} in bfloat16, cosine to float32 ")


@needs_openvino
def test_float32_is_float32(tiny):
    """`precision: float32` differs from the library by roundings of float32 only, on either backend."""
    for backend in ("openvino", "torch", "auto"):
        found = Sentence(model=str(tiny), backend=backend, precision="float32").encode(TEXTS)
        assert np.abs(found - library(tiny, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("options", [{"backend": "torch"}, {"backend": "openvino"}, {"precision": "int8"}])
def test_encoder_contract_holds_on_every_backend(options, tiny):
    """Unit rows, empty lists, company, saving: as for any encoder, within the roundings of the arithmetic."""
    if options != {"backend": "torch"} and not installed("openvino"):
        pytest.skip("the extra `openvino` is not installed")
    made = {"plugin": lambda self: Sentence(model=str(tiny), **options), "tolerance": 5e-3}
    suite = type("Suite", (EncoderContract,), made)()
    for check in (name for name in dir(suite) if name.startswith("test_") and name != "test_texts_differ"):
        getattr(suite, check)()


@needs_openvino
def test_auto_takes_openvino_then_torch_then_the_library(tiny, monkeypatch):
    """The fastest that is installed; without bfloat16 in hardware and without openvino all is as it was."""
    assert Sentence(model=str(tiny)).note().startswith("by openvino in bfloat16")
    monkeypatch.setattr(weights, "has_bf16", lambda device: False)
    sentence._open.cache_clear()
    assert Sentence(model=str(tiny)).note().startswith("by openvino in float32")
    without(monkeypatch, "openvino")
    sentence._open.cache_clear()
    as_before = Sentence(model=str(tiny))
    assert as_before.note() == ""
    assert (as_before.encode(TEXTS) == library(tiny, TEXTS)).all()
    monkeypatch.setattr(weights, "has_bf16", lambda device: True)
    sentence._open.cache_clear()
    assert Sentence(model=str(tiny)).note().startswith("by torch in bfloat16")


@pytest.mark.parametrize("options", [{"backend": "openvino"}, {"precision": "int8"}])
def test_a_missing_package_is_named_with_its_pip_line(options, tiny, monkeypatch):
    without(monkeypatch, "openvino")
    with pytest.raises(MissingExtra, match=r'openvino is needed .*pip install "llmal\[openvino\]"'):
        Sentence(model=str(tiny), **options).encode(TEXTS)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"pooling": "weightedmean_tokens"}, r"its pooling \(weightedmean\) is not among those compared"),
        ({"prompts": {"q": "query: "}, "default_prompt_name": "q"}, "puts a prompt before texts"),
        ({"extra": ("LayerNorm", {"dimension": 32})}, r"has parts beyond .*LayerNorm"),
    ],
    ids=["pooling", "prompt", "more modules"],
)
def test_a_model_of_another_kind_is_left_to_the_library(made, reason, tmp_path):
    """Nothing is guessed about models beyond encoder and pooling: the vectors are the library's."""
    folder = folder_of(tmp_path / "model", **made)
    if "extra" in made:
        norm = {"norm.weight": np.ones(32, np.float32), "norm.bias": np.zeros(32, np.float32)}
        save_file(norm, folder / "2_LayerNorm/model.safetensors")
    encoder = Sentence(model=str(folder))
    found = encoder.encode(TEXTS)
    assert (found == library(folder, TEXTS)).all()
    assert re.search(f"by sentence-transformers in float32: .*{reason}", encoder.note())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_with_other_vectors_is_not_used(backend, tiny, monkeypatch):
    """The comparison decides, also for a backend that was asked for by name, and the run's line says so."""
    kind = openvino.Compiled if backend == "openvino" else engine.Autocast
    honest = kind.run

    def drifting(self, batches, out):
        honest(self, batches, out)
        out += 0.05 * np.abs(out).max() * np.random.default_rng(0).normal(size=out.shape).astype(np.float32)

    monkeypatch.setattr(kind, "run", drifting)
    encoder = Sentence(model=str(tiny), backend=backend)
    assert (encoder.encode(TEXTS) == library(tiny, TEXTS)).all()
    assert f"the vectors of {backend} in bfloat16 differ (cosine 0.9" in encoder.note()


@needs_openvino
def test_a_model_that_cannot_be_converted_is_left_to_the_next(tiny, monkeypatch, tmp_path):
    """What a converter raises is no end of the run."""

    def refuses(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino, "_convert", refuses)
    assert Sentence(model=str(tiny)).note().startswith("by torch in bfloat16")
    named = Sentence(model=str(tiny), backend="openvino")
    assert named.note() == "by sentence-transformers in float32: openvino cannot run it (no such operator)"
    with pytest.raises(ModelError, match="cannot be run in int8: openvino cannot run it"):
        Sentence(model=str(tiny), precision="int8").encode(TEXTS)


@needs_openvino
def test_int8_is_asked_for_and_is_near(tiny):
    """It is another arithmetic, not far off, and never comes by itself."""
    encoder = Sentence(model=str(tiny), precision="int8")
    wanted = library(tiny, TEXTS)
    off, half = (np.abs(e.encode(TEXTS) - wanted).mean() for e in (encoder, Sentence(model=str(tiny))))
    assert half < off < 5e-3
    assert "in int8" in encoder.note()
    assert "int8" not in Sentence(model=str(tiny)).note()
    with pytest.raises(ValidationError, match="int8 runs in openvino only"):
        Sentence(model=str(tiny), precision="int8", backend="torch")


@pytest.mark.parametrize("options", [{"backend": "openvino"}, {"precision": "int8"}])
def test_a_gpu_and_openvino_exclude_each_other(options):
    """What would be ignored is refused while the file is read."""
    with pytest.raises(ValidationError, match="openvino runs on the processor, not on 'cuda'"):
        Sentence(device="cuda", **options)


def test_vectors_of_earlier_runs_stay_valid():
    """The recipe of the default is what it was before backends; only a precision asked for changes it."""
    plain = recipe("embed", "sentence", 1, {"model": "some/encoder"})
    for backend in ("auto", "torch", "openvino"):
        assert Sentence(model="some/encoder", backend=backend).recipe() == plain
    others = {Sentence(model="some/encoder", precision=p).recipe() for p in ("float32", "int8")}
    assert len(others | {plain}) == 3


class Killed(BaseException):
    """The process ends here."""


@needs_openvino
def test_a_run_goes_on_with_another_backend(tiny, tmp_path, monkeypatch):
    """Blocks that are there are not made again; the line of the stage says what made the new ones."""
    monkeypatch.setattr(stage, "BLOCK", 4)
    monkeypatch.setattr(stage, "STEP", 3)
    store = open_store(tmp_path / "run")
    ctx = Context(store.folder, home=tmp_path)
    rows = [Row(i, f"id{i}", f"{text} {i}", None) for i, text in enumerate(TEXTS)]
    store.put_corpus("c", "d", rows, text_key)
    first, second = Sentence(model=str(tiny), backend="torch"), Sentence(model=str(tiny), backend="openvino")

    def dies(recipe, start, block, keep=store.put_block):
        if start == 4:
            raise Killed
        keep(recipe, start, block)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_block", dies)
        with pytest.raises(Killed):
            stage.run(first, store, ctx)
    tally = stage.run(second, store, ctx)
    assert (tally.wanted, tally.new) == (8, 4)
    assert tally.note.startswith("by openvino in bfloat16")
    vectors = store.load(second.recipe())
    assert (vectors * library(tiny, [row.text for row in rows])).sum(axis=1).min() > engine.MEAN_COSINE
    assert stage.run(first, store, ctx) == (8, 0, "", "")
    store.close()


@needs_openvino
def test_a_saved_encoder_opens_on_any_machine(tiny, tmp_path, monkeypatch):
    """An export does not ask for the package its maker had."""
    made = Sentence(model=str(tiny), backend="openvino")
    assert made.save(tmp_path / "encoder")
    check_no_pickle(tmp_path / "encoder")
    again = made.loaded_from(tmp_path / "encoder")
    assert np.abs(again.encode(TEXTS) - made.encode(TEXTS)).max() < 1e-6
    without(monkeypatch, "openvino")
    sentence._open.cache_clear()
    assert (again.encode(TEXTS) * made.loaded_from(tiny).encode(TEXTS)).sum(axis=1).min() > 0.999


class Recorder:
    """An engine that notes what it was given."""

    def __init__(self, budget):
        self.budget = budget
        self.batches = []

    def run(self, batches, out):
        self.batches = list(batches)
        out[:] = 1


def test_batches_hold_every_text_once_within_the_budget(tiny):
    """Memory is bounded by the budget or, beyond it, by the one text that is longer."""
    model = weights.sentence_model(str(tiny), device="cpu")
    texts = ["a " * n for n in (1, 70, 3, 9, 9, 30, 2, 2, 2)] + [""]
    made = Recorder(40)
    engine.Fast(model, made, 32).encode(texts, 1)
    assert sorted(row for batch in made.batches for row in batch.rows) == list(range(len(texts)))
    lengths = [len(ids) for ids in model.tokenizer(texts, truncation=True)["input_ids"]]
    for batch in made.batches:
        assert batch.ids.size <= 40 or len(batch.rows) == 1
        assert batch.mask.sum(axis=1).tolist() == [lengths[row] for row in batch.rows]
        assert batch.ids.shape[1] == max(lengths[row] for row in batch.rows)
        assert (batch.ids[batch.mask == 0] == model.tokenizer.pad_token_id).all()
