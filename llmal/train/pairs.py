"""Pairs of texts for contrastive tuning: how alike two labels are, as many alike as unlike, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.train import loop

EVERY = 4_000_000
"""Pairs listed one by one (2,800 texts); where there are more, so many are drawn. 32 MB an array."""


class Pairs(NamedTuple):
    """Pairs of texts, first and second by their row, and how alike they are to become.

    Attributes:
        first: (m,) rows.
        second: (m,) rows, never the same as `first`.
        alike: (m,) in [0, 1].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    alike: NDArray[np.float32]

    def at(self, rows: NDArray[np.int64]) -> Pairs:
        """Some of them."""
        return Pairs(self.first[rows], self.second[rows], self.alike[rows])


def pairs_of(targets: NDArray[np.float32], kind: str, each: int, rng: np.random.Generator) -> Pairs:
    """As many pairs with a common label as without one, by the likeliest labels; the rarer sort is repeated.

    Args:
        targets: (n, C) in [0, 1]; soft ones make soft pairs.
        kind: `single`, or `multi` where any number of labels may hold.
        each: at most 2 x `each` x n pairs.
        rng: of the draw.

    Returns:
        The pairs, none when all texts are alike or all unlike: there is nothing to contrast then.

    Source: Tunstall et al. 2022 (SetFit), oversampling.
    """
    first, second = _candidates(len(targets), rng)
    likeliest = targets == targets.max(axis=1, keepdims=True) if kind == "single" else targets >= 0.5
    common = likeness(likeliest.astype(np.float32), kind, first, second) > 0
    near, far = np.flatnonzero(common), np.flatnonzero(~common)
    if not len(near) or not len(far):
        rows = near[:0]
    else:
        most = min(max(len(near), len(far)), each * len(targets))
        rows = np.concatenate([_repeated(rng.permutation(part), most) for part in (near, far)])
    first, second = first[rows], second[rows]
    return Pairs(first, second, likeness(targets, kind, first, second))


def likeness(
    targets: NDArray[np.float32], kind: str, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(m,) probability that two texts have the same label, or when multi any label in common."""
    out = np.empty(len(first), np.float32)
    step = max(1, EVERY // targets.shape[1])
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        both = targets[first[part]] * targets[second[part]]
        out[part] = both.sum(axis=1) if kind == "single" else 1 - np.prod(1 - both, axis=1)
    return out


def batches(
    pairs: Pairs, lengths: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Random batches of pair numbers, the longer text of each pair of similar length: padding costs time."""
    return loop.batches(np.maximum(lengths[pairs.first], lengths[pairs.second]), size, rng)


def _candidates(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair once, or where there are too many a random draw of them."""
    if n * (n - 1) // 2 <= EVERY:
        first, second = np.triu_indices(n, 1)
        return first.astype(np.int64), second.astype(np.int64)
    first = rng.integers(n, size=EVERY)
    return first, (first + rng.integers(1, n, size=EVERY)) % n


def _repeated(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """So many of the rows, over and over where they are fewer."""
    return np.resize(rows, most)
