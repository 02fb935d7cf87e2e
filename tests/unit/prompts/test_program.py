"""Reading a model's answer: a label, a decline, or a status that says why there is none."""

import pytest

from llmal.errors import PromptError
from llmal.prompts.file import Demonstration, PromptFile
from llmal.prompts.program import demonstrations, read_answer, signature
from llmal.records import Label, LabelSchema

SINGLE = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
MULTI = SINGLE._replace(kind="multi")
PROMPT = PromptFile(text="Label it.")


def framed(answer):
    return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def signs():
    return {s.kind: signature(PROMPT, s, strict=False) for s in (SINGLE, MULTI)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (framed("A"), ("ok", ("bug",))),
        (framed(" b "), ("ok", ("billing",))),
        (framed("billing"), ("ok", ("billing",))),
        ("A", ("ok", ("bug",))),
        ("A.", ("ok", ("bug",))),
        (framed("C"), ("abstained", ())),
        (framed("D"), ("off_list", ())),
        (framed("A or B"), ("off_list", ())),
        (framed("A, B"), ("off_list", ())),
        ("", ("unparsed", ())),
        ("I think it is a bug.", ("unparsed", ())),
        ('{"answer": "A"}', ("unparsed", ())),
        ("[A]", ("unparsed", ())),
    ],
)
def test_a_single_answer_is_read_or_refused(signs, content, expected):
    assert read_answer(content, signs["single"], SINGLE)[:2] == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (framed("[A, B]"), ("ok", ("bug", "billing"))),
        (framed('["B", "A"]'), ("ok", ("bug", "billing"))),
        (framed("A\nB"), ("ok", ("bug", "billing"))),
        (framed("[]"), ("ok", ())),
        (framed("none"), ("ok", ())),
        ("[A]", ("ok", ("bug",))),
        (framed("C"), ("abstained", ())),
        (framed("[A, C]"), ("off_list", ())),
        (framed("[A, Z]"), ("off_list", ())),
        (framed(""), ("unparsed", ())),
        ("", ("unparsed", ())),
        ("both of them", ("unparsed", ())),
    ],
)
def test_an_answer_of_several_is_read_or_refused(signs, content, expected):
    assert read_answer(content, signs["multi"], MULTI)[:2] == expected


def test_the_code_is_kept_as_written_for_its_place_among_the_tokens(signs):
    assert read_answer(framed("b"), signs["single"], SINGLE)[2] == "b"


@pytest.mark.parametrize(
    ("label", "schema"),
    [("bgu", SINGLE), (("bug", "bgu"), MULTI), (("bug", "billing"), SINGLE), ((), SINGLE)],
)
def test_a_demonstration_whose_label_does_not_fit_is_refused_before_anything_is_paid(label, schema):
    prompt = PromptFile(
        text="x", demonstrations=(Demonstration(text="a", label="bug"), Demonstration(text="b", label=label))
    )
    with pytest.raises(PromptError, match=r"^annotate\.prompt: demonstration 2: .*Known: bug, billing$"):
        demonstrations(prompt, schema)


def test_labels_stand_where_the_prompt_says_or_last():
    assert "A = bug" in signature(PromptFile(text="x {labels} y"), SINGLE).instructions.split(" y")[0]
    assert "Labels:\nA = bug" in signature(PROMPT, SINGLE).instructions
