"""The review page by keyboard alone, at full size: how long a key takes, and whether what is said is kept.

    python tests/benchmarks/review_page.py --items 2000
    python tests/benchmarks/review_page.py --items 2000 --people 2 --overlap 0.1

An offline pipeline makes a run in which that many texts wait; `llmal review` serves it in its own process;
people are a real keyboard in a real chromium, one context each, that press the next key once the next text is
painted: answers by key, by search and with a comment, now and then taken back, skipped, not sure, flagged.

Times are in the page: from a key's event to the first frame after the text had changed (`shown`), and to the
server's word that the deed is on disk (`kept`, by when nobody waits). Checked in the store afterwards: every
acknowledged answer is there once, with its person, labels, seconds, shown list and note; nothing else is;
each person's newest word is the last they gave; nobody was shown a text of somebody else's beyond the
overlap.

Needs playwright and chromium (`LLMAL_CHROMIUM` names another), and the extra `serve`.

Measured 2026-11-22 with chromium 156 on two cores with nothing else to do, 2,000 texts, ms:

                                  keys      n     p50     p95     p99     max
one person             shown      2515   2215    10.4    19.0    30.3   212.7
                       kept              2263    15.7    36.7   109.6   243.9
two, overlap 0         shown      2593   2265    10.4    22.8    43.2   279.4
                       kept              2313    16.8    52.1   173.7   341.7
two, overlap 0.1       shown      2839   2487    10.7    21.3    35.0   659.0
                       kept              2538    16.0    31.6   138.6   687.0

By deed, one person, p50 and p99: answer 10, 20; search 12, 20; comment 10, 146; skip 10, 94; not sure 10, 16;
flagged 11, 21; taken back 27, 191 (the text comes back from the server). With other work on both cores (load
4 to 14) one person's shown p50 was 10.1 and p99 134; one answer of seven such runs took 11.8 s, and was kept.
In all of them: 0 acknowledged answers lost, 0 doubled, 0 wrong; nobody was shown another's text beyond the
overlap and what was put off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CHROMIUM = os.environ.get("LLMAL_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
NAMES = (
    *("refund 0", "delivery 1", "praise 2", "damage 3", "invoice 4", "password 5", "address 6", "plan 7"),
    *("bug 8", "speed 9", "export 10", "import 11", "size 12", "colour 13"),
)
"""Fourteen labels: a key each, and enough of them for the search field."""

MIX = {"answer": 84, "undo": 4, "search": 3, "comment": 3, "skip": 2, "unsure": 2, "flag": 2}
"""What a person does, in parts of a hundred; what is taken back is answered anew."""

WATCH = """() => {
  const M = window.M = { key: 0, times: [], shown: [], acked: [], moves: 0, refused: 0, wake: null };
  addEventListener("keydown", (event) => { M.key = event.timeStamp; M.which = event.key; }, true);
  const old = window.fetch;
  window.fetch = async (path, more) => {
    const from = M.key, reply = await old(path, more);
    if (path === "/say") {
      const deed = JSON.parse(more.body);
      M.acked.push({ ...deed, have: 0, status: reply.status, ms: performance.now() - from });
      if (reply.status === 409) setTimeout(() => { M.refused += 1; if (M.wake) M.wake(); });
    }
    return reply;
  };
  addEventListener("DOMContentLoaded", () => {
    const text = document.getElementById("text"), done = document.getElementById("done");
    const moved = () => {
      const from = M.key, now = done.hidden ? text.textContent : "";
      requestAnimationFrame((at) => setTimeout(() => { // the frame is out
        M.times.push(performance.now() - from);
        M.shown.push(now);
        M.moves += 1;
        if (M.wake) M.wake();
      }));
    };
    const all = { childList: true, characterData: true, subtree: true };
    new MutationObserver(moved).observe(text, all);
    const ended = new MutationObserver(() => { if (!done.hidden) moved(); });
    ended.observe(done, { attributes: true, attributeFilter: ["hidden"] });
  });
}"""
"""Watches one page from the first script on: keys, frames, and what the server acknowledged."""

WAIT = """([moves, refused]) => {
  const come = () => M.moves > moves || M.refused > refused;
  const told = () => [M.moves, M.refused];
  return come() ? told() : new Promise((wake) => {
    const late = setTimeout(() => { M.wake = null; wake(null); }, 15000);
    M.wake = () => { if (come()) { clearTimeout(late); M.wake = null; wake(told()); } };
  });
}"""


def run_of(folder: Path, items: int, overlap: float = 0.1, names: Sequence[str] = NAMES,
           texts: Sequence[str] = ()) -> Path:  # fmt: skip
    """A run of an offline pipeline in which `items` texts wait for people; `texts` are its first ones."""
    import llmal
    from llmal.spec import Pipeline

    rng = random.Random(4)
    taught, audit = 60, min(100, items // 10)
    words = ("parcel", "late", "broken", "thanks", "card", "twice", "door", "box", "street", "phone", "money")
    rows, answers = [], []
    for i in range(items + taught):
        text = f"letter {i}: " + " ".join(rng.choices(words, k=rng.randrange(12, 60)))
        rows.append({"id": str(i), "text": texts[i] if i < len(texts) else text})
        answers.append({"id": str(i), "label": names[i % len(names)], "sure": 0.9})
    for name, data in (("corpus", rows), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data), encoding="utf-8")
    pipeline = Pipeline.model_validate({
        "corpus": {"path": "corpus.jsonl", "id": "id"},
        "labels": {"names": {name: f"about {name}" for name in names}}, "audit": {"size": audit},
        "rounds": {"max": 1, "size": taught}, "embed": {"use": "hashing", "dim": 64},
        "annotate": {"use": "recorded", "path": "answers.jsonl", "confidence": "sure"},
        "filter": {"use": "confidence", "at_least": 0.5}, "train": {"rounds": "linear", "final": "linear"},
        "route": {"use": "threshold", "at_least": 1.0}, "review": {"overlap": overlap},
    })  # fmt: skip
    llmal.run(pipeline, folder / "run", home=folder)
    return folder / "run"


@contextmanager
def served(run: Path, people: Sequence[str]) -> Iterator[dict[str, str]]:
    """`llmal review` in a process of its own: each person's address."""
    command = [sys.executable, "-m", "llmal.cli", "review", str(run)]
    for person in people:
        command += ["--person", person]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        found: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            found += re.findall(r"http://\S+#token=\S+", line)
            if len(found) == len(people):
                break
        else:
            raise SystemExit("llmal review did not start")
        yield dict(zip(people, found, strict=True))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


