"""Choosing among real models' recorded answers: dearer errors mean cheaper calls, and never a bad choice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LLMAL_SHARED", ROOT.parent / "shared"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SHARED / "data").is_dir(), reason="needs the shared data sets beside the project"
    ),
]


def test_recorded_models_are_chosen_no_worse_than_the_best_single_one_or_a_random_mix():
    script = ROOT / "tests/benchmarks/uniroute.py"
    environment = {**os.environ, "LLMAL_SHARED": str(SHARED)}
    ran = subprocess.run(
        [sys.executable, str(script), "--seeds", "5"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = [json.loads(line) for line in ran.stdout.splitlines()[1:]]
    ours = [row for row in rows if row["strength"] != 5.0]
    best = {row["v"]: row["best"] for row in ours if "best" in row}
    for v in (100, 300):
        curve = [row for row in ours if row["v"] == v and "weight" in row]
        costs = [row["cost"] for row in curve]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] < 0.05
        assert curve[0]["router"] > best[v] - 0.03
        assert all(row["gain"] > -1.0 for row in curve)
