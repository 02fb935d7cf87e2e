"""The questions about some items, and the answers as they come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmal.annotate.reading import annotation_of
from llmal.annotate.repeats import HEAT, agreed
from llmal.annotate.retrieval import people, retrieved, say_worth, written
from llmal.annotate.several import block, hash_of, read_several, without_id
from llmal.annotate.shortlist import say_recall, shortlists
from llmal.annotate.stage import Desk, Shown
from llmal.annotate.views import narrowed, rotated, widened
from llmal.errors import ModelError
from llmal.lm.probe import Abilities
from llmal.lm.wire import Failure, Reply, Request
from llmal.prompts.file import PromptFile, load_prompt
from llmal.prompts.frame import Frame, render
from llmal.prompts.program import Form, signature
from llmal.prompts.suspicion import suspected, suspicion
from llmal.records import Annotation, Item, LabelSchema, batched
from llmal.store.ledger import Facts

if TYPE_CHECKING:
    from llmal.annotate.llm import Llm

FRAMES = 1024
"""Frames kept: a few kilobytes each, a millisecond to lay out again; shortlists make many."""

TOKENS_A_TEXT = 12
"""Tokens one more text, or one more label, adds to a JSON answer: an id, a code, marks between them."""


class Sheet:
    """What an annotator asks about some items, question by question, and what it made of the answers.

    Args:
        llm: whose options say how to ask.
        items: what to ask about.
        schema: the classes.
        desk: store, secret, progress.
        able: what the endpoint accepts.
    """

    def __init__(self, llm: Llm, items: list[Item], schema: LabelSchema, desk: Desk, able: Abilities) -> None:
        self.llm, self.items, self.schema, self.desk, self.able = llm, items, schema, desk, able
        self.prompt: PromptFile = load_prompt(desk.ctx.path(llm.prompt) if llm.prompt else None)
        self.secret = desk.store.secret()
        self.by_seq = {item.seq: item for item in items}
        self.tokens = llm.logprobs and able.top_logprobs > 0 and (schema.kind == "single" or llm.each)
        self.form: Form = "each" if llm.each else "stated" if llm.stated and not self.tokens else "one"
        self.shown: dict[int, tuple[str, ...]] = {}
        self.examples: Mapping[int, Shown] = desk.shown
        if llm.demonstrations and not desk.shown:
            self.examples = retrieved(items, people(desk, schema), llm.demonstrations, schema, desk)
        self.parts: dict[int, list[Annotation]] = {}
        self.again: list[tuple[Item, int]] = []
        self.made: list[Annotation] = []
        self.counted = 0
        self.other_models: Counter[str] = Counter()
        self._frames: dict[tuple[Form, tuple[str, ...]], tuple[Frame, Any]] = {}
        if llm.shortlist and llm.shortlist < len(schema.labels):
            lists = shortlists(desk.vectors(items), schema, desk.ctx.encode, llm.shortlist)
            self.shown = {item.seq: names for item, names in zip(items, lists, strict=True)}
            say_recall(schema, llm.shortlist, desk)

    def questions(self) -> Iterator[Request]:
        """Everything to be asked at first; what a question about several items leaves is in `rest`."""
        for group in self._groups():
            for ask in range(self.llm.asks):  # together: a budget that ends leaves few items half asked
                turn = ask % len(group)
                turned = [*group[turn:], *group[:turn]]
                plain = len(group) == 1 and not self.llm.echo
                yield self._about(group[0], ask) if plain else self._about_several(turned, ask)

    def _groups(self) -> list[list[Item]]:
        """The items of each question: one, or with `batch` several, of which none could sway the others.

        In an order that stays when some are answered, so that after a crash the groups are the same.
        """
        if self.llm.batch == 1 or self.examples:
            return [[item] for item in self.items]
        mixed = sorted(self.items, key=lambda item: hash_of(item, self.secret))
        wary = self.llm.suspects == "hold"
        alone = {item.seq for item in mixed if wary and suspicion(item.text, self.schema)}
        together = list(batched((item for item in mixed if item.seq not in alone), self.llm.batch))
        return together + [[item] for item in mixed if item.seq in alone]

    def rest(self) -> list[Request]:
        """Questions about single items that a question about several did not settle."""
        left, self.again = self.again, []
        if left:
            words = f"annotate: {len(left)} items of prompts with several are asked about one by one"
            self.desk.ctx.progress.say(words)
        if self.llm.echo:
            return [self._about_several([item], ask) for item, ask in left]
        return [self._about(item, ask) for item, ask in left]

    def record(self, request: Request, end: Reply | Failure) -> Facts:
        """The annotations that an answer completes, as facts; the answers themselves are in the ledger."""
        self._same_model(end)
        if request.group:
            items = [self.by_seq[seq] for seq in request.group]
            view = rotated(self.schema, request.ask)
            read = read_several(items, end, self.secret, view)
            if read is None and len(items) == 1:
                return self._keep(without_id(items[0], end), view)
            if read is None:
                self.again += [(item, request.ask) for item in items]
                return []
            return [fact for one in read for fact in self._keep(one, view)]
        item = self.by_seq[request.item if request.item is not None else -1]
        view = self._view(item, request.ask)
        _, sign = self._frame(view, self.form)
        asked = asked_under(view, self.form)
        return self._keep(annotation_of(item.seq, end, sign, asked, form=self.form), view)

    def count(self) -> None:
        """Count the items answered since, however many questions each took."""
        for _ in self.made[self.counted :]:
            self.desk.advance()
        self.counted = len(self.made)

    def say_of_other_models(self) -> None:
        """Tell how many answers came from models of another name than the endpoint's first answer."""
        for name, n in self.other_models.items():
            words = f"annotate: {n} answers came from the model {name[:80]!r}, the endpoint's first from "
            self.desk.ctx.progress.say(words + repr(self.able.model))

    def say_of_demonstrations(self) -> None:
        """Tell what demonstrations did, where some were shown."""
        say_worth(self.made, self.examples, self.schema, self.desk)

    def _demonstrations(self, item: Item, view: LabelSchema) -> list[tuple[Item, str]]:
        """What is shown before an item, in the codes of its view; what the view does not list is left out."""
        asked = asked_under(view, self.form)
        fit = [(o, labels) for o, labels in self.examples.get(item.seq, ()) if set(labels) <= set(view.names)]
        return [(other, written(labels, asked, self.form)) for other, labels in fit]

    def _about(self, item: Item, ask: int) -> Request:
        view = self._view(item, ask)
        frame, _ = self._frame(view, self.form)
        messages = frame.messages(item, self.secret, self._demonstrations(item, view))
        n = len(self.schema.labels) if self.form == "each" else 1
        options = self._options(ask, view, n)
        return Request("annotate", self.llm.model, messages, options, item.seq, frame.recipe, ask=ask)

    def _about_several(self, group: list[Item], ask: int) -> Request:
        view = rotated(self.schema, ask)
        frame, _ = self._frame(view, "several")
        messages = frame.asking(block(group, self.secret), self.secret)
        seqs = tuple(item.seq for item in group)
        options = self._options(ask, view, len(group))
        return Request("annotate", self.llm.model, messages, options, seqs[0], frame.recipe, seqs, ask)

    def _options(self, ask: int, view: LabelSchema, answers: int) -> dict[str, Any]:
        heat = HEAT if self.llm.asks > 1 and not self.tokens else 0.0
        most = self.llm.max_tokens + TOKENS_A_TEXT * (answers - 1)
        options = self.able.options(most, logprobs=self.tokens, temperature=heat)
        again = ask // len(view.labels)  # the options have come round: the same question, asked anew
        return options | ({"seed": again} if again else {})

    def _view(self, item: Item, ask: int) -> LabelSchema:
        names = self.shown.get(item.seq)
        return rotated(self.schema if names is None else narrowed(self.schema, names), ask)

    def _frame(self, view: LabelSchema, form: Form) -> tuple[Frame, Any]:
        key = (form, tuple(view.names))
        if key not in self._frames:
            if len(self._frames) >= FRAMES:
                self._frames.clear()
            prompt = shown_under(self.prompt, view) if self.shown else self.prompt
            asked = asked_under(view, form)
            frame = render(prompt, asked, form)
            self._frames[key] = (frame, signature(prompt, view, strict=False))
        return self._frames[key]

    def _keep(self, read: Annotation, view: LabelSchema) -> Facts:
        """An answer with the others about its item; facts once it is the last."""
        parts = self.parts.setdefault(read.item, [])
        parts.append(widened(read, view, self.schema))
        if len(parts) < self.llm.asks:
            return []
        del self.parts[read.item]
        answer = parts[0] if self.llm.asks == 1 else agreed(parts, self.schema)
        if self.llm.suspects == "hold":
            answer = suspected(answer, self.by_seq[read.item].text, self.schema)
        self.made.append(answer)
        return self.desk.facts(answer)

    def _same_model(self, end: Reply | Failure) -> None:
        if not isinstance(end, Reply) or not end.model or end.model == self.able.model:
            return
        self.other_models[end.model] += 1
        if self.llm.pin_model:
            raise ModelError(
                f"the model {end.model[:80]!r} answered, at first it was {self.able.model!r}",
                where="annotate.pin_model",
                hint="Start a new run for the new model, or set pin_model to false; answers are kept",
            )


def asked_under(view: LabelSchema, form: Form) -> LabelSchema:
    """The options as a form lists them: a yes or a no about every label leaves no option of declining."""
    return view._replace(abstain=False) if form == "each" else view


def shown_under(prompt: PromptFile, view: LabelSchema) -> PromptFile:
    """The prompt without the demonstrations whose labels a question does not list."""
    labels = [(d, (d.label,) if isinstance(d.label, str) else d.label) for d in prompt.demonstrations]
    kept = tuple(d for d, names in labels if set(names) <= set(view.names))
    return prompt.model_copy(update={"demonstrations": kept})
