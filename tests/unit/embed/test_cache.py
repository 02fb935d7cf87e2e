"""Converted models: kept where only the user writes, used only when whole; nothing is told to a server."""

import os
import stat
import subprocess
import sys

import pytest

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

from llmal import weights
from llmal.embed import openvino
from llmal.testing.contracts.plugin import check_no_pickle
from llmal.testing.tiny import tiny_bert


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llmal" / "openvino"


class Converter:
    """Stands for openvino: notes conversions, and writes and reads files as it does."""

    __version__ = "1"

    def __init__(self):
        self.conversions = 0

    def save_model(self, graph, path, compress_to_fp16):
        for name in openvino.FILES:
            (openvino.Path(path).parent / name).write_text(f"{graph} {name}")

    def Core(self):
        return self

    def read_model(self, path):
        return openvino.Path(path).read_text()


@pytest.fixture
def converter(monkeypatch):
    made = Converter()

    def convert(model, runtime):
        made.conversions += 1
        return f"graph of {model}"

    monkeypatch.setattr(openvino, "_convert", convert)
    monkeypatch.setattr(openvino, "_key", lambda model, runtime: f"key-of-{model}")
    return made


def test_a_model_is_converted_once(cache, converter):
    for _ in range(3):
        assert openvino.converted("m", converter) == "graph of m model.xml"
    assert converter.conversions == 1
    assert openvino.converted("other", converter) == "graph of other model.xml"
    assert converter.conversions == 2
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    check_no_pickle(cache)


@pytest.mark.parametrize("damage", ["cut", "other", "unnoted", "gone"])
def test_a_damaged_model_is_converted_anew(damage, cache, converter):
    openvino.converted("m", converter)
    place = cache / "key-of-m"
    if damage == "cut":
        (place / "model.bin").write_bytes((place / "model.bin").read_bytes()[:5])
    if damage == "other":
        (place / "model.xml").write_text("<net>another</net>")
    if damage == "unnoted":
        (place / "digests.json").write_text("{")
    if damage == "gone":
        (place / "model.bin").unlink()
    assert openvino.converted("m", converter) == "graph of m model.xml"
    assert converter.conversions == 2
    openvino.converted("m", converter)
    assert converter.conversions == 2


def test_a_folder_others_can_write_to_is_not_trusted(cache, converter):
    openvino.converted("m", converter)
    cache.chmod(0o777)
    assert openvino.cache() is None
    assert openvino.converted("m", converter) == "graph of m"
    assert converter.conversions == 2


def test_without_a_place_to_write_the_model_is_converted_each_time(tmp_path, converter, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert openvino.converted("m", converter) == "graph of m"
    assert converter.conversions == 2


def test_the_cache_does_not_grow_without_end(cache, converter):
    names = [f"m{i}" for i in range(openvino.KEPT + 2)]
    for age, name in enumerate(names):
        openvino.converted(name, converter)
        os.utime(cache / f"key-of-{name}", (age, age))
    openvino.converted("m3", converter)  # among the oldest, but used
    for name in ("one more", "another"):
        openvino.converted(name, converter)
    left = {place.name.removeprefix("key-of-") for place in cache.iterdir()}
    assert left == {"m3", "one more", "another", *names[5:]}


def test_the_key_follows_the_weights_and_the_converter(tmp_path):
    """Where the model lies does not matter; what its weights are does."""

    def model(place, seed):
        folder = tiny_bert(tmp_path / place, seed=seed)
        return weights.sentence_model(str(folder), device="cpu")

    one, same, other = model("one", 0), model("same", 0), model("other", 1)
    converter = Converter()
    assert openvino._key(one, converter) == openvino._key(same, converter)
    assert openvino._key(one, converter) != openvino._key(other, converter)
    newer = Converter()
    newer.__version__ = "2"
    assert openvino._key(one, converter) != openvino._key(one, newer)


TELLTALE = """
class Telemetry:
    told = []
    backend = type("", (), {"app_name": "OVC"})
    def __init__(self, *args, **options): self.told.append("made")
    def __getattr__(self, name): return lambda *args, **options: self.told.append(name)
"""


@pytest.mark.parametrize("imported_before", [False, True])
def test_nothing_is_told_to_a_server(imported_before, tmp_path):
    """Neither on import nor on conversion; also in a program that has openvino imported already (X19)."""
    package = tmp_path / "openvino_telemetry"
    (package / "backend").mkdir(parents=True)
    (package / "__init__.py").write_text(TELLTALE)
    (package / "backend" / "__init__.py").write_text("backend_ga4 = None")
    (tmp_path / "no-model.onnx").write_text("not a model: reporting begins before it is read")
    script = f"""
{"import openvino" if imported_before else ""}
from llmal.embed.openvino import quiet_openvino
runtime = quiet_openvino()
import openvino_telemetry
before = len(openvino_telemetry.Telemetry.told)
try:
    runtime.convert_model({str(tmp_path / "no-model.onnx")!r})
except Exception as error:
    print(len(str(error)) > 0, before, len(openvino_telemetry.Telemetry.told))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    refused, before, after = ran.stdout.split()[-3:]
    assert refused == "True"
    assert before == after
    assert (int(before) > 0) == imported_before, "the stand-in for the package was not looked at"
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize("asked", ["", "3", "0", "many"])
def test_threads_are_as_many_as_asked_for(asked, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert openvino.threads() == (3 if asked == "3" else len(os.sched_getaffinity(0)))
