"""A watch over a stream raises false alarms no more often than it says, finds shifts, and can be kept."""

import numpy as np
import pytest

from llmal.stats import live as module
from llmal.stats.live import Live
from llmal.stats.watch import staked, stakes

EYE = np.eye(3, dtype=bool)


def world(rng, n, *, shift=0.0, shares=(0.6, 0.3, 0.1)):
    scores = np.round(rng.beta(6, 2, n) - shift, 2)  # rounded: ties
    return scores, EYE[rng.choice(3, n, p=shares)]


def alarm(seed, *, n=150, length=400, alpha=0.2, **shifted):
    rng = np.random.default_rng(seed)
    live = Live(*world(rng, n), alpha=alpha, seed=seed)
    return next((i for i, (s, has) in enumerate(zip(*world(rng, length, **shifted), strict=True))
                 if live.add(s, has)), None)  # fmt: skip


@pytest.fixture
def short_spans(monkeypatch):
    monkeypatch.setattr(module, "SPAN", 130)


def test_a_stream_that_does_not_change_is_left_alone(short_spans):
    """At most alpha of whole streams, over several spans; 60 streams at alpha 0.2: 12 expected at most."""
    assert sum(alarm(seed, length=300) is not None for seed in range(60)) <= 12 + 2 * 3.1


def test_a_watch_that_forgets_its_levels_would_be_found_out(monkeypatch):
    """Power of the test above: limits ten times too low are passed by most unchanged streams."""
    monkeypatch.setattr(Live, "limits", property(lambda self: np.full(4, 1.2)))
    assert sum(alarm(seed, length=300) is not None for seed in range(20)) > 12


@pytest.mark.parametrize("shifted", [{"shift": 0.25}, {"shares": (0.1, 0.3, 0.6)}], ids=["scores", "labels"])
def test_a_shift_is_found(shifted):
    found = [alarm(seed, alpha=0.05, **shifted) for seed in range(10)]
    assert all(at is not None for at in found), found
    assert np.median(found) < 120


def test_it_equals_the_alarm_on_whole_sequences():
    """The evidence on scores is the capital of `stream_alarm`'s bets on the very same ranks."""
    rng = np.random.default_rng(3)
    scores, labels = world(rng, 50)
    live = Live(scores, labels, alpha=0.05, seed=1)
    new, has = world(rng, 80)
    for s, h in zip(new, has, strict=True):
        live.add(s, h)
    chances, capital, seen = np.random.default_rng([1, 1, 0]), stakes(), sorted(scores)
    for s in new:
        below, ties = sum(x < s for x in seen), sum(x == s for x in seen)
        capital = staked(capital, (below + chances.random(4)[0] * (ties + 1)) / (len(seen) + 1))
        seen.append(s)
    assert live.evidence[0] == pytest.approx(capital.sum(), rel=1e-12)


def test_a_kept_state_goes_on_where_it_was():
    rng = np.random.default_rng(0)
    sample = world(rng, 40)
    live, again = (Live(*sample, alpha=0.05, seed=2) for _ in range(2))
    for s, h in zip(*world(rng, 25), strict=True):
        live.add(s, h)
    again.restore(live.state())
    assert again.n == 25
    assert (again.evidence == live.evidence).all()
    assert all(again.state()[k].tolist() == v.tolist() for k, v in live.state().items())


def test_what_is_held_stays_bounded(short_spans):
    live = Live([0.5] * 10, EYE[[0] * 10], alpha=1e-9, seed=0)
    for _ in range(300):
        live.add(0.5, EYE[0])
    assert (live.span, live.n) == (3, 40)
    assert len(live.state()["seen"]) == 50


@pytest.mark.parametrize(
    ("scores", "labels", "alpha"),
    [([], np.zeros((0, 2)), 0.1), ([0.1], np.zeros((2, 2)), 0.1), ([np.nan], np.zeros((1, 2)), 0.1)]
    + [([0.1], np.zeros((1, 2)), 0.0)],
)
def test_what_cannot_be_watched_is_refused(scores, labels, alpha):
    with pytest.raises(ValueError, match=r"."):
        Live(scores, labels, alpha=alpha, seed=0)


def test_the_state_of_another_sample_is_refused():
    live = Live([0.5] * 10, EYE[[0] * 10], alpha=0.1, seed=0)
    with pytest.raises(ValueError, match="another"):
        live.restore(Live([0.5] * 11, EYE[[0] * 11], alpha=0.1, seed=0).state())
