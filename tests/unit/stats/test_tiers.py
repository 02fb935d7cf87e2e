"""Three tiers: the promise holds as often as said, the cheapest certified point is taken, none is sold."""

import doctest
import math
from typing import NamedTuple

import numpy as np
import pytest

from llmal.stats import tiers
from llmal.stats.tiers import NEVER, Audit, Prices, paths, pvalues, three_tiers

TARGET, DELTA = 0.9, 0.1
POPULATION = 4_000
PRICES = Prices(0.01, 1.0)


class World(NamedTuple):
    student: np.ndarray
    llm: np.ndarray
    student_sure: np.ndarray
    llm_sure: np.ndarray

    def sample(self, seed, n):
        rng = np.random.default_rng([5, seed])
        rows = rng.integers(0, POPULATION, n)
        right = [rng.random(n) < sure[rows] for sure in self[2:]]
        audit = Audit(self.student[rows], right[0], self.llm[rows], right[1], np.ones(n, bool))
        return audit, self.llm[rng.integers(0, POPULATION, 200)]

    def truth(self, student, llm):
        """(share a machine answers, share it answers wrong, share the model is asked about)."""
        first = self.student >= student
        then = ~first & (self.llm >= llm)
        machine = (first | then).mean()
        right = (self.student_sure[first].sum() + self.llm_sure[then].sum()) / POPULATION
        return machine, machine - right, 0.0 if llm >= NEVER else 1 - first.mean()

    def broken(self, student, llm, on):
        machine, wrong, _ = self.truth(student, llm)
        return wrong > (1 - TARGET) * (machine if on == "accepted" else 1) + 1e-12

    def cost(self, student, llm):
        machine, _, asked = self.truth(student, llm)
        return PRICES.llm * asked + 1 - machine


def world(name, *, tied=False):
    """`flat`: just below the target; `informative`; `rare`: a tenth is right half of the time."""
    rng = np.random.default_rng(0)
    student, llm = rng.beta(3, 1.5, POPULATION), rng.beta(4, 1, POPULATION)
    sure = [student.copy(), llm.copy()]
    if name == "flat":
        sure = [np.full(POPULATION, TARGET - 0.002)] * 2
    if name == "rare":
        some = rng.random(POPULATION) < 0.1
        sure = [np.where(some, 0.5, column) for column in sure]
    if tied:
        student, llm = np.round(student * 20) / 20, np.round(llm * 20) / 20
    return World(student, llm, *sure)


def rate(place, on, n, seeds, rule):
    broken = 0
    for seed in range(seeds):
        audit, told = place.sample(seed, n)
        broken += place.broken(*rule(audit, told, place.student, on), on)
    return broken / seeds


def ours(audit, told, corpus, on):
    made = three_tiers(audit, PRICES, target=TARGET, delta=DELTA, on=on, corpus=corpus, told=told)
    return made.student, made.llm


def unpaid(audit, told, corpus, on):
    """Every point at the full delta, and the cheapest that passes: what the shares of delta are for."""
    found = [(math.inf, NEVER, NEVER)]
    for path in paths(np.sort(corpus), told, PRICES, target=TARGET, on=on):
        good = pvalues(path, audit, TARGET, on) <= DELTA
        for s, m in zip(path.student[good], path.llm[good], strict=True):
            machine = (audit.student >= s) | (audit.llm >= m)
            found.append((1 - machine.mean(), s, m))
    return min(found)[1:]


def limit(seeds):
    return DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / seeds)


@pytest.mark.parametrize("name", ["flat", "informative", "rare"])
@pytest.mark.parametrize("on", ["accepted", "everything"])
def test_broken_at_most_as_often_as_promised(name, on):
    seeds = 60
    assert rate(world(name, tied=True), on, 300, seeds, ours) <= limit(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["flat", "informative", "rare"])
@pytest.mark.parametrize("on", ["accepted", "everything"])
def test_broken_at_most_as_often_as_promised_over_many_seeds(name, on, tied):
    assert rate(world(name, tied=tied), on, 300, 600, ours) <= limit(600)


def test_the_test_finds_a_rule_that_does_not_pay_for_many_points():
    assert rate(world("flat"), "accepted", 300, 60, unpaid) > limit(60)


def test_costs_little_more_than_the_best_thresholds_of_somebody_who_knows_the_truth():
    place = world("informative")
    grid = np.append(np.linspace(0, 1, 30), NEVER)
    least = min(place.cost(s, m) for s in grid for m in grid if not place.broken(s, m, "accepted"))
    cost = np.mean([place.cost(*ours(*place.sample(s, 1000), place.student, "accepted")) for s in range(10)])
    assert least < cost < 2 * least < 0.6, "people alone cost 1"


