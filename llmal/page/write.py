"""Writes `report.html` and `report.json` into the run's folder; what cannot be drawn never fails a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmal.context import Context
from llmal.corpus import shown
from llmal.page.facts import collect, state_of
from llmal.page.html import page
from llmal.records import Tally
from llmal.spec import Pipeline
from llmal.state import recipes
from llmal.store.store import Store

HTML, JSON = "report.html", "report.json"


def run(pipeline: Pipeline, store: Store, ctx: Context) -> Tally:
    """Write both unless those there tell of this very state; told in words, never raised, where that fails.

    Args:
        pipeline: the run's.
        store: of the run; only read.
        ctx: shared context.

    Returns:
        Two files wanted, those written anew, and where they lie or what went wrong.
    """
    folder = store.folder
    done = 0
    try:
        if (folder / HTML).is_file() and _told(folder / JSON) == state_of(
            pipeline, store, recipes(pipeline, ctx, store)
        ):
            return Tally(2, 0)
        found = collect(pipeline, store, ctx)
        put(folder / JSON, as_json(found))
        done += 1
        put(folder / HTML, page(found))
    except Exception as error:
        # No figure is worth a run: labels, classifier and measures are committed, `llmal report` tries again.
        why = f"{type(error).__name__}: {shown(str(error), limit=200)}"
        return Tally(2, done, f"{JSON if not done else HTML} could not be written ({why}); all else is done")
    return Tally(2, 2, str(folder / HTML))


def as_json(found: Mapping[str, Any]) -> str:
    """The facts as a JSON file holds them."""
    return json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def put(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _told(path: Path) -> str | None:
    """State of the run that a report tells of; None where there is no report that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["of"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
