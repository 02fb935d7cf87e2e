"""report.html in a real browser: hostile data stays text, no network is asked, everything fits the screen.

Needs playwright and a chromium of the machine; see `conftest.py`. Run: `pytest -m browser tests/browser`.
"""

import html
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from llmal.page.html import page as page_of
from llmal.testing.hostile import hostile_run

pytestmark = pytest.mark.browser

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/hostile_page.py"
_spec = importlib.util.spec_from_file_location("hostile_texts", SCRIPT)
hostile = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

TITLES = ("How good", "Where it is weak", "Labels", "People", "Cost", "Trouble", "About")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return hostile_run(tmp_path_factory.mktemp("hostile")) / "report.html"


def opened_at(browser, file, width, scheme="light"):
    """The page, and everything it did that a report must not do."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    heard = []
    page.on("console", lambda m: heard.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: heard.append(f"error: {e}"))
    page.on("dialog", lambda d: (heard.append(f"dialog: {d.message}"), d.dismiss()))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else heard.append(f"request: {r.url}"),
    )
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    return page, heard


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_hostile_run_is_shown_as_text_and_fits_the_screen(browser, page_file, artefacts, width, scheme):
    page, heard = opened_at(browser, page_file, width, scheme)
    try:
        page.screenshot(path=artefacts / f"report-{width}-{scheme}.png", full_page=True)
        assert heard == []
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.scripts.length") == 0
        assert (
            page.evaluate("document.querySelectorAll('img, iframe, object, link, form, a[href^=j]').length")
            == 0
        )
        assert page.title() == "run: labels and how good they are"
        for title in TITLES:
            assert page.get_by_role("heading", name=title, exact=True).is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.querySelectorAll('div[role=img] > svg').length") == 4
        words = page.inner_text("body")
        assert "<script>alert('label')</script>" in words
        assert "{{ 7*7 }}" in words
    finally:
        page.close()


def test_letters_can_be_read_on_both_grounds(browser, page_file):
    """Contrast of text and its ground is at least 4.5 (WCAG 2.2, level AA), the muted kind included."""
    ratio = """() => {
      const level = c => c.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
      const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const ground = rgb(getComputedStyle(document.body).backgroundColor);
      return ['h2', '.muted', 'figcaption', 'a', 'summary', 'caption'].map(name => {
        const [a, b] = [level(rgb(getComputedStyle(document.querySelector(name)).color)), level(ground)];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      });
    }"""
    for scheme in ("light", "dark"):
        page, _ = opened_at(browser, page_file, 1280, scheme)
        try:
            assert min(page.evaluate(ratio)) >= 4.5
        finally:
            page.close()


def test_it_prints_on_paper_whatever_the_screen_looks_like(browser, page_file, artefacts):
    page, _ = opened_at(browser, page_file, 1280, "dark")
    try:
        page.emulate_media(media="print")
        ground = page.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()"
        )
        assert ground == "#fff"
        assert not page.locator("nav").is_visible()
        printed = page.pdf(path=artefacts / "report.pdf", format="A4")
        assert printed.startswith(b"%PDF")
    finally:
        page.close()


def thousands(grammar, run, rows):
    """The page's HTML with hostile texts from the grammar wherever a run's facts hold a text of the data."""
    found = json.loads((run / "report.json").read_text(encoding="utf-8"))
    shown = found["disagreements"]["shown"]

    def text():
        return grammar.text().words

    for i in range(rows):
        whose = {name: [text()] for name in ("people", "student", "annotator")}
        shown.append(shown[i % 20] | {"id": text(), "text": text(), **whose})
    found["set_aside"] = [found["set_aside"][0] | {"id": text()} for _ in range(rows // 10)]
    found["people"]["crew"]["people"] = [
        one | {"name": text()} for one in found["people"]["crew"]["people"] * 20
    ]
    found["run"] = text()
    found["pipeline"]["seed"] = [text() for _ in range(rows // 10)]
    return page_of(found)


@pytest.mark.parametrize("setting", ["as it is", "no policy", "no escape", "nothing"])
def test_thousands_of_hostile_texts_run_nothing_with_either_wall_alone(browser, page_file, tmp_path, setting):
    """Escaping alone and the policy alone hold; without both, the same texts run: the test's power."""
    raw = setting in ("no escape", "nothing")
    grammar = hostile.Grammar(3, still=not raw, leaves=not raw)
    made = thousands(grammar, page_file.parent, 60 if setting == "nothing" else 600)
    made = html.unescape(made) if raw else made
    if setting in ("no policy", "nothing"):
        made = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", made, count=1)
    file = tmp_path / "report.html"
    file.write_text(made, encoding="utf-8", errors="replace")
    page, asked = browser.new_page(), []
    page.add_init_script(f"({hostile.CANARY})(false)")
    page.route("**/*.test/**", lambda route: route.abort("aborted"))
    page.on("dialog", lambda d: d.dismiss())
    page.on("request", lambda r: asked.append(r.url) if hostile.EVIL in r.url else None)
    page.on("requestfailed", lambda r: asked.remove(r.url) if r.failure == "csp" and r.url in asked else None)
    try:
        page.goto(file.as_uri(), wait_until="domcontentloaded")
        page.wait_for_timeout(2000 if setting == "nothing" else 500)
        hits = page.evaluate("C.hits.length")
        if setting == "nothing":
            assert hits > 60
            assert len(asked) > 20
            return
        assert grammar.number > 2_500
        assert (hits, asked) == (0, [])
        if not raw:
            own = "img, iframe, object, embed, script, link, form, video, math, base, [http-equiv=refresh]"
            assert page.evaluate(f"document.querySelectorAll('{own}').length") == 0
    finally:
        page.close()
