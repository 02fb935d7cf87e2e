"""The job: reads a stream, labels it block by block, and can be killed at any moment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from llmal.bulk.journal import Places, identity
from llmal.context import Context, Progress, Silent
from llmal.errors import CorpusError, StoreError, UserError
from llmal.records import recipe
from llmal.runner import private_files
from llmal.spec import Pipeline
from llmal.state import EXPORT_TEXTS
from llmal.store.ledger import PICO, bill
from llmal.store.store import Store, open_store
from llmal.stream import checkpoint
from llmal.stream.asking import Once, Teacher, new_corpus, refuse_unable
from llmal.stream.cascade import Cascade
from llmal.stream.checkpoint import Checkpoint
from llmal.stream.reading import batches, source_of
from llmal.stream.rows import heading, written
from llmal.stream.state import again, packed, unpacked
from llmal.stream.tally import Tally
from llmal.stream.wish import Wish, check_paths
from llmal.stream.worker import Worker

CHECKPOINT_S = 5.0
"""Seconds between two points to go on from; writing the students takes some tenths."""

PATIENCE = 20
"""Time between two of them, at least, as a multiple of what the last one took."""


def stream_file(
    file: Path, source: Path | None, *, out: Path | None, wish: Wish, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Label every row of a stream: students where they are sure, else the pipeline's annotator.

    Killed, the same call goes on after the last checkpoint; answers paid for meanwhile are in the ledger, and
    the output is the same to the byte. Another input with the same folder begins with what students know.

    Args:
        file: pipeline file; its labels, encoder, annotator, budget and seed are used.
        source: JSONL, CSV or TSV by its ending; None reads JSONL from the standard input as it comes.
        out: JSONL, CSV or TSV, whole or not there; None writes JSONL to the standard output as it goes.
        wish: options.
        folder: keeps ledger, answers and students.
        progress: where to show progress.

    Returns:
        See README: rows, by source, calls, cost, agreement with the model with its interval, alarms.

    Raises:
        SpecError, UserError, CorpusError: the call cannot work, or the output is another job's.
        ModelError, StoreError, Interrupted: everything answered before is kept.
    """
    pipeline = Pipeline.from_yaml(file)
    schema = pipeline.label_schema()
    refuse_unable(pipeline.annotate, schema)
    wish = wish.of(pipeline)
    check_paths(source, out, wish)
    with private_files():
        if (folder / "pipeline.yaml").is_file():
            raise UserError(
                "this is the folder of a run",
                where=str(folder),
                hint="Name another with --run: streams keep apart",
            )
        store = open_store(folder)
        try:
            store.note("home", lambda: str(file.parent.resolve()))
            home = file.parent.resolve()
            ctx = Context(
                folder, home=home, seed=pipeline.seed, progress=Once(progress), encode=pipeline.embed.encode
            )
            job = _Job(pipeline, store, ctx, source, out, wish, progress)
            if out is None:
                return job.run(None)
            places = Places(out)
            with places.held():
                return job.run(places)
        finally:
            store.close()


