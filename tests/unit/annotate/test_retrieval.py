"""Demonstrations by similarity: never the item itself, classes mixed, the nearest last, the audit never."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

import llmal.annotate.retrieval as retrieval
from llmal.annotate import stage
from llmal.annotate.llm import Llm
from llmal.annotate.retrieval import majority, nearest, written
from llmal.annotate.views import narrowed, rotated
from llmal.context import Context, Silent
from llmal.corpus import CorpusSpec, read, text_key
from llmal.embed import stage as embed
from llmal.embed.hashing import Hashing
from llmal.prompts.file import load_prompt
from llmal.prompts.frame import fenced, render
from llmal.prompts.program import adapter, answered, signature
from llmal.records import Item, Label, LabelSchema
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store
from llmal.testing.brains import classifier, fenced_text, identify, options
from llmal.testing.facts import answer
from llmal.testing.fakelm import FakeLM

NAMES = ("bug", "billing", "praise")
WORDS = {
    "bug": ("crash", "error", "freeze", "broken"),
    "billing": ("invoice", "refund", "card", "charge"),
    "praise": ("thanks", "lovely", "great", "happy"),
}
SCHEMA = LabelSchema("single", tuple(Label(name=n) for n in NAMES), True)
N = 120
ENCODER = Hashing(dim=128)
SECRET = b"s" * 16


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def pool_of(seed, n=7, m=60, n_classes=3):
    rng = np.random.default_rng(seed)
    pool = unit(rng, m, 4)
    return unit(rng, n, 4), pool, rng.integers(n_classes, size=m)


def by_hand(vector, pool, classes, k, own, n_classes):
    """The rule, walked: down the ranking, past full classes, then the order turned round."""
    cap = -(-k // n_classes) + 1
    near = [float(vector @ row) for row in pool]
    ranked = sorted(range(len(pool)), key=lambda r: (-round(near[r], 6), r))
    ranked = [r for r in ranked if r != own and near[r] <= 0.98]
    taken = []
    for r in ranked:
        if len(taken) < k and sum(classes[s] == classes[r] for s in taken) < cap:
            taken.append(r)
    if k > 1 and len({classes[r] for r in taken}) == 1:
        taken[-1] = next((r for r in ranked if classes[r] != classes[taken[0]]), taken[-1])
    return taken[::-1]


@pytest.mark.parametrize("n_classes", [2, 3, 20])
@pytest.mark.parametrize("k", [1, 2, 8])
def test_the_rows_are_those_of_the_rule_walked_by_hand(k, n_classes):
    for seed in range(10):
        vectors, pool, classes = pool_of(seed, n_classes=n_classes)
        vectors[0], vectors[1] = pool[5], pool[6]  # twins; the first is the pool's own row
        own = np.full(len(vectors), -1)
        own[0] = 5
        found = nearest(vectors, pool, classes, k, own=own, n_classes=n_classes)
        assert found == [
            by_hand(v, pool, classes, k, o, n_classes) for v, o in zip(vectors, own, strict=True)
        ]


def test_an_item_never_sees_itself_nor_its_twin():
    vectors, pool, classes = pool_of(0)
    pool[10] = pool[3] + 0.01 * pool[4]
    pool[10] /= np.linalg.norm(pool[10])
    blank = np.zeros((1, 4), np.float32)  # its cosine with itself is 0: only its number tells
    found = nearest(pool[3:4], pool, classes, 8, own=np.array([3]), n_classes=3)[0]
    assert not {3, 10} & set(found)
    pool[7] = 0
    everything = nearest(blank, pool, classes, 60, own=np.array([7]), n_classes=1)[0]
    assert 7 not in everything
    assert len(everything) == 59


@pytest.mark.parametrize("k", [2, 3, 8])
def test_no_class_fills_the_prompt_and_the_second_class_is_always_there(k):
    rng = np.random.default_rng(3)
    pool = unit(rng, 40, 5)
    pool[:30] = unit(rng, 1, 5) + 0.3 * unit(rng, 30, 5)  # thirty of one class close together
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    classes = np.array([0] * 30 + [1] * 5 + [2] * 5)
    (found,) = nearest(pool[:1], pool, classes, k, own=np.array([0]), n_classes=3)
    counts = np.bincount(classes[found], minlength=3)
    assert counts.max() <= -(-k // 3) + 1
    near = pool @ pool[0]
    second = max((1, 2), key=lambda c: near[classes == c].max())
    assert counts[0]
    assert counts[second]
    assert len(found) == k


def test_the_nearest_stands_last():
    vectors, pool, classes = pool_of(4)
    for v, rows in zip(
        vectors, nearest(vectors, pool, classes, 8, own=np.full(7, -1), n_classes=3), strict=True
    ):
        near = pool[rows] @ v
        assert (np.diff(near) > 0).all()


def test_ties_go_to_the_lower_row_however_the_work_is_cut(monkeypatch):
    rng = np.random.default_rng(5)
    few = unit(rng, 6, 4)
    pool = few[rng.integers(6, size=50)]  # many rows are equal
    classes = rng.integers(2, size=50)
    vectors = unit(rng, 9, 4)
    whole = nearest(vectors, pool, classes, 6, own=np.full(9, -1), n_classes=2)
    monkeypatch.setattr(retrieval, "CELLS", 60)
    assert nearest(vectors, pool, classes, 6, own=np.full(9, -1), n_classes=2) == whole
    assert whole == [by_hand(v, pool, classes, 6, -1, 2) for v in vectors]


def test_a_pool_with_too_little_gives_what_it_has():
    vectors, pool, classes = pool_of(6, m=3)
    assert [len(rows) for rows in nearest(vectors, pool, classes, 8, own=np.full(7, -1), n_classes=3)] == [
        3
    ] * 7
    assert nearest(pool[:1], pool[:1], classes[:1], 8, own=np.array([0]), n_classes=3) == [[]]


FORMS = [("single", "one"), ("single", "stated"), ("multi", "one"), ("multi", "each")]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_demonstration_reads_as_dspy_lays_it_out(kind, form):
    schema = rotated(SCHEMA._replace(kind=kind, abstain=form != "each"), 1)
    prompt = load_prompt()
    frame = render(prompt, schema, form)
    other, item = Item(1, "k1", "the app\ncrashes"), Item(2, "k2", "hello")
    for labels in [("billing",)] if kind == "single" else [("billing", "bug"), (), ("praise",)]:
        field = next(iter(prompt.inputs))
        demo = {field: fenced(other, SECRET), **answered(labels, schema, form)}
        laid_out = adapter().format(
            signature(prompt, schema, form=form), [demo], {field: fenced(item, SECRET)}
        )
        assert frame.messages(item, SECRET, [(other, written(labels, schema, form))]) == laid_out


def test_an_answer_is_written_in_the_codes_of_the_view():
    assert written(("bug",), SCHEMA, "one") == "A"
    assert written(("bug",), rotated(SCHEMA, 1), "one") == "C"
    assert written(("praise",), narrowed(SCHEMA, {"bug", "praise"}), "one") == "B"


def test_of_two_majorities_the_nearest_counts():
    a, b = Item(0, "", ""), Item(1, "", "")
    assert majority(((a, ("x",)), (b, ("y",)))) == ("y",)
    assert majority(((a, ("x",)), (a, ("x",)), (b, ("y",)))) == ("x",)


# --- at an endpoint ----------------------------------------------------------------------------------------


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def name_of(i):
    return NAMES[i % 3]


def text_of(i):
    return f"{name_of(i)} {WORDS[name_of(i)][(i // 3) % 4]} {WORDS[name_of(i)][(i // 12) % 4]} number {i}"


def label_of(text):
    return text.split()[0]


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": text_of(i), "g": name_of(i)}) + "\n" for i in range(N)))
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl", gold="g"), path, SCHEMA), text_key)
    embed.run(ENCODER, opened, Context(opened.folder, home=opened.folder))
    yield opened
    opened.close()


def run(store, server, wanted, *, progress=None, schema=SCHEMA, **options_):
    llm = Llm(model="fake-lm", base_url=server.base_url, price="local", **options_)
    ctx = Context(store.folder, home=store.folder, progress=progress, encode=ENCODER.encode)
    stage.run(
        llm, store, ctx, schema=schema, caps=Caps(), wanted=wanted, vectors=ENCODER.recipe()
    )  # fmt: skip
    return store.annotations(llm.recipe_for(schema, ctx, ENCODER.recipe()))


def asked(server):
    """The requests about items, by the item's text; the probe is left out."""
    return {text: ask.messages for ask in server.requests if (text := fenced_text(ask.messages)) is not None}


