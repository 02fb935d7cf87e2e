"""Prompt files: what is wrong in one is told at its line; nothing in one is silently ignored."""

import json

import pytest

from llmal.errors import PromptError
from llmal.prompts.file import DEFAULT_PROMPT, PromptFile, load_prompt


def written(tmp_path, text, name="p.md"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def told(path):
    with pytest.raises(PromptError) as caught:
        load_prompt(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_shipped_prompt_loads_and_is_the_default():
    assert load_prompt() == load_prompt(DEFAULT_PROMPT)
    assert "{labels}" in load_prompt().text


def test_a_file_without_front_matter_is_all_instructions(tmp_path):
    assert load_prompt(written(tmp_path, "Label it.\n")) == PromptFile(text="Label it.")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_front_matter_sets_inputs_output_and_demonstrations(tmp_path, end):
    lines = [
        "---",
        "inputs: {mail: an e-mail}",
        "output: a code",
        "demonstrations:",
        "- {text: hi, label: bug}",
        "---",
        "Do it.",
        "",
    ]
    prompt = load_prompt(written(tmp_path, end.join(lines)))
    assert prompt.inputs == {"mail": "an e-mail"}
    assert prompt.demonstrations[0].label == "bug"
    assert prompt.text == "Do it."


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        ("---\ninputs: {a: x}\noutptu: y\n---\nDo.", "p.md:3:1: ", "known: inputs, output, demonstrations"),
        ("---\ninputs: {a: x, b: y}\n---\nDo.", "p.md:2:1: ", "at most 1 item"),
        ("---\ninputs: {answer: x}\n---\nDo.", "p.md:2:1: ", "cannot name the input"),
        ("---\ninputs: {my text: x}\n---\nDo.", "p.md:2:1: ", "cannot name the input"),
        ("---\n- a\n---\nDo.", "p.md:2:1: ", "must be a mapping"),
        ("---\na: [1\n---\nDo.", "p.md:", "not YAML"),
        ("---\na: 1\na: 2\n---\nDo.", "p.md:3:1: ", "stands twice"),
        ("---\noutput: x\nDo.", "p.md:1:1: ", "has no end"),
        ("---\noutput: x\n---\n", "p.md:2:1: ", "at least 1 character"),
        ("", "p.md:1:1: ", "at least 1 character"),
        ("---\noutput: sk-aaaaaaaaaaaaaaaaaaaaaaaa\n---\nDo.", "p.md:2:9: ", "secret key"),
        ("---\ndemonstrations: [{text: a}]\n---\nDo.", "p.md:2:", "label"),
    ],
)
def test_what_is_wrong_in_a_prompt_file_is_told_at_its_line(tmp_path, text, start, words):
    message = told(written(tmp_path, text))
    assert message.startswith(start)
    assert words in message
    assert "sk-aaaa" not in message


def test_a_prompt_that_cannot_be_read_names_the_key_that_names_it(tmp_path):
    assert "annotate.prompt names it" in told(tmp_path / "gone.md")
    path = tmp_path / "p.md"
    path.write_bytes(b"\xff\xfe\xff")
    assert "not UTF-8" in told(path)


def test_a_compiled_prompt_replaces_what_it_holds_and_makes_another_recipe(tmp_path):
    path = written(tmp_path, "Label it.")
    plain = load_prompt(path)
    written(
        tmp_path,
        json.dumps({"text": "Better.", "demonstrations": [{"text": "a", "label": "bug"}]}),
        "p.compiled.json",
    )
    compiled = load_prompt(path)
    assert (compiled.text, len(compiled.demonstrations)) == ("Better.", 1)
    assert compiled.recipe() != plain.recipe()


@pytest.mark.parametrize(
    "state",
    ["[]", "{", '{"demonstrations": [{}]}', '{"demonstrations": 5}', '{"text": 5}', '{"text": ["a"]}'],
)
def test_a_compiled_file_that_is_none_is_refused_with_the_way_out(tmp_path, state):
    path = written(tmp_path, "Label it.")
    written(tmp_path, state, "p.compiled.json")
    assert "not a compiled prompt. Delete it" in told(path)