class _Job:
    """One call."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        ctx: Context,
        source: Path | None,
        out: Path | None,
        wish: Wish,
        progress: Progress,
    ) -> None:
        self.p, self.store, self.ctx, self.path, self.out = pipeline, store, ctx, source, out
        self.wish, self.progress = wish, progress
        self.schema, self.caps = pipeline.label_schema(), pipeline.budget.caps()
        annotator, vectors = pipeline.annotate, pipeline.embed.recipe()
        self.learner = recipe(
            "stream", self.schema.recipe(), vectors, annotator.recipe_for(self.schema, ctx, vectors)
        )
        asked = [wish._replace(force=False, export=None)._asdict(), self.learner, self.kind, pipeline.seed]
        self.about = {"input": identity(source), "options": recipe("stream-options", *asked)}

    @property
    def kind(self) -> str:
        """Ending of the output's name."""
        return self.out.suffix.lower() if self.out else ".jsonl"

    def run(self, places: Places | None) -> dict[str, Any]:
        """Label what is left."""
        kept = self._start(places)
        begun = kept.rows
        if not kept.whole:
            if begun:
                self.progress.say(f"going on after {begun:,} rows")
            try:
                self._work(kept, places)
            except OSError as error:
                raise StoreError(
                    f"cannot go on: {error.strerror or error}",
                    where=str(error.filename or self.ctx.folder),
                    hint="See to the disk; the same command then goes on",
                ) from error
        if places is not None and places.part.exists():
            places.part.replace(places.out)
        if self.wish.export:
            from llmal.stream.ship import ship

            ship(
                self.cascade,
                self.p,
                Path(self.wish.export),
                learner=self.learner,
                texts=self.store.texts(0, EXPORT_TEXTS),
            )
        return self._told(kept, begun)

    def _start(self, places: Places | None) -> Checkpoint:
        """Go on with this job, or begin it with what students know."""
        found = checkpoint.read(self.store.folder)
        if found is not None and places is not None and self.path is not None and not self.wish.force:
            kept, arrays = found
            if kept.job == self.about and kept.out == str(places.out.resolve()) and _there(kept, places):
                self.cascade = unpacked(arrays, kept.facts, self.wish.options)
                self.tally = Tally(**kept.tally)
                return kept
        if places is not None:
            self._make_room(found[0] if found else None, places)
        if found is not None and found[0].learner == self.learner:
            self.cascade = again(unpacked(found[1], found[0].facts, self.wish.options))
            n = len(self.cascade.memory.rows)
            self.progress.say(f"students begin with what they learnt from {n:,} answers")
        else:
            if found is not None:
                self.progress.say("labels, encoder or annotator are others than before: students begin anew")
            width = self.ctx.encode([""]).shape[1]
            self.cascade = Cascade(self.wish.options, len(self.schema.labels), width)
        self.tally, spent = Tally(), bill(self.store)
        kept = Checkpoint(self.learner, self.about, new_corpus(self.store, self.about["options"]))
        kept.out, kept.begun = str(places.out.resolve()) if places else "", [spent.calls, spent.cost]
        arrays, kept.facts = packed(self.cascade)
        kept.tally = self.tally.as_json()
        checkpoint.write(self.store.folder, kept, arrays)  # before there is an output that it has to explain
        return kept

    def _make_room(self, found: Checkpoint | None, places: Places) -> None:
        if places.out.exists() and not self.wish.force:
            raise UserError(
                "the output is there already", where=str(places.out), hint="Give --force to write over it"
            )
        if places.part.exists() and not (self.wish.force or self.path is None):
            rows = f" with {found.rows:,} rows" if found and found.out == str(places.out.resolve()) else ""
            raise UserError(
                f"an unfinished output{rows} of another job is here", where=str(places.part),
                hint="Give --force to start anew; answers paid for are kept",
            )  # fmt: skip
        places.clear()

    def _work(self, kept: Checkpoint, places: Places | None) -> None:
        spent = kept.spent if kept.caps == list(self.caps) else ""
        teacher = Teacher(
            self.p.annotate, self.schema, self.store, self.ctx, self.caps,
            vectors=self.p.embed.recipe(), corpus=kept.corpus, spent=spent,
        )  # fmt: skip
        worker = Worker(self.cascade, teacher, self.p.embed.encode, self.tally, texts=self.wish.with_text)
        if places is None:
            self._append(sys.stdout.buffer, kept, worker, resumable=False)
            return
        with places.part.open("r+b" if places.part.exists() else "w+b") as part:
            part.truncate(kept.bytes)
            part.seek(kept.bytes)
            self._append(part, kept, worker, resumable=True)
        if identity(self.path) != self.about["input"]:
            raise CorpusError(
                "the file changed while it was read", where=str(self.path), hint="Give --force to start anew"
            )

    def _append(self, to: BinaryIO, kept: Checkpoint, worker: Worker, *, resumable: bool) -> None:
        source = source_of(self.path, self.wish)
        if kept.bytes == 0:
            kept.bytes = to.write(heading(self.kind, texts=self.wish.with_text))
        bars = Silent() if self.path is None else self.progress
        due = 0.0
        with bars.task("stream", source.total) as advance:
            advance(kept.place)
            for rows, end in batches(source, kept.position, self.wish):
                lines = worker.label(rows) if rows else []
                kept.bytes += to.write(written(lines, self.kind, texts=self.wish.with_text))
                to.flush()
                if end is None:
                    continue
                advance(end.place - kept.place, note=_note(self.tally))
                kept.rows, kept.place, kept.line = end
                if time.monotonic() >= due:
                    due = time.monotonic() + self._keep(to, kept, worker.teacher, resumable=resumable)
        kept.whole = True
        self._keep(to, kept, worker.teacher, resumable=resumable)

    def _keep(self, to: BinaryIO, kept: Checkpoint, teacher: Teacher, *, resumable: bool) -> float:
        """Write a checkpoint; seconds until the next is due."""
        started = time.monotonic()
        if resumable:
            os.fsync(to.fileno())
        arrays, kept.facts = packed(self.cascade)
        kept.tally = self.tally.as_json()
        kept.spent, kept.caps = teacher.spent, list(self.caps) if teacher.spent else []
        checkpoint.write(self.store.folder, kept, arrays)
        return max(CHECKPOINT_S, PATIENCE * (time.monotonic() - started))

    @property
    def teacher_answers(self) -> int:
        """Answers the students learnt from."""
        return self.cascade.memory.turn

    def _told(self, kept: Checkpoint, begun: int) -> dict[str, Any]:
        spent, tally = bill(self.store), self.tally
        return {
            "rows": tally.rows,
            "sources": tally.sources,
            "share_llm": tally.sources.get("llm", 0) / tally.rows if tally.rows else None,
            "unlabelled": tally.errors,
            "calls": spent.calls - kept.begun[0],
            "usd": (spent.cost - kept.begun[1]) / PICO,
            "agreement": tally.agreement(),
            "alarms": self.cascade.alarms,
            "budget": kept.spent,
            "learnt_from": self.teacher_answers,
            "resumed_at": begun,
            "out": str(self.out) if self.out else None,
        }


