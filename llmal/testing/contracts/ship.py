"""The contracts of routers and exporters."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llmal.embed.hashing import Hashing
from llmal.embed.stage import Encoder
from llmal.export.stage import Exporter, Parcel, write
from llmal.records import Annotation, LabelSchema
from llmal.route.promise import Promise, of_facts
from llmal.route.stage import Audited, Case, Evidence, Router
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

    def promises(self) -> list[Promise | None]:
        """None, and what is promised where people find the student right, wrong, or were not asked."""
        router = self.plugin()
        samples = (audited(400, "fruit"), audited(400, "city"), ())
        made = [router.promise(Evidence(SINGLE, sample, len(sample))) for sample in samples]
        return [None, *made] if router.uses else [None]

    def test_one_route_a_case(self) -> None:
        """In order, each with a reason; nothing in, nothing out."""
        given = cases()
        for promise in self.promises():
            made = self.plugin().route(given, promise)
            assert [r.item for r in made] == [c.item for c in given], "not one route a case, in order"
            assert all(r.reason for r in made), "a route has no reason"
            assert self.plugin().route([], promise) == []

    def test_route_carries_the_answer(self) -> None:
        """An item routed to the student or to the language model carries that answer."""
        given = cases()
        made = [self.plugin().route(given, promise) for promise in self.promises()]
        for case, route in ((c, r) for routes in made for c, r in zip(given, routes, strict=True)):
            assert route.who in WHO, f"{route}: nobody is called {route.who!r}"
            if route.who == "student":
                assert route.labels == case.labels, f"{route} does not carry the student's answer"
                assert route.confidence == case.confidence, f"{route} does not carry the student's confidence"
            if route.who == "llm":
                said = [a.labels for a in (case.annotation, case.llm) if a is not None]
                assert said, f"{route} has no annotation behind it"
                assert route.labels in said, f"{route} does not carry the annotation's answer"

    def test_confidence_only_helps(self) -> None:
        """Raising the student's confidence never moves an item from a machine to a person."""
        for annotated, promise in product((False, True), self.promises()):
            given = [case for case in cases() if (case.annotation is not None) == annotated]
            by_machine = [route.who != "person" for route in self.plugin().route(given, promise)]
            assert by_machine == sorted(by_machine), "a surer student was trusted less"

    def test_accepts_nothing_new_without_a_promise_that_holds(self) -> None:
        """Where a router rests on people's answers and these promise nothing, people answer."""
        for promise in self.promises():
            if self.plugin().uses and (promise is None or not promise.holds):
                who = {route.who for route in self.plugin().route(cases(), promise)}
                assert who == {"person"}, f"{who} answer, and nothing is promised"

    def test_a_promise_is_kept_as_it_was_made(self) -> None:
        """Its facts read back are the promise, its words say something, and it was tested if it holds."""
        for promise in self.promises():
            if promise is not None:
                assert of_facts(promise.facts()) == promise, "a promise changed on its way through the store"
                assert promise.words, "a promise says nothing"
                assert promise.issue or not promise.holds, "something is promised that was not tested"


def audited(n: int, answer: str) -> tuple[Audited, ...]:
    """Audit items the student calls fruit, surer and surer, and so does the annotator; people's answer."""
    said = Annotation(0, "ok", ("fruit",), None, 0.9, "logprobs")
    return tuple(
        Audited(Case(i, ("fruit",), 0.5 + i / (2 * n), None, llm=said._replace(item=i)), (answer,))
        for i in range(n)
    )


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
