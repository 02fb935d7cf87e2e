"""How far calibrated confidence and consensus hold on recorded answers of real models.

    python tests/benchmarks/calibration.py tokens
    python tests/benchmarks/calibration.py mcq --seeds 20
    python tests/benchmarks/calibration.py gwsd --seeds 20
    python tests/benchmarks/calibration.py babe --seeds 20

`tokens`: of the rows with recorded candidate tokens, how many give a distribution over the options, and
why the others give none. `mcq`: calibration error of raw and of calibrated confidence, each source split at
random (half of it, at most 200 answers, to fit). `gwsd`: the same for GPT-4o's stated confidence with 200
answers. The floor is what a perfectly calibrated source of the same confidences shows on as many items.
`babe`: accuracy of consensus over all recorded models of a prompt, with 50 to 200 items that people answered,
on the others.

Needs the shared data sets beside the project (`../shared/data`). Prints JSON, one line a figure; calibration
error is over 15 bins of equal mass.

2026-11-21, 20 seeds each:

    tokens  2,872 rows: 2,814 distributions (1,501 with spellings merged), 4 not parsed, 54 whose recorded
            token is not the answer's
    mcq     held-out calibration error, raw -> calibrated (floor), worst source first:
            lsat gpt-4o tokens 0.704 -> 0.078 (0.056), lsat gpt-4o stated 0.528 -> 0.076 (0.067),
            sat_en deepseek_v3 stated 0.257 -> 0.037 (0.026), sciq gpt-4o stated 0.048 -> 0.021 (0.013);
            of 30 sources one got worse: lsat gemini-2.5-pro stated 0.038 -> 0.041 (0.024)
    gwsd    0.066 -> 0.049 (0.018), largest 0.100, fell in 18 of 20 seeds

    babe, 50 answers of people     majority  log-odds  D-S anchored  matrix  weighted  single picked by people
    zero-shot                       0.772     0.801     0.806         0.799   0.813     0.805
    zero-shot-system                0.754     0.814     0.822         0.812   0.833     0.827
    zero-shot-cot                   0.797     0.796     0.804         0.800   0.799     0.718
    2-shot                          0.825     0.832     0.819         0.808   0.838     0.820
    4-shot                          0.819     0.825     0.817         0.802   0.832     0.822
    8-shot                          0.818     0.826     0.821         0.807   0.832     0.815
    2-shot-cot                      0.866     0.871     0.868         0.860   0.885     0.882
    4-shot-cot                      0.855     0.859     0.856         0.845   0.866     0.849
    8-shot-cot                      0.856     0.855     0.858         0.846   0.861     0.833

    Weighted less majority at 4-shot, 95 % interval over items: 0.014 [0.007, 0.020] with 50 answers,
    0.019 [0.012, 0.027] with 100, 0.023 [0.015, 0.031] with 200; the best model in hindsight is at 0.851.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from llmal.prompts.codes import code_of, codes_for
from llmal.records import Label, LabelSchema
from llmal.stats.calibration import expected_calibration_error
from llmal.stats.calibrators_choice import choose
from llmal.stats.votes import NONE, complete, dawid_skene, log_odds, majority, suspects
from llmal.stats.weighted import weighted

SHARED = Path(os.environ.get("LLMAL_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
NAMES = ["not_biased", "biased"]
ANSWERS = (50, 100, 200)
PROMPTS = (
    "zero-shot",
    "zero-shot-system",
    "zero-shot-cot",
    "2-shot",
    "4-shot",
    "8-shot",
    "2-shot-cot",
    "4-shot-cot",
    "8-shot-cot",
)


def rows_of(path: str) -> list[dict[str, Any]]:
    return pq.read_table(SHARED / path).to_pylist()


def read(row: dict[str, Any]) -> tuple[dict[str, float] | None, float, str]:
    """Option -> probability with spellings merged, mass outside the options, and why there is none."""
    if row["label"] is None:
        return None, 0.0, "the answer was not parsed"
    if row["top_tokens"] is None:
        return None, 0.0, "no candidates were recorded"
    letters = "ABCDE" if row["stated_probs"] is None else "ABCDE"[: len(row["stated_probs"])]
    codes = codes_for(LabelSchema("single", tuple(Label(name=f"option {c}") for c in letters), False))
    mass, outside = dict.fromkeys(codes.labels, 0.0), 0.0
    for token, p in zip(row["top_tokens"], row["top_probs"], strict=True):
        option = code_of(token, codes)
        if option is None:
            outside += p
        else:
            mass[option] += p
    total = sum(mass.values())
    if total < 0.5:
        return None, outside, "the token recorded is not the answer's: most of its mass is on no option"
    return {c: p / total for c, p in mass.items()}, outside, ""


def tokens() -> None:
    rows = [
        r for r in rows_of("mcq_confidence/llm_labels.parquet") if r["annotator"] in ("gpt-4o", "deepseek_v3")
    ]
    found = [(r, *read(r)) for r in rows]
    merged = sum(
        len({t.strip() for t in r["top_tokens"]}) < 5 for r, probs, _, _ in found if probs is not None
    )
    say(
        figure="tokens",
        rows=len(rows),
        distribution=sum(probs is not None for _, probs, _, _ in found),
        spellings_merged=merged,
        mean_mass_outside=round(float(np.mean([o for _, probs, o, _ in found if probs is not None])), 6),
        reasons=dict(Counter(why for _, _, _, why in found if why)),
    )


def sources() -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    """Source -> raw confidence, right or wrong, predicted option."""
    out = {}
    rows = rows_of("mcq_confidence/llm_labels.parquet")
    for task, who in sorted({(r["task"], r["annotator"]) for r in rows}):
        own = [r for r in rows if (r["task"], r["annotator"]) == (task, who) and r["label"] is not None]
        said = [(r, r["confidence"]) for r in own if r["confidence"] is not None]
        tokens = [
            (r, probs[r["label"]]) for r in own if (probs := read(r)[0]) is not None and r["label"] in probs
        ]
        for kind, pairs in (("stated", said), ("tokens", tokens)):
            if len(pairs) >= 80:
                raw = np.clip([c for _, c in pairs], 0, 1)
                right = np.array([r["label"] == r["gold"] for r, _ in pairs])
                out[f"{task} {who} {kind}"] = (raw, right, [r["label"] for r, _ in pairs])
    return out


def split(raw, right, classes, n, seed):
    """Held-out calibration error raw, calibrated, and of a perfectly calibrated source; the method chosen."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(raw))
    fit, held = order[:n], order[n:]
    made = choose(raw[fit], right[fit], [classes[i] for i in fit])
    values = made(raw[held], [classes[i] for i in held])
    ece = expected_calibration_error
    floor = ece(values, rng.random(len(held)) < values)
    return ece(raw[held], right[held]), ece(values, right[held]), floor, made.name


