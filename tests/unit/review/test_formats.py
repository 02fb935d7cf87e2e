"""Other tools' files: what goes out comes back word for word, and no file makes a reader fall over."""

import contextlib
import json
import random
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmal.corpus import json_line
from llmal.errors import ReviewError
from llmal.records import Label, LabelSchema
from llmal.review.exchange import FORMATS
from llmal.review.formats import reading
from llmal.review.formats.label_studio import LabelStudio
from llmal.review.formats.work import Odd, Said, Work
from llmal.testing.hostile import HOSTILE, LABELS

NAMES = (*LABELS, "=cmd|' /C calc'!A0", "none", "a\tb\nc\rd", " blanks ", "|", "\x1b[2J", "$text", "plain")
SINGLE = LabelSchema("single", tuple(Label(name=name, description=f"<b>{name}") for name in NAMES), True)
MULTI = SINGLE._replace(kind="multi")
SCHEMAS = {"single": SINGLE, "multi": MULTI}
PIECES = [
    *HOSTILE.values(),
    *("\r\n", "\r", "\n", "\u2028", "\x85", "\ufeff", '"', "'", ",", "\t", "=1+1", "\\u0041", "\\", "\x01"),
    *("\uff1d", "\u202e", "|", "😀", "e\u0301", "]", "}", "[{", "NaN", "1e999", "&amp;", "\x7f", " "),
]


def ugly_works(n, schema, seed=0):
    """`n` items of texts, people, notes and numbers that are hard to write down."""
    rng = random.Random(seed)

    def ugly():
        return "".join(rng.choices(PIECES, k=rng.randint(1, 4)))

    def labels(most):
        if schema.kind == "single":
            return (rng.choice(schema.names),)
        return tuple(rng.sample(schema.names, rng.randint(0, most)))

    def said(who):
        known = rng.random() < 0.8
        return Said(
            labels(4),
            who,
            ugly() if rng.random() < 0.5 else "",
            rng.choice([None, 0.0, 1e-9, round(rng.expovariate(0.1), 6), 9_999_999.0]) if known else None,
            round(rng.uniform(0, 1.7e9), 6) if known else None,
            tuple(rng.sample(schema.names, 2)) if rng.random() < 0.3 else None,
            labels(2) if rng.random() < 0.3 else None,
            rng.random() < 0.1,
        )

    for i in range(n):
        audit = rng.random() < 0.2
        guess = () if audit else labels(3)
        yield Work(
            f"{i:032x}",
            ugly(),
            "audit" if audit else ugly(),
            guess,
            None if audit else rng.choice([None, 0.0, 1.0, rng.random(), 5e-324, 0.1 + 0.2]),
            () if audit or rng.random() < 0.5 else tuple(rng.sample(schema.names, 3)),
            tuple(said(ugly() + str(k)) for k in range(rng.choice([0, 0, 1, 2]))),
            flag=rng.choice([None, None, "", ugly()]),
        )


def written(form, works):
    tasks = [task for work in works for task in form.tasks(work)]
    return json.dumps(tasks) if form.wraps else "\n".join(map(json_line, tasks))


def merged(works):
    """Tasks of one item, joined: Prodigy has a line for each answer."""
    found = {}
    for work in works:
        before = found.get(work.key, work._replace(said=()))
        found[work.key] = before._replace(said=before.said + work.said)
    return list(found.values())


@pytest.mark.parametrize(("kind", "n"), [("single", 5000), ("multi", 500)])
@pytest.mark.parametrize("name", FORMATS)
def test_ugly_items_come_back_word_for_word_in_every_format(name, kind, n):
    form = FORMATS[name](SCHEMAS[kind])
    works = list(ugly_works(n, SCHEMAS[kind]))
    back = [form.read(task) for _, task in reading.tasks(written(form, works))]
    assert merged(back) == works


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_marks_and_other_line_ends_reads_the_same(name, tmp_path):
    form, path = FORMATS[name](SINGLE), tmp_path / "f.json"
    works = list(ugly_works(40, SINGLE))
    text = "".join(json.dumps(task, indent=None) + "\n" for work in works for task in form.tasks(work))
    if form.wraps:
        text = "[" + ",".join(text.splitlines(keepends=True)) + "]"
    for raw in (
        text.encode("utf-8-sig"),
        text.replace("\n", "\r\n").encode(),
        b"\n \t" + text.encode() + b"\r\n\n",
        text.encode("utf-16"),
    ):
        path.write_bytes(raw)
        tasks = [form.read(task) for _, task in reading.tasks(reading.content(path))]
        assert merged(tasks) == works


