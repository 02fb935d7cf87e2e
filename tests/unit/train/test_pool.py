"""A student that also learns from texts without a label is shown those, and never the audit sample."""

import numpy as np
import pytest

from llmal.context import Context
from llmal.corpus import Row, text_key
from llmal.embed import stage as embed
from llmal.embed.hashing import Hashing
from llmal.records import Label, LabelSchema
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.train import stage
from llmal.train.linear import Linear
from llmal.train.stage import TrainingSet, student_recipe

N = 12
SCHEMA = LabelSchema("single", (Label(name="odd"), Label(name="even")), False)


class Onlooker(Linear):
    """Remembers what it was shown."""

    most: int = 100

    @property
    def pool_size(self):
        return self.most

    def fit(self, examples, schema, rng, ctx):
        SHOWN.append(examples)
        return super().fit(examples, schema, rng, ctx)


SHOWN = []


@pytest.fixture
def line(tmp_path):
    """A store with N embedded items, two of them the audit sample."""
    store = open_store(tmp_path / "run")
    ctx = Context(store.folder, home=tmp_path)
    store.put_corpus("c", "d", [Row(i, f"id{i}", f"text number {i}", None) for i in range(N)], text_key)
    embed.run(Hashing(dim=16), store, ctx)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in (0, 1)])
    yield store, ctx
    store.close()


def taught(store):
    pool = stage.training_set(store, schema=SCHEMA, annotations="a", decisions="d").pool
    items = [2, 3, 4, 5]
    return TrainingSet(
        items, [("even", "odd")[i % 2 :][:1] for i in items], ["human"] * 4, tuple(set(pool) - set(items))
    )


def test_the_pool_is_shown_beside_the_labels_and_only_to_a_student_that_asks(line):
    store, ctx = line
    vectors = Hashing(dim=16).recipe()
    for student in (Onlooker(), Onlooker(most=0)):
        SHOWN.clear()
        stage.run(
            student, store, ctx, schema=SCHEMA, data=taught(store), vectors=vectors, role="final", round_no=0
        )
        pool = SHOWN[0].pool
        if student.most:
            assert pool.texts == [f"text number {i}" for i in range(6, N)]
            assert (pool.vectors == np.asarray(store.load(vectors)[6:N])).all()
            assert pool.targets is None
        else:
            assert pool is None


def test_the_pool_leaves_out_the_audit_sample_and_a_large_one_is_drawn_from(line):
    store, ctx = line
    data = stage.training_set(store, schema=SCHEMA, annotations="a", decisions="d")
    assert data.pool == tuple(range(2, N))
    few = data.drawn(4, ctx)
    assert len(few) == 4
    assert few == sorted(few) == data.drawn(4, ctx)
    assert set(few) < set(data.pool)


def test_another_pool_is_another_student_where_the_pool_is_read(line):
    store, ctx = line
    data = taught(store)
    other = data._replace(pool=data.pool[1:])
    for student, same in ((Linear(), True), (Onlooker(), False)):
        names = {student_recipe(student, d, SCHEMA, "v", ctx) for d in (data, other)}
        assert (len(names) == 1) == same
