"""What a cascade knows as arrays and plain numbers, and back: nothing that could run when it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmal.stream.alarm import Alarm
from llmal.stream.cascade import Cascade, Options
from llmal.stream.deferral import Calibrated, Records
from llmal.stream.levels import Kept

Arrays = dict[str, NDArray[Any]]

COUNTS = ("rows", "answered", "learnt_at", "faded_before", "alert_until")
"""Whole numbers of a cascade that are kept."""


def packed(cascade: Cascade) -> tuple[Arrays, dict[str, Any]]:
    """Arrays for safetensors and facts for JSON; `unpacked` gives the same cascade to the last bit."""
    rows = cascade.memory.rows
    arrays: Arrays = {
        "memory.sizes": np.array([len(row.columns) for row in rows], np.int64),
        "memory.columns": _joined([row.columns for row in rows], np.int32),
        "memory.values": _joined([row.values for row in rows], np.float32),
        "memory.vectors": _joined([row.vector for row in rows], np.float32),
        "memory.labels": cascade.memory.labels(),
        "memory.turns": cascade.memory.turns(),
        "recent": cascade.recent,
    }
    arrays |= {f"level.{level.name}": level.coef for level in cascade.levels}
    arrays |= {f"records.{name}": part for name, part in cascade.records._asdict().items()}
    facts = {name: getattr(cascade, name) for name in COUNTS}
    facts |= {
        "turn": cascade.memory.turn,
        "alarms": cascade.alarms,
        "evidence": cascade.alarm.evidence.tolist(),
    }
    facts |= {"classes": cascade.n_classes, "width": len(cascade.levels[1].coef) - 1}
    rule = cascade.rule
    if isinstance(rule, Calibrated):
        arrays |= {f"rule.{depth}": coef for depth, coef in enumerate(rule.coefs)}
        facts |= {"rule": "calibrated", "blend": rule.blend}
    else:
        for level, net in enumerate(rule.weights):
            arrays |= {f"rule.{level}.{i}": w for i, w in enumerate(net)}
            arrays |= {f"moment.{level}.{i}": m for i, m in enumerate(rule.moments[level])}
        facts |= {"rule": "nets", "steps": rule.steps}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, facts


def unpacked(arrays: Arrays, facts: dict[str, Any], options: Options) -> Cascade:
    """The cascade that `packed` was given; with another rule than then, only students and records."""
    cascade = Cascade(options, facts["classes"], facts["width"])
    for name in COUNTS:
        setattr(cascade, name, facts[name])
    cascade.alarms, cascade.alarm = list(facts["alarms"]), Alarm(facts["evidence"])
    cascade.recent = arrays["recent"]
    cascade.records = Records(*(arrays[f"records.{name}"] for name in Records._fields))
    for level in cascade.levels:
        level.coef = arrays[f"level.{level.name}"]
    _recall(cascade, arrays, facts)
    rule = cascade.rule
    if facts["rule"] != options.rule:
        return cascade
    if isinstance(rule, Calibrated):
        rule.coefs, rule.blend = [arrays[f"rule.{d}"] for d in range(len(rule.coefs))], facts["blend"]
        return cascade
    rule.steps = facts["steps"]
    for j, net in enumerate(rule.weights):
        rule.weights[j] = [arrays[f"rule.{j}.{i}"] for i in range(len(net))]
        rule.moments[j] = [arrays[f"moment.{j}.{i}"] for i in range(len(net))]
    return cascade


def again(cascade: Cascade) -> Cascade:
    """The same students at the start of another stream: counts begin anew, what was learnt stays."""
    cascade.rows = cascade.answered = cascade.alert_until = 0
    cascade.alarms, cascade.alarm = [], Alarm()
    return cascade


def _recall(cascade: Cascade, arrays: Arrays, facts: dict[str, Any]) -> None:
    memory = cascade.memory
    memory.turn = facts["turn"]
    ends = np.cumsum(arrays["memory.sizes"])[:-1]
    n = len(arrays["memory.sizes"])
    if not n:
        return
    columns = np.split(arrays["memory.columns"], ends)
    values = np.split(arrays["memory.values"], ends)
    vectors = arrays["memory.vectors"].reshape(n, -1)
    labels, turns = arrays["memory.labels"].tolist(), arrays["memory.turns"].tolist()
    memory.rows = [Kept(*row) for row in zip(columns, values, vectors, labels, turns, strict=True)]


def _joined(parts: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
