"""Curves of a sample: what each share accepted is worth, and what each confidence is worth."""

import numpy as np
import pytest

from llmal.stats.calibration import expected_calibration_error
from llmal.stats.curves import reliability, risk_coverage
from llmal.stats.intervals import wilson


def sample(seed, n=300, ties=True):
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    return (np.round(scores, 1) if ties else scores), rng.random(n) < scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_every_point_is_what_counting_gives(seed, ties):
    scores, right = sample(seed, ties=ties)
    points = risk_coverage(scores, right, most=1000)
    assert len(points) == len(np.unique(scores))
    for p in points:
        over = scores >= p.at_least
        assert p.coverage == pytest.approx(over.mean())
        assert p.accuracy == wilson(int(right[over].sum()), int(over.sum()))


def test_the_order_of_the_rows_does_not_matter():
    scores, right = sample(1)
    turned = np.random.default_rng(2).permutation(len(scores))
    assert risk_coverage(scores, right) == risk_coverage(scores[turned], right[turned])
    assert reliability(scores, right) == reliability(scores[turned], right[turned])


def test_a_long_curve_is_thinned_and_still_ends_with_everything():
    scores, right = sample(3, n=20_000, ties=False)
    points = risk_coverage(scores, right, most=200)
    assert 100 < len(points) <= 200
    assert points[-1].coverage == 1.0
    assert points[0].accuracy.n == 1
    assert max(np.diff([p.coverage for p in points])) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_the_bins_are_those_of_the_calibration_error(seed):
    scores, right = sample(seed)
    bins = reliability(scores, right, bins=5)
    gap = sum(b.accuracy.n * abs(b.confidence - b.accuracy.value) for b in bins) / len(scores)
    assert gap == pytest.approx(expected_calibration_error(scores, right, bins=5))
    assert sum(b.accuracy.n for b in bins) == len(scores)
    assert all(a.high < b.low for a, b in zip(bins, bins[1:], strict=False))


def test_one_confidence_for_all_is_one_point_and_one_bin():
    assert len(risk_coverage([0.7] * 9, [True] * 9)) == len(reliability([0.7] * 9, [True] * 9)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: risk_coverage([], []),
        lambda: risk_coverage([0.1], [True], most=1),
        lambda: reliability([0.1], [True], bins=0),
        lambda: reliability([0.1], [1]),
    ],
)
def test_senseless_arguments_are_refused(call):
    with pytest.raises(ValueError, match=r"at least|bool|needs"):
        call()
