"""A classifier of three colours as an exported folder: hashed letters and a linear head, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

WORDS = {"red": ["rose", "ruby", "rust"], "green": ["grass", "leaf", "lime"], "blue": ["sky", "sea", "ink"]}
"""Class -> words that speak for it."""


def colours(
    folder: Path, *, kind: Literal["single", "multi"] = "single", threshold: float | None = 0.7
) -> Path:
    """Fit the classifier and export it.

    Args:
        folder: where to; must not be there.
        kind: whether a text can have several colours.
        threshold: of the export, in [0, 1].

    Returns:
        The folder.
    """
    import tempfile

    import numpy as np

    from llmal.context import Context
    from llmal.embed.hashing import Hashing
    from llmal.export.stage import Parcel, write
    from llmal.export.transformers import Transformers
    from llmal.records import Label, LabelSchema
    from llmal.testing.contracts.ship import FACTS
    from llmal.train.linear import Linear
    from llmal.train.stage import Examples

    texts = [" ".join(words[i:] + words[:i]) for words in WORDS.values() for i in range(3)]
    targets = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    encoder = Hashing(dim=128)
    schema = LabelSchema(kind, tuple(Label(name=name) for name in WORDS), False)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)
        given = Examples(texts, encoder.encode(texts), targets, np.ones(len(texts), np.float32))
        ctx = Context(source, home=source)
        Linear().fit(given, schema, np.random.default_rng(0), ctx).save(source)
        write(Transformers(), Parcel(source, "linear", encoder, schema, threshold, None, FACTS), folder)
    return folder
