"""`kill -9` never makes anyone pay twice; the endpoint's own counters decide (tests/benchmarks/kills.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/kills.py"


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_no_committed_answer_is_asked_again_however_often_the_run_is_killed(kills):
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(kills)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    assert found["committed_answers_asked_again"] == 0
    assert found["most_repeats_a_kill"] <= found["in_flight"]
    assert found["repeated_but_not_listed"] == 0
    assert found["calls_when_run_again"] == 0
    assert found["repeats_in_all"] > 0, "no kill fell into open calls: the test proves nothing"
