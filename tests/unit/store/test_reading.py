"""Reading a part of a run says what reading all of it says: of labels, routes, counts, and names of facts."""

import json

import numpy as np
import pytest

from llmal.audit import known_answers
from llmal.corpus import CorpusSpec, read, text_key
from llmal.evaluate.stage import evaluate_recipe
from llmal.records import Annotation, Label, LabelSchema, canonical, recipe
from llmal.review.stage import how_many, waiting
from llmal.store import base as module
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
N = 60


@pytest.fixture(params=[0, 1])
def store(tmp_path, request, monkeypatch):
    """A run drawn at random: twins that disagree, rows set aside, texts that left, answers of every kind."""
    monkeypatch.setattr(module, "BATCH", 7)  # several statements for what the tests ask for
    rng = np.random.default_rng(request.param)
    opened = open_store(tmp_path / "run")
    for n, kept in enumerate((N, N - 10)):
        path = tmp_path / f"c{n}.jsonl"
        texts = [f"t{i}" for i in rng.integers(0, kept, 2 * kept)] + ["", " "]
        gold = rng.choice(["bug", "billing", None], len(texts), p=[0.6, 0.1, 0.3])
        rows = [{"text": text, "label": label} for text, label in zip(texts, gold, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        spec = CorpusSpec(path=path.name, gold="label")
        opened.put_corpus("c", str(n), read(spec, path, SCHEMA), text_key)
    items = np.arange(opened.n_items())
    reserved = sorted(rng.permutation(items)[:20].tolist())
    opened.add(t.audit, [{"item": s, "at": float(i)} for i, s in enumerate(reserved)])
    for s in rng.permutation(items)[:20].tolist():
        answer(opened, s, str(rng.choice(["bug", "billing", "gone"])))
    opened.add(
        t.route,
        [
            {"recipe": r, "item": int(s), "who": str(rng.choice(["student", "llm", "person"]))}
            | {"labels": '["bug"]', "confidence": float(rng.random()), "reason": "why"}
            for r in ("r", "other")
            for s in items
        ],
    )
    opened.add(
        t.doubt,
        [
            {"item": int(s), "round": 0, "by": "x", "reason": "odd", "recipe": "d", "at": 0.0}
            for s in rng.permutation(items)[:9]
        ],
    )
    opened.add(t.annotation, annotation_rows("a", [Annotation(int(s), "ok", ("bug",)) for s in items[::3]]))
    yield opened
    opened.close()


def some(store, seed=0):
    return np.random.default_rng(seed).permutation(store.n_items() + 5)[:25].tolist()


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, items: store.gold(items),
        lambda store, items: store.answers(SCHEMA.names, items),
        lambda store, items: store.answers(None, items),
        lambda store, items: store.routes("r", items),
        lambda store, items: store.annotations("a", items),
    ],
    ids=["gold", "answers", "answers with labels that are gone", "routes", "annotations"],
)
def test_what_is_read_of_some_items_is_what_is_read_of_all_of_them(store, ask):
    whole, wanted = ask(store, None), some(store)
    assert ask(store, wanted) == {s: whole[s] for s in wanted if s in whole}
    assert 0 < len(ask(store, wanted)) < len(whole)
    assert ask(store, []) == {}


def test_active_items_among_some_come_in_ascending_order(store):
    whole, wanted = store.active(), some(store)
    assert store.active(wanted) == sorted(set(wanted) & set(whole)) != []
    assert store.n_active() == len(whole) < store.n_items()


def test_counts_are_those_of_the_rows_themselves(store):
    routes = [r.who for r in store.routes("r").values()]
    assert store.tally(t.route.c.who, t.route.c.recipe == "r") == {w: routes.count(w) for w in set(routes)}
    assert store.tally(t.route.c.who, t.route.c.recipe == "none") == {}
    left = {s: r for s, r in store.routes("r").items() if r.who == "person"}
    assert store.routes("r", who="person") == left != {}


def test_rows_set_aside_and_first_ids_are_those_of_the_file(store):
    rows = store.rows()
    assert [tuple(r) for r in store.set_aside()] == [(r.position, r.id, r.skipped) for r in rows if r.skipped]
    assert store.set_aside()
    first = {}
    for r in rows:
        first.setdefault(r.item, r.id)
    assert store.ids(some(store)) == {s: first[s] for s in some(store) if s in first}


@pytest.mark.parametrize("since", [0.0, 8.0])
def test_known_answers_and_the_names_that_follow_from_them_are_those_of_the_whole_corpus(store, since):
    """A name that changed would have every run of an earlier version measured, and certified, again."""
    gold, said, active = store.gold(), store.answers(SCHEMA.names), set(store.active())
    plain = {
        s: said.get(s, gold.get(s)) for s in store.audit(since) if s in active and (s in said or s in gold)
    }
    known = known_answers(store, SCHEMA, since=since)
    assert known == plain != {}
    assert list(known) == list(plain)
    if not since:
        names = {"student": "s", "predictions": "p", "route": "r", "annotations": "a"}
        asked = store.count(t.annotation, t.annotation.c.recipe == "a")
        body = canonical([sorted(plain.items()), [], []])
        assert evaluate_recipe(store, SCHEMA, **names) == recipe(
            "measure", 4, "s", "p", "r", "a", asked, body, []
        )


@pytest.mark.parametrize("people", [None, 0, 15, 20, 1000])
@pytest.mark.parametrize("route", [None, "r"])
def test_how_many_wait_is_the_length_of_the_list_that_waits(store, people, route):
    asked = {"names": SCHEMA.names, "route": route, "people": people}
    assert how_many(store, **asked) == len(waiting(store, **asked))


def test_who_waits_is_what_the_whole_run_says(store):
    """Against a plain statement of the rule, from everything the store holds."""
    answered, active, gold = set(store.answers(SCHEMA.names)), set(store.active()), set(store.gold())
    audit, reserved = set(store.audit()), store.reserved()
    doubted = {s for s in store.doubts() if s in active and s not in reserved}
    left = {s for s, r in store.routes("r").items() if r.who == "person"} & active
    queue = [w.item for w in waiting(store, names=SCHEMA.names, route="r", people=None)]
    expected = ((audit & active) - answered - gold) | doubted | (left - reserved - answered)
    assert len(queue) == len(set(queue))
    assert set(queue) == expected


def test_another_writer_is_seen_at_the_next_reading(store, tmp_path):
    """Nothing read is kept: an answer that another process wrote counts at once."""
    reader = open_store(tmp_path / "run", write=False)
    try:
        wanted = [s for s in store.active() if s not in store.answers()][:1]
        before = reader.answers(SCHEMA.names, wanted), len(reader.answers())
        answer(store, wanted[0], "bug")
        assert before[0] == {}
        assert reader.answers(SCHEMA.names, wanted) == {wanted[0]: ("bug",)}
        assert len(reader.answers()) == before[1] + 1
    finally:
        reader.close()
