"""Several people label on one review page at once, in a browser each: nothing lost, nothing shown twice.

At full size, with times: `tests/benchmarks/review_page.py --people 2`.
Needs playwright and a chromium of the machine; see `conftest.py`. Run: `pytest -m browser tests/browser`.
"""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from llmal.store import schema as t
from llmal.store.store import open_store

pytestmark = pytest.mark.browser

PLAIN = {"answer": 92, "undo": 4, "comment": 4}
"""Nothing that leaves a text to somebody else."""


def script(name):
    """A script beside the tests, as a module."""
    path = Path(__file__).resolve().parents[1] / f"benchmarks/{name}.py"
    spec = importlib.util.spec_from_file_location(f"people_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


review = script("review_page")


@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_two_people_at_once_lose_nothing_and_share_what_is_compared_alone(browser, tmp_path, overlap):
    run = review.run_of(tmp_path, 40, overlap)
    with review.served(run, ["ann", "bob"]) as addresses:
        both = [
            review.Typist(browser, name, addresses[name], seed, PLAIN) for seed, name in enumerate(addresses)
        ]
        review.until_done(both)
        told = {one.person: one.told() for one in both}
        crew = both[1].page.evaluate("ask('/people').then((one) => one.data)")
        assert [one.trouble for one in both] == [[], []]
        for one in both:
            one.context.close()
    found = review.kept(run, {name: one["acked"] for name, one in told.items()})
    assert (found.lost, found.doubled, found.extra, found.wrong) == ([], 0, 0, [])
    by_item = Counter(item for item, _ in found.words)
    assert len(by_item) == 40
    shared = {item for item, n in by_item.items() if n == 2}
    seen = Counter(n for one in told.values() for n in review.numbers(one["shown"]))
    assert {item for item, n in seen.items() if n == 2} == shared
    assert crew["overlap"] == {"wanted": len(shared), "done": len(shared)}
    assert (len(shared) == 0) if overlap == 0 else (4 <= len(shared) <= 24)
    assert [one["words"] for one in crew["people"]] == [
        sum(p == name for _, p in found.words) for name in addresses
    ]
    assert min(one["words"] for one in crew["people"]) > 8


def test_people_differ_one_of_them_settles_it_and_all_see_how_well_they_agree(browser, tmp_path, artefacts):
    run = review.run_of(tmp_path, 20, 1.0, names=review.NAMES[:3])
    with review.served(run, ["ann", "bob"]) as addresses:
        ann, bob = (review.Typist(browser, name, addresses[name], 0, PLAIN) for name in addresses)
        for i in range(20):
            for one, key in ((ann, "1"), (bob, "1" if i < 12 else "2")):
                one.press(key)
                one.kinds.append("answer")
                one.wait()
        assert ann.done
        assert bob.done
        assert bob.page.locator("#settle").is_hidden()
        refused = bob.page.evaluate("ask('/disputes').then((one) => one.status)")
        assert refused == 403
        bob.page.keyboard.press(";")
        bob.page.wait_for_function("() => document.getElementById('persons').children.length === 2")
        words = bob.page.inner_text("#people")
        bob.page.screenshot(path=artefacts / "people-agreement.png")
        assert "ann" in words
        assert "bob (you)" in words
        assert "20 of 20 have all their answers" in words
        ann.page.reload()
        ann.page.wait_for_function("() => !document.getElementById('settle').hidden")
        ann.page.keyboard.press("=")
        ann.page.wait_for_selector("#answers:not([hidden])")
        ann.page.screenshot(path=artefacts / "people-dispute.png")
        said = ann.page.inner_text("#answers")
        assert "ann: " + review.NAMES[0] in said
        assert "bob: " + review.NAMES[1] in said
        for _ in range(8):
            before = ann.page.evaluate("S.settled.length")
            ann.page.keyboard.press("3")
            ann.page.wait_for_function("(n) => S.settled.length > n && !S.sending", arg=before)
        ann.page.wait_for_selector("#done:not([hidden])")
        assert ann.page.locator("#settle").is_hidden() or ann.page.locator("#settle").is_disabled()
        assert [one.trouble for one in (ann, bob)] == [
            [],
            [bob.trouble[0]],
        ]  # the refusal, in the browser's words
    store = open_store(run, write=False)
    try:
        held = Counter(store.answers(review.NAMES[:3]).values())
        settled = store.read(t.answer.select().where(t.answer.c.role == "adjudicate"))
    finally:
        store.close()
    assert held == {(review.NAMES[0],): 12, (review.NAMES[2],): 8}
    assert [(row.person, json.loads(row.labels)) for row in settled] == [("ann", [review.NAMES[2]])] * 8
