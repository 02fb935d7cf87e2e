"""The calibrated filter: people's answers decide how a confidence is read, and an item's own never does."""

import json

import numpy as np
import pytest

from llmal.context import Context
from llmal.corpus import CorpusSpec, read, text_key
from llmal.filter.calibrated import Calibrated
from llmal.filter.confidence import Confidence
from llmal.filter.stage import NOTHING, Checked, Evidence, decision_recipe, evidence_for, run
from llmal.records import Annotation, Label, LabelSchema, recipe
from llmal.store import schema as t
from llmal.store.store import annotation_rows, open_store
from llmal.testing.facts import answer

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="billing")), True)
N = 120


def people(n, *, kind="stated", says=0.95, right=0.7, drawn=True, start=1000, seed=0):
    """Answers of people about n items, of which the annotator is right about an exact share."""
    hits = np.random.default_rng(seed).permutation(n) < round(right * n)
    given = [Annotation(start + i, "ok", ("bug",), None, says, kind) for i in range(n)]
    return tuple(Checked(a, bool(hit), drawn) for a, hit in zip(given, hits, strict=True))


def asked(confidence, kind="stated", item=1):
    return Annotation(item, "ok", ("bug",), None, confidence, kind)


def test_a_sure_annotator_that_is_often_wrong_is_held_and_a_modest_one_that_is_right_is_accepted():
    boaster = Calibrated().decide([asked(0.95)], SCHEMA, Evidence(people(200, right=0.6)))[0]
    assert boaster.verdict == "hold"
    assert boaster.score == pytest.approx(0.6, abs=0.03)
    modest = Calibrated().decide([asked(0.7)], SCHEMA, Evidence(people(200, says=0.7, right=0.95)))[0]
    assert modest.verdict == "accept"
    assert modest.score == pytest.approx(0.95, abs=0.03)


def test_the_reason_says_calibrated_and_raw_value_the_method_and_how_many_answers():
    judge = Calibrated(method="isotonic")
    found = judge.decide([asked(0.95)], SCHEMA, Evidence(people(212, right=0.81)))[0]
    assert found.reason == "calibrated 0.811 >= 0.8 (raw stated 0.950, isotonic on 212 answers)"
    raw = Calibrated().decide([asked(0.9)], SCHEMA, Evidence(people(200, says=0.9, right=0.9)))[0]
    assert raw.reason == "calibrated 0.900 >= 0.8 (raw stated 0.900, left as it is by 200 answers)"


def test_with_too_few_answers_the_raw_confidence_decides_and_the_reason_says_so():
    few = Evidence(people(29, kind="logprobs"))
    found = Calibrated().decide([asked(0.9, "logprobs")], SCHEMA, few)[0]
    assert (found.verdict, found.score) == ("accept", 0.9)
    assert found.reason == (
        "raw logprobs confidence 0.900 >= 0.8, with 29 of 30 answers of people to calibrate it by"
    )
    assert Calibrated().decide([asked(0.7, "logprobs")], SCHEMA, few)[0].verdict == "hold"
    assert "calibrated" in Calibrated(fewest=29).decide([asked(0.9, "logprobs")], SCHEMA, few)[0].reason


def test_a_models_own_word_accepts_nothing_until_enough_people_have_answered():
    for judge in (Confidence(), Calibrated()):
        found = judge.decide([asked(1.0)], SCHEMA, Evidence(people(29)))[0]
        assert (found.verdict, found.score) == ("hold", 1.0)
        assert "a model's word for its own sureness never accepts alone" in found.reason
    assert "`calibrated`" in Confidence().decide([asked(1.0)], SCHEMA)[0].reason
    assert Calibrated().decide([asked(0.95)], SCHEMA, Evidence(people(30, right=1)))[0].verdict == "accept"


def test_kinds_of_confidence_are_never_mixed():
    both = Evidence(
        people(100, kind="logprobs", right=0.5) + people(100, kind="votes", right=0.99, start=2000)
    )
    made = Calibrated().decide([asked(0.95, "logprobs"), asked(0.95, "votes"), asked(0.95)], SCHEMA, both)
    assert [d.verdict for d in made] == ["hold", "accept", "hold"]
    assert made[2].score == 0.95, "a kind nobody checked was calibrated"


def test_answers_without_confidence_are_worth_what_such_answers_were_worth():
    silent = people(100, kind="none", says=None, right=0.9)
    made = Calibrated().decide([asked(None, "none")], SCHEMA, Evidence(silent))[0]
    assert made.verdict == "accept"
    assert made.score == pytest.approx(0.9, abs=0.02)
    assert "raw none given" in made.reason
    assert Calibrated().decide([asked(None, "none")], SCHEMA)[0].verdict == "hold"


def test_no_number_of_right_answers_shows_more_than_itself():
    found = Calibrated().decide([asked(1.0)], SCHEMA, Evidence(people(98, says=1.0, right=1.0)))[0]
    assert found.score <= 99 / 100


