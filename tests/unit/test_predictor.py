"""Exported folders: loading, predicting, and folders that would run something."""

import builtins
import json
import os
import pickle
import shutil
import sys

import numpy as np
import pytest

import llmal
from llmal.context import Context
from llmal.embed.hashing import Hashing
from llmal.embed.sentence import Sentence
from llmal.errors import ModelError, UserError
from llmal.export.stage import Parcel, write
from llmal.export.transformers import FORMAT, Transformers
from llmal.records import Label, LabelSchema
from llmal.testing.contracts.plugin import check_no_pickle
from llmal.testing.contracts.ship import FACTS, no_network
from llmal.testing.tiny import tiny_bert
from llmal.train.finetune import Finetune
from llmal.train.linear import Linear
from llmal.train.stage import Examples

WORDS = {"red": ["rose", "ruby", "rust"], "green": ["grass", "leaf", "lime"], "blue": ["sky", "sea", "ink"]}
TEXTS = [" ".join(words[i:] + words[:i]) for words in WORDS.values() for i in range(3)]
NAMES = list(WORDS)
Y = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
ENCODER = Hashing(dim=128)
SAFE = {".safetensors", ".json", ".txt", ".md", ".model", ".vocab"}


def schema_of(kind):
    return LabelSchema(
        kind, tuple(Label(name=name, description=f"all that is {name}") for name in NAMES), False
    )


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """(student, kind) -> exported folder and the student's own probabilities; each made once."""
    folder = tmp_path_factory.mktemp("exports")
    tiny = tiny_bert(folder / "tiny", [w for words in WORDS.values() for w in words])
    made = {}
    for student in (Linear(), Finetune(model=str(tiny), learning_rate=0.004)):
        for kind in ("single", "multi"):
            ctx = Context(folder, home=folder)
            given = Examples(TEXTS, ENCODER.encode(TEXTS), Y, np.ones(len(TEXTS), np.float32))
            model = student.fit(given, schema_of(kind), np.random.default_rng(0), ctx)
            source = folder / f"student-{student.name}-{kind}"
            source.mkdir()
            model.save(source)
            out = folder / f"{student.name}-{kind}"
            length = getattr(student, "max_length", None)
            parcel = Parcel(source, student.name, ENCODER, schema_of(kind), 0.9, length, FACTS)
            write(Transformers(), parcel, out)
            made[student.name, kind] = out, model.predict_proba(given)
    return made


BOTH = pytest.mark.parametrize("student", ["linear", "finetune"])


@BOTH
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_load_and_predict(student, kind, exports):
    folder, probs = exports[student, kind]
    with no_network():
        model = llmal.load(folder)
        found = model.predict_proba(TEXTS)
    assert (model.labels, model.kind, model.threshold) == (NAMES, kind, 0.9)
    assert model.schema.labels[0].description == "all that is red"
    assert found.shape == (9, 3)
    assert found.dtype == np.float32
    assert found == pytest.approx(probs, abs=1e-5)
    answers = model.predict(TEXTS)
    if kind == "single":
        assert answers == [NAMES[c] for c in probs.argmax(axis=1)]
        assert found.sum(axis=1) == pytest.approx(np.ones(9), abs=1e-5)
    else:
        assert answers == [tuple(n for n, p in zip(NAMES, row, strict=True) if p >= 0.5) for row in found]


@BOTH
def test_predicting_nothing(student, exports):
    model = llmal.load(exports[student, "single"][0])
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, 3)
    assert len(model.predict(("rose", "sky"))) == 2


def test_linear_learnt_something(exports):
    assert llmal.load(str(exports["linear", "single"][0])).predict(["a rose", "the sky"]) == ["red", "blue"]


@BOTH
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_an_export_holds_data_only(student, kind, exports):
    folder, _ = exports[student, kind]
    check_no_pickle(folder)
    for file in folder.rglob("*"):
        if file.is_file():
            body = file.read_bytes()
            assert file.suffix in SAFE, file
            assert not file.is_symlink()
            assert not body.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), (
                file
            )
            assert b"data.pkl" not in body, file


