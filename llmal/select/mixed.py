"""A portfolio: several strategies take turns, and chance always has its share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field, model_validator

from llmal.plugins import slot
from llmal.select.prc import turns
from llmal.select.stage import Pool, Selection, Selector


class Mixed(Selector):
    """Strategies in turns, each with its share of the picks, and some at random. Source: ours.

    No strategy is best everywhere, and none shows from its own picks where it is blind; the random share
    does, and bounds what a bad member can cost. Each member is asked for the whole batch as if it were alone
    and gives its best row not yet taken at each of its turns, so members do not keep apart from one another's
    picks. Scores are places in the batch: those of different members cannot be compared. The random share is
    exact in the long run: a batch too small for a whole pick gets one with that chance.
    """

    of: tuple[slot("select"), ...] = Field(  # type: ignore[valid-type]
        min_length=1, description="the strategies, each a name or a mapping with `use`"
    )
    shares: tuple[float, ...] = Field((), description="weight of each strategy; none given: equal weights")
    random: float = Field(0.1, ge=0, le=1, description="share of all picks drawn uniformly, whoever is best")

    @model_validator(mode="after")
    def _one_a_member(self) -> Mixed:
        if self.shares and len(self.shares) != len(self.of):
            raise ValueError(
                f"{len(self.shares)} shares for {len(self.of)} strategies; give one each or none"
            )
        if not all(0 < share < float("inf") for share in self.shares):
            raise ValueError("every share must be above 0; leave the strategy out instead")
        return self

    @property
    def needs_probs(self) -> bool:  # type: ignore[override]
        """Whether any member needs a student."""
        return any(member.needs_probs for member in self.of)

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows in turns."""
        k = min(k, len(pool.unlabelled))
        by_chance = turns(k, self.random, rng.random())
        drawn = iter(rng.permutation(pool.unlabelled).tolist())
        lists = [member.select(pool, k, rng) for member in self.of]
        offers = [iter(zip(one.rows.tolist(), one.reasons, strict=True)) for one in lists]
        whose = in_turn(self.shares or (1.0,) * len(self.of))
        picked: dict[int, str] = {}
        for chance in by_chance:
            if chance:
                row = next(r for r in drawn if r not in picked)
                picked[row] = f"drawn at random (share {self.random:g})"
            else:
                member = next(whose)
                row, why = next(offer for offer in offers[member] if offer[0] not in picked)
                picked[row] = f"{self.of[member].name}: {why}"
        places = 1 - np.arange(k) / max(k, 1)
        return Selection(np.array(list(picked), np.int64), places, list(picked.values()))


def in_turn(shares: tuple[float, ...]) -> Iterator[int]:
    """Members without end, always the one furthest behind its share; ties to the first."""
    part = np.array(shares, np.float64) / np.sum(shares)
    had = np.zeros(len(part))
    while True:
        due = int((part * (had.sum() + 1) - had).argmax())
        had[due] += 1
        yield due