def test_the_labelling_configuration_is_xml_whose_choices_are_the_labels(tmp_path):
    form = LabelStudio(SINGLE)
    ((path, xml),) = form.beside(tmp_path / "todo.json").items()
    assert path.name == "todo.config.xml"
    view = ElementTree.fromstring(xml)
    assert {element.tag for element in view.iter()} == {"View", "Text", "Choices", "Choice", "TextArea"}
    choices = view.findall("Choices/Choice")
    written = [choice.get("value") for choice in choices]
    assert [form._meant[value] for value in written] == list(NAMES)
    assert [n for n, w in zip(NAMES, written, strict=True) if n != w] == ["\x1b[2J"]
    assert [choice.get("hotkey") for choice in choices][:10] == list("1234567890")[: len(choices)]
    assert view.find("Choices").get("choice") == "single"
    assert all(set(choice.keys()) <= {"value", "hotkey", "hint"} for choice in choices)
    multi = ElementTree.fromstring(next(iter(LabelStudio(MULTI).beside(path).values())))
    assert multi.find("Choices").get("choice") == "multiple"


def test_an_address_that_a_label_studio_server_may_not_know_stands_where_it_refuses_nothing():
    form = LabelStudio(SINGLE)
    (task,) = form.tasks(Work("k", "t", said=(Said(("plain",), "ann@example.org", adjudicates=True),)))
    (annotation,) = task["annotations"]
    assert "completed_by" not in annotation
    assert annotation["ground_truth"] is True
    assert form.read(json.loads(json.dumps(task))).said[0].person == "ann@example.org"
    (task,) = form.tasks(Work("k", "t", said=(Said(("plain",), "ann"),)))
    assert task["annotations"][0]["ground_truth"] is False  # left out, an import makes it true


def test_two_labels_that_xml_cannot_tell_apart_are_refused():
    same = LabelSchema("single", (Label(name="a\x01"), Label(name="a\x02")), False)
    with pytest.raises(ReviewError, match="control characters only"):
        LabelStudio(same)


def test_argilla_and_prodigy_get_the_labels_in_their_settings(tmp_path):
    for kind, asked, style in (
        ("single", "label_selection", "single"),
        ("multi", "multi_label_selection", "multiple"),
    ):
        (text,) = FORMATS["argilla"](SCHEMAS[kind]).beside(tmp_path / "t.json").values()
        question = json.loads(text)["questions"][0]["settings"]
        assert question["type"] == asked
        none = (
            [] if kind == "single" else ["none of these"]
        )  # Argilla wants one question that must be answered
        assert [option["value"] for option in question["options"]] == [*NAMES, *none]
        assert json.loads(text)["questions"][0]["required"] is True
        assert all(f["settings"]["use_markdown"] is False for f in json.loads(text)["fields"])
        (text,) = FORMATS["prodigy"](SCHEMAS[kind]).beside(tmp_path / "t.jsonl").values()
        assert json.loads(text)["choice_style"] == style


def test_none_of_the_labels_is_an_option_of_its_own_in_argilla_and_comes_back_as_none():
    form = FORMATS["argilla"](MULTI)
    (task,) = form.tasks(Work("k", "t", said=(Said((), "ann"),)))
    assert task["responses"]["label"][0]["value"] == ["none of these"]
    assert form.read(task).said == (Said((), "ann"),)
    task["responses"]["label"][0]["value"] = ["none of these", "plain"]
    assert form.read(task).said[0].labels == ("none of these", "plain")  # no label: it is set aside
    taken = MULTI._replace(labels=(Label(name="none of these"), Label(name="plain")))
    (task,) = FORMATS["argilla"](taken).tasks(Work("k", "t", said=(Said(("none of these",), "ann"),)))
    assert FORMATS["argilla"](taken).read(task).said[0].labels == ("none of these",)


def test_candidates_stand_first_among_the_options_and_every_label_is_one():
    work = Work("k", "t", candidates=("plain", "none"))
    (task,) = FORMATS["prodigy"](SINGLE).tasks(work)
    offered = [option["id"] for option in task["options"]]
    assert offered[:2] == ["plain", "none"]
    assert sorted(offered) == sorted(NAMES)
    (task,) = FORMATS["label-studio"](SINGLE).tasks(work)
    assert task["data"]["first"] == "plain | none"
    (record,) = FORMATS["argilla"](SINGLE).tasks(work)
    assert record["fields"]["candidates"] == "plain | none"


