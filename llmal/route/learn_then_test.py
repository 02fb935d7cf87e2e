"""Certified by a grid of tests that share delta: for a student that errs where it is surest."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from llmal.route.certifying import Certifying, Floats, Truth
from llmal.stats.certificate import GRID, Certificate, fewest
from llmal.stats.certify import learn_then_test


class LearnThenTest(Certifying):
    """Sixteen thresholds, each tested at an equal share of delta; the most lax that passes is the bar.

    See `Certifying` for what is promised. A stretch of confident errors does not stop it, as it stops
    `certified`; it needs more answers. Source: Angelopoulos, Bates, Candes, Jordan & Lei 2021.
    """

    test: Literal["binomial", "betting"] = Field("binomial", description="how one threshold is tested")

    def fewest(self, delta: float) -> int:
        """Audited items that can pass the test at this delta when all are right."""
        return fewest(self.target, delta / GRID, self.test)

    def certify(self, scores: Floats, right: Truth, *, delta: float, grid: Floats | None) -> Certificate:
        """The certificate of a sample."""
        some = None if grid is None else np.unique(np.quantile(grid, np.linspace(0, 1, GRID), method="lower"))
        return learn_then_test(
            scores, right, target=self.target, delta=delta, on=self.on, test=self.test, grid=some
        )
