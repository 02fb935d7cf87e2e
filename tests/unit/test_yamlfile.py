"""YAML as plain data: places are right, and what is unsafe or ambiguous is refused at its line, at once."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.errors import SpecError
from llmal.yamlfile import read_yaml


def problems(text, **options):
    with pytest.raises(SpecError) as caught:
        read_yaml(text, "p.yaml", **options)
    return caught.value.problems


def test_values_come_as_yaml_1_2_says():
    text = "a: [yes, no, on, off, 012, 1:30, 0x10, 0o17, 1_000, 1e3, .5, true, null, ~, '1']"
    expected = ["yes", "no", "on", "off", "012", "1:30", 16, 15, 1000, 1000.0, 0.5, True, None, None, "1"]
    found = read_yaml(text, "p.yaml").data["a"]
    assert found == expected
    assert [type(v) for v in found] == [type(v) for v in expected]


def test_every_value_knows_its_line_and_column():
    document = read_yaml("a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n", "p.yaml")
    assert document.where(("a", "b")) == "p.yaml:2:3"
    assert document.where(("a", "c", 1, "d")) == "p.yaml:5:6"
    assert document.where(("a", "gone", "deeper")) == "p.yaml:1:1"


def test_front_matter_counts_from_its_own_first_line():
    assert problems("a: 1\na: 2", first_line=2) == [
        "p.yaml:3:1: 'a' stands twice; YAML would silently keep one of them"
    ]


def test_a_key_that_stands_twice_is_refused_wherever_it_is():
    assert problems("a: {b: 1, b: 2}") == [
        "p.yaml:1:11: 'b' stands twice; YAML would silently keep one of them"
    ]


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch /tmp/x']",
        "!!python/name:str foo",
        "!!python/object:str {}",
        "!own x",
        "!!binary aGk=",
        "!!set {a, b}",
        "!own:map {}",
    ],
)
def test_tags_that_could_build_anything_are_refused_at_their_place(value):
    (problem,) = problems(f"a: 1\nb: {value}")
    assert problem.startswith("p.yaml:2:4: the tag '")
    assert "is not allowed" in problem


def test_a_merge_key_and_a_date_are_refused():
    assert "is not allowed" in problems("b: &b {c: 1}\na: {<<: *b}")[0]
    assert problems("a: 2024-01-01") == ["p.yaml:1:4: a date is not text; put it in quotes"]


def test_a_small_alias_may_be_used():
    assert read_yaml("a: &x [1, 2]\nb: *x", "p.yaml").data == {"a": [1, 2], "b": [1, 2]}


def test_an_alias_bomb_is_refused_quickly():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)
    ]
    started = time.perf_counter()
    assert "aliases that repeat each other are refused" in problems("\n".join(lines))[0]
    assert time.perf_counter() - started < 2  # expanding it would take hours and gigabytes


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "[" * 500 + "]" * 500])
def test_nesting_without_end_is_refused_in_one_line(text):
    (problem,) = problems(text)
    assert problem.startswith("p.yaml")
    assert "\n" not in problem


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-" + "a1B2" * 6,
        "sk-ant-api03-" + "x" * 30,
        "hf_" + "A" * 30,
        "gsk_" + "b" * 30,
        "AIza" + "c" * 35,
        "AKIA" + "D" * 16,
        "ghp_" + "e" * 36,
        "Bearer " + "f" * 20,
    ],
)
@pytest.mark.parametrize(
    "form", ["annotate:\n  api_key_env: {}", "a: [1, '{}']", "'{}': 1", "a: |\n  words {} words"]
)
def test_a_key_in_the_file_is_refused_by_place_and_never_shown(key, form):
    (problem,) = problems(form.format(key))
    assert problem.startswith("p.yaml:")
    assert "environment variable" in problem
    assert key not in problem
    assert key[8:] not in problem


@pytest.mark.parametrize(
    "word",
    ["risk-assessment-of-everything", "sk-short", "task: sk-learn", "desk-booking-for-the-whole-office"],
)
def test_ordinary_words_are_no_keys(word):
    assert read_yaml(f"a: '{word}'", "p.yaml").data == {"a": word}


def test_tabs_are_named_as_the_cause():
    (problem,) = problems("a:\n\tb: 1")
    assert problem.startswith("p.yaml:2:1: not YAML")
    assert problem.endswith("Indent with blanks, not tabs")


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: 'x", "a: b: c", "*gone", "a: 1\n---\nb: 2", "a: \x00", "%YAML 9", "? [a]: 1", "{[1]: 2}"],
)
def test_what_is_not_one_plain_document_is_a_line_not_a_traceback(text):
    for problem in problems(text):
        assert problem.startswith("p.yaml")
        assert "\n" not in problem


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`,? \n\t01~<=\\\ud7ff\u2028\x85"), max_size=30))
@settings(max_examples=200, deadline=None, database=None)
def test_no_text_whatever_ends_in_anything_but_data_or_a_spec_error(text):
    try:
        found = read_yaml(text, "p.yaml").name
    except SpecError as error:
        found = error.problems[0]
    assert found.startswith("p.yaml")
