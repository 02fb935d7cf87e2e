"""Answers from a file: another tool's labels, a model's recorded answers, a colleague's spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from llmal.annotate.stage import Annotator, Desk
from llmal.context import Context
from llmal.corpus import file_digest, records, shown
from llmal.errors import CorpusError
from llmal.records import Annotation, Item, Labels, LabelSchema, recipe


class Recorded(Annotator):
    """Looks answers up by the corpus's own ids; items the file does not know abstain.

    Source: replay of recorded annotations, as the field's benchmarks do (e.g. Settles 2009, simulated
    oracles).
    """

    path: str = Field(description="JSONL, CSV, TSV or Parquet file beside the pipeline file")
    id: str = Field("id", description="column with the corpus's id")
    label: str = Field("label", description="column with the answer; empty or null means no answer")
    confidence: str | None = Field(None, description="column with a confidence in [0, 1]")

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"path"})

    def recipe_for(self, schema: LabelSchema, ctx: Context, vectors_recipe: str) -> str:
        """Hash of the file's bytes, its columns and the classes."""
        return recipe("annotation", self.recipe(), schema.recipe(), file_digest(self._file(ctx)))

    def annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterable[Annotation]:
        """One answer an item; the first row of the file that names one of its ids counts."""
        return self._annotate(items, schema, desk)

    def _annotate(self, items: list[Item], schema: LabelSchema, desk: Desk) -> Iterator[Annotation]:
        answers = {str(row.get(self.id)): row for row in reversed(self._rows(desk.ctx))}
        ids: dict[int, list[str]] = {}
        for _, row_id, item, _, _ in desk.store.rows():
            ids.setdefault(item, []).append(row_id)
        for item in items:
            found = next((answers[i] for i in ids.get(item.seq, ()) if i in answers), None)
            yield self._annotation(item, found, schema)
            desk.advance()

    def _annotation(self, item: Item, row: dict[str, Any] | None, schema: LabelSchema) -> Annotation:
        value = None if row is None else row.get(self.label)
        if row is None or value is None or value == "":
            return Annotation(
                item.seq, "abstained", detail="not in the file" if row is None else "no answer recorded"
            )
        several = schema.kind == "multi" and isinstance(value, list)
        names = [str(v) for v in value] if several else [str(value)]
        if any(name not in schema.columns() for name in names):
            return Annotation(item.seq, "off_list", detail=shown(", ".join(names)))
        labels: Labels = tuple(name for name in schema.names if name in names)
        raw = row.get(self.confidence) if self.confidence else None
        confidence = _confidence(raw)
        if confidence is None:
            return Annotation(item.seq, "ok", labels)
        return Annotation(item.seq, "ok", labels, confidence=confidence, kind="recorded")

    def _rows(self, ctx: Context) -> list[dict[str, Any]]:
        path = self._file(ctx)
        rows = [record for _, record in records(path) if isinstance(record, dict)]
        missing = [c for c in (self.id, self.label, self.confidence) if c and rows and c not in rows[0]]
        if missing:
            raise CorpusError(
                f"no column '{missing[0]}'", where=path.name, hint=f"The file has: {', '.join(rows[0])}"
            )
        return rows

    def _file(self, ctx: Context) -> Path:
        path = ctx.path(self.path)
        if not path.is_file():
            raise CorpusError(
                "no such file of recorded answers", where=self.path, hint="annotate.path names it"
            )
        return path


def _confidence(raw: Any) -> float | None:
    """A number in [0, 1], or None.

    85, NaN, true and text are no probability, and guessing a scale is no answer.
    """
    if isinstance(raw, str):
        try:
            raw = float(raw)
        except ValueError:
            return None
    return (
        float(raw) if isinstance(raw, float | int) and not isinstance(raw, bool) and 0 <= raw <= 1 else None
    )
