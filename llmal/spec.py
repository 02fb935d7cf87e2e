"""The pipeline file and the `Pipeline` object: one thing, written or built, checked whole before a run."""

from __future__ import annotations

import difflib
import io
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from llmal.corpus import CorpusSpec
from llmal.errors import SpecError, UnknownPlugin
from llmal.plugins import build, find, importable_from, slot, slot_schema
from llmal.records import Kind, Label, LabelSchema
from llmal.review.options import ReviewSpec
from llmal.store.ledger import PICO, Caps
from llmal.train.targets import Targets
from llmal.yamlfile import Document, read_yaml

STAGES = (
    *("embed", "select", "annotate", "filter", "generate"),
    *("train", "route", "review", "evaluate", "export"),
)
"""The line, in order: each is a key of the file, a folder of the package and a value of `--until`.

`generate` stands before the final student; it is the one stage that a line may lack.
"""

OTHER = "other"
"""Name of the class that `labels.other` adds."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# Control characters, line breaks of any kind, lone surrogates: no prompt, table or store holds them in a
# name.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _wrong(place: tuple[Any, ...], words: str) -> ValidationError:
    """A complaint about a value below the field that is being validated."""
    error = PydanticCustomError("label", "{words}", {"words": words})
    return ValidationError.from_exception_data("label", [{"type": error, "loc": place, "input": None}])


class LabelsSpec(_Part):
    """The classes: a list of names, or name -> description, or name -> {description, examples}."""

    kind: Kind = Field("single", description="exactly one label a text, or any number")
    names: dict[str, str | Label] = Field(min_length=1, description="label names with descriptions")
    other: str | None = Field(None, description="adds the class `other` with this description")
    abstain: bool = Field(True, description="annotators may decline to answer")

    @field_validator("names", mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            wrong = [v for v in value if not isinstance(v, str)]
            if wrong:
                raise ValueError(f"label {wrong[0]!r} is not text; put it in quotes")
            if len(set(value)) < len(value):
                raise ValueError(f"label '{next(v for v in value if value.count(v) > 1)}' stands twice")
            value = dict.fromkeys(value, "")
        if not isinstance(value, dict):
            raise ValueError("expected a list of names, or name: description")
        return {cls._name(name): cls._label(name, said) for name, said in value.items()}

    @staticmethod
    def _name(name: Any) -> str:
        if not isinstance(name, str):
            raise ValueError(f"label {name!r} is not text; put it in quotes")
        if not name.strip() or name != name.strip() or "|" in name or _UNPRINTABLE.search(name):
            raise ValueError(f"label {name!r} is blank, or has blanks around it, a line break or a | inside")
        return name

    @staticmethod
    def _label(name: str, said: Any) -> Any:
        if isinstance(said, Label) and said.name != name:
            raise _wrong((name,), f"label '{said.name}' stands under the name '{name}'")
        if not isinstance(said, dict):
            return "" if said is None else said
        known = ("description", "examples")
        for key in said:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
                raise _wrong((name, key), f"unknown key; {hint}")
        examples = said.get("examples") or ()
        if not isinstance(examples, list | tuple) or not all(isinstance(e, str) for e in examples):
            raise _wrong((name, "examples"), "expected a list of texts; put each in quotes")
        description = said.get("description") or ""
        if not isinstance(description, str):
            raise _wrong((name, "description"), "expected a text; put it in quotes")
        return Label(name=name, description=description, examples=tuple(examples))

    @model_validator(mode="after")
    def _enough(self) -> LabelsSpec:
        names = [n.casefold() for n in self.names]
        if self.other is not None and OTHER in names:
            raise ValueError(f"'{OTHER}' stands in names and is added by labels.other; keep one")
        if self.kind == "single" and len(names) + (self.other is not None) < 2:
            raise ValueError("one label leaves nothing to tell apart; name two or more, or set labels.other")
        return self

    def label_schema(self) -> LabelSchema:
        """The classes as records."""
        labels = [s if isinstance(s, Label) else Label(name=n, description=s) for n, s in self.names.items()]
        if self.other is not None:
            labels.append(Label(name=OTHER, description=self.other))
        return LabelSchema(self.kind, tuple(labels), self.abstain)


class AuditSpec(_Part):
    """The random sample on which everything is measured; answered by gold or people, never trained on."""

    size: int = Field(100, ge=0, description="items to reserve")
    annotate: bool = Field(
        False, description="ask the annotator about them too, so that it is measured (costs calls)"
    )
    pool: int = Field(0, ge=0, description="items to reserve for active testing, the sample among them")
    active: int = Field(
        0, ge=0, description="more items of the pool that people answer, where the student is likely wrong"
    )

    @model_validator(mode="after")
    def _room(self) -> AuditSpec:
        if self.active and self.pool < self.size + self.active:
            raise ValueError(
                f"active items are drawn from audit.pool, which must hold {self.size} + {self.active} or "
                "more; ten times as many measures best"
            )
        return self


class RoundsSpec(_Part):
    """How often to choose, ask and learn."""

    max: int = Field(3, ge=1, le=1000, description="rounds, the cold start included")
    size: int = Field(100, ge=1, description="items asked about a round")
    stop: Literal["never", "auto"] = Field(
        "never", description="auto: no further round once more labels pay little, after 5 at the least"
    )


class SelectSpec(_Part):
    """A strategy for the cold start, and one for when there is a student.

    A single strategy may stand for both: one that needs a student is taken for `then`.
    """

    first: slot("select") = Field("auto", validate_default=True)  # type: ignore[valid-type]
    then: slot("select") = Field("auto", validate_default=True)  # type: ignore[valid-type]

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, value: Any) -> Any:
        if isinstance(value, SelectSpec) or (isinstance(value, dict) and "use" not in value):
            return value
        if not isinstance(value, str | dict):
            raise ValueError("expected a strategy, or `first` and `then`")
        try:
            strategy = build("select", value)
        except UnknownPlugin as error:
            raise ValueError(str(error)) from error
        warm = {"then": strategy}
        return warm if strategy.needs_probs else {"first": strategy, **warm}  # type: ignore[attr-defined]

    @field_validator("first")
    @classmethod
    def _cold(cls, value: Any) -> Any:
        if value.needs_probs:
            raise ValueError(
                f"'{value.name}' needs a student, and at the start there is none; use it under `then`"
            )
        return value


class TrainSpec(_Part):
    """A cheap student while choosing, the one to ship, and what both are taught."""

    rounds: slot("train") = Field("linear", validate_default=True)  # type: ignore[valid-type]
    final: slot("train") = Field("finetune", validate_default=True)  # type: ignore[valid-type]
    targets: Targets = Targets()
    folds: int = Field(
        0,
        ge=0,
        le=20,
        description="students more, by whom items the final one learnt from are predicted without them",
    )

    @field_validator("folds")
    @classmethod
    def _some_rest(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one fold leaves nothing to learn from; 0 for none, or 2 and more")
        return value


class BudgetSpec(_Part):
    """Caps on a run as a whole; None means no cap."""

    usd: float | None = Field(None, ge=0, allow_inf_nan=False, description="dollars for paid calls")
    calls: int | None = Field(None, ge=0, description="calls to endpoints, repeats included")
    people: int | None = Field(None, ge=0, description="answers people may give; two on one text are two")

    def caps(self) -> Caps:
        """The caps as the ledger wants them."""
        return Caps(None if self.usd is None else int(Decimal(str(self.usd)) * PICO), self.calls)


class Pipeline(BaseModel):
    """A whole run, frozen: what a pipeline file says, or what a notebook builds.

    `Pipeline(corpus={"path": "tickets.jsonl"}, labels={"names": ["bug", "billing"]})` and the file with the
    same keys are equal; `to_yaml` writes the file back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    corpus: CorpusSpec
    labels: LabelsSpec
    seed: int = Field(0, ge=0, description="of everything random in the run")
    audit: AuditSpec = AuditSpec()
    rounds: RoundsSpec = RoundsSpec()
    embed: slot("embed") = Field("sentence", validate_default=True)  # type: ignore[valid-type]
    select: SelectSpec = Field(default_factory=SelectSpec)
    annotate: slot("annotate") = Field("zero-shot", validate_default=True)  # type: ignore[valid-type]
    filter: slot("filter") = Field("auto", validate_default=True)  # type: ignore[valid-type]
    generate: slot("generate") = Field(  # type: ignore[valid-type]
        None, description="new texts where the student is weak, written by a model; none when absent"
    )
    train: TrainSpec = Field(default_factory=TrainSpec)
    route: slot("route") = Field("threshold", validate_default=True)  # type: ignore[valid-type]
    review: ReviewSpec = ReviewSpec()
    export: slot("export") = Field("transformers", validate_default=True)  # type: ignore[valid-type]
    budget: BudgetSpec = BudgetSpec()

    @classmethod
    def from_yaml(cls, path: str | Path, *, home: str | Path | None = None) -> Pipeline:
        """Read a pipeline file.

        Args:
            path: the file.
            home: folder of `module:Class` plug-ins; the file's own when absent.

        Raises:
            SpecError: every problem in the file at once, each as file:line:column.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise SpecError([f"{path}: cannot read the pipeline file: {reason}"]) from error
        with importable_from(Path(home) if home is not None else path.parent):
            return cls.from_document(read_yaml(text, path.name))

    @classmethod
    def from_document(cls, document: Document) -> Pipeline:
        """Check a parsed file; see `from_yaml`."""
        if not isinstance(document.data, dict):
            raise SpecError(
                [f"{document.name}:1:1: expected keys such as corpus: and labels:; see `llmal init`"]
            )
        try:
            return cls.model_validate(document.data)
        except ValidationError as error:
            problems = [_problem(cls, document, e) for e in error.errors()]
            raise SpecError(sorted(dict.fromkeys(problems), key=_by_line)) from error

    def to_yaml(self) -> str:
        """The file that says the same; reading it back gives an equal object."""
        from ruamel.yaml import YAML

        out = io.StringIO()
        yaml = YAML()
        yaml.width = 110
        yaml.dump(_quoted(self.to_spec()), out)
        return out.getvalue()

    def to_spec(self) -> dict[str, Any]:
        """Plain data with every default left out, plug-ins in their shortest form."""
        said = _plain(self)
        assert isinstance(said, dict)
        return {"version": self.version, **said}

    def label_schema(self) -> LabelSchema:
        """The classes."""
        return self.labels.label_schema()


def _plain(value: Any) -> Any:
    from llmal.plugins import Plugin

    if isinstance(value, Plugin):
        return value.to_spec()
    if isinstance(value, Label):  # its name is the key it stands under
        return {"description": value.description, "examples": list(value.examples)}
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        said = {n: getattr(value, n) for n in fields}
        return {
            n: _plain(v)
            for n, v in said.items()
            if v != fields[n].get_default(call_default_factory=True)
            and not _is_default_plugin(v, fields[n].default)
        }
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return float(value) if isinstance(value, Decimal) else value


def _quoted(value: Any) -> Any:
    """Texts with line breaks or control characters in double quotes: in any other style YAML folds them."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {_quoted(k): _quoted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_quoted(v) for v in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and _UNPRINTABLE.search(value) else value


