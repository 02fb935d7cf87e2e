"""The page: texts of the data are text, nothing leaves the file, the same facts give the same bytes."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest

from llmal.page.figures import figures
from llmal.page.html import page
from llmal.testing.hostile import HOSTILE, LONG

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "nav", "footer", "section", "div"),
    *(
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "ol",
        "li",
        "a",
        "b",
        "i",
        "bdi",
        "span",
        "code",
        "pre",
        "blockquote",
        "br",
    ),
    *("figure", "figcaption", "details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "defs", "path", "use", "clippath", "rect"),
}
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """What a browser would make of the page: elements, attributes and texts."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data[:60]}")


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def drawn(hostile):
    return page(hostile)


@pytest.fixture(scope="module")
def reader(drawn):
    return read(drawn)


def test_no_element_comes_from_the_data(reader):
    assert set(reader.tags) <= ALLOWED
    assert reader.tags.count("style") == 1


def test_no_attribute_comes_from_the_data_and_none_runs_anything(reader):
    for tag, name, value in reader.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "srcdoc", "action", "formaction", "background", "xlink:href")
        if name == "style":  # numbers of ours, or what Matplotlib wrote
            assert re.fullmatch(r"[\w\s.,:;#()%/-]*", value), value
            assert "url" not in value
        if name == "href":
            assert re.fullmatch(r"#[\w.-]+", value), value
        if name in ("id", "class"):
            assert re.fullmatch(r"[\w. -]*", value), value


def test_nothing_points_outside_the_file(drawn, reader):
    style = next(text for tag, text in reader.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    policies = [value for _, name, value in reader.attributes if name == "content" and "default-src" in value]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]
    assert "<script" not in drawn.lower()


def test_hostile_texts_labels_ids_and_reasons_are_there_as_text(hostile, reader):
    words = "\n".join(text for tag, text in reader.texts if tag != "style")
    assert "<script>alert('label')</script>" in words
    assert '" onmouseover="alert(1)' in words
    assert "{{ 7*7 }}" in words
    assert "$\\frac{a}{b}$" in words
    assert "<script>alert('id')</script>" in words
    assert "</td><script>alert('aside')</script>" in words
    shown = [d["text"] for d in hostile["disagreements"]["shown"]]
    assert len(shown) == 20
    assert "49" not in {text.strip() for _, text in reader.texts if "7*7" in text}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_text_in_every_place_of_the_facts_changes_no_element(hostile, kind, monkeypatch):
    monkeypatch.setattr("llmal.page.html.figures", lambda found: {})  # they hold no text: see below
    facts, harmless = copy.deepcopy(hostile), copy.deepcopy(hostile)
    for found, text in ((facts, HOSTILE[kind]), (harmless, "harmless")):
        for place in found["disagreements"]["shown"]:
            place |= {"text": text, "id": text, "people": [text], "student": [text], "annotator": [text]}
        found["classes"][0]["label"] = text
        found["confusion"]["labels"][0] = text
        found["slices"]["worst"][0] |= {"by": text, "slice": text}
        found["failures"] = {text: 3}
        found["not_accepted"] = {text: 2}
        found["set_aside"] = [{"id": text, "position": 1, "reason": text}]
        found["spending"]["by_source"] = [
            {
                "purpose": text,
                "model": text,
                "calls": 1,
                "failed": 0,
                "tokens_in": 1,
                "tokens_out": 1,
                "usd": 0.1,
            }
        ]
        found["rounds"][0]["by"] = text
        found["promise"]["words"] = text
        found["next"] = [text]
        found["run"] = text
        found["measures"][f"student.recall[{text}]"] = found["measures"]["student.accuracy"]
    bad, good = read(page(facts)), read(page(harmless))
    # Only `code` may differ: words of llmal's own messages mark commands with backticks.
    assert [t for t in bad.tags if t != "code"] == [t for t in good.tags if t != "code"]
    assert [a for a in bad.attributes if a[1] != "aria-label"] == [
        a for a in good.attributes if a[1] != "aria-label"
    ]


def test_labels_and_texts_never_reach_a_figure(hostile):
    facts = copy.deepcopy(hostile)
    for i, c in enumerate(facts["classes"]):
        c["label"] = f"label {i}"
    assert figures(facts) == figures(hostile)
    assert set(figures(facts)) == {"learning", "risk", "reliability", "map"}


def test_the_same_facts_give_the_same_bytes(hostile, drawn):
    assert page(copy.deepcopy(hostile)) == drawn


def test_a_megabyte_of_text_stays_out_of_page_and_data(hostile, drawn):
    assert len(drawn) < 500_000
    assert len(json.dumps(hostile)) < 200_000
    facts = copy.deepcopy(hostile)
    facts["disagreements"]["shown"][0]["text"] = LONG
    facts["failures"] = {LONG: 1}
    assert len(page(facts)) < len(drawn) + 2000


def test_every_figure_has_words_for_who_does_not_see_it_and_every_table_a_caption(reader):
    pictures = [value for tag, name, value in reader.attributes if (tag, name) == ("div", "aria-label")]
    assert all(pictures)
    assert reader.tags.count("caption") == reader.tags.count("table")
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = [v[1:] for _, name, v in reader.attributes if name == "href"]
    assert set(wanted) <= set(ids)
