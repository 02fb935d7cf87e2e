"""Calibrators: maps from an annotator's raw confidence to its probability of being right."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.calibration import _bins_of, _score_pair

Floats = NDArray[np.float64]

_EDGE = 1e-4
"""A confidence nearer to 0 or 1 counts as this near where log-odds are taken: 9.2 nats at most."""

_MOST_SLOPE = 100.0
"""Steepest line in log-odds; temperatures of fitted networks lie between 0.5 and 5 (Guo et al. 2017)."""

_STEPS = 100
"""Newton steps at most; the losses are convex and five to ten are usual."""

_PER_BIN = 25
"""Answers a histogram bin should hold: its share of right ones is then known to 0.1 or better."""

_BINS = 15
"""Bins of a histogram at most, as in the usual calibration error."""

_WORTH = 2.0
"""Answers that a bin's prior, the share right of all bins together, is worth."""

_ROUNDS = 30
"""Rounds in which the spread of classes is fitted; it settles to 1 % within ten."""


class Calibrator(Protocol):
    """A fitted map from raw confidence to the probability of being right; never falls within a class."""

    @property
    def name(self) -> str:
        """The method's name."""

    def __call__(self, confidence: ArrayLike, classes: Sequence[Hashable] | None = None) -> Floats:
        """(n,) probabilities for (n,) raw confidences, and the predicted classes where they are used."""

    def state(self) -> dict[str, Any]:
        """All of it as JSON can hold it; `restored` is the way back."""


class Line(NamedTuple):
    """A straight line in log-odds: sigmoid(slope * logit(confidence) + shift + shift of the class).

    Attributes:
        name: of the method.
        slope: at least 0, so that a surer answer is never less likely to be right; 1 / temperature.
        shift: log-odds added to every answer.
        shifts: class -> log-odds added to its answers; a class not seen has none.
    """

    name: str
    slope: float = 1.0
    shift: float = 0.0
    shifts: dict[str, float] = {}

    def __call__(self, confidence: ArrayLike, classes: Sequence[Hashable] | None = None) -> Floats:
        """(n,) probabilities."""
        raw = np.asarray(confidence, np.float64)
        if self.name == "identity":
            return raw
        z = self.slope * _logit(raw) + self.shift
        if self.shifts and classes is not None:
            z = z + np.array([self.shifts.get(str(c), 0.0) for c in classes])
        return _sigmoid(z)

    def state(self) -> dict[str, Any]:
        """Name and numbers."""
        return self._asdict()


class Curve(NamedTuple):
    """A rising curve: straight between its points (isotonic) or in steps (histogram), level outside them.

    Attributes:
        name: of the method.
        at: (k,) confidences, ascending; of a histogram the first confidence of each bin.
        value: (k,) probabilities, never falling.
    """

    name: str
    at: list[float]
    value: list[float]

    def __call__(self, confidence: ArrayLike, classes: Sequence[Hashable] | None = None) -> Floats:
        """(n,) probabilities."""
        raw = np.asarray(confidence, np.float64)
        if self.name == "isotonic":
            return np.asarray(np.interp(raw, self.at, self.value))
        place = np.searchsorted(self.at, raw, side="right") - 1
        return np.asarray(self.value)[np.maximum(place, 0)]

    def state(self) -> dict[str, Any]:
        """Name and points."""
        return self._asdict()


Fit = Callable[[ArrayLike, ArrayLike, Sequence[Hashable] | None], Calibrator]
"""(n,) raw confidence in [0, 1], (n,) bool right or wrong, n predicted classes or None -> calibrator."""


def identity(confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None = None) -> Line:
    """The raw confidence as it is."""
    _checked(confidence, correct, classes)
    return Line("identity")


def temperature(confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None = None) -> Line:
    """One number: log-odds divided by a temperature. Never moves a confidence across one half.

    Source: Guo et al. 2017, for the probability of the answer alone, with Platt's smoothed targets.
    `llmal.stats.calibration.fit_temperature` fits whole distributions.
    """
    raw, right = _checked(confidence, correct, classes)
    z, target = _logit(raw), _smoothed(right)
    slope, _, _ = _newton(z, target, free_shift=False)
    return Line("temperature", slope)


