"""Whose answers are in doubt: people who answer by chance, always one class, or against the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmal.stats.crowd import Crowd, consensus

HALF = 0.5
"""Whoever reads less than this share of the items that the others read is named."""

SKILLS = np.linspace(0, 1, 101)
"""Skills that are looked at: the share of items that somebody reads; on the rest they draw a label at random,
each as often as they use it."""

ONE_CLASS = 0.9
"""Share of somebody's answers from which on they are said to answer one class."""

USUAL = 0.8
"""Share of the same items that the others give that class, from which on it is no fault."""

SETTLED = 30
"""Steps after which the share of each class fits the answers. `consensus` keeps it half way to even, which
would make rare classes likelier than they are and honest people look blind to them."""

_LEAST = 1e-12  # keeps log(0) finite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Suspect(NamedTuple):
    """An annotator whose answers are worth nothing, or less.

    Attributes:
        annotator: number of the person, or column of the votes.
        why: in words.
        accuracy: share of its votes that are the consensus of the others, with `votes` as n.
        votes: how many could be compared.
    """

    annotator: int
    why: str
    accuracy: float
    votes: int


def doubtful_people(
    item: ArrayLike,
    person: ArrayLike,
    label: ArrayLike,
    *,
    people: int,
    classes: int,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    least: float | None = None,
) -> list[Suspect]:
    """People whose answers have less than half as much to do with the items as the others' have.

    Somebody's skill is the share of items that they read; on the rest they draw a label as often as they use
    it. So 95 % agreement is no merit where 95 % of the items are of one class, nor is answering that class a
    fault. Each is held against the classes that the others' answers make likely, and somebody is named when
    the whole likelihood interval of their skill lies below half of the others' mean skill. The intervals hold
    at `level` for all people together. Nobody is named where fewer than three share items: of two who
    disagree, nothing tells which is wrong.

    In 1,000 simulated worlds of 3 or 5 honest people, and 300 of 20, somebody is named in at most 5 %, a
    careful minority with a reading of its own included. Of three classes with 30 shared items each and two
    words an item, one bad person who answers one class or against the others is named in more than 85 % of
    the worlds (one class among three people: 60 %); who draws labels at random needs 100 items for 70 to 80 %
    (`tests/unit/stats/test_people.py`, marked slow).

    Args:
        item: (k,) int.
        person: (k,) int in 0..people - 1; at most one word for each item and person.
        label: (k,) int in 0..classes - 1; or (k, C) bool sets, which are compared label by label
            where anybody gives it; together they weigh as one item.
        people: m.
        classes: C.
        names: (C,) of the classes, for the words; their numbers when absent.
        level: of the intervals together, in (0, 1).
        least: skill below which somebody is named; half of the others' when absent.

    Returns:
        The worst first.

    Raises:
        ValueError: lengths differ, something is out of its range, or a person votes twice on an item.

    Source: reading or drawing: Hovy et al. 2013 (MACE); the interval by likelihood ratio: Wilks 1938.
    """
    words = _shared(np.asarray(item), np.asarray(person), np.asarray(label), classes)
    given = np.bincount(words.person, minlength=people)
    if (given > 0).sum() < 3:
        return []
    found = consensus(
        words.item, words.person, words.label, items=words.items, people=people, classes=words.classes
    )
    others = _others(words, found)
    skill, high = _skill(words, others, people, 1 - (1 - level) / int((given > 0).sum()))
    out = []
    for j in np.flatnonzero(given):
        rest = (given > 0) & (np.arange(people) != j)
        if high[j] < (HALF * float(skill[rest].mean()) if least is None else least):
            out.append(_suspect(int(j), words, others, names))
    return sorted(filter(None, out), key=lambda one: (one.accuracy, one.annotator))


def against_others(
    item: ArrayLike, person: ArrayLike, label: ArrayLike, *, people: int, classes: int
) -> tuple[Ints, Ints]:
    """(m,) words that are the consensus of the others, and (m,) words that could be compared.

    Arguments and errors as those of `doubtful_people`, without sets.
    """
    words = _shared(np.asarray(item), np.asarray(person), np.asarray(label), classes)
    found = consensus(
        words.item, words.person, words.label, items=words.items, people=people, classes=words.classes
    )
    right = _others(words, found).argmax(axis=1) == words.label
    return np.bincount(words.person[right], minlength=people), np.bincount(words.person, minlength=people)


class _Words(NamedTuple):
    """Words (k,) on items that two or more answered; of a set, one for each label that anybody gives there.

    Attributes:
        item: 0..items - 1.
        person: who.
        label: of 0..classes - 1.
        weight: the words of somebody on an item sum to 1.
        items: how many.
        classes: how many; 2 for sets.
        single: not sets.
    """

    item: Ints
    person: Ints
    label: Ints
    weight: Floats
    items: int
    classes: int
    single: bool


