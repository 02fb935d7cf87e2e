"""Brains for FakeLM that read llmal's own prompts: find the item's text, answer with an option code."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from llmal.testing.chat import Answer, Ask, Brain, Rejection

_FENCED = re.compile(r"<<<([0-9a-f]{12})\n(.*)\n\1>>>", re.DOTALL)
_OPTION = re.compile(r"^\s*([A-Z]|\d+) = ([^:\n]+?)(?::.*)?$", re.MULTILINE)

DECLINED = "I cannot tell which label fits."
"""What a brain says when it has no answer: prose, as recorded models do."""


def fenced_text(messages: Any) -> str | None:
    """The text between the fence of the last message; None when there is none (a probe, say)."""
    found = _FENCED.search(messages[-1]["content"])
    return found[2] if found else None


def text_id(text: str) -> str:
    """Id of a text for FakeLM's counters: 16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identify(messages: Any) -> str:
    """For `FakeLM(identify=...)`: counts requests by the item's text, whatever prompt it stands in."""
    text = fenced_text(messages)
    return "probe" if text is None else text_id(text)


def options(ask: Ask) -> dict[str, str]:
    """Label name -> option code, read from the codebook the way a model would."""
    return {name.strip(): code for code, name in _OPTION.findall(ask.system)}


def classifier(
    label_of: Mapping[str, str | None] | Callable[[str], str | None], *, confidence: float | None = None
) -> Brain:
    """A brain that answers with the label a table or a function gives for the item's text.

    Args:
        label_of: text -> label name; None (or a text the mapping does not hold: a 404) means no answer.
        confidence: probability put on the chosen code in the log-probabilities, the rest spread evenly over
            the other options; None gives no log-probabilities.
    """

    def brain(ask: Ask) -> Answer | str:
        text = fenced_text(ask.messages)
        if text is None:
            return framed("A", ["A", "B"], confidence)
        if isinstance(label_of, Mapping) and text not in label_of:
            raise Rejection(404, "no recorded answer for this text")
        label = label_of[text] if isinstance(label_of, Mapping) else label_of(text)
        codes = options(ask)
        if label is None:
            return DECLINED
        if label not in codes:
            raise Rejection(400, f"the prompt offers no label called {label!r}")
        return framed(codes[label], list(codes.values()), confidence)

    return brain


def framed(code: str, codes: list[str], confidence: float | None) -> Answer:
    """The answer in the frame DSPy's chat adapter asks for."""
    head, tail = "[[ ## answer ## ]]\n", "\n\n[[ ## completed ## ]]"
    if confidence is None:
        return Answer(head + code + tail)
    others = [c for c in codes if c != code]
    top = {code: math.log(confidence)}
    if confidence < 1 and others:
        top |= {c: math.log((1 - confidence) / len(others)) for c in others}
    return Answer(head + code + tail, [(head, {head: 0.0}), (code, top), (tail, {tail: 0.0})])
