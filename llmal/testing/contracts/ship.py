"""The contracts of routers and exporters."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llmal.embed.hashing import Hashing
from llmal.embed.stage import Encoder
from llmal.export.stage import Exporter, Parcel, write
from llmal.records import Annotation, LabelSchema
from llmal.route.stage import Case, Router
from llmal.testing.contracts.learn import asked, context, examples
from llmal.testing.contracts.plugin import MULTI, SINGLE, PluginContract, check_no_pickle
from llmal.train.linear import Linear
from llmal.train.stage import Student

WHO = ("student", "llm", "person")
"""Who may answer an item."""


class RouterContract(PluginContract):
    """Checks of a router."""

    def plugin(self) -> Router:
        """The router under test."""
        raise NotImplementedError("override plugin() and return an instance of your router")

    def test_one_route_a_case(self) -> None:
        """In order, each with a reason; nothing in, nothing out."""
        given = cases()
        made = self.plugin().route(given)
        assert [r.item for r in made] == [c.item for c in given], "not one route a case, in order"
        assert all(r.reason for r in made), "a route has no reason"
        assert self.plugin().route([]) == []

    def test_route_carries_the_answer(self) -> None:
        """An item routed to the student or to the language model carries that answer."""
        given = cases()
        for case, route in zip(given, self.plugin().route(given), strict=True):
            assert route.who in WHO, f"{route}: nobody is called {route.who!r}"
            if route.who == "student":
                assert route.labels == case.labels, f"{route} does not carry the student's answer"
                assert route.confidence == case.confidence, f"{route} does not carry the student's confidence"
            if route.who == "llm":
                assert case.annotation is not None, f"{route} has no annotation behind it"
                assert route.labels == case.annotation.labels, (
                    f"{route} does not carry the annotation's answer"
                )

    def test_confidence_only_helps(self) -> None:
        """Raising the student's confidence never moves an item from a machine to a person."""
        for annotated in (False, True):
            given = [case for case in cases() if (case.annotation is not None) == annotated]
            by_machine = [route.who != "person" for route in self.plugin().route(given)]
            assert by_machine == sorted(by_machine), "a surer student was trusted less"


def cases() -> list[Case]:
    """Student confidences from 0 to 1, ascending, without and with an accepted annotation."""
    made: list[Case] = []
    for annotation in (None, Annotation(0, "ok", ("tool",), None, 0.9, "logprobs")):
        for step in range(21):
            item = len(made)
            given = None if annotation is None else annotation._replace(item=item)
            made.append(Case(item, ("fruit",), step / 20, given))
    return made


class ExporterContract(PluginContract):
    """Checks of an exporter, with a small fitted student.

    Attributes:
        suffixes: endings of files an export may hold.
        kinds: the kinds of labels it can ship.
        tolerance: largest difference between the export's probabilities and the student's.
    """

    suffixes: ClassVar[frozenset[str]] = frozenset(
        {".safetensors", ".json", ".txt", ".md", ".model", ".onnx"}
    )
    kinds: ClassVar[tuple[str, ...]] = ("single", "multi")
    tolerance: ClassVar[float] = 1e-6

    def plugin(self) -> Exporter:
        """The exporter under test."""
        raise NotImplementedError("override plugin() and return an instance of your exporter")

    def student(self) -> Student:
        """The student to ship; override it for an exporter that ships another kind."""
        return Linear()

    def encoder(self) -> Encoder:
        """The encoder of a student that reads vectors."""
        return Hashing(dim=256)

    def load(self, folder: Path) -> Any:
        """Something with `labels` and `predict_proba(texts)`; override it for a format of your own."""
        from llmal.predictor import load

        return load(folder)

    @contextmanager
    def exported(self, schema: LabelSchema) -> Iterator[tuple[Path, list[str], NDArray[np.float32]]]:
        """A fresh export, texts, and the student's own probabilities of them."""
        given = examples(schema)
        given = given._replace(vectors=self.encoder().encode(given.texts))
        student = self.student()
        with context() as ctx:
            model = student.fit(given, schema, np.random.default_rng(0), ctx)
            source = ctx.folder / "student"
            source.mkdir()
            model.save(source)
            length = getattr(student.shipped, "max_length", None)
            parcel = Parcel(
                source, student.shipped.name, self.encoder(), schema, 0.9, length, FACTS, tuple(given.texts)
            )
            write(self.plugin(), parcel, ctx.folder / "model")
            yield ctx.folder / "model", given.texts, model.predict_proba(asked(given))

    def schemas(self) -> list[LabelSchema]:
        """The classes to ship, for each kind."""
        return [schema for schema in (SINGLE, MULTI) if schema.kind in self.kinds]

    def test_holds_no_pickle_and_no_code(self) -> None:
        """Only files that are data, by their endings and by their first bytes."""
        with self.exported(self.schemas()[0]) as (folder, _, _probs):
            check_no_pickle(folder)
            files = [file for file in folder.rglob("*") if file.is_file()]
            odd = [file.name for file in files if file.suffix not in self.suffixes]
            links = [file.name for file in files if file.is_symlink()]
        assert files, "the export is empty"
        assert not odd, f"files that may be code: {odd}"
        assert not links, f"links out of the export: {links}"

    def test_predicts_as_the_student_does(self) -> None:
        """Loaded where there is no network, it gives the student's probabilities, labels in their order."""
        for schema in self.schemas():
            with self.exported(schema) as (folder, texts, probs), no_network():
                loaded = self.load(folder)
                assert list(loaded.labels) == schema.names, f"labels came back as {loaded.labels}"
                given = np.asarray(loaded.predict_proba(texts))
            worst = float(np.abs(given - probs).max())
            assert worst <= self.tolerance, f"probabilities differ from the student's by {worst:.2g}"

    def test_holds_no_text_of_the_corpus(self) -> None:
        """What was learnt from stays behind."""
        with self.exported(self.schemas()[0]) as (folder, texts, _):
            for file in folder.rglob("*"):
                if file.is_file():
                    body = file.read_bytes()
                    leaked = [text for text in texts if text.encode() in body]
                    assert not leaked, f"{file.name} holds texts of the corpus: {leaked}"


FACTS: dict[str, Any] = {
    "llmal": "0",
    "data": "data-0",
    "trained_on": 9,
    "sources": {"human": 9},
    "measures": {"accuracy": {"value": 0.9, "low": 0.7, "high": 1.0, "n": 9}},
}
"""What a card tells; made up."""


@contextmanager
def no_network() -> Iterator[None]:
    """Connections and look-ups of names fail inside, those to this very machine too."""

    def closed(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("something asked for the network")

    connect, look_up = socket.socket.connect, socket.getaddrinfo
    socket.socket.connect = closed  # type: ignore[method-assign]
    socket.getaddrinfo = closed
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.getaddrinfo = look_up
