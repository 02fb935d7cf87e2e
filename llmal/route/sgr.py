"""Certified by halving the range of thresholds: selection with guaranteed risk."""

from __future__ import annotations

from llmal.route.certifying import Certifying, Floats, Truth
from llmal.stats.certificate import Certificate, fewest
from llmal.stats.certify import sgr


class Sgr(Certifying):
    """Each of the log2 n halvings is tested at its share of delta.

    See `Certifying` for what is promised; here it is proven where accuracy does not rise again as the bar
    falls. Source: Geifman & El-Yaniv 2017.
    """

    def fewest(self, delta: float) -> int:
        """Audited items that can pass the test at this delta when all are right."""
        n = 1
        while n < (wanted := fewest(self.target, delta / n.bit_length())):
            n = wanted
        return n

    def certify(self, scores: Floats, right: Truth, *, delta: float, grid: Floats | None) -> Certificate:
        """The certificate of a sample; its thresholds are the sample's own."""
        return sgr(scores, right, target=self.target, delta=delta, on=self.on)
