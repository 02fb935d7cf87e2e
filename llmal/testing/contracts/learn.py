"""The contracts of what learns: encoders and students."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llmal.context import Context
from llmal.embed.hashing import Hashing
from llmal.embed.stage import Encoder
from llmal.records import Label, LabelSchema
from llmal.testing.contracts.plugin import MULTI, SINGLE, TEXTS, PluginContract, check_no_pickle
from llmal.train.stage import Examples, Model, Student

ODD_TEXTS = ("", " ", "a", "\u4f60\u597d \U0001f984", "{{7*7}} <b>&amp;</b>", "word " * 3000)
"""Texts a corpus really holds: blank, one letter, other scripts, markup, very long."""


class EncoderContract(PluginContract):
    """Checks of an encoder.

    Attributes:
        tolerance: largest difference between two vectors of one text; padding costs a few float32 roundings.
    """

    tolerance: ClassVar[float] = 1e-5

    def plugin(self) -> Encoder:
        """The encoder under test."""
        raise NotImplementedError("override plugin() and return an instance of your encoder")

    def test_rows_are_unit_vectors(self) -> None:
        """(n, d) float32 rows of length 1, also for odd texts."""
        vectors = self.plugin().encode([*TEXTS, *ODD_TEXTS])
        assert isinstance(vectors, np.ndarray), f"a {type(vectors).__name__} instead of an array"
        assert vectors.dtype == np.float32, f"vectors are {vectors.dtype}"
        assert vectors.shape[0] == len(TEXTS) + len(ODD_TEXTS), f"shape {vectors.shape}"
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.allclose(lengths, 1.0, atol=1e-4), f"rows of length {lengths.min()} to {lengths.max()}"

    def test_empty_list(self) -> None:
        """No texts give no rows, of the usual width."""
        encoder = self.plugin()
        nothing = encoder.encode([])
        assert nothing.shape == (0, encoder.encode(["a"]).shape[1]), f"shape {nothing.shape}"
        assert nothing.dtype == np.float32

    def test_company_does_not_matter(self) -> None:
        """The same text gives the same row whatever stands beside it, and in any order."""
        encoder = self.plugin()
        texts = [*TEXTS, *ODD_TEXTS]
        together = encoder.encode(texts)
        assert np.allclose(encoder.encode(texts[::-1])[::-1], together, atol=self.tolerance), "order matters"
        alone = np.concatenate([encoder.encode([text]) for text in texts[:3]])
        assert np.allclose(alone, together[:3], atol=self.tolerance), "the company of a text changes its row"
        twice = encoder.encode([texts[0], texts[0]])
        assert np.allclose(twice, together[0], atol=self.tolerance)

    def test_texts_differ(self) -> None:
        """Different texts do not share a row."""
        vectors = self.plugin().encode(list(TEXTS))
        assert len(np.unique(vectors.round(4), axis=0)) == len(TEXTS)

    def test_saved_encoder_is_the_same(self) -> None:
        """What `save` writes is enough to encode elsewhere, and holds no pickle."""
        encoder = self.plugin()
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "encoder"
            saved = encoder.save(folder)
            assert saved == (folder.is_dir() and any(folder.iterdir())), (
                "save() says one thing and does another"
            )
            if saved:
                check_no_pickle(folder)
            again = (
                encoder.loaded_from(folder) if saved else type(encoder).model_validate(encoder.model_dump())
            )
            same = np.allclose(again.encode(list(TEXTS)), encoder.encode(list(TEXTS)), atol=self.tolerance)
            assert same, "the saved encoder gives other vectors"


class StudentContract(PluginContract):
    """Checks of a student.

    Attributes:
        unseen_at_most: probability a class without an example may get.
        tolerance: largest difference between probabilities that must be the same.
        kinds: the kinds of labels it learns.
    """

    unseen_at_most: ClassVar[float] = 0.2
    tolerance: ClassVar[float] = 1e-6
    kinds: ClassVar[tuple[str, ...]] = ("single", "multi")

    def plugin(self) -> Student:
        """The student under test."""
        raise NotImplementedError("override plugin() and return an instance of your student")

    def schemas(self) -> list[LabelSchema]:
        """The classes to learn, for each kind."""
        return [schema for schema in (SINGLE, MULTI) if schema.kind in self.kinds]

    def fit(self, examples: Examples, schema: LabelSchema, *, seed: int = 0) -> Model:
        """A student fitted with a fresh generator."""
        with context() as ctx:
            return self.plugin().fit(examples, schema, np.random.default_rng(seed), ctx)

    def examples(self, schema: LabelSchema) -> Examples:
        """What it is to learn from; with texts that have no label where it learns from those too."""
        given = examples(schema)
        return given._replace(pool=unlabelled()) if self.plugin().pool_size else given

    def test_probabilities(self) -> None:
        """(n, C) float32 in [0, 1], rows summing to 1 when single, columns in schema order."""
        for schema in self.schemas():
            given = self.examples(schema)
            probs = self.fit(given, schema).predict_proba(asked(given))
            check_probs(probs, len(given.texts), schema)
            assert given.targets is not None
            right = (
                (probs.argmax(axis=1) == given.targets.argmax(axis=1)).mean()
                if schema.kind == "single"
                else ((probs >= 0.5) == (given.targets >= 0.5)).mean()
            )
            assert right >= 0.85, f"only {right:.0%} of its own {len(given.texts)} examples are learnt"

    def test_nothing_asked(self) -> None:
        """No texts give no rows."""
        given = self.examples(SINGLE)
        assert given.vectors is not None
        model = self.fit(given, SINGLE)
        assert model.predict_proba(Examples([], given.vectors[:0])).shape == (0, 3)

    def test_company_does_not_matter(self) -> None:
        """An item's probabilities do not depend on what else is asked, nor on the order."""
        given = self.examples(SINGLE)
        model = self.fit(given, SINGLE)
        query = asked(given)
        assert query.vectors is not None
        all_of_them = model.predict_proba(query)
        back = model.predict_proba(Examples(query.texts[::-1], query.vectors[::-1]))[::-1]
        alone = model.predict_proba(Examples(query.texts[:1], query.vectors[:1]))
        assert np.allclose(back, all_of_them, atol=1e-4), "the order of the texts matters"
        assert np.allclose(alone, all_of_them[:1], atol=1e-4), "the company of a text matters"

    def test_class_without_example(self) -> None:
        """A class never shown is no error and gets next to no probability."""
        for schema in self.schemas():
            wider = schema._replace(labels=(*schema.labels, Label(name="never shown")))
            given = self.examples(wider)
            probs = self.fit(given, wider).predict_proba(asked(given))
            check_probs(probs, len(given.texts), wider)
            assert probs[:, 3].max() <= self.unseen_at_most, (
                f"a class never shown gets {probs[:, 3].max():.3f}"
            )

    def test_weight_zero_is_removal(self) -> None:
        """A row with weight 0 leaves no trace."""
        for schema in self.schemas():
            given = self.examples(schema)
            assert given.vectors is not None
            assert given.targets is not None
            assert given.weights is not None
            wrong = Examples(
                [*given.texts, "apple saw rome", "plum"],
                np.concatenate([given.vectors, given.vectors[:2]]),
                np.concatenate([given.targets, given.targets[[5, 8]]]),
                np.concatenate([given.weights, np.zeros(2, np.float32)]),
                given.pool,
            )
            without = self.fit(given, schema).predict_proba(asked(given))
            beside = self.fit(wrong, schema).predict_proba(asked(given))
            assert np.allclose(without, beside, atol=self.tolerance), "rows of weight 0 changed the student"

    def test_same_data_same_student(self) -> None:
        """Data and generator decide everything; neither is changed, nor the process's own randomness."""
        given = self.examples(SINGLE)
        arrays = (given.vectors, given.targets, given.weights, given.pool and given.pool.vectors)
        copies = [a.copy() for a in arrays if a is not None]
        before = _states()
        one = self.fit(given, SINGLE, seed=3).predict_proba(asked(given))
        assert _states() == before, "fitting drew from the process's global randomness"
        other = self.fit(given, SINGLE, seed=3).predict_proba(asked(given))
        assert np.allclose(one, other, atol=self.tolerance), "two fits with one seed differ"
        kept = all((a == b).all() for a, b in zip(copies, (a for a in arrays if a is not None), strict=True))
        assert kept, "the examples were changed"

    def test_labels_alone(self) -> None:
        """A student that learns from texts without a label is, without any, the one it ships."""
        student = self.plugin()
        for schema in self.schemas() if student.pool_size else []:
            given = examples(schema)
            with context() as ctx:
                plain = student.shipped.fit(given, schema, np.random.default_rng(0), ctx)
            wanted = plain.predict_proba(asked(given))
            for pool in (None, Examples([], np.zeros((0, 256), np.float32))):
                probs = self.fit(given._replace(pool=pool), schema).predict_proba(asked(given))
                same = np.allclose(probs, wanted, atol=self.tolerance)
                assert same, f"taught labels alone it is not the {student.shipped.name} student it ships"

    def test_saved_student_is_the_same(self) -> None:
        """`load` of what `save` wrote predicts the very same, and the folder holds no pickle."""
        for schema in self.schemas():
            given = self.examples(schema)
            model = self.fit(given, schema)
            with tempfile.TemporaryDirectory() as folder:
                model.save(Path(folder))
                check_no_pickle(Path(folder))
                again = self.plugin().load(Path(folder), schema)
                same = (again.predict_proba(asked(given)) == model.predict_proba(asked(given))).all()
                assert same, "the loaded student gives other probabilities"


