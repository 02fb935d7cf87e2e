"""What many people with few answers each say together: Dawid-Skene, drawn towards what the crowd shares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NONE = -1
"""The class of an item that nobody knows for sure."""

START = 0.7
"""How often a person is right before anything is known of the crowd."""

FIRST = 20.0
"""Votes that `START` is worth against what the whole crowd shows."""

SKILL = 10.0
"""Votes that the crowd's mean skill is worth against a person's own."""

STRENGTH = 60.0
"""Votes in a row that a matrix made from skill and the crowd's errors is worth against a person's own."""

EVEN = 2000.0
"""Votes in a row that errors spread evenly are worth against the errors that the whole crowd makes."""

BALANCED = 0.5
"""Share of an even balance in the one that items have: with two or three votes an item, which class is rare
and which is hardly ever recognised look alike."""

STEPS = 200
"""Of expectation maximisation, at most."""

TOLERANCE = 1e-4
"""Stops when no probability moves by more."""

_LEAST = 1e-6  # of a machine's probability: a machine that is sure still has one voice only
_TINY = 1e-300  # keeps log(0) finite: e^-690


class Crowd(NamedTuple):
    """What people together say, and how each answers.

    Attributes:
        probs: (n, C) of each item, rows sum to 1; an item without a vote has the balance, or the machine's.
        confusion: (m, C, C), `confusion[j, c, l]` is how often person j answers l when c is true.
        balance: (C,) share of each class, as far as the votes tell, drawn half way to even.
    """

    probs: NDArray[np.float64]
    confusion: NDArray[np.float64]
    balance: NDArray[np.float64]


def consensus(
    item: ArrayLike,
    person: ArrayLike,
    label: ArrayLike,
    *,
    items: int,
    people: int,
    classes: int,
    known: ArrayLike | None = None,
    model: ArrayLike | None = None,
) -> Crowd:
    """Consensus and every person's confusion matrix, where a person may have few votes.

    Three levels, each drawn towards the one above: a person's confusion matrix; the one that the person's
    skill and the crowd's errors make; the crowd's mean skill with errors spread evenly. Somebody with three
    votes counts as an average person, and somebody with three thousand as what they show. The machine, where
    given, is one voice more, to the power between 0 and 1 at which it fits the consensus best.

    The constants were chosen on votes of 400 people on 2,050 sentences and on 13 simulated crowds, in none of
    which it loses to the majority beyond noise; `tests/benchmarks/crowd.py` has the figures.

    Args:
        item: (k,) int in 0..items - 1.
        person: (k,) int in 0..people - 1; at most one vote for each item and person.
        label: (k,) int in 0..classes - 1, what that person answered there.
        items: n.
        people: m.
        classes: C, at least 1.
        known: (n,) int, answers that are taken as true, -1 where there is none.
        model: (n, C) a machine's probabilities, from a model that has not learnt from the item.

    Returns:
        The same for the votes in any order. Nothing is of the size of items by people.

    Raises:
        ValueError: shapes differ, something is out of its range, or a person votes twice on an item.

    Source: Dawid & Skene 1979; people under a crowd as in Kim & Ghahramani 2012 and Paun et al. 2018
    ("hierarchical"), by maximum a posteriori; the machine as one more annotator: Goh et al. 2022 (CROWDLAB).
    """
    votes = _votes(item, person, label, items=items, people=people, classes=classes)
    truth = _known(known, items, classes)
    fixed = truth != NONE
    anchor = (truth[:, None] == np.arange(classes)).astype(np.float64)
    machine = None if model is None else _machine(model, items, classes)
    # An item with one voice says what that voice says and nothing on how good it is.
    learns = (np.bincount(votes.item, minlength=items) > 1) | fixed | (machine is not None)
    power, balance = 0.0, np.full(classes, 1 / classes)
    confusion = np.broadcast_to(_even(START, classes), (people, classes, classes))
    probs = np.zeros((items, classes))
    for _ in range(STEPS):
        new = _posterior(votes, confusion, np.log(balance) + _voice(machine, power), items)
        new[fixed] = anchor[fixed]
        moved = float(np.abs(new - probs).max(initial=0.0))
        probs = new
        if moved < TOLERANCE:
            break
        confusion = _confusion(votes, probs, learns, people)
        share = probs[learns].sum(axis=0) + 1.0
        balance = BALANCED / classes + (1 - BALANCED) * share / share.sum()
        power = 0.0 if machine is None else _power(machine, probs, power)
    return Crowd(probs, np.array(confusion), balance)


class _Votes(NamedTuple):
    """Triples (k,) sorted by item, then person."""

    item: NDArray[np.int64]
    person: NDArray[np.int64]
    label: NDArray[np.int64]


def _votes(
    item: ArrayLike, person: ArrayLike, label: ArrayLike, *, items: int, people: int, classes: int
) -> _Votes:
    parts = [np.asarray(x) for x in (item, person, label)]
    if len({x.shape for x in parts}) > 1 or parts[0].ndim != 1:
        raise ValueError(f"votes must be (k,) alike, got {[x.shape for x in parts]}.")
    for name, x, size in zip(("item", "person", "label"), parts, (items, people, classes), strict=True):
        if x.size and x.dtype.kind not in "iu":
            raise ValueError(f"{name} must be whole numbers, got {x.dtype}.")
        if x.size and (x.min() < 0 or x.max() >= size):
            raise ValueError(f"{name} must lie in 0..{size - 1}, got {x.min()}..{x.max()}.")
    i, j, said = (x.astype(np.int64) for x in parts)
    order = np.lexsort((j, i))
    i, j, said = i[order], j[order], said[order]
    if ((np.diff(i) == 0) & (np.diff(j) == 0)).any():
        raise ValueError("a person has at most one vote on an item, got two.")
    return _Votes(i, j, said)


def _known(known: ArrayLike | None, items: int, classes: int) -> NDArray[np.int64]:
    truth = np.full(items, NONE) if known is None else np.asarray(known)
    if truth.shape != (items,) or (items and truth.dtype.kind not in "iu"):
        raise ValueError(f"known must be ({items},) whole numbers, got {truth.dtype} {truth.shape}.")
    if items and (truth.min() < NONE or truth.max() >= classes):
        raise ValueError(f"known must lie in -1..{classes - 1}, got {truth.min()}..{truth.max()}.")
    return truth.astype(np.int64)


def _machine(model: ArrayLike, items: int, classes: int) -> NDArray[np.float64]:
    """(n, C) logarithms of the machine's probabilities."""
    probs = np.asarray(model, np.float64)
    if probs.shape != (items, classes):
        raise ValueError(f"model must be {(items, classes)}, got {probs.shape}.")
    if not np.isfinite(probs).all() or (probs < 0).any():
        raise ValueError("model must hold probabilities, got a negative or missing one.")
    return np.asarray(np.log(np.maximum(probs, _LEAST)))