def _shared(item: Ints, person: Ints, label: NDArray[np.int64] | NDArray[np.bool_], classes: int) -> _Words:
    if item.ndim != 1 or item.shape != person.shape or label.shape[:1] != item.shape or label.ndim > 2:
        raise ValueError(f"words must be (k,) alike, got {item.shape}, {person.shape}, {label.shape}.")
    _, place, given = np.unique(item, return_inverse=True, return_counts=True)
    kept = given[place] > 1
    _, item = np.unique(place[kept], return_inverse=True)
    person, label = person[kept].astype(np.int64), label[kept]
    n = int(item.max(initial=-1)) + 1
    if label.ndim == 1:
        said = label.astype(np.int64)
        return _Words(item, person, said, np.ones(len(item)), n, classes, True)
    row, column = np.nonzero(label)
    cells = np.unique(item[row] * classes + column)
    # A word on every cell of its item: items and cells are sorted alike, so each item's cells lie together.
    cells_of = np.bincount(cells // classes, minlength=n)
    first = np.concatenate([[0], np.cumsum(cells_of)])
    many = cells_of[item]
    word = np.repeat(np.arange(len(item)), many)
    cell = np.repeat(first[item], many) + np.arange(len(word)) - np.repeat(np.cumsum(many) - many, many)
    said = label[word, cells[cell] % classes].astype(np.int64)
    return _Words(cell, person[word], said, 1 / many[word], len(cells), 2, False)


def _others(words: _Words, found: Crowd) -> Floats:
    """(k, C) probabilities of each word's item from all words on it but this one.

    How good the others are is learnt with everybody in: three people less one are two, of whom nothing could
    tell the better, and an honest third would be held against the wrong one.
    """
    said = np.log(np.maximum(found.confusion, _LEAST))[words.person, :, words.label]
    together = np.zeros((words.items, words.classes))
    for c in range(words.classes):
        together[:, c] = np.bincount(words.item, weights=said[:, c], minlength=words.items)
    share = found.balance
    for _ in range(SETTLED):
        share = _softmax(together + np.log(np.maximum(share, _LEAST))).mean(axis=0)
    return _softmax(together[words.item] - said + np.log(np.maximum(share, _LEAST)))


def _softmax(logs: Floats) -> Floats:
    odds = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _skill(words: _Words, others: Floats, people: int, level: float) -> tuple[Floats, Floats]:
    """(m,) mean skill with all skills alike likely before, and the upper end of its likelihood interval."""
    from scipy.stats import chi2  # type: ignore[import-untyped, unused-ignore]

    used = np.bincount(words.person * words.classes + words.label, minlength=people * words.classes)
    share = used.reshape(people, words.classes) + 1 / words.classes
    share /= share.sum(axis=1, keepdims=True)
    drawn = share[words.person, words.label]
    read = others[np.arange(len(others)), words.label]
    likely = np.empty((people, len(SKILLS)))
    for i, skill in enumerate(SKILLS):
        each = np.log(np.maximum(skill * read + (1 - skill) * drawn, _LEAST))
        likely[:, i] = np.bincount(words.person, weights=each * words.weight, minlength=people)
    likely -= likely.max(axis=1, keepdims=True)
    weight = np.exp(likely)
    inside = likely >= -chi2.ppf(1 - 2 * (1 - level), 1) / 2
    high = SKILLS[len(SKILLS) - 1 - inside[:, ::-1].argmax(axis=1)]
    return np.asarray(weight @ SKILLS / weight.sum(axis=1)), high


def _suspect(j: int, words: _Words, others: Floats, names: Sequence[str] | None) -> Suspect | None:
    mine = words.person == j
    said, read = words.label[mine], others[mine].argmax(axis=1)
    weight = words.weight[mine]
    n = round(float(weight.sum()))
    right = float(np.average(said == read, weights=weight))
    hits = round(right * n)
    one = int(np.bincount(said).argmax())
    if words.single and (said == one).mean() >= ONE_CLASS:
        if (read == one).mean() > USUAL:
            return None
        name = names[one] if names else str(one)
        why = f"answers {name} to {(said == one).mean():.0%} of its items; the others, to " + (
            f"{(read == one).mean():.0%} of the same"
        )
    elif right < _by_chance(said, read, words.classes, weight) - 1 / np.sqrt(n):
        why = f"answers against the others: right on {hits} of {n}, below chance"
    else:
        why = f"hardly better than chance: right on {hits} of {n}"
    return Suspect(j, why, right, n)


def _by_chance(said: Ints, read: Ints, classes: int, weight: Floats) -> float:
    """Share of agreement that the two sides' shares of each class give by chance."""
    sides = [np.bincount(x, weights=weight, minlength=classes) / weight.sum() for x in (said, read)]
    return float(sides[0] @ sides[1])
