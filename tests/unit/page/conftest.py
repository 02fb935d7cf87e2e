"""A small run whose every text, label, id and person is hostile, made once a session."""

import pytest

from llmal.folder import opened
from llmal.page.facts import collect
from llmal.testing.hostile import hostile_run


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return hostile_run(folder)


@pytest.fixture(scope="session")
def hostile(hostile_folder):
    """Its facts."""
    with opened(hostile_folder) as (pipeline, store, ctx):
        return collect(pipeline, store, ctx)
