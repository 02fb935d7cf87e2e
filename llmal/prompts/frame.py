"""The frame of a prompt: laid out once by DSPy, filled with one fenced item a request."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize

from llmal.prompts.file import PromptFile
from llmal.records import Item, LabelSchema, recipe
from llmal.text import HIDDEN

if TYPE_CHECKING:
    from llmal.prompts.program import Form

_SLOT = "\x1aITEM\x1a"  # stands in no prompt file: it is only ever put in and taken out here
# What a text could use to pose as the frame around it: DSPy's field markers and chat templates' tokens
# (ChatML, Llama, Mistral, Gemma, DeepSeek, gpt-oss, Command, ...), as they read once look-alikes are undone.
_GAP = "[\\s\u2800\u3164\uffa0]*"
_MARKERS = re.compile(
    rf"\[(?=\[{_GAP}##)"
    r"|<(?=\|[^|<>\n]{1,40}(?:\||>)|[^\s|<>]{1,40}\|>)"
    r"|<(?=(?:start|end)_of_turn>|/?s>|</?SYS>>|[be]os>|(?:bos|eos|seed):\w{1,20}>|/?think>|/?tool_call>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|gMASK)\])",
    re.IGNORECASE,
)
_TWO_IN_ONE = re.compile(f"[\u27e6\u301a](?={_GAP}##)")  # white square brackets: [[ as one character
# What draws nothing, beyond `HIDDEN`: deprecated format characters, and variation selectors many in a row,
# where they spell bytes; one behind an emoji is at home there.
_UNSEEN = re.compile(
    "[\u17b4\u17b5\u206a-\u206f\ufff9-\ufffb\U0001d173-\U0001d17a]|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}"
)
_ATTACHED = re.compile(
    "[\u0300-\u036f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)  # what changes the letter before it
# Characters that look like those markers are made of, each with its twin; full width is undone by NFKC.
_TWINS = str.maketrans(
    "\u2039\u2329\u3008\u27e8\u276e\u203a\u232a\u3009\u27e9\u276f\u2772\u27e6\u301a\u2223\u01c0\u2758\u2502\u266f"
    "\u2044\u2215\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u0445\u0443\u0406\u041d\u0422\u0405\u0421\u0399\u039d"
    "\u03a4\u03bf",
    "<<<<<>>>>>[[[||||#//aceiopsxyIHTSCINTo",
)


class Frame(NamedTuple):
    """Everything of a request but the item's text, rendered once.

    Attributes:
        before: messages that never change (system, demonstrations).
        head, tail: what stands before and after the fenced text in the last message.
        recipe: hash of the frame.
        example: what stands before and after a text and an answer in the two messages of a demonstration.
    """

    before: tuple[dict[str, str], ...]
    head: str
    tail: str
    recipe: str
    example: tuple[str, str, str, str] = ("", "", "", "")

    def messages(
        self, item: Item, secret: bytes, shown: Sequence[tuple[Item, str]] = ()
    ) -> list[dict[str, str]]:
        """The request for one item; the unchanging part first, so that a prefix cache pays.

        Args:
            item: what is asked about.
            secret: of the run, for the fences.
            shown: other items as demonstrations, each with its answer as a model would write it; they are
                data like any other and stand between fences too.
        """
        return self.asking(fenced(item, secret), secret, shown)

    def asking(
        self, block: str, secret: bytes, shown: Sequence[tuple[Item, str]] = ()
    ) -> list[dict[str, str]]:
        """The request about a block of fenced text; see `messages`."""
        before, after, said, end = self.example
        pairs = []
        for other, answer in shown:
            pairs.append({"role": "user", "content": before + fenced(other, secret) + after})
            pairs.append({"role": "assistant", "content": said + answer + end})
        return [*self.before, *pairs, {"role": "user", "content": self.head + block + self.tail}]


def fenced(item: Item, secret: bytes) -> str:
    """The item's text between two lines no author can guess, markers broken, hidden characters removed.

    The fence depends on the item and the run's secret alone: random to a text's author, and the same when the
    question is asked again, so that a kept answer is found.
    """
    fence = hmac.new(secret, item.key.encode(), hashlib.sha256).hexdigest()[:12]
    return f"<<<{fence}\n{neutral(item.text)}\n{fence}>>>"


def neutral(text: str) -> str:
    """Text that cannot pose as the frame: markers get a blank inside, hidden characters go.

    Markers are looked for as a reader would see them: full-width letters and signs and common look-alikes
    count as what they resemble. Nothing else of the text is altered.
    """
    text = _TWO_IN_ONE.sub("[ [", _visible(text))
    places = [found.start() + 1 for found in _MARKERS.finditer(looks(text))]
    return " ".join(text[a:b] for a, b in pairwise([0, *places, len(text)]))


def posing(text: str) -> bool:
    """Whether a text holds a marker of the frame, in whatever letters."""
    return _poses(_visible(text))


def looks(text: str) -> str:
    """The text as it looks, character for character: place i is place i of the text."""
    if text.isascii():
        return text
    plain = (normalize("NFKC", c) if c > "\x7f" else c for c in text.translate(_TWINS))
    return "".join(p if len(p) == 1 else c for p, c in zip(plain, text, strict=True))


def _visible(text: str) -> str:
    """The text without what hides in it; accents go only where a marker hides behind them."""
    while (clean := _UNSEEN.sub("", HIDDEN.sub("", text))) != text:
        text = clean  # what one goes from between may bring two others together
    bare = _ATTACHED.sub("", text)
    return bare if bare != text and _poses(bare) else text


def _poses(text: str) -> bool:
    return bool(_TWO_IN_ONE.search(text) or _MARKERS.search(looks(text)))


def render(prompt: PromptFile, schema: LabelSchema, form: Form = "one") -> Frame:
    """Let DSPy's chat adapter lay the prompt out, once for all items."""
    from llmal.prompts.program import SHOWN_CONFIDENCE, adapter, demonstrations, signature

    sign = signature(prompt, schema, form=form)
    field = next(iter(prompt.inputs))
    *before, last = adapter().format(sign, demonstrations(prompt, schema, form=form), {field: _SLOT})
    head, _, tail = last["content"].partition(_SLOT)
    frame = [{"role": m["role"], "content": m["content"]} for m in before]
    shown = {name: _SLOT if name.startswith("answer") else SHOWN_CONFIDENCE for name in sign.output_fields}
    _, asked, said, _ = adapter().format(sign, [{field: _SLOT, **shown}], {field: _SLOT})
    (a, _, b), (c, _, d) = asked["content"].partition(_SLOT), said["content"].partition(_SLOT)
    return Frame(tuple(frame), head, tail, recipe("frame", frame, head, tail), (a, b, c, d))
