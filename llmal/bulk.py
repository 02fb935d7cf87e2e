"""Labels a file of texts with an exported classifier, streaming."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.answers import best
from llmal.context import Progress
from llmal.corpus import json_line, records, repaired, shown, write_jsonl
from llmal.errors import CorpusError
from llmal.predictor import Predictor, load
from llmal.records import batched

BATCH = 512
"""Rows predicted at once: enough to sort by length, little enough to stream."""


def predict_file(
    folder: Path, file: Path, *, text: str, out: Path | None, progress: Progress
) -> dict[str, Any]:
    """Predict every row of a table; memory stays flat whatever its size.

    Args:
        folder: exported classifier.
        file: the table.
        text: column with the text.
        out: JSONL to write, whole or not at all; None writes to stdout as it goes.
        progress: where to show progress.

    Values JSON does not know (dates, decimals, bytes) are written as text, numbers that are not finite as
    null.

    Returns:
        `rows` written, `skipped` rows without a text (written too, with a null prediction), and `out`.

    Raises:
        CorpusError: no such file or column.
    """
    if not file.is_file():
        raise CorpusError("no such file", where=str(file))
    model = load(folder)
    total = sum(1 for _ in records(file))
    counts = {"skipped": 0}
    with progress.task("predict", total) as advance:

        def lines() -> Iterator[dict[str, Any]]:
            for batch in batched(records(file), BATCH):
                yield from _predicted(model, batch, text, file, counts)
                advance(len(batch))

        if out is not None:
            rows = write_jsonl(out, lines())
        else:
            rows = 0
            for rows, line in enumerate(lines(), 1):  # noqa: B007 - rows is the count after the loop
                sys.stdout.write(json_line(line) + "\n")
    return {"rows": rows, "skipped": counts["skipped"], "out": str(out) if out else None}


def _predicted(
    model: Predictor, batch: list[tuple[int, Any]], column: str, file: Path, counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    texts: dict[int, str] = {}
    for position, row in batch:
        if not isinstance(row, dict):
            continue
        if column not in row:
            names = ", ".join(map(shown, row))
            raise CorpusError(
                f"no column '{column}'", where=f"{file.name}:{position}", hint=f"It has: {names}"
            )
        if isinstance(row[column], str) and row[column].strip():
            texts[position] = repaired(row[column])[0]
    probs = dict(zip(texts, model.predict_proba(list(texts.values())), strict=True))
    for position, row in batch:
        base = _writable(row if isinstance(row, dict) else {"row": position, "unreadable": row})
        if position not in probs:
            counts["skipped"] += 1
            yield {**base, "predicted": None, "confidence": None}
            continue
        labels, confidence = best(probs[position], model.schema)
        label: Any = labels[0] if model.kind == "single" else list(labels)
        yield {**base, "predicted": label, "confidence": round(confidence, 6)}


def _writable(value: Any) -> Any:
    """A value of the user's file as JSON can hold it."""
    if isinstance(value, dict):
        return {str(k): _writable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
