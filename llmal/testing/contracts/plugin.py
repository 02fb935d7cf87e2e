"""What holds for every plug-in: options, recipe and source; and the checks other suites share."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from llmal.plugins import Plugin, build
from llmal.records import Label, LabelSchema

SINGLE = LabelSchema("single", (Label(name="fruit"), Label(name="tool"), Label(name="city")), True)
MULTI = SINGLE._replace(kind="multi")

TEXTS = (
    "apple pear plum and apple",
    "pear with plum",
    "fresh apple plum",
    "hammer saw and drill",
    "a drill and a hammer",
    "saw hammer saw",
    "paris rome berlin",
    "rome then paris",
    "berlin rome",
)
"""Nine texts, three a class in the order of `SINGLE`; the suites' own small corpus."""


class PluginContract:
    """Checks of any plug-in; the suites of the protocols build on it.

    Attributes:
        obvious: options that need no description.
    """

    obvious: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "learning_rate", "weight_decay", "requests_per_minute", "tokens_per_minute", "retries"}
    )

    def plugin(self) -> Plugin:
        """The plug-in under test; every call gives an equal one."""
        raise NotImplementedError("override plugin() and return an instance of your plug-in")

    def test_source_is_cited(self) -> None:
        """The class docstring says where the method comes from."""
        kind = type(self.plugin())
        assert "Source:" in (kind.__doc__ or ""), f"the docstring of {kind.__name__} has no 'Source:'"

    def test_options_are_described(self) -> None:
        """Every option has a description or an obvious name."""
        fields = type(self.plugin()).model_fields
        bare = [name for name, info in fields.items() if not info.description and name not in self.obvious]
        assert not bare, f"options without a description: {bare}"

    def test_options_are_checked(self) -> None:
        """An unknown option is refused, and a made plug-in cannot be changed."""
        plugin = self.plugin()
        options = plugin.model_dump()
        with refused(ValidationError):
            type(plugin).model_validate({**options, "no_such_option": 1})
        for name in type(plugin).model_fields:
            with refused(ValidationError):
                setattr(plugin, name, options[name])
        assert type(plugin).model_json_schema()["type"] == "object"

    def test_spec_round_trip(self) -> None:
        """What `to_spec` writes builds an equal plug-in."""
        plugin = self.plugin()
        again = build(plugin.group, plugin.to_spec())
        assert again == plugin, f"{plugin.to_spec()} builds {again!r}"
        assert again.to_spec() == plugin.to_spec()

    def test_equal_plugins_share_a_recipe(self) -> None:
        """The recipe depends on the options and on nothing else."""
        one, other = self.plugin(), self.plugin()
        assert one == other, "plugin() gave two plug-ins that differ"
        assert one.recipe() == other.recipe() == build(one.group, one.to_spec()).recipe()

    def test_recipe_follows_the_options(self) -> None:
        """Another value of an option gives another recipe, unless the option cannot change the result."""
        plugin = self.plugin()
        unknown = plugin.not_in_recipe - set(type(plugin).model_fields)
        assert not unknown, f"not_in_recipe names no option: {sorted(unknown)}"
        for name, other in variants(plugin):
            same = other.recipe() == plugin.recipe()
            if name in plugin.not_in_recipe:
                assert same, f"{name} is in not_in_recipe, yet changes the recipe"
            else:
                assert not same, f"changing {name} leaves the recipe as it was"


def variants(plugin: Plugin) -> Iterator[tuple[str, Plugin]]:
    """The plug-in with one option changed, for each option another value can be guessed of."""
    options = plugin.model_dump()
    for name, info in type(plugin).model_fields.items():
        for value in _others(info, options[name]):
            try:
                made = type(plugin).model_validate({**options, name: value})
            except ValidationError:
                continue
            if made != plugin:
                yield name, made
                break


def _others(info: FieldInfo, value: Any) -> list[Any]:
    choices = [choice for part in _parts(info.annotation) for choice in _choices(part)]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1, value / 2, value * 2, (1 + value) / 2, *choices]
    if isinstance(value, str):
        return [*choices, value + "-other", value + "/other"]
    return [*choices, "other", "OTHER", 1, 0.5]


def _parts(annotation: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(annotation)
    union = origin is typing.Union or origin is UnionType
    return tuple(typing.get_args(annotation)) if union else (annotation,)


def _choices(part: Any) -> tuple[Any, ...]:
    if typing.get_origin(part) is Literal:
        return tuple(typing.get_args(part))
    if isinstance(part, type) and issubclass(part, BaseModel):
        return tuple(other.model_dump() for _, other in variants_of(part))
    return ()


def variants_of(kind: type[BaseModel]) -> Iterator[tuple[str, BaseModel]]:
    """A model of options with one option away from its default; nothing for one that has required options."""
    try:
        base = kind()
    except ValidationError:
        return
    options = base.model_dump()
    for name, info in kind.model_fields.items():
        for value in _others(info, options[name]):
            try:
                yield name, kind.model_validate({**options, name: value})
            except ValidationError:
                continue
            break


@contextmanager
def refused(*kinds: type[Exception], naming: str = "") -> Iterator[None]:
    """The block must raise one of these errors, with a message that holds `naming`."""
    raised: Exception | None = None
    try:
        yield
    except kinds as error:
        raised = error
    wanted = " or ".join(kind.__name__ for kind in kinds)
    assert raised is not None, f"expected {wanted}, and nothing was raised"
    assert naming in str(raised), f"the message does not name {naming!r}: {raised}"


def check_no_pickle(folder: Path) -> None:
    """No file of a folder is a pickle, a zip, or an array of objects, whatever its name says."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            head = file.read_bytes()[:256]
            pickled = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
            assert not pickled, f"{file.name} is a pickle"
            assert not head.startswith(b"PK\x03\x04"), f"{file.name} is a zip, as pickled torch weights are"
            objects = head.startswith(b"\x93NUMPY") and b"'|O'" in head
            assert not objects, f"{file.name} is an array of pickled objects"
