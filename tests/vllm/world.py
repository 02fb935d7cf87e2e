"""A small model that counts words, a corpus of such words, and a pipeline over it; also run by vLLM's Python.

As a script: `world.py FOLDER SITE_PACKAGES...` runs the pipeline in FOLDER up to the filter with
`vllm-offline:` and prints what each text was answered, the folders given standing behind vLLM's own packages.
"""

import json
import sys
from pathlib import Path

WORDS = {"A": ["crash", "freeze"], "B": ["invoice", "refund"], "C": ["lovely", "thanks"]}
NAMES = ("bug", "billing", "praise")


def texts(n):
    """Text i speaks for class i % 3, every fifth also, less often, for the next."""
    rows = []
    for i in range(n):
        one, two = list(WORDS.values())[i % 3], list(WORDS.values())[(i + 1) % 3]
        words = [one[i % 2], one[i // 2 % 2], *([two[0]] if i % 5 == 0 else [])]
        rows.append(f"note {i}: it was {' and '.join(words)} for us")
    return rows


def write_corpus(home, n):
    rows = (json.dumps({"text": text}) + "\n" for text in texts(n))
    (home / "corpus.jsonl").write_text("".join(rows), encoding="utf-8")


def pipeline(model, *, prompt=None, **annotate):
    options = {"dtype": "float32", "max_model_len": 4096}
    asked = {
        "use": "llm",
        "model": model,
        "vllm": options,
        **({"prompt": prompt} if prompt else {}),
        **annotate,
    }
    return {
        "corpus": {"path": "corpus.jsonl"},
        "labels": {"names": list(NAMES)},
        "audit": {"size": 0},
        "rounds": {"max": 2, "size": 30},
        "embed": {"use": "hashing", "dim": 64},
        "select": {"first": "uniform", "then": "margin"},
        "annotate": asked,
        "filter": {"use": "confidence"},
        "train": {"rounds": "linear", "final": "linear"},
    }


def answers(folder):
    """Text -> status, label, probabilities, confidence and its kind, from the run's store."""
    from llmal.store import schema as t
    from llmal.store.store import open_store

    store = open_store(folder, write=False)
    try:
        (recipe,) = {
            row[0] for row in store.read(t.annotation.select().with_only_columns(t.annotation.c.recipe))
        }
        said = store.annotations(recipe)
        items = {item.seq: item.text for item in store.items(list(said))}
        return {items[s]: [a.status, list(a.labels), a.probs, a.confidence, a.kind] for s, a in said.items()}
    finally:
        store.close()


def main(home, *behind):
    sys.path += behind
    from llmal.runner import run
    from llmal.spec import Pipeline

    spec = pipeline(f"vllm-offline:{home}/model")
    run(Pipeline.model_validate(spec), Path(home) / "offline", home=home, until="filter")
    sys.stdout.write("\n" + json.dumps(answers(Path(home) / "offline")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
