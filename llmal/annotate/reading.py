"""One model answer read: status, label, and a distribution over the classes where its tokens tell."""

from __future__ import annotations

import math
from typing import Any

from llmal.lm.wire import Failure, Reply, Token
from llmal.prompts.codes import code_of, codes_for
from llmal.prompts.program import read_answer
from llmal.records import Annotation, LabelSchema, Status

FIELD = "[[ ## answer ## ]]"
"""What stands before the answer, as DSPy's chat adapter asks for it."""

ROUNDING = 1e-3
"""How far above 0 a server's rounding may lift a log-probability."""


def annotation_of(item: int, end: Reply | Failure, sign: Any, schema: LabelSchema) -> Annotation:
    """Read one model answer.

    Args:
        item: the item's `seq`.
        end: what came back.
        sign: DSPy signature with a plain-text answer field.
        schema: the classes.
    """
    if isinstance(end, Failure):
        return Annotation(item, "failed", detail=f"{end.reason}: {end.detail}".rstrip(": "))
    stopped: dict[str, Status] = {"length": "length", "content_filter": "filtered"}
    if end.refusal:
        return Annotation(item, "refused", detail=end.refusal[:200], request=end.request)
    if end.finish_reason in stopped:
        return Annotation(item, stopped[end.finish_reason], detail=end.content[:200], request=end.request)
    status, labels, code = read_answer(end.content, sign, schema)
    if status != "ok" or code is None:
        detail = "" if status in ("ok", "abstained") else end.content[:200]
        return Annotation(item, status, labels, detail=detail, request=end.request)
    probs, outside = distribution(end.tokens, end.content, code, schema)
    if probs is None:
        return Annotation(item, status, labels, request=end.request)
    confidence = probs[schema.columns()[labels[0]]]
    return Annotation(
        item,
        status,
        labels,
        tuple(probs),
        confidence,
        "logprobs",
        f"mass outside the options {outside:.4f}",
        end.request,
    )


def distribution(
    tokens: tuple[Token, ...] | None, content: str, code: str, schema: LabelSchema
) -> tuple[list[float] | None, float]:
    """Probabilities over the classes from the token that carries the answer's code, and the mass outside.

    The mass of declining stays out of the classes, so the list sums to less than 1 where the model leaned to
    it.

    Args:
        tokens: the answer's tokens with candidates, or None.
        content: the answer's text.
        code: the code as it stands in the text.
        schema: the classes.

    Returns:
        (C,) probabilities and the mass on no option; None where the code is not one token of its own.
    """
    codes = codes_for(schema)
    token = _token_at(tokens or (), content, code)
    if token is None or code_of(token.text, codes) != code_of(code, codes):
        return None, 0.0
    if not all(logprob <= ROUNDING for logprob in token.top.values()):  # not what was promised, or NaN
        return None, 0.0
    mass = dict.fromkeys(codes.all(), 0.0)
    outside = 0.0
    for text, logprob in token.top.items():
        option = code_of(text, codes)
        if option is None:
            outside += math.exp(logprob)
        else:
            mass[option] += math.exp(logprob)
    total = sum(mass.values())
    if not math.isfinite(total) or total <= 0:
        return None, 0.0
    return [mass[c] / total for c in codes.labels], outside


def _token_at(tokens: tuple[Token, ...], content: str, code: str) -> Token | None:
    """The token that covers the code in the answer's field; None where tokens and text do not tally.

    A server may count tokens that are not in the text, before it (thoughts) or after it (a stop token).
    """
    start = "".join(token.text for token in tokens).rfind(content)
    field = content.find(FIELD)
    place = content.find(code, field + len(FIELD) if field >= 0 else 0)
    if start < 0 or place < 0 or not code:
        return None
    end = -start
    for token in tokens:
        end += len(token.text)
        if place < end:
            return token
    return None
