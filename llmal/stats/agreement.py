"""Agreement of predictions with gold, and of two annotators with each other."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ClassScores(NamedTuple):
    """Per-class scores, each (C,) in [0, 1], nan where undefined."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def confusion(gold: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count the items for every pair of gold class (row) and predicted class (column).

    Args:
        gold: (n,) int in 0..n_classes - 1.
        predicted: (n,) int in 0..n_classes - 1; leave abstentions out first, they are no class.
        n_classes: C, at least 1.

    Returns:
        (C, C) int; the sum is n.

    Raises:
        ValueError: n == 0, lengths differ, or a class that is not an integer in 0..n_classes - 1.

    Example:
        >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    if n_classes < 1:
        raise ValueError(f"n_classes must be at least 1, got {n_classes}.")
    rows, columns = _class_pair(gold, predicted, n_classes)
    counts = np.bincount(rows * n_classes + columns, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def accuracy(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Share of the items whose predicted class is the gold class.

    Args:
        gold: (n,) int.
        predicted: (n,) int.

    Returns:
        Share in [0, 1], 1 is best. Its interval is `wilson(hits, n)`.

    Raises:
        ValueError: n == 0, lengths differ, or a class that is not an integer.

    Example:
        >>> accuracy([0, 0, 1, 1], [0, 1, 1, 1])
        0.75
    """
    rows, columns = _class_pair(gold, predicted, None)
    return float((rows == columns).mean())


def precision_recall_f1(confusion: ArrayLike) -> ClassScores:
    """Precision, recall and F1 of every class, nan where the definition divides by zero.

    Precision is undefined for a class that is never predicted, recall for one that is never gold, and F1 only
    for one that is neither: a gold class that is never predicted has F1 = 0.

    Args:
        confusion: (C, C) counts, rows gold, columns predicted.

    Returns:
        Three arrays (C,) in [0, 1] or nan, 1 is best.

    Raises:
        ValueError: not square, or a negative count.

    Source: van Rijsbergen 1979.

    Example:
        >>> precision_recall_f1([[1, 1], [0, 1]]).recall.tolist()
        [0.5, 1.0]
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] == 0:
        raise ValueError(f"A confusion matrix is square, got shape {counts.shape}.")
    if (counts < 0).any():
        raise ValueError("A confusion matrix holds counts, got a negative entry.")
    hits, in_gold, in_predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        precision=_ratio(hits, in_predicted),
        recall=_ratio(hits, in_gold),
        f1=_ratio(2 * hits, in_gold + in_predicted),
    )


