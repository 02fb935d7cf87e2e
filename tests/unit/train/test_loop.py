"""A long training: going on after a kill, restarts, early stop, the best of several starts, soft targets."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors import safe_open

from llmal.context import Context, Silent
from llmal.records import Label, LabelSchema
from llmal.testing.tiny import tiny_bert
from llmal.train import loop
from llmal.train.checkpoint import FOLDER
from llmal.train.finetune import Finetune
from llmal.train.objective import Lesson
from llmal.train.stage import Examples
from llmal.train.targets import Distil

WORDS = {"red": ["rose", "ruby", "rust"], "green": ["grass", "leaf", "lime"], "blue": ["sky", "sea", "ink"]}
THREE = LabelSchema("single", tuple(Label(name=name) for name in WORDS), False)


def examples(n=48, *, wrong=0.0, seed=0):
    """Texts of two to five words of one colour, and the colour, a share of them drawn at random."""
    draw, names = np.random.default_rng(seed), list(WORDS)
    y = np.arange(n) % 3
    texts = [" ".join(draw.choice(WORDS[names[c]], draw.integers(2, 6))) for c in y]
    said = np.where(draw.random(n) < wrong, draw.integers(0, 3, n), y)
    return Examples(texts, None, np.eye(3, dtype=np.float32)[said], np.ones(n, np.float32))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(
        tmp_path_factory.mktemp("tiny"), [w for words in WORDS.values() for w in words], hidden=32
    )


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Trainings of 60 steps."""
    monkeypatch.setattr(loop, "MIN_STEPS", STEPS)


STEPS = 60


class Watch(Silent):
    """Keeps what is said, and counts steps; calls `at_step` with their number."""

    def __init__(self, at_step=lambda step: None):
        self.said, self.steps, self.at_step = [], 0, at_step

    def say(self, text):
        self.said.append(text)

    @contextmanager
    def task(self, title, total):
        def advance(n=1, *, note=""):
            if note:
                self.steps += 1
                self.at_step(self.steps)

        yield advance


def fit(folder, student, given, *, seed=1, watch=None):
    folder.mkdir(exist_ok=True)
    ctx = Context(folder, home=folder, progress=watch or Watch())
    return student.fit(given, THREE, np.random.default_rng(seed), ctx)


def weights_of(model):
    return {name: value.numpy().copy() for name, value in model.network.state_dict().items()}


def same(one, other):
    return all((one[name] == other[name]).all() for name in one)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_loop as here
def die(step):
    if step == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
