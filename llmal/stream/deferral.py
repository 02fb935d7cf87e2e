"""When students pass a text on: the chance that the model would say otherwise, learnt from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.stream.logistic import Floats, fit, scores, softmax

WINDOW = 1500
"""Answers the rule is fitted on, the newest: students of long ago were other students."""

HALF_LIFE = 750
"""Answers after which one counts half."""

HEAVIEST = 5.0
"""Most weight of an answer that was asked for by chance: the plain inverse of a small chance is all noise."""

STRENGTH = 1.0
"""Inverse of the ridge's weight."""

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the last level's log-probabilities in what two levels say together."""

_LEAST = 1e-6
"""Of a probability before its logarithm."""


class Records(NamedTuple):
    """Answers of the model about texts that students had answered before they learnt from them.

    Attributes:
        tables: (m, L, C) what each level said.
        labels: (m,) what the model said.
        chances: (m,) that the text would be asked about.
        weights: (m,) less than 1 for those from before a change.
    """

    tables: NDArray[np.float32]
    labels: NDArray[np.int64]
    chances: Floats
    weights: Floats

    def joined(self, other: Records) -> Records:
        """The newest `WINDOW` of both."""
        return Records(*(np.concatenate([a, b])[-WINDOW:] for a, b in zip(self, other, strict=True)))


def no_records(n_levels: int, n_classes: int) -> Records:
    """None yet."""
    return Records(
        np.zeros((0, n_levels, n_classes), np.float32), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    )


class Calibrated:
    """The chance of disagreement by logistic regression, one for each number of levels that have spoken.

    It sees how sure the levels are together and each alone of the label they would give, and which label that
    is. The levels' log-probabilities are joined in the share that foretold the answers best.

    Source: deferral learnt online, Nie et al. 2024 (online cascade learning); a calibrated chance in place of
    their network, as in Platt 1999, is ours.

    Args:
        n_levels: L.
        n_classes: C.
    """

    def __init__(self, n_levels: int, n_classes: int) -> None:
        self.n_classes = n_classes
        self.blend = 0.5
        self.coefs = [np.zeros((1 + depth + n_classes + 1, 2)) for depth in range(1, n_levels + 1)]

    def says(self, tables: Sequence[NDArray[np.floating]]) -> tuple[NDArray[np.int64], Floats]:
        """Label (n,) that the levels so far give together, and chance (n,) that the model gives another."""
        mixed = self._mixed(tables, self.blend)
        label = mixed.argmax(axis=1)
        x = self._features(tables, mixed, label)
        return label, softmax(scores(x, self.coefs[len(tables) - 1]))[:, 1]

    def learn(self, records: Records) -> None:
        """Fit to answers; newer ones weigh more, and those asked for by chance as much as they stand for."""
        age = np.arange(len(records.labels))[::-1]
        w = 0.5 ** (age / HALF_LIFE) * records.weights
        tables = [records.tables[:, level] for level in range(records.tables.shape[1])]
        rows = np.arange(len(age))
        if len(tables) > 1:
            losses = [
                -float(w @ np.log(np.maximum(self._mixed(tables, b)[rows, records.labels], _LEAST)))
                for b in BLENDS
            ]
            self.blend = BLENDS[int(np.argmin(losses))]
        w = w * np.minimum(1 / records.chances, HEAVIEST)
        for depth, coef in enumerate(self.coefs, 1):
            mixed = self._mixed(tables[:depth], self.blend)
            label = mixed.argmax(axis=1)
            x = self._features(tables[:depth], mixed, label)
            wrong = (label != records.labels).astype(np.int64)
            self.coefs[depth - 1] = fit(x, wrong, w, coef, STRENGTH)

    def _mixed(self, tables: Sequence[NDArray[np.floating]], blend: float) -> Floats:
        if len(tables) == 1:
            return np.asarray(tables[0], np.float64)
        first, last = (np.log(np.maximum(np.asarray(p, np.float64), _LEAST)) for p in (tables[0], tables[-1]))
        return softmax((1 - blend) * first + blend * last)

    def _features(
        self, tables: Sequence[NDArray[np.floating]], mixed: Floats, label: NDArray[np.int64]
    ) -> Floats:
        rows = np.arange(len(label))
        sure = [logit(table[rows, label]) for table in (mixed, *tables)]
        return np.column_stack([*sure, np.eye(self.n_classes)[label]])


def logit(p: NDArray[np.floating]) -> Floats:
    """Log-odds, within +-14."""
    kept = np.clip(np.asarray(p, np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(kept / (1 - kept)), np.float64)


def share_of_calls(risks: Floats, share: float) -> float:
    """The risk above which this share of rows lies; 1 or more where none shall be asked about."""
    if share <= 0:
        return 1.0
    return float(np.quantile(risks, max(0.0, 1 - share)))


def enough_for(risks: Floats, quality: float) -> float:
    """The highest risk up to which students may answer so that `quality` of all rows get the model's label.

    Args:
        risks: (n,) of recent rows, all of them.
        quality: in [0, 1].
    """
    rising = np.sort(risks)
    wrong = np.cumsum(rising) / len(rising)
    allowed = int(np.searchsorted(wrong, 1 - quality, side="right"))
    return float(rising[allowed - 1]) if allowed else -1.0
