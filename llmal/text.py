"""Text as every library can hold it: what would break one is replaced, what nobody sees is flagged."""

from __future__ import annotations

import re

# Zero width, bidi controls, tag characters, invisible operators: what a reader cannot see but a model reads.
HIDDEN = re.compile(
    "[\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
SURROGATE = re.compile("[\ud800-\udfff]")
"""What UTF-8 cannot hold; bytes that are not UTF-8 arrive so."""


def repaired(text: str) -> tuple[str, tuple[str, ...]]:
    """Text that every library downstream can hold, and flags saying what was odd.

    Lone surrogates crash SQLite, Arrow and tokenizers alike, so they become U+FFFD; NUL goes too, because C
    strings end there. Hidden characters stay, flagged: they are the author's, and a person should see them.
    """
    flags = []
    if SURROGATE.search(text):
        text, flags = SURROGATE.sub("\ufffd", text), ["broken characters"]
    if "\0" in text:
        text, flags = text.replace("\0", "\ufffd"), [*flags, "NUL"]
    if HIDDEN.search(text):
        flags.append("hidden characters")
    return text, tuple(flags)
