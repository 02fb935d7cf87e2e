"""What people said of 5,000 ugly items goes to another run through every format, and is the same there."""

import json
import random

import pytest

from llmal.records import Label, LabelSchema
from llmal.review import exchange, table
from llmal.review.exchange import FORMATS
from llmal.store import schema as t
from llmal.testing.hostile import HOSTILE, LABELS

NAMES = (*LABELS, "=cmd|' /C calc'!A0", "none", "a\tb\nc\rd", " blanks ", "|", '["none"]', "\x1b[2J", "plain")
PIECES = [
    *HOSTILE.values(),
    *("\r\n", "\r", "\n", "\u2028", "\x85", '"', "'", ",", "\t", "=1+1", "\\u0041", "\\", "\x01", "\uff1d"),
    *("\u202e", "|", "😀", "e\u0301", "]", "}", "[{", "NaN", "1e999", "&amp;", "\x7f", " "),
]
ENDINGS = {name: form.suffix for name, form in FORMATS.items()} | {"jsonl": ".jsonl", "csv": ".csv"}


def schema_of(kind):
    return LabelSchema(kind, tuple(Label(name=name) for name in NAMES), False)


def texts(rng, size):
    return [f"{i} {''.join(rng.choices(PIECES, k=rng.randint(1, 4)))}." for i in range(size)]


def speak(store, schema, rng, size):
    """Words of five people with ugly names, edits, what settles disputes, words taken back, and flags."""
    people = [f"{i}{''.join(rng.choices(PIECES, k=2))}." for i in range(4)] + ["none"]

    def labels(most):
        count = 1 if schema.kind == "single" else rng.randint(0, most)
        chosen = rng.sample(NAMES, count)
        return json.dumps([name for name in NAMES if name in chosen])

    answers = [
        {"item": rng.randrange(size), "person": rng.choice(people), "labels": labels(3),
         "source": "page-1:x", "line": i,
         "note": rng.choice(["", "", *PIECES]), "at": 1.7e9 + i + rng.random(),
         "seconds": rng.choice([None, 0.0, rng.expovariate(0.1)]),
         "shown": json.dumps(rng.sample(NAMES, 3)) if rng.random() < 0.3 else None,
         "saw": labels(2) if rng.random() < 0.3 else None,
         "role": t.ADJUDICATE if rng.random() < 0.05 else "label"}
        for i in range(size)
    ]  # fmt: skip
    store.number(t.answer, answers)
    remark = {"person": people[0], "seconds": None, "at": 1.8e9, "source": "page-1:y"}
    undone = [(n, a["item"]) for n, a in enumerate(answers, 1) if n % 97 == 0]
    store.number(t.remark, [remark | {"item": i, "what": "undo", "answer": n, "note": ""} for n, i in undone])
    flags = [
        (i, rng.choice(["", *PIECES]), what)
        for i in range(0, size, 7)
        for what in ("flag", "unflag")[: 1 + i % 2]
    ]
    store.number(t.remark, [remark | {"item": i, "what": w, "answer": None, "note": x} for i, x, w in flags])


def extras(store):
    """What stood beside each word that counts."""
    c = t.answer.c
    rows = store.read(t.answer.select().where(t.standing()).order_by(c.n))
    newest = {(a.item, None if a.role == t.ADJUDICATE else a.person): (a.shown, a.saw, a.role) for a in rows}
    return newest


@pytest.mark.parametrize("size", [120, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("name", ENDINGS)
def test_every_word_comes_back_with_all_that_is_known_of_it(filled, tmp_path, name, kind, size):
    rng, schema = random.Random(5), schema_of(kind)
    corpus = texts(rng, size)
    store, other = filled(corpus), filled(corpus, "b")
    speak(store, schema, rng, size)
    path = tmp_path / f"all{ENDINGS[name]}"
    if name in FORMATS:
        exchange.hand_out(store, exchange.answered_work(store, schema), path, schema, name)
        assert exchange.detect(path) == name
        take = lambda to: exchange.take_back(to, path, schema, name)  # noqa: E731
    else:
        table.answered_out(store, schema, path)
        assert exchange.detect(path) is None
        take = lambda to: table.take_back(to, path, schema)  # noqa: E731
    words = sorted(store.words())
    assert (take(other).new, sorted(other.words())) == (len(words), words)
    assert extras(other) == extras(store)
    answered = {word.item for word in words}
    assert other.flagged() == {i: note for i, note in store.flagged().items() if i in answered}
    assert len(other.flagged()) > size // 50
    assert other.answers() == store.answers()
    again = take(other)
    assert (again.new, again.known, again.older, again.aside) == (0, len(words), 0, [])
    assert take(store).new == 0
