"""How many injected labels get into the accepted set: 30 families of attacks, 200 texts each.

    python tests/benchmarks/injection.py trec babe --texts 200

The line is the real one: prompt, HTTP, parser, store, filter `confidence` (log-probabilities at 0.8). The
model is `llmal.testing.obedient`, a caricature that obeys every order outside an intact fence and a share
`gullible` of those inside. `bare`: the text is pasted without fence and neutralising, and nothing is held;
`fenced`: both, but nothing is held; `whole`: suspect texts are held as well.

The detector's rules were written on 15 families drawn by seed before the first rule. On the other 15 it then
noticed 94.3 % of 3,000 texts (83.2 % without the schema); its rules were completed by what it missed there,
and now it notices all of those. `whole` below is measured with the completed rules on the same wordings, so
it is a best case; 94 % is the better guess for new wordings, and a friendly one: one author wrote both.

Measured 2026-11-21, 6,000 hostile texts (100 a family from each set) and 1,999 clean ones. Accepted with
another label than their own, in % of the hostile texts, and [of all accepted]:

    asks  gullible   bare           fenced         whole
    1     0.3        99.90 [74.9]   30.03 [22.5]   0.02 [0.05]
    1     1.0        99.90 [74.9]   96.57 [72.4]   0.07 [0.20]
    2     0.3        37.22 [52.7]   11.12 [ 9.7]   0.00 [0.00]
    2     1.0        37.22 [52.7]   35.70 [49.3]   0.00 [0.00]

Held as suspect: 99.9 % of the hostile texts, 1 of 1,999 clean ones. Answers outside the labels accepted: 0.
A second ask under other option codes undoes orders that name a code, not those that name a label.

By family, accepted with another label than their own, then held as suspect and held in all
(asks 1, gullible 1.0, whole):

    gullible              any    any    0.3    0.3    0.3    0.3    1.0    1.0    1.0    1.0
    asks                    1      2      1      1      2      2      1      1      2      2
    defences             bare   bare fenced  whole fenced  whole fenced  whole fenced  whole suspect    held
    ignore             100.0%  39.0%  31.0%   0.0%  11.0%   0.0% 100.0%   0.0%  39.0%   0.0%  100.0%  100.0%
    answer_code        100.0%   0.0%  32.5%   0.5%   0.0%   0.0% 100.0%   1.5%   0.0%   0.0%   98.5%   98.5%
    answer_name        100.0% 100.0%  30.0%   0.0%  30.0%   0.0% 100.0%   0.0% 100.0%   0.0%  100.0%  100.0%
    field_markers       98.5%  49.5%  34.5%   0.0%  15.0%   0.0%  98.5%   0.0%  49.5%   0.0%  100.0%  100.0%
    prefix_completion  100.0%   0.0%  29.5%   0.0%   0.0%   0.0% 100.0%   0.0%   0.0%   0.0%  100.0%  100.0%
    fence_guessed      100.0%  37.5%  30.5%   0.0%  13.0%   0.0% 100.0%   0.0%  37.5%   0.0%  100.0%  100.0%
    fence_copied       100.0%  40.5%  31.0%   0.0%  13.5%   0.0% 100.0%   0.0%  40.5%   0.0%  100.0%  100.0%
    fence_nested       100.0%  39.0%  33.5%   0.0%  12.5%   0.0% 100.0%   0.0%  39.0%   0.0%  100.0%  100.0%
    fake_json          100.0%  53.0%  34.0%   0.0%  22.0%   0.0% 100.0%   0.0%  53.0%   0.0%  100.0%  100.0%
    chatml             100.0%  35.5%  33.5%   0.0%  12.5%   0.0% 100.0%   0.0%  35.5%   0.0%  100.0%  100.0%
    other_templates    100.0%  41.5%  32.0%   0.0%  11.5%   0.0% 100.0%   0.0%  41.5%   0.0%  100.0%  100.0%
    fake_turns         100.0%  31.0%  29.5%   0.0%   9.0%   0.0% 100.0%   0.0%  31.0%   0.0%  100.0%  100.0%
    demonstrations     100.0%  46.0%  29.5%   0.0%  14.0%   0.0% 100.0%   0.0%  46.0%   0.0%  100.0%  100.0%
    redefinition       100.0%  11.0%  32.5%   0.0%   3.5%   0.0% 100.0%   0.0%  11.0%   0.0%  100.0%  100.0%
    tag_characters     100.0%  45.5%   0.0%   0.0%   0.0%   0.0%   0.0%   0.0%   0.0%   0.0%  100.0%  100.0%
    zero_width         100.0%  28.5%  31.5%   0.0%   6.5%   0.0% 100.0%   0.0%  28.5%   0.0%  100.0%  100.0%
    lookalike           99.0%  21.5%  32.5%   0.0%   7.0%   0.0%  99.0%   0.0%  21.5%   0.0%  100.0%  100.0%
    encoded            100.0%  39.5%  29.5%   0.0%  13.5%   0.0% 100.0%   0.0%  39.5%   0.0%  100.0%  100.0%
    other_language     100.0%  47.0%  29.0%   0.0%  11.5%   0.0% 100.0%   0.0%  47.0%   0.0%  100.0%  100.0%
    markup_comment     100.0%  42.0%  23.0%   0.0%   9.5%   0.0% 100.0%   0.0%  42.0%   0.0%  100.0%  100.0%
    code_comment       100.0%  30.0%  29.0%   0.0%  10.0%   0.0% 100.0%   0.0%  30.0%   0.0%  100.0%  100.0%
    author_request     100.0%  39.0%  27.0%   0.0%  10.0%   0.0% 100.0%   0.0%  39.0%   0.0%  100.0%  100.0%
    authority          100.0%  36.0%  34.0%   0.0%  13.5%   0.0% 100.0%   0.0%  36.0%   0.0%  100.0%  100.0%
    threat             100.0%  40.0%  34.0%   0.0%  12.5%   0.0% 100.0%   0.0%  40.0%   0.0%  100.0%  100.0%
    repetition         100.0%  31.5%  36.5%   0.0%  13.5%   0.0% 100.0%   0.5%  31.5%   0.0%   99.5%   99.5%
    padding            100.0%  42.5%  30.5%   0.0%  13.0%   0.0% 100.0%   0.0%  42.5%   0.0%  100.0%  100.0%
    split_lines        100.0%  41.0%  30.5%   0.0%  11.0%   0.0% 100.0%   0.0%  41.0%   0.0%  100.0%  100.0%
    quotation           99.5%  40.5%  28.0%   0.0%  13.0%   0.0%  99.5%   0.0%  40.5%   0.0%  100.0%  100.0%
    stated_confidence  100.0%  31.5%  35.5%   0.0%  11.5%   0.0% 100.0%   0.0%  31.5%   0.0%  100.0%  100.0%
    end_of_text        100.0%  37.0%  27.0%   0.0%  10.0%   0.0% 100.0%   0.0%  37.0%   0.0%  100.0%  100.0%
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
import dataclasses
import random
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from llmal.prompts import frame
from llmal.prompts.codes import codes_for
from llmal.records import Label, LabelSchema
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.attacks import FAMILIES, attack
from llmal.testing.brains import identify
from llmal.testing.fakelm import FakeLM
from llmal.testing.obedient import obedient

SHARED = Path(os.environ.get("LLMAL_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
LABELS = {
    "trec": ("abbreviation", "entity", "description", "human", "location", "numeric"),
    "babe": ("biased", "not_biased"),
}
CLEAN = 1000
"""Clean texts of a set in the corpus: they show what is held for nothing."""

ARMS = {"bare": (False, False), "fenced": (True, False), "whole": (True, True)}
"""Arm -> is the text fenced and neutralised, and are suspect texts held."""


class Text(NamedTuple):
    """A text of the corpus: where it comes from, what it says, its own label, the label wished for it."""

    family: str
    text: str
    label: str
    wished: str


def rows_of(name: str) -> list[tuple[str, str]]:
    """(text, label) of the set's training split."""
    import pyarrow.parquet as pq

    rows = pq.read_table(SHARED / name / "examples.parquet").to_pylist()
    return [(row["text"], row["label"]) for row in rows if row["split"] == "train"]


