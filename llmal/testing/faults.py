"""The ways in which FakeLM can misbehave: one small function each, and the table that names them.

A kind acts at one of four places on a request's way. Its options are the keyword-only
parameters of its function.

refuse: an error instead of an answer; `(key) -> Rejection`.
answer: what the model says; `(Answer) -> Answer`.
payload: the JSON body; `(dict) -> dict`.
wire: how the body travels; `async (Wire) -> None`, in `llmal.testing.wire`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from llmal.testing import wire
from llmal.testing.chat import Answer, Ask, Rejection, draw

OFF_LIST_LETTER = "ж"  # survives NFKC and casefolding, so no option in another script can fit


def status(
    key: str,
    *,
    status: int = 500,
    message: str | None = None,
    code: str | None = None,
    retry_after: float | timedelta | str | None = None,
) -> Rejection:
    """An error status.

    Args:
        key: API key of the request; a default message for 401 and 403 repeats it, as real servers did.
        status: 400 to 599.
        message: for the body; None: a usual one for the status.
        code: for the body.
        retry_after: Retry-After header: a number of seconds, a timedelta for the HTTP date that far from
            now, a string as it is; None: no header.
    """
    usual, usual_code = _USUAL.get(status, (f"Scripted status {status}.", None))
    headers = {}
    if isinstance(retry_after, timedelta):
        headers["Retry-After"] = format_datetime(datetime.now(UTC) + retry_after, usegmt=True)
    elif retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Rejection(status, message or usual.format(key=key), code=code or usual_code, headers=headers)


_USUAL: dict[int, tuple[str, str | None]] = {
    400: ("Invalid request.", "invalid_value"),
    401: ("Incorrect API key provided: {key}.", "invalid_api_key"),
    402: ("Insufficient credits.", "insufficient_credits"),
    403: ("API key {key} may not use this model.", "permission_denied"),
    404: ("The model does not exist.", "model_not_found"),
    429: ("Rate limit reached for requests.", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", None),
    502: ("Bad gateway.", None),
    503: ("The engine is currently overloaded.", None),
    529: ("Overloaded.", None),
}


def insufficient_quota(key: str) -> Rejection:
    """429, but waiting does not help: the account has no credit."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return Rejection(429, message, code="insufficient_quota", type="insufficient_quota")


def context_length(key: str) -> Rejection:
    """400: the prompt is too long."""
    message = "The messages exceed this model's maximum context length. Please reduce their length."
    return Rejection(400, message, code="context_length_exceeded")


def redirect(key: str, *, location: str) -> Rejection:
    """307 to `location`, a whole URL."""
    return Rejection(307, "Moved.", headers={"Location": location})


def null_content(answer: Answer) -> Answer:
    """`"content": null`."""
    return replace(answer, content=None, logprobs=None)


def empty_content(answer: Answer) -> Answer:
    """`"content": ""`."""
    return replace(answer, content="", logprobs=answer.logprobs and ())


def prose(answer: Answer, *, text: str = "It is hard to tell: there is much to be said.") -> Answer:
    """Chatter without the expected format."""
    spelled = [(word, {word: -0.1}) for word in re.findall(r"\s*\S+", text)]
    return replace(answer, content=text, logprobs=answer.logprobs and spelled)


def off_list(answer: Answer) -> Answer:
    """The brain's answer with its letters replaced, so that no option fits; JSON and markers stay intact."""
    logprobs = answer.logprobs and [_off_list_token(*pair) for pair in answer.logprobs]
    return replace(answer, content=_off_list(answer.content or ""), logprobs=logprobs)