here.loop.MIN_STEPS = here.STEPS
student = here.Finetune.model_validate_json(sys.argv[3])
here.fit(Path(sys.argv[2]), student, here.examples(), watch=here.Watch(die))
"""


def test_a_training_that_was_killed_goes_on_and_ends_with_the_very_same_weights(tiny, tmp_path):
    """The kill is `kill -9`, in the second of two starts, with a best network kept from the first."""
    student = Finetune(model=str(tiny), learning_rate=0.004, holdout=0.5, patience=2, seeds=2, checkpoint_s=0)
    unbroken = Watch()
    reference = weights_of(fit(tmp_path / "whole", student, examples(), watch=unbroken))
    kill_at = unbroken.steps - 5
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(_here()), str(run), student.model_dump_json(), str(kill_at)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = list((run / FOLDER).iterdir())
    assert [file.suffix for file in kept] == [".safetensors"]
    with safe_open(kept[0], "np") as file:
        place = json.loads(file.metadata()["place"])
        assert any(name.startswith("best/") for name in file.keys())  # noqa: SIM118 - no dict
    assert place["attempt"] == 1
    watch = Watch()
    again = weights_of(fit(run, student, examples(), watch=watch))
    assert same(reference, again)
    assert watch.steps == unbroken.steps - kill_at + 1  # the step it died in had not been kept
    assert any("goes on at step" in line for line in watch.said)
    assert not (run / FOLDER).exists()


def _here():
    from pathlib import Path

    return Path(__file__).parent


class Stop(Exception):
    """Ends a training from within."""


def stopped(folder, student, given, at):
    def stop(step):
        if step == at:
            raise Stop

    with pytest.raises(Stop):
        fit(folder, student, given, watch=Watch(stop))


@pytest.fixture
def broken(tiny, tmp_path):
    """A student of `STEPS` steps, and a folder where its training ended at the 40th."""
    student = Finetune(model=str(tiny), learning_rate=0.004, checkpoint_s=0)
    stopped(tmp_path / "run", student, examples(), 40)
    return student, tmp_path / "run"


def test_another_training_starts_anew_and_clears_away_what_was_kept(broken):
    student, folder = broken
    for other, given in (
        (student, examples(seed=5)),
        (student.model_copy(update={"batch_size": 8}), examples()),
    ):
        watch = Watch()
        stopped(folder, other, given, 3)
        fit(folder, other.model_copy(update={"epochs": 1}), given, watch=watch)
        assert watch.said == []
        assert not (folder / FOLDER).exists()


def test_how_often_is_kept_changes_neither_the_name_nor_the_weights(broken, tmp_path):
    student, folder = broken
    seldom = student.model_copy(update={"checkpoint_s": 1000})
    assert seldom.recipe() == student.recipe()
    watch = Watch()
    again = fit(folder, seldom, examples(), watch=watch)
    assert watch.steps == STEPS - 39
    assert same(weights_of(again), weights_of(fit(tmp_path / "whole", seldom, examples())))


def test_a_damaged_checkpoint_is_told_and_training_starts_anew(broken):
    student, folder = broken
    kept = next((folder / FOLDER).iterdir())
    kept.write_bytes(kept.read_bytes()[:1000])
    watch = Watch()
    fit(folder, student, examples(), watch=watch)
    assert watch.steps == STEPS
    assert "cannot be read" in watch.said[0]


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(broken, monkeypatch):
    student, folder = broken
    before = next((folder / FOLDER).iterdir()).read_bytes()

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise Stop

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(Stop):
        fit(folder, student, examples())
    assert next((folder / FOLDER).glob("*.safetensors")).read_bytes() == before


# --- restarts


def test_a_start_that_learns_nothing_is_given_up_for_another(tiny, tmp_path, monkeypatch):
    """The first start is crippled: its rate is nothing."""
    step, rates = loop.Loop._step, []

    def crippled(self, model, rows):
        plan = self.plan
        if self.place.attempt == 0:
            self.plan = plan.model_copy(update={"learning_rate": 1e-9})
        value = step(self, model, rows)
        self.plan = plan
        rates.append(self.place.attempt)
        return value

    monkeypatch.setattr(loop.Loop, "_step", crippled)
    watch = Watch()
    given = examples()
    model = fit(tmp_path / "run", Finetune(model=str(tiny), learning_rate=0.004), given, watch=watch)
    assert (model.predict_proba(given).argmax(axis=1) == given.targets.argmax(axis=1)).all()
    assert rates == [0] * STEPS + [1] * STEPS
    assert len(watch.said) == 1
    assert float(watch.said[0].split("stays at ")[1].split(";")[0]) == pytest.approx(np.log(3), abs=0.05)


def test_labels_that_nothing_explains_end_after_two_restarts(tiny, tmp_path):
    flat = examples()._replace(texts=["rose"] * 48)
    watch = Watch()
    fit(tmp_path / "run", Finetune(model=str(tiny)), flat, watch=watch)
    assert len(watch.said) == loop.RESTARTS
    assert watch.steps == (loop.RESTARTS + 1) * STEPS


def test_a_training_that_learns_is_never_given_up(tiny, tmp_path):
    for wrong in (0.0, 0.5):
        watch = Watch()
        student = Finetune(model=str(tiny), learning_rate=0.004)
        fit(tmp_path / "run", student, examples(60, wrong=wrong), watch=watch)
        assert watch.said == []


# --- what is held out


def held_rows(student, given, seed=1, folder=None):
    ctx = Context(folder, home=folder)
    return student._held_out(given.targets, THREE, seed, ctx)


def test_what_is_held_out_is_a_share_of_each_class(tmp_path):
    given = examples(200)._replace(targets=np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [140, 40, 20])])
    rows = held_rows(Finetune(holdout=0.2), given, folder=tmp_path)
    assert np.bincount(given.targets[rows].argmax(axis=1)).tolist() == [28, 8, 4]
    assert len(held_rows(Finetune(), given, folder=tmp_path)) == 0
    assert len(held_rows(Finetune(holdout=0.01), given, folder=tmp_path)) == 0  # too few to tell anything


@pytest.mark.parametrize(("at_least", "passes", "best"), [(4, 6, 3), (20, 10, 6)])
def test_training_stops_when_the_held_out_loss_rises_and_the_best_weights_are_kept(
    tiny, tmp_path, monkeypatch, at_least, passes, best
):
    """Two passes after the lowest, but not before the fewest steps; a pass is two steps."""
    losses, weights = [0.9, 0.5, 0.6, 0.4, 0.4, 0.7, 0.1, 0.2, 0.3, 0.3, 0.0], []

    def scripted(model, held):
        assert len(held.tokens) == 24
        weights.append(weights_of(model))
        return losses[len(weights) - 1]

    monkeypatch.setattr(loop, "held_out_loss", scripted)
    monkeypatch.setattr(loop, "MIN_STEPS", at_least)
    monkeypatch.setattr(loop.Loop, "_is_stuck", lambda self, loss: False)
    student = Finetune(model=str(tiny), epochs=40, holdout=0.5, patience=2, learning_rate=0.004)
    found = weights_of(fit(tmp_path / "run", student, examples()))
    assert len(weights) == passes
    assert same(found, weights[best])
    assert not same(found, weights[-1])


def test_the_held_out_loss_is_the_cross_entropy_of_what_the_network_says(tiny, tmp_path):
    given = examples()
    model = fit(tmp_path / "run", Finetune(model=str(tiny), learning_rate=0.004), given)
    soft = np.random.default_rng(0).dirichlet([1, 1, 1], 48).astype(np.float32)
    weights = np.random.default_rng(0).random(48).astype(np.float32)
    each = -(soft * np.log(model.predict_proba(given))).sum(axis=1)
    held = Lesson(model.tokenize(given.texts), soft, weights, None)
    assert loop.held_out_loss(model, held) == pytest.approx(np.average(each, weights=weights), abs=1e-4)


def test_the_best_of_several_starts_is_kept(tiny, tmp_path):
    given, losses = examples(60, wrong=0.3), []

    def kept(seeds):
        student = Finetune(model=str(tiny), learning_rate=0.002, seeds=seeds, smoothing=0.0)
        return fit(tmp_path / "run", student, given)

    real = loop.Loop._is_enough

    def watched(self, model, loss):
        last = self.place.epoch + 1 == self.epochs
        if last:
            losses.append((loss, weights_of(model)))
        return real(self, model, loss)

    loop.Loop._is_enough = watched
    try:
        found = weights_of(kept(3))
    finally:
        loop.Loop._is_enough = real
    assert len(losses) == 3
    best = min(range(3), key=lambda i: losses[i][0])
    assert same(found, losses[best][1])
    assert not any(same(found, w) for i, (_, w) in enumerate(losses) if i != best)


# --- soft targets


def test_a_network_learns_its_teachers_probabilities_not_only_its_labels(tiny, tmp_path):
    given = examples(60)
    y = given.targets.argmax(axis=1)
    # How sure the teacher is depends on the class.
    probs = np.float32([[0.9, 0.05, 0.05], [0.25, 0.7, 0.05], [0.3, 0.15, 0.55]])[y]
    student = Finetune(model=str(tiny), learning_rate=0.004, epochs=30, freeze_words=False)

    def far(taught):
        return np.abs(fit(tmp_path / "run", student, taught).predict_proba(given) - probs).mean()

    share, hard = np.ones(60, np.float32), far(given)
    for temperature in (1.0, 3.0):
        soft = given._replace(targets=probs, distil=Distil(given.targets, probs, share, temperature))
        assert far(soft) < hard / 3
