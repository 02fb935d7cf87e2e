"""Facility location against apricot: the same rows and gains, and the defaults of stochastic greedy."""

import numpy as np
import pytest

from llmal.select import facility_location
from llmal.select.facility_location import FacilityLocation
from llmal.select.stage import Pool


@pytest.fixture(scope="module")
def peer():
    """The package, without compiling: it does so at import (5 s) and again for every fit (1 to 2 s)."""
    numba = pytest.importorskip("numba")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        yield pytest.importorskip("apricot")


def rng(seed=0):
    return np.random.default_rng(seed)


def topics(n=400, dim=8, seed=0):
    """Unit rows around ten directions, of unequal size."""
    draw = rng(seed)
    topic = draw.choice(10, n, p=np.arange(1, 11) / 55)
    x = draw.normal(size=(10, dim))[topic] + 0.5 * draw.normal(size=(n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def similarity(vectors):
    x = np.asarray(vectors, np.float64)
    return (1 + x @ x.T) / 2


def value(vectors, rows):
    """What facility location maximises, over all rows."""
    return similarity(vectors)[:, rows].max(axis=1).sum()


def pool(vectors, labelled=()):
    labelled = np.array(labelled, np.int64)
    return Pool(vectors, np.setdiff1d(np.arange(len(vectors)), labelled), labelled, None, 3)


def theirs(peer, vectors, k, **options):
    return peer.FacilityLocationSelection(k, metric="precomputed", **options).fit(similarity(vectors))


@pytest.mark.parametrize("kept", [10_000, 10], ids=["similarities kept", "similarities made anew"])
def test_lazy_greedy_picks_the_same_rows_for_the_same_gains(peer, monkeypatch, kept):
    monkeypatch.setattr(facility_location, "KEPT_ROWS", kept)
    vectors = topics()
    chosen = FacilityLocation().select(pool(vectors), 30, rng())
    other = theirs(peer, vectors, 30, optimizer="lazy")
    assert chosen.rows.tolist() == other.ranking.tolist()
    assert chosen.scores == pytest.approx(other.gains, rel=1e-4)


def test_labelled_rows_count_as_chosen(peer):
    vectors = topics(seed=1)
    first = theirs(peer, vectors, 30, optimizer="lazy").ranking.tolist()
    rest = FacilityLocation().select(pool(vectors, labelled=sorted(first[:10])), 20, rng())
    assert rest.rows.tolist() == first[10:]


def test_stochastic_greedy_looks_at_22_times_the_candidates_of_the_peers_default(peer, monkeypatch):
    """Mirzasoleiman et al. 2015 draw (n / k) ln(1 / eps) candidates a step.

    At our eps = 0.1 that is 2.3 n / k; the peer's default of 0.9 makes it 0.105 n / k.
    """
    looked = {"ours": [], "theirs": []}
    gains = facility_location._gains
    monkeypatch.setattr(facility_location, "EXACT_ROWS", 399)

    def ours(judged, served, candidates):
        looked["ours"].append(len(candidates))
        return gains(judged, served, candidates)

    class Spied(peer.FacilityLocationSelection):
        def _calculate_gains(self, X, idxs=None):
            looked["theirs"].append(len(idxs))
            return super()._calculate_gains(X, idxs)

    def spied(**options):
        looked["theirs"].clear()
        Spied(10, metric="precomputed", optimizer="stochastic", random_state=0, **options).fit(
            similarity(vectors)
        )
        return looked["theirs"]

    vectors = topics()
    monkeypatch.setattr(facility_location, "_gains", ours)
    FacilityLocation().select(pool(vectors), 10, rng())
    assert looked["ours"] == [93] * 10  # 400 / 10 * ln 10, rounded up
    assert spied() == [4] * 10
    assert spied(optimizer_kwds={"epsilon": 0.1}) == [92] * 10  # the same formula, rounded down


def test_stochastic_greedy_reaches_nine_tenths_of_lazy_and_more_than_the_peers_default(peer, monkeypatch):
    monkeypatch.setattr(facility_location, "EXACT_ROWS", 300)
    vectors = topics(seed=2)
    best = value(vectors, theirs(peer, vectors, 10, optimizer="lazy").ranking)
    ours = [value(vectors, FacilityLocation().select(pool(vectors), 10, rng(s)).rows) for s in range(10)]
    weak = [
        value(vectors, theirs(peer, vectors, 10, optimizer="stochastic", random_state=s).ranking)
        for s in range(10)
    ]
    assert min(ours) >= 0.9 * best
    assert np.mean(ours) > np.mean(weak)
    assert best - np.mean(ours) < 0.5 * (best - np.mean(weak)), "at least half of what the default loses"
