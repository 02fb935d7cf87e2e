"""People's part as a table: JSONL or CSV out, the same file with answers back in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmal.corpus import file_digest, records, shown, write_jsonl
from llmal.errors import ReviewError
from llmal.records import Labels, LabelSchema
from llmal.review import taking
from llmal.review.exchange import Taken, answered_work
from llmal.review.formats import work as w
from llmal.review.stage import Waiting
from llmal.store import schema as t
from llmal.store.store import Store
from llmal.text import repaired

COLUMNS = ("item", "text", "answer", "person", "note", "why", "guess", "confidence", "candidates")
"""`answer`, `person` and `note` are for people to fill in; `item` is the key and must stay.

`candidates` is what a person chose from first: it is kept beside the answer, and any label may be the answer.
"""

MORE = ("seconds", "at", "settles", "flagged", "flag")
"""Columns of a table of answers: time spent, Unix time, whether the word settles a dispute, and the flag.

There `guess` is what of a machine's stood beside the text.
"""

TOOL = "table"
"""Where answers in a table are from, as their source says."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters with which a spreadsheet takes a cell for a formula, full-width ones included."""


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
    return _write(path, _rows(store, queue), COLUMNS, spreadsheet=spreadsheet)


def answered_out(store: Store, schema: LabelSchema, path: Path, *, spreadsheet: bool = False) -> int:
    """Write what people answered, a row for each one's word and for what settled a dispute; returns how many.

    Read back, it is what it was; a cell with the names of several labels is JSON where bars would not do.

    Args:
        store: of the run.
        schema: the classes.
        path: where to; ending in .jsonl or .csv.
        spreadsheet: as for `hand_out`.

    Raises:
        ReviewError: another ending.
    """
    rows = (
        {
            "item": work.key,
            "text": work.text,
            "answer": said.labels[0] if schema.kind == "single" else list(said.labels),
            "person": said.person,
            "note": said.note or None,
            "why": work.why,
            "guess": None if said.saw is None else list(said.saw),
            "confidence": None,
            "candidates": list(said.shown) if said.shown else None,
            "seconds": said.seconds,
            "at": said.at,
            "settles": said.adjudicates or None,
            "flagged": work.flag is not None or None,
            "flag": work.flag or None,
        }
        for work in answered_work(store, schema)
        for said in work.said
    )
    return _write(path, rows, (*COLUMNS, *MORE), spreadsheet=spreadsheet)


def _write(path: Path, rows: Iterator[dict[str, Any]], columns: tuple[str, ...], *, spreadsheet: bool) -> int:
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix != ".csv":
        raise ReviewError(
            f"unknown kind of table '{path.suffix}'", where=path.name, hint="Use .jsonl or .csv"
        )
    part = path.with_name(path.name + ".part")
    n = 0
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            cells = {k: _cell(v) for k, v in row.items()}
            writer.writerow({k: _inert(v) for k, v in cells.items()} if spreadsheet else cells)
            n += 1
    part.replace(path)
    return n


def _rows(store: Store, queue: list[Waiting]) -> Iterator[dict[str, Any]]:
    for one, item in zip(queue, store.items([one.item for one in queue]), strict=True):
        yield {
            "item": item.key,
            "text": item.text,
            "answer": None,
            "person": None,
            "note": None,
            "why": "; ".join((one.why, *item.flags)),
            "guess": list(one.guess) or None,
            "confidence": None if one.confidence is None else round(one.confidence, 4),
            "candidates": list(one.candidates) or None,
        }


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        joined = "|".join(value)
        plain = value and joined.split("|") == value == [name.strip() for name in value]
        return joined if plain and not joined.startswith("[") else json.dumps(value)
    return "" if value is None else value


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
    source = f"{TOOL}:{file_digest(path)}"
    keys = taking.keys(store)
    answers: list[dict[str, Any]] = []
    flags: list[dict[str, Any]] = []
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
        if value is None or (isinstance(value, str) and not value.strip() and value not in schema.columns()):
            n_open += 1
            continue
        labels = _labels(value, schema)
        seq = keys.get(str(row["item"]))
        if seq is None or labels is None:
            aside.append(
                f"{where}: {'no such item' if seq is None else f'no label called {shown(str(value))!r}'}"
            )
            continue
        if _yes(row.get("flagged")):
            note = repaired(_ran(str(row.get("flag") or "")))[0]
            flags.append({"item": seq, "note": note, "source": f"{source}:{line}"})
        said = {"item": seq, "labels": json.dumps(labels), "source": source, "line": line}
        answers.append(said | _about(row, schema, person))
    new, older = taking.add(store, answers, flags, TOOL, by=person)
    return Taken(new, len(answers) - new - older, n_open, aside, 0, older)


def _about(row: Mapping[str, Any], schema: LabelSchema, person: str) -> dict[str, Any]:
    """Who gave an answer, when, after how long, beside what, and what for, as columns of a fact."""
    return {
        "person": repaired(_ran(str(row.get("person") or person)))[0],
        "note": repaired(_ran(str(row.get("note") or "")))[0],
        "at": w.moment(_number(row.get("at"))),
        "seconds": w.seconds(_number(row.get("seconds"))),
        "shown": _known(row.get("candidates"), schema),
        "saw": _known(row.get("guess"), schema, empty="[]"),
        "role": t.ADJUDICATE if _yes(row.get("settles")) else "label",
    }


def _yes(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes", "1"))


def _labels(value: Any, schema: LabelSchema) -> Labels | None:
    columns = schema.columns()
    if isinstance(value, str) and value not in columns:
        value = _names(value, none=schema.kind == "multi" and "none" not in columns)
    names = [value] if isinstance(value, str) else [str(v) for v in value] if isinstance(value, list) else []
    names = [
        next((n for n in (name, name.strip(), _ran(name.strip())) if n in columns), "") for name in names
    ]
    if not set(names) <= set(columns) or (schema.kind == "single" and len(names) != 1):
        return None
    return tuple(name for name in schema.names if name in names)


def _names(cell: str, *, none: bool = False) -> list[str]:
    """The names in a cell: a JSON list, or with bars between them."""
    if cell.strip() == "none" and none:
        return []
    if cell.startswith("["):
        try:
            found = json.loads(cell)
        except ValueError:
            return cell.split("|")
        return found if all(isinstance(name, str) for name in found) else [cell]
    return cell.split("|")


def _known(value: Any, schema: LabelSchema, *, empty: str | None = None) -> str | None:
    """Labels that stood in a row, as JSON and in its order; None where there were none, or none can tell.

    Args:
        value: the cell.
        schema: the classes.
        empty: for a list of no labels.
    """
    names = (
        _names(value) if isinstance(value, str) and value else value if isinstance(value, list) else [None]
    )
    columns = schema.columns()
    known = [name if name in columns else _ran(name) for name in map(str, names)]
    return (json.dumps(known) if known else empty) if set(known) <= set(columns) else None


def _number(value: Any) -> Any:
    """A number, also where it is a cell's text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _ran(name: str) -> str:
    """A cell as it was before `_inert`: someone copied the guess of a spreadsheet's table."""
    return name[1:] if name.startswith("'") and name[1:].startswith(FORMULA) else name
