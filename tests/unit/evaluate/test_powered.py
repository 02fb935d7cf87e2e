"""Prediction-powered measures hold what they say though the student's training set was picked, not drawn."""

from collections import defaultdict

import numpy as np
import pytest

from llmal.evaluate.powered import Guess, prevalence, priors, quality, rest_of
from llmal.records import Label, LabelSchema
from llmal.stats.intervals import wilson

SCHEMA = LabelSchema("single", (Label(name="a"), Label(name="b"), Label(name="c")), True)
MULTI = SCHEMA._replace(kind="multi")
SHARES = np.array([0.1, 0.3, 0.6])
WIDE = 20
CENTRES = np.random.default_rng(5).normal(size=(3, WIDE)) * 0.45


def corpus(n, rng):
    """Texts as points about the centre of their class, and the class."""
    classes = rng.choice(3, n, p=SHARES)
    return np.c_[CENTRES[classes] + rng.normal(size=(n, WIDE)), np.ones(n)], classes


def fitted(x, classes):
    """Ridge regression on classes, as probabilities."""
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ np.eye(3)[classes])

    def predict(points):
        odds = np.exp(6 * (points @ weights))
        return odds / odds.sum(axis=1, keepdims=True)

    return predict


def picked(x, said, free, rounds, size):
    """Items learnt from: at random first, then where the student of the round before is least sure."""
    learnt = free[:size]
    for _ in range(rounds - 1):
        top = np.sort(fitted(x[learnt], said[learnt])(x[free]), axis=1)
        margin = np.where(np.isin(free, learnt), np.inf, top[:, -1] - top[:, -2])
        learnt = np.concatenate([learnt, free[np.argsort(margin)[:size]]])
    return learnt


def shots(seed, *, how, items=1000, rounds=4, n=100):
    """Whether each interval of one run held the truth, its width, and that of people alone."""
    rng = np.random.default_rng(seed)
    x, truth = corpus(items, rng)
    said = np.where(rng.random(items) < 0.85, truth, rng.integers(0, 3, items))
    order = rng.permutation(items)
    audit, free = order[:n], order[n:]
    learnt = picked(x, said, free, rounds, 100)
    final = fitted(x[learnt], said[learnt])
    probs = final(x)
    if how == "folds":
        for part in np.array_split(rng.permutation(len(learnt)), 5):
            kept = np.delete(learnt, part)
            probs[learnt[part]] = fitted(x[kept], said[kept])(x[learnt[part]])
    if how == "by heart":
        probs[learnt] = np.eye(3)[said[learnt]]
    rest = rest_of(range(items), audit, learnt, n=n, crossfit=how in ("folds", "by heart"), rng=rng)
    if how == "without what was learnt":
        assert rest is None
        rest = np.setdiff1d(free, learnt)
    guess, gold = Guess(probs[audit], probs[rest], "the student's word"), np.eye(3)[truth[audit]]
    found = prevalence(gold, guess, SCHEMA) | quality(gold, guess, guess, SCHEMA)
    points, classes = corpus(4000, rng)
    own = final(points).argmax(axis=1)
    true = {f"prevalence[{c}]": share for c, share in zip("abc", SHARES, strict=True)}
    true["accuracy.powered"] = (own == classes).mean()
    both = [
        ((own == c) & (classes == c)).sum() * 2 / ((own == c).sum() + (classes == c).sum()) for c in range(3)
    ]
    true |= {f"f1[{c}].powered": share for c, share in zip("abc", both, strict=True)}
    alone = {name: e for name, (e, _) in prevalence(gold, None, SCHEMA).items()}
    alone["accuracy.powered"] = wilson(int((probs[audit].argmax(axis=1) == truth[audit]).sum()), n)
    for name, (e, _) in found.items():
        beside = alone[name].high - alone[name].low if name in alone else np.nan
        yield name, (e.low <= true[name] <= e.high, e.high - e.low, beside)


def coverage(seeds, **world):
    """Measure -> share of intervals that held, and their mean width over that of people alone."""
    many = defaultdict(list)
    for seed in range(seeds):
        for name, shot in shots(seed, **world):
            many[name].append(shot)
    means = {name: np.mean(shot, axis=0) for name, shot in many.items()}
    return {name: (held, wide / beside) for name, (held, wide, beside) in means.items()}


