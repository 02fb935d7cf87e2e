"""ActiveLab's scores: what one more label is worth, on one scale for rows with labels and rows without."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-6
"""Weights and error rates are taken for at least this."""

SMALLEST = 1e-30
"""Probabilities are taken for at least this, so that a logarithm is there."""

TEMPERATURES = (0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 3.0, 5.0, 8.0)
"""Looked at first; then four steps to the neighbour on each side of the best."""

Votes = NDArray[np.int64]
Probs = NDArray[np.float64]


class Scores(NamedTuple):
    """Lower means a label is worth more, in [0, 1].

    Attributes:
        labelled: (l,) for one label more.
        unlabelled: (u,) for a first label.
        label: (l,) the class that annotators and model together hold for right.
        model_weight: of the model's word, where an annotator's is about 1.
    """

    labelled: NDArray[np.float64]
    unlabelled: NDArray[np.float64]
    label: NDArray[np.int64]
    model_weight: float


def scores(votes: Votes, probs: Probs, unlabelled: Probs, *, temperature: float | None = None) -> Scores:
    """Scores from votes and the model's word.

    Where some row has two votes, probabilities are sharpened or flattened to fit the votes, and annotators
    and model are weighed by how much better they are than always saying the commonest class; else all weigh
    the same. A tie of votes goes to the model, then to the rarer class, then to the better annotators.

    Args:
        votes: (l, m) class each annotator gave, -1 for none; at least one a row and one a column.
        probs: (l, C) the model's probabilities, learnt without the row: with others the model's weight is
            too large.
        unlabelled: (u, C) the same for rows without votes.
        temperature: to use where some row has two votes; the best one when absent.

    Source: Goh & Mueller 2023 (ActiveLab), Goh et al. 2022 (CROWDLAB). Equal to `get_active_learning_scores`
    of cleanlab 2.9.0 at the same temperature. Its own search counts a row's votes in the first columns
    whatever their classes are, so it flattens what should be sharpened; here they are counted by class.
    """
    classes = unlabelled.shape[1]
    given = (votes >= 0).sum(axis=1)
    if not len(votes):
        return Scores(np.zeros(0), (unlabelled.max(axis=1) + 1 / classes) / 2, np.zeros(0, np.int64), 1.0)
    several = bool((given > 1).any())
    if not several:
        temperature = 1.0
    elif temperature is None:
        temperature = best_temperature(votes, probs)
    probs = tempered(probs, temperature) if several else probs
    label = majority(votes, probs)
    weight, model = np.ones(votes.shape[1]), 1.0
    quality = probs[np.arange(len(label)), label]
    if several:
        first = posterior(votes, probs, label)
        tied = (first.probs == first.probs.max(axis=1, keepdims=True)).sum(axis=1) > 1
        label = np.where(tied, label, first.probs.argmax(axis=1))
        last = posterior(votes, probs, label)
        weight, model = last.weight, last.model
        quality = last.probs[np.arange(len(label)), label]
    said = (votes >= 0) @ weight + model
    mean = weight.mean()
    return Scores(
        (quality * said + mean / classes) / (said + mean),
        (tempered(unlabelled, temperature).max(axis=1, initial=0) * model + mean / classes) / (model + mean),
        label,
        model,
    )


def counts(votes: Votes, classes: int) -> NDArray[np.float64]:
    """(l, C) votes for each class."""
    return np.stack([(votes == c).sum(axis=1) for c in range(classes)], axis=1).astype(np.float64)


def majority(votes: Votes, probs: Probs) -> NDArray[np.int64]:
    """(l,) the class with most votes; a tie still left at the end goes to the first class."""
    count = counts(votes, probs.shape[1])
    left = _best(count, np.ones_like(count, bool))
    left = _best(probs, left)
    left = _best(np.broadcast_to(-count.sum(axis=0), count.shape), left)
    label = np.asarray(left.argmax(axis=1), np.int64)
    tied = left.sum(axis=1) > 1
    if tied.any():
        sure = (count == count.max(axis=1, keepdims=True)).sum(axis=1) == 1
        right = np.where(votes[sure] >= 0, votes[sure] == label[sure, None], np.nan)
        skill = _means(right)
        skill = np.where(np.isnan(skill), skill[~np.isnan(skill)].mean() if sure.any() else 0.0, skill)
        by = (votes[:, :, None] == np.arange(probs.shape[1])) * skill[None, :, None]
        mean = by.sum(axis=1) / np.maximum(count, 1)
        label = np.where(tied, _best(mean, left).argmax(axis=1), label)
    return label


def _best(value: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the classes that are left have the highest value of those."""
    value = np.where(among, value, -np.inf)
    return np.asarray(value == value.max(axis=1, keepdims=True))


