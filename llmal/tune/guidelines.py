"""Guideline learning: rules distilled from answers that people disagreed with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from llmal.lm.wire import Message
from llmal.prompts.file import Compiled, Guideline, PromptFile
from llmal.prompts.frame import fenced
from llmal.records import Annotation, LabelSchema
from llmal.tune.bench import Bench
from llmal.tune.optimiser import Optimiser, Start
from llmal.tune.program import DATA_RULE
from llmal.tune.rules import Tried, as_guidelines, cleaned, full, merged, refused
from llmal.tune.split import Example

INSTRUCTION = (
    "You improve the guidelines of people who label texts. You are shown the labels, one text, the answer "
    "that was given and the answer that is right. State one rule that gives the right answer for this text "
    "and for all texts like it. The rule is general: one sentence of at most forty words, that says which "
    "feature of a text calls for which label. Quote nothing from the text, and name no person, number or "
    f"product of it. Answer with the rule alone. {DATA_RULE}"
)

RULE_TOKENS = 160
"""Of an answer: a sentence of forty words, with room."""


class Guidelines(Optimiser):
    """A bank of rules under the instructions, each learnt from an error and tried on answers held out.

    A rule is tried on the validation answers nearest to the text it came from, and stays when it fixes
    something and costs nothing there. Of rules alike the more useful stays, and a full bank drops the least
    useful. Where the paper retrieves a few rules for each item, all stand in the prompt (see `Compiled`).
    Source: after Pang et al. 2023 (Guideline Learning); no code of theirs was found.
    """

    name: ClassVar[str] = "guidelines"

    errors: int = Field(16, ge=1, le=500, description="errors a rule is asked for, of every kind")
    tried_on: int = Field(24, ge=1, description="validation answers a rule is tried on, the nearest ones")
    most: int = Field(50, ge=1, le=200, description="rules in the bank")
    alike: float = Field(0.9, gt=0, le=1, description="cosine above which two rules are one")

    def calls(self, n_optimise: int, n_validate: int) -> int:
        """Most calls: every answer once, a rule for each error, each rule tried with and without."""
        tried = min(self.errors, n_optimise)
        return n_optimise + n_validate + tried * (1 + min(self.tried_on, n_validate))

    def states(self) -> int:
        """The whole bank, and the bank without rules that broke even."""
        return 2

    def propose(self, start: Start, bench: Bench) -> list[Compiled]:
        """The bank with the new rules; and without those that only broke even, where there are some."""
        wrong = disagreements(start, bench, self.errors)
        questions = [question(e, a, start.prompt, bench) for e, a in wrong]
        written = [cleaned(said) for said in bench.write(questions, max_tokens=RULE_TOKENS)]
        rules, why = allowed(written, [e for e, _ in wrong], start.optimise)
        old = [Tried(g.rule, g.fixed, g.caused) for g in start.state.guidelines]
        tried = [self._try(rule, source, start, bench) for rule, source in rules]
        good = [t for t in tried if t.worth_keeping()]
        if len(good) < len(tried):
            why[f"not better on {min(self.tried_on, len(start.validate))} answers"] += len(tried) - len(good)
        bank = full(merged([*old, *good], bench.vectors, alike=self.alike), self.most)
        reasons = "".join(f", {n} {words}" for words, n in sorted(why.items()))
        bench.ctx.progress.say(f"guidelines: {len(wrong)} errors, {len(good)} rules kept{reasons}")
        gaining = [t for t in bank if t in old or t.utility > 0]
        banks = [bank, gaining] if len(gaining) < len(bank) else [bank]
        found = [start.state.model_copy(update={"guidelines": as_guidelines(b), "about": {}}) for b in banks]
        return [state for state in found if state.guidelines != start.state.guidelines]

    def _try(self, rule: str, source: Example, start: Start, bench: Bench) -> Tried:
        """The validation answers nearest to the rule's source, with the rule and without."""
        near = nearest(source, start.validate, bench, self.tried_on)
        more = (*start.state.guidelines, Guideline(rule=rule))
        changed = start.state.model_copy(update={"guidelines": more}).applied(start.plain)
        before, after = bench.scores(start.prompt, near), bench.scores(changed, near)
        pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
        return Tried(rule, sum(a > b for b, a in pairs), sum(a < b for b, a in pairs))


def disagreements(start: Start, bench: Bench, most: int) -> list[tuple[Example, Annotation]]:
    """Answers that people gave otherwise, at most that many, every kind of error in turn.

    Answers that could not be read are left out: no rule about texts mends them.
    """
    said = bench.answers(start.prompt, start.optimise)
    kinds: dict[tuple[object, object], list[tuple[Example, Annotation]]] = {}
    for example, answer in zip(start.optimise, said, strict=True):
        if answer.status in ("ok", "abstained") and answer.labels != example.labels:
            kinds.setdefault((example.labels, answer.labels), []).append((example, answer))
    queues = [kinds[kind] for kind in sorted(kinds, key=lambda k: (-len(kinds[k]), str(k)))]
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:most]


def question(example: Example, answer: Annotation, prompt: PromptFile, bench: Bench) -> list[Message]:
    """What the model is asked for a rule: the text is data, between its fences."""
    labels = "\n".join(
        f"- {label.name}" + (f": {label.description}" if label.description else "")
        for label in bench.schema.labels
    )
    body = (
        f"The labels:\n{labels}\n\nThe guidelines so far:\n{prompt.text.replace('{labels}', '(the labels)')}"
        f"\n\nThe text:\n{fenced(example.item, bench.secret)}\n\n"
        f"The answer given: {_named(answer.labels, bench.schema)}\n"
        f"The right answer: {_named(example.labels, bench.schema)}\n\nThe rule:"
    )
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": body}]


def allowed(
    written: Sequence[str], sources: Sequence[Example], examples: Sequence[Example]
) -> tuple[list[tuple[str, Example]], Counter[str]]:
    """Rules that may be tried, each with the error it came from, and how many were refused for what."""
    why: Counter[str] = Counter()
    found: dict[str, tuple[str, Example]] = {}
    for rule, source in zip(written, sources, strict=True):
        reason = refused(rule, examples) or ("said before" if rule.casefold() in found else "")
        if reason:
            why[reason] += 1
        else:
            found[rule.casefold()] = (rule, source)
    return list(found.values()), why


def nearest(source: Example, among: Sequence[Example], bench: Bench, n: int) -> list[Example]:
    """The n examples whose texts are nearest to the source's, ties by order."""
    if len(among) <= n:
        return list(among)
    vectors = bench.vectors([source.item.text, *(e.item.text for e in among)])
    close = np.asarray(vectors[1:], np.float64) @ np.asarray(vectors[0], np.float64)
    return [among[i] for i in sorted(np.argsort(-close, kind="stable")[:n])]


def _named(labels: tuple[str, ...], schema: LabelSchema) -> str:
    if labels:
        return ", ".join(labels)
    return "none of the labels" if schema.kind == "multi" else "cannot tell"
