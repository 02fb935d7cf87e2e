"""An Argilla server: a dataset for each data set, through the SDK (argilla 2.8)."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmal.corpus import json_line, shown
from llmal.errors import UserError
from llmal.extras import need
from llmal.review.formats.work import Format
from llmal.review.servers.address import TIMEOUT_S, Address

PAGE = 250
"""Records a page, when the server is asked what it has."""


class ArgillaServer:
    """A dataset of an Argilla server, in the key's first workspace, or `WORKSPACE/NAME`.

    Settings of a dataset cannot change once it is published, so one with other labels is another dataset.

    Source: argilla 2.8.0.
    """

    name = "argilla"
    url_name = "ARGILLA_API_URL"
    key_name = "ARGILLA_API_KEY"

    def __init__(self, client: Any, title: str) -> None:
        self._client = client
        workspace, _, self._title = title.rpartition("/")
        self._workspace = workspace or None
        self._dataset: Any = None

    @staticmethod
    def client(address: Address) -> Any:
        """The SDK's client, which asks the server who it is."""
        return _sdk().Argilla(
            api_url=address.url,
            api_key=address.key,
            timeout=int(TIMEOUT_S),
            follow_redirects=False,
        )

    def find(self) -> bool:
        """Whether the dataset is there.

        Raises:
            UserError: there is no such workspace.
        """
        with warnings.catch_warnings(action="ignore"):  # it warns of what is not there yet
            if self._workspace is not None and self._client.workspaces(self._workspace) is None:
                raise UserError(f"no workspace called '{shown(self._workspace)}'", where="--dataset")
            self._dataset = self._client.datasets(self._title, workspace=self._workspace)
        return self._dataset is not None

    def make(self, form: Format) -> None:
        """Make the dataset, with labels and note as questions."""
        with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            ((path, text),) = form.beside(Path(folder) / "dataset.json").items()
            path.write_text(text, encoding="utf-8")
            settings = _sdk().Settings.from_json(path)
            dataset = _sdk().Dataset(self._title, self._workspace, settings, self._client)
            self._dataset = dataset.create()

    def there(self) -> Iterator[tuple[Any, Any]]:
        """Our key and the schema of every record."""
        for record in self._records(with_suggestions=False, with_responses=False):
            yield record.external_id, _ours(_metadata(record).get("llmal")).get("schema")

    def _records(self, **more: bool) -> Iterator[Any]:
        """What the server has, as it says it: the SDK's own records fall over a response without a value."""
        start = 0
        while page := self._client.api.records.list(self._dataset.id, offset=start, limit=PAGE, **more):
            yield from page
            start += len(page)

    def send(self, tasks: list[dict[str, Any]]) -> None:
        """Add records."""
        records = [_sdk().Record.from_dict(task) for task in tasks]
        with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own would run through ours
            self._dataset.records.log(records, batch_size=len(records))

    def export(self, path: Path) -> None:
        """Write all records as the SDK's own export has them, with the status of each response beside it."""
        questions = {q.id: q.name for q in self._dataset.settings.questions}
        with path.open("w", encoding="utf-8", newline="\n") as file:
            before = "[\n"
            for record in self._records(with_suggestions=True, with_responses=True):
                file.write(before + json_line(_told(record, questions)))
                before = ",\n"
            file.write("\n]\n" if before == ",\n" else "[]\n")

    def people(self) -> dict[str, str]:
        """Ids of users -> their names."""
        return {str(user.id): user.username for user in self._client.users.list()}


def _sdk() -> Any:
    return need("argilla", extra="argilla", why="to talk to an Argilla server")


def _told(record: Any, questions: dict[Any, str]) -> dict[str, Any]:
    responses: dict[str, list[dict[str, Any]]] = {}
    for said in record.responses:
        about = {"user_id": str(said.user_id), "status": said.status.value}
        # One without a value is discarded, or a draft; it is counted.
        for name, given in (said.values or {"label": {"value": None}}).items():
            responses.setdefault(name, []).append({"value": given["value"], **about})
    return {
        "id": record.external_id,
        "fields": record.fields,
        "metadata": _metadata(record),
        "suggestions": {
            questions[s.question_id]: {"value": s.value, "score": s.score, "agent": s.agent}
            for s in record.suggestions
            if s.question_id in questions
        },
        "responses": responses,
        "status": record.status,
    }


def _metadata(record: Any) -> dict[str, Any]:
    kept = record.metadata or {}
    return kept if isinstance(kept, dict) else {one.name: one.value for one in kept}


def _ours(text: Any) -> dict[str, Any]:
    with contextlib.suppress(TypeError, ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}
