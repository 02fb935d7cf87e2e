"""People's answers in three parts: what optimisers learn from, choose on, and are judged on."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from llmal.errors import UserError
from llmal.records import Item, Labels, LabelSchema
from llmal.store.store import Store

Part = Literal["optimise", "validate", "report"]
PARTS: tuple[Part, ...] = get_args(Part)

SHARES = (0.3, 0.35, 0.35)
"""Of the answers, in the order of PARTS: most of them measure, since a prompt learns from few."""

FEWEST = 50
"""Answers below which an accuracy is noise: a 95 % interval on 50 is about 14 points either way."""


class Example(NamedTuple):
    """One item with what people said of it, and the ids its rows have in the corpus."""

    item: Item
    labels: Labels
    ids: tuple[str, ...] = ()


class Split(NamedTuple):
    """People's answers by part; no item is in two, and no item of the audit sample in any."""

    optimise: list[Example]
    validate: list[Example]
    report: list[Example]

    def sizes(self) -> dict[str, int]:
        """Part -> count."""
        return {part: len(getattr(self, part)) for part in PARTS}

    def digest(self) -> str:
        """Hash of which item is in which part: 16 hex digits."""
        keys = {part: sorted(e.item.key for e in getattr(self, part)) for part in PARTS}
        return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]


def answered(store: Store, schema: LabelSchema) -> list[Example]:
    """Items of the newest corpus that people answered, those of the audit sample left out, by `seq`.

    Gold of the corpus is for measuring only and is left out too.
    """
    said = store.answers(schema.names)
    wanted = sorted((set(said) & set(store.active())) - store.reserved())
    ids: dict[int, list[str]] = {}
    for row in store.rows():
        if row.item is not None and row.id is not None:
            ids.setdefault(row.item, []).append(str(row.id))
    return [Example(item, said[item.seq], tuple(ids.get(item.seq, ()))) for item in store.items(wanted)]


def split(
    examples: Sequence[Example],
    *,
    seed: int,
    shares: Sequence[float] = SHARES,
    kept: Mapping[str, str] | None = None,
) -> Split:
    """Three parts, each with its share of every label.

    Args:
        examples: people's answers.
        seed: of the order in which items are dealt out.
        shares: of the three parts, positive; their ratio counts.
        kept: item key -> part it was in before; there it stays, so that what a prompt once learnt from never
            measures it.

    Raises:
        UserError: a share is not positive, or too few answers to validate or report on.
    """
    if len(shares) != len(PARTS) or not all(share > 0 for share in shares):
        raise UserError(
            "three positive shares are needed", where="--share", hint="For example --share 0.3,0.35,0.35"
        )
    kept = kept or {}
    strata: dict[Labels, list[Example]] = {}
    for example in examples:
        strata.setdefault(example.labels, []).append(example)
    parts: dict[str, list[Example]] = {part: [] for part in PARTS}
    for labels in sorted(strata):
        _deal(strata[labels], seed, shares, kept, parts)
    made = Split(*(sorted(parts[part], key=lambda e: e.item.seq) for part in PARTS))
    _check_sizes(made, shares)
    return made


def _deal(
    stratum: list[Example],
    seed: int,
    shares: Sequence[float],
    kept: Mapping[str, str],
    parts: dict[str, list[Example]],
) -> None:
    """Each item to the part that lacks most, first of its own label, then in all."""
    of = dict(zip(PARTS, (share / sum(shares) for share in shares), strict=True))
    have: Counter[str] = Counter()
    for example in sorted(stratum, key=lambda e: (e.item.key not in kept, _order(seed, e))):
        part = kept.get(example.item.key)
        if part not in parts:
            n, total = have.total() + 1, 1 + sum(map(len, parts.values()))
            part = max(of, key=lambda p: (round(of[p] * n - have[p]), of[p] * total - len(parts[p])))
        have[part] += 1
        parts[part].append(example)


def _order(seed: int, example: Example) -> str:
    return hashlib.sha256(f"{seed} {example.item.key}".encode()).hexdigest()


def _check_sizes(made: Split, shares: Sequence[float]) -> None:
    short = {part: FEWEST - len(getattr(made, part)) for part in PARTS[1:]}
    if max(short.values()) > 0:
        part = max(short, key=lambda p: short[p])
        of = dict(zip(PARTS, shares, strict=True))
        missing = max(math.ceil(short[p] * sum(shares) / of[p]) for p in short)
        spare = len({e.labels for p in PARTS for e in getattr(made, p)})  # labels are dealt out one by one
        raise UserError(
            f"{FEWEST - short[part]} answers of people to {part} on, and fewer than {FEWEST} tell nothing",
            where="llmal compile",
            hint=f"About {missing + spare} more are needed outside the audit sample: `llmal review`",
        )
    if not made.optimise:
        raise UserError("no answer is left to learn from", where="--share", hint="Raise the first share")


def read_parts(path: Path) -> dict[str, str]:
    """Item key -> part, as kept in a run's folder; empty when nothing is."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def parts_of(made: Split) -> dict[str, str]:
    """Item key -> part, for keeping."""
    return {e.item.key: part for part in PARTS for e in getattr(made, part)}
