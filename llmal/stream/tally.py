"""What a stream's summary says: rows by source, and how often students say what the model would."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmal.stats.intervals import wilson
from llmal.stream.cascade import LEVELS, Verdict

LLM = "llm"
NONE = "none"
"""Source of a row that nobody gave a label."""


@dataclass
class Tally:
    """Counts of one stream.

    Attributes:
        rows: in all.
        sources: source -> rows.
        errors: why a row has no label -> rows.
        weight, agreed, squares: sums over rows asked about by chance, each standing for as many as its chance
            says: of that weight, of the weight of those where the students had said the same, of its square.
        tried: rows asked about by chance.
    """

    rows: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    weight: float = 0.0
    agreed: float = 0.0
    squares: float = 0.0
    tried: int = 0

    def count(self, source: str, error: str | None) -> None:
        """One row more."""
        self.rows += 1
        self.sources[source] = self.sources.get(source, 0) + 1
        if error:
            reason = error.split(":")[0]
            self.errors[reason] = self.errors.get(reason, 0) + 1

    def explored(self, verdict: Verdict, places: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        """Take the model's answers (k,) about a block: those asked by chance tell what students are worth."""
        chance = verdict.chance[places]
        by_chance = chance < 1
        w = 1 / chance[by_chance]
        same = verdict.label[places][by_chance] == labels[by_chance]
        self.weight += float(w.sum())
        self.agreed += float(w[same].sum())
        self.squares += float((w * w).sum())
        self.tried += int(by_chance.sum())

    def agreement(self) -> dict[str, Any] | None:
        """How often rows get the model's label: those students answered, and all with a label.

        Rows asked about by chance are a random sample of those students may answer, so the share is unbiased;
        with unequal chances it is a ratio of weighted sums, and its interval has Kish's number of rows for n.

        Returns:
            None before anything was asked by chance.

        Source: Hajek 1971; Kish 1965; Wilson 1927.
        """
        if not self.tried:
            return None
        share, n = self.agreed / self.weight, self.weight**2 / self.squares
        whole = max(1, round(n))
        students = wilson(round(share * whole), whole)
        by_students = sum(self.sources.get(f"student:{name}", 0) for name in LEVELS)
        labelled = by_students + self.sources.get(LLM, 0)
        part = by_students / max(1, labelled)
        return {
            "students": {"value": share, "low": students.low, "high": students.high, "n": self.tried},
            "output": {
                "value": 1 - part * (1 - share),
                "low": 1 - part * (1 - students.low),
                "high": 1 - part * (1 - students.high),
                "n": self.tried,
            },
        }

    def as_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)