def summary(name: str, raw, right, classes, n: int, seeds: int) -> None:
    found = [split(raw, right, classes, n, seed) for seed in range(seeds)]
    before, after, floor = np.array([f[:3] for f in found], float).T
    say(
        figure=name,
        answers=n,
        held_out=len(raw) - n,
        accuracy=round(float(right.mean()), 3),
        raw=round(before.mean(), 4),
        calibrated=round(after.mean(), 4),
        largest=round(after.max(), 4),
        floor=round(floor.mean(), 4),
        fell=round(float((after < before).mean()), 2),
        methods=dict(Counter(f[3] for f in found)),
    )


def mcq(seeds: int) -> None:
    for name, (raw, right, classes) in sources().items():
        summary(name, raw, right, classes, min(200, len(raw) // 2), seeds)


def gwsd(seeds: int) -> None:
    gold = {r["id"]: r["label_binary"] for r in rows_of("gwsd/examples.parquet")}
    rows = rows_of("gwsd/llm_labels.parquet")
    raw = np.array([r["confidence"] for r in rows])
    right = np.array([r["label"] == gold[r["id"]] for r in rows])
    summary("gwsd gpt-4o stated", raw, right, [r["label"] for r in rows], 200, seeds)


def votes(prompts: list[str]) -> tuple[dict[str, tuple[list[str], np.ndarray]], np.ndarray]:
    """Prompt -> models and their (n, m) votes; the truth."""
    examples = rows_of("babe/examples.parquet")
    place = {r["id"]: i for i, r in enumerate(examples)}
    truth = np.array([NAMES.index(r["label"]) for r in examples])
    table = pq.read_table(SHARED / "babe/llm_labels.parquet", columns=["id", "annotator", "prompt", "label"])
    runs: dict[str, dict[str, np.ndarray]] = {}
    columns = (table[name].to_pylist() for name in ("id", "annotator", "prompt", "label"))
    for row_id, model, prompt, label in zip(*columns, strict=True):
        if prompt in prompts:
            column = runs.setdefault(prompt, {}).setdefault(model, np.full(len(examples), NONE))
            column[place[row_id]] = NONE if label is None else NAMES.index(label)
    models = {p: sorted(runs[p]) for p in prompts}
    by_prompt = {p: (who, np.stack([runs[p][w] for w in who], axis=1)) for p, who in models.items()}
    return by_prompt, truth


def consensus(table, known, rows, truth) -> dict[str, np.ndarray]:
    """Method -> right or wrong on the items that people did not answer."""
    mine = known != NONE
    given = (table[mine] != NONE).sum(axis=0)
    hits = (table[mine] == known[mine][:, None]).sum(axis=0)
    accuracy = (hits + 1) / (given + 2)
    probs = {
        "majority": majority(table, 2),
        "log-odds": majority(table, 2, weights=log_odds(accuracy, 2)),
        "dawid-skene": dawid_skene(table, 2).probs,
        "dawid-skene anchored": dawid_skene(table, 2, known=known).probs,
        "matrix": complete(table, 2, balance=np.bincount(known[mine], minlength=2) / mine.sum()).probs,
        "weighted": weighted(table, 2, known=known).probs,
    }
    out = {name: (p.argmax(axis=1) == truth)[rows] for name, p in probs.items()}
    out["single picked by people"] = (table[:, int(accuracy.argmax())] == truth)[rows]
    return out


def babe(seeds: int, prompts: list[str]) -> None:
    by_prompt, truth = votes(prompts)
    for prompt, (models, table) in by_prompt.items():
        alone = (table == truth[:, None]).mean(axis=0)
        bad = suspects(table, 2, names=NAMES, asked=np.ones(table.shape, bool))
        say(
            figure=f"babe {prompt}",
            best_single=[models[int(alone.argmax())], round(float(alone.max()), 4)],
            suspects={models[s.annotator]: s.why for s in bad},
            without_people=round(float((weighted(table, 2).probs.argmax(axis=1) == truth).mean()), 4),
        )
        for n in ANSWERS:
            runs: dict[str, list[np.ndarray]] = {}
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                known = np.full(len(truth), NONE)
                drawn = rng.choice(len(truth), n, replace=False)
                known[drawn] = truth[drawn]
                for name, right in consensus(table, known, known == NONE, truth).items():
                    row = np.full(len(truth), np.nan)
                    row[known == NONE] = right
                    runs.setdefault(name, []).append(row)
            means = {name: np.nanmean(r, axis=0) for name, r in runs.items()}  # of each item over the seeds
            say(
                figure=f"babe {prompt}, {n} answers",
                accuracy={name: round(float(np.nanmean(m)), 4) for name, m in means.items()},
                over_majority={
                    name: gain(m - means["majority"]) for name, m in means.items() if name != "majority"
                },
            )


def gain(difference: np.ndarray) -> list[float]:
    """Mean paired difference and its 95 % bootstrap interval over items."""
    rng = np.random.default_rng(0)
    kept = difference[~np.isnan(difference)]
    means = [kept[rng.integers(len(kept), size=len(kept))].mean() for _ in range(1000)]
    return [round(float(v), 4) for v in (kept.mean(), *np.quantile(means, [0.025, 0.975]))]


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["tokens", "mcq", "gwsd", "babe"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=list(PROMPTS))
    given = parser.parse_args()
    if given.part == "tokens":
        tokens()
    elif given.part == "babe":
        babe(given.seeds, given.prompts)
    else:
        {"mcq": mcq, "gwsd": gwsd}[given.part](given.seeds)


if __name__ == "__main__":
    main()
