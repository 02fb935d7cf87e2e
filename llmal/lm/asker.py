"""Options of whoever asks a language model, and asking many questions at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llmal.context import Context
from llmal.errors import ModelError, UserError
from llmal.lm.endpoint import Endpoint, Retries
from llmal.lm.prices import Price, PriceSpec, batch_price_of, price_of
from llmal.lm.probe import abilities
from llmal.lm.transport import Transport
from llmal.lm.vllm import IN_FLIGHT, OFFLINE, SERVED, TIMEOUT_S, VllmEndpoint, VllmOptions, is_vllm
from llmal.lm.wire import Failure, Message, Reply, Request
from llmal.store.ledger import Caps, Facts, Ledger
from llmal.store.store import Store

HOW_ASKED = frozenset(
    {"base_url", "api_key_env", "price", "in_flight", "requests_per_minute", "tokens_per_minute"}
    | {"timeout_s", "retries", "tolerate", "batch_api", "vllm"}
)
"""Options that change where, how fast and for how much is asked, and never the answer."""


class Asker(BaseModel):
    """The options of a plug-in that asks a model behind an OpenAI-compatible endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    group: ClassVar[str] = ""  # the plug-in's own: the key in the file that errors point at

    model: str = Field(
        description="the model's name at the endpoint; `vllm:` and a name at the hub or a folder for a "
        "server that llmal starts and stops, `vllm-offline:` for an engine in llmal's own process"
    )
    base_url: str = Field("https://api.openai.com/v1", description="OpenAI-compatible address, ending in /v1")
    api_key_env: str | None = Field(None, description="name of the environment variable that holds the key")
    price: PriceSpec | Literal["local"] | None = Field(
        None,
        description="USD for a million tokens {input, output}, or `local`; the shipped table when absent",
    )
    max_tokens: int = Field(
        64, ge=8, description="most tokens of an answer; raise it for models that think aloud"
    )
    in_flight: int = Field(16, ge=1, le=512, description="most calls open at once")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    timeout_s: float = Field(60.0, gt=0, description="seconds for one call in all")
    retries: Retries = Retries()
    vllm: VllmOptions = Field(VllmOptions(), description="how a `vllm:` or `vllm-offline:` model is run")
    tolerate: float = Field(0.02, ge=0, le=1, description="share of calls that may fail before the run stops")
    batch_api: bool = Field(
        False, description="ask by the provider's batch endpoint: cheaper, answered within 24 hours"
    )

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        if value is not None and not value.replace("_", "A").isalnum():
            raise ValueError(
                "expected the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _a_url(cls, value: str) -> str:
        try:
            Endpoint(base_url=value).check()
        except UserError as error:
            raise ValueError(error.message) from error
        return value

    @model_validator(mode="after")
    def _own_model(self) -> Asker:
        if is_vllm(self.model):
            if not self.model.partition(":")[2].strip():
                raise ValueError("a name at the hub or a folder is missing after the colon in model")
            for name in ("base_url", "api_key_env"):
                if (
                    name in self.model_fields_set
                    and getattr(self, name) != type(self).model_fields[name].default
                ):
                    raise ValueError(
                        f"{name} says where a model is, but {self.model} is run by llmal; leave one out"
                    )
            if self.batch_api:
                raise ValueError(f"batch_api is for a provider's endpoint, but {self.model} is run by llmal")
        return self

    def endpoint(self) -> Endpoint:
        """The endpoint with its key, read from the environment now and kept nowhere.

        Raises:
            ModelError: the variable is not set.
        """
        if is_vllm(self.model):
            return self._own_endpoint()
        key = None
        if self.api_key_env:
            key = os.environ.get(self.api_key_env)
            if not key:
                raise ModelError(
                    f"the environment variable {self.api_key_env} is not set",
                    where=f"{self.group}.api_key_env",
                    hint=f"export {self.api_key_env}=... and run again",
                )
        shared = HOW_ASKED - {"api_key_env", "price", "batch_api", "vllm"}
        return Endpoint(
            key=key,
            key_name=self.api_key_env or "",
            place=self.group,
            **{name: getattr(self, name) for name in shared},
        )

    def _own_endpoint(self) -> Endpoint:
        """The endpoint of a model that llmal runs; speed follows what vLLM likes where the file is silent."""
        shared = HOW_ASKED - {"api_key_env", "base_url", "price", "batch_api", "vllm"}
        given = {name: getattr(self, name) for name in shared}
        if "in_flight" not in self.model_fields_set:
            given["in_flight"] = IN_FLIGHT[OFFLINE if self.model.startswith(OFFLINE) else SERVED]
        if "timeout_s" not in self.model_fields_set:
            given["timeout_s"] = TIMEOUT_S
        return VllmEndpoint(
            base_url=self.model, model=self.model, options=self.vllm, place=self.group, **given
        )

    def priced(self) -> Price:
        """What a token costs; on a model that llmal runs nothing, unless the file says so.

        Raises:
            ModelError: neither the file nor the shipped table says.
        """
        given = self.price or ("local" if is_vllm(self.model) else None)
        return price_of(self.model, given, key=f"{self.group}.price")

    def asked_price(self) -> Price:
        """What a token costs the way it is asked: in a batch where `batch_api` says so.

        Raises:
            ModelError: as `priced`.
        """
        price = self.priced()
        return batch_price_of(price, self.price, self.base_url) if self.batch_api else price

    def transport(
        self, ledger: Ledger, *, seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> Transport:
        """The way to the endpoint: by batches where `batch_api` says so, or where one is still open there.

        Args:
            ledger: where every call is booked.
            seed: of the jitter in waits.
            say: shows how far a model is that llmal starts itself.

        Raises:
            ModelError: the key's variable is not set, or the price is not known.
        """
        from llmal.lm.batches import BatchTransport, open_batches

        endpoint, price = self.endpoint(), self.priced()
        line = endpoint.line(ledger.store, say)
        if not self.batch_api and not open_batches(ledger.store):
            return Transport(endpoint, ledger, price, seed=seed, line=line)
        cheaper = batch_price_of(price, self.price, self.base_url)
        direct = not self.batch_api
        return BatchTransport(
            endpoint, ledger, price, batch_price=cheaper, seed=seed, line=line, direct=direct
        )


def ask(
    asker: Asker,
    questions: Sequence[Sequence[Message]],
    *,
    purpose: str,
    store: Store,
    ctx: Context,
    caps: Caps,
    temperature: float = 0.0,
) -> list[str | None]:
    """The text of each answer; None where the call failed, or the answer was refused or cut off.

    A question asked before, in this run or in this call, is answered from the ledger at no cost.

    Args:
        asker: whom to ask, and how.
        questions: the messages of each.
        purpose: what the calls are booked under.
        store: of the run.
        ctx: its seed and progress.
        caps: what the run may spend in all.
        temperature: of the answers, where the endpoint lets it be set.

    Raises:
        BudgetSpent, ModelError, Interrupted: from the transport; what was answered before is kept.
    """
    return asyncio.run(_ask(asker, questions, purpose, store, ctx, caps, temperature)) if questions else []


async def _ask(
    asker: Asker,
    questions: Sequence[Sequence[Message]],
    purpose: str,
    store: Store,
    ctx: Context,
    caps: Caps,
    temperature: float,
) -> list[str | None]:
    said: dict[str, str | None] = {}

    def record(request: Request, end: Reply | Failure) -> Facts:
        whole = isinstance(end, Reply) and not end.refusal and end.finish_reason == "stop"
        said[request.hash()] = end.content if whole and isinstance(end, Reply) else None
        return []

    ledger = Ledger(store, caps)
    try:
        async with asker.transport(ledger, seed=ctx.seed, say=ctx.progress.say) as transport:
            able = await abilities(transport, store, asker.model)
            options = able.options(asker.max_tokens, logprobs=False, temperature=temperature)
            requests = [Request(purpose, asker.model, question, options) for question in questions]
            hashes = [request.hash() for request in requests]
            once = dict(zip(hashes, requests, strict=True))
            with ctx.progress.task(purpose, len(once)) as advance:
                await transport.ask_all(once.values(), record, done=advance, say=ctx.progress.say)
    finally:
        ledger.close()
    return [said[name] for name in hashes]
