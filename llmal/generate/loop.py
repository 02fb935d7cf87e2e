"""The loop: measure a student, have texts written where it is weak, judge them blind, measure again."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmal.context import Context
from llmal.generate import facts
from llmal.generate.facts import Known, Names, Text
from llmal.generate.guard import Measuring, leaks, nearest
from llmal.generate.stage import Bench, Draft, Generator, Look, Shown, most, usable
from llmal.generate.weakness import loss, lowest, report, stalled, told_apart
from llmal.records import Annotation, Labels, LabelSchema
from llmal.store.store import Store
from llmal.text import repaired

FOLDS = 3
"""Parts of the items that a student leaves out in turn, to see which it gets wrong."""

MOST_CHARS = 8000
"""Characters of a written text; a longer one is no example of anything."""


class Work:
    """The loops of one invocation."""

    def __init__(
        self, generator: Generator, store: Store, ctx: Context, schema: LabelSchema, names: Names,
        known: Known, bench: Bench,
    ) -> None:  # fmt: skip
        self.generator, self.store, self.ctx, self.schema = generator, store, ctx, schema
        self.names, self.known, self.bench = names, known, bench
        self.losses: list[float] = []
        self.asked = self.new = 0
        self._probs: tuple[dict[int, Labels], NDArray[np.float64]] | None = None

    def loops(self) -> None:
        """Measure, write, measure again."""
        generator = self.generator
        while True:
            loop = len(self.losses)
            extra = self._usable(loop)
            self.losses.append(self._measured(loop, extra))
            room = most(generator, len(self.known.items)) - len(extra)
            if loop >= generator.loops or room <= 0 or stalled(self.losses, generator.patience):
                return
            if not facts.written(self.store, self.names.texts, loop + 1):
                self._write(loop + 1, min(generator.each, room), extra)

    def words(self) -> str:
        """What the loops came to."""
        if not self.losses:
            return ""
        best = lowest(self.losses)
        kept = len(self._usable(best))
        if not best:
            return f"no loop of {len(self.losses) - 1} lowered the validation loss of {self.losses[0]:.3f}"
        return (
            f"{kept} texts of {best} loops teach: validation loss {self.losses[0]:.3f} to "
            f"{self.losses[best]:.3f}"
        )

    @cached_property
    def measuring(self) -> Measuring:
        """The texts that must not come back."""
        return facts.measuring(self.store, self.names.vectors, self.known)

    def _usable(self, upto: int) -> dict[int, Labels]:
        return usable(self.generator, self.store, self.names, self.known, upto=upto, against=self.measuring)

    def _measured(self, loop: int, extra: dict[int, Labels]) -> float:
        """Validation loss after a loop, from the store or from a student fitted now."""
        for one in facts.measured(self.store, self.names.measures):
            if one.loop == loop:
                return one.loss
        items, labels = self.known.learn
        if loop and extra == self._usable(loop - 1):  # the same data, so the same student
            kept = facts.measured(self.store, self.names.measures)[loop - 1]
            facts.keep_measured(self.store, self.names.measures, kept._replace(loop=loop))
            return kept.loss
        asked, truth = self.known.validate
        probs = self.bench.learn(items + list(extra), labels + list(extra.values()))(asked)
        scores = report(truth, told_apart(truth, probs, self.schema).said, self.schema)
        made = facts.Measured(loop, loss(truth, probs, self.schema), len(items) + len(extra), scores)
        facts.keep_measured(self.store, self.names.measures, made)
        return made.loss

    def _look(self, loop: int, extra: dict[int, Labels]) -> Look:
        """What to show: texts of the part that learns alone, by students that did not learn from them."""
        rng = self.ctx.rng("generate", loop)
        items, labels = self.known.learn
        probs = self._unseen(extra)
        told = told_apart(labels, probs, self.schema)
        n = self.generator.shown
        hard, other = told.wrong[:n], np.array(told.wrong[n:], np.int64)
        wrong = [int(i) for i in rng.permutation(other)[:n]]
        right = [int(i) for i in rng.permutation(np.array(told.right, np.int64))[:n]]

        def shown(rows: list[int]) -> list[Shown]:
            found = self.store.items([items[i] for i in rows])
            return [Shown(one.text, labels[i], told.said[i]) for i, one in zip(rows, found, strict=True)]

        scores = facts.measured(self.store, self.names.measures)[loop - 1].report
        return Look(self.schema, scores, shown(right), shown(wrong), shown(hard))

    def _unseen(self, extra: dict[int, Labels]) -> NDArray[np.float64]:
        """(n, C) of the items that may be shown, each by a student that learnt from the others."""
        if self._probs is not None and self._probs[0] == extra:
            return self._probs[1]
        items, labels = self.known.learn
        fold = self.ctx.rng("generate folds").permutation(np.arange(len(items)) % FOLDS)
        probs = np.zeros((len(items), len(self.schema.labels)))
        for k in range(FOLDS):
            mine, rest = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            if not len(rest):
                continue
            if len({name for i in mine for name in labels[i]}) < 2:  # left out, its class would be gone
                mine = np.arange(len(items))
            taught = [labels[i] for i in mine] + list(extra.values())
            student = self.bench.learn([items[i] for i in mine] + list(extra), taught)
            probs[rest] = student([items[i] for i in rest])
        self._probs = (extra, probs)
        return probs

    def _write(self, loop: int, n: int, extra: dict[int, Labels]) -> None:
        """Have texts written, keep out what must not come in, have the others labelled, and keep it all."""
        drafts = self.generator.write(self._look(loop, extra), n, self.bench.pen)
        self.asked += n
        texts = [self._text(loop, rank, draft, n) for rank, draft in enumerate(drafts)]
        texts = self._guarded(texts or [Text(loop, 0, None, "", (), "drop", "the answer holds no text")])
        open_ = [one for one in texts if not one.verdict]
        seqs = facts.add_items(self.store, [one.text for one in open_])
        self.bench.embed()
        said = self.bench.label(seqs) if seqs else {}
        judged = {one.rank: _judged(one, s, said.get(s)) for one, s in zip(open_, seqs, strict=True)}
        self.new += facts.keep_written(
            self.store, self.names.texts, [judged.get(one.rank, one) for one in texts]
        )

    def _text(self, loop: int, rank: int, draft: Draft, n: int) -> Text:
        """A draft checked on its own: form, labels, length."""
        text = repaired(draft.text)[0].strip()
        names = self.schema.columns()
        fit = set(draft.labels) <= set(names) and (len(draft.labels) == 1 or self.schema.kind == "multi")
        reason = draft.wrong or ("" if fit else "its labels are not in the list")
        reason = reason or ("empty" if not text else "too long" if len(text) > MOST_CHARS else "")
        reason = reason or ("more texts than asked for" if rank >= n else "")
        labels = tuple(name for name in names if name in draft.labels)
        return Text(loop, rank, None, text[:MOST_CHARS], labels, "drop" if reason else "", reason)

    def _guarded(self, texts: list[Text]) -> list[Text]:
        """The same, with a reason where a text repeats another or comes near one that measures."""
        open_ = [one for one in texts if not one.verdict]
        if not open_:
            return texts
        store, cosine = self.store, self.generator.alike
        vectors = np.asarray(self.ctx.encode([one.text for one in open_]), np.float32)
        strangers = facts.strangers(store, self.names.texts)
        known = np.asarray(store.load(self.names.vectors))
        close = nearest(vectors, known, sorted(s for s in strangers if s < len(known)))
        leak = leaks([one.text for one in open_], vectors, self.measuring, cosine=cosine)
        keys = facts.keys_there(store, [one.text for one in open_], strangers)
        found: dict[int, str] = {}
        for i, one in enumerate(open_):
            before = [j for j in range(i) if open_[j].rank not in found]
            if leak[i]:
                found[one.rank] = "it is, or nearly is, a text that measures"
            elif keys[i] or close[i] > cosine:
                found[one.rank] = "repeats a text there is"
            elif any(facts.same(open_[j].text, one.text) or vectors[j] @ vectors[i] > cosine for j in before):
                found[one.rank] = "repeats a text of the same answer"
        return [
            one._replace(verdict="drop", reason=found[one.rank]) if one.rank in found else one
            for one in texts
        ]


def _judged(one: Text, item: int, said: Annotation | None) -> Text:
    """The text with its verdict: it teaches if the annotator, asked blind, says what it was written for."""
    if said is None or said.status != "ok":
        why = "not answered" if said is None else said.status
        return one._replace(item=item, verdict="drop", reason=f"the annotator gave no label: {why}")
    if set(said.labels) != set(one.labels):
        return one._replace(
            item=item, verdict="drop", reason="the annotator, asked blind, gives another label"
        )
    return one._replace(item=item, verdict="accept", reason="the annotator, asked blind, agrees")
