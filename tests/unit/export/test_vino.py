"""OpenVINO runs an export in bfloat16: near the stated answers, checked on the spot, no telemetry."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import llmal
from llmal.errors import MissingExtra, ModelError
from llmal.export import vino
from llmal.export.runtime import PROBES
from llmal.testing import parcels
from llmal.testing.contracts.ship import no_network

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("openvino") or not vino.usable({"probes": []}),
    reason="needs the extra openvino and a processor with bfloat16",
)
TEXTS = parcels.texts(300)
ROUNDING = 0.2
"""A network of random weights tells texts apart by the last bits: rounding moves its probabilities so far."""

CASES = pytest.mark.parametrize("case", ["many", pytest.param("linear", marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def random_weights(monkeypatch):
    monkeypatch.setattr(vino, "TOLERANCE", ROUNDING)


@CASES
def test_it_answers_as_onnxruntime_does_but_for_rounding(case, exports):
    with no_network():
        fast, exact = (llmal.load(exports(case)[1], backend=name) for name in ("openvino", "onnx"))
        found, wanted = fast.predict_proba(TEXTS), exact.predict_proba(TEXTS)
    assert fast.backend == "openvino"
    assert np.abs(found - wanted).max() < ROUNDING
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted - wanted[::-1]).mean()
    assert fast.predict([]) == []
    assert fast.predict_proba([]).shape == (0, len(fast.labels))


@CASES
def test_a_text_is_answered_alike_alone_and_among_others(case, exports):
    model = llmal.load(exports(case)[1], backend="openvino")
    alone = np.concatenate([model.predict_proba([text]) for text in TEXTS[:10]])
    assert np.abs(alone - model.predict_proba(TEXTS)[:10]).max() < ROUNDING


def test_it_is_chosen_where_it_is_installed(exports, monkeypatch):
    folder = exports("many")[1]
    assert llmal.load(folder).backend == "openvino"
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "openvino" else found(n, *a))
    assert llmal.load(folder).backend == "onnx"
    with pytest.raises(MissingExtra, match=r'openvino is needed .*pip install "llmal\[openvino\]"'):
        llmal.load(folder, backend="openvino")


def altered(folder, into, change):
    """A copy of an export with its ONNX part changed."""
    shutil.copytree(folder, into)
    said = json.loads((into / "llmal.json").read_text(encoding="utf-8"))
    change(said["onnx"])
    (into / "llmal.json").write_text(json.dumps(said), encoding="utf-8")
    return into


def test_a_machine_that_computes_otherwise_is_not_trusted(exports, tmp_path):
    """The stated answers are moved, as if a kernel of this processor were wrong: onnxruntime answers."""

    def change(about):
        assert len(about["probes"]) == len(PROBES)
        about["probes"][3] = [1.0] + [0.0] * 19

    folder = altered(exports("many")[1], tmp_path / "model", change)
    with pytest.warns(RuntimeWarning, match="in bfloat16 a probability differs by .*so OpenVINO is not used"):
        model = llmal.load(folder)
    assert model.backend == "onnx"
    with pytest.raises(ModelError, match=r'differs by .* more than 0\.2. Load it with backend="onnx"'):
        llmal.load(folder, backend="openvino")


@pytest.mark.parametrize("probes", [None, 7, [[0.5]], [["a"]], [[1.0, 2.0], [3.0]]])
def test_stated_answers_that_are_none_are_told(probes, exports, tmp_path):
    folder = altered(exports("many")[1], tmp_path / "model", lambda about: about.update(probes=probes))
    with pytest.raises(ModelError, match="bfloat16"):
        llmal.load(folder, backend="openvino")


def test_an_export_without_stated_answers_is_left_to_onnxruntime(exports, tmp_path):
    folder = altered(exports("many")[1], tmp_path / "model", lambda about: about.pop("probes"))
    assert llmal.load(folder).backend == "onnx"


def test_weights_outside_the_file_are_never_read(exports, tmp_path):
    import onnx

    folder = tmp_path / "model"
    shutil.copytree(exports("many")[1], folder)
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, location="w", size_threshold=2000
    )
    with pytest.raises(ModelError, match="its weights lie in another file"):
        llmal.load(folder, backend="openvino")


@pytest.mark.parametrize("body", [b"", b"not a model", b"\x80\x04junk"])
def test_a_file_that_is_no_model(body, exports, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(exports("many")[1], folder)
    (folder / "model.onnx").write_bytes(body)
    with pytest.raises(ModelError, match="cannot read the exported classifier"):
        llmal.load(folder, backend="openvino")


def test_its_telemetry_is_never_imported(tmp_path):
    """Importing openvino plainly reports the import to a server, and leaves an id in the home folder."""
    script = (
        "import sys\nfrom llmal import extras\nextras.openvino(why='')\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": ""},
        timeout=120,
    )
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
