"""Drift, watched: looks repeated without end at a stated rate of false alarms over all of them."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.bounds import alpha_spending

Floats = NDArray[np.float64]

JUMP = 0.01
"""Share of the capital that changes its bet at each item (Vovk et al. 2021), so that no bet goes broke."""

GRID = 64
"""Accuracies below the target that the betting test holds against it."""

_BETS = np.array([-1.0, 0.0, 1.0])
"""On ranks that are low, on nothing, on high ones; and so for their distance from the middle."""

_FINER = 10
"""Permutations for each that the level needs: with one each, a single unlucky draw would hide a shift."""


class Alarm(NamedTuple):
    """Result of watching a whole sequence, from its start.

    Attributes:
        at: 0-based look or item at which the alarm went off; None if it has not.
        path: (t,) evidence after each look or item, up to the alarm; it goes off at `limit` or above.
        limit: of the evidence.
        blind: looks whose p-value could not have been small enough, whatever the batch.
    """

    at: int | None
    path: Floats
    limit: float
    blind: int = 0


def level_of(look: int, alpha: float, *, tests: int = 1, looks: int | None = None) -> float:
    """Level of each test at one look, so that all looks together raise a false alarm with at most alpha.

    It holds however the looks hang together, so every look may use the same calibration sample.

    Args:
        look: 1 for the first, and so on.
        alpha: in (0, 0.5), for all looks and tests together.
        tests: made at each look (scores, classes, embeddings: 3).
        looks: how many there will be, where that is known: each then gets the same level. None: any number.

    Returns:
        alpha / (look (look + 1) tests), or alpha / (looks tests).

    Raises:
        ValueError: alpha out of range, tests < 1, look < 1, or look beyond looks.

    Source: Bonferroni's bound; alpha spending, Lan & DeMets 1983.

    Example:
        >>> level_of(2, 0.06), level_of(2, 0.06, looks=3)
        (0.01, 0.02)
    """
    share = alpha_spending(alpha, look)
    if tests < 1 or (looks is not None and look > looks):
        raise ValueError(f"Look {look} with {tests} tests is none of {looks} looks with at least one test.")
    return (share if looks is None else alpha / looks) / tests


def permutations_for(level: float) -> int:
    """Permutations that a test at this level needs.

    Args:
        level: in (0, 1), of `level_of`.

    Returns:
        Count; a test ends long before it where nothing has shifted.

    Raises:
        ValueError: level outside (0, 1).

    Example:
        >>> permutations_for(0.01)
        1000
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")
    return math.ceil(_FINER / level)


def looks_alarm(
    p_values: ArrayLike, *, alpha: float = 0.05, looks: int | None = None, least: ArrayLike | None = None
) -> Alarm:
    """Alarm over repeated looks at batches, with one or more tests at each.

    Args:
        p_values: (t, tests) in [0, 1], all looks so far, the first first; or (t,) of one test.
        alpha: in (0, 0.5): at most this share of whole sequences, however long, raises a false alarm.
        looks: planned, or None for any number; see `level_of`.
        least: (t, tests), the least p-value that each test could have given (`Shift.least`).

    Returns:
        Alarm; the evidence of a look is the level over the smallest p-value, its limit 1.

    Raises:
        ValueError: shapes, p-values or alpha out of range, or more looks than planned.

    Source: as `level_of`.

    Example:
        >>> looks_alarm([0.5, 0.03, 0.001], alpha=0.05).at
        2
    """
    table = _looks(p_values)
    tests = table.shape[1]
    levels = np.array([level_of(t + 1, alpha, tests=tests, looks=looks) for t in range(len(table))])
    blind = 0
    if least is not None:
        floor = _looks(least)
        if floor.shape != table.shape:
            raise ValueError(f"least must have the shape of p_values, {table.shape}, got {floor.shape}.")
        blind = int((floor.min(axis=1) > levels).sum())
    evidence = levels / np.maximum(table.min(axis=1), 1e-300)
    return _first(evidence, 1.0, blind)


def stream_alarm(
    reference: ArrayLike, stream: ArrayLike, *, alpha: float = 0.05, rng: np.random.Generator
) -> Alarm:
    """Alarm item by item, when scores stop being exchangeable with the calibration sample.

    A conformal test martingale: every item is ranked among all before it, and a capital of 1 is staked on
    ranks that are low, high, extreme or middling. While nothing changes ranks are uniform and nobody can
    expect to win, so the capital ever reaches 1 / alpha with probability at most alpha. No batch size has to
    be chosen and no level gets smaller with time. New items join those they are compared with, so a change
    too slow to be seen at first may never be seen.

    Measured with 100 items for reference and alpha 0.1 (200 runs): scores that move by 0.5, 1 and 2 standard
    deviations are found after 53, 20 and 11 items (median), after 100 unchanged ones 66, 28 and 15.

    Args:
        reference: (n,) real, scores of the calibration sample in random order.
        stream: (t,) real, scores of new items in order of arrival, from the first on.
        alpha: in (0, 1).
        rng: breaks ties of ranks; the same state gives the same path.

    Returns:
        Alarm with the capital as evidence and 1 / alpha as limit.

    Raises:
        ValueError: not (n,) and (t,), a value is not finite, or alpha out of range.

    Source: Vovk, Nouretdinov & Gammerman 2003; the simple jumper, Vovk et al. 2021; a second one for the
        spread is ours.

    Example:
        >>> stream_alarm(np.arange(50.0), [99.0] * 40, rng=np.random.default_rng(0)).at is not None
        True
    """
    old, new = np.asarray(reference, np.float64), np.asarray(stream, np.float64)
    if old.ndim != 1 or new.ndim != 1 or not (np.isfinite(old).all() and np.isfinite(new).all()):
        raise ValueError(f"reference and stream must be finite (n,), got {old.shape} and {new.shape}.")
    limit = _limit(alpha)
    seen = sorted(old.tolist())
    capital = stakes()
    path = []
    for value, chance in zip(new.tolist(), rng.random(len(new)).tolist(), strict=True):
        below, upto = bisect.bisect_left(seen, value), bisect.bisect_right(seen, value)
        rank = (below + chance * (upto - below + 1)) / (len(seen) + 1)
        seen.insert(upto, value)
        capital = staked(capital, rank)
        path.append(float(capital.sum()))
        if path[-1] >= limit:
            break
    return _first(np.array(path), limit)


