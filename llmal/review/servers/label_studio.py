"""A Label Studio server: a project for each data set, through the SDK (label-studio-sdk 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmal.errors import UserError
from llmal.extras import need
from llmal.review.formats.work import Format
from llmal.review.servers.address import Address

PAGE = 500
"""Tasks a page, when the server is asked what it has."""


class LabelStudioServer:
    """A project of a Label Studio server; its title is the data set's name.

    Only what waits goes there and only what is new: the SDK's own retries are off for that, since a request
    that timed out may have been carried out.

    Source: label-studio-sdk 2.0.0 to 2.1.2, tried with a server 1.23.2.
    """

    name = "label-studio"
    url_name = "LABEL_STUDIO_URL"
    key_name = "LABEL_STUDIO_API_KEY"

    def __init__(self, client: Any, title: str) -> None:
        self._client, self._title = client, title
        self._id: int | None = None

    @staticmethod
    def client(address: Address) -> Any:
        """The SDK's client; nothing is sent yet."""
        sdk = need("label_studio_sdk", extra="label-studio", why="to talk to a Label Studio server")
        return sdk.LabelStudio(base_url=address.url, api_key=address.key, httpx_client=address.transport())

    def find(self) -> bool:
        """Whether the project is there.

        Raises:
            UserError: two projects have that title.
        """
        found = [p.id for p in self._client.projects.list() if p.title == self._title]
        if len(found) > 1:
            raise UserError(
                f"{len(found)} projects have this title", where=self._title, hint="Name one with --dataset"
            )
        self._id = found[0] if found else None
        return bool(found)

    def make(self, form: Format) -> None:
        """Make the project, with the labels and the note as its labelling configuration."""
        (config,) = form.beside(Path("project.json")).values()
        made = self._client.projects.create(title=self._title, label_config=config)
        self._id = made.id

    def there(self) -> Iterator[tuple[Any, Any]]:
        """Our key and the schema of every task."""
        for task in self._client.tasks.list(project=self._id, page_size=PAGE, resolve_uri=False):
            data = task.data if isinstance(task.data, dict) else {}
            yield data.get("llmal_id"), data.get("llmal_schema")

    def send(self, tasks: list[dict[str, Any]]) -> None:
        """Import tasks."""
        self._client.projects.import_tasks(self._id, request=tasks, request_options={"max_retries": 0})

    def export(self, path: Path) -> None:
        """Write the project's export, as the server gives it, all tasks included."""
        path.write_bytes(self._client.projects.exports.as_file(self._id, "JSON").read())

    def people(self) -> dict[str, str]:
        """What an export calls people -> their addresses."""
        return {f"user {user.id}": user.email for user in self._client.users.list() if user.email}
