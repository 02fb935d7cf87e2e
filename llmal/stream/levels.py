"""The students of a stream, regressions on hashed n-grams and on vectors, and what they learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.stream.logistic import Floats, fit, scores, softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

COLUMNS = 2**16
"""Of the hashed features: about 300 differ in a short text."""

MEMORY = 8192
"""Answers kept to learn from; a new one then takes the place of a random one, so old ones fade slowly."""

GROWTH = 0.15
"""Share of new answers after which a student learns anew: as many fits from 100 to 1,000 as to 10,000."""

FEWEST_NEW = 8
"""Answers new at least (as many as the paper's cache of a regression holds)."""


def hashed(texts: Sequence[str]) -> csr_matrix:
    """Words, pairs of them, and 3 to 4 letters inside words, hashed: (n, COLUMNS) float32, rows of about 1.

    No vocabulary is fitted, so no text of the future can leak into it.

    Source: Weinberger et al. 2009, through scikit-learn's HashingVectorizer.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    shared = {"n_features": COLUMNS, "dtype": np.float32}
    words = HashingVectorizer(ngram_range=(1, 2), **shared)
    letters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), **shared)
    both = words.transform(texts) + letters.transform(texts)
    return (both * np.float32(0.5**0.5)).tocsr()


class Kept(NamedTuple):
    """One answer to learn from: hashed columns and values, the vector (d,), the class, its turn."""

    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    vector: NDArray[np.float32]
    label: int
    turn: int


class Memory:
    """The answers that students learn from: all of the newest, then a random part of the older ones.

    Attributes:
        rows: at most `most` of them, in no order.
        turn: answers ever taken.
    """

    def __init__(self, most: int = MEMORY) -> None:
        self.most, self.turn = most, 0
        self.rows: list[Kept] = []

    def take(
        self, grams: csr_matrix, vectors: NDArray[np.float32], labels: NDArray[np.int64], seed: int
    ) -> None:
        """Keep answers: hashed rows (n, COLUMNS), vectors (n, d), classes (n,)."""
        for i, label in enumerate(labels.tolist()):
            part = slice(grams.indptr[i], grams.indptr[i + 1])
            row = Kept(
                grams.indices[part].astype(np.int32),
                grams.data[part].copy(),
                vectors[i].copy(),
                label,
                self.turn,
            )
            if len(self.rows) < self.most:
                self.rows.append(row)
            else:
                self.rows[int(chances(seed, self.turn, 1, salt=2)[0] * self.most)] = row
            self.turn += 1

    def grams(self) -> csr_matrix:
        """(n, COLUMNS) hashed rows."""
        from scipy.sparse import csr_matrix

        ends = np.cumsum([0, *(len(row.columns) for row in self.rows)])
        columns = np.concatenate([row.columns for row in self.rows])
        values = np.concatenate([row.values for row in self.rows])
        return csr_matrix((values, columns, ends), shape=(len(self.rows), COLUMNS))

    def vectors(self) -> NDArray[np.float32]:
        """(n, d) vectors."""
        return np.stack([row.vector for row in self.rows])

    def labels(self) -> NDArray[np.int64]:
        """(n,) classes."""
        return np.array([row.label for row in self.rows], np.int64)

    def turns(self) -> NDArray[np.int64]:
        """(n,) the turn each was taken at."""
        return np.array([row.turn for row in self.rows], np.int64)


class Level:
    """One student.

    Args:
        name: as it stands in the output.
        strength: inverse of the ridge's weight.
        coef: (d + 1, C) float32, the bias last; zeros at first.
    """

    def __init__(self, name: str, strength: float, coef: NDArray[np.float32]) -> None:
        self.name, self.strength, self.coef = name, strength, coef

    def probabilities(self, x: NDArray[np.float32] | csr_matrix) -> Floats:
        """(n, C) of rows (n, d)."""
        return softmax(scores(x, self.coef))

    def learn(self, x: NDArray[np.float32] | csr_matrix, y: NDArray[np.int64], w: Floats) -> None:
        """Go on learning from all that is kept; columns that no row has cost nothing."""
        start = self.coef.astype(np.float64)
        if isinstance(x, np.ndarray):
            self.coef = fit(x, y, w, start, self.strength).astype(np.float32)
            return
        used = np.unique(x.indices)
        places = np.append(used, len(start) - 1)
        start[:-1] *= np.isin(np.arange(len(start) - 1), used)[:, None]  # what is forgotten is unlearnt
        start[places] = fit(x[:, used], y, w, start[places], self.strength)
        self.coef = start.astype(np.float32)


def chances(seed: int, first: int, n: int, *, salt: int) -> Floats:
    """(n,) numbers in [0, 1), one for each of the rows `first` onward: the same however rows come in blocks.

    Source: the splitmix64 generator, Steele, Lea & Flood 2014.
    """
    state = np.arange(first, first + n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state += np.uint64((seed * 0xD1342543DE82EF95 + salt * 0x2545F4914F6CDD1D) % 2**64)
        for _ in range(2):
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2**53
