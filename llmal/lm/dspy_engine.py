"""DSPy over the transport: while an optimiser runs, its calls pass the same door, ledger and budget."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from llmal.errors import LlmalError, ModelError
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Reply, Request
from llmal.prompts.program import dspy

T = TypeVar("T")

_FIELDS = ("temperature", "top_p")


class TransportEngine:
    """DSPy's engine protocol, `complete(Request) -> Response`, on an llmal transport.

    DSPy's own cache, retries and second adapter call are off (see `language_model`), so the attempts at the
    endpoint are those the transport is configured for.

    Attributes:
        stopped: why no further call is made; optimisers swallow errors and go on with the next example.
    """

    def __init__(self, transport: Transport, loop: asyncio.AbstractEventLoop, limit_name: str) -> None:
        self._transport = transport
        self._loop = loop
        self._limit_name = limit_name
        self.stopped: LlmalError | None = None

    def complete(self, request: Any) -> Any:
        """Answer one DSPy request; called from DSPy's threads.

        Raises:
            ModelError: the call failed; the reason stands in the message.
            LlmalError: no call can succeed any more; this one was not sent.
        """
        if self.stopped is not None:
            raise self.stopped
        ours = Request(
            "optimise", request.model, _messages(request), _options(request.config, self._limit_name)
        )
        ask = self._transport.ask(ours, lambda _request, _end: [])
        try:
            end = asyncio.run_coroutine_threadsafe(ask, self._loop).result()
        except LlmalError as error:
            self.stopped = error
            raise
        if isinstance(end, Failure):
            raise ModelError(
                f"{end.reason}: {end.detail}".rstrip(": "), where=self._transport.endpoint.base_url
            )
        return _response(end, request.model)


@contextmanager
def language_model(
    transport: Transport, model: str, *, max_tokens: int, limit_name: str = "max_tokens", **options: Any
) -> Iterator[Any]:
    """A `dspy.LM` whose every call goes through the transport; for use in plain, synchronous code.

    Use it as `dspy.context(lm=lm, adapter=adapter())`, with the adapter of `llmal.prompts.program`.

    Args:
        transport: not yet entered; it is opened and closed here, on a loop of its own.
        model: the model's name at the endpoint.
        max_tokens: most tokens of an answer: without it no budget could hold.
        limit_name: the field that says so, as the endpoint calls it (`Abilities.limit_name`).
        **options: further fields of the request, such as `temperature`.

    Raises:
        LlmalError: budget, key or store ended the calls, whatever DSPy made of it.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="llmal-dspy", daemon=True)
    thread.start()

    def wait(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    wait(transport.__aenter__())
    engine = TransportEngine(transport, loop, limit_name)
    try:
        yield dspy().LM(model, engine=engine, cache=False, num_retries=0, max_tokens=max_tokens, **options)
        if engine.stopped is not None:
            raise engine.stopped
    except Exception as error:
        if engine.stopped is None or error is engine.stopped:
            raise
        raise engine.stopped from error
    finally:
        wait(transport.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _messages(request: Any) -> list[dict[str, str]]:
    system = request.system
    first = (
        []
        if system is None
        else [{"role": "system", "content": system if isinstance(system, str) else _text(system)}]
    )
    return first + [{"role": m.role, "content": _text(m.parts)} for m in request.messages]


def _text(parts: Any) -> str:
    return "".join(part.text for part in parts if part.type == "text")


def _options(config: Any, limit_name: str) -> dict[str, Any]:
    fields = {name: getattr(config, name) for name in _FIELDS}
    return {limit_name: config.max_tokens, **{name: v for name, v in fields.items() if v is not None}}


def _response(reply: Reply, model: str) -> Any:
    lm15 = dspy().lm15
    message = lm15.Message.assistant(reply.refusal or reply.content)
    usage = lm15.Usage(input_tokens=reply.tokens_in, output_tokens=reply.tokens_out)
    ends = {"length": "length", "content_filter": "content_filter"}
    finish = ends.get(reply.finish_reason, "stop")
    return lm15.Response(None, reply.model or model, message, finish, usage)
