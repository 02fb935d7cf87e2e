"""Which items several people answer: by lot, so that nobody can tell them from the others."""

from __future__ import annotations

from collections.abc import Collection


def chosen(items: Collection[int], share: float, seed: int, before: Collection[int] = ()) -> set[int]:
    """The items with the smallest lots, that share of all to within one.

    What was chosen once stays chosen while it is among the items; the same items and seed, the same choice.

    Args:
        items: to choose from, each once.
        share: in [0, 1].
        seed: of the run.
        before: chosen when there were fewer items.
    """
    kept = set(before).intersection(items)
    more = round(share * len(items)) - len(kept)
    if more > 0:
        kept.update(by_lot([item for item in items if item not in kept], seed)[:more])
    return kept


def by_lot(items: Collection[int], seed: int) -> list[int]:
    """Items in the order of their lots: the same item and seed, the same lot.

    Source: Steele, Lea & Flood 2014 (SplitMix64's finalizer).
    """
    import numpy as np

    seqs = np.fromiter(items, np.uint64, len(items))
    start = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    lot = seqs * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        lot = (lot ^ (lot >> np.uint64(shift))) * np.uint64(factor)
    lot ^= lot >> np.uint64(31)
    return [int(seqs[at]) for at in np.lexsort((seqs, lot))]