def demonstrated(messages):
    """(text, answer) of each demonstration of a request; llmal's own prompt has none of its own."""
    users, said = messages[1:-1:2], messages[2:-1:2]
    return [(fenced_text([u]), s["content"]) for u, s in zip(users, said, strict=True)]


def test_people_s_answers_about_similar_texts_stand_before_the_item(store):
    for i in range(40):
        answer(store, i, name_of(i))
    progress = Said()
    with FakeLM(classifier(label_of), identify=identify) as server:
        found = run(store, server, list(range(50, 80)), demonstrations=4, progress=progress)
        requests = asked(server)
    assert {a.labels for s, a in found.items() if s % 3 == 0} == {("bug",)}
    prefix = {messages[0]["content"] for messages in requests.values()}
    assert len(prefix) == 1, "the unchanging part stands first"
    for text, messages in requests.items():
        shown = demonstrated(messages)
        assert len(shown) == 4
        codes = {"bug": "A", "billing": "B", "praise": "C"}
        assert all(f"]]\n{codes[label_of(t)]}\n" in said for t, said in shown)
        assert label_of(shown[-1][0]) == label_of(text), "the most similar one is nearest to the item"
    (line,) = [line for line in progress.lines if "majority" in line]
    assert "of 30 answers are the majority of their demonstrations" in line


