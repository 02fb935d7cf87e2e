"""Brains that repeat recorded answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from llmal.testing.chat import Answer, Ask, Brain, Rejection


def replay(answers: Mapping[str, str | Answer], *, find: Callable[[Ask], str | None]) -> Brain:
    """A brain that repeats recorded answers and never invents one.

    Args:
        answers: key -> answer.
        find: `Ask` -> key, or None where it knows none.

    Returns:
        The brain; it rejects with a 404 what `answers` lacks.
    """

    def brain(ask: Ask) -> Answer | str:
        key = find(ask)
        if key is None or key not in answers:
            sought = f"the user message {ask.user[:80]!r}" if key is None else repr(key)
            raise Rejection(404, f"FakeLM has no recorded answer for {sought}.", code="no_recorded_answer")
        return answers[key]

    return brain


def recorded(path: Path) -> Brain:
    """A brain that repeats the answers in a JSONL file.

    Args:
        path: rows {"text": ..., "answer": ..., "logprobs": [[token, {candidate: log-probability}], ...]};
            log-probabilities may be left out. A row answers the user messages that contain its text; where
            several do, the longest text decides.

    Returns:
        The brain.

    Raises:
        ValueError: a row is malformed, or gives a text a second, different answer; names path and line.
    """
    answers: dict[str, str | Answer] = {}
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            text, answer = _row(line, where=f"{path}:{number}")
            if answers.setdefault(text, answer) != answer:
                raise ValueError(f"{path}:{number}: another answer for a text already given")
    longest_first = sorted(answers, key=len, reverse=True)
    return replay(answers, find=lambda ask: next((text for text in longest_first if text in ask.user), None))


def _row(line: str, *, where: str) -> tuple[str, Answer]:
    try:
        row = json.loads(line)
        text, content = row["text"], row["answer"]
        logprobs = row.get("logprobs")
        tokens = logprobs and tuple((str(token), dict(candidates)) for token, candidates in logprobs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {error!r}; expected text, answer and maybe logprobs") from error
    if not isinstance(text, str) or not text or not isinstance(content, str):
        raise ValueError(f"{where}: text and answer must be strings, text not empty")
    return text, Answer(content, logprobs=tokens)