def check_probs(probs: NDArray[np.float32], n: int, schema: LabelSchema) -> None:
    """What holds for every student's probabilities."""
    assert probs.shape == (n, len(schema.labels)), f"shape {probs.shape}"
    assert probs.dtype == np.float32, f"probabilities are {probs.dtype}"
    assert np.isfinite(probs).all(), "a probability is not finite"
    assert probs.min() >= 0, "a probability is below 0"
    assert probs.max() <= 1, "a probability is above 1"
    if schema.kind == "single":
        assert np.allclose(probs.sum(axis=1), 1.0, atol=1e-5), "rows do not sum to 1"


def examples(schema: LabelSchema) -> Examples:
    """The suites' nine texts with their labels; when multi, some texts have two labels and one has none."""
    texts = list(TEXTS)
    targets = np.zeros((len(texts), len(schema.labels)), np.float32)
    targets[np.arange(len(texts)), np.repeat([0, 1, 2], 3)] = 1.0
    if schema.kind == "multi":
        texts = [*texts, "apple and hammer", "pear in paris", "nothing here"]
        more = np.zeros((3, len(schema.labels)), np.float32)
        more[0, :2] = more[1, [0, 2]] = 1.0
        targets = np.concatenate([targets, more])
    return Examples(texts, Hashing(dim=256).encode(texts), targets, np.ones(len(texts), np.float32))


def unlabelled() -> Examples:
    """Eighteen texts of the words of `TEXTS`, six a class, without a label."""
    words = (("apple", "pear", "plum"), ("hammer", "saw", "drill"), ("paris", "rome", "berlin"))
    texts = [f"{a} {b}" for some in words for a in some for b in some if a != b]
    return Examples(texts, Hashing(dim=256).encode(texts))


def asked(given: Examples) -> Examples:
    """The same texts as a question: no targets, no weights."""
    return Examples(given.texts, given.vectors)


@contextmanager
def context() -> Iterator[Context]:
    """A context in a temporary folder, with the hashing encoder."""
    with tempfile.TemporaryDirectory() as folder:
        yield Context(Path(folder), home=Path(folder), encode=Hashing(dim=256).encode)


def _states() -> list[Any]:
    """Where the process's global generators stand."""
    found: list[Any] = [np.random.get_state()[1].tolist()]  # type: ignore[index]  # noqa: NPY002
    torch = sys.modules.get("torch")
    return found if torch is None else [*found, torch.get_rng_state().tolist()]