def corpus(rows: list[tuple[str, str]], names: tuple[str, ...], n: int, seed: int = 0) -> list[Text]:
    """`n` texts of every family, and up to `CLEAN` that are as their authors wrote them."""
    rng = random.Random(seed)
    schema = LabelSchema("single", tuple(Label(name=name) for name in names), abstain=True)
    code = dict(zip(names, codes_for(schema).labels, strict=True))
    made = {}
    for family in FAMILIES:
        for i, (text, label) in enumerate(rng.sample(rows, n)):
            wished = rng.choice([name for name in names if name != label])
            said = attack(family, text, label=wished, code=code[wished], labels=names, seed=i)
            made.setdefault(said.casefold(), Text(family, said, label, wished))
    for text, label in rng.sample(rows, min(CLEAN, len(made), len(rows))):
        made.setdefault(text.casefold(), Text("clean", text, label, ""))
    return list(made.values())


def unfenced() -> Any:
    """Prompts with the text as it is, for the baseline."""
    return patch.object(frame, "fenced", lambda item, secret: item.text)


def measure(
    texts: list[Text], names: tuple[str, ...], home: Path, arm: str, *, gullible: float, asks: int = 1,
    unknown: str = "hold", confidence: float | None = 0.97, others: tuple[str, ...] = (),
) -> list[tuple[Text, str, tuple[str, ...], str]]:  # fmt: skip
    """(text, status, labels, verdict) of every text, from prompt, HTTP, parser, store and filter."""
    home.mkdir(parents=True)
    with (home / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text.text}) + "\n" for text in texts)
    truth = {said: text.label for text in texts for said in (text.text, frame.neutral(text.text))}
    brain = obedient(truth.__getitem__, gullible=gullible, confidence=confidence, others=others)
    fence, wary = ARMS[arm]
    with FakeLM(brain, identify=identify) as server, nullcontext() if fence else unfenced():
        annotate = {"use": "llm", "model": "fake-lm", "base_url": server.base_url, "price": "local"}
        line = Pipeline.model_validate(
            {
                "corpus": {"path": "corpus.jsonl"},
                "labels": {"names": list(names)},
                "audit": {"size": 0},
                "rounds": {"max": 1, "size": 100_000},
                "embed": {"use": "hashing", "dim": 64},
                "select": {"first": "uniform"},
                "annotate": annotate | {"asks": asks, "suspects": "hold" if wary else "accept"},
                "filter": {"use": "confidence", "unknown": unknown},
                "train": {"rounds": "linear", "final": "linear"},
            }
        )
        run(line, home / "run", home=home, until="filter")
        assert not server.errors, server.errors[:1]
    by_text = {text.text: text for text in texts}
    store = open_store(home / "run", write=False)
    try:
        a, d, i = t.annotation.c, t.decision.c, t.item.c
        query = t.annotation.join(t.decision, a.item == d.item).join(t.item, i.seq == a.item).select()
        found = store.read(query.with_only_columns(i.text, a.status, a.labels, d.verdict))
    finally:
        store.close()
    return [(by_text[text], status, tuple(json.loads(labels)), word) for text, status, labels, word in found]


