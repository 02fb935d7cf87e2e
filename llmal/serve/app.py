"""The paths: /predict, /answer, /health, /metrics, and a word on what is served."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmal.extras import need
from llmal.serve.cascade import Cascade
from llmal.serve.guard import OWN, App, Guard
from llmal.serve.metrics import CONTENT_TYPE
from llmal.serve.options import MOST_CHARS, MOST_TEXTS
from llmal.serve.student import Busy
from llmal.store.ledger import PICO, bill
from llmal.text import repaired

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

MOST_WAITING = 2_048
"""Texts that may wait at once: more than a busy student answers in the time clients wait."""

EXPECTED = 'expected {"text": "..."} or {"texts": ["...", ...]}'

_ID = re.compile("[0-9a-f]{32}")


class Question(BaseModel):
    """What a client asks about: `text`, or `texts`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str | None = Field(None, description="one text")
    texts: list[str] | None = Field(None, min_length=1, max_length=MOST_TEXTS, description="several texts")

    @model_validator(mode="after")
    def _one(self) -> Question:
        if (self.text is None) == (self.texts is None):
            raise ValueError(EXPECTED)
        texts = self.texts if self.text is None else [self.text]
        if any(len(text) > MOST_CHARS for text in texts or ()):
            raise ValueError(f"a text has at most {MOST_CHARS:,} characters")
        if not all(text.strip() for text in texts or ()):
            raise ValueError("a text is blank")
        return self


class Refused(Exception):
    """A request that cannot be answered: its status, and why in one sentence."""

    def __init__(self, status: int, words: str) -> None:
        self.status, self.words = status, words
        super().__init__(words)


class Service:
    """The state behind the paths.

    Args:
        cascade: who answers.
        about: what GET / says: model, labels, promise.
        kind: `single` or `multi`.
    """

    def __init__(self, cascade: Cascade, about: dict[str, Any], kind: str) -> None:
        self.cascade, self.about, self.kind = cascade, about, kind
        self._waiting = 0
        self.stopping = False

    async def predict(self, content_type: str, body: bytes) -> dict[str, Any]:
        """Answer about one text or several.

        Raises:
            Refused: the request is not what is expected, or the server cannot take it now.
        """
        # Only a page that this server allowed could send JSON from a browser: none is.
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "expected the header `Content-Type: application/json`")
        asked = question(body)
        if not self.cascade.tiers.student.ready or self.stopping:
            raise Refused(
                503, "the server is stopping" if self.stopping else "the model is still being loaded"
            )
        texts = [asked.text] if asked.text is not None else asked.texts or []
        if self._waiting + len(texts) > MOST_WAITING:
            raise Refused(503, "too many texts wait already; send them again later")
        self._waiting += len(texts)
        try:
            found = [answer.as_json(self.kind) for answer in await self.cascade.answers(texts)]
        except Busy as error:
            raise Refused(503, "too many texts wait already; send them again later") from error
        finally:
            self._waiting -= len(texts)
        head = {"model": self.about["model"]}
        return head | (found[0] if asked.text is not None else {"answers": found})

    async def said(self, name: str) -> dict[str, Any]:
        """People's answer to a text that waited for one.

        Raises:
            Refused: no such id.
        """
        kept = await self.cascade.queue.find(name) if _ID.fullmatch(name) else None
        if kept is None:
            raise Refused(404, "no text with this id waits or waited here")
        labels = None if kept.answered is None else list(kept.answered)
        return {"id": name, "answered": labels is not None, "labels": labels}

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and words for whoever watches over the server."""
        cascade, ready = self.cascade, self.cascade.tiers.student.ready and not self.stopping
        state = {
            "ready": ready,
            "certificate": "none" if cascade.terms.promise is None
            else "withdrawn" if cascade.withdrawn is not None
            else "does not cover this" if cascade.terms.partial else "valid",
            "drift": "not watched" if cascade.drift is None
            else "alarm" if cascade.withdrawn is not None else "none seen",
        }  # fmt: skip
        if cascade.withdrawn is not None:
            state["reason"] = cascade.withdrawn
        return (200 if ready else 503), state

    async def metrics(self) -> bytes:
        """All counts; what is spent is read from the ledger."""
        cascade, seen = self.cascade, self.cascade.metrics
        paid = await asyncio.to_thread(bill, cascade.queue.store)
        seen.calls.set(paid.calls)
        seen.dollars.set(paid.cost / PICO)
        seen.waiting.set(cascade.queue.waiting)
        seen.drift.set(0.0 if cascade.drift is None else cascade.drift.evidence)
        seen.watched.set(cascade.drift is not None)
        seen.alarm.set(cascade.withdrawn is not None)
        seen.promised.set(cascade.promised)
        return seen.text()


def question(body: bytes) -> Question:
    """A request body as a question.

    Raises:
        Refused: with the place of what is wrong, and nothing of its text.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the request is not JSON in UTF-8") from error
    if not isinstance(given, dict):
        raise Refused(422, EXPECTED)
    try:
        return Question.model_validate(_repaired(given))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(
            str(part) for part in first["loc"] if isinstance(part, int) or part in Question.model_fields
        )
        words = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            words = "a key is not known; expected `text` or `texts`"
        status = 413 if first["type"] in ("string_too_long", "too_long") or "at most" in words else 422
        raise Refused(status, f"{place}: {words}" if place else words) from error


