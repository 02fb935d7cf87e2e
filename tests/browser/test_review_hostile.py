"""Hostile texts in every place of the review page, in a real browser: no script, nothing asked for outside.

At full size, and with the grammar: `tests/benchmarks/hostile_page.py`.
Needs playwright and a chromium of the machine; see `conftest.py`. Run: `pytest -m browser tests/browser`.
"""

import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def script(name):
    """A script beside the tests, as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hostile, review = script("hostile_page"), script("review_page")


PLACES = {
    *(
        "text",
        "flag",
        "reason",
        "label name",
        "label meaning",
        "label example",
        "guidelines",
        "demonstration",
    ),
    *("person", "run", "comment", "disputed text"),
}
"""Where hostile texts have to have stood."""


@pytest.fixture(scope="module")
def world():
    """A browser for which all the world outside is a trap."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not Path(hostile.CHROMIUM).is_file():
        pytest.skip("needs chromium: apt-get install chromium")
    trap = hostile.Trap()
    with playwright.sync_playwright() as started, hostile.chromium(started, trap) as browser:
        yield browser, trap
    trap.shutdown()
    trap.server_close()


@pytest.mark.parametrize("setting", hostile.GUARDED)
def test_no_script_runs_and_nothing_is_asked_for_with_either_wall_alone(world, setting):
    """As served; without the policy; without the escaping: seven hundred texts each."""
    found = hostile.tried(*world, setting, 700, seed=hostile.GUARDED.index(setting) + 1, items=14)
    assert found.texts >= 700
    assert (found.scripts, found.outside, found.elements, found.errors, found.wrong) == (0, 0, 0, [], 0)
    assert found.places.keys() >= PLACES
    assert found.shown > 10
    if setting == "no escape":
        assert found.blocked > 500
        assert set(found.broke) == {"require-trusted-types-for"}


def test_the_same_texts_run_and_ask_where_both_walls_are_gone(world):
    """The power of the test above."""
    found = hostile.tried(*world, "nothing", 250, items=6)
    assert sum(found.could.values()) >= 200
    assert found.power > 0.9
    assert found.scripts > 100
    assert found.outside > 50


class Stranger(BaseHTTPRequestHandler):
    """Another page on this machine, which would like to have what the review page shows."""

    def do_GET(self):
        body = b"<!doctype html><title>stranger</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


ATTACKS = """async ([home, token, deed]) => {
  const body = JSON.stringify(deed), got = {}, bearer = { Authorization: "Bearer " + token };
  const tried = async (name, work) => {
    try {
      const reply = await work();
      if (reply && reply.type === "opaque") got[name] = "opaque";
      else got[name] = reply && reply.status ? "read " + await reply.text() : String(reply);
    } catch (error) { got[name] = "refused"; }
  };
  await tried("read", () => fetch(home + "/start", { headers: bearer }));
  await tried("read without", () => fetch(home + "/start"));
  await tried("read blindly", () => fetch(home + "/start", { mode: "no-cors", credentials: "include" }));
  await tried("page", () => fetch(home + "/"));
  for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"]) {
    const open = { method: "POST", body, headers: { ...bearer, "Content-Type": type } };
    const blind = { method: "POST", mode: "no-cors", body, headers: { "Content-Type": type } };
    await tried("say " + type, () => fetch(home + "/say", open));
    await tried("say blindly " + type, () => fetch(home + "/say", blind));
  }
  const plain = new Blob([body], { type: "text/plain" });
  await tried("beacon", async () => navigator.sendBeacon(home + "/say", plain));
  await tried("xhr", () => new Promise((done, failed) => {
    const ask = new XMLHttpRequest();
    ask.open("POST", home + "/say");
    ask.setRequestHeader("Authorization", "Bearer " + token);
    ask.setRequestHeader("Content-Type", "application/json");
    ask.onload = () => done(ask); ask.onerror = failed; ask.send(body);
  }));
  await tried("script", () => new Promise((done, failed) => {
    const one = document.createElement("script");
    Object.assign(one, { src: home + "/start", onload: () => done("loaded"), onerror: failed });
    document.body.append(one);
  }));
  const urlencoded = "application/x-www-form-urlencoded";
  for (const [enctype, method] of [["text/plain", "POST"], [urlencoded, "POST"], ["text/plain", "GET"]]) {
    const [frame, form, field] = ["iframe", "form", "input"].map((tag) => document.createElement(tag));
    frame.name = "f" + Math.random();
    Object.assign(form, { action: home + "/say", method, enctype, target: frame.name });
    field.name = body.slice(0, -1) + ', "x": "';
    field.value = '"}';
    form.append(field);
    document.body.append(frame, form);
    form.submit();
  }
  const frame = document.createElement("iframe");
  frame.src = home + "/#token=" + token;
  document.body.append(frame);
  await new Promise((wake) => setTimeout(wake, 700));
  await tried("frame", async () => frame.contentDocument ? frame.contentDocument.body.innerText : "closed");
  const other = window.open(home + "/#token=" + token);
  await new Promise((wake) => setTimeout(wake, 700));
  await tried("window", async () => other.document.body.innerText);
  await tried("handle", async () => other.closed ? "cut off" : "held");
  return got;
}"""


