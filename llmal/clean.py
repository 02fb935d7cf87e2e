"""Which labels a small student finds easy to believe, and which of those are worth showing as examples."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INVALID = -1
"""Stands for a label that is missing: such a row is never learnt from."""

STRENGTH = 3.0
"""Inverse regularisation of the student. 1 tells wrong labels better by 0.004 to 0.02 of AUROC, but with 50
answers a class it is so unsure of all that no two kinds of loss are left (tests/benchmarks/freeal.py)."""

FOLDS = 5
"""Parts of the rows that are left out in turn."""

FIT_ROWS = 20_000
"""Most rows a student of one fold learns from: above, more rows move 384 weights a class very little."""

EVEN = 0.01
"""Share of an even distribution mixed into a student's: keeps the largest loss at log(C / 0.01)."""

CLEAN = 0.7
"""Probability of the component with the small losses from which a label is clean, as in FreeAL."""

FEWEST = 30
"""Losses below which two components cannot be told from chance; all rows are then clean."""

EVIDENCE = 6.0
"""Difference of BIC from which one Gaussian is preferred: strong evidence by Kass & Raftery 1995."""

TOP_SHARE = 0.2
"""Share of each class, the student's surest, that may become examples, as in FreeAL."""


class Clean(NamedTuple):
    """What the losses say.

    Attributes:
        posterior: (n,) probability of belonging to the small losses; 0 where the loss is NaN.
        mask: (n,) bool; which rows are clean.
        note: why all rows count as clean, in words; empty where two kinds of loss were found.
    """

    posterior: NDArray[np.float64]
    mask: NDArray[np.bool_]
    note: str = ""


def cross_fitted(
    vectors: NDArray[np.floating], labels: NDArray[np.int64], n_classes: int, *, seed: int
) -> NDArray[np.float64]:
    """What a linear student says of each row that did not learn from that row's own label.

    Args:
        vectors: (n, d) unit rows.
        labels: (n,) class of each row, `INVALID` where there is none; at least two classes occur.
        n_classes: C.
        seed: of the folds.

    Returns:
        (n, C) probabilities. Rows with a label are predicted by the students of the other folds' labels, rows
        without one by the mean of all students. A class that a student never saw gets almost nothing.

    A student that has seen the labels tells wrong ones as well with two classes, less well with six (trec:
    AUROC 0.76 against 0.84); its probability of a label is in part that label's own echo.
    Source: out-of-sample probabilities for finding label errors, Northcutt et al. 2021.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(labels != INVALID)
    fold = np.full(len(labels), INVALID)
    for c in np.unique(labels[known]):  # in each class on its own: every fold sees it, where it can
        rows = rng.permutation(known[labels[known] == c])
        fold[rows] = (np.arange(len(rows)) + rng.integers(FOLDS)) % FOLDS
    out = np.zeros((len(labels), n_classes))
    rest = np.flatnonzero(labels == INVALID)
    students = [k for k in range(FOLDS) if len(np.unique(labels[known[fold[known] != k]])) > 1]
    if not students:
        out[rest] = np.bincount(labels[known], minlength=n_classes) / max(len(known), 1)
    for k in range(FOLDS):
        train, asked = known[fold[known] != k], known[fold[known] == k]
        if len(train) > FIT_ROWS:
            train = np.sort(rng.choice(train, FIT_ROWS, replace=False))
        if k in students:
            rows = np.concatenate([asked, rest])
            said = _student(vectors[train], labels[train], vectors[rows], n_classes)
            out[asked] = said[: len(asked)]
            out[rest] += said[len(asked) :] / len(students)
        elif len(asked):
            out[asked] = np.bincount(labels[train], minlength=n_classes) / max(len(train), 1)
    return (1 - EVEN) * out + EVEN / n_classes


def _student(
    x: NDArray[np.floating], y: NDArray[np.int64], asked: NDArray[np.floating], n_classes: int
) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    # Classes weigh the same: a model that names one class too often must not have that class look clean. It
    # raised the AUROC for wrong labels of openchat on babe from 0.52 to 0.69, gpt_3_5 from 0.63 to 0.72.
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000).fit(x, y)
    probs = np.zeros((len(asked), n_classes))
    if len(asked):
        probs[:, model.classes_] = model.predict_proba(asked)
    return probs


def cross_entropy(probs: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) minus the log of the probability given to each row's label, in nats; NaN where it has none."""
    rows = np.arange(len(labels))
    found = -np.log(np.maximum(probs[rows, np.maximum(labels, 0)], 1e-12))
    return np.where(labels == INVALID, np.nan, found)


