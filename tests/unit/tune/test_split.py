"""People's answers in three parts: shares, strata, steadiness, and refusal of too few."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.errors import UserError
from llmal.records import Item
from llmal.tune.split import FEWEST, PARTS, Example, parts_of, read_parts, split


def answers(n, labels=("a", "b", "c"), start=0):
    return [
        Example(Item(i, f"key{i}", f"text {i}"), (labels[i % len(labels)],)) for i in range(start, start + n)
    ]


def keys(made, part):
    return {e.item.key for e in getattr(made, part)}


def test_every_answer_is_in_one_part_and_every_label_in_its_share():
    made = split(answers(300), seed=1)
    assert made.sizes() == {"optimise": 90, "validate": 105, "report": 105}
    assert len(set().union(*(keys(made, part) for part in PARTS))) == 300
    for part in PARTS:
        assert set(Counter(e.labels for e in getattr(made, part)).values()) == {len(getattr(made, part)) // 3}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 99))
def test_shares_hold_whatever_the_labels_counts(counts, seed):
    every = [
        Example(Item(100 * c + i, f"k{100 * c + i}", ""), (f"l{c}",))
        for c, n in enumerate(counts)
        for i in range(n)
    ]
    more = [Example(Item(i, f"k{i}", ""), ("big",)) for i in range(1000, 1200)]
    made = split([*every, *more], seed=seed)
    total = len(every) + 200
    for part, share in zip(PARTS, (0.3, 0.35, 0.35), strict=True):
        assert abs(len(getattr(made, part)) - share * total) <= len(counts) + 2
        for label, n in Counter(e.labels for e in [*every, *more]).items():
            assert abs(sum(e.labels == label for e in getattr(made, part)) - share * n) <= 1.5


def test_the_seed_decides_and_the_order_of_the_answers_does_not():
    every = answers(300)
    assert split(every, seed=1) == split(every[::-1], seed=1)
    assert keys(split(every, seed=1), "report") != keys(split(every, seed=2), "report")
    assert split(every, seed=1).digest() == split(every[::-1], seed=1).digest()
    assert split(every, seed=1).digest() != split(every, seed=2).digest()


def test_an_answer_keeps_its_part_when_more_come_in(tmp_path):
    first = split(answers(300), seed=1)
    later = split(answers(420), seed=1, kept=parts_of(first))
    for part in PARTS:
        assert keys(first, part) <= keys(later, part)
    assert later.sizes() == {"optimise": 126, "validate": 147, "report": 147}
    assert read_parts(tmp_path / "none.json") == {}


@pytest.mark.parametrize("n", [1, 60, 120, 139])
def test_too_few_are_refused_and_the_number_that_is_told_is_enough(n):
    with pytest.raises(UserError) as caught:
        split(answers(n), seed=0)
    missing = int(str(caught.value).split("About ")[1].split()[0])
    made = split(answers(n + missing), seed=0)
    assert min(len(made.validate), len(made.report)) >= FEWEST


@pytest.mark.parametrize("shares", [(1, 1), (0, 1, 1), (0.5, -0.1, 0.6)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(UserError, match="three positive shares"):
        split(answers(300), seed=0, shares=shares)
