"""Forged requests to `llmal review`, byte by byte over sockets: they read nothing and change nothing.

Each is the page's own request with one to three things bent: Host, Origin, token, Sec-Fetch-Site, method,
type, framing. All of them at full size: `pytest -m slow tests/integration/test_forged_requests.py`.
"""

import contextlib
import hashlib
import json
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field

import pytest

from llmal.corpus import read, text_key
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store

MARK = "XSECRETX"
"""In every text, label, name and folder of the run: a reply that holds it gave something away."""

PATHS = ("/start", "/people", "/disputes")


def made(folder, n=40):
    rows = "".join(json.dumps({"text": f"{MARK} letter {i}"}) + "\n" for i in range(n))
    (folder / "c.jsonl").write_text(rows, encoding="utf-8")
    names = {f"{MARK} bug": f"{MARK} meaning", f"{MARK} praise": ""}
    (folder / "a.jsonl").write_text(json.dumps({"id": "0", "label": f"{MARK} bug"}) + "\n", encoding="utf-8")
    pipeline = Pipeline.model_validate({
        "corpus": {"path": "c.jsonl"}, "labels": {"names": names}, "audit": {"size": 4},
        "review": {"overlap": 0.0},
        "embed": {"use": "hashing", "dim": 64}, "annotate": {"use": "recorded", "path": "a.jsonl"},
        "train": {"rounds": "linear", "final": "linear"},
    })  # fmt: skip
    run = folder / f"run-{MARK}"
    store = open_store(run)
    store.note("home", lambda: str(folder))
    store.put_corpus("c", "d", read(pipeline.corpus, folder / "c.jsonl", pipeline.label_schema()), text_key)
    base = {"recipe": "r", "who": "person", "labels": json.dumps([f"{MARK} bug"]), "reason": f"{MARK} unsure"}
    store.add(t.route, [{**base, "item": i, "confidence": i / n} for i in range(n)])
    store.close()
    (run / "pipeline.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")
    return run


@dataclass
class Page:
    """A review page that runs, and what it shows those who may see it."""

    run: object
    port: int
    tokens: list

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    @property
    def home(self):
        return f"http://{self.host}"

    def facts(self):
        """Rows of each table, and a hash of everything in them."""
        with contextlib.closing(sqlite3.connect(f"file:{self.run / 'store.sqlite'}?mode=ro", uri=True)) as db:
            tables = [
                n for (n,) in db.execute("select name from sqlite_master where type = 'table' order by 1")
            ]
            counts, every = {}, hashlib.sha256()
            for name in tables:
                rows = sorted(map(repr, db.execute(f'select * from "{name}"')))
                counts[name] = len(rows)
                every.update("\n".join([name, *rows]).encode())
        return counts, every.hexdigest()


OPEN = """
from llmal.desk import app
from llmal.serve.guard import Guard
def open_to_all(self, scope):
    scope["person"] = self._options.people[0]
app.DeskGuard.refusal = open_to_all
from llmal.cli import main
main()
"""
"""`llmal review` with the guard taken away: whoever asks is the first person."""


@contextlib.contextmanager
def served(run, *program):
    names = [f"{MARK} ann", f"{MARK} bob"]
    command = [sys.executable, *program, "review", str(run)]
    for name in names:
        command += ["--person", name]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    tokens, port = [], 0
    try:
        for line in process.stderr:
            if found := re.search(r"http://[^/]*:(\d+)/#token=(\S+)", line):
                port = int(found[1])
                tokens.append(found[2])
            if len(tokens) == len(names):
                break
        else:
            raise AssertionError("the page did not start")
        yield Page(run, port, tokens)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture
def page(tmp_path):
    with served(made(tmp_path), "-m", "llmal.cli") as opened:
        yield opened


