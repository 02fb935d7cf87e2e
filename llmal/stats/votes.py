"""What several annotators say together: majority, Dawid-Skene, matrix completion; and whom not to trust."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.intervals import clopper_pearson
from llmal.stats.people import Suspect, against_others, doubtful_people

NONE = -1
"""The vote of an annotator who gave none."""

_TINY = 1e-300  # keeps log(0) finite: e^-690, below any product of confusions that matters

# Learning rate and steps of the matrix completion; the reference takes 0.01 and 100 epochs of SGD and stops
# short of the minimum. Full gradients are cheap here: the matrix is (m C, m C) whatever n is.
_RATE, _STEPS = 0.05, 3000

USELESS = 0.2
"""Skill, from chance to perfect, below which an annotator is worth nothing."""

_START_ACCURACY = 0.7
"""Where the matrix completion starts: every annotator somewhat better than chance (reference)."""


class Consensus(NamedTuple):
    """What annotators together say, and how each answers.

    Attributes:
        probs: (n, C) of each item, rows sum to 1.
        confusion: (m, C, C), `confusion[j, c, l]` is how often annotator j answers l when c is true.
        balance: (C,) share of each class.
    """

    probs: NDArray[np.float64]
    confusion: NDArray[np.float64]
    balance: NDArray[np.float64]


def majority(
    votes: ArrayLike, n_classes: int, *, weights: ArrayLike | None = None, balance: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Share of each class among an item's votes.

    Args:
        votes: (n, m) int, -1 is none.
        n_classes: C.
        weights: (m,) at least 0; equal ones when absent. `log_odds` gives those that fit known accuracies.
        balance: (C,) what an item without a vote gets; uniform when absent.

    Returns:
        (n, C), rows sum to 1; equal shares are a tie and stay one.

    Raises:
        ValueError: votes are not (n, m), or a class is not in -1..C - 1.

    Example:
        >>> majority([[0, 0, 1], [-1, -1, -1]], 2).round(3).tolist()
        [[0.667, 0.333], [0.5, 0.5]]
    """
    table = _table(votes, n_classes)
    weight = np.ones(table.shape[1]) if weights is None else np.asarray(weights, np.float64)
    prior = np.full(n_classes, 1 / n_classes) if balance is None else np.asarray(balance, np.float64)
    said = (_one_hot(table, n_classes) * weight[:, None]).sum(axis=1)
    total = said.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, said / np.where(total > 0, total, 1.0), prior))


