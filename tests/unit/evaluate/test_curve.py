"""The learning curve, the forecast of what more labels buy, and when the rule `auto` ends the rounds."""

import math

import numpy as np
import pytest

from llmal.audit import known_answers
from llmal.context import Context
from llmal.evaluate import curve
from llmal.records import Label, LabelSchema
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing"), Label(name="spam")), True)
MULTI = SCHEMA._replace(kind="multi")
N, AUDIT = 700, 300


@pytest.fixture
def ctx(tmp_path):
    return Context(tmp_path, home=tmp_path, seed=3)


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    opened.add(t.corpus, [{"n": 1, "recipe": "c", "digest": "d", "at": 0.0}])
    opened.add(t.item, [{"seq": i, "key": str(i), "text": f"t{i}", "flags": "[]"} for i in range(N)])
    rows = [{"corpus": 1, "position": i, "id": str(i), "item": i, "skipped": ""} for i in range(N)]
    opened.add(t.row, [{**row, "gold": f'["{SCHEMA.names[row["item"] % 3]}"]'} for row in rows])
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in range(AUDIT)])
    yield opened
    opened.close()


class Told:
    """Progress that keeps its lines."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def learner(store, round_no, labels, wrong, *, at=0.0, multi=False):
    """A student of a round that errs on a share of the items, always the first of each hundred."""
    name = f"s{round_no}-{at}"
    said = np.arange(N) % 3
    said = np.where(np.arange(N) % 100 < wrong * 100, (said + 1) % 3, said)
    store.put_block(name, 0, np.eye(3)[said].astype(np.float32) * 0.8 + 0.1 * (not multi))
    fact = {"round": round_no, "role": "rounds", "folder": "f", "n_items": labels, "note": "{}", "at": at}
    store.add(t.student, [{**fact, "recipe": name}])


def curve_of(store, ctx):
    known = known_answers(store, SCHEMA)
    curve.measure_curve(store, ctx, SCHEMA, known)
    return curve.learning_curve(store, SCHEMA)


def test_every_rounds_student_is_a_point_measured_on_the_answers_known_now(store, ctx):
    for r, wrong in enumerate((0.5, 0.3, 0.2), start=1):
        learner(store, r, 50 * r, wrong)
    points = curve_of(store, ctx)
    assert [(p.round, p.labels, p.accuracy.n) for p in points] == [(1, 50, 300), (2, 100, 300), (3, 150, 300)]
    assert [p.accuracy.value for p in points] == pytest.approx([0.5, 0.7, 0.8])
    assert all(p.macro_f1.low <= p.macro_f1.value <= p.macro_f1.high for p in points)
    assert curve.measure_curve(store, ctx, SCHEMA, known_answers(store, SCHEMA)) == 0
    answer(store, 0, "spam")
    assert curve.learning_curve(store, SCHEMA) == [], "an answer that is new is not measured on yet"
    assert curve_of(store, ctx)[0].accuracy.n == 300


def test_a_round_trained_again_counts_once_and_one_with_no_more_labels_not_at_all(store, ctx):
    learner(store, 1, 50, 0.5)
    learner(store, 1, 60, 0.4, at=1.0)
    learner(store, 2, 60, 0.4, at=2.0)
    learner(store, 3, 90, 0.3, at=3.0)
    assert [(p.round, p.labels) for p in curve_of(store, ctx)] == [(1, 60), (3, 90)]


def test_a_forecast_needs_four_rounds_and_bounds_the_next_labels(store, ctx):
    known = known_answers(store, SCHEMA)
    assert math.isnan(curve.next_labels(store, SCHEMA, known).high)
    for r, wrong in enumerate((0.5, 0.4, 0.34, 0.3), start=1):
        learner(store, r, 50 * r, wrong)
    seen = curve.next_labels(store, SCHEMA, known)
    assert 0.04 < seen.gain < seen.high < 0.2
    assert seen.words.startswith("The next 50 labels buy at most ")
    assert curve.next_labels(store, SCHEMA, {}).points == 0


def grown(store, wrongs, *, multi=False):
    for r, wrong in enumerate(wrongs, start=1):
        learner(store, r, 50 * r, wrong, multi=multi)


@pytest.mark.parametrize("schema", [SCHEMA, MULTI], ids=["single", "multi"])
def test_auto_stops_where_the_curve_is_flat_and_the_students_agree(store, ctx, schema):
    grown(store, [0.5, 0.35, 0.22, *[0.2] * 9], multi=schema is MULTI)
    why = curve.enough(store, ctx, schema)
    assert "after 600 labels" in why
    assert "kappa 1.00" in why


def test_auto_goes_on_while_the_curve_rises(store, ctx):
    grown(store, [0.6 - 0.04 * r for r in range(12)])
    assert curve.enough(store, ctx, SCHEMA) == ""


def test_auto_goes_on_while_the_students_change_their_minds(store, ctx):
    for r in range(12):  # equally good, but each errs on other items than the one before
        learner(store, r + 1, 50 * (r + 1), 0.0)
        said = (np.arange(N) + (np.arange(N) % 10 == r % 10)) % 3
        store.put_block(f"other{r}", 0, np.eye(3)[said].astype(np.float32))
        store.add(t.student, [{"round": r + 1, "role": "rounds", "folder": "f", "n_items": 50 * (r + 1),
                               "note": "{}", "at": 9.0, "recipe": f"other{r}"}])  # fmt: skip
    assert curve.enough(store, ctx, SCHEMA) == ""


def test_auto_never_stops_before_five_rounds_nor_without_answers(store, ctx):
    grown(store, [0.2] * 4)
    assert curve.enough(store, ctx, SCHEMA) == ""
    learner(store, 5, 2000, 0.2)
    assert curve.enough(store, ctx, SCHEMA) != ""
    with store.begin() as db:
        db.execute(t.audit.delete())
    ctx.progress = Told()
    assert curve.enough(store, ctx, SCHEMA) == "", "without answers nobody knows whether the curve is flat"
    assert ctx.progress.lines == [
        "rounds.stop: auto cannot tell when to stop before people answer audit items"
    ]
