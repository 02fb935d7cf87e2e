"""Robust active distillation: the best draw against the worst errors, and margin where there are none."""

import numpy as np
import pytest
from scipy.optimize import linprog

from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.records import Annotation, Label, LabelSchema
from llmal.select.margin import Margin, margins
from llmal.select.rad import Rad, solve
from llmal.select.sources import StoreSources
from llmal.select.stage import Pool
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.contracts.select import MadeSources
from llmal.testing.facts import answer

GAINS = np.array([0.9, 0.8, 0.6, 0.3, 0.1])
SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)


def by_linear_program(gain, m):
    """The value of the game: maximise p g less the m largest of its terms, which t and u stand for."""
    n = len(gain)
    cost = np.concatenate([-gain, [m], np.ones(n)])
    above = np.hstack([np.diag(gain), -np.ones((n, 1)), -np.eye(n)])
    total = np.concatenate([np.ones(n), np.zeros(n + 1)])[None]
    bounds = [(0, None)] * n + [(None, None)] + [(0, None)] * n
    return -linprog(cost, above, np.zeros(n), total, [1.0], bounds, method="highs").fun


def left(chance, gain, m):
    """What the adversary leaves: all but the m largest terms."""
    return np.sort(chance * gain)[: len(gain) - m].sum()


def test_the_worked_game():
    found = solve(GAINS, 2)
    assert found.chance == pytest.approx([0.150943, 0.169811, 0.226415, 0.452830, 0], abs=1e-6)
    assert found.value == pytest.approx(0.271698, abs=1e-6)
    assert found.support == 4


def test_no_draw_is_better_than_ours_says_a_linear_program():
    rng = np.random.default_rng(0)
    for _ in range(100):
        gain = rng.random(rng.integers(2, 9)).round(rng.integers(1, 4))  # rounded: zeros and ties occur
        m = int(rng.integers(0, len(gain)))
        found = solve(gain, m)
        assert found.chance.sum() == pytest.approx(1)
        assert found.value == pytest.approx(by_linear_program(gain, m), abs=1e-9)
        assert left(found.chance, gain, m) == pytest.approx(found.value, abs=1e-12)


def test_the_check_tells_a_worse_draw():
    """Power: what would seem natural, a chance in proportion to the gain, leaves clearly less."""
    assert left(GAINS / GAINS.sum(), GAINS, 2) < 0.7 * solve(GAINS, 2).value


def test_without_errors_all_chance_lies_on_the_largest_gains_and_they_are_drawn_alike():
    found = solve(np.array([0.3, 0.8, 0.8, 0.1, 0.8]), 0)
    assert found.chance == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3])
    assert (found.value, found.support) == (pytest.approx(0.8), 3)


def test_rows_without_gain_are_never_drawn_and_hopeless_games_draw_alike():
    assert solve(np.array([0.0, 0.5, 0.4]), 1).chance[0] == 0
    lost = solve(np.array([0.0, 0.5, 0.4]), 2)
    assert (lost.value, lost.chance.tolist()) == (0, [0, 0.5, 0.5])
    assert solve(np.zeros(4), 1).chance == pytest.approx([0.25] * 4)
    assert solve(np.zeros(0), 0).chance.shape == (0,)


# --- as a strategy


def pool(n=200, sources=None, seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), n).astype(np.float32)
    return Pool(
        np.eye(n, 8, dtype=np.float32), np.arange(n), np.zeros(0, np.int64), probs, 3, sources=sources
    )


def test_with_an_annotator_that_is_always_right_it_is_margin_sampling():
    mine = Rad(errors=0).select(pool(), 40, np.random.default_rng(1))
    assert mine.rows.tolist() == Margin().select(pool(), 40, np.random.default_rng(1)).rows.tolist()
    assert "beyond the support" in mine.reasons[1]


def test_rows_are_drawn_with_the_chances_of_the_game():
    """Over 4,000 draws of one row, each is drawn as often as the game says, within 4.5 standard errors."""
    some = pool(12)
    gain = 1 - margins(some.probs.astype(np.float64))
    chance = solve(gain, 3).chance
    rng = np.random.default_rng(2)
    drawn = [int(Rad(errors=0.25).select(some, 1, rng).rows[0]) for _ in range(4000)]
    share = np.bincount(drawn, minlength=12) / 4000
    assert np.abs(share - chance).max() < 4.5 * np.sqrt(0.25 / 4000)
    assert (share[chance == 0] == 0).all()
    assert np.abs(share - gain / gain.sum()).max() > 4.5 * np.sqrt(0.25 / 4000), "the check cannot fail"


class Counted(MadeSources):
    """Sources of which people checked n answers."""

    def __init__(self, n, wrong):
        super().__init__(np.zeros((1, 3), np.float32), np.zeros(0, np.int64), 3)
        self._checked = n, wrong

    def checked(self):
        return self._checked


def test_errors_are_what_people_found_where_they_checked_enough():
    rng = np.random.default_rng(0)
    notes = {n: Rad().select(pool(sources=Counted(n, 12)), 5, rng).note for n in (29, 30)}
    assert "expects 15% wrong answers (people checked only 29)" in notes[29]
    assert "expects 40% wrong answers (12 of 30 that people checked)" in notes[30]
    assert "expects 5% wrong answers (as the file says)" in Rad(errors=0.05).select(
        pool(sources=Counted(90, 80)), 5, rng).note  # fmt: skip


def test_a_store_counts_what_people_contradict_and_never_gold(tmp_path):
    store = open_store(tmp_path / "run")
    rows = "".join(f'{{"text": "t{i}", "label": "billing"}}\n' for i in range(6))
    (tmp_path / "c.jsonl").write_text(rows)
    spec = CorpusSpec(path="c.jsonl", gold="label")
    store.put_corpus("c", "d", read(spec, tmp_path / "c.jsonl", SCHEMA), text_key)
    said = [Annotation(i, "ok", ("bug",)) for i in range(5)] + [Annotation(5, "refused")]
    store.add(t.annotation, annotation_rows("a", said))
    ctx = Context(store.folder, home=tmp_path)
    sources = StoreSources(store, ctx, SCHEMA, np.eye(6, dtype=np.float32), np.arange(6))
    assert sources.checked() == (0, 0)
    for item, label in ((0, "bug"), (1, "billing"), (5, "bug")):
        answer(store, item, label)
    assert sources.checked() == (2, 1)
    store.close()