def _is_default_plugin(value: Any, default: Any) -> bool:
    return isinstance(default, str) and hasattr(value, "to_spec") and value.to_spec() == default


def _by_line(problem: str) -> tuple[int, int, str]:
    parts = problem.split(":")
    return (
        (int(parts[1]), int(parts[2]), problem) if len(parts) > 2 and parts[1].isdigit() else (0, 0, problem)
    )


def _problem(cls: type[BaseModel], document: Document, error: Any) -> str:
    place = tuple(
        p for p in error["loc"] if not (isinstance(p, str) and p in ("str", "Label", "local", "PriceSpec"))
    )
    name = ".".join(map(str, place))
    where = document.where(place)
    kind = error["type"]
    if kind == "extra_forbidden":
        known = _known_keys(cls, document, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"{where}: {name}: unknown key; {hint}"
    if kind == "missing":
        return f"{where}: {name}: required and not there"
    words = str(error["msg"]).removeprefix("Value error, ")
    if kind.startswith(("string_type", "int_type", "bool_type", "float_type")):
        words += f", got {error['input']!r}"
        if kind == "string_type":
            words += "; put it in quotes"
    return f"{where}: {name}: {words}"


def _known_keys(cls: type[BaseModel], document: Document, place: tuple[str | int, ...]) -> list[str]:
    """Keys that may stand at a place: of the model there, or of the plug-in named there."""
    model: type[BaseModel] | None = cls
    group = ""
    field: FieldInfo | None = None
    data: Any = document.data
    for part in place:
        inside = isinstance(data, list if isinstance(part, int) else dict)
        data = data[part] if inside else None
        if isinstance(part, int) and field:  # an item of a list: its annotation stands inside the field's
            inner = get_args(field.annotation)[:1]
            field = FieldInfo.from_annotation(inner[0]) if inner else None
        else:
            field = model.model_fields.get(str(part)) if model else None
        extra = next((m for m in (field.metadata if field else ()) if hasattr(m, "json_schema")), None)
        group = extra.json_schema.get("x-llmal-slot", "") if extra else ""
        model = _model_of(field.annotation) if field and not group else None
        if group:
            use = data.get("use") if isinstance(data, dict) else data
            model = find(group, str(use))
        elif model is SelectSpec and isinstance(data, dict) and "use" in data:
            group, model = "select", find("select", str(data["use"]))
    return [*(["use"] if group else []), *(model.model_fields if model else [])]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 7 vocabulary) of a pipeline file, for editors; one branch a built-in plug-in."""
    schema = Pipeline.model_json_schema()
    definitions = schema.pop("$defs", {})

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(child) for child in node]
        if not isinstance(node, dict):
            return node
        if "x-llmal-slot" in node:
            found = slot_schema(node["x-llmal-slot"])
            for branch in found["anyOf"]:
                definitions.update(branch.pop("$defs", {}))
            rest = {k: v for k, v in node.items() if k in ("description", "default")}
            return {**rest, **filled(found)}
        return {k: filled(v) for k, v in node.items()}

    properties = filled(schema)
    names = properties["properties"]
    done: dict[str, Any] = {}
    while fresh := [name for name in definitions if name not in done]:  # filling one can bring others
        done |= {name: filled(definitions[name]) for name in fresh}
    definitions = done
    definitions["LabelsSpec"]["properties"]["names"] = _names_schema(definitions)
    one_for_both = {"$ref": "#/definitions/SelectSpec/properties/then"}
    names["select"] = {"anyOf": [names["select"], one_for_both]}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "llmal pipeline"}
    rest = {k: v for k, v in properties.items() if k not in ("title", "properties")}
    whole = {**head, **rest, "properties": names, "definitions": definitions}
    return json.loads(json.dumps(whole).replace("#/$defs/", "#/definitions/"))  # type: ignore[no-any-return]


def _names_schema(definitions: dict[str, Any]) -> dict[str, Any]:
    label = dict(definitions["Label"])
    label["properties"] = {k: v for k, v in label["properties"].items() if k != "name"}
    label.pop("required", None)
    named = {"type": "object", "additionalProperties": {"anyOf": [{"type": ["string", "null"]}, label]}}
    return {"anyOf": [{"type": "array", "items": {"type": "string"}}, named]}
