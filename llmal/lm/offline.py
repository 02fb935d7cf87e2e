"""The line to a vLLM in this process: requests gather into batches, and each gets its own answer back."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from llmal.errors import ModelError
from llmal.extras import need
from llmal.lm.http import Line
from llmal.lm.wire import Failure, Reply, Request, read_refusal, read_reply

if TYPE_CHECKING:
    from llmal.lm.vllm import VllmEndpoint

WINDOW_S = 0.01
"""Seconds a batch waits for more requests; while one is worked on, the next gathers anyway."""

FIELDS = {"max_tokens", "temperature", "seed", "top_p", "stop", "presence_penalty", "frequency_penalty"}
"""Fields of a request that mean the same to the engine; log-probabilities are translated."""

LENGTHS = {"max_completion_tokens": "max_tokens"}
"""The newer name of a field."""

Answers = Callable[[Sequence[Request]], "list[str | Exception]"]
"""Asks the engine about a batch: for each request the body of a chat completion, or why there is none."""

_engines: dict[str, Any] = {}
_one_at_a_time = threading.Lock()


class Offline(Line):
    """The line to an engine in this process, which is loaded once and kept.

    Args:
        endpoint: the model, and how to run it.
        path: what is loaded: a folder, or a name at the hub.
        answers: asks the engine; vLLM's when absent.
    """

    def __init__(self, endpoint: VllmEndpoint, path: str, answers: Answers | None = None) -> None:
        self.endpoint, self.path, self._answers = endpoint, path, answers
        self._waiting: list[tuple[Request, asyncio.Future[str | Exception]]] = []

    async def open(self) -> None:
        """Load the model, in a thread that also does all later work with it.

        Raises:
            ModelError: it cannot be loaded.
            MissingExtra: vLLM is not installed in this interpreter.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llmal-vllm")
        self._came = asyncio.Event()
        loop = asyncio.get_running_loop()
        if self._answers is None:
            engine = await loop.run_in_executor(self._thread, load, self.endpoint, self.path)
            self._answers = lambda requests: answer(engine, requests)
        self._working = asyncio.ensure_future(self._work(self._answers))

    async def close(self) -> None:
        """Stop gathering; the engine stays for the next stage."""
        self._working.cancel()
        await asyncio.gather(self._working, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def send(self, request: Request, request_hash: str) -> Reply | Failure:
        """Put the request into the next batch and wait for its answer."""
        future: asyncio.Future[str | Exception] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._came.set()
        end = await future
        if isinstance(end, str):
            return read_reply(end, request_hash)
        if isinstance(end, (ValueError, TypeError, NotImplementedError)):  # this request, not the engine
            return read_refusal(400, json.dumps({"error": {"message": str(end)}}), None)
        words = " ".join(f"{type(end).__name__}: {end}".split())[:200]
        return Failure("engine_died", f"vLLM stopped ({words})", fatal=True)

    async def _work(self, answers: Answers) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._came.wait()
            await asyncio.sleep(WINDOW_S)
            self._came.clear()
            batch, self._waiting = self._waiting, []
            try:
                ends = await loop.run_in_executor(self._thread, answers, [request for request, _ in batch])
            except Exception as error:
                ends = [error] * len(batch)
            for (_, future), end in zip(batch, ends, strict=True):
                if not future.done():  # a second Ctrl-C has given up on it
                    future.set_result(end)


def load(endpoint: VllmEndpoint, path: str) -> Any:
    """The engine for a model, loaded once a process.

    Raises:
        ModelError: vLLM cannot load it.
        MissingExtra: vLLM is not installed in this interpreter.
    """
    from llmal.lm.vllm import engine_args, engine_env

    options = ["--model", path, "--served-model-name", endpoint.model, *engine_args(endpoint.options)]
    name = json.dumps(options)
    with _one_at_a_time:
        if name not in _engines:
            os.environ.update(engine_env(path))
            if endpoint.options.tensor_parallel == 1:  # no second process to talk to
                os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            need("vllm", extra="vllm", why=f"for {endpoint.model}")
            try:
                _engines[name] = _engine(options)
            except SystemExit as error:
                words = "vLLM does not know an option"
                raise ModelError(words, where=f"{endpoint.place}.vllm.args") from error
            except Exception as error:
                words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                hint = f"Check {endpoint.place}.model and {endpoint.place}.vllm"
                raise ModelError(f"vLLM cannot load it ({words})", where=endpoint.model, hint=hint) from error
        return _engines[name]


def _engine(options: list[str]) -> Any:
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    return LLM.from_engine_args(EngineArgs.from_cli_args(parser.parse_args(options)))


def answer(engine: Any, requests: Sequence[Request]) -> list[str | Exception]:
    """What the engine says to a batch; a request it refuses is found by halving and spoils no other."""
    if not requests:
        return []
    try:
        params = [sampling(request.options) for request in requests]
        talks = [list(request.messages) for request in requests]
        outputs = engine.chat(talks, params, use_tqdm=False)
    except (ValueError, TypeError) as error:
        if len(requests) == 1:
            return [error]
        half = len(requests) // 2
        return [*answer(engine, requests[:half]), *answer(engine, requests[half:])]
    return [completion(r, output) for r, output in zip(requests, outputs, strict=True)]


def sampling(options: Mapping[str, Any]) -> Any:
    """What vLLM calls the fields of a request.

    Raises:
        ValueError: a field that is not carried, or a value vLLM refuses.
    """
    from vllm import SamplingParams

    given = {LENGTHS.get(name, name): value for name, value in options.items()}
    top, wanted = given.pop("top_logprobs", None), given.pop("logprobs", False)
    unknown = sorted(set(given) - FIELDS)
    if unknown:
        raise ValueError(f"vllm-offline does not carry {', '.join(unknown)}")
    return SamplingParams(**given, logprobs=(top or 0) if wanted else None)


def completion(request: Request, output: Any) -> str:
    """The body of a chat completion, as the server would have written it, for one output of the engine."""
    said = output.outputs[0]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": said.text},
        "finish_reason": said.finish_reason,
    }
    if said.logprobs is not None:
        most = int(request.options.get("top_logprobs") or 0)
        pairs = zip(said.token_ids, said.logprobs, strict=True)
        choice["logprobs"] = {"content": [_token(found, token, most) for token, found in pairs]}
    read, made = len(output.prompt_token_ids), len(said.token_ids)
    usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    kind = {"object": "chat.completion", "created": int(time.time()), "model": request.model}
    return json.dumps({**kind, "choices": [choice], "usage": usage})


def _token(found: Mapping[int, Any], token: int, most: int) -> dict[str, Any]:
    """One token with its candidates; -9999 stands for minus infinity, which JSON has no word for."""

    def entry(number: int) -> dict[str, Any]:
        return {"token": found[number].decoded_token or "", "logprob": max(found[number].logprob, -9999.0)}

    return {**entry(token), "top_logprobs": [entry(number) for number in list(found)[:most]]}