def test_the_words_and_figures_are_those_of_the_thresholds():
    place = world("informative")
    audit, told = place.sample(1, 1000)
    made = three_tiers(audit, PRICES, target=TARGET, delta=DELTA, corpus=place.student, told=told)
    first = (place.student >= made.student).mean()
    assert made.certified
    assert made.shares[0] == pytest.approx(first)
    assert sum(made.shares) == pytest.approx(1)
    assert made.asked == pytest.approx(1 - first)
    assert made.cost == pytest.approx(0.01 * made.asked + made.shares[2])
    by = audit.student >= made.student
    assert made.n == (by | (audit.llm >= made.llm)).sum()
    assert f"The student answers {first:.0%}".replace("%", " %") in made.words
    assert "at least 90.0% with probability 90.0%" in made.words


def test_a_dear_model_is_not_asked_and_a_useless_one_answers_nothing():
    place = world("informative")
    audit, told = place.sample(2, 1000)
    given = {"target": TARGET, "delta": DELTA, "corpus": place.student, "told": told}
    dear = three_tiers(audit, Prices(5.0, 1.0), **given)
    assert (dear.student, dear.llm, dear.cost, dear.more) == (NEVER, NEVER, 1.0, 0)
    assert "costs more than they do" in dear.words
    able = audit._replace(student_right=audit.student > 0.5)
    spared = three_tiers(able, Prices(5.0, 1.0), **given)
    assert spared.llm == NEVER
    assert spared.student < 0.7
    assert spared.asked == spared.shares[1] == 0
    assert "the model is not asked" in spared.words
    mute = audit._replace(answered=np.zeros(1000, bool))
    alone = three_tiers(mute, PRICES, target=TARGET, delta=DELTA, corpus=place.student, told=told)
    assert alone.shares[1] == 0


def test_what_the_model_did_not_answer_goes_to_people_whatever_its_confidence_says():
    place = world("informative")
    audit, told = place.sample(3, 500)
    some = np.arange(500) % 2 == 0
    holes = audit._replace(answered=some, llm=np.where(some, audit.llm, np.nan))
    made = three_tiers(holes, PRICES, target=TARGET, delta=DELTA, corpus=place.student, told=told)
    stands = (holes.student < made.student) & some & (audit.llm >= made.llm)
    assert made.n == (holes.student >= made.student).sum() + stands.sum()


def test_without_a_promise_people_answer_all_and_the_missing_labels_are_named():
    place = world("informative")
    small, told = place.sample(4, 20)
    made = three_tiers(small, PRICES, target=TARGET, delta=DELTA, corpus=place.student, told=told)
    assert (made.student, made.llm, made.certified) == (NEVER, NEVER, False)
    assert made.shares == (0.0, 0.0, 1.0)
    assert made.cost == made.alone == 1.0
    assert 10 <= made.more <= 2000
    assert f"about {made.more} more labels of people are needed (20 so far)" in made.words
    bad = small._replace(student_right=np.zeros(20, bool), llm_right=np.zeros(20, bool))
    never = three_tiers(bad, PRICES, target=TARGET, delta=DELTA, corpus=place.student, told=told)
    assert never.more is None
    assert "unlikely at any confidence" in never.words


def test_the_paths_know_nothing_of_the_audit_sample_and_only_grow():
    place = world("informative")
    made = paths(np.sort(place.student), place.llm[:50], PRICES, target=TARGET, on="accepted")
    assert sum(path.share for path in made) == pytest.approx(1)
    for path in made:
        assert (np.diff(path.student) <= 0).all()
        assert (np.diff(path.llm) <= 0).all()
        assert (np.diff(path.expected) >= -1e-12).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prices": Prices(-1, 1)}, "Prices"),
        ({"prices": Prices(0, 0)}, "Prices"),
        ({"prices": Prices(0, math.inf)}, "Prices"),
        ({"corpus": []}, "N >= 1"),
        ({"target": 1.0}, "target"),
        ({"delta": 0.6}, "delta"),
        ({"on": "some"}, "on must be"),
        ({"audit": Audit(*[np.ones(2)] * 4, np.ones(3, bool))}, "must all be"),
        ({"audit": Audit(np.ones(2), np.ones(2, bool), np.full(2, 1.5), *[np.ones(2, bool)] * 2)}, "model's"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    audit, told = world("flat").sample(0, 50)
    given = {"audit": audit, "prices": PRICES, "target": 0.9, "delta": 0.1, "corpus": [0.5], "told": told}
    given |= changes
    with pytest.raises(ValueError, match=words):
        three_tiers(given.pop("audit"), given.pop("prices"), **given)


def test_examples_in_the_docstrings_are_true():
    assert doctest.testmod(tiers).failed == 0
