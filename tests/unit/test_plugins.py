"""Plug-ins: found by name or module:Class, refused with the names there are, hashed by what matters."""

import json
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

from llmal import plugins
from llmal.errors import MissingExtra, UnknownPlugin
from llmal.extras import need
from llmal.filter.confidence import Confidence
from llmal.plugins import BUILTIN, build, find, known, name_of, slot
from llmal.select.margin import Margin


class Own(Confidence):
    """A filter of a user's."""

    hint: str = ""
    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"hint"})


@pytest.fixture
def own_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_module", SimpleNamespace(Own=Own, thing=3))


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in BUILTIN.items() for name in names]
)
def test_every_built_in_name_is_a_plug_in_of_its_stage_with_a_docstring(group, name):
    cls = find(group, name)
    assert (cls.group, name_of(cls)) == (group, name)
    assert (cls.__doc__ or "").strip()


def test_a_slip_is_told_with_the_nearest_and_all_names():
    names = ", ".join(sorted(BUILTIN["select"]))
    with pytest.raises(UnknownPlugin, match=rf"known: {names}\. did you mean 'margin'\?"):
        find("select", "margn")


def test_a_class_of_ones_own_is_named_by_its_path(own_module):
    built = build("filter", {"use": "own_module:Own", "at_least": 0.5})
    assert built.at_least == 0.5


@pytest.mark.parametrize(
    "name", ["own_module:Gone", "own_module:thing", "no_such_module:X", ".own:X", ":X", "own_module:"]
)
def test_a_path_that_leads_to_no_plug_in_is_refused(own_module, name):
    with pytest.raises(UnknownPlugin):
        find("filter", name)


def test_a_module_that_breaks_while_it_is_imported_is_told_as_the_users(tmp_path, monkeypatch):
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownPlugin, match="division by zero"):
        find("filter", "broken_plugin:X")


def test_a_plug_in_of_another_stage_is_refused():
    with pytest.raises(UnknownPlugin, match="is not a select plug-in"):
        find("select", "llmal.filter.confidence:Confidence")
    with pytest.raises(ValueError, match="a select plug-in stands where a filter plug-in is expected"):
        build("filter", Margin())


def test_an_entry_point_adds_a_name_and_never_takes_a_built_in_one(monkeypatch):
    points = [
        SimpleNamespace(name="extra", value="own:X"),
        SimpleNamespace(name="confidence", value="evil:X"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "llmal.filter" else [])
    plugins._installed.cache_clear()
    try:
        assert known("filter") == {"extra": "own:X", **plugins.BUILTIN["filter"]}
    finally:
        plugins._installed.cache_clear()


def test_a_recipe_changes_with_options_and_version_but_not_with_what_changes_no_result(monkeypatch):
    base = Own()
    assert Own(hint="x").recipe() == base.recipe()
    assert Own(at_least=0.1).recipe() != base.recipe()
    before = base.recipe()
    monkeypatch.setattr(Own, "version", 2)
    assert base.recipe() != before


def test_the_shortest_form_builds_the_same():
    for built in (Confidence(), Confidence(at_least=0.25)):
        assert build("filter", built.to_spec()) == built
    assert Confidence().to_spec() == "confidence"


def test_a_missing_package_is_told_with_the_pip_line():
    with pytest.raises(MissingExtra, match=r'pip install "llmal\[vllm\]"'):
        need("no_such_package_at_all", extra="vllm", why="to serve")
    assert need("json", extra="x", why="y").dumps({}) == "{}"


class Holder(Confidence):
    """A filter that holds others."""

    one: slot("filter") = "confidence"
    more: tuple[slot("filter"), ...] = ()


def test_plug_ins_inside_a_plug_in_are_written_in_a_form_that_builds_them():
    made = Holder(
        one=Own(at_least=0.25), more=(Confidence(), Holder(one=Confidence(), more=(Own(hint="x"),)))
    )
    own = name_of(Own)
    said = made.to_spec()
    assert said["one"] == {"use": own, "at_least": 0.25}
    assert said["more"][0] == "confidence"
    assert said["more"][1]["more"] == [{"use": own, "hint": "x"}]
    again = Holder.model_validate({k: v for k, v in json.loads(json.dumps(said)).items() if k != "use"})
    assert again == made
    assert Holder.model_validate(made.model_dump()) == made


def test_the_recipe_of_a_plug_in_inside_counts(monkeypatch):
    def holding(**options):
        return Holder(one=Confidence(), more=(Own(**options),)).recipe()

    base = holding()
    assert holding(at_least=0.1) != base
    assert holding(hint="x") == base, "what changes no result inside changes none outside"
    monkeypatch.setattr(Own, "version", 2)
    assert holding() != base


def test_the_schema_of_a_slot_does_not_spell_out_slots_inside():
    schema = plugins.slot_schema("select")
    mixed = next(b for b in schema["anyOf"] if b.get("properties", {}).get("use") == {"const": "mixed"})
    assert "x-llmal-slot" not in json.dumps(schema)
    names, mapping = mixed["properties"]["of"]["items"]["anyOf"]
    assert "margin" in names["examples"]
    assert mapping["required"] == ["use"]
