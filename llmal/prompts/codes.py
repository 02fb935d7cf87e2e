"""Option codes: what a model answers with instead of label words, and how its answer is read back."""

from __future__ import annotations

import string
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from llmal.records import LabelSchema

LONGEST_KEPT = 32
"""Characters of a token whose reading is remembered; a model's tokens come back with every answer."""


class Codes(NamedTuple):
    """Option codes: what the model answers with instead of label words.

    Single capital letters up to 26 options, zero-padded numbers beyond: both are one token in common
    tokenizers, so the answer's first token carries one distribution over all options.
    """

    labels: tuple[str, ...]  # code i stands for class i
    abstain: str | None

    def all(self) -> tuple[str, ...]:
        """Every code the model may answer with."""
        return self.labels if self.abstain is None else (*self.labels, self.abstain)


def codes_for(schema: LabelSchema) -> Codes:
    """Codes for the classes of a schema, and one for declining when the schema allows it."""
    n = len(schema.labels) + schema.abstain
    width = len(str(n))
    every = list(string.ascii_uppercase[:n]) if n <= 26 else [f"{i:0{width}d}" for i in range(1, n + 1)]
    return Codes(tuple(every[: len(schema.labels)]), every[-1] if schema.abstain else None)


def codebook(schema: LabelSchema) -> str:
    """The list of options as the model reads it: code, name, description, examples."""
    codes = codes_for(schema)
    lines = []
    for code, label in zip(codes.labels, schema.labels, strict=True):
        text = f"{code} = {label.name}" + (f": {label.description}" if label.description else "")
        lines += [text, *(f"    for example: {example}" for example in label.examples)]
    if codes.abstain:
        lines.append(f"{codes.abstain} = cannot tell: none of the above can be told from the text")
    return "\n".join(lines)


def option(answer: str, schema: LabelSchema) -> str | None:
    """The label an answer names by code or by name; empty for declining; None when it names none, or two."""
    codes = codes_for(schema)
    word = fold(answer)
    if not word:
        return None
    if codes.abstain is not None and word in (fold(codes.abstain), "cannot tell"):
        return ""
    by_code = [name for name, code in zip(schema.names, codes.labels, strict=True) if fold(code) == word]
    by_name = [name for name in schema.names if fold(name) == word]
    found = set(by_code or by_name)
    return found.pop() if len(found) == 1 else None


def code_of(token: str, codes: Codes) -> str | None:
    """The option code a token spells, blanks and case aside, or None."""
    return _spelt(token, codes) if len(token) <= LONGEST_KEPT else _spelt.__wrapped__(token, codes)


@lru_cache(maxsize=4096)
def _spelt(token: str, codes: Codes) -> str | None:
    word = fold(token)
    return next((code for code in codes.all() if fold(code) == word), None)


def fold(text: str) -> str:
    """A code or name as it is compared: compatibility forms, blanks, marks around it and case undone."""
    return unicodedata.normalize("NFKC", text).strip().strip(".:)(\"'`*").strip().casefold()
