"""The page: facts and figures put into `report.html`, every text of the data as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmal.page.figures import figures, shade, shown_labels
from llmal.page.words import (
    CERTIFICATE,
    block,
    coded,
    count,
    interval,
    money,
    number,
    percent,
    seen,
    spelt,
    value,
)

HERE = Path(__file__).parent

_BY_LABEL = {
    "student.precision": "precision",
    "student.recall": "recall",
    "student.f1": "F1",
    "student.f1.powered": "F1 (prediction-powered)",
    "prevalence": "share of the corpus",
    "prior.annotator": "share of the annotator's answers",
    "prior.taught": "share of what taught the classifier",
}
"""Measures of each label that have a column, in this order, and its heading."""

_NO_ERROR = "no answer was wrong: resampling cannot tell how far that may be off"


def page(found: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        found: what `llmal.page.facts.collect` gives; nothing else is read.

    Returns:
        HTML without scripts, whose only addresses are places in itself.
    """
    from markupsafe import Markup

    svg = {name: Markup(drawn) for name, drawn in figures(dict(found)).items()}
    css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    return str(
        _template().render(
            f=found,
            css=css,
            svg=_Maybe(svg),
            alts=_alts(found),
            cards=_cards(found),
            certificate_title=CERTIFICATE[found["promise"]["state"]],
            measures=_measures(found["measures"]),
            by_label=_by_label(found["measures"]),
            forecasts=_forecasts(found["measures"]),
            classes=_classes(found["classes"]),
            legend=_legend(found),
            trouble=_trouble(found),
            local=found["cost"]["usd"] is None,
            audit_words=_audit_words(found["people"]),
            pipeline=block(json.dumps(found["pipeline"], indent=1, ensure_ascii=False)),
        )
    )


@lru_cache(maxsize=1)
def _template() -> Any:
    """The one template: every value that it is given is escaped, and a name it misspells is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    room = Environment(loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, **options)
    for written in (block, coded, count, interval, money, number, percent, seen, value):
        room.filters[written.__name__] = written
    return room.get_template("report.html")


class _Maybe(dict[str, Any]):
    """A dict whose missing keys are None: a figure that was not drawn."""

    def __missing__(self, key: str) -> None:
        return None


def _cards(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The numbers at a glance: name, value, a measure to draw or None, and small words below."""
    source, measures, people = found["labels"]["source"], found["measures"], found["people"]
    done = source["human"] + source["llm"] + source["student"]
    share = f"{percent(done / found['items'])} of {found['items']:,} texts" if found["items"] else "no texts"
    cost = found["cost"]
    tokens = f"{cost['tokens_in'] + cost['tokens_out']:,} tokens"
    return [
        {"name": "Labelled", "value": f"{done:,}", "measure": None, "sub": share},
        _measure_card("Machine labels, right", measures.get("accepted.accuracy")),
        _measure_card("Classifier alone, right", measures.get("student.accuracy")),
        {
            "name": "Cost",
            "value": money(cost["usd"]),
            "measure": None,
            "sub": f"{found['calls']:,} calls" + (f", {tokens}" if found["calls"] else ""),
        },
        {
            "name": "People's answers",
            "value": f"{people['texts']:,}",
            "measure": None,
            "sub": f"{people['waiting']:,} texts wait for one"
            if people["waiting"]
            else "no text waits for one",
        },
    ]


def _measure_card(name: str, m: Mapping[str, Any] | None) -> dict[str, Any]:
    if m is None or m["value"] is None:
        return {"name": name, "value": "?", "measure": None, "sub": "not measured"}
    sub = f"{percent(m['low'])} to {percent(m['high'])}, n = {m['n']:,}"
    return {"name": name, "value": percent(m["value"]), "measure": m, "sub": sub}


