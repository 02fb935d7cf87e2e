"""What keeps a written text out: it repeats a text there is, or holds much of one that measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from llmal.prompts.frame import looks

GRAM = 4
"""Characters of the pieces by which two texts are compared."""

COPIED = 0.6
"""Dice coefficient of such pieces from which a text counts as a copy of one that measures. 1.5 % of trec's
questions lie as near to one of 100 others, and none of 600 texts of babe, mr and hate18. Of copies with one
word exchanged it finds 96 % (trec, ten words long) to 100 % (babe), with three exchanged 63 to 98 %."""

ROWS = 8192
"""Vectors compared at once: 12 MB at 384 numbers each."""

_NO_WORD = re.compile(r"[\W_]+")


class Measuring(NamedTuple):
    """The texts that must not come back: of the audit sample and of the validation part.

    Attributes:
        vectors: (m, d) float32 unit rows.
        pieces: of each text, as `pieces_of` makes them.
    """

    vectors: NDArray[np.float32]
    pieces: list[frozenset[str]]


def pieces_of(text: str) -> frozenset[str]:
    """Runs of four characters, as the text looks: case, accents, marks, blanks and look-alikes aside."""
    plain = normalize("NFKD", looks(normalize("NFC", text))).casefold()
    flat = _NO_WORD.sub(" ", "".join(c for c in plain if not "\u0300" <= c <= "\u036f")).strip()
    return frozenset(flat[i : i + GRAM] for i in range(max(1, len(flat) - GRAM + 1)))


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    """Dice coefficient in [0, 1] (Dice 1945)."""
    return 2 * len(one & other) / max(1, len(one) + len(other))


def leaks(
    texts: Sequence[str], vectors: NDArray[np.floating], measuring: Measuring, *, cosine: float
) -> list[bool]:
    """Which texts are, or nearly are, a text that measures.

    Args:
        texts: n written texts.
        vectors: (n, d) unit rows of the run's encoder.
        measuring: what they are held against.
        cosine: above it two texts are the same.
    """
    if not len(measuring.vectors):
        return [False] * len(texts)
    near = np.asarray(vectors, np.float32) @ np.asarray(measuring.vectors).T > cosine
    own = [pieces_of(text) for text in texts]
    return [
        bool(near[i].any()) or any(alike(own[i], theirs) >= COPIED for theirs in measuring.pieces)
        for i in range(len(texts))
    ]


def nearest(
    vectors: NDArray[np.floating], known: NDArray[np.floating], left_out: Sequence[int]
) -> NDArray[np.float32]:
    """(n,) highest cosine of each text with any known one; -1 where there is none.

    Args:
        vectors: (n, d) unit rows.
        known: (m, d) unit rows, read block by block.
        left_out: rows of `known` that do not count.
    """
    mine = np.asarray(vectors, np.float32)
    found = np.full(len(mine), -1.0, np.float32)
    out = np.zeros(len(known), bool)
    out[list(left_out)] = True
    for start in range(0, len(known), ROWS):
        close = mine @ np.asarray(known[start : start + ROWS]).T
        close[:, out[start : start + ROWS]] = -1.0
        found = np.maximum(found, close.max(axis=1))
    return found
