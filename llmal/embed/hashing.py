"""Hashed character n-grams: an encoder without a model, for tests and for machines that have none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.embed.stage import Encoder


class Hashing(Encoder):
    """Hashed character 3- to 5-grams inside words, term frequency only, unit rows.

    Source: Weinberger et al. 2009 (feature hashing), through scikit-learn's HashingVectorizer.
    """

    dim: int = Field(512, ge=16, le=65536, description="columns of a vector")

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of texts: (n, dim) float32; a text without a single n-gram gets the first axis."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        from sklearn.feature_extraction.text import HashingVectorizer

        hasher = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=self.dim, norm="l2")
        vectors = hasher.transform(texts).toarray().astype(np.float32)
        vectors[~vectors.any(axis=1), 0] = 1.0
        return np.asarray(vectors, dtype=np.float32)
