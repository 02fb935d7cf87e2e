"""Batches of token lists of similar length, and the rectangles that networks read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def by_length(lengths: Sequence[int], budget: int) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of at most `budget` padded tokens, one row at least, the longest rows first.

    The batch that needs the most memory is met at once.
    """
    order = np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def padded(
    tokens: Sequence[Sequence[int]], pad: int, *, left: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, each (n, longest) and one wide at least; `left` says on which side the gaps are."""
    longest = max(1, *map(len, tokens))
    ids = np.full((len(tokens), longest), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, line in enumerate(tokens):
        place = slice(longest - len(line), longest) if left else slice(0, len(line))
        ids[row, place], mask[row, place] = line, 1
    return ids, mask