class Typist:
    """One person at a keyboard, and what the page did under it."""

    def __init__(
        self, browser: Any, person: str, address: str, seed: int, mix: dict[str, int] | None = None
    ) -> None:
        self.person, self.rng, self.mix = person, random.Random(seed), mix or MIX
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.context.add_init_script(f"({WATCH})()")
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.page.on("console", lambda m: "409" in m.text or self.trouble.append(m.text))
        self.page.on("pageerror", lambda e: self.trouble.append(str(e)))
        self.page.goto(address)
        self.page.wait_for_selector("#work:not([hidden])")
        self.labels = self.page.evaluate(
            "[...document.querySelectorAll('.label .name')].map((one) => one.textContent)"
        )
        self.before = self.moves = self.page.evaluate("M.moves")
        self.refused = 0
        self.kinds: list[str] = []
        self.keys = 0

    def press(self, *keys: str) -> None:
        """Keys one after another."""
        for key in keys:
            self.page.keyboard.press(key)
            self.keys += 1

    def act(self, kind: str = "") -> None:
        """One deed that brings the next text."""
        keys, rng = self.page.keyboard, self.rng
        kind = kind or rng.choices([*self.mix], [*self.mix.values()])[0]
        if kind == "undo" and not self.kinds.count("answer"):
            kind = "answer"
        if kind == "undo":
            self.press("Backspace")
        elif kind in ("skip", "unsure"):
            self.press("." if kind == "skip" else "?")
        elif kind == "search":
            self.press("/")
            keys.type(rng.choice(self.labels))
            self.press("Enter")
        else:
            if kind == "comment":
                self.press(",")
                keys.type("a note, with / ? . and 1")
                self.press("Escape")
            if kind == "flag":
                self.press("!")
                keys.type("not of this world")
                self.press("Enter")
            self.press("123456789abcdefghijklmnopqrstuvwxyz"[rng.randrange(len(self.labels))])
        self.kinds.append(kind)

    def wait(self) -> None:
        """Until the next text is painted."""
        come = self.page.evaluate(WAIT, [self.moves, self.refused])
        if come is None:
            raise SystemExit(f"nothing came after {self.kinds[-1]}: {self.page.inner_text('#status')!r} "
                             f"{self.page.inner_text('#trouble')!r} {self.trouble}")  # fmt: skip
        moves, refused = come
        if refused > self.refused:  # somebody else has by now what was put off
            self.kinds.pop()
        while len(self.kinds) < moves - self.before:  # a text of its own accord, as what comes after a wait
            self.kinds.append("server")
        self.moves, self.refused = moves, refused

    @property
    def done(self) -> bool:
        """Whether nothing waits on this page."""
        return bool(self.page.evaluate("!document.getElementById('done').hidden"))

    def told(self) -> dict[str, Any]:
        """Times, texts shown and deeds acknowledged; waits for what is under way."""
        self.page.wait_for_function("() => S.pending.length === 0 && !S.sending")
        return dict(self.page.evaluate("({ times: M.times, shown: M.shown, acked: M.acked })"))


