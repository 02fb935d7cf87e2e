"""A model server that llmal starts, finds again, and ends: its process, its port, its key, its log."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from llmal.errors import ModelError
from llmal.lm.serverlog import PortTaken, cause, last_line, read

LOOK_S = 10.0
"""Seconds a busy server gets to say that it is well."""

POLL_S = 0.25
"""Seconds between two looks while a server starts."""

SAY_EVERY_S = 10.0
"""Seconds between two lines of progress while a server starts."""

PORTS = 3
"""Ports tried: another process may take a free one before the server does."""

Say = Callable[[str], None]


class Plan(NamedTuple):
    """What to start.

    Attributes:
        name: the model as the user wrote it; also the name it is served under.
        command: the command line, without host and port.
        env: the environment, without the key.
        start_s: seconds it may take until it is well.
        place: key of the pipeline file that errors point at.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    start_s: float
    place: str

    def same(self) -> str:
        """Equal for plans that one server can serve."""
        return hashlib.sha256(json.dumps([self.name, *self.command]).encode()).hexdigest()

    @property
    def log_name(self) -> str:
        """The log's name in the run's folder."""
        return (
            "vllm-"
            + re.sub(r"[^A-Za-z0-9.]+", "-", self.name.rpartition("/")[2].rpartition(":")[2])[:60]
            + ".log"
        )


class Server:
    """One server process, own or found.

    Attributes:
        port: on 127.0.0.1.
        key: what a request has to carry.
    """

    def __init__(
        self, plan: Plan, port: int, key: str, pid: int, keeper: subprocess.Popen[bytes] | None
    ) -> None:
        self.plan, self.port, self.key, self.pid, self._keeper = plan, port, key, pid, keeper
        self._state: Path | None = None

    @property
    def base_url(self) -> str:
        """Address of the OpenAI-compatible interface."""
        return f"http://127.0.0.1:{self.port}/v1"

    def running(self) -> bool:
        """Whether the process is there."""
        return self._keeper.poll() is None if self._keeper else _is_keeper(self.pid)

    async def well(self) -> bool:
        """Whether it says it can answer."""
        return self.running() and (await self.get("/health")) is not None

    async def serves(self) -> bool:
        """Whether it takes our key and has our model."""
        listed = await self.get("/v1/models") if self.running() else None
        try:
            return any(model["id"] == self.plan.name for model in json.loads(listed or "")["data"])
        except (ValueError, LookupError, TypeError):
            return False

    async def get(self, path: str) -> str | None:
        """The body of a page, None where it cannot be had."""
        headers = {"Authorization": f"Bearer {self.key}"}
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}", allow_redirects=False) as answer,
            ):
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ConnectionError, UnicodeDecodeError):
            return None

    def stop(self) -> None:
        """End an own server and its children, and wait for that; one of another process is left alone."""
        _running.pop(self.plan.same(), None)
        if self._keeper is None:
            return
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        try:
            self._keeper.wait(30)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        if self._state is not None:
            self._state.unlink(missing_ok=True)

    def remember(self, state: Path, nonce: str) -> None:
        """Leave word for a later process of the same run; the key cannot be had from it."""
        self._state = state
        known = {"pid": self.pid, "port": self.port, "nonce": nonce, "key": _digest(self.key)}
        part = state.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(known | {"plan": self.plan.same()}), encoding="utf-8")
        part.replace(state)


_running: dict[str, Server] = {}
"""Servers of this process, by what they serve: kept from round to round, for starting one takes a minute."""


@atexit.register
def stop_all() -> None:
    """End every server this process started."""
    for server in list(_running.values()):
        server.stop()


async def serve(plan: Plan, folder: Path, secret: bytes, say: Say) -> Server:
    """A server for the plan: this process's, else one another process of this run left, else a new one.

    Args:
        plan: what is needed.
        folder: of the run: holds the log, and word of the server while it runs.
        secret: of the run; keys are made from it and a random number, and never written down.
        say: shows a line of progress.

    Raises:
        ModelError: it did not start; the message holds the line of its log that matters.
        MissingExtra: vLLM is not installed.
    """
    kept = _running.get(plan.same())
    if kept is not None and kept.running():
        return kept
    if kept is not None:
        kept.stop()
    log = folder / plan.log_name
    state = log.with_suffix(".json")
    found = _left(plan, state, secret)
    if found is not None and await found.serves():
        say(f"{plan.name}: a server of this run is still there (port {found.port})")
        return found
    for last in range(PORTS - 1, -1, -1):
        nonce = secrets.token_hex(16)
        server = _launch(plan, log, _key(secret, nonce))
        try:
            await _until_well(server, log, say)
        except BaseException as error:
            server.stop()
            if last and isinstance(error, PortTaken):
                continue
            raise
        _running[plan.same()] = server
        server.remember(state, nonce)
        return server
    raise AssertionError("unreachable")


def _launch(plan: Plan, log: Path, key: str) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log.unlink(missing_ok=True)
    keeper = str(Path(__file__).with_name("keeper.py"))
    command = [
        sys.executable,
        "-I",
        keeper,
        str(log),
        *plan.command,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**plan.env, "VLLM_API_KEY": key},
        start_new_session=True,  # Ctrl-C is for llmal, which lets open calls finish first
    )
    return Server(plan, port, key, process.pid, process)


async def _until_well(server: Server, log: Path, say: Say) -> None:
    started = time.monotonic()
    said = started
    while not await server.well():
        now = time.monotonic()
        if not server.running():
            raise cause(read(log), server.plan.name, place=server.plan.place, log_name=log.name)
        if now - started > server.plan.start_s:
            raise ModelError(
                f"the server was not ready after {server.plan.start_s:g} s ({last_line(read(log))})",
                where=server.plan.name,
                hint=f"Raise {server.plan.place}.vllm.start_s; the log is {log.name} in the run's folder",
            )
        if now - said >= SAY_EVERY_S:
            said = now
            say(f"{server.plan.name}: starting for {now - started:.0f} s; {last_line(read(log))}")
        await asyncio.sleep(POLL_S)
    say(f"{server.plan.name}: ready after {time.monotonic() - started:.0f} s")


def _left(plan: Plan, state: Path, secret: bytes) -> Server | None:
    """The server another process left word of, where it is for this plan and made by this run's secret."""
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
        key = _key(secret, known["nonce"])
        ours = known["plan"] == plan.same() and hmac.compare_digest(known["key"], _digest(key))
        return Server(plan, int(known["port"]), key, int(known["pid"]), None) if ours else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_keeper(pid: int) -> bool:
    """Whether a process is there and, where that can be seen, is a keeper: numbers are used again."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    line = Path(f"/proc/{pid}/cmdline")
    return b"keeper.py" in line.read_bytes() if line.exists() else True


def _key(secret: bytes, nonce: str) -> str:
    return hmac.new(secret, f"server {nonce}".encode(), hashlib.sha256).hexdigest()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