def log_odds(accuracy: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Weight of a vote by its annotator's accuracy: log((C - 1) a / (1 - a)), 0 at chance and below.

    Args:
        accuracy: (m,) in [0, 1].
        n_classes: C.

    Source: the optimal weights of independent voters, Nitzan & Paroush 1982.
    """
    a = np.clip(np.asarray(accuracy, np.float64), 1 / n_classes, 0.99)
    return np.asarray(np.log((n_classes - 1) * a / (1 - a)))


def dawid_skene(
    votes: ArrayLike,
    n_classes: int,
    *,
    known: ArrayLike | None = None,
    smoothing: float = 0.01,
    most: int = 100,
    tolerance: float = 1e-6,
) -> Consensus:
    """Consensus and every annotator's confusion matrix, by expectation maximisation.

    Needs three annotators or an anchor: with two, nothing tells the better one. Annotators that copy one
    another are taken for independent, and the probabilities come out too sure; calibrate them.

    Args:
        votes: (n, m) int, -1 is none.
        n_classes: C.
        known: (n,) int, people's answers that are taken as true, -1 where there is none.
        smoothing: votes added to every cell of a confusion matrix; 0 only to compare with other code.
        most: iterations at most.
        tolerance: stops when no probability moves by more.

    Raises:
        ValueError: votes are not (n, m), or a class is not in -1..C - 1.

    Source: Dawid & Skene 1979.
    """
    table = _table(votes, n_classes)
    truth = np.full(len(table), NONE) if known is None else np.asarray(known, np.int64)
    patterns, place, counts = np.unique(
        np.column_stack([table, truth]), axis=0, return_inverse=True, return_counts=True
    )
    place = place.reshape(-1)
    said = _one_hot(patterns[:, :-1], n_classes)
    given = patterns[:, :-1] != NONE
    anchor = _one_hot(patterns[:, -1:], n_classes)[:, 0]
    anchored = patterns[:, -1] != NONE
    probs = np.where(anchored[:, None], anchor, majority(patterns[:, :-1], n_classes))
    # Where people answered, the start is theirs alone: a crowd that is mostly wrong must not outvote them.
    first = np.where(anchored, counts, 0) if anchored.any() else counts
    confusion, balance = _shares(
        said, given, probs, first, max(smoothing, 1.0) if anchored.any() else smoothing
    )
    for _ in range(most):
        logs = np.log(np.maximum(balance, _TINY)) + np.einsum(
            "njl,jcl->nc", said, np.log(np.maximum(confusion, _TINY))
        )
        new = _normalised(logs)
        new[anchored] = anchor[anchored]
        moved = float(np.abs(new - probs).max()) if len(new) else 0.0
        probs = new
        confusion, balance = _shares(said, given, probs, counts, smoothing)
        if moved < tolerance:
            break
    return Consensus(probs[place], confusion, balance)


def complete(votes: ArrayLike, n_classes: int, *, balance: ArrayLike | None = None) -> Consensus:
    """Consensus from how often annotators agree pairwise, without any label: matrix completion.

    Args:
        votes: (n, m) int, -1 is none; at least three annotators.
        n_classes: C.
        balance: (C,) share of each class, uniform when absent. A wrong one is the commonest failure: take it
            from a random sample that people answered.

    Raises:
        ValueError: fewer than three annotators, votes are not (n, m), or a class is not in -1..C - 1.

    Source: Ratner et al. 2019 (MeTaL), as in Snorkel's label model; full gradients (Adam) in place of SGD.
    """
    table = _table(votes, n_classes)
    m = table.shape[1]
    if m < 3:
        raise ValueError(
            f"matrix completion needs three annotators, got {m}; use dawid_skene with an anchor."
        )
    share = np.full(n_classes, 1 / n_classes) if balance is None else np.asarray(balance, np.float64)
    said = _one_hot(table, n_classes)
    mu = _resolved(_fitted(overlaps(said), share, m, n_classes), share, m, n_classes)
    answers = mu.reshape(m, n_classes, n_classes)  # (m, l, c): P(annotator j says l | c)
    given = np.maximum(answers.sum(axis=1, keepdims=True), _TINY)
    logs = np.log(np.maximum(share, _TINY)) + np.einsum(
        "njl,jlc->nc", said, np.log(np.maximum(answers, _TINY))
    )
    return Consensus(_normalised(logs), (answers / given).transpose(0, 2, 1), share)


def overlaps(said: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m C, m C) share of items with each pair of answers, from (n, m, C) one-hot votes."""
    flat = said.reshape(len(said), said.shape[1] * said.shape[2])
    return np.asarray(flat.T @ flat / max(len(flat), 1))


def mismatch(
    mu: NDArray[np.float64], overlap: NDArray[np.float64], balance: NDArray[np.float64], m: int
) -> float:
    """What matrix completion makes small: 0 where `mu` explains every pairwise overlap and every rate."""
    found, rates = _residuals(mu, overlap, balance, m)
    return float((found**2).sum() + (rates**2).sum())


def suspects(
    votes: ArrayLike,
    n_classes: int,
    *,
    level: float = 0.95,
    names: Sequence[str] | None = None,
    asked: ArrayLike | None = None,
) -> list[Suspect]:
    """Annotators who answer one class whatever the item, who answer against the others, or by chance.

    Named as in `doubtful_people`, but for a skill below a fifth whatever the others' is: machines may differ
    widely in skill and all be of use. "Silent": the whole exact interval of its accuracy lies less than a
    fifth of the way from chance to perfect once an item that it was asked about and gave no label counts as a
    miss. The intervals hold at `level` for all annotators together.

    Args:
        votes: (n, m) int, -1 is none; three annotators or more.
        n_classes: C.
        level: of the intervals together.
        names: (C,) of the classes, for the words; their numbers when absent.
        asked: (n, m) bool, items each was asked about; nobody is called silent when absent.

    Returns:
        The worst first; nobody where fewer than three annotate.
    """
    table = _table(votes, n_classes)
    m = table.shape[1]
    if m < 3:
        return []
    item, annotator = np.nonzero(table != NONE)
    words = item, annotator, table[item, annotator]
    found = doubtful_people(*words, people=m, classes=n_classes, names=names, level=level, least=USELESS)
    if asked is not None:
        right, given = against_others(*words, people=m, classes=n_classes)
        wanted = np.asarray(asked, bool)
        for j in set(range(m)) - {one.annotator for one in found}:
            could = int((wanted[:, j] & (np.delete(table, j, axis=1) != NONE).any(axis=1)).sum())
            hits, n = int(right[j]), int(given[j])
            why = _silence(hits, n, max(could, n), n_classes, 1 - (1 - level) / m)
            if n and why:
                found.append(Suspect(j, why, hits / n, n))
    return sorted(found, key=lambda one: (one.accuracy, one.annotator))


def _silence(hits: int, answered: int, wanted: int, n_classes: int, level: float) -> str:
    if answered == wanted or clopper_pearson(hits, wanted, level=level).high >= _useless(n_classes):
        return ""
    return f"gives no label to {1 - answered / wanted:.0%} of its items, and is right on {hits} of {wanted}"


def _useless(n_classes: int) -> float:
    """A fifth of the way from chance to perfect."""
    return 1 / n_classes + USELESS * (1 - 1 / n_classes)


def _shares(
    said: NDArray[np.float64],
    given: NDArray[np.bool_],
    probs: NDArray[np.float64],
    counts: NDArray[np.int64],
    smoothing: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confusion matrices and class balance that fit the probabilities best."""
    weighted = probs * counts[:, None]
    met = np.einsum("nc,njl->jcl", weighted, said) + smoothing
    seen = np.einsum("nc,nj->jc", weighted, given.astype(np.float64)) + smoothing * probs.shape[1]
    confusion = np.divide(met, seen[:, :, None], out=np.zeros_like(met), where=seen[:, :, None] > 0)
    return confusion, weighted.sum(axis=0) / max(float(weighted.sum()), 1.0)


def _fitted(
    overlap: NDArray[np.float64], balance: NDArray[np.float64], m: int, n_classes: int
) -> NDArray[np.float64]:
    """(m C, C) probabilities of each answer given each class, by Adam from `_START_ACCURACY`."""
    mu = np.clip(np.diag(overlap)[:, None] * (1 - _START_ACCURACY) / balance, 0, 1)
    own = np.arange(m * n_classes) % n_classes
    mu[np.arange(len(mu)), own] = np.clip(np.diag(overlap) * _START_ACCURACY / balance[own], 0, 1)
    first, second = np.zeros_like(mu), np.zeros_like(mu)
    for step in range(1, _STEPS + 1):
        found, rates = _residuals(mu, overlap, balance, m)
        slope = -4 * found @ mu * balance - 2 * rates[:, None] * -balance
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        rate = _RATE * (1 - step / _STEPS)
        mu = mu - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        mu = np.clip(mu, 0.0, 1.0)
    return mu


def _residuals(
    mu: NDArray[np.float64], overlap: NDArray[np.float64], balance: NDArray[np.float64], m: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What overlaps between different annotators, and rates of answers, leave unexplained."""
    size = len(mu) // m
    annotator = np.arange(len(mu)) // size
    found = np.where(annotator[:, None] != annotator, overlap - (mu * balance) @ mu.T, 0.0)
    return found, (mu * balance).sum(axis=1) - np.diag(overlap)


def _resolved(
    mu: NDArray[np.float64], balance: NDArray[np.float64], m: int, n_classes: int
) -> NDArray[np.float64]:
    """Columns in the order in which annotators are right most often: overlaps say nothing of names."""
    from scipy.optimize import linear_sum_assignment

    right = (mu.reshape(m, n_classes, n_classes)).sum(axis=0)  # (said, column)
    _, order = linear_sum_assignment(-right * balance)
    return np.asarray(mu[:, order])


def _one_hot(table: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    return np.asarray(table[:, :, None] == np.arange(n_classes), np.float64)


def _normalised(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _table(votes: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    table = np.asarray(votes)
    if table.ndim != 2 or (table.size and table.dtype.kind not in "iu"):
        raise ValueError(f"votes must be (n, m) whole numbers, got {table.dtype} {table.shape}.")
    if table.size and (table.min() < NONE or table.max() >= n_classes):
        raise ValueError(f"votes must lie in -1..{n_classes - 1}, got {table.min()}..{table.max()}.")
    return table.astype(np.int64)
