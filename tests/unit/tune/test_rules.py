"""The bank of rules: what may enter, which of two alike stays, who leaves."""

import numpy as np
import pytest

from llmal.records import Item
from llmal.tune.rules import Tried, as_guidelines, cleaned, full, merged, refused
from llmal.tune.split import Example

TEXT = "I was charged twice for the premium plan in March"
EXAMPLES = [
    Example(Item(0, "k", TEXT), ("billing",), ("T-4711",)),
    Example(Item(1, "l", "ok bye"), ("praise",)),
]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("A complaint about being charged more than once is about billing.", ""),
        ("Texts like 'charged twice for the premium' are billing.", "quotes a text"),
        ("CHARGED, TWICE: for the premium... is billing", "quotes a text"),
        ("A text that says ok bye is praise.", "quotes a text"),
        ("The case T-4711 is about billing, not praise.", "names an id"),
        ("Order 4711000 is about billing.", "names an id, an address or a number"),
        ("See https://x.example for what billing is.", "names an id, an address or a number"),
        ("billing", "no sentence"),
        ("", "no sentence"),
        ("billing " * 60, "too long"),
    ],
)
def test_a_rule_that_quotes_or_names_a_text_is_refused(rule, why):
    assert refused(rule, EXAMPLES) == why


def test_scripts_without_blanks_are_compared_by_characters():
    text = "".join(map(chr, range(0x4E10, 0x4E50)))
    example = [Example(Item(0, "k", text), ("billing",))]
    assert refused(f"\u5982\u679c{text[5:40]}\u5c31\u662f", example) == "quotes a text"
    assert refused("".join(map(chr, range(0x5E10, 0x5E30))), example) == ""


def test_an_answer_is_cut_down_to_its_rule():
    assert cleaned('1. "A refund is billing."\n\nBecause...') == "A refund is billing."
    assert cleaned("Rule: A refund is billing.") == "A refund is billing."
    assert cleaned("- [[ ## answer ## ]] x") == "[ [ ## answer ## ]] x"
    assert cleaned("Choose from {labels} by topic.") == "Choose from the labels by topic."
    assert cleaned(None) == ""


def encode(texts):
    """One direction a first word; a second word tilts it by an angle of cosine 0.95."""
    firsts = sorted({t.split()[0] for t in texts})
    rows = np.zeros((len(texts), len(firsts) + 1))
    for row, text in zip(rows, texts, strict=True):
        tilted = len(text.split()) > 1
        row[firsts.index(text.split()[0])] = 0.95 if tilted else 1.0
        row[-1] = np.sqrt(1 - 0.95**2) if tilted else 0.0
    return rows


def test_of_rules_alike_the_more_useful_stays_then_the_earlier():
    rules = [
        Tried("refunds", 2, 1),
        Tried("refunds too", 5, 1),
        Tried("crashes", 1, 0),
        Tried("crashes", 1, 0),
    ]
    assert merged(rules, encode, alike=0.9) == [rules[1], rules[2]]
    assert merged(rules, encode, alike=0.96) == [rules[0], rules[1], rules[2]]
    assert merged([], encode, alike=0.9) == []


def test_a_full_bank_drops_the_least_useful_and_keeps_the_order():
    rules = [Tried("a", 1, 1), Tried("b", 3, 0), Tried("c", 5, 4), Tried("d", 2, 0)]
    assert [r.rule for r in full(rules, 3)] == ["b", "c", "d"]
    assert [r.rule for r in full(rules, 2)] == ["b", "d"]
    assert full(rules, 9) == rules


def test_only_a_rule_that_fixes_something_and_costs_nothing_is_worth_keeping():
    assert Tried("r", 1, 1).worth_keeping()
    assert not Tried("r", 0, 0).worth_keeping()
    assert not Tried("r", 2, 3).worth_keeping()


def test_the_bank_as_a_state_holds_it():
    assert [g.model_dump() for g in as_guidelines([Tried("a", 2, 1)])] == [
        {"rule": "a", "fixed": 2, "caused": 1}
    ]
