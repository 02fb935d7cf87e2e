"""A bank of rules: what may enter, which of two alike stays, who leaves when it is full."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.prompts.file import Guideline
from llmal.prompts.frame import neutral
from llmal.tune.split import Example

QUOTED_WORDS = 5
"""So many words in a row, in a rule and in a text, are a quotation."""

QUOTED_CHARS = 24
"""So many characters in a row are one too: for scripts that leave no blank between words."""

MOST_RULE_CHARS = 300
"""A rule longer than this is no sentence one can apply, and every later call pays for it."""

_ID_LIKE = re.compile(r"\d{5,}|\b[0-9a-f]{8,}\b|https?://|\S+@\S+\.\w", re.IGNORECASE)

_NUMBERING = re.compile(r"^(?:[-*\u2022]|\d{1,2}[.)]|rule:)\s*", re.IGNORECASE)


class Tried(NamedTuple):
    """A rule and the answers it turned right and wrong where it was tried."""

    rule: str
    fixed: int
    caused: int

    @property
    def utility(self) -> int:
        """Errors fixed less errors caused."""
        return self.fixed - self.caused

    def worth_keeping(self) -> bool:
        """Whether it fixes something and costs no accuracy."""
        return self.fixed > 0 and self.utility >= 0


def cleaned(answer: str | None) -> str:
    """The rule in a model's answer: one line, without quotes and numbering, unable to pose as the frame."""
    lines = [line.strip() for line in (answer or "").splitlines() if line.strip()]
    text = _NUMBERING.sub("", lines[0]) if lines else ""
    return neutral(text.strip("\"'` ")).replace("{labels}", "the labels")  # a place of the prompt file's own


def refused(rule: str, examples: Sequence[Example]) -> str:
    """Why a rule may not enter the bank; empty when it may.

    A rule that quotes a text, or names one, tells one answer and teaches nothing: it is a leak, not a rule.

    Args:
        rule: as `cleaned`.
        examples: whose texts and ids it must not hold.
    """
    if len(rule.split()) < 3 and len(rule) < QUOTED_CHARS // 2:
        return "no sentence"
    if len(rule) > MOST_RULE_CHARS:
        return "too long"
    if _ID_LIKE.search(rule):
        return "names an id, an address or a number"
    words = _words(rule)
    grams = {tuple(words[i : i + QUOTED_WORDS]) for i in range(len(words) - QUOTED_WORDS + 1)}
    joined = "".join(words)
    for example in examples:
        if any(len(i) > 2 and re.search(rf"(?<!\w){re.escape(i)}(?!\w)", rule) for i in example.ids):
            return "names an id"
        if _quotes(joined, grams, example.item.text):
            return "quotes a text"
    return ""


def _quotes(joined: str, grams: set[tuple[str, ...]], text: str) -> bool:
    theirs = _words(text)
    if len(theirs) >= QUOTED_WORDS:
        runs = (tuple(theirs[i : i + QUOTED_WORDS]) for i in range(len(theirs) - QUOTED_WORDS + 1))
        if any(run in grams for run in runs):
            return True
    elif len(theirs) >= 2 and "".join(theirs) in joined:
        return True  # the whole of a short text
    flat = "".join(theirs)
    if len(flat) / max(1, len(theirs)) < 12:  # words are of usual length: counted above
        return False
    return any(flat[i : i + QUOTED_CHARS] in joined for i in range(len(flat) - QUOTED_CHARS + 1))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def merged(
    rules: Sequence[Tried], encode: Callable[[list[str]], NDArray[np.float32]], *, alike: float
) -> list[Tried]:
    """Rules no two of which mean the same: of near-duplicates the more useful stays, then the earlier.

    Args:
        rules: in any order.
        encode: texts -> (n, d) unit rows.
        alike: cosine above which two rules are one.
    """
    if not rules:
        return []
    order = sorted(range(len(rules)), key=lambda i: (-rules[i].utility, -rules[i].fixed, i))
    vectors = np.asarray(encode([rule.rule for rule in rules]), np.float64)
    stay: list[int] = []
    for i in order:
        if all(float(vectors[i] @ vectors[j]) <= alike for j in stay):
            stay.append(i)
    return [rules[i] for i in sorted(stay)]


def full(rules: Sequence[Tried], most: int) -> list[Tried]:
    """At most that many rules, the least useful gone; those that stay keep their order."""
    order = sorted(range(len(rules)), key=lambda i: (-rules[i].utility, -rules[i].fixed, i))
    return [rules[i] for i in sorted(order[:most])]


def as_guidelines(rules: Sequence[Tried]) -> tuple[Guideline, ...]:
    """The bank as a state holds it."""
    return tuple(Guideline(rule=r.rule, fixed=r.fixed, caused=r.caused) for r in rules)
