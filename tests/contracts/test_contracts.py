"""Every built-in plug-in against the contract of its protocol, and the contracts against broken plug-ins."""

import importlib.util
import json

import numpy as np
import pytest

from llmal.annotate.freeal import FreeAl
from llmal.annotate.llm import Llm
from llmal.annotate.panel import Panel
from llmal.annotate.recorded import Recorded
from llmal.annotate.uniroute import UniRoute
from llmal.annotate.zero_shot import ZeroShot
from llmal.embed.hashing import Hashing
from llmal.embed.sentence import Sentence
from llmal.export.onnx import Onnx
from llmal.export.transformers import Transformers
from llmal.filter.agreement import Agreement
from llmal.filter.all_of import All
from llmal.filter.auto import Auto as AutoFilter
from llmal.filter.calibrated import Calibrated
from llmal.filter.confidence import Confidence
from llmal.filter.confident import Confident
from llmal.filter.error_rate import ErrorRate
from llmal.filter.small_loss import SmallLoss
from llmal.generate.pgkd import Pgkd
from llmal.plugins import BUILTIN, find
from llmal.route.cascade import Cascade
from llmal.route.certified import Certified
from llmal.route.learn_then_test import LearnThenTest
from llmal.route.risk_control import RiskControl
from llmal.route.sgr import Sgr
from llmal.route.threshold import Threshold
from llmal.select.activelab import ActiveLab
from llmal.select.auto import Auto
from llmal.select.badge import Badge
from llmal.select.base_delta import BaseDelta
from llmal.select.besra import Besra
from llmal.select.bual import Bual
from llmal.select.contrastive import Contrastive
from llmal.select.deuce import Deuce
from llmal.select.discriminative import Discriminative
from llmal.select.diversify import Diversify
from llmal.select.entropy import Entropy
from llmal.select.facility_location import FacilityLocation
from llmal.select.info_coevolution import InfoCoevolution
from llmal.select.kcenter import KCenter
from llmal.select.kmeans import KMeans
from llmal.select.ldm import Ldm
from llmal.select.least_confidence import LeastConfidence
from llmal.select.margin import Margin
from llmal.select.mixed import Mixed
from llmal.select.prc import Prc
from llmal.select.probcover import ProbCover
from llmal.select.rad import Rad
from llmal.select.seed_cost import SeedCost
from llmal.select.select_llm import SelectLlm
from llmal.select.stage import Selection, Selector
from llmal.select.typiclust import TypiClust
from llmal.select.uniform import Uniform
from llmal.select.vessal import Vessal
from llmal.testing import brains
from llmal.testing.contracts import (
    AnnotatorContract,
    EncoderContract,
    ExporterContract,
    FilterContract,
    GeneratorContract,
    RouterContract,
    SelectorContract,
    StudentContract,
)
from llmal.testing.contracts.plugin import TEXTS
from llmal.testing.fakelm import FakeLM
from llmal.testing.tiny import tiny_bert, tiny_sentence
from llmal.train.curriculum import Curriculum
from llmal.train.estimator import Estimator
from llmal.train.finetune import Finetune
from llmal.train.hast import Hast
from llmal.train.linear import Linear
from llmal.train.plasm import Plasm
from llmal.train.setfit import SetFit
from llmal.weights import OFFLINE_PACKAGE

SUITES = {
    "embed": EncoderContract,
    "select": SelectorContract,
    "annotate": AnnotatorContract,
    "filter": FilterContract,
    "generate": GeneratorContract,
    "train": StudentContract,
    "route": RouterContract,
    "export": ExporterContract,
}

