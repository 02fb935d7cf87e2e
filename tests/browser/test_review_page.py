"""The review page in a real browser, as `llmal review RUN` serves it: keyboard alone, nothing leaves it.

Needs playwright and a chromium of the machine; see `conftest.py`.
Run: `pytest -m browser tests/browser`.
"""

import contextlib
import json
import re
import signal
import subprocess
import sys

import pytest

from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.hostile import HOSTILE

pytestmark = pytest.mark.browser

MEANINGS = {
    "refund": {
        "description": "The customer wants money back.",
        "examples": ["I was charged twice, undo one."],
    },
    "delivery": {"description": "Late, lost, or to the wrong door.", "examples": []},
    "praise": {"description": "Thanks, and nothing asked for."},
    "<script>alert('label')</script>": {"description": "<img src=x onerror=alert('about')>"},
}
TEXTS = [
    "My parcel was at the neighbours' for a week and nobody told me. The card in the box had another "
    "street on it, and when I called, the line said that it had been delivered.\n\nWhat should I do now?",
    "You charged me 39.90 twice on 3 May. Please send one of them back.",
    "Thank you, that was quick!",
]


def made(folder, labels=MEANINGS, n=60, multi=False, short=()):
    """A run whose texts all wait, as stages would have left it."""
    from llmal.corpus import read, text_key

    texts = [*TEXTS, *HOSTILE.values()]
    rows = [{"text": texts[i] if i < len(texts) else f"letter number {i}"} for i in range(n)]
    (folder / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    pipeline = Pipeline.model_validate({
        "corpus": {"path": "c.jsonl"}, "labels": {"names": labels, "kind": "multi" if multi else "single"},
        "embed": {"use": "hashing", "dim": 64}, "annotate": {"use": "recorded", "path": "a.jsonl"},
        "train": {"rounds": "linear", "final": "linear"}, "audit": {"size": 10},
    })  # fmt: skip
    run = folder / "run"
    schema = pipeline.label_schema()
    (folder / "a.jsonl").write_text('{"id": "0", "label": "none"}\n', encoding="utf-8")
    store = open_store(run)
    store.note("home", lambda: str(folder))
    store.put_corpus("c", "d", read(pipeline.corpus, folder / "c.jsonl", schema), text_key)
    store.add(t.audit, [{"item": i, "at": 0.0} for i in range(1, 3)])
    base = {
        "recipe": "r",
        "who": "person",
        "labels": json.dumps([schema.names[0]]),
        "reason": "student 0.41, below 0.7",
    }
    waits = [i for i in range(store.n_items()) if i not in (1, 2)]
    store.add(t.route, [{**base, "item": i, "confidence": i / 1000} for i in waits])
    if short:
        store.add(t.shortlist, [{"recipe": "s", "route": "r", "asked": pipeline.review.recipe(), "used": 1,
                                 "words": "", "at": 0.0}])  # fmt: skip
        row = {"recipe": "s", "labels": json.dumps(list(short))}
        store.add(t.candidates, [{**row, "item": i} for i in waits])
    store.close()
    (run / "pipeline.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")
    return run


@contextlib.contextmanager
def served(run, person="ada"):
    """`llmal review RUN` in a process of its own; its address."""
    command = [sys.executable, "-m", "llmal.cli", "review", str(run), "--person", person]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"http://\S+#token=\S+", line):
                break
        else:
            raise AssertionError(told)
        yield found[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@contextlib.contextmanager
def page_at(browser, address, width=1280, height=900, scheme="light", **more):
    """The page, and everything it did that it must not do."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
    heard = []
    page.on("console", lambda m: heard.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: heard.append(f"error: {e}"))
    page.on("dialog", lambda d: (heard.append(f"dialog: {d.message}"), d.dismiss()))
    home = address.split("/#")[0]
    page.on("request", lambda r: None if r.url.startswith(home + "/") else heard.append(f"request: {r.url}"))
    page.goto(address)
    page.wait_for_selector("#work:not([hidden])")
    try:
        yield page, heard
        assert heard == []
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.scripts.length") == 1
        assert "token" not in page.url
    finally:
        page.close()


def answers(run):
    """Item -> labels, and every row, read from the disk."""
    store = open_store(run, write=False)
    try:
        return store.answers(), store.read(t.answer.select()), store.read(t.remark.select())
    finally:
        store.close()


def done(page, n, left):
    page.get_by_text(f"{n} done · {left} left").wait_for()


def test_thirty_texts_by_keyboard_alone(browser, tmp_path):
    run = made(tmp_path)
    n = 60
    with served(run) as (address, _), page_at(browser, address) as (page, _):
        shown = []
        for i in range(30):
            shown.append(page.inner_text("#text"))
            page.keyboard.press("1234"[i % 4])
            page.wait_for_function(
                "([old]) => document.getElementById('text').innerText !== old", arg=[shown[-1]]
            )
        done(page, 30, n - 30)
        page.keyboard.press("Backspace")
        done(page, 29, n - 29)
        assert page.inner_text("#text") == shown[-1]
        page.keyboard.press(",")
        page.keyboard.type("1 comment, with / and ?")
        page.keyboard.press("Escape")
        page.keyboard.press("3")
        done(page, 30, n - 30)
        page.keyboard.press("?")
        done(page, 30, n - 31)
        page.keyboard.press(".")
        page.get_by_text("Skipped").wait_for()
        page.reload()
        page.wait_for_selector("#work:not([hidden])")
        done(page, 30, n - 31)
        page.keyboard.press("Control+z")  # of what was answered before the reload
        done(page, 29, n - 30)
        page.keyboard.press("1")
        done(page, 30, n - 30 - 1)
    said, rows, remarks = answers(run)
    names = list(MEANINGS)
    assert [json.loads(r.labels)[0] for r in rows[:30]] == [names[i % 4] for i in range(30)]
    assert len(said) == 30
    assert (rows[30].item, rows[30].note, rows[31].item) == (
        rows[29].item,
        "1 comment, with / and ?",
        rows[30].item,
    )
    assert [r.what for r in remarks] == ["undo", "unsure", "skip", "undo"]
    assert all(r.person == "ada" and 0 <= r.seconds < 60 for r in rows)


def test_short_lists_search_and_many_labels(browser, tmp_path, artefacts):
    names = [f"topic {i:03d} {'abcdefgh'[i % 8] * 3}" for i in range(150)]
    run = made(tmp_path, {name: f"about number {i}" for i, name in enumerate(names)}, short=names[7:10])
    with served(run) as (address, _), page_at(browser, address) as (page, _):
        assert page.locator(".label").count() == 150  # the audit: every label
        page.keyboard.press("/")
        page.keyboard.type("topic 140")
        page.screenshot(path=artefacts / "review-search.png")
        page.keyboard.press("Enter")
        done(page, 1, 59)
        page.keyboard.press("1")
        done(page, 2, 58)
        assert page.locator(".label").count() == 3
        page.screenshot(path=artefacts / "review-short.png")
        page.keyboard.press("2")
        done(page, 3, 57)
        page.keyboard.press("0")
        assert page.locator(".label").count() == 150
        page.keyboard.press("/")
        page.keyboard.type("140")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        done(page, 4, 56)
    _, rows, _ = answers(run)
    assert [json.loads(r.labels)[0] for r in rows] == [names[140], names[0], names[8], names[140]]
    assert [r.shown and json.loads(r.shown) for r in rows] == [None, None, names[7:10], None]


def test_several_labels_with_space_and_enter(browser, tmp_path):
    run = made(tmp_path, multi=True)
    names = list(MEANINGS)
    with served(run) as (address, _), page_at(browser, address) as (page, _):
        page.keyboard.press("2")
        page.keyboard.press("4")
        page.keyboard.press("Enter")
        done(page, 1, 59)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        done(page, 2, 58)
        page.keyboard.press("Enter")
        done(page, 3, 57)
        page.keyboard.press("Backspace")
        page.keyboard.press("Backspace")
        done(page, 1, 59)
        assert page.locator(".label[aria-pressed=true]").count() == 2  # as it was answered
    _, rows, _ = answers(run)
    assert [json.loads(r.labels) for r in rows] == [[names[1], names[3]], [names[0], names[2]], []]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_it_fits_every_screen_can_be_read_and_has_names_for_a_reader(
    browser, tmp_path, artefacts, width, height, scheme
):
    run = made(tmp_path)
    ratio = """(name) => {
      const level = c => c.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
      const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const node = document.querySelector(name);
      let back = node;
      while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
      const [a, b] = [getComputedStyle(node).color, getComputedStyle(back).backgroundColor]
        .map(c => level(rgb(c)));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }"""
    with (
        served(run) as (address, _),
        page_at(browser, address, width, height, scheme, has_touch=width < 500) as (page, _),
    ):
        page.locator(".label").nth(2).click()
        page.locator(".label").nth(2).click()
        done(page, 2, 58)
        page.screenshot(path=artefacts / f"review-{width}-{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in (
            ".why",
            "#text",
            ".label .name",
            ".label .about",
            "#progress-words",
            "summary",
            "kbd",
            "#status",
        ):
            assert page.evaluate(ratio, name) >= 4.5, name
        assert page.get_by_role("button", name="Not sure").is_visible()
        assert page.get_by_role("group", name="Labels").get_by_role("button").count() == 4
        assert page.get_by_role("progressbar", name="Answered").is_visible()
        assert page.locator("#text").get_attribute("aria-live") == "polite"
        assert page.locator(".label").nth(0).get_attribute("aria-keyshortcuts") == "1"
        assert "<img src=x onerror=alert('about')>" in page.inner_text("#labels")


def test_the_end_says_what_to_do_and_a_stopped_server_is_told(browser, tmp_path, artefacts):
    run = made(tmp_path, n=5)
    with served(run) as (address, process), page_at(browser, address) as (page, heard):
        for i in range(5):
            page.keyboard.press("1")
            done(page, i + 1, 4 - i)
        page.get_by_role("heading", name="Nothing waits for you").wait_for()
        page.screenshot(path=artefacts / "review-end.png")
        page.keyboard.press("Backspace")
        done(page, 4, 1)
        process.kill()
        process.wait()
        page.keyboard.press("2")
        page.get_by_text("Not saved yet: 1 answer").wait_for()
        page.screenshot(path=artefacts / "review-trouble.png")
        heard.clear()  # the browser's own line about the connection
        page.evaluate("S.ended = true; S.pending = []")
        page.wait_for_timeout(1000)
        heard.clear()
    assert len(answers(run)[0]) == 4