def platt(confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None = None) -> Line:
    """Two numbers: slope and shift in log-odds, so the raw confidence itself is one of the lines.

    Source: Platt 1999 with the Newton steps of Lin, Lin & Weng 2007, on the log-odds of the confidence.
    Smoothed targets, (right + 1) / (right + 2) and 1 / (wrong + 2), keep it finite where all are right.
    """
    raw, right = _checked(confidence, correct, classes)
    slope, shift, _ = _newton(_logit(raw), _smoothed(right))
    return Line("platt", slope, shift)


def hierarchical(
    confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None = None
) -> Line:
    """Platt's line with a shift of its own for each predicted class, drawn toward the common line.

    The shifts come from one normal distribution whose spread is fitted too, so a class with few answers stays
    close to the rest and one with many has its own say. Without classes it is Platt's line.

    Source: random effects by empirical Bayes, Laplace's approximation; Gelman & Hill 2007.
    """
    raw, right = _checked(confidence, correct, classes)
    z, target = _logit(raw), _smoothed(right)
    if classes is None:
        slope, shift, _ = _newton(z, target)
        return Line("hierarchical", slope, shift)
    names = sorted({str(c) for c in classes})
    number = {name: i for i, name in enumerate(names)}
    group = np.array([number[str(c)] for c in classes])
    spread = 1.0
    start = (1.0, 0.0, np.zeros(len(names)))
    for _ in range(_ROUNDS):
        start = _newton(z, target, group=group, spread=spread, start=start)
        p = _sigmoid(start[0] * z + start[1] + start[2][group])
        known = np.bincount(group, weights=p * (1 - p), minlength=len(names))
        new = math.sqrt(float((start[2] ** 2 + 1 / (known + 1 / spread**2)).mean()))
        settled = abs(new - spread) < 0.001 * spread
        spread = max(new, 0.01)
        if settled:
            break
    slope, shift, shifts = start
    return Line("hierarchical", slope, shift, dict(zip(names, shifts.tolist(), strict=True)))


def isotonic(confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None = None) -> Curve:
    """The rising curve that fits best, whatever its form; needs about 1,000 answers.

    Kept within [1 / (n + 2), (n + 1) / (n + 2)]: n answers never show more.

    Source: pool adjacent violators, Ayer et al. 1955; for calibration Zadrozny & Elkan 2002.
    """
    raw, right = _checked(confidence, correct, classes)
    at, group, sizes = np.unique(raw, return_inverse=True, return_counts=True)
    hits = np.bincount(group, weights=right, minlength=len(at))
    low = 1 / (len(raw) + 2)
    value = np.clip(_rising(hits / sizes, sizes.astype(np.float64)), low, 1 - low)
    ends = np.ones(len(at), bool)  # between equal values the points tell nothing
    ends[1:-1] = (value[1:-1] != value[:-2]) | (value[1:-1] != value[2:])
    return Curve("isotonic", at[ends].tolist(), value[ends].tolist())


