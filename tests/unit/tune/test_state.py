"""State files: what is put beside a prompt is what is read, and what was there can be put back."""

import pytest

from llmal.errors import PromptError, UserError
from llmal.prompts.file import (
    GUIDELINES,
    Compiled,
    Demonstration,
    Guideline,
    load_prompt,
    read_prompt,
    read_state,
)
from llmal.tune.state import copied, copy_default, put, revert, write

STATE = Compiled(
    text="Better.\n\n{labels}",
    demonstrations=(
        Demonstration(text="<<<a\nhi\na>>>", label="bug"),
        Demonstration(text="b", label=("x", "y")),
    ),
    guidelines=(Guideline(rule="A refund is billing.", fixed=3, caused=1),),
    about={"optimiser": "gepa", "report": {"value": 0.1}},
)


@pytest.fixture
def prompt(tmp_path):
    path = tmp_path / "p.md"
    path.write_text("Label it.\n\n{labels}", encoding="utf-8")
    return path


def test_what_is_written_is_what_is_read_and_what_is_shown(prompt):
    put(STATE, prompt)
    assert read_state(prompt) == STATE
    shown = load_prompt(prompt)
    assert shown.text == f"Better.\n\n{{labels}}\n\n{GUIDELINES}\n1. A refund is billing."
    assert shown.demonstrations == STATE.demonstrations
    assert read_prompt(prompt).text == "Label it.\n\n{labels}"
    assert not list(prompt.parent.glob("*.part"))


def test_a_state_without_text_follows_the_file(prompt):
    put(Compiled(guidelines=STATE.guidelines), prompt)
    prompt.write_text("Edited.", encoding="utf-8")
    assert load_prompt(prompt).text.startswith("Edited.")
    assert "1. A refund" in load_prompt(prompt).text


def test_instructions_compiled_from_another_text_are_not_used_in_silence(prompt):
    put(STATE.model_copy(update={"of": read_prompt(prompt).recipe()}), prompt)
    assert load_prompt(prompt).text.startswith("Better.")
    prompt.write_text("Edited.", encoding="utf-8")
    with pytest.raises(PromptError, match=r"edited after .* Delete p.compiled.json"):
        load_prompt(prompt)


def test_rules_are_numbered_in_their_order(prompt):
    rules = tuple(Guideline(rule=r) for r in ("One.", "Two."))
    assert Compiled(guidelines=rules).applied(read_prompt(prompt)).text.endswith("\n1. One.\n2. Two.")


def test_the_state_before_is_put_back_and_back_again(prompt):
    first, second = STATE, STATE.model_copy(update={"text": "Best."})
    put(first, prompt)
    put(second, prompt)
    assert revert(prompt) == "p.compiled.json is the one before"
    assert read_state(prompt) == first
    revert(prompt)
    assert read_state(prompt) == second


def test_after_a_first_state_reverting_is_the_prompt_as_written(prompt):
    put(STATE, prompt)
    assert revert(prompt) == "p.md is in use as written"
    assert read_state(prompt) is None
    put(STATE.model_copy(update={"text": "Other."}), prompt)  # what was in use before it is the plain prompt
    assert revert(prompt) == "p.md is in use as written"


def test_with_nothing_compiled_there_is_nothing_to_revert(prompt):
    with pytest.raises(UserError, match="no compiled state"):
        revert(prompt)


def test_a_copy_of_the_default_prompt_never_overwrites_a_file(tmp_path):
    place = copied(tmp_path)
    assert place == tmp_path / "prompts/classify.md"
    copy_default(place)
    assert load_prompt(place) == load_prompt()
    assert copied(tmp_path) == place  # a copy that is there will do
    place.write_text("Mine.", encoding="utf-8")
    other = copied(tmp_path)
    assert other == tmp_path / "prompts/classify-2.md"
    copy_default(other)
    assert place.read_text(encoding="utf-8") == "Mine."


def test_writing_leaves_the_old_file_whole_until_the_new_one_is(prompt, monkeypatch):
    place = put(STATE, prompt)

    def breaks(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", breaks)
    with pytest.raises(OSError, match="disk full"):
        write(STATE.model_copy(update={"text": "Half"}), place)
    assert read_state(prompt) == STATE
