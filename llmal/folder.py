"""A run folder, opened with the pipeline that was frozen into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from llmal.context import Context
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import Store, open_store


@contextmanager
def opened(
    run: Path, *, write: bool = False, beside: bool = False
) -> Iterator[tuple[Pipeline, Store, Context]]:
    """A run folder with its frozen pipeline, whose relative paths start where the run's own file lay.

    Args:
        run: folder of the run.
        write: as in `llmal.store.store.open_store`.
        beside: as there.
    """
    store = open_store(run, write=write, beside=beside)
    try:
        home = _home(store)
        pipeline = Pipeline.from_yaml(run / "pipeline.yaml", home=home)
        yield pipeline, store, Context(run, home=home, seed=pipeline.seed)
    finally:
        store.close()


def _home(store: Store) -> Path:
    found = store.read(sa.select(t.meta.c.value).where(t.meta.c.name == "home"))
    return Path(found[0][0]) if found else Path.cwd()
