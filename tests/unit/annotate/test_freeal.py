"""FreeAL: clean answers are never asked again, the rest is, with good examples; nothing is paid twice."""

import json
from typing import ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from llmal.annotate import stage
from llmal.annotate.freeal import FreeAl
from llmal.annotate.llm import Llm
from llmal.annotate.stage import Annotator
from llmal.context import Context, Silent
from llmal.corpus import CorpusSpec, read, text_key
from llmal.errors import BudgetSpent, SpecError
from llmal.records import Annotation, Label, LabelSchema
from llmal.store import schema as t
from llmal.store.ledger import Caps
from llmal.store.store import open_store
from llmal.testing.brains import classifier, fenced_text, identify, text_id
from llmal.testing.facts import answer
from llmal.testing.fakelm import FakeLM

NAMES = ("bug", "billing", "praise")
SCHEMA = LabelSchema("single", tuple(Label(name=n) for n in NAMES), True)
N = 300
RNG = np.random.default_rng(11)
TRUTH = RNG.integers(3, size=N)
VECTORS = np.eye(3, 24)[TRUTH] + 0.25 * RNG.normal(size=(N, 24))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)
WRONG = RNG.random(N) < np.array([0.1, 0.25, 0.4])[TRUTH]
FIRST = np.where(WRONG, (TRUTH + 1) % 3, TRUTH)
SILENT = set(range(0, N, 37))
ASKED: list[tuple[int, int]] = []
SEEN: list[tuple[int, tuple]] = []


class Worker(Annotator):
    """Often wrong, always right once it is shown how; asked items and what was shown are noted."""

    takes_demonstrations: ClassVar[bool] = True
    stops_after: int = 10_000
    learns: bool = True

    def annotate(self, items, schema, desk):
        for item in items:
            if len(ASKED) >= self.stops_after:
                raise BudgetSpent("no more calls")
            shown = desk.shown.get(item.seq, ())
            ASKED.append((item.seq, len(shown)))
            SEEN.append((item.seq, shown))
            if item.seq in SILENT and not shown:
                made = Annotation(item.seq, "unparsed", detail="well")
            elif item.seq in SILENT and item.seq % 2:
                made = Annotation(item.seq, "abstained")
            else:
                said = TRUTH[item.seq] if shown and self.learns else FIRST[item.seq]
                made = Annotation(item.seq, "ok", (schema.names[said],))
            desk.store.add(t.annotation, stage.annotation_rows(desk.recipe, [made]))
            yield made
            desk.advance()

    def recipe(self):
        return "worker"


@pytest.fixture(autouse=True)
def _nobody_was_asked():
    ASKED.clear()
    SEEN.clear()


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": f"{NAMES[TRUTH[i]]} text {i}"}) + "\n" for i in range(N)))
    opened.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    opened.put_block("v", 0, VECTORS)
    yield opened
    opened.close()


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def run(store, annotator, *, wanted=None, progress=None, schema=SCHEMA, caps=None, seed=0):
    ctx = Context(store.folder, home=store.folder, progress=progress, seed=seed)
    wanted = list(range(N)) if wanted is None else wanted
    try:
        stage.run(
            annotator, store, ctx, schema=schema, caps=caps or Caps(), wanted=wanted, vectors="v"
        )  # fmt: skip
    finally:
        made = store.annotations(annotator.recipe_for(schema, ctx, "v"))
    return made


def right(made):
    return float(np.mean([a.labels == (NAMES[TRUTH[s]],) for s, a in made.items()]))


def again():
    return [s for s, shown in ASKED if shown]


def test_labels_are_better_after_the_loop_than_before(store):
    made = run(store, FreeAl(of=Worker()))
    before = np.mean([FIRST[s] == TRUTH[s] and s not in SILENT for s in range(N)])
    assert set(made) == set(range(N))
    assert right(made) > before + 0.15
    clean = [s for s in range(N) if s not in set(again())]
    assert np.mean([FIRST[s] == TRUTH[s] for s in clean]) > np.mean(~WRONG) + 0.1


def test_clean_items_are_never_asked_again_and_nobody_twice_in_a_loop(store):
    made = run(store, FreeAl(of=Worker()))
    asked = again()
    assert len(asked) == len(set(asked)) < N / 2
    kept = {s for s, a in made.items() if a.detail == "not asked again: its loss is small"}
    assert kept
    assert not kept & set(asked)
    assert kept | set(asked) == set(range(N))