def _measures(measures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measures of no single label, in words, the student's first."""
    some = [
        (name, m)
        for name, m in measures.items()
        if "[" not in name and not name.startswith("forecast.") and m["value"] is not None
    ]
    some.sort(key=lambda x: (not x[0].startswith(("student", "accepted")), x[0]))
    return [_row(name, m) for name, m in some]


def _row(name: str, m: Mapping[str, Any]) -> dict[str, Any]:
    how = "" if m["measured_on"].startswith("audit sample") else m["measured_on"]
    row = {**m, "words": spelt(name), "share": name.rpartition(".")[2] not in ("kappa", "bits"), "how": how}
    # A bootstrap of a sample without variation has no width, and says nothing.
    return row | {"low": None, "high": None, "how": _NO_ERROR} if m["low"] == m["high"] else row


def _forecasts(measures: Mapping[str, Any]) -> list[str]:
    """What more labels would buy, in words."""
    return [m["measured_on"] for name, m in measures.items() if name.startswith("forecast.")]


def _by_label(measures: Mapping[str, Any]) -> dict[str, Any] | None:
    """Label by label: a column a measure, or None where there are none."""
    rows: dict[str, dict[str, Any]] = {}
    heads = [h for h in _BY_LABEL if any(name.startswith(f"{h}[") for name in measures)]
    for name, m in measures.items():
        head, bracket, label = name.partition("[")
        if bracket and head in heads:
            rows.setdefault(label[:-1], {})[head] = {"share": True, **m}
    if not rows:
        return None
    return {
        "columns": [_BY_LABEL[head] for head in heads],
        "rows": [
            {"label": label, "cells": [cells.get(head) for head in heads]} for label, cells in rows.items()
        ],
    }


def _classes(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    whose = ("human", "llm", "student", "open")
    sums = [sum(c[who] for who in whose) for c in classes]
    top = max(sums, default=0) or 1
    return [
        {**c, "all": n, "width": {who: round(100 * c[who] / top, 1) for who in whose}}
        for c, n in zip(classes, sums, strict=True)
    ]


def _legend(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Labels of the map with the colours they are drawn in; rarer ones share the last."""
    if not found["map"]:
        return []
    shown = shown_labels(dict(found))
    entries = [{"colour": shade(c, shown), "label": found["classes"][c]["label"]} for c in shown]
    rest = len({p[2] for p in found["map"]["points"]} - set(shown))
    return entries + ([{"colour": shade(-1, shown), "label": f"{rest} more"}] if rest else [])


def _trouble(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    statuses = {status: n for status, n in found["annotations"].items() if status != "ok"}
    parts = (
        ("Annotations without a label", "Texts", statuses),
        ("Annotations not accepted for training", "Texts", found["not_accepted"]),
        ("Calls that failed", "Calls", found["failures"]),
        ("Rows set aside", "Rows", found["skipped"]),
    )
    return [
        {"title": title, "what": what, "rows": sorted(counts.items(), key=lambda x: (-x[1], str(x[0])))}
        for title, what, counts in parts
        if counts
    ]


def _audit_words(people: Mapping[str, int]) -> str:
    by, gold = people["audit_by_people"], people["audit_by_gold"]
    known = [f"{by:,} by people"] if by else []
    known += [f"{gold:,} by the gold of the corpus"] if gold else []
    return f" ({people['audit']:,} texts, answered {' and '.join(known)})" if known else ""


def _alts(found: Mapping[str, Any]) -> dict[str, Any]:
    """What each figure shows, for who does not see it."""
    alts: dict[str, Any] = dict.fromkeys(("risk", "reliability", "learning", "map", "learning_n"), "")
    if risk := found["risk_coverage"]:
        half = next(p for p in risk["points"] if p["coverage"] >= 0.5)
        alts["risk"] = (
            f"Curve of accuracy over the share of texts answered: {percent(half['value'])} at the surest "
            f"{percent(half['coverage'])}, {percent(risk['points'][-1]['value'])} at all of them."
        )
    if bins := found["reliability"]:
        alts["reliability"] = "Right answers by confidence: " + "; ".join(
            f"confidence {percent(b['confidence'])}, right {percent(b['value'])}, n = {b['n']}" for b in bins
        )
    points = [
        *found["learning"]["points"],
        *([found["learning"]["final"]] if found["learning"]["final"] else []),
    ]
    if points:
        alts["learning"] = "Accuracy by labels learnt from: " + "; ".join(
            f"{p['labels']:,} labels {percent(p['value'])}" for p in points
        )
        alts["learning_n"] = points[-1]["n"]
    if found["map"]:
        alts["map"] = (
            f"Scatter of {found['map']['shown']:,} texts by meaning, coloured by label; a legend names them."
        )
    return alts
