"""Argilla 2: records as its SDK keeps them on disk, and the settings of a dataset for them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.records import Labels, LabelSchema
from llmal.review.formats import work as w
from llmal.review.formats.reading import Reader
from llmal.review.formats.work import Odd, Said, Work

PEOPLE = uuid.UUID("6b1f1a6e-64a0-5c9b-9f8e-1c5d6f0a7e21")
"""Namespace of the user ids of people whom Argilla does not know; their names are in the metadata."""

NONE = "none of these"
"""Option of a multi-label question: Argilla publishes no dataset whose questions may all be left out."""

FEWEST_VISIBLE = 3
"""Argilla refuses a smaller `visible_options`."""


class Argilla:
    """Records with `fields`, `suggestions` and `responses`.

    The SDK writes no status of a response (argilla 2.8): those of a record that is still `pending` are taken
    for drafts, those of others for answers. Where the file does say, only `submitted` ones are answers. Since
    it keeps no other key of a response either, our names, times and times spent stand in the metadata.

    Source: `Record.to_dict` and `Settings.serialize` of argilla 2.8.0.
    """

    name = "argilla"
    suffix = ".json"
    wraps = True

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self._none = NONE
        while self._none in schema.names:
            self._none += "."

    @staticmethod
    def mine(task: dict[str, Any]) -> bool:
        """It has `fields`, and suggestions or responses."""
        return isinstance(task.get("fields"), dict) and bool({"suggestions", "responses"} & set(task))

    def tasks(self, work: Work) -> Iterator[dict[str, Any]]:
        """One record. A suggestion without a label cannot be one, so its confidence is in the metadata."""
        ids = [_user(said) for said in work.said]
        ours = {
            "why": work.why,
            "candidates": list(work.candidates),
            "confidence": work.confidence,
            "schema": self.schema.recipe(),
            "people": {user: w.kept(said) for user, said in zip(ids, work.said, strict=True)},
            **({} if work.flag is None else {"flag": work.flag}),
        }
        multi = self.schema.kind == "multi"
        score = [work.confidence] * len(work.guess) if multi else work.confidence
        guess = {
            "value": list(work.guess) if multi else "".join(work.guess),
            "score": None if work.confidence is None else score,
            "agent": "llmal",
        }
        answers = [
            _response(user, list(said.labels) or [self._none] if multi else "".join(said.labels))
            for user, said in zip(ids, work.said, strict=True)
        ]
        notes = [_response(u, said.note) for u, said in zip(ids, work.said, strict=True) if said.note]
        first = " | ".join(work.candidates)
        yield {
            "id": work.key,
            "fields": {"text": work.text, **({"candidates": first} if first else {})},
            "metadata": {"llmal": json.dumps(ours)},
            "suggestions": {"label": guess} if work.guess else {},
            "responses": {
                **({"label": answers} if answers else {}),
                **({"note": notes} if notes else {}),
            },
            "vectors": {},
            "status": "completed" if answers else "pending",
        }

    def read(self, task: dict[str, Any]) -> Work:
        """A record of an export."""
        fields, responses = w.table(task.get("fields")), task.get("responses") or {}
        if not fields or not isinstance(responses, dict):
            raise Odd("it has no `fields`, or its `responses` are not grouped by question")
        ours = _ours(task)
        answers = _objects(responses.get("label"))
        final = [self._meant(r) for r in answers if _submitted(r, task)]
        notes = {r.get("user_id"): r.get("value") for r in _objects(responses.get("note")) if _hashable(r)}
        suggestion = w.table(w.table(task.get("suggestions")).get("label"))
        guess = w.some(suggestion.get("value"))
        return Work(
            w.text_of(task.get("id")),
            w.text_of(fields.get("text")),
            w.text_of(ours.get("why")) or "",
            guess,
            w.number(ours.get("confidence"), 0.0, 1.0),
            w.some(ours.get("candidates")),
            tuple(_said(r, notes, w.table(ours.get("people")), guess) for r in final),
            len(answers) - len(final),
            w.text_of(ours.get("flag")),
        )

    def _meant(self, response: dict[str, Any]) -> dict[str, Any]:
        return {**response, "value": []} if response.get("value") == [self._none] else response

    def beside(self, path: Path) -> dict[Path, str]:
        """The settings of the dataset, for `Settings.from_json`."""
        options = [
            {"value": label.name, "text": label.name, "description": label.description or None}
            for label in self.schema.labels
        ]
        multi = self.schema.kind == "multi"
        if multi:
            options.append({"value": self._none, "text": self._none, "description": None})
        choice: dict[str, Any] = {
            "type": "multi_label_selection" if multi else "label_selection",
            "options": options,
        }
        if len(options) >= FEWEST_VISIBLE:
            choice["visible_options"] = len(options)
        plain = {"type": "text", "use_markdown": False}  # markdown would draw what a text asks for
        asked = {
            "guidelines": "Choose what is true of the text; the second field names labels to look at first.",
            "questions": [
                {"name": "label", "title": "Label", "required": True, "settings": choice},
                {"name": "note", "title": "Note", "required": False, "settings": plain},
            ],
            "fields": [
                {"name": "text", "title": "Text", "required": True, "settings": plain},
                {"name": "candidates", "title": "Look first at", "required": False, "settings": plain},
            ],
            "vectors": [],
            "metadata": [],
            "allow_extra_metadata": True,
            "distribution": {"strategy": "overlap", "min_submitted": 1},
            "mapping": None,
        }
        return {path.with_suffix(".settings.json"): json.dumps(asked, indent=2) + "\n"}


def _response(user: str, value: Any) -> dict[str, Any]:
    return {"value": value, "user_id": user, "status": "submitted"}


def _said(response: dict[str, Any], notes: dict[Any, Any], people: dict[str, Any], guess: Labels) -> Said:
    """The answer of a response; what we wrote of an earlier one counts only where that one still stands."""
    user = w.text_of(response.get("user_id"))
    known = w.remembered(people.get(user or ""))
    now = Said(
        w.names_of(response.get("value")),
        known.person if known else user,
        w.text_of(notes.get(user)) or "",
        at=w.moment(response.get("updated_at")),
        saw=guess or None,
    )
    return known if known and (known.labels, known.note) == (now.labels, now.note) else now


def _submitted(response: dict[str, Any], task: dict[str, Any]) -> bool:
    status = response.get("status")
    if response.get("value") is None:
        return False
    return status == "submitted" if status is not None else task.get("status") != "pending"


def _ours(task: dict[str, Any]) -> dict[str, Any]:
    kept = w.text_of(w.table(task.get("metadata")).get("llmal"))
    try:
        return w.table(Reader().value(kept, 0)[0]) if kept else {}
    except ValueError:
        return {}


def _user(said: Said) -> str:
    """An id of that person; another one for words that settle disputes, since a user answers once."""
    person = said.person or "someone"
    if said.adjudicates:
        return str(uuid.uuid5(PEOPLE, f"{person}\nadjudicates"))
    try:
        return str(uuid.UUID(person))
    except ValueError:
        return str(uuid.uuid5(PEOPLE, person))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _hashable(response: dict[str, Any]) -> bool:
    return isinstance(response.get("user_id"), str)
