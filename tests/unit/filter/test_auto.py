"""The default filter and the one by people's counts: what decides when, and right labels lose nothing."""

import json

import numpy as np
import pytest

import llmal
from llmal.context import Context
from llmal.filter.auto import Auto
from llmal.filter.confidence import Confidence
from llmal.filter.confident import Confident
from llmal.filter.error_rate import ErrorRate
from llmal.filter.stage import NOTHING, Checked, Evidence, Peers
from llmal.records import Annotation, Label, LabelSchema
from llmal.report import full
from llmal.spec import Pipeline
from llmal.state import recipes
from llmal.store.store import open_store

NAMES = ("ask", "buy", "cry")
SCHEMA = LabelSchema("single", tuple(Label(name=n) for n in NAMES), True)


def world(seed=0, n=600, noise=0.2, audit=90):
    """Three classes that vectors tell apart, labels wrong at a rate that rises by class, and an audit."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n)
    x = rng.normal(size=(3, 24))[truth] + 0.9 * rng.normal(size=(n, 24))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    labels = np.where(rng.random(n) < noise * (0.5 + truth / 2), (truth + rng.integers(1, 3, n)) % 3, truth)
    said = tuple(Annotation(i, "ok", (NAMES[c],)) for i, c in enumerate(labels))
    people = tuple(Checked(said[i], bool(labels[i] == truth[i]), True) for i in range(audit))
    return said, people, Peers(f"p{seed}", said, frozenset(range(audit)), lambda: x), labels != truth


def held(made):
    return np.array([d.verdict != "accept" for d in made])


# --- by people's counts


def test_of_each_label_as_many_are_held_as_people_found_wrong():
    for seed in range(2):
        said, people, peers, wrong = world(seed, n=900, audit=450)
        doubt = held(ErrorRate().decide(list(said), SCHEMA, Evidence(people, peers)))
        for name in NAMES:
            mine = np.array([a.labels[0] == name for a in said])
            assert doubt[450:][mine[450:]].mean() == pytest.approx(wrong[:450][mine[:450]].mean(), abs=0.02)


def test_what_it_holds_is_wrong_far_more_often_and_without_errors_it_holds_nothing():
    shares = []
    for seed in range(4):
        said, people, peers, wrong = world(seed, n=400)
        doubt = held(ErrorRate().decide(list(said), SCHEMA, Evidence(people, peers)))
        shares.append((wrong[doubt].mean(), wrong[~doubt].mean()))
    assert np.mean(shares, axis=0)[0] > 0.6
    assert np.mean(shares, axis=0)[1] < 0.1
    said, people, peers, _ = world(1, noise=0.0)
    assert not held(ErrorRate().decide(list(said), SCHEMA, Evidence(people, peers))).any()


def test_another_share_of_errors_moves_verdicts_and_no_score():
    said, people, peers, _ = world(2)
    before = ErrorRate().decide(list(said), SCHEMA, Evidence(people, peers))
    worse = tuple(c._replace(right=c.right and i % 3 > 0) for i, c in enumerate(people))
    after = ErrorRate().decide(list(said), SCHEMA, Evidence(worse, peers))
    assert [d.score for d in before] == [d.score for d in after]
    assert held(after)[90:].sum() > held(before)[90:].sum() + 30
    assert "the share of wrong `" in after[100].reason


def test_an_audit_items_own_answer_never_decides_about_it():
    said, people, peers, _ = world(3)
    before = ErrorRate().decide(list(said), SCHEMA, Evidence(people, peers))
    moved = 0
    for i in range(0, 90, 18):
        other = (*people[:i], people[i]._replace(right=not people[i].right), *people[i + 1 :])
        after = ErrorRate().decide(list(said), SCHEMA, Evidence(other, peers))
        assert before[i]._replace(reason="") == after[i]._replace(reason="")
        assert before[i].reason.split(", the share")[0] == after[i].reason.split(", the share")[0]
        moved += (held(before) != held(after)).any()
    assert moved, "answers change nothing at all"


def test_only_answers_about_items_drawn_at_random_count_and_few_are_too_few():
    said, people, peers, _ = world(4)
    chosen = tuple(c._replace(drawn=False) for c in people)
    made = ErrorRate().decide(list(said), SCHEMA, Evidence(chosen + people[:29], peers))
    assert held(made).all()
    assert made[0].reason == "people have checked 29 of the 30 answers about the audit that it takes"


# --- the default


def test_it_judges_by_people_once_they_checked_thirty_a_class_and_by_confident_learning_until_then():
    said, people, peers, _ = world(5)
    for known, other in ((people, ErrorRate()), (people[:89], Confident())):
        evidence = Evidence(known, peers)
        mine, its = (one.decide(list(said), SCHEMA, evidence) for one in (Auto(), other))
        assert [(d.verdict, d.score) for d in mine] == [(d.verdict, d.score) for d in its]
        assert mine[0].reason == f"[{other.name}] {its[0].reason}"


def test_a_confidence_below_the_bar_holds_and_a_stated_or_missing_one_says_nothing():
    said, _, peers, _ = world(6)
    evidence = Evidence((), peers)
    i = next(i for i, d in enumerate(Auto().decide(list(said), SCHEMA, evidence)) if d.verdict == "accept")
    ask = [
        said[i]._replace(confidence=c, kind=kind)
        for c, kind in ((0.79, "logprobs"), (0.8, "logprobs"), (0.1, "stated"), (None, "none"))
    ]
    made = Auto().decide(ask, SCHEMA, evidence)
    assert [d.verdict for d in made] == ["hold", "accept", "accept", "accept"]
    assert made[0].score == 0.79
    doubted = next(
        j for j, d in enumerate(Auto().decide(list(said), SCHEMA, evidence)) if d.verdict == "hold"
    )
    sure = said[doubted]._replace(confidence=0.99, kind="logprobs")
    assert Auto().decide([sure], SCHEMA, evidence)[0].verdict == "hold", "a sure outlier is an outlier"


@pytest.mark.parametrize("why", ["few", "no vectors", "multi"])
def test_where_nothing_can_be_compared_it_is_the_confidence_filter(why):
    said, people, peers, _ = world(7)
    mixed = [a._replace(confidence=(i % 10) / 9, kind="votes") for i, a in enumerate(said[:20])]
    mixed += [said[20], said[21]._replace(confidence=0.99, kind="stated"), Annotation(22, "refused")]
    some = peers._replace(annotations=peers.annotations[:119])
    evidence = {"few": Evidence(people, some), "no vectors": NOTHING, "multi": Evidence(people, peers)}[why]
    schema = SCHEMA._replace(kind="multi") if why == "multi" else SCHEMA
    assert Auto().decide(mixed, schema, evidence) == Confidence().decide(mixed, schema)
    assert Auto(at_least=0.5).decide(mixed, schema, evidence) == Confidence(at_least=0.5).decide(
        mixed, schema
    )


# --- in a run


def test_it_is_what_a_file_gets_that_names_no_filter_and_people_who_answer_are_heard(tmp_path):
    """Answers without a confidence train; once the audit is annotated and answered, its errors decide."""
    words = {"fruit": "apple pear plum cherry", "metal": "iron copper zinc silver"}
    rows, said = [], []
    for i in range(300):
        name = list(words)[i % 2]
        text = " ".join(words[name].split()[j] for j in (i % 4, i % 3))
        rows.append({"id": str(i), "text": f"{text} note {i}", "label": name})
        said.append({"id": str(i), "label": list(words)[(i + (i % 7 == 3)) % 2]})
    for file, data in (("corpus", rows), ("answers", said)):
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data))
    plan = Pipeline.model_validate(
        {
            "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
            "labels": {"names": list(words)},
            "audit": {"size": 60, "annotate": True},
            "rounds": {"max": 2, "size": 60},
            "embed": {"use": "hashing", "dim": 128},
            "annotate": {"use": "recorded", "path": "answers.jsonl"},
            "train": {"rounds": "linear", "final": "linear"},
        }
    )
    assert plan.filter == Auto()
    assert "filter" not in plan.to_spec()
    done = llmal.run(plan, tmp_path / "run", home=tmp_path)
    assert 10 < done.labels["verdict"]["hold"] < 60
    assert done.measures["student.accuracy"]["value"] > 0.85
    assert llmal.run(plan, tmp_path / "run", home=tmp_path).facts_added == 0
    assert list(full(tmp_path / "run")["not_accepted"]) == ["doubtful beside the other answers"]
    quiet = plan.model_copy(update={"audit": plan.audit.model_copy(update={"annotate": False})})
    llmal.run(quiet, tmp_path / "quiet", home=tmp_path)
    judges = {}
    for name, one in (("run", plan), ("quiet", quiet)):
        store = open_store(tmp_path / name)
        names = recipes(one, Context(store.folder, home=tmp_path, seed=one.seed), store)
        judges[name] = {d.reason.split("]")[0] for d in store.decisions(names.decisions).values()}
        store.close()
    assert judges == {"run": {"[error-rate"}, "quiet": {"[confident"}}
