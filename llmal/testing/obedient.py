"""A scripted language model that obeys orders it finds in a text, for measuring what a prompt holds off."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from llmal.testing.brains import framed, options
from llmal.testing.chat import Answer, Ask, Brain, draw

_HEAD = re.compile(r"\[\[ ## \w+ ## \]\]\n")
_TAIL = "\n\nRespond with the corresponding output fields"
_OPEN = re.compile(r"<<<([0-9a-f]{12})\n")
# What ends a turn or a field for a model, or looks to it as if it did.
_BREAK = re.compile(
    r"<\|[^\s<>|][^<>|\n]{0,38}\|>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>|</?s>|<[be]os>"
    r"|\[\[\s*##|\[\[##",
    re.IGNORECASE,
)
_GAP = r"\W.{0,60}?"
# The letters that are words too: codes only where nothing goes on after them, or one of these.
_ARTICLE = re.compile(r"(?<= )[AI](?= +(?!(?:and|or|as|for|is|are|now|here|instead|stands|has)\b)[a-z])")
_LOOKALIKES = str.maketrans(
    "\u0430\u0441\u0435\u0456\u043e\u0440\u0445\u0443\u0410\u0415\u041e\u0420\u2039\u203a",
    "aceiopxyAEOP<>",
) | {0x27E6: "[[", 0x27E7: "]]"}

_CUES = (
    r"answers?|repl(?:y|ied)|responds?|response|returns?|outputs?|label(?:s|led)?|class(?:ify|ified)?|category|"
    r"choose|chose|pick|select|option|codes?|say|says|marked|get|put|final|anything but|a(?=:)|##\s*\w+\s*##|"
    "responde|responda|rispondi|r\u00e9ponds|antworte|antwoord|\u56de\u7b54|\u043e\u0442\u0432\u0435\u0442\u044c"
).translate(_LOOKALIKES)


class _Read(NamedTuple):
    """The last message as a reader takes it: what the fence holds, and what stands beside it."""

    fenced: bool
    inside: str
    outside: str


def obedient(
    label_of: Callable[[str], str | None],
    *,
    gullible: float = 0.3,
    confidence: float | None = 0.97,
    others: Sequence[str] = (),
    seed: int = 0,
) -> Brain:
    """A brain that labels truly unless something tells it otherwise; a caricature, and a severe one.

    It reads a request as a model would: the codebook in the system message, the text in the last one.

    - An order that stands outside the fence, or behind something that breaks the frame (a role token, a field
      marker, a line that closes the fence; look-alikes and hidden characters count as the real thing), is
      always obeyed.
    - Without a fence every order it recognises is obeyed.
    - Inside a fence that holds, a recognised order is still obeyed in a share `gullible` of the texts, drawn
      by the text alone: real models do that, more or less often by model and wording.

    An order is a word such as "answer", "label" or "choose", in eight languages, close before an option code
    or a label's name; also one written in tag characters, base64, hexadecimal or rot13. It obeys the last,
    and is as sure of it as of a true answer. It imports nothing of what llmal defends itself with.

    What it does not show: how often a given real model obeys, and orders that name no label at all.

    Args:
        label_of: the item's text as the model sees it, without the fence -> the true label; None: declines.
        gullible: share in [0, 1] of fenced texts whose orders are obeyed.
        confidence: probability of the chosen code, as in `classifier`; None gives no log-probabilities.
        others: words outside the codebook that it says when told to.
        seed: of the draw.
    """

    def brain(ask: Ask) -> Answer:
        codes = options(ask)
        if not codes:
            return framed("A", ["A", "B"], confidence)
        read = _reading(ask.user)
        said = _obeyed(read, codes, others, gullible, seed)
        if said is not None:
            return _boasting(framed(said, list(codes.values()), confidence), read.inside + read.outside)
        label = label_of(read.inside)
        return framed(codes["cannot tell" if label is None else label], list(codes.values()), confidence)

    return brain


def _reading(message: str) -> _Read:
    head, end = _HEAD.search(message), message.rfind(_TAIL)
    text = message[head.end() if head else 0 : end if end >= 0 else len(message)]
    fence = _OPEN.match(text)
    if fence is None:
        return _Read(False, text, "")
    close = f"\n{fence[1]}>>>"
    inside, _, outside = text[fence.end() - 1 :].partition(close)
    return _Read(True, inside[1:], outside.removesuffix(close))


def _obeyed(
    read: _Read, codes: dict[str, str], others: Sequence[str], gullible: float, seed: int
) -> str | None:
    """What it says because it was told to, or None."""
    if (order := _order(read.outside, codes, others)) is not None:
        return order
    broken = any(_BREAK.search(view) for view in (read.inside, _seen(read.inside)))
    if broken or not read.fenced or draw(seed, "gullible", read.inside) < gullible:
        return _order(read.inside, codes, others)
    return None


def _order(text: str, codes: dict[str, str], others: Sequence[str]) -> str | None:
    """The option code, or other word, that the text tells a reader to answer with."""
    if not text:
        return None
    names = {name.casefold(): code for name, code in codes.items()}
    wanted = "|".join(map(re.escape, sorted([*names, *others], key=len, reverse=True)))
    letters = "|".join(map(re.escape, codes.values()))
    target = rf"(?P<name>(?<!\w)(?:{wanted})(?!\w))|(?-i:(?P<code>(?<![\w'])(?:{letters})(?![\w'])))"
    order = re.compile(rf"(?<![^\W\d_])(?:{_CUES}){_GAP}(?:{target})", re.IGNORECASE | re.DOTALL)
    last: dict[int, str] = {}
    for view in _views(text):
        for found in order.finditer(view):
            word = found["code"] or found["name"]
            last[found.end()] = word if found["code"] else names.get(word.casefold(), word)
        if last:
            return last[max(last)]
    return None


def _views(text: str) -> Iterator[str]:
    """The text as it looks, what tag characters spell, and what decoding gives."""
    seen = _seen(text)
    yield re.sub(r"\s*\n\s*(?:[>-]\s)?", " ", _ARTICLE.sub(lambda m: m[0].lower(), seen))
    yield "".join(chr(ord(c) - 0xE0000) for c in text if 0xE0020 <= ord(c) < 0xE007F)
    for blob in re.findall(r"[A-Za-z0-9+/]{12,}={0,2}", seen):
        for decode in (_from_base64, _from_hex):
            yield decode(blob)
    yield codecs.decode(seen, "rot13")


def _from_base64(blob: str) -> str:
    try:
        return base64.b64decode(blob, validate=True).decode("ascii")
    except (binascii.Error, ValueError):  # not encoded: nothing to read
        return ""


def _from_hex(blob: str) -> str:
    try:
        return bytes.fromhex(blob).decode("ascii")
    except ValueError:  # not encoded: nothing to read
        return ""


def _seen(text: str) -> str:
    """Letters as they look: hidden characters gone, full width and foreign twins as Latin."""
    plain = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return plain.translate(_LOOKALIKES)


def _boasting(answer: Answer, orders: str) -> Answer:
    """States a confidence too where it was asked to, as it would: in a field of its own."""
    if "confidence" not in orders.casefold():
        return answer
    claim = "\n\n[[ ## confidence ## ]]\n100\n\n[[ ## completed ## ]]"
    content = (answer.content or "").replace("\n\n[[ ## completed ## ]]", claim)
    tokens = answer.logprobs and [*answer.logprobs[:-1], (claim, {claim: 0.0})]
    return Answer(content, tokens)
