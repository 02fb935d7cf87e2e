"""What stands before every path: who may ask, from where, and how much; errors are JSON in one sentence."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, Protocol

from llmal.serve.options import MOST_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_S = 10.0
"""Seconds a client has to send its request: a slow one holds a place, not the server."""

MOST_HELD = 64 * 2**20
"""Bytes of requests held at once, over all connections."""

OWN = frozenset({"/", "/predict", "/health", "/metrics"})
"""Paths that may stand in counts and logs as they are: all others come from outside."""

OPEN_PATH = "/health"
"""For whoever watches over processes; it says nothing about texts."""

HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""Of every answer: nothing is kept in a cache, taken for another type, or framed."""

_LOCAL = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
"""What a client on this machine calls it. A page whose own name was pointed here says another."""


def body_of(message: str, **more: Any) -> bytes:
    """An error as JSON."""
    return json.dumps({"error": message, **more}).encode()


class Reach(Protocol):
    """Who can reach a server: `serve.options.Options`, or another server's."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can."""

    @property
    def token(self) -> str | None:
        """What a client has to show."""


class Guard:
    """Refuses by Host, token and size, reads the body whole, and puts headers on every answer.

    Args:
        app: what stands behind.
        options: of the server.
        count: told path and status of every answer.

    Attributes:
        headers: of every answer.
        own: paths that may stand in counts and logs as they are.
        open_paths: those that need no token.
    """

    headers: ClassVar[list[tuple[bytes, bytes]]] = HEADERS
    own: ClassVar[frozenset[str]] = OWN
    open_paths: ClassVar[frozenset[str]] = frozenset({OPEN_PATH})

    def __init__(self, app: App, options: Reach, count: Callable[[str, int], None]) -> None:
        self._app, self._loopback, self._count = app, options.loopback, count
        self._held = 0
        self._token = f"Bearer {options.token}".encode() if options.token is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await (self._app(scope, receive, send) if scope["type"] == "lifespan" else send(_CLOSE))
            return
        path, told = scope["path"], _Told(send, self.headers)
        refusal = self.refusal(scope)
        held: list[bytes] = []
        try:
            if refusal is None:
                refusal = await asyncio.wait_for(self._read(receive, held), BODY_S)
            if refusal is not None:
                await told.say(*refusal)
            else:
                await self._app(scope, _given(b"".join(held), receive), told)
        except TimeoutError:
            await told.say(408, f"the request was not whole after {BODY_S:.0f} s")
        except asyncio.CancelledError:  # the grace period of a stop is over
            await told.say(503, "the server is stopping")
        except Gone:
            return
        except Exception as error:  # a bug of ours; its message may repeat a text, so only its kind is told
            sys.stderr.write(f"serve: {path if path in self.own else 'a path'}: {type(error).__name__}\n")
            await told.say(500, "the server failed")
        finally:
            self._held -= sum(map(len, held))
        self._count(path, told.status)

    async def _read(self, receive: Receive, held: list[bytes]) -> tuple[int, str] | None:
        """Read the body into `held`; why it is refused, where it is."""
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Gone
            held.append(message.get("body", b""))
            size += len(held[-1])
            self._held += len(held[-1])
            if size > MOST_BYTES:
                return 413, f"a request has at most {MOST_BYTES:,} bytes"
            if self._held > MOST_HELD:
                return 503, "too much is being sent at once; send it again later"
            if not message.get("more_body"):
                return None

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and words where a request is refused unread; None where it may be read."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if self._loopback and (len(hosts) != 1 or not _LOCAL.fullmatch(hosts[0])):
            return 400, "this server is called localhost or 127.0.0.1"
        if self._token is not None and scope["path"] not in self.open_paths:
            shown = [value for name, value in headers if name == b"authorization"]
            if not hmac.compare_digest(shown[0] if len(shown) == 1 else b"", self._token):
                return 401, "a token is needed, as the header `Authorization: Bearer TOKEN`"
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413, f"a request has at most {MOST_BYTES:,} bytes"
        return None


class Gone(Exception):
    """The client went away before its request was whole."""


class _Told:
    """Sends an answer with the guard's headers, and notes its status."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers = send, headers
        self.status = 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message.get("headers", ())}
            extra = [pair for pair in self._headers if pair[0] not in own]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)

    async def say(self, status: int, words: str) -> None:
        """Refuse, unless an answer has begun. The connection ends: the rest of the request is not read."""
        if self.status:
            return
        body = body_of(words)
        headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def _given(body: bytes, receive: Receive) -> Receive:
    """A body that was read, then whatever the connection says next."""
    left: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> MutableMapping[str, Any]:
        return left.pop() if left else await receive()

    return given


_CLOSE: MutableMapping[str, Any] = {"type": "websocket.close", "code": 1000}
