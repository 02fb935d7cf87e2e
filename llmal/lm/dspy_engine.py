"""DSPy over the transport: while an optimiser runs, its calls pass the same door, ledger and budget."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from llmal.errors import LlmalError, ModelError
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Reply, Request
from llmal.prompts.program import dspy

T = TypeVar("T")

_FIELDS = ("temperature", "top_p", "seed")


class TransportEngine:
    """DSPy's engine protocol, `complete(Request) -> Response`, on an llmal transport.

    DSPy's own cache, retries and second adapter call are off (see `language_model`), so the attempts at the
    endpoint are those the transport is configured for.

    Args:
        transport: open, on `loop`.
        loop: runs in a thread of its own.
        model: the model's name at the endpoint; to DSPy it has none, or its rules for some names would apply.
        limit_name: the field that bounds an answer's length.
        heat: whether the endpoint lets a temperature be set; without it, none is sent.
        done: called after each answer, kept ones included, from DSPy's threads.

    Attributes:
        stopped: why no further call is made; optimisers swallow errors and go on with the next example.
        calls: answers given so far, kept ones included.
    """

    def __init__(
        self,
        transport: Transport,
        loop: asyncio.AbstractEventLoop,
        model: str,
        limit_name: str,
        heat: bool = True,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._model = model
        self._limit_name = limit_name
        self._heat = heat
        self._done = done
        self.stopped: LlmalError | None = None
        self.calls = 0

    def complete(self, request: Any) -> Any:
        """Answer one DSPy request; called from DSPy's threads.

        Raises:
            ModelError: the call failed; the reason stands in the message.
            LlmalError: no call can succeed any more; this one was not sent.
        """
        if self.stopped is not None:
            raise self.stopped
        options = _options(request.config, self._limit_name, self._heat)
        ours = Request("optimise", self._model, _messages(request), options)
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
        self.calls += 1
        self._done()
        return _response(end, request.model)


@contextmanager
def language_model(
    transport: Transport,
    model: str,
    *,
    max_tokens: int,
    limit_name: str = "max_tokens",
    heat: bool = True,
    done: Callable[[], None] = lambda: None,
    **options: Any,
) -> Iterator[Any]:
    """A `dspy.LM` whose every call goes through the transport; for use in plain, synchronous code.

    Use it as `dspy.context(lm=lm, adapter=adapter())`, with the adapter of `llmal.prompts.program`.

    Args:
        transport: not yet entered; it is opened and closed here, on a loop of its own.
        model: the model's name at the endpoint.
        max_tokens: most tokens of an answer: without it no budget could hold.
        limit_name: the field that says so, as the endpoint calls it (`Abilities.limit_name`).
        heat: whether a temperature may be set (`Abilities.temperature`).
        done: called after each answer, from DSPy's threads.
        **options: further fields of the request, such as `temperature`, or `logprobs` and `top_logprobs`.

    Gives:
        The model; its `asked()` counts the answers it got, kept ones included.

    Raises:
        LlmalError: budget, key or store ended the calls, whatever DSPy made of it.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="llmal-dspy", daemon=True)
    thread.start()

    def wait(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    wait(transport.__aenter__())
    engine = TransportEngine(transport, loop, model, limit_name, heat, done)
    try:
        model_ = _kind()("llmal", engine=engine, cache=False, num_retries=0, max_tokens=max_tokens, **options)
        model_.asked = lambda: engine.calls
        yield model_
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


@cache
def _kind() -> Any:
    """DSPy's language model, whose copies for another sample of one question ask with another seed.

    DSPy tells such copies apart in its cache alone, which is off; to the ledger they would be one question.
    """

    class Sampled(dspy().LM):  # type: ignore[misc]
        def copy(self, **changes: Any) -> Any:
            rollout = changes.pop("rollout_id", None)
            return super().copy(**changes, **({} if rollout is None else {"seed": int(rollout)}))

    return Sampled


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


def _options(config: Any, limit_name: str, heat: bool) -> dict[str, Any]:
    fields = {name: getattr(config, name) for name in _FIELDS if heat or name != "temperature"}
    if config.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": config.logprobs}
    return {limit_name: config.max_tokens, **{name: v for name, v in fields.items() if v is not None}}


def _response(reply: Reply, model: str) -> Any:
    lm15 = dspy().lm15
    message = lm15.Message.assistant(reply.refusal or reply.content)
    usage = lm15.Usage(input_tokens=reply.tokens_in, output_tokens=reply.tokens_out)
    ends = {"length": "length", "content_filter": "content_filter"}
    finish = ends.get(reply.finish_reason, "stop")
    return lm15.Response(None, reply.model or model, message, finish, usage)
