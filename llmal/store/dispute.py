"""What people hold together where they differ: the word that settles it, else all their words weighed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from llmal.records import Labels, Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIE = 1e-9
"""Logarithms of odds this near are equal: the newest word decides. Far above rounding, far below evidence."""

MOST = 2000
"""Items that people are judged by, at random where several people answered more: it takes 3 s where
there are 150 labels, and a person's confusion matrix is known far better than it has to be."""

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: multiples of it, modulo 2^64, lie as if drawn (Knuth, volume 3, 6.4)."""


def settled(words: Sequence[Word]) -> dict[int, Labels]:
    """Item -> labels that people hold together.

    Each item's is the word that settles its dispute, else the one that all gave, else the likeliest by
    `llmal.stats.crowd.consensus` over these words: of several labels an item, each by itself. Words that
    settle a dispute are taken as true there. A tie goes to the newest word.

    An item with one word says nothing on how good a person is, and may be left out beforehand.

    Args:
        words: at most one a person and item, and one more that settles it, oldest first.
    """
    of_item: dict[int, list[Word]] = {}
    found: dict[int, Labels] = {}
    for word in words:
        if word.adjudicates:
            found[word.item] = word.labels
        else:
            of_item.setdefault(word.item, []).append(word)
    closed = dict(found)
    torn = {s for s, said in of_item.items() if s not in closed and len({w.labels for w in said}) > 1}
    found |= {s: said[-1].labels for s, said in of_item.items() if s not in closed and s not in torn}
    if torn:
        said = [word for some in of_item.values() for word in some]
        single = all(len(labels) == 1 for labels in (*(w.labels for w in said), *closed.values()))
        found |= _single(said, torn, closed) if single else _multi(said, torn, closed)
    return found


def _single(words: Sequence[Word], torn: Collection[int], closed: Mapping[int, Labels]) -> dict[int, Labels]:
    names = sorted({w.labels[0] for w in words} | {labels[0] for labels in closed.values()})
    column = {name: i for i, name in enumerate(names)}
    votes = [(w.item, w.person, column[w.labels[0]]) for w in words]
    known = {s: column[labels[0]] for s, labels in closed.items()}
    return {s: (names[c],) for s, c in _likeliest(votes, torn, known, len(names)).items()}


def _multi(words: Sequence[Word], torn: Collection[int], closed: Mapping[int, Labels]) -> dict[int, Labels]:
    """Each label yes or no by itself; the labels keep the order in which people's words have them."""
    order = dict.fromkeys(name for w in words for name in w.labels)
    given: dict[int, list[set[str]]] = {}
    for w in words:
        if w.item in torn:
            given.setdefault(w.item, []).append(set(w.labels))
    yes: dict[int, set[str]] = {s: set.intersection(*sets) for s, sets in given.items()}
    open_: dict[str, set[int]] = {}
    for s, sets in given.items():
        for name in set.union(*sets) - yes[s]:
            open_.setdefault(name, set()).add(s)
    for name, items in open_.items():
        votes = [(w.item, w.person, int(name in w.labels)) for w in words]
        known = {s: int(name in labels) for s, labels in closed.items()}
        for s, held in _likeliest(votes, items, known, 2).items():
            if held:
                yes[s].add(name)
    return {s: tuple(name for name in order if name in held) for s, held in yes.items()}


def _likeliest(
    votes: Sequence[tuple[int, str, int]], wanted: Collection[int], known: Mapping[int, int], classes: int
) -> dict[int, int]:
    """Item -> its likeliest class by all votes (item, person, class), oldest first."""
    import numpy as np

    column = {person: j for j, person in enumerate(sorted({person for _, person, _ in votes}))}
    confusion, balance = _people(votes, column, known, classes)
    rows = {s: i for i, s in enumerate(sorted(wanted))}
    logs = np.tile(np.log(balance), (len(rows), 1))
    newest: dict[tuple[int, int], int] = {}
    for n, (item, person, label) in enumerate(votes):
        if item in rows:
            logs[rows[item]] += np.log(confusion[column[person], :, label])
            newest[item, label] = n
    found = {}
    for s, row in rows.items():
        best = np.flatnonzero(logs[row] >= logs[row].max() - TIE)
        found[s] = int(max(best, key=lambda c: newest.get((s, int(c)), -1)))
    return found


def _people(
    votes: Sequence[tuple[int, str, int]], column: Mapping[str, int], known: Mapping[int, int], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m, C, C) how each person answers and (C,) how frequent classes are, from `MOST` items at most."""
    import numpy as np

    from llmal.stats.crowd import consensus

    every = np.unique(np.array([item for item, _, _ in votes], np.int64))
    # By a lot that is the item's own: most of the draw stays while others come.
    lot = every.astype(np.uint64) * np.uint64(GOLDEN)
    rows = {int(s): i for i, s in enumerate(every[np.argsort(lot, kind="stable")[:MOST]])}
    some = [(rows[item], column[person], label) for item, person, label in votes if item in rows]
    item, person, label = np.array(some, np.int64).T
    truth = np.array([known.get(s, -1) for s in rows], np.int64)
    made = consensus(item, person, label, items=len(rows), people=len(column), classes=classes, known=truth)
    return made.confusion, made.balance
