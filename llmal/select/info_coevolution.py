"""Info-Coevolution: ask where neither the student nor labelled neighbours are sure, and say when to stop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.stage import Pool, Selection
from llmal.select.warm import Warm

SURE = 1 - 1e-12
"""Most a confidence counts for: two certain voices that differ then leave one half, not 0 / 0."""

PAIRS = 80_000_000
"""Similarities of one matrix product: 320 MB of float32."""

AT_ONCE = 4096
"""Most rows of one block."""

LEAST = 1.0
"""Sum of gains below which no more answers are worth asking for, as in the authors' code."""


class InfoCoevolution(Warm):
    """Rows drawn in proportion to the confidence an answer would add. Source: Qin et al. 2025.

    The student's confidence is fused with a vote of the nearest labelled rows; the gain is what is missing to
    1. Each pick counts as labelled at once and speaks to the rows near it. Its answer comes later, so the
    student's guess stands for it: near rows of which the student says the same gain less, others never less.
    Ours: only rows with an answer and picks vote, and their vote is the sum of similarities divided by the
    number of voters, for one neighbour is no certainty. With `kind: multi` every label has a gain of its own
    and a row the mean of its labels; a labelled row without any label is a no to each.

    The run is told to stop when the gains sum to less than 1 before the first pick: that is known from
    answers, what follows from guesses. It trusts the student's probabilities, so calibrate an over-confident
    one; and it is not said of a part of the pool (`within`). Every pick costs a pass over the pool.
    """

    neighbours: int = Field(8, ge=1, description="nearest labelled rows that vote")
    near: float = Field(0.85, gt=0, lt=1, description="cosine above which a labelled row may vote")

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick k rows by chance in proportion to their gain, each seeing the picks before it."""
        assert pool.probs is not None
        rows = pool.unlabelled
        vectors = np.asarray(pool.vectors[rows])
        guess, sure = opinions(np.asarray(pool.probs[rows]), multi=pool.multi)
        ballots = self._ballots(pool, vectors)
        gain = np.empty(guess.shape, np.float32)
        for some in _runs(np.arange(len(rows)), AT_ONCE):
            gain[some] = 1 - ballots.fused(some, guess[some], sure[some])
        left = gain.mean(axis=1, dtype=np.float64)
        total = float(left.sum())
        picked: list[int] = []
        scores: list[float] = []
        while len(picked) < k:
            i = _draw(left, picked, rng)
            picked.append(i)
            scores.append(float(left[i]))
            close = vectors @ vectors[i]
            near = np.flatnonzero(close > self.near)
            ballots.add(near, close[near], guess[i])
            for some in _runs(near, AT_ONCE):
                new = 1 - ballots.fused(some, guess[some], sure[some])
                agree = guess[some] == guess[i]
                gain[some] = np.where(agree, np.minimum(gain[some], new), np.maximum(gain[some], new))
                left[some] = gain[some].mean(axis=1, dtype=np.float64)
            left[picked] = 0.0
        words = "student and neighbours are {:.0%} sure"
        reasons = [words.format(1 - s) if s > 0 else "drawn at random: nothing to gain" for s in scores]
        stop = total < LEAST and self.within is None
        enough = (
            f"missing answers would add {total:.2f} to confidence in all, below {LEAST:g}" if stop else ""
        )
        return Selection(rows[picked], np.array(scores), reasons, enough=enough)

    def _ballots(self, pool: Pool, vectors: NDArray[np.float32]) -> Ballots:
        """The nearest answered rows of every unlabelled row."""
        answered: NDArray[np.bool_] = np.zeros(len(pool.labelled), bool)
        targets = np.zeros((0, pool.n_classes), np.float32)
        if pool.targets is not None:
            answered = np.asarray(pool.targets.any(axis=1) | pool.multi)
            targets = np.asarray(pool.targets[answered], np.float32)
        known = np.asarray(pool.vectors[pool.labelled[answered]])
        kinds = 2 if pool.multi or pool.n_classes == 1 else pool.n_classes
        said = opinions(targets, multi=pool.multi)[0]
        ballots = Ballots(len(vectors), self.neighbours, kinds, said)
        for some in _runs(np.arange(len(vectors)), min(AT_ONCE, 1 + PAIRS // (len(known) + 1))):
            ballots.count_in(some, vectors[some] @ known.T, self.near)
        return ballots


class Ballots:
    """The nearest voters of n rows, at most v each: similarities and places in `said`, the answers (l, A)."""

    def __init__(self, n: int, voters: int, kinds: int, said: NDArray[np.int32]) -> None:
        self.voters, self.kinds, self.said = voters, kinds, said
        self.close = np.zeros((n, voters), np.float32)  # 0 where there is none
        self.who = np.zeros((n, voters), np.int32)

    def count_in(self, rows: NDArray[np.int64], close: NDArray[np.float32], near: float) -> None:
        """Keep the nearest of all voters, whose similarities to `rows` are (b, l)."""
        some = np.flatnonzero((close > near).any(axis=1))  # few rows as a rule: the others need no sorting
        if not len(some):
            return
        kept = min(self.voters, close.shape[1])
        who = np.argpartition(-close[some], kept - 1, axis=1)[:, :kept]
        found = np.take_along_axis(close[some], who, axis=1)
        self.close[rows[some], :kept] = np.where(found > near, np.minimum(found, 1), 0)
        self.who[rows[some], :kept] = who

    def add(self, rows: NDArray[np.int64], close: NDArray[np.float32], said: NDArray[np.int32]) -> None:
        """One more voter, near `rows`, in place of the farthest where all places are taken."""
        self.said = np.concatenate([self.said, said[None]])
        farthest = self.close[rows].argmin(axis=1)
        nearer = close > self.close[rows, farthest]
        at = rows[nearer], farthest[nearer]
        self.close[at] = np.minimum(close[nearer], 1)
        self.who[at] = len(self.said) - 1

    def fused(
        self, rows: NDArray[np.int64], guess: NDArray[np.int32], sure: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """(b, A) confidence in each answer of b rows, the student's with the vote."""
        out = np.asarray(sure, np.float64)
        voted = np.flatnonzero((self.close[rows] > 0).any(axis=1))
        close = self.close[rows[voted]].astype(np.float64)
        answers = self.said[self.who[rows[voted]]] if len(voted) else np.zeros((0, self.voters, out.shape[1]))
        weight = np.stack([(close[..., None] * (answers == c)).sum(axis=1) for c in range(self.kinds)])
        vote = weight.max(axis=0) / (close > 0).sum(axis=1)[:, None]
        out[voted] = fuse(out[voted], vote, same=weight.argmax(axis=0) == guess[voted])
        return out


