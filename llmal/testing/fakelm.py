"""FakeLM: an OpenAI-compatible HTTP server whose model is a function, with scripted faults and counters.

Serve recorded answers from a shell with `python -m llmal.testing.fakelm --replay answers.jsonl --port 8001`.

Example:
    >>> with FakeLM(lambda ask: "spam" if "win" in ask.user else "ham") as server:
    ...     server.base_url.startswith("http://127.0.0.1:")
    True
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from aiohttp import web

from llmal.testing.batches import Batches
from llmal.testing.chat import (
    Answer,
    Ask,
    Brain,
    Rejection,
    check_request,
    completion,
    draw,
    item_of,
    limited,
    max_tokens_of,
    prompt_tokens,
    usage_of,
)
from llmal.testing.counters import WHOLE, Bill, Counters
from llmal.testing.faults import KINDS, Fault, status
from llmal.testing.replay import recorded, replay
from llmal.testing.wire import Meeting, Wire

__all__ = ["KINDS", "Answer", "Ask", "Bill", "Brain", "FakeLM", "Fault", "Rejection", "recorded", "replay"]

BACKLOG = 4096  # connections waiting to be accepted; Linux's own default ceiling (net.core.somaxconn)
MAX_REQUEST_BYTES = 64 * 2**20
STOP_GRACE_S = 0.05  # for requests still open at `stop`; hanging ones would never end

A = TypeVar("A")
T = TypeVar("T")
Identify = Callable[[Sequence[Mapping[str, Any]]], str]


class FakeLM(Counters):
    """A server on 127.0.0.1, in a thread of its own, answering chat requests with what the brain says.

    Serves POST /v1/chat/completions, GET /v1/models, GET /health, its counters as JSON at GET
    /fake/counters, and files and batches (`llmal.testing.batches`). Use it as a context manager, or `start`
    and `stop` it; started again it keeps its port and its counters. The counters are those of `Counters`.

    Attributes:
        faults: the script; the first fault that hits a request decides. May be replaced while serving.
        batches: the file and batch endpoints, with a script of their own.

    Args:
        brain: `Ask` -> `Answer` or its content. Called in the server's thread, one call at a time, once per
            choice: it needs no locks and must be quick. It may raise `Rejection`; anything else it raises is
            a status 500 and stands in `errors`.
        model: the only name served; another one is a 404.
        identify: messages -> item id; None: 16 hex digits of the SHA-256 of the last user message.
        faults: the script.
        latency_s: seconds before each answer, or a range, drawn by seed, item, attempt; refusals are quick.
        seed: of latencies and of faults with a share.
        api_key: the key to ask for; None: none. Another one is a 401 that repeats it.
        price: picodollars (1e-12 dollars) per input and per output token; None: everything costs 0.
        supports_logprobs: False: asking for them is a 400.
        max_top_logprobs: count; asking for more is a 400.
        max_model_len: tokens; a request that needs more is a 400.
        keep: requests and bills remembered.
        port: 0: any free one.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        model: str = "fake-lm",
        identify: Identify | None = None,
        faults: Sequence[Fault] = (),
        latency_s: float | tuple[float, float] = 0.0,
        seed: int = 0,
        api_key: str | None = None,
        price: tuple[int, int] | None = None,
        supports_logprobs: bool = True,
        max_top_logprobs: int = 20,
        max_model_len: int = 8192,
        keep: int = 100_000,
        port: int = 0,
    ) -> None:
        super().__init__(price=price, keep=keep)
        self.faults = tuple(faults)
        self.batches = Batches(self)
        self.model = model
        self.port = port
        self._brain = brain
        self._identify = identify or item_of
        self._latency_s = latency_s if isinstance(latency_s, tuple) else (latency_s, latency_s)
        self._seed = seed
        self._api_key = api_key
        self._max_top_logprobs = max_top_logprobs if supports_logprobs else None
        self._max_model_len = max_model_len
        self._meeting = Meeting()
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None

    @property
    def base_url(self) -> str:
        """What a client needs, "http://127.0.0.1:PORT/v1"; known after the start."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> Self:
        """Listens; returns once connections are accepted.

        Raises:
            OSError: the port is taken.
            RuntimeError: already started.
        """
        if self._thread is not None:
            raise RuntimeError("FakeLM is already started")
        ready, self._failure = threading.Event(), None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="FakeLM", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._join()
        return self

    def stop(self) -> None:
        """Closes the port and every connection, cutting off requests still open; does nothing if stopped."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        if self._failure is not None:
            raise self._failure

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:  # noqa: B036 - handed to the thread that waits in `start`
            self._failure = error
        finally:
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self.batches.add_routes(app)
        app.router.add_get("/health", self._health)
        app.router.add_get("/fake/counters", self._counters)
        # Cancellation: as vLLM does, a request ends when its client goes away.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_GRACE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, backlog=BACKLOG).start()
            self.port = runner.addresses[0][1]
            ready.set()
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _counters(self, request: web.Request) -> web.Response:
        return web.json_response(self.snapshot())

    async def _models(self, request: web.Request) -> web.Response:
        try:
            self._check_key(request)
        except Rejection as no:
            return web.json_response(no.body, status=no.status)
        card = {"id": self.model, "object": "model", "created": 0, "owned_by": "llmal", "root": self.model}
        return web.json_response({"object": "list", "data": [card | {"max_model_len": self._max_model_len}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        wire = Wire(request, self, self._meeting)
        self.note_open()
        try:
            await self._converse(wire)
        except Rejection as no:
            await wire.send(json.dumps(no.body).encode(), status=no.status, headers=no.headers)
        finally:
            if not wire.spoke:
                self.note_status(0)
            self.note_closed()
        return wire.response

    async def _converse(self, wire: Wire) -> None:
        key = self._check_key(wire.request)
        ask = self._receive(_parsed(await wire.request.read()))
        fault = self._fault(ask)
        check_request(
            ask.body,
            model=self.model,
            max_top_logprobs=self._max_top_logprobs,
            max_model_len=self._max_model_len,
        )
        wire.item, wire.body = ask.item, self._work(ask, fault, key)
        low, high = self._latency_s
        if high > 0:
            await asyncio.sleep(low + (high - low) * draw(self._seed, "latency", ask.item, ask.attempt))
        if fault is not None and fault.stage == "wire":
            await fault.run(wire)
        else:
            self._meeting.trade(wire)
            await wire.send_whole()

    def _check_key(self, request: web.Request) -> str:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.note_key(key)
        if self._api_key is not None and key != self._api_key:
            raise status(key, status=401)
        return key

    def _receive(self, body: dict[str, Any]) -> Ask:
        messages = tuple(body["messages"])
        item = self._theirs(self._identify, messages)
        return self.note_request(item, messages, body)

    def _theirs(self, call: Callable[[A], T], given: A) -> T:
        """Calls the test's own code; what it raises is noted and becomes a status 500."""
        try:
            return call(given)
        except Rejection:
            raise
        except Exception as error:
            self.note_error(error)
            raise Rejection(500, f"FakeLM: the brain or identify raised {error!r}") from error

    def _fault(self, ask: Ask) -> Fault | None:
        for place, fault in enumerate(self.faults):
            if fault.hits(ask, seed=self._seed, place=place):
                return fault
        return None

    def _work(self, ask: Ask, fault: Fault | None, key: str, *, share: Fraction = WHOLE) -> bytes:
        """Thinks, charges, writes the body; a scripted refusal is raised before, or after if it is billed."""
        refusal = fault if fault is not None and fault.stage == "refuse" else None
        if refusal is not None and not refusal.billed:
            raise refusal.run(key)
        answers = [_after(fault, "answer", answer) for answer in self._think(ask)]
        usage = usage_of(ask, answers)
        if fault is None or fault.billed:
            self.note_charge(ask, usage, "ok" if fault is None else fault.kind, share=share)
        if refusal is not None:
            raise refusal.run(key)
        body = completion(ask, answers, usage)
        return json.dumps(_after(fault, "payload", body)).encode()

    def _think(self, ask: Ask) -> list[Answer]:
        room = self._max_model_len - prompt_tokens(ask.messages)
        limit = min(max_tokens_of(ask.body) or room, room)
        answers = []
        for choice in range(ask.body.get("n") or 1):
            one = ask if choice == 0 else dataclasses.replace(ask, choice=choice)
            answers.append(limited(self._theirs(self._said, one), limit))
        return answers

    def _said(self, ask: Ask) -> Answer:
        said = self._brain(ask)
        if isinstance(said, str):
            return Answer(said)
        if not isinstance(said, Answer):
            raise TypeError(f"the brain returned {said!r}; expected an Answer or a string")
        return said


def _after(fault: Fault | None, stage: str, subject: T) -> T:
    return cast(T, fault.run(subject)) if fault is not None and fault.stage == stage else subject


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not messages or not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise Rejection(400, "Expected a JSON object with a list of messages.", code="invalid_value")
    return cast(dict[str, Any], body)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves recorded answers until SIGINT or SIGTERM; prints the base URL once it listens."""
    parser = argparse.ArgumentParser(prog="python -m llmal.testing.fakelm", description=main.__doc__)
    parser.add_argument("--replay", type=Path, required=True, help="JSONL rows with text, answer, logprobs")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--model", default="fake-lm", help="name to serve")
    args = parser.parse_args(argv)
    try:
        server = FakeLM(recorded(args.replay), model=args.model, port=args.port).start()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())
    sys.stdout.write(f"{server.base_url}\n")
    sys.stdout.flush()
    stopping.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
