"""The job: reads a table of any size in blocks, labels each, appends it, and can be killed at any moment."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llmal.bulk.answers import Answers, answer
from llmal.bulk.columns import kinds_of
from llmal.bulk.journal import Journal, Places, identity, job
from llmal.bulk.sinks import ArrowSink, Sink
from llmal.bulk.sources import Block, Position, Source
from llmal.bulk.wish import Wish, check_paths, is_jsonl, options, sink_of, source_of
from llmal.context import Progress, Silent
from llmal.corpus import listed, shown
from llmal.errors import CorpusError, StoreError, UserError
from llmal.predictor import Predictor, load

CHECKPOINT_S = 1.0
"""Seconds between two points to go on from: a sync of the disk takes some hundredths."""


def predict_file(
    folder: Path, file: Path | None, *, out: Path | None, wish: Wish | None = None, progress: Progress
) -> dict[str, Any]:
    """Label every row of a table; row in, row out, in its order; memory stays flat whatever its size.

    Rows that cannot be labelled (no text, not a text, unreadable, too long) are written with no label and an
    `error`. An input column called as one of the answers is kept as `input.NAME`. Killed, the same call goes
    on after the last block on the disk, and the output is the same to the byte.

    Args:
        folder: exported classifier.
        file: JSONL, CSV, TSV or Parquet by its ending; None reads JSONL from the standard input.
        out: the same formats, whole or not there; None writes JSONL to the standard output as it goes.
        wish: columns and options.
        progress: where to show progress.

    Returns:
        `rows` written, `errors` (reason -> rows), `needs_review` rows, `resumed_at` row, and `out`.

    Raises:
        CorpusError: no such file or column, or the input changed while it was read.
        UserError: an output that is there, or an unfinished one of another job, and no `force`.
        StoreError: another process writes this output, or the disk is full.
    """
    wish = wish or Wish()
    check_paths(file, out, wish)
    if out is not None:
        places = Places(out)
        with places.held():
            return _to_file(folder, file, places, wish, progress)
    model = load(folder, backend=wish.backend)
    source = source_of(file, wish)
    work = _Work(model, source, sink_of(None, source, model, wish, None), Journal({}))
    work.append(sys.stdout.buffer, sys.stdout.buffer.flush, progress, every_s=0.0)
    return _told(work.journal, 0, None)


def _to_file(
    folder: Path, file: Path | None, places: Places, wish: Wish, progress: Progress
) -> dict[str, Any]:
    found = places.read()
    if places.out.exists() and not wish.force and not (found and found.whole):
        raise UserError(
            "the output is there already", where=str(places.out), hint="Give --force to write over it"
        )
    model = load(folder, backend=wish.backend)
    about = job(file, folder, options(places.out, wish, model))
    journal = found if found and file and found.job == about else None
    if journal is None:
        _give_up(found, about, places, force=wish.force or file is None, progress=progress)
        journal = Journal(about)
    begun = journal.rows
    if not journal.whole:
        if begun:
            progress.say(f"going on after {begun:,} rows")
        try:
            _write(model, source_of(file, wish), journal, places, wish, progress)
        except OSError as error:
            raise StoreError(
                f"cannot go on: {error.strerror or error}",
                where=str(error.filename or places.part),
                hint="See to the disk; the same command then goes on",
            ) from error
        if identity(file) != about["input"]:
            raise CorpusError(
                "the file changed while it was read", where=str(file), hint="Give --force to start anew"
            )
    places.deliver(journal)
    return _told(journal, begun, places.out)


def _give_up(
    found: Journal | None, about: dict[str, str], places: Places, *, force: bool, progress: Progress
) -> None:
    """Make room for a new job; what another one left is hours of work, so not without being told to."""
    if found is not None and not force:
        changed = " and ".join(name for name, value in about.items() if found.job.get(name) != value)
        raise UserError(
            f"an unfinished output with {found.rows:,} rows of another job (other {changed}) is here",
            where=str(places.part),
            hint="Give --force to start anew",
        )
    if found is not None:
        progress.say(f"starting anew; {found.rows:,} rows of an unfinished job are given up")
    places.clear()


def _write(
    model: Predictor, source: Source, journal: Journal, places: Places, wish: Wish, progress: Progress
) -> None:
    """The whole output, but for its name."""
    free = source.columns is None and wish.keep == "all" and not is_jsonl(places.out)
    if free and journal.columns is None:
        journal.columns = kinds_of(source, progress)
    sink = sink_of(places.out, source, model, wish, journal.columns)
    with places.part.open("r+b" if places.part.exists() else "w+b") as part:
        part.truncate(journal.bytes)
        part.seek(journal.bytes)

        def keep() -> None:
            part.flush()
            os.fsync(part.fileno())
            places.write(work.journal)

        work = _Work(model, source, sink, journal)
        work.append(part, keep, progress, every_s=CHECKPOINT_S)
    if isinstance(sink, ArrowSink):
        sink.finish(places.part, places.whole)
        with places.whole.open("r+b") as file:
            os.fsync(file.fileno())


class _Work(NamedTuple):
    """Labelling block by block."""

    model: Predictor
    source: Source
    sink: Sink
    journal: Journal

    def append(self, to: BinaryIO, keep: Callable[[], object], progress: Progress, *, every_s: float) -> None:
        """Write what the journal does not have yet; `keep` is called after whole blocks, and at the end."""
        source, journal = self.source, self.journal
        first, started = journal.rows, time.monotonic()
        kept = started
        if journal.bytes == 0:
            journal.bytes = to.write(self.sink.head())
        keep()
        bars = Silent() if source.path is None else progress  # of a pipe nobody knows how much is to come
        with bars.task("predict", source.total) as advance:
            advance(_units(source, journal.position))
            for block in source.blocks(journal.position):
                if block.start.rows == 0:
                    _check_columns(source, block)
                answers = answer(self.model, block)
                journal.bytes += to.write(self.sink.body(block, answers))
                self._count(block, answers)
                now = time.monotonic()
                if now - kept >= every_s:
                    keep()
                    kept = time.monotonic()
                rate = (journal.rows - first) / max(1e-9, now - started)
                units = _units(source, block.end) - _units(source, block.start)
                advance(units, note=_note(journal, source, rate))
        keep()

    def _count(self, block: Block, answers: Answers) -> None:
        journal = self.journal
        journal.rows, journal.place, journal.line = block.end
        journal.review += sum(map(bool, answers.review))
        reasons = Counter(error.split(":")[0] for error in answers.errors if error)
        journal.errors = dict(Counter(journal.errors) + reasons)


def _check_columns(source: Source, block: Block) -> None:
    """A file of free rows of which the first thousand have no such column was meant otherwise."""
    if source.columns is not None or not isinstance(block.rows, list):
        return
    rows = [row for row in block.rows if row is not None]
    for wanted in source.wanted:
        if rows and not any(wanted in row for row in rows):
            raise CorpusError(
                f"no column '{shown(wanted)}'", where=source.name, hint=f"It has: {listed(rows[0])}"
            )


def _units(source: Source, at: Position) -> int:
    return at.rows if source.unit == "rows" else at.place


def _note(journal: Journal, source: Source, rate: float) -> str:
    """Words such as `bytes; 20,480 rows, 5,120 a second, 3 min left`."""
    done = _units(source, journal.position)
    words = f"{journal.rows:,} rows, {rate:,.0f} a second"
    if source.total and done:
        left = max(0, source.total - done) * journal.rows / done / max(rate, 1e-9)
        words += f", {left / 60:.0f} min left" if left >= 90 else f", {left:.0f} s left"
    return words if source.unit == "rows" else f"bytes; {words}"


def _told(journal: Journal, begun: int, out: Path | None) -> dict[str, Any]:
    return {
        "rows": journal.rows,
        "errors": journal.errors,
        "needs_review": journal.review,
        "resumed_at": begun,
        "out": str(out) if out else None,
    }


def told_text(told: dict[str, Any]) -> str:
    """What `predict_file` returned, in one line."""
    parts = [f"{n:,} {reason}" for reason, n in sorted(told["errors"].items(), key=lambda pair: -pair[1])]
    unlabelled = f", {sum(told['errors'].values()):,} without a label ({', '.join(parts)})" if parts else ""
    review = f", {told['needs_review']:,} to be looked at" if told["needs_review"] else ""
    return f"wrote {told['rows']:,} rows to {told['out']}{unlabelled}{review}"