def _voice(machine: NDArray[np.float64] | None, power: float) -> NDArray[np.float64]:
    """What the machine says of each item over what it says on average, as logarithms."""
    if machine is None or not machine.size:
        return np.zeros((1, 1))
    said = power * machine
    return np.asarray(said - np.log(_softmax(said).mean(axis=0)))


def _power(machine: NDArray[np.float64], probs: NDArray[np.float64], power: float) -> float:
    """One Newton step towards the power at which the machine fits the consensus best, in 0..1."""
    said = _softmax(power * machine)
    mean = (said * machine).sum(axis=1)
    slope = float(((probs * machine).sum(axis=1) - mean).sum())
    bend = float(((said * machine**2).sum(axis=1) - mean**2).sum())
    return float(np.clip(power + slope / max(bend, _LEAST), 0.0, 1.0))


def _posterior(
    votes: _Votes, confusion: NDArray[np.float64], prior: NDArray[np.float64], items: int
) -> NDArray[np.float64]:
    """(n, C) probabilities of each item's classes from its votes; `prior` (n or 1, C) as logarithms."""
    logs = np.array(np.broadcast_to(prior, (items, confusion.shape[1])))
    if len(votes.item):
        said = np.log(np.maximum(confusion, _TINY))[votes.person, :, votes.label]
        first = np.flatnonzero(np.diff(votes.item, prepend=-1))
        logs[votes.item[first]] += np.add.reduceat(said, first, axis=0)
    return _softmax(logs)


def _confusion(
    votes: _Votes, probs: NDArray[np.float64], learns: NDArray[np.bool_], people: int
) -> NDArray[np.float64]:
    """(m, C, C) confusion matrices that fit the probabilities, each level drawn to the one above."""
    classes = probs.shape[1]
    own = learns[votes.item]
    cell = votes.person[own] * classes + votes.label[own]
    weight = probs[votes.item[own]]
    met = np.empty((people, classes, classes))
    for c in range(classes):
        counts = np.bincount(cell, weights=weight[:, c], minlength=people * classes)
        met[:, c] = counts.reshape(people, classes)
    crowd = met.sum(axis=0)
    mean = float((np.trace(crowd) + FIRST * START) / (crowd.sum() + FIRST))
    shared = crowd + EVEN * _even(mean, classes)
    shared /= shared.sum(axis=1, keepdims=True)
    right = np.trace(met, axis1=1, axis2=2)
    skill = (right + SKILL * mean) / (met.sum(axis=(1, 2)) + SKILL)
    met += STRENGTH * _skilled(shared, skill / (1 - skill) * (1 - mean) / mean)
    return np.asarray(met / met.sum(axis=2, keepdims=True))


def _skilled(shared: NDArray[np.float64], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, C, C) the shared matrix with the odds of a right answer multiplied by each person's (m,)."""
    own = np.repeat(shared[None], len(odds), axis=0)
    c = np.arange(len(shared))
    own[:, c, c] *= odds[:, None]
    return np.asarray(own / own.sum(axis=2, keepdims=True))


def _even(right: float, classes: int) -> NDArray[np.float64]:
    """(C, C) of people who are right that often and whose errors go everywhere alike."""
    if classes == 1:
        return np.ones((1, 1))
    wrong = (1 - right) / (classes - 1)
    return np.full((classes, classes), wrong) + (right - wrong) * np.eye(classes)


def _softmax(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
