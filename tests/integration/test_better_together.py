"""Prompt and weights in turn, by the commands of pipelines/better_together.yaml: order, and best not last."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from llmal.prompts.file import read_state
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.fakelm import FakeLM
from llmal.tune.stage import revert

HARMFUL = "Answer with the first option"


@pytest.fixture(scope="module")
def world():
    """The runs and the model of the tests of compile."""
    path = Path(__file__).with_name("test_compile.py")
    spec = importlib.util.spec_from_file_location("compile_world", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def weights(made):
    """One run of the line: recipe of the student it ends with, and how many of its labels are right."""
    done = run(Pipeline.from_yaml(made.file), made.run, home=made.home)
    store = open_store(made.run, write=False)
    student = [row for row in store.read(t.student.select().order_by(t.student.c.at)) if row.role == "final"]
    rows = [json.loads(line) for line in (made.run / "labels.jsonl").read_text("utf-8").splitlines()]
    machine = [row for row in rows if row["label_source"] == "llm"]
    store.close()
    right = sum(row["label"] in row["text"] for row in machine) / len(machine)
    return done, student, right


def test_a_prompt_a_student_a_prompt_and_the_best_of_them_is_what_stays(world, tmp_path):
    """p -> w -> p: the first prompt betters the labels, the second is worse and is not kept; no call is paid
    again for the student of the best."""
    said = {"now": world.PLANTED}

    def skill(system, text):
        return 0.3 if HARMFUL in system else 0.95 if world.PLANTED in system else 0.55

    def write(field, ask):
        return said["now"] if "instruction" in field or field == "rule" else "They are short texts."

    with FakeLM(world.brain(skill, write)) as server:
        made = world.Desk(tmp_path, server, n=330)
        _, before, right_before = weights(made)
        first = made.compile("gepa", options=world.SMALL["gepa"])  # p
        assert first["kept"]
        _, after, right_after = weights(made)  # w
        assert len(after) == len(before) + 1
        assert right_after > right_before + 0.2
        said["now"] = HARMFUL
        second = made.compile("gepa", options=world.SMALL["gepa"])  # p
        assert not second["kept"]
        assert world.PLANTED in read_state(made.prompt).text
        calls = server.n_requests
        last, final, right_last = weights(made)
        assert server.n_requests == calls
    assert len(final) == len(after)
    assert right_last == right_after
    assert last.export is not None


@pytest.mark.slow
def test_going_back_to_a_prompt_finds_its_labels_and_its_student(world, tmp_path):
    """`--revert` costs nothing: what was answered and learnt under the old prompt is there."""
    with FakeLM(world.brain(world.by_word(), world.proposes(world.PLANTED))) as server:
        made = world.Desk(tmp_path, server, n=330)
        _, before, right_before = weights(made)
        assert made.compile("gepa", options=world.SMALL["gepa"])["kept"]
        weights(made)
        revert(made.file)
        calls = server.n_requests
        _, again, right_again = weights(made)
        assert server.n_requests == calls
    assert len(again) == len(before) + 1  # one for each prompt, and none is fitted twice
    assert right_again == right_before
