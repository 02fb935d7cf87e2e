"""Plug-ins: a frozen pydantic model with one method, found by name, entry point or `module:Class`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    WithJsonSchema,
)

from llmal.errors import UnknownPlugin
from llmal.extras import need as need
from llmal.records import recipe

# Names users write -> where the class is; a class is imported only when its name is used.
BUILTIN: dict[str, dict[str, str]] = {
    "embed": {
        "sentence": "llmal.embed.sentence:Sentence",
        "hashing": "llmal.embed.hashing:Hashing",
    },
    "select": {
        "auto": "llmal.select.auto:Auto",
        "uniform": "llmal.select.uniform:Uniform",
        "kmeans": "llmal.select.kmeans:KMeans",
        "typiclust": "llmal.select.typiclust:TypiClust",
        "kcenter": "llmal.select.kcenter:KCenter",
        "probcover": "llmal.select.probcover:ProbCover",
        "facility-location": "llmal.select.facility_location:FacilityLocation",
        "margin": "llmal.select.margin:Margin",
        "least-confidence": "llmal.select.least_confidence:LeastConfidence",
        "entropy": "llmal.select.entropy:Entropy",
        "badge": "llmal.select.badge:Badge",
        "prc": "llmal.select.prc:Prc",
        "ldm": "llmal.select.ldm:Ldm",
        "contrastive": "llmal.select.contrastive:Contrastive",
        "discriminative": "llmal.select.discriminative:Discriminative",
        "mixed": "llmal.select.mixed:Mixed",
        "besra": "llmal.select.besra:Besra",
        "vessal": "llmal.select.vessal:Vessal",
        "info-coevolution": "llmal.select.info_coevolution:InfoCoevolution",
        "bual": "llmal.select.bual:Bual",
        "diversify": "llmal.select.diversify:Diversify",
        "deuce": "llmal.select.deuce:Deuce",
        "base-delta": "llmal.select.base_delta:BaseDelta",
        "seed-cost": "llmal.select.seed_cost:SeedCost",
        "activelab": "llmal.select.activelab:ActiveLab",
        "select-llm": "llmal.select.select_llm:SelectLlm",
        "rad": "llmal.select.rad:Rad",
    },
    "annotate": {
        "llm": "llmal.annotate.llm:Llm",
        "zero-shot": "llmal.annotate.zero_shot:ZeroShot",
        "recorded": "llmal.annotate.recorded:Recorded",
        "panel": "llmal.annotate.panel:Panel",
        "freeal": "llmal.annotate.freeal:FreeAl",
        "uniroute": "llmal.annotate.uniroute:UniRoute",
    },
    "filter": {
        "confidence": "llmal.filter.confidence:Confidence",
        "calibrated": "llmal.filter.calibrated:Calibrated",
        "small-loss": "llmal.filter.small_loss:SmallLoss",
        "confident": "llmal.filter.confident:Confident",
        "agreement": "llmal.filter.agreement:Agreement",
        "error-rate": "llmal.filter.error_rate:ErrorRate",
        "auto": "llmal.filter.auto:Auto",
        "all": "llmal.filter.all_of:All",
    },
    "generate": {"pgkd": "llmal.generate.pgkd:Pgkd"},
    "train": {
        "linear": "llmal.train.linear:Linear",
        "finetune": "llmal.train.finetune:Finetune",
        "hast": "llmal.train.hast:Hast",
        "curriculum": "llmal.train.curriculum:Curriculum",
        "plasm": "llmal.train.plasm:Plasm",
        "setfit": "llmal.train.setfit:SetFit",
        "estimator": "llmal.train.estimator:Estimator",
    },
    "route": {
        "threshold": "llmal.route.threshold:Threshold",
        "certified": "llmal.route.certified:Certified",
        "sgr": "llmal.route.sgr:Sgr",
        "learn-then-test": "llmal.route.learn_then_test:LearnThenTest",
        "risk-control": "llmal.route.risk_control:RiskControl",
        "cascade": "llmal.route.cascade:Cascade",
    },
    "export": {
        "transformers": "llmal.export.transformers:Transformers",
        "onnx": "llmal.export.onnx:Onnx",
    },
}


_RECIPES = {"recipes": True}
"""Serialisation context in which a plug-in inside another stands as its recipe rather than its spec."""


class Plugin(BaseModel):
    """Base of every plug-in: its fields are its options, so validation, schema and recipe are one definition.

    Subclass the protocol of a stage (`llmal.select.stage.Selector`, ...), give the options as fields and
    implement the one method. Set `version` and raise it when the same options start giving other results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    group: ClassVar[str] = ""
    version: ClassVar[int] = 1
    # Options that change where or how fast work is done but never the result stay out of the recipe.
    not_in_recipe: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """The name a user writes for this plug-in."""
        return name_of(type(self))

    def recipe(self) -> str:
        """Hash of name, version and every option that can change the result; a plug-in inside by its own."""
        hidden = set(self.not_in_recipe)
        options = self.model_dump(mode="json", exclude=hidden, context=_RECIPES)
        return recipe(self.group, self.name, self.version, options)

    def to_spec(self) -> str | dict[str, Any]:
        """The shortest form a pipeline file can say this with, plug-ins inside it included."""
        options = self.model_dump(mode="json", exclude_defaults=True)
        return {"use": self.name, **options} if options else self.name


