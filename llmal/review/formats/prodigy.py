"""Prodigy: tasks of its `choice` interface as JSONL, and the configuration that goes with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.records import Labels, LabelSchema
from llmal.review.formats import work as w
from llmal.review.formats.work import Odd, Said, Work

NO_ANSWER = ("reject", "ignore")
"""A rejected choice says that the task is wrong, not which label is right."""


class Prodigy:
    """Tasks with `text`, `options` and `accept`; the guess is accepted beforehand and is no answer by itself.

    `_input_hash` and `_task_hash` are left out: Prodigy computes them when it reads a task, from a text form
    of its own. It hands keys it does not know through, so what is ours stands under `llmal`.

    Source: the annotation interfaces of Prodigy's documentation (2026-11).
    """

    name = "prodigy"
    suffix = ".jsonl"
    wraps = False

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema

    @staticmethod
    def mine(task: dict[str, Any]) -> bool:
        """It has a `text`, and a hash, options or what was accepted; our own tables have `item`."""
        told = {"_input_hash", "_task_hash", "options", "accept"} & set(task)
        return "item" not in task and "text" in task and bool(told)

    def tasks(self, work: Work) -> Iterator[dict[str, Any]]:
        """One task, candidates first among its options; one for each answer where there are some."""
        ours = {
            "item": work.key,
            "why": work.why,
            "guess": list(work.guess),
            "confidence": work.confidence,
            "candidates": list(work.candidates),
            "schema": self.schema.recipe(),
            **({} if work.flag is None else {"flag": work.flag}),
        }
        options = [{"id": name, "text": name} for name in w.first_to_last(work, self.schema.names)]
        flagged = {} if work.flag is None else {"flagged": True}
        task = {"text": work.text, "options": options, "meta": {"item": work.key}, **flagged}
        if not work.said:
            yield {**task, "accept": list(work.guess), "llmal": ours}
        for said in work.said:
            yield {
                **task,
                "accept": list(said.labels),
                "answer": "accept",
                **({"note": said.note} if said.note else {}),
                **({} if said.at is None else {"_timestamp": int(said.at)}),
                **({} if said.person is None else {"_annotator_id": said.person}),
                "llmal": {**ours, "said": w.kept(said)},
            }

    def read(self, task: dict[str, Any]) -> Work:
        """A line of `db-out`."""
        ours, answer = w.table(task.get("llmal")), task.get("answer")
        if answer not in (None, "accept", *NO_ANSWER):
            raise Odd("its `answer` is none of accept, reject and ignore")
        guess = w.some(ours.get("guess"))
        return Work(
            w.text_of(ours.get("item")) or w.text_of(w.table(task.get("meta")).get("item")),
            w.text_of(task.get("text")),
            w.text_of(ours.get("why")) or "",
            guess,
            w.number(ours.get("confidence"), 0.0, 1.0),
            w.some(ours.get("candidates")),
            (_said(task, w.remembered(ours.get("said")), guess),) if answer == "accept" else (),
            int(answer in NO_ANSWER),
            (w.text_of(ours.get("flag")) or "") if task.get("flagged") is True else None,
        )

    def beside(self, path: Path) -> dict[Path, str]:
        """Settings for `prodigy.json`: with `note` as the name of the text field, notes come back, too."""
        style = "multiple" if self.schema.kind == "multi" else "single"
        blocks = [{"view_id": "choice"}, {"view_id": "text_input", "field_id": "note", "field_label": "Note"}]
        asked = {"choice_style": style, "blocks": blocks}
        return {path.with_suffix(".prodigy.json"): json.dumps(asked, indent=2) + "\n"}


def _said(task: dict[str, Any], before: Said | None, guess: Labels) -> Said:
    """The answer of a line; what we wrote of an earlier one counts only where that one still stands.

    The guess was accepted beforehand, so whoever answered saw it.
    """
    at, person = w.moment(task.get("_timestamp")), w.text_of(task.get("_annotator_id"))
    person = person or w.text_of(task.get("_session_id")) or None
    accepted = task["label"] if "accept" not in task and "label" in task else task.get("accept", [])
    labels, note = w.names_of(accepted), w.text_of(task.get("note")) or ""
    if before is not None:
        then = None if before.at is None else float(int(before.at))
        if (before.person, then, before.labels, before.note) == (person, at, labels, note):
            return before
    return Said(labels, person, note, None, at, saw=guess or None)