def _there(kept: Checkpoint, places: Places) -> bool:
    """Whether the output that a checkpoint speaks of is on the disk."""
    if kept.whole and places.out.exists():
        return True
    return kept.bytes == 0 or (places.part.exists() and places.part.stat().st_size >= kept.bytes)


def _note(tally: Tally) -> str:
    asked = tally.sources.get("llm", 0)
    return f"bytes; {tally.rows:,} rows, {asked / max(1, tally.rows):.0%} by the model"


def told_text(told: dict[str, Any]) -> str:
    """What `stream_file` returned, in some lines."""
    by = ", ".join(f"{n:,} {name}" for name, n in sorted(told["sources"].items(), key=lambda pair: -pair[1]))
    lines = [f"wrote {told['rows']:,} rows to {told['out']}: {by}"]
    lines.append(f"{told['calls']:,} calls, ${told['usd']:.4f}")
    if found := told["agreement"]:
        words = "; ".join(
            f"{name} {m['value']:.3f} ({m['low']:.3f} to {m['high']:.3f})" for name, m in found.items()
        )
        lines.append(f"agreement with the model, from {found['output']['n']:,} rows asked by chance: {words}")
    else:
        lines.append("agreement with the model: unknown, no row was asked about by chance")
    if told["alarms"]:
        lines.append(
            "students were wrong more often than told after row " + ", ".join(map(str, told["alarms"]))
        )
    if told["budget"]:
        lines.append(f"the model was asked no more: {told['budget']}")
    for reason, n in told["unlabelled"].items():
        lines.append(f"{n:,} rows without a label: {reason}")
    return "\n".join(lines)
