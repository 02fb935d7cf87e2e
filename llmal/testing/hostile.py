"""Texts that try to be more than text where they are shown: for tests of pages, tables and terminals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = {
    "script": "<script>window.hacked = 1; alert('x')</script>",
    "handler": '<img src=x onerror="alert(\'x\')"><svg/onload=alert(1)><a href="javascript:alert(1)">x</a>',
    "style end": "</style><style>body{display:none}</style></title></textarea></pre>",
    "cdata": "]]><!--><![CDATA[--!><script>alert(1)</script>",
    "attribute": '" onmouseover="alert(\'x\')" style="position:fixed" x=\'',
    "entity": "&lt;script&gt; &#60;script&#62; &amp;amp; &quot;",
    "remote": "<link rel=stylesheet href=//evil.test/a.css><iframe src=https://evil.test></iframe>",
    "data address": '<object data="data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg=="></object>',
    "css": "red;background:url(https://evil.test/x.png)}body{display:none",
    "template": "{{ 7*7 }} {% for x in ().__class__.__base__.__subclasses__() %}{{ x }} ${7*7} {#",
    "mathtext": "$\\frac{1}{0}$ $$ \\input{/etc/passwd} $\\undefined",
    "bidi": "abc \u202egnp.exe\u202c \u2066hidden\u2069 \u200fmark",
    "ansi": "\x1b[2J\x1b[31mred\x1b]0;title\x07 \x9b1m \b\b\r",
    "stacked": "Z" + "\u0351\u0321" * 60 + "algo",
    "invisible": "zero\u200bwidth \ufeff\U000e0041\U000e0042 tag",
    "backtick": "`code` and `an open mark <b>bold</b>",
    "markdown": "[click](javascript:alert(1)) ![x](https://evil.test/x.png) **b**",
}
"""Kind -> text; none of them may become an element, an attribute, an address, a colour or a cursor move."""

LONG = "<b>" + "x" * 1_000_000 + "</b>"
"""A text of a megabyte without a place to break a line."""

LABELS = (
    "<script>alert('label')</script>",
    'a" onmouseover="alert(1)',
    "$\\frac{a}{b}$ {{ 7*7 }}",
    "\u202egnp.exe",
)
"""Names of classes that a pipeline file may hold."""
PERSON = "<img src=x onerror=alert('person')>"
"""Who answers in `hostile_run`."""


def hostile_run(folder: Path, n: int = 120) -> Path:
    """A finished run over hostile texts: wrong answers on the audit sample, a row set aside, one person.

    Args:
        folder: an empty one, where corpus and answers come to lie.
        n: texts.

    Returns:
        The run's folder.
    """
    import llmal
    from llmal.handover import review
    from llmal.spec import Pipeline

    kinds = list(HOSTILE.values())
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for i in range(n):
        label = LABELS[i % len(LABELS)]
        text = f"{kinds[i % len(kinds)]} about topic{i % len(LABELS)} number {i}"
        row_id = f"{i}<script>alert('id')</script>"
        rows.append({"id": row_id, "text": LONG if i == 5 else text})
        if i % 3:  # the others are for people
            rows[-1]["gold"] = LABELS[(i + (i % 5 == 0)) % len(LABELS)]
        answers.append({"id": row_id, "label": label, "sure": 0.9 if i % 4 else 0.3})
    rows.append({"id": "</td><script>alert('aside')</script>", "text": "  "})
    for name, data in (("corpus", rows), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")
    pipeline = Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "gold"},
            "labels": {"names": list(LABELS)},
            "audit": {"size": 60, "annotate": True},
            "rounds": {"max": 2, "size": 20},
            "embed": {"use": "hashing", "dim": 64},
            "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
            "filter": {"use": "confidence", "at_least": 0.5},
            "train": {"rounds": "linear", "final": "linear"},
        }
    )
    llmal.run(pipeline, folder / "run", home=folder)
    todo = folder / "todo.jsonl"
    review(folder / "run", out=todo, into=None, person=PERSON, spreadsheet=False)
    lines = [json.loads(line) for line in todo.read_text(encoding="utf-8").splitlines()]
    for i, line in enumerate(lines):
        line["answer"] = [LABELS[i % len(LABELS)]]
        line["note"] = HOSTILE["script"]
    todo.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    review(folder / "run", out=None, into=todo, person=PERSON, spreadsheet=False)
    llmal.run(pipeline, folder / "run", home=folder)
    return folder / "run"
