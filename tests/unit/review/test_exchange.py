"""Work goes to another labelling tool and comes back: blind where it measures, once, and by the schema."""

import contextlib
import json
import time
from types import SimpleNamespace

import pytest

from llmal import handover
from llmal.corpus import CorpusSpec, json_line, read, text_key
from llmal.errors import ReviewError, UserError
from llmal.records import Label, LabelSchema
from llmal.review.exchange import (
    FORMATS,
    answered_work,
    detect,
    hand_out,
    take_back,
    waiting_work,
)
from llmal.review.stage import Waiting
from llmal.review.table import hand_out as table_out
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.hostile import HOSTILE

SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="=cmd"), Label(name="<b>none")), True)
MULTI = SCHEMA._replace(kind="multi")
TEXTS = ["first", *HOSTILE.values(), "a\r\nb\tc", "\u2028x\x85", "=1+1", "pay\u202epal"]
NOON = 1_700_000_000.0
ENDING = {name: form.suffix for name, form in FORMATS.items()}


def filled(folder, texts=TEXTS):
    """A run whose corpus holds the texts."""
    folder.mkdir(exist_ok=True)
    store = open_store(folder / "run")
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    store.put_corpus("c", "d", read(CorpusSpec(path="c.jsonl"), path, SCHEMA), text_key)
    return store


@pytest.fixture
def store(tmp_path):
    opened = filled(tmp_path)
    yield opened
    opened.close()


def sent(store, folder, name, schema=SCHEMA, queue=None):
    """What goes out for all items: the tool's tasks as it would load them, and the file."""
    some = queue or [Waiting(s, "unsure", ("bug",), 0.5, ("=cmd", "bug")) for s in store.active()]
    path = folder / f"todo{ENDING[name]}"
    hand_out(store, waiting_work(store, some), path, schema, name)
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if FORMATS[name].wraps else list(map(json.loads, text.splitlines())), path


def answer(name, task, labels, *, by="ann@x.org", at=NOON, final=True, seconds=None):
    """The task as the tool exports it after a person worked on it; shapes from the tools' documentation."""
    if name == "label-studio":
        result = [{"id": "Ab1", "from_name": "label", "to_name": "text", "type": "choices",
                   "origin": "manual", "value": {"choices": labels}}]  # fmt: skip
        note = {"id": 1, "completed_by": {"id": 7, "email": by}, "result": result, "was_cancelled": not final,
                "ground_truth": False, "created_at": "2020-01-01T00:00:00Z", "lead_time": seconds,
                "updated_at": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(at))}  # fmt: skip
        more = {"id": 1, "drafts": [], "meta": {}, "project": 83, "total_annotations": 1}
        return {**task, **more, "annotations": [*task["annotations"], note]}
    if name == "argilla":
        one = labels[0] if len(labels) == 1 else labels
        status = "submitted" if final else "discarded"
        response = {"value": one, "user_id": by, "status": status, "updated_at": at}
        kept = task["responses"].get("label", [])
        return {**task, "responses": {"label": [*kept, response]}, "status": "completed"}
    told = {"_input_hash": -5, "_task_hash": 9, "_view_id": "choice", "_timestamp": int(at)}
    return {**task, **told, "accept": labels, "answer": "accept" if final else "ignore", "_annotator_id": by}


def export(folder, name, tasks, file="export"):
    path = folder / f"{file}{ENDING[name]}"
    text = json.dumps(tasks) if FORMATS[name].wraps else "".join(json_line(x) + "\n" for x in tasks)
    path.write_text(text, encoding="utf-8")
    return path


def facts(store):
    c = t.answer.c
    return [tuple(row) for row in store.read(t.answer.select().with_only_columns(
        c.item, c.person, c.labels, c.note, c.seconds, c.shown).order_by(c.n))]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("schema", [SCHEMA, MULTI], ids=["single", "multi"])
