"""Confidence and votes of real models: read, calibrated, combined, and used by a whole run.

Few seeds of tests/benchmarks/calibration.py, and a run on GPT-4o's recorded answers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llmal.explain import explain, explain_text
from llmal.folder import opened
from llmal.report import full, full_text
from llmal.runner import run
from llmal.spec import Pipeline
from llmal.state import recipes

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LLMAL_SHARED", ROOT.parent / "shared"))

pytestmark = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="needs the shared data sets beside the project"
)


def figures(part, seeds, *more):
    script = ROOT / "tests/benchmarks/calibration.py"
    command = [sys.executable, str(script), part, "--seeds", str(seeds), *more]
    environment = {**os.environ, "LLMAL_SHARED": str(SHARED)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return {row["figure"]: row for row in map(json.loads, ran.stdout.splitlines())}


def test_every_recorded_answer_gives_a_distribution_or_a_reason():
    found = figures("tokens", 1)["tokens"]
    assert found["distribution"] + sum(found["reasons"].values()) == found["rows"]
    assert found["distribution"] >= 0.97 * found["rows"]
    assert found["spellings_merged"] > 1000, "spellings of one option are counted apart"


@pytest.mark.slow
def test_calibrated_confidence_of_no_recorded_model_is_worse_than_raw_by_more_than_a_hundredth():
    found = figures("mcq", 3)
    assert len(found) >= 25
    assert max(row["calibrated"] - row["raw"] for row in found.values()) <= 0.01
    off = [row for row in found.values() if row["raw"] > 0.15]
    assert len(off) >= 8
    assert all(row["calibrated"] < 0.6 * row["raw"] for row in off)


def test_two_hundred_answers_calibrate_stated_confidence_to_a_twentieth():
    (found,) = figures("gwsd", 20).values()
    assert found["calibrated"] <= 0.05 < found["raw"]


@pytest.mark.slow
def test_a_weighted_vote_beats_the_majority_of_recorded_models_and_useless_ones_are_named():
    found = figures("babe", 2, "--prompts", "4-shot", "2-shot")
    for n in (100, 200):
        row = found[f"babe 4-shot, {n} answers"]
        mean, low, _ = row["over_majority"]["weighted"]
        assert mean >= 0.01
        assert low > 0
    best = found["babe 4-shot"]["best_single"][1]
    assert found["babe 4-shot, 200 answers"]["accuracy"]["weighted"] >= best - 0.02
    assert set(found["babe 4-shot"]["suspects"]) == {"falcon_7b", "flan_t5_base", "flan_t5_large"}
    assert set(found["babe 2-shot"]["suspects"]) == {
        "falcon_7b",
        "flan_t5_base",
        "flan_t5_large",
        "mistral_7b",
    }


def prepare(folder, n=900):
    examples = pq.read_table(SHARED / "data/gwsd/examples.parquet").to_pylist()[:n]
    said = pq.read_table(SHARED / "data/gwsd/llm_labels.parquet").to_pylist()
    rows = [{"id": r["id"], "text": r["text"], "label": r["label_binary"]} for r in examples]
    (folder / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    keep = [{k: r[k] for k in ("id", "label", "confidence")} for r in said]
    (folder / "said.jsonl").write_text("".join(json.dumps(r) + "\n" for r in keep), encoding="utf-8")
    return {r["id"]: r["label_binary"] for r in examples}


def pipeline(judge):
    return Pipeline.model_validate(
        {
            "corpus": {"path": "c.jsonl", "id": "id", "gold": "label"},
            "labels": {"names": {"agrees": "", "not_agrees": ""}},
            "audit": {"size": 200, "annotate": True},
            "rounds": {"max": 2, "size": 200},
            "embed": "hashing",
            "select": {"first": "uniform", "then": "uniform"},
            "annotate": {"use": "recorded", "path": "said.jsonl", "confidence": "confidence"},
            "filter": judge,
            "train": {"rounds": "linear", "final": "linear"},
        }
    )


def accepted(folder, judge, gold):
    """Share right among accepted picks, and how many; the measures; an id that was held."""
    done = run(pipeline(judge), folder / "run", home=folder)
    with opened(folder / "run") as (spec, store, ctx):
        names = recipes(spec, ctx, store)
        ids = {item: row_id for _, row_id, item, _, _ in store.rows()}
        given, audit = store.annotations(names.annotations), set(store.audit())
        decided = {s: d for s, d in store.decisions(names.decisions).items() if s not in audit}
        taken = [given[s].labels[0] == gold[ids[s]] for s, d in decided.items() if d.verdict == "accept"]
        held = next(ids[s] for s, d in sorted(decided.items()) if d.verdict == "hold" and d.score)
    return sum(taken) / len(taken), len(taken), done.measures, held


def test_a_run_accepts_by_calibrated_confidence_says_so_and_changes_its_mind_without_asking_again(tmp_path):
    gold = prepare(tmp_path)
    raw, n_raw, before, _ = accepted(tmp_path, {"use": "confidence", "at_least": 0.8}, gold)
    right, n, after, held = accepted(tmp_path, {"use": "calibrated", "at_least": 0.8}, gold)
    assert right > raw + 0.05
    assert n > 0.4 * n_raw
    assert after["annotator.ece"] == before["annotator.ece"]
    assert after["annotator.calibrated_ece"]["value"] < after["annotator.ece"]["value"]
    assert "annotator.calibrated_ece" not in before
    words = explain_text(explain(tmp_path / "run", held))
    assert "hold: calibrated 0." in words
    assert "(raw recorded 0." in words
    assert "on 200 answers)" in words
    assert "annotator" in full_text(full(tmp_path / "run"))
    again = run(pipeline({"use": "calibrated", "at_least": 0.8}), tmp_path / "run", home=tmp_path)
    assert again.facts_added == 0
