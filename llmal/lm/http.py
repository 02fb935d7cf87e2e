"""The line to a model: what carries one request there and its answer back, without retries or money."""

from __future__ import annotations

import asyncio
import zlib
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from llmal.lm.endpoint import Endpoint, is_loopback
from llmal.lm.wire import Failure, Reply, Request, read_refusal, read_reply

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Most bytes of one answer after decompression; a label and its log-probabilities need a few kilobytes."""

LOOK_S = 10.0
"""Seconds for a free question about the endpoint itself."""

_JSON = {"Content-Type": "application/json"}


class Line:
    """Carries one request to a model and brings the answer back, once; never raises for a bad answer."""

    async def open(self) -> None:
        """Get ready; nothing unless overridden."""

    async def close(self) -> None:
        """Let go of everything; nothing unless overridden."""

    async def send(self, request: Request, request_hash: str) -> Reply | Failure:
        """Send a request and read what comes back."""
        raise NotImplementedError

    async def look(self, path: str) -> str | None:
        """The body of a free question about the model itself, `/models` say; None where there is none."""
        return None


class Http(Line):
    """The line to an OpenAI-compatible endpoint over HTTP."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self._url = endpoint.base_url.rstrip("/")
        self._chat = URL(self._url + "/chat/completions")

    async def open(self) -> None:
        """Open a session that keeps connections, sends the key to this address only, and takes no cookies."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "llmal"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        local = is_loopback(urlsplit(self.endpoint.base_url).hostname or "")
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout_s),
            trust_env=not local,  # a proxy for the internet has no business with this machine
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
        await asyncio.sleep(0)

    async def look(self, path: str) -> str | None:
        """The body of a free GET below the endpoint's address; None when it gives none."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=min(LOOK_S, self.endpoint.timeout_s))
        try:
            async with self._session.get(self._url + path, timeout=timeout, allow_redirects=False) as answer:
                return self.endpoint.redacted(await _read(answer)) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, zlib.error, _TooLarge, ConnectionError):
            return None

    async def send(self, request: Request, request_hash: str) -> Reply | Failure:
        """POST one chat request."""
        assert self._session is not None
        try:
            async with self._session.post(
                self._chat, data=request.text.encode(), headers=_JSON, allow_redirects=False
            ) as answer:
                raw = self.endpoint.redacted(await _read(answer))
                if answer.status != 200:
                    return read_refusal(answer.status, raw, answer.headers.get("Retry-After"))
                return read_reply(raw, request_hash)
        except aiohttp.ClientConnectorError as error:
            words = f"cannot connect: {type(error).__name__}"
            return Failure("unreachable", words, retry="connect", charged="unsent")
        except TimeoutError:
            words = f"no answer within {self.endpoint.timeout_s:g} s"
            return Failure("timeout", words, retry="timeout", charged="unknown")
        except (aiohttp.ClientError, zlib.error, _TooLarge, ConnectionError) as error:
            return Failure("connection", type(error).__name__, retry="timeout", charged="unknown")


class _TooLarge(Exception):
    """An answer beyond `MAX_ANSWER_BYTES`."""


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body, decompressed by us with a bound: a small gzip can hold gigabytes."""
    raw = await answer.content.read(MAX_ANSWER_BYTES + 1)
    while len(raw) <= MAX_ANSWER_BYTES and not answer.content.at_eof():
        raw += await answer.content.read(MAX_ANSWER_BYTES + 1 - len(raw))
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding in ("gzip", "deflate"):
        raw = zlib.decompressobj(wbits=47).decompress(
            raw, MAX_ANSWER_BYTES + 1
        )  # 47: gzip or zlib, by its header
    if len(raw) > MAX_ANSWER_BYTES:
        raise _TooLarge
    return raw
