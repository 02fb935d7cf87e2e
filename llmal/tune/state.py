"""The state beside a prompt file: written whole, the one before kept, and put back when asked."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from llmal.errors import UserError
from llmal.prompts.file import DEFAULT_PROMPT, Compiled, state_path


def write(state: Compiled, place: Path) -> None:
    """Write a state file: whole or not at all, for its owner alone."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(state.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(place)


def put(state: Compiled, prompt: Path) -> Path:
    """Put a state beside its prompt; the one there before stays as `NAME.compiled.json.1`."""
    place = state_path(prompt)
    if place.is_file():
        place.replace(_before(place))
    else:
        _before(place).unlink(missing_ok=True)  # older than the prompt as written, which is what was in use
    write(state, place)
    return place


def revert(prompt: Path) -> str:
    """Swap the state beside a prompt with the one before, which may be none; twice changes nothing.

    Returns:
        What is in use now, in words.

    Raises:
        UserError: there is no state, now or before.
    """
    place = state_path(prompt)
    before = _before(place)
    if not place.is_file() and not before.is_file():
        raise UserError("no compiled state to revert", where=str(place), hint="Nothing was compiled here")
    aside = place.with_name(place.name + ".part")
    if place.is_file():
        place.replace(aside)
    if before.is_file():
        before.replace(place)
    if aside.is_file():
        aside.replace(before)
    return f"{place.name} is the one before" if place.is_file() else f"{prompt.name} is in use as written"


def copied(home: Path) -> Path:
    """Where llmal's own prompt can stand beside a pipeline: a copy that is there, or the first free name."""
    own = hashlib.sha256(DEFAULT_PROMPT.read_bytes()).digest()
    folder = home / "prompts"
    n = 1
    while True:
        place = folder / ("classify.md" if n == 1 else f"classify-{n}.md")
        if not place.exists() or hashlib.sha256(place.read_bytes()).digest() == own:
            return place
        n += 1


def copy_default(place: Path) -> None:
    """Write llmal's own prompt there, unless it is there."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DEFAULT_PROMPT, place)


def _before(place: Path) -> Path:
    return place.with_name(place.name + ".1")
