"""The model card: a YAML head that hubs read, then what a person should know before using the classifier."""

from __future__ import annotations

import json
import re
from typing import Any

from llmal.corpus import shown
from llmal.export.stage import Parcel

METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "micro_f1": "f1"}
"""The student's measures that go into the head -> their names on hubs."""

PLAIN = """from transformers import pipeline

classify = pipeline("text-classification", "FOLDER", truncation=True{multi})
classify("a text")"""

HEAD = """from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("FOLDER/encoder").encode(["a text"], normalize_embeddings=True)
head = load_file("FOLDER/head.safetensors")
scores = vectors @ head["coef"].T + head["bias"]  # one column a label; {link} makes them probabilities"""


def card(parcel: Parcel) -> str:
    """The whole card of an export. Texts of the corpus never enter."""
    return "\n".join(["---", *_head(parcel), "---", "", "# Text classifier", "", *_body(parcel)])


def _head(parcel: Parcel) -> list[str]:
    """YAML, each value as JSON, which YAML reads: a label named `no` or `a: b` stays what it is."""
    facts, library = parcel.facts, "sentence-transformers" if parcel.headed else "transformers"
    library = "sklearn" if parcel.kind == "estimator" else library
    found = {name.removeprefix("student."): m for name, m in facts.get("measures", {}).items()}
    found = {name: m for name, m in found.items() if name in METRICS and m["value"] is not None}
    head: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "text-classification",
        "base_model": facts.get("base"),
        "tags": ["llmal", "text-classification"],
        "metrics": sorted({METRICS[name] for name in found}),
        "model-index": [_index(found)] if found else None,
    }
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items() if value]


def _index(measures: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "text classifier",
        "results": [
            {
                "task": {"type": "text-classification"},
                "dataset": {
                    "type": "audit-sample",
                    "name": "random sample of the corpus, answered by people",
                },
                "metrics": [
                    {
                        "type": METRICS[name],
                        "value": round(m["value"], 4),
                        "name": f"{name} (95 % interval {m['low']:.3f} to {m['high']:.3f}, n = {m['n']})",
                    }
                    for name, m in measures.items()
                ],
            }
        ],
    }


def _body(parcel: Parcel) -> list[str]:
    facts, kind = parcel.facts, parcel.schema.kind
    how = {"single": "one label a text", "multi": "any number of labels a text"}[kind]
    used = (
        HEAD.format(link="softmax" if kind == "single" else "sigmoid")
        if parcel.headed
        else PLAIN.format(multi=', top_k=None, function_to_apply="sigmoid"' if kind == "multi" else "")
    )
    lines = [f"Made by llmal {facts['llmal']}: a `{parcel.kind}` student, {how}.", ""]
    lines += ["```python", "import llmal", "", 'llmal.load("FOLDER").predict(["a text"])', "```", ""]
    if parcel.kind == "finetune" or (parcel.headed and parcel.encoder.name == "sentence"):
        lines += ["Without llmal:", "", "```python", *used.split("\n"), "```", ""]
    lines += ["## Labels", ""]
    lines += [f"- `{_code(label.name)}`" + (f": {_line(label.description)}" if label.description else "")
              for label in parcel.schema.labels]  # fmt: skip
    return [
        *lines,
        "",
        *_measured(facts.get("measures", {})),
        "",
        *_certified(facts.get("certificate")),
        *_limits(parcel),
        "",
    ]


def _measured(measures: dict[str, Any]) -> list[str]:
    if not measures:
        return ["## Measured", "", "Nothing: no answers of people were known when this was exported."]
    rows = [f"| {_line(n)} | {m['value']:.3f} | {m['low']:.3f} to {m['high']:.3f} | {m['n']} |"
            for n, m in measures.items() if None not in (m["value"], m["low"], m["high"])]  # fmt: skip
    told = "On a random sample of the corpus reserved for measuring, against people's answers."
    return [
        "## Measured",
        "",
        "| measure | value | 95 % interval | n |",
        "|---|---|---|---|",
        *rows,
        "",
        told,
    ]


def _certified(certificate: dict[str, Any] | None) -> list[str]:
    """What was promised, in words; nothing where nothing was."""
    return ["## Certificate", "", _line(certificate["words"]), ""] if certificate else []


def _limits(parcel: Parcel) -> list[str]:
    facts = parcel.facts
    lines = [
        "## Limits",
        "",
        f"- Learnt from {facts['trained_on']} labelled texts ({_sources(facts['sources'])}); "
        f"data hash `{facts['data']}`.",
        "- The measures hold for texts like those of that corpus; on others, measure again.",
        "- Probabilities are the student's own and are not calibrated.",
    ]
    if parcel.max_length:
        lines.append(f"- Of a text it reads {parcel.max_length} tokens at most.")
    if versions := facts.get("versions"):
        made = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        lines.append(f"- Made with {made}.")
    return lines


def _sources(counts: dict[str, int]) -> str:
    whence = {"human": "from people", "synthetic": "synthetic, written by a model for this student"}
    return ", ".join(f"{n} {whence.get(s, 'from a machine annotator')}" for s, n in sorted(counts.items()))


def _line(text: str) -> str:
    """One line of Markdown that stays text: no bars, tags, line breaks, pictures or bracketed links."""
    words = _seen(text).replace("`", "'").replace("<", "&lt;")
    return re.sub(r"[\\|\[\]*_]", r"\\\g<0>", words)


def _code(text: str) -> str:
    """What stands between backticks in a list: nothing in it is markup but a backtick."""
    return _seen(text).replace("`", "'")


def _seen(text: str) -> str:
    """In one line, without marks that turn or hide what follows."""
    return shown(" ".join(text.split()), limit=max(1, len(text)))
