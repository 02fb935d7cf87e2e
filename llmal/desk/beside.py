"""What a person sees beside the texts: the guidelines, and texts that people have answered before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmal.context import Context
from llmal.errors import UserError
from llmal.prompts.file import DEFAULT_PROMPT, load_prompt, read_prompt
from llmal.records import Labels, LabelSchema
from llmal.store import schema as t
from llmal.store.base import labels_of
from llmal.store.store import Store
from llmal.text import repaired

if TYPE_CHECKING:
    from llmal.annotate.stage import Annotator
    from llmal.spec import Pipeline

MOST_BYTES = 64 * 1024
"""Of a guidelines file: some 10,000 words, more than anybody reads beside a text."""

MOST_SHOWN = 24
"""Demonstrations in all; where there are more labels, those that people give most have one each."""

A_LABEL = 2
"""Demonstrations a label, where there is room for as many."""

EARLIEST = 50
"""First answers of a label, from which its demonstrations are chosen: later ones change nothing."""

LOOKED_AT = 4 * EARLIEST
"""Answers of a label that are looked at: people differ about some texts, and others left the corpus."""

FEWEST_WORDS, MOST_LETTERS = 3, 400
"""Length of a demonstration: enough to see why, and little to read."""


def beside(pipeline: Pipeline, store: Store, ctx: Context, *, apart: Collection[int] = ()) -> dict[str, Any]:
    """Guidelines and demonstrations for the review page, as JSON holds them; all of it is data, not markup.

    Args:
        pipeline: of the run.
        store: of the run.
        ctx: where paths of the pipeline file start.
        apart: items never shown as demonstrations, such as those that somebody else is yet to answer.

    Returns:
        `guidelines`, a text, empty where there are none, and `demonstrations`, each with `text` and `labels`.

    Raises:
        UserError: a guidelines file or prompt that cannot be read, with its place.
    """
    return {
        "guidelines": guidelines(pipeline, ctx),
        "demonstrations": demonstrations(store, pipeline.label_schema(), apart=apart),
    }


def guidelines(pipeline: Pipeline, ctx: Context) -> str:
    """The file that `review.guidelines` names; else what the annotator's prompt says beside the labels.

    llmal's own prompt tells people nothing they cannot see, so only what was added to it is shown, such as
    the rules of `llmal compile`.

    Raises:
        UserError: a file that cannot be read, is not UTF-8 or holds more than `MOST_BYTES`.
    """
    if pipeline.review.guidelines is not None:
        return _read(ctx.path(pipeline.review.guidelines))
    return next((words for words in _prompts(pipeline.annotate, ctx) if words), "")


def _prompts(annotator: Annotator, ctx: Context) -> Iterator[str]:
    """What the prompts of an annotator and of its members say."""
    if hasattr(annotator, "prompt"):
        said = load_prompt(ctx.path(annotator.prompt) if annotator.prompt else None).text
        words = said.removeprefix(read_prompt(DEFAULT_PROMPT).text).split("{labels}")
        yield repaired("\n\n".join(part for w in words if (part := w.strip())))[0]
    for member in annotator.members():
        yield from _prompts(member, ctx)


def _read(path: Path) -> str:
    hint = "review.guidelines names it"
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "not a file")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise UserError(f"cannot read the guidelines: {reason}", where=str(path), hint=hint) from error
    if len(raw) > MOST_BYTES:
        raise UserError(
            f"the guidelines hold more than {MOST_BYTES // 1024} kB, which nobody reads beside a text",
            where=f"{path}:{raw.count(10) + 1}",
            hint="Leave the most important part",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError("the guidelines are not UTF-8", where=f"{path}:{line}", hint=hint) from error
    return repaired("\n".join(text.splitlines()).strip())[0]


def demonstrations(store: Store, schema: LabelSchema, *, apart: Collection[int] = ()) -> list[dict[str, Any]]:
    """Texts with the labels that people gave them, one or two a label: for the same answers the same ones.

    Never what measures (audit, test, gold), what is in doubt or flagged, what people differ about, or a text
    with something hidden in it; never a machine's answer. Of the first answers of each label the shortest.

    Args:
        store: of the run.
        schema: the classes.
        apart: items that are left out, too.

    Returns:
        By label in the schema's order, each `text` and `labels`; few or none where people answered little.
    """
    early, counts = _early(store, schema, apart)
    said = _agreed(store, schema, early)
    by_label: dict[str, list[int]] = {name: [] for name in schema.names}
    for item in early:
        for name in said.get(item, ()):
            by_label[name].append(item)
    given = [name for name, items in by_label.items() if items]
    if len(given) > MOST_SHOWN:
        given = sorted(sorted(given, key=lambda n: -counts[n])[:MOST_SHOWN], key=schema.names.index)
    wanted = {item for name in given for item in by_label[name][:EARLIEST]}
    texts = {i.seq: i.text for i in store.items(sorted(wanted)) if not i.flags and _fits(i.text)}
    each = A_LABEL if len(given) * A_LABEL <= MOST_SHOWN else 1
    shown: dict[int, Labels] = {}
    for name in given:
        left = (i for i in by_label[name] if i in texts and i not in shown)
        best = sorted(left, key=lambda i: (len(said[i]), len(texts[i]), i))
        shown.update((i, said[i]) for i in best[:each])
    return [{"text": texts[i], "labels": list(labels)} for i, labels in shown.items()]


def _early(store: Store, schema: LabelSchema, apart: Collection[int]) -> tuple[list[int], Counter[str]]:
    """Items that were answered first with each label, in that order, and how often each label was given."""
    out = {*store.reserved(), *store.doubts(), *store.flagged(), *apart}
    names, counts = set(schema.names), Counter[str]()
    early: dict[int, None] = {}
    c = t.answer.c
    for item, text in store.tuples(sa.select(c.item, c.labels).where(t.standing()).order_by(c.n)):
        if item not in out:
            for name in names.intersection(labels_of(text)):
                counts[name] += 1
                if counts[name] <= LOOKED_AT:
                    early[item] = None
    return list(early), counts


def _agreed(store: Store, schema: LabelSchema, items: list[int]) -> dict[int, Labels]:
    """Item -> labels that all who answered it gave; none that left the corpus or was known beforehand."""
    said: dict[int, Labels | None] = {}
    for word in store.words(schema.names, items):
        same = said.setdefault(word.item, word.labels) == word.labels
        if word.adjudicates or not same:
            said[word.item] = None
    left = {item: labels for item, labels in said.items() if labels}
    there, known = set(store.active(left)), store.gold(left)
    return {item: labels for item, labels in left.items() if item in there and item not in known}


def _fits(text: str) -> bool:
    return len(text) <= MOST_LETTERS and len(text.split()) >= FEWEST_WORDS
