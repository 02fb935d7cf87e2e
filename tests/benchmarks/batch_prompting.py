"""Tokens of several texts a prompt against one text a prompt, with the shipped prompt and a long codebook.

    python tests/benchmarks/batch_prompting.py

Every text of a sample is asked about through the annotator over HTTP, 1 to 10 texts a prompt; the tokens
are those the server bills (it counts four characters a token). The codebook is the set's labels with real
examples, filled up to about 1,000 tokens. `ratio` is against one text a prompt. Every answer is compared with
the text's own label, and the script stops where one landed on another text. `careless` is the ratio where the
model leaves out an id in every tenth prompt, whose texts are then asked about one by one.

Needs the shared data sets beside the project.

Measured 2026-11-21, 300 texts a set:

| set | codebook tokens | texts a prompt | tokens in | tokens out | ratio | careless |
|---|---|---|---|---|---|---|
| trec | 1206 | 1 | 504,099 | 3,311 | 1.000 | 1.000 (0 alone) |
| trec | 1206 | 2 | 252,574 | 2,711 | 0.503 | 0.603 (30 alone) |
| trec | 1206 | 3 | 170,583 | 2,112 | 0.340 | 0.440 (30 alone) |
| trec | 1206 | 4 | 129,584 | 1,811 | 0.259 | 0.352 (28 alone) |
| trec | 1206 | 6 | 88,590 | 1,562 | 0.178 | 0.278 (30 alone) |
| trec | 1206 | 10 | 55,789 | 1,331 | 0.113 | 0.213 (30 alone) |
| babe | 1069 | 1 | 439,116 | 3,311 | 1.000 | 1.000 (0 alone) |
| babe | 1069 | 2 | 227,474 | 2,711 | 0.520 | 0.620 (30 alone) |
| babe | 1069 | 3 | 157,473 | 2,112 | 0.361 | 0.461 (30 alone) |
| babe | 1069 | 4 | 122,480 | 1,811 | 0.281 | 0.374 (28 alone) |
| babe | 1069 | 6 | 87,489 | 1,561 | 0.201 | 0.301 (30 alone) |
| babe | 1069 | 10 | 59,490 | 1,331 | 0.137 | 0.237 (30 alone) |
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llmal.context import Context
from llmal.prompts.codes import codebook
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.ledger import bill
from llmal.store.store import open_store
from llmal.testing.fakelm import FakeLM
from llmal.testing.forms import answerer

SHARED = Path(os.environ.get("LLMAL_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"

CODEBOOK_CHARS = 4000
"""About 1,000 tokens at four characters each."""

SIZES = (1, 2, 3, 4, 6, 10)


def table(name: str) -> tuple[list[str], list[str]]:
    """Texts and labels of a set's training split, each text once."""
    rows = pq.read_table(SHARED / name / "examples.parquet").to_pylist()
    found = {row["text"]: row["label"] for row in rows if row["split"] == "train"}
    return list(found), list(found.values())


def labels_with_examples(texts: list[str], labels: list[str]) -> dict[str, Any]:
    """The labels, each with as many examples as fill the codebook up evenly."""
    names = sorted(set(labels))
    by_label = {n: [x for x, y in zip(texts, labels, strict=True) if y == n] for n in names}
    found: dict[str, Any] = {n: {"description": f"texts about {n}", "examples": []} for n in names}
    for place in range(200):
        for n in names:
            if len(json.dumps(found)) > CODEBOOK_CHARS:
                return found
            found[n]["examples"] += by_label[n][place : place + 1]
    return found


def tokens(name: str, n: int, batch: int, *, careless: bool = False) -> tuple[int, int, int]:
    """Tokens in and out that the server bills for n texts, and the prompts that were asked one by one."""
    texts, labels = table(name)
    said = dict(zip(texts, labels, strict=True))
    book = labels_with_examples(texts[1000:], labels[1000:])
    spoil = (lambda ask, members: members[1:] if ask.number % 10 == 0 else members) if careless else None
    with tempfile.TemporaryDirectory() as folder, FakeLM(answerer(said.__getitem__, spoil=spoil)) as server:
        home = Path(folder)
        rows = "".join(json.dumps({"text": x}) + "\n" for x in texts[:n])
        (home / "corpus.jsonl").write_text(rows, encoding="utf-8")
        pipeline = Pipeline.model_validate(
            {
                "corpus": {"path": "corpus.jsonl"},
                "labels": {"names": book},
                "audit": {"size": 0},
                "rounds": {"max": 1, "size": n},
                "embed": {"use": "hashing", "dim": 64},
                "select": "uniform",
                "annotate": {"use": "llm", "model": "fake-lm", "base_url": server.base_url, "price": "local",
                             "batch": batch},
            }
        )  # fmt: skip
        run(pipeline, home / "run", home=home, until="annotate")
        store = open_store(home / "run", write=False)
        try:
            right = sum(
                a.labels == (said[store.items([s])[0].text],)
                for s, a in store.annotations(
                    pipeline.annotate.recipe_for(
                        pipeline.label_schema(), Context(home / "run", home=home), ""
                    )
                ).items()
            )
            if right != len(store.active()):
                sys.exit(f"{len(store.active()) - right} answers landed on a wrong item")
            asked = t.request.c
            several = store.count(t.request, asked.several.is_not(None))
            alone = store.count(t.request, asked.purpose == "annotate") - several
            spent = bill(store)
            return spent.tokens_in, spent.tokens_out, alone if batch > 1 else 0
        finally:
            store.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=300)
    args = parser.parse_args()
    print("| set | codebook tokens | texts a prompt | tokens in | tokens out | ratio | careless |")
    print("|---|---|---|---|---|---|---|")
    for name in ("trec", "babe"):
        texts, labels = table(name)
        schema = Pipeline.model_validate(
            {"corpus": {"path": "x"}, "labels": {"names": labels_with_examples(texts[1000:], labels[1000:])}}
        ).label_schema()
        single = 0
        for batch in SIZES:
            given, made, _ = tokens(name, args.texts, batch)
            single = single or given + made
            worse, more, alone = (
                tokens(name, args.texts, batch, careless=True) if batch > 1 else (given, made, 0)
            )
            print(
                f"| {name} | {len(codebook(schema)) // 4} | {batch} | {given:,} | {made:,} "
                f"| {(given + made) / single:.3f} | {(worse + more) / single:.3f} ({alone} alone) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
