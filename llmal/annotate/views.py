"""The options one question shows: all classes in another order, or only some of them."""

from __future__ import annotations

from collections.abc import Collection

from llmal.records import Annotation, LabelSchema


def rotated(schema: LabelSchema, by: int) -> LabelSchema:
    """The same classes, the first `by` moved to the end: other places, and so other option codes."""
    by %= len(schema.labels)
    return schema._replace(labels=(*schema.labels[by:], *schema.labels[:by]))


def narrowed(schema: LabelSchema, names: Collection[str]) -> LabelSchema:
    """Only the named classes, in the order of the schema."""
    return schema._replace(labels=tuple(label for label in schema.labels if label.name in names))


def widened(annotation: Annotation, view: LabelSchema, schema: LabelSchema) -> Annotation:
    """An answer under a view, its probabilities in the order of the schema; a class not shown has 0."""
    if annotation.probs is None or view.names == schema.names:
        return annotation
    given = dict(zip(view.names, annotation.probs, strict=True))
    return annotation._replace(probs=tuple(given.get(name, 0.0) for name in schema.names))
