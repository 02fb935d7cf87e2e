"""What waits goes to a labelling server once, and its answers come back as those of a file do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llmal.context import Progress
from llmal.corpus import json_line, shown
from llmal.errors import LlmalError, UserError
from llmal.records import LabelSchema
from llmal.review.exchange import Taken, chosen, take_back
from llmal.review.formats.work import Format, Work
from llmal.review.servers.address import Address, address_of
from llmal.review.servers.argilla import ArgillaServer
from llmal.review.servers.label_studio import LabelStudioServer
from llmal.store.store import Store

BATCH = 200
"""Tasks a request; Argilla takes 500 at most."""

BATCH_CHARS = 4_000_000
"""Characters of JSON a request, about; one longer text goes alone."""


class Server(Protocol):
    """One data set on a server, for the tool's own client."""

    name: str
    url_name: str
    key_name: str

    def __init__(self, client: Any, title: str) -> None: ...

    @staticmethod
    def client(address: Address) -> Any:
        """The client of the tool's SDK."""

    def find(self) -> bool:
        """Whether the data set is there."""

    def make(self, form: Format) -> None:
        """Make it, with our labels."""

    def there(self) -> Iterator[tuple[Any, Any]]:
        """Key and schema of every item it holds; None where it is none of ours."""

    def send(self, tasks: list[dict[str, Any]]) -> None:
        """Add items."""

    def export(self, path: Path) -> None:
        """Write all it holds as the tool's export file."""

    def people(self) -> dict[str, str]:
        """What an export calls people -> how they are known."""


SERVERS: dict[str, type[Server]] = {s.name: s for s in (LabelStudioServer, ArgillaServer)}
"""Name on the command line -> server; each is also an extra and a format."""


class Sent(NamedTuple):
    """What was pushed.

    Attributes:
        new: items sent.
        known: items that were there already.
        dataset: what the data set is called there.
        made: whether it is new.
    """

    new: int
    known: int
    dataset: str
    made: bool


def known(name: str) -> type[Server]:
    """The server of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SERVERS:
        raise UserError(
            f"no server called '{shown(name)}'", where="--push", hint=f"Known: {', '.join(SERVERS)}"
        )
    return SERVERS[name]


def called(run: Path, schema: LabelSchema, dataset: str | None) -> str:
    """The data set's name: as asked for, or the run's and the schema's, so that other labels are another.

    Raises:
        UserError: a name with characters that are hard to see or to type.
    """
    if dataset is None:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", run.resolve().name).strip("-") or "run"
        return f"llmal-{plain[:32]}-{schema.recipe()[-8:]}"
    if not dataset.strip() or not dataset.isprintable() or len(dataset) > 200:
        raise UserError("this is no name of a data set", where="--dataset", hint="Use 1 to 200 letters")
    return dataset


class Traffic:
    """One data set of one server, and the run it belongs to.

    Args:
        tool: name of the server's kind.
        url: of the server, from the command line; the environment's where None.
        dataset: its name there.
        schema: the classes.
        progress: shows a bar.
        client: of the tool's SDK; the real one where None.

    Raises:
        UserError: no such tool, no address, no key, or an unsafe address.
    """

    def __init__(
        self,
        tool: str,
        url: str | None,
        *,
        dataset: str,
        schema: LabelSchema,
        progress: Progress,
        client: Any = None,
    ) -> None:
        kind = known(tool)
        self._form, self._schema, self._progress = chosen(tool)(schema), schema, progress
        self._dataset = dataset
        self._address = address_of(url, url_name=kind.url_name, key_name=kind.key_name)
        self._kind, self._client = kind, client

    def push(self, works: Iterable[Work], *, blind: bool) -> Sent:
        """Send what the server does not have yet.

        Args:
            works: from `llmal.review.exchange.waiting_work`.
            blind: send no machine's answer along.

        Raises:
            MissingExtra: the tool's SDK is not installed.
            UserError: the data set holds items for other labels.
            LlmalError: the server refused; what it took before that is not sent again.
        """
        queue = list(works)
        try:
            server = self._open()
            made = not server.find()
            if made:
                server.make(self._form)
            have = set() if made else self._there(server)
            fresh = [work for work in queue if work.key not in have]
            if blind:
                fresh = [_unswayed(work, self._schema.names) for work in fresh]
            with self._progress.task(f"push to {self._kind.name}", len(fresh)) as advance:
                for batch in _batches(self._form, fresh):
                    server.send(batch)
                    advance(len(batch))
        except LlmalError:
            raise
        except Exception as error:  # the SDKs raise errors of several libraries
            raise self._address.told(error) from None  # its request holds the key
        return Sent(len(fresh), len(queue) - len(fresh), self._dataset, made)

    def pull(self, store: Store, folder: Path, *, person: str) -> Taken:
        """Take the server's answers; its export stays in the folder, so that what was set aside can be seen.

        Args:
            store: of the run, open for writing.
            folder: where the export goes.
            person: who answered, where the server does not say.

        Raises:
            MissingExtra: the tool's SDK is not installed.
            UserError: there is no such data set.
            LlmalError: the server refused.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._kind.name}{self._form.suffix}"
        part = path.with_name(path.name + ".part")
        try:
            server = self._open()
            if not server.find():
                raise UserError(
                    "no such data set on the server", where=self._dataset, hint="Push first, or say --dataset"
                )
            with self._progress.task(f"pull from {self._kind.name}", 1) as advance:
                server.export(part)
                people = server.people()
                advance(1)
        except LlmalError:
            raise
        except Exception as error:
            raise self._address.told(error) from None
        part.replace(path)
        return take_back(store, path, self._schema, self._kind.name, person=person, people=people)

    def _open(self) -> Server:
        if self._client is None:
            self._client = self._kind.client(self._address)
        return self._kind(self._client, self._dataset)

    def _there(self, server: Server) -> set[Any]:
        ours, have = self._schema.recipe(), set()
        for key, schema in server.there():
            if schema not in (None, ours):
                raise UserError(
                    "the data set holds items for other labels",
                    where=self._dataset,
                    hint="Name another with --dataset",
                )
            have.add(key)
        return have


def _unswayed(work: Work, names: Sequence[str]) -> Work:
    """Without the machine's word: no guess, and a short list of two or more in the order of all labels."""
    some = sorted(work.candidates, key=names.index) if len(work.candidates) > 1 else ()
    return work._replace(guess=(), confidence=None, candidates=tuple(some))


def _batches(form: Format, works: Iterable[Work]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    chars = 0
    for work in works:
        (task,) = form.tasks(work)
        long = len(json_line(task))
        if batch and (len(batch) == BATCH or chars + long > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(task)
        chars += long
    if batch:
        yield batch
