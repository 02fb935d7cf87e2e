"""Prompt files: front matter and text, and the state an optimiser compiled from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmal.errors import PromptError, SpecError
from llmal.records import recipe
from llmal.yamlfile import Document, read_yaml

DEFAULT_PROMPT = Path(__file__).with_name("classify.md")
"""Used when the pipeline file names no prompt; `llmal init` copies it beside the file for editing."""

_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n", re.DOTALL | re.MULTILINE)
_OPEN = re.compile(r"---[ \t]*\r?\n")


class Demonstration(BaseModel):
    """A worked example shown to the model before the item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    label: str | tuple[str, ...]


class PromptFile(BaseModel):
    """A prompt as its file says it.

    Attributes:
        inputs: field name -> description; exactly one field, which holds the item's text.
        output: description of the answer.
        demonstrations: worked examples, in order.
        text: the instructions; `{labels}` stands for the codebook, which is put last when it is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, str] = Field(
        default_factory=lambda: {"text": "the text to label"}, min_length=1, max_length=1
    )
    output: str = "the code of the label that fits"
    demonstrations: tuple[Demonstration, ...] = ()
    text: str = Field(min_length=1)

    @field_validator("inputs")
    @classmethod
    def _a_field(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not name.isidentifier() or name.startswith("_") or name in ("answer", "completed"):
                raise ValueError(f"'{name}' cannot name the input; use one word such as text, and not answer")
        return value

    def recipe(self) -> str:
        """Hash of all the model is shown besides labels and item."""
        return recipe("prompt", self.model_dump())


class Guideline(BaseModel):
    """A rule learnt from people's answers.

    Attributes:
        rule: one sentence.
        fixed, caused: answers it turned right and wrong where it was tried.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    rule: str = Field(min_length=1)
    fixed: int = 0
    caused: int = 0


class Compiled(BaseModel):
    """What an optimiser made of a prompt file, as it stands beside it: everything else is the file's.

    Attributes:
        text: other instructions, or None for those of the file.
        demonstrations: worked examples in place of the file's, or nothing for those of the file.
        guidelines: rules put under the instructions.
        of: recipe of the prompt file that `text` was made from; empty when a person wrote this.
        about: how it was made and what it is worth, for people.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    guidelines: tuple[Guideline, ...] = ()
    of: str = ""
    about: dict[str, Any] = Field(default_factory=dict)

    def applied(self, prompt: PromptFile) -> PromptFile:
        """The prompt with this state put on.

        All guidelines stand in the instructions, the same ones for every item: picking a few for each item
        would give each request another beginning, and the server's prefix cache nothing to reuse.
        """
        text = self.text or prompt.text
        if self.guidelines:
            rules = "\n".join(f"{n}. {line.rule}" for n, line in enumerate(self.guidelines, 1))
            text = f"{text}\n\n{GUIDELINES}\n{rules}"
        changed = {"text": text, "demonstrations": self.demonstrations or prompt.demonstrations}
        return PromptFile.model_validate({**dict(prompt), **changed})


GUIDELINES = "Guidelines, learnt from cases that were decided by people:"
"""Stands above the rules in the instructions."""


def load_prompt(path: Path | None = None) -> PromptFile:
    """Read a prompt file, and the compiled state beside it (`NAME.compiled.json`) when there is one.

    Raises:
        PromptError: no such file, front matter that is wrong, with file:line:column, or a state that is none,
            or whose instructions were made from another text than the file now holds.
    """
    path = path or DEFAULT_PROMPT
    prompt, state = read_prompt(path), read_state(path)
    if state is None:
        return prompt
    if state.text is not None and state.of and state.of != prompt.recipe():
        raise PromptError(
            "the prompt was edited after its instructions were compiled, and the compiled ones would be used",
            where=str(path),
            hint=f"Delete {state_path(path).name} to use the prompt as written, then compile it again",
        )
    return state.applied(prompt)


def state_path(path: Path) -> Path:
    """Where the compiled state of a prompt file stands."""
    return path.with_suffix(".compiled.json")


def read_state(path: Path) -> Compiled | None:
    """The compiled state beside a prompt file, or None.

    Raises:
        PromptError: the file there is none.
    """
    place = state_path(path)
    if not place.is_file():
        return None
    try:
        return Compiled.model_validate_json(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PromptError(
            "not a compiled prompt", where=str(place), hint="Delete it to use the prompt as written"
        ) from error


def read_prompt(path: Path) -> PromptFile:
    """Read a prompt file as it is written, whatever stands beside it.

    Raises:
        PromptError: see `load_prompt`.
    """
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise PromptError(
            f"cannot read the prompt: {reason}", where=str(path), hint="annotate.prompt names it"
        ) from error
    match = _FRONT.match(source)
    if match is None and _OPEN.match(source):
        raise PromptError(
            "the front matter has no end", where=f"{path.name}:1:1", hint="Close it with a line ---"
        )
    fields: dict[str, Any] = {}
    body = source
    if match:
        try:
            document = read_yaml(match[1], path.name, first_line=2)
        except SpecError as error:
            raise PromptError(str(error)) from error
        fields, body = document.data or {}, source[match.end() :]
    try:
        prompt = PromptFile.model_validate({**fields, "text": body.strip()})
    except (ValidationError, TypeError) as error:
        raise PromptError(_first_problem(error, path, document if match else None)) from error
    return prompt


def _first_problem(error: ValidationError | TypeError, path: Path, document: Document | None) -> str:
    if isinstance(error, TypeError):
        return f"{path.name}:2:1: front matter must be a mapping such as `inputs: {{text: ...}}`"
    first = error.errors()[0]
    words = str(first["msg"]).removeprefix("Value error, ")
    place = tuple(first["loc"])
    where = document.where(place) if document else f"{path.name}:1:1"
    known = ", ".join(name for name in PromptFile.model_fields if name != "text")
    extra = f"; known: {known}" if first["type"] == "extra_forbidden" else ""
    return f"{where}: {'.'.join(map(str, place))}: {words}{extra}"
