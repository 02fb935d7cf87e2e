"""Ask an endpoint once what it can do, and remember the answer for the run."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from llmal.errors import ModelError
from llmal.lm.transport import Transport
from llmal.lm.wire import Failure, Reply, Request
from llmal.records import recipe
from llmal.store import schema as t
from llmal.store.store import Store

TOP_LOGPROBS = 20
"""Candidates asked for at each token: the most that OpenAI and an unconfigured vLLM give."""

_QUESTION = ({"role": "user", "content": "Answer with the single letter A."},)
PROBE_TOKENS = 16


class Abilities(NamedTuple):
    """What an endpoint was seen to accept.

    Attributes:
        top_logprobs: candidates a token, 0 when it gives no log-probabilities.
        limit_name: the field that bounds the answer's length.
        temperature: whether a temperature may be set.
        max_model_len: tokens of prompt and answer, or None when it does not say.
        model: the name the server gave in its answer.
    """

    top_logprobs: int = 0
    limit_name: str = "max_tokens"
    temperature: bool = True
    max_model_len: int | None = None
    model: str = ""

    def options(self, max_tokens: int, *, logprobs: bool, temperature: float = 0.0) -> dict[str, Any]:
        """Fields of a request body this endpoint accepts; the temperature only where it may be set."""
        fields: dict[str, Any] = {self.limit_name: max_tokens}
        if self.temperature:
            fields["temperature"] = temperature
        if logprobs and self.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return fields


async def abilities(transport: Transport, store: Store, model: str) -> Abilities:
    """What the endpoint can do: from the run's store, else by one short paid question.

    A refused field costs nothing: the question is repeated without it (at most four times).

    Raises:
        ModelError: the endpoint cannot be reached or refuses the bare question too.
        BudgetSpent: not even the question fits the budget.
    """
    name = recipe("endpoint", transport.endpoint.base_url, model)
    kept = store.fact(t.endpoint, name)
    if kept is not None:
        return Abilities(**json.loads(kept.facts))
    found = Abilities(top_logprobs=TOP_LOGPROBS)
    for _ in range(5):
        options = found.options(PROBE_TOKENS, logprobs=True)
        end = await transport.ask(Request("probe", model, _QUESTION, options), lambda _request, _end: [])
        if isinstance(end, Reply):
            found = found._replace(
                model=end.model, top_logprobs=found.top_logprobs if _has_candidates(end) else 0
            )
            break
        narrower = _without(found, end)
        if narrower is None:
            raise ModelError(end.detail or end.reason, where=transport.endpoint.base_url)
        found = narrower
    found = found._replace(max_model_len=await _model_len(transport, model))
    store.add(t.endpoint, [{"recipe": name, "facts": json.dumps(found._asdict()), "at": time.time()}])
    return found


def _has_candidates(reply: Reply) -> bool:
    return any(token.top for token in reply.tokens or ())


def _without(tried: Abilities, end: Failure) -> Abilities | None:
    """The abilities left when a field was refused; None when the words name no field of ours."""
    words = end.detail.lower()
    if end.reason != "bad_request":
        return None
    if "max_completion_tokens" in words and tried.limit_name == "max_tokens":
        return tried._replace(limit_name="max_completion_tokens")
    if "temperature" in words and tried.temperature:
        return tried._replace(temperature=False)
    if "logprob" in words and tried.top_logprobs:
        return tried._replace(top_logprobs=5 if tried.top_logprobs > 5 else 0)
    return None


async def _model_len(transport: Transport, model: str) -> int | None:
    """The context length `/models` gives, where it does (vLLM); no error when it does not."""
    try:
        listed = json.loads(await transport.look("/models") or "")["data"]
        return next(
            (int(m["max_model_len"]) for m in listed if m.get("id") == model and m.get("max_model_len")), None
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
