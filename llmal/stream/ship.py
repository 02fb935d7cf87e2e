"""The encoder's student of a stream as an export that `llmal.load` reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from llmal.errors import UserError
from llmal.export.stage import Parcel, write
from llmal.spec import Pipeline
from llmal.state import base_model
from llmal.stream.cascade import Cascade
from llmal.train.linear import LinearModel


def ship(cascade: Cascade, pipeline: Pipeline, folder: Path, *, learner: str, texts: list[str]) -> None:
    """Write the student on the encoder's vectors; the one on hashed words stays with the stream.

    Args:
        cascade: that learnt.
        pipeline: its `export` writes the folder.
        folder: where to; an older export there is replaced.
        learner: hash of classes, encoder and annotator.
        texts: some that were asked about, for an exporter that compares what it wrote with the student.

    Raises:
        UserError: nothing was learnt yet.
    """
    import llmal

    if not cascade.taught:
        raise UserError(
            "students have learnt nothing yet",
            where="--export",
            hint="They need answers of two classes at least",
        )
    coef = cascade.levels[-1].coef
    n = cascade.memory.turn
    facts = {
        "llmal": llmal.__version__,
        "base": base_model(pipeline.embed, pipeline.embed),
        "run": {"stream": learner},
        "data": learner,
        "trained_on": n,
        "sources": {"llm": n},
        "measures": {},
    }
    with tempfile.TemporaryDirectory() as place:
        LinearModel(coef[:-1].T, coef[-1], "softmax").save(Path(place))
        parcel = Parcel(
            Path(place), "linear", pipeline.embed, pipeline.label_schema(), None, None, facts, tuple(texts)
        )
        write(pipeline.export, parcel, folder)