def test_intervals_hold_though_the_items_learnt_from_were_picked():
    # 400 seeds: two standard errors of a coverage of 0.95 are 0.022.
    found = coverage(400, how="folds")
    assert {name: held for name, (held, _) in found.items() if not 0.925 <= held <= 0.985} == {}
    assert found["prevalence[c]"][1] < 0.8, "an interval that is no narrower than people's is worth nothing"
    assert found["accuracy.powered"][1] < 1


@pytest.mark.slow
def test_intervals_hold_over_a_thousand_runs():
    for world in (
        {"how": "folds"},
        {"how": "folds", "rounds": 6},
        {"how": "few", "items": 20_000, "rounds": 2},
    ):
        found = coverage(1000, **world)
        assert {name: held for name, (held, _) in found.items() if not 0.925 <= held <= 0.98} == {}


def test_a_student_that_learnt_from_next_to_nothing_of_the_corpus_needs_no_folds():
    found = coverage(30, how="few", items=10_000, rounds=1)
    assert min(held for held, _ in found.values()) > 0.83  # three standard errors of 30 runs


@pytest.mark.parametrize(
    ("how", "measure"), [("by heart", "accuracy.powered"), ("without what was learnt", "prevalence[c]")]
)
def test_the_simulation_finds_out_what_must_not_be_done(how, measure):
    assert coverage(30, how=how)[measure][0] < 0.6


def test_items_that_stand_for_the_corpus_are_all_but_the_sample_or_none():
    rng = np.random.default_rng(0)
    given = {"audit": [0, 1], "learnt": [4, 5], "rng": rng}
    assert rest_of(range(8), n=2, crossfit=True, **given).tolist() == [2, 3, 4, 5, 6, 7]
    assert rest_of(range(8), n=2, crossfit=False, **given) is None
    some = rest_of(range(8000), n=100, crossfit=False, **given)
    assert sorted({*range(8000)} - {*some.tolist()}) == [0, 1, 4, 5]
    assert rest_of(range(8000), n=100_000_000, crossfit=False, **given) is None, (
        "many answers see a small bias"
    )
    assert len(rest_of(range(60_000), n=2, crossfit=True, **given)) == 50_000


def test_without_a_machine_the_share_of_a_class_is_peoples_alone_and_says_so():
    found = prevalence(np.eye(3)[[0, 0, 1, 1]], None, SCHEMA)
    assert found["prevalence[a]"] == (wilson(2, 4), "people's 4 audit answers alone")
    assert found["prevalence[c]"][0] == wilson(0, 4)


def test_several_labels_are_right_only_all_together():
    # Two of four items wholly right; the machine agrees with people everywhere.
    gold = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], float)
    student = np.array([[0.9, 0.1, 0.2], [0.9, 0.4, 0.2], [0.1, 0.1, 0.2], [0.1, 0.9, 0.3]])
    found = quality(gold, Guess(student, student, "s"), Guess(gold, gold, "m"), MULTI)
    assert found["accuracy.powered"][0].value == pytest.approx(0.5)
    assert found["f1[b].powered"][0].value == pytest.approx(2 * 1 / (2 * 1 + 0 + 1), abs=0.01)
    assert "4 audit answers" in found["accuracy.powered"][1]


def test_the_shares_of_classes_among_machine_labels_stand_beside_peoples():
    said = {0: ("a",), 1: ("a",), 2: ("b",), 7: ("a",), 8: ("b",)}
    found = priors(said, {2: ("b",), 3: ("a",), 5: ("a",), 6: ("a",)}, [7, 8, 9], SCHEMA)
    assert found["prior.annotator[a]"] == (wilson(1, 2), "the annotator's answers to 2 audit items")
    assert found["prior.taught[a]"] == ((0.75, 0.75, 0.75, 4), "counted: all 4 labels the student learnt")
    assert found["prior.taught[c]"][0].value == 0
    without = priors({0: ("a",), 1: ("b",)}, {}, [7], SCHEMA)
    assert without["prior.annotator[a]"][0] == (0.5, 0.5, 0.5, 2)
    assert without["prior.annotator[a]"][1] == "counted: all 2 answers of the annotator, none of audit items"
    assert "prior.taught[a]" not in without
