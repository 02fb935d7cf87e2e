"""Chat requests and answers as FakeLM sees them, and their OpenAI-compatible bodies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

CHARS_PER_TOKEN = 4  # the usual rule of thumb for English; only its being fixed matters here
TOKENS_PER_MESSAGE = 4  # role and separators, as in chat templates
UNLISTED_LOGPROB = -9999.0  # what OpenAI sends for a token outside its candidates
_ERROR_TYPES = {
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Ask:
    """One chat request as the brain sees it.

    Attributes:
        messages: the request's messages, in order.
        model: name in the request.
        body: the whole request body.
        item: id of the item, as `identify(messages)` returned it.
        attempt: 1 the first time this item is asked, 2 the next, ...
        number: of the request, from 1, over all items.
        choice: 0 to n - 1; which of the `n` choices of one request is wanted.
    """

    messages: tuple[Mapping[str, Any], ...]
    model: str
    body: Mapping[str, Any]
    item: str
    attempt: int
    number: int = 1
    choice: int = 0

    @property
    def system(self) -> str:
        """Text of the first system message, or ""."""
        return next((text_of(m) for m in self.messages if m.get("role") == "system"), "")

    @property
    def user(self) -> str:
        """Text of the last user message, or ""."""
        return next((text_of(m) for m in reversed(self.messages) if m.get("role") == "user"), "")


@dataclass(frozen=True)
class Answer:
    """What the brain says.

    Attributes:
        content: the text, or None.
        logprobs: one (token, {candidate token: log-probability}) per output token, or None: then a client
            that asks for log-probabilities gets `"logprobs": null`, never invented numbers.
        finish_reason: as in the OpenAI interface.
        refusal: text of a refusal, or None.
        prompt_tokens: count; None: 4 per message plus one for every 4 characters of it, rounded up.
        completion_tokens: count; None: the number of tokens in `logprobs`, without those one for every 4
            characters of content and refusal, rounded up.
        model: name the reply carries; None: the one asked for.
    """

    content: str | None
    logprobs: Sequence[tuple[str, Mapping[str, float]]] | None = None
    finish_reason: str = "stop"
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None


Brain = Callable[[Ask], Answer | str]


class Usage(NamedTuple):
    """Tokens of one request."""

    prompt: int
    completion: int


class Rejection(Exception):
    """An answer with an error status and an OpenAI-shaped body; a brain may raise it.

    Args:
        status: HTTP status.
        message: for `error.message`.
        code: for `error.code`, or None.
        type: for `error.type`; None: chosen by the status.
        headers: extra HTTP headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        by_status = "server_error" if status >= 500 else "invalid_request_error"
        self.status = status
        self.headers = dict(headers or {})
        kind = type or _ERROR_TYPES.get(status, by_status)
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