@dataclass
class Request:
    """What goes over the wire; `sound` is the page's own."""

    method: str
    target: str
    headers: dict
    body: bytes = b""
    version: str = "HTTP/1.1"
    extra: list = field(default_factory=list)
    after: bytes = b""

    def raw(self):
        lines = [f"{self.method} {self.target} {self.version}"]
        lines += [
            f"{name}: {value}" for name, value in [*self.headers.items(), *self.extra] if value is not None
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.body + self.after


def sound(page, rng, deed=None, person=0, path=None):
    """A request as the page of that person sends it."""
    headers = {"Host": page.host, "Connection": "close", "Authorization": f"Bearer {page.tokens[person]}",
               "Origin": page.home, "Sec-Fetch-Site": "same-origin"}  # fmt: skip
    if deed is None:
        return Request("GET", path or "/start", headers)
    body = json.dumps(deed).encode()
    headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return Request("POST", "/say", headers, body)


def sent(page, request):
    """Every byte the server gave back."""
    got = []
    with socket.create_connection(("127.0.0.1", page.port), timeout=30) as wire:
        try:
            wire.sendall(request.raw())
            while chunk := wire.recv(65536):
                got.append(chunk)
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused unread: the server has hung up on the rest
    return b"".join(got)


def status(reply):
    return int(reply[9:12]) if reply.startswith(b"HTTP/1.") else 0


# --- what can be bent: each alone is enough to be refused -------------------------------------------------


def host(page, rng, q):
    port = page.port
    bent = rng.choice([
        "evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}",
        f"localhost.evil.example:{port}", f"evil.example@127.0.0.1:{port}", f"127.0.0.1:{port}:1",
        f"127.0.0.1:{port}@evil.example", "", "[::2]", f"[::ffff:127.0.0.1]:{port}", f"[::1%25lo]:{port}",
        f"0.0.0.0:{port}", f"127.1:{port}", f"2130706433:{port}", f"0x7f.1:{port}", f"127.0.0.1.:{port}",
        f"localhost.:{port}", f"LOCALHOST.:{port}", f"localhost:{port}x", "localhost:999999",
        "localhost:-1", f"localhost:{port}/", f"localhost:{port}#", f"http://localhost:{port}",
        f"local host:{port}", f"127.0.0.1:{port}, evil.example", f"evil.example, 127.0.0.1:{port}", "*",
        None, f"l\u00f6calhost:{port}", "localhost\x00", f"\u2460\u2461\u2466.0.0.1:{port}",
    ])  # fmt: skip
    q.headers["Host"] = bent
    if rng.random() < 0.5 and bent:
        q.headers["Origin"] = f"http://{bent}"  # as a page whose name was pointed here would send it


def twice(rng, q, name, sound, bent):
    """A header two times, whatever else was done to it."""
    q.headers[name] = None
    q.extra += rng.sample([(name, sound), (name, bent)], 2)


def two_hosts(page, rng, q):
    twice(rng, q, "Host", page.host, rng.choice(["evil.example", page.host, ""]))


def origin(page, rng, q):
    q.headers["Origin"] = rng.choice([
        "null", "", "https://evil.example", "http://127.0.0.1", f"http://localhost:{page.port}",
        "http://127.0.0.1:1", f"http://evil.example:{page.port}", f"{page.home}.evil.example",
        f"{page.home}/", "file://", f"{page.home}@x", f"http://x@{page.host}", f"ftp://{page.host}",
        "http://[", f"{page.home} https://evil.example", "data:", f"{page.home}?", f"{page.home}#",
        f"//{page.host}", page.host, f"chrome-extension://{page.host}", "*", f"http:/{page.host}",
        f"{page.home}\u00a0", f"http://127.0.0.1:0{page.port}", f"{page.home},{page.home}",
    ])  # fmt: skip


def two_origins(page, rng, q):
    twice(rng, q, "Origin", page.home, rng.choice(["https://evil.example", page.home + "/", "null"]))


def token(page, rng, q):
    true = page.tokens[0]
    bent = rng.choice([
        None, "", "Bearer", "Bearer ", f"Basic {true}", true, f"bearer {true}", f"Bearer {true}x",
        f"Bearer {true[:-1]}", f"Bearer {true[1:]}", f"Bearer  {true}", f"Bearer\t{true}",
        f"Bearer {true.swapcase()}", f"Bearer {true[::-1]}", f"Bearer {true},{true}",
        f"Bearer {true} {true}", "Bearer null", "Bearer undefined", "Bearer *", "Bearer %00",
        f"Token {true}", f"Bearer token={true}", f'Bearer "{true}"', f"Bearer {true[:8]}*",
        f"Bearer {'a' * len(true)}", f"Bearer {true}\u00e9", f"Digest {true}",
        f"Bearer {rng.getrandbits(256):x}",
    ])  # fmt: skip
    q.headers["Authorization"] = bent
    where = rng.random()
    if where < 0.1:
        q.extra.append(("Cookie", f"token={true}; Authorization=Bearer {true}"))
    elif where < 0.2:
        q.target += f"?token={true}&access_token={true}&authorization=Bearer+{true}"
    elif where < 0.3:
        q.extra.append(
            (rng.choice(["X-Token", "Proxy-Authorization", "X-Authorization", "Token"]), f"Bearer {true}")
        )


def two_tokens(page, rng, q):
    tokens = [f"Bearer {one}" for one in page.tokens]
    twice(rng, q, "Authorization", tokens[0], rng.choice(["", "Bearer x", *tokens]))


def site(page, rng, q):
    q.headers["Sec-Fetch-Site"] = rng.choice(
        ["cross-site", "same-site", "none", "", "Same-Origin", "same-origin, x"]
    )


def method(page, rng, q):
    other = {"GET": "POST", "POST": "GET"}[q.method]
    q.method = rng.choice(
        ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", other, "get", "POSt", "PROPFIND"]
    )
    if rng.random() < 0.3:
        q.extra.append(("X-HTTP-Method-Override", other))
    if rng.random() < 0.3:
        q.extra += [
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization"),
        ]


def target(page, rng, q):
    at = q.target.partition("?")[0]
    q.target = rng.choice([
        f"http://evil.example{at}", f"//evil.example{at}", f"{at}/", f"/{at}", f"/.{at}/..", f"{at}%00",
        f"{at};x", at.upper(), f"/x/..{at}", f"/%2e{at}", f"{at}.json", "*", f"\\{at[1:]}",
        f"/page.js/..{at}", "/../run.sqlite", "/llmal.db", "/pipeline.yaml", "/..%2f..%2fpipeline.yaml",
        "/docs", "/openapi.json", "/export", "/health",
    ])  # fmt: skip


def kind(page, rng, q):
    """What a form, or a script without leave, can send."""
    q.headers["Content-Type"] = rng.choice([
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None, "",
        "text/json", "text/plain; application/json", "application/jsonp", "application/xml",
        "application/json+x", "*/*",
    ])  # fmt: skip


def framing(page, rng, q):
    """Bodies that lie about their length, and requests hidden in them; all without the token."""
    token(page, rng, q)
    hidden = sound(page, rng, json.loads(q.body or b"null") if q.body else None).raw()
    how = rng.randrange(9)
    if how == 0:
        q.headers["Content-Length"] = str(10**9)
    elif how == 1:
        q.extra.append(("Content-Length", "0"))
        q.after = hidden
    elif how == 2:
        q.headers["Content-Length"] = rng.choice(["-1", "1e3", "0x10", "+5", "9" * 40, "", "5, 5"])
    elif how == 3:
        q.extra.append(("Transfer-Encoding", "chunked"))
        q.body = b"0\r\n\r\n"
        q.after = hidden
    elif how == 4:
        q.extra.append(
            ("Transfer-Encoding", rng.choice(["identity", "chunked, identity", "xchunked", "\x0bchunked"]))
        )
        q.after = hidden
    elif how == 5:
        q.extra.append(("Transfer-Encoding ", "chunked"))
        q.after = hidden
    elif how == 6:
        q.extra.append(("X-Pad", "a" * rng.choice([10_000, 100_000])))
    elif how == 7:
        q.extra.append(("X-Bent", f"a\r\n Authorization: Bearer {page.tokens[0]}"))  # a folded line
    else:
        q.extra += [("Connection", "Upgrade"), ("Upgrade", rng.choice(["websocket", "h2c"]))]
        q.extra += [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
        q.extra += [("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")]


def old(page, rng, q):
    """HTTP/1.0 and versions that are none, without a Host."""
    q.version = rng.choice(["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP", "ICAP/1.0", ""])
    q.headers["Host"] = None


ALWAYS = (host, two_hosts, origin, two_origins, token, two_tokens, site, method, target, framing, old)
BODIES = (kind,)
"""Only of what has a body."""


def forged(page, rng, deeds):
    """A request with something bent, and what was."""
    path = rng.choice(PATHS)
    q = sound(page, rng, rng.choice(deeds) if rng.random() < 0.6 else None, path=path)
    bent = rng.sample(ALWAYS + (BODIES if q.method == "POST" else ()), rng.choice([1, 1, 2, 3]))
    for one in bent:
        one(page, rng, q)
    return q, [one.__name__ for one in bent]


def deed(rng, item, what="answer", **more):
    return {"id": f"{rng.getrandbits(128):032x}", "item": item, "what": what, **more}


def talk(page, rng, *args, **more):
    """A sound request's reply as JSON."""
    reply = sent(page, sound(page, rng, *args, **more))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert status(reply) == 200, head
    return json.loads(body)


def deeds_of(page, rng):
    """What a page with an answer given could do next, that answer, and all that it sees."""
    label = f"{MARK} bug"
    first = talk(page, rng)["items"]
    mine = deed(rng, first[0]["item"], labels=[label], note=f"{MARK} note")
    talk(page, rng, mine)
    there = talk(page, rng)
    deeds = [
        deed(rng, one["item"], what, labels=[label] if what == "answer" else [])
        for one in there["items"]
        for what in ("answer", "skip", "unsure", "flag")
    ]
    deeds += [
        deed(rng, mine["item"], "undo", of=mine["id"]),
        deed(rng, mine["item"], "adjudicate", labels=[label]),
    ]
    return deeds, mine, there


def not_theirs(page, rng, mine, deeds):
    """Deeds with a token that is right, and not that person's: whose undo, settling and text it is not."""
    item = mine["item"]
    other = [
        deed(rng, item, "undo", of=mine["id"]),
        deed(rng, item, labels=mine["labels"]),
        deed(rng, item, "skip"),
        deed(rng, item, "adjudicate", labels=mine["labels"]),
        deed(rng, 10**9, "flag"),
        *deeds[:2],
    ]
    return [*(sound(page, rng, one, person=1) for one in other), sound(page, rng, path="/disputes", person=1)]


@pytest.mark.parametrize("n", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_forged_requests_over_the_wire_change_nothing_and_read_nothing(page, n):
    rng = random.Random(n)
    deeds, mine, there = deeds_of(page, rng)
    before = page.facts()
    for q in not_theirs(page, rng, mine, deeds):
        reply = sent(page, q)
        assert status(reply) in (403, 409), (q, reply)
        assert MARK.encode() not in reply
    seen, wrong = Counter(), []
    for number in range(n):
        q, bent = forged(page, rng, deeds)
        reply = sent(page, q)
        code = status(reply)
        seen[code] += 1
        refused = code in (0, 307) or 400 <= code < 506  # 307: a slash too many, with the token
        if MARK.encode() in reply or not refused or b"access-control" in reply.lower():
            wrong.append((bent, q.raw()[:300], reply[:200]))
        if number % 200 == 0 and page.facts() != before:
            wrong.append(("changed", bent, q.raw()[:300]))
            break
    assert wrong == []
    assert page.facts() == before
    assert talk(page, rng) == there
    assert min(seen[400], seen[401], seen[403]) > n / 20, seen
    # Each of these deeds, sent by the page, is taken; and what it reads is what was looked for.
    assert MARK.encode() in sent(page, sound(page, rng))
    talk(page, rng, deeds[0])
    talk(page, rng, deed(rng, mine["item"], "undo", of=mine["id"]))
    after = page.facts()
    assert after[0]["answer"] == before[0]["answer"] + 1
    assert after[0]["remark"] == before[0]["remark"] + 1
    assert after[1] != before[1]


def test_without_the_guard_the_same_requests_read_and_change(tmp_path):
    """The power of the test above."""
    with served(made(tmp_path), "-c", OPEN) as page:
        rng = random.Random(1_000)
        deeds, _, _ = deeds_of(page, rng)
        before, read = page.facts(), 0
        for _ in range(400):
            q, bent = forged(page, rng, deeds)
            if "framing" in bent:  # without a guard, the server waits for a body that never comes
                continue
            read += MARK.encode() in sent(page, q)
        after = page.facts()
    assert read > 60
    assert after[0]["answer"] + after[0]["remark"] > before[0]["answer"] + before[0]["remark"]