@contextmanager
def importable_from(folder: Path) -> Iterator[None]:
    """Let `module:Class` name a module beside the pipeline file, for as long as the file is being read."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def known(group: str) -> dict[str, str]:
    """Every plug-in name of a stage and the `module:Class` behind it, built in or from entry points."""
    found = dict(BUILTIN.get(group, {}))
    for name, target in _installed(group):
        found.setdefault(name, target)
    return found


@cache
def _installed(group: str) -> tuple[tuple[str, str], ...]:
    """Entry points of a stage, once a process: looking reads the metadata of every installed package."""
    return tuple((point.name, point.value) for point in entry_points(group=f"llmal.{group}"))


def name_of(cls: type[Plugin]) -> str:
    """The registered name of a plug-in class, else its `module:Class`."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    return next((name for name, target in known(cls.group).items() if target == path), path)


def find(group: str, name: str) -> type[Plugin]:
    """The plug-in class a user means by `name`.

    Args:
        group: the stage, such as `select`.
        name: a registered name or `module:Class`.

    Raises:
        UnknownPlugin: nothing has that name, or the class is not a plug-in of that stage.
    """
    names = known(group)
    target = names.get(name, name)
    if ":" not in target:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "or write module:Class for a class of your own"
        raise UnknownPlugin(
            f"no {group} plug-in called '{name}'; known: {', '.join(sorted(names))}", hint=hint
        )
    module, _, attribute = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise UnknownPlugin(f"cannot import {group} plug-in '{target}': {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Plugin) and cls.group == group):
        raise UnknownPlugin(
            f"'{target}' is not a {group} plug-in", hint=f"Subclass the protocol in llmal.{group}.stage"
        )
    return cls


def build(group: str, value: Any) -> Plugin:
    """A plug-in from what stands in the file: a name, or a mapping with `use` and options.

    Raises:
        UnknownPlugin: see `find`.
        ValueError: the value has neither form.
        pydantic.ValidationError: an option is wrong.
    """
    if isinstance(value, Plugin):
        if value.group != group:
            raise ValueError(f"a {value.group} plug-in stands where a {group} plug-in is expected")
        return value
    if isinstance(value, str):
        value = {"use": value}
    if not isinstance(value, dict) or not isinstance(value.get("use"), str):
        raise ValueError(f"expected a {group} plug-in: a name, or a mapping with 'use' and its options")
    return find(group, value["use"]).model_validate({k: v for k, v in value.items() if k != "use"})


def slot(group: str) -> Any:
    """The annotation of a field that holds a plug-in of `group`.

    Accepts a name, a mapping or an instance, and is dumped as `to_spec` says it; nested errors keep their
    place; the JSON schema has one branch a built-in plug-in. A plug-in may hold slots too, alone or in a
    tuple.
    """

    def resolve(value: Any) -> Plugin:
        try:
            return build(group, value)
        except ValidationError:
            raise  # pydantic merges it under this field's place
        except UnknownPlugin as error:
            raise ValueError(str(error)) from error

    def said(value: Plugin, info: SerializationInfo) -> Any:
        return value.recipe() if info.context is _RECIPES else value.to_spec()

    return Annotated[
        Plugin,
        BeforeValidator(resolve),
        PlainSerializer(said),
        WithJsonSchema({"x-llmal-slot": group}),
    ]


def slot_schema(group: str) -> dict[str, Any]:
    """JSON schema of a slot: a bare name, or a mapping with `use` and that plug-in's options.

    A slot inside a plug-in of this slot is not spelled out again: there any mapping with `use` will do.
    """
    branches: list[dict[str, Any]] = [{"type": "string", "examples": sorted(known(group))}]
    for name in sorted(BUILTIN[group]):
        options = _without_slots(find(group, name).model_json_schema())
        options["properties"] = {"use": {"const": name}, **options.get("properties", {})}
        options["required"] = ["use", *options.get("required", [])]
        branches.append(options)
    own = {"type": "object", "required": ["use"], "properties": {"use": {"type": "string", "pattern": ":"}}}
    return {"anyOf": [*branches, own]}


def _without_slots(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_slots(child) for child in node]
    if not isinstance(node, dict):
        return node
    if "x-llmal-slot" not in node:
        return {key: _without_slots(child) for key, child in node.items()}
    names = {"type": "string", "examples": sorted(known(node["x-llmal-slot"]))}
    use = {"type": "object", "required": ["use"], "properties": {"use": {"type": "string"}}}
    return {**{k: v for k, v in node.items() if k in ("description", "default")}, "anyOf": [names, use]}
