"""VeSSAL: decide row by row in one pass, at the rate the batch needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmal.select.badge import gradients
from llmal.select.stage import Pool, Selection
from llmal.select.warm import Warm

MOST_ROWS = 200_000
"""Rows that pass by; of a larger pool this many are drawn. Each costs a product with a width^2 matrix."""

WIDTH = 256
"""Numbers a gradient keeps; longer ones are projected."""

AT_ONCE = 1024
"""Rows of one matrix product."""

SCALE = 100.0
"""The inverse starts as this many times the identity, as in the authors' code."""


class Vessal(Warm):
    """Rows drawn, as they pass by, by how new their gradient is (VeSSAL). Source: Saran et al. 2023.

    A gradient is that of BADGE, C times d long. Longer than 256 it is projected: g and the vector each by a
    matrix of random signs, then multiplied number by number, which keeps inner products right on average and
    never writes the long one out. The order is random, for the rate adapts to what has passed. Ours: where
    the pass ends with fewer than k rows, the rest is drawn at random, and the reasons say so.
    """

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick k rows in one pass, the newest first."""
        assert pool.probs is not None
        rows, enough = pool.unlabelled, max(k, MOST_ROWS)
        order = rng.permutation(rows)[:enough]
        probs = pool.probs
        shorten = Shorten(probs.shape[1], pool.vectors.shape[1], rng)
        stream = Stream(shorten.width, k, len(order))
        for at in range(0, len(order), AT_ONCE):
            some = order[at : at + AT_ONCE]
            p = np.asarray(probs[some], np.float64)
            g = p - (p > 0.5) if pool.multi or p.shape[1] == 1 else gradients(p)
            stream.offer(shorten(g, np.asarray(pool.vectors[some], np.float64)), rng)
        passed = np.array(stream.picked, np.int64)
        newness = np.array(stream.newness)
        best = np.argsort(-newness, kind="stable")
        rest = np.setdiff1d(np.arange(len(order)), passed)
        filled = rng.choice(rest, k - len(passed), replace=False)
        words = [f"gradient {s:.2f} times as new as that of a row so far" for s in newness[best]]
        words += ["drawn at random: too few rows were new"] * len(filled)
        note = f"of {len(rows):,} rows {enough:,} passed by" if len(rows) > enough else ""
        scores = np.concatenate([newness[best], np.zeros(len(filled))])
        return Selection(order[np.concatenate([passed[best], filled])], scores, words, note=note)


class Shorten:
    """Turns g (n, C) and vectors h (n, d) into gradients (n, width): their outer products, or projected.

    The inner product of two projected ones is that of the outer products, in expectation.
    """

    def __init__(self, classes: int, dim: int, rng: np.random.Generator) -> None:
        self.width = min(WIDTH, classes * dim)
        self.signs = None
        if classes * dim > WIDTH:
            self.signs = [rng.choice([-1.0, 1.0], (size, WIDTH)) for size in (classes, dim)]

    def __call__(self, g: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, width) gradients."""
        if self.signs is None:
            return np.asarray((g[:, :, None] * h[:, None]).reshape(len(g), -1))
        return np.asarray((g @ self.signs[0]) * (h @ self.signs[1]) / np.sqrt(WIDTH))


class Stream:
    """One pass over n gradients that takes up to k.

    Attributes:
        inverse: (width, width) A, the inverse of I / 100 + the sum of u u' over rows taken.
        squares: (width, width) sum of u u' over the rows of former blocks.
        picked: places in the stream of the rows taken.
        newness: u' A u of each, over its mean among the rows that had passed.
    """

    def __init__(self, width: int, k: int, n: int) -> None:
        self.inverse = SCALE * np.eye(width)
        self.squares = np.zeros((width, width))
        self.k, self.n, self.seen = k, n, 0
        self.total = 0.0  # of u' A u over all rows passed, under the present A
        self.picked: list[int] = []
        self.newness: list[float] = []

    def offer(self, u: NDArray[np.float64], rng: np.random.Generator) -> None:
        """Let the next rows pass, (b, width)."""
        z = np.einsum("ij,ij->i", u @ self.inverse, u).clip(min=0)
        luck = rng.random(len(u))
        at = 0
        while at < len(u) and len(self.picked) < self.k:
            passed = self.total + np.cumsum(z[at:])
            newness = chances(z[at:], passed, self.seen + 1 + at)
            left = self.n - self.seen - np.arange(at, len(u))
            takes = np.flatnonzero(luck[at:] < newness * (self.k - len(self.picked)) / left)
            if not len(takes):
                self.total = float(passed[-1])
                break
            i = int(takes[0])
            self.picked.append(self.seen + at + i)
            self.newness.append(float(newness[i]))
            at += i + 1
            self.total = float(passed[i])
            self._take(u, at, z)
        self.seen += len(u)
        self.squares += u.T @ u

    def _take(self, u: NDArray[np.float64], end: int, z: NDArray[np.float64]) -> None:
        """Update A by row end - 1 of this block, and with it what the rows before and after are worth."""
        toward = self.inverse @ u[end - 1]
        shrink = 1 + float(u[end - 1] @ toward)
        along = (u @ toward) ** 2 / shrink
        self.inverse -= np.outer(toward, toward) / shrink
        self.total -= float(toward @ self.squares @ toward) / shrink + float(along[:end].sum())
        self.total = max(self.total, 0.0)
        np.maximum(z - along, 0, out=z)


def chances(z: NDArray[np.float64], passed: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """(b,) z over its mean among all rows so far, itself too; times the rate, the chance to be taken.

    Args:
        z: (b,) u' A u of rows one after another.
        passed: (b,) its running sum since the start of the stream.
        first: place of the first of them in the stream, from 1.
    """
    count = np.arange(first, first + len(z))
    return np.asarray(np.divide(z * count, passed, out=np.zeros(len(z)), where=passed > 0))