def test_a_run_again_asks_nothing_and_the_plain_annotator_has_its_answers_too(store):
    run(store, FreeAl(of=Worker()))
    n = len(ASKED)
    run(store, FreeAl(of=Worker()))
    run(store, Worker())
    assert len(ASKED) == n


def test_switching_to_it_pays_for_the_doubtful_items_only(store):
    run(store, Worker())
    assert len(ASKED) == N
    run(store, FreeAl(of=Worker()))
    assert len(ASKED) == N + len(again())
    other = FreeAl(of=Worker(), clean=0.8)
    n = len(ASKED)
    run(store, other)
    assert len(ASKED) - n < n - N, "answers of one threshold serve another"


def test_a_loop_more_pays_for_that_loop_only(store):
    run(store, FreeAl(of=Worker(learns=False)))
    n = len(ASKED)
    made = run(store, FreeAl(of=Worker(learns=False), loops=3))
    later = [s for s, _ in ASKED[n:]]
    first = [s for s, shown in ASKED[:n] if shown]
    assert set(later) <= set(first), "who left on a clean list is not asked in a later loop"
    assert max(map(later.count, later)) == 2
    assert set(made) == set(range(N))


def test_an_answer_that_is_none_is_neither_learnt_nor_shown(store):
    made = run(store, FreeAl(of=Worker()))
    assert set(again()) >= SILENT, "an item without an answer is asked again"
    assert not {item.seq for _, shown in SEEN for item, _ in shown} & SILENT
    odd, even = (next(s for s in SILENT if s % 2 == r and s) for r in (1, 0))
    assert (made[odd].status, made[odd].labels) == ("abstained", ())
    assert made[odd].detail.startswith("asked again with 10 demonstrations: unparsed -> abstained")
    assert made[even].labels == (NAMES[TRUTH[even]],)


def test_demonstrations_are_agreed_upon_and_never_of_the_audit_or_the_item_itself(store):
    reserved = set(range(0, 60))
    store.add(t.audit, [{"item": s, "at": 0.0} for s in reserved])
    for s in range(40, 80):  # people answer some of both
        answer(store, s, NAMES[TRUTH[s]])
    run(store, FreeAl(of=Worker()))
    shown = [(s, item.seq, labels) for s, given in SEEN for item, labels in given]
    assert shown
    assert all(s != other for s, other, _ in shown)
    assert not {other for _, other, _ in shown} & reserved
    assert np.mean([labels == (NAMES[TRUTH[o]],) for _, o, labels in shown]) > 0.95
    assert {other for _, other, _ in shown} & set(range(60, 80)), "people's answers serve as examples"
    assert not set(again()) & set(range(60, 80)), "what a person answered is not asked again"
    assert {s for s, n in ASKED if not n} == set(range(N)), "audit items are asked about like others"


def test_what_a_person_answered_is_learnt_from_but_never_told_as_the_annotator_s(store):
    """Were it, people's answers would be compared with themselves when confidences are calibrated."""
    for s in range(60):
        answer(store, s, NAMES[(FIRST[s] + 2) % 3])
    made = run(store, FreeAl(of=Worker()))
    assert not set(again()) & set(range(60))
    for s in set(range(60)) - SILENT:
        assert made[s].labels == (NAMES[FIRST[s]],)
        assert made[s].detail == "not asked again: a person answered"


def test_audit_answers_teach_the_student_nothing(store):
    """Were the audit's wrong answers learnt from, the labels of all others would be swayed."""
    plain = run(store, FreeAl(of=Worker()), wanted=list(range(150, N)))
    store.add(t.audit, [{"item": s, "at": 0.0} for s in range(150)])
    for s in range(150):
        answer(store, s, NAMES[(TRUTH[s] + 1) % 3])
    swayed = FreeAl(of=Worker(), clean=0.7001)  # another recipe: everything is worked out anew
    assert right(run(store, swayed, wanted=list(range(150, N)))) == pytest.approx(right(plain), abs=0.01)


def test_the_same_seed_gives_the_same_answers(store, tmp_path):
    made = run(store, FreeAl(of=Worker()))
    other = open_store(tmp_path / "other")
    path = tmp_path / "c.jsonl"
    other.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    other.put_block("v", 0, VECTORS)
    assert run(other, FreeAl(of=Worker())) == made
    other.close()


