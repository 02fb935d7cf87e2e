"""People's part in another tool's file: tasks out, the tool's export with answers back in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from llmal.corpus import file_digest, json_line, shown, text_key
from llmal.errors import ReviewError
from llmal.records import Labels, LabelSchema, batched
from llmal.review import taking
from llmal.review.formats import reading
from llmal.review.formats.argilla import Argilla
from llmal.review.formats.label_studio import LabelStudio
from llmal.review.formats.prodigy import Prodigy
from llmal.review.formats.work import AUDIT, Format, Odd, Said, Work, number
from llmal.review.stage import Waiting
from llmal.store import schema as t
from llmal.store.store import Store
from llmal.text import repaired

FORMATS: dict[str, type[Format]] = {f.name: f for f in (LabelStudio, Argilla, Prodigy)}
"""Name on the command line -> format."""

BLOCK = 4096
"""Items whose texts are in memory at once."""


class Taken(NamedTuple):
    """What came back.

    Attributes:
        new: answers added.
        known: answers there already.
        open: tasks that nobody answered.
        aside: what was set aside, each with its place and a reason.
        skipped: drafts and cancelled, rejected or ignored answers: they are none.
        older: answers that the same person has replaced since.
    """

    new: int
    known: int
    open: int
    aside: list[str]
    skipped: int
    older: int


def chosen(name: str) -> type[Format]:
    """The format of that name.

    Raises:
        ReviewError: there is none.
    """
    if name not in FORMATS:
        raise ReviewError(
            f"no format called '{shown(name)}'", where="--format", hint=f"Known: {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def detect(path: Path) -> str | None:
    """The format a file is in by its first task; None for a table of ours.

    Raises:
        ReviewError: no such file, or nothing that any tool writes.
    """
    ending = path.suffix.lower()
    if ending not in (".json", ".jsonl") or (ending == ".jsonl" and not path.is_file()):
        return None
    text = reading.content(path) if ending == ".json" else reading.head(path)
    first = next((task for _, task in reading.tasks(text) if isinstance(task, dict)), {})
    found = next((name for name, f in FORMATS.items() if f.mine(first)), None)
    if found is not None or ending == ".jsonl":
        return found
    raise ReviewError(
        "this is no export of a tool that llmal knows",
        where=path.name,
        hint=f"Export tasks with annotations, or name the tool with --format ({', '.join(FORMATS)})",
    )


def hand_out(store: Store, queue: Iterable[Work], path: Path, schema: LabelSchema, name: str) -> list[Path]:
    """Write the file, and beside it what sets the project up; returns where these are.

    Args:
        store: of the run.
        queue: from `waiting_work` or `answered_work`.
        path: where to.
        schema: the classes.
        name: of the format.

    Raises:
        ReviewError: no such format, or another ending.
    """
    form = chosen(name)(schema)
    if path.suffix != form.suffix:
        raise ReviewError(f"{name} reads {form.suffix} files", where=path.name, hint="Rename --out")
    beside = form.beside(path)
    for place, text in beside.items():
        place.write_text(text, encoding="utf-8", newline="\n")
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        before = "[\n" if form.wraps else ""
        for work in queue:
            for task in form.tasks(work):
                file.write(before + json_line(task))
                before = ",\n" if form.wraps else "\n"
        file.write(before + "]\n" if before == "[\n" else "\n]\n" if form.wraps else "\n" * bool(before))
    part.replace(path)
    return list(beside)


def waiting_work(store: Store, queue: list[Waiting]) -> Iterator[Work]:
    """What waits, in order; an item of the audit goes out without anything a machine said."""
    flags = store.flagged()
    for block in batched(queue, BLOCK):
        for w, item in zip(block, store.items([w.item for w in block]), strict=True):
            work = Work(item.key, item.text, "; ".join((w.why, *item.flags)), flag=flags.get(w.item))
            if w.why == AUDIT:
                yield work
            else:
                sure = number(w.confidence, 0.0, 1.0)
                yield work._replace(guess=w.guess, confidence=sure, candidates=w.candidates)


def answered_work(store: Store, schema: LabelSchema) -> Iterator[Work]:
    """Every item that people answered, with each one's word and what settled a dispute.

    No machine's answer goes along but the one that stood beside the text.
    """
    c = t.answer.c
    more = {
        (a.item, a.person, a.role == t.ADJUDICATE, a.at): (a.shown, a.saw)
        for a in store.read(sa.select(c.item, c.person, c.role, c.at, c.shown, c.saw).order_by(c.n))
    }
    by_item: dict[int, list[Said]] = {}
    for word in store.words(schema.columns()):
        shown, saw = map(_listed, more[word.item, word.person, word.adjudicates, word.at])
        said = Said(
            word.labels, word.person, word.note, word.seconds, word.at, shown or (), saw, word.adjudicates
        )
        by_item.setdefault(word.item, []).append(said)
    flags = store.flagged()
    for block in batched(sorted(by_item), BLOCK):
        for item in store.items(block):
            each, flag = tuple(by_item[item.seq]), flags.get(item.seq)
            newest = each[-1].shown or ()
            yield Work(item.key, item.text, "answered", candidates=newest, said=each, flag=flag)


def take_back(
    store: Store,
    path: Path,
    schema: LabelSchema,
    name: str,
    *,
    person: str = "someone",
    people: Mapping[str, str] | None = None,
) -> Taken:
    """Read the answers in a tool's export; the same file twice adds nothing.

    An answer is new where it differs from what that person said last of the item; one that is older than that
    is counted, not added. Where the tool tells no time, an answer is new that differs from what the tool said
    last. A task that is wrong is set aside with its number, in JSONL its line.

    Args:
        store: of the run, open for writing.
        path: the export.
        schema: the classes; an answer outside them is set aside, never bent.
        name: of the format.
        person: who answered, where the file does not say.
        people: what the file calls people -> how they are known, where somebody can tell.

    Raises:
        ReviewError: no such file or format, or a file that is no text.
    """
    form, text = chosen(name)(schema), reading.content(path)
    if form.wraps and not text.lstrip().startswith("["):
        raise ReviewError(f"this is no list of tasks, as {name} writes them", where=path.name)
    desk = _Desk(store, schema, path, name, person, people or {})
    for block in batched(reading.tasks(text), BLOCK):
        desk.read(form, block)
    return desk.done()


class _Desk:
    """Tasks compared with the run, and what is right about them."""

    def __init__(
        self, store: Store, schema: LabelSchema, path: Path, tool: str, person: str, people: Mapping[str, str]
    ) -> None:
        self._store, self._schema, self._path = store, schema, path
        self._person, self._people = person, people
        self._tool, self._source = tool, f"{tool}:{file_digest(path)}"
        self._keys = taking.keys(store)
        self._kept: list[dict[str, Any]] = []
        self._flags: list[dict[str, Any]] = []
        self._aside: list[str] = []
        self._open = self._skipped = 0

    def read(self, form: Format, block: list[tuple[int, dict[str, Any] | str]]) -> None:
        found: list[tuple[int, int, Work]] = []
        for line, task in block:
            try:
                work = form.read(task) if isinstance(task, dict) else _odd(task)
                found.append((line, self._item(work), work))
            except Odd as error:
                self._put_aside(line, str(error))
        texts = {i.seq: i.text for i in self._store.items(list({seq for _, seq, _ in found}))}
        for line, seq, work in found:
            if work.text is None:
                self._put_aside(line, "it has no text to compare with the item's")
            elif work.text != texts[seq] and text_key(work.text) != text_key(texts[seq]):
                self._put_aside(line, "its text is not the item's: it was changed")
            else:
                self._take(line, seq, work)

    def _item(self, work: Work) -> int:
        """The item by its key or, where the tool lost that, by its text."""
        key = work.key if work.key is not None or work.text is None else text_key(work.text)
        if key is None or key not in self._keys:
            raise Odd("no such item")
        return self._keys[key]

    def _take(self, line: int, seq: int, work: Work) -> None:
        self._skipped += work.skipped
        self._open += not work.said and not work.skipped
        if work.flag is not None:
            note = repaired(work.flag)[0]
            self._flags.append({"item": seq, "note": note, "source": f"{self._source}:{line}"})
        for n, said in enumerate(work.said):
            if why := _wrong(said.labels, self._schema):
                self._put_aside(line, why)
                continue
            given = [name for name in self._schema.names if name in said.labels]
            self._kept.append(
                {
                    "item": seq,
                    "person": repaired(self._known(said.person))[0],
                    "labels": json.dumps(given),
                    "note": repaired(said.note)[0],
                    # Two answers of one person about one item are two facts of one line.
                    "source": self._source if n == 0 else f"{self._source}.{n}",
                    "line": line,
                    "at": said.at,
                    "seconds": said.seconds,
                    "shown": self._names(work.candidates if said.shown is None else said.shown),
                    "saw": json.dumps([]) if said.saw == () else self._names(said.saw),
                    "role": t.ADJUDICATE if said.adjudicates else "label",
                }
            )

    def _known(self, person: str | None) -> str:
        """How that person is known here."""
        return self._people.get(person, person) if person else self._person

    def _names(self, labels: Labels | None) -> str | None:
        """Those of the labels that exist, as JSON; None where there are none."""
        found = [name for name in labels or () if name in self._schema.columns()]
        return json.dumps(found) if found else None

    def done(self) -> Taken:
        """Add what is new."""
        new, older = taking.add(self._store, self._kept, self._flags, self._tool, by=self._person)
        known = len(self._kept) - new - older
        return Taken(new, known, self._open, self._aside, self._skipped, older)

    def _put_aside(self, line: int, why: str) -> None:
        self._aside.append(f"{self._path.name}:{line}: {why}")


def _odd(reason: str) -> Work:
    raise Odd(reason)


def _wrong(labels: Labels, schema: LabelSchema) -> str:
    """What is wrong with an answer, empty where nothing is."""
    columns = schema.columns()
    for name in labels:
        if name not in columns:
            return f"no label called {shown(name)!r}"
    if schema.kind == "single" and len(set(labels)) != 1:
        return f"{len(set(labels))} labels where one is asked for"
    return ""


def _listed(text: str | None) -> Labels | None:
    return tuple(json.loads(text)) if text else None