def test_answers_given_in_the_tool_come_back_to_their_items_once(store, tmp_path, name, schema):
    tasks, path = sent(store, tmp_path, name, schema)
    assert take_back(store, path, schema, name)[:4] == (0, 0, len(TEXTS), [])
    labels = [["bug"], ["=cmd"], ["<b>none"]]
    if schema is MULTI:
        labels[2] = ["bug", "<b>none"]
    done = [answer(name, task, labels[i % 3]) for i, task in enumerate(tasks)]
    path = export(tmp_path, name, done)
    assert detect(path) == name
    taken = take_back(store, path, schema, name)
    assert taken == (len(TEXTS), 0, 0, [], 0, 0)
    assert store.answers() == {s: tuple(labels[s % 3]) for s in range(len(TEXTS))}
    assert {row[1] for row in facts(store)} == {"ann@x.org"}
    assert {row[5] for row in facts(store)} == {'["=cmd", "bug"]'}
    assert take_back(store, path, schema, name)[:4] == (0, len(TEXTS), 0, [])


@pytest.mark.parametrize("name", FORMATS)
def test_items_that_measure_go_out_without_a_machines_word_and_with_the_full_list(store, tmp_path, name):
    told = (("=cmd",), 0.98765, ("=cmd",))
    _, path = sent(store, tmp_path, name, queue=[Waiting(0, "audit", *told)])
    blind = path.read_text(encoding="utf-8")
    (task,), _ = sent(store, tmp_path, name, queue=[Waiting(0, "audit")])
    assert blind == path.read_text(encoding="utf-8")
    work = FORMATS[name](SCHEMA).read(task)
    assert (work.why, work.guess, work.confidence, work.candidates) == ("audit", (), None, ())
    (shown,), path = sent(store, tmp_path, name, queue=[Waiting(0, "unsure", *told)])
    assert "98765" in path.read_text(encoding="utf-8")
    assert FORMATS[name](SCHEMA).read(shown).guess == ("=cmd",)


@pytest.mark.parametrize("name", FORMATS)
def test_a_guess_that_nobody_confirmed_is_no_answer(store, tmp_path, name):
    _, path = sent(store, tmp_path, name)
    assert take_back(store, path, SCHEMA, name) == (0, 0, len(TEXTS), [], 0, 0)
    assert store.answers() == {}


@pytest.mark.parametrize("name", ["label-studio", "prodigy"])
def test_a_later_export_supersedes_and_an_earlier_one_that_comes_late_does_not(store, tmp_path, name):
    tasks, _ = sent(store, tmp_path, name)
    first = export(tmp_path, name, [answer(name, tasks[0], ["bug"])], "first")
    second = export(tmp_path, name, [answer(name, tasks[0], ["=cmd"], at=NOON + 60)], "second")
    assert take_back(store, first, SCHEMA, name).new == 1
    assert take_back(store, second, SCHEMA, name).new == 1
    assert store.answers() == {0: ("=cmd",)}
    late = export(tmp_path, name, [answer(name, tasks[0], ["bug"]), tasks[1]], "late")
    assert take_back(store, late, SCHEMA, name)[:6] == (0, 0, 1, [], 0, 1)
    assert take_back(store, first, SCHEMA, name).new == 0
    assert store.answers() == {0: ("=cmd",)}
    assert [row[2] for row in facts(store)] == ['["bug"]', '["=cmd"]']


