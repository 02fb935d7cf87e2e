"""Brains that answer every form of question llmal puts: about several texts, yes or no a label, how sure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from llmal.testing.brains import DECLINED, fenced_text, options
from llmal.testing.chat import Answer, Ask, Brain

_TEXTS = re.compile(r"^([a-z]+):\n<<<([0-9a-f]{12})\n(.*?)\n\2>>>$", re.DOTALL | re.MULTILINE)

Labelled = Callable[[str], str | Collection[str] | None]
"""Text -> its label, its labels when there may be several, or None for no answer."""


def texts_of(messages: Any) -> dict[str, str]:
    """Id -> text of a question about several; empty when it is about one."""
    return {name: text for name, _, text in _TEXTS.findall(messages[-1]["content"])}


def answerer(
    label_of: Labelled,
    *,
    confidence: float | None = None,
    stated: int | None = None,
    spoil: Callable[[Ask, list[tuple[str, Any]]], list[tuple[str, Any]]] | None = None,
) -> Brain:
    """A brain that answers in the form the question asks for, as `brains.classifier` does for one option.

    Args:
        label_of: text -> label, labels or None.
        confidence: probability put on what is answered, the rest spread over the other options; None gives no
            log-probabilities.
        stated: what is written in the confidence's field, where there is one.
        spoil: changes the members of a JSON answer before it is written: what a careless model does.
    """

    def brain(ask: Ask) -> Answer | str:
        codes = options(ask)
        texts = texts_of(ask.messages)
        text = fenced_text(ask.messages)
        if text is None:
            return one("A", ["A", "B"], confidence)
        if "[[ ## answers ## ]]" not in ask.messages[-1]["content"]:
            return _about_one(label_of(text), codes, confidence, stated, ask)
        if texts:
            members = [(name, _code(label_of(text), codes)) for name, text in texts.items()]
            others = list(codes.values())
        else:
            given = _names(label_of(text))
            members = [(code, "yes" if name in given else "no") for name, code in codes.items()]
            others = ["yes", "no"]
        return together(spoil(ask, members) if spoil else members, others, confidence)

    return brain


def one(code: str, codes: Collection[str], confidence: float | None, *, more: str = "") -> Answer:
    """One option in the frame DSPy's chat adapter asks for; `more` stands before its end."""
    head, tail = "[[ ## answer ## ]]\n", f"\n\n{more}[[ ## completed ## ]]"
    if confidence is None:
        return Answer(head + code + tail)
    return Answer(
        head + code + tail, [(head, {head: 0.0}), _token(code, codes, confidence), (tail, {tail: 0.0})]
    )


def together(members: list[tuple[str, Any]], codes: Collection[str], confidence: float | None) -> Answer:
    """A JSON object in the frame; a text value is a token of its own."""
    tokens: list[tuple[str, Mapping[str, float]]] = [_plain("[[ ## answers ## ]]\n{")]
    for place, (key, value) in enumerate(members):
        tokens.append(_plain((", " if place else "") + json.dumps(key) + ": "))
        if isinstance(value, str):
            tokens += [_plain('"'), _token(value, codes, confidence or 1.0), _plain('"')]
        else:
            tokens.append(_plain(json.dumps(value)))
    tokens.append(_plain("}\n\n[[ ## completed ## ]]"))
    return Answer("".join(text for text, _ in tokens), None if confidence is None else tokens)


def _about_one(
    label: str | Collection[str] | None,
    codes: dict[str, str],
    confidence: float | None,
    stated: int | None,
    ask: Ask,
) -> Answer | str:
    if label is None:
        return DECLINED
    asked = "[[ ## confidence ## ]]" in ask.messages[-1]["content"]
    more = f"[[ ## confidence ## ]]\n{stated}\n\n" if asked and stated is not None else ""
    answer = _code(label, codes)
    if isinstance(answer, list):
        return one(json.dumps(answer), [], None, more=more)
    return one(answer, codes.values(), confidence, more=more)


def _names(label: str | Collection[str] | None) -> Collection[str]:
    return (label,) if isinstance(label, str) else label or ()


def _code(label: str | Collection[str] | None, codes: dict[str, str]) -> Any:
    """The code of a label, a list of codes for several, the code for declining when there is none."""
    if label is None:
        return codes["cannot tell"]
    return codes[label] if isinstance(label, str) else [codes[name] for name in label]


def _plain(text: str) -> tuple[str, Mapping[str, float]]:
    return text, {text: 0.0}


def _token(code: str, codes: Collection[str], confidence: float) -> tuple[str, Mapping[str, float]]:
    others = [c for c in codes if c != code]
    top = {code: math.log(confidence)}
    if confidence < 1 and others:
        top |= {c: math.log((1 - confidence) / len(others)) for c in others}
    return code, top
