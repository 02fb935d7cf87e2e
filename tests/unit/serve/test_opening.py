"""What a folder holds to be served: a run with its annotator, filter and people, or an export alone."""

import json
import shutil

import pytest

from llmal.errors import UserError
from llmal.filter.calibrated import Calibrated
from llmal.runner import run as run_line
from llmal.serve.opening import find, opened
from llmal.serve.options import Options
from llmal.serve.promise import terms_of
from llmal.spec import Pipeline
from llmal.store.store import open_store
from llmal.testing.brains import classifier, identify
from llmal.testing.exported import WORDS
from llmal.testing.fakelm import FakeLM

from .conftest import ask, run, served

TEXTS = [f"{a} {b} {i}" for i in range(6) for words in WORDS.values() for a in words for b in words]


def colour(text):
    return next((name for name, words in WORDS.items() if any(word in text for word in words)), "blue")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run whose filter reads the model's confidence by people's answers, and its model, still there."""
    tmp_path = tmp_path_factory.mktemp("home")
    rows = [{"text": text, "gold": colour(text)} for text in TEXTS]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with FakeLM(classifier(colour, confidence=0.6), identify=identify, price=(150_000, 600_000)) as server:
        llm = {
            "use": "llm",
            "model": "fake-lm",
            "base_url": server.base_url,
            "price": {"input": 0.15, "output": 0.6},
        }
        given = {
            "corpus": {"path": "corpus.jsonl", "gold": "gold"},
            "labels": {"names": list(WORDS), "abstain": False},
            "audit": {"size": 40, "annotate": True},
            "rounds": {"max": 1, "size": 30},
            "embed": {"use": "hashing", "dim": 64},
            "select": {"first": "uniform"},
            "annotate": llm,
            "filter": {"use": "calibrated", "at_least": 0.7},
            "train": {"rounds": "linear", "final": "linear"},
            "route": {"use": "threshold", "at_least": 0.999},
        }
        run_line(Pipeline.model_validate(given), tmp_path / "run", home=tmp_path)
        yield tmp_path / "run", server


@pytest.fixture
def made(done, tmp_path):
    """A copy of that run."""
    shutil.copytree(done[0], tmp_path / "run")
    return tmp_path / "run", done[1]


def test_a_run_is_served_with_its_own_model_and_what_its_people_say_of_it(made):
    """The model is right where it says 0.6, as 40 audit items show: its answers stand, and are paid here."""
    folder, server = made
    paid = server.n_requests

    async def work():
        async with served(folder, llm=True, calls=20, alarm_rate=0.1) as (client, service):
            found = await ask(client, "zzz sea")
            assert (found["route"], found["label"]) == ("llm", "blue")
            assert "calibrated" in found["reason"]
            assert found["confidence"] > 0.7
            assert service.about["model"].startswith("student-")
        assert server.n_requests == paid + 2
        store = open_store(folder / "serving", write=False)
        assert store.n_items() == 1
        store.close()
        open_store(folder).close()  # the run itself is free meanwhile, and nothing was written there

    run(work())


def test_the_export_inside_a_run_is_the_run(made):
    folder, _ = made
    whole, inside = find(folder, Options()), find(folder / "export", Options())
    assert whole == inside
    assert (whole.state, whole.run) == (folder / "serving", folder)
    assert isinstance(whole.pipeline.filter, Calibrated)


def test_a_pipeline_of_other_labels_is_refused(made, tmp_path):
    folder, _ = made
    other = tmp_path / "other.yaml"
    other.write_text(
        '{"corpus": {"path": "x.jsonl"}, "labels": {"names": ["red", "green"]}}', encoding="utf-8"
    )
    with pytest.raises(UserError, match="labels are not those"):
        find(folder, Options(pipeline=other))
    assert not (folder / "serving").exists()


def test_a_torn_certificate_is_told_and_nothing_is_opened(made):
    folder, _ = made
    file = folder / "export" / "llmal.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    torn = [
        {"certificate": {"by": "x"}},
        {"certificate": "yes"},
        {"reference": {"confidence": [0.5], "labels": []}},
        {"reference": {"confidence": [0.5], "labels": [[9]]}},
        {"threshold": "high"},
    ]
    for part in torn:
        file.write_text(json.dumps(about | part), encoding="utf-8")
        with pytest.raises(UserError, match="certificate in llmal.json"):
            opened(find(folder, Options()), Options())
    assert not (folder / "serving").exists()


def test_the_terms_of_an_export_are_those_the_run_wrote(made):
    folder, _ = made
    about = json.loads((folder / "export" / "llmal.json").read_text(encoding="utf-8"))
    terms = terms_of(about, where="")
    assert terms.promise is None
    assert terms.bar("student", ("red",)) == 0.999
    assert terms.bar("llm", ("red",)) is None
