"""Real text, a real model's recorded answers, through HTTP to an exported student.

See tests/benchmarks/real_answers.py.
"""

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

# mr: what TF-IDF and logistic regression reach with 8,278 of ChatGPT's labels. trec: the same with 4,950 gold
# labels.
FLOORS = {"mr": 0.780, "trec": 0.833}


@pytest.mark.parametrize("name", FLOORS)
def test_a_student_of_1500_calls_beats_the_floor_of_thousands_of_labels(name):
    script = ROOT / "tests/benchmarks/real_answers.py"
    command = [sys.executable, str(script), name, "--seeds", "0"]
    environment = {**os.environ, "LLMAL_SHARED": str(SHARED)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = {row["student"]: row for row in map(json.loads, ran.stdout.splitlines()[:2])}
    assert rows["finetune"]["accuracy"] >= FLOORS[name]
    assert rows["finetune"]["calls_at_server"] == rows["finetune"]["calls"] <= 1500