def text_of(message: Mapping[str, Any]) -> str:
    """Text of a message: its content, or the text parts of a list joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def item_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """First 16 hex digits of the SHA-256 of the last user message: the default item id."""
    text = next((text_of(m) for m in reversed(messages) if m.get("role") == "user"), "")
    # Lone surrogates survive JSON; they must get an id, not a UnicodeEncodeError.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def draw(*parts: object) -> float:
    """Uniform number in [0, 1) that depends on the parts alone, not on who drew before."""
    joined = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=6).digest(), "big") / 2**48


def tokens_in(text: str) -> int:
    """Estimated tokens of a text: one for every 4 characters, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Estimated tokens of a prompt: those of every message, and 4 more for each."""
    return sum(TOKENS_PER_MESSAGE + tokens_in(text_of(m)) for m in messages)


def completion_tokens(answer: Answer) -> int:
    """Tokens of an answer: as it says, else as `Answer` documents."""
    if answer.completion_tokens is not None:
        return answer.completion_tokens
    if answer.logprobs is not None:
        return len(answer.logprobs)
    return tokens_in(answer.content or "") + tokens_in(answer.refusal or "")


def limited(answer: Answer, max_tokens: int) -> Answer:
    """The answer, cut and marked `length` if it has more than `max_tokens` tokens, as real servers do."""
    if completion_tokens(answer) <= max_tokens:
        return answer
    return replace(
        answer,
        content=answer.content and answer.content[: max_tokens * CHARS_PER_TOKEN],
        logprobs=answer.logprobs and answer.logprobs[:max_tokens],
        finish_reason="length",
        completion_tokens=max_tokens,
    )


def usage_of(ask: Ask, answers: Sequence[Answer]) -> Usage:
    """Tokens of one request: its prompt once, all of its choices."""
    stated = answers[0].prompt_tokens
    return Usage(
        prompt_tokens(ask.messages) if stated is None else stated,
        sum(map(completion_tokens, answers)),
    )


def completion(ask: Ask, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
    """Body of a chat completion."""
    return {
        "id": f"chatcmpl-fake-{ask.number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answers[0].model or ask.model,
        "choices": [_choice(ask, answer, index) for index, answer in enumerate(answers)],
        "usage": {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
        },
    }


def _choice(ask: Ask, answer: Answer, index: int) -> dict[str, Any]:
    logprobs = None
    if ask.body.get("logprobs") and answer.logprobs is not None:
        k = ask.body.get("top_logprobs") or 0
        logprobs = {"content": [_token(t, c, k) for t, c in answer.logprobs], "refusal": None}
    return {
        "index": index,
        "message": {"role": "assistant", "content": answer.content, "refusal": answer.refusal},
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
    }


def _token(token: str, candidates: Mapping[str, float], k: int) -> dict[str, Any]:
    likeliest = sorted(candidates.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    entry = _logprob(token, candidates.get(token, UNLISTED_LOGPROB))
    return entry | {"top_logprobs": [_logprob(t, p) for t, p in likeliest]}


def _logprob(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "surrogatepass"))}


def check_request(
    body: Mapping[str, Any], *, model: str, max_top_logprobs: int | None, max_model_len: int
) -> None:
    """Refuses what a real server would refuse.

    Args:
        body: of the request; its messages are already known to be a list of objects.
        model: the name served.
        max_top_logprobs: most candidates per token; None: log-probabilities are not supported.
        max_model_len: tokens; prompt and `max_tokens` together must fit.

    Raises:
        Rejection: 404 for another model; 400 for the rest.
    """
    if body.get("model") != model:
        name = body.get("model")
        raise Rejection(404, f"The model `{name}` does not exist; served: `{model}`.", code="model_not_found")
    if body.get("stream"):
        raise Rejection(400, "stream: not supported by FakeLM.", code="unsupported_parameter")
    n = body.get("n")
    if n is not None and not (_is_int(n) and 1 <= n <= 128):
        raise Rejection(400, f"n: {n!r}; expected 1 to 128.", code="invalid_value")
    _check_logprobs(body, max_top_logprobs)
    _check_length(body, max_model_len)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_logprobs(body: Mapping[str, Any], max_top_logprobs: int | None) -> None:
    asked, k = body.get("logprobs"), body.get("top_logprobs")
    if max_top_logprobs is None and (asked or k is not None):
        raise Rejection(400, "logprobs: not supported by this model.", code="unsupported_parameter")
    if k is None:
        return
    if not asked:
        raise Rejection(400, "top_logprobs: needs logprobs to be true.", code="invalid_value")
    if not _is_int(k) or not 0 <= k <= (max_top_logprobs or 0):
        raise Rejection(400, f"top_logprobs: {k!r}; expected 0 to {max_top_logprobs}.", code="invalid_value")


def max_tokens_of(body: Mapping[str, Any]) -> int | None:
    """The request's limit on output tokens, under either of its names; None: no limit of its own."""
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            return int(body[name])
    return None


def _check_length(body: Mapping[str, Any], max_model_len: int) -> None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if limit is not None and not (_is_int(limit) and limit >= 1):
            raise Rejection(400, f"{name}: {limit!r}; expected a whole number above 0.", code="invalid_value")
    prompt, output = prompt_tokens(body["messages"]), max_tokens_of(body)
    if prompt + (output or 1) > max_model_len:
        raise Rejection(
            400,
            f"This model's maximum context length is {max_model_len} tokens. However, you requested "
            f"{prompt + (output or 0)} tokens ({prompt} in the messages, {output or 0} in the completion).",
            code="context_length_exceeded",
        )
