"""The answers to one block: repeats predicted once, a text the model cannot take told as an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmal.answers import best
from llmal.bulk.sources import Block
from llmal.corpus import shown
from llmal.errors import LlmalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmal.predictor import Predictor

DIGITS = 6
"""Of a probability written: float32 holds seven."""


class Answers(NamedTuple):
    """One entry a row of the block.

    Attributes:
        labels: the label, a list of labels when multi, or None with an error.
        probabilities: of the label, or that every yes and no is meant when multi; None with an error.
        review: whether a person should look: below the export's threshold, or no label; None where the
            export has no threshold.
        errors: why there is no label, else None.
        table: probability of every class, None with an error.
    """

    labels: list[str | list[str] | None]
    probabilities: list[float | None]
    review: list[bool | None]
    errors: list[str | None]
    table: list[list[float] | None]


def answer(model: Predictor, block: Block) -> Answers:
    """Label the texts of a block; each different text goes through the model once."""
    import numpy as np

    places: dict[str, int] = {}
    rows = [None if text is None else places.setdefault(text, len(places)) for text in block.texts]
    probs, failures = _probabilities(model, list(places))
    made: list[Any] = []
    for row, text in zip(probs, places, strict=True):
        if text in failures or not np.isfinite(row).all():
            error = failures.get(text, "the model failed: it gave no number")
            made.append((None, None, True, error, None))
            continue
        labels, sure = best(row, model.schema)
        label: Any = labels[0] if model.kind == "single" else list(labels)
        accepted = model.accepts(labels, sure)
        review = None if accepted is None else not accepted
        made.append((label, round(sure, DIGITS), review, None, [round(p, DIGITS) for p in row.tolist()]))
    every = [
        (None, None, True, error, None) if row is None else made[row]
        for row, error in zip(rows, block.errors, strict=True)
    ]
    return Answers(*(list(column) for column in zip(*every, strict=True)))


def _probabilities(model: Predictor, texts: list[str]) -> tuple[NDArray[np.float32], dict[str, str]]:
    """(n, C) probabilities; and the texts the model failed on, with what it said.

    Raises:
        Exception: the model's own, where it fails on every text: then it is not the texts.
    """
    import numpy as np

    try:
        return model.predict_proba(texts), {}
    except LlmalError:
        raise
    except Exception as error:  # the libraries below raise anything; which text it was is found by halves
        if len(texts) == 1:
            words = " ".join(str(error).split())
            failed = {texts[0]: f"the model failed: {type(error).__name__}: {shown(words)}"}
            return np.full((1, len(model.labels)), np.nan, np.float32), failed
        half = len(texts) // 2
        left, right = (_probabilities(model, part) for part in (texts[:half], texts[half:]))
        failures = left[1] | right[1]
        if len(failures) == len(texts):
            raise
        return np.concatenate([left[0], right[0]]), failures
