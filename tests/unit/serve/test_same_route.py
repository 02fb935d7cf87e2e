"""The same text, the same route: alone, in company, and beside other requests, however near the threshold."""

import asyncio

import pytest

import llmal
from llmal.export.onnx import Onnx
from llmal.export.stage import write
from llmal.serve.student import Student
from llmal.testing import parcels

from .conftest import run, served, state

TEXTS = [f"{text} {i}" for i, text in enumerate(parcels.texts(1000, seed=3))]


@pytest.fixture(
    params=[
        "linear",
        pytest.param("onnx", marks=pytest.mark.slow),
        pytest.param("torch", marks=pytest.mark.slow),
    ]
)
def student(request, export, tmp_path):
    """A linear student on hashed letters, and a small network; the folder and what computes it."""
    if request.param == "linear":
        return export, None
    write(Onnx(), parcels.finetuned(tmp_path / "network", parcels.schema_of(3)), tmp_path / "exported")
    return tmp_path / "exported", request.param


async def alone(folder, backend, texts):
    """Confidences of the texts, one after another."""
    one = Student(folder, backend)
    await one.open()
    found = [(await one.read(text)).confidence for text in texts]
    one.close()
    return found


def test_one_request_or_many_give_1000_texts_the_same_route_and_the_same_bits(student, tmp_path):
    """Equal to the last bit, so the route is equal at every threshold; and it is, at one amid them."""
    folder, backend = student

    async def work():
        sure = await alone(folder, backend, TEXTS)
        state(folder, threshold=sorted(sure)[500])
        given = {"backend": backend, "queue": False, "state": tmp_path / "state"}
        async with served(folder, **given) as (client, _):
            sizes = [1] * 20 + [7] * 40 + [175] * 4  # beside each other
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
            parts = [TEXTS[end - size : end] for size, end in zip(sizes, ends, strict=True)]
            sent = [client.post("/predict", json={"texts": part}) for part in parts]
            answers = [one for reply in await asyncio.gather(*sent) for one in reply.json()["answers"]]
            assert [one["confidence"] for one in answers] == sure
            bar = sorted(sure)[500]
            assert [one["route"] == "student" for one in answers] == [p >= bar for p in sure]

    run(work())


def test_in_one_batch_the_bits_would_differ(export):
    """Power of the test above: batched by the predictor, these texts get other last digits."""
    together = llmal.load(export).predict_proba(TEXTS[:200]).max(axis=1)
    sure = run(alone(export, None, TEXTS[:200]))
    assert any(float(a) != b for a, b in zip(together, sure, strict=True))