def small_losses(
    losses: NDArray[np.floating],
    *,
    at_least: float = CLEAN,
    seed: int = 0,
    fit: NDArray[np.bool_] | None = None,
) -> Clean:
    """Tell clean from doubtful labels by a mixture of two Gaussians over the losses.

    The losses are scaled to 0 to 1. A loss below the lower mean counts as that mean, one above the higher as
    that: a wide component never claims the far side of a narrow one. Where the evidence for one Gaussian in
    place of two is strong, where there are fewer than `FEWEST` losses or all are the same, nothing tells two
    kinds apart, and every row with a loss is clean.

    Args:
        losses: (n,) at least 0; NaN where there is no label.
        at_least: probability of the component with the lower mean from which a row is clean.
        seed: of the mixture's start.
        fit: (n,) bool; rows the mixture is fitted on, all with a loss unless given.

    Source: Arazo et al. 2019; Li et al. 2020 (DivideMix); its settings as in Xiao et al. 2023 (FreeAL).
    """
    there = np.isfinite(losses)
    used = there if fit is None else there & fit
    values = losses[used]
    if len(values) < FEWEST:
        return _all(there, f"{len(values)} labels are too few to tell doubtful ones by their losses")
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return _all(there, "all losses are the same")
    scaled = np.clip((losses - low) / (high - low), 0, 1)
    mixture = _mixture(scaled[used], 2, seed)
    one, two = (m.bic(scaled[used][:, None]) for m in (_mixture(scaled[used], 1, seed), mixture))
    if two - one > EVIDENCE:
        return _all(there, "the losses are of one kind")
    means = mixture.means_[:, 0]
    posterior = np.zeros(len(losses))
    within = np.clip(scaled[there], means.min(), means.max())
    posterior[there] = mixture.predict_proba(within[:, None])[:, means.argmin()]
    return Clean(posterior, there & (posterior > at_least))


def _all(there: NDArray[np.bool_], why: str) -> Clean:
    return Clean(there.astype(np.float64), there.copy(), why)


def _mixture(values: NDArray[np.floating], components: int, seed: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten steps are what the method asks for
        mixture = GaussianMixture(components, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
        return mixture.fit(values[:, None])


def examples(
    vectors: NDArray[np.floating],
    probs: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    most: int = 100,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Rows worth showing as examples: sure, agreed upon, and spread out.

    For each class: among the rows whose label the student gives too, the surest fifth; of these the one
    nearest to the middle of each of `most` / C clusters, or all where there are no more than that.

    Args:
        vectors: (n, d) unit rows.
        probs: (n, C) of a student that did not learn from the row itself.
        labels: (n,) class of each row, `INVALID` where there is none or it must not be shown.
        most: examples in all.
        seed: of the clusters.

    Returns:
        Row numbers, ascending.

    Source: Xiao et al. 2023 (FreeAL); no more clusters than candidates, which its code assumes.
    """
    n_classes = probs.shape[1]
    each = max(1, most // n_classes)
    said = probs.argmax(axis=1)
    chosen: list[int] = []
    for c in range(n_classes):
        rows = np.flatnonzero((labels == c) & (said == c))
        top = rows[np.argsort(-probs[rows, c], kind="stable")[: int(np.ceil(TOP_SHARE * len(rows)))]]
        chosen += top.tolist() if len(top) <= each else _middles(vectors, top, each, seed)
    return np.array(sorted(chosen), np.int64)


def _middles(vectors: NDArray[np.floating], rows: NDArray[np.int64], k: int, seed: int) -> list[int]:
    """The row nearest to each of k centres, no row twice: larger clusters choose first."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal vectors: fewer clusters than asked for
        found = KMeans(k, n_init=1, random_state=seed).fit(vectors[rows])
    sizes = np.bincount(found.labels_, minlength=k)
    centres = found.cluster_centers_
    far = (centres**2).sum(axis=1) - 2 * (vectors[rows] @ centres.T)  # less the rows' own squared lengths
    taken = np.zeros(len(rows), bool)
    for c in np.argsort(-sizes, kind="stable"):
        taken[np.where(taken, np.inf, far[:, c]).argmin()] = True
    return [int(row) for row in rows[taken]]