def fuse(
    one: NDArray[np.float64], other: NDArray[np.float64], *, same: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Confidence in what the surer of two voices says, taken as independent, elementwise.

    A voice of one half or less is not heard beside the surer one.

    Args:
        one: confidence in [0, 1].
        other: of the other voice.
        same: whether both say the same.
    """
    high = np.minimum(np.maximum(one, other), SURE)
    low = np.minimum(np.minimum(one, other), SURE)
    against = np.where(same, low, 1 - low)
    both = high * against / (high * against + (1 - high) * (1 - against))
    return np.asarray(np.where(low > 0.5, both, high))


def opinions(
    probs: NDArray[np.float32], *, multi: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What the student says and its confidence beyond chance, (n, A) each: A is 1, or C with `multi`."""
    if multi or probs.shape[1] == 1:
        return (probs > 0.5).astype(np.int32), np.abs(2 * probs - 1).astype(np.float32)
    chance = 1 / probs.shape[1]
    sure = np.maximum(0, (probs.max(axis=1, keepdims=True) - chance) / (1 - chance))
    return probs.argmax(axis=1)[:, None].astype(np.int32), sure.astype(np.float32)


def _draw(left: NDArray[np.float64], picked: list[int], rng: np.random.Generator) -> int:
    """A row by chance in proportion to its gain; any row not picked where nothing is left to gain."""
    odds = left
    if odds.sum() <= 0:
        odds = np.ones(len(left))
        odds[picked] = 0.0
    return int(rng.choice(len(odds), p=odds / odds.sum()))


def _runs(rows: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    return (rows[at : at + most] for at in range(0, len(rows), most))
