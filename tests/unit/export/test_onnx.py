"""Exports as ONNX: the answers of torch without torch, a sentence where that cannot be, data and no code."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import llmal
from llmal.embed.hashing import Hashing
from llmal.embed.sentence import Sentence
from llmal.errors import LlmalError, MissingExtra, ModelError, UserError
from llmal.export import graph
from llmal.export.onnx import ODD, Onnx
from llmal.export.runtime import PACKAGES
from llmal.export.stage import Parcel, write
from llmal.testing import parcels
from llmal.testing.contracts import ExporterContract
from llmal.testing.contracts.plugin import check_no_pickle
from llmal.testing.contracts.ship import FACTS, no_network
from llmal.testing.parcels import schema_of
from llmal.testing.tiny import tiny_bert
from llmal.train.finetune import Finetune

TEXTS = parcels.texts(300)
SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("binary", "multi", "linear single")]

EVERY = pytest.mark.parametrize("case", ["many", "linear", *SLOW])


@pytest.fixture(autouse=True)
def without_openvino(monkeypatch):
    """It has a file of its own (test_vino.py)."""
    monkeypatch.setattr("llmal.export.vino.usable", lambda about: False)


def decided(probs):
    """Rows that rounding cannot turn: another label is further away than files may differ (1e-4)."""
    top = np.sort(probs, axis=1)
    single = np.allclose(probs.sum(axis=1), 1, atol=1e-4)
    clear = (top[:, -1] - top[:, -2] if single else np.abs(probs - 0.5).min(axis=1)) > 1e-4
    assert clear.mean() > 0.95, "a student that cannot decide proves nothing"
    return clear


def same_answers(found, wanted, probs):
    return all(a == b for a, b, clear in zip(found, wanted, decided(probs), strict=True) if clear)


@EVERY
def test_onnx_answers_as_torch_does(case, exports):
    parcel, folder = exports(case)
    with no_network():
        light, heavy = (llmal.load(folder, backend=name) for name in ("onnx", "torch"))
        assert (light.backend, heavy.backend) == ("onnx", "torch")
        found, wanted = light.predict_proba(TEXTS), heavy.predict_proba(TEXTS)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-4
    answers = light.predict(TEXTS)
    assert same_answers(answers, heavy.predict(TEXTS), wanted)
    assert len(set(answers)) > 1, "a student of one answer proves nothing"
    assert light.labels == parcel.schema.names


@EVERY
def test_hostile_texts_are_answered_alike(case, exports):
    _, folder = exports(case)
    hostile = [
        *ODD,
        "\n\t",
        "ab" * 5000,
        "😀" * 2000,
        "\u202e rose",
        "rose\x00sky",
        "rose \ud800 ruby",
        "a\u0301" * 300,
    ]
    light, heavy = (llmal.load(folder, backend=name) for name in ("onnx", "torch"))
    assert np.abs(light.predict_proba(hostile) - heavy.predict_proba(hostile)).max() < 1e-4
    assert light.predict(hostile) == heavy.predict(hostile)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rose", "one text was given where a list"),
        (["rose", None], "text 1 is no text but NoneType"),
        ([7], "text 0 is no"),
    ],
)
def test_what_is_no_text_is_told_in_a_sentence(given, said, backend, exports):
    with pytest.raises(UserError, match=said):
        llmal.load(exports("many")[1], backend=backend).predict(given)


@pytest.mark.parametrize("case", ["many", "linear"])
def test_a_text_is_answered_the_same_alone_and_among_others(case, exports):
    model = llmal.load(exports(case)[1], backend="onnx")
    together = model.predict_proba(TEXTS)
    alone = np.concatenate([model.predict_proba([text]) for text in TEXTS[:30]])
    assert np.abs(together[:30] - alone).max() < 1e-5
    assert (model.predict_proba(TEXTS[::-1])[::-1] == together).mean() > 0.9
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, len(model.labels))


def test_without_the_packages_torch_answers(exports, monkeypatch):
    _, folder = exports("many")
    with_onnx = llmal.load(folder).predict(TEXTS)
    found = importlib.util.find_spec
    gone = {*PACKAGES}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in gone else found(n, *a))
    model = llmal.load(folder)
    assert model.backend == "torch"
    assert same_answers(model.predict(TEXTS), with_onnx, model.predict_proba(TEXTS))
    with pytest.raises(MissingExtra, match=r'onnxruntime is needed .*pip install "llmal\[onnx\]"'):
        llmal.load(folder, backend="onnx")
    gone.add("torch")
    with pytest.raises(MissingExtra, match=r'pip install "llmal\[onnx\]"'):
        llmal.load(folder)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "tokenizers"])
def test_exporting_without_the_extra_says_the_pip_line(package, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else found(n, *a))
    parcel = Parcel(tmp_path, "finetune", None, schema_of(2), None, None, FACTS)
    with pytest.raises(MissingExtra, match=rf'{package} is needed .*pip install "llmal\[onnx\]"'):
        Onnx().export(parcel, tmp_path)


@EVERY
def test_an_export_holds_data_only(case, exports):
    """No pickle, no code, no link, no weights elsewhere, no place of the machine that made it, no text."""
    import onnx

    parcel, folder = exports(case)
    check_no_pickle(folder)
    for file in folder.rglob("*"):
        assert not file.is_symlink()
        if file.is_file():
            assert file.suffix in ExporterContract.suffixes, file
            body = file.read_bytes()
            assert not any(text.encode() in body for text in parcel.texts if len(text) > 20), file
    for file in folder.glob("*.onnx"):
        model = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(model)
        assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
        assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}, "an operator of its own"
        body = file.read_bytes()
        for trace in (
            b"site-packages",
            b"stack_trace",
            b".py",
            str(Path.home()).encode(),
            os.getcwd().encode(),
        ):
            assert trace not in body, f"{file.name} holds {trace}"


def test_llmal_json_and_card_state_the_difference(exports):
    _, folder = exports("linear")
    stated = json.loads((folder / "llmal.json").read_text(encoding="utf-8"))["onnx"]
    assert stated["texts"] == 40 + len(ODD)
    assert 0 < stated["difference"] < 1e-4
    assert stated["agreement"] == 1.0
    assert "int8" not in stated
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name:")
    assert f"on 47 texts, a probability differed by {stated['difference']:.1g} at most" in card


# --- int8


def test_int8_is_made_and_used_only_on_request(exports):
    assert not (exports("linear")[1] / "model.int8.onnx").exists()
    with pytest.raises(UserError, match=r"has no model\.int8\.onnx.*int8: true"):
        llmal.load(exports("linear")[1], backend="int8")
    _, folder = exports("many")
    assert llmal.load(folder).backend == "onnx"
    assert (folder / "model.int8.onnx").stat().st_size < 0.5 * (folder / "model.onnx").stat().st_size


def test_the_card_states_how_often_int8_agrees(exports):
    parcel, folder = exports("many")
    stated = json.loads((folder / "llmal.json").read_text(encoding="utf-8"))["onnx"]["int8"]
    small, exact = llmal.load(folder, backend="int8"), llmal.load(folder)
    given = [*parcel.texts, *ODD]  # all at once: the scales of int8 depend on the batch
    same = [a == b for a, b in zip(small.predict(given), exact.predict(given), strict=True)]
    agree = np.mean(same[: len(parcel.texts)])
    worst = np.abs(small.predict_proba(given) - exact.predict_proba(given)).max()
    assert stated["agreement"] == pytest.approx(agree)
    assert stated["difference"] == pytest.approx(worst, abs=1e-3)
    assert worst > 1e-4, "not quantized at all"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"gave the same answer to {agree:.1%} of the corpus' texts" in card


# --- what is refused


@pytest.mark.parametrize("fault", [0.5, float("nan")])
def test_a_graph_that_answers_otherwise_is_never_shipped(fault, exports, tmp_path, monkeypatch):
    """The file is altered on its way: the export fails in one sentence and leaves nothing behind."""
    import onnx

    parcel, folder = exports("many")

    def altered(source, file):
        model = onnx.load(folder / "model.onnx")
        bias = next(t for t in model.graph.initializer if t.name.endswith("classifier.bias"))
        values = onnx.numpy_helper.to_array(bias).copy()
        values[0] += fault
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(model, file)

    monkeypatch.setattr(graph, "convert", altered)
    with pytest.raises(LlmalError, match=r"answers otherwise than the student: .* more than 0\.0001\. Ship"):
        write(Onnx(), parcel, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_student_too_large_for_one_file(exports, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "LARGEST", 1000)
    with pytest.raises(UserError, match="too large for one ONNX file"):
        write(Onnx(), exports("many")[0], tmp_path / "model")


def test_an_encoder_that_is_no_sentence_transformer(exports, tmp_path, monkeypatch):
    parcel = exports("linear")[0]
    monkeypatch.setattr(Sentence, "save", lambda self, folder: folder.mkdir())
    with pytest.raises(UserError, match="only sentence-transformers encoders"):
        write(Onnx(), parcel, tmp_path / "model")


def test_a_tokenizer_without_its_file(exports, tmp_path, monkeypatch):
    parcel = exports("many")[0]
    classifier = graph.classifier

    def lost(folder, length):
        source = classifier(folder, length)
        (folder / "tokenizer.json").unlink()
        return source

    monkeypatch.setattr(graph, "classifier", lost)
    with pytest.raises(LlmalError, match=r"no tokenizer\.json"):
        write(Onnx(), parcel, tmp_path / "model")


def test_no_such_backend(exports):
    with pytest.raises(UserError, match="no backend called 'tensorrt'. Use int8, onnx, openvino or torch"):
        llmal.load(exports("many")[1], backend="tensorrt")


def test_a_student_without_torch_needs_no_onnx_file(exports, tmp_path):
    """Linear on hashed n-grams is shipped as it is."""
    parcel = exports("linear")[0]._replace(encoder=Hashing(dim=32))
    write(Onnx(), parcel, tmp_path / "model")
    assert not (tmp_path / "model" / "model.onnx").exists()
    assert len(llmal.load(tmp_path / "model").predict(TEXTS)) == len(TEXTS)
    with pytest.raises(UserError, match=r"has no model\.onnx"):
        llmal.load(tmp_path / "model", backend="onnx")


def copy(folder, into):
    shutil.copytree(folder, into)
    return into


@pytest.mark.parametrize("body", [b"", b"not a model", b"\x80\x04junk"])
def test_a_file_that_is_no_model(body, exports, tmp_path):
    folder = copy(exports("many")[1], tmp_path / "model")
    (folder / "model.onnx").write_bytes(body)
    with pytest.raises(ModelError, match="cannot read the exported classifier"):
        llmal.load(folder)


@pytest.mark.parametrize("about", [{}, {"max_length": "x"}, {"max_length": 8, "truncate": 1}])
def test_a_description_that_is_wrong(about, exports, tmp_path):
    folder = copy(exports("many")[1], tmp_path / "model")
    said = json.loads((folder / "llmal.json").read_text(encoding="utf-8"))
    (folder / "llmal.json").write_text(json.dumps(said | {"onnx": about}), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot read the exported classifier"):
        llmal.load(folder)


@pytest.mark.parametrize("way", ["upwards", "absolute", "link", "inside"])
def test_weights_outside_the_folder_are_never_read(way, exports, tmp_path):
    """Weights in a file of their own are read from the folder, and from nowhere else."""
    import onnx

    folder = copy(exports("many")[1], tmp_path / "model")
    before = llmal.load(folder).predict_proba(TEXTS[:9])
    file = folder / "model.onnx"
    model = onnx.load(file)
    onnx.save_model(model, file, save_as_external_data=True, location="weights.data", size_threshold=2000)
    outside = tmp_path / "outside.data"
    if way != "inside":
        (folder / "weights.data").rename(outside)
    place = {"upwards": "../outside.data", "absolute": str(outside)}.get(way, "weights.data")
    if way == "link":
        (folder / "weights.data").symlink_to(outside)
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    file.write_bytes(model.SerializeToString())
    if way == "inside":
        assert (llmal.load(folder).predict_proba(TEXTS[:9]) == before).all()
    else:
        with pytest.raises(ModelError, match="cannot read the exported classifier"):
            llmal.load(folder)


def test_an_older_export_loads_as_before(exports, tmp_path):
    """Without the part `onnx` in llmal.json the file beside it is left alone."""
    folder = copy(exports("many")[1], tmp_path / "model")
    said = json.loads((folder / "llmal.json").read_text(encoding="utf-8"))
    del said["onnx"]
    (folder / "llmal.json").write_text(json.dumps(said), encoding="utf-8")
    assert llmal.load(folder).backend == "torch"


# --- the contract, with a student that becomes a graph


@pytest.mark.slow
def test_the_contract_holds_for_a_trained_student(tmp_path, monkeypatch):
    """Its probabilities in float32, as it trained; what else the contract asks is asked above."""
    monkeypatch.setattr("llmal.weights.has_bf16", lambda device: False)
    tiny = str(tiny_bert(tmp_path / "tiny", ["apple", "pear", "hammer", "saw", "rome", "paris"]))
    made = {
        "plugin": lambda self: Onnx(),
        "student": lambda self: Finetune(model=tiny, learning_rate=0.004),
        "tolerance": 1e-4,
        "kinds": ("single",),
    }
    type("Suite", (ExporterContract,), made)().test_predicts_as_the_student_does()