def test_the_newest_of_several_annotations_counts_whatever_their_order_in_the_file(store, tmp_path):
    tasks, _ = sent(store, tmp_path, "label-studio")
    task = answer("label-studio", tasks[0], ["=cmd"], at=NOON + 60)
    task = answer("label-studio", task, ["bug"])
    task = answer("label-studio", task, ["<b>none"], by="bob@x.org", at=NOON - 60)
    taken = take_back(store, export(tmp_path, "label-studio", [task]), SCHEMA, "label-studio")
    assert taken[:4] == (3, 0, 0, [])
    assert store.answers() == {0: ("=cmd",)}
    assert [row[1:3] for row in facts(store)] == [
        ("bob@x.org", '["<b>none"]'),
        ("ann@x.org", '["bug"]'),
        ("ann@x.org", '["=cmd"]'),
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_drafts_and_cancelled_answers_are_counted_and_are_none(store, tmp_path, name):
    tasks, _ = sent(store, tmp_path, name)
    done = [answer(name, tasks[0], ["bug"]), answer(name, tasks[1], ["bug"], final=False), tasks[2]]
    taken = take_back(store, export(tmp_path, name, done), SCHEMA, name)
    assert taken == (1, 0, 1, [], 1, 0)
    assert store.answers() == {0: ("bug",)}


def test_each_tools_own_ways_to_say_nothing_are_no_answers(store, tmp_path):
    tasks, _ = sent(store, tmp_path, "label-studio")
    empty = answer("label-studio", tasks[0], ["bug"])
    empty["annotations"][0]["result"] = []
    draft = {**tasks[1], "drafts": [{"result": []}]}
    taken = take_back(store, export(tmp_path, "label-studio", [empty, draft]), SCHEMA, "label-studio")
    assert (taken.new, taken.skipped) == (0, 2)
    records, _ = sent(store, tmp_path, "argilla")
    pending = answer("argilla", records[0], ["bug"])
    del pending["responses"]["label"][0]["status"]
    pending["status"] = "pending"
    taken = take_back(store, export(tmp_path, "argilla", [pending]), SCHEMA, "argilla")
    assert (taken.new, taken.skipped) == (0, 1)
    completed = export(tmp_path, "argilla", [{**pending, "status": "completed"}])
    assert take_back(store, completed, SCHEMA, "argilla").new == 1
    lines, _ = sent(store, tmp_path, "prodigy")
    rejected = {**answer("prodigy", lines[1], ["bug"]), "answer": "reject"}
    taken = take_back(store, export(tmp_path, "prodigy", [rejected]), SCHEMA, "prodigy")
    assert (taken.new, taken.skipped) == (0, 1)


def test_where_several_labels_may_be_given_none_of_them_is_an_answer(store, tmp_path):
    tasks, _ = sent(store, tmp_path, "label-studio", MULTI)
    none = answer("label-studio", tasks[0], ["bug"])
    none["annotations"][0]["result"] = []
    take_back(store, export(tmp_path, "label-studio", [none]), MULTI, "label-studio")
    lines, _ = sent(store, tmp_path, "prodigy", MULTI)
    take_back(store, export(tmp_path, "prodigy", [answer("prodigy", lines[1], [])]), MULTI, "prodigy")
    assert store.answers() == {0: (), 1: ()}


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_wrong_is_set_aside_with_its_number_and_a_reason_and_the_rest_counts(store, tmp_path, name):
    tasks, _ = sent(store, tmp_path, name)
    changed, gone, bare = (json.loads(json.dumps(tasks[i])) for i in (2, 3, 4))
    holder = {"label-studio": "data", "argilla": "fields"}
    for task, text in ((changed, "other words"), (bare, None)):
        (task[holder[name]] if name in holder else task)["text"] = text
    key = tasks[3]["id"] if name == "argilla" else None
    gone = json.loads(json.dumps(gone).replace(key or store.items([3])[0].key, "f" * 32))
    done = [
        answer(name, tasks[0], ["bgu\n"]),
        answer(name, tasks[1], ["bug", "=cmd"]),
        answer(name, changed, ["bug"]),
        answer(name, gone, ["bug"]),
        answer(name, bare, ["bug"]),
        answer(name, tasks[5], ["=cmd"]),
    ]
    taken = take_back(store, export(tmp_path, name, done), SCHEMA, name)
    reasons = ["no label called 'bgu\N{REPLACEMENT CHARACTER}'", "2 labels where one is asked for",
               "its text is not the item's: it was changed", "no such item",
               "it has no text to compare with the item's"]  # fmt: skip
    wanted = [f"export{ENDING[name]}:{i}: {why}" for i, why in enumerate(reasons, 1)]
    assert sorted(taken.aside) == wanted
    assert store.answers() == {5: ("=cmd",)}


@pytest.mark.parametrize("name", FORMATS)
def test_a_tool_that_lost_our_key_is_forgiven_where_the_text_names_the_item(store, tmp_path, name):
    tasks, _ = sent(store, tmp_path, name)
    task = tasks[1]
    if name == "label-studio":
        task["data"] = {"text": f"  {task['data']['text'].upper()}\n"}
    elif name == "argilla":
        task["id"] = None
    else:
        task = {k: v for k, v in task.items() if k not in ("llmal", "meta")}
    take_back(store, export(tmp_path, name, [answer(name, task, ["bug"])]), SCHEMA, name)
    assert store.answers() == {1: ("bug",)}


@pytest.mark.parametrize("name", FORMATS)
def test_answers_of_one_run_go_to_another_whole(store, tmp_path, name):
    rows = [
        {"n": 1 + i, "item": i % 5, "person": who, "labels": json.dumps([label]), "note": note,
         "source": "s", "line": i, "at": NOON + i + 0.25, "seconds": seconds, "shown": shown}
        for i, (who, label, note, seconds, shown) in enumerate([
            ("ann", "bug", "<script>", 1.5, '["=cmd", "bug"]'), ("a@b.c", "=cmd", "", None, None),
            ("=cmd|x", "bug", "two\nlines", 0.0, None), ("ann", "<b>none", "", 3.25, None),
            ("\u202egnp", "bug", "=1+1", 2.0, None), ("bob", "bug", "", 9.0, '["=cmd", "bug"]'),
        ])
    ]  # fmt: skip
    store.add(t.answer, rows)
    path = tmp_path / f"all{ENDING[name]}"
    hand_out(store, answered_work(store, SCHEMA), path, SCHEMA, name)
    other = filled(tmp_path / "other")
    assert take_back(other, path, SCHEMA, name) == (6, 0, 0, [], 0, 0)
    assert facts(other) == facts(store)
    c = t.answer.c
    times = [store.read(t.answer.select().with_only_columns(c.at).order_by(c.n)) for store in (store, other)]
    assert times[0] == times[1]
    assert take_back(store, path, SCHEMA, name)[:2] == (0, 6)
    other.close()


def test_files_are_told_apart_by_what_is_in_them(store, tmp_path):
    for name in FORMATS:
        _, path = sent(store, tmp_path, name)
        assert detect(path) == name
    for name in ("t.jsonl", "t.csv"):
        table_out(store, [Waiting(0, "audit")], tmp_path / name)
        assert detect(tmp_path / name) is None
    for text in ("[]", '[{"text": "x", "label": "bug", "annotator": 1}]', '{"guidelines": ""}', "", "{"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ReviewError, match=r"x\.json: this is no export .* name the tool with --format"):
            detect(tmp_path / "x.json")
    (tmp_path / "x.jsonl").write_bytes(b"\xff{torn\n")
    assert detect(tmp_path / "x.jsonl") is None


def test_wrong_names_endings_and_files_are_refused_in_one_sentence(store, tmp_path):
    with pytest.raises(
        ReviewError, match="no format called 'labelbox'. Known: label-studio, argilla, prodigy"
    ):
        hand_out(store, [], tmp_path / "x.json", SCHEMA, "labelbox")
    with pytest.raises(ReviewError, match=r"x\.csv: argilla reads \.json files"):
        hand_out(store, [], tmp_path / "x.csv", SCHEMA, "argilla")
    with pytest.raises(ReviewError, match="no such file"):
        take_back(store, tmp_path / "gone.json", SCHEMA, "argilla")
    (tmp_path / "x.json").write_text('{"guidelines": "", "questions": []}')
    with pytest.raises(ReviewError, match=r"x\.json: this is no list of tasks, as argilla writes them"):
        take_back(store, tmp_path / "x.json", SCHEMA, "argilla")


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_to_hand_out_is_an_empty_file_that_reads_back(store, tmp_path, name):
    path = tmp_path / f"e{ENDING[name]}"
    beside = hand_out(store, [], path, SCHEMA, name)
    assert all(place.is_file() for place in beside)
    assert take_back(store, path, SCHEMA, name) == (0, 0, 0, [], 0, 0)


def test_an_answer_taken_back_here_comes_again_only_if_it_was_given_later(store, tmp_path):
    tasks, _ = sent(store, tmp_path, "prodigy")
    done = export(tmp_path, "prodigy", [answer("prodigy", tasks[0], ["bug"])])
    take_back(store, done, SCHEMA, "prodigy")
    undo = {"n": 1, "item": 0, "person": "ann@x.org", "what": "undo", "answer": 1, "note": "",
            "source": "page", "at": NOON + 5, "seconds": None}  # fmt: skip
    store.add(t.remark, [undo])
    again = export(tmp_path, "prodigy", [answer("prodigy", tasks[0], ["bug"]), tasks[1]], "again")
    assert take_back(store, again, SCHEMA, "prodigy").new == 0
    assert store.answers() == {}
    later = export(tmp_path, "prodigy", [answer("prodigy", tasks[0], ["bug"], at=NOON + 60)], "later")
    assert take_back(store, later, SCHEMA, "prodigy").new == 1
    assert store.answers() == {0: ("bug",)}


@pytest.mark.parametrize("name", FORMATS)
def test_review_writes_for_the_tool_reads_its_export_by_itself_and_says_what_it_did(
    store, tmp_path, monkeypatch, name
):
    @contextlib.contextmanager
    def opened(run, write=False, beside=False):
        yield SimpleNamespace(label_schema=lambda: SCHEMA), store, None

    monkeypatch.setattr(handover, "opened", opened)
    monkeypatch.setattr(handover, "waiting_now", lambda *_: [Waiting(0, "audit"), Waiting(1, "unsure")])
    asked = {"out": None, "into": None, "person": "ann", "spreadsheet": False}
    path = tmp_path / f"todo{ENDING[name]}"
    found = handover.review(tmp_path, **asked | {"out": path, "form": name})
    assert (found["handed_out"], found["file"]) == (2, str(path))
    assert f"wrote 2 items to {path}" in handover.review_text(found)
    text = path.read_text(encoding="utf-8")
    tasks = json.loads(text) if FORMATS[name].wraps else list(map(json.loads, text.splitlines()))
    done = [answer(name, tasks[0], ["bug"]), answer(name, tasks[1], ["bug"], final=False)]
    found = handover.review(tmp_path, **asked | {"into": export(tmp_path, name, done)})
    said = handover.review_text(found)
    assert "took 1 new answers (0 known already, 0 rows open)" in said
    assert "left out 1 drafts" in said
    all_of_it = tmp_path / f"all{ENDING[name]}"
    assert (
        handover.review(tmp_path, **asked | {"out": all_of_it, "form": name, "answered": True})["handed_out"]
        == 1
    )
    assert handover.review(tmp_path, **asked | {"into": all_of_it})["taken"]["known"] == 1
    table = tmp_path / "all.csv"
    found = handover.review(tmp_path, **asked | {"out": table, "answered": True})
    assert handover.review_text(found) == f"wrote 1 answers to {table}"
    assert handover.review(tmp_path, **asked | {"into": table})["taken"]["known"] == 1
    for wrong in ({"into": path, "answered": True}, {"out": path, "form": name, "spreadsheet": True}):
        with pytest.raises(UserError, match="--answered"):
            handover.review(tmp_path, **asked | wrong)
