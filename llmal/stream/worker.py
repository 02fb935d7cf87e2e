"""One block of rows: who answers each, what the model is asked, what students learn from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.corpus import shown, text_key
from llmal.records import Annotation
from llmal.stream.asking import Asked, Teacher
from llmal.stream.cascade import LEVELS, Cascade, Verdict
from llmal.stream.levels import hashed
from llmal.stream.rows import DIGITS, Line
from llmal.stream.tally import LLM, NONE, Tally


class Row(NamedTuple):
    """One row of the input: its number from 1, its id, its text, or why it has none."""

    number: int
    id: Any
    text: str | None
    error: str


class Worker:
    """Labels rows block by block.

    Args:
        cascade: the students.
        teacher: the model.
        encode: texts -> vectors (n, d) float32.
        tally: counts of the stream.
        texts: whether lines carry the text.
    """

    def __init__(
        self,
        cascade: Cascade,
        teacher: Teacher,
        encode: Callable[[list[str]], NDArray[np.float32]],
        tally: Tally,
        *,
        texts: bool = False,
    ) -> None:
        self.cascade, self.teacher, self.tally, self.texts = cascade, teacher, tally, texts
        self._encode = encode
        self._columns = teacher.schema.columns()

    def label(self, rows: Sequence[Row]) -> list[Line]:
        """A line for each row, in order; texts that are the same are looked at once.

        Raises:
            ModelError, Interrupted: from the transport; asked again, the block comes out the same.
        """
        keys = [None if row.text is None else text_key(row.text) for row in rows]
        first = {key: row for key, row in reversed(list(zip(keys, rows, strict=True))) if key}
        first = dict(reversed(first.items()))
        said = self.teacher.known(list(first), rows[0].number) if first else {}
        made: dict[str, Line] = {key: self._of_model(one, "asked before") for key, one in said.items()}
        fresh = {key: row for key, row in first.items() if key not in said}
        if fresh:
            made |= dict(zip(fresh, self._judged(list(fresh.values())), strict=True))
        lines = []
        for key, row in zip(keys, rows, strict=True):
            line = made[key] if key else Line(None, None, None, NONE, None, row.error)
            self.tally.count(line.source, line.why if line.label is None else None)
            lines.append(line._replace(id=row.id, text=row.text if self.texts else None))
        return lines

    def _judged(self, rows: list[Row]) -> list[Line]:
        """Lines of texts that are new, and all that is learnt from them."""
        texts = [row.text or "" for row in rows]
        grams = hashed(texts)
        vectors = _Vectors(texts, self._encode)
        ready, spent = self.cascade.ready, bool(self.teacher.spent)
        verdict = self.cascade.judge(grams, vectors, paid=not spent)
        asked = np.flatnonzero(verdict.asked)
        wanted = [
            Asked(rows[i].number, str(rows[i].id), texts[i], v)
            for i, v in zip(asked.tolist(), vectors(asked), strict=True)
        ]
        answers = dict(zip(asked.tolist(), self.teacher.ask(wanted), strict=True))
        for i, one in answers.items():
            verdict.asked[i] = one is not None and one.status != "failed"
        good = np.array([i for i, one in answers.items() if one is not None and one.status == "ok"], np.int64)
        labels = np.array([self._columns[answers[i].labels[0]] for i in good.tolist()], np.int64)  # type: ignore[union-attr]
        if ready:
            self.tally.explored(verdict, good, labels)
        self.cascade.learn(verdict, good, labels, grams, vectors(good))
        return [self._line(verdict, i, answers.get(i), ready=ready) for i in range(len(rows))]

    def _line(self, verdict: Verdict, i: int, answer: Annotation | None, *, ready: bool) -> Line:
        risk = float(verdict.risk[i])
        if answer is not None and answer.status != "failed":
            if verdict.chance[i] < 1:
                return self._of_model(answer, "asked by chance")
            return self._of_model(answer, f"students may be wrong: {risk:.2f}" if ready else "warm-up")
        why = "sure enough"
        if answer is not None:
            why = f"the model failed: {shown(answer.detail)}"
        elif self.teacher.spent:
            why = "the budget is spent"
        if verdict.label[i] < 0:
            return Line(None, None, None, NONE, None, f"{why}, and students have learnt nothing yet")
        label = self.teacher.schema.names[int(verdict.label[i])]
        source = f"student:{LEVELS[int(verdict.level[i])]}"
        return Line(None, None, label, source, round(1 - risk, DIGITS), why)

    def _of_model(self, answer: Annotation, why: str) -> Line:
        if answer.status != "ok":
            return Line(None, None, None, LLM, None, f"the model gave no label: {answer.status}")
        sure = None if answer.confidence is None else round(answer.confidence, DIGITS)
        return Line(None, None, answer.labels[0], LLM, sure, why)


class _Vectors:
    """Vectors of a block's texts, each made when it is first wanted."""

    def __init__(self, texts: list[str], encode: Callable[[list[str]], NDArray[np.float32]]) -> None:
        self._texts, self._encode = texts, encode
        self._made: dict[int, NDArray[np.float32]] = {}

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """(k, d) of the texts at these places."""
        new = [i for i in places.tolist() if i not in self._made]
        if new or not self._made:
            made = self._encode([self._texts[i] for i in new] or [""])
            self._made |= dict(zip(new or [-1], made, strict=True))
        width = len(next(iter(self._made.values())))
        return (
            np.stack([self._made[i] for i in places.tolist()])
            if len(places)
            else np.zeros((0, width), np.float32)
        )
