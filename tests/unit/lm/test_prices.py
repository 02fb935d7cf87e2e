"""Prices are exact, dated, and never a silent zero."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import pytest
from pydantic import ValidationError

from llmal.errors import ModelError
from llmal.lm.prices import Price, PriceSpec, batch_price_of, price_of, table

KEY = "annotate.price"


@pytest.mark.parametrize(
    ("usd", "pico"),
    [("0.15", 150_000), ("0.1", 100_000), ("2.5", 2_500_000), ("0.075", 75_000), ("0", 0), ("0.0000001", 1)],
)
def test_dollars_a_million_are_exact_picodollars_a_token(usd, pico):
    assert price_of("m", PriceSpec(input=Decimal(usd), output=Decimal(usd)), key=KEY) == (pico, pico, False)


def test_a_float_in_the_file_is_read_as_it_is_written():
    assert price_of("m", PriceSpec(input=0.1, output=0.3), key=KEY)[:2] == (100_000, 300_000)


def test_a_million_calls_sum_without_error():
    price = price_of("m", PriceSpec(input="0.15", output="0.6"), key=KEY)
    assert sum(price.of(7, 3) for _ in range(1_000_000)) == 10**6 * (7 * 150_000 + 3 * 600_000)


def test_one_dollar_is_ten_to_the_twelve():
    price = price_of("m", PriceSpec(input=1, output=2), key=KEY)
    assert (price.of(10**6, 0), price.of(0, 10**6)) == (10**12, 2 * 10**12)


def test_what_the_file_says_wins_over_the_table():
    known = next(iter(table()["models"]))
    assert price_of(known, PriceSpec(input=9, output=9), key=KEY).input == 9_000_000
    assert price_of(known, "local", key=KEY) == Price(0, 0, local=True)


def test_every_price_of_the_table_can_be_had_with_and_without_a_prefix():
    for model, (tokens_in, tokens_out) in table()["models"].items():
        price = price_of(model, None, key=KEY)
        assert price == price_of(f"openai/{model}", None, key=KEY)
        assert price[:2] == (round(tokens_in * 10**6), round(tokens_out * 10**6))
        assert 0 < price.input <= price.output
        assert not price.local


def test_the_table_is_dated():
    found = table()["date"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found)
    assert date(2024, 1, 1) < date.fromisoformat(found)


@pytest.mark.parametrize("model", ["my-own-model", "", "openai/", "gpt"])
def test_an_unknown_price_names_the_key_and_the_ways_out(model):
    with pytest.raises(ModelError) as error:
        price_of(model, None, key=KEY)
    assert error.value.where == KEY
    assert model in str(error.value)
    assert "{input: X, output: Y}" in error.value.hint
    assert "local" in error.value.hint


@pytest.mark.parametrize("bad", [-1, "nan", "inf", "free", None])
def test_a_price_is_a_number_of_dollars(bad):
    with pytest.raises(ValidationError):
        PriceSpec(input=bad, output=1)


@pytest.mark.parametrize(
    ("share", "url", "pico"),
    [
        (None, "https://api.openai.com/v1", (51, 300_000)),  # the table's half, rounded up
        (None, "https://example.org/v1", (101, 600_000)),  # nobody says: the full price is an upper bound
        (None, "https://api.openai.com.example.org/v1", (101, 600_000)),
        ("0.4", "https://api.openai.com/v1", (41, 240_000)),
        ("0", "https://example.org/v1", (0, 0)),
    ],
)
def test_a_batch_costs_the_share_that_the_file_or_the_table_says(share, url, pico):
    given = PriceSpec(input=Decimal("0.000101"), output=Decimal("0.6"), batch=share)
    assert batch_price_of(price_of("m", given, key=KEY), given, url) == (*pico, False)


def test_a_machine_of_ones_own_costs_nothing_in_batches_either():
    assert batch_price_of(Price(0, 0, True), "local", "http://127.0.0.1/v1") == (0, 0, True)


def test_a_batch_costs_no_more_than_its_calls():
    with pytest.raises(ValidationError):
        PriceSpec(input=1, output=1, batch=2)
