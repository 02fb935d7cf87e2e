"""How long a person takes to label a text: a prior from the literature, fitted to recorded times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

START_S = 1.6
"""Seconds to decide and press a key, whatever the text: 1.35 to prepare and 0.28 for the key (Card, Moran and
Newell 1980)."""

WORD_S = 60 / 238
"""Seconds a word: 238 words a minute of silent reading in English, of non-fiction (Brysbaert 2019)."""

BIT_S = 0.15
"""Seconds a bit of choice, about the slope that Hick (1952) measured."""

LETTERS = 5.6
"""Characters of a word with the blank after it: 4.6 letters, the mean that goes with `WORD_S` (Brysbaert
2019)."""

ENOUGH = 30
"""Times from which a pace is fitted; with fewer the prior is better than their noise."""

PRIOR_WORTH = 5.0
"""How many times the prior counts for: it decides what the recorded times leave open."""

SLOWEST = 5.0
"""Times the typical one for the text above which a person was away: kept as this many times."""

LEAST_S, MOST_S = 0.05, 3600.0
"""Seconds between which a text takes: a key pressed without a look, and an hour, whatever a file may say."""

STEPS = 30
"""Of the fit; it stands still after ten."""


class Pace(NamedTuple):
    """Expected seconds a text = `mean` * (`start` + `word` * words + `bit` * log2(labels in sight)).

    Attributes:
        start, word, bit: of the typical (median) time, in seconds, seconds a word, seconds a bit; each >= 0.
        mean: mean over typical time, > 0: times have a long tail. 1 for the prior.
        n: times it was fitted to; 0 for the prior.
    """

    start: float = START_S
    word: float = WORD_S
    bit: float = BIT_S
    mean: float = 1.0
    n: int = 0

    def seconds(self, words: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
        """Expected seconds of each text, > 0.

        Args:
            words: (n,) of each text, >= 0.
            labels: (n,) or one number: labels to choose from, >= 1.
        """
        said = _design(words, labels) @ np.array([self.start, self.word, self.bit])
        return np.asarray(self.mean * np.maximum(said, LEAST_S))


def fit(seconds: ArrayLike, words: ArrayLike, labels: ArrayLike) -> Pace:
    """The pace of the people whose times these are.

    Median regression with relative errors (twice the typical time is as far off for a long text as for a
    short one), by iteratively reweighted least squares with no coefficient below 0. The prior, first
    brought to these people's speed by the median of their times over its own, counts as `PRIOR_WORTH` times
    more: it decides what the times leave open, such as `bit` where everybody had the same labels before them.
    Times above `SLOWEST` times the typical one are kept as that, so that a pause for coffee changes little.

    Args:
        seconds: (n,) recorded; those not above 0 are left out, others are kept within `LEAST_S` and `MOST_S`.
        words: (n,) of the texts.
        labels: (n,) labels that were in sight, >= 1.

    Returns:
        The pace; the prior with fewer than `ENOUGH` times.

    Source: median regression, Koenker and Bassett 1978; by reweighting, Schlossmacher 1973. The prior:
        Brysbaert 2019, Hick 1952, Card, Moran and Newell 1980.

    Example:
        >>> fit([1.0, 2.0], [3, 9], [2, 2]) == Pace()
        True
    """
    from scipy.optimize import nnls

    took, x = np.asarray(seconds, float), _design(words, labels)
    keep = took > 0
    took, x = np.clip(took[keep], LEAST_S, MOST_S), x[keep]
    if len(took) < ENOUGH:
        return Pace()
    prior = np.array([START_S, WORD_S, BIT_S])
    prior *= np.median(took / (x @ prior))
    # Off by as much of the typical time counts as much, whichever coefficient it is.
    pull = np.diag(np.maximum(x.mean(axis=0), 1.0) / np.median(took)) * np.sqrt(PRIOR_WORTH / 3)
    now = prior
    for _ in range(STEPS):
        said = np.maximum(x @ now, LEAST_S)
        off = np.abs(np.minimum(took, SLOWEST * said) / said - 1)
        weight = 1 / np.sqrt(np.maximum(off, 0.05)) / said
        rows = np.concatenate([x * weight[:, None], pull])
        now, _ = nnls(rows, np.concatenate([np.minimum(took, SLOWEST * said) * weight, pull @ prior]))
    said = np.maximum(x @ now, LEAST_S)
    mean = float(np.minimum(took, SLOWEST * said).sum() / said.sum())
    start, word, bit = now.tolist()
    return Pace(start, word, bit, mean, len(took))


def _design(words: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    count = np.asarray(words, float)
    bits = np.broadcast_to(np.log2(np.asarray(labels, float)), count.shape)
    return np.stack([np.ones_like(count), count, bits], axis=1)
