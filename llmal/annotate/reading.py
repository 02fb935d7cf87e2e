"""One model answer read: status, label, and a distribution over the classes where its tokens tell."""

from __future__ import annotations

import math
from typing import Any

from llmal.lm.wire import Failure, Reply, Token
from llmal.prompts.codes import code_of, codes_for, fold
from llmal.prompts.program import Form, read_answer, read_pairs, read_stated
from llmal.records import Annotation, Labels, LabelSchema, Status

FIELD = "[[ ## answer ## ]]"
"""What stands before the answer, as DSPy's chat adapter asks for it."""

LEAST_MASS = 0.5
"""Mass that must lie on options at the answer's token for their shares to say anything about the classes."""

ROUNDING = 1e-3
"""How far above 0 a server's rounding may lift a log-probability."""


def annotation_of(
    item: int, end: Reply | Failure, sign: Any, schema: LabelSchema, *, form: Form = "one"
) -> Annotation:
    """Read one model answer about one item.

    Args:
        item: the item's `seq`.
        end: what came back.
        sign: DSPy signature with a plain-text answer field.
        schema: the classes shown.
        form: what the answer is made of.
    """
    if isinstance(end, Failure):
        return failed(item, end)
    if (short := stopped_short(item, end)) is not None:
        return short
    if form == "each":
        return _about_each(item, end, schema)
    status, labels, code = read_answer(end.content, sign, schema)
    if status != "ok" or code is None:
        detail = "" if status in ("ok", "abstained") else end.content[:200]
        return Annotation(item, status, labels, detail=detail, request=end.request)
    found = end.content.find(FIELD)
    place = end.content.find(code, found + len(FIELD) if found >= 0 else 0)
    read = chosen(item, end, place, labels, code, schema)
    stated = read_stated(end.content) if form == "stated" and read.confidence is None else None
    if stated is None:
        return read
    return read._replace(confidence=stated, kind="stated", detail="as the model itself says")


def failed(item: int, end: Failure) -> Annotation:
    """What is left of a call that brought no answer."""
    return Annotation(item, "failed", detail=f"{end.reason}: {end.detail}".rstrip(": "))


def stopped_short(item: int, end: Reply) -> Annotation | None:
    """The annotation of an answer that was refused, filtered or cut off; None where it is whole."""
    stopped: dict[str, Status] = {"length": "length", "content_filter": "filtered"}
    if end.refusal:
        return Annotation(item, "refused", detail=end.refusal[:200], request=end.request)
    if end.finish_reason in stopped:
        return Annotation(item, stopped[end.finish_reason], detail=end.content[:200], request=end.request)
    return None


def chosen(item: int, end: Reply, place: int, labels: Labels, code: str, schema: LabelSchema) -> Annotation:
    """The annotation for an option that an answer names, with its distribution where the tokens tell.

    Args:
        item: the item's `seq`.
        end: the answer.
        place: where the code starts in its text.
        labels: the one label the code stands for.
        code: the code as it stands in the text.
        schema: the classes shown.
    """
    probs, outside = distribution(end.tokens, end.content, place, code, schema)
    if probs is None:
        detail = f"mass outside the options {outside:.4f}: no confidence" if outside else ""
        return Annotation(item, "ok", labels, detail=detail, request=end.request)
    sure = probs[schema.columns()[labels[0]]]
    detail = f"mass outside the options {outside:.4f}"
    return Annotation(item, "ok", labels, tuple(probs), sure, "logprobs", detail, end.request)


def _about_each(item: int, end: Reply, schema: LabelSchema) -> Annotation:
    """A yes or a no for every label, each with its own probability where every one's token tells."""
    pairs = read_pairs(end.content)
    if pairs is None:
        return Annotation(item, "unparsed", detail=end.content[:200], request=end.request)
    codes = codes_for(schema)
    said = {code_of(key, codes): (_yes(value), place) for key, value, place in pairs}
    if len(pairs) != len(said) or set(said) != set(codes.labels) or any(a is None for a, _ in said.values()):
        words = "not one yes or no for every label: " + end.content
        return Annotation(item, "off_list", detail=words[:200], request=end.request)
    labels = tuple(n for n, code in zip(schema.names, codes.labels, strict=True) if said[code][0])
    probs = [_share_of_yes(end, said[code][1]) for code in codes.labels]
    if any(p is None for p in probs):
        return Annotation(item, "ok", labels, request=end.request)
    row = tuple(float(p) for p in probs if p is not None)
    sure = min(p if n in labels else 1 - p for n, p in zip(schema.names, row, strict=True))
    return Annotation(item, "ok", labels, row, sure, "logprobs", "a yes or a no for each label", end.request)


def _yes(value: Any) -> bool | None:
    return {"yes": True, "no": False}.get(fold(value)) if isinstance(value, str) else None


def _share_of_yes(end: Reply, place: int) -> float | None:
    """Probability of yes against no at the token that carries a value; None where it is split or not sane."""
    token = token_at(end.tokens or (), end.content, place)
    if token is None or _yes(token.text) is None or not _sane(token):
        return None
    mass = {True: 0.0, False: 0.0}
    for text, logprob in token.top.items():
        if (side := _yes(text)) is not None:
            mass[side] += math.exp(logprob)
    total = mass[True] + mass[False]
    return mass[True] / total if math.isfinite(total) and total > 0 else None


def distribution(
    tokens: tuple[Token, ...] | None, content: str, place: int, code: str, schema: LabelSchema
) -> tuple[list[float] | None, float]:
    """Probabilities over the classes from the token that carries the answer's code, and the mass outside.

    The mass of declining stays out of the classes, so the list sums to less than 1 where the model leaned to
    it.

    Args:
        tokens: the answer's tokens with candidates, or None.
        content: the answer's text.
        place: where the code starts in the text; below 0 when it is not there.
        code: the code as it stands in the text.
        schema: the classes shown.

    Returns:
        (C,) probabilities and the mass on no option; None where the code is not one token of its own, or
        most of the mass lies elsewhere.
    """
    codes = codes_for(schema)
    token = token_at(tokens or (), content, place)
    if token is None or code_of(token.text, codes) != code_of(code, codes) or not _sane(token):
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
    if not math.isfinite(total) or total < LEAST_MASS:
        return None, outside
    return [mass[c] / total for c in codes.labels], outside


def _sane(token: Token) -> bool:
    """Whether every candidate carries a log-probability: not above 0, and no NaN."""
    return all(logprob <= ROUNDING for logprob in token.top.values())


def token_at(tokens: tuple[Token, ...], content: str, place: int) -> Token | None:
    """The token that covers a place in the answer's text; None where tokens and text do not tally.

    A server may count tokens that are not in the text, before it (thoughts) or after it (a stop token).
    """
    start = "".join(token.text for token in tokens).rfind(content)
    if start < 0 or place < 0:
        return None
    end = -start
    for token in tokens:
        end += len(token.text)
        if place < end:
            return token
    return None
