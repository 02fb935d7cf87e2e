"""People's part as a table: JSONL or CSV out, the same file with answers back in."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmal.corpus import file_digest, records, shown, write_jsonl
from llmal.errors import ReviewError
from llmal.records import Labels, LabelSchema
from llmal.review.stage import Waiting
from llmal.store import schema as t
from llmal.store.store import Store
from llmal.text import repaired

COLUMNS = ("item", "text", "answer", "person", "note", "why", "guess", "confidence", "candidates")
"""`answer`, `person` and `note` are for people to fill in; `item` is the key and must stay.

`candidates` is what a person chose from first: it is kept beside the answer, and any label may be the answer.
"""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters with which a spreadsheet takes a cell for a formula, full-width ones included."""


class Taken(NamedTuple):
    """What came back: new answers, rows known already, rows left open, and rows set aside with reasons."""

    new: int
    known: int
    open: int
    aside: list[str]


def hand_out(store: Store, queue: list[Waiting], path: Path, *, spreadsheet: bool = False) -> int:
    """Write what waits as JSONL or CSV, by the file's ending; returns how many rows.

    Args:
        store: of the run.
        queue: what waits, in order.
        path: where to; ending in .jsonl or .csv.
        spreadsheet: put ' before cells a spreadsheet would run; such a file shows texts changed.

    Raises:
        ReviewError: another ending.
    """
    rows = _rows(store, queue)
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix != ".csv":
        raise ReviewError(
            f"unknown kind of table '{path.suffix}'", where=path.name, hint="Use .jsonl or .csv"
        )
    part = path.with_name(path.name + ".part")
    n = 0
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            cells = {
                k: "|".join(v) if isinstance(v, list) else ("" if v is None else v) for k, v in row.items()
            }
            writer.writerow({k: _inert(v) for k, v in cells.items()} if spreadsheet else cells)
            n += 1
    part.replace(path)
    return n


def _rows(store: Store, queue: list[Waiting]) -> Iterator[dict[str, Any]]:
    for w, item in zip(queue, store.items([w.item for w in queue]), strict=True):
        yield {
            "item": item.key,
            "text": item.text,
            "answer": None,
            "person": None,
            "note": None,
            "why": "; ".join((w.why, *item.flags)),
            "guess": list(w.guess) or None,
            "confidence": None if w.confidence is None else round(w.confidence, 4),
            "candidates": list(w.candidates) or None,
        }


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def take_back(store: Store, path: Path, schema: LabelSchema, *, person: str = "someone") -> Taken:
    """Read people's answers; the same file twice adds nothing.

    A row that is wrong is set aside with its line.

    Args:
        store: of the run, open for writing.
        path: the table, in either format, with `item` and `answer`.
        schema: the classes; an answer outside them is set aside, never bent.
        person: who answered, where the row does not say.

    Raises:
        ReviewError: no such file, or no such columns.
    """
    if not path.is_file():
        raise ReviewError("no such table", where=str(path))
    digest = file_digest(path)
    keys = {key: seq for seq, key in store.read(_keys())}
    answers: list[dict[str, Any]] = []
    aside: list[str] = []
    n_open = 0
    for line, row in records(path):
        where = f"{path.name}:{line}"
        if isinstance(row, str):
            aside.append(f"{where}: {row}")
            continue
        if "item" not in row or "answer" not in row:
            raise ReviewError("the table needs the columns 'item' and 'answer'", where=where)
        value = row["answer"]
        if value is None or (isinstance(value, str) and not value.strip()):
            n_open += 1
            continue
        labels = _labels(value, schema)
        seq = keys.get(str(row["item"]))
        if seq is None or labels is None:
            aside.append(
                f"{where}: {'no such item' if seq is None else f'no label called {shown(str(value))!r}'}"
            )
            continue
        answers.append(
            {"item": seq, "person": repaired(str(row.get("person") or person))[0],
             "labels": json.dumps(labels), "note": repaired(str(row.get("note") or ""))[0], "source": digest,
             "line": line, "at": time.time(), "seconds": None, "shown": _shown(row.get("candidates"), schema)}
        )  # fmt: skip
    new = _add(store, answers)
    return Taken(new, len(answers) - new, n_open, aside)


def _add(store: Store, answers: list[dict[str, Any]]) -> int:
    """Append answers in order. What a person said before, word for word, is no new answer."""
    latest = {
        (a.item, a.person): a.labels
        for a in store.read(
            t.answer.select().where(t.standing()).order_by(t.answer.c.n)
        )  # newest last, so it wins
    }
    first = 1 + max((a[0] for a in store.read(t.answer.select().with_only_columns(t.answer.c.n))), default=0)
    fresh = [a for a in answers if latest.get((a["item"], a["person"])) != a["labels"]]
    return store.add(t.answer, [{"n": first + i, **a} for i, a in enumerate(fresh)])


def _labels(value: Any, schema: LabelSchema) -> Labels | None:
    if isinstance(value, str) and schema.kind == "multi":
        value = [] if value.strip() == "none" and "none" not in schema.columns() else value.split("|")
    names = [str(v).strip() for v in value] if isinstance(value, list) else [str(value).strip()]
    names = [name if name in schema.columns() else _ran(name) for name in names]
    if any(name not in schema.columns() for name in names) or (schema.kind == "single" and len(names) != 1):
        return None
    return tuple(name for name in schema.names if name in names)


def _shown(value: Any, schema: LabelSchema) -> str | None:
    """The candidates of a row as JSON, in its order; None where the full list was shown, or none can tell."""
    names = value.split("|") if isinstance(value, str) else value if isinstance(value, list) else []
    columns = schema.columns()
    known = [name if name in columns else _ran(name) for name in map(str, names)]
    return json.dumps(known) if known and set(known) <= set(columns) else None


def _ran(name: str) -> str:
    """A cell as it was before `_inert`: someone copied the guess of a spreadsheet's table."""
    return name[1:] if name.startswith("'") and name[1:].startswith(FORMULA) else name


def _keys() -> Any:
    return t.item.select().with_only_columns(t.item.c.seq, t.item.c.key)
