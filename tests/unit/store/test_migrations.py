"""Migrations: a fresh store is what schema.py says, and a newer one is refused."""

import pytest
import sqlalchemy as sa

from llmal.errors import StoreError
from llmal.store import migrations, schema


@pytest.fixture
def engine():
    made = sa.create_engine("sqlite://")
    yield made
    made.dispose()


def test_the_migrated_store_has_the_tables_columns_and_keys_of_the_schema(engine):
    with engine.begin() as db:
        migrations.migrate(db)
        found = sa.inspect(db)
        assert set(found.get_table_names()) == set(schema.metadata.tables)
        for name, table in schema.metadata.tables.items():
            assert [c["name"] for c in found.get_columns(name)] == [c.name for c in table.columns], name
            assert found.get_pk_constraint(name)["constrained_columns"] == [
                c.name for c in table.primary_key
            ], name
            for here, there in zip(found.get_columns(name), table.columns, strict=True):
                assert str(here["type"]) == str(there.type), f"{name}.{there.name}"


def test_migrating_twice_changes_nothing(engine):
    with engine.begin() as db:
        assert migrations.migrate(db) == 0
        before = db.exec_driver_sql("SELECT sql FROM sqlite_master").fetchall()
        assert migrations.migrate(db) == migrations.VERSION
        assert db.exec_driver_sql("SELECT sql FROM sqlite_master").fetchall() == before


def test_a_store_from_before_batches_keeps_its_calls_and_takes_batches(engine):
    before = migrations.STEPS.index(migrations.m004_batches)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        for step in migrations.STEPS[:before]:
            step(db)
        db.exec_driver_sql(f"INSERT INTO meta VALUES ('version', '{before}')")
        db.exec_driver_sql("INSERT INTO attempt VALUES (7, 'request-1', 1, 500, 0.0)")
        assert migrations.migrate(db) == before
        assert db.exec_driver_sql("SELECT * FROM attempt").fetchall() == [(7, "request-1", 1, 500, 0.0)]
        db.execute(schema.batch.insert().values(n=1, base_url="u", digest="d", calls=1, at=0.0))
        db.execute(schema.batch_call.insert().values(attempt=7, batch=1))
        db.execute(schema.batch_step.insert().values(batch=1, name="created", value="b", at=0.0))
        with pytest.raises(sa.exc.IntegrityError):  # what became of a batch is said once
            db.execute(schema.batch_step.insert().values(batch=1, name="created", value="c", at=0.0))


def test_a_store_from_before_written_texts_keeps_its_items_and_takes_such_texts(engine):
    before = migrations.STEPS.index(migrations.m005_synthetic)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        for step in migrations.STEPS[:before]:
            step(db)
        db.exec_driver_sql(f"INSERT INTO meta VALUES ('version', '{before}')")
        db.exec_driver_sql("INSERT INTO item VALUES (0, 'key', 'a text', '[]')")
        assert migrations.migrate(db) == before
        assert db.exec_driver_sql("SELECT * FROM item").fetchall() == [(0, "key", "a text", "[]")]
        row = {"recipe": "r", "loop": 1, "rank": 0, "item": None, "text": "", "labels": "[]", "at": 0.0}
        db.execute(schema.synthetic.insert().values(**row, verdict="drop", reason="empty"))
        db.execute(schema.part.insert().values(item=0, part="learn", at=0.0))
        db.execute(
            schema.generation.insert().values(recipe="r", loop=0, loss=1.0, n_items=1, report="[]", at=0.0)
        )
        with pytest.raises(sa.exc.IntegrityError):  # a part once given stays
            db.execute(schema.part.insert().values(item=0, part="validate", at=0.0))


def test_a_store_from_before_short_lists_keeps_its_answers_and_takes_what_was_shown(engine):
    before = migrations.STEPS.index(migrations.m006_promises)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        for step in migrations.STEPS[:before]:
            step(db)
        db.exec_driver_sql(f"INSERT INTO meta VALUES ('version', '{before}')")
        db.exec_driver_sql("INSERT INTO answer VALUES (1, 0, 'p', '[\"a\"]', '', 's', 1, 0.0, NULL)")
        assert migrations.migrate(db) == before
        row = {"item": 1, "person": "p", "labels": '["a"]', "note": "", "source": "s", "line": 2, "at": 0.0}
        db.execute(schema.answer.insert().values(n=2, **row, shown='["a", "b"]'))
        found = db.exec_driver_sql("SELECT n, labels, shown FROM answer ORDER BY n").fetchall()
        assert found == [(1, '["a"]', None), (2, '["a"]', '["a", "b"]')]


def test_a_store_from_before_several_people_keeps_its_answers_as_words_of_one(engine):
    before = migrations.STEPS.index(migrations.m008_several_people)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        for step in migrations.STEPS[:before]:
            step(db)
        db.exec_driver_sql(f"INSERT INTO meta VALUES ('version', '{before}')")
        db.exec_driver_sql("INSERT INTO answer VALUES (1, 0, 'p', '[\"a\"]', '', 's', 1, 0.0, NULL, NULL)")
        assert migrations.migrate(db) == before
        row = {"item": 1, "person": "p", "labels": '["a"]', "note": "", "source": "s", "line": 2, "at": 0.0}
        db.execute(schema.answer.insert().values(n=2, **row))
        db.execute(schema.answer.insert().values(n=3, **row | {"line": 3}, role="adjudicate", saw='["b"]'))
        found = db.exec_driver_sql("SELECT n, role, saw FROM answer ORDER BY n").fetchall()
        assert found == [(1, "label", None), (2, "label", None), (3, "adjudicate", '["b"]')]


def test_a_newer_store_is_refused_with_both_versions(engine):
    with engine.begin() as db:
        migrations.migrate(db)
        db.exec_driver_sql("UPDATE meta SET value = '99'")
        with pytest.raises(StoreError, match=rf"store version 99, this one knows {migrations.VERSION}"):
            migrations.migrate(db)
