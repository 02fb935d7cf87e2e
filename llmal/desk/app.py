"""The review page's paths: four files without data, and four that give and take it for a person's token."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from llmal.desk.options import Options
from llmal.desk.people import People
from llmal.desk.queue import Desk
from llmal.desk.said import Refusal, Said
from llmal.errors import LlmalError
from llmal.extras import need
from llmal.serve.guard import App, Guard, Scope

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

HERE = Path(__file__).parent

FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path -> file and type: the same bytes for everybody, with nothing of the run in them."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What a browser may do for this page: run its one script, and talk to where it came from."""


def version() -> str:
    """Which page an answer was given on: a hash of all that it is made of."""
    made = hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name, _ in FILES.values()))
    return f"page-{made.hexdigest()[:8]}"


class DeskGuard(Guard):
    """Host, token and size as for every server of ours; and nothing that another page's script sends."""

    headers: ClassVar[list[tuple[bytes, bytes]]] = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"content-security-policy", POLICY.encode()),
    ]
    own: ClassVar[frozenset[str]] = frozenset({*FILES, "/start", "/say", "/people", "/disputes"})
    open_paths: ClassVar[frozenset[str]] = frozenset(FILES)

    def __init__(self, app: App, options: Options) -> None:
        super().__init__(app, options, lambda path, status: None)
        self._options = options

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """As the guard's, and by where a request comes from."""
        given: list[tuple[bytes, bytes]] = scope["headers"]
        by_name = {
            want: [value.decode("latin-1") for name, value in given if name == want]
            for want in (b"host", b"origin", b"sec-fetch-site")
        }
        hosts, origins, sites = by_name.values()
        if len(hosts) != 1:
            return 400, "expected one Host"
        reads = scope["method"] in ("GET", "HEAD")
        if len(origins) > 1 or (not origins and not reads) or not all(_same(o, hosts[0]) for o in origins):
            return 403, "only the review page itself may ask this"
        if scope["path"] not in self.open_paths and any(site != "same-origin" for site in sites):
            return 403, "only the review page itself may ask this"
        refused = super().refusal(scope)
        if refused is None and scope["path"] not in self.open_paths:
            shown = [value for name, value in given if name == b"authorization"]
            scope["person"] = self._options.who(shown[0] if len(shown) == 1 else b"")
            if scope["person"] is None:
                return 401, "a token is needed, as the header `Authorization: Bearer TOKEN`"
        return refused


def _same(origin: str, host: str) -> bool:
    try:
        found = urlsplit(origin)
    except ValueError:
        return False
    plain = origin == f"{found.scheme}://{found.netloc}"
    return plain and found.scheme in ("http", "https") and found.netloc.lower() == host.lower()


def app_of(desk: Desk, options: Options) -> App:
    """The application behind its guard.

    Args:
        desk: what waits.
        options: where it listens, and each person's token.

    Raises:
        MissingExtra: fastapi is not installed.
    """
    need("fastapi", extra="serve", why="for the review page")
    from fastapi import FastAPI

    app = FastAPI(title="llmal", docs_url=None, redoc_url=None, openapi_url=None)
    _paths(app, desk, People(desk))
    _errors(app)
    return DeskGuard(app, options)


def _paths(app: FastAPI, desk: Desk, people: People) -> None:
    from fastapi import Response
    from fastapi.responses import JSONResponse

    def shows(name: str, kind: str) -> Any:
        body = (HERE / name).read_bytes()

        async def show(_: Request) -> Response:
            return Response(body, media_type=kind)

        return show

    figures = ThreadPoolExecutor(1, "llmal-people")  # many pages that ask for them leave threads for answers

    def tells(of: Callable[[str], dict[str, Any]], by: Executor | None = None) -> Any:
        async def tell(request: Request) -> Response:
            loop = asyncio.get_running_loop()
            return JSONResponse(await loop.run_in_executor(by, of, request.scope["person"]))

        return tell

    async def say(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        said = _said(kind, await request.body())
        return JSONResponse(await asyncio.to_thread(desk.say, request.scope["person"], said))

    for path, (name, kind) in FILES.items():
        app.add_route(path, shows(name, kind), ["GET"])
    for path, of in (("/start", desk.start), ("/disputes", desk.disputes)):
        app.add_route(path, tells(of), ["GET"])
    app.add_route("/people", tells(people.told, figures), ["GET"])
    app.add_route("/say", say, ["POST"])


def _said(kind: str, body: bytes) -> Said:
    """A request as what was said.

    Raises:
        Refusal: with the place of what is wrong, and nothing of its text.
    """
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "expected the header `Content-Type: application/json`")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the request is not JSON in UTF-8") from error
    try:
        return Said.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = next((str(part) for part in first["loc"] if part in Said.model_fields), "the request")
        raise Refusal(422, f"{place}: not as expected") from error


def _errors(app: FastAPI) -> None:
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return JSONResponse({"error": error.words}, status_code=error.status)

    def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, LlmalError)  # a full disk, say: nothing was kept
        return JSONResponse({"error": str(error)}, status_code=503)

    def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: "no such path", 405: "this path takes another method"}.get(error.status_code, "refused")
        return JSONResponse({"error": words}, status_code=error.status_code)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(LlmalError, failed)
    app.add_exception_handler(HTTPException, http)
