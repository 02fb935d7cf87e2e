"""Which calibrator to use, and calibrated values that rest on no answer of their own."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.calibrators import METHODS, Calibrator, Fit, Floats, _checked

FOLDS = 5
"""Parts in which answers are left out in turn."""

SLACK = 0.5
"""Standard errors by which a simpler calibrator may score worse than the best and still be taken."""


def folds_of(confidence: ArrayLike, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row: every fold gets its share of every range of confidence, equal ones at random.

    Whether an answer was right plays no part, so the fold of an item says nothing of its answer.

    Args:
        confidence: (n,) real.
        folds: at least 2; with fewer rows than folds every row is its own.
        seed: of the draw.

    Returns:
        (n,) in 0..folds - 1.
    """
    raw = np.asarray(confidence, np.float64)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(raw)), raw))
    out = np.empty(len(raw), np.int64)
    for start in range(0, len(raw), folds):
        block = order[start : start + folds]
        out[block] = rng.permutation(folds)[: len(block)]
    return out


def cross_fitted(
    fit: Fit,
    confidence: ArrayLike,
    correct: ArrayLike,
    classes: Sequence[Hashable] | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Floats:
    """Calibrated confidence of every item by a calibrator that never saw the item's own answer.

    Args:
        fit: a calibrator's fit, or `choose` itself: then the choice of the method saw no answer of its own
            either.
        confidence: (n,) raw, in [0, 1].
        correct: (n,) bool.
        classes: n predicted classes, or None.
        folds: parts left out in turn, at least 2.
        seed: of the folds.

    Returns:
        (n,) probabilities.

    Raises:
        ValueError: fewer than 2 folds or rows, or as the fit.

    Source: Stone 1974.
    """
    raw, right = _checked(confidence, correct, classes)
    if folds < 2 or len(raw) < 2:
        raise ValueError(f"cross-fitting needs 2 folds and 2 answers, got {folds} and {len(raw)}.")
    fold = folds_of(raw, folds, seed)
    out = np.empty(len(raw))
    for f in np.unique(fold):
        inside, rest = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
        made = fit(raw[rest], right[rest], _picked(classes, rest))
        out[inside] = made(raw[inside], _picked(classes, inside))
    return out


def choose(
    confidence: ArrayLike,
    correct: ArrayLike,
    classes: Sequence[Hashable] | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Calibrator:
    """The calibrator that answers left out speak for; the raw confidence is among those compared.

    Each method is cross-fitted and scored by its squared error. The simplest one whose score is within
    `SLACK` standard errors (of the difference, item by item) of the best is then fitted on all answers.

    Args:
        confidence: (n,) raw, in [0, 1].
        correct: (n,) bool.
        classes: n predicted classes, or None; without them none of the methods uses classes.
        folds: parts left out in turn, at least 2.
        seed: of the folds.

    Raises:
        ValueError: as `cross_fitted`.

    Source: one standard error rule of Breiman et al. 1984; Brier 1950 for the score.
    """
    raw, right = _checked(confidence, correct, classes)
    methods = [name for name in METHODS if classes is not None or name != "hierarchical"]
    loss = np.stack(
        [
            (cross_fitted(METHODS[m], raw, right, classes, folds=folds, seed=seed) - right) ** 2
            for m in methods
        ]
    )
    behind = loss - loss[loss.mean(axis=1).argmin()]
    slack = SLACK * behind.std(axis=1) / np.sqrt(len(raw))
    taken = methods[int(np.flatnonzero(behind.mean(axis=1) <= slack)[0])]
    return METHODS[taken](raw, right, classes)


def _picked(classes: Sequence[Hashable] | None, rows: NDArray[np.int64]) -> list[Hashable] | None:
    return None if classes is None else [classes[i] for i in rows]