def test_what_prodigy_answers_anew_does_not_keep_the_old_answers_time_and_person():
    form = FORMATS["prodigy"](SINGLE)
    (task,) = form.tasks(Work("k", "t", said=(Said(("none",), "ann", "", 3.5, 1000.25),)))
    assert form.read(task).said == (Said(("none",), "ann", "", 3.5, 1000.25),)
    anew = {**task, "accept": ["plain"], "_timestamp": 2000, "_annotator_id": "bob"}
    assert form.read(anew).said == (Said(("plain",), "bob", "", None, 2000.0),)


# ---------------------------------------------------------------- files that are none


def entries(text):
    return list(reading.tasks(text))


def test_keys_twice_deep_nesting_and_what_is_no_object_are_named_and_the_next_task_counts():
    deep = '{"a":' * 200 + "1" + "}" * 200
    text = f'[{{"a": 1, "a": 2}}, {deep}, 7, {{"b": {{"c": 1, "c": 1}}}}, {{"ok": 1}}]'
    assert entries(text) == [
        (1, "the key 'a' stands twice"),
        (2, "nested too deeply"),
        (3, "not a JSON object"),
        (4, "the key 'c' stands twice"),
        (5, {"ok": 1}),
    ]
    assert [n for n, _ in entries(text.replace(", {", "\n{").strip("[]"))] == [1, 2, 3, 4]


@pytest.mark.parametrize("bomb", ["[" * 100_000, '{"a":' * 100_000, '[{"a":' + "[" * 100_000])
def test_a_bomb_of_brackets_ends_in_one_sentence(bomb):
    (said,) = entries(bomb)
    assert "nested too deeply" in said[1] or "ends inside a task" in said[1]


def test_numbers_that_no_tool_writes_are_no_times_and_no_confidences():
    huge = "9" * 100_000
    data = '"data": {"text": "t", "llmal_id": "k"}'
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1", "2.5", huge, "true", '"0.5"', "[]", "null"):
        prediction = f'[{{"model_version": "llmal", "score": {number}, "result": []}}]'
        seconds = number if number != "2.5" else "1e300"
        annotations = (
            '[{"result": [{"from_name": "label", "type": "choices", "value": {"choices": ["x"]}}], '
            f'"lead_time": {seconds}, "created_at": {number if number != "2.5" else huge}}}]'
        )
        text = f'[{{{data}, "predictions": {prediction}, "annotations": {annotations}}}]'
        ((_, task),) = entries(text)
        work = LabelStudio(SINGLE).read(task)
        assert (work.confidence, work.said[0].seconds, work.said[0].at) == (None, None, None), number


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_gives_whole_tasks_and_says_that_it_ends(name):
    form = FORMATS[name](SINGLE)
    text = written(form, ugly_works(12, SINGLE, seed=3))
    whole = entries(text)
    for cut in range(0, len(text) - 1, 97):
        found = entries(text[:cut])
        good = [entry for entry in found if isinstance(entry[1], dict)]
        assert good == whole[: len(good)]
        assert len(found) - len(good) <= 1
        if form.wraps and cut:
            assert isinstance(found[-1][1], str)


def test_what_is_no_text_is_refused_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ReviewError, match="no such file"):
        reading.content(tmp_path / "gone.json")
    (tmp_path / "b.json").write_bytes(b'[{"data": "\xff\xfe"}]')
    with pytest.raises(ReviewError, match="not UTF-8 at byte 11"):
        reading.content(tmp_path / "b.json")
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    with pytest.raises(ReviewError, match="larger than"):
        reading.content(tmp_path / "b.json")


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(st.sampled_from(sorted(FORMATS)), st.sampled_from(sorted(SCHEMAS)), st.data())
@settings(max_examples=100, deadline=None, database=None)
def test_a_task_with_anything_in_any_place_is_read_or_odd(name, kind, data):
    form = FORMATS[name](SCHEMAS[kind])
    work = Work("k", "t", "why", ("none",), 0.5, ("none",), (Said(("none",), "a@b", "n", 1.0, 5.0),))
    (task,) = form.tasks(work)
    spot = task
    while True:
        places = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        place = data.draw(st.sampled_from(places))
        if not isinstance(spot[place], dict | list) or not spot[place] or data.draw(st.booleans()):
            break
        spot = spot[place]
    spot[place] = data.draw(anything)
    read = []
    with contextlib.suppress(Odd):
        read.append(form.read(task))
    assert all(isinstance(name, str) for w in read for said in w.said for name in said.labels)