def test_audit_texts_are_in_no_prompt(store):
    reserved = list(range(0, 30))
    store.add(t.audit, [{"item": i, "at": 0.0} for i in reserved])
    for i in range(60):
        answer(store, i, name_of(i))
    with FakeLM(classifier(label_of), identify=identify) as server:
        run(store, server, list(range(80, 110)), demonstrations=8)
        whole = json.dumps([ask.body for ask in server.requests])
        shown = {t for messages in asked(server).values() for t, _ in demonstrated(messages)}
    assert shown
    assert shown <= {text_of(i) for i in range(30, 60)}
    assert not [i for i in reserved if f"{text_of(i)}\\n" in whole]


def test_an_item_that_a_person_answered_is_not_its_own_demonstration(store):
    for i in range(40):
        answer(store, i, name_of(i))
    with FakeLM(classifier(label_of), identify=identify) as server:
        run(store, server, list(range(40)), demonstrations=8)
        requests = asked(server)
    assert len(requests) == 40
    for text, messages in requests.items():
        assert text not in {t for t, _ in demonstrated(messages)}


def test_too_few_answers_are_said_once_and_the_prompt_s_own_are_shown(store, tmp_path):
    (tmp_path / "p.md").write_text(
        "---\ndemonstrations:\n  - {text: it burns, label: bug}\n---\nLabel it.\n{labels}\n"
    )
    for i in range(3):
        answer(store, i, name_of(i))
    progress = Said()
    with FakeLM(classifier(label_of), identify=identify) as server:
        run(store, server, [50, 51], demonstrations=8, prompt=str(tmp_path / "p.md"), progress=progress)
        requests = list(asked(server).values())
    assert [len(messages) for messages in requests] == [4, 4]
    assert all("it burns" in messages[1]["content"] for messages in requests)
    (line,) = progress.lines
    assert "3 trusted answers of 3 kinds are too few for 8 demonstrations" in line


def test_a_rotated_or_shorter_list_of_options_has_its_own_codes(store):
    for i in range(60):
        answer(store, i, name_of(i))
    with FakeLM(classifier(label_of), identify=identify) as server:
        run(store, server, list(range(90, 110)), demonstrations=6, asks=3, shortlist=2)
        requests = [ask for ask in server.requests if fenced_text(ask.messages) is not None]
    assert len(requests) == 60
    seen = set()
    for ask in requests:
        codes = options(ask)
        for text, said in demonstrated(ask.messages):
            assert label_of(text) in codes, "an answer that the question does not list"
            assert f"]]\n{codes[label_of(text)]}\n" in said
            seen.add((label_of(text), codes[label_of(text)]))
    assert len(seen) > 3, "codes did not change places"


