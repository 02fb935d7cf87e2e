"""Predicting needs little: three files, and a Python with numpy, onnxruntime, tokenizers and no more."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llmal
from llmal.testing import parcels

SERVED = {"model.onnx", "tokenizer.json", "llmal.json"}
TEXTS = parcels.texts(20)
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import llmal
given = json.load(sys.stdin)
model = llmal.load(sys.argv[2])
probs, answers = model.predict_proba(given).tolist(), model.predict(given)
print(json.dumps([model.backend, probs, answers, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A folder of packages that holds llmal and what it predicts with, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("llmal", "numpy", "onnxruntime", "tokenizers"):
        home = Path(importlib.util.find_spec(name).origin).parent
        (folder / name).symlink_to(home)
        if (libraries := home.with_name(f"{name}.libs")).is_dir():
            (folder / libraries.name).symlink_to(libraries)
    return folder


@pytest.mark.parametrize("case", ["many", "linear"])
def test_predicting_needs_onnxruntime_and_tokenizers_only(case, exports, light, tmp_path):
    """Neither pydantic nor torch nor transformers is installed there, and the probabilities are torch's."""
    _, folder = exports(case)
    for name in SERVED:
        shutil.copy2(folder / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT, str(light), str(tmp_path)],  # -S: no site-packages
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    backend, probs, answers, modules = json.loads(done.stdout)
    assert backend == "onnx"
    here = llmal.load(folder, backend="torch")
    assert probs == pytest.approx(here.predict_proba(TEXTS), abs=1e-4)
    assert [tuple(a) if isinstance(a, list) else a for a in answers] == here.predict(TEXTS)
    others = set(modules) - set(sys.stdlib_module_names) - {"__main__"}
    assert others == {"llmal", "numpy", "onnxruntime", "tokenizers"}


def test_what_is_missing_there_is_said_in_a_sentence(exports, light, tmp_path):
    """A folder without its ONNX file asks for what would run it."""
    shutil.copy2(exports("many")[1] / "llmal.json", tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT, str(light), str(tmp_path)],
        input="[]",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "MissingExtra" in told
    assert "is needed for this classifier. Install it with: pip install llmal" in told