class Kept(NamedTuple):
    """What the store holds against what the pages were told."""

    answers: int
    remarks: int
    lost: list[str]
    doubled: int
    extra: int
    wrong: list[str]
    words: dict[tuple[int, str], tuple[str, ...]]


def same(row: Any, person: str, deed: dict[str, Any]) -> bool:
    """Whether a row of the store is what a page said."""
    right = row.item == deed["item"] and row.person == person and row.note == deed.get("note", "")
    if "seconds" in deed:
        right &= row.seconds is not None and abs(row.seconds - deed["seconds"]) <= 0.01
    if deed["what"] == "answer":
        return bool(
            right and json.loads(row.labels) == deed["labels"] and (row.shown is None) == deed["full"]
        )
    return bool(right and row.what == deed["what"])


def kept(run: Path, told: dict[str, list[dict[str, Any]]]) -> Kept:
    """Compare what each person's page was told to be kept with what lies on the disk."""
    from llmal.store import schema as t
    from llmal.store.store import open_store

    store = open_store(run, write=False)
    try:
        answers, remarks = store.read(t.answer.select()), store.read(t.remark.select())
        standing = store.read(t.answer.select().where(t.standing()).order_by(t.answer.c.n))
    finally:
        store.close()
    by_deed: dict[str, list[Any]] = defaultdict(list)
    for row in [*answers, *remarks]:
        by_deed[row.source.rpartition(":")[2]].append(row)
    lost, wrong, seen = [], [], set()
    words: dict[tuple[int, str], tuple[str, ...]] = {}
    for person, deed in ((person, deed) for person, deeds in told.items() for deed in deeds):
        if deed["status"] != 200:
            continue
        seen.add(deed["id"])
        if deed["what"] == "undo":
            words.pop((deed["item"], person), None)
        elif deed["what"] == "answer":
            words[deed["item"], person] = tuple(deed["labels"])
        if not by_deed[deed["id"]]:
            lost.append(deed["id"])
        elif not same(by_deed[deed["id"]][0], person, deed):
            wrong.append(f"{deed} {tuple(by_deed[deed['id']][0])}")
    newest = {(r.item, r.person): tuple(json.loads(r.labels)) for r in standing}
    wrong += [f"word {key}" for key in newest.keys() | words.keys() if newest.get(key) != words.get(key)]
    doubled = sum(len(found) > 1 for found in by_deed.values())
    extra = len({name for name, found in by_deed.items() if found} - seen)
    return Kept(len(answers), len(remarks), lost, doubled, extra, wrong, newest)


def rows(run: Path) -> list[Any]:
    """Every answer in the store, oldest first."""
    from llmal.store import schema as t
    from llmal.store.store import open_store

    store = open_store(run, write=False)
    try:
        return list(store.read(t.answer.select().order_by(t.answer.c.n)))
    finally:
        store.close()


def spread(times: Sequence[float]) -> str:
    """p50, p95, p99 and the longest, in ms."""
    ordered = sorted(times)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.95, 0.99)]
    return " ".join(f"{x:7.1f}" for x in (*at, ordered[-1]))


