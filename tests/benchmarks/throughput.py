"""Calls a second and CPU a call: llmal's door to a model against raw aiohttp, DSPy's engine and a loop.

    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py
    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py --delay 0.02 --only aiohttp llmal
    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py --parts
    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py --storm

The server, a process of its own, answers with the same bytes each time: 13 tokens of 20 or 5 candidates.
CPU: user and system seconds of the client process, its commit thread included; each contender has a
process of its own, warmed up on 300 calls; medians. aiohttp: JSON built and parsed, nothing kept. llmal: the
annotate stage, every call reserved durably before it is sent, its answer, cost and label in one commit.
unguarded: the same with `suspects: accept`. unbooked: unguarded with a ledger that writes nothing. dspy: its
own engine on 64 threads, nothing kept. loop: the openai client, one call at a time, each committed.

Measured 2026-11-21, two cores, 4,000 calls, medians of three runs (five of the first table); DSPy 3.4.1,
openai 2.54, aiohttp 3.14. CPU varies by a tenth from run to run.

                CPU ms/call  calls/CPU-s  calls/s  CPU to llmal's  wall to llmal's
  5 candidates, 5.2 kB an answer, no delay
    aiohttp           0.189         5286     5286            0.34             0.34
    llmal             0.555         1803     1794
    unguarded         0.502         1993     1994            0.90             0.90
    unbooked          0.356         2809     2806            0.64             0.64
    dspy              3.972          252      254            7.16             7.05
    loop              2.653          377      298            4.78             6.02
  20 candidates, 16.6 kB an answer, no delay
    aiohttp           0.365         2737     2669            0.53             0.54
    llmal             0.683         1464     1450
    unguarded         0.619         1615     1424            0.91             1.02
    unbooked          0.461         2169     2169            0.68             0.67
    dspy              6.072          165      155            8.89             9.37
    loop              3.988          251      185            5.84             7.84
  5 candidates, 20 ms delay
    aiohttp           0.221         4531     2653            0.39             0.47
    llmal             0.571         1750     1251
    unguarded         0.502         1990     1322            0.88             0.95
    unbooked          0.351         2845     2127            0.62             0.59
    loop, 75 calls    4.171          240       40            4.93            18.20

Goals. Reached: 4 times DSPy's engine (7.2 to 8.9 in CPU). At the edge: 2,000 calls a CPU-second with 5
candidates (1,803 here; 2,010 in another run of five). Not reached: 2,000 with 20 candidates, where aiohttp
alone makes 2,737; 20 times the loop (6 to 8 in wall at an instant server, 18 at 20 ms); 5 % for the ledger's
share of wall time at 20 ms (2,127 to 1,322 calls/s, a ratio of 1.61: the client's one thread is busy all the
time). Of 0.614 ms at 20 candidates: HTTP 0.147, reserve, settle and commit 0.126, reading the reply 0.096,
reading the answer 0.032, suspects 0.023, rendering 0.015, body and hash 0.015; event loop, stage and what
the parts cost each other 0.161.

Under 429s (second half of about 20 s, 64 in flight; refused: for each call served):

  allowed/s  Retry-After  delay ms  served/s  share  refused  most in 0.2 s over allowed
         20         none        20      19.9   0.99    0.016                        1.25
        100         none        20      99.9   1.00    0.003                        1.20
        100         none       500      99.8   1.00    0.004                        1.10
        400         none        50     398.6   1.00    0.003                        1.14
        100          1 s        20      73.8   0.74    0.005                        1.10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IN_FLIGHT = 64
WARM_UP = 300  # calls before the measured ones: imports, connections, caches
LABELS = {
    "bug": "something is broken, crashes or gives a wrong result",
    "billing": "invoices, refunds, prices and cards",
    "praise": "thanks, without anything to be done",
    "question": "how something is done, or whether it can be",
}
CONTENT = "[[ ## answer ## ]]\nB\n\n[[ ## completed ## ]]"
SPELLED = ["[[", " ##", " answer", " ##", " ]]", "\n", "B", "\n\n", "[[", " ##", " completed", " ##", " ]]"]


def text(i: int) -> str:
    return (
        f"Message {i}: since the update of last week the invoice page shows an amount that I never agreed "
        "to, and the app closes when I tap on it. Could you look into that, please? Thank you."
    )


# --- the server: a process of its own, its answer made once -------------------------------------------------


def completion(candidates: int) -> bytes:
    """A chat completion with log-probabilities, as OpenAI and vLLM write it."""

    def candidate(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    others = list("ACDEFGHIJabcdefghij")[: max(0, candidates - 1)]
    spelled = []
    for token in SPELLED:
        rest = [candidate(other, -2.8034158 - 0.71828182 * n) for n, other in enumerate(others)]
        top = [candidate(token, -0.10536051), *rest]
        spelled.append(candidate(token, -0.10536051) | {"top_logprobs": top})
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": CONTENT, "refusal": None},
        "logprobs": {"content": spelled, "refusal": None} if candidates else None,
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 350, "completion_tokens": len(SPELLED), "total_tokens": 350 + len(SPELLED)}
    body = {"id": "chatcmpl-0", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(body | {"usage": usage}).encode()


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Door(asyncio.Protocol):
    """One connection: answers each request with the same bytes, after a delay, or with 429 beyond a rate."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.unread = b""

    def connection_made(self, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.unread += data
        while (end := self.unread.find(b"\r\n\r\n")) >= 0:
            head = self.unread[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.unread) < end + 4 + size:
                return
            self.unread = self.unread[end + 4 + size :]
            self.answer(head.startswith(b"post"), head.split(b" ", 2)[1])

    def answer(self, post: bool, path: bytes) -> None:
        server = self.server
        if not post:
            body = b'{"data": []}' if path.endswith(b"/models") else json.dumps(server.log).encode()
            self.transport.write(http(body))
        elif server.rate and not server.allowed():
            self.transport.write(server.refused)
        elif server.delay:
            asyncio.get_running_loop().call_later(server.delay, self.transport.write, server.good)
        else:
            self.transport.write(server.good)


class Server:
    """What every connection shares: the answer, the delay, and a token bucket with its log of arrivals."""

    def __init__(self, candidates: int, delay: float, rate: float, retry_after: str) -> None:
        self.good = http(completion(candidates))
        refusal = b'{"error": {"message": "slow down", "type": "rate_limit_error"}}'
        more = f"Retry-After: {retry_after}\r\n" if retry_after else ""
        self.refused = http(refusal, "429 Too Many Requests", more)
        self.delay, self.rate = delay, rate
        self.level, self.at = rate / 10, time.monotonic()  # a tenth of a second's worth may be saved up
        self.log: list[tuple[float, bool]] = []

    def allowed(self) -> bool:
        now = time.monotonic()
        self.level = min(self.rate / 10, self.level + (now - self.at) * self.rate)
        self.at = now
        good = self.level >= 1
        self.level -= good
        self.log.append((now, good))
        return good


def serve(candidates: int, delay: float, rate: float, retry_after: str) -> None:
    async def main() -> None:
        shared = Server(candidates, delay, rate, retry_after)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Door(shared), "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)  # until our parent goes

    asyncio.run(main())


@contextmanager
def served(candidates: int, delay: float = 0.0, rate: float = 0.0, retry_after: str = "") -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", json.dumps([candidates, delay, rate, retry_after])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.stdin.close()
        process.wait(10)


# --- the contenders: each measured in a process of its own --------------------------------------------------


def frame_and_schema() -> tuple[Any, Any]:
    from llmal.prompts.file import load_prompt
    from llmal.prompts.frame import render
    from llmal.records import Label, LabelSchema

    labels = tuple(Label(name=name, description=words) for name, words in LABELS.items())
    schema = LabelSchema("single", labels, abstain=True)
    return render(load_prompt(), schema), schema


def questions(start: int, n: int) -> list[list[dict[str, str]]]:
    """The messages that llmal sends, for peers that have no prompt of their own."""
    from llmal.records import Item

    frame, _ = frame_and_schema()
    return [frame.messages(Item(i, f"k{i}", text(i)), b"secret") for i in range(start, start + n)]


OPTIONS = {"max_tokens": 64, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}


def with_aiohttp(url: str, scratch: Path) -> Callable[[int, int], None]:
    """The floor: the body built as JSON, the answer read and parsed as JSON, nothing kept."""
    import aiohttp

    async def ask(start: int, n: int) -> None:
        bodies = iter([{"model": "m", "messages": m, **OPTIONS} for m in questions(start, n)])
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                for body in bodies:
                    async with session.post(url + "/chat/completions", json=body) as answer:
                        assert json.loads(await answer.read())["choices"]

            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    return lambda start, n: asyncio.run(ask(start, n))


def with_llmal(url: str, scratch: Path, *, check: bool = True, **more: Any) -> Callable[[int, int], None]:
    """The annotate stage with the llm annotator: rendered, hashed, reserved, sent, settled, read, kept."""
    from llmal.annotate import stage
    from llmal.annotate.llm import Llm
    from llmal.context import Context
    from llmal.corpus import Row
    from llmal.store import schema as t
    from llmal.store.ledger import Caps, bill
    from llmal.store.store import open_store

    _, schema = frame_and_schema()
    store = open_store(scratch / "run")
    llm = Llm(model="m", base_url=url, in_flight=IN_FLIGHT, price={"input": 0.15, "output": 0.6}, **more)
    ctx = Context(scratch / "run", home=scratch)
    rows = (Row(i, str(i), text(i), None, (), "") for i in range(100_000))
    store.put_corpus("c", "d", rows, lambda words: f"key of {words}"[:24])

    def ask(start: int, n: int) -> None:
        wanted = list(range(start, start + n))
        stage.run(llm, store, ctx, schema=schema, caps=Caps(10**15), wanted=wanted, vectors="")
        if check:
            done = start + n
            assert store.count(t.annotation, t.annotation.c.kind == "logprobs") == done
            assert (
                store.count(t.outcome, t.outcome.c.exact == 1) == bill(store).calls == done + 1
            )  # the probe

    return ask


def with_dspy(url: str, scratch: Path) -> Callable[[int, int], None]:
    """DSPy's own engine over threads, its cache and history off; it keeps nothing."""
    from llmal.prompts.file import load_prompt
    from llmal.prompts.program import dspy, signature

    d = dspy()
    _, schema = frame_and_schema()
    lm = d.LM("openai/m", api_base=url, api_key="x", cache=False, num_retries=0, **OPTIONS)
    d.configure(lm=lm, disable_history=True, max_trace_size=0)
    predict = d.Predict(signature(load_prompt(), schema))
    threads = d.Parallel(num_threads=IN_FLIGHT, disable_progress_bar=True)

    def ask(start: int, n: int) -> None:
        examples = [d.Example(text=text(i)).with_inputs("text") for i in range(start, start + n)]
        assert all(p.answer == "B" for p in threads([(predict, example) for example in examples]))

    return ask


def with_loop(url: str, scratch: Path) -> Callable[[int, int], None]:
    """What is written first: the openai client, one call at a time, every answer committed to SQLite."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
    db = sqlite3.connect(scratch / "answers.sqlite")
    db.execute("CREATE TABLE answer (item INTEGER PRIMARY KEY, label TEXT, raw TEXT)")

    def ask(start: int, n: int) -> None:
        for i, messages in enumerate(questions(start, n), start):
            answer = client.chat.completions.create(model="m", messages=messages, **OPTIONS)
            label = answer.choices[0].message.content.split("\n")[1]
            db.execute("INSERT INTO answer VALUES (?, ?, ?)", (i, label, answer.model_dump_json()))
            db.commit()

    return ask


def unguarded(url: str, scratch: Path) -> Callable[[int, int], None]:
    """llmal without its look at each text for words to the annotator."""
    return with_llmal(url, scratch, suspects="accept")


def unbooked(url: str, scratch: Path) -> Callable[[int, int], None]:
    """The same with a ledger that writes nothing: `unguarded` less this is the price of being durable."""
    from llmal.store import ledger

    def append(_: Any, __: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    ledger._Journal.append = append  # type: ignore[method-assign]
    return with_llmal(url, scratch, check=False, suspects="accept")


def stormed(url: str, scratch: Path) -> Callable[[int, int], None]:
    """llmal where calls are refused: more calls than answers."""
    return with_llmal(url, scratch, check=False)


CONTENDERS = {
    "aiohttp": with_aiohttp,
    "llmal": with_llmal,
    "unguarded": unguarded,
    "unbooked": unbooked,
    "stormed": stormed,
    "dspy": with_dspy,
    "loop": with_loop,
}
USUAL = [name for name in CONTENDERS if name != "stormed"]
SLOW = {"dspy": 4, "loop": 4}  # asked this many times fewer calls


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one(name: str, url: str, calls: int, warm_up: int = WARM_UP) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        ask = CONTENDERS[name](url, Path(scratch))
        if warm_up:
            ask(0, warm_up)
        before, started = cpu(), time.perf_counter()
        ask(warm_up, calls)
        return {"cpu": (cpu() - before) / calls, "wall": (time.perf_counter() - started) / calls}


def child(task: list[Any]) -> Any:
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(task)], stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(names: list[str], calls: int, repeats: int, candidates: int, delay: float) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with served(candidates, delay) as url:
        for _ in range(repeats):
            for name in names:
                found[name].append(child([name, url, calls // SLOW.get(name, 1)]))
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("cpu", "wall")}
        for name, runs in found.items()
    }
    ours = middle.get("llmal", middle[names[0]])
    print(
        f"{len(completion(candidates))} bytes an answer, {candidates} candidates a token, "
        f"{delay * 1000:g} ms delay"
    )
    print("client    CPU ms/call  calls/CPU-s  calls/s   CPU to llmal's  wall to llmal's  CPU ms of each run")
    for name, got in middle.items():
        each = " ".join(f"{1000 * run['cpu']:.3f}" for run in found[name])
        print(
            f"{name:<9} {1000 * got['cpu']:11.3f} {1 / got['cpu']:12.0f} {1 / got['wall']:8.0f} "
            f"{got['cpu'] / ours['cpu']:16.2f} {got['wall'] / ours['wall']:16.2f}  {each}"
        )


# --- where llmal's share goes, and what it does under 429s --------------------------------------------------


def parts(url: str, candidates: int, calls: int) -> dict[str, float]:
    """CPU seconds a call of each part by itself; what is left of the whole is the loop's and the stage's."""
    from llmal.annotate.reading import annotation_of
    from llmal.lm.endpoint import Endpoint
    from llmal.lm.http import Http
    from llmal.lm.wire import Reply, Request, read_reply
    from llmal.prompts.file import load_prompt
    from llmal.prompts.program import signature
    from llmal.prompts.suspicion import suspicion
    from llmal.records import Item
    from llmal.store import schema as t
    from llmal.store.ledger import Caps, Ledger, Settled
    from llmal.store.store import annotation_rows, open_store

    frame, schema = frame_and_schema()
    sign = signature(load_prompt(), schema, strict=False)
    raw = completion(candidates).decode()
    reply = read_reply(raw, "h")
    assert isinstance(reply, Reply)
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[int], Any]) -> list[Any]:
        work(0)
        before = cpu()
        made = [work(i) for i in range(calls)]
        found[name] = (cpu() - before) / calls
        return made

    asked = timed("render", lambda i: frame.messages(Item(i, f"k{i}", text(i)), b"secret"))
    requests = [Request("annotate", "m", messages, OPTIONS, i, "p") for i, messages in enumerate(asked)]
    rows = timed("body and hash", lambda i: requests[i].row())
    timed("read the reply", lambda i: len(read_reply(raw, "h")))
    read = timed("read the answer", lambda i: annotation_of(i, reply, sign, schema))
    timed("look for suspects", lambda i: suspicion(text(i), schema))

    async def booked(ledger: Ledger) -> None:
        turns = iter(range(calls))

        async def work() -> None:
            for i in turns:
                held = await ledger.reserve(rows[i], 1, 100)
                answer = {"request": rows[i]["hash"], "attempt": held.attempt, "raw": raw, "model": "m"}
                facts = [(t.response, [answer]), (t.annotation, annotation_rows("r", [read[i]]))]
                await ledger.settle(held, Settled("ok", 30, True, 0.1, 200, "", 10, 2), facts)

        before = cpu()
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        found["reserve, settle, commit"] = (cpu() - before) / calls
        ledger.close()

    async def sent() -> None:
        line = Http(Endpoint(base_url=url))
        await line.open()
        before, turns = 0.0, iter([])

        async def work() -> None:
            for i in turns:
                await line.send(requests[i], "h")

        for n in (WARM_UP, calls):
            before, turns = cpu(), iter(range(n))
            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        found["HTTP"] = (cpu() - before) / calls - found["read the reply"]
        await line.close()

    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(booked(Ledger(open_store(Path(scratch) / "run"), Caps())))
    asyncio.run(sent())
    return found


def show_parts(calls: int, candidates: int) -> None:
    with served(candidates) as url:
        whole = child(["llmal", url, calls])["cpu"]
        found = child(["parts", url, candidates, calls])
    found["event loop, stage, rest"] = whole - sum(found.values())
    for name, each in sorted(found.items(), key=lambda pair: -pair[1]):
        print(f"{name:<24} {1000 * each:7.3f} ms CPU a call  {each / whole:5.0%}")
    print(f"{'whole':<24} {1000 * whole:7.3f}")


def storm(seconds: float) -> None:
    """Calls served a second of those allowed, in the second half; refusals for each call served."""
    import urllib.request

    print("allowed/s  Retry-After  delay ms  served/s  share  refused a served  most in 0.2 s over allowed")
    for rate, retry_after, delay in (
        (20, "", 0.02),
        (100, "", 0.02),
        (100, "", 0.5),
        (400, "", 0.05),
        (100, "1", 0.02),
    ):
        with served(5, delay, float(rate), retry_after) as url:
            child(["stormed", url, int(rate * seconds), 0])
            with urllib.request.urlopen(url + "/log", timeout=10) as answer:
                log = json.load(answer)
        first, last = log[0][0], log[-1][0]
        late = [(at, good) for at, good in log if (first + last) / 2 <= at <= last - 1]
        span = late[-1][0] - late[0][0]
        good = sum(fine for _, fine in late)
        slots: dict[int, int] = {}
        for at, _ in late:
            slots[int(at / 0.2)] = slots.get(int(at / 0.2), 0) + 1
        print(
            f"{rate:9} {retry_after or 'none':>12} {1000 * delay:9.0f} {good / span:9.1f} "
            f"{good / span / rate:6.2f} "
            f"{(len(late) - good) / good:17.3f} {max(slots.values()) / (0.2 * rate):28.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=20, help="log-probabilities a token, 0: none")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds the server takes")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=USUAL)
    parser.add_argument("--parts", action="store_true", help="where llmal's CPU goes")
    parser.add_argument("--storm", action="store_true", help="calls served under 429s")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*json.loads(options.serve))
    elif options.one:
        task = json.loads(options.one)
        print(json.dumps(parts(*task[1:]) if task[0] == "parts" else one(*task)))
    elif options.parts:
        show_parts(options.calls, options.candidates)
    elif options.storm:
        storm(seconds=20)
    else:
        compare(options.only, options.calls, options.repeats, options.candidates, options.delay)


if __name__ == "__main__":
    main()
