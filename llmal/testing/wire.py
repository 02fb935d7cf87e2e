"""The way of a response to its client, and the faults that happen on it."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from aiohttp import web

from llmal.testing.counters import Counters

JSON_HEADERS = {"Content-Type": "application/json"}


class Wire:
    """The way back to one client: what leaves, and what the counters say about it.

    Attributes:
        request: the client's request.
        counters: of the server.
        meeting: of the server; where answers are exchanged.
        item: the request's item id; "" until it is known.
        body: the chat completion to send; empty until it is known.
        response: what aiohttp is handed at the end.
        spoke: whether a status line left, or was about to.
    """

    def __init__(self, request: web.Request, counters: Counters, meeting: Meeting) -> None:
        self.request, self.counters, self.meeting = request, counters, meeting
        self.item, self.body, self.spoke = "", b"", False
        self.response: web.StreamResponse = web.Response()

    async def send(self, data: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Sends `data` as a whole response, as JSON unless the headers say otherwise."""
        self._speak(status)
        self.response = web.Response(body=data, status=status, headers=JSON_HEADERS | dict(headers or {}))
        await self.response.prepare(self.request)
        await self.response.write_eof()

    async def send_whole(self) -> None:
        """Sends the chat completion and counts the request as answered."""
        with self.answering():
            await self.send(self.body)

    async def open(self, n_bytes: int) -> web.StreamResponse:
        """Sends status 200 and announces `n_bytes`; the connection closes after the response."""
        self._speak(200)
        self.response = web.StreamResponse(headers=JSON_HEADERS | {"Content-Length": str(n_bytes)})
        self.response.force_close()
        await self.response.prepare(self.request)
        return self.response

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts the request as answered before its last byte leaves, and takes it back if that fails."""
        # Before, because a client that has read the answer must find it counted.
        self.counters.note_answered(self.item, 1)
        try:
            yield
        except (ConnectionError, asyncio.CancelledError):
            self.counters.note_answered(self.item, -1)
            raise

    def _speak(self, status: int) -> None:
        self.spoke = True
        self.counters.note_status(status)


class Meeting:
    """Where a request whose answer is to be exchanged waits for one of another item."""

    def __init__(self) -> None:
        self._waiting: tuple[Wire, asyncio.Event] | None = None

    def trade(self, wire: Wire) -> bool:
        """Exchanges bodies with the request that waits; False if there is none, or only the same item's."""
        if self._waiting is None or self._waiting[0].item == wire.item:
            return False
        (other, met), self._waiting = self._waiting, None
        other.body, wire.body = wire.body, other.body
        wire.counters.note_swap(other.item, wire.item)
        met.set()
        return True

    async def wait(self, wire: Wire, seconds: float) -> None:
        """Exchanges bodies with the request that waits, or with the first to come within `seconds`."""
        if self.trade(wire):
            return
        met = asyncio.Event()
        self._waiting = (wire, met)
        try:
            async with asyncio.timeout(seconds):
                await met.wait()
        except TimeoutError:
            pass
        finally:
            if self._waiting is not None and self._waiting[0] is wire:
                self._waiting = None


async def html(wire: Wire) -> None:
    """Status 200 and a web page, as from a login wall."""
    page = b"<!doctype html><title>Sign in</title><p>Please sign in to this network."
    await wire.send(page, headers={"Content-Type": "text/html"})


async def cut_json(wire: Wire) -> None:
    """Status 200 and the first half of the JSON."""
    await wire.send(wire.body[: len(wire.body) // 2])


async def empty_body(wire: Wire) -> None:
    """Status 200 and nothing."""
    await wire.send(b"")


async def reset(wire: Wire) -> None:
    """The connection is reset before any byte of an answer."""
    transport = wire.request.transport
    if transport is not None:
        # Linger 0 makes the close a TCP reset instead of an orderly end.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


async def cut_body(wire: Wire) -> None:
    """The header announces the whole body; the connection closes after half of it."""
    response = await wire.open(len(wire.body))
    await response.write(wire.body[: len(wire.body) // 2])


async def hang(wire: Wire, *, seconds: float = 30.0) -> None:
    """No byte for so many seconds; then the answer, if the client still waits."""
    await asyncio.sleep(seconds)
    await wire.send_whole()


async def drip(wire: Wire, *, gap_s: float = 9.0) -> None:
    """The body one byte at a time, so many seconds apart."""
    response = await wire.open(len(wire.body))
    for index in range(len(wire.body) - 1):
        await response.write(wire.body[index : index + 1])
        await asyncio.sleep(gap_s)
    with wire.answering():
        await response.write(wire.body[-1:])


async def bad_gzip(wire: Wire) -> None:
    """A body that says it is gzip and is not."""
    await wire.send(wire.body, headers={"Content-Encoding": "gzip"})


async def gzip_bomb(wire: Wire, *, megabytes: int = 64) -> None:
    """A small gzip that expands to so many megabytes of spaces."""
    await wire.send(_spaces(megabytes), headers={"Content-Encoding": "gzip"})


@lru_cache(maxsize=4)
def _spaces(megabytes: int) -> bytes:
    packer = zlib.compressobj(wbits=31)  # 31: gzip framing
    chunks = [packer.compress(b" " * 2**20) for _ in range(megabytes)]
    return b"".join(chunks) + packer.compress(b"{}") + packer.flush()


async def swap(wire: Wire, *, wait_s: float = 1.0) -> None:
    """Whole answers of this and the next concurrent request of another item exchanged; its own if none comes.

    Each item is charged for itself. The partner is the next request whose body travels undisturbed, or that
    is to be swapped too.
    """
    await wire.meeting.wait(wire, wait_s)
    await wire.send_whole()
