"""The OpenAI chat protocol as records: a request, its reply, or the reason there is none."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from llmal.records import canonical

try:
    from orjson import loads as _quick_loads
except ImportError:  # it comes with DSPy, and is no dependency of llmal's own
    _quick_loads = json.loads  # type: ignore[assignment]

Message = Mapping[str, str]

RetryClass = Literal["rate_limit", "server", "malformed", "connect", "timeout"]


class _Request(NamedTuple):
    purpose: str
    model: str
    messages: Sequence[Message]
    options: Mapping[str, Any]
    item: int | None = None
    prompt: str = ""
    group: tuple[int, ...] = ()
    ask: int = 0


class Request(_Request):
    """One chat request; what is derived from it is worked out once.

    Attributes:
        purpose: what it is paid for: `annotate`, `probe`, `optimise`.
        model: the model's name at the endpoint.
        messages: role and content, in order.
        options: every other field of the body.
        item: `seq` of the item asked about, or None.
        prompt: recipe of the unchanging part, for provenance.
        group: the `seq` of every item asked about, where there are several; `item` is then the first.
        ask: which of the questions about the item this is, from 0.
    """

    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {"model": self.model, "messages": list(self.messages), **self.options}

    @cached_property
    def text(self) -> str:
        """The body as JSON text, as it is sent: sorted keys, ASCII only, which half a surrogate survives."""
        return canonical(self.body())

    @cached_property
    def _hash(self) -> str:
        # The same as `recipe("request", self.body())`, without writing the body as JSON a second time.
        whole = f'["request",{self.text}]'
        return f"request-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    def hash(self) -> str:
        """Identity of the question: the same body is never paid for twice."""
        return self._hash

    def row(self) -> dict[str, Any]:
        """Row of the request table; the body is kept whole where no prompt file can rebuild it."""
        body = None if self.prompt else self.text
        columns = {
            "purpose": self.purpose,
            "model": self.model,
            "prompt": self.prompt,
            "item": self.item,
            "body": body,
            "several": canonical(self.group) if self.group else None,
        }
        return {"hash": self.hash(), **columns}

    @cached_property
    def _bytes_in(self) -> int:
        texts = [m["content"] for m in self.messages]
        return sum(len(x) if x.isascii() else len(x.encode("utf-8", "replace")) for x in texts)

    def bytes_in(self) -> int:
        """UTF-8 bytes of the messages: no byte-level tokenizer makes more tokens of them than that."""
        return self._bytes_in

    def max_tokens(self) -> int:
        """Most tokens the answer may have."""
        return int(self.options.get("max_tokens") or self.options.get("max_completion_tokens") or 0)


class Token(NamedTuple):
    """One token of an answer: its text and candidate -> log-probability at its place."""

    text: str
    top: Mapping[str, float]


class Reply(NamedTuple):
    """One answer of a model.

    Attributes:
        content: the text, empty when there is none.
        finish_reason: `stop`, `length`, `content_filter`, ...
        refusal: the refusal's text when the protocol says it refused.
        tokens: per-token log-probabilities, or None.
        model: the name the server gave.
        tokens_in, tokens_out: usage, or None when the server did not say.
        request: hash of the request.
        raw: the body as stored, keys redacted.
    """

    content: str
    finish_reason: str
    refusal: str | None
    tokens: tuple[Token, ...] | None
    model: str
    tokens_in: int | None
    tokens_out: int | None
    request: str
    raw: str


class Failure(NamedTuple):
    """Why there is no answer: a reason to count by, and the server's words."""

    reason: str
    detail: str = ""
    http: int | None = None
    retry: RetryClass | None = None
    fatal: bool = False
    wait_s: float | None = None
    charged: Literal["no", "unknown", "unsent"] = "no"


def read_reply(raw: str, request: str) -> Reply | Failure:
    """A chat completion from the body of a 200, or the failure it stands for."""
    broken = Failure("malformed", retry="malformed", http=200, charged="unknown")
    try:
        body = _loads(raw)
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content")
        usage = body.get("usage") or {}
        tokens = _tokens(choice.get("logprobs"))
        tokens_in, tokens_out = (_count(usage.get(k)) for k in ("prompt_tokens", "completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return broken._replace(detail=_start(raw) or "empty body")
    if content is not None and not isinstance(content, str):
        return broken._replace(detail="content is not text")
    return Reply(
        _text(content),
        str(choice.get("finish_reason") or ""),
        _text(message.get("refusal")) or None,
        tokens,
        _text(body.get("model")),
        tokens_in,
        tokens_out,
        request,
        raw,
    )


def _loads(raw: str) -> Any:
    """JSON read by a quick parser where it can: it refuses NaN, numbers out of range and half a surrogate."""
    try:
        return _quick_loads(raw)
    except ValueError:
        return json.loads(raw)


def _text(value: Any) -> str:
    """Text that any file can hold: half a surrogate pair, which JSON can spell, becomes a question mark."""
    text = str(value or "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _count(tokens: Any) -> int | None:
    """Tokens as the server counts them; None for what is no count, or one that no call can reach."""
    return (
        tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**31 else None
    )


def _tokens(logprobs: Any) -> tuple[Token, ...] | None:
    if not logprobs or not logprobs.get("content"):
        return None
    return tuple(
        Token(str(t["token"]), {str(c["token"]): float(c["logprob"]) for c in (t.get("top_logprobs") or [t])})
        for t in logprobs["content"]
    )


def read_refusal(status: int, raw: str, retry_after: str | None) -> Failure:
    """What an HTTP status other than 200 means for this call and for the run."""
    code, words = _error(raw)
    lower = f"{code} {words}".lower()
    make = {
        "quota": Failure("no_credit", words, status, fatal=True),
        "auth": Failure("key_rejected", words, status, fatal=True),
        "context": Failure("context_length", words, status),
        "rate": Failure("rate_limit", words, status, retry="rate_limit", wait_s=_seconds(retry_after)),
        "server": Failure("server", words, status, retry="server", wait_s=_seconds(retry_after)),
        # A gateway lost the answer: the model behind it may have made one, and charged for it.
        "gateway": Failure(
            "server", words, status, retry="server", wait_s=_seconds(retry_after), charged="unknown"
        ),
        "redirect": Failure(
            "redirected", "the endpoint redirects elsewhere; the key is not sent there", status, fatal=True
        ),
        "missing": Failure("not_found", words, status, fatal=True),
        "request": Failure("bad_request", words, status),
    }
    return make[_meaning(status, lower)]


def _meaning(status: int, words: str) -> str:
    if status == 402 or "insufficient_quota" in words:
        return "quota"
    if status in (401, 403):
        return "auth"
    if status == 404:
        return "missing"
    if 300 <= status < 400:
        return "redirect"
    if status in (408, 409, 425, 429):
        return "rate"
    if status in (502, 504, 524):
        return "gateway"
    if status >= 500:
        return "server"
    if "context_length" in words or "maximum context" in words or "max_model_len" in words:
        return "context"
    return "request"


def _error(raw: str) -> tuple[str, str]:
    try:
        error = json.loads(raw)
        error = error.get("error", error)
        if isinstance(error, str):
            return "", _start(error)
        return str(error.get("code") or error.get("type") or ""), _start(str(error.get("message") or error))
    except (ValueError, AttributeError, RecursionError):
        return "", _start(raw)


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as an HTTP date."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _start(text: str, limit: int = 200) -> str:
    clean = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return clean[:limit]