def test_a_budget_that_ends_half_way_leaves_the_clean_and_the_answered(store):
    with pytest.raises(BudgetSpent):
        run(store, FreeAl(of=Worker(stops_after=N + 20)))
    ctx = Context(store.folder, home=store.folder)
    made = store.annotations(FreeAl(of=Worker()).recipe_for(SCHEMA, ctx, "v"))
    assert len(again()) == 20
    assert 20 < len(made) < N
    assert set(again()) <= set(made)
    assert right(made) > 0.8
    made = run(store, FreeAl(of=Worker()))
    assert len(made) == N
    assert len(ASKED) == len(set(ASKED)), "what was answered before the end is not asked again"


def test_a_budget_that_ends_among_the_first_answers(store):
    with pytest.raises(BudgetSpent):
        run(store, FreeAl(of=Worker(stops_after=200)))
    assert not again()
    made = run(store, FreeAl(of=Worker()))
    assert len(made) == N
    assert len([s for s, n in ASKED if not n]) == N


def test_a_crash_costs_nothing_and_changes_nothing(store, tmp_path):
    class Crash(Exception):
        pass

    class Killed(Worker):
        def annotate(self, items, schema, desk):
            for made in super().annotate(items, schema, desk):
                yield made
                if len(ASKED) in (130, N + 33):
                    raise Crash

    for _ in range(2):
        with pytest.raises(Crash):
            run(store, FreeAl(of=Killed()))
    made = run(store, FreeAl(of=Killed()))
    assert len(ASKED) == len(set(ASKED))
    other = open_store(tmp_path / "other")
    other.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), tmp_path / "c.jsonl", SCHEMA), text_key)
    other.put_block("v", 0, VECTORS)
    assert run(other, FreeAl(of=Worker())) == made
    other.close()


def test_later_rounds_learn_from_earlier_ones_and_leave_their_labels(store):
    first = run(store, FreeAl(of=Worker()), wanted=list(range(100)))
    made = run(store, FreeAl(of=Worker()), wanted=list(range(N)))
    assert {s: made[s] for s in range(100)} == first
    asked = [s for s, n in ASKED if n]
    assert len(asked) == len(set(asked))


def test_the_probability_is_of_student_and_annotator_together(store):
    made = run(store, FreeAl(of=Worker(learns=False)))
    ok = [a for a in made.values() if a.status == "ok"]
    assert all(a.kind == "votes" and abs(sum(a.probs) - 1) < 1e-5 for a in ok)
    sure = np.array([a.confidence for a in ok])
    hit = np.array([a.labels == (NAMES[TRUTH[a.item]],) for a in ok])
    assert sure[hit].mean() > sure[~hit].mean() + 0.15, "a surer answer is right more often"
    told = [a for a in ok if "asked again with 10 demonstrations: " in a.detail]
    assert all(" -> ".join(a.labels * 2) in a.detail for a in told if a.item not in SILENT)


def test_a_model_s_own_distribution_counts(store):
    class Sure(Worker):
        def annotate(self, items, schema, desk):
            for item in items:
                probs = np.full(3, 0.05)
                probs[FIRST[item.seq]] = 0.9
                yield Annotation(
                    item.seq, "ok", (NAMES[FIRST[item.seq]],), tuple(probs), 0.9, "logprobs", "", "r"
                )
                desk.advance()

    made = run(store, FreeAl(of=Sure()))
    assert max(a.confidence for a in made.values()) < 0.951
    assert {a.request for a in made.values()} == {"r"}


def test_too_few_answers_stand_as_they_are_and_it_is_said(store):
    progress = Said()
    made = run(store, FreeAl(of=Worker()), wanted=list(range(1, 12)), progress=progress)
    assert not again()
    assert {s: a.labels for s, a in made.items()} == {s: (NAMES[FIRST[s]],) for s in range(1, 12)}
    assert [line for line in progress.lines if "too few to sort answers by" in line]


def test_every_loop_is_told(store):
    progress = Said()
    run(store, FreeAl(of=Worker()), progress=progress)
    (line,) = [line for line in progress.lines if "loop 1" in line]
    asked = len(again())
    assert f"{N - asked} of {N} answers stay, {asked} items are asked about again with 10" in line


