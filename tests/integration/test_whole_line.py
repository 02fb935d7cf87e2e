"""The whole line on small corpora: both kinds of labels and of students, answers of people, edits."""

import json

import pytest

import llmal
from llmal.spec import Pipeline
from llmal.testing.tiny import tiny_bert

TOPICS = {
    "fruit": "apple pear plum cherry grape melon",
    "metal": "iron copper zinc silver gold tin",
    "sport": "tennis hockey rowing chess judo golf",
}
WORDS = " ".join(TOPICS.values()).split()


def corpus(folder, *, multi=False, n=480):
    """Texts about one topic (multi: none to three), with gold and recorded answers that are 95 % right."""
    rows, answers = [], []
    for i in range(n):
        names = [t for j, t in enumerate(TOPICS) if (i >> j) & 1] if multi else [list(TOPICS)[i % 3]]
        words = [TOPICS[t].split()[(i + k) % 6] for t in names for k in range(2)]
        wrong = [] if multi else [list(TOPICS)[(i + 1) % 3]]
        rows.append(
            {"id": str(i), "text": f"{' '.join(words)} note {i}", "label": names if multi else names[0]}
        )
        said = wrong if wrong and i % 20 == 7 else names
        answers.append({"id": str(i), "label": said if multi else said[0], "sure": 0.9 if i % 5 else 0.4})
    for name, data in (("corpus", rows), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")
    return rows


def spec(**changes):
    said = {
        "corpus": {"path": "corpus.jsonl", "id": "id", "gold": "label"},
        "labels": {"names": list(TOPICS)},
        "audit": {"size": 40},
        "rounds": {"max": 2, "size": 150},
        "embed": {"use": "hashing", "dim": 256},
        "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
        "train": {"rounds": "linear", "final": "linear"},
    }
    return Pipeline.model_validate(said | changes)


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("student", ["linear", "finetune"])
def test_a_corpus_becomes_a_classifier(tmp_path, kind, student):
    rows = corpus(tmp_path, multi=kind == "multi")
    final = "linear"
    if student == "finetune":
        model = str(tiny_bert(tmp_path / "tiny", [*WORDS, "note"]))
        final = {
            "use": "finetune",
            "model": model,
            "learning_rate": 0.004,
            "epochs": 20 if kind == "single" else 60,
            "freeze_words": False,
        }
    pipeline = spec(
        labels={"kind": kind, "names": list(TOPICS)}, train={"rounds": "linear", "final": final},
        filter={"use": "confidence", "at_least": 0.5},
    )  # fmt: skip
    done = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    # Chance is 0.33 (single) and 0.13 (multi); random weights learn from 250 texts what they can.
    good = 0.8 if student == "linear" else 0.6
    assert done.measures["student.accuracy"]["value"] > good
    assert done.labels["verdict"]["hold"] > 0  # the answers that were not sure
    model = llmal.load(done.export)
    answers = model.predict([row["text"] for row in rows])
    truth = [tuple(row["label"]) if kind == "multi" else row["label"] for row in rows]
    assert sum(a == g for a, g in zip(answers, truth, strict=True)) > good * len(rows)
    again = llmal.run(pipeline, tmp_path / "run", home=tmp_path)
    assert again.facts_added == 0
    assert again.measures == done.measures


def test_a_run_that_was_cut_at_every_stage_ends_like_an_unbroken_one(tmp_path):
    corpus(tmp_path)
    whole = llmal.run(spec(), tmp_path / "whole", home=tmp_path)
    for until in ("embed", "select", "annotate", "filter", "train", "route", "evaluate"):
        llmal.run(spec(), tmp_path / "cut", home=tmp_path, until=until)
    cut = llmal.run(spec(), tmp_path / "cut", home=tmp_path)
    assert cut.measures == whole.measures
    assert cut.labels == whole.labels
    assert (tmp_path / "cut/labels.jsonl").read_bytes() == (tmp_path / "whole/labels.jsonl").read_bytes()


def test_a_threshold_moved_asks_nothing_and_reuses_every_pick(tmp_path):
    corpus(tmp_path)
    first = llmal.run(spec(), tmp_path / "run", home=tmp_path)
    looser = llmal.run(spec(filter={"use": "confidence", "at_least": 0.3}), tmp_path / "run", home=tmp_path)
    assert looser.labels["verdict"]["accept"] > first.labels["verdict"]["accept"]
    assert looser.seconds["annotate"] < 1
    assert sum(looser.labels["verdict"].values()) == sum(first.labels["verdict"].values())


def test_answers_to_a_label_that_is_gone_are_kept_aside_not_crashed_on(tmp_path):
    rows = corpus(tmp_path)
    for row in rows:
        del row["label"]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    without_gold = {"corpus": {"path": "corpus.jsonl", "id": "id"}}
    done = llmal.run(spec(**without_gold), tmp_path / "run", home=tmp_path)
    from llmal.handover import review

    out = tmp_path / "todo.jsonl"
    review(done.run, out=out, into=None, person="p", spreadsheet=False)
    table = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    truth = {row["text"]: list(TOPICS)[int(row["id"]) % 3] for row in rows}
    out.write_text(
        "".join(json.dumps({**r, "answer": truth[r["text"]]}) + "\n" for r in table), encoding="utf-8"
    )
    taken = review(done.run, out=None, into=out, person="p", spreadsheet=False)["taken"]
    assert taken["new"] == len(table)
    measured = llmal.run(spec(**without_gold), tmp_path / "run", home=tmp_path)
    assert measured.measures["student.accuracy"]["n"] == 40
    fewer = spec(**without_gold, labels={"names": ["fruit", "metal", "plant"]})
    less = llmal.run(fewer, tmp_path / "run", home=tmp_path)
    assert 0 < less.measures["student.accuracy"]["n"] < 40
    back = llmal.run(spec(**without_gold), tmp_path / "run", home=tmp_path)
    assert back.measures == measured.measures


def test_gold_of_the_audit_sample_never_trains(tmp_path):
    import sqlalchemy as sa

    from llmal.context import Context
    from llmal.state import recipes
    from llmal.store import schema as t
    from llmal.store.store import open_store

    corpus(tmp_path)
    plan = spec(audit={"size": 40, "annotate": True})
    done = llmal.run(plan, tmp_path / "run", home=tmp_path)
    store = open_store(done.run, write=False)
    try:
        picked = {s for (s,) in store.read(sa.select(t.pick.c.item))}
        assert not picked & set(store.audit())
        learnt = store.read(sa.select(t.student.c.n_items).where(t.student.c.role == "final"))[0][0]
        decided = store.decisions(recipes(plan, Context(done.run, home=tmp_path), store).decisions)
        assert set(decided) & set(store.audit()), "the audit's items are decided on too"
        assert learnt == sum(d.verdict == "accept" for s, d in decided.items() if s in picked)
    finally:
        store.close()
