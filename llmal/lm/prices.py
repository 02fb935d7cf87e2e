"""What a token costs: the user's figure, else a dated table; never a silent zero."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmal.errors import ModelError


class PriceSpec(BaseModel):
    """Dollars for a million tokens, as price lists give them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Decimal = Field(ge=0, description="USD for a million input tokens")
    output: Decimal = Field(ge=0, description="USD for a million output tokens")


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
    """The shipped price table: `date`, and `models`: name -> [input, output] in USD for a million tokens."""
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


def _pico(usd_per_million: Decimal) -> int:
    # 1 USD for a million tokens is 10^12 / 10^6 picodollars a token; rounding up keeps every cap an upper
    # bound.
    return int((usd_per_million * 10**6).to_integral_value(rounding="ROUND_CEILING"))
