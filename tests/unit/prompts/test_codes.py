"""Option codes: distinct, never a class by accident."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.prompts.codes import code_of, codebook, codes_for, option
from llmal.records import Label, LabelSchema


def schema_of(*names, kind="single", abstain=True):
    return LabelSchema(kind, tuple(Label(name=name) for name in names), abstain)


@pytest.mark.parametrize("n", [2, 25, 26, 27, 99, 100, 1000])
@pytest.mark.parametrize("abstain", [True, False])
def test_codes_are_distinct_in_every_spelling(n, abstain):
    codes = codes_for(schema_of(*(f"label {i}" for i in range(n)), abstain=abstain))
    assert len({code.casefold() for code in codes.all()}) == n + abstain
    assert (codes.abstain is not None) == abstain
    assert len({len(code) for code in codes.all()}) == 1


@given(st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=40, unique=True), st.booleans())
@settings(max_examples=60, deadline=None, database=None)
def test_every_code_names_its_own_label_whatever_the_labels_are_called(names, abstain):
    schema = schema_of(*names, abstain=abstain)
    codes = codes_for(schema)
    assert [option(code, schema) for code in codes.labels] == list(names)
    assert [option(f" {code.lower()}. ", schema) for code in codes.labels] == list(names)
    if codes.abstain is not None:
        assert option(codes.abstain, schema) == ""


@given(st.text(max_size=10))
@settings(max_examples=100, deadline=None, database=None)
def test_an_answer_is_a_label_declining_or_nothing(answer):
    assert option(answer, schema_of("bug", "billing")) in ("bug", "billing", "", None)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("A", "bug"),
        ("(a)", "bug"),
        ("\uff21", "bug"),
        ("**B**", "Billing"),
        ("billing", "Billing"),
        ("BUG.", "bug"),
        ("C", ""),
        ("cannot tell", ""),
        ("D", None),
        ("A B", None),
        ("bug or billing", None),
        ("", None),
        ("...", None),
        ("A = bug", None),
    ],
)
def test_an_answer_is_read_by_code_or_name_and_never_guessed(answer, found):
    assert option(answer, schema_of("bug", "Billing")) == found


def test_an_empty_answer_is_no_label_even_where_a_label_is_all_punctuation():
    assert option("", schema_of("***", "b")) is None


def test_a_name_two_labels_share_but_for_case_names_neither():
    assert option("Bug", schema_of("bug", "BUG", abstain=False)) is None


def test_a_token_is_a_code_only_when_it_is_nothing_else():
    codes = codes_for(schema_of("bug", "billing"))
    assert code_of(" a", codes) == "A"
    assert code_of("Ab", codes) is None
    assert code_of("", codes) is None


def test_the_codebook_shows_code_name_description_and_examples():
    schema = LabelSchema(
        "single", (Label(name="bug", description="broken", examples=("it fails",)), Label(name="b")), True
    )
    assert codebook(schema).splitlines() == [
        "A = bug: broken",
        "    for example: it fails",
        "B = b",
        "C = cannot tell: none of the above can be told from the text",
    ]