def test_another_page_on_this_machine_reads_nothing_and_answers_nothing(world, tmp_path):
    """It even knows the token; only a page of the server's own origin gets a word or gives one."""
    browser, _ = world
    run = review.run_of(tmp_path, 20)
    stranger = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    with review.served(run, ["ada"]) as addresses:
        home, _, token = addresses["ada"].partition("/#token=")
        labels = [review.NAMES[0]]
        page = browser.new_page()
        try:
            for number, place in enumerate(("127.0.0.1", "localhost")):
                deed = {"id": f"{number:032x}", "item": number, "what": "answer", "labels": labels}
                page.goto(f"http://{place}:{stranger.server_port}/")
                got = page.evaluate(ATTACKS, [home, token, deed])
                nothing = {"refused", "opaque", "closed", "cut off", "true", "null", ""}
                assert {name: said for name, said in got.items() if said not in nothing} == {}
                assert got["read"] == got["xhr"] == got["script"] == "refused"
        finally:
            page.close()
            stranger.shutdown()
            stranger.server_close()
        # The power of it: the same deed, sent by the server's own page, is taken.
        page = browser.new_page()
        page.goto(addresses["ada"])
        page.wait_for_selector("#work:not([hidden])")
        mine = page.evaluate("S.current.item")
        deed |= {"id": "f" * 32, "item": mine}
        taken = page.evaluate("(deed) => ask('/say', deed).then((one) => one.status)", deed)
        page.close()
        assert taken == 200
    found = review.kept(run, {"ada": []})
    assert (found.answers, found.remarks) == (1, 0)


def test_a_run_of_hostile_texts_is_labelled_through_the_real_page(world, tmp_path):
    """Texts, labels, a person and comments from the grammar, by `llmal review` itself; all is kept."""
    browser, trap = world
    grammar = hostile.Grammar(9)
    before = len(trap.heard)
    names, texts = [], []
    while len(names) < 8:
        words = grammar.text().words.strip()
        if words.isprintable() and len(words) < 200 and words not in names:
            names.append(words)
    names += ["__proto__", "constructor", "toString"]
    run = review.run_of(tmp_path, 30, names=names, texts=[grammar.text().words for _ in range(100)])
    person = "<img src=x onerror=hit(1)>"
    with review.served(run, [person]) as addresses:
        context = browser.new_context()
        context.add_init_script(f"({hostile.CANARY})(false)")
        page = context.new_page()
        heard = []
        page.on("console", lambda m: heard.append(m.text))
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.on("dialog", lambda d: (heard.append(d.message), d.dismiss()))
        page.goto(addresses[person])
        page.wait_for_selector("#work:not([hidden])")
        said = []
        for i in range(22):
            text = page.evaluate("document.getElementById('text').textContent")
            texts.append(text)
            if i % 5 == 0:
                page.evaluate("(words) => { document.getElementById('note').value = words; }", text)
            page.keyboard.press("123456789ab"[i % 11])
            said.append((names[i % 11], text if i % 5 == 0 else ""))
            page.wait_for_function("(n) => S.mine === n && S.current !== null", arg=i + 1)
        told = page.evaluate("({ hits: C.hits, own: Object.keys(Object.prototype).length })")
        assert page.evaluate(hostile.FOREIGN) == []
        context.close()
    assert heard == []
    assert told == {"hits": [], "own": 0}
    assert trap.heard[before:] == []
    rows = review.rows(run)
    assert [json.loads(row.labels)[0] for row in rows] == [name for name, _ in said]
    assert [row.note for row in rows] == [note for _, note in said]
    assert {row.person for row in rows} == {person}
    assert len(set(texts)) == 22
