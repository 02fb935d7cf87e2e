"""Certified by a fixed sequence of tests: the most coverage of the ways that promise for nearly every run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from llmal.route.certifying import Certifying, Floats, Truth
from llmal.stats.certificate import Certificate, fewest
from llmal.stats.certify import fixed_sequence


class Certified(Certifying):
    """Thresholds are tested from strict to lax; a few starts share delta, each goes on until a test fails.

    See `Certifying` for what is promised. `binomial` is exact and needs the fewest answers; `betting` needs
    two to three times as many. Source: Angelopoulos, Bates, Candes, Jordan & Lei 2021; Bauer 1991;
    Wiens 2003; Waudby-Smith & Ramdas 2024.
    """

    version: ClassVar[int] = 2  # 1 had a single start, which in a large sample was too thin

    test: Literal["binomial", "betting"] = Field("binomial", description="how one threshold is tested")

    def fewest(self, delta: float) -> int:
        """Audited items that can pass the test at this delta when all are right."""
        return fewest(self.target, delta, self.test)

    def certify(self, scores: Floats, right: Truth, *, delta: float, grid: Floats | None) -> Certificate:
        """The certificate of a sample."""
        return fixed_sequence(
            scores, right, target=self.target, delta=delta, on=self.on, test=self.test, grid=grid
        )
