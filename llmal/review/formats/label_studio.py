"""Label Studio: tasks as JSON, and the labelling configuration (XML) that shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from llmal.errors import ReviewError
from llmal.records import Labels, LabelSchema
from llmal.review.formats import label_studio_min as flat
from llmal.review.formats import work as w
from llmal.review.formats.work import Odd, Said, Work

MODEL = "llmal"
"""`model_version` of our predictions; those of other models are left alone."""

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, escaped or not."""

_HOTKEYS = "1234567890"


class LabelStudio:
    """Tasks with `data`, `predictions` and `annotations`, as its "Import" takes and its "JSON" export gives.

    A submitted annotation without a choice says "none of them" where several labels may be given, and is no
    answer where one is asked for. An import makes every annotation the importer's, of that moment, and ground
    truth unless told otherwise; so what we wrote of an answer stands in `llmal_said`, and counts while its
    labels, note and time spent are the same.

    Source: the task format of Label Studio's documentation (2026-11), and what a server 1.23.2 does.
    """

    name = "label-studio"
    suffix = ".json"
    wraps = True

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self._written = {name: _NO_XML.sub("\N{REPLACEMENT CHARACTER}", name) for name in schema.names}
        self._meant = {shown: name for name, shown in self._written.items()}
        if len(self._meant) < len(self._written):
            raise ReviewError("two labels differ in control characters only, which XML cannot hold")

    @staticmethod
    def mine(task: dict[str, Any]) -> bool:
        """It has `data`, and one of the two lists; or it is a row of its "JSON_MIN" export."""
        lists = {"annotations", "predictions"} & set(task)
        return (isinstance(task.get("data"), dict) and bool(lists)) or flat.is_row(task)

    def tasks(self, work: Work) -> Iterator[dict[str, Any]]:
        """One task. `first` is what people read of the candidates, `candidates` the same as a list."""
        guessed = bool(work.guess) or work.confidence is not None
        prediction = {
            "model_version": MODEL,
            **({} if work.confidence is None else {"score": work.confidence}),
            "result": self._chosen(work.guess),
        }
        yield {
            "data": {
                "text": work.text,
                "first": " | ".join(work.candidates) or "any label",
                "llmal_id": work.key,
                "llmal_why": work.why,
                "llmal_schema": self.schema.recipe(),
                "candidates": list(work.candidates),
                **({} if work.flag is None else {"llmal_flag": work.flag}),
                **({"llmal_said": [w.kept(said) for said in work.said]} if work.said else {}),
            },
            "predictions": [prediction] if guessed else [],
            "annotations": [self._annotation(said) for said in work.said],
        }

    def _chosen(self, labels: Labels) -> list[dict[str, Any]]:
        if not labels:
            return []
        value = {"choices": [self._written[name] for name in labels]}
        return [{"from_name": "label", "to_name": "text", "type": "choices", "value": value}]

    def _annotation(self, said: Said) -> dict[str, Any]:
        note = {"from_name": "note", "to_name": "text", "type": "textarea", "value": {"text": [said.note]}}
        return {
            "result": [*self._chosen(said.labels), *([note] if said.note else [])],
            "was_cancelled": False,
            "ground_truth": said.adjudicates,
            "lead_time": said.seconds,
            **({} if said.at is None else {"created_at": w.iso(said.at)}),
            # No `completed_by`: with an address that the server does not know, it refuses the whole import.
            **({"created_username": said.person} if said.person else {}),
        }

    def read(self, task: dict[str, Any]) -> Work:
        """A task of an export; drafts and cancelled annotations are counted as skipped."""
        task = flat.task_of(task) if flat.is_row(task) else task
        data, given = w.table(task.get("data")), task.get("annotations", [])
        if not data or not isinstance(given, list):
            raise Odd("it has no `data`, or its `annotations` are no list")
        # An export names predictions by number, and repeats them beside each annotation.
        told = [*_objects(task.get("predictions")), *(w.table(a.get("prediction")) for a in _objects(given))]
        ours = [p for p in told if p.get("model_version") == MODEL][:1]
        guess = self._choices(ours[0].get("result"))[0] or () if ours else ()
        before = [said for said in map(w.remembered, _objects(data.get("llmal_said"))) if said is not None]
        read = [self._said(a, guess, before) for a in _objects(given)]
        said = tuple(one for one in read if one is not None)
        return Work(
            w.text_of(data.get("llmal_id")),
            w.text_of(data.get("text")),
            w.text_of(data.get("llmal_why")) or "",
            guess,
            w.number(ours[0].get("score"), 0.0, 1.0) if ours else None,
            w.some(data.get("candidates")),
            said,
            len(given) - len(said) + len(_objects(task.get("drafts"))),
            w.text_of(data.get("llmal_flag")),
        )

    def _said(self, annotation: dict[str, Any], guess: Labels, before: list[Said]) -> Said | None:
        labels, note = self._choices(annotation.get("result"))
        if annotation.get("was_cancelled") is True or (labels is None and self.schema.kind == "single"):
            return None
        seconds = w.seconds(annotation.get("lead_time"))
        for said in before:
            if (said.labels, said.note, said.seconds) == (labels or (), note, seconds):
                before.remove(said)
                return said
        at = w.moment(annotation.get("updated_at")) or w.moment(annotation.get("created_at"))
        return Said(labels or (), _person(annotation), note, seconds, at, saw=guess or None)

    def _choices(self, result: Any) -> tuple[Labels | None, str]:
        parts = _objects(result)
        chosen = [r for r in parts if r.get("type") == "choices"]
        chosen = [r for r in chosen if r.get("from_name") == "label"] or chosen
        if len(chosen) > 1:
            raise Odd("it answers several questions, and none or more than one is called `label`")
        notes = [w.table(r.get("value")).get("text") for r in parts if r.get("type") == "textarea"]
        note = "\n".join(text for one in notes for text in w.some(one))
        if not chosen:
            return None, note
        names = w.names_of(w.table(chosen[0].get("value")).get("choices"))
        return tuple(self._meant.get(name, name) for name in names), note

    def beside(self, path: Path) -> dict[Path, str]:
        """The labelling configuration, to paste into a project's settings before the tasks are imported."""
        many = "multiple" if self.schema.kind == "multi" else "single"
        must = "true" if self.schema.kind == "single" else "false"
        keys = dict(zip(self.schema.names, _HOTKEYS, strict=False))
        choices = [
            f"    <Choice value={quoteattr(self._written[name])}"
            + (f' hotkey="{keys[name]}"' if name in keys else "")
            + (f" hint={quoteattr(_NO_XML.sub(' ', label.description))}" if label.description else "")
            + "/>"
            for name, label in zip(self.schema.names, self.schema.labels, strict=True)
        ]
        # Without valueType a text that looks like an address could be fetched instead of shown.
        lines = [
            "<View>",
            '  <Text name="text" value="$text" valueType="text"/>',
            '  <Text name="first" value="$first" valueType="text"/>',
            f'  <Choices name="label" toName="text" choice="{many}" required="{must}" showInline="true">',
            *choices,
            "  </Choices>",
            '  <TextArea name="note" toName="text" placeholder="Note" required="false" maxSubmissions="1"/>',
            "</View>",
        ]
        return {path.with_suffix(".config.xml"): "\n".join(lines) + "\n"}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _person(annotation: dict[str, Any]) -> str | None:
    """An address, or `user 7` where the export knows a number alone."""
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    if isinstance(by, str) and by:
        return by
    if isinstance(by, int) and not isinstance(by, bool):
        return f"user {by}"
    return w.text_of(annotation.get("created_username")) or None
