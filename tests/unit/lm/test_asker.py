"""Asking many questions at once: order, twins, answers that are not whole, and the options' own checks."""

import pytest
from pydantic import ValidationError

from llmal.annotate.llm import HOW_PUT, Llm
from llmal.context import Context
from llmal.errors import ModelError
from llmal.lm.asker import HOW_ASKED, Asker, ask
from llmal.select.select_llm import SelectLlm
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store
from llmal.testing.chat import Answer, Rejection
from llmal.testing.fakelm import FakeLM


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    yield opened
    opened.close()


def said(text):
    return [{"role": "user", "content": text}]


def asked(store, server, texts, **options):
    asker = Asker(model="fake-lm", base_url=server.base_url, price="local", tolerate=1.0, **options)
    ctx = Context(store.folder, home=store.folder)
    return ask(asker, [said(x) for x in texts], purpose="test", store=store, ctx=ctx, caps=Caps())


def test_answers_come_in_the_order_of_the_questions_and_twins_share_one(store):
    with FakeLM(lambda request: request.user.upper()) as server:
        texts = [f"q{i % 7}" for i in range(20)]
        assert asked(store, server, texts) == [text.upper() for text in texts]
        assert store.count(t.request, t.request.c.purpose == "test") == 7
        assert asked(store, server, ["q1", "q8"]) == ["Q1", "Q8"]
        assert store.count(t.attempt) == 1 + 8


def test_nothing_asked_sends_nothing(store):
    with FakeLM(lambda request: "x") as server:
        assert asked(store, server, []) == []
    assert store.count(t.attempt) == 0


def test_what_is_not_a_whole_answer_is_none(store):
    def brain(request):
        if request.user == "cut":
            return Answer("half of it", finish_reason="length")
        if request.user == "refused":
            return Answer(None, refusal="I would rather not")
        if request.user == "failed":
            raise Rejection(400, "no")
        return "whole"

    with FakeLM(brain) as server:
        assert asked(store, server, ["cut", "refused", "failed", "fine"]) == [None, None, None, "whole"]


def test_a_missing_key_and_a_missing_price_name_the_stages_option(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for kind, stage in ((Llm, "annotate"), (SelectLlm, "select")):
        made = kind(model="nobody-knows-it", api_key_env="NO_SUCH_KEY")
        with pytest.raises(ModelError, match=f"{stage}.api_key_env: .* is not set"):
            made.endpoint()
        with pytest.raises(ModelError, match=f"{stage}.price: "):
            made.priced()


def test_a_key_in_the_file_and_a_broken_address_are_refused():
    with pytest.raises(ValidationError, match="not the key itself"):
        Asker(model="m", api_key_env="sk-12/34")
    with pytest.raises(ValidationError, match="expected a URL"):
        Asker(model="m", base_url="ftp://x")


def test_how_is_asked_stays_out_of_recipes():
    assert set(Asker.model_fields) >= HOW_ASKED
    assert set(Asker.model_fields) - HOW_ASKED == {"model", "max_tokens"}
    assert Llm.not_in_recipe == HOW_ASKED | {"prompt", "suspects", "pin_model", *HOW_PUT}
    assert Llm(model="m").recipe() == "annotate-9e6c57289c4ca442"  # as before, until the parser changes