def test_items_people_saw_for_a_reason_teach_only_when_asked_to():
    chosen = Evidence(people(100, right=0.4, drawn=False) + people(60, right=0.95, start=2000))
    assert Calibrated().decide([asked(0.95)], SCHEMA, chosen)[0].score == pytest.approx(0.95, abs=0.03)
    pooled = Calibrated(answers="all").decide([asked(0.95)], SCHEMA, chosen)[0]
    assert pooled.score == pytest.approx(0.6, abs=0.05)


def test_an_audit_items_own_answer_never_touches_its_own_score():
    known = people(60, right=0.7)
    rng = np.random.default_rng(1)
    known = tuple(
        c._replace(annotation=c.annotation._replace(confidence=rng.choice([0.7, 0.8, 0.9]))) for c in known
    )
    given = [c.annotation for c in known]
    before = Calibrated().decide(given, SCHEMA, Evidence(known))
    moved = 0
    for i in range(0, 60, 6):
        other = (*known[:i], known[i]._replace(right=not known[i].right), *known[i + 1 :])
        after = Calibrated().decide(given, SCHEMA, Evidence(other))
        assert after[i].score == before[i].score
        assert "its own left out" in after[i].reason
        moved += any(a.score != b.score for a, b in zip(after, before, strict=True))
    assert moved, "answers change nothing at all"


def test_labels_of_their_own_are_told_apart_and_multi_label_answers_are_judged_whole():
    wrong = [Checked(a._replace(labels=("billing",)), r, d) for a, r, d in people(100, right=0.4, start=2000)]
    known = Evidence(people(100, right=0.95) + tuple(wrong))
    given = [asked(0.95), asked(0.95)._replace(labels=("billing",))]
    assert [d.verdict for d in Calibrated().decide(given, SCHEMA, known)] == ["accept", "hold"]
    multi = SCHEMA._replace(kind="multi")
    whole = Calibrated().decide([asked(0.95)._replace(labels=("bug", "billing"))], multi, known)[0]
    assert whole.score == pytest.approx(0.68, abs=0.05)


# --- in a run


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "run")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": "bug"}) + "\n" for i in range(N)))
    spec = CorpusSpec(path="c.jsonl", gold="label")
    opened.put_corpus("c", "d", read(spec, path, SCHEMA), text_key)
    opened.add(t.audit, [{"item": i, "at": 0.0} for i in range(50)])
    said = [asked(0.9, item=i)._replace(labels=("bug" if i % 5 else "billing",)) for i in range(N)]
    opened.add(t.annotation, annotation_rows("a", said))
    yield opened
    opened.close()


def decide(store, judge, tmp_path):
    return run(judge, store, Context(tmp_path, home=tmp_path), schema=SCHEMA, annotations="a")


def named(judge, store):
    return decision_recipe(judge, store, schema=SCHEMA, annotations="a")


def test_gold_counts_for_audit_items_alone_and_a_persons_answer_beats_it(store):
    found = evidence_for(Calibrated(), store, schema=SCHEMA, annotations="a").people
    assert [c.annotation.item for c in found] == list(range(50))
    assert [c.right for c in found] == [bool(i % 5) for i in range(50)]
    answer(store, 0, "billing")
    answer(store, 71, "billing")
    found = {
        c.annotation.item: c for c in evidence_for(Calibrated(), store, schema=SCHEMA, annotations="a").people
    }
    assert found[0].right
    assert (found[71].right, found[71].drawn) == (False, False)
    assert evidence_for(Confidence(), store, schema=SCHEMA, annotations="a") == NOTHING


def test_a_new_answer_of_a_person_decides_anew_and_nothing_else_does(store, tmp_path):
    judge = Calibrated()
    before = named(judge, store)
    assert decide(store, judge, tmp_path)[:2] == (N, N)
    assert decide(store, judge, tmp_path)[:2] == (N, 0)
    answer(store, 0, "billing")
    after = named(judge, store)
    assert after != before
    assert decide(store, judge, tmp_path)[:2] == (N, N)
    assert store.decisions(before)[100].score != store.decisions(after)[100].score


def test_raw_confidence_stays_in_the_annotation_and_the_calibrated_one_is_the_decisions(store, tmp_path):
    decide(store, Calibrated(), tmp_path)
    assert store.annotations("a")[100].confidence == 0.9
    # Item 100 says `billing`, which was wrong on all ten audit items that said so.
    assert store.decisions(named(Calibrated(), store))[100].score < 0.6


def test_the_recipe_of_a_filter_without_evidence_is_what_it_always_was(store):
    judge = Confidence()
    plain = recipe("decision", judge.recipe(), "a")
    assert judge.recipe_for("a") == judge.recipe_for("a", Evidence(people(5))) == named(judge, store) == plain
    assert Confidence(at_least=0.8).recipe_for("annotation-x") == "decision-16324a3142238b56"
