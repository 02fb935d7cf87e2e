"""What a token costs: the user's figure, else a dated table; never a silent zero."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from llmal.errors import ModelError


class PriceSpec(BaseModel):
    """Dollars for a million tokens, as price lists give them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Decimal = Field(ge=0, description="USD for a million input tokens")
    output: Decimal = Field(ge=0, description="USD for a million output tokens")
    batch: Decimal | None = Field(
        None, ge=0, le=1, description="share of these that a call in a provider's batch costs"
    )


class Price(NamedTuple):
    """Picodollars a token.

    `local` marks a machine of one's own, where tokens and seconds are counted instead.
    """

    input: int
    output: int
    local: bool = False

    def of(self, tokens_in: int, tokens_out: int) -> int:
        """Picodollars of a call."""
        return tokens_in * self.input + tokens_out * self.output


@cache
def table() -> dict[str, Any]:
    """The shipped price table.

    `date`; `models`: name -> [input, output] in USD for a million tokens; `batch`: host -> share of the price
    that a call in a batch costs there.
    """
    data: dict[str, Any] = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
    return data


def price_of(model: str, given: PriceSpec | Literal["local"] | None, *, key: str) -> Price:
    """The price of a model.

    Args:
        model: name at the endpoint; a provider's prefix as in `openai/gpt-4o` is ignored.
        given: what the file says, which wins over the table.
        key: the key in the file that sets it, for the message.

    Raises:
        ModelError: neither the file nor the table knows it.
    """
    if given == "local":
        return Price(0, 0, local=True)
    if given is not None:
        return Price(_pico(given.input), _pico(given.output))
    models = table()["models"]
    found = models.get(model) or models.get(model.rpartition("/")[2])
    if found is None:
        raise ModelError(
            f"the price of '{model}' is not known, so no budget could hold",
            where=key,
            hint=(
                f"Set {key} to {{input: X, output: Y}} in USD for a million tokens, "
                "or to `local` for a machine of your own"
            ),
        )
    return Price(_pico(Decimal(str(found[0]))), _pico(Decimal(str(found[1]))))


def batch_price_of(price: Price, given: PriceSpec | Literal["local"] | None, base_url: str) -> Price:
    """The price of a model's token in a provider's batch.

    Args:
        price: of a token in a direct call.
        given: what the file says; its `batch` wins over the table.
        base_url: of the endpoint, whose host the table may know; the full price where nobody says.
    """
    share = given.batch if isinstance(given, PriceSpec) else None
    if share is None:
        share = Decimal(str(table()["batch"].get(urlsplit(base_url).hostname or "", 1)))
    up = "ROUND_CEILING"
    return price._replace(
        input=int((price.input * share).to_integral_value(rounding=up)),
        output=int((price.output * share).to_integral_value(rounding=up)),
    )


def _pico(usd_per_million: Decimal) -> int:
    # 1 USD for a million tokens is 10^12 / 10^6 picodollars a token; rounding up keeps every cap an upper
    # bound.
    return int((usd_per_million * 10**6).to_integral_value(rounding="ROUND_CEILING"))
