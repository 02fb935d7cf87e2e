"""Certify: choose a threshold on the confidence above which a promise about people's answers holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.certificate import GRID, Certificate, On, Test, take

STEPS = 64
"""Thresholds of a fixed sequence. At n = 1,000 and 10 classes 16 of them keep 0.87 of the best coverage, 64
0.90, one at every item 0.91 (`tests/benchmarks/certificates.py`)."""


class Certifier(Protocol):
    """One way to choose the threshold.

    Contract: a threshold, where there is one, is in [0, 1]; the promise of the docstring holds for a random
    sample, equal confidences and finite corpora included.
    """

    def __call__(
        self, scores: ArrayLike, right: ArrayLike, *, target: float, delta: float, on: On = "accepted"
    ) -> Certificate:
        """The certificate of one audit sample, see `fixed_sequence`."""


def fixed_sequence(
    scores: ArrayLike,
    right: ArrayLike,
    *,
    target: float,
    delta: float,
    on: On = "accepted",
    test: Test = "binomial",
    steps: int = STEPS,
    grid: ArrayLike | None = None,
) -> Certificate:
    """Test thresholds from strict to lax, from a few starts that share delta; each goes on until one fails.

    The best of the four by measure, and the default. The order is fixed by the scores before an outcome is
    seen, which is why no share of delta is paid per threshold. The first start is the strictest threshold
    that can pass with one wrong item; in a small sample the strictest that can pass at all. In a large one
    that is a thin slice, whose second wrong item would end it all: there `LATER` starts own a share of delta.
    A step that passes hands its level to the next, which adds its own share where it is a start; a step that
    fails has lost it, and the next start begins with its own share alone.

    Why that keeps delta: call a threshold whose accuracy is below the target bad. Up to the first bad one
    that passes, every bad one failed and left nothing, so each is tested at no more than the shares given
    out since the bad one before it. Those stretches do not overlap, so all these levels together are at most
    delta, whatever the shape of accuracy over thresholds.

    With probability 1 - delta over the draw of the sample, accuracy at the threshold is at least the target.
    It is the accuracy over the distribution, or the finite corpus, that the sample was drawn from; the
    audited items count by what a machine would have answered.

    Args:
        scores: (n,) confidences in [0, 1] of a random sample of what is to be routed; none of its answers
            may have trained or calibrated what gave the scores.
        right: (n,) bool, whether the machine's answer is people's answer.
        target: in (0, 1), the accuracy to promise.
        delta: in (0, 0.5), the share of samples for which the promise may be broken.
        on: see `On`.
        test: see `Test`.
        steps: thresholds to try, at least 1.
        grid: (g,) thresholds fixed before the sample was drawn, such as quantiles of the scores of the whole
            corpus, instead of `steps` taken from the sample.

    Returns:
        The most lax threshold that passed; its bound is the target. Compare it in double precision: it lies
        one step above the confidence of an item that is not accepted.

    Raises:
        ValueError: lengths differ, no items, scores outside [0, 1], target or delta outside their range.

    Source: Angelopoulos, Bates, Candes, Jordan & Lei 2021 (fixed-sequence testing); Bauer 1991; Wiens 2003
    (the fallback procedure, by which starts share delta).

    Example:
        >>> fixed_sequence([0.9] * 100 + [0.6] * 50, [1] * 100 + [1, 0] * 25, target=0.95, delta=0.1)[:4]
        (0.6000000000000001, 0.95, 100, 0.6666666666666666)
    """
    sample = take(scores, right, target, delta, on)
    starts = sample.starts(delta, test)
    ladder = sample.steps(steps, starts[0][0], grid)
    # A betting test is dear, so none is done at a step that has no level left.
    known = None if test == "betting" else sample.pvalues(ladder, test)
    own = np.zeros(len(ladder.thresholds) + 1)
    np.add.at(own, np.searchsorted(ladder.accepted, [count for count, _ in starts]), [d for _, d in starts])
    chosen, level = -1, 0.0
    for i, share in enumerate(own[:-1]):
        level += share
        if level and (known[i] <= level if known is not None else sample.passes(ladder, i, level, test)):
            chosen = i
        else:
            level = 0.0
    return sample.certificate(ladder, chosen, delta)


def sgr(
    scores: ArrayLike, right: ArrayLike, *, target: float, delta: float, on: On = "accepted"
) -> Certificate:
    """Halve the range of thresholds until one is left, each of the log2 n tests at its share of delta.

    The promise is that of `fixed_sequence`. It is proven where accuracy does not rise again as the threshold
    falls: which thresholds are tested then depends on outcomes only where nothing can be broken any more.

    Args:
        scores: as in `fixed_sequence`, and so are the others.
        right: outcomes.
        target: accuracy to promise.
        delta: share of samples for which it may be broken.
        on: see `On`.

    Returns:
        The last threshold that passed; its bound is that of the test, often above the target.

    Raises:
        ValueError: as in `fixed_sequence`.

    Source: Geifman & El-Yaniv 2017.
    """
    sample = take(scores, right, target, delta, on)
    ladder = sample.steps(None, 1)
    share = delta / len(sample.scores).bit_length()  # no more halvings than that end with a single threshold
    low, high, chosen = 0, len(ladder.thresholds) - 1, -1
    while low <= high:
        middle = (low + high) // 2
        if sample.passes(ladder, middle, share, "binomial"):
            chosen, low = middle, middle + 1
        else:
            high = middle - 1
    return sample.certificate(ladder, chosen, share, bound=sample.lower(ladder, chosen, share))


def learn_then_test(
    scores: ArrayLike,
    right: ArrayLike,
    *,
    target: float,
    delta: float,
    on: On = "accepted",
    test: Test = "binomial",
    steps: int = GRID,
    grid: ArrayLike | None = None,
) -> Certificate:
    """Test every threshold of a grid at an equal share of delta, and take the most lax one that passes.

    The promise is that of `fixed_sequence`, and holds for any shape of accuracy over thresholds: a stretch
    of confident errors does not stop it. It needs more labels.

    Args:
        scores: as in `fixed_sequence`, and so are the others.
        right: outcomes.
        target: accuracy to promise.
        delta: share of samples for which it may be broken.
        on: see `On`.
        test: see `Test`.
        steps: thresholds of the grid, at least 1; each costs a share of delta.
        grid: thresholds fixed before the sample was drawn.

    Returns:
        The most lax threshold that passed; its bound is that of the test, often above the target.

    Raises:
        ValueError: as in `fixed_sequence`.

    Source: Angelopoulos, Bates, Candes, Jordan & Lei 2021 (Bonferroni).
    """
    sample = take(scores, right, target, delta, on)
    count = steps if grid is None else max(1, len(np.unique(np.asarray(grid))))
    ladder = sample.steps(steps, sample.least(delta / count, test), grid)
    share = delta / max(1, len(ladder.thresholds))
    passed = np.flatnonzero(sample.pvalues(ladder, test) <= share)
    chosen = int(passed[-1]) if len(passed) else -1
    return sample.certificate(ladder, chosen, share, bound=sample.lower(ladder, chosen, share))


def risk_control(
    scores: ArrayLike, right: ArrayLike, *, target: float, delta: float, on: On = "everything"
) -> Certificate:
    """Conformal risk control: among everything, accepted and wrong at most 1 - target on average.

    The weakest promise and the widest coverage: it holds averaged over samples, and a single sample may well
    miss it. `delta` plays no part.

    Args:
        scores: as in `fixed_sequence`, and so are the others.
        right: outcomes.
        target: accuracy to promise.
        delta: plays no part.
        on: "everything"; the share of errors among the accepted is not monotone, so there is no such promise.

    Returns:
        The most lax threshold within the risk; its bound is one minus the left side of the criterion.

    Raises:
        ValueError: as in `fixed_sequence`, or on is "accepted".

    Source: Angelopoulos, Bates, Fisch, Lei & Schuster 2024.
    """
    if on != "everything":
        raise ValueError("Conformal risk control promises nothing about the accepted items alone.")
    sample = take(scores, right, target, delta, on)
    ladder = sample.steps(None, 1)
    risks = conformal_risk((ladder.accepted - ladder.right) / len(sample.scores), len(sample.scores))
    # Sums of floats: a risk equal to the limit must not lose by rounding.
    chosen = int((risks <= 1 - target + 1e-12).sum()) - 1
    bound = float(1 - risks[chosen])
    return sample.certificate(ladder, chosen, delta, bound=bound, expected=True)


def conformal_risk(risk: ArrayLike, n: int) -> NDArray[np.float64]:
    """Left side of the criterion of conformal risk control, for losses in [0, 1].

    Args:
        risk: (...) mean losses of n items.
        n: count of items, at least 1.

    Returns:
        (...) n / (n + 1) risk + 1 / (n + 1).

    Source: Angelopoulos, Bates, Fisch, Lei & Schuster 2024.

    Example:
        >>> float(conformal_risk(0.04, 200).round(6))
        0.044776
    """
    return (n * np.asarray(risk, np.float64) + 1) / (n + 1)


CERTIFIERS: Mapping[str, Certifier] = {
    "fixed-sequence": fixed_sequence,
    "betting": partial(fixed_sequence, test="betting"),
    "sgr": sgr,
    "learn-then-test": learn_then_test,
    "risk-control": risk_control,
}
"""Every way to certify, by name."""

certified: Certifier = fixed_sequence
"""The default: most coverage of those that promise for nearly every sample."""


def certify_classes(
    scores: ArrayLike,
    right: ArrayLike,
    predicted: ArrayLike,
    n_classes: int,
    *,
    target: float,
    delta: float,
    on: On = "accepted",
    certifier: Certifier = certified,
) -> list[Certificate | None]:
    """One threshold for each class that the machine may answer; all promises hold together.

    Args:
        scores: as in `fixed_sequence`, and so are the others.
        right: outcomes.
        predicted: (n,) int, the machine's answers, in 0..n_classes - 1.
        n_classes: C.
        target: accuracy to promise for each class.
        delta: in (0, 0.5), for all classes together; each gets delta / n_classes.
        on: see `On`, among the items of one answer.
        certifier: how each threshold is chosen.

    Returns:
        C certificates, each about the items of that answer alone, as is its count of missing labels; None
        for a class that is not in the sample.

    Raises:
        ValueError: as in `fixed_sequence`, or a class outside its range.
    """
    told = np.asarray(predicted)
    given, truth = np.asarray(scores), np.asarray(right)
    if told.shape != given.shape or told.shape != truth.shape:
        raise ValueError(f"Scores, outcomes and classes differ: {given.shape}, {truth.shape}, {told.shape}.")
    if len(told) and not ((told >= 0) & (told < n_classes)).all():
        raise ValueError(f"Classes must lie in 0..{n_classes - 1}.")
    ask = partial(certifier, target=target, delta=delta / n_classes, on=on)
    rows = [told == c for c in range(n_classes)]
    return [ask(given[row], truth[row]) if row.any() else None for row in rows]
