"""Whatever way a folder is opened, nothing in it runs (faults X11, X12): canaries that would leave a file."""

import builtins
import json
import pickle
import shutil
import sys

import pytest
from typer.testing import CliRunner

import llmal
from llmal.cli import app
from llmal.embed.sentence import Sentence
from llmal.errors import LlmalError, ModelError
from llmal.export import graph
from llmal.export.stage import write
from llmal.export.transformers import Transformers
from llmal.testing import parcels
from llmal.testing.contracts import ExporterContract
from llmal.testing.contracts.plugin import check_no_pickle
from llmal.train.finetune import _fresh
from llmal.train.linear import LinearModel


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return builtins.open, (str(self.place), "w")


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The file a canary would write, and the code of a module on the path that writes it if imported."""
    place, nest = tmp_path / "it ran", tmp_path / "nest"
    nest.mkdir()
    names = "Canary = CanaryConfig = CanaryModel = CanaryTokenizer = type('Canary', (), {})\n"
    code = f"open({str(place)!r}, 'w').close()\n{names}"
    (nest / "canary.py").write_text(code)
    monkeypatch.syspath_prepend(str(nest))
    yield place, code
    assert "canary" not in sys.modules
    assert not place.exists(), "the canary ran"


def rewritten(file, **changes):
    held = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps(held), encoding="utf-8")


# --- what is in the folder. Each takes the folder of a model and (the canary's file, its code).


def pickled_only(folder, canary):
    for file in folder.rglob("*.safetensors"):
        file.unlink()
        file.with_name("pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary[0])))


def pickled_somewhere(folder, canary):
    (folder / "deep").mkdir()
    (folder / "deep" / "adapter_model.pt").write_bytes(pickle.dumps(Canary(canary[0])))


def mapped(folder, canary):
    """Classes of its own beside a model that transformers knows."""
    for file in folder.rglob("*config.json"):
        if file.name != "tokenizer_config.json" and "model_type" not in file.read_text(encoding="utf-8"):
            continue  # of a sentence-transformers module
        (file.parent / "canary.py").write_text(canary[1])
        names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoTokenizer")
        rewritten(file, auto_map=dict.fromkeys(names, "canary.Canary"))


def mapped_unknown(folder, canary):
    """Classes of its own for a model that transformers does not know."""
    mapped(folder, canary)
    for file in folder.rglob("config.json"):
        if "model_type" in json.loads(file.read_text(encoding="utf-8")):
            rewritten(file, model_type="no-such-model", architectures=["Canary"])


def custom_module(folder, canary):
    """A sentence-transformers module of its own."""
    home = folder / "encoder" if (folder / "encoder").is_dir() else folder
    (home / "canary.py").write_text(canary[1])
    modules = [{"idx": 0, "name": "0", "path": "", "type": "canary.Canary"}]
    (home / "modules.json").write_text(json.dumps(modules))


FAULTS = [pickled_only, pickled_somewhere, mapped, mapped_unknown, custom_module]

# --- ways to open a folder: name -> (which export, how).


def as_base(folder, tmp_path):
    """A folder as the model that a new student starts from."""
    _fresh(str(folder), parcels.schema_of(20))


def as_file(folder, tmp_path):
    (tmp_path / "texts.csv").write_text("text\nrose\n")
    done = CliRunner().invoke(app, ["predict", str(folder), str(tmp_path / "texts.csv"), "--quiet"])
    raise done.exception


def served(backend):
    return lambda folder, _: llmal.load(folder, backend=backend).predict(["rose"])


WAYS = {
    "load": ("many", served(None)),
    "load torch": ("many", served("torch")),
    "load onnx": ("many", served("onnx")),
    "load int8": ("many", served("int8")),
    "load linear": ("linear", served("torch")),
    "load linear onnx": ("linear", served("onnx")),
    "predict": ("many", as_file),
    "to onnx": ("many", lambda folder, _: graph.classifier(folder, None)),
    "linear to onnx": ("linear", lambda folder, _: graph.linear(folder)),
    "encoder": ("linear", lambda folder, _: Sentence(model=str(folder / "encoder")).encode(["rose"])),
    "base model": ("many", as_base),
}
# Models from elsewhere may name classes beside those that transformers has for them, which are then used.
FOREIGN = {"to onnx", "linear to onnx", "encoder", "base model"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_folder_that_could_run_something_is_refused(fault, way, exports, tmp_path, canary):
    case, opened = WAYS[way]
    folder = tmp_path / "model"
    shutil.copytree(exports(case)[1], folder)
    fault(folder, canary)
    if way in ("encoder", "linear to onnx") and fault is pickled_somewhere:
        (folder / "deep").rename(folder / "encoder" / "deep")
    if way in FOREIGN and fault is mapped:
        opened(folder, tmp_path)
    else:
        with pytest.raises(LlmalError) as caught:
            opened(folder, tmp_path)
        assert isinstance(caught.value, ModelError), caught.value


def test_the_canaries_would_sing(tmp_path, canary, monkeypatch):
    pickle.loads(pickle.dumps(Canary(tmp_path / "sung"))).close()
    assert (tmp_path / "sung").exists()
    exec(canary[1].replace("it ran", "it sang"))
    assert (tmp_path / "it sang").exists()


SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("multi", "linear single")]


@pytest.mark.parametrize("exporter", ["transformers", "onnx"])
@pytest.mark.parametrize("case", ["many", "linear", *SLOW])
def test_every_file_of_every_export_is_data(case, exporter, exports, tmp_path):
    parcel, folder = exports(case)
    if exporter == "transformers":
        folder = tmp_path / "model"
        write(Transformers(), parcel, folder)
    check_no_pickle(folder)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= ExporterContract.suffixes
    assert not [file for file in files if file.is_symlink() or file.stat().st_mode & 0o111]
    for file in files:
        if file.suffix == ".json":
            held = json.loads(file.read_text(encoding="utf-8"))
            assert "auto_map" not in held, file
        body = file.read_bytes()
        assert str(parcel.student).encode() not in body, f"{file.name} names a place on this machine"
        assert not any(text.encode() in body for text in parcel.texts if len(text) > 20), file


def test_classes_a_base_model_names_stay_behind(exports, tmp_path):
    """Its configuration is saved with the student's; what it says of code is left out of the export."""
    parcel = exports("many")[0]
    student = tmp_path / "student"
    shutil.copytree(parcel.student, student)
    rewritten(student / "config.json", auto_map={"AutoModel": "someone/else--modeling.Model"})
    write(Transformers(), parcel._replace(student=student), tmp_path / "model")
    assert "auto_map" not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    assert llmal.load(tmp_path / "model").predict(["rose"])


def test_a_head_is_read_as_safetensors_only(exports, tmp_path, canary):
    folder = tmp_path / "model"
    shutil.copytree(exports("linear")[1], folder)
    (folder / "head.safetensors").write_bytes(pickle.dumps(Canary(canary[0])))
    with pytest.raises(Exception, match="header|Header|safetensor"):
        LinearModel.load(folder)
