"""`llmal run --watch`: pass after pass, each begun when people answered enough for it to be worth it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmal.context import Progress, Silent
from llmal.errors import Interrupted, RunInUse
from llmal.review.asks import Asks
from llmal.runner import run
from llmal.state import Outcome
from llmal.store.frozen import News, news, seen
from llmal.store.store import open_store

if TYPE_CHECKING:
    from llmal.spec import Pipeline

LOOK_EVERY_S = 1.0
"""Seconds between two looks at whether people said anything: two look-ups in an index."""

PAUSE_S = 30.0
"""Seconds in which nobody said anything, after which a tenth of what waited is enough."""

LONG_PAUSES = 20
"""Pauses after which any answer is enough: ten minutes at `PAUSE_S`."""

FEW = 10
"""Answers below which no pass begins before all are there, or a long pause: they would change little."""


def watch(
    pipeline: Pipeline,
    folder: str | Path = "runs/notebook",
    *,
    home: str | Path = ".",
    progress: Progress | None = None,
    rounds: int | None = None,
    retry_failed: bool = False,
    pause: float = PAUSE_S,
) -> Outcome:
    """Run a pipeline; while items wait for people, go on by itself whenever enough answers are in.

    Between passes nothing is locked, and people answer on the review page or with tables and tools. When a
    pass begins `due` says. A pass goes by what was said when it began, and the next by the rest.

    Args:
        pipeline: as in `llmal.runner.run`, like all but the last.
        folder: the run's folder.
        home: folder the file's relative paths start at.
        progress: where to show progress.
        rounds: at most this many rounds in each pass.
        retry_failed: ask again about items whose calls failed for good, in the first pass.
        pause: seconds of silence that `due` speaks of.

    Returns:
        The last pass's outcome: nothing waits any more, and all that was said is used.

    Raises:
        Interrupted: Ctrl+C while it waited for people.
        LlmalError: as `run`.
    """
    folder, progress = Path(folder).resolve(), progress or Silent()
    done = run(pipeline, folder, home=home, progress=progress, rounds=rounds, retry_failed=retry_failed)
    while done.waiting or done.meanwhile:
        try:
            if done.waiting:
                _until_due(done, progress, pause)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"stopped watching while {done.waiting:,} items waited for people",
                hint="All that was said is kept: the same command goes on, and without --watch runs once",
            ) from error
        done = _when_free(
            lambda: run(pipeline, folder, home=home, progress=progress, rounds=rounds), progress
        )
    return done


def due(found: News, asked: Asks, quiet: float, pause: float = PAUSE_S) -> bool:
    """Whether another pass is worth it.

    It is as soon as all or half of what waited is answered, half being `FEW` at least: people who never pause
    get a pass for each halving. It is after a `pause` when a tenth is, `FEW` at least, and after
    `LONG_PAUSES` of them when anything was said: what little there is does not lie unused.

    Args:
        found: what people said since the last pass began.
        asked: what waited for people after that pass.
        quiet: seconds since anybody said anything.
        pause: in seconds.
    """
    if not found.words:
        return False
    answered = len(found.items & asked.items)
    if answered >= asked.n or found.words >= max(FEW, asked.n / 2):
        return True
    enough = found.words >= max(FEW, asked.n / 10)
    return quiet >= (pause if enough else LONG_PAUSES * pause)


def _until_due(done: Outcome, progress: Progress, pause: float) -> None:
    """Look at the store until another pass is due. It is only read, and nothing is locked."""
    progress.say(f"{done.asks.words(done.run)}; this goes on by itself, Ctrl+C stops")
    store = open_store(done.run, write=False)
    try:
        found, since = news(store, done.since), time.monotonic()
        with progress.task("people", done.waiting) as advance:
            shown = 0
            while True:
                answered = min(done.waiting, len(found.items & done.asks.items))
                if answered > shown:
                    advance(answered - shown)
                    shown = answered
                if due(found, done.asks, time.monotonic() - since, pause):
                    break
                time.sleep(LOOK_EVERY_S)
                if seen(store) != found.upto:
                    found, since = news(store, done.since), time.monotonic()
    finally:
        store.close()
    progress.say(f"people said {found.words:,} words; going on")


def _when_free(work: Callable[[], Outcome], progress: Progress) -> Outcome:
    """Do the work once no other process holds the run."""
    told = False
    while True:
        try:
            return work()
        except RunInUse as error:
            if not told:
                progress.say(f"{error}; waiting")
                told = True
            time.sleep(LOOK_EVERY_S)
