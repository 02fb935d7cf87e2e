"""Tasks out of a JSON array or JSONL, one at a time: what is broken is named, and the rest still counts."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.corpus import shown
from llmal.errors import ReviewError

MAX_BYTES = 2**30
"""A larger file is refused: 1,000 characters each, a million tasks fit."""

MAX_LINE = 2**24
"""Characters of a line that may tell which tool wrote a file."""

MAX_DEPTH = 64
"""Brackets inside brackets; no tool writes ten. Python itself gives up at about a thousand."""

MAX_DIGITS = 25
"""Digits of a whole number; a longer one costs quadratic time to read and is taken as infinite."""

_BLANK = re.compile(r"[ \t\n\r]*")


class Reader:
    """A JSON decoder that bounds numbers and depth and remembers keys that stood twice."""

    def __init__(self) -> None:
        self._twice = ""
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else float(digits),
            parse_constant=float,
            strict=False,  # a raw tab or line break inside a text is the text's
        )

    def value(self, text: str, start: int) -> tuple[Any | str, int]:
        """The value that starts there or what is wrong with it, and the place after it.

        Raises:
            ValueError: the text is no JSON from there on, or nested too deeply.
        """
        self._twice = ""
        try:
            found, end = self._decoder.raw_decode(text, start)
        except RecursionError:
            raise ValueError("is nested too deeply") from None
        except ValueError as error:
            at = getattr(error, "pos", start)
            if at >= len(text) or "Unterminated" in str(error):
                raise ValueError("ends inside a task") from None
            raise ValueError("is no JSON from there on") from None
        if self._twice:
            return f"the key '{shown(self._twice)}' stands twice", end
        if not isinstance(found, dict):
            return "not a JSON object", end
        return ("nested too deeply" if _deep(found) else found), end

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            self._twice = next(key for key in keys if keys.count(key) > 1) or "(empty)"
        return made


def _deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        nested = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [v for some in nested for v in some]
        if not level:
            return False
    return True


def content(path: Path) -> str:
    """The file as text.

    Raises:
        ReviewError: no such file, too large, or neither UTF-8 nor UTF-16 with its mark.
    """
    if not path.is_file():
        raise ReviewError("no such file", where=str(path))
    if path.stat().st_size > MAX_BYTES:
        raise ReviewError("the file is larger than a gibibyte", where=path.name, hint="Export in parts")
    raw = path.read_bytes()
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReviewError(f"the file is not UTF-8 at byte {error.start}", where=path.name) from None


def head(path: Path) -> str:
    """The first line of a file that is not blank; empty where there is none of a sane length."""
    with path.open("rb") as file:
        raw = file.read(4)
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    with path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="\n") as text:
        while line := text.readline(MAX_LINE):
            if line.strip():
                return line if line.endswith("\n") or len(line) < MAX_LINE else ""
    return ""


def tasks(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, task) of every task, or what is wrong with it; numbers are 1-based, lines in JSONL.

    Where an array breaks off, the tasks before it are given, and the last entry says so.
    """
    start = _after_blank(text, 0)
    yield from _array(text, start + 1) if text[start : start + 1] == "[" else _lines(text)


def _array(text: str, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader, n, start = Reader(), 0, _after_blank(text, start)
    if text[start : start + 1] == "]":
        return
    while True:
        n += 1
        try:
            task, end = reader.value(text, start)
        except ValueError as error:
            yield n, f"the file {error}; this task and those after it are not read"
            return
        yield n, task
        start = _after_blank(text, end)
        mark = text[start : start + 1]
        if mark == "]":
            return
        if mark != ",":
            what = "ends here without its closing bracket" if not mark else "is no JSON after this task"
            yield n + 1, f"the file {what}"
            return
        start = _after_blank(text, start + 1)


def _lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = Reader()
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            task, end = reader.value(line, _after_blank(line, 0))
        except ValueError as error:
            yield n, f"the line {error}"
            continue
        yield n, task if not line[end:].strip() else "more than one JSON value in one line"


def _after_blank(text: str, start: int) -> int:
    found = _BLANK.match(text, start)
    return found.end() if found else start
