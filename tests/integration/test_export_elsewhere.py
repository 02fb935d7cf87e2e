"""An export opens where llmal's packages are not: 1,000 texts, equal labels, probabilities within 1e-4.

Texts whose answer hangs on less than that are left out.

One place has numpy, onnxruntime and tokenizers, the other torch and transformers and no llmal.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import llmal
from llmal.export.onnx import Onnx
from llmal.export.stage import write
from llmal.testing import parcels

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PARITY = 1e-4
"""Probabilities of two places may differ by less than this."""
SERVED = ("model.onnx", "tokenizer.json", "llmal.json")
BY_LLMAL = """
import json, sys
sys.path[:0] = sys.argv[2:]
import llmal
model = llmal.load(sys.argv[1])
assert model.backend == "onnx", model.backend
given = json.load(sys.stdin)
others = {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
assert not others & {"torch", "transformers", "pydantic", "typer", "sqlalchemy", "safetensors"}, others
print(json.dumps([model.predict_proba(given).tolist(), model.predict(given)]))
"""
BY_TRANSFORMERS = """
import json, sys
sys.path[:0] = sys.argv[2:]
import importlib.util
assert importlib.util.find_spec("llmal") is None
from transformers import pipeline
classify = pipeline("text-classification", sys.argv[1], device="cpu", truncation=True, top_k=None)
columns = classify.model.config.label2id
single = classify.model.config.problem_type == "single_label_classification"
probs, answers = [], []
for scores in classify(json.load(sys.stdin), batch_size=64):
    row = {score["label"]: score["score"] for score in scores}
    probs.append([row[name] for name in sorted(columns, key=columns.get)])
    given = [name for name in columns if row[name] >= 0.5]
    answers.append(max(row, key=row.get) if single else given)
print(json.dumps([probs, answers]))
"""
KINDS = {"binary": (2, "single"), "many-class": (77, "single"), "multi-label": (9, "multi")}


class Export(NamedTuple):
    """A folder, 1,000 texts, and what the student says of them here."""

    folder: Path
    texts: list[str]
    probs: np.ndarray
    answers: list


@pytest.fixture(scope="module", params=KINDS)
def export(request, tmp_path_factory):
    """One for each kind."""
    n_classes, kind = KINDS[request.param]
    home = tmp_path_factory.mktemp("home")
    write(Onnx(), parcels.finetuned(home, parcels.schema_of(n_classes, kind)), home / "model")
    here = llmal.load(home / "model", backend="torch")
    many = parcels.texts(1100, seed=7)
    clear = margins(here.predict_proba(many), kind) > 2 * PARITY
    texts = [text for text, sure in zip(many, clear, strict=True) if sure][:1000]
    assert len(texts) == 1000
    answers = json.loads(json.dumps(here.predict(texts)))
    return Export(home / "model", texts, here.predict_proba(texts), answers)


def margins(probs, kind):
    """(n,) how far each text's probabilities are from another answer.

    The weights are random, so a few of the thousands of probabilities lie a rounding error from the bar:
    there both answers are right, and which one comes out hangs on the processor.
    """
    if kind == "multi":
        return np.abs(probs - 0.5).min(axis=1)
    best = np.sort(probs, axis=1)
    return best[:, -1] - best[:, -2]


def asked(python, script, export, folder, *packages):
    """Probabilities and answers by another Python, that sees these folders of packages only."""
    bare = ["-I", "-S"] if packages else ["-I"]
    done = subprocess.run(
        [str(python), *bare, "-c", script, str(folder), *map(str, packages)],
        input=json.dumps(export.texts),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": "", "HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found, export):
    assert len({json.dumps(answer) for answer in export.answers}) > 1, (
        "a student of one answer proves nothing"
    )
    assert np.abs(np.array(found[0]) - export.probs).max() < PARITY
    assert found[1] == export.answers


def served(folder, into):
    """The three files that predicting needs."""
    into.mkdir()
    for name in SERVED:
        shutil.copy2(folder / name, into / name)
    return into


def test_with_onnxruntime_and_tokenizers_only(export, tmp_path):
    for name in ("llmal", "numpy", "onnxruntime", "tokenizers"):
        home = Path(importlib.util.find_spec(name).origin).parent
        (tmp_path / "packages").mkdir(exist_ok=True)
        for package in (home, home.with_name(f"{name}.libs")):
            if package.is_dir():
                (tmp_path / "packages" / package.name).symlink_to(package)
    folder = served(export.folder, tmp_path / "model")
    check(asked(sys.executable, BY_LLMAL, export, folder, tmp_path / "packages"), export)


def test_with_torch_and_transformers_only(export):
    """-S leaves out what is installed in place, llmal among it."""
    import torch

    packages = Path(torch.__file__).parents[1]
    check(asked(sys.executable, BY_TRANSFORMERS, export, export.folder, packages), export)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A virtual environment with onnxruntime and tokenizers, and llmal without what it depends on."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    shutil.copytree(ROOT / "llmal", home / "source" / "llmal")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, home / "source")
    for words in (["-c", str(ROOT / "constraints.txt"), "onnxruntime", "tokenizers"],
                  ["--no-deps", str(home / "source")]):  # fmt: skip
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            if os.environ.get("CI"):
                pytest.fail(done.stderr)
            pytest.skip(f"no package index: {done.stderr[-200:]}")
    return python


def test_in_a_clean_environment(export, clean, tmp_path):
    check(asked(clean, BY_LLMAL, export, served(export.folder, tmp_path / "model")), export)
