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


def test_a_newer_store_is_refused_with_both_versions(engine):
    with engine.begin() as db:
        migrations.migrate(db)
        db.exec_driver_sql("UPDATE meta SET value = '99'")
        with pytest.raises(StoreError, match=rf"store version 99, this one knows {migrations.VERSION}"):
            migrations.migrate(db)
