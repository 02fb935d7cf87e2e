"""The frame of a prompt: laid out once by DSPy, filled with one fenced item a request."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from llmal.corpus import HIDDEN
from llmal.prompts.file import PromptFile
from llmal.records import Item, LabelSchema, recipe

_SLOT = "\x1aITEM\x1a"  # stands in no prompt file: it is only ever put in and taken out here
# What a text could use to pose as the frame around it: DSPy's field markers and chat templates' role tokens.
_MARKERS = re.compile(
    r"\[(?=\[\s*##)"
    r"|<(?=[|\uff5c][^|\uff5c<>\n]{1,40}[|\uff5c]>)"
    r"|<(?=(?:start|end)_of_turn>|/?s>|</?SYS>>)"
    r"|\[(?=/?INST\])",
    re.IGNORECASE,
)


class Frame(NamedTuple):
    """Everything of a request but the item's text, rendered once.

    Attributes:
        before: messages that never change (system, demonstrations).
        head, tail: what stands before and after the fenced text in the last message.
        recipe: hash of the frame.
    """

    before: tuple[dict[str, str], ...]
    head: str
    tail: str
    recipe: str

    def messages(self, item: Item, secret: bytes) -> list[dict[str, str]]:
        """The request for one item; the unchanging part first, so that a prefix cache pays."""
        return [*self.before, {"role": "user", "content": self.head + fenced(item, secret) + self.tail}]


def fenced(item: Item, secret: bytes) -> str:
    """The item's text between two lines no author can guess, markers broken, hidden characters removed.

    The fence depends on the item and the run's secret alone: random to a text's author, and the same when the
    question is asked again, so that a kept answer is found.
    """
    fence = hmac.new(secret, item.key.encode(), hashlib.sha256).hexdigest()[:12]
    return f"<<<{fence}\n{neutral(item.text)}\n{fence}>>>"


def neutral(text: str) -> str:
    """Text that cannot pose as the frame: markers get a blank inside, hidden characters go."""
    return _MARKERS.sub(lambda m: m[0] + " ", HIDDEN.sub("", text))


def render(prompt: PromptFile, schema: LabelSchema) -> Frame:
    """Let DSPy's chat adapter lay the prompt out, once for all items."""
    from llmal.prompts.program import adapter, demonstrations, signature

    sign = signature(prompt, schema)
    field = next(iter(prompt.inputs))
    *before, last = adapter().format(sign, demonstrations(prompt, schema), {field: _SLOT})
    head, _, tail = last["content"].partition(_SLOT)
    frame = [{"role": m["role"], "content": m["content"]} for m in before]
    return Frame(tuple(frame), head, tail, recipe("frame", frame, head, tail))
