"""ActiveLab: worked scores, ties, the oracle, what is looked at again, and why folds are needed."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from llmal.errors import UserError
from llmal.select.activelab import ActiveLab, cross_fitted
from llmal.select.crowdlab import agreement, best_temperature, majority, posterior, scores, tempered
from llmal.select.stage import Pool
from llmal.testing.contracts.select import MadeSources

VOTES = np.array([[0, 0, -1], [1, 1, 1], [2, -1, 2], [0, 1, -1], [1, -1, -1], [-1, 2, 2]])
PROBS = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.1, 0.8, 0.1],
        [0.2, 0.2, 0.6],
        [0.45, 0.45, 0.1],
        [0.3, 0.4, 0.3],
        [0.1, 0.1, 0.8],
    ]
)
NEW = np.array([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


class Voted(MadeSources):
    """Sources with the votes a test gives."""

    def __init__(self, votes):
        super().__init__(np.zeros((1, 3), np.float32), np.zeros(0, np.int64), 3)
        self._votes = votes

    def votes(self):
        return self._votes


# --- the scores


def test_scores_with_several_votes_are_the_worked_ones():
    # cleanlab 2.9.0 on these votes; 7.25 is the temperature its own search ends at.
    found = scores(VOTES, PROBS, NEW, temperature=7.25)
    assert found.labelled == pytest.approx(
        [0.574316, 0.646286, 0.590730, 0.395821, 0.469876, 0.602451], abs=1e-5
    )
    assert found.unlabelled == pytest.approx([0.393706, 0.339059], abs=1e-5)
    assert found.label.tolist() == [0, 1, 2, 0, 1, 2]


def test_scores_with_one_vote_each_are_the_worked_ones():
    found = scores(np.array([0, 1, 2, 0, 1, 2])[:, None], PROBS, NEW)
    assert found.labelled == pytest.approx(
        [0.644444, 0.644444, 0.511111, 0.411111, 0.377778, 0.644444], abs=1e-5
    )
    assert found.unlabelled == pytest.approx([0.616667, 0.366667], abs=1e-5)


def test_without_votes_the_model_alone_decides():
    found = scores(np.zeros((0, 0), np.int64), np.zeros((0, 3)), NEW)
    assert found.labelled.shape == (0,)
    assert found.unlabelled == pytest.approx((NEW.max(axis=1) + 1 / 3) / 2)


def test_temperature_is_that_of_the_smallest_cross_entropy():
    draw = rng(1)
    truth = draw.integers(3, size=200)
    votes = np.where(draw.random((200, 3)) < 0.7, truth[:, None], draw.integers(3, size=(200, 3)))
    fair = np.full((200, 3), 0.1) + 0.7 * np.eye(3)[truth]
    share = np.stack([(votes == c).mean(axis=1) for c in range(3)], axis=1)

    def loss(temperature):
        return -(share * np.log(tempered(fair**3, temperature))).sum()

    best = best_temperature(votes, tempered(fair, 1 / 3))
    grid = np.linspace(0.1, 8, 500)
    assert abs(best - grid[np.argmin([loss(x) for x in grid])]) <= 0.25
    assert best_temperature(votes, tempered(fair, 3)) < 1 < best


def test_ties_go_to_the_model_then_the_rarer_class_then_the_better_annotators():
    model = np.array([[0.2, 0.5, 0.3]])
    assert majority(np.array([[0, 1]]), model).tolist() == [1]
    votes = np.array([[0, 1, -1], [0, 0, -1], [2, 2, -1]])
    assert majority(votes, np.full((3, 3), 1 / 3)).tolist() == [1, 0, 2]
    # As many 0 as 1 in all; the third annotator always agreed with the majority, the second never did.
    votes = np.array([[-1, 0, 1], [1, 0, 1], [0, 1, 0]])
    assert majority(votes, np.full((3, 2), 0.5)).tolist() == [1, 1, 0]


def test_weights_are_those_above_always_saying_the_commonest_class():
    assert agreement(VOTES) == pytest.approx([0.8, 0.8, 1.0])
    found = posterior(VOTES, PROBS, np.array([0, 1, 2, 0, 1, 2]))
    chance = 3 / 5
    assert found.weight == pytest.approx(1 - (1 - np.array([0.8, 0.8, 1.0])) / chance)
    assert found.model == pytest.approx(np.sqrt(2))
    assert found.probs.sum(axis=1) == pytest.approx(np.ones(6))
    with pytest.raises(ValueError, match="no row has two votes"):
        posterior(np.array([[0], [1]]), PROBS[:2], np.array([0, 1]))


def random_case(seed):
    draw = rng(seed)
    classes, n, m = int(draw.integers(2, 6)), int(draw.integers(5, 60)), int(draw.integers(2, 6))
    truth = draw.integers(classes, size=n)
    votes = np.where(draw.random((n, m)) < 0.65, truth[:, None], draw.integers(classes, size=(n, m)))
    votes = np.where(draw.random((n, m)) < draw.choice([0.3, 0.6, 0.8]), -1, votes)
    nobody = (votes < 0).all(axis=1)
    votes[nobody, 0] = truth[nobody]
    odds = np.eye(classes)[truth] * draw.uniform(0, 3) + draw.gamma(1, size=(n, classes))
    new = draw.dirichlet(np.ones(classes), size=9)
    return votes[:, (votes >= 0).any(axis=0)], odds / odds.sum(axis=1, keepdims=True), new


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.filterwarnings("ignore")
def test_scores_equal_cleanlabs_at_the_same_temperature(seed, capsys):
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    utils = pytest.importorskip("cleanlab.internal.multiannotator_utils")
    votes, probs, new = random_case(seed)
    given = np.where(votes < 0, np.nan, votes.astype(float))
    found = scores(votes, probs, new, temperature=utils.find_best_temp_scaler(given, probs))
    labelled, unlabelled = multiannotator.get_active_learning_scores(given, probs, new)
    assert found.labelled == pytest.approx(labelled, abs=1e-9)
    assert found.unlabelled == pytest.approx(unlabelled, abs=1e-9)


# --- the strategy


def noisy(seed, *, n=100, noise=0.3, classes=3, d=6, annotators=3):
    """Vectors, truth and what every annotator would say, wrong with the chance of `noise`."""
    draw = rng(seed)
    centres = 1.6 * unit(draw.normal(size=(classes, d)))

    def made(size):
        truth = draw.integers(classes, size=size)
        return unit(centres[truth] + 0.7 * draw.normal(size=(size, d))), truth

    vectors, truth = made(n)
    wrong = (truth[:, None] + draw.integers(1, classes, size=(n, annotators))) % classes
    say = np.where(draw.random((n, annotators)) < noise, wrong, truth[:, None])
    return vectors, truth, say, made(1500)


def pool_of(vectors, votes, probs, **more):
    known = (votes >= 0).any(axis=1)
    return Pool(
        vectors,
        np.flatnonzero(~known),
        np.flatnonzero(known),
        probs,
        probs.shape[1],
        sources=Voted(votes[known]),
        **more,
    )


def half_voted(seed=0):
    vectors, truth, say, _ = noisy(seed)
    votes = np.where(rng(seed).random(say.shape) < 0.6, say, -1)
    votes[50:] = -1
    votes[:50, 0] = say[:50, 0]
    probs = rng(seed + 1).dirichlet(np.ones(3), size=100)
    return pool_of(vectors, votes, probs), votes


def test_the_lowest_scores_are_picked_and_doubtful_labels_put_forward():
    pool, votes = half_voted()
    chosen = ActiveLab().select(pool, 10, rng(5))
    probs = cross_fitted(pool.vectors[:50], votes[:50], 3, rng(5))
    found = scores(votes[:50], probs, pool.probs[50:])
    assert chosen.rows.tolist() == (50 + np.argsort(found.unlabelled)[:10]).tolist()
    highest = np.sort(found.unlabelled)[9]
    below = np.argsort(found.labelled)[: (found.labelled < highest).sum()][:10]
    assert list(chosen.again) == below.tolist()
    assert len(chosen.again) > 0
    row, why = next(iter(chosen.again.items()))
    assert why.startswith(
        f"{(votes[row] == found.label[row]).sum()} of {(votes[row] >= 0).sum()} votes agree"
    )


def test_rows_without_a_vote_are_not_looked_at_again():
    pool, votes = half_voted()
    rows = np.concatenate([pool.labelled, [70, 80]])
    none = np.concatenate([votes[:50], np.full((2, 3), -1)])
    left = np.setdiff1d(np.arange(100), rows)
    sources = Voted(np.pad(none, ((0, 0), (0, 1)), constant_values=-1))  # and an annotator without votes
    more = pool._replace(labelled=rows, unlabelled=left, sources=sources)
    chosen = ActiveLab().select(more, 48, rng())
    assert chosen.again
    assert not {70, 80} & set(chosen.again)


def test_without_votes_the_least_sure_are_picked():
    vectors, *_ = noisy(0)
    probs = rng().dirichlet(np.ones(3), size=100)
    nothing = np.full((100, 0), -1)
    chosen = ActiveLab().select(pool_of(vectors, nothing, probs), 8, rng())
    assert chosen.rows.tolist() == np.argsort(probs.max(axis=1))[:8].tolist()
    assert chosen.again == {}


def test_yes_no_labels_are_refused():
    pool, _ = half_voted()
    with pytest.raises(UserError, match="yes/no answers"):
        ActiveLab().select(pool._replace(multi=True), 3, rng())


def test_every_row_is_judged_by_a_model_that_did_not_see_it():
    vectors, _, say, _ = noisy(3, n=60)
    before = cross_fitted(vectors, say[:, :1], 3, rng(2))
    assert before.sum(axis=1) == pytest.approx(np.ones(60))
    for row in range(0, 60, 7):
        other = say[:, :1].copy()
        other[row] = (other[row] + 1) % 3
        assert cross_fitted(vectors, other, 3, rng(2))[row] == pytest.approx(before[row], abs=1e-4)


def test_one_class_and_single_votes_leave_the_shares():
    found = cross_fitted(unit(rng().normal(size=(10, 4))), np.zeros((10, 1), np.int64), 3, rng())
    assert found == pytest.approx(np.tile([9 / 11, 1 / 11, 1 / 11], (10, 1)))
    assert cross_fitted(unit(rng().normal(size=(1, 4))), np.array([[1]]), 2, rng()) == pytest.approx(
        np.full((1, 2), 0.5)
    )


def test_a_model_that_has_seen_the_labels_is_trusted_too_much():
    inflated = []
    for seed in range(10):
        vectors, _, say, _ = noisy(seed, d=40)
        votes = np.where(rng(seed).random(say.shape) < 0.5, say, -1)
        votes[:, 0] = say[:, 0]
        label = majority(votes, np.full((100, 3), 1 / 3))
        student = LogisticRegression(C=1e4, max_iter=2000).fit(vectors, label)
        seen = scores(votes, student.predict_proba(vectors), NEW)
        unseen = scores(votes, cross_fitted(vectors, votes, 3, rng(seed)), NEW)
        inflated.append(seen.model_weight - unseen.model_weight)
    assert min(inflated) > 0
    assert np.mean(inflated) > 0.5


def simulated(seed, *, relabel):
    """Votes so far -> accuracy of labels and of a student, at 15 votes a round on a pool of 100 rows.

    With relabelling a round's votes go to the lowest scores, of picks and doubted labels alike, 165 in all.
    """
    vectors, truth, say, (new, new_truth) = noisy(seed)
    draw = rng(seed)
    votes = np.full(say.shape, -1)
    course = {}

    def ask(rows):
        for row in rows:
            who = draw.choice(np.flatnonzero(votes[row] < 0))
            votes[row, who] = say[row, who]

    ask(draw.permutation(100)[:15])
    while True:
        known = (votes >= 0).any(axis=1)
        there = votes[known][:, (votes >= 0).any(axis=0)]
        found = scores(there, cross_fitted(vectors[known], there, 3, draw), NEW)
        student = LogisticRegression(C=10.0, max_iter=300).fit(vectors[known], found.label)
        right = (found.label == truth[known]).mean()
        course[int((votes >= 0).sum())] = np.array([right, student.score(new, new_truth)])
        if known.all() or max(course) >= 165:
            return course
        said = np.zeros((100, 3))
        said[:, student.classes_] = student.predict_proba(vectors)
        chosen = ActiveLab().select(pool_of(vectors, votes, said), 15, draw)
        scored = dict(zip(chosen.rows.tolist(), -chosen.scores, strict=True))
        if relabel:
            doubts = dict(zip(np.flatnonzero(known).tolist(), found.labelled, strict=True))
            scored |= {row: doubts[row] for row in chosen.again if (votes[row] < 0).any()}
        ask(sorted(scored, key=scored.__getitem__)[:15])


@pytest.mark.slow
def test_second_opinions_need_fewer_votes_for_labels_as_good():
    seeds = range(8)
    again = [simulated(seed, relabel=True) for seed in seeds]
    new_only = np.mean([simulated(seed, relabel=False)[100] for seed in seeds], axis=0)
    at_75, at_the_end = np.mean([a[75] for a in again], axis=0), np.mean([a[max(a)] for a in again], axis=0)
    assert at_75[0] > new_only[0] + 0.02  # better labels for 75 votes than new rows alone get for 100
    # New rows end there, with the pool; second opinions go on, and the student gains as well.
    assert at_the_end[0] > new_only[0] + 0.08
    assert at_the_end[1] > new_only[1] + 0.02
