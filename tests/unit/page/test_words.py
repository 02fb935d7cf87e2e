"""Numbers and texts as a report writes them."""

import pytest

from llmal.page.words import block, coded, interval, money, number, percent, seen, spelt
from llmal.testing.hostile import HOSTILE, LONG


@pytest.mark.parametrize("kind", ["bidi", "ansi", "invisible", "stacked"])
def test_nothing_a_reader_cannot_see_or_that_moves_others_is_left(kind):
    shown = seen(HOSTILE[kind], 500)
    assert all(c.isprintable() for c in shown)
    assert len(shown) <= len(HOSTILE[kind])
    if kind != "stacked":
        assert "\ufffd" in shown


def test_letters_of_every_script_stay_as_they_are():
    for text in ("naïve café", "می‌خواهم", "हिन्दी", "日本語", "👩‍💻", "Tiếng Việt"):
        assert seen(text) == text
    assert seen("two\n lines\tand more") == "two lines and more"


def test_a_long_text_is_cut_at_once():
    assert len(seen(LONG, 100)) == 100
    assert seen(LONG, 100).endswith("…")


def test_several_lines_stay_lines():
    assert block("a\n b\x1b[2J") == "a\n b\ufffd[2J"


def test_backticks_mark_code_and_everything_in_them_is_text():
    assert coded("run `llmal <x>` & go") == "run <code>llmal &lt;x&gt;</code> &amp; go"
    assert coded("an open ` mark <b>") == "an open ` mark &lt;b&gt;"


def test_numbers_read_well():
    assert [percent(x) for x in (0, 1, 0.5, 0.9876)] == ["0 %", "100 %", "50.0 %", "98.8 %"]
    assert [money(x) for x in (None, 0, 1e-6, 0.0042, 1234.5)] == [
        *("local", "$0.00", "< $0.0001", "$0.0042", "$1,234.50")
    ]
    assert [number(x) for x in (0.9, 0.1234, 1.0)] == ["0.9", "0.123", "1"]


def test_an_interval_may_be_open_or_unknown():
    assert interval({"low": 0.5, "high": 0.75}) == "50.0 to 75.0 %"
    assert interval({"low": None, "high": 0.01}) == "at most 1.0 %"
    assert interval({"low": None, "high": None}) == "–"
    assert interval({"low": -0.1, "high": 0.2, "share": False}) == "-0.100 to 0.200"


def test_measures_have_names_for_people():
    assert spelt("student.macro_f1") == "classifier: macro-F1"
    assert spelt("student.accuracy.powered") == "classifier: accuracy (prediction-powered)"
    assert spelt("something.new_one") == "something: new one"