def macro_f1(gold: ArrayLike, predicted: ArrayLike, n_classes: int) -> float:
    """Mean F1 over the classes that occur in gold or in the predictions.

    A class absent from both has no F1 and is left out of the mean, so the number of classes behind the mean
    depends on the items. scikit-learn does the same when it is not given `labels`.

    Args:
        gold: (n,) int in 0..n_classes - 1.
        predicted: (n,) int in 0..n_classes - 1.
        n_classes: C, at least 1.

    Returns:
        Mean in [0, 1], 1 is best.

    Raises:
        ValueError: n == 0, lengths differ, or a class that is not an integer in 0..n_classes - 1.

    Source: the mean of F1s, not the F1 of mean precision and recall; Opitz & Burst 2019 on the difference.

    Example:
        >>> round(macro_f1([0, 0, 1], [0, 1, 1], 5), 4)
        0.6667
    """
    counts = confusion(gold, predicted, n_classes)
    return _mean_f1(np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def cohen_kappa(gold: ArrayLike, predicted: ArrayLike, n_classes: int) -> float:
    """Agreement beyond what the two marginals give by chance.

    Where both sides are constant and equal, chance agreement is 1 and the formula is 0 / 0; the value is 1.0
    then, since no item shows a disagreement.

    Args:
        gold: (n,) int in 0..n_classes - 1, or another annotator.
        predicted: (n,) int in 0..n_classes - 1.
        n_classes: C, at least 1.

    Returns:
        Kappa in [-1, 1]; 1 is full agreement, 0 is chance.

    Raises:
        ValueError: n == 0, lengths differ, or a class that is not an integer in 0..n_classes - 1.

    Source: Cohen 1960.

    Example:
        >>> cohen_kappa([0, 0, 1, 1], [0, 1, 1, 1], 2)
        0.5
    """
    counts = confusion(gold, predicted, n_classes)
    n = int(counts.sum())
    # In integers, so that "both constant" is met exactly and not up to rounding.
    by_chance = int(counts.sum(axis=0) @ counts.sum(axis=1))
    if by_chance == n * n:
        return 1.0
    return (n * int(np.trace(counts)) - by_chance) / (n * n - by_chance)


def subset_accuracy(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Share of the items whose whole set of labels is right.

    Args:
        gold: (n, C) bool.
        predicted: (n, C) bool.

    Returns:
        Share in [0, 1], 1 is best.

    Raises:
        ValueError: n == 0, C == 0, shapes differ, or not bool.

    Example:
        >>> subset_accuracy([[True, False], [True, True]], [[True, False], [True, False]])
        0.5
    """
    truth, answer = _label_pair(gold, predicted)
    return float((truth == answer).all(axis=1).mean())


def multilabel_macro_f1(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the labels that occur in gold or in the predictions.

    A label absent from both has no F1 and is left out of the mean, as in `macro_f1`.

    Args:
        gold: (n, C) bool.
        predicted: (n, C) bool.

    Returns:
        Mean in [0, 1], 1 is best; nan where no label occurs at all.

    Raises:
        ValueError: n == 0, C == 0, shapes differ, or not bool.

    Example:
        >>> multilabel_macro_f1([[True, False], [True, True]], [[True, False], [True, False]])
        0.5
    """
    truth, answer = _label_pair(gold, predicted)
    return _mean_f1((truth & answer).sum(axis=0), truth.sum(axis=0) + answer.sum(axis=0))


def multilabel_micro_f1(gold: ArrayLike, predicted: ArrayLike) -> float:
    """F1 over all (item, label) pairs together: frequent labels weigh more.

    Args:
        gold: (n, C) bool.
        predicted: (n, C) bool.

    Returns:
        F1 in [0, 1], 1 is best; nan where no label occurs at all.

    Raises:
        ValueError: n == 0, C == 0, shapes differ, or not bool.

    Example:
        >>> multilabel_micro_f1([[True, False], [True, True]], [[True, False], [True, False]])
        0.8
    """
    truth, answer = _label_pair(gold, predicted)
    occurrences = int(truth.sum() + answer.sum())
    return 2 * int((truth & answer).sum()) / occurrences if occurrences else float("nan")


def _mean_f1(hits: NDArray[np.int64], occurrences: NDArray[np.int64]) -> float:
    present = occurrences > 0
    if not present.any():
        return float("nan")
    return float((2 * hits[present] / occurrences[present]).mean())


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _class_pair(
    gold: ArrayLike, predicted: ArrayLike, n_classes: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    rows, columns = np.asarray(gold), np.asarray(predicted)
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise ValueError(f"gold and predicted must be (n,) alike, got {rows.shape} and {columns.shape}.")
    if len(rows) == 0:
        raise ValueError("Agreement needs at least one item, got n = 0.")
    for name, classes in (("gold", rows), ("predicted", columns)):
        if classes.dtype.kind not in "iu":
            raise ValueError(f"{name} must hold integer classes, got {classes.dtype}.")
        if n_classes is not None and (classes.min() < 0 or classes.max() >= n_classes):
            raise ValueError(f"{name} must lie in 0..{n_classes - 1}, got {classes.min()}..{classes.max()}.")
    # A narrow dtype (int8 labels of a stored corpus) would overflow in row * n_classes + column.
    return rows.astype(np.int64), columns.astype(np.int64)


def _label_pair(gold: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    truth, answer = np.asarray(gold), np.asarray(predicted)
    if truth.ndim != 2 or truth.shape != answer.shape:
        raise ValueError(f"gold and predicted must be (n, C) alike, got {truth.shape} and {answer.shape}.")
    if truth.size == 0:
        raise ValueError(f"Agreement needs at least one item and one label, got shape {truth.shape}.")
    if truth.dtype != np.bool_ or answer.dtype != np.bool_:
        raise ValueError(f"gold and predicted must be bool, got {truth.dtype} and {answer.dtype}.")
    return truth, answer
