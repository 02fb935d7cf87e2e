"""What a new prompt is worth: both prompts on the same answers of people, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from llmal.records import Annotation, Labels
from llmal.stats.intervals import bootstrap

Rule = Literal["positive", "certain"]
"""When a prompt is kept: the gain is above 0, or its whole interval is."""


class Gain(NamedTuple):
    """Accuracy before and after on the same items, and the difference with its interval.

    Attributes:
        n: items that both prompts were answered on.
        before, after: share right in [0, 1].
        fixed, caused: answers that the new prompt turned right and wrong.
        value, low, high: the gain, in [-1, 1].
        level: of the interval.
    """

    n: int
    before: float
    after: float
    fixed: int
    caused: int
    value: float
    low: float
    high: float
    level: float

    def words(self) -> str:
        """One line for people."""
        return (
            f"accuracy {self.before:.3f} -> {self.after:.3f}, gain {self.value:+.3f} "
            f"[{self.low:+.3f}, {self.high:+.3f}], n = {self.n} "
            f"({self.fixed} fixed, {self.caused} made wrong; {100 * self.level:.4g} % interval)"
        )


def score(annotation: Annotation, labels: Labels, *, abstained: float = 0.0) -> float | None:
    """1 for people's answer, 0 for another one; None where the call failed, which no prompt is to blame for.

    Args:
        annotation: the model's answer.
        labels: people's answer.
        abstained: worth of declining, in [0, 1).
    """
    if annotation.status == "failed":
        return None
    if annotation.status == "abstained":
        return abstained
    return float(annotation.status == "ok" and annotation.labels == labels)


def paired(
    before: Sequence[float | None],
    after: Sequence[float | None],
    *,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
) -> Gain:
    """Compare two prompts on the same items.

    Where every score is 0 or 1 the interval is Tango's, and it holds 0 unless the exact sign test of the
    changed answers excludes it too; with half credits it is a bootstrap over items.

    Args:
        before: score of item i under the old prompt, in [0, 1]; None leaves the item out.
        after: the same under the new prompt.
        level: of the interval, in (0, 1).
        rng: for the bootstrap.

    Raises:
        ValueError: the lengths differ, or no item has both scores.

    Source: Tango 1998 (score interval of a paired difference); McNemar 1947 (sign test).
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} scores before and {len(after)} after: they cannot be paired.")
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    if not pairs:
        raise ValueError("No item was answered under both prompts.")
    old, new = np.array(pairs, np.float64).T
    change = new - old
    fixed, caused, n = int((change > 0).sum()), int((change < 0).sum()), len(pairs)
    value = float(change.mean())
    if set(np.unique(change)) <= {-1.0, 0.0, 1.0}:
        low, high = difference(fixed, caused, n, level=level)
    elif n == 1:
        low, high = -1.0, 1.0
    else:
        found = bootstrap(
            lambda x: float(x.mean()), change, rng=rng or np.random.default_rng(0), level=level,
            resamples=math.ceil(40 / (1 - level)),
        )  # fmt: skip
        low, high = found.low, found.high
    return Gain(n, float(old.mean()), float(new.mean()), fixed, caused, value, low, high, level)


def difference(fixed: int, caused: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a paired difference of shares, (fixed - caused) / n.

    Args:
        fixed: items that changed for the better.
        caused: items that changed for the worse.
        n: all items, at least fixed + caused and at least 1.
        level: in (0, 1).

    Returns:
        low and high in [-1, 1]; they hold 0 wherever the exact sign test, two-sided at 1 - level, does not
        exclude it.

    Raises:
        ValueError: counts that cannot be.

    Source: Tango 1998; Tango's ends alone are a little short where few answers change (Newcombe 1998).
    """
    if n < 1 or min(fixed, caused) < 0 or fixed + caused > n:
        raise ValueError(f"{fixed} and {caused} of {n} items cannot be.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    point = (fixed - caused) / n
    low = _end(fixed, caused, n, z, -1.0, point)
    high = -_end(caused, fixed, n, z, -1.0, -point)
    if 2 * _sign_tail(max(fixed, caused), fixed + caused) > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def _end(fixed: int, caused: int, n: int, z: float, least: float, point: float) -> float:
    """The difference below the point at which the score statistic reaches z: found by halving."""
    low, high = least, point
    for _ in range(60):
        middle = (low + high) / 2
        if _score(fixed, caused, n, middle) > z:
            low = middle
        else:
            high = middle
    return low


def _score(fixed: int, caused: int, n: int, delta: float) -> float:
    """Tango's score statistic of the hypothesis that the difference is `delta`."""
    a, b = 2 * n, -fixed - caused + (2 * n - fixed + caused) * delta
    c = -caused * delta * (1 - delta)
    p = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # share of `caused` likeliest under delta
    spread = n * (2 * p + delta * (1 - delta))
    gap = fixed - caused - n * delta
    if spread <= 0:
        return math.inf if gap > 0 else 0.0
    return gap / math.sqrt(spread)


def _sign_tail(most: int, changed: int) -> float:
    """Chance of at least `most` of `changed` fair coins; 1 where nothing changed."""
    tail: float = sum(math.comb(changed, k) for k in range(most, changed + 1)) / 2**changed
    return tail


def kept(validate: Gain, report: Gain, rule: Rule) -> bool:
    """Whether the new prompt stays.

    Both gains have to be positive; under `certain` the whole interval on the report answers too. An optimiser
    that adds nothing is then kept at most every second time, or at most once in 2 / (1 - level) times.
    """
    if validate.value <= 0 or report.value <= 0:
        return False
    return rule == "positive" or report.low > 0
