"""Which level answers each row of a stream, and what all levels learn from the model's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.stream.alarm import Alarm
from llmal.stream.deferral import Calibrated, Records, enough_for, no_records, share_of_calls
from llmal.stream.levels import COLUMNS, FEWEST_NEW, GROWTH, Level, Memory, chances
from llmal.stream.logistic import Floats
from llmal.stream.nets import Nets

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEVELS = ("hashed", "encoder")
"""Students, the cheapest first."""

STRENGTHS = (3.0, 1.0)
"""Inverse ridges: of babe's and hate18's recorded answers, those that foretold later answers best."""

RULES = ("calibrated", "nets")

EARLY = 0.25
"""Share of the risk borne that the first level may bear alone; else the encoder speaks too: it is cheap."""

RECENT = 500
"""Rows whose risks say where a share or a quality lies."""

PAY_BACK = 1000
"""Rows over which calls beyond the share, those of the warm-up first of all, are saved again."""

FEWEST = 24
"""Answers that students have to be tried on before they answer."""

FADED = 0.2
"""Weight of what was learnt before a change was noticed."""

KEPT_BEFORE = 100
"""Answers before the alarm that are taken to come from after the change."""

ALERT_ROWS = 500
"""Rows after an alarm during which more is asked by chance."""

ALERT_EXPLORE = 0.1
"""Chance of asking in those."""


class Options(NamedTuple):
    """How much the model is asked.

    Attributes:
        mu: ask where the chance of another answer than the model's is above this: a call's price in labels
            that differ.
        share: ask about this share of rows instead; `mu` has no say then.
        quality: ask so that this share of rows gets the model's label; neither has a say then.
        explore: chance of asking about a row that students would answer.
        warmup: answers of the model before any student answers.
        rule: `calibrated`, or the published networks, for which mu is the price of a unit of cost.
        seed: of everything random.
    """

    mu: float = 0.1
    share: float | None = None
    quality: float | None = None
    explore: float = 0.02
    warmup: int = 64
    rule: str = "calibrated"
    seed: int = 0


class Verdict(NamedTuple):
    """What is decided about a block of n rows.

    Attributes:
        asked: (n,) whether the model is to answer.
        chance: (n,) chance that it was to be asked: 1 where the rule asks, less where chance does.
        label: (n,) class that the students would give, -1 where they are not to answer yet.
        level: (n,) index of the student that answers.
        risk: (n,) chance that the model would say otherwise (by the published rule its network's output); 1
            where students cannot answer.
        tables: (n, L, C) what each level says, not a number where it was not asked.
    """

    asked: NDArray[np.bool_]
    chance: Floats
    label: NDArray[np.int64]
    level: NDArray[np.int64]
    risk: Floats
    tables: NDArray[np.float32]


class Cascade:
    """Students that learn from a model's answers while they answer in its place.

    Source: Nie et al. 2024 (online cascade learning). Ours: features without a vocabulary, replay of what was
    learnt, a calibrated rule, chances that never fall below a floor, and an alarm for changes.

    Args:
        options: how much to ask.
        n_classes: C.
        width: of the encoder's vectors.
    """

    def __init__(self, options: Options, n_classes: int, width: int) -> None:
        self.options, self.n_classes = options, n_classes
        widths = (COLUMNS, width)
        self.levels = [
            Level(name, strength, np.zeros((d + 1, n_classes), np.float32))
            for name, strength, d in zip(LEVELS, STRENGTHS, widths, strict=True)
        ]
        self.memory = Memory()
        self.records = no_records(len(LEVELS), n_classes)
        nets = options.rule == "nets"
        self.rule: Calibrated | Nets = (
            Nets(len(LEVELS), n_classes, mu=options.mu, seed=options.seed)
            if nets
            else Calibrated(len(LEVELS), n_classes)
        )
        self.alarm = Alarm()
        self.recent = np.zeros(0)
        self.rows = self.answered = self.learnt_at = self.faded_before = self.alert_until = 0
        self.alarms: list[int] = []

    @property
    def taught(self) -> bool:
        """Whether students have learnt anything: then they can answer where the model may not be asked."""
        return self.learnt_at > 0

    @property
    def ready(self) -> bool:
        """Whether the warm-up is over: enough answers, students taught and tried on some."""
        tried = self.memory.turn >= self.options.warmup and len(self.records.labels) >= FEWEST
        return tried and self.taught

    @property
    def explore(self) -> float:
        """Chance of asking about a row that students would answer."""
        chance = self.options.explore
        if isinstance(self.rule, Nets):
            chance = max(chance, 0.9**self.rule.steps)
        return max(chance, ALERT_EXPLORE) if self.rows < self.alert_until and chance else chance

    def judge(
        self,
        grams: csr_matrix,
        vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        *,
        paid: bool = True,
    ) -> Verdict:
        """Decide about the next rows; nothing is learnt.

        Args:
            grams: (n, COLUMNS) hashed rows.
            vectors: gives the encoder's vectors (k, d) of rows by their place in the block, for those wanted.
            paid: whether the model may be asked at all.
        """
        n = grams.shape[0]
        tables = np.full((n, len(LEVELS), self.n_classes), np.nan, np.float32)
        if not self.taught:
            ones = np.ones(n)
            return Verdict(np.full(n, paid), ones, np.full(n, -1), np.zeros(n, np.int64), ones, tables)
        tables[:, 0] = self.levels[0].probabilities(grams)
        label, risk = self.rule.says([tables[:, 0]])
        by_chance = chances(self.options.seed, self.rows, n, salt=1) < self.explore
        limit = self._limit() if self.ready and len(self.recent) else None
        stops = np.zeros(n, np.bool_)
        if limit is not None:
            stops = risk <= (limit if isinstance(self.rule, Nets) else EARLY * limit)
        on = np.flatnonzero(~stops | by_chance)
        tables[on, 1] = self.levels[1].probabilities(vectors(on))
        further = np.flatnonzero(~stops)
        label[further], risk[further] = self.rule.says([tables[further, 0], tables[further, 1]])
        level = np.where(stops, 0, 1)
        if not self.ready:
            return Verdict(np.full(n, paid), np.ones(n), label, level, risk, tables)
        if limit is None:
            limit = self._limit(risk)
        wanted = ~stops & (risk > limit)
        self.recent = np.concatenate([self.recent, risk])[-RECENT:]
        chance = np.where(wanted, 1.0, self.explore)
        return Verdict((wanted | by_chance) & paid, chance, label, level, risk, tables)

    def learn(
        self,
        verdict: Verdict,
        places: NDArray[np.int64],
        labels: NDArray[np.int64],
        grams: csr_matrix,
        vectors: NDArray[np.float32],
    ) -> None:
        """Take the model's answers about rows just judged, and go on to the next rows.

        Args:
            verdict: of the block.
            places: (k,) rows in the block that the model gave a label.
            labels: (k,) classes.
            grams: (n, COLUMNS) hashed rows of the block.
            vectors: (k, d) of the rows answered.
        """
        n, self.rows = len(verdict.asked), self.rows + len(verdict.asked)
        self.answered += int(verdict.asked.sum())
        if self.taught and len(places):
            said = verdict.tables[places], labels, verdict.chance[places], np.ones(len(places))
            self.records = self.records.joined(Records(*said))
            wrong = verdict.label[places] != labels
            told = isinstance(self.rule, Calibrated)  # what a network puts out is no chance of anything
            if (
                told
                and self.ready
                and self.alarm.see(verdict.risk[places], wrong, verdict.chance[places] < 1)
            ):
                self._alert(n)
            self.rule.learn(self.records)
        self.memory.take(grams[places], vectors, labels, self.options.seed)
        self._teach()

    def _teach(self) -> None:
        new, n = self.memory.turn - self.learnt_at, len(self.memory.rows)
        if new < max(FEWEST_NEW, GROWTH * n) or n < 2:
            return
        y, turns = self.memory.labels(), self.memory.turns()
        if len(np.unique(y)) < 2:
            return
        w = np.where(turns < self.faded_before, FADED, 1.0)
        for level, x in zip(self.levels, (self.memory.grams(), self.memory.vectors()), strict=True):
            level.learn(x, y, w)
        self.learnt_at = self.memory.turn

    def _alert(self, n: int) -> None:
        """Something changed: what is older weighs less, and more is asked by chance."""
        self.alarms.append(self.rows - n)
        self.alert_until = self.rows + ALERT_ROWS
        self.faded_before = max(0, self.memory.turn - KEPT_BEFORE)
        w = self.records.weights.copy()
        w[:-KEPT_BEFORE] *= FADED
        self.records = self.records._replace(weights=w)

    def _limit(self, risks: Floats | None = None) -> float:
        """The risk above which the model is asked."""
        o = self.options
        if isinstance(self.rule, Nets):
            return 0.5
        recent = self.recent if risks is None else risks
        if o.quality is not None:
            return enough_for(recent, o.quality)
        if o.share is None:
            return o.mu
        now = o.share + (o.share * self.rows - self.answered) / PAY_BACK
        return share_of_calls(recent, min(1.0, (now - self.explore) / max(1 - self.explore, 1e-9)))
