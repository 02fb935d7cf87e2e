"""Certified on average alone: conformal risk control of what is accepted and wrong, among everything."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from llmal.route.certifying import Certifying, Floats, Truth
from llmal.stats.certificate import Certificate
from llmal.stats.certify import risk_control


class RiskControl(Certifying):
    """Among everything, accepted and wrong at most 1 - target, on average over audit samples.

    The weakest promise and the widest coverage: about every second run may miss the target by a little, and
    `delta` plays no part. See `Certifying` for the texts that it is about.
    Source: Angelopoulos, Bates, Fisch, Lei & Schuster 2024.
    """

    on: Literal["everything"] = Field(
        "everything", description="people's answers included; there is no such promise about the rest alone"
    )

    def fewest(self, delta: float) -> int:
        """Audited items that are enough when all are right."""
        return math.ceil(round(1 / (1 - self.target), 9)) - 1 or 1

    def certify(self, scores: Floats, right: Truth, *, delta: float, grid: Floats | None) -> Certificate:
        """The certificate of a sample; its thresholds are the sample's own."""
        return risk_control(scores, right, target=self.target, delta=delta, on=self.on)
