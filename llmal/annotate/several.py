"""Several items in one question: ids no text can guess go in, and every one of them has to come back once."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from llmal.annotate.reading import chosen, failed, stopped_short
from llmal.lm.wire import Failure, Reply
from llmal.prompts.codes import option
from llmal.prompts.frame import fenced
from llmal.prompts.program import read_pairs
from llmal.records import Annotation, Item, Labels, LabelSchema

LETTERS = "bcdfghjkmnpqrstv"
"""Of ids: no vowels, so that none spells a word; 16 of them, one a hexadecimal digit."""

ID_LENGTH = 4
"""Letters of an id: 65,536 ids, so that two of ten texts share one in a question in 1,500, and get longer."""

ALONE = frozenset({"context_length", "bad_request", "malformed"})
"""Failures that a shorter question may not have."""


def hash_of(item: Item, secret: bytes) -> str:
    """64 hexadecimal digits from the run's secret and a text: no author can guess them."""
    return hmac.new(secret, b"id " + item.key.encode(), hashlib.sha256).hexdigest()


def ids_for(items: Sequence[Item], secret: bytes) -> list[str]:
    """An id for each text: from the run's secret and the text alone, all different."""
    whole = [hash_of(item, secret) for item in items]
    spelled = ["".join(LETTERS[int(digit, 16)] for digit in digits) for digits in whole]
    length = ID_LENGTH
    while len({word[:length] for word in spelled}) < len(spelled):
        length += 1
    return [word[:length] for word in spelled]


def block(items: Sequence[Item], secret: bytes) -> str:
    """The texts of one question, each after its id and between its own fence."""
    parts = zip(ids_for(items, secret), items, strict=True)
    return "\n\n".join(f"{name}:\n{fenced(item, secret)}" for name, item in parts)


def read_several(
    items: Sequence[Item], end: Reply | Failure, secret: bytes, schema: LabelSchema
) -> list[Annotation] | None:
    """The answers about the items of one question, in their order.

    Args:
        items: what was asked about.
        end: what came back.
        secret: of the run, as when asking.
        schema: the classes shown.

    Returns:
        One annotation an item; None where the items should be asked about one by one: an id is missing,
        doubled or not ours, so that no answer can be trusted to stand at its place, or the answer was
        refused, filtered or cut off, perhaps because of a single text.

    Source: batch prompting, Cheng et al. 2023; checking the ids is ours.
    """
    if isinstance(end, Failure):
        return None if end.reason in ALONE else [failed(item.seq, end) for item in items]
    if stopped_short(-1, end) is not None:
        return None
    pairs = read_pairs(end.content)
    names = ids_for(items, secret)
    if pairs is None or sorted(key for key, _, _ in pairs) != sorted(names):
        return None
    said = {key: (value, place) for key, value, place in pairs}
    return [_one(item.seq, *said[name], end, schema) for name, item in zip(names, items, strict=True)]


def without_id(item: Item, end: Reply | Failure) -> Annotation:
    """The annotation of a question about one text whose answer does not carry its id."""
    if isinstance(end, Failure):
        return failed(item.seq, end)
    words = f"answers another question, or none: {end.content}"[:200]
    short = stopped_short(item.seq, end)
    return short or Annotation(item.seq, "unparsed", detail=words, request=end.request)


def _one(item: int, value: str | list[str], place: int, end: Reply, schema: LabelSchema) -> Annotation:
    parts = value if isinstance(value, list) else [value]
    found = [option(part, schema) for part in parts]
    if None in found or (schema.kind == "single" and len(found) != 1) or ("" in found and len(found) > 1):
        return Annotation(item, "off_list", detail=", ".join(parts)[:200], request=end.request)
    if found == [""]:
        return Annotation(item, "abstained", request=end.request)
    labels: Labels = tuple(name for name in schema.names if name in found)
    if schema.kind == "multi":
        return Annotation(item, "ok", labels, request=end.request)
    return chosen(item, end, place, labels, parts[0], schema)