def test_each_label_of_several_is_shown_with_a_yes_or_a_no(store):
    multi = SCHEMA._replace(kind="multi")
    for i in range(40):
        answer(store, i, name_of(i))

    def brain(ask):
        text = fenced_text(ask.messages)
        codes = options(ask)
        said = {c: "yes" if text and name == label_of(text) else "no" for name, c in codes.items()}
        return f"[[ ## answers ## ]]\n{json.dumps(said)}\n\n[[ ## completed ## ]]"

    with FakeLM(brain, identify=identify, supports_logprobs=False) as server:
        found = run(store, server, [70, 71], demonstrations=4, each=True, schema=multi)
        shown = [d for messages in asked(server).values() for d in demonstrated(messages)]
    assert found[70].labels == (name_of(70),)
    assert len(shown) == 8
    assert all(said.count('"yes"') == 1 and said.count('"no"') == 2 for _, said in shown)


def test_an_item_once_asked_stays_as_it_is_when_people_answer_more(store):
    for i in range(20):
        answer(store, i, name_of(i))
    with FakeLM(classifier(label_of), identify=identify) as server:
        run(store, server, [50, 51], demonstrations=4)
        before = server.n_requests
        for i in range(20, 45):
            answer(store, i, name_of(i))
        run(store, server, [50, 51], demonstrations=4)
        assert server.n_requests == before
        run(store, server, [50, 51, 52], demonstrations=4)
        assert server.n_requests == before + 1


def test_no_demonstrations_is_the_recipe_of_old(store):
    ctx = Context(store.folder, home=store.folder)
    plain, off, on, more = (
        Llm(model="m", price="local", **o).recipe_for(SCHEMA, ctx, "v")
        for o in ({}, {"demonstrations": 0}, {"demonstrations": 4}, {"demonstrations": 5})
    )
    assert plain == off
    assert len({plain, on, more}) == 3
    other = Llm(model="m", price="local", demonstrations=4).recipe_for(SCHEMA, ctx, "w")
    assert other != on, "other vectors, other demonstrations"


def test_a_prompt_with_several_texts_has_no_place_for_them():
    with pytest.raises(ValidationError, match="batch and demonstrations cannot be used together"):
        Llm(model="m", price="local", batch=5, demonstrations=4)


def test_a_model_that_copies_is_told_apart_from_one_that_reads(store):
    for i in range(60):
        answer(store, i, name_of(i) if i % 5 > 1 else name_of(i + 1))  # two fifths are wrong
    store.add(t.audit, [{"item": i, "at": 0.0} for i in range(60, 90)])

    def copies(ask):
        said = [s for _, s in demonstrated(ask.messages)]
        codes = [s.split("]]\n")[1][0] for s in said]
        return f"[[ ## answer ## ]]\n{max('ABC', key=codes.count) if codes else '?'}\n\n[[ ## completed ## ]]"

    told = {}
    for name, brain in {"copies": copies, "reads": classifier(label_of)}.items():
        progress = Said()
        with FakeLM(brain, identify=identify, model="fake-lm") as server:
            run(
                store,
                server,
                list(range(60, 120)),
                demonstrations=7,
                progress=progress,
                max_tokens=50 + len(name),
            )
        (told[name],) = [line for line in progress.lines if "majority" in line]
    assert "may be copying" in told["copies"]
    assert "may be copying" not in told["reads"]
    assert "right of 30 whose answer is known: the model 100.0%" in told["reads"]


def test_the_estimate_counts_what_is_shown(store):
    ctx = Context(store.folder, home=store.folder)
    items = store.items(list(range(20)))
    price = {"input": 1.0, "output": 1.0}
    plain, shown = (
        Llm(model="m", price=price, demonstrations=k).estimate(items, SCHEMA, ctx) for k in (0, 8)
    )
    assert (shown.calls, shown.tokens_out) == (plain.calls, plain.tokens_out)
    assert shown.tokens_in > plain.tokens_in + 20 * 8 * 6
    assert shown.usd > plain.usd
