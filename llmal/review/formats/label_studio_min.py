"""Label Studio's "JSON_MIN" export: a flat row for each annotation, turned into the task it was."""

from __future__ import annotations

from typing import Any

OURS = ("text", "llmal_id", "llmal_why", "llmal_flag", "llmal_said", "candidates")
"""Keys of a task's `data`; the others of a row are of the annotation or the server's."""


def is_row(task: dict[str, Any]) -> bool:
    """It has a text, the server's number of the task and no `data`; without an answer it has little else."""
    told = {"annotation_id", "annotator", "llmal_id"} & set(task)
    return "data" not in task and "text" in task and "id" in task and bool(told)


def task_of(row: dict[str, Any]) -> dict[str, Any]:
    """The task with that one annotation, or none. Such an export leaves cancelled ones and drafts out.

    One choice is a text, several are under `choices`, none is no key at all.
    """
    label, note = row.get("label"), row.get("note")
    if isinstance(label, dict):
        label = label.get("choices")
    choices = {"type": "choices", "from_name": "label", "value": {"choices": label}}
    notes = {"type": "textarea", "from_name": "note", "value": {"text": note}}
    annotation = {
        "completed_by": row.get("annotator"),
        "result": [*([] if label is None else [choices]), *([] if note is None else [notes])],
        "lead_time": row.get("lead_time"),
        "created_at": row.get("created_at"),
        "updated_at": row.get("updated_at"),
    }
    answered = row.get("annotation_id") is not None or row.get("annotator") is not None
    return {
        "data": {name: row[name] for name in OURS if name in row},
        "annotations": [annotation] if answered else [],
    }
