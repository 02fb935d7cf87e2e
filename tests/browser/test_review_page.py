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
from llmal.testing import facts
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


def made(folder, labels=MEANINGS, n=60, multi=False, short=(), review=None):
    """A run whose texts all wait, as stages would have left it."""
    from llmal.corpus import read, text_key

    texts = [*TEXTS, *HOSTILE.values()]
    rows = [{"text": texts[i] if i < len(texts) else f"letter number {i}"} for i in range(n)]
    (folder / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    pipeline = Pipeline.model_validate({
        "corpus": {"path": "c.jsonl"}, "labels": {"names": labels, "kind": "multi" if multi else "single"},
        "embed": {"use": "hashing", "dim": 64}, "annotate": {"use": "recorded", "path": "a.jsonl"},
        "train": {"rounds": "linear", "final": "linear"}, "audit": {"size": 10},
        "review": review or {},
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
    store.add(t.route, [{**base, "item": i, "confidence": 0.4 + i / 200} for i in waits])
    if short:
        store.add(t.shortlist, [{"recipe": "s", "route": "r", "asked": pipeline.review.recipe(), "used": 1,
                                 "words": "", "at": 0.0}])  # fmt: skip
        row = {"recipe": "s", "labels": json.dumps(list(short))}
        store.add(t.candidates, [{**row, "item": i} for i in waits])
    store.close()
    (run / "pipeline.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")
    return run


@contextlib.contextmanager
def served(run, *people):
    """`llmal review RUN` in a process of its own: the address of each person, and the process."""
    names = [part for person in people or ["ada"] for part in ("--person", person)]
    command = [sys.executable, "-m", "llmal.cli", "review", str(run), *names]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        told, addresses = [], []
        for line in process.stderr:
            told.append(line)
            addresses += re.findall(r"http://\S+#token=\S+", line)
            if len(addresses) == max(1, len(people)):
                break
        else:
            raise AssertionError(told)
        yield addresses, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@contextlib.contextmanager
def page_at(browser, address, width=1280, height=900, scheme="light", **more):
    """The page, and everything it did that it must not do."""
    shape = {"width": width, "height": height}
    page = browser.new_page(viewport=shape, color_scheme=scheme, reduced_motion="reduce", **more)
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


def faint(page):
    """What stands in sight with a contrast below 4.5 (WCAG 2.2, level AA)."""
    return page.evaluate("""() => {
      const level = c => c.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
      const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const open = document.querySelector('dialog[open]') || document.body;
      const bad = [];
      for (const node of open.querySelectorAll('*')) {
        const words = [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (!words || !node.checkVisibility() || node.disabled || node.closest('button:disabled')) continue;
        let back = node;
        while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
        const [a, b] = [getComputedStyle(node).color, getComputedStyle(back).backgroundColor]
          .map(c => level(rgb(c)));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) bad.push([node.outerHTML.slice(0, 80), ratio]);
      }
      return bad;
    }""")


def tree(page):
    """What Chromium tells a screen reader: role, name, whether it takes the focus, and how it is live."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    out = []
    for node in nodes:
        if not node["ignored"]:
            more = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
            role, name = (node.get(part, {}).get("value", "") for part in ("role", "name"))
            focusable, live = more.get("focusable", False), more.get("live")
            out.append({"role": role, "name": name, "focusable": focusable, "live": live})
    return out


def nameless(page):
    """What can be used, or is a place to go to, and has no name; one page has some of them."""
    told = tree(page)
    places = {"button", "textbox", "searchbox", "checkbox", "progressbar", "dialog", "region"}
    assert any(node["role"] == "button" for node in told)
    used = [node for node in told if node["role"] in places or node["focusable"]]
    return [node for node in used if not node["name"].strip() and node["role"] != "main"]


def around(page):
    """Where Tab leads, from the start until it leaves the page or is there again."""
    page.evaluate("document.activeElement.blur()")
    page.evaluate("window.scrollTo(0, 0)")
    found = []
    for _ in range(60):
        page.keyboard.press("Tab")
        at = page.evaluate("""() => {
          const node = document.activeElement;
          if (node === document.body || node.dataset.seen) return '';
          node.dataset.seen = '1';
          return node.id || node.className || node.localName;
        }""")
        if not at:
            return found
        found.append(at)
    raise AssertionError(found)


def test_thirty_texts_by_keyboard_alone(browser, tmp_path):
    run = made(tmp_path)
    n = 60
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
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
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
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
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
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


SCREENS = {"wide": (1600, 900), "usual": (1280, 800), "twice as large": (640, 400), "phone": (360, 780)}


def test_it_fits_every_screen_and_can_be_read(browser, tmp_path, artefacts):
    """Nothing to scroll sideways, up to 200 % zoom and down to a phone; contrast of 4.5 in light and dark."""
    (tmp_path / "g.md").write_text("Label what they want.\n\n1. Money back is a refund.", encoding="utf-8")
    run = made(tmp_path, n=30, review={"guidelines": "g.md", "show": "assisted"})
    with served(run) as ([address], _):
        for i, (name, (width, height)) in enumerate(SCREENS.items()):
            touch = name == "phone"
            with page_at(browser, address, width, height, "light", has_touch=touch) as (page, _):
                page.keyboard.press("2")
                done(page, 2 * i + 1, 29 - 3 * i)
                page.locator(".label").nth(2).click()
                done(page, 2 * i + 2, 28 - 3 * i)
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    page.screenshot(path=artefacts / f"review-{width}-{scheme}.png")
                    assert faint(page) == []
                page.mouse.wheel(0, 200)
                page.wait_for_timeout(100)
                page.keyboard.press("?")
                page.get_by_text("Noted as not sure").wait_for()
                assert page.evaluate("window.scrollY") == 0  # the next text is in sight
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.keyboard.press("+")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                box = page.get_by_role("dialog", name="Keys").bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
                assert box["y"] >= 0
                assert box["y"] + box["height"] <= height
                assert "<img src=x onerror=alert('about')>" in page.locator("#labels").inner_text()


def test_several_people_differ_and_one_settles_it_by_keyboard(browser, tmp_path, artefacts):
    run = made(tmp_path, n=40, review={"overlap": 0.2})
    names = list(MEANINGS)
    store = open_store(run)
    for item in range(10, 30):  # Eve answers one label, whatever the text
        for person, name in [("Cy", names[item % 3]), ("Dee", names[item % 3]), ("Eve", names[2])]:
            facts.answer(store, item, name, person=person, seconds=4.0)
    torn = sum(item % 3 != 2 for item in range(10, 30))
    store.close()
    with served(run, "Ann", "Bob") as ([first, second], _), page_at(browser, first) as (page, _):
        with page_at(browser, second) as (other, _):
            assert other.locator("#me").inner_text() == "Bob"
            assert not other.locator("#settle").is_visible()  # only who settles sees disputes
            assert other.inner_text("#text") != page.inner_text("#text")  # nobody is at the same text
            other.keyboard.press("1")
            other.get_by_text("1 by you").wait_for()
        assert page.locator("#me").inner_text() == "Ann"
        page.keyboard.press(",")
        page.keyboard.type("half a comment")
        page.keyboard.press("Escape")
        text = page.inner_text("#text")

        page.keyboard.press(";")
        people = page.get_by_role("dialog", name="People")
        people.get_by_text("Cy and Dee").wait_for()
        assert people.get_by_text("Ann (you)").is_visible()
        assert "1 answer · " in people.get_by_role("listitem").filter(has_text="Bob").first.inner_text()
        assert people.get_by_role("status").get_by_text("Look at the answers of Eve").is_visible()
        assert "Krippendorff's alpha" in people.inner_text()
        assert "0.33" not in people.get_by_role("listitem").filter(has_text="Cy and Dee").inner_text()
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=artefacts / f"review-people-{scheme}.png")
            assert faint(page) == []
        assert nameless(page) == []
        page.keyboard.press("1")  # no answer while this lies over the text
        page.keyboard.press("Escape")
        assert page.evaluate("document.querySelector('dialog[open]')") is None
        assert page.inner_text("#text") == text

        assert page.get_by_role("button", name=f"Disputes ({torn})").is_visible()
        page.keyboard.press("=")
        page.get_by_role("heading", name=f"Disputes: {torn} left").wait_for()
        said = page.get_by_role("region", name="What people said")
        said.get_by_text("Eve").wait_for()
        assert re.sub(
            r"\s+", " ", said.inner_text()
        ) == f"Cy: {names[0]} Dee: {names[0]} Eve: {names[2]}" or (
            re.sub(r"\s+", " ", said.inner_text()) == f"Cy: {names[1]} Dee: {names[1]} Eve: {names[2]}"
        )
        assert page.locator(".label .by").all_inner_texts() == ["Cy, Dee", "Eve"]
        assert nameless(page) == []
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=artefacts / f"review-disputes-{scheme}.png")
            assert faint(page) == []
        torn_text = page.inner_text("#text")
        page.keyboard.press("2")
        page.get_by_role("heading", name=f"Disputes: {torn - 1} left").wait_for()
        assert page.inner_text("#text") != torn_text
        page.keyboard.press("Backspace")
        page.get_by_role("heading", name=f"Disputes: {torn} left").wait_for()
        assert page.inner_text("#text") == torn_text
        page.keyboard.press("1")
        page.get_by_role("heading", name=f"Disputes: {torn - 1} left").wait_for()
        page.keyboard.press(".")
        page.keyboard.press("Escape")
        assert page.inner_text("#text") == text
        assert page.input_value("#note") == "half a comment"
        page.keyboard.press("=")
        said.get_by_text("Eve").wait_for()
        for left in range(torn - 2, -1, -1):
            page.keyboard.press("1")
            page.get_by_role("button", name=f"Disputes ({left})").wait_for()
        page.get_by_text("No dispute is left").wait_for()
        assert page.get_by_role("button", name="Disputes (0)").is_disabled()
        assert page.inner_text("#text") == text
        page.keyboard.press("3")
        page.get_by_text("1 by you").wait_for()
    said, rows, remarks = answers(run)
    settled = [row for row in rows if row.role == "adjudicate"]
    assert len(settled) == torn + 1
    assert len({row.item for row in settled}) == torn
    assert {row.person for row in settled} == {"Ann"}
    assert [r.what for r in remarks] == ["undo"]
    assert all(said[row.item] == (names[0],) for row in settled)
    assert [(r.person, r.note) for r in rows if r.person in ("Ann", "Bob") and r.role == "label"] == [
        ("Bob", ""),
        ("Ann", "half a comment"),
    ]


def test_what_another_person_leaves_appears_by_itself(browser, tmp_path):
    run = made(tmp_path, n=6, review={"overlap": 0.0})
    with (
        served(run, "Ann", "Bob") as ([first, second], _),
        page_at(browser, first) as (page, _),
        page_at(browser, second) as (other, _),
    ):
        other.clock.install()
        other.reload()
        other.wait_for_selector("#work:not([hidden])")
        other.keyboard.press("1")
        other.get_by_text("1 by you").wait_for()
        other.keyboard.press("1")  # the other four lie before Ann
        other.get_by_role("heading", name="Nothing waits for you").wait_for()
        assert nameless(other) == []
        text = page.inner_text("#text")
        page.keyboard.press("?")
        page.get_by_text("Noted as not sure").wait_for()
        assert not other.locator("#text").is_visible()
        other.clock.fast_forward(16_000)
        other.wait_for_selector("#work:not([hidden])")
        assert other.inner_text("#text") == text
        other.keyboard.press("2")
        other.get_by_text("3 by you").wait_for()
    rows = answers(run)[1]
    assert [row.person for row in rows] == ["Bob"] * 3


def test_the_machine_beside_the_text_is_accepted_with_enter_and_never_shown_where_it_measures(
    browser, tmp_path, artefacts
):
    run = made(tmp_path, n=8, review={"show": "assisted"})
    names = list(MEANINGS)
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
        for i in range(2):  # the audit
            assert page.get_by_text("Measures quality").is_visible()
            assert not page.locator("#accept").is_visible()
            assert page.locator(".by").count() == 0
            page.keyboard.press("Enter")
            page.keyboard.press("2")
            done(page, i + 1, 7 - i)
        accept = page.get_by_role("button", name=re.compile(r"^Accept machine: refund 4\d\s%$"))
        accept.wait_for()
        assert re.fullmatch(r"machine 4\d\s%", page.inner_text(".label .by"))
        assert faint(page) == []
        page.screenshot(path=artefacts / "review-assisted.png")
        page.keyboard.press("Enter")
        done(page, 3, 5)
        page.keyboard.press("3")
        done(page, 4, 4)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")  # the label under the cursor, not the machine's
        done(page, 5, 3)
        accept.click()
        done(page, 6, 2)
    _, rows, _ = answers(run)
    assert [json.loads(r.labels) for r in rows] == [[names[i]] for i in (1, 1, 0, 2, 1, 0)]
    assert [r.saw and json.loads(r.saw) for r in rows] == [None, None, *[[names[0]]] * 4]


def test_of_several_labels_the_machines_are_picked_beforehand(browser, tmp_path, artefacts):
    run = made(tmp_path, n=6, multi=True, review={"show": "assisted"})
    names = list(MEANINGS)
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
        for i in range(2):
            assert page.locator(".label[aria-pressed=true]").count() == 0  # the audit
            page.keyboard.press("Enter")
            done(page, i + 1, 5 - i)
        assert page.locator(".label[aria-pressed=true] .name").all_inner_texts() == [names[0]]
        page.screenshot(path=artefacts / "review-several.png")
        page.keyboard.press("Enter")
        done(page, 3, 3)
        page.keyboard.press("1")
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        done(page, 4, 2)
    assert [json.loads(r.labels) for r in answers(run)[1]] == [[], [], [names[0]], [names[2]]]


def test_one_answers_blind_and_then_hears_the_machine(browser, tmp_path):
    run = made(tmp_path, n=6)
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
        status = page.get_by_role("status")
        for i in range(2):  # of the audit not a word
            page.keyboard.press("2")
            done(page, i + 1, 5 - i)
            assert status.inner_text() == "Saved: delivery"
        assert "machine" not in page.inner_text("#work")
        page.keyboard.press("1")
        page.get_by_text(re.compile(r"^Saved: refund\. The machine says the same \(4\d\s%\)$")).wait_for()
        page.keyboard.press("3")
        page.get_by_text(re.compile(r"^Saved: praise\. The machine says: refund \(4\d\s%\)$")).wait_for()


def test_a_flag_says_why_and_answers_nothing(browser, tmp_path, artefacts):
    run = made(tmp_path, n=6)
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
        text = page.inner_text("#text")
        page.keyboard.press("!")
        page.keyboard.type("Which language is this? 1 / 2")
        assert nameless(page) == []
        page.screenshot(path=artefacts / "review-flag.png")
        page.keyboard.press("Enter")
        page.get_by_text("Flagged: the text still waits").wait_for()
        assert page.inner_text("#text") == text
        assert page.locator("#text").evaluate("node => node === document.activeElement")
        assert page.locator(".tag.flagged").inner_text() == "Flagged: Which language is this? 1 / 2"
        assert faint(page) == []
        page.reload()
        page.get_by_text("Flagged: Which language is this? 1 / 2").wait_for()
        page.keyboard.press("!")
        page.keyboard.press("Escape")  # left as it was
        page.keyboard.press("!")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # take it away
        page.get_by_text("The flag is taken away").wait_for()
        assert page.locator(".tag.flagged").count() == 0
        page.keyboard.press("1")
        done(page, 1, 5)
    said, rows, remarks = answers(run)
    assert len(said) == len(rows) == 1
    assert [(r.what, r.note) for r in remarks] == [("flag", "Which language is this? 1 / 2"), ("unflag", "")]


def test_guidance_stands_beside_the_text_and_stays_as_it_was_left(browser, tmp_path, artefacts):
    (tmp_path / "g.md").write_text("Label what they <b>want</b>.", encoding="utf-8")
    run = made(tmp_path, review={"guidelines": "g.md"})
    store = open_store(run)
    facts.answer(store, 0, "delivery", person="Cy")
    facts.answer(store, 3, "refund", person="Cy")
    store.close()
    with served(run) as ([address], _), page_at(browser, address, 1600) as (page, _):
        guide = page.get_by_role("complementary", name="How to label")
        assert guide.get_by_text("Label what they <b>want</b>.").is_visible()
        assert guide.get_by_text("My parcel was at the neighbours").is_hidden()
        guide.get_by_text("Answered examples").click()
        assert guide.get_by_text("My parcel was at the neighbours").is_visible()
        page.screenshot(path=artefacts / "review-guidance.png")
        assert nameless(page) == []
        page.keyboard.press("-")
        page.get_by_text("Guidance is closed").wait_for()
        assert guide.get_by_text("Label what they").is_hidden()
        page.reload()
        page.wait_for_selector("#work:not([hidden])")
        assert guide.get_by_text("Label what they").is_hidden()
        page.keyboard.press("-")
        assert guide.get_by_text("Label what they").is_visible()


def test_a_reader_is_told_what_everything_is_and_no_key_traps_the_keyboard(browser, tmp_path, artefacts):
    run = made(tmp_path, n=6)
    with served(run) as ([address], _), page_at(browser, address) as (page, _):
        assert nameless(page) == []
        told = tree(page)
        assert [node for node in told if node["role"] == "main"]
        live = {(node["name"], node["live"]) for node in told if node["live"]}
        assert ("Text to label", "polite") in live
        assert page.get_by_role("status").count() == 1
        assert page.get_by_role("progressbar", name="Answered").is_visible()
        assert page.get_by_role("group", name="Labels").get_by_role("button").count() == 4
        first = page.get_by_role("button", name="refund The customer wants money back.", exact=True)
        assert first.get_attribute("aria-keyshortcuts") == "1"
        assert page.get_by_role("button", name="Not sure", exact=True).is_visible()
        page.keyboard.press("+")
        keys = page.get_by_role("dialog", name="Keys")
        assert keys.get_by_text("Take back the last answer").is_visible()
        assert nameless(page) == []
        page.screenshot(path=artefacts / "review-keys.png")
        page.keyboard.press("+")
        assert not keys.is_visible()
        visited = around(page)
        assert visited[:4] == ["crew", "help", "text", "label"]  # as it is read
        assert visited.count("label") == 4
        assert {"unsure", "skip", "comment", "flag", "summary"} <= set(visited)
        page.get_by_role("button", name="Keys").click()
        page.get_by_role("checkbox", name="Single keys work").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("1")
        page.keyboard.press("?")
        page.get_by_role("button", name="delivery").focus()
        page.keyboard.press("Enter")
        done(page, 1, 5)
        page.reload()
        page.wait_for_selector("#work:not([hidden])")
        page.keyboard.press("3")
        page.keyboard.press("Control+z")
        done(page, 0, 6)
    assert [r.what for r in answers(run)[2]] == ["undo"]


def test_the_end_says_what_to_do_and_a_stopped_server_is_told(browser, tmp_path, artefacts):
    run = made(tmp_path, n=5)
    with served(run) as ([address], process), page_at(browser, address) as (page, heard):
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
