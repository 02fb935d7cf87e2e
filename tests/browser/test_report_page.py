"""report.html in a real browser: hostile data stays text, no network is asked, everything fits the screen.

Needs playwright and a chromium of the machine; see `conftest.py`. Run: `pytest -m browser tests/browser`.
"""

import pytest

from llmal.testing.hostile import hostile_run

pytestmark = pytest.mark.browser

TITLES = ("How good", "Where it is weak", "Labels", "Cost", "Trouble", "About")


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