LABEL_OF = {text: ("fruit", "tool", "city")[i // 3] for i, text in enumerate(TEXTS)}


class Bench:
    """What the examples need, each made when first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.server = None

    def llm(self):
        if self.server is None:
            self.server = FakeLM(
                brains.classifier(LABEL_OF.get, confidence=0.9), identify=brains.identify
            ).start()
        return Llm(model="fake-lm", base_url=self.server.base_url, price="local")

    def recorded(self):
        file = self.folder / "answers.jsonl"
        rows = [{"id": str(i), "label": LABEL_OF[text], "sure": 0.7} for i, text in enumerate(TEXTS, 1)]
        rows[1] |= {"label": "no such label"}
        rows[2] |= {"label": None, "sure": "high"}
        rows[3] |= {"sure": 85}
        rows[4] |= {"label": 7}
        rows[5] |= {"label": ["fruit", "city"]}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Recorded(path=str(file), confidence="sure")

    def finetune(self):
        folder = self.folder / "tiny"
        if not folder.is_dir():
            tiny_bert(folder, {word for text in TEXTS for word in text.split()})
        return Finetune(model=str(folder), learning_rate=0.004, smoothing=0.0, freeze_words=False)

    def setfit(self):
        folder = self.folder / "tiny-sentence"
        if not folder.is_dir():
            tiny_sentence(folder, {word for text in TEXTS for word in text.split()})
        return SetFit(model=str(folder), learning_rate=0.004)

    def sentence(self):
        if importlib.util.find_spec(OFFLINE_PACKAGE) is None:
            pytest.skip(f"{OFFLINE_PACKAGE} is not installed")
        return Sentence()


# (group, name) -> an example from a bench, and what the suite has to know of it.
EXAMPLES = {
    ("embed", "sentence"): (Bench.sentence, {"tolerance": 2e-3}),  # bfloat16, where there is hardware for it
    ("embed", "hashing"): (lambda _: Hashing(dim=256), {"tolerance": 0.0}),
    ("select", "auto"): (lambda _: Auto(), {}),
    ("select", "uniform"): (lambda _: Uniform(), {}),
    ("select", "kmeans"): (lambda _: KMeans(), {}),
    ("select", "typiclust"): (lambda _: TypiClust(), {}),
    ("select", "kcenter"): (lambda _: KCenter(), {"deterministic": True}),
    ("select", "facility-location"): (lambda _: FacilityLocation(), {"deterministic": True}),
    ("select", "probcover"): (lambda _: ProbCover(delta=0.5), {}),  # whole-number gains tie often
    ("select", "margin"): (lambda _: Margin(), {"deterministic": True}),
    ("select", "rad"): (lambda _: Rad(), {}),
    ("select", "least-confidence"): (
        lambda _: LeastConfidence(clip=0.05, apart=0.98),
        {"deterministic": True},
    ),
    ("select", "entropy"): (lambda _: Entropy(batch="power", within="anchoral"), {}),
    ("select", "badge"): (lambda _: Badge(), {}),
    ("select", "prc"): (lambda _: Prc(rarest=2), {"deterministic": True}),
    ("select", "ldm"): (lambda _: Ldm(patience=2, most=5), {}),
    ("select", "contrastive"): (
        lambda _: Contrastive(neighbours=4),
        {"deterministic": True, "compares_labelled": True},
    ),
    ("select", "discriminative"): (lambda _: Discriminative(rounds=3), {}),
    ("select", "mixed"): (
        lambda _: Mixed(of=("margin", KCenter(), Entropy(clip=0.05)), shares=(2, 1, 1)),
        {},
    ),
    ("select", "besra"): (lambda _: Besra(), {}),
    ("select", "vessal"): (lambda _: Vessal(), {}),
    ("select", "info-coevolution"): (lambda _: InfoCoevolution(near=0.7), {}),
    ("select", "bual"): (lambda _: Bual(), {}),
    ("select", "diversify"): (lambda _: Diversify(clusters=5), {}),
    ("select", "deuce"): (lambda _: Deuce(), {}),
    ("select", "base-delta"): (lambda _: BaseDelta(apart=0.98), {"deterministic": True}),
    ("select", "seed-cost"): (lambda _: SeedCost(), {"deterministic": True}),
    ("select", "activelab"): (lambda _: ActiveLab(), {}),
    ("select", "select-llm"): (lambda _: SelectLlm(model="m", price="local", read=4), {}),
    ("annotate", "llm"): (Bench.llm, {}),
    ("annotate", "panel"): (
        lambda bench: Panel(of=[ZeroShot(), bench.recorded(), ZeroShot(temperature=0.2)]),
        {},
    ),
    ("annotate", "uniroute"): (lambda bench: UniRoute(of=[ZeroShot(), bench.recorded()], weight=0.1), {}),
    ("annotate", "freeal"): (lambda bench: FreeAl(of=bench.llm()), {"kinds": ("single",)}),
    ("annotate", "zero-shot"): (lambda _: ZeroShot(), {}),
    ("annotate", "recorded"): (Bench.recorded, {}),
    ("filter", "confidence"): (lambda _: Confidence(), {}),
    ("filter", "calibrated"): (lambda _: Calibrated(), {}),
    ("filter", "small-loss"): (lambda _: SmallLoss(), {}),
    ("filter", "confident"): (lambda _: Confident(), {}),
    ("filter", "agreement"): (lambda _: Agreement(), {}),
    ("filter", "error-rate"): (lambda _: ErrorRate(), {}),
    ("filter", "auto"): (lambda _: AutoFilter(), {}),
    ("filter", "all"): (lambda _: All(of=("calibrated", Agreement(lift=1.5))), {}),
    ("generate", "pgkd"): (lambda _: Pgkd(model="m", price="local"), {}),
    ("train", "linear"): (lambda _: Linear(), {}),
    ("train", "finetune"): (Bench.finetune, {}),
    ("train", "setfit"): (Bench.setfit, {}),
    ("train", "estimator"): (
        lambda _: Estimator(make="sklearn.linear_model:LogisticRegression", options={"C": 100}),
        {},
    ),
    ("train", "hast"): (lambda _: Hast(neighbours=3), {}),
    ("train", "curriculum"): (lambda _: Curriculum(steps=2), {}),
    ("train", "plasm"): (lambda _: Plasm(quality=0.8), {}),
    ("route", "threshold"): (lambda _: Threshold(), {}),
    ("route", "certified"): (lambda _: Certified(), {}),
    ("route", "sgr"): (lambda _: Sgr(), {}),
    ("route", "learn-then-test"): (lambda _: LearnThenTest(test="betting"), {}),
    ("route", "risk-control"): (lambda _: RiskControl(), {}),
    ("route", "cascade"): (lambda _: Cascade(target=0.8), {}),
    ("export", "transformers"): (lambda _: Transformers(), {}),
    ("export", "onnx"): (lambda _: Onnx(), {}),
}


def checks(group):
    return [name for name in dir(SUITES[group]) if name.startswith("test_")]


REGISTERED = [(group, name) for group, names in BUILTIN.items() for name in names]
CASES = [
    pytest.param(group, name, check, id=f"{group}-{name}-{check.removeprefix('test_')}")
    for group, name in REGISTERED
    for check in checks(group)
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    if made.server is not None:
        made.server.stop()


@pytest.mark.parametrize(("group", "name", "check"), CASES)
def test_contract(group, name, check, bench):
    make, settings = EXAMPLES[group, name]
    plugin = make(bench)
    assert type(plugin) is find(group, name)
    suite = type("Suite", (SUITES[group],), {**settings, "plugin": lambda self: make(bench)})()
    getattr(suite, check)()


def test_every_plugin_has_an_example():
    missing = set(REGISTERED) - set(EXAMPLES)
    assert not missing, f"add an example to EXAMPLES for: {sorted(missing)}"
    assert set(EXAMPLES) == set(REGISTERED), "an example of a plug-in that is not registered"
    assert set(BUILTIN) == set(SUITES)


@pytest.mark.parametrize(
    ("kind", "check"), [("embed", "saved_encoder_is_the_same"), ("train", "probabilities")]
)
def test_other_options_keep_the_contract(kind, check, bench):
    other = {"embed": Hashing(dim=64), "train": Linear(balanced=True)}[kind]
    suite = type("Suite", (SUITES[kind],), {"plugin": lambda self: other})()
    getattr(suite, f"test_{check}")()


@pytest.mark.parametrize("student", ["finetune", "setfit"])
def test_exporter_ships_a_transformer_student(student, bench):
    made = {
        "plugin": lambda self: Transformers(),
        "student": lambda self: getattr(bench, student)(),
        "tolerance": 1e-5,
    }
    suite = type("Suite", (ExporterContract,), made)()
    for check in checks("export"):
        getattr(suite, check)()


def test_exporter_ships_what_a_self_training_student_taught():
    made = {"plugin": lambda self: Transformers(), "student": lambda self: Hast(neighbours=3)}
    suite = type("Suite", (ExporterContract,), made)()
    suite.test_predicts_as_the_student_does()
    suite.test_holds_no_pickle_and_no_code()


@pytest.mark.skipif(importlib.util.find_spec(OFFLINE_PACKAGE) is None, reason="no offline weights")
def test_exporter_ships_the_encoder_of_a_linear_student():
    made = {"plugin": lambda self: Transformers(), "encoder": lambda self: Sentence(), "tolerance": 1e-5}
    suite = type("Suite", (ExporterContract,), {**made, "kinds": ("single",)})()
    suite.test_predicts_as_the_student_does()
    suite.test_holds_no_pickle_and_no_code()


class Broken(Selector):
    """A strategy with one fault at a time."""

    fault: str = "none"

    def select(self, pool, k, rng):
        k = min(k, len(pool.unlabelled))
        rows = rng.permutation(pool.unlabelled)[:k]
        if self.fault == "too few":
            rows = rows[: k // 2]
        if self.fault == "twice" and k:
            rows = np.full(k, rows[0])
        if self.fault == "labelled" and k:
            rows[0] = pool.labelled[0]
        if self.fault == "global randomness":
            rows = np.random.permutation(pool.unlabelled)[:k]  # noqa: NPY002 - the fault
        if self.fault == "writes":
            pool.vectors[:] = 0
        return Selection(rows, np.zeros(len(rows)), ["" if self.fault == "no reason" else "why"] * len(rows))


BREAKS = {
    "too few": "picks_as_many_as_asked",
    "twice": "picks_as_many_as_asked",
    "labelled": "picks_as_many_as_asked",
    "no reason": "picks_as_many_as_asked",
    "global randomness": "same_rng_same_picks",
    "writes": "pool_is_left_alone",
    "none": "source_is_cited",
}


@pytest.mark.parametrize("fault", BREAKS)
def test_contract_finds_the_fault(fault):
    suite = type("Suite", (SelectorContract,), {"plugin": lambda self: Broken(fault=fault)})()
    with pytest.raises((AssertionError, ValueError)):
        getattr(suite, f"test_{BREAKS[fault]}")()


def test_suites_say_what_to_override():
    for suite in SUITES.values():
        with pytest.raises(NotImplementedError, match="return an instance"):
            suite().plugin()


def test_a_plugin_that_forgets_an_option_in_its_recipe_is_found():
    class Forgetful(Uniform):
        """Source: none."""

        share: float = 0.5

        def recipe(self):
            return "always the same"

    suite = type("Suite", (SelectorContract,), {"plugin": lambda self: Forgetful()})()
    with pytest.raises(AssertionError, match="changing share"):
        suite.test_recipe_follows_the_options()
    with pytest.raises(AssertionError, match="without a description"):
        suite.test_options_are_described()
