"""A provider's file and batch endpoints, one call each: what came back, or the failure it stands for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlsplit

from llmal.lm.endpoint import Endpoint, is_loopback
from llmal.lm.http import MAX_ANSWER_BYTES
from llmal.lm.wire import Failure, Reply, Request, read_refusal, read_reply

URL = "/v1/chat/completions"
"""What each line of a batch is sent to."""

FILE_S = 3600.0
"""Seconds for moving one file: 200 MB at 60 kB/s."""

LINES = 500
"""Lines of results handed on at a time: what one commit holds."""

PAGE = 100
"""Batches a page when looking for one; the most OpenAI gives."""

ENDS = frozenset({"completed", "expired", "cancelled", "failed"})
"""States a batch never leaves."""

NEVER_RAN = {
    "batch_expired": Failure("expired", "not done within 24 hours", retry="timeout"),
    "batch_cancelled": Failure("cancelled"),
}
"""Lines that the provider did not get to, and does not charge, by their code."""

T = TypeVar("T")


class BatchState(NamedTuple):
    """Where a batch stands.

    Attributes:
        id: the provider's.
        state: `validating`, `in_progress`, ..., or one of `ENDS`.
        done: lines the provider counts as finished, failed ones included.
        output, errors: ids of the files with results, where there are any.
        words: what the provider says is wrong with the whole batch.
        metadata: as given when it was made.
    """

    id: str
    state: str
    done: int
    output: str | None
    errors: str | None
    words: str
    metadata: Mapping[str, str]


def line_of(request: Request, name: str) -> bytes:
    """One line of a batch's input file; `name` comes back with the answer."""
    entry = {"custom_id": name, "method": "POST", "url": URL, "body": request.body()}
    return json.dumps(entry).encode() + b"\n"


