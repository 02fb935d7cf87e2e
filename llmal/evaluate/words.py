"""Measures as lines for a person: those of the run one a line, those of labels one label a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmal.corpus import shown

COLUMNS = {
    "in corpus": ("prevalence[{}]",),
    "annotator": ("prior.annotator[{}]",),
    "taught": ("prior.taught[{}]",),
    "student F1": ("student.f1[{}].powered", "student.f1[{}]"),
    "precision": ("student.precision[{}]",),
    "recall": ("student.recall[{}]",),
}
"""Head of a column -> measures of a label that may stand there, the first that there is."""

WITH_ENDS = ("in corpus", "student F1")
WIDTH = 30


def lines(measures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was measured: value, 95 % interval and n of everything, then a table of the labels.

    Args:
        measures: name -> value, low, high, n and measured_on, as `llmal.state.measures` gives them.
    """
    whole = {n: m for n, m in measures.items() if "[" not in n and m["value"] is not None}
    said = [_line(name, m) for name, m in whole.items() if not name.startswith("forecast.")]
    said += [m["measured_on"] for name, m in whole.items() if name.startswith("forecast.")]
    return said + _table(measures)


def _line(name: str, m: Mapping[str, Any]) -> str:
    return f"{name:{WIDTH}} {m['value']:.3f}  [{_end(m['low'])}, {_end(m['high'])}]  n = {m['n']}"


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(measures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    labels = dict.fromkeys(n.partition("[")[2].rpartition("]")[0] for n in measures if "[" in n)
    rows = {label: [_cell(measures, head, label) for head in COLUMNS] for label in labels}
    used = [i for i in range(len(COLUMNS)) if any(cells[i] != "-" for cells in rows.values())]
    if not used:
        return []
    wide = [22 if head in WITH_ENDS else 11 for head in COLUMNS]

    def row(first: str, cells: list[str]) -> str:
        return f"{first:{WIDTH}} " + "".join(f"{cells[i]:{wide[i]}}" for i in used).rstrip()

    named = [row(shown(label, limit=WIDTH), cells) for label, cells in rows.items()]
    return ["", row("label", list(COLUMNS)), *named]


def _cell(measures: Mapping[str, Mapping[str, Any]], head: str, label: str) -> str:
    m = next((found for name in COLUMNS[head] if (found := measures.get(name.format(label)))), None)
    if m is None or m["value"] is None:
        return "-"
    if head not in WITH_ENDS or m["low"] is None or m["high"] is None:
        return f"{m['value']:.3f}"
    return f"{m['value']:.3f} [{m['low']:.2f}, {m['high']:.2f}]"