def test_it_refuses_what_cannot_be_shown_examples_and_labels_in_plural():
    with pytest.raises(ValidationError, match="zero-shot takes none; use llm in its place"):
        FreeAl(of="zero-shot")
    ctx = Context(None, home=None)
    with pytest.raises(SpecError, match="freeal is for labels.kind: single"):
        FreeAl(of=Worker()).recipe_for(SCHEMA._replace(kind="multi"), ctx, "v")


def test_what_decides_an_answer_is_in_the_recipe():
    ctx = Context(None, home=None)
    made = {
        FreeAl(of=Worker(), **options).recipe_for(SCHEMA, ctx, v)
        for options in ({}, {"loops": 2}, {"demonstrations": 3}, {"clean": 0.5}, {"pool": 50})
        for v in ("v", "w")
    }
    assert len(made) == 10
    parts = [FreeAl(of=Worker(), loops=n).parts(SCHEMA, ctx, "v") for n in (1, 3)]
    assert parts[1][:2] == parts[0]
    assert len(set(parts[1])) == 4


def test_the_estimate_is_the_most_it_can_be(store):
    items = store.items(list(range(40)))
    ctx = Context(store.folder, home=store.folder)
    llm = Llm(model="m", price={"input": 1.0, "output": 4.0})
    one, found = (a.estimate(items, SCHEMA, ctx) for a in (llm, FreeAl(of=llm, loops=2)))
    shown = Llm(model="m", price={"input": 1.0, "output": 4.0}, demonstrations=10)
    most = shown.estimate(items, SCHEMA, ctx)
    assert found.calls == 3 * one.calls
    assert found.tokens_in >= one.tokens_in + 2 * most.tokens_in * 0.8
    assert found.usd >= one.usd + 2 * most.usd * 0.8
    assert "not asked about again" in found.note


# --- at an endpoint ----------------------------------------------------------------------------------------


def truth_of(text):
    return text.split()[0]


def test_at_an_endpoint_doubtful_items_are_asked_twice_and_all_others_once(store):
    said = {f"{NAMES[TRUTH[i]]} text {i}": NAMES[FIRST[i]] for i in range(N)}
    shown_how = classifier(truth_of)
    at_first = classifier(said)

    def brain(ask):
        return (shown_how if len(ask.messages) > 2 else at_first)(ask)

    with FakeLM(brain, identify=identify) as server:
        llm = Llm(model="fake-lm", base_url=server.base_url, price="local", in_flight=16)
        made = run(store, FreeAl(of=llm))
        counts = dict(server.counts)
        requests = server.requests
        n = server.n_requests
        run(store, FreeAl(of=llm))
        assert server.n_requests == n
        with pytest.raises(BudgetSpent):
            run(store, FreeAl(of=llm, demonstrations=5), caps=Caps(calls=n + 9))
        assert server.n_requests == n + 9
    clean = {s for s, a in made.items() if a.detail == "not asked again: its loss is small"}
    for s in range(N):
        assert counts[text_id(f"{NAMES[TRUTH[s]]} text {s}")] == (1 if s in clean else 2)
    long = [ask for ask in requests if len(ask.messages) > 2]
    assert len(long) == N - len(clean)
    assert {len(ask.messages) for ask in long} == {2 + 20}
    assert all(fenced_text(ask.messages) not in {fenced_text([m]) for m in ask.messages[:-1]} for ask in long)
    assert right(made) > 0.9


def test_prompts_with_several_texts_come_first_and_single_ones_when_asked_again(store):
    def brain(ask):
        if len(ask.messages) > 2:
            return classifier(truth_of)(ask)
        import re

        codes = dict(zip(NAMES, "ABC", strict=True))
        found = re.findall(r"(\w+):\n<<<(\w+)\n(.*?)\n\2>>>", ask.user, re.DOTALL)
        if not found:
            return classifier(truth_of)(ask)
        pairs = {name: codes[NAMES[FIRST[int(text.split()[-1])]]] for name, _, text in found}
        return f"[[ ## answers ## ]]\n{json.dumps(pairs)}\n\n[[ ## completed ## ]]"

    with FakeLM(brain, supports_logprobs=False) as server:
        llm = Llm(model="fake-lm", base_url=server.base_url, price="local", batch=10)
        made = run(store, FreeAl(of=llm))
        single = [ask for ask in server.requests if len(ask.messages) > 2]
    assert right(made) > 0.9
    assert len(single) == sum(a.detail.startswith("asked again") for a in made.values())