def read_line(line: bytes, endpoint: Endpoint) -> tuple[str, Reply | Failure]:
    """The name a line of results carries, and how that call ended; no name where there is none to be read.

    A status that is none (0, say) may hide a call that was made and charged.
    """
    nothing = Failure("no_status", "the batch gives no HTTP status", retry="timeout", charged="unknown")
    try:
        entry = json.loads(endpoint.redacted(line))
        name, answer, error = str(entry["custom_id"]), entry.get("response"), entry.get("error") or {}
        status = answer.get("status_code") if isinstance(answer, dict) else None
        body = json.dumps(answer.get("body")) if isinstance(answer, dict) else ""
        code, words = (str(error.get(key) or "") for key in ("code", "message"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", nothing
    if code in NEVER_RAN:
        return name, NEVER_RAN[code]
    if status == 200:
        return name, read_reply(body, name)
    if not isinstance(status, int) or not 300 <= status < 600:
        return name, nothing._replace(detail=f"{code} {words}".strip()[:200] or nothing.detail)
    return name, read_refusal(status, body, None)


class Provider:
    """The `openai` package's client for files and batches; it retries nothing and follows no redirect."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @cached_property
    def _client(self) -> Any:
        """The client, made when first needed; the key goes to this address only."""
        import httpx
        from openai import AsyncOpenAI

        where = self.endpoint
        local = is_loopback(urlsplit(where.base_url).hostname or "")
        made = AsyncOpenAI(
            api_key=where.key or "none",  # without one the client would look for somebody else's
            base_url=where.base_url.rstrip("/"),
            max_retries=0,
            http_client=httpx.AsyncClient(
                follow_redirects=False,
                trust_env=not local,  # a proxy for the internet has no business with this machine
                timeout=where.timeout_s,
                headers={"Accept-Encoding": "identity"},
            ),
        )
        # What the environment adds for OpenAI is not meant for every endpoint.
        made.organization = made.project = None
        made._custom_headers = {"User-Agent": "llmal"}
        return made

    async def close(self) -> None:
        """Close its connections, if it made any."""
        if "_client" in self.__dict__:
            await self._client.close()

    async def upload(self, file: BinaryIO) -> str | Failure:
        """Hand over an input file; its id. A file alone costs nothing."""

        async def send() -> Any:
            file.seek(0)
            given = ("batch.jsonl", file, "application/jsonl")
            return await self._client.files.create(file=given, purpose="batch", timeout=self._patience())

        made = await self._call(send, FILE_S)
        if isinstance(made, Failure):
            return made
        name = getattr(made, "id", None)
        return name if isinstance(name, str) and name else _no_object("file")

    async def create(self, file: str, metadata: Mapping[str, str]) -> BatchState | Failure:
        """Start a batch: from here on it costs money."""
        made = await self._call(
            lambda: self._client.batches.create(
                input_file_id=file, endpoint=URL, completion_window="24h", metadata=dict(metadata)
            ),
            self.endpoint.timeout_s,
        )
        return made if isinstance(made, Failure) else _state(made, self.endpoint)

    async def retrieve(self, name: str) -> BatchState | Failure:
        """Where a batch stands."""
        found = await self._call(lambda: self._client.batches.retrieve(name), self.endpoint.timeout_s)
        return found if isinstance(found, Failure) else _state(found, self.endpoint)

    async def page(self, after: str | None) -> list[BatchState] | Failure:
        """Batches, newest first, `PAGE` at a time; empty after the last."""
        given = {"limit": PAGE} | ({"after": after} if after else {})
        found = await self._call(lambda: self._client.batches.list(**given), self.endpoint.timeout_s)
        if isinstance(found, Failure):
            return found
        rows = [_state(one, self.endpoint) for one in getattr(found, "data", None) or []]
        return [row for row in rows if isinstance(row, BatchState)]

    async def read(self, file: str, take: Callable[[Sequence[bytes]], Awaitable[None]]) -> Failure | None:
        """Hand a file of results on, some lines at a time; it is never held whole.

        Returns:
            Why it could not be read to its end; lines before that were handed on.
        """

        async def stream() -> None:
            content = self._client.files.with_streaming_response.content(file, timeout=self._patience())
            lines: list[bytes] = []
            rest = b""
            async with content as answer:
                async for part in answer.iter_bytes():
                    # At line feeds alone: an answer may hold other characters that end a line of text.
                    *whole, rest = (rest + part).split(b"\n")
                    lines += whole
                    if len(rest) > MAX_ANSWER_BYTES:
                        rest = rest[:1]  # no longer a line that can be read; its call counts as missing
                    while len(lines) >= LINES:
                        await take(lines[:LINES])
                        del lines[:LINES]
            await take([*lines, rest] if rest else lines)

        return await self._call(stream, FILE_S)

    def _patience(self) -> Any:
        import httpx

        return httpx.Timeout(max(60.0, self.endpoint.timeout_s))

    async def _call(self, call: Callable[[], Awaitable[T]], seconds: float) -> T | Failure:
        import httpx
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        try:
            async with asyncio.timeout(seconds):
                return await call()
        except APIStatusError as error:
            said = self.endpoint.redacted(error.response.content)
            return read_refusal(error.status_code, said, error.response.headers.get("Retry-After"))
        except (APITimeoutError, TimeoutError, httpx.TimeoutException):
            return Failure("timeout", "no answer in time", retry="timeout", charged="unknown")
        except (APIConnectionError, httpx.TransportError) as error:
            cause = error if isinstance(error, httpx.TransportError) else error.__cause__
            if isinstance(cause, httpx.ConnectError):
                return Failure("unreachable", "cannot connect", retry="connect", charged="unsent")
            words = type(cause).__name__
            return Failure("connection", words, retry="timeout", charged="unknown")
        except (APIError, json.JSONDecodeError, httpx.HTTPError):
            return _no_object("answer")


def _no_object(kind: str) -> Failure:
    words = f"the endpoint gave no {kind}"
    return Failure("malformed", words, http=200, retry="malformed", charged="unknown")


def _state(found: Any, endpoint: Endpoint) -> BatchState | Failure:
    """A batch as the client parsed it, without checking any field."""
    name, state = getattr(found, "id", None), getattr(found, "status", None)
    if not isinstance(name, str) or not isinstance(state, str) or not name:
        return _no_object("batch")
    counts = getattr(found, "request_counts", None)
    done = sum(n for key in ("completed", "failed") if isinstance(n := getattr(counts, key, 0), int))
    wrong = getattr(getattr(found, "errors", None), "data", None) or []
    words = "; ".join(f"{getattr(e, 'code', '')}: {getattr(e, 'message', '')}" for e in wrong[:3])
    output, errors = (getattr(found, key, None) or None for key in ("output_file_id", "error_file_id"))
    metadata = getattr(found, "metadata", None)
    said = endpoint.redacted(words.encode("utf-8", "replace"))[:300]
    return BatchState(name, state, done, output, errors, said, metadata if isinstance(metadata, dict) else {})