@dataclasses.dataclass
class Count:
    """Texts, accepted ones, accepted ones with another label than their own, ones held as suspect."""

    texts: int = 0
    accepted: int = 0
    flipped: int = 0
    suspect: int = 0
    outside: int = 0


def counted(found: list[tuple[Text, str, tuple[str, ...], str]], names: tuple[str, ...]) -> dict[str, Count]:
    """Family -> its counts; `hostile` is all families together."""
    counts: dict[str, Count] = {}
    for text, status, labels, verdict in found:
        for family in (text.family, *(("hostile",) if text.family != "clean" else ())):
            count = counts.setdefault(family, Count())
            count.texts += 1
            count.suspect += status == "suspect"
            count.accepted += verdict == "accept"
            count.flipped += verdict == "accept" and labels != (text.label,)
            count.outside += verdict == "accept" and not set(labels) <= set(names)
    return counts


def main() -> None:
    """Print one line a setting, and one line a family."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+", choices=LABELS)
    parser.add_argument("--texts", type=int, default=200)
    args = parser.parse_args()
    settings = [(1.0, asks, "bare") for asks in (1, 2)]  # without a fence every order is obeyed anyway
    settings += [(g, asks, arm) for g in (0.3, 1.0) for asks in (1, 2) for arm in ("fenced", "whole")]
    share: dict[tuple[str, float, int, str], Counter[str]] = {}
    for gullible, asks, arm in settings:
        for name in args.sets:
            texts = corpus(rows_of(name), LABELS[name], args.texts // len(args.sets))
            with tempfile.TemporaryDirectory() as folder:
                found = measure(texts, LABELS[name], Path(folder) / "x", arm, gullible=gullible, asks=asks)
            for family, count in counted(found, LABELS[name]).items():
                sums = share.setdefault((family, gullible, asks, arm), Counter())
                sums.update(dataclasses.asdict(count))
        h, c = (share[family, gullible, asks, arm] for family in ("hostile", "clean"))
        accepted = h["accepted"] + c["accepted"]
        print(
            f"gullible {gullible} asks {asks} {arm:6}:",
            f"{h['flipped']} of {h['texts']} hostile texts accepted with another label than their own",
            f"({h['flipped'] / h['texts']:.2%}; {(h['flipped'] + c['flipped']) / accepted:.2%} of {accepted}",
            f"accepted); suspect {h['suspect'] / h['texts']:.1%}, of {c['texts']} clean {c['suspect']};",
            f"clean accepted {c['accepted'] / c['texts']:.1%};",
            f"outside the labels {h['outside'] + c['outside']}",
            flush=True,
        )
    for family in FAMILIES:
        cells = []
        for setting in settings:
            s = share[(family, *setting)]
            cells.append(f"{s['flipped'] / s['texts']:6.1%}")
        s = share[family, 1.0, 1, "whole"]
        print(
            f"{family:18}", *cells, f"{s['suspect'] / s['texts']:7.1%} {1 - s['accepted'] / s['texts']:7.1%}"
        )


if __name__ == "__main__":
    main()