def _repaired(given: Any) -> Any:
    """Texts as the corpus was read: what no library downstream can hold is replaced."""
    if isinstance(given, str):
        return repaired(given)[0]
    if isinstance(given, list):
        return [repaired(text)[0] if isinstance(text, str) else text for text in given]
    return {key: _repaired(value) for key, value in given.items()} if isinstance(given, dict) else given


def app_of(service: Service, lifespan: Any) -> App:
    """The application: FastAPI's paths behind the guard. No page of it loads anything from elsewhere.

    Args:
        service: what answers.
        lifespan: context manager around serving.

    Raises:
        MissingExtra: fastapi is not installed.
    """
    need("fastapi", extra="serve", why="to serve a classifier")
    from fastapi import FastAPI

    app = FastAPI(title="llmal", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    _paths(app, service)
    _errors(app)

    def count(path: str, status: int) -> None:
        known = path if path in OWN else "/answer" if path.startswith("/answer/") else "other"
        service.cascade.metrics.requests.labels(known, str(status)).inc()

    return Guard(app, service.cascade.options, count)


def _paths(app: FastAPI, service: Service) -> None:
    from fastapi import Response
    from fastapi.responses import JSONResponse

    async def about(_: Request) -> Response:
        return JSONResponse({**service.about, **service.health()[1]})

    async def predict(request: Request) -> Response:
        found = await service.predict(request.headers.get("content-type", ""), await request.body())
        return JSONResponse(found)

    async def answer(request: Request) -> Response:
        return JSONResponse(await service.said(request.path_params["name"]))

    async def health(_: Request) -> Response:
        status, state = service.health()
        return JSONResponse(state, status_code=status)

    async def metrics(_: Request) -> Response:
        return Response(await service.metrics(), media_type=CONTENT_TYPE)

    # Plain routes: what a request holds is checked in one place, above.
    app.add_route("/", about, ["GET"])
    app.add_route("/predict", predict, ["POST"])
    app.add_route("/answer/{name}", answer, ["GET"])
    app.add_route("/health", health, ["GET"])
    app.add_route("/metrics", metrics, ["GET"])


def _errors(app: FastAPI) -> None:
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        more = {"Retry-After": "5"} if error.status == 503 else {}
        return JSONResponse({"error": error.words}, status_code=error.status, headers=more)

    def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: "no such path", 405: "this path takes another method"}.get(error.status_code, "refused")
        return JSONResponse({"error": words}, status_code=error.status_code)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
