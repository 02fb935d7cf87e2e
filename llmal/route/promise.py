"""A promise about people's answers: what a router may accept without them, its facts and its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from llmal.records import Labels
from llmal.stats.certificate import On

Tier = Literal["student", "llm"]
"""A machine that may answer."""


class Bar(NamedTuple):
    """From which confidence a machine answers.

    Attributes:
        tier: which machine.
        label: its answer that the bar is about; None: any answer that has no bar of its own.
        threshold: in [0, 1]; it answers at this confidence or more, in double precision; None: never.
        n: audited items that it answers by this bar.
        coverage: their share of the audited items.
    """

    tier: Tier
    label: str | None
    threshold: float | None
    n: int = 0
    coverage: float = 0.0


class Promise(NamedTuple):
    """What is promised about the items that machines answer; kept as one certificate of the run.

    Attributes:
        by: name of the router.
        target: accuracy asked for, in (0, 1).
        delta: share of runs in which any of the run's promises may be broken.
        on: see `llmal.stats.certificate.On`.
        bars: who answers from which confidence; all without a threshold where nothing is certified.
        issue: the how-manieth test on answers of the audit sample in this run; 0: none was made, because so
            few answers cannot pass it, and nothing of delta is spent.
        spent: share of delta at which this test was made.
        audited: audit items with people's answers it rests on.
        n: those among them that a machine answers.
        coverage: their share.
        bound: accuracy promised; 0 where nothing is certified.
        more: about how many more answers on audit items are needed; 0 where something is certified, None
            where no number would do.
        expected: the promise is about the average over samples.
        outside: items of the corpus the promise is not about: the student learnt from them.
        at_worst: accuracy promised among what is left of the corpus, had all that was picked from it been
            what the machine would have got right; None where that is not reckoned.
        withdrawn: why the run's last promise ended, where this one stands in its place and promises nothing.
        words: all of it in sentences for people.
    """

    by: str
    target: float
    delta: float
    on: On
    bars: tuple[Bar, ...] = ()
    issue: int = 0
    spent: float = 0.0
    audited: int = 0
    n: int = 0
    coverage: float = 0.0
    bound: float = 0.0
    more: int | None = None
    expected: bool = False
    outside: int = 0
    at_worst: float | None = None
    withdrawn: str | None = None
    words: str = ""

    @property
    def holds(self) -> bool:
        """Whether anything is promised."""
        return any(bar.threshold is not None for bar in self.bars)

    def threshold(self, tier: Tier, labels: Labels) -> float | None:
        """From which confidence this answer of a machine is accepted; None: it never is."""
        mine = {bar.label: bar.threshold for bar in self.bars if bar.tier == tier}
        return mine.get(labels[0] if len(labels) == 1 else None, mine.get(None))

    def facts(self) -> str:
        """As JSON; `of_facts` reads it back."""
        return json.dumps({**self._asdict(), "bars": [bar._asdict() for bar in self.bars]})


def of_facts(facts: str | Mapping[str, Any]) -> Promise:
    """The promise that `Promise.facts` wrote; keys that are unknown here are left out."""
    found = dict(json.loads(facts)) if isinstance(facts, str) else dict(facts)
    bars = tuple(Bar(**{k: bar[k] for k in Bar._fields if k in bar}) for bar in found.pop("bars"))
    return Promise(**{k: v for k, v in found.items() if k in Promise._fields}, bars=bars)