def _off_list_token(token: str, candidates: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    chosen = _scrambled(token)
    # Numbers keep the candidates apart that the letter alone would make equal.
    renamed = {t: chosen if t == token else f"{OFF_LIST_LETTER}{i}" for i, t in enumerate(candidates)}
    return chosen, {renamed[t]: p for t, p in candidates.items()}


def _off_list(content: str) -> str:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return json.dumps({k: _scrambled(v) if isinstance(v, str) else v for k, v in value.items()})
    # DSPy's field markers look like [[ ## label ## ]] and stand on lines of their own.
    lines = content.split("\n")
    return "\n".join(line if not line or line.startswith("[[ ##") else _scrambled(line) for line in lines)


def _scrambled(text: str) -> str:
    replaced = re.sub(r"\w", OFF_LIST_LETTER, text)
    return replaced if replaced != text else text + OFF_LIST_LETTER


def length(answer: Answer) -> Answer:
    """Half of the content, `finish_reason` length."""
    content, logprobs = answer.content or "", answer.logprobs
    return replace(
        answer,
        content=content[: len(content) // 2],
        logprobs=logprobs and logprobs[: len(logprobs) // 2],
        finish_reason="length",
    )


def content_filter(answer: Answer) -> Answer:
    """No content, `finish_reason` content_filter."""
    return replace(answer, content=None, logprobs=None, finish_reason="content_filter")


def refusal(answer: Answer, *, text: str = "I'm sorry, I can't help with that.") -> Answer:
    """No content, but a refusal."""
    return replace(answer, content=None, logprobs=None, refusal=text)


def no_choices(payload: dict[str, Any]) -> dict[str, Any]:
    """`"choices": []`."""
    return payload | {"choices": []}


def no_usage(payload: dict[str, Any]) -> dict[str, Any]:
    """No `usage`."""
    return {name: value for name, value in payload.items() if name != "usage"}


def other_model(payload: dict[str, Any], *, model: str = "another-model") -> dict[str, Any]:
    """The answer names another model than the request."""
    return payload | {"model": model}


@dataclass(frozen=True)
class Kind:
    """Where a fault acts, what it does, and whether the request is charged by default."""

    stage: Literal["refuse", "answer", "payload", "wire"]
    run: Callable[..., Any]
    billed: bool = True


KINDS: dict[str, Kind] = {
    "status": Kind("refuse", status, billed=False),
    "insufficient_quota": Kind("refuse", insufficient_quota, billed=False),
    "context_length": Kind("refuse", context_length, billed=False),
    "redirect": Kind("refuse", redirect, billed=False),
    "null_content": Kind("answer", null_content),
    "empty_content": Kind("answer", empty_content),
    "prose": Kind("answer", prose),
    "off_list": Kind("answer", off_list),
    "length": Kind("answer", length),
    "content_filter": Kind("answer", content_filter),
    "refusal": Kind("answer", refusal),
    "no_choices": Kind("payload", no_choices),
    "no_usage": Kind("payload", no_usage),
    "other_model": Kind("payload", other_model),
    "html": Kind("wire", wire.html, billed=False),
    "cut_json": Kind("wire", wire.cut_json),
    "empty_body": Kind("wire", wire.empty_body),
    "reset": Kind("wire", wire.reset),
    "cut_body": Kind("wire", wire.cut_body),
    "hang": Kind("wire", wire.hang),
    "drip": Kind("wire", wire.drip),
    "bad_gzip": Kind("wire", wire.bad_gzip),
    "gzip_bomb": Kind("wire", wire.gzip_bomb),
    "swap": Kind("wire", wire.swap),
}


class Fault:
    """One scripted fault: what happens, and to which requests. All conditions given must hold; none: always.

    Args:
        kind: a name in `KINDS`.
        nth: only this chat request, counted over all items from 1.
        every: every so many chat requests.
        share: in [0, 1]; this share of all (item, attempt) pairs, drawn from the server's seed, so that the
            order of arrival does not matter. Faults draw independently by their place in the list.
        item: only this item id.
        attempts: only the first so many attempts of an item.
        billed: whether the request is charged; None: as a real server would (`KINDS`).
        params: options of the kind: the keyword-only parameters of its function in this module.

    Raises:
        ValueError: unknown kind, or a condition out of range.
        TypeError: an option that the kind does not have, or lacks.
    """

    def __init__(
        self,
        kind: str,
        *,
        nth: int | None = None,
        every: int | None = None,
        share: float | None = None,
        item: str | None = None,
        attempts: int | None = None,
        billed: bool | None = None,
        **params: Any,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"no fault called {kind!r}; known: {', '.join(sorted(KINDS))}")
        for name, count in {"nth": nth, "every": every, "attempts": attempts}.items():
            if count is not None and count < 1:
                raise ValueError(f"{name}: {count}; expected 1 or more")
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"share: {share}; expected 0 to 1")
        # What the function takes besides the options (key, answer, payload or wire) stands in as None.
        inspect.signature(KINDS[kind].run).bind(None, **params)
        self.kind, self.params = kind, params
        self.nth, self.every, self.share, self.item, self.attempts = nth, every, share, item, attempts
        self.billed = KINDS[kind].billed if billed is None else billed

    def __repr__(self) -> str:
        conditions = ("nth", "every", "share", "item", "attempts", "billed")
        given = {name: getattr(self, name) for name in conditions if getattr(self, name) is not None}
        return f"Fault({self.kind!r}, {', '.join(f'{k}={v!r}' for k, v in (given | self.params).items())})"

    @property
    def stage(self) -> str:
        """Where the fault acts."""
        return KINDS[self.kind].stage

    def run(self, subject: Any) -> Any:
        """Does it to a key, an answer, a payload or a wire."""
        return KINDS[self.kind].run(subject, **self.params)

    def hits(self, ask: Ask, *, seed: int, place: int) -> bool:
        """Whether the fault, at this place in the list, strikes the request."""
        return (
            self.nth in (None, ask.number)
            and (self.every is None or ask.number % self.every == 0)
            and self.item in (None, ask.item)
            and (self.attempts is None or ask.attempt <= self.attempts)
            and (self.share is None or draw(seed, place, ask.item, ask.attempt) < self.share)
        )
