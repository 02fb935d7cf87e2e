"""ActiveLab's scores against cleanlab, with all votes, with gaps, and with one vote a row."""

from types import SimpleNamespace

import numpy as np
import pytest

from llmal.select import activelab
from llmal.select.activelab import ActiveLab
from llmal.select.crowdlab import best_temperature, scores
from llmal.select.stage import Pool


@pytest.fixture(scope="module")
def peer():
    """The package, imported only when one of these tests runs: pandas comes with it, a second or two."""
    return pytest.importorskip("cleanlab.multiannotator")


def answers(seed, *, voters=4, gaps=0.0):
    """Random votes, probabilities that know something of the truth, and those of rows without votes."""
    draw = np.random.default_rng(seed)
    classes = int(draw.integers(2, 6))
    truth = draw.integers(classes, size=60)
    wrong = draw.random((60, voters)) < draw.uniform(0.1, 0.5, size=voters)
    votes = np.where(wrong, draw.integers(classes, size=(60, voters)), truth[:, None])
    votes[draw.random((60, voters)) < gaps] = -1
    votes[(votes < 0).all(axis=1), 0] = 0
    odds = draw.uniform(0, 3) * np.eye(classes)[truth] + draw.gamma(1, size=(60, classes))
    return votes, odds / odds.sum(axis=1, keepdims=True), draw.dirichlet(np.ones(classes), size=9)


def with_nan(votes):
    """The votes as the peer wants them where some are missing: floats, NaN for none."""
    return np.where(votes < 0, np.nan, votes.astype(float))


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_the_peers_where_everybody_voted(peer, seed):
    votes, probs, unlabelled = answers(seed)
    labelled, rest = peer.get_active_learning_scores(votes, probs, unlabelled)
    found = scores(votes, probs, unlabelled)
    assert found.labelled == pytest.approx(labelled, abs=1e-9)
    assert found.unlabelled == pytest.approx(rest, abs=1e-9)


@pytest.mark.parametrize("gaps", [0.3, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_the_peers_with_gaps_at_its_temperature(peer, seed, gaps):
    votes, probs, unlabelled = answers(seed, voters=5, gaps=gaps)
    temperature = peer.find_best_temp_scaler(with_nan(votes), probs)
    labelled, rest = peer.get_active_learning_scores(with_nan(votes), probs, unlabelled)
    found = scores(votes, probs, unlabelled, temperature=temperature)
    assert found.labelled == pytest.approx(labelled, abs=1e-9)
    assert found.unlabelled == pytest.approx(rest, abs=1e-9)
    crowd = peer.get_label_quality_multiannotator(
        with_nan(votes),
        peer.temp_scale_pred_probs(probs, temperature),
        return_weights=True,
        return_annotator_stats=False,
    )
    assert found.label.tolist() == crowd["label_quality"]["consensus_label"].tolist()
    assert found.model_weight == pytest.approx(crowd["model_weight"], abs=1e-9)


@pytest.mark.parametrize("voters", [1, 3])
def test_scores_are_the_peers_with_one_vote_a_row(peer, voters):
    votes, probs, unlabelled = answers(3, voters=voters)
    votes[np.arange(voters) != np.arange(60)[:, None] % voters] = -1
    labelled, rest = peer.get_active_learning_scores(with_nan(votes), probs, unlabelled)
    found = scores(votes, probs, unlabelled)
    assert found.labelled == pytest.approx(labelled, abs=1e-9)
    assert found.unlabelled == pytest.approx(rest, abs=1e-9)


def test_without_votes_the_students_word_is_scored_as_the_peer_does(peer):
    _, probs, unlabelled = answers(1)
    _, rest = peer.get_active_learning_scores(pred_probs_unlabeled=unlabelled)
    found = scores(np.zeros((0, 4), np.int64), probs[:0], unlabelled)
    assert found.unlabelled == pytest.approx(rest, abs=1e-9)


def test_the_temperature_does_not_depend_on_how_votes_are_written_as_the_peers_does(peer):
    """Votes as floats, as they are once one is missing, are counted by the peer in the wrong columns.

    Two votes for the last of three classes become two for the first, and a model that is right looks wrong:
    the peer flattens it (7.25) where the same votes as integers sharpen it (0.1). Ours counts by class.
    """
    votes, probs = np.full((6, 2), 2), np.tile([0.05, 0.05, 0.9], (6, 1))
    assert peer.find_best_temp_scaler(votes, probs) == pytest.approx(0.1)
    assert peer.find_best_temp_scaler(votes.astype(float), probs) == pytest.approx(7.25)
    assert best_temperature(votes, probs) == pytest.approx(0.1)
    for seed in range(4):
        votes, probs, _ = answers(seed)
        assert best_temperature(votes, probs) == pytest.approx(peer.find_best_temp_scaler(votes, probs))


def test_rows_picked_and_rows_to_look_at_again_are_those_of_lowest_score(peer, monkeypatch):
    votes, probs, unlabelled = answers(2)
    labelled, rest = peer.get_active_learning_scores(votes, probs, unlabelled)
    monkeypatch.setattr(activelab, "cross_fitted", lambda *_: probs)  # what the peer was given too
    some = Pool(
        np.zeros((69, 2), np.float32),
        unlabelled=np.arange(60, 69),
        labelled=np.arange(60),
        probs=np.concatenate([probs, unlabelled]),
        n_classes=probs.shape[1],
        sources=SimpleNamespace(votes=lambda: votes),  # all it may look up
    )
    chosen = ActiveLab().select(some, 5, np.random.default_rng(0))
    assert chosen.rows.tolist() == (60 + np.argsort(rest)[:5]).tolist()
    lower = np.flatnonzero(labelled < np.sort(rest)[4])
    assert list(chosen.again) == lower[np.argsort(labelled[lower])][:5].tolist()
    assert len(chosen.again) > 0
