"""Does a text talk to whoever labels it? A reason in words, so that a person looks before it counts."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

from llmal.prompts.codes import codes_for
from llmal.prompts.frame import looks, posing
from llmal.records import Annotation, LabelSchema
from llmal.text import HIDDEN

RULES = 1
"""Version of the rules: part of the recipe of annotations that were held by them."""

REPEATED = 8
"""How often the same three words may stand in a text before it looks like insisting."""

_FLAG = re.compile(
    "\U0001f3f4[\U000e0030-\U000e007a]{3,6}\U000e007f"
)  # of England, Scotland, Wales, Texas, ...
_SPELT = re.compile("[\U000e0020-\U000e007f]{3,}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_FENCE = re.compile(r"^[^\w\n]{0,9}(?:<<<+\s?[\w-]{3,}|[\w-]{3,}\s?>>>+|[<>]{2,})[^\w\n]{0,9}$", re.MULTILINE)
_TURN = re.compile(
    r"^\W{0,5}(system|assistant|user|human|ai|instruction|response|developer)s?\s?:", re.M | re.I
)
_TAG = re.compile(r"</?(?:system|instructions?|prompt|assistant|eo[std]|bos)>|\[(?:EOS|BOS|EOT)\]", re.I)
_MIXED = re.compile(r"[a-z][\u0430-\u044f\u0456]|[\u0430-\u044f\u0456][a-z]", re.IGNORECASE)
_SHOWN = re.compile(r"^\W{0,3}(\w{1,12} ?: ?\w.{0,30})$", re.MULTILINE)
_BLOB = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_JOINTS = re.compile(r"\s*\n\s*(?:[>#*-]+\s)?|\s+")

_WORD = r"(?:answer|label|class|category|option|code|response|reply|output|choice)"
_VERB = (
    r"(?:answer|reply|respond|output|return|label(?:l?ed)?|classif(?:y|ied)|choose|chose|pick|select|mark(?:ed)?|"
    r"annotated?|"
    r"antworte|antwoord|responde|responda|rispondi|r\u00e9ponds|r\u00e9pondez|\u56de\u7b54|\u56de\u7b54\u8bf7)"
)
_TASK = (
    r"(?:instruct|rule|guideline|prompt|direction|task|command|order|codebook|the above|all of the|"
    r"(?:you were|you have been) told|anweisung|instruc|istruz|consigne|regel|\u6307\u4ee4|"
    r"\u8bf4\u660e|\u0438\u043d\u0441\u0442\u0440)"
)
_CANCEL = (
    r"(?:ignor\w*|disregard|forget|override|overrule|bypass|supersedes?|oublie\w*|negeer|vergiss|olvida|"
    r"\u5ffd\u7565|\u0438\u0433\u043d\u043e\u0440\w*)"
)
_READER = (
    r"(?:annotators?|classifiers?|labell?ers?|language models?|llms?|chatbots?|chatgpt|ai (?:model|reader)s?)"
)
_IGNORE, _ANSWER = "tells the reader to ignore instructions", "tells what to answer"
# What no label is needed for, each with the reason a person reads.
_TALK = [
    (re.compile(pattern, re.IGNORECASE), why)
    for pattern, why in (
        (rf"\b{_CANCEL}\b.{{0,25}}\b{_TASK}|\u5ffd\u7565.{{0,8}}{_TASK}", _IGNORE),
        (r"\b(?:new|updated|real) (?:instruction|task|rule)s?\b\W{0,3}:", "gives new instructions"),
        (rf"\b(?:dear|attention|note to|hello|hi|hey),? (?:the )?{_READER}\b", "addresses the annotator"),
        (rf"\b{_READER} ?(?::|,? (?:must|should|shall|has to|have to) )", "addresses the annotator"),
        (
            r"\b(?:labels?|codes?|options?|codebook)\b.{0,30}\b"
            r"(?:redefined|void|withdrawn|now means?|out of date|no longer valid)\b",
            "changes what the labels mean",
        ),
        (
            r"\byour (?:confidence|probability|certainty)\b|\bconfidence\W{0,3}(?:is |of )?[01]?[.]?\d+",
            "speaks of the annotator's confidence",
        ),
        (rf"\byour {_WORD}\b (?:must|should|shall|is|has to)\b", _ANSWER),
    )
]

# One of these stands in every sentence that `_TALK` and `_orders` can match. They are looked for first: most
# texts hold none, and thirty searches by pattern cost more than all the rest of asking.
_STEMS = [
    *("answer", "label", "class", "categor", "option", "code", "response", "reply", "output", "choice"),
    *("respond", "return", "choose", "chose", "pick", "select", "mark", "annotat", "antwo", "rispondi"),
    *(
        "r\u00e9pond",
        "\u56de\u7b54",
        "ignor",
        "disregard",
        "forget",
        "overrid",
        "overrul",
        "bypass",
        "supersed",
    ),
    *("oublie", "negeer", "vergiss", "olvida", "\u5ffd\u7565", "\u0438\u0433\u043d\u043e\u0440"),
    *("language model", "llm", "chatbot", "chatgpt", "ai model", "ai reader"),
    *("instruction", "task", "rule", "confidence", "probability", "certainty"),
]
_TURNED = [codecs.encode(stem, "rot13") for stem in _STEMS if stem.isascii()]


def suspicion(text: str, schema: LabelSchema | None = None) -> str:
    """Why a text looks as if it were written for the annotator rather than for its readers.

    Rules of thumb, not a judge: a new wording can slip through, and an honest text about labelling can be
    caught. That is why a suspect text goes to a person and never out of the run.

    Args:
        text: the item's text.
        schema: the classes; without them an order that names a label in plain words is not recognised.

    Returns:
        The reason, as the rest of a sentence "the text ..."; empty where there is none.
    """
    plain = HIDDEN.sub("", text)
    return _shape(text, plain) or _talk(plain, schema)


def _shape(text: str, plain: str) -> str:
    """What the look of a text tells, whatever its language."""
    ascii_only, colons, angle = text.isascii(), plain.count(":") > 1, any(c in plain for c in "<>[")
    if ascii_only and not colons and not angle:  # most texts: nothing of the signs below can be in them
        return "says the same over and over" if _insists(plain) else ""
    turns = {found[1].casefold() for found in _TURN.finditer(plain)} if colons else set()
    shown = Counter(_SHOWN.findall(plain)) if colons else Counter()
    signs = (
        (posing(text), "holds a field marker of the prompt or a chat template's token"),
        (not ascii_only and _SPELT.search(_FLAG.sub("", text)), "spells something in characters nobody sees"),
        (angle and _FENCE.search(plain), "holds a line like the fence around a text"),
        ((angle and _TAG.search(plain)) or len(turns) > 1, "is laid out like turns of a chat"),
        (not ascii_only and len(_MIXED.findall(plain)) > 1, "mixes letters of two alphabets within words"),
        (max(shown.values(), default=0) > 2, "shows worked examples of an answer"),
        (_insists(plain), "says the same over and over"),
    )
    return next((why for sign, why in signs if sign), "")


def _talk(plain: str, schema: LabelSchema | None) -> str:
    """What the sentences of a text tell."""
    for view, how in _views(plain):
        if not _holds(view, _STEMS):
            continue
        orders = _orders(codes_for(schema).labels, tuple(schema.names)) if schema else _orders(("[A-Z]",), ())
        for pattern, why in (*_TALK, *((order, _ANSWER) for order in orders)):
            if pattern.search(view):
                return why + how
    return ""


def suspected(annotation: Annotation, text: str, schema: LabelSchema | None = None) -> Annotation:
    """The annotation, its label taken off and told in its detail where the text is suspect.

    Returns:
        The same annotation where the text is not suspect or there is no label; else one with the status
        `suspect`, which no filter accepts.
    """
    why = suspicion(text, schema) if annotation.status == "ok" else ""
    if not why:
        return annotation
    said = ", ".join(annotation.labels) or "no label"
    detail = f"the text {why}; the annotator said {said}"[:200]
    return Annotation(annotation.item, "suspect", detail=detail, request=annotation.request)


@cache
def _orders(codes: tuple[str, ...], names: tuple[str, ...]) -> list[re.Pattern[str]]:
    """Patterns of sentences that name an option as the answer."""
    words = "".join("|" + re.escape(name).replace("_", "[_ ]") for name in names)
    goes_on = r"(?!\w|['\u2019]\w| +(?!(?:and|or|as|for|is|are|on|now|here|instead)\b)[a-z])"
    bare = rf"(?-i:(?:{'|'.join(codes)}){goes_on})"
    quoted = r"[\"'\u201c\u2018`][^\"'\u201d\u2019`\n]{1,30}[\"'\u201d\u2019`]"
    it = rf"(?:{quoted}|(?<!\w)(?:{bare}{words})(?!\w))"
    few = r"(?:\W{1,3}\w+){0,4}?\W{1,3}"
    return [
        re.compile(
            rf"(?<![^\W_]){_WORD}s?[\"']?\s?(?:\w+\s){{0,5}}?(?:is|are|be|means?|:=|[:=])\s?{it}", re.I
        ),
        re.compile(rf"(?<!\w){_VERB}[\"']?(?:{few}|\W{{0,3}}){it}", re.I),
        re.compile(
            rf"{it}(?:\W{{1,2}}\w+){{0,3}}?\W{{1,2}}(?:as|be|is) (?:your|the|their|its) {_WORD}\b", re.I
        ),
        re.compile(rf"\b{_WORD} (?:(?:other than|but|except) )?{it}", re.I),
        re.compile(rf"\b(?:only|right|correct|true) {_WORD}\b.{{0,20}}{it}", re.I),
    ]


def _insists(text: str) -> bool:
    words = re.findall(r"\w+", text.casefold())
    if len(words) < 3 * REPEATED or max(Counter(words).values()) < REPEATED:
        return False
    runs = Counter(run for run in zip(words, words[1:], words[2:], strict=False) if len(set(run)) > 1)
    return bool(runs) and max(runs.values()) >= REPEATED


def _views(text: str) -> Iterator[tuple[str, str]]:
    """The text on one line, in its lines, as it looks, and decoded; each with words for how it was found."""
    one_line = text.isprintable() and "  " not in text
    line = text if one_line else _JOINTS.sub(" ", text)
    yield line, ""
    if "\n" in text:
        yield text, ""
    seen = looks(line)
    if seen != line:
        yield seen, ", in look-alike letters"
    for blob in _BLOB.findall(line):
        decoded = _decoded(blob)
        if decoded:
            yield decoded, ", encoded"
    if _holds(line, _TURNED):
        yield codecs.decode(line, "rot13"), ", in rot13"


def _holds(text: str, stems: list[str]) -> bool:
    low = text.casefold()
    for stem in stems:  # noqa: SIM110 - a generator costs twice as much, and this runs for every text
        if stem in low:
            return True
    return False


def _decoded(blob: str) -> str:
    """What a run of base64 or hexadecimal digits spells in ASCII, or empty."""
    try:
        if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", blob):
            found = bytes.fromhex(blob).decode("ascii")
        else:
            found = base64.b64decode(blob + "=" * (-len(blob) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return ""  # not text at all: an id, a file name, a long word
    return found if found.isprintable() else ""