@BOTH
def test_the_card_tells_classes_and_measures(student, exports):
    card = (exports[student, "single"][0] / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name:")
    assert "- `red`: all that is red" in card
    assert "| accuracy | 0.900 | 0.700 to 1.000 | 9 |" in card


def test_a_finetuned_export_loads_without_llmal(exports):
    from transformers import pipeline

    folder, probs = exports["finetune", "single"]
    found = pipeline("text-classification", model=str(folder), device="cpu")(TEXTS)
    assert [f["label"] for f in found] == [NAMES[c] for c in probs.argmax(axis=1)]


def test_exporting_again_replaces_the_folder(exports, tmp_path):
    parcel = Parcel(exports["linear", "single"][0], "linear", ENCODER, schema_of("single"), None, None, FACTS)
    write(Transformers(), parcel, tmp_path / "model")
    (tmp_path / "model" / "stale.txt").write_text("old")
    write(Transformers(), parcel, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "stale.txt").exists()
    assert llmal.load(tmp_path / "model").threshold is None


def test_exporter_refuses_a_student_it_does_not_know(tmp_path):
    parcel = Parcel(tmp_path, "forest", ENCODER, schema_of("single"), None, None, FACTS)
    with pytest.raises(UserError, match="cannot ship a 'forest' student"):
        Transformers().export(parcel, tmp_path)


# --- folders that cannot be loaded


@pytest.mark.parametrize(
    "about",
    ["", "[]", '"llmal"', "{", '{"format": 1}', '{"student": "linear", "labels": [], "kind": "single"}'],
)
def test_a_folder_that_is_no_export(about, tmp_path):
    if about:
        (tmp_path / "llmal.json").write_text(about)
    with pytest.raises(UserError, match="no exported classifier here"):
        llmal.load(tmp_path)


def altered(folder, into, **changes):
    """A copy of an export with other words in its llmal.json."""
    import shutil

    shutil.copytree(folder, into)
    about = json.loads((into / "llmal.json").read_text(encoding="utf-8"))
    (into / "llmal.json").write_text(json.dumps(about | changes), encoding="utf-8")
    return into


def test_an_export_of_a_newer_llmal(exports, tmp_path):
    newer = altered(exports["linear", "single"][0], tmp_path / "newer", format=FORMAT + 1)
    with pytest.raises(UserError, match="newer llmal"):
        llmal.load(newer)


# --- canaries (faults.md X11, X12): code that leaves a file behind when it runs


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return builtins.open, (str(self.place), "w")


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The file a canary would write, and a module on the path that writes it when imported."""
    place = tmp_path / "it ran"
    nest = tmp_path / "nest"
    nest.mkdir()
    code = f"open({str(place)!r}, 'w').close()\nclass Canary: pass\nclass CanaryConfig: pass\n"
    (nest / "canary.py").write_text(code)
    monkeypatch.syspath_prepend(str(nest))
    yield place, code
    assert "canary" not in sys.modules
    assert not place.exists(), "the canary ran"


def test_the_canary_would_sing(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "sung"))).close()
    assert (tmp_path / "sung").exists()


@pytest.mark.parametrize(
    "encoder", ["canary:Canary", {"use": "canary:Canary"}, {"use": 7}, None, ["canary:Canary"]]
)
def test_export_that_names_a_module_is_refused(encoder, exports, tmp_path, canary):
    folder = altered(exports["linear", "single"][0], tmp_path / "model", encoder=encoder)
    with pytest.raises(UserError, match="is not installed"):
        llmal.load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_finetuned_folder_with_pickled_weights_is_refused(name, exports, tmp_path, canary):
    folder = altered(exports["finetune", "single"][0], tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(canary[0])))
    with pytest.raises(ModelError, match=f"{name} is a pickle"):
        llmal.load(folder)


def test_pickle_beside_safetensors_is_never_read(exports, tmp_path, canary):
    folder = altered(exports["finetune", "single"][0], tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary[0])))
    (folder / "training_args.bin").write_bytes(pickle.dumps(Canary(canary[0])))
    assert llmal.load(folder).predict(["rose ruby rust"]) == ["red"]


@pytest.mark.parametrize("known", [True, False])
def test_auto_map_never_runs(known, exports, tmp_path, canary):
    folder = altered(exports["finetune", "single"][0], tmp_path / "model")
    (folder / "canary.py").write_text(canary[1])
    for file, keys in {
        "config.json": ("AutoConfig", "AutoModelForSequenceClassification"),
        "tokenizer_config.json": ("AutoTokenizer",),
    }.items():
        config = json.loads((folder / file).read_text())
        config["auto_map"] = dict.fromkeys(keys, "canary.Canary")
        if not known and file == "config.json":
            config["model_type"] = "no-such-model"
        (folder / file).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"names code of its own \(auto_map\)\. llmal runs no code"):
        llmal.load(folder)


def sentence_folder(folder):
    """A sentence-transformers folder over the tiny BERT."""
    tiny_bert(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_sentence_encoder_from_a_folder(tmp_path):
    vectors = Sentence(model=str(sentence_folder(tmp_path / "encoder"))).encode(["rose", "sky", "rose"])
    assert vectors.shape == (3, 32)
    assert (vectors[0] == vectors[2]).all()


def test_encoder_written_anew_in_the_same_place_is_read_anew(tmp_path):
    folder = sentence_folder(tmp_path / "encoder")
    before = Sentence(model=str(folder)).encode(["rose"])
    tiny_bert(folder, seed=1)
    os.utime(folder / "modules.json", ns=(1, 1))
    assert not np.allclose(before, Sentence(model=str(folder)).encode(["rose"]))


@pytest.mark.parametrize("kind", ["canary.Canary", "os.system", "canary", None])
def test_sentence_module_of_its_own_is_refused(kind, tmp_path, canary):
    folder = sentence_folder(tmp_path / "encoder")
    (folder / "canary.py").write_text(canary[1])
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"names code of its own"):
        Sentence(model=str(folder)).encode(["rose"])


def test_sentence_encoder_with_pickled_weights_is_refused(exports, tmp_path, canary):
    folder = altered(exports["linear", "single"][0], tmp_path / "model", encoder="sentence")
    encoder = sentence_folder(folder / "encoder")
    (encoder / "model.safetensors").unlink()
    (encoder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary[0])))
    with pytest.raises(ModelError, match="pytorch_model.bin is a pickle"):
        llmal.load(folder).predict(["rose"])


CERTIFICATE = {"words": "Nothing is certified.", "bars": []}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"threshold": 0.7}, [True, False, True]),
        ({"threshold": None}, [None, None, None]),
        ({"threshold": None, "certificate": CERTIFICATE}, [False, False, False]),
        ({"threshold": None, "thresholds": {"red": 0.9, "blue": None}, "certificate": CERTIFICATE},
         [False, False, False]),
        ({"threshold": None, "thresholds": {"red": 0.75, "blue": 0.1}, "certificate": CERTIFICATE},
         [True, False, True]),
    ],
)  # fmt: skip
def test_an_answer_is_accepted_by_the_runs_own_threshold_or_by_none(said, expected, exports, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(exports["linear", "single"][0], folder)
    about = json.loads((folder / "llmal.json").read_text(encoding="utf-8")) | said
    (folder / "llmal.json").write_text(json.dumps(about), encoding="utf-8")
    model = llmal.load(folder)
    assert model.certificate == said.get("certificate")
    asked = [(("red",), 0.8), (("red",), 0.6), (("blue",), 0.8)]
    assert [model.accepts(labels, sure) for labels, sure in asked] == expected


def test_an_export_of_before_certificates_loads(exports):
    model = llmal.load(exports["linear", "single"][0])
    assert "certificate" not in json.loads((model.folder / "llmal.json").read_text(encoding="utf-8"))
    assert (model.certificate, model.thresholds, model.reference) == (None, None, None)
    assert model.accepts(("red",), 0.95)