def histogram(confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None = None) -> Curve:
    """The share right in each of some bins of equal mass, drawn toward the share right of all.

    Equal confidences share a bin; bins in the wrong order are joined.

    Source: Zadrozny & Elkan 2001.
    """
    raw, right = _checked(confidence, correct, classes)
    at, group, sizes = np.unique(raw, return_inverse=True, return_counts=True)
    place = _bins_of(sizes, int(np.clip(len(raw) // _PER_BIN, 1, _BINS)))
    first = np.unique(place, return_index=True)[1]
    held = np.add.reduceat(sizes, first).astype(np.float64)
    hits = np.add.reduceat(np.bincount(group, weights=right, minlength=len(at)), first)
    shares = (hits + _WORTH * (right.sum() + 1) / (len(raw) + 2)) / (held + _WORTH)
    return Curve("histogram", at[first].tolist(), _rising(shares, held).tolist())


METHODS: dict[str, Fit] = {
    "identity": identity,
    "temperature": temperature,
    "platt": platt,
    "hierarchical": hierarchical,
    "histogram": histogram,
    "isotonic": isotonic,
}
"""Every calibrator by name, simplest first."""


def restored(state: dict[str, Any]) -> Calibrator:
    """A calibrator from what its `state()` gave.

    Raises:
        ValueError: no method has that name.
    """
    if state.get("name") not in METHODS:
        raise ValueError(f"no calibrator is called {state.get('name')!r}; known: {', '.join(METHODS)}.")
    return Curve(**state) if "at" in state else Line(**state)


def _checked(
    confidence: ArrayLike, correct: ArrayLike, classes: Sequence[Hashable] | None
) -> tuple[Floats, NDArray[np.bool_]]:
    raw, right = _score_pair(confidence, correct)
    if raw.min() < 0 or raw.max() > 1:
        raise ValueError(f"confidence must lie in [0, 1], got {raw.min()}..{raw.max()}.")
    if classes is not None and len(classes) != len(raw):
        raise ValueError(f"Expected one class an answer, got {len(classes)} for {len(raw)}.")
    return raw, right


def _logit(p: Floats) -> Floats:
    kept = np.clip(p, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(kept / (1 - kept)))


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))  # no exp to overflow


def _smoothed(right: NDArray[np.bool_]) -> Floats:
    """Platt's targets: what a uniform prior on both shares would expect of the next answer."""
    n = int(right.sum())
    return np.where(right, (n + 1) / (n + 2), 1 / (len(right) - n + 2))


def _newton(
    z: Floats,
    target: Floats,
    *,
    free_shift: bool = True,
    group: NDArray[np.int64] | None = None,
    spread: float = 1.0,
    start: tuple[float, float, Floats] | None = None,
) -> tuple[float, float, Floats]:
    """Slope, shift and shifts of the groups with the least log loss; slope in [0, `_MOST_SLOPE`].

    The shifts of groups carry a normal prior of standard deviation `spread`.
    """
    place = np.zeros(len(z), np.int64) if group is None else group
    slope, shift, own = start or (1.0, 0.0, np.zeros(1))
    prior = np.inf if group is None else 1 / spread**2  # no groups: their shift stays 0

    def loss(a: float, b: float, d: Floats) -> float:
        u = a * z + b + d[place]
        penalty = 0.0 if group is None else 0.5 * prior * float((d**2).sum())
        return float((np.logaddexp(0, u) - target * u).sum()) + penalty

    best = loss(slope, shift, own)
    for _ in range(_STEPS):
        p = _sigmoid(slope * z + shift + own[place])
        miss, heavy = p - target, p * (1 - p)
        step = _step(z, miss, heavy, place, own, prior, free_shift)
        size = 1.0
        while size > 1e-6:
            tried = (slope - size * step[0], shift - size * step[1], own - size * step[2])
            found = loss(*tried)
            if found <= best:
                break
            size /= 2
        else:
            break
        gained, best = best - found, found
        slope, shift, own = tried
        if gained < 1e-11 * (1 + best):
            break
    if 0 <= slope <= _MOST_SLOPE:
        return slope, shift, own
    # The best allowed slope is then the nearest end: the loss is convex. The rest is fitted beside it.
    if slope < 0:
        level = (0.0, shift, own)
        return _newton(
            np.zeros_like(z), target, free_shift=free_shift, group=group, spread=spread, start=level
        )
    return _MOST_SLOPE, shift, own


def _step(
    z: Floats,
    miss: Floats,
    heavy: Floats,
    place: NDArray[np.int64],
    own: Floats,
    prior: float,
    free_shift: bool,
) -> tuple[float, float, Floats]:
    """Newton's step; groups are eliminated first, so that a thousand of them cost no more than a few."""
    k = len(own)
    x = np.stack([z, np.full(len(z), float(free_shift))], axis=1)
    hessian = (x * heavy[:, None]).T @ x + np.diag([1e-9, 1e-9 if free_shift else 1.0])
    slope = x.T @ miss
    if not np.isfinite(prior):
        a, b = np.linalg.solve(hessian, slope)
        return float(a), float(b), np.zeros(k)
    cross = np.stack([np.bincount(place, weights=heavy * column, minlength=k) for column in x.T])
    within = np.bincount(place, weights=heavy, minlength=k) + prior
    slopes = np.bincount(place, weights=miss, minlength=k) + prior * own
    a, b = np.linalg.solve(hessian - (cross / within) @ cross.T, slope - (cross / within) @ slopes)
    return float(a), float(b), (slopes - cross.T @ np.array([a, b])) / within


def _rising(values: Floats, weights: Floats) -> Floats:
    """The never falling sequence closest to the values in weighted squares: pool adjacent violators."""
    blocks: list[list[float]] = []  # weighted sum, weight, members
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append([value * weight, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            total, mass, members = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + mass, blocks[-1][2] + members]
    return np.repeat([b[0] / b[1] for b in blocks], [int(b[2]) for b in blocks])