def stakes(*shape: int) -> Floats:
    """A capital of 1 laid out on the bets of `staked`: (*shape, 2, 3) float64."""
    return np.full((*shape, 2, len(_BETS)), 1 / (2 * len(_BETS)))


def staked(capital: Floats, rank: ArrayLike) -> Floats:
    """The capital after one more rank, as in `stream_alarm`; its evidence is the sum of the last two axes.

    Args:
        capital: (..., 2, 3), from `stakes` or an earlier call: bets on the rank and on its distance from the
            middle.
        rank: (...), in [0, 1], uniform while nothing changes.

    Returns:
        (..., 2, 3) float64.

    Example:
        >>> round(float(staked(stakes(), 1.0).sum()), 3)
        1.0
    """
    low = np.asarray(rank, np.float64) - 0.5
    held = (1 - JUMP) * capital + JUMP * capital.mean(axis=-1, keepdims=True)
    return np.asarray(held * (1 + _BETS * np.stack([low, 2 * np.abs(low) - 0.5], axis=-1)[..., None]))


def accuracy_alarm(right: ArrayLike, *, target: float, alpha: float = 0.05) -> Alarm:
    """Alarm when answers that were accepted fall below the accuracy promised for them.

    People's answers to accepted items are bet on: every item starts a bet that from there on the accuracy is
    some value below the target, with 1 / (t (t + 1)) of the capital. While the accuracy is at least the
    target nobody can expect to win, so the capital ever reaches 1 / alpha with probability at most alpha. As
    a bet starts at every item, good answers in the past do not hide a fall; but they make it costlier to see.

    Measured for target 0.9 and alpha 0.1 (200 runs): a fall to 0.7 is found after 12 answers (median), to
    0.8 after 68; after 300 answers at 0.95 it takes 72 and 248. A fall to 0.85 within 500 answers after those
    is found in one run of eight: begin a new sequence, with an alpha of its own, with every certificate.

    Args:
        right: (t,) bool, whether the accepted answer was right, in order of arrival, from the first on; the
            items are random ones of those accepted.
        target: promised accuracy, in (0, 1).
        alpha: in (0, 1).

    Returns:
        Alarm with the capital as evidence and 1 / alpha as limit.

    Raises:
        ValueError: not (t,) of 0 and 1, or target or alpha out of range.

    Source: Waudby-Smith & Ramdas 2024 (betting); Shin, Ramdas & Rinaldo 2024 (bets that start at each item),
        here with weights that sum to 1, which keeps the rate of false alarms over all time.

    Example:
        >>> accuracy_alarm([True] * 50 + [False] * 10, target=0.9).at
        55
    """
    seen = np.asarray(right, np.float64)
    if seen.ndim != 1 or not ((seen == 0) | (seen == 1)).all():
        raise ValueError(f"right must be (t,) of 0 and 1, got shape {seen.shape}.")
    if not 0 < target < 1:
        raise ValueError(f"target must lie strictly between 0 and 1, got {target}.")
    limit = _limit(alpha)
    lower = target * (np.arange(GRID) + 0.5) / GRID
    won = {1.0: lower / target, 0.0: (1 - lower) / (1 - target)}
    capital = np.zeros(GRID)
    path = []
    for t, value in enumerate(seen.tolist(), start=1):
        capital = (capital + 1 / (t * (t + 1))) * won[value]
        # What later items will stake is still in hand: 1 / (t + 1).
        path.append(float(capital.mean()) + 1 / (t + 1))
        if path[-1] >= limit:
            break
    return _first(np.array(path), limit)


def _first(path: Floats, limit: float, blind: int = 0) -> Alarm:
    over = np.flatnonzero(path >= limit)
    if not len(over):
        return Alarm(None, path, limit, blind)
    return Alarm(int(over[0]), path[: over[0] + 1], limit, blind)


def _limit(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, got {alpha}.")
    return 1 / alpha


def _looks(p_values: ArrayLike) -> Floats:
    table = np.asarray(p_values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.shape[1] or not ((table >= 0) & (table <= 1)).all():
        raise ValueError(f"p-values must be (t, tests) in [0, 1], got shape {table.shape}.")
    return table
