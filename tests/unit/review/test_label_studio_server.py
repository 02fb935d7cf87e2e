"""Files that a real Label Studio wrote come in right: people, times, edits, skips, and what is wrong.

The files in `tests/data/label_studio` are exports of a Label Studio 1.23.2 server (2026-11-22), of texts and
labels made up here. Its two people worked through its API: answers with and without a note, two people on one
text, an edited answer, a skipped task, one submitted without a choice, drafts, a label that is not ours, two
labels where one is asked for; and several labels, none, and two people's in the files called `multi`.
"""

import json
from pathlib import Path

import pytest

from llmal.records import Label, LabelSchema
from llmal.review.exchange import answered_work, detect, hand_out, take_back
from llmal.store import schema as t

DATA = Path(__file__).resolve().parents[2] / "data" / "label_studio"
NAMES = ("praise", "complaint", 'a "question" <b>')
SCHEMAS = {
    kind: LabelSchema(kind, tuple(Label(name=name) for name in NAMES), False) for kind in ("single", "multi")
}
TEXTS = [
    "The lamp came on time.",
    "My order is lost!",
    "متى يصل الطرد؟ \u202bשלום\u202c",
    "🎉👩‍👩‍👧 great",
    "<script>alert(1)</script> &amp;",
    "two\r\nlines\tand\rmore",
    "near NUL: \x01 \x85 \u2028",
    "=1+1 {{ 7*7 }}",
    "https://example.org/a.png",
    "  blanks  \n",
]
SINGLE = [
    (0, "user 1", ["praise"], "", 2.25, ["praise"]),
    (1, "user 1", ["complaint"], "lost <parcel> 📦\r\ntwo lines", 1.5, ["praise"]),
    (2, "user 1", ['a "question" <b>'], "", 1.5, None),
    (2, "user 2", ["praise"], "", 7.0, None),
    (3, "user 1", ["complaint"], "", 9.5, None),
    (4, "user 2", ["complaint"], "", 1.5, None),
    (7, "user 1", ['a "question" <b>'], "", 1.5, None),
]
MULTI = [
    (0, "user 1", ["praise", 'a "question" <b>'], "", 1.5, ["praise"]),
    (1, "user 1", [], "", 1.5, ["praise"]),
    (2, "user 1", ["praise", "complaint"], "", 1.5, None),
    (2, "user 2", ["praise"], "", 1.5, None),
]


@pytest.fixture
def store(filled):
    return filled(TEXTS)


def facts(store, *, saw=True):
    rows = store.read(t.answer.select())
    return sorted(
        (a.item, a.person, json.loads(a.labels), a.note, a.seconds, *([a.saw and json.loads(a.saw)] * saw))
        for a in rows
    )


def take(store, name, **more):
    kind = name.partition("_")[0]
    return take_back(store, DATA / f"{name}.json", SCHEMAS[kind], "label-studio", **more)


def test_a_real_export_brings_people_notes_times_and_the_newest_of_an_edit(store):
    taken = take(store, "single")
    assert facts(store) == SINGLE
    assert (taken.new, taken.known, taken.open, taken.older) == (7, 0, 0, 0)
    # Cancelled, submitted without a choice, and two drafts, one of them of an edit.
    assert taken.skipped == 4
    assert taken.aside == [
        "single.json:9: no label called 'gone label'",
        "single.json:10: 2 labels where one is asked for",
    ]
    at = [a.at for a in store.read(t.answer.select().order_by(t.answer.c.n))]
    assert at == sorted(at)
    edited = json.loads((DATA / "single.json").read_text(encoding="utf-8"))[3]["annotations"][0]
    assert edited["updated_at"] > edited["created_at"]


def test_several_labels_and_none_of_them_come_in_as_each_person_gave_them(store):
    taken = take(store, "multi")
    assert facts(store) == MULTI
    assert (taken.new, taken.open, taken.skipped, taken.aside) == (4, 1, 1, [])


@pytest.mark.parametrize(("kind", "wanted"), [("single", SINGLE), ("multi", MULTI)])
def test_the_short_export_says_the_same_and_adds_nothing_to_the_long_one(store, filled, kind, wanted):
    short = f"{kind}_min"
    assert detect(DATA / f"{short}.json") == detect(DATA / f"{kind}.json") == "label-studio"
    other = filled(TEXTS, "other")
    taken = take(other, short)
    assert facts(other, saw=False) == [row[:-1] for row in wanted]  # such a file has no predictions
    assert taken.new == len(wanted)
    assert len(taken.aside) == (2 if kind == "single" else 0)
    take(store, kind)
    assert (take(store, short).new, take(store, kind).new) == (0, 0)
    assert facts(store) == wanted


def test_where_the_servers_users_are_known_answers_have_their_names(store):
    take(store, "single", people={"user 1": "one@example.org"})
    assert {row[1] for row in facts(store)} == {"one@example.org", "user 2"}


def test_answers_that_went_through_a_server_are_still_each_persons_own(store, filled, tmp_path):
    """An import makes all annotations the importer's, of that moment; what we wrote beside them counts."""
    take(store, "single", people={"user 1": "ann", "user 2": "bob"})
    path = tmp_path / "all.json"
    hand_out(store, answered_work(store, SCHEMAS["single"]), path, SCHEMAS["single"], "label-studio")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    for task in tasks:
        for annotation in task["annotations"]:
            annotation.pop("created_username")
            annotation |= {
                "completed_by": 1,
                "created_at": "2026-11-23T10:00:00Z",
                "updated_at": "2026-11-23T10:00:00Z",
            }
    path.write_text(json.dumps(tasks), encoding="utf-8")
    other = filled(TEXTS, "other")
    assert take_back(other, path, SCHEMAS["single"], "label-studio").new == len(SINGLE)
    assert facts(other) == facts(store)
    # What somebody changes there is that person's, of then.
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["complaint"]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    assert take_back(other, path, SCHEMAS["single"], "label-studio").new == 1
    assert {(p, *labels) for s, p, labels, *_ in facts(other) if s == 0} == {
        ("ann", "praise"),
        ("user 1", "complaint"),
    }
