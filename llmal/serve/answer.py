"""One answer of the server: who gave it, how sure it is, and whether the promise covers it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from llmal.records import Labels

Who = Literal["student", "llm", "person"]


class Answer(NamedTuple):
    """What a client gets for one text.

    Attributes:
        route: who answers.
        labels: the answer; None while a person's is not there yet.
        confidence: of a machine's answer, in [0, 1]; of the guess where a person has to answer.
        reason: why this route, in words; never anything of the text.
        promised: whether the certificate covers it.
        guess: the student's answer where a person has to answer.
        queued: id under which the text waits for people.
    """

    route: Who
    labels: Labels | None
    confidence: float | None
    reason: str
    promised: bool = False
    guess: Labels | None = None
    queued: str | None = None

    def as_json(self, kind: str) -> dict[str, Any]:
        """Plain data; `label` beside `labels` where a text has exactly one."""
        found: dict[str, Any] = {
            "labels": None if self.labels is None else list(self.labels),
            "confidence": self.confidence,
            "route": self.route,
            "reason": self.reason,
            "promised": self.promised,
            "guess": None if self.guess is None else list(self.guess),
            "queued": self.queued,
        }
        if kind == "single":
            found["label"] = self.labels[0] if self.labels else None
        return found