def until_done(typists: Sequence[Typist]) -> None:
    """Everybody types at once until nothing waits for anybody."""
    left = list(typists)
    while left:
        for one in left:
            one.act()
        for one in left:
            one.wait()
        left = [one for one in left if not one.done]


def worked(
    run: Path, people: Sequence[str], playwright: Any, mix: dict[str, int] | None = None
) -> dict[str, Any]:
    """Everybody answers until nothing waits; times, what was shown, and what was told to be kept."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.callback(browser.close)
        addresses = stack.enter_context(served(run, people))
        typists = [Typist(browser, name, addresses[name], seed, mix) for seed, name in enumerate(people)]
        until_done(typists)
        told = {one.person: one.told() for one in typists}
        for one in typists:
            if one.trouble:
                raise SystemExit(f"the page said: {one.trouble[:5]}")
        kinds = {one.person: one.kinds for one in typists}
        agreement = None
        if len(people) > 1:
            agreement = typists[0].page.evaluate("ask('/people').then((one) => one.data)")
    return {"told": told, "kinds": kinds, "seconds": time.perf_counter() - began,
            "keys": sum(one.keys for one in typists), "agreement": agreement}  # fmt: skip


def numbers(shown: Sequence[str]) -> set[int]:
    """The texts' own numbers."""
    return {int(m[1]) for text in shown if (m := re.match(r"letter (\d+):", text))}


def main() -> None:
    """Print times, and what was kept."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--overlap", type=float, default=0.1)
    args = parser.parse_args()
    people = [f"person {i + 1}" for i in range(args.people)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = run_of(Path(folder), args.items, args.overlap)
        done = worked(run, people, playwright)
        found = kept(run, {name: one["acked"] for name, one in done["told"].items()})
    head = f"{args.items} texts, {args.people} people, overlap {args.overlap:g}"
    print(f"{head}: {done['keys']} keys in {done['seconds']:.0f} s")
    print("key to next text painted, ms      n     p50     p95     p99     max")
    times: dict[str, list[float]] = defaultdict(list)
    for name, one in done["told"].items():
        for kind, ms in zip(done["kinds"][name], one["times"][-len(done["kinds"][name]) :], strict=False):
            times[kind].append(ms)
    for kind in [*MIX, "server"]:
        if times[kind]:
            print(f"  {kind:26}{len(times[kind]):>7} {spread(times[kind])}")
    every = [ms for kind, some in times.items() if kind != "server" for ms in some]
    print(f"  {'all':26}{len(every):>7} {spread(every)}")
    acks = [deed["ms"] for one in done["told"].values() for deed in one["acked"]]
    print(f"  {'kept on disk':26}{len(acks):>7} {spread(acks)}")
    refused = Counter(d["status"] for one in done["told"].values() for d in one["acked"])
    print(f"replies {dict(refused)}; rows: {found.answers} answers, {found.remarks} remarks")
    ends = f"lost {len(found.lost)}, doubled {found.doubled}, not acknowledged {found.extra}"
    print(f"{ends}, wrong {len(found.wrong)}")
    for line in found.wrong[:5]:
        print("  wrong:", line)
    by_item = Counter(item for item, _ in found.words)
    told_off = {
        d["item"] for one in done["told"].values() for d in one["acked"] if d["what"] in ("skip", "unsure")
    }
    print(f"words by people on an item: {dict(Counter(by_item.values()))}; put off {len(told_off)}")
    if len(people) > 1:
        seen = Counter(n for one in done["told"].values() for n in numbers(one["shown"]))
        twice = {n for n, k in seen.items() if k > 1}
        print(f"texts shown to two people: {len(twice)}; of these neither answered by two nor put off: "
              f"{len(twice - {i for i, k in by_item.items() if k > 1} - told_off)}")  # fmt: skip
        print(
            "compared:",
            json.dumps(done["agreement"]["overlap"]),
            "alpha:",
            json.dumps(done["agreement"]["alpha"]),
        )
    answered = [d["seconds"] for one in done["told"].values() for d in one["acked"] if d["what"] == "answer"]
    print(f"seconds a text, as kept: median {statistics.median(answered):.3f}")


if __name__ == "__main__":
    main()
