"""Recipes: the same for the same thing in every process, another for anything else."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.records import Label, LabelSchema, batched, canonical, recipe

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
few = settings(max_examples=60, deadline=None, database=None)


@given(plain)
@few
def test_canonical_text_is_ascii_and_does_not_depend_on_the_order_of_keys(value):
    text = canonical(value)
    assert text.isascii()
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == text


def test_a_recipe_is_the_same_in_another_process():
    code = "from llmal.records import recipe; print(recipe('t', {'b': 1, 'a': [1.5, None, 'é']}))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert said == recipe("t", {"a": [1.5, None, "é"], "b": 1})


def test_kinds_of_facts_never_share_a_recipe_and_parts_never_run_together():
    assert recipe("a", 1) != recipe("b", 1)
    assert recipe("a", "bc") != recipe("a", "b", "c")
    assert recipe("a", "1") != recipe("a", 1)


def test_whatever_an_annotator_is_told_about_the_classes_is_in_their_recipe():
    base = LabelSchema("single", (Label(name="a"), Label(name="b")), True)
    others = [
        base._replace(abstain=False),
        base._replace(kind="multi"),
        base._replace(labels=base.labels[::-1]),
        base._replace(labels=(Label(name="a", description="x"), Label(name="b"))),
        base._replace(labels=(Label(name="a", examples=("x",)), Label(name="b"))),
    ]
    assert len({schema.recipe() for schema in [base, *others]}) == 6


def test_what_cannot_be_hashed_is_an_error_not_a_guess():
    with pytest.raises(TypeError, match="cannot hash a object"):
        recipe("a", object())


@given(st.lists(st.integers()), st.integers(1, 5))
@few
def test_batches_hold_every_row_once_in_order(rows, size):
    batches = list(batched(iter(rows), size))
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch) == size for batch in batches[:-1])


def test_batches_draw_no_further_than_they_need():
    source = iter(range(10))
    next(batched(source, 3))
    assert next(source) == 3