def _means(right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m,) column means over what is there; NaN where nothing is."""
    there = ~np.isnan(right)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, right, 0).sum(axis=0) / there.sum(axis=0))


class Posterior(NamedTuple):
    """(l, C) what annotators and model say together, (m,) annotators' weights and the model's."""

    probs: Probs
    weight: NDArray[np.float64]
    model: float


def posterior(votes: Votes, probs: Probs, label: NDArray[np.int64]) -> Posterior:
    """Weighted mean of the model's word and each vote's likelihood, given the labels held for right.

    Raises:
        ValueError: no row has two votes.
    """
    classes = probs.shape[1]
    given = (votes >= 0).sum(axis=1)
    several = given > 1
    if not several.any():
        raise ValueError("no row has two votes, so no annotator can be weighed")
    agree = float(((votes == label[:, None]).sum(axis=1) / given)[several].mean())
    common = np.bincount(label[several], minlength=classes).argmax()
    chance = max(float((label[several] != common).mean()), LEAST)
    weight = np.maximum(1 - (1 - agreement(votes)) / chance, LEAST)
    wrong = float((probs[several].argmax(axis=1) != label[several]).mean())
    model = max(1 - wrong / chance, LEAST) * float(np.sqrt(given.mean()))
    there = votes >= 0
    total = probs * model
    for c in range(classes):
        likely = np.where(votes == c, agree, (1 - agree) / max(classes - 1, 1))
        total[:, c] += (there * likely) @ weight
    return Posterior(total / (there @ weight + model)[:, None], weight, model)


def agreement(votes: Votes) -> NDArray[np.float64]:
    """(m,) share of others' votes that agree with an annotator's; the mean of all where there are none."""
    others = (votes >= 0).sum(axis=1) - 1
    out = np.full(votes.shape[1], np.nan)
    for j in range(votes.shape[1]):
        rows = (votes[:, j] >= 0) & (others > 0)
        if rows.any():
            same = (votes[rows] == votes[rows, j : j + 1]).sum(axis=1) - 1
            out[j] = same.sum() / others[rows].sum()
    return np.where(np.isnan(out), out[~np.isnan(out)].mean(), out)


def best_temperature(votes: Votes, probs: Probs) -> float:
    """The temperature at which the model's word fits the votes best, by cross-entropy."""
    share = counts(votes, probs.shape[1])
    share /= share.sum(axis=1, keepdims=True)

    def loss(temperature: float) -> float:
        return float(-(share * np.log(np.maximum(tempered(probs, temperature), SMALLEST))).sum(axis=1).mean())

    at = int(np.argmin([loss(x) for x in TEMPERATURES]))
    finer = []
    if at:
        finer += np.linspace(TEMPERATURES[at - 1], TEMPERATURES[at], 4, endpoint=False).tolist()
    if at < len(TEMPERATURES) - 1:
        finer += np.linspace(TEMPERATURES[at], TEMPERATURES[at + 1], 5).tolist()
    return float(finer[int(np.argmin([loss(x) for x in finer]))])


def tempered(probs: Probs, temperature: float) -> Probs:
    """Rows of probabilities to the power 1 / temperature, summing to 1."""
    probs = np.maximum(probs, SMALLEST)
    log = np.log(probs / probs.sum(axis=1, keepdims=True)) / temperature
    odds = np.exp(log - log.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
